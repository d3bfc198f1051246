/* SPDX-License-Identifier: MIT */
/*
 * The rest of the surface: the C names that api.c does not have, glibc's own names, and what firn/malloc.h
 * declares.  Nothing here is a fast path.
 */
#include <errno.h>
#include <firn/malloc.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "malloc/api.h"
#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/fold/tick.h"
#include "malloc/large.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Headers do not declare all of it: what is obsolete, what is newer than the C library, what is glibc's own, and
 * nothing of it under other names. */
void *FIRN_NAME(calloc)(size_t count, size_t size);
void *FIRN_NAME(memalign)(size_t align, size_t n);
int FIRN_NAME(posix_memalign)(void **ret, size_t align, size_t n);
void FIRN_NAME(cfree)(void *p);
void FIRN_NAME(free_sized)(void *p, size_t n);
void FIRN_NAME(free_aligned_sized)(void *p, size_t align, size_t n);
void *FIRN_NAME(__libc_malloc)(size_t n);
void *FIRN_NAME(__libc_calloc)(size_t count, size_t size);
void *FIRN_NAME(__libc_realloc)(void *p, size_t n);
void FIRN_NAME(__libc_free)(void *p);
void *FIRN_NAME(__libc_memalign)(size_t align, size_t n);
void *FIRN_NAME(__libc_valloc)(size_t n);
void *FIRN_NAME(__libc_pvalloc)(size_t n);
int FIRN_NAME(__posix_memalign)(void **ret, size_t align, size_t n);

/* ---- C */

FIRN_PUBLIC void *FIRN_NAME(valloc)(size_t n)
{
	return firn_door_aligned(n, FIRN_PAGE_BYTES);
}

/* Whole pages, and one where nothing is asked for. */
FIRN_PUBLIC void *FIRN_NAME(pvalloc)(size_t n)
{
	size_t bytes = n ? (n + FIRN_PAGE_BYTES - 1) & ~(FIRN_PAGE_BYTES - 1) : FIRN_PAGE_BYTES;

	if (bytes < n) {
		errno = ENOMEM;
		return NULL;
	}
	return firn_door_aligned(bytes, FIRN_PAGE_BYTES);
}

FIRN_PUBLIC void FIRN_NAME(cfree)(void *p)
{
	firn_door_free(p);
}

FIRN_PUBLIC void FIRN_NAME(free_sized)(void *p, size_t n)
{
	firn_door_free_sized(p, n);
}

FIRN_PUBLIC void FIRN_NAME(free_aligned_sized)(void *p, size_t align, size_t n)
{
	(void)align;
	firn_door_free_sized(p, n);
}

static size_t give_back(void)
{
	size_t pages, bytes;
	int saved = errno;

	/* A signal handler in the middle of the allocator, or nothing to give yet. */
	if (firn_thread.busy || !firn_init_done())
		return 0;
	firn_cache_flush();
	bytes = firn_fold_now();
	pages = firn_large_purge(~0ul);
	firn_count(&firn_counters.purged_pages, pages);
	errno = saved;
	return bytes + pages * FIRN_PAGE_BYTES;
}

/* How much to leave is not heeded: what is free and wanted again comes back page by page. */
FIRN_PUBLIC int FIRN_NAME(malloc_trim)(size_t leave)
{
	(void)leave;
	return give_back() > 0;
}

/* The parameters that glibc's manual page names: none of them has anything to set here. */
FIRN_PUBLIC int FIRN_NAME(mallopt)(int parameter, int value)
{
	(void)value;
	switch (parameter) {
	case M_MXFAST:
	case M_TRIM_THRESHOLD:
	case M_TOP_PAD:
	case M_MMAP_THRESHOLD:
	case M_MMAP_MAX:
	case M_CHECK_ACTION:
	case M_PERTURB:
	case M_ARENA_TEST:
	case M_ARENA_MAX:
		return 1;
	default:
		return 0;
	}
}

/* ---- glibc's own names: programs and libraries that wrap malloc call these */

FIRN_PUBLIC void *FIRN_NAME(__libc_malloc)(size_t n)
{
	return firn_door_alloc(n);
}

FIRN_PUBLIC void *FIRN_NAME(__libc_calloc)(size_t count, size_t size)
{
	return FIRN_NAME(calloc)(count, size);
}

FIRN_PUBLIC void *FIRN_NAME(__libc_realloc)(void *p, size_t n)
{
	return firn_door_realloc(p, n);
}

FIRN_PUBLIC void FIRN_NAME(__libc_free)(void *p)
{
	firn_door_free(p);
}

FIRN_PUBLIC void *FIRN_NAME(__libc_memalign)(size_t align, size_t n)
{
	return FIRN_NAME(memalign)(align, n);
}

FIRN_PUBLIC void *FIRN_NAME(__libc_valloc)(size_t n)
{
	return FIRN_NAME(valloc)(n);
}

FIRN_PUBLIC void *FIRN_NAME(__libc_pvalloc)(size_t n)
{
	return FIRN_NAME(pvalloc)(n);
}

FIRN_PUBLIC int FIRN_NAME(__posix_memalign)(void **ret, size_t align, size_t n)
{
	return FIRN_NAME(posix_memalign)(ret, align, n);
}

/* ---- firn/malloc.h */

