/* SPDX-License-Identifier: MIT */
#include "agent/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/json.h"
#include "policy/policy.h"
#include "proto/interface.h"
#include "sys/sys.h"

#define MAX_TIMEOUT_MS (365ll * 86400 * 1000)

struct running {
	struct firn_task t;
	struct json_object *targets;
	uint64_t told_ns;
	pid_t current;
};

/* An answer, or an error; @parameters is taken over.  Ends the task. */
static void answer(struct running *r, const char *error, struct json_object *parameters)
{
	struct json_object *m = json_object_new_object();

	if (error)
		json_object_object_add(m, "error", json_object_new_string(error));
	json_object_object_add(m, "parameters", parameters);
	firn_jobs_send(r->t.jobs, r->t.connection, m, true);
}

static void answer_error(struct running *r, const struct firn_err *e)
{
	answer(r, FIRN_ERROR_FAILED, firn_json_trouble(e));
}

static void answer_parameter(struct running *r, const char *name)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, "parameter", json_object_new_string(name));
	answer(r, FIRN_ERROR_INVALID_PARAMETER, p);
}

/* A whole number among the parameters: *@ret as it was where there is none.  False: it makes no sense. */
static bool get_number(struct running *r, const char *key, int64_t min, int64_t max, int64_t *ret)
{
	struct json_object *v;

	if (!r->t.parameters || !json_object_object_get_ex(r->t.parameters, key, &v))
		return true;
	*ret = json_object_get_int64(v);
	if (json_object_is_type(v, json_type_int) && *ret >= min && *ret <= max)
		return true;
	answer_parameter(r, key);
	return false;
}

/* The processes of a group now, appended to @pids.  Returns how many there are then, or -1: it was answered. */
static int add_group(struct running *r, struct firn_select *s, pid_t *pids, unsigned int n)
{
	struct firn_chosen *list = calloc(FIRN_SELECT_MAX, sizeof(*list));
	struct firn_asker who = {
		.uid = r->t.peer.uid,
		.gid = r->t.peer.gid,
		.client = r->t.peer.pid,
		.keeper = firn_engine_keeper(r->t.jobs->engine),
		.scope = r->t.jobs->scope,
	};
	struct firn_err e = { 0 };
	unsigned int others = 0;
	int found = -1;

	if (!list)
		firn_err_set(&e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "the agent has no memory for this request: try again");
	else if (!firn_select_find(s, &e))
		found = firn_select_list(s, &who, list, &others, &e);
	if (!e.code && !found && others)
		firn_err_set(&e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted", "%.120s: none of its processes is yours", s->text);
	else if (!e.code && !found)
		firn_err_set(&e, FIRN_EXIT_NOT_FOUND, ESRCH, "empty", "%.150s: no process matches", s->text);
	for (int i = 0; i < found && n < FIRN_JOB_TARGETS; i++)
		pids[n++] = list[i].pid;
	free(list);
	if (!e.code)
		return (int)n;
	answer_error(r, &e);
	return -1;
}

/* The processes that are named; @ret_tree (may be NULL): of each, whether it stands for its descendants too, which are
 * left out then.  Returns how many, or -1: it was answered. */
static int get_pids(struct running *r, pid_t *pids, bool *ret_tree)
{
	struct json_object *targets = NULL;
	unsigned int n = 0;

	if (r->t.parameters)
		json_object_object_get_ex(r->t.parameters, "targets", &targets);
	if (!targets)
		return 0;
	if (!json_object_is_type(targets, json_type_array))
		goto bad;
	for (size_t i = 0; i < json_object_array_length(targets); i++) {
		struct firn_err e = { 0 };
		struct firn_select s;

		if (firn_json_selector(json_object_array_get_idx(targets, i), &s, &e)) {
			if (!e.code)
				goto bad;
			answer_error(r, &e);
			return -1;
		}
		if (n == FIRN_JOB_TARGETS)
			goto bad;
		if (s.by == FIRN_BY_PID || (s.by == FIRN_BY_TREE && ret_tree)) {
			if (ret_tree)
				ret_tree[n] = s.by == FIRN_BY_TREE;
			pids[n++] = s.pid;
		} else {
			int more = add_group(r, &s, pids, n);

			if (more < 0)
				return -1;
			n = (unsigned int)more;
		}
	}
	return (int)n;
bad:
	answer_parameter(r, "targets");
	return -1;
}

static void explain(struct running *r, pid_t *pids)
{
	struct json_object *all;
	struct firn_err e = { 0 };
	int n = get_pids(r, pids, NULL);

	if (n < 0)
		return;
	if (firn_control_explain(r->t.control, pids, (unsigned int)n, r->t.peer.uid, r->t.peer.gid, r->t.peer.pid, &all, &e))
		answer_error(r, &e);
	else
		answer(r, NULL, all);
}

static void at(void *arg, pid_t pid)
{
	struct running *r = arg;

	r->current = pid;
}

static void progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct running *r = arg;

	if (r->t.more)
		firn_jobs_progress(r->t.jobs, r->t.connection, r->current, phase, done, total, &r->told_ns);
}

