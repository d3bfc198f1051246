/* SPDX-License-Identifier: MIT */
/*
 * Threads that share out the work of a job: a few that split a loop, and one lane that does a single
 * thing (a write, a read) while the job goes on.  Made in the plan; nothing is allocated afterwards.
 */
#ifndef FIRN_TRANSFER_WORKERS_H
#define FIRN_TRANSFER_WORKERS_H

#include "base/types.h"

struct firn_workers;
struct firn_lane;

/* Make @n workers, the caller's thread being one of them: @n - 1 threads.  Returns 0, or -errno. */
int firn_workers_open(struct firn_workers **ret, unsigned int n);
void firn_workers_close(struct firn_workers *w);
/* Call fn(arg, i, worker) for each i < @n, and return when all have.  One caller at a time. */
void firn_workers_run(struct firn_workers *w, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker),
		      void *arg);

/* Make a lane.  Returns 0, or -errno. */
int firn_lane_open(struct firn_lane **ret);
/* Wait for what is under way, then end it. */
void firn_lane_close(struct firn_lane *l);
/* Begin fn(arg) on the lane; nothing is under way before. */
void firn_lane_begin(struct firn_lane *l, int (*fn)(void *arg), void *arg);
/* Wait for it.  Returns what @fn returned, or 0 where nothing was under way. */
int firn_lane_wait(struct firn_lane *l);

#endif
