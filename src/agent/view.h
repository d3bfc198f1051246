/* SPDX-License-Identifier: MIT */
/*
 * The snapshot that decisions are made from: what the survey saw, what the engine holds, what the book remembers and
 * what the rules say, as one unit for each process.  Looks only; decides and does nothing.
 *
 * A view belongs to one thread at a time.
 */
#ifndef FIRN_AGENT_VIEW_H
#define FIRN_AGENT_VIEW_H

#include "agent/book.h"
#include "agent/config.h"
#include "agent/scope.h"
#include "agent/survey.h"
#include "engine/engine.h"
#include "policy/policy.h"

/* What a unit is, beside its figures. */
struct firn_viewed {
	pid_t pid;
	uint64_t start_time;
	const struct firn_seen *seen;   /* of this look */
	struct firn_verdict verdict;
	bool set;                       /* its priority was set by request, not by a rule */
	char never_why[96], refused_why[FIRN_BOOK_WHY];
};

struct firn_users;

struct firn_view {
	struct firn_survey survey;
	struct firn_book book;
	struct firn_users *users;
	struct firn_unit *units;
	struct firn_viewed *viewed;     /* of the unit at the same place */
	struct firn_decision *decisions;
	uint32_t *order;
	size_t size;
	struct firn_policy_snapshot snapshot;
	struct firn_memory memory;
};

struct firn_view_from {
	struct firn_engine *engine;
	struct firn_scope *scope;
	const struct firn_config *config;
	pid_t keeper;
	const char *memory_cgroup;      /* of the scope; NULL: the host */
};

/* @dir: where the book is kept.  Returns 0, or -errno as firn_book_open(). */
int firn_view_open(struct firn_view *v, const char *dir);
void firn_view_close(struct firn_view *v);

/*
 * Look, and fill v->units and v->snapshot but for what only the caller knows (budget, store, need, what is under way).
 * Entries of the book follow: who went out and came back since the last look.  @now_ns: monotonic.
 * Returns 0, or -errno: nothing may be decided then.
 */
int firn_view_look(struct firn_view *v, const struct firn_view_from *from, uint64_t now_ns);

/* The place of a process among the units, or -1. */
long firn_view_find(const struct firn_view *v, pid_t pid);

/* What the rules say of @pid, looked at for itself: also out of scope, and of one that was never seen.  Returns 0, or
 * -ESRCH.  @ret_why: "rule ssh (firn.conf:12)". */
int firn_view_judge(const struct firn_view_from *from, pid_t pid, struct firn_verdict *ret, char *ret_why, size_t size);

#endif
