/* SPDX-License-Identifier: MIT */
#include "transfer/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define THREAD_STACK (256u << 10)
#define MAX_WORKERS 16u

struct firn_workers {
	pthread_mutex_t lock;
	pthread_cond_t wake, idle;
	unsigned int nthreads, active;
	uint64_t round;                 /* number of the current loop */
	bool quit;
	void (*fn)(void *arg, uint32_t i, uint32_t worker);
	void *arg;
	uint32_t n;
	atomic_uint next;
	struct member {
		struct firn_workers *w;
		pthread_t thread;
		uint32_t number;
	} members[MAX_WORKERS];
};

static void share(struct firn_workers *w, uint32_t worker)
{
	uint32_t i;

	while ((i = atomic_fetch_add(&w->next, 1)) < w->n)
		w->fn(w->arg, i, worker);
}

static void *member(void *arg)
{
	struct member *m = arg;
	struct firn_workers *w = m->w;
	uint64_t seen = 0;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->quit && w->round == seen)
			pthread_cond_wait(&w->wake, &w->lock);
		if (w->quit)
			break;
		seen = w->round;
		pthread_mutex_unlock(&w->lock);
		share(w, m->number);
		pthread_mutex_lock(&w->lock);
		if (!--w->active)
			pthread_cond_signal(&w->idle);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static int spawn(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	err = pthread_create(ret, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

int firn_workers_open(struct firn_workers **ret, unsigned int n)
{
	struct firn_workers *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	pthread_cond_init(&w->idle, NULL);
	for (unsigned int i = 1; i < n && i < MAX_WORKERS; i++) {
		struct member *m = &w->members[w->nthreads];
		int err;

		m->w = w;
		m->number = w->nthreads + 1;
		err = spawn(&m->thread, member, m);
		if (err) {
			firn_workers_close(w);
			return err;
		}
		w->nthreads++;
	}
	*ret = w;
	return 0;
}

void firn_workers_close(struct firn_workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (unsigned int i = 0; i < w->nthreads; i++)
		pthread_join(w->members[i].thread, NULL);
	pthread_cond_destroy(&w->wake);
	pthread_cond_destroy(&w->idle);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void firn_workers_run(struct firn_workers *w, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker),
		      void *arg)
{
	pthread_mutex_lock(&w->lock);
	w->fn = fn;
	w->arg = arg;
	w->n = n;
	atomic_store(&w->next, 0);
	w->active = w->nthreads;
	w->round++;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	share(w, 0);
	pthread_mutex_lock(&w->lock);
	while (w->active)
		pthread_cond_wait(&w->idle, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

struct firn_lane {
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	pthread_t thread;
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool busy, quit;
};

static void *drive(void *arg)
{
	struct firn_lane *l = arg;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		int r;

		while (!l->quit && !l->busy)
			pthread_cond_wait(&l->wake, &l->lock);
		if (!l->busy)
			break;
		pthread_mutex_unlock(&l->lock);
		r = l->fn(l->arg);
		pthread_mutex_lock(&l->lock);
		l->result = r;
		l->busy = false;
		pthread_cond_signal(&l->done);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int firn_lane_open(struct firn_lane **ret)
{
	struct firn_lane *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->wake, NULL);
	pthread_cond_init(&l->done, NULL);
	err = spawn(&l->thread, drive, l);
	if (err) {
		free(l);
		return err;
	}
	*ret = l;
	return 0;
}

void firn_lane_close(struct firn_lane *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->quit = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->wake);
	pthread_cond_destroy(&l->done);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void firn_lane_begin(struct firn_lane *l, int (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&l->lock);
	l->fn = fn;
	l->arg = arg;
	l->busy = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

int firn_lane_wait(struct firn_lane *l)
{
	int r;

	pthread_mutex_lock(&l->lock);
	while (l->busy)
		pthread_cond_wait(&l->done, &l->lock);
	r = l->result;
	l->result = 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}
