/* SPDX-License-Identifier: MIT */
/*
 * usage: barrier-heap load FOLDS [USER-ID] | direct FOLDS FILE
 *
 * A heap that is folded again and again while threads use it; to be run under libfirnmalloc.so.
 * load: they read, write and count, and the kernel writes into the heap for them: pipes, UDP, AF_UNIX datagrams.
 * direct: another thread, and the kernel on its own, read FILE with O_DIRECT into the smallest buffers that can
 * be had.  Each sector of it says which one it is.
 * Exit 0: nothing was lost and no call failed; 2: nothing folds here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "firn/malloc.h"

#pragma weak firn_malloc_consolidate
#pragma weak firn_malloc_stats

#define FAIL(...) do { \
	printf("FAIL: line %d: ", __LINE__); \
	printf(__VA_ARGS__); \
	printf(" (errno %d)\n", errno); \
	fflush(stdout); \
	_exit(1); \
} while (0)
#define CHECK(x) do { \
	if (!(x)) \
		FAIL("%s", #x); \
} while (0)

#include "links.h"

#define KEPT 2000               /* objects that a thread keeps for a while */
#define OF 12                   /* of so many that it allocates */

static _Atomic bool done;
static _Atomic uint64_t writes, reads, atomics, calls, directs;
static uint64_t *counted;

static uint64_t folds(void)
{
	struct firn_malloc_stats s = { .size = sizeof(s) };

	CHECK(firn_malloc_stats(&s) == 0);
	return s.folds;
}

static uint32_t next(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	return *s ^= *s << 5;
}

/* Objects of @bytes, one of OF that are allocated: their pages are sparse. */
static void sparse(void **keep, size_t n, size_t bytes)
{
	void **others = malloc(n * (OF - 1) * sizeof(*others));
	size_t k = 0;

	CHECK(others);
	for (size_t i = 0; i < n * OF; i++) {
		void *p = malloc(bytes);

		CHECK(p);
		memset(p, 0xa5, bytes);
		if (i % OF == 5)
			keep[i / OF] = p;
		else
			others[k++] = p;
	}
	while (k)
		free(others[--k]);
	free(others);
}

static void *user(void *arg)
{
	bool writer = (uintptr_t)arg & 1;
	uint32_t seed = 77 + (uint32_t)(uintptr_t)arg;
	void *kept[KEPT];

	while (!atomic_load(&done)) {
		size_t bytes = 16 + next(&seed) % 100;
		uint64_t count = 0;
		struct timespec t;
		time_t until;

		sparse(kept, KEPT, bytes);
		for (size_t i = 0; i < KEPT; i++)
			memset(kept[i], 0, bytes), *(uint64_t *)kept[i] = writer ? 0 : (uintptr_t)kept[i];
		clock_gettime(CLOCK_MONOTONIC, &t);
		until = t.tv_sec * 1000 + t.tv_nsec / 1000000 + 50 + next(&seed) % 300;
		do {
			/* A writer keeps to some of them: the others stay folded. */
			size_t step = writer ? 1 + next(&seed) % 40 : 1;

			if (!writer) {
				for (size_t i = 0; i < KEPT; i++)
					if (*(volatile uint64_t *)kept[i] != (uintptr_t)kept[i])
						FAIL("what was never written again has changed");
				atomic_fetch_add(&reads, KEPT);
			} else {
				static _Thread_local uint64_t have[KEPT];

				if (!count)
					memset(have, 0, sizeof(have));
				for (size_t i = 0; i < KEPT; i += step) {
					volatile uint64_t *p = kept[i];

					if (*p != have[i])
						FAIL("a write was lost");
					*p = ++have[i];
				}
				atomic_fetch_add(&writes, KEPT / step);
			}
			count++;
			clock_gettime(CLOCK_MONOTONIC, &t);
		} while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < until && !atomic_load(&done));
		for (size_t i = 0; i < KEPT; i++)
			free(kept[i]);
	}
	return NULL;
}

static void *counter(void *arg)
{
	uint64_t n = 0;

	(void)arg;
	while (!atomic_load(&done)) {
		__atomic_fetch_add(counted, 1, __ATOMIC_RELAXED);
		n++;
	}
	atomic_fetch_add(&atomics, n);
	return NULL;
}

/* ---- the kernel writes */

#define MESSAGE 64

static void moved(const char *what, const char *name, ssize_t r)
{
	if (r != MESSAGE)
		FAIL("%s of %s: %zd", what, name, r);
	atomic_fetch_add(&calls, 1);
}

