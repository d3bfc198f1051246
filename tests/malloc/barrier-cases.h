/* SPDX-License-Identifier: MIT */
/*
 * What the programs share that show a barrier one thing at a time.  Usage of each:
 *
 *	barrier-... CASE none|wp|tracer [USER-ID]
 *
 * Exit 0: it copes; 2: this tier cannot be had here.
 */
#ifndef FIRN_TESTS_MALLOC_BARRIER_CASES_H
#define FIRN_TESTS_MALLOC_BARRIER_CASES_H

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "barrier.h"

#define PAGES 1024u

static enum firn_barrier_tier tier;
static struct job job = { .seed = 777 };

static inline void nap_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	firn_os.call(SYS_nanosleep, (long)&t, 0, 0, 0, 0, 0);
}

/* Folds until it works; a loaded machine may need a few attempts. */
static inline void must_fold(void)
{
	int err = 0;

	for (int i = 0; i < 200; i++) {
		err = fold_once(&job, 4);
		if (!err)
			return;
		nap_ms(1);
	}
	fail("no fold: %s (%d)", job.why, err);
}

/* Does not fold, and says why. */
static inline void must_refuse(int want, const char *why)
{
	int err = 0;

	for (int i = 0; i < 20; i++) {
		err = fold_once(&job, 4);
		if (err == want && strstr(job.why, why))
			return;
		/* A thread that happened to be late is another reason to refuse. */
		if (!err || (err != -EAGAIN && err != want))
			break;
	}
	fail("not refused for \"%s\" but: %s (%d)", why, job.why, err);
}

static inline void *idle_thread(void *arg)
{
	(void)arg;
	while (!atomic_load(&done))
		usleep(2000);
	return NULL;
}

static inline pthread_t thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	CHECK(pthread_create(&t, NULL, fn, arg) == 0);
	return t;
}

/* In the none tier there are no other threads to speak of. */
static inline void company(void)
{
	if (tier != FIRN_BARRIER_NONE)
		thread(idle_thread, NULL);
}

/* A thread that writes to page 0 and says how often. */
static _Atomic uint64_t beats;

static inline void *beat(void *arg)
{
	(void)arg;
	while (!atomic_load(&done)) {
		(*(volatile uint64_t *)live(0))++;
		atomic_fetch_add(&beats, 1);
	}
	return NULL;
}

struct barrier_case {
	const char *name;
	void (*run)(void);
	bool threads;           /* not for the none tier */
};

/* Can this tier be had at all?  In a child: the answer may leave traces. */
static inline bool possible(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		int err;

		company();
		do
			err = fold_once(&job, 1);
		while (err == -EAGAIN);
		if (err)
			printf("no folding: %s (%d)\n", job.why, err);
		fflush(stdout);
		_exit(err != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status == 0;
}

/* The table ends with a case without a name. */
static inline int barrier_main(const struct barrier_case *c, int argc, char **argv)
{
	CHECK(argc > 2);
	firn_config.barrier = tier = tier_of(argv[2]);
	arena_open(PAGES);
	if (argc > 3 && !getuid()) {
		CHECK(setgid((gid_t)atoi(argv[3])) == 0 && setuid((uid_t)atoi(argv[3])) == 0);
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	}
	if (!possible())
		return 2;
	while (c->name && strcmp(c->name, argv[1]))
		c++;
	if (!c->name)
		fail("no case %s", argv[1]);
	CHECK(!c->threads || tier != FIRN_BARRIER_NONE);
	c->run();
	atomic_store(&done, true);
	printf("%s, %s: ok\n", argv[1], argv[2]);
	fflush(stdout);
	_exit(0);
}

#endif
