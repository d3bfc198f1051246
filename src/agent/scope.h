/* SPDX-License-Identifier: MIT */
/*
 * What the agent is confined to: a cgroup, a process tree, or a user.  Outside it neither looks for targets nor acts.
 * What it reads of others all the same: their parents, where it follows a tree; and, before it touches a target,
 * whether they share its memory.
 *
 *	cgroup:PATH	the processes of a cgroup and of those below it, whoever moves in or out
 *	tree:PID	a process and its descendants.  PID is followed by its start time, which may be given too, as
 *			tree:PID-STARTTIME: its number may be used again, its place is not taken.
 *			The tree is read from parents: a process whose parent has ended belongs to it if its new
 *			parent does (PID or a descendant is a subreaper), or if it was seen as a member before.  One
 *			that was never seen, and whose parent ended, is lost to init: a scope that must not lose any
 *			begins with a subreaper (prctl(PR_SET_CHILD_SUBREAPER)), or is a cgroup.
 *	user:NAME	(or a number) the processes whose real, effective and saved user is that one
 *
 * What the agent holds already may be thawed wherever it is now.
 */
#ifndef FIRN_AGENT_SCOPE_H
#define FIRN_AGENT_SCOPE_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

struct firn_scope;

/*
 * Make a scope.  @text as above; NULL, "" and "all" are no limit.  The caller frees *@ret.
 * Returns 0; -EINVAL it makes no sense (FIRN_EXIT_USAGE); -ENOENT, -ESRCH there is no such cgroup, user or process
 * (FIRN_EXIT_NOT_FOUND); -ENOMEM; each with *@e.
 */
int firn_scope_parse(struct firn_scope **ret, const char *text, struct firn_err *e);
void firn_scope_free(struct firn_scope *s);

/* The scope as it was given; "all" where there is no limit. */
const char *firn_scope_text(const struct firn_scope *s);
/* Is there no limit?  NULL is none. */
bool firn_scope_is_all(const struct firn_scope *s);

/* Is @pid within?  No for a process that has ended.  Any thread; reads a few files of /proc. */
bool firn_scope_has(struct firn_scope *s, pid_t pid);
/* The same for firn_survey_look(): @scope is a struct firn_scope. */
bool firn_scope_within(void *scope, pid_t pid);

#endif
