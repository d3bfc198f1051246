/* SPDX-License-Identifier: MIT */
/*
 * Requests that leave the choice of targets to the policy, or ask about it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "agent/control_internal.h"
#include "agent/json.h"
#include "agent/rungroup.h"
#include "base/size.h"
#include "procmem/proc.h"
#include "sys/sys.h"

#define SECOND 1000000000ull
/* What was made available for somebody stays reserved for so long at most. */
#define RESERVED_NS (60 * SECOND)
/* Targets that give less than they should: so often another is looked for. */
#define ROUNDS 64u
/* Between two looks where none was made lately: who is busy shows. */
#define SECOND_LOOK_NS 300000000u
#define LATELY_NS (20 * SECOND)

static int available(struct firn_control *c, uint64_t *ret, uint64_t *ret_total)
{
	struct firn_memory m;
	int err = firn_memory_read(*c->memory_cgroup ? c->memory_cgroup : NULL, &m);

	if (!err)
		*ret = m.available;
	if (!err && ret_total)
		*ret_total = m.total;
	return err;
}

/* A look that knows who is busy, also where the agent does not look by itself.  Locked, and for a moment not. */
static int look_well(struct firn_control *c)
{
	uint64_t now = firn_sys.clock_ns();
	int err;

	if (!c->looked_ns || now - c->looked_ns > LATELY_NS) {
		err = firn_control_look(c, now);
		if (err)
			return err;
		pthread_mutex_unlock(&c->lock);
		firn_sys.sleep_ns(SECOND_LOOK_NS);
		pthread_mutex_lock(&c->lock);
	}
	return firn_control_look(c, firn_sys.clock_ns());
}

/* What is wanted, and nobody gives: in words. */
static int fail_short(const struct firn_reclaim *ask, const struct firn_policy_summary *summary, uint64_t have,
		      struct firn_err *e)
{
	static const enum firn_reason told[] = {
		FIRN_REASON_PRIORITY, FIRN_REASON_ACTIVE, FIRN_REASON_NEVER,  FIRN_REASON_REFUSED, FIRN_REASON_SMALL,
		FIRN_REASON_AWAKE,    FIRN_REASON_TICKS,  FIRN_REASON_BUDGET, FIRN_REASON_STORE,
	};
	char wanted[FIRN_SIZE_TEXT], size[FIRN_SIZE_TEXT], why[160] = "";
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(told) && len + 24 < sizeof(why); i++)
		if (summary->reasons[told[i]])
			len += (size_t)snprintf(why + len, sizeof(why) - len, "%s%s %u", len ? ", " : "",
						firn_reason_name(told[i]), summary->reasons[told[i]]);
	return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "not-enough",
			    "%s are not to be had: %s available, nobody below priority %u can give more (%s): %ssee firn explain",
			    firn_size_print(wanted, ask->bytes), firn_size_print(size, have >> 20 << 20), ask->priority,
			    why, summary->reasons[FIRN_REASON_PRIORITY] ? "a higher --priority asks more of them, or " : "");
}

static int one_round(struct firn_control *c, const struct firn_reclaim *ask, struct firn_choice *chosen,
		     unsigned int *ret_n, uint64_t have, struct firn_err *e)
{
	struct firn_policy_summary summary;
	int err;

	pthread_mutex_lock(&c->lock);
	err = look_well(c);
	if (err) {
		pthread_mutex_unlock(&c->lock);
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "look", "/proc cannot be read: %s", strerror(-err));
	}
	c->view.snapshot.need = (struct firn_need){ true, ask->bytes - have, ask->priority, ask->uid };
	*ret_n = firn_control_choose(c, &summary, chosen);
	firn_book_save(&c->view.book);
	pthread_mutex_unlock(&c->lock);
	return *ret_n ? 0 : fail_short(ask, &summary, have, e);
}

static void reserve(struct firn_control *c, const struct firn_reclaim *ask)
{
	struct firn_proc p;

	pthread_mutex_lock(&c->lock);
	c->reserved.bytes = ask->bytes;
	c->reserved.until_ns = firn_sys.clock_ns() + RESERVED_NS;
	c->reserved.pid = ask->for_pid;
	c->reserved.private_bytes = ask->for_pid && !firn_proc_read(ask->for_pid, &p) ? p.rss_anon_bytes : 0;
	pthread_mutex_unlock(&c->lock);
}

