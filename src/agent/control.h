/* SPDX-License-Identifier: MIT */
/*
 * Control: looks, decides by the policy, and has the engine do it.  On a thread of its own where the configuration lets
 * the agent decide by itself; and for requests that leave the choice of targets to it.
 *
 * Functions below may be called by any thread but the one of control itself; those that wait say so.
 */
#ifndef FIRN_AGENT_CONTROL_H
#define FIRN_AGENT_CONTROL_H

#include <json-c/json.h>

#include "agent/config.h"
#include "agent/metrics.h"
#include "agent/scope.h"
#include "base/err.h"
#include "engine/engine.h"

struct firn_control;

struct firn_control_setup {
	struct firn_engine *engine;
	struct firn_metrics *metrics;
	struct firn_scope *scope;
	const struct firn_config *config;   /* until firn_control_reload() */
	const char *private_dir, *state_dir, *store_dir;
	pid_t keeper;
	/* What happened, for whoever monitors; @event is the callee's.  Any thread of ours. */
	void (*event)(void *arg, struct json_object *event);
	void *arg;
};

/* Returns 0, or -errno with *@e. */
int firn_control_open(struct firn_control **ret, const struct firn_control_setup *setup, struct firn_err *e);
/* Start its thread.  Returns 0, or -errno. */
int firn_control_start(struct firn_control *c);
/* End the thread, and wait for what it does; targets stay as they are.  Decides nothing any more. */
void firn_control_stop(struct firn_control *c);
void firn_control_close(struct firn_control *c);

/* Another configuration counts from now on; the caller frees the old one afterwards.  Waits for a decision that is being
 * made, not for what is being done. */
void firn_control_reload(struct firn_control *c, const struct firn_config *config);
void firn_control_set_keeper(struct firn_control *c, pid_t keeper);

/* An operation came to its end: count it, remember it, tell it.  Everybody who has the engine do something calls it. */
void firn_control_note(struct firn_control *c, enum firn_metrics_verb verb, enum firn_metrics_cause cause,
		       const struct firn_report *r);

struct firn_reclaim {
	uint64_t bytes;                 /* that are to be available */
	uint32_t priority;              /* whose need it is: those below may be taken */
	uid_t uid;                      /* who asks; not 0: only that user's processes */
	gid_t gid;
	pid_t client;                   /* neither it nor an ancestor of it is touched */
	pid_t for_pid;                  /* who will use it; 0: whoever comes */
	uint64_t timeout_ns;            /* 0: none */
	bool dry_run;
	/* After each target; with dry_run, for each that would be taken.  @text: why it. */
	void (*note)(void *arg, const struct firn_report *r, const char *text);
	/* Before each target; then how far it is. */
	void (*at)(void *arg, pid_t pid);
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

struct firn_reclaimed {
	uint64_t wanted_bytes;          /* that were missing to begin with */
	uint64_t before_bytes, after_bytes; /* available */
	uint64_t freed_bytes;           /* that the targets gave */
	uint64_t written_bytes;
	unsigned int taken, failed;
};

/*
 * Evict targets of lower priority until @ask->bytes are available, as many as it takes and no more.  Waits.
 * Returns 0; -ENOMEM no (more) candidates and not enough, or more than there ever is (FIRN_EXIT_FAILED), -ETIMEDOUT, -errno of a look; *@e says
 * it, *@ret is filled in every case, and what was evicted stays evicted.
 */
int firn_control_reclaim(struct firn_control *c, const struct firn_reclaim *ask, struct firn_reclaimed *ret,
			 struct firn_err *e);

/*
 * Set the priority of a process, and with @tree of its descendants; with @dry_run only see whether it may be.  @uid: who
 * asks: only root raises it above what the rules say.  Returns 0; -ESRCH, -EPERM, -EXDEV out of scope, -ENOMEM with *@e:
 * nothing changed.
 */
int firn_control_priority(struct firn_control *c, pid_t pid, uint32_t priority, bool tree, bool dry_run, uid_t uid,
			  gid_t gid, struct firn_err *e);

/*
 * What the policy says of @pids, or of all in scope (@npids 0), as Targets: priority and the rule that gives it, what
 * would be done now and why, its place in the queue, gain and cost.  For single ones the engine is asked too.  Waits
 * for a look.  @uid: who asks: others' processes are left out; of several that are named, whoever cannot be told of has
 * an error in place of it.  Returns 0, or -errno with *@e; the caller owns *@ret:
 * { "targets": [...], "summary": {...} }.
 */
int firn_control_explain(struct firn_control *c, const pid_t *pids, unsigned int npids, uid_t uid, gid_t gid,
			 pid_t client, struct json_object **ret, struct firn_err *e);

/* A cgroup of its own for @pid, which runs a command next: see rungroup.h.  It is removed when nobody is in it.  @ret_path:
 * "" where there is none. */
void firn_control_own_group(struct firn_control *c, pid_t pid, char *ret_path, size_t size);

/* May packs in the store take @bytes more, by the limits of the configuration?  With @make, packs that are kept of processes
 * which run give way to it. */
bool firn_control_store_has(struct firn_control *c, uint64_t bytes, bool make);

/* What holds now, for metrics. */
void firn_control_now(struct firn_control *c, struct firn_metrics_now *ret);

/* May @pid be taken by an explicit request without force?  Returns 0; -EPERM: the never-list has it, and *@e says which
 * rule; with @force only what is never taken at all is. */
int firn_control_allows(struct firn_control *c, pid_t pid, bool force, struct firn_err *e);

#endif
