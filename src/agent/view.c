/* SPDX-License-Identifier: MIT */
#include "agent/view.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policy/cgroup.h"
#include "sys/sys.h"

#define MAX_INHIBITORS 64u
#define PASSWD "/etc/passwd"
#define INHIBITORS "/run/systemd/inhibit"

/* Names of users, as the local file has them: to ask a name service may mean to wait for a process that is frozen. */
struct firn_users {
	struct timespec changed;
	size_t n, size;
	struct {
		uid_t uid;
		char name[32];
	} *list;
	pid_t inhibitors[MAX_INHIBITORS];
	unsigned int ninhibitors;
};

static void read_users(struct firn_users *u)
{
	struct passwd *p;
	struct stat st;
	FILE *f;

	if (stat(PASSWD, &st) || (st.st_mtim.tv_sec == u->changed.tv_sec && st.st_mtim.tv_nsec == u->changed.tv_nsec))
		return;
	f = fopen(PASSWD, "re");
	if (!f)
		return;
	u->changed = st.st_mtim;
	u->n = 0;
	while ((p = fgetpwent(f))) {
		if (u->n == u->size) {
			size_t size = u->size ? u->size * 2 : 64;
			void *grown = realloc(u->list, size * sizeof(*u->list));

			if (!grown)
				break;
			u->list = grown;
			u->size = size;
		}
		u->list[u->n].uid = p->pw_uid;
		snprintf(u->list[u->n++].name, sizeof(u->list[0].name), "%s", p->pw_name);
	}
	fclose(f);
}

static const char *user_name(const struct firn_users *u, uid_t uid)
{
	for (size_t i = 0; i < u->n; i++)
		if (u->list[i].uid == uid)
			return u->list[i].name;
	return "";
}

/* systemd-logind notes each inhibitor in a file: "PID=123" is one of its lines. */
static void read_inhibitors(struct firn_users *u)
{
	struct dirent *entry;
	DIR *d = opendir(INHIBITORS);

	u->ninhibitors = 0;
	while (d && (entry = readdir(d))) {
		char path[512], *line;
		struct firn_lines l;

		snprintf(path, sizeof(path), "%s/%s", INHIBITORS, entry->d_name);
		if (entry->d_type != DT_REG || u->ninhibitors == MAX_INHIBITORS || firn_lines_open(&l, path))
			continue;
		while (firn_lines_next(&l, &line) > 0)
			if (!strncmp(line, "PID=", 4) && u->ninhibitors < MAX_INHIBITORS)
				u->inhibitors[u->ninhibitors++] = atoi(line + 4);
		firn_lines_close(&l);
	}
	if (d)
		closedir(d);
}

static bool inhibits(const struct firn_users *u, pid_t pid)
{
	for (unsigned int i = 0; i < u->ninhibitors; i++)
		if (u->inhibitors[i] == pid)
			return true;
	return false;
}

int firn_view_open(struct firn_view *v, const char *dir)
{
	memset(v, 0, sizeof(*v));
	v->users = calloc(1, sizeof(*v->users));
	if (!v->users)
		return -ENOMEM;
	firn_survey_init(&v->survey);
	return firn_book_open(&v->book, dir);
}

void firn_view_close(struct firn_view *v)
{
	firn_survey_done(&v->survey);
	firn_book_close(&v->book);
	if (v->users)
		free(v->users->list);
	free(v->users);
	free(v->units);
	free(v->viewed);
	free(v->decisions);
	free(v->order);
	memset(v, 0, sizeof(*v));
}

static void judge(const struct firn_users *u, const struct firn_view_from *from, const struct firn_seen *p,
		  struct firn_verdict *ret, char *why, size_t size)
{
	char unit[128], user_unit[128], container[128], exe[1024];
	const struct firn_rule *rule;
	char *deleted;
	struct firn_subject s = {
		.comm = p->comm,
		.exe = exe,
		.cmdline = p->cmdline,
		.cgroup = p->cgroup,
		.unit = firn_cgroup_unit(p->cgroup, unit, sizeof(unit)),
		.user_unit = firn_cgroup_user_unit(p->cgroup, user_unit, sizeof(user_unit)),
		.container = firn_cgroup_container(p->cgroup, container, sizeof(container)),
		.user = user_name(u, p->uid),
		.uid = p->uid,
		.oom_score_adj = p->oom_score_adj,
		.is = (p->pid == 1 ? FIRN_IS_INIT : 0u) | (p->pid == getpid() ? FIRN_IS_AGENT : 0u) |
		      (p->pid == from->keeper ? FIRN_IS_KEEPER : 0u) |
		      (p->kernel_thread ? FIRN_IS_KERNEL_THREAD : 0u) | (p->realtime ? FIRN_IS_REALTIME : 0u) |
		      (p->traced ? FIRN_IS_TRACED : 0u) | (p->login_shell ? FIRN_IS_LOGIN_SHELL : 0u) |
		      (inhibits(u, p->pid) ? FIRN_IS_INHIBITOR : 0u) | (p->oom_avoid ? FIRN_IS_OOM_AVOID : 0u) |
		      (p->oom_omit ? FIRN_IS_OOM_OMIT : 0u),
	};

