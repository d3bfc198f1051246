/* SPDX-License-Identifier: MIT */
#include "agent/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control_internal.h"
#include "agent/hook.h"
#include "base/log.h"

/* What the configuration of this moment wants run: the command is the caller's, NULL where there is none. */
static int find_hook(struct firn_control *c, pid_t pid, bool before, struct firn_hook *ret)
{
	struct firn_verdict verdict;
	struct firn_view_from f;
	const char *command;
	char why[96];
	int err;

	ret->command = NULL;
	f = firn_control_from(c);
	err = firn_view_judge(&f, pid, &verdict, why, sizeof(why));
	if (err)
		return 0;
	command = before ? verdict.v.before_freeze : verdict.v.after_thaw;
	if (!command || !*command)
		return 0;
	ret->command = strdup(command);
	ret->event = before ? "before-freeze" : "after-thaw";
	ret->pid = pid;
	ret->timeout_ns = verdict.v.hook_timeout_ns;
	return ret->command ? 0 : -ENOMEM;
}

int firn_gate_before(struct firn_control *c, pid_t pid, const struct firn_gate *gate, struct firn_err *e)
{
	struct firn_hook hook = { 0 };
	int err = 0;

	if (gate->to_store && !firn_control_store_has(c, 1, !gate->dry_run))
		return firn_err_set(e, FIRN_EXIT_STORE, ENOSPC, "store-limit",
				    "packs take all that they may of the store: thaw something, or raise limit or lower keep-free in "
				    "[store] of firn.conf");
	pthread_mutex_lock(&c->lock);
	if (gate->to_store && !gate->force && !firn_ledger_left(&c->ledger))
		err = firn_err_set(e, FIRN_EXIT_REFUSED, EDQUOT, "budget",
				   "the day's budget of bytes written is used up: nothing is written until tomorrow; --force, "
				   "or daily-budget in firn.conf, lets it");
	else if (find_hook(c, pid, true, &hook))
		err = firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the request: try again");
	pthread_mutex_unlock(&c->lock);
	if (!err && hook.command && !gate->dry_run)
		err = firn_hook_run(&hook, e);
	free((char *)hook.command);
	return err;
}

void firn_gate_after(struct firn_control *c, pid_t pid)
{
	struct firn_err e = { 0 };
	struct firn_hook hook;

	pthread_mutex_lock(&c->lock);
	find_hook(c, pid, false, &hook);
	pthread_mutex_unlock(&c->lock);
	if (hook.command && firn_hook_run(&hook, &e))
		firn_log("%s; it runs all the same", e.message);
	free((char *)hook.command);
}
