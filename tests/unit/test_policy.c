/* SPDX-License-Identifier: MIT */
/* Decisions: each rule by a case of its own, with its words.  All rules at once, at random: test_policy_random.c. */
#include "policy_fixture.h"

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

/* Pressure. */

static void test_watermarks(void **state)
{
	struct scene x;
	uint64_t low, high;

	(void)state;
	begin(&x);
	add(&x, 10);
	add_active(&x, 80);
	decide(&x);
	low = x.sum.low_bytes;
	high = x.sum.high_bytes;
	assert_int_equal(low, 8 * GIB / 10);
	assert_int_equal(high, 8 * GIB / 5);
	assert_true(sums_up(&x, "no pressure: 4 GiB available, reclaim begins below 819 MiB"));

	x.s.available_bytes = low;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
	expect(&x, 0, NONE, NO_NEED);
	x.s.available_bytes = low - 1;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_LOW);
	assert_int_equal(x.sum.wanted_bytes, high - low + 1);
	assert_true(x.sum.reclaiming);
	expect(&x, 0, EVICT, IDLE);
	assert_true(sums_up(&x, "1 of 1 candidates give 200 MiB"));

	/* Once begun, it goes on until the high one. */
	x.s.reclaiming = true;
	x.s.available_bytes = high - 1;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_UNTIL_HIGH);
	assert_int_equal(x.sum.wanted_bytes, 1);
	expect(&x, 0, EVICT, IDLE);
	x.s.reclaiming = false;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
	x.s.reclaiming = true;
	x.s.available_bytes = high;
	decide(&x);
	assert_false(x.sum.reclaiming);
	expect(&x, 0, NONE, NO_NEED);

	/* In bytes; the high one is never below the low one. */
	x.c.low_bytes = 100 * MIB;
	x.c.high_bytes = 50 * MIB;
	x.s.available_bytes = 99 * MIB;
	decide(&x);
	assert_int_equal(x.sum.low_bytes, 100 * MIB);
	assert_int_equal(x.sum.wanted_bytes, 1 * MIB);

	/* What is under way counts. */
	x.s.coming_bytes = 1 * MIB;
	decide(&x);
	assert_int_equal(x.sum.wanted_bytes, 0);
	assert_true(x.sum.reclaiming);
	expect(&x, 0, NONE, NO_NEED);
}

static void test_psi(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 10);
	add_active(&x, 80);
	x.c.psi_some_hundredths = 1000;
	x.c.psi_full_hundredths = 500;
	x.c.psi_below_hundredths = 5000;
	x.c.psi_step_hundredths = 100;
	x.c.psi_settle_ns = 15 * SECOND;
	x.s.available_bytes = 4 * GIB - 1;
	x.s.psi_some_hundredths = 999;
	x.s.psi_full_hundredths = 499;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
	x.s.psi_some_hundredths = 1000;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_SOME);
	assert_true(sums_up(&x, "10%"));
	x.s.psi_full_hundredths = 500;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_FULL);
	assert_true(x.sum.reclaiming);
	assert_int_equal(x.sum.wanted_bytes, 8 * GIB / 100);
	expect(&x, 0, EVICT, IDLE);

	/* Averages look back: not again at once. */
	x.s.since_reclaim_ns = 15 * SECOND - 1;
	decide(&x);
	assert_int_equal(x.sum.wanted_bytes, 0);
	assert_true(x.sum.reclaiming);
	x.s.since_reclaim_ns++;
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
	/* But what the watermarks want is wanted. */
	x.s.since_reclaim_ns = 0;
	x.s.available_bytes = 8 * GIB / 5 - 5;
	decide(&x);
	assert_int_equal(x.sum.wanted_bytes, 5);

	/* With so much available others' memory is no help. */
	x.s.since_reclaim_ns = UINT64_MAX;
	x.s.available_bytes = 4 * GIB;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);

	x.s.available_bytes--;
	x.s.psi_some_hundredths = x.s.psi_full_hundredths = 0;
	x.s.psi_triggered = true;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_TRIGGER);

	/* Not known: neither figures nor triggers count, and it is said. */
	x.s.psi_known = false;
	x.s.psi_full_hundredths = 9000;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
	assert_false(x.sum.psi_known);
	assert_true(sums_up(&x, "PSI not known, by available memory alone"));
	x.s.available_bytes = 0;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_LOW);

	/* Bounds of 0 are not looked at. */
	x.s.psi_known = true;
	x.s.psi_triggered = false;
	x.c.psi_some_hundredths = x.c.psi_full_hundredths = 0;
	x.s.available_bytes = 3 * GIB;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NONE);
}

