/* SPDX-License-Identifier: MIT */
/*
 * Spans: the masks, which are the truth about what is allocated, and the lists of spans with free slots.
 *
 * A unit is 64 KiB of the heap; its struct firn_span lies outside the heap, so that free slots are never
 * written.  A span of a size class is one unit.  A bit of the mask is set from refill to flush: while the
 * slot is allocated or in some thread's cache.  Bits are set only under the class's lock; they are cleared
 * by one atomic AND, by any thread, without a lock.
 */
#ifndef FIRN_MALLOC_SPAN_H
#define FIRN_MALLOC_SPAN_H

#include <stdatomic.h>

#include "malloc/class.h"
#include "malloc/lock.h"

#define firn_likely(x) __builtin_expect(!!(x), 1)
#define firn_unlikely(x) __builtin_expect(!!(x), 0)

#define FIRN_NO_UNIT UINT32_MAX
#define FIRN_MASK_WORDS 64u             /* 16 pages x 256 slots of 16 bytes */

/* What a unit is (firn_heap.kinds): a class number, or one of these. */
#define FIRN_KIND_NONE 0u               /* never used, or free */
#define FIRN_KIND_SLOW 128u             /* 128 + class: some pages are folded or closed: free goes the slow way */
#define FIRN_KIND_LARGE 254u            /* the first unit of a large allocation */
#define FIRN_KIND_TAIL 255u             /* a further unit of it */

enum firn_bucket {                      /* lists of a class, by share of free slots */
	FIRN_BUCKET_FULL,               /* in no list */
	FIRN_BUCKET_DENSE,              /* up to 1/8 free */
	FIRN_BUCKET_MIDDLE,             /* up to 1/2 */
	FIRN_BUCKET_SPARSE,
	FIRN_BUCKET_EMPTY,              /* nothing allocated */
	FIRN_BUCKETS,
};

struct firn_span {
	uint32_t prev, next;            /* bucket list; under the class's lock */
	_Atomic int32_t nfree;          /* slots whose bit is clear; lags behind the mask for an instant */
	uint8_t class;                  /* under the class's lock; FIRN_CLASS_NONE: no class span */
	uint8_t bucket;                 /* under the class's lock */
	uint16_t idle;                  /* pages that were empty at the last look (purge) */
	/* One bit a page, under the class's lock. */
	uint16_t touched;               /* may be resident: slots were handed out since it was last given back */
	uint16_t closed;                /* no slot is handed out from here: folded, or about to be */
	uint16_t folded;                /* closed, maps a frame and needs it; closed and not folded: maps it, is empty */
	uint16_t copied;                /* written since: a private copy; open again, and still a file mapping */
	/* Runs of units: free or large; under the heap's lock. */
	uint32_t units;                 /* length of the run, at its first and (free) at its last unit */
	uint32_t list;                  /* which list of free runs */
	uint64_t bytes;                 /* large: usable bytes */
	uint64_t stamp_ms;              /* free: since when */
	bool resident;                  /* free: some of it may be resident; of this unit alone */
	uint16_t never;                 /* one bit a page: not to be folded (firn_malloc_never_fold), until it is given
					 * back; under the class's lock: whoever closes pages leaves these out */
	/* The folder's. */
	uint16_t busy;                  /* one bit a page, a subset of closed: being remapped; under the class's lock */
	uint8_t quiet[FIRN_UNIT_PAGES]; /* passes that found the page's mask unchanged */
	uint8_t backoff[FIRN_UNIT_PAGES];       /* passes to leave it alone for */
	uint8_t writes[FIRN_UNIT_PAGES];        /* times it was written after a fold */
	uint32_t print[FIRN_UNIT_PAGES];        /* hash of the mask at the last pass */
	uint32_t frame[FIRN_UNIT_PAGES];        /* closed or copied: which frame it maps (fold/frame.h) */
	/* The masks: page_words a page, or all from word 0 where slots straddle pages. */
	_Atomic uint64_t mask[FIRN_MASK_WORDS];
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct firn_span) <= 1024, "four spans to a page of metadata");

struct firn_bin {
	struct firn_lock lock;
	uint32_t list[FIRN_BUCKETS];    /* first span of each */
	uint32_t nspans;
	void **depot;                   /* a stack of slots; NULL: there was no memory for it */
	uint32_t stored;                /* how many; under the lock to change */
	_Atomic int64_t used;           /* slots handed out and not flushed; lags for an instant */
} __attribute__((aligned(64)));

extern struct firn_bin firn_bins[FIRN_CLASSES];

/* Fill @slots with @want free slots of class @c, or a few more up to @room, fullest span first, the last to
 * be used first.  Thread: any, no lock held.  Returns how many, fewer than @want where that saves a span;
 * 0 where memory is out.  The caller owns the slots. */
unsigned int firn_span_refill(unsigned int c, void **slots, unsigned int want, unsigned int room);

/* Give @n slots back to their masks.  Each must be a slot of class @c whose bit is set: anything else ends
 * the process with a message (firn_die).  Thread: any, no lock held. */
void firn_span_flush(unsigned int c, void *const *slots, unsigned int n);

/* Make room for the depot.  Once, before anything is freed.  Without memory there is none. */
void firn_depot_open(void);

/*
 * The depot: what one cache gives back another one may want at once, and the masks need not be touched for
 * it.  Keeps @n slots of class @c for that; false where it is full.  Refill takes from it first.  Slots in it
 * count as cached.  Thread: any, no lock held.
 */
bool firn_depot_put(unsigned int c, void *const *slots, unsigned int n);

/* Flush all that is in the depot.  Thread: any, no lock held. */
void firn_depot_drain(void);

/* Return to the kernel pages that have been empty for two looks, and units that hold nothing.  @all: at
 * once.  Drains the depot first.  Thread: any, no lock held.  Returns pages returned. */
size_t firn_span_purge(bool all);

/* Did the last look run out of time?  Then the next one goes on with it. */
bool firn_span_purge_unfinished(void);

/* The slot of class @c at offset @off of its unit; -1 where none begins there. */
static inline int firn_span_slot(unsigned int c, size_t off)
{
	const struct firn_class *k = &firn_classes[c];
	size_t base = 0;
	uint32_t i;

	if (k->page_slots) {
		base = off >> FIRN_PAGE_SHIFT;
		off &= FIRN_PAGE_BYTES - 1;
	}
	i = (uint32_t)((uint64_t)off * k->magic >> 32);
	if ((size_t)i * k->size != off || i >= (k->page_slots ? k->page_slots : k->slots))
		return -1;
	return (int)(base * k->page_words * 64 + i);    /* its bit in the mask */
}

/* The words of page @page's mask.  Only for classes with page_slots. */
static inline _Atomic uint64_t *firn_span_page_mask(struct firn_span *s, unsigned int page)
{
	return &s->mask[page * firn_classes[s->class].page_words];
}

/* Call under the class's lock after nfree, closed or class changed: put it into the list where it belongs. */
void firn_span_relist(struct firn_span *s);

#endif
