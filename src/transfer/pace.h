/* SPDX-License-Identifier: MIT */
/*
 * The pace of a stream that brings a target back while it runs: faults first.
 *
 * Whoever waits for a page waits longest at the beginning, when nothing is back yet; and a few hundred faults are
 * served in less time than some long reads take.  So a stream stands aside while faults keep coming, for
 * FIRN_PACE_PATIENCE_NS of a thaw in all: somebody who touches everything is served best by the stream, and is
 * known by it where he does so in order.
 */
#ifndef FIRN_TRANSFER_PACE_H
#define FIRN_TRANSFER_PACE_H

#include "transfer/armed.h"

#define FIRN_PACE_PATIENCE_NS 80000000ull
#define FIRN_PACE_FIRST_NS 500000ull         /* the first fault of a thaw is waited for so long */
#define FIRN_PACE_QUIET_NS 3000000ull        /* so long after a fault another one is to be expected */
#define FIRN_PACE_IN_ORDER 8u                /* so many faults in the pack's order: more will come so */
#define FIRN_PACE_NEAR 256u                  /* blocks from one of them to the next, at most: a stream may be between */

struct firn_pace {
	uint64_t patience_ns;                /* what is left of it */
};

/* A stream into @a is to begin; the target runs since now. */
void firn_pace_open(struct firn_armed *a);
/* A thread of it begins. */
void firn_pace_begin(struct firn_pace *p);
/* Before each step of the stream, without locks: waits where faults are to be served first. */
void firn_pace_give_way(struct firn_pace *p, struct firn_armed *a);
/* A fault asks for @block.  Do faults come in the order of the pack? */
bool firn_pace_in_order(struct firn_armed *a, uint32_t block);

#endif