static void note(void *arg, const struct firn_report *report, const char *text)
{
	struct running *r = arg;

	json_object_array_add(r->targets, firn_json_report_why(report, text));
}

static void put(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void reclaim(struct running *r)
{
	struct json_object *p, *summary;
	struct firn_reclaimed done;
	struct firn_err e = { 0 };
	bool run = r->t.method == FIRN_CALL_RUN;
	int64_t bytes = 0, priority = -1, timeout = 0;
	char group[1024] = "";
	struct firn_reclaim ask = {
		.uid = r->t.peer.uid,
		.gid = r->t.peer.gid,
		.client = r->t.peer.pid,
		.for_pid = run ? r->t.peer.pid : 0,
		.note = note,
		.at = at,
		.progress = progress,
		.arg = r,
	};

	if (!get_number(r, run ? "need" : "bytes", 1, INT64_MAX, &bytes) ||
	    !get_number(r, "priority", 0, FIRN_PRIORITY_MAX, &priority) ||
	    !get_number(r, "timeout", 1, MAX_TIMEOUT_MS, &timeout))
		return;
	if (!run && !bytes) {
		answer_parameter(r, "bytes");
		return;
	}
	ask.bytes = (uint64_t)bytes;
	ask.priority = priority >= 0 ? (uint32_t)priority : FIRN_TASK_PRIORITY;
	ask.timeout_ns = (uint64_t)timeout * 1000000u;
	ask.dry_run = firn_json_dry_run(r->t.parameters);
	if (run && priority >= 0) {
		int err = firn_control_priority(r->t.control, r->t.peer.pid, (uint32_t)priority, true, ask.dry_run,
						r->t.peer.uid, r->t.peer.gid, &e);

		/* Outside of the agent's scope nothing takes from it anyhow. */
		if (err && err != -EXDEV) {
			answer_error(r, &e);
			return;
		}
		firn_err_clear(&e);
	}
	/* Who connected may have ended, and its number be another's. */
	if (run && !ask.dry_run && !firn_engine_may_trace(ask.uid, ask.gid, r->t.peer.pid))
		firn_control_own_group(r->t.control, r->t.peer.pid, group, sizeof(group));
	memset(&done, 0, sizeof(done));
	r->targets = json_object_new_array();
	if (bytes)
		firn_control_reclaim(r->t.control, &ask, &done, &e);
	p = json_object_new_object();
	summary = json_object_new_object();
	json_object_object_add(p, "targets", r->targets);
	put(summary, "wanted", done.wanted_bytes);
	put(summary, "before", done.before_bytes);
	put(summary, "after", done.after_bytes);
	put(summary, "freed", done.freed_bytes);
	put(summary, "written", done.written_bytes);
	if (*group)
		json_object_object_add(summary, "cgroup", json_object_new_string(group));
	json_object_object_add(p, "summary", summary);
	if (e.code)
		json_object_object_add(p, "error", firn_json_trouble(&e));
	answer(r, NULL, p);
}

static void set_priority(struct running *r, pid_t *pids)
{
	struct json_object *p, *targets;
	int64_t priority = -1;
	bool *tree = calloc(FIRN_JOB_TARGETS, sizeof(*tree));
	int n = tree ? get_pids(r, pids, tree) : 0;

	if (n < 0 || !get_number(r, "priority", 0, FIRN_PRIORITY_MAX, &priority)) {
		free(tree);
		return;
	}
	if (!n || priority < 0) {
		answer_parameter(r, n ? "priority" : "targets");
		free(tree);
		return;
	}
	targets = json_object_new_array();
	for (int i = 0; i < n; i++) {
		struct firn_report report = { .pid = pids[i] };

		firn_control_priority(r->t.control, pids[i], (uint32_t)priority, tree[i], firn_json_dry_run(r->t.parameters), r->t.peer.uid, r->t.peer.gid,
				      &report.err);
		p = json_object_new_object();
		put(p, "pid", (uint64_t)pids[i]);
		if (report.err.code)
			json_object_object_add(p, "error", firn_json_trouble(&report.err));
		json_object_array_add(targets, p);
	}
	p = json_object_new_object();
	json_object_object_add(p, "targets", targets);
	answer(r, NULL, p);
	free(tree);
}

static void stats(struct running *r)
{
	struct firn_metrics_now now;
	struct json_object *p, *format, *all;
	const char *name = "json";
	char *text = NULL;

	if (r->t.parameters && json_object_object_get_ex(r->t.parameters, "format", &format))
		name = json_object_get_string(format);
	if (!name || (strcmp(name, "json") && strcmp(name, "openmetrics"))) {
		answer_parameter(r, "format");
		return;
	}
	firn_control_now(r->t.control, &now);
	if (!strcmp(name, "json")) {
		all = firn_metrics_json(r->t.metrics, &now);
		if (all)
			text = strdup(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN));
		json_object_put(all);
	} else {
		text = firn_metrics_text(r->t.metrics, &now, false);
	}
	p = json_object_new_object();
	json_object_object_add(p, "text", json_object_new_string(text ? text : ""));
	free(text);
	answer(r, NULL, p);
}

