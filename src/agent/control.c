/* SPDX-License-Identifier: MIT */
/*
 * The thread that decides by itself, and what it shares with requests: to look, to choose, to act.
 */
#include "agent/control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "agent/gate.h"
#include "agent/job.h"
#include "agent/json.h"
#include "agent/rungroup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/size.h"
#include "procmem/proc.h"
#include "proto/interface.h"
#include "sys/sys.h"

#define SECOND 1000000000ull
/* Between two glances at available memory, when nothing presses. */
#define GLANCE_NS (1 * SECOND)
/* Between two looks for groups of `firn run` in which nobody is any more. */
#define SWEEP_NS (3 * SECOND)
/* Whom the engine refused is not asked again for so long. */
#define REFUSED_NS (600 * SECOND)
/* Where something else went wrong, which may pass. */
#define FAILED_NS (60 * SECOND)
/* What was decided so long ago is decided anew. */
#define STALE_NS (2 * SECOND)
/* 150 ms of waiting within 2 s: what a process without CAP_SYS_RESOURCE may ask for. */
#define TRIGGER "some 150000 2000000"

static uint64_t now(void)
{
	return firn_sys.clock_ns();
}

struct firn_view_from firn_control_from(const struct firn_control *c)
{
	return (struct firn_view_from){ c->setup.engine, c->setup.scope, c->config, c->setup.keeper,
					*c->memory_cgroup ? c->memory_cgroup : NULL };
}

/* Of a scope that is a cgroup: the directory that says what memory it has. */
static void find_memory_cgroup(struct firn_control *c)
{
	static const char *const places[] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	const char *text = firn_scope_text(c->setup.scope), *path;
	char file[512];

	if (strncmp(text, "cgroup:", 7))
		return;
	path = text + 7;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		static const char *const names[] = { "memory.usage_in_bytes", "memory.current" };
		bool whole = !strncmp(path, "/sys/fs/cgroup/", 15);

		snprintf(c->memory_cgroup, sizeof(c->memory_cgroup), "%s%s%s", whole ? "" : places[i],
			 whole || *path == '/' ? "" : "/", path);
		for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
			snprintf(file, sizeof(file), "%s/%s", c->memory_cgroup, names[k]);
			if (!access(file, R_OK))
				return;
		}
	}
	*c->memory_cgroup = 0;
}