static void test_urgent(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 10)->idle_ns = x.c.need_min_idle_ns;
	add_active(&x, 80);
	x.s.available_bytes = 8 * GIB / 20;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_LOW);
	assert_false(x.sum.urgent);
	expect(&x, 0, NONE, ACTIVE);
	assert_true(says(&x, 0, "idle for 10 s, at least 5 min are asked for"));
	/* Less than half of the low watermark: somebody waits, or soon will. */
	x.s.available_bytes--;
	decide(&x);
	assert_true(x.sum.urgent);
	expect(&x, 0, EVICT, IDLE);
	x.s.available_bytes++;
	x.s.psi_full_hundredths = x.c.psi_full_hundredths;
	decide(&x);
	assert_true(x.sum.urgent);
	expect(&x, 0, EVICT, IDLE);
	x.u[0].idle_ns--;
	decide(&x);
	expect(&x, 0, NONE, ACTIVE);
	x.u[0].idle_ns++;
	x.s.psi_known = false;
	decide(&x);
	expect(&x, 0, NONE, ACTIVE);
}

static void test_for_whom(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 39);
	add(&x, 40);
	add(&x, 90);
	add_active(&x, 40);
	add_active(&x, 20);
	x.s.available_bytes = 0;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 40);
	expect(&x, 0, EVICT, IDLE);
	expect(&x, 1, NONE, PRIORITY);
	expect(&x, 2, NONE, PRIORITY);
	assert_true(says(&x, 2, "priority 90 is not below priority 40, the highest that is active"));
	assert_true(x.sum.missing_bytes > 0);
	assert_true(sums_up(&x, "are missing"));

	/* One that just came back is active, and one that pages in; one that is frozen is not. */
	x.u[1].state = FIRN_UNIT_FROZEN;
	x.u[1].idle_ns = 0;
	x.u[1].priority = 95;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 40);
	x.u[1].state = FIRN_UNIT_BUSY;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 95);
	x.u[1].state = FIRN_UNIT_EVICTED;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 95);
	expect(&x, 2, EVICT, IDLE);
	x.u[1].idle_ns = x.c.active_ns;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 40);

	/* Nobody is active: the system, and all matter less than that. */
	for (size_t i = 0; i < x.s.n; i++)
		x.u[i].idle_ns = HOUR;
	x.u[2].priority = 100;
	decide(&x);
	assert_int_equal(x.sum.for_priority, FIRN_PRIORITY_SYSTEM);
	assert_true(x.sum.nobody_active);
	expect(&x, 2, EVICT, IDLE);
	assert_true(sums_up(&x, "wanted for the system, since nothing is active"));

	/* By configuration. */
	add_active(&x, 40);
	x.c.pressure_for = 20;
	decide(&x);
	assert_int_equal(x.sum.for_priority, 20);
	expect(&x, 4, NONE, PRIORITY);
	expect(&x, 0, NONE, PRIORITY);
	assert_true(says(&x, 0, "priority 39 is not below priority 20"));
	x.c.pressure_for = FIRN_PRIORITY_SYSTEM;
	decide(&x);
	expect(&x, 2, EVICT, IDLE);
	/* Above the highest is the highest. */
	x.c.pressure_for = 100;
	x.u[2].priority = 4000;
	decide(&x);
	expect(&x, 2, NONE, PRIORITY);
}

static void test_need(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 79);
	add(&x, 80);
	add(&x, 10)->uid = 1000;
	add(&x, 10)->uid = FIRN_UID_SEVERAL;
	add_active(&x, 90);
	add_out(&x, 10, FIRN_UNIT_EVICTED)->refaults_per_s = 100000;
	x.s.reclaiming = true;
	need(&x, 100 * GIB);
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_NEED);
	assert_int_equal(x.sum.wanted_bytes, 100 * GIB);
	assert_int_equal(x.sum.gain_bytes, 600 * MIB);
	assert_int_equal(x.sum.missing_bytes, 100 * GIB - 600 * MIB);
	assert_true(x.sum.reclaiming);
	expect(&x, 0, EVICT, IDLE);
	expect(&x, 1, NONE, PRIORITY);
	assert_true(says(&x, 1, "priority 80 is not below priority 80"));
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 3, EVICT, IDLE);
	expect(&x, 5, NONE, OUT);

	x.s.need.uid = 1000;
	decide(&x);
	expect(&x, 0, NONE, OTHER_USER);
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 3, NONE, OTHER_USER);
	assert_true(says(&x, 3, "belongs to several users, not to user 1000, who asks"));
	assert_int_equal(x.sum.gain_bytes, 200 * MIB);

	/* Who asks explicitly need not wait for long idling, but for some. */
	x.u[2].idle_ns = x.c.need_min_idle_ns;
	decide(&x);
	expect(&x, 2, EVICT, IDLE);
	x.u[2].idle_ns--;
	decide(&x);
	expect(&x, 2, NONE, ACTIVE);

	need(&x, 0);
	decide(&x);
	expect(&x, 0, NONE, NO_NEED);
	assert_int_equal(x.sum.missing_bytes, 0);
}

