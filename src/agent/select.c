/* SPDX-License-Identifier: MIT */
#include "agent/select.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "policy/cgroup.h"
#include "procmem/proc.h"
#include "sys/sys.h"

#define ID_LEAST 4u
#define ID_MOST 64u
#define ANCESTORS 256

static const char *const words[] = { "pid", "tree", "cgroup", "unit", "name", "container" };

const char *firn_select_word(enum firn_select_by by)
{
	return by < ARRAY_SIZE(words) ? words[by] : NULL;
}

static int usage(struct firn_err *e, const char *what)
{
	return firn_err_set(e, FIRN_EXIT_USAGE, EINVAL, "selector", "%s", what);
}

static int not_found(struct firn_err *e, const char *reason, const struct firn_select *s, const char *why)
{
	return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ENOENT, reason, "%.120s: %s", s->text, why);
}

int firn_select_make(struct firn_select *s, enum firn_select_by by, pid_t pid, const char *name, struct firn_err *e)
{
	memset(s, 0, sizeof(*s));
	s->by = by;
	s->pid = pid;
	if (by == FIRN_BY_PID || by == FIRN_BY_TREE) {
		snprintf(s->text, sizeof(s->text), "--tree %d", pid);
		return pid > 0 ? 0 : usage(e, "a PID is a positive number");
	}
	if (!*name)
		return usage(e, "a cgroup, unit, name or container is empty: give one");
	if (strlen(name) >= sizeof(s->name))
		return usage(e, "a cgroup, unit, name or container is too long");
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return usage(e, "a cgroup, unit, name or container has a control character");
	snprintf(s->name, sizeof(s->name), "%s", name);
	/* That what is meant alike is called alike: a thaw finds the group by its text. */
	if (by == FIRN_BY_UNIT && !strchr(name, '.')) {
		if (strlen(name) + sizeof(".service") > sizeof(s->name))
			return usage(e, "the unit's name is too long");
		strcat(s->name, ".service");
	}
	if (by == FIRN_BY_UNIT && strchr(name, '/'))
		return usage(e, "a unit's name has no slash: give it as in cron.service, or use --cgroup");
	if (by == FIRN_BY_CONTAINER) {
		size_t n = strlen(name);

		if (n < ID_LEAST || n > ID_MOST || strspn(name, "0123456789abcdef") != n)
			return usage(e, "a container's id is 4 to 64 hexadecimal digits: look it up, e.g. with docker ps");
	}
	snprintf(s->text, sizeof(s->text), "--%s %s", firn_select_word(by), s->name);
	return 0;
}

/* --- what is a group --- */

struct search {
	const struct firn_select *s;
	struct firn_cgroup *found;
	unsigned int n;
	char id[ID_MOST + 1];           /* of the container that was found */
	char second[FIRN_CGROUP_PATH];  /* another that would do */
	bool same;                      /* in another hierarchy */
};

static void take(struct search *f, const struct firn_cgroup *c, bool other)
{
	if (!f->n++)
		*f->found = *c;
	else if (other && !f->second[0])
		snprintf(f->second, sizeof(f->second), "%s", c->path);
}

static int is_one(void *arg, pid_t pid)
{
	(void)arg;
	(void)pid;
	return 1;
}

static int look_at_unit(void *arg, const struct firn_cgroup *c, const char *base)
{
	struct search *f = arg;
	char unit[FIRN_SELECT_TEXT];

	if (strcmp(base, f->s->name))
		return 0;
	/* systemd's own hierarchy tells; the others may be incomplete. */
	if (c->hierarchy[0] && strcmp(c->hierarchy, "name=systemd"))
		return 0;
	/* Hybrid: the version 2 hierarchy may be there, without processes. */
	if (firn_cgroup_each(c, is_one, NULL) != 1)
		return 0;
	firn_cgroup_unit(c->path, unit, sizeof(unit));
	/* The system's goes before those of users; among those it must be one. */
	if (!strcmp(unit, f->s->name) || strstr(base, ".slice")) {
		f->n = 1;
		f->second[0] = 0;
		*f->found = *c;
		return 1;
	}
	take(f, c, !f->n || strcmp(f->found->path, c->path));
	return 0;
}

static int find_unit(struct firn_select *s, struct firn_err *e)
{
	struct search f = { .s = s, .found = &s->cgroup };

	if (access("/run/systemd/system", F_OK))
		return not_found(e, "no-systemd", s, "systemd does not run here: use --cgroup or --tree");
	firn_cgroup_each_group(look_at_unit, &f);
	if (!f.n)
		return not_found(e, "no-such-unit", s, "no such unit runs: see systemctl status");
	if (f.second[0])
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ENOENT, "ambiguous",
				    "%.60s: several users have such a unit (%.60s, %.60s): use --cgroup", s->text,
				    s->cgroup.path, f.second);
	return 0;
}

