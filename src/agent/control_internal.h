/* SPDX-License-Identifier: MIT */
/*
 * What control.c and request.c share.  Two locks: `acting` is held by whoever has the engine do what was decided, so
 * that two do not evict for the same need; `lock` guards the view and what is known of the moment, and is never held
 * while something is done.
 */
#ifndef FIRN_AGENT_CONTROL_INTERNAL_H
#define FIRN_AGENT_CONTROL_INTERNAL_H

#include <stdatomic.h>

#include "agent/control.h"
#include "agent/ledger.h"
#include "agent/textfile.h"
#include "agent/view.h"

#define FIRN_MAX_CHOSEN 256u

struct firn_control {
	struct firn_control_setup setup;
	const struct firn_config *config;
	pthread_mutex_t acting, lock;
	pthread_t thread;
	bool running;
	atomic_bool stopping;
	atomic_uint run_groups;         /* that are to be removed when nobody is in them any more */
	int wake;                       /* eventfd: something changed for the thread */
	int trigger;                    /* PSI; -1: there is none */
	char memory_cgroup[400];        /* "" : the host */
	struct firn_view view;
	struct firn_ledger ledger;
	struct firn_policy_summary summary;
	bool reclaiming;
	uint64_t reclaimed_ns;          /* when the last eviction ended; 0: there was none */
	uint64_t looked_ns;
	struct {
		uint64_t bytes, until_ns, private_bytes;
		pid_t pid;
	} reserved;
	enum firn_pressure told;        /* of which the log knows */
	uint64_t would;                 /* which choice it knows, where nothing is done; its thread's own */
	struct firn_textfile textfile;  /* the control thread's */
};

/* What was decided for one target, to be done when the view may have changed. */
struct firn_choice {
	pid_t pid;
	uint64_t start_time;
	enum firn_action action;
	struct firn_rule_values rule;
	char text[FIRN_POLICY_TEXT];
};


struct firn_view_from firn_control_from(const struct firn_control *c);
/* Look, with what only the control knows of the moment.  Locked.  Returns 0, or -errno. */
int firn_control_look(struct firn_control *c, uint64_t now_ns);
/* Decide, and note what is to be done in the order in which it is: up to FIRN_MAX_CHOSEN.  Locked.  Returns how many. */
unsigned int firn_control_choose(struct firn_control *c, struct firn_policy_summary *summary, struct firn_choice *chosen);
/* Have the engine do it, on a thread of its own, count it and tell it.  Acting, and not locked. */
void firn_control_act(struct firn_control *c, const struct firn_choice *what, enum firn_metrics_cause cause,
		      const struct firn_reclaim *ask, struct firn_report *ret);

#endif
