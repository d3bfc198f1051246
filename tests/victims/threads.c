/* SPDX-License-Identifier: MIT */
/*
 * 64 threads, each computing over its own memory and its thread-local storage, with a mutex, a condition
 * variable and futex waits between them.  "verify" ends and joins them all, checks, and starts them again:
 * the kernel clears each thread's tid word at its exit, wherever that word's page is.
 */
#include "victim.h"

#include <linux/futex.h>

#define THREADS 64
#define PAGES 256

struct worker {
	pthread_t thread;
	int index;
	char *memory;                   /* PAGES pages, known to nobody but this thread */
	uint64_t gen[PAGES];
	uint64_t turns, bad;
};

static struct worker workers[THREADS];
static __thread uint64_t tls[2048];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static uint64_t under_lock, signalled;
static uint32_t futex_word;
static atomic_bool ending;

static void bad(struct worker *w, const char *what, uint64_t at)
{
	if (!w->bad++)
		dprintf(2, "thread %d: %s (%" PRIu64 ") after %" PRIu64 " turns\n", w->index, what, at, w->turns);
}

static void page_put(struct worker *w, unsigned int k)
{
	struct v_page p = { .id = (uint64_t)w->index << 40 | (uint64_t)k << 20 | w->gen[k],
			    .kind = k % 3 ? V_HALF : V_RANDOM, .patch_at = V_WORDS };

	v_fill(&p, (volatile uint64_t *)(w->memory + k * V_PAGE));
}

static void page_check(struct worker *w, unsigned int k)
{
	struct v_page p = { .id = (uint64_t)w->index << 40 | (uint64_t)k << 20 | w->gen[k],
			    .kind = k % 3 ? V_HALF : V_RANDOM, .patch_at = V_WORDS };

	if (v_differs(&p, p.kind, (volatile uint64_t *)(w->memory + k * V_PAGE)) >= 0)
		bad(w, "a page of its own", k);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t rng = (uint64_t)w->index + 1, mine = 0;
	struct timespec pause = { 0, 500000 };

	for (unsigned int i = 0; i < 2048; i++)
		tls[i] = v_mix((uint64_t)w->index * 4096 + i);
	while (!atomic_load(&ending)) {
		unsigned int k;

		rng = v_mix(rng + 1);
		k = (unsigned int)(rng % PAGES);
		page_check(w, k);
		w->gen[k]++;
		page_put(w, k);
		k = (unsigned int)(rng >> 32) % 2048;
		if (tls[k] != v_mix((uint64_t)w->index * 4096 + k))
			bad(w, "thread-local storage", k);
		w->turns++;
		switch (w->index % 4) {
		case 0:
			pthread_mutex_lock(&lock);
			under_lock++;
			pthread_mutex_unlock(&lock);
			mine++;
			nanosleep(&pause, NULL);
			break;
		case 1:
			pthread_mutex_lock(&lock);
			signalled++;
			pthread_cond_broadcast(&cond);
			pthread_mutex_unlock(&lock);
			nanosleep(&pause, NULL);
			break;
		case 2: {
			uint64_t was;

			pthread_mutex_lock(&lock);
			was = signalled;
			while (signalled == was && !atomic_load(&ending))
				pthread_cond_wait(&cond, &lock);
			pthread_mutex_unlock(&lock);
			break;
		}
		default: {
			/* Nobody wakes it before the end: threads that sleep while they are evicted. */
			struct timespec t = { w->index & 4 ? 3600 : 0, 20000000 };

			syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
		}
		}
	}
	for (unsigned int i = 0; i < 2048; i++) {
		if (tls[i] != v_mix((uint64_t)w->index * 4096 + i))
			bad(w, "thread-local storage at the end", i);
	}
	return (void *)(uintptr_t)mine;
}

static void start(void)
{
	atomic_store(&ending, false);
	futex_word = 0;
	under_lock = 0;
	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			v_die("pthread_create");
	}
}

static uint64_t finish(uint64_t *turns)
{
	uint64_t counted = 0, wrong = 0;
	void *ret;

	pthread_mutex_lock(&lock);
	atomic_store(&ending, true);
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	__atomic_store_n(&futex_word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &futex_word, FUTEX_WAKE_PRIVATE, 1000, NULL, NULL, 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, &ret);
		counted += (uintptr_t)ret;
		*turns += workers[i].turns;
		for (unsigned int k = 0; k < PAGES; k++)
			page_check(&workers[i], k);
		wrong += workers[i].bad;
		workers[i].bad = 0;
	}
	if (counted != under_lock) {
		dprintf(2, "under the lock %" PRIu64 ", counted %" PRIu64 "\n", under_lock, counted);
		wrong++;
	}
	return wrong;
}

static int cmd_verify(char *args)
{
	uint64_t turns = 0, wrong = finish(&turns);

	(void)args;
	start();
	v_say("%" PRIu64 " turns, %" PRIu64 " wrong", turns, wrong);
	return wrong ? -1 : 0;
}

/* Every thread has done something since the last time. */
static int cmd_alive(char *args)
{
	uint64_t was[THREADS];
	int tries;

	(void)args;
	for (int i = 0; i < THREADS; i++)
		was[i] = workers[i].turns;
	for (tries = 0; tries < 1000; tries++) {
		int stuck = 0;

		for (int i = 0; i < THREADS; i++)
			stuck += !(i % 4 == 3 && i & 4) && *(volatile uint64_t *)&workers[i].turns == was[i];
		if (!stuck)
			break;
		v_sleep_ms(10);
	}
	if (tries == 1000)
		return v_say("a thread makes no progress");
	return 0;
}

static const struct v_command commands[] = {
	{ "verify", cmd_verify },
	{ "touch-random", cmd_verify },
	{ "touch-order", cmd_alive },
	{ "alive", cmd_alive },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	v_start(argc, argv, 0, 16);
	for (int i = 0; i < THREADS; i++) {
		workers[i].index = i;
		workers[i].memory = v_map(PAGES, PROT_READ | PROT_WRITE, 0);
		for (unsigned int k = 0; k < PAGES; k++)
			page_put(&workers[i], k);
	}
	start();
	v_ready();
	return v_loop(commands);
}
