/* SPDX-License-Identifier: MIT */
#include "agent/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/group.h"
#include "agent/gate.h"
#include "agent/json.h"
#include "agent/wake.h"
#include "procmem/proc.h"
#include "sys/sys.h"

#define THREAD_STACK (1u << 20)
#define TELL_EVERY_NS 100000000u
#define SETTLE_NS 5000000u

int firn_jobs_init(struct firn_jobs *jobs, struct firn_engine *engine, struct firn_scope *scope)
{
	memset(jobs, 0, sizeof(*jobs));
	jobs->engine = engine;
	jobs->scope = scope;
	jobs->last = &jobs->first;
	pthread_mutex_init(&jobs->lock, NULL);
	jobs->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return jobs->wake < 0 ? -errno : 0;
}

void firn_jobs_send(struct firn_jobs *jobs, uint64_t connection, struct json_object *message, bool final)
{
	struct firn_outgoing *o = calloc(1, sizeof(*o));
	uint64_t one = 1;

	if (!o) {
		json_object_put(message);
		return;
	}
	o->connection = connection;
	o->message = message;
	o->final = final;
	pthread_mutex_lock(&jobs->lock);
	*jobs->last = o;
	jobs->last = &o->next;
	if (final)
		jobs->running--;
	pthread_mutex_unlock(&jobs->lock);
	if (write(jobs->wake, &one, sizeof(one)) < 0)
		return;
}

struct firn_outgoing *firn_jobs_take(struct firn_jobs *jobs)
{
	struct firn_outgoing *o;

	pthread_mutex_lock(&jobs->lock);
	o = jobs->first;
	if (o) {
		jobs->first = o->next;
		if (!jobs->first)
			jobs->last = &jobs->first;
	}
	pthread_mutex_unlock(&jobs->lock);
	return o;
}

void firn_jobs_progress(struct firn_jobs *jobs, uint64_t connection, pid_t pid, const char *phase, uint64_t done,
			uint64_t total, uint64_t *told_ns)
{
	struct json_object *message, *parameters, *p;
	uint64_t now = firn_sys.clock_ns();

	if (now - *told_ns < TELL_EVERY_NS)
		return;
	*told_ns = now;
	message = json_object_new_object();
	parameters = json_object_new_object();
	p = json_object_new_object();
	json_object_object_add(p, "pid", json_object_new_int(pid));
	json_object_object_add(p, "phase", json_object_new_string(phase));
	json_object_object_add(p, "done", json_object_new_int64((int64_t)done));
	json_object_object_add(p, "total", json_object_new_int64((int64_t)total));
	json_object_object_add(parameters, "progress", p);
	json_object_object_add(message, "parameters", parameters);
	json_object_object_add(message, "continues", json_object_new_boolean(true));
	firn_jobs_send(jobs, connection, message, false);
}

static void progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct firn_job *job = arg;

	if (job->more)
		firn_jobs_progress(job->jobs, job->connection, job->current, phase, done, total, &job->told_ns);
}

void firn_job_note(struct firn_job *job, const struct firn_report *r)
{
	if (job->method == FIRN_CALL_THAW && !job->dry_run && !r->err.code && r->pid)
		firn_gate_after(job->jobs->control, r->pid);
	if (!job->dry_run)
		firn_control_note(job->jobs->control,
				  job->method == FIRN_CALL_FREEZE ? FIRN_METRICS_FREEZE :
				  job->method == FIRN_CALL_EVICT  ? FIRN_METRICS_EVICT :
								    FIRN_METRICS_THAW,
				  job->cause, r);
	firn_wake_done(job, r);
	json_object_array_add(job->targets, firn_json_report(r));
}

static void note(void *arg, const struct firn_report *r)
{
	firn_job_note(arg, r);
}

static int permitted(const struct firn_job *job, pid_t pid, struct firn_report *r)
{
	int err = firn_engine_may_trace(job->uid, job->gid, pid);

	if (err != -EPERM)
		return 0;               /* that it does not exist, the engine says better */
	memset(r, 0, sizeof(*r));
	r->pid = pid;
	return firn_err_set(&r->err, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
			    "process %d is not yours: run firn as root, or as the process's user", pid);
}

/* What the agent holds may be thawed wherever it is by now. */
static int in_scope(const struct firn_job *job, pid_t pid, struct firn_report *r)
{
	struct firn_proc p;

	if (firn_scope_is_all(job->jobs->scope) || firn_scope_has(job->jobs->scope, pid) || firn_proc_read(pid, &p))
		return 0;
	if (job->method == FIRN_CALL_THAW && !firn_engine_show(job->jobs->engine, pid, r))
		return 0;
	memset(r, 0, sizeof(*r));
	r->pid = pid;
	return firn_err_set(&r->err, FIRN_EXIT_REFUSED, EXDEV, "scope",
			    "process %d is outside of what the agent is confined to (%.120s): it is not touched", pid,
			    firn_scope_text(job->jobs->scope));
}