	snprintf(exe, sizeof(exe), "%s", p->exe);
	deleted = strstr(exe, " (deleted)");
	if (deleted)
		*deleted = 0;
	firn_rules_match(from->config->rules, from->config->nrules, &s, ret);
	rule = ret->by[FIRN_RULE_NEVER];
	if (ret->v.never && rule)
		snprintf(why, size, "rule %s (%s:%u)", rule->name, rule->file, rule->line);
	else
		*why = 0;
}

int firn_view_judge(const struct firn_view_from *from, pid_t pid, struct firn_verdict *ret, char *ret_why, size_t size)
{
	struct firn_users u = { 0 };
	struct firn_survey s;
	struct firn_seen *p;

	firn_survey_init(&s);
	read_users(&u);
	read_inhibitors(&u);
	firn_survey_look_at(&s, 0, pid);
	p = firn_survey_find(&s, pid);
	if (p)
		judge(&u, from, p, ret, ret_why, size);
	free(u.list);
	firn_survey_done(&s);
	return p ? 0 : -ESRCH;
}

/* A priority that was set by request: its own, or its nearest ancestor's that is for the whole tree. */
static const struct firn_entry *set_priority(struct firn_view *v, const struct firn_seen *p)
{
	bool own = true;

	for (int depth = 0; p && depth < 64; depth++) {
		const struct firn_entry *e = firn_book_find(&v->book, p->pid, p->start_time);

		if (e && e->has_priority && (own || e->tree))
			return e;
		own = false;
		p = firn_survey_find(&v->survey, p->ppid);
	}
	return NULL;
}

static int make_room(struct firn_view *v)
{
	size_t size = v->size;
	void *units, *viewed, *decisions, *order;

	if (v->survey.n <= size)
		return 0;
	size = v->survey.n * 2;
	units = realloc(v->units, size * sizeof(*v->units));
	v->units = units ? units : v->units;
	viewed = realloc(v->viewed, size * sizeof(*v->viewed));
	v->viewed = viewed ? viewed : v->viewed;
	decisions = realloc(v->decisions, size * sizeof(*v->decisions));
	v->decisions = decisions ? decisions : v->decisions;
	order = realloc(v->order, size * sizeof(*v->order));
	v->order = order ? order : v->order;
	if (!units || !viewed || !decisions || !order)
		return -ENOMEM;
	v->size = size;
	return 0;
}

static void fill(struct firn_view *v, const struct firn_view_from *from, const struct firn_seen *p, uint64_t now_ns)
{
	struct firn_unit *u = &v->units[v->snapshot.n];
	struct firn_viewed *w = &v->viewed[v->snapshot.n++];
	struct firn_entry *e = firn_book_find(&v->book, p->pid, p->start_time);
	const struct firn_entry *priority = set_priority(v, p);

	memset(u, 0, sizeof(*u));
	memset(w, 0, sizeof(*w));
	w->pid = p->pid;
	w->start_time = p->start_time;
	w->seen = p;
	judge(v->users, from, p, &w->verdict, w->never_why, sizeof(w->never_why));
	w->set = priority != NULL;

	u->id = p->start_time << 22 | (uint64_t)p->pid;
	u->priority = priority ? priority->priority : w->verdict.v.priority;
	u->uid = p->uid;
	u->never = w->verdict.v.never != FIRN_NEVER_NO;
	u->never_why = *w->never_why ? w->never_why : NULL;
	u->wake = w->verdict.v.wake;
	u->in_ram = w->verdict.v.place != FIRN_RULE_PLACE_STORE;
	u->private_bytes = p->private_bytes;
	u->shared_bytes = p->shared_bytes;
	u->min_bytes = w->verdict.v.min_bytes;
	u->idle_ns = now_ns - firn_min_u64(p->idle_since_ns, now_ns);
	u->awake_ns = firn_survey_age_ns(p);
	u->wakeups_per_minute = p->wakeups_per_minute;
	if (p->state == 'Z' || p->state == 'X') {
		u->refused = true;
		u->refused_why = "it has ended, and its parent has to wait for it";
	}
	if (!e)
		return;
	e->here = true;
	if (e->back_ns)
		u->awake_ns = firn_min_u64(u->awake_ns, now_ns - firn_min_u64(e->back_ns, now_ns));
	u->quick_returns = e->quick_returns;
	u->stored_bytes = e->stored_bytes;
	if (e->refused_until_ns > now_ns) {
		u->refused = true;
		memcpy(w->refused_why, e->refused_why, sizeof(w->refused_why));
		u->refused_why = w->refused_why;
	}
}

