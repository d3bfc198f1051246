/* SPDX-License-Identifier: MIT */
/*
 * A folder for tests of the barrier: an arena of pages of which a quarter each is live, folded four runs to one
 * by the helper, over and over.  The program that includes it is linked with the sources of the barrier; the
 * allocator is not there.
 */
#ifndef FIRN_TESTS_MALLOC_BARRIER_H
#define FIRN_TESTS_MALLOC_BARRIER_H

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "malloc/config.h"
#include "malloc/fold/barrier.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define PAGE 4096u
#define QUARTER 1024u
#define RUN 8u                  /* pages with the same live quarter */
#define GROUPS 64               /* most that a helper folds */

struct firn_malloc_config firn_config = { .fold = true, .period_ms = 500, .age = 2 };
struct firn_malloc_counters firn_counters;

static char *arena;
static size_t arena_pages;
static _Atomic uint64_t folded;         /* pages */
static uint64_t held_ns[65536];         /* how long each helper held, or stopped, in turn */
static unsigned int helds;
static _Atomic bool done;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("FAIL: ", stdout);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

#define CHECK(x) do { \
	if (!(x)) \
		fail("%s:%d: %s (errno %d)", __FILE__, __LINE__, #x, errno); \
} while (0)

static uint64_t random_next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	return *s ^= *s << 17;
}

/* The live bytes of page @page. */
static inline char *live(size_t page)
{
	return arena + page * PAGE + (page / RUN % 4) * QUARTER;
}

static inline void arena_open(size_t pages)
{
	arena_pages = pages;
	arena = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(arena != MAP_FAILED);
	madvise(arena, pages * PAGE, MADV_NOHUGEPAGE);
}

struct job {
	uint64_t seed;
	int groups;
	size_t first[GROUPS][4];        /* pages: one run of each quarter */
	unsigned int pages[GROUPS];     /* length of the runs */
	/* out */
	enum firn_barrier_tier tier;
	const char *why;
	uint64_t began, ended;
	int done;
};

static inline long raw(long nr, long a, long b, long c, long d)
{
	return firn_os.call(nr, a, b, c, d, 0, 0);
}

/* In the helper. */
static int fold_in_helper(void *arg)
{
	static char frame[RUN * PAGE];
	struct job *j = arg;
	struct firn_barrier b;
	long offset = 0, r = 0, fd;
	int err = firn_barrier_open(&b);

	j->tier = b.tier;
	j->why = b.why;
	j->done = 0;
	if (err)
		return err;
	j->began = firn_os.clock_ns();
	fd = raw(SYS_memfd_create, (long)"fold", 1, 0, 0);
	for (int g = 0; g < j->groups && fd >= 0 && r >= 0; g++) {
		size_t bytes = j->pages[g] * PAGE;
		int held = 0;

		while (held < 4 && !(r = firn_barrier_hold(&b, arena + j->first[g][held] * PAGE, j->pages[g])))
			held++;
		bool mapped[4] = { false, false, false, false };

		if (held == 4) {
			memset(frame, 0, bytes);
			for (int q = 0; q < 4; q++)
				for (unsigned int p = 0; p < j->pages[g]; p++) {
					char *from = live(j->first[g][q] + p);

					memcpy(frame + p * PAGE + (uintptr_t)from % PAGE, from, QUARTER);
				}
			r = raw(SYS_pwrite64, fd, (long)frame, (long)bytes, offset);
			for (int q = 0; q < 4 && r >= 0; q++) {
				void *p = firn_os.mmap(arena + j->first[g][q] * PAGE, bytes, PROT_READ | PROT_WRITE,
						       MAP_FIXED | MAP_PRIVATE, (int)fd, offset);
				mapped[q] = !firn_os_failed(p);
				if (!mapped[q])
					r = (long)p;
			}
			offset += (long)bytes;
			j->done += r < 0 ? 0 : 4 * (int)j->pages[g];
		}
		for (int q = 0; q < held; q++)
			firn_barrier_release(&b, arena + j->first[g][q] * PAGE, j->pages[g], mapped[q]);
	}
	if (fd >= 0)
		raw(SYS_close, fd, 0, 0, 0);
	firn_barrier_close(&b);
	j->ended = firn_os.clock_ns();
	return fd < 0 ? (int)fd : r < 0 ? (int)r : 0;
}

/* Fold @groups groups at random.  Returns as firn_helper_run; counts what was folded. */
static inline int fold_once(struct job *j, int groups)
{
	int err;

	j->groups = groups;
	for (int g = 0; g < groups; g++) {
		unsigned int pages = 1u << random_next(&j->seed) % 4;
		unsigned int at = (unsigned int)(random_next(&j->seed) % (RUN / pages)) * pages;

		j->pages[g] = pages;
		for (size_t q = 0; q < 4; q++) {
			size_t run = random_next(&j->seed) % (arena_pages / RUN / 4) * 4 + q;

			j->first[g][q] = run * RUN + at;
		}
	}
	j->tier = FIRN_BARRIER_OFF;
	j->why = "the helper did not begin";
	j->began = j->ended = 0;
	err = firn_helper_run(fold_in_helper, j);
	if (!err) {
		atomic_fetch_add(&folded, (uint64_t)j->done);
		if (helds < sizeof(held_ns) / sizeof(held_ns[0]))
			held_ns[helds++] = j->ended - j->began;
	}
	return err;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static inline void print_held(void)
{
	if (!helds)
		return;
	qsort(held_ns, helds, sizeof(held_ns[0]), compare_u64);
	printf("%u helpers, open to close in us: p50 %.0f, p99 %.0f, max %.0f\n", helds, held_ns[helds / 2] / 1e3,
	       held_ns[(size_t)helds * 99 / 100] / 1e3, held_ns[helds - 1] / 1e3);
}

static const char *const tier_names[] = { "auto", "none", "wp", "tracer", "off" };

static inline enum firn_barrier_tier tier_of(const char *name)
{
	for (int i = 0; i < 5; i++)
		if (!strcmp(name, tier_names[i]))
			return (enum firn_barrier_tier)i;
	fail("no tier %s", name);
}

#endif
