/* SPDX-License-Identifier: MIT */
#include "agent/group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procmem/proc.h"
#include "sys/sys.h"

#define ROUNDS 1000                     /* of looking for members that were forked meanwhile */
#define VFORK_TRIES 40                  /* for a vfork that is under way: its child is about to exec */
#define VFORK_PAUSE_NS 5000000u

struct member {
	pid_t pid;
	struct firn_report report;
	bool gone;
	bool frozen;                    /* and not only held */
};

struct group {
	struct firn_job *job;
	const struct firn_select *s;
	struct firn_evict_options options;
	struct firn_group name;
	struct member *members;         /* oldest first, those that were found later behind */
	unsigned int n, size;
	struct firn_chosen *list;       /* FIRN_SELECT_MAX */
};

static int open_group(struct group *g, struct firn_job *job, const struct firn_select *s,
		      const struct firn_evict_options *options)
{
	memset(g, 0, sizeof(*g));
	g->job = job;
	g->s = s;
	g->options = *options;
	snprintf(g->name.text, sizeof(g->name.text), "%s", s->text);
	g->list = calloc(FIRN_SELECT_MAX, sizeof(*g->list));
	return g->list ? 0 : -ENOMEM;
}

static void close_group(struct group *g)
{
	free(g->list);
	free(g->members);
}

static struct member *add(struct group *g, pid_t pid)
{
	if (g->n == g->size) {
		unsigned int size = g->size ? g->size * 2 : 16;
		struct member *grown = realloc(g->members, size * sizeof(*grown));

		if (!grown)
			return NULL;
		g->members = grown;
		g->size = size;
	}
	memset(&g->members[g->n], 0, sizeof(g->members[g->n]));
	g->members[g->n].pid = pid;
	return &g->members[g->n++];
}

static const struct member *find(const struct group *g, pid_t pid)
{
	for (unsigned int i = 0; i < g->n; i++)
		if (g->members[i].pid == pid && !g->members[i].gone)
			return &g->members[i];
	return NULL;
}

/* The group as a whole failed: the answer is one entry, of process @pid or of none in particular. */
static void refuse(struct group *g, pid_t pid, const struct firn_err *e)
{
	struct firn_report r;
	size_t used;

	memset(&r, 0, sizeof(r));
	r.pid = pid;
	r.group = g->name.id;
	memcpy(r.group_text, g->name.text, sizeof(r.group_text));
	r.err = *e;
	used = strlen(r.err.message);
	/* What follows from it, where there is room for it. */
	if (pid && g->n > 1)
		snprintf(r.err.message + used, sizeof(r.err.message) - used, " (so all %u of %.60s are left as they were)", g->n,
			 g->s->text);
	firn_job_note(g->job, &r);
}

static struct firn_asker asker(const struct group *g)
{
	return (struct firn_asker){
		.uid = g->job->uid,
		.gid = g->job->gid,
		.client = g->job->client,
		.keeper = firn_engine_keeper(g->job->jobs->engine),
		.scope = g->job->jobs->scope,
	};
}

/* All run again, and what was evicted comes back. */
static void undo(struct group *g)
{
	struct firn_report r;

	for (unsigned int i = g->n; i-- > 0;)
		if (!g->members[i].gone)
			firn_job_do(g->job, FIRN_STEP_RUN, g->members[i].pid, &g->options, &r);
	for (unsigned int i = 0; i < g->n; i++)
		if (g->members[i].frozen)
			firn_job_do(g->job, FIRN_STEP_THAW, g->members[i].pid, &g->options, &r);
}

