/* SPDX-License-Identifier: MIT */
/*
 * The pace of a stream that brings a target back while it runs: faults first.
 *
 * Whoever waits for a page waits longest at the beginning, when nothing is back yet; and a few hundred faults are
 * served in less time than one long read takes.  So a stream stands aside while faults keep coming, for
 * FIRN_PACE_PATIENCE_NS of a thaw in all: somebody who touches everything is served best by the stream.
 * After that it reads in small pieces while they come.  One thread.
 */
#ifndef FIRN_TRANSFER_PACE_H
#define FIRN_TRANSFER_PACE_H

#include "transfer/armed.h"

#define FIRN_PACE_PATIENCE_NS 50000000ull
#define FIRN_PACE_QUIET_NS 500000ull         /* without a fault for so long, none are to be expected */
#define FIRN_PACE_SMALL_BYTES (1u << 20)     /* read so much at once while faults come: about 1 ms */

struct firn_pace {
	uint64_t patience_ns;                /* what is left of it */
};

/* A stream into @a begins; the target runs since now. */
void firn_pace_begin(struct firn_pace *p, struct firn_armed *a);
/* Before each step of the stream, without locks: waits where faults are to be served first. */
void firn_pace_give_way(struct firn_pace *p, struct firn_armed *a);
/* How much to read at once, at most @bytes. */
size_t firn_pace_read_bytes(const struct firn_armed *a, size_t bytes);

#endif
