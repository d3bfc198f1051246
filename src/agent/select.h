/* SPDX-License-Identifier: MIT */
/*
 * Selectors: what a request names, and which processes that is at the moment.  All but a PID name a group, which is
 * acted upon as one.  Reads only.
 */
#ifndef FIRN_AGENT_SELECT_H
#define FIRN_AGENT_SELECT_H

#include <sys/types.h>

#include "agent/scope.h"
#include "base/err.h"
#include "procmem/cgroup.h"

#define FIRN_SELECT_MAX 4096u           /* processes of one request */
#define FIRN_SELECT_TEXT 256u           /* bytes of a name, with its end */

enum firn_select_by {
	FIRN_BY_PID,
	FIRN_BY_TREE,
	FIRN_BY_CGROUP,
	FIRN_BY_UNIT,
	FIRN_BY_NAME,
	FIRN_BY_CONTAINER,
};

/* Who asks, and whom it may meet. */
struct firn_asker {
	uid_t uid;
	gid_t gid;
	pid_t client;                   /* the asking program, or 0 */
	pid_t keeper;
	struct firn_scope *scope;
};

struct firn_select {
	enum firn_select_by by;
	pid_t pid;                      /* of a PID and a tree */
	char name[FIRN_SELECT_TEXT];    /* of the others */
	char text[FIRN_SELECT_TEXT + 16];       /* as it is said: "--tree 1234"; the group's name */
	/* What was found; of a tree its root's start time, of the last three but one their cgroup. */
	uint64_t start_time;
	struct firn_cgroup cgroup;
};

struct firn_chosen {
	pid_t pid;
	uint64_t start_time;
};

/* The words of selectors in the interface and on the command line: "pid", "tree", ...; NULL beyond the last. */
const char *firn_select_word(enum firn_select_by by);

/*
 * Make a selector: @pid for the first two, else @name, which is copied.
 * Returns 0; -EINVAL where it can name nothing (empty, too long, control characters), with *@e (FIRN_EXIT_USAGE).
 */
int firn_select_make(struct firn_select *s, enum firn_select_by by, pid_t pid, const char *name, struct firn_err *e);

/*
 * See that there is what @s names, before anything is done.
 * Returns 0; -ENOENT, -ESRCH there is no such process, cgroup, unit or container, or a short id is not of one
 * container alone (FIRN_EXIT_NOT_FOUND); -EINVAL (FIRN_EXIT_USAGE); each with *@e.  A PID and a name pass.
 */
int firn_select_find(struct firn_select *s, struct firn_err *e);

/*
 * Its processes now, that @who may act upon; of a user's request only that user's.  What has ended is left out, and by
 * name also who asks and its ancestors, init, agent, keeper, kernel threads, and what is out of scope.  Oldest first,
 * so that parents come before their children.  @s was found.
 * @list     room for FIRN_SELECT_MAX.   @ret_others  how many were left out because they are another user's.
 * Returns how many; 0 is no error; -E2BIG more than there is room for, with *@e; -ENOMEM.
 */
int firn_select_list(const struct firn_select *s, const struct firn_asker *who, struct firn_chosen *list,
		     unsigned int *ret_others, struct firn_err *e);

#endif