/* Candidates. */

static void test_excluded(void **state)
{
	struct scene x;
	struct firn_unit *u = x.u;

	(void)state;
	begin(&x);
	add(&x, 10);
	need(&x, 1);
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
	assert_true(says(&x, 0, "evicted, as number 1: priority 10, idle for 60 min; gives 200 MiB, writes 100 MiB"));

	/* From the last reason to the first: each hides those before it. */
	x.s.store_bytes = 100 * MIB;
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
	x.s.store_bytes--;
	decide(&x);
	expect(&x, 0, NONE, STORE);
	assert_true(says(&x, 0, "would write 100 MiB; the store has 99"));
	x.s.budget_bytes = 100 * MIB - 1;
	decide(&x);
	expect(&x, 0, NONE, BUDGET);
	assert_true(says(&x, 0, "would write 100 MiB; the day's budget has 99"));
	x.s.budget_bytes = 0;
	decide(&x);
	assert_true(says(&x, 0, "the day's budget of bytes to write is used up"));
	x.c.unit_daily_bytes = 300 * MIB;
	u->written_today_bytes = 200 * MIB;
	decide(&x);
	expect(&x, 0, NONE, BUDGET);
	u->written_today_bytes++;
	decide(&x);
	expect(&x, 0, NONE, UNIT_BUDGET);
	u->wakeups_per_minute = x.c.ticks_per_minute;
	decide(&x);
	expect(&x, 0, NONE, TICKS);
	assert_true(says(&x, 0, "wakes up 60 times a minute"));
	u->idle_ns = SECOND;
	decide(&x);
	expect(&x, 0, NONE, ACTIVE);
	assert_true(says(&x, 0, "idle for 1 s, at least 10 s are asked for"));
	u->quick_returns = 2;
	u->awake_ns = 4 * x.c.min_awake_ns;
	decide(&x);
	expect(&x, 0, NONE, ACTIVE);
	u->awake_ns--;
	decide(&x);
	expect(&x, 0, NONE, BACKOFF);
	assert_true(says(&x, 0, "since it came back quickly 2 times"));
	u->awake_ns = x.c.min_awake_ns;
	decide(&x);
	expect(&x, 0, NONE, BACKOFF);
	u->awake_ns--;
	decide(&x);
	expect(&x, 0, NONE, AWAKE);
	u->private_bytes = x.c.min_bytes;
	decide(&x);
	expect(&x, 0, NONE, AWAKE);
	u->private_bytes--;
	decide(&x);
	expect(&x, 0, NONE, SMALL);
	u->min_bytes = 4096;
	decide(&x);
	expect(&x, 0, NONE, AWAKE);
	u->min_bytes = 1 * GIB;
	decide(&x);
	expect(&x, 0, NONE, SMALL);
	assert_true(says(&x, 0, "less than the 1 GiB that are worth it"));
	x.s.need.priority = 10;
	decide(&x);
	expect(&x, 0, NONE, PRIORITY);
	x.s.need.uid = 5;
	decide(&x);
	expect(&x, 0, NONE, OTHER_USER);
	u->refused = true;
	u->refused_why = "a seccomp filter";
	decide(&x);
	expect(&x, 0, NONE, REFUSED);
	assert_true(says(&x, 0, "cannot be frozen: a seccomp filter"));
	u->never = true;
	decide(&x);
	expect(&x, 0, NONE, NEVER);
	assert_string_equal(words(&x, 0), "on the never-list");
	u->never_why = "rule sshd";
	assert_string_equal(words(&x, 0), "on the never-list: rule sshd");
	u->state = FIRN_UNIT_BUSY;
	decide(&x);
	expect(&x, 0, NONE, BUSY);
	assert_int_equal(x.d[0].place, 0);
	assert_int_equal(x.sum.queued, 0);
}