static void *echo(void *arg)
{
	struct link *l = arg;
	void *bufs[500];

	sparse(bufs, 500, MESSAGE);
	for (size_t i = 0;; i++) {
		void *buf = bufs[i % 500];

		moved("read", l->name, read(l->request[0], buf, MESSAGE));
		if (!*(uint64_t *)buf)
			return NULL;
		moved("write", l->name, write(l->answer[1], buf, MESSAGE));
	}
}

static void *asker(void *arg)
{
	struct link *l = arg;
	void *bufs[1000];
	struct epoll_event e = { .events = EPOLLIN }, *got;
	int ep = epoll_create1(EPOLL_CLOEXEC);

	sparse(bufs, 1000, MESSAGE);
	got = malloc(sizeof(*got));
	CHECK(got && epoll_ctl(ep, EPOLL_CTL_ADD, l->answer[0], &e) == 0);
	for (uint64_t n = 1; !atomic_load(&done); n++) {
		uint64_t *out = bufs[n % 500], *in = bufs[500 + n % 500];
		int r;

		for (uint64_t k = 0; k < MESSAGE / 8; k++)
			out[k] = n + k;
		moved("write", l->name, write(l->request[1], out, MESSAGE));
		r = epoll_wait(ep, got, 1, 20000);
		if (r != 1)
			FAIL("epoll_wait for %s: %d", l->name, r);
		moved("read", l->name, read(l->answer[0], in, MESSAGE));
		for (uint64_t k = 0; k < MESSAGE / 8; k++)
			if (in[k] != n + k)
				FAIL("%s: not what was sent", l->name);
	}
	memset(bufs[0], 0, MESSAGE);
	moved("write", l->name, write(l->request[1], bufs[0], MESSAGE));
	return NULL;
}

/* ---- devices write */

#define SECTOR 512u
#define SECTORS 4096u

static int file;

static void make_file(const char *path)
{
	static uint64_t sector[SECTOR / 8];

	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(file >= 0);
	for (uint64_t i = 0; i < SECTORS; i++) {
		for (uint64_t k = 0; k < SECTOR / 8; k++)
			sector[k] = i * 1000 + k;
		CHECK(write(file, sector, SECTOR) == SECTOR);
	}
	CHECK(fsync(file) == 0 && close(file) == 0);
	file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (file < 0) {
		printf("no O_DIRECT here\n");
		exit(2);
	}
}

static void verify(const uint64_t *buf, uint64_t i)
{
	for (uint64_t k = 0; k < SECTOR / 8; k++)
		if (buf[k] != i * 1000 + k)
			FAIL("sector %lu was lost in %p: success was reported", (unsigned long)i, (const void *)buf);
	atomic_fetch_add(&directs, 1);
}

/* Buffers for a sector as the program may have got them: aligned, or larger and aligned by hand, or just so. */
static uint64_t *buffer(uint32_t *seed, void **ret_free)
{
	static _Atomic bool needs_alignment;
	uint32_t how = next(seed) % 3;
	char *p = how == 0 ? aligned_alloc(SECTOR, SECTOR) : malloc(how == 1 ? 2 * SECTOR : SECTOR);

	CHECK(p);
	*ret_free = p;
	if (how == 1 || (how == 2 && atomic_load(&needs_alignment))) {
		if (how == 2) {
			free(p);
			*ret_free = p = aligned_alloc(SECTOR, SECTOR);
		}
		p = (char *)(((uintptr_t)p + SECTOR - 1) & ~(uintptr_t)(SECTOR - 1));
	} else if (how == 2 && pread(file, p, SECTOR, 0) < 0) {
		atomic_store(&needs_alignment, true);
		free(p);
		*ret_free = p = aligned_alloc(SECTOR, SECTOR);
	}
	memset(p, 0, SECTOR);
	return (uint64_t *)p;
}

static void *reader(void *arg)
{
	uint32_t seed = 5 + (uint32_t)(uintptr_t)arg;

	while (!atomic_load(&done)) {
		uint64_t i = next(&seed) % SECTORS, *buf;
		void *f;

		buf = buffer(&seed, &f);
		if (pread(file, buf, SECTOR, (off_t)(i * SECTOR)) != SECTOR)
			FAIL("pread");
		verify(buf, i);
		free(f);
	}
	return NULL;
}