/* Hold all there are, until no new one is found.  Returns 0, or -errno with the culprit's pid (0: none) and error. */
static int hold_all(struct group *g, pid_t *ret_pid, struct firn_err *e)
{
	struct firn_asker who = asker(g);
	unsigned int others;

	*ret_pid = 0;
	for (int round = 0; round < ROUNDS; round++) {
		int n = firn_select_list(g->s, &who, g->list, &others, e), new = 0, err;

		if (n < 0)
			return n;
		if (!n && !g->n && others)
			return firn_err_set(e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
					    "%.120s: %u processes, and none of them is yours: run firn as root", g->s->text, others);
		for (int i = 0; i < n; i++) {
			struct member *m;

			if (find(g, g->list[i].pid))
				continue;
			*ret_pid = g->list[i].pid;
			m = add(g, *ret_pid);
			if (!m)
				return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the group");
			for (int tries = 0; tries < VFORK_TRIES; tries++) {
				firn_job_do(g->job, FIRN_STEP_HOLD, m->pid, &g->options, &m->report);
				if (strcmp(m->report.err.reason, "shared-memory-space"))
					break;
				firn_sys.sleep_ns(VFORK_PAUSE_NS);
			}
			if (m->report.err.code == FIRN_EXIT_NOT_FOUND || !strcmp(m->report.err.reason, "zombie")) {
				m->gone = true;         /* it ended meanwhile, or has no memory left */
				continue;
			}
			if (m->report.err.code) {
				*e = m->report.err;
				m->gone = true;         /* it is not held */
				err = e->err ? -e->err : -EINVAL;
				return err;
			}
			new++;
		}
		if (!new || g->options.dry_run)
			return 0;
	}
	return firn_err_set(e, FIRN_EXIT_REFUSED, EAGAIN, "restless", "%.120s: new processes do not cease to appear: try again",
			    g->s->text);
}

static unsigned int alive(const struct group *g)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < g->n; i++)
		n += !g->members[i].gone;
	return n;
}

/* All are held.  Returns as above. */
static int evict_all(struct group *g, pid_t *ret_pid, struct firn_err *e)
{
	unsigned int frozen = 0;
	bool nothing = false;

	g->options.freeze = true;       /* left stopped; an evict lets all run when the last is done */
	for (unsigned int i = 0; i < g->n; i++) {
		struct member *m = &g->members[i];
		struct firn_report r;

		if (m->gone)
			continue;
		*ret_pid = m->pid;
		firn_job_do(g->job, FIRN_STEP_EVICT, m->pid, &g->options, &r);
		if (!r.err.code) {
			m->report = r;
			m->frozen = true;
			frozen++;
		} else if (!strcmp(r.err.reason, "nothing")) {
			nothing = true;         /* it is held, that is all there is to do */
		} else if (r.err.code == FIRN_EXIT_NOT_FOUND) {
			m->gone = true;
		} else {
			*e = r.err;
			return e->err ? -e->err : -EINVAL;
		}
	}
	*ret_pid = 0;
	if (!frozen && nothing)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EINVAL, "nothing",
				    "%.120s: none of its processes has private memory that could be evicted", g->s->text);
	return frozen ? 0 : firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "%.120s: all its processes have ended",
					 g->s->text);
}

