/* SPDX-License-Identifier: MIT */
/*
 * The agent's loop: its socket, its connections, its jobs, its clock.
 */
#ifndef FIRN_AGENT_SERVER_H
#define FIRN_AGENT_SERVER_H

#include "agent/control.h"
#include "agent/job.h"
#include "agent/keeper.h"
#include "agent/live.h"
#include "agent/scope.h"

struct firn_server_config {
	struct firn_engine *engine;
	struct firn_keeper *keeper;
	struct firn_scope *scope;
	struct firn_jobs *jobs;
	struct firn_control *control;
	struct firn_metrics *metrics;
	const char *runtime_dir;
	int listening;               /* socket */
	int idle_exit_s;             /* 0: never */
	int kept_exit_s;             /* the same, while packs are kept of processes that run */
	struct firn_live *live;      /* the configuration; read anew on SIGHUP */
};

/* Serve until told to stop, or idle for long enough with nothing evicted.  Returns 0, or -errno. */
int firn_server_run(const struct firn_server_config *config);

#endif
