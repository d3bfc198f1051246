/* SPDX-License-Identifier: MIT */
/*
 * The working set of a target: the pages that it asks for first after it was evicted.
 *
 * Recorded by faults, in a ring that ends when it is full; learned from when the target has been thawed; laid out
 * first in its next pack and brought in by one read before it runs again.  What is brought in is never asked for, so
 * a part is held back each time: where it was not asked for either, it leaves the set.  The capacity
 * follows the use: it doubles where a set that is used was full, and halves where less than half of what was held
 * back was used.
 *
 * Pure functions and shared memory: no I/O, no allocation.
 */
#ifndef FIRN_LINK_WORKSET_H
#define FIRN_LINK_WORKSET_H

#include "base/types.h"

#define FIRN_WORKSET_MAX 4096u       /* pages: 16 MiB, which one read of at most 8 MiB mostly holds */
#define FIRN_WORKSET_LEAST 64u
#define FIRN_WORKSET_FIRST 1024u     /* the capacity of a new one */
#define FIRN_WORKSET_HOLD_BACK 16u   /* one block in so many */
#define FIRN_WORKSET_HELD 1u         /* in an entry's low bits: was held back at the last thaw */

struct firn_workset {
	uint32_t capacity, count;    /* pages */
	uint64_t pages[FIRN_WORKSET_MAX];   /* addresses, the earliest needed first */
};

/* What was asked for since the eviction.  In shared memory. */
struct firn_recording {
	uint32_t limit;              /* no more are noted; 0: none are */
	uint32_t asked;              /* pages; threads that meet may carry it a little beyond the limit */
	uint64_t pages[FIRN_WORKSET_MAX];   /* the first first; 0: its writer died */
};

/* Room for firn_workset_learn. */
struct firn_workset_scratch {
	uint64_t keys[2 * FIRN_WORKSET_MAX];
};

/* Note the page at @address.  Any thread. */
void firn_recording_note(struct firn_recording *r, uint64_t address);
/* Is there room in it? */
bool firn_recording_open(const struct firn_recording *r);
/* How many were noted. */
uint32_t firn_recording_count(const struct firn_recording *r);

/* An empty set. */
void firn_workset_init(struct firn_workset *s);
/* Are its numbers possible?  For what was read from a file. */
bool firn_workset_valid(const struct firn_workset *s, uint32_t page_size);
/*
 * The target has been thawed: learn from what it asked for.  Where it asked for next to nothing, nobody
 * used it, and nothing is to be learned.  @s is then what to lay out first next time, without marks.
 */
void firn_workset_learn(struct firn_workset *s, const struct firn_recording *r, struct firn_workset_scratch *scratch);

#endif
