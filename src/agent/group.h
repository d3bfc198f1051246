/* SPDX-License-Identifier: MIT */
/*
 * A group in a request: frozen, evicted and thawed as one.
 */
#ifndef FIRN_AGENT_GROUP_H
#define FIRN_AGENT_GROUP_H

#include "agent/job.h"

/*
 * Freeze or evict all of @s, which was found, as job->method says.  All members are stopped before any is evicted; where
 * one cannot be, or refuses, all run on as before, and the job's answer names that member alone.  Job's thread.
 */
void firn_group_evict(struct firn_job *job, const struct firn_select *s, const struct firn_evict_options *options);

/*
 * Thaw what is held of @s: what was frozen as this group, whoever is in it now, and those of its processes now that were
 * frozen otherwise.  All working sets come in, then all run, then the rest comes.  @found: @s was found.
 */
void firn_group_thaw(struct firn_job *job, const struct firn_select *s, bool found,
		     const struct firn_evict_options *options);

#endif