static void *run(void *arg)
{
	struct running *r = arg;
	pid_t *pids = calloc(FIRN_JOB_TARGETS, sizeof(*pids));
	struct firn_err e = { 0 };

	if (!pids) {
		firn_err_set(&e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "the agent has no memory for this request: try again");
		answer_error(r, &e);
	} else {
		switch (r->t.method) {
		case FIRN_CALL_EXPLAIN:
			explain(r, pids);
			break;
		case FIRN_CALL_PRIORITY:
			set_priority(r, pids);
			break;
		case FIRN_CALL_STATS:
			stats(r);
			break;
		default:
			reclaim(r);
			break;
		}
	}
	free(pids);
	json_object_put(r->t.parameters);
	free(r);
	return NULL;
}

int firn_task_start(const struct firn_task *task)
{
	struct running *r = calloc(1, sizeof(*r));
	pthread_t thread;
	int err;

	if (!r)
		return -ENOMEM;
	r->t = *task;
	pthread_mutex_lock(&task->jobs->lock);
	task->jobs->running++;
	pthread_mutex_unlock(&task->jobs->lock);
	err = firn_thread_start(&thread, true, run, r);
	if (err) {
		pthread_mutex_lock(&task->jobs->lock);
		task->jobs->running--;
		pthread_mutex_unlock(&task->jobs->lock);
		free(r);
	}
	return err;
}
