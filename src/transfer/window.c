/* SPDX-License-Identifier: MIT */
#include "transfer/window.h"

#include <string.h>
#include <time.h>

int firn_window_init(struct firn_window *w)
{
	pthread_condattr_t attr;
	int err;

	memset(w, 0, sizeof(*w));
	err = pthread_mutex_init(&w->lock, NULL);
	if (err)
		return -err;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	err = pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (err)
		pthread_mutex_destroy(&w->lock);
	return -err;
}

void firn_window_done(struct firn_window *w)
{
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
}

void firn_window_show(struct firn_window *w, const struct firn_packfile *pack, const struct firn_chunk *chunk,
		      const void *stored)
{
	pthread_mutex_lock(&w->lock);
	w->pack = NULL;
	while (w->users)
		pthread_cond_wait(&w->changed, &w->lock);
	w->pack = pack;
	w->chunk = *chunk;
	w->stored = stored;
	w->ncoming = 0;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void firn_window_announce(struct firn_window *w, uint32_t first, uint32_t n)
{
	pthread_mutex_lock(&w->lock);
	w->coming = first;
	w->ncoming = n;
	pthread_mutex_unlock(&w->lock);
}

void firn_window_shut(struct firn_window *w)
{
	firn_window_show(w, NULL, &(struct firn_chunk){ 0 }, NULL);
}

static struct timespec deadline(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += FIRN_WINDOW_WAIT_NS;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

const void *firn_window_enter(struct firn_window *w, const struct firn_packfile *pack, uint32_t block, bool patient)
{
	const void *stored = NULL;
	struct timespec until;
	bool waited = false;

	pthread_mutex_lock(&w->lock);
	/* What is coming is shut for a moment before it is shown. */
	while (patient && block - w->coming < w->ncoming) {
		if (!waited)
			until = deadline();
		waited = true;
		if (pthread_cond_timedwait(&w->changed, &w->lock, &until))
			break;
	}
	if (w->pack == pack && block - w->chunk.first < w->chunk.count) {
		const struct firn_packfile *file;
		uint32_t first = w->chunk.first;

		/* A chunk lies in one file. */
		firn_packfile_of(pack, &first);
		file = firn_packfile_of(pack, &block);
		stored = w->stored + (file->blocks[block].offset.v - file->blocks[first].offset.v);
		w->users++;
	}
	pthread_mutex_unlock(&w->lock);
	return stored;
}

void firn_window_leave(struct firn_window *w)
{
	pthread_mutex_lock(&w->lock);
	if (!--w->users)
		pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}
