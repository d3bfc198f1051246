/* SPDX-License-Identifier: MIT */
/*
 * A request that takes time runs on a thread of its own: the main loop never blocks.
 */
#ifndef FIRN_AGENT_JOB_H
#define FIRN_AGENT_JOB_H

#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>

#include "agent/scope.h"
#include "agent/control.h"
#include "agent/select.h"
#include "engine/engine.h"
#include "proto/interface.h"

#define FIRN_JOB_TARGETS FIRN_SELECT_MAX

/* For firn_jobs_send(): every connection that monitors. */
#define FIRN_TO_MONITORS UINT64_MAX

struct firn_jobs {
	struct firn_engine *engine;
	struct firn_control *control;   /* is told what was done */
	struct firn_scope *scope;
	pthread_mutex_t lock;
	int wake;                    /* eventfd: something is in the outbox */
	struct firn_outgoing *first, **last;
	unsigned int running;
	atomic_bool ending;          /* all comes back, and the agent ends: nothing is held or evicted any more */
};

/* A message for a connection. */
struct firn_outgoing {
	struct firn_outgoing *next;
	uint64_t connection;         /* its serial number */
	bool final;
	struct json_object *message; /* owned */
};

struct firn_job {
	struct firn_jobs *jobs;
	uint64_t connection;
	enum firn_method method;     /* FREEZE, EVICT or THAW */
	enum firn_metrics_cause cause;
	bool all, dry_run, more, force;
	bool wake;                   /* freeze: wake on use */
	bool woken;                  /* thaw: by the agent itself, since there is something to do */
	bool settle;                 /* first let the control and all other jobs end, so that nothing is evicted any more */
	bool ram, move;              /* see struct firn_evict_options */
	uint32_t after_s;
	enum firn_pack_kind kind;    /* 0: the agent's */
	uid_t uid;
	gid_t gid;
	pid_t client;
	unsigned int nselects;
	struct firn_select *selects; /* owned */
	uint64_t told_ns;            /* when progress was last told */
	pid_t current;
	struct json_object *targets;
};

int firn_jobs_init(struct firn_jobs *jobs, struct firn_engine *engine, struct firn_scope *scope);
/* What a call's parameters (may be NULL) say of where the packs are to be, and of their kind (0: none is said).  False: it
 * makes no sense. */
bool firn_job_place(struct firn_job *job, struct json_object *parameters);
bool firn_job_kind(struct firn_job *job, struct json_object *parameters);
/* Run @job (allocated; the thread frees it and job->selects).  Returns 0, or -errno: it was not started and
 * stays the caller's. */
int firn_job_start(struct firn_job *job);
/* Tell @connection (a serial number) something; @message is taken over.  @final: the call of that connection is over,
 * and with it something that was counted in jobs->running.  Any thread. */
void firn_jobs_send(struct firn_jobs *jobs, uint64_t connection, struct json_object *message, bool final);
/* Tell @connection how far its call is: which target it is at, and what of its phase is done; not more often than ten
 * times a second, by *@told_ns, the caller's, which begins with 0.  The call's thread. */
void firn_jobs_progress(struct firn_jobs *jobs, uint64_t connection, pid_t pid, const char *phase, uint64_t done,
			uint64_t total, uint64_t *told_ns);
/* Take what the jobs have to say; NULL: nothing.  The caller frees. */
struct firn_outgoing *firn_jobs_take(struct firn_jobs *jobs);

/* Start a thread with a stack of the agent's size.  Returns 0, or -errno. */
int firn_thread_start(pthread_t *ret, bool detached, void *(*fn)(void *), void *arg);

/* --- for agent/group.c: of a running job --- */

enum firn_job_step { FIRN_STEP_HOLD, FIRN_STEP_EVICT, FIRN_STEP_RUN, FIRN_STEP_BRING, FIRN_STEP_THAW };

/* Do one step with one target, on a thread of its own, and wait for it; what came of it is in *@ret.  A hold, an evict
 * and a thaw are held to what the asker may do and to the scope. */
void firn_job_do(struct firn_job *job, enum firn_job_step step, pid_t pid, const struct firn_evict_options *options,
		 struct firn_report *ret);
/* Add a target to the job's answer. */
void firn_job_note(struct firn_job *job, const struct firn_report *r);

#endif