static int look_at_container(void *arg, const struct firn_cgroup *c, const char *base)
{
	struct search *f = arg;
	char id[ID_MOST + 1], outer[FIRN_CGROUP_PATH], *slash;

	(void)base;
	firn_cgroup_container(c->path, id, sizeof(id));
	if (strlen(id) != ID_MOST || strncmp(id, f->s->name, strlen(f->s->name)))
		return 0;
	/* Its own group, not one that it made inside. */
	snprintf(outer, sizeof(outer), "%s", c->path);
	slash = strrchr(outer, '/');
	if (slash)
		*slash = 0;
	if (!strcmp(firn_cgroup_container(outer, outer, sizeof(outer)), id))
		return 0;
	if (f->id[0] && strcmp(f->id, id)) {
		take(f, c, true);
		return 0;
	}
	snprintf(f->id, sizeof(f->id), "%s", id);
	/* The first hierarchy in which it has processes. */
	if (!f->same && (!f->n || firn_cgroup_each(c, is_one, NULL) == 1)) {
		f->same = firn_cgroup_each(c, is_one, NULL) == 1;
		f->n = 0;
		take(f, c, false);
	}
	return 0;
}

static int find_container(struct firn_select *s, struct firn_err *e)
{
	struct search f = { .s = s, .found = &s->cgroup };

	firn_cgroup_each_group(look_at_container, &f);
	if (!f.n)
		return not_found(e, "no-such-container", s, "there is no cgroup of such a container: see docker ps, crictl ps");
	if (f.second[0])
		return not_found(e, "ambiguous", s, "several containers' ids begin so: give more digits");
	/* One name, however many digits were given. */
	snprintf(s->name, sizeof(s->name), "%s", f.id);
	snprintf(s->text, sizeof(s->text), "--container %s", f.id);
	return 0;
}

int firn_select_find(struct firn_select *s, struct firn_err *e)
{
	int err;

	switch (s->by) {
	case FIRN_BY_PID:
	case FIRN_BY_NAME:
		return 0;
	case FIRN_BY_TREE:
		if (!firn_proc_start_time(s->pid, &s->start_time))
			return 0;
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "no-such-process",
				    "there is no process %d: look up the pid, e.g. with pgrep", s->pid);
	case FIRN_BY_CGROUP:
		err = firn_cgroup_find(s->name, &s->cgroup, e);
		/* However it was given, also when it is gone. */
		if (!err || err == -ENOENT)
			snprintf(s->text, sizeof(s->text), "--cgroup %.*s", (int)sizeof(s->name) - 1, s->cgroup.path);
		return err;
	case FIRN_BY_UNIT:
		return find_unit(s, e);
	case FIRN_BY_CONTAINER:
		return find_container(s, e);
	}
	return usage(e, "an unknown selector");
}

/* --- who is in it --- */

struct listing {
	const struct firn_select *s;
	const struct firn_asker *who;
	struct firn_chosen *list;
	unsigned int n, others;
	bool full;
	pid_t ancestors[ANCESTORS];     /* of who asks, itself first */
	unsigned int nancestors;
};

/* @pid is a member: may it be acted upon? */
static void choose(struct listing *l, const struct firn_proc *p)
{
	if ((p->state == 'Z' || p->state == 'X') && p->threads <= 1)
		return;
	if (l->who->uid && firn_engine_may_trace(l->who->uid, l->who->gid, p->pid)) {
		l->others++;
		return;
	}
	for (unsigned int i = 0; i < l->n; i++)
		if (l->list[i].pid == p->pid)
			return;
	if (l->n == FIRN_SELECT_MAX) {
		l->full = true;
		return;
	}
	l->list[l->n++] = (struct firn_chosen){ p->pid, p->start_time };
}

static int in_cgroup(void *arg, pid_t pid)
{
	struct firn_proc p;

	if (!firn_proc_identity(pid, &p))
		choose(arg, &p);
	return 0;
}

