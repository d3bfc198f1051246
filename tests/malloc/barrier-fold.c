/* SPDX-License-Identifier: MIT */
/*
 * usage: barrier-fold none|wp|tracer FOLDS [USER-ID] [THREADS]
 *
 * FOLDS pages are folded while threads read, write and count in them, and while the kernel writes into them:
 * pipes, UDP, and datagrams of AF_UNIX, whose loss an EFAULT would show.  Nothing may be lost and no call may
 * fail.  Exit 0: so it was; 2: this tier cannot be had here.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include "barrier.h"
#include "links.h"

#define PAGES 4096u
#define LATE_PAGES 2048u        /* the last of them: nothing is there until somebody writes */
#define SLOT 64u
#define SLOTS (QUARTER / SLOT)

static _Atomic uint64_t next_slot;
static _Atomic uint64_t writes, atomics, reads, calls;
static _Atomic uint64_t *shared;
static _Atomic int started;

/* A slot of 64 live bytes that nobody else has; spread over the pages. */
static void *slot(void)
{
	uint64_t n = atomic_fetch_add(&next_slot, 1);
	size_t early = PAGES - LATE_PAGES;

	CHECK(n < early * SLOTS);
	return live(n * 37 % early) + n / early * SLOT;
}

static void *writer(void *arg)
{
	enum { N = 200 };
	volatile uint64_t *mine[N];
	uint64_t count = 0;

	(void)arg;
	for (int i = 0; i < N; i++)
		mine[i] = slot();
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&done)) {
		for (int i = 0; i < N; i++) {
			uint64_t now = *mine[i];

			if (now != count)
				fail("a write was lost: %lu, not %lu", (unsigned long)now, (unsigned long)count);
			*mine[i] = now + 1;
		}
		count++;
	}
	atomic_fetch_add(&writes, count * N);
	return NULL;
}

static void *counter(void *arg)
{
	uint64_t n = 0;

	(void)arg;
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&done)) {
		atomic_fetch_add(shared, 1);
		n++;
	}
	atomic_fetch_add(&atomics, n);
	return NULL;
}

static void *reader(void *arg)
{
	enum { N = 500 };
	volatile uint64_t *mine[N];
	uint64_t n = 0;

	(void)arg;
	for (int i = 0; i < N; i++) {
		mine[i] = slot();
		for (unsigned int k = 0; k < SLOT / 8; k++)
			mine[i][k] = (uintptr_t)mine[i] * (k + 1);
	}
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&done)) {
		for (int i = 0; i < N; i++, n++) {
			unsigned int k = n % (SLOT / 8);

			if (mine[i][k] != (uintptr_t)mine[i] * (k + 1))
				fail("what was never written again has changed");
		}
	}
	atomic_fetch_add(&reads, n);
	return NULL;
}

/* Writes first into pages where nothing was, in the middle of their being folded. */
static void *toucher(void *arg)
{
	uint64_t s = 99, base = PAGES - LATE_PAGES;

	(void)arg;
	atomic_fetch_add(&started, 1);
	for (size_t i = 0; i < LATE_PAGES && !atomic_load(&done); i++) {
		size_t n = i + 1;

		*(volatile uint64_t *)live(base + i) = i + 1;
		for (int k = 0; k < 20; k++) {
			size_t p = random_next(&s) % n;

			if (*(volatile uint64_t *)live(base + p) != p + 1)
				fail("the first write to page %zu was lost", p);
		}
		usleep(500);
	}
	return NULL;
}

/* A writer whose writes and waits for them are interrupted all the time. */
static volatile uint64_t *signal_slot;

static void on_signal(int sig)
{
	(void)sig;
	(*signal_slot)++;
}

static void *signaller(void *arg)
{
	struct sigaction a = { .sa_handler = on_signal };
	pthread_t target;
	uint64_t n = 0;

	(void)arg;
	signal_slot = slot();
	CHECK(sigaction(SIGRTMIN + 2, &a, NULL) == 0);
	CHECK(pthread_create(&target, NULL, writer, NULL) == 0);
	while (!atomic_load(&done)) {
		CHECK(pthread_kill(target, SIGRTMIN + 2) == 0);
		for (n++; *signal_slot != n && !atomic_load(&done);)
			sched_yield();
	}
	CHECK(pthread_join(target, NULL) == 0);
	return NULL;
}

static void transfer(const char *what, const char *name, ssize_t r)
{
	if (r != SLOT)
		fail("%s of %s: %zd, errno %d", what, name, r, errno);
	atomic_fetch_add(&calls, 1);
}

static void *echo(void *arg)
{
	struct link *l = arg;
	char *buf = slot();

	for (;;) {
		ssize_t r = read(l->request[0], buf, SLOT);

		if (r == 0)
			return NULL;
		transfer("read", l->name, r);
		if (!*(uint64_t *)buf)
			return NULL;
		transfer("write", l->name, write(l->answer[1], buf, SLOT));
	}
}

