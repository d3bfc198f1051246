/* SPDX-License-Identifier: MIT */
/*
 * The verbs that leave the choice to the agent, or ask about it: explain, reclaim, priority, run, stats, monitor.
 */
#ifndef FIRN_CLI_DECIDE_H
#define FIRN_CLI_DECIDE_H

#include "cli/args.h"

/* Each does its verb and returns the exit status. */
int firn_do_explain(const struct firn_args *a);
int firn_do_reclaim(const struct firn_args *a);
int firn_do_priority(const struct firn_args *a);
/* Returns only where the command was not run: 126, 127 as shells have it, or the agent's code. */
int firn_do_run(const struct firn_args *a);
int firn_do_stats(const struct firn_args *a);
int firn_do_monitor(const struct firn_args *a);

#endif
