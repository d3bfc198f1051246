/* SPDX-License-Identifier: MIT */
#include "agent/scope.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procmem/cgroup.h"
#include "procmem/proc.h"

#define TEXT_BYTES 600
#define MEMBERS_FIRST 256u
#define MEMBERS_MAX (1u << 16)
#define DEPTH 1024
#define NOTED 64u                    /* of a chain of parents */

enum kind { ALL, CGROUP, TREE, USER };

/* Seen in the tree before. */
struct member {
	pid_t pid;                      /* 0: free */
	uint64_t start_time;
};

struct firn_scope {
	enum kind kind;
	char text[TEXT_BYTES];
	struct firn_cgroup cgroup;
	uid_t uid;
	pid_t pid;
	uint64_t start_time;
	pthread_mutex_t lock;           /* of what follows */
	struct member *members;         /* hashed by pid, open addressing; at most half full */
	unsigned int nmembers, size;
};

static int bad(struct firn_err *e, const char *text)
{
	return firn_err_set(e, FIRN_EXIT_USAGE, EINVAL, "scope",
			    "'%.100s' is no scope: give cgroup:PATH, tree:PID, user:NAME, or all", text);
}

/* A decimal number of 1 to @max, which @end follows.  0: it is none. */
static uint64_t number(const char *s, uint64_t max, const char **ret_end)
{
	uint64_t n = 0;

	for (; *s >= '0' && *s <= '9' && n <= max; s++)
		n = n * 10 + (uint64_t)(*s - '0');
	*ret_end = s;
	return n <= max ? n : 0;
}

static int parse_tree(struct firn_scope *s, const char *text, const char *rest, struct firn_err *e)
{
	uint64_t start = 0;
	const char *end;

	s->pid = (pid_t)number(rest, INT_MAX, &end);
	if (s->pid && *end == '-') {
		start = number(end + 1, UINT64_MAX / 16, &end);
		if (!start)
			return bad(e, text);
	}
	if (!s->pid || *end)
		return bad(e, text);
	if (firn_proc_start_time(s->pid, &s->start_time) || (start && start != s->start_time))
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "scope",
				    "scope %.60s: there is no such process: the agent would have nothing to act upon", text);
	s->size = MEMBERS_FIRST;
	s->members = calloc(s->size, sizeof(*s->members));
	return s->members ? 0 : firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the scope");
}

static int parse_user(struct firn_scope *s, const char *text, const char *name, struct firn_err *e)
{
	struct passwd *pw = *name ? getpwnam(name) : NULL;
	const char *end = name;
	uint64_t n = 0;

	if (!*name)
		return bad(e, text);
	if (pw) {
		s->uid = pw->pw_uid;
		return 0;
	}
	n = number(name, UINT32_MAX - 1, &end);
	if (*end || (!n && strcmp(name, "0")))
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ENOENT, "scope", "scope %.100s: there is no such user", text);
	s->uid = (uid_t)n;
	return 0;
}

int firn_scope_parse(struct firn_scope **ret, const char *text, struct firn_err *e)
{
	struct firn_scope *s;
	int err;

	*ret = NULL;
	if (!text || !*text)
		text = "all";
	if (strlen(text) >= TEXT_BYTES)
		return bad(e, text);
	s = calloc(1, sizeof(*s));
	if (!s)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory for the scope");
	pthread_mutex_init(&s->lock, NULL);
	snprintf(s->text, sizeof(s->text), "%s", text);
	if (!strcmp(text, "all")) {
		s->kind = ALL;
		err = 0;
	} else if (!strncmp(text, "cgroup:", 7)) {
		s->kind = CGROUP;
		err = firn_cgroup_find(text + 7, &s->cgroup, e);
	} else if (!strncmp(text, "tree:", 5)) {
		s->kind = TREE;
		err = parse_tree(s, text, text + 5, e);
	} else if (!strncmp(text, "user:", 5)) {
		s->kind = USER;
		err = parse_user(s, text, text + 5, e);
	} else {
		err = bad(e, text);
	}
	if (err) {
		firn_scope_free(s);
		return err;
	}
	*ret = s;
	return 0;
}

void firn_scope_free(struct firn_scope *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s->members);
	free(s);
}

const char *firn_scope_text(const struct firn_scope *s)
{
	return s ? s->text : "all";
}

bool firn_scope_is_all(const struct firn_scope *s)
{
	return !s || s->kind == ALL;
}

/* The place of @pid, or the free one where it would be. */
static struct member *slot(struct member *members, unsigned int size, pid_t pid)
{
	unsigned int at = (unsigned int)pid * 2654435761u & (size - 1);

	while (members[at].pid && members[at].pid != pid)
		at = (at + 1) & (size - 1);
	return &members[at];
}

/* Make room: forget who has ended, and double the table where that is not enough.  Without memory, or at the table's
 * limit, new members are not noted. */
static void make_room(struct firn_scope *s)
{
	struct member *old = s->members, *new;
	unsigned int size = s->size, live = 0;

	for (unsigned int i = 0; i < s->size; i++) {
		uint64_t start;

		if (!old[i].pid)
			continue;
		if (firn_proc_start_time(old[i].pid, &start) || start != old[i].start_time)
			old[i].start_time = 0;
		else
			live++;
	}
	if (live * 4 > size && size < MEMBERS_MAX)
		size *= 2;
	new = calloc(size, sizeof(*new));
	if (!new)
		return;
	for (unsigned int i = 0; i < s->size; i++)
		if (old[i].pid && old[i].start_time)
			*slot(new, size, old[i].pid) = old[i];
	free(old);
	s->members = new;
	s->size = size;
	s->nmembers = live;
}

static void note(struct firn_scope *s, struct member new)
{
	struct member *m;

	if (s->nmembers * 2 >= s->size)
		make_room(s);
	m = slot(s->members, s->size, new.pid);
	if (!m->pid) {
		if (s->nmembers * 2 >= s->size)
			return;
		s->nmembers++;
	}
	*m = new;
}

/* Up from @pid until a member is met. */
static bool in_tree(struct firn_scope *s, pid_t pid)
{
	struct member chain[NOTED];
	unsigned int n = 0;
	pid_t at = pid;
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (int depth = 0; at > 0 && depth < DEPTH; depth++) {
		struct firn_proc p;
		struct member *m;

		if (firn_proc_identity(at, &p))
			break;          /* it ended meanwhile: whose it was cannot be told */
		m = slot(s->members, s->size, at);
		found = (at == s->pid && p.start_time == s->start_time) || (m->pid && m->start_time == p.start_time);
		if (found)
			break;
		if (n < NOTED)
			chain[n++] = (struct member){ at, p.start_time };
		at = p.ppid;
	}
	while (found && n > 0)
		note(s, chain[--n]);
	pthread_mutex_unlock(&s->lock);
	return found;
}

bool firn_scope_has(struct firn_scope *s, pid_t pid)
{
	struct firn_proc p;
	uint64_t start;

	if (firn_scope_is_all(s))
		return !firn_proc_start_time(pid, &start);
	switch (s->kind) {
	case CGROUP:
		return firn_cgroup_holds(&s->cgroup, pid);
	case TREE:
		return in_tree(s, pid);
	case USER:
		return !firn_proc_read(pid, &p) && p.uids[0] == s->uid && p.uids[1] == s->uid && p.uids[2] == s->uid;
	case ALL:
		break;
	}
	return false;
}

bool firn_scope_within(void *scope, pid_t pid)
{
	return firn_scope_has(scope, pid);
}