/* -1 where the kernel has no PSI, or does not let us. */
static int open_trigger(const char *cgroup)
{
	char path[512];
	int fd = -1;

	if (cgroup) {
		snprintf(path, sizeof(path), "%s/memory.pressure", cgroup);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (fd < 0)
		fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && write(fd, TRIGGER, sizeof(TRIGGER)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* What of the configuration is not looked up each time. */
static void configure(struct firn_control *c, const struct firn_config *config)
{
	uint64_t daily = firn_config_daily_budget(config, c->setup.store_dir, NULL);
	struct firn_budget_config budget = { daily, daily, 10000 - firn_min_u64(config->budget_warn_hundredths, 10000) };

	c->config = config;
	firn_ledger_configure(&c->ledger, &budget);
}

int firn_control_open(struct firn_control **ret, const struct firn_control_setup *setup, struct firn_err *e)
{
	struct firn_control *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the agent: free some");
	c->setup = *setup;
	c->trigger = -1;
	pthread_mutex_init(&c->acting, NULL);
	pthread_mutex_init(&c->lock, NULL);
	find_memory_cgroup(c);
	err = firn_view_open(&c->view, setup->private_dir);
	if (!err)
		err = firn_ledger_open(&c->ledger, setup->state_dir);
	if (!err)
		configure(c, setup->config);
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!err && c->wake < 0)
		err = -errno;
	if (err) {
		firn_control_close(c);
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "control", "the agent's control cannot start: %s",
				    strerror(-err));
	}
	*ret = c;
	return 0;
}

void firn_control_close(struct firn_control *c)
{
	if (!c)
		return;
	firn_view_close(&c->view);
	firn_ledger_close(&c->ledger);
	firn_fd_close(&c->wake);
	firn_fd_close(&c->trigger);
	free(c);
}

static void rouse(struct firn_control *c)
{
	uint64_t one = 1;

	if (write(c->wake, &one, sizeof(one)) < 0)
		return;
}

void firn_control_reload(struct firn_control *c, const struct firn_config *config)
{
	pthread_mutex_lock(&c->lock);
	configure(c, config);
	pthread_mutex_unlock(&c->lock);
	rouse(c);
}

void firn_control_set_keeper(struct firn_control *c, pid_t keeper)
{
	pthread_mutex_lock(&c->lock);
	c->setup.keeper = keeper;
	pthread_mutex_unlock(&c->lock);
}

/* Events */

static struct json_object *event_new(const char *what)
{
	struct json_object *o = json_object_new_object();
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	json_object_object_add(o, "time", json_object_new_int64((int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000));
	json_object_object_add(o, "event", json_object_new_string(what));
	return o;
}

static void tell(struct firn_control *c, struct json_object *o)
{
	if (c->setup.event)
		c->setup.event(c->setup.arg, o);
	else
		json_object_put(o);
}

static void put_size(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void put_text(struct json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

static const char *const verb_words[] = { "freeze", "evict", "thaw" };

void firn_control_note(struct firn_control *c, enum firn_metrics_verb verb, enum firn_metrics_cause cause,
		       const struct firn_report *r)
{
	struct json_object *o = event_new(verb_words[verb]);
	uint64_t written = verb == FIRN_METRICS_THAW || r->in_ram || r->err.code ? 0 : r->write_bytes;
	struct firn_entry *entry = NULL;

	firn_metrics_note(c->setup.metrics, verb, cause, r);
	put_text(o, "cause", firn_metrics_cause_name(cause));
	json_object_object_add(o, "target", firn_json_report(r));
	pthread_mutex_lock(&c->lock);
	if (written)
		firn_ledger_note(&c->ledger, r->pid, r->start_time, r->comm, written);
	/* A report of what was refused before anybody looked tells no process: its number alone would take the place of
	 * what is known.  And that somebody may not is nothing about the target. */
	if (verb != FIRN_METRICS_THAW && r->pid && r->start_time && r->err.code != FIRN_EXIT_NOT_PERMITTED)
		entry = firn_book_make(&c->view.book, r->pid, r->start_time);
	if (entry) {
		if (!r->err.code) {
			entry->out = true;
			entry->by_agent = cause != FIRN_METRICS_REQUEST;
			entry->out_ns = now();
			entry->stored_bytes = r->pack_bytes;
			c->view.book.changed = true;
			c->reclaimed_ns = entry->out_ns;
		} else {
			entry->refused_until_ns = now() + (r->err.code == FIRN_EXIT_REFUSED ? REFUSED_NS : FAILED_NS);
			snprintf(entry->refused_why, sizeof(entry->refused_why), "%.*s", (int)sizeof(entry->refused_why) - 1,
				 r->err.message);
		}
	}
	firn_book_save(&c->view.book);
	pthread_mutex_unlock(&c->lock);
	tell(c, o);
}

int firn_control_look(struct firn_control *c, uint64_t now_ns)
{
	struct firn_view_from f = firn_control_from(c);
	struct firn_policy_snapshot *s = &c->view.snapshot;
	struct statvfs st;
	int err = firn_view_look(&c->view, &f, now_ns);

	if (err)
		return err;
	c->looked_ns = now_ns;
	s->reclaiming = c->reclaiming;
	if (c->reclaimed_ns)
		s->since_reclaim_ns = now_ns - firn_min_u64(c->reclaimed_ns, now_ns);
	s->budget_bytes = firn_ledger_left(&c->ledger);
	if (!statvfs(c->setup.store_dir, &st)) {
		uint64_t used = 0;

		for (size_t i = 0; i < s->n; i++)
			if (c->view.units[i].out_bytes && !c->view.units[i].in_ram)
				used += c->view.units[i].stored_bytes;
		s->store_bytes = firn_config_store_room(c->config, (uint64_t)st.f_blocks * st.f_frsize,
							(uint64_t)st.f_bavail * st.f_frsize, used);
	}
	for (size_t i = 0; i < s->n; i++)
		c->view.units[i].written_today_bytes =
			firn_ledger_written(&c->ledger, c->view.viewed[i].pid, c->view.viewed[i].start_time);
	if (c->reserved.until_ns > now_ns) {
		struct firn_seen *p = c->reserved.pid ? firn_survey_find(&c->view.survey, c->reserved.pid) : NULL;
		uint64_t taken = p && p->private_bytes > c->reserved.private_bytes ?
				 p->private_bytes - c->reserved.private_bytes : 0;

		/* Whoever it was for has ended. */
		if (c->reserved.pid && !p)
			c->reserved.until_ns = 0;
		else
			s->reserved_bytes = c->reserved.bytes - firn_min_u64(taken, c->reserved.bytes);
	}
	return 0;
}

unsigned int firn_control_choose(struct firn_control *c, struct firn_policy_summary *summary, struct firn_choice *chosen)
{
	struct firn_view *v = &c->view;
	unsigned int n = 0;

	firn_policy_decide(&c->config->policy, &v->snapshot, v->decisions, v->order, summary);
	for (size_t k = 0; k < v->snapshot.n && n < FIRN_MAX_CHOSEN; k++) {
		size_t i = v->order[k];
		const struct firn_decision *d = &v->decisions[i];

		if (d->action == FIRN_ACTION_NONE)
			continue;
		chosen[n].pid = v->viewed[i].pid;
		chosen[n].start_time = v->viewed[i].start_time;
		chosen[n].action = d->action;
		chosen[n].rule = v->viewed[i].verdict.v;
		/* These lie in a configuration that may be gone by then. */
		chosen[n].rule.before_freeze = chosen[n].rule.after_thaw = NULL;
		firn_policy_explain(chosen[n].text, sizeof(chosen[n].text), &c->config->policy, &v->snapshot, i, d,
				    summary);
		n++;
	}
	return n;
}

/* An operation, on a thread of its own: a tracer that could not let go of a thread does so when it ends. */
struct operation {
	struct firn_engine *engine;
	const struct firn_choice *what;
	struct firn_evict_options options;
	struct firn_report report;
};

static void *operate(void *arg)
{
	struct operation *o = arg;
	uint64_t start_time;

	/* Not another process that took its number meanwhile. */
	if (firn_proc_start_time(o->what->pid, &start_time) || start_time != o->what->start_time)
		firn_err_set(&o->report.err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended", o->what->pid);
	else if (o->what->action == FIRN_ACTION_THAW)
		firn_engine_thaw(o->engine, o->what->pid, &o->options, &o->report);
	else
		firn_engine_evict(o->engine, o->what->pid, &o->options, &o->report);
	return NULL;
}

void firn_control_act(struct firn_control *c, const struct firn_choice *what, enum firn_metrics_cause cause,
		      const struct firn_reclaim *ask, struct firn_report *ret)
{
	struct operation o = { .engine = c->setup.engine, .what = what };
	enum firn_metrics_verb verb = what->action == FIRN_ACTION_THAW	 ? FIRN_METRICS_THAW :
				      what->action == FIRN_ACTION_FREEZE ? FIRN_METRICS_FREEZE :
									   FIRN_METRICS_EVICT;
	struct firn_gate gate = { what->rule.place == FIRN_RULE_PLACE_STORE, false, ask && ask->dry_run };
	pthread_t thread;

	o.options = (struct firn_evict_options){
		.freeze = what->action == FIRN_ACTION_FREEZE,
		.dry_run = ask && ask->dry_run,
		.kind = what->rule.kind == FIRN_RULE_KIND_DIRECT ? FIRN_PACK_DIRECT :
			what->rule.kind == FIRN_RULE_KIND_COPIED ? FIRN_PACK_COPIED : 0,
		.client = ask ? ask->client : 0,
		.uid = ask ? ask->uid : 0,
		.gid = ask ? ask->gid : 0,
		.ram = what->rule.place != FIRN_RULE_PLACE_STORE,
		.move = what->rule.place == FIRN_RULE_PLACE_RAM_STORE,
		.after_s = FIRN_MOVE_AFTER_S,
		.progress = ask ? ask->progress : NULL,
		.arg = ask ? ask->arg : NULL,
	};
	if (o.options.freeze && what->rule.wake)
		o.options.wake = firn_engine_wake_id(o.engine);
	o.report.pid = what->pid;
	o.report.start_time = what->start_time;
	if (c->stopping && what->action != FIRN_ACTION_THAW)
		firn_err_set(&o.report.err, FIRN_EXIT_NO_AGENT, ECANCELED, "stopping",
			     "process %d is left as it is: the agent is ending: try again, a new one will start", what->pid);
	else if (what->action != FIRN_ACTION_THAW && firn_gate_before(c, what->pid, &gate, &o.report.err))
		;                       /* not now */
	else if (firn_thread_start(&thread, false, operate, &o))
		firn_err_set(&o.report.err, FIRN_EXIT_FAILED, EAGAIN, "no-thread",
			     "process %d: the agent cannot start a thread: try again", what->pid);
	else
		pthread_join(thread, NULL);
	if (what->action == FIRN_ACTION_THAW && !o.report.err.code)
		firn_gate_after(c, what->pid);
	*ret = o.report;
	/* Whatever failed, and how early: this is about that process. */
	ret->start_time = what->start_time;
	if (o.options.wake)
		firn_engine_watch(o.engine, o.options.wake);
	if (!o.options.dry_run)
		firn_control_note(c, verb, cause, ret);
}

/* The thread */

static void say_pressure(struct firn_control *c, const struct firn_policy_summary *summary)
{
	struct json_object *o;
	char text[FIRN_POLICY_TEXT];

	if (summary->pressure == c->told)
		return;
	firn_policy_explain_summary(text, sizeof(text), &c->config->policy, &c->view.snapshot, summary);
	if (summary->pressure != FIRN_PRESSURE_UNTIL_HIGH) {
		o = event_new("pressure");
		put_text(o, "pressure", firn_pressure_name(summary->pressure));
		put_size(o, "available", c->view.snapshot.available_bytes);
		put_size(o, "wanted", summary->wanted_bytes);
		put_text(o, "text", text);
		tell(c, o);
		firn_log("memory: %s", text);
	}
	c->told = summary->pressure;
}

static void say_done(const struct firn_choice *what, const struct firn_report *r)
{
	char size[FIRN_SIZE_TEXT];

	if (r->err.code)
		firn_log("%s of %d failed: %s", what->action == FIRN_ACTION_THAW ? "thaw" : "eviction", what->pid,
			 r->err.message);
	else if (what->action == FIRN_ACTION_THAW)
		firn_log("%d %s is back: %s", what->pid, r->comm, what->text);
	else
		firn_log("%d %s %s, %s freed: %s", what->pid, r->comm,
			 what->action == FIRN_ACTION_FREEZE ? "frozen" : "evicted, and runs on",
			 firn_size_print(size, (r->memory_before - firn_min_u64(r->memory_after, r->memory_before)) >> 20 << 20),
			 what->text);
}

/* What would be done, told when it is another thing than the last time.  @c->would is control's own. */
static void say_would(struct firn_control *c, const struct firn_choice *chosen, unsigned int n)
{
	uint64_t sum = n;

	for (unsigned int i = 0; i < n; i++)
		sum = (sum * 31 + (uint64_t)chosen[i].pid) * 31 + chosen[i].action;
	if (sum == c->would)
		return;
	c->would = sum;
	for (unsigned int i = 0; i < n; i++) {
		struct json_object *o = event_new("would");

		put_text(o, "action", firn_action_name(chosen[i].action));
		put_size(o, "pid", (uint64_t)chosen[i].pid);
		put_text(o, "text", chosen[i].text);
		tell(c, o);
		firn_log("would %s %d: %s", firn_action_name(chosen[i].action), chosen[i].pid, chosen[i].text);
	}
}

/* One round: look, decide, do.  @triggered: a PSI trigger fired.  Returns whether there was anything to do. */
static bool round_of(struct firn_control *c, struct firn_choice *chosen, bool triggered)
{
	struct firn_policy_summary summary;
	uint64_t decided = now();
	unsigned int n = 0;
	bool dry;

	pthread_mutex_lock(&c->acting);
	pthread_mutex_lock(&c->lock);
	dry = c->config->automatic != FIRN_AUTO_YES;
	if (!firn_control_look(c, now())) {
		c->view.snapshot.psi_triggered = triggered;
		n = firn_control_choose(c, &summary, chosen);
		c->reclaiming = summary.reclaiming;
		c->summary = summary;
		say_pressure(c, &summary);
	}
	firn_book_save(&c->view.book);
	pthread_mutex_unlock(&c->lock);
	if (dry)
		say_would(c, chosen, n);
	for (unsigned int i = 0; i < n && !dry && !c->stopping; i++) {
		struct firn_report r = { 0 };

		if (i && now() - decided > STALE_NS)
			break;
		firn_control_act(c, &chosen[i], FIRN_METRICS_POLICY, NULL, &r);
		say_done(&chosen[i], &r);
	}
	pthread_mutex_unlock(&c->acting);
	return n && !dry;
}

/* Has something happened that does not wait for the next look? */
static bool presses(struct firn_control *c)
{
	struct firn_memory m;
	bool yes;

	pthread_mutex_lock(&c->lock);
	yes = !firn_memory_read(*c->memory_cgroup ? c->memory_cgroup : NULL, &m) &&
	      (m.available < c->summary.low_bytes || c->reclaiming);
	pthread_mutex_unlock(&c->lock);
	return yes;
}

/* Write the metrics where they are due.  Returns in how many ms they are again; -1: never. */
static int write_metrics(struct firn_control *c)
{
	struct firn_metrics_now moment;
	char *text;

	pthread_mutex_lock(&c->lock);
	firn_textfile_set(&c->textfile, c->config->metrics_textfile, c->config->metrics_ns);
	pthread_mutex_unlock(&c->lock);
	if (!firn_textfile_wait_ms(&c->textfile, now())) {
		firn_control_now(c, &moment);
		text = firn_metrics_text(c->setup.metrics, &moment, true);
		firn_textfile_write(&c->textfile, text, now());
		free(text);
	}
	return firn_textfile_wait_ms(&c->textfile, now());
}

static void *run(void *arg)
{
	struct firn_control *c = arg;
	struct firn_choice *chosen = calloc(FIRN_MAX_CHOSEN, sizeof(*chosen));
	uint64_t next = 0, swept = 0;

	c->run_groups = firn_rungroup_sweep();
	while (chosen && !c->stopping) {
		struct pollfd p[2] = { { c->wake, POLLIN, 0 }, { c->trigger, POLLPRI, 0 } };
		bool automatic, triggered = false;
		int wait_ms = write_metrics(c);
		uint64_t count, look_ns;

		pthread_mutex_lock(&c->lock);
		automatic = c->config->automatic != FIRN_AUTO_NO;
		look_ns = c->config->look_ns;
		pthread_mutex_unlock(&c->lock);
		if ((automatic || c->run_groups) && (wait_ms < 0 || wait_ms > (int)(GLANCE_NS / 1000000)))
			wait_ms = GLANCE_NS / 1000000;
		poll(p, c->trigger >= 0 && automatic ? 2 : 1, wait_ms);
		if (read(c->wake, &count, sizeof(count)) > 0)
			next = 0;
		if (p[1].revents & POLLERR) {
			firn_fd_close(&c->trigger);
			firn_log("pressure is no longer told by the kernel: available memory alone decides");
		} else if (p[1].revents & POLLPRI) {
			triggered = true;
		}
		if (c->run_groups && now() - swept > SWEEP_NS) {
			/* One that is made meanwhile counts on. */
			c->run_groups = 0;
			c->run_groups += firn_rungroup_sweep();
			swept = now();
		}
		if (c->stopping || !automatic)
			continue;
		if (!triggered && now() < next && !presses(c))
			continue;
		/* What was done changes what is to be done. */
		next = round_of(c, chosen, triggered) ? 0 : now() + look_ns;
	}
	free(chosen);
	return NULL;
}

int firn_control_start(struct firn_control *c)
{
	int err;

	c->trigger = open_trigger(*c->memory_cgroup ? c->memory_cgroup : NULL);
	if (c->trigger < 0 && c->config->automatic != FIRN_AUTO_NO)
		firn_log("the kernel does not tell of memory pressure (PSI): available memory alone decides");
	err = firn_thread_start(&c->thread, false, run, c);
	c->running = !err;
	return err;
}

void firn_control_stop(struct firn_control *c)
{
	c->stopping = true;
	rouse(c);
	if (c->running)
		pthread_join(c->thread, NULL);
	c->running = false;
}