static void test_backoff(void **state)
{
	struct firn_policy_config c;

	(void)state;
	firn_policy_config_defaults(&c);
	c.min_awake_ns = 100;
	c.max_backoff_ns = 1000;
	c.quick_return_ns = 50;
	assert_int_equal(firn_policy_awake_ns(&c, 0), 100);
	assert_int_equal(firn_policy_awake_ns(&c, 1), 200);
	assert_int_equal(firn_policy_awake_ns(&c, 3), 800);
	assert_int_equal(firn_policy_awake_ns(&c, 4), 1000);
	assert_int_equal(firn_policy_awake_ns(&c, UINT32_MAX), 1000);
	c.max_backoff_ns = UINT64_MAX;
	assert_true(firn_policy_awake_ns(&c, UINT32_MAX) == UINT64_MAX);
	c.max_backoff_ns = 10;
	assert_int_equal(firn_policy_awake_ns(&c, 9), 100);
	c.min_awake_ns = 0;
	assert_int_equal(firn_policy_awake_ns(&c, UINT32_MAX), 0);
	assert_int_equal(firn_policy_returned(&c, 0, 49), 1);
	assert_int_equal(firn_policy_returned(&c, 4, 49), 5);
	assert_int_equal(firn_policy_returned(&c, 5, 50), 2);
	assert_int_equal(firn_policy_returned(&c, 1, 50), 0);
	assert_int_equal(firn_policy_returned(&c, UINT32_MAX, 0), UINT32_MAX);
}

static void expect_order(struct scene *x, const uint32_t *order, size_t n, int line)
{
	decide(x);
	for (size_t k = 0; k < n; k++)
		if (x->order[k] != order[k] || x->d[order[k]].place != k + 1)
			fail_msg("line %d: place %zu is unit %u's, not unit %u's", line, k + 1, x->order[k], order[k]);
}

#define EXPECT_ORDER(x, ...) do { \
	const uint32_t order_[] = { __VA_ARGS__ }; \
	expect_order(x, order_, sizeof(order_) / sizeof(*order_), __LINE__); \
} while (0)

static void test_order(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	x.c.min_idle_ns = MINUTE;
	for (unsigned int i = 0; i < 4; i++)
		add(&x, 10);
	add_active(&x, 80);
	/* All alike: by number, whatever their order. */
	x.u[0].id = 999;
	EXPECT_ORDER(&x, 1, 2, 3, 0);
	/* Larger. */
	x.u[2].private_bytes++;
	x.u[2].stored_bytes = 100 * MIB;
	EXPECT_ORDER(&x, 2, 1, 3, 0);
	/* Less shared. */
	x.u[3].shared_bytes = 0;
	EXPECT_ORDER(&x, 3, 2, 1, 0);
	/* More memory for each byte written. */
	x.u[1].stored_bytes = 50 * MIB;
	EXPECT_ORDER(&x, 1, 3, 2, 0);
	/* Idle for longer, but only by doublings. */
	x.u[0].idle_ns = 63 * MINUTE;
	x.u[1].idle_ns = 33 * MINUTE;
	x.u[2].idle_ns = 32 * MINUTE;
	x.u[3].idle_ns = 40 * MINUTE;
	EXPECT_ORDER(&x, 1, 3, 2, 0);
	x.u[0].idle_ns = 64 * MINUTE;
	EXPECT_ORDER(&x, 0, 1, 3, 2);
	/* And before all, priority. */
	x.u[2].priority = 9;
	EXPECT_ORDER(&x, 2, 0, 1, 3);
	/* Those in memory are not written. */
	x.u[3].in_ram = true;
	x.u[3].idle_ns = 64 * MINUTE;
	EXPECT_ORDER(&x, 2, 3, 0, 1);
	assert_int_equal(x.d[3].cost_bytes, 0);
	assert_int_equal(x.d[3].gain_bytes, 100 * MIB);
}

/* How far to go. */

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
	assert_true(says(&x, 1, "number 1 of 3 when memory is wanted; now none is"));
	assert_int_equal(x.d[1].place, 1);
	assert_int_equal(x.d[2].place, 2);
	assert_int_equal(x.d[0].place, 3);
	assert_int_equal(x.sum.for_priority, 80);

	need(&x, 300 * MIB);
	decide(&x);
	expect(&x, 1, EVICT, IDLE);
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 0, NONE, ENOUGH);
	assert_true(says(&x, 0, "number 3 of 3, not needed: others give the 300 MiB that are wanted"));
	expect(&x, 3, NONE, PRIORITY);
	assert_int_equal(x.sum.gain_bytes, 400 * MIB);
	assert_int_equal(x.sum.cost_bytes, 200 * MIB);
	assert_int_equal(x.sum.missing_bytes, 0);
	assert_int_equal(x.order[0], 1);
	assert_int_equal(x.order[1], 2);

	/* One of a higher priority that would suffice alone does not go in place of lower ones. */
	x.u[0].private_bytes = 4 * GIB;
	decide(&x);
	expect(&x, 0, NONE, ENOUGH);
}