void firn_group_evict(struct firn_job *job, const struct firn_select *s, const struct firn_evict_options *options)
{
	struct firn_engine *engine = job->jobs->engine;
	bool freeze = options->freeze;
	struct firn_err e = { 0 };
	struct group g;
	pid_t culprit = 0;
	int err = open_group(&g, job, s, options);

	if (err) {
		firn_err_set(&e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the group");
		refuse(&g, 0, &e);
		return;
	}
	g.name.id = firn_engine_group_new(engine);
	g.options.group = &g.name;
	err = hold_all(&g, &culprit, &e);
	if (!err && !alive(&g))
		err = firn_err_set(&e, FIRN_EXIT_NOT_FOUND, ESRCH, "empty", "%.150s: no process matches", s->text);
	if (!err && !options->dry_run) {
		firn_point(FIRN_POINT_GROUP_HELD);
		err = evict_all(&g, &culprit, &e);
	}
	if (err) {
		if (!options->dry_run)
			undo(&g);
		refuse(&g, culprit, &e);
		close_group(&g);
		return;
	}
	if (!options->dry_run) {
		firn_point(FIRN_POINT_GROUP_EVICTED);
		if (freeze)
			firn_engine_group_keep(engine, g.name.id);
		/* The youngest first: a parent that runs finds its children running. */
		for (unsigned int i = g.n; !freeze && i-- > 0;) {
			struct firn_report r;

			if (g.members[i].gone)
				continue;
			firn_job_do(job, FIRN_STEP_RUN, g.members[i].pid, &g.options, &r);
			g.members[i].report.state = r.state;
			g.members[i].report.err = r.err;
		}
	}
	for (unsigned int i = 0; i < g.n; i++)
		if (!g.members[i].gone)
			firn_job_note(job, &g.members[i].report);
	close_group(&g);
}

/* --- thaw --- */

struct known {
	struct group *g;
	bool no_memory;
	bool others;                    /* some were not the asker's */
};

/* With the registry locked: takes notes. */
static void look(void *arg, const struct firn_report *r)
{
	struct known *k = arg;

	const struct firn_select *s = k->g->s;

	/* A container that is gone may have been named by the beginning of its id. */
	if (!r->pid || (s->by == FIRN_BY_CONTAINER ? strncmp(r->group_text, s->text, strlen(s->text)) :
						     strcmp(r->group_text, s->text)))
		return;
	if (k->g->job->uid && firn_engine_may_trace(k->g->job->uid, k->g->job->gid, r->pid) == -EPERM)
		k->others = true;
	else if (!find(k->g, r->pid) && !add(k->g, r->pid))
		k->no_memory = true;
}

static int by_start_time(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	if (x->report.start_time != y->report.start_time)
		return x->report.start_time < y->report.start_time ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

void firn_group_thaw(struct firn_job *job, const struct firn_select *s, bool found,
		     const struct firn_evict_options *options)
{
	struct firn_engine *engine = job->jobs->engine;
	struct firn_err e = { 0 };
	struct group g;
	struct known k = { &g, false, false };
	unsigned int others = 0;
	int err = open_group(&g, job, s, options), n = 0;

	g.options.began_ns = firn_sys.clock_ns();
	if (!err)
		firn_engine_each(engine, look, &k);
	if (!err && found) {
		struct firn_asker who = asker(&g);

		n = firn_select_list(s, &who, g.list, &others, &e);
	}
	for (int i = 0; i < n && !k.no_memory; i++) {
		struct firn_report r;

		if (!find(&g, g.list[i].pid) && !firn_engine_show(engine, g.list[i].pid, &r))
			k.no_memory = !add(&g, g.list[i].pid);
	}
	if (err || k.no_memory)
		firn_err_set(&e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the group");
	else if (n < 0)
		;               /* said above */
	else if (!g.n && (k.others || (found && !n && others)))
		firn_err_set(&e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
			     "%.120s: none of its processes is yours: run firn as root", s->text);
	else if (!g.n)
		firn_err_set(&e, FIRN_EXIT_NOT_FOUND, ENOENT, "not-frozen",
			     "%.120s: none of its processes is frozen or evicted: see firn list", s->text);
	if (e.code) {
		refuse(&g, 0, &e);
		close_group(&g);
		return;
	}
	for (unsigned int i = 0; i < g.n; i++)
		if (firn_engine_show(engine, g.members[i].pid, &g.members[i].report))
			g.members[i].report.start_time = UINT64_MAX;
	qsort(g.members, g.n, sizeof(*g.members), by_start_time);
	for (unsigned int i = 0; i < g.n && !options->dry_run; i++)
		firn_job_do(job, FIRN_STEP_BRING, g.members[i].pid, &g.options, &g.members[i].report);
	for (unsigned int i = g.n; i-- > 0 && !options->dry_run;) {
		struct member *m = &g.members[i];

		firn_job_do(job, FIRN_STEP_RUN, m->pid, &g.options, &m->report);
		/* One that was only held is done with. */
		m->frozen = !m->report.err.code && m->report.state != FIRN_TARGET_RESIDENT;
		m->gone = m->report.err.code == FIRN_EXIT_NOT_FOUND;
	}
	for (unsigned int i = 0; i < g.n; i++) {
		struct member *m = &g.members[i];

		if (m->frozen || options->dry_run)
			firn_job_do(job, FIRN_STEP_THAW, m->pid, &g.options, &m->report);
		/* Who ended meanwhile needs no thaw, unless nobody else was there. */
		if (m->report.err.code == FIRN_EXIT_NOT_FOUND && g.n > 1)
			continue;
		firn_job_note(job, &m->report);
	}
	close_group(&g);
}