static bool name_matches(const char *pattern, pid_t pid)
{
	char path[64], exe[1024], comm[32];
	const char *base;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	n = firn_sys_read_file(path, comm, sizeof(comm));
	if (n > 0) {
		comm[strcspn(comm, "\n")] = 0;
		if (!fnmatch(pattern, comm, 0))
			return true;
	}
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n <= 0)
		return false;
	exe[n] = 0;
	if (n > 10 && !strcmp(exe + n - 10, " (deleted)"))
		exe[n - 10] = 0;
	base = strrchr(exe, '/');
	return !fnmatch(pattern, base ? base + 1 : exe, 0);
}

static int look_at_name(void *arg, long number)
{
	struct listing *l = arg;
	struct firn_proc p;

	if (firn_proc_identity((pid_t)number, &p) || p.kernel_thread || p.pid == 1 || p.pid == getpid() ||
	    p.pid == l->who->keeper || !name_matches(l->s->name, p.pid))
		return 0;
	for (unsigned int i = 0; i < l->nancestors; i++)
		if (l->ancestors[i] == p.pid)
			return 0;
	if (!firn_scope_is_all(l->who->scope) && !firn_scope_has(l->who->scope, p.pid))
		return 0;
	choose(l, &p);
	return 0;
}

/* All processes with their parents, read once. */
struct everyone {
	struct firn_proc *p;
	size_t n, size;
	bool no_memory;
};

static int note(void *arg, long number)
{
	struct everyone *all = arg;

	if (all->n == all->size) {
		size_t size = all->size ? all->size * 2 : 512;
		struct firn_proc *grown = realloc(all->p, size * sizeof(*grown));

		if (!grown) {
			all->no_memory = true;
			return 1;
		}
		all->p = grown;
		all->size = size;
	}
	if (!firn_proc_identity((pid_t)number, &all->p[all->n]))
		all->n++;
	return 0;
}

static int by_pid(const void *a, const void *b)
{
	const struct firn_proc *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static const struct firn_proc *find_pid(const struct everyone *all, pid_t pid)
{
	const struct firn_proc key = { .pid = pid };

	return bsearch(&key, all->p, all->n, sizeof(*all->p), by_pid);
}

/* Those that are below a process of the list, until there are no more; a pass over all for each generation that was
 * met out of order. */
static int list_tree(struct listing *l)
{
	struct everyone all = { 0 };
	bool *in, more = true;

	firn_sys_each_number("/proc", note, &all);
	in = calloc(all.n + 1, sizeof(*in));
	if (!in || all.no_memory) {
		free(in);
		free(all.p);
		return -ENOMEM;
	}
	if (all.n)
		qsort(all.p, all.n, sizeof(*all.p), by_pid);
	while (more) {
		more = false;
		for (size_t i = 0; i < all.n; i++) {
			const struct firn_proc *parent = in[i] ? NULL : find_pid(&all, all.p[i].ppid);

			if (in[i] || !((all.p[i].pid == l->s->pid && all.p[i].start_time == l->s->start_time) ||
				       (parent && in[parent - all.p])))
				continue;
			in[i] = more = true;
			choose(l, &all.p[i]);
		}
	}
	free(in);
	free(all.p);
	return 0;
}

static int by_age(const void *a, const void *b)
{
	const struct firn_chosen *x = a, *y = b;

	if (x->start_time != y->start_time)
		return x->start_time < y->start_time ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

int firn_select_list(const struct firn_select *s, const struct firn_asker *who, struct firn_chosen *list,
		     unsigned int *ret_others, struct firn_err *e)
{
	struct listing l = { .s = s, .who = who, .list = list };
	struct firn_proc p;
	int err = 0;

	switch (s->by) {
	case FIRN_BY_PID:
		if (!firn_proc_identity(s->pid, &p))
			choose(&l, &p);
		break;
	case FIRN_BY_TREE:
		err = list_tree(&l);
		break;
	case FIRN_BY_NAME:
		for (pid_t at = who->client; at > 1 && l.nancestors < ANCESTORS;) {
			l.ancestors[l.nancestors++] = at;
			if (firn_proc_parent(at, &at))
				break;
		}
		firn_sys_each_number("/proc", look_at_name, &l);
		break;
	case FIRN_BY_CGROUP:
	case FIRN_BY_UNIT:
	case FIRN_BY_CONTAINER:
		firn_cgroup_each(&s->cgroup, in_cgroup, &l);
		break;
	}
	*ret_others = l.others;
	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-memory", "%.100s: no memory to look for its processes", s->text);
	if (l.full)
		return firn_err_set(e, FIRN_EXIT_REFUSED, E2BIG, "too-many", "%.100s: more than %u processes: name fewer", s->text,
				    FIRN_SELECT_MAX);
	qsort(list, l.n, sizeof(*list), by_age);
	return (int)l.n;
}
