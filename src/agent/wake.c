/* SPDX-License-Identifier: MIT */
#include "agent/wake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* A group as one, in the order that is right for one. */
static void name(struct firn_job *job, struct firn_engine *engine, const pid_t *pids, unsigned int n)
{
	struct firn_report r;

	for (unsigned int i = 0; i < n; i++) {
		struct firn_select *s = &job->selects[job->nselects++];

		s->by = FIRN_BY_PID;
		s->pid = pids[i];
		if (firn_engine_show(engine, pids[i], &r) || !r.group)
			continue;
		s->by = FIRN_BY_TREE;
		snprintf(s->text, sizeof(s->text), "%s", r.group_text);
		job->selects[0] = *s;
		job->nselects = 1;
		return;
	}
}

/* On a thread of the engine's. */
static void on_wake(void *arg, uint64_t id, const char *line)
{
	struct firn_jobs *jobs = arg;
	struct firn_job *job = calloc(1, sizeof(*job));
	pid_t *pids = calloc(FIRN_JOB_TARGETS, sizeof(*pids));
	unsigned int n = pids ? firn_engine_wake_members(jobs->engine, id, pids, FIRN_JOB_TARGETS) : 0;
	int err = -ENOMEM;

	firn_log("%s", line);
	if (job && pids)
		job->selects = calloc(n + 1, sizeof(*job->selects));
	if (job && job->selects) {
		job->jobs = jobs;
		job->method = FIRN_CALL_THAW;
		job->cause = FIRN_METRICS_WAKE;
		job->woken = true;
		name(job, jobs->engine, pids, n);
		err = firn_job_start(job);
	}
	free(pids);
	if (!err)
		return;
	if (job)
		free(job->selects);
	free(job);
	firn_log("it cannot be thawed now (%s): it is tried again in a while", strerror(-err));
}

void firn_wake_open(struct firn_jobs *jobs)
{
	int err = firn_engine_on_wake(jobs->engine, on_wake, jobs);

	if (err)
		firn_log("no thread can be started (%s): nothing that is frozen is woken on use", strerror(-err));
	firn_engine_watch(jobs->engine, 0);
}

void firn_wake_done(const struct firn_job *job, const struct firn_report *r)
{
	/* Somebody else has thawed it, or it has ended. */
	if (!job->woken || !r->err.code || r->err.code == FIRN_EXIT_NOT_FOUND)
		return;
	firn_log("%s", r->err.message);
}