/* Do what was chosen, until there is enough.  Returns whether anything was given. */
static bool do_round(struct firn_control *c, const struct firn_reclaim *ask, const struct firn_choice *chosen,
		     unsigned int n, uint64_t deadline, struct firn_reclaimed *ret)
{
	bool gave = false;

	for (unsigned int i = 0; i < n && ret->after_bytes < ask->bytes; i++) {
		struct firn_report r = { 0 };

		if (c->stopping || (deadline && firn_sys.clock_ns() > deadline))
			break;
		ask->at(ask->arg, chosen[i].pid);
		firn_control_act(c, &chosen[i], FIRN_METRICS_RECLAIM, ask, &r);
		if (r.err.code) {
			ret->failed++;
		} else {
			ret->taken++;
			ret->freed_bytes += r.memory_before - firn_min_u64(r.memory_after, r.memory_before);
			ret->written_bytes += r.in_ram ? 0 : r.write_bytes;
			gave = true;
		}
		ask->note(ask->arg, &r, chosen[i].text);
		available(c, &ret->after_bytes, NULL);
	}
	return gave;
}

int firn_control_reclaim(struct firn_control *c, const struct firn_reclaim *ask, struct firn_reclaimed *ret,
			 struct firn_err *e)
{
	struct firn_choice *chosen = calloc(FIRN_MAX_CHOSEN, sizeof(*chosen));
	uint64_t deadline = ask->timeout_ns ? firn_sys.clock_ns() + ask->timeout_ns : 0;
	char size[FIRN_SIZE_TEXT], wanted[FIRN_SIZE_TEXT];
	uint64_t total = 0;
	unsigned int n = 0;
	int err;

	memset(ret, 0, sizeof(*ret));
	if (!chosen)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the request: try again");
	pthread_mutex_lock(&c->acting);
	err = available(c, &ret->before_bytes, &total);
	ret->after_bytes = ret->before_bytes;
	ret->wanted_bytes = ask->bytes - firn_min_u64(ret->before_bytes, ask->bytes);
	if (err)
		firn_err_set(e, FIRN_EXIT_FAILED, -err, "look", "available memory cannot be read: %s", strerror(-err));
	else if (ask->bytes > total)
		/* Nobody need be evicted to find that out. */
		err = firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "too-much",
				   "%s are more than the %s of memory that there are: ask for less",
				   firn_size_print(wanted, ask->bytes), firn_size_print(size, total >> 20 << 20));
	for (unsigned int i = 0; !err && ret->after_bytes < ask->bytes; i++) {
		if (c->stopping) {
			err = firn_err_set(e, FIRN_EXIT_NO_AGENT, ECANCELED, "stopping",
					   "the agent is ending: try again, a new one will start");
			break;
		}
		if ((deadline && firn_sys.clock_ns() > deadline) || i == ROUNDS) {
			err = firn_err_set(e, FIRN_EXIT_FAILED, ETIMEDOUT, "timeout",
					   "%s of %s available when time was up: the targets named stay evicted",
					   firn_size_print(size, ret->after_bytes >> 20 << 20),
					   firn_size_print(wanted, ask->bytes));
			break;
		}
		err = one_round(c, ask, chosen, &n, ret->after_bytes, e);
		if (!err)
			do_round(c, ask, chosen, n, deadline, ret);
		if (!err && ask->dry_run)
			break;
	}
	if (!err && !ask->dry_run)
		reserve(c, ask);
	pthread_mutex_unlock(&c->acting);
	free(chosen);
	return err;
}

static int no_process(pid_t pid, struct firn_err *e)
{
	return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "no-process",
			    "there is no process %d: look up the pid, e.g. with pgrep", pid);
}

/* May @uid ask about @pid, or for it?  Returns 0, or -ESRCH, -EPERM, -EXDEV with *@e. */
static int may_ask(struct firn_control *c, pid_t pid, uid_t uid, gid_t gid, uint64_t *ret_start_time, struct firn_err *e)
{
	struct firn_proc p;

	if (firn_proc_read(pid, &p) || firn_proc_start_time(pid, ret_start_time))
		return no_process(pid, e);
	if (p.tgid != pid)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "thread", "%d is a thread: give its process %d", pid, p.tgid);
	if (firn_engine_may_trace(uid, gid, pid))
		return firn_err_set(e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
				    "process %d is not yours: run firn as root, or as the process's user", pid);
	if (p.kernel_thread)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EPERM, "kernel-thread",
				    "process %d is a kernel thread: it is never frozen, and has no priority here", pid);
	if (!firn_scope_has(c->setup.scope, pid))
		return firn_err_set(e, FIRN_EXIT_REFUSED, EXDEV, "scope",
				    "process %d is outside of what the agent is confined to (%.120s): it is not looked at", pid,
				    firn_scope_text(c->setup.scope));
	return 0;
}