static void test_one_suffices(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	for (unsigned int i = 0; i < 10; i++)
		add(&x, 10)->private_bytes = 100 * MIB;
	/* It comes last: most of it is shared. */
	add(&x, 10)->private_bytes = 1000 * MIB;
	x.u[10].shared_bytes = 4 * GIB;
	need(&x, 950 * MIB);
	decide(&x);
	assert_int_equal(x.d[10].place, 11);
	expect(&x, 10, EVICT, IDLE);
	for (size_t i = 0; i < 10; i++)
		expect(&x, i, NONE, ENOUGH);
	/* Not when much more is written for it, */
	x.u[10].stored_bytes = 750 * MIB;
	decide(&x);
	expect(&x, 10, EVICT, IDLE);
	x.u[10].stored_bytes++;
	decide(&x);
	expect(&x, 10, NONE, ENOUGH);
	expect(&x, 0, EVICT, IDLE);
	assert_int_equal(x.sum.actions[FIRN_ACTION_EVICT], 10);
	/* nor when it was in use more recently. */
	x.u[10].stored_bytes = 0;
	x.u[10].idle_ns = x.c.min_idle_ns;
	decide(&x);
	expect(&x, 10, NONE, ENOUGH);
	/* Nor when it does not suffice. */
	x.u[10].idle_ns = HOUR;
	x.u[10].private_bytes = 949 * MIB;
	decide(&x);
	assert_int_equal(x.sum.actions[FIRN_ACTION_EVICT], 10);
	/* What makes those before it needless, without sufficing alone. */
	need(&x, 1200 * MIB);
	decide(&x);
	expect(&x, 10, EVICT, IDLE);
	assert_int_equal(x.sum.actions[FIRN_ACTION_EVICT], 4);
	assert_int_equal(x.sum.gain_bytes, 1249 * MIB);
}

static void test_budget(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 10)->private_bytes = 1000 * MIB;
	add(&x, 20);
	add(&x, 30);
	add(&x, 40);
	need(&x, 600 * MIB);
	/* The first is too large; of the others, two fit. */
	x.s.budget_bytes = 250 * MIB;
	decide(&x);
	expect(&x, 0, NONE, BUDGET);
	expect(&x, 1, EVICT, IDLE);
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 3, NONE, BUDGET);
	assert_true(says(&x, 3, "the day's budget, those before it counted, has 50 MiB left"));
	assert_int_equal(x.sum.missing_bytes, 200 * MIB);
	x.s.store_bytes = 100 * MIB;
	x.u[2].in_ram = true;
	decide(&x);
	expect(&x, 1, EVICT, IDLE);
	expect(&x, 2, EVICT, IDLE);
	expect(&x, 3, NONE, STORE);
	assert_true(says(&x, 3, "the store, those before it counted, has 0 bytes left"));
	/* Used up: only what is not written goes. */
	x.s.budget_bytes = 0;
	decide(&x);
	expect(&x, 0, NONE, BUDGET);
	expect(&x, 1, NONE, BUDGET);
	expect(&x, 2, EVICT, IDLE);
	assert_int_equal(x.sum.cost_bytes, 0);
}

static void test_freeze(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	add(&x, 10)->wake = true;
	need(&x, 1);
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
	x.u[0].wakeups_per_minute = x.c.ticks_per_minute - 1;
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
	x.u[0].wakeups_per_minute++;
	decide(&x);
	expect(&x, 0, FREEZE, TICKS_WAKES);
	assert_true(says(&x, 0, "frozen, as number 1: priority 10, wakes up 60 times a minute"));
	x.u[0].wake = false;
	decide(&x);
	expect(&x, 0, NONE, TICKS);
	x.c.ticks_per_minute = 0;
	decide(&x);
	expect(&x, 0, EVICT, IDLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_watermarks),
		cmocka_unit_test(test_psi),
		cmocka_unit_test(test_urgent),
		cmocka_unit_test(test_for_whom),
		cmocka_unit_test(test_need),
		cmocka_unit_test(test_excluded),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_lowest_first),
		cmocka_unit_test(test_one_suffices),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_freeze),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
