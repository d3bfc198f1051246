/* SPDX-License-Identifier: MIT */
/* The folder as the allocator sees it. */
#ifndef FIRN_MALLOC_FOLD_FOLD_H
#define FIRN_MALLOC_FOLD_FOLD_H

#include "malloc/span.h"

enum firn_tick {
	FIRN_TICK_NOTHING,              /* left to do for now */
	FIRN_TICK_SOON,                 /* there will be within a millisecond or two */
	FIRN_TICK_AGAIN,                /* there is */
};

/*
 * Time may have come for something: purge, a pass, a slice of the pass under way.  Cheap when not.
 * Thread: any, no lock held, not in the middle of anything.  Signals of the thread may be blocked meanwhile.
 * @idle: the thread is about to wait, and could go on with what it is told is left.
 */
enum firn_tick firn_fold_tick(bool idle);

/* A whole pass now, regardless of age, period and estimated gain.  Returns bytes given back. */
size_t firn_fold_now(void);

/* Span @s (class lock held) holds folded pages that became empty: those of @pages become anonymous again and
 * their frames lose a reference. */
void firn_fold_release(struct firn_span *s, uint16_t pages);

/* fork: the pass lock is taken before and dropped after; the child forgets what is its parent's. */
void firn_fold_before_fork(void);
void firn_fold_after_fork(bool child);

#endif