int firn_control_priority(struct firn_control *c, pid_t pid, uint32_t priority, bool tree, bool dry_run, uid_t uid,
			  gid_t gid, struct firn_err *e)
{
	struct firn_verdict verdict;
	struct firn_view_from f;
	struct firn_entry *entry;
	char why[96];
	uint64_t start_time;
	int err = may_ask(c, pid, uid, gid, &start_time, e);

	if (err)
		return err;
	pthread_mutex_lock(&c->lock);
	f = firn_control_from(c);
	err = firn_view_judge(&f, pid, &verdict, why, sizeof(why));
	if (err)
		err = no_process(pid, e);
	else if (uid && priority > verdict.v.priority)
		err = firn_err_set(e, FIRN_EXIT_NOT_PERMITTED, EPERM, "priority",
				   "only root raises a priority above what the rules say (%u): give %u or less",
				   verdict.v.priority, verdict.v.priority);
	entry = err || dry_run ? NULL : firn_book_make(&c->view.book, pid, start_time);
	if (!err && !dry_run && !entry)
		err = firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the request: try again");
	if (entry) {
		entry->has_priority = true;
		entry->tree = tree;
		entry->priority = (uint8_t)priority;
		entry->here = true;
		c->view.book.changed = true;
		firn_book_save(&c->view.book);
	}
	pthread_mutex_unlock(&c->lock);
	return err;
}

int firn_control_allows(struct firn_control *c, pid_t pid, bool force, struct firn_err *e)
{
	struct firn_verdict verdict;
	struct firn_view_from f;
	char why[96];
	int err;

	pthread_mutex_lock(&c->lock);
	f = firn_control_from(c);
	err = firn_view_judge(&f, pid, &verdict, why, sizeof(why));
	pthread_mutex_unlock(&c->lock);
	if (err || verdict.v.never == FIRN_NEVER_NO || (force && verdict.v.never == FIRN_NEVER_YES))
		return 0;               /* that it does not exist, the engine says better */
	return firn_err_set(e, FIRN_EXIT_REFUSED, EPERM, "never", verdict.v.never == FIRN_NEVER_ALWAYS ?
			    "process %d is never frozen, by %s" : "process %d is on the never-list, by %s: --force overrides it",
			    pid, why);
}