struct holding {
	struct firn_view *v;
	uint64_t now_ns, page_bytes;
};

/* What the engine holds. Called with its registry locked: notes only. */
static void hold(void *arg, const struct firn_report *r)
{
	struct holding *h = arg;
	struct firn_view *v = h->v;
	long i = r->pid ? firn_view_find(v, r->pid) : -1;
	uint64_t out = (r->counts.pages[FIRN_PAGE_EVICTED] + r->counts.pages[FIRN_PAGE_IN_FLIGHT]) * h->page_bytes;
	struct firn_unit *u;
	struct firn_entry *e;

	if (r->state == FIRN_TARGET_THAWING)
		v->snapshot.returning_bytes += out;
	if (i < 0 || v->viewed[i].start_time != r->start_time)
		return;
	u = &v->units[i];
	u->out_bytes = out;
	u->state = r->state == FIRN_TARGET_FROZEN ? FIRN_UNIT_FROZEN :
		   r->state == FIRN_TARGET_EVICTED ? FIRN_UNIT_EVICTED : FIRN_UNIT_BUSY;
	u->in_ram = r->in_ram;
	e = firn_book_make(&v->book, r->pid, r->start_time);
	if (!e)
		return;
	e->here = true;
	if (!e->out) {
		e->out = true;
		e->out_ns = h->now_ns;
		e->faults = r->faults;
		e->faults_ns = h->now_ns;
		v->book.changed = true;
	}
	if (r->pack_bytes)
		e->stored_bytes = r->pack_bytes;
	if (h->now_ns - e->faults_ns >= 1000000000u) {
		uint64_t more = r->faults - firn_min_u64(e->faults, r->faults);

		e->refaults_per_s = (uint32_t)firn_min_u64(more * 1000000000u / (h->now_ns - e->faults_ns), UINT32_MAX);
		e->faults = r->faults;
		e->faults_ns = h->now_ns;
	}
	u->refaults_per_s = e->refaults_per_s;
	u->by_user = !e->by_agent;
	u->out_ns = h->now_ns - firn_min_u64(e->out_ns, h->now_ns);
}

/* Who was out and is no more came back. */
static void note_returns(struct firn_view *v, const struct firn_view_from *from, uint64_t now_ns)
{
	for (size_t i = 0; i < v->snapshot.n; i++) {
		struct firn_unit *u = &v->units[i];
		struct firn_entry *e = firn_book_find(&v->book, v->viewed[i].pid, v->viewed[i].start_time);

		if (!e || !e->out || u->state != FIRN_UNIT_RUNNING)
			continue;
		e->out = e->by_agent = false;
		e->quick_returns = firn_policy_returned(&from->config->policy, e->quick_returns,
							now_ns - firn_min_u64(e->out_ns, now_ns));
		e->back_ns = now_ns;
		e->refaults_per_s = 0;
		u->quick_returns = e->quick_returns;
		u->awake_ns = 0;
		v->book.changed = true;
	}
}

int firn_view_look(struct firn_view *v, const struct firn_view_from *from, uint64_t now_ns)
{
	struct holding h = { v, now_ns, (uint64_t)sysconf(_SC_PAGESIZE) };
	struct firn_memory m;
	int err;

	err = firn_memory_read(from->memory_cgroup, &m);
	if (!err)
		err = firn_survey_look(&v->survey, now_ns, firn_scope_is_all(from->scope) ? NULL : firn_scope_within,
				       from->scope);
	if (!err)
		err = make_room(v);
	if (err)
		return err;
	read_users(v->users);
	read_inhibitors(v->users);
	v->memory = m;
	v->snapshot = (struct firn_policy_snapshot){
		.total_bytes = m.total,
		.available_bytes = m.available,
		.psi_known = m.psi,
		.psi_some_hundredths = m.some_avg10,
		.psi_full_hundredths = m.full_avg10,
		.since_reclaim_ns = UINT64_MAX,
		.budget_bytes = FIRN_NO_LIMIT,
		.store_bytes = FIRN_NO_LIMIT,
		.units = v->units,
	};
	for (size_t i = 0; i < v->survey.n; i++)
		if (!v->survey.seen[i].kernel_thread)
			fill(v, from, &v->survey.seen[i], now_ns);
	firn_engine_each(from->engine, hold, &h);
	note_returns(v, from, now_ns);
	firn_book_sweep(&v->book);
	return 0;
}

long firn_view_find(const struct firn_view *v, pid_t pid)
{
	size_t low = 0, high = v->snapshot.n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (v->viewed[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < v->snapshot.n && v->viewed[low].pid == pid ? (long)low : -1;
}