/* The never-list.  What waits for its thaw was allowed once, and is not asked about. */
static bool allowed(const struct firn_job *job, pid_t pid, struct firn_report *r)
{
	struct firn_proc p;

	/* What the engine never takes, it says better. */
	if (pid == 1 || pid == getpid() || pid == firn_engine_keeper(job->jobs->engine) ||
	    firn_proc_identity(pid, &p) || p.kernel_thread)
		return true;
	return !firn_control_allows(job->jobs->control, pid, job->force, &r->err);
}

/* Budget and hook; of a member that is held already they were asked before it was. */
static int gate_says_no(const struct firn_job *job, pid_t pid, struct firn_report *r)
{
	struct firn_gate gate = { !job->ram, job->force, job->dry_run };
	struct firn_report held;

	if (!firn_engine_show(job->jobs->engine, pid, &held))
		return 0;
	return firn_gate_before(job->jobs->control, pid, &gate, &r->err);
}

/* An agent that ends would leave what it takes now behind, for nobody to bring back. */
static int ending(const struct firn_job *job, pid_t pid, struct firn_report *r)
{
	if (!job->jobs->ending)
		return 0;
	return firn_err_set(&r->err, FIRN_EXIT_NO_AGENT, ECANCELED, "stopping",
			    "process %d is left as it is: the agent is ending: try again, a new one will start", pid);
}

/* All others that are under way end first; none that evicts begins any more. */
static void settle(struct firn_job *job)
{
	unsigned int running;

	firn_control_stop(job->jobs->control);
	do {
		firn_sys.sleep_ns(SETTLE_NS);
		pthread_mutex_lock(&job->jobs->lock);
		running = job->jobs->running;
		pthread_mutex_unlock(&job->jobs->lock);
	} while (running > 1);
}

/* One step, on a thread of its own: a tracer that could not let go of a thread does so when it ends. */
struct single {
	struct firn_job *job;
	enum firn_job_step step;
	pid_t pid;
	const struct firn_evict_options *options;
	struct firn_report *report;
};

static void *run_one(void *arg)
{
	struct single *s = arg;
	struct firn_engine *engine = s->job->jobs->engine;

	switch (s->step) {
	case FIRN_STEP_RUN:
		firn_engine_run(engine, s->pid, s->report);
		return NULL;
	case FIRN_STEP_BRING:
		firn_engine_bring(engine, s->pid);
		return NULL;
	case FIRN_STEP_HOLD:
	case FIRN_STEP_EVICT:
	case FIRN_STEP_THAW:
		break;
	}
	if (permitted(s->job, s->pid, s->report) || in_scope(s->job, s->pid, s->report))
		return NULL;
	if (s->step != FIRN_STEP_THAW &&
	    (ending(s->job, s->pid, s->report) || !allowed(s->job, s->pid, s->report) ||
	     gate_says_no(s->job, s->pid, s->report) || ending(s->job, s->pid, s->report)))
		return NULL;
	if (s->step == FIRN_STEP_THAW)
		firn_engine_thaw(engine, s->pid, s->options, s->report);
	else if (s->step == FIRN_STEP_HOLD)
		firn_engine_hold(engine, s->pid, s->options, s->report);
	else
		firn_engine_evict(engine, s->pid, s->options, s->report);
	return NULL;
}

void firn_job_do(struct firn_job *job, enum firn_job_step step, pid_t pid, const struct firn_evict_options *options,
		 struct firn_report *ret)
{
	struct single s = { job, step, pid, options, ret };
	pthread_t thread;

	job->current = pid;
	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	if (firn_thread_start(&thread, false, run_one, &s))
		firn_err_set(&ret->err, FIRN_EXIT_FAILED, EAGAIN, "no-thread",
			     "process %d: the agent cannot start a thread: try again", pid);
	else
		pthread_join(thread, NULL);
}

