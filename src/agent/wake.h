/* SPDX-License-Identifier: MIT */
/*
 * Wake on use, the agent's part: what the engine's watches notice becomes a thaw.
 */
#ifndef FIRN_AGENT_WAKE_H
#define FIRN_AGENT_WAKE_H

#include "agent/job.h"

/* From here on, whatever is frozen and to be woken is watched, and thawed when there is something for it to do. */
void firn_wake_open(struct firn_jobs *jobs);
/* A job with job->woken is done: say what could not be thawed.  Its thread. */
void firn_wake_done(const struct firn_job *job, const struct firn_report *r);

#endif
