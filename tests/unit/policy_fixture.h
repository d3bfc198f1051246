/* SPDX-License-Identifier: MIT */
/*
 * A scene to decide: units, a configuration and memory, and what came of it.  For test_policy.c and test_policy_back.c.
 */
#ifndef FIRN_TESTS_POLICY_FIXTURE_H
#define FIRN_TESTS_POLICY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/policy.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define SECOND 1000000000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define MOST 16

/* One decision with all that belongs to it. */
struct scene {
	struct firn_policy_config c;
	struct firn_policy_snapshot s;
	struct firn_unit u[MOST];
	struct firn_decision d[MOST];
	uint32_t order[MOST];
	struct firn_policy_summary sum;
	char text[FIRN_POLICY_TEXT];
};

/* 8 GiB, of which 10 % is the low mark and 20 % the high one; nothing wanted yet. */
static inline void begin(struct scene *x)
{
	memset(x, 0, sizeof(*x));
	firn_policy_config_defaults(&x->c);
	x->c.pressure_for = FIRN_FOR_ACTIVE;
	x->c.low_hundredths = 1000;
	x->c.high_hundredths = 2000;
	x->s.total_bytes = 8 * GIB;
	x->s.available_bytes = 4 * GIB;
	x->s.psi_known = true;
	x->s.since_reclaim_ns = UINT64_MAX;
	x->s.budget_bytes = FIRN_NO_LIMIT;
	x->s.store_bytes = FIRN_NO_LIMIT;
	x->s.units = x->u;
}

/* A unit that may be taken: idle for an hour, 200 MiB. */
static inline struct firn_unit *add(struct scene *x, uint32_t priority)
{
	struct firn_unit *u = &x->u[x->s.n++];

	u->id = 100 + x->s.n;
	u->priority = priority;
	u->private_bytes = 200 * MIB;
	u->shared_bytes = 20 * MIB;
	u->idle_ns = HOUR;
	u->awake_ns = 5 * HOUR;
	return u;
}

/* One that needs memory. */
static inline void add_active(struct scene *x, uint32_t priority)
{
	struct firn_unit *u = add(x, priority);

	u->idle_ns = 0;
}

/* One that is out. */
static inline struct firn_unit *add_out(struct scene *x, uint32_t priority, enum firn_unit_state state)
{
	struct firn_unit *u = add(x, priority);

	u->state = state;
	u->out_bytes = 180 * MIB;
	u->private_bytes = 20 * MIB;
	u->out_ns = HOUR;
	return u;
}

static inline void decide(struct scene *x)
{
	memset(x->d, 0xa5, sizeof(x->d));
	memset(x->order, 0xa5, sizeof(x->order));
	firn_policy_decide(&x->c, &x->s, x->d, x->order, &x->sum);
}

static inline const char *words(struct scene *x, size_t i)
{
	return firn_policy_explain(x->text, sizeof(x->text), &x->c, &x->s, i, &x->d[i], &x->sum);
}

static inline void expect_at(struct scene *x, size_t i, enum firn_action action, enum firn_reason reason, int line)
{
	if (x->d[i].action == action && x->d[i].reason == reason)
		return;
	fail_msg("line %d: unit %zu: %s because %s (%s), not %s because %s", line, i,
		 firn_action_name(x->d[i].action), firn_reason_name(x->d[i].reason), words(x, i),
		 firn_action_name(action), firn_reason_name(reason));
}

#define expect(x, i, action, reason) expect_at(x, i, FIRN_ACTION_##action, FIRN_REASON_##reason, __LINE__)

static inline bool says(struct scene *x, size_t i, const char *part)
{
	if (strstr(words(x, i), part))
		return true;
	printf("unit %zu says: %s\n", i, x->text);
	return false;
}

static inline const char *summary(struct scene *x)
{
	return firn_policy_explain_summary(x->text, sizeof(x->text), &x->c, &x->s, &x->sum);
}

static inline bool sums_up(struct scene *x, const char *part)
{
	if (strstr(summary(x), part))
		return true;
	printf("summary says: %s\n", x->text);
	return false;
}

/* An explicit need of root's, for all that is below priority 80. */
static inline void need(struct scene *x, uint64_t bytes)
{
	x->s.need = (struct firn_need){ .given = true, .bytes = bytes, .priority = 80 };
}

#endif
