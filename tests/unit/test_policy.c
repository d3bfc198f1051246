/* SPDX-License-Identifier: MIT */
/* Decisions: each rule by a case of its own, with its words.  All rules at once, at random: test_policy_random.c. */
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
static void begin(struct scene *x)
{
	memset(x, 0, sizeof(*x));
	firn_policy_config_defaults(&x->c);
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
static struct firn_unit *add(struct scene *x, uint32_t priority)
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
static void add_active(struct scene *x, uint32_t priority)
{
	struct firn_unit *u = add(x, priority);

	u->idle_ns = 0;
}

/* One that is out. */
static struct firn_unit *add_out(struct scene *x, uint32_t priority, enum firn_unit_state state)
{
	struct firn_unit *u = add(x, priority);

	u->state = state;
	u->out_bytes = 180 * MIB;
	u->private_bytes = 20 * MIB;
	u->out_ns = HOUR;
	return u;
}

static void decide(struct scene *x)
{
	memset(x->d, 0xa5, sizeof(x->d));
	memset(x->order, 0xa5, sizeof(x->order));
	firn_policy_decide(&x->c, &x->s, x->d, x->order, &x->sum);
}

static const char *words(struct scene *x, size_t i)
{
	return firn_policy_explain(x->text, sizeof(x->text), &x->c, &x->s, i, &x->d[i], &x->sum);
}

static void expect_at(struct scene *x, size_t i, enum firn_action action, enum firn_reason reason, int line)
{
	if (x->d[i].action == action && x->d[i].reason == reason)
		return;
	fail_msg("line %d: unit %zu: %s because %s (%s), not %s because %s", line, i,
		 firn_action_name(x->d[i].action), firn_reason_name(x->d[i].reason), words(x, i),
		 firn_action_name(action), firn_reason_name(reason));
}

#define expect(x, i, action, reason) expect_at(x, i, FIRN_ACTION_##action, FIRN_REASON_##reason, __LINE__)

static void test_nothing(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	firn_policy_decide(&x.c, &x.s, NULL, NULL, &x.sum);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
	assert_false(x.sum.reclaiming);
	x.s.available_bytes = 0;
	firn_policy_decide(&x.c, &x.s, NULL, NULL, &x.sum);
	assert_int_equal(x.sum.missing_bytes, x.sum.high_bytes);
}

static void test_lowest_first(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 30);
	add(&x, 10);
	add(&x, 20);
	add_active(&x, 80);
	decide(&x);
	expect(&x, 1, NONE, NO_NEED);
	assert_int_equal(x.d[1].place, 1);
	assert_int_equal(x.d[2].place, 2);
	assert_int_equal(x.d[0].place, 3);
	assert_int_equal(x.sum.for_priority, 80);

	x.s.need = (struct firn_need){ .given = true, .bytes = 300 * MIB, .priority = 80 };
	decide(&x);
	expect(&x, 1, EVICT, IDLE);
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 0, NONE, ENOUGH);
	expect(&x, 3, NONE, PRIORITY);
	assert_int_equal(x.sum.gain_bytes, 400 * MIB);
	assert_int_equal(x.order[0], 1);
	assert_int_equal(x.order[1], 2);
}

static void test_in_use(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add_out(&x, 30, FIRN_UNIT_EVICTED);
	decide(&x);
	expect(&x, 0, NONE, OUT);
	x.u[0].idle_ns = SECOND;
	x.u[0].refaults_per_s = 1;
	decide(&x);
	expect(&x, 0, THAW, IN_USE);
	/* One byte less than leaves the high watermark. */
	x.s.available_bytes = x.sum.high_bytes + x.u[0].out_bytes - 1;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	x.s.available_bytes++;
	decide(&x);
	expect(&x, 0, THAW, IN_USE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_lowest_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