static void put(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void put_text(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

static const char *const unit_states[] = { "running", "evicted", "frozen", "busy" };

/* A Target with what the policy says of it.  Locked. */
static struct json_object *explained(struct firn_control *c, size_t i, const struct firn_policy_summary *summary)
{
	const struct firn_view *v = &c->view;
	const struct firn_viewed *w = &v->viewed[i];
	const struct firn_unit *u = &v->units[i];
	const struct firn_decision *d = &v->decisions[i];
	const struct firn_rule *rule = w->verdict.by[FIRN_RULE_PRIORITY];
	struct json_object *o = json_object_new_object(), *p = json_object_new_object();
	char text[FIRN_POLICY_TEXT], id[64], where[160];

	snprintf(id, sizeof(id), "%d-%llu", w->pid, (unsigned long long)w->start_time);
	put_text(o, "id", id);
	put(o, "pid", (uint64_t)w->pid);
	put_text(o, "comm", w->seen->comm);
	put_text(o, "state", unit_states[u->state]);
	put(p, "uid", w->seen->uid);
	put(p, "priority", u->priority);
	if (w->set)
		put_text(p, "rule", "set by request");
	else if (rule) {
		snprintf(where, sizeof(where), "%s (%s:%u)", rule->name, rule->file, rule->line);
		put_text(p, "rule", where);
	}
	put_text(p, "action", firn_action_name(d->action));
	put_text(p, "reason", firn_reason_name(d->reason));
	put_text(p, "text", firn_policy_explain(text, sizeof(text), &c->config->policy, &v->snapshot, i, d, summary));
	put(p, "place", d->place);
	put(p, "gain", d->gain_bytes);
	put(p, "cost", d->cost_bytes);
	put(p, "private", u->private_bytes);
	put(p, "shared", u->shared_bytes);
	put(p, "out", u->out_bytes);
	put(p, "idleMs", u->idle_ns / 1000000);
	put(p, "awakeMs", u->awake_ns / 1000000);
	put(p, "cpuPermille", w->seen->cpu_permille);
	put(p, "faultsPerSecond", u->state == FIRN_UNIT_RUNNING ? w->seen->faults_per_s : u->refaults_per_s);
	put(p, "wakeupsPerMinute", u->wakeups_per_minute);
	put(p, "writtenToday", u->written_today_bytes);
	json_object_object_add(o, "policy", p);
	return o;
}

static struct json_object *summarized(struct firn_control *c, const struct firn_policy_summary *summary)
{
	struct json_object *o = json_object_new_object();
	const struct firn_policy_snapshot *s = &c->view.snapshot;
	char text[FIRN_POLICY_TEXT];

	json_object_object_add(o, "automatic", json_object_new_boolean(c->config->automatic == FIRN_AUTO_YES));
	put_text(o, "pressure", firn_pressure_name(summary->pressure));
	put_text(o, "text", firn_policy_explain_summary(text, sizeof(text), &c->config->policy, s, summary));
	put(o, "total", s->total_bytes);
	put(o, "available", s->available_bytes);
	put(o, "low", summary->low_bytes);
	put(o, "high", summary->high_bytes);
	put(o, "wanted", summary->wanted_bytes);
	if (s->psi_known) {
		put(o, "someHundredths", s->psi_some_hundredths);
		put(o, "fullHundredths", s->psi_full_hundredths);
	}
	if (s->budget_bytes != FIRN_NO_LIMIT)
		put(o, "budgetLeft", s->budget_bytes);
	if (s->store_bytes != FIRN_NO_LIMIT)
		put(o, "storeLeft", s->store_bytes);
	return o;
}

/* Could it be evicted by request?  The engine is asked too, on a thread that may trace. */
static void ask_engine(struct firn_control *c, struct json_object *target, const struct firn_choice *what,
		       const struct firn_reclaim *ask)
{
	struct firn_report r = { 0 };

	if (!firn_control_allows(c, what->pid, false, &r.err))
		firn_control_act(c, what, FIRN_METRICS_REQUEST, ask, &r);
	if (r.err.code)
		json_object_object_add(target, "refused", firn_json_trouble(&r.err));
}

int firn_control_explain(struct firn_control *c, const pid_t *pids, unsigned int npids, uid_t uid, gid_t gid,
			 pid_t client, struct json_object **ret, struct firn_err *e)
{
	struct firn_reclaim ask = { .uid = uid, .gid = gid, .client = client, .dry_run = true };
	struct json_object *targets = json_object_new_array();
	struct firn_choice *what = calloc(npids + 1, sizeof(*what));
	struct firn_policy_summary summary;
	uint64_t start_time;
	unsigned int n = 0;
	int err = what ? 0 : -ENOMEM;

	pthread_mutex_lock(&c->lock);
	if (!err)
		err = look_well(c);
	if (err) {
		firn_err_set(e, FIRN_EXIT_FAILED, -err, "look", "/proc cannot be read: %s", strerror(-err));
		goto out;
	}
	firn_policy_decide(&c->config->policy, &c->view.snapshot, c->view.decisions, c->view.order, &summary);
	for (unsigned int k = 0; k < npids; k++) {
		long i = firn_view_find(&c->view, pids[k]);

		err = may_ask(c, pids[k], uid, gid, &start_time, e);
		if (!err && i < 0)
			err = no_process(pids[k], e);   /* it began, or ended, since the look */
		if (err && npids == 1)
			goto out;
		if (err) {
			/* The others are told of all the same. */
			struct json_object *o = json_object_new_object();

			put(o, "pid", (uint64_t)pids[k]);
			json_object_object_add(o, "error", firn_json_trouble(e));
			json_object_array_add(targets, o);
			memset(e, 0, sizeof(*e));
			err = 0;
			what[n++].action = FIRN_ACTION_NONE;
			continue;
		}
		json_object_array_add(targets, explained(c, (size_t)i, &summary));
		what[n].pid = pids[k];
		what[n].start_time = c->view.viewed[i].start_time;
		what[n].rule = c->view.viewed[i].verdict.v;
		what[n++].action = c->view.units[i].state == FIRN_UNIT_RUNNING ? FIRN_ACTION_EVICT : FIRN_ACTION_NONE;
	}
	for (size_t k = 0; !npids && k < c->view.snapshot.n; k++) {
		size_t i = c->view.order[k];

		if (!uid || c->view.viewed[i].seen->uid == uid)
			json_object_array_add(targets, explained(c, i, &summary));
	}
	*ret = json_object_new_object();
	json_object_object_add(*ret, "targets", targets);
	json_object_object_add(*ret, "summary", summarized(c, &summary));
out:
	firn_book_save(&c->view.book);
	pthread_mutex_unlock(&c->lock);
	for (unsigned int k = 0; !err && k < n; k++)
		if (what[k].action == FIRN_ACTION_EVICT)
			ask_engine(c, json_object_array_get_idx(targets, k), &what[k], &ask);
	if (err)
		json_object_put(targets);
	free(what);
	return err;
}

void firn_control_own_group(struct firn_control *c, pid_t pid, char *ret_path, size_t size)
{
	uint64_t one = 1;

	if (!firn_rungroup_make(pid, ret_path, size))
		return;
	/* The thread sweeps it away. */
	if (!c->run_groups++ && write(c->wake, &one, sizeof(one)) < 0)
		return;
}

struct counting {
	struct firn_metrics_now *now;
	uint64_t page_bytes;
};

static void count(void *arg, const struct firn_report *r)
{
	struct counting *x = arg;

	x->now->targets[r->state]++;
	x->now->out_bytes += (r->counts.pages[FIRN_PAGE_EVICTED] + r->counts.pages[FIRN_PAGE_IN_FLIGHT]) * x->page_bytes;
	x->now->faults += r->faults;
	if (!r->in_ram)
		x->now->store_bytes += r->pack_bytes;
}

/* How much more they may take; @kept: what would give way counts too. */
static uint64_t store_room(struct firn_control *c, bool kept)
{
	struct firn_metrics_now now = { 0 };
	struct counting x = { &now, (uint64_t)sysconf(_SC_PAGESIZE) };
	struct statvfs st;
	uint64_t room, bytes = 0;

	if (statvfs(c->setup.store_dir, &st))
		return FIRN_NO_LIMIT;   /* that there is no store, the engine says better */
	firn_engine_each(c->setup.engine, count, &x);
	if (kept)
		firn_engine_kept(c->setup.engine, &bytes);
	pthread_mutex_lock(&c->lock);
	room = firn_config_store_room(c->config, (uint64_t)st.f_blocks * st.f_frsize, (uint64_t)st.f_bavail * st.f_frsize,
				      now.store_bytes + bytes);
	pthread_mutex_unlock(&c->lock);
	return room;
}

bool firn_control_store_has(struct firn_control *c, uint64_t bytes, bool make)
{
	while (store_room(c, true) < bytes)
		if (!make || !firn_engine_give_way(c->setup.engine))
			return false;
	return true;
}

void firn_control_now(struct firn_control *c, struct firn_metrics_now *ret)
{
	struct counting x = { ret, (uint64_t)sysconf(_SC_PAGESIZE) };
	struct firn_memory m;
	uint64_t left;

	memset(ret, 0, sizeof(*ret));
	firn_engine_each(c->setup.engine, count, &x);
	ret->ram_bytes = firn_engine_ram_bytes(c->setup.engine);
	pthread_mutex_lock(&c->lock);
	if (!firn_memory_read(*c->memory_cgroup ? c->memory_cgroup : NULL, &m)) {
		ret->memory_total = m.total;
		ret->memory_available = m.available;
		ret->psi = m.psi;
		ret->some_avg10 = m.some_avg10 / 100.0;
		ret->full_avg10 = m.full_avg10 / 100.0;
	}
	left = firn_ledger_left(&c->ledger);
	ret->budget = left != FIRN_NO_LIMIT;
	ret->budget_used_bytes = firn_ledger_today(&c->ledger);
	ret->budget_bytes = ret->budget ? left + ret->budget_used_bytes : 0;
	pthread_mutex_unlock(&c->lock);
}