_Static_assert((int)FIRN_MALLOC_BARRIER_UNKNOWN == (int)FIRN_BARRIER_AUTO, "same numbers");
_Static_assert((int)FIRN_MALLOC_BARRIER_NONE == (int)FIRN_BARRIER_NONE, "same numbers");
_Static_assert((int)FIRN_MALLOC_BARRIER_WP == (int)FIRN_BARRIER_WP, "same numbers");
_Static_assert((int)FIRN_MALLOC_BARRIER_TRACER == (int)FIRN_BARRIER_TRACER, "same numbers");
_Static_assert((int)FIRN_MALLOC_BARRIER_OFF == (int)FIRN_BARRIER_OFF, "same numbers");
_Static_assert(FIRN_MALLOC_PAUSES == FIRN_PAUSES, "same length");

const char *firn_malloc_version(void)
{
	return FIRN_VERSION;
}

int firn_malloc_stats(struct firn_malloc_stats *stats)
{
	const struct firn_malloc_counters *k = &firn_counters;
	struct firn_malloc_stats s = { .size = sizeof(s) };
	struct firn_usage u;
	uint64_t size;

	if (!stats || stats->size < 16)
		return -EINVAL;
	size = stats->size;
	firn_stats_walk(&u);
	s.allocated_bytes = u.allocated;
	s.mapped_bytes = u.mapped;
	s.touched_bytes = u.touched;
	s.folded_pages = firn_counted(&k->folded_pages);
	s.frames = firn_counted(&k->frames);
	s.saved_bytes = firn_counted(&k->saved_pages) * FIRN_PAGE_BYTES;
	s.vmas = firn_counted(&k->vmas);
	s.passes = firn_counted(&k->passes);
	s.folds = firn_counted(&k->folds);
	s.unfolds_by_write = firn_counted(&k->unfolds_by_write);
	s.released_pages = firn_counted(&k->released_pages);
	s.failed_folds = firn_counted(&k->failed_folds);
	s.purged_pages = firn_counted(&k->purged_pages);
	s.stops = firn_counted(&k->stops);
	s.fold_ns = firn_counted(&k->fold_ns);
	s.longest_pause_ns = firn_counted(&k->longest_pause_ns);
	for (unsigned int i = 0; i < FIRN_PAUSES; i++)
		s.pauses[i] = firn_counted(&k->pauses[i]);
	s.barrier = (int32_t)atomic_load_explicit(&k->barrier, memory_order_relaxed);
	s.why = atomic_load_explicit(&k->why, memory_order_relaxed);
	if (size > sizeof(s)) {
		memset((char *)stats + sizeof(s), 0, size - sizeof(s));
		size = sizeof(s);
	}
	s.size = size;
	memcpy(stats, &s, size);
	return 0;
}

size_t firn_malloc_consolidate(void)
{
	return give_back();
}

/* Write to a page without changing it: what was folded gets a frame of its own. */
static int make_private(char *page)
{
	int r = firn_os.madvise(page, FIRN_PAGE_BYTES, MADV_POPULATE_WRITE);

	if (r != -EINVAL)
		return r ? -ENOMEM : 0;
	/* Before Linux 5.14.  Atomically: its owner may be writing. */
	__atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
	return 0;
}

/* Pages of unit @unit between @first and @last. */
static uint16_t pages_between(uint32_t unit, uintptr_t first, uintptr_t last)
{
	uintptr_t base = (uintptr_t)firn_unit_address(unit);
	unsigned int from = first > base ? (unsigned int)((first - base) >> FIRN_PAGE_SHIFT) : 0;
	unsigned int to = FIRN_UNIT_PAGES - 1;

	if (last - base < FIRN_UNIT_BYTES)
		to = (unsigned int)((last - base) >> FIRN_PAGE_SHIFT);
	return (uint16_t)((2u << to) - (1u << from));
}

/* The pass lock is held: nothing is being folded meanwhile. */
static int never_fold_unit(uint32_t unit, uint16_t pages)
{
	struct firn_span *s = firn_span_of(unit);
	unsigned int c = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
	uint16_t folded = 0;
	int r = 0;

	if (!firn_class_foldable(c))
		return 0;
	firn_lock_take(&firn_bins[c].lock);
	if (s->class == c) {
		s->never |= pages;
		folded = pages & s->folded;
	}
	firn_lock_drop(&firn_bins[c].lock);
	for (; folded; folded &= (uint16_t)(folded - 1)) {
		size_t off = (size_t)__builtin_ctz(folded) << FIRN_PAGE_SHIFT;
		int one = make_private((char *)firn_unit_address(unit) + off);

		if (one)
			r = one;
	}
	return r;
}

int firn_malloc_never_fold(const void *p, size_t n)
{
	uintptr_t first = (uintptr_t)p, last = first + n - 1;
	uint64_t all = ~(uint64_t)0, signals;
	int r = 0;

	if (!n)
		return 0;
	if (last < first || firn_thread.busy)
		return -EINVAL;
	if (firn_reserve_has(p) && firn_reserve_has((void *)last))
		return 0;
	/* A handler that allocates would wait for a lock that its own thread holds. */
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&signals, sizeof(all), 0, 0);
	if (!firn_heap_has(p) || !firn_heap_has((void *)last)) {
		r = firn_huge_has(p, n) ? 0 : -EINVAL;
		goto out;
	}
	for (uint32_t u = firn_unit_of(p); u <= firn_unit_of((void *)last) && !r; u++)
		if (__atomic_load_n(&firn_heap.kinds[u], __ATOMIC_RELAXED) == FIRN_KIND_NONE)
			r = -EINVAL;
	if (r)
		goto out;
	firn_pass_stop();
	for (uint32_t u = firn_unit_of(p); u <= firn_unit_of((void *)last); u++) {
		int one = never_fold_unit(u, pages_between(u, first, last));

		if (one)
			r = one;
	}
	firn_lock_drop(&firn_pass_lock);
out:
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&signals, 0, sizeof(signals), 0, 0);
	return r;
}
