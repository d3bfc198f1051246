/* SPDX-License-Identifier: MIT */
/*
 * What stands before an eviction and after a thaw: the limit of the store, the day's budget, and the hooks.
 */
#ifndef FIRN_AGENT_GATE_H
#define FIRN_AGENT_GATE_H

#include "agent/control.h"

struct firn_gate {
	bool to_store;               /* bytes will be written there */
	bool force;                  /* even where the budget is used up */
	bool dry_run;                /* no hook is run */
};

/*
 * May @pid be evicted now?  Runs its before-freeze hook, on any thread that does not trace.
 * Returns 0, also for a process that has ended: the engine says so better; or -EDQUOT (budget), -ENOSPC (store),
 * -ECANCELED, -ETIMEDOUT, -errno, with *@e.
 */
int firn_gate_before(struct firn_control *c, pid_t pid, const struct firn_gate *gate, struct firn_err *e);

/* @pid is back: run its after-thaw hook.  What goes wrong is logged: the process runs. */
void firn_gate_after(struct firn_control *c, pid_t pid);

#endif
