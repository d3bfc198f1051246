/* SPDX-License-Identifier: MIT */
/*
 * libfirnmalloc: what Firn's allocator can tell, and do, beyond malloc(3).
 *
 * The allocator works without any of this: LD_PRELOAD it, or link with -lfirnmalloc.  A program that wants to
 * run with and without it declares these functions weak, and looks whether they are there:
 *
 *	#pragma weak firn_malloc_consolidate
 *	if (firn_malloc_consolidate)
 *		firn_malloc_consolidate();
 *
 * Words: a page whose objects have moved onto a frame (a page of memory) that it shares with other pages is
 * folded; no address changes.  See firnmalloc(7).
 */
#ifndef FIRN_MALLOC_H
#define FIRN_MALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef FIRN_API
#define FIRN_API __attribute__((visibility("default")))
#endif

/* How other threads are kept from writing while pages are folded. */
enum firn_malloc_barrier {
	FIRN_MALLOC_BARRIER_UNKNOWN,    /* no fold was tried yet */
	FIRN_MALLOC_BARRIER_NONE,       /* there is one thread: nothing to keep off */
	FIRN_MALLOC_BARRIER_WP,         /* userfaultfd write-protection */
	FIRN_MALLOC_BARRIER_TRACER,     /* the other threads are stopped */
	FIRN_MALLOC_BARRIER_OFF,        /* no fold is possible; @why says why */
};

#define FIRN_MALLOC_PAUSES 32

struct firn_malloc_stats {
	uint64_t size;                  /* in: sizeof(struct firn_malloc_stats); out: bytes that were filled in */
	/* Now.  Bytes are rounded as the allocator rounds them. */
	uint64_t allocated_bytes;       /* in use, or free and cached by a thread */
	uint64_t mapped_bytes;          /* of address space, without the allocator's own tables */
	uint64_t touched_bytes;         /* may be resident; what is folded counts once */
	uint64_t folded_pages;          /* pages of 4096 bytes that share a frame */
	uint64_t frames;                /* that they share */
	uint64_t saved_bytes;           /* that the folds which stand have given back */
	uint64_t vmas;                  /* mappings that folds have added (estimate) */
	/* Since the start of the process (a forked child goes on from its parent's). */
	uint64_t passes;                /* searches for pages to fold */
	uint64_t folds;                 /* runs of pages folded */
	uint64_t unfolds_by_write;      /* pages private again, since they were written */
	uint64_t released_pages;        /* folded pages that became empty */
	uint64_t failed_folds;          /* runs that could not be folded, and are as they were */
	uint64_t purged_pages;          /* empty pages given back */
	uint64_t stops;                 /* times that other threads were stopped */
	uint64_t fold_ns;               /* spent on folding */
	uint64_t longest_pause_ns;      /* that a thread may have felt */
	uint64_t pauses[FIRN_MALLOC_PAUSES];    /* [i]: of 2^i ns to less than twice that */
	int32_t barrier;                /* enum firn_malloc_barrier */
	int32_t reserved;
	const char *why;                /* why not a better barrier; NULL: nothing to say.  Static text. */
};

/*
 * What the allocator holds and has done.
 * @stats   the caller's; @stats->size is set to sizeof(*@stats) before the call.  A later library fills in no
 *          more than that, an earlier one less: then the rest is zero and @stats->size says how much is not.
 * Thread: any, at any time but from a signal handler or a vfork child; waits for locks, each held by others for
 * microseconds.  Allocates nothing; errno is kept.  The numbers are not of one instant.
 * Returns 0; -EINVAL where @stats is NULL or @stats->size less than 16: nothing is written.
 */
FIRN_API int firn_malloc_stats(struct firn_malloc_stats *stats);

/*
 * Give back what can be given back, now: empty pages at once, then a whole pass of folding, without regard to
 * age, period and estimated gain; FIRN_MALLOC_FOLD=0 and all that rules folding out still do.  malloc_trim() is
 * the same.  What other threads cache stays.
 * Thread: as firn_malloc_stats().  May take tenths of a second for a heap of hundreds of MB; other threads are
 * held up by it as by any pass.
 * Returns bytes given back, 0 where there were none.  It cannot fail: what could not be folded is as it was.
 */
FIRN_API size_t firn_malloc_consolidate(void);

/*
 * Pages with a byte of @p .. @p + @n - 1 are never folded, until the memory is freed and given back; those that
 * are folded get frames of their own before the call returns.  For memory whose physical place is known to
 * others: to a device, to another process by way of /proc/self/pagemap.
 * @p   inside of an allocation, or several that lie in a row; @n in bytes; 0 does nothing.
 * Thread: as firn_malloc_stats(); nobody frees the memory meanwhile.  A neighbour in the same page is not folded
 * either.  Memory of 512 bytes and more, and aligned memory, is never folded anyway: there is nothing to do.
 * Returns 0; -EINVAL where the range wraps around or a page of it is not in use by this allocator: nothing has
 * changed; -ENOMEM where a folded page could not be given a frame of its own: no page of the range will be
 * folded from now on, but it still is, until it is written.
 */
FIRN_API int firn_malloc_never_fold(const void *p, size_t n);

/* The library's version, "0.1.0": static text.  Thread: any, anywhere. */
FIRN_API const char *firn_malloc_version(void);

#ifdef __cplusplus
}
#endif

#endif
