/* SPDX-License-Identifier: MIT */
/*
 * What the allocator counts while it runs: atomic words, changed with relaxed order, never on a fast path.
 * What can be found out by looking (allocated, mapped and touched bytes) is not counted: firn_stats_walk looks.
 */
#ifndef FIRN_MALLOC_STATS_H
#define FIRN_MALLOC_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "malloc/class.h"

#define FIRN_PAUSES 32u

struct firn_malloc_counters {
	/* How much there is now: both added to and taken from. */
	_Atomic uint64_t folded_pages;  /* virtual pages that map a frame, empty ones of a run too; not written */
	_Atomic uint64_t frames;        /* frames in use, of a page each: with bytes in them, as folds wrote them */
	_Atomic uint64_t saved_pages;   /* resident pages that went by folds that still stand, less their frames */
	_Atomic uint64_t vmas;          /* mappings that folds have added: an estimate, of which the budget is kept */
	/* How much there was. */
	_Atomic uint64_t passes;
	_Atomic uint64_t folds;         /* runs of pages folded */
	_Atomic uint64_t unfolds_by_write;      /* folded pages found written, and so private again */
	_Atomic uint64_t released_pages;        /* folded pages whose last object went, and that were taken apart */
	_Atomic uint64_t failed_folds;  /* runs that the kernel or the barrier refused: they are as they were */
	_Atomic uint64_t purged_pages;  /* empty pages given back, by decay or on request */
	_Atomic uint64_t stops;         /* of the other threads, by the tracer */
	_Atomic uint64_t fold_ns;       /* processor or wall time in passes, whichever the folder can tell */
	_Atomic uint64_t longest_pause_ns;
	_Atomic uint64_t pauses[FIRN_PAUSES];   /* [i]: of 2^i ns to less than twice that, as a thread may feel them */
	/* How it folds: an enum firn_barrier_tier, AUTO while none was tried; why not better: static text, or NULL. */
	_Atomic uint32_t barrier;
	_Atomic(const char *) why;
};

extern struct firn_malloc_counters firn_counters;

static inline void firn_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void firn_uncount(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t firn_counted(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* A thread may have waited @ns: for a slice that it did itself, for a stop, for a page that was held. */
static inline void firn_count_pause(uint64_t ns)
{
	unsigned int i = ns ? 63u - (unsigned int)__builtin_clzll(ns) : 0;
	uint64_t longest = firn_counted(&firn_counters.longest_pause_ns);

	firn_count(&firn_counters.pauses[i < FIRN_PAUSES ? i : FIRN_PAUSES - 1], 1);
	while (ns > longest && !atomic_compare_exchange_weak_explicit(&firn_counters.longest_pause_ns, &longest, ns,
								      memory_order_relaxed, memory_order_relaxed))
		;
}

/* What there is; in bytes where it does not say how many. */
struct firn_usage {
	uint64_t allocated;             /* small, large and huge */
	uint64_t small;                 /* slots whose bit is set, so also those that threads cache */
	uint64_t large_bytes, huge_bytes;
	uint64_t heap;                  /* as far as it is grown */
	uint64_t mapped;                /* heap and huge; not metadata */
	uint64_t touched;               /* may be resident; folded pages count by their frames */
	uint64_t free_bytes;            /* of the heap: free slots and free runs */
	uint64_t free_resident;         /* free runs that may be resident */
	uint64_t spans, large, huge, free_runs;         /* how many */
	uint64_t class_free[FIRN_CLASSES];              /* how many slots whose bit is clear */
};

/* Look at every unit.  Thread: any, anywhere, also in a signal handler; takes no lock and allocates nothing: the
 * sums are those of no single instant. */
void firn_stats_walk(struct firn_usage *ret);

/* All of it in a few lines on standard error, by write(2).  Thread: any, anywhere. */
void firn_stats_print(void);

#endif
