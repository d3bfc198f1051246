/* SPDX-License-Identifier: MIT */
/*
 * How long things took: a histogram in shared memory, four steps to the doubling, from 1 us to an hour.
 */
#ifndef FIRN_TRANSFER_LATENCY_H
#define FIRN_TRANSFER_LATENCY_H

#include "base/types.h"

#define FIRN_LATENCY_STEPS 128u

/* All zero: nothing was counted. */
struct firn_latency {
	uint64_t count, max_ns;
	uint32_t steps[FIRN_LATENCY_STEPS];
};

/* Count one.  Any thread. */
void firn_latency_add(struct firn_latency *l, uint64_t ns);
/* What @percent of them did not exceed, in ns: at most a quarter too much.  0 where nothing was counted. */
uint64_t firn_latency_percentile(const struct firn_latency *l, unsigned int percent);

#endif