/* The kernel writes while the thread does something else, or is stopped. */
static void *submitter(void *arg)
{
	enum { N = 32 };
	aio_context_t context = 0;
	struct iocb cb[N], *cbs[N];
	struct io_event events[N];
	uint32_t seed = 500 + (uint32_t)(uintptr_t)arg;
	uint64_t *buf[N], at[N];
	void *f[N];

	CHECK(syscall(SYS_io_setup, N, &context) == 0);
	while (!atomic_load(&done)) {
		int got = 0;

		for (int i = 0; i < N; i++) {
			buf[i] = buffer(&seed, &f[i]);
			at[i] = next(&seed) % SECTORS;
			cb[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file,
					       .aio_buf = (uintptr_t)buf[i], .aio_nbytes = SECTOR,
					       .aio_offset = (int64_t)(at[i] * SECTOR), .aio_data = (uint64_t)i };
			cbs[i] = &cb[i];
		}
		CHECK(syscall(SYS_io_submit, context, N, cbs) == N);
		while (got < N) {
			long r = syscall(SYS_io_getevents, context, 1, N, events, NULL);

			if (r < 1)
				FAIL("io_getevents: %ld", r);
			for (long i = 0; i < r; i++, got++) {
				CHECK(events[i].res == SECTOR);
				verify(buf[events[i].data], at[events[i].data]);
			}
		}
		for (int i = 0; i < N; i++)
			free(f[i]);
	}
	syscall(SYS_io_destroy, context);
	return NULL;
}

int main(int argc, char **argv)
{
	bool direct = argc > 1 && !strcmp(argv[1], "direct");
	uint64_t want = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000, before, now;
	static const char *const names[] = { "pipe", "UDP", "AF_UNIX" };
	struct link links[3];
	void (*const pairs[])(int *) = { pipe_pair, udp_pair, unix_pair };
	struct firn_malloc_stats s = { .size = sizeof(s) };
	pthread_t t[32];
	int n = 0, idle = 0;

	CHECK(argc > 2 && firn_malloc_consolidate && firn_malloc_stats);
	if (direct)
		make_file(argv[3]);
	else if (argc > 3 && !getuid()) {
		CHECK(setgid((gid_t)atoi(argv[3])) == 0 && setuid((uid_t)atoi(argv[3])) == 0);
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	}
	void *c[50];

	sparse(c, 50, 64);
	counted = c[7];
	*counted = 0;
	for (uintptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&t[n++], NULL, user, (void *)i) == 0);
	for (uintptr_t i = 0; i < 2; i++)
		CHECK(pthread_create(&t[n++], NULL, counter, NULL) == 0);
	for (uintptr_t i = 0; i < 3 && !direct; i++) {
		link_open(&links[i], names[i], pairs[i]);
		CHECK(pthread_create(&t[n++], NULL, echo, &links[i]) == 0);
		CHECK(pthread_create(&t[n++], NULL, asker, &links[i]) == 0);
	}
	for (uintptr_t i = 0; i < 2 && direct; i++) {
		CHECK(pthread_create(&t[n++], NULL, reader, (void *)i) == 0);
		CHECK(pthread_create(&t[n++], NULL, submitter, (void *)i) == 0);
	}
	before = folds();
	do {
		firn_malloc_consolidate();
		usleep(2000);
		now = folds();
		/* Refused for good, or only for now? */
		CHECK(firn_malloc_stats(&s) == 0);
		idle = now == before ? idle + 1 : 0;
		before = now;
	} while (now < want && idle < (now ? 1000 : 60));
	atomic_store(&done, true);
	for (int i = 0; i < n; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	if (*counted != atomic_load(&atomics))
		FAIL("%lu atomic additions, %lu counted", (unsigned long)atomics, (unsigned long)*counted);
	if (now < want) {
		printf("no folding: %s; %lu folds\n", s.why ? s.why : "-", (unsigned long)now);
		return now ? 1 : 2;
	}
	CHECK(firn_malloc_stats(&s) == 0);
	printf("tier %d: %lu runs folded, %lu pages written since, %lu released, %lu stops, %lu refused; %lu writes, "
	       "%lu reads, %lu atomic additions, %lu calls, %lu sectors: nothing lost, no call failed\n", s.barrier,
	       (unsigned long)s.folds, (unsigned long)s.unfolds_by_write, (unsigned long)s.released_pages,
	       (unsigned long)s.stops, (unsigned long)s.failed_folds, (unsigned long)writes, (unsigned long)reads,
	       (unsigned long)atomics, (unsigned long)calls, (unsigned long)directs);
	return 0;
}