static void *asker(void *arg)
{
	struct link *l = arg;
	char *out = slot(), *in = slot();
	struct epoll_event e = { .events = EPOLLIN }, *got = slot();
	int ep = epoll_create1(EPOLL_CLOEXEC);

	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, l->answer[0], &e) == 0);
	atomic_fetch_add(&started, 1);
	for (uint64_t n = 1; !atomic_load(&done); n++) {
		for (unsigned int k = 0; k < SLOT / 8; k++)
			((uint64_t *)out)[k] = n + k;
		transfer("write", l->name, write(l->request[1], out, SLOT));
		if (l->own_epoll) {
			int r = epoll_wait(ep, got, 1, 20000);

			if (r != 1)
				fail("epoll_wait for %s: %d, errno %d", l->name, r, errno);
		}
		transfer("read", l->name, read(l->answer[0], in, SLOT));
		for (unsigned int k = 0; k < SLOT / 8; k++)
			if (((uint64_t *)in)[k] != n + k)
				fail("%s: not what was sent", l->name);
	}
	memset(out, 0, SLOT);
	transfer("write", l->name, write(l->request[1], out, SLOT));
	return NULL;
}

static void become(int uid)
{
	if (!uid || getuid())
		return;
	CHECK(setgid((gid_t)uid) == 0 && setuid((uid_t)uid) == 0);
	/* As after an exec by that user. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* One thread: its own writes between the folds. */
static int fold_alone(struct job *j, uint64_t want)
{
	uint64_t *mine[300], round = 0;

	for (int i = 0; i < 300; i++)
		mine[i] = slot();
	for (; atomic_load(&folded) < want; round++) {
		int err = fold_once(j, 16);

		if (err)
			return err;
		if (j->tier != FIRN_BARRIER_NONE)
			fail("one thread, and the tier is %s", tier_names[j->tier]);
		for (int i = 0; i < 300; i++)
			if ((*mine[i])++ != round)
				fail("a write was lost");
	}
	atomic_store(&writes, round * 300);
	return 0;
}

int main(int argc, char **argv)
{
	struct job j = { .seed = 12345 };
	static const char *const names[] = { "pipe", "UDP", "AF_UNIX", "pipe2" };
	void (*const pairs[])(int *) = { pipe_pair, udp_pair, unix_pair, pipe_pair };
	struct link links[4];
	uint64_t want = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
	int threads = argc > 4 ? atoi(argv[4]) : 0, begun = 0, busy = 0, n = 0, err = 0;
	pthread_t t[600];
	struct timespec from, to;

	CHECK(argc > 1 && threads < 500);
	firn_config.barrier = tier_of(argv[1]);
	become(argc > 3 ? atoi(argv[3]) : 0);
	arena_open(PAGES);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (firn_config.barrier == FIRN_BARRIER_NONE) {
		err = fold_alone(&j, want);
		goto out;
	}
	shared = slot();
	for (int i = 0; i < 4; i++) {
		link_open(&links[i], names[i], pairs[i]);
		links[i].own_epoll = i >= 2;
		CHECK(pthread_create(&t[n++], NULL, echo, &links[i]) == 0);
		CHECK(pthread_create(&t[n++], NULL, asker, &links[i]) == 0);
		begun++;
	}
	void *(*const work[])(void *) = { writer, counter, counter, reader, toucher, signaller };

	for (size_t i = 0; i < sizeof(work) / sizeof(work[0]); i++, begun++)
		CHECK(pthread_create(&t[n++], NULL, work[i], NULL) == 0);
	for (int i = 0; i < threads; i++, begun++)
		CHECK(pthread_create(&t[n++], NULL, i % 8 ? toucher : writer, NULL) == 0);
	while (atomic_load(&started) < begun)
		usleep(1000);
	while (atomic_load(&folded) < want) {
		err = fold_once(&j, 16);
		if (err == -EAGAIN && j.why && strstr(j.why, "in time")) {
			/* A loaded machine: threads are let go, and must not have noticed either. */
			busy++;
			err = 0;
			continue;
		}
		if (err)
			break;
		if (j.tier != firn_config.barrier)
			fail("the tier is %s", tier_names[j.tier]);
	}
	atomic_store(&done, true);
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	if (atomic_load(shared) != atomic_load(&atomics))
		fail("%lu atomic additions, %lu counted", (unsigned long)atomics, (unsigned long)*shared);
out:
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (err) {
		printf("no folding: %s (%d)\n", j.why ? j.why : "-", err);
		return 2;
	}
	print_held();
	printf("%s: %lu pages folded in %.1f s, %d attempts out of time; %lu writes, %lu atomic additions, %lu reads, "
	       "%lu calls: nothing lost, no call failed\n", tier_names[firn_config.barrier], (unsigned long)folded,
	       (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9, busy,
	       (unsigned long)writes, (unsigned long)atomics, (unsigned long)reads, (unsigned long)calls);
	return 0;
}