int firn_thread_start(pthread_t *ret, bool detached, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	if (detached)
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(ret, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

/* All that is named must be there before anything is done: nothing changes for half of a request. */
static int find_all(struct firn_job *job, bool *found, struct firn_err *e)
{
	for (unsigned int i = 0; i < job->nselects; i++) {
		/* A woken group is what was frozen, whoever is in it by now. */
		int err = job->woken ? -ENOENT : firn_select_find(&job->selects[i], job->method == FIRN_CALL_THAW ? NULL : e);

		found[i] = !err;
		/* What it was may still be frozen. */
		if (err && job->method != FIRN_CALL_THAW)
			return err;
	}
	return 0;
}

static void run_all(struct firn_job *job, const bool *found, struct firn_evict_options *options)
{
	if (job->all)
		firn_engine_thaw_all(job->jobs->engine, options, note, job);
	for (unsigned int i = 0; i < job->nselects; i++) {
		const struct firn_select *s = &job->selects[i];
		struct firn_report r;

		/* A group is woken as one, and so watched when all of it is frozen. */
		options->wake = job->wake ? firn_engine_wake_id(job->jobs->engine) : 0;
		if (s->by == FIRN_BY_PID) {
			firn_job_do(job, job->method == FIRN_CALL_THAW ? FIRN_STEP_THAW : FIRN_STEP_EVICT, s->pid, options, &r);
			firn_job_note(job, &r);
		} else if (job->method == FIRN_CALL_THAW) {
			firn_group_thaw(job, s, found[i], options);
		} else {
			firn_group_evict(job, s, options);
		}
		if (options->wake)
			firn_engine_watch(job->jobs->engine, options->wake);
	}
}

static void *run(void *arg)
{
	struct firn_job *job = arg;
	struct firn_evict_options options = {
		.freeze = job->method == FIRN_CALL_FREEZE,
		.dry_run = job->dry_run,
		.kind = job->kind,
		.client = job->client,
		.uid = job->uid,
		.gid = job->gid,
		.ram = job->ram,
		.move = job->move,
		.after_s = job->after_s,
		.progress = progress,
		.arg = job,
	};
	struct json_object *message = json_object_new_object(), *parameters = json_object_new_object();
	bool *found = calloc(job->nselects + 1, sizeof(*found));
	struct firn_err e = { 0 };

	job->targets = json_object_new_array();
	if (job->settle)
		settle(job);
	if (!found)
		firn_err_set(&e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "the agent has no memory for this request: try again");
	else if (!find_all(job, found, &e))
		run_all(job, found, &options);
	if (e.code) {
		json_object_put(job->targets);
		json_object_put(parameters);
		json_object_object_add(message, "error", json_object_new_string(FIRN_ERROR_FAILED));
		json_object_object_add(message, "parameters", firn_json_trouble(&e));
	} else {
		json_object_object_add(parameters, "targets", job->targets);
		json_object_object_add(message, "parameters", parameters);
	}
	firn_jobs_send(job->jobs, job->connection, message, true);
	free(found);
	free(job->selects);
	free(job);
	return NULL;
}

int firn_job_start(struct firn_job *job)
{
	pthread_t thread;
	int err;

	pthread_mutex_lock(&job->jobs->lock);
	job->jobs->running++;
	pthread_mutex_unlock(&job->jobs->lock);
	err = firn_thread_start(&thread, true, run, job);
	if (err) {
		pthread_mutex_lock(&job->jobs->lock);
		job->jobs->running--;
		pthread_mutex_unlock(&job->jobs->lock);
	}
	return err;
}

bool firn_job_place(struct firn_job *job, struct json_object *o)
{
	struct json_object *place, *after;
	const char *text;
	int64_t seconds;

	job->after_s = FIRN_MOVE_AFTER_S;
	if (!o)
		return true;
	if (json_object_object_get_ex(o, "place", &place)) {
		text = json_object_get_string(place);
		job->move = text && !strcmp(text, FIRN_PACK_PLACE_RAM_STORE);
		job->ram = job->move || (text && !strcmp(text, FIRN_PACK_PLACE_RAM));
		if (!job->ram && (!text || strcmp(text, FIRN_PACK_PLACE_STORE)))
			return false;
	}
	if (json_object_object_get_ex(o, "after", &after)) {
		seconds = json_object_get_int64(after);
		if (!job->move || !json_object_is_type(after, json_type_int) || seconds < 0 || seconds > FIRN_MOVE_AFTER_MAX_S)
			return false;
		job->after_s = (uint32_t)seconds;
	}
	return true;
}

bool firn_job_kind(struct firn_job *job, struct json_object *parameters)
{
	struct json_object *kind = NULL;
	const char *name;

	job->kind = 0;
	if (!parameters || !json_object_object_get_ex(parameters, "kind", &kind) || !kind)
		return true;
	if (!json_object_is_type(kind, json_type_string))
		return false;
	name = json_object_get_string(kind);
	for (int k = FIRN_PACK_COPIED; k <= FIRN_PACK_DIRECT; k++)
		if (!strcmp(name, firn_pack_kind_name((enum firn_pack_kind)k)))
			job->kind = (enum firn_pack_kind)k;
	return job->kind != 0;
}
