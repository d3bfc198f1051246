/* SPDX-License-Identifier: MIT */
/*
 * Calls that leave the choice to the control, or ask about it: each on a thread of its own, since they look at the
 * whole host and may wait for evictions.
 */
#ifndef FIRN_AGENT_TASK_H
#define FIRN_AGENT_TASK_H

#include <sys/socket.h>

#include "agent/control.h"
#include "agent/job.h"

/* Where no priority is given: what is asked for by hand matters more than what is not. */
#define FIRN_TASK_PRIORITY 50

struct firn_task {
	struct firn_jobs *jobs;
	struct firn_control *control;
	struct firn_metrics *metrics;
	uint64_t connection;
	enum firn_method method;        /* EXPLAIN, RECLAIM, PRIORITY, RUN or STATS */
	struct json_object *parameters; /* ours */
	struct ucred peer;
	bool more;                      /* tell of the progress */
};

/*
 * Start @task (copied; its parameters are taken over on success).  Its answer goes to the connection through the jobs'
 * outbox.  Returns 0, or -errno: nothing was started.  Main thread.
 */
int firn_task_start(const struct firn_task *task);

#endif
