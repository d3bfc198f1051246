/* SPDX-License-Identifier: MIT */
/* Who comes back, and when; the words and the limits of the configuration. */
#include "policy_fixture.h"

/* Back. */

static void test_storm(void **state)
{
	struct scene x;
	struct firn_unit *u;

	(void)state;
	begin(&x);
	u = add_out(&x, 10, FIRN_UNIT_EVICTED);
	u->refaults_per_s = x.c.storm_refaults_per_s - 1;
	decide(&x);
	expect(&x, 0, NONE, OUT);
	u->refaults_per_s++;
	decide(&x);
	expect(&x, 0, THAW, STORM);
	assert_int_equal(x.sum.return_bytes, 180 * MIB);
	assert_true(says(&x, 0, "comes back whole: it asks for 500 pages a second"));
	/* Even while reclaim goes on, and by whomever it was evicted; but not below the low watermark. */
	u->by_user = true;
	x.s.reclaiming = true;
	x.s.available_bytes = x.sum.low_bytes + u->out_bytes;
	decide(&x);
	assert_int_equal(x.sum.pressure, FIRN_PRESSURE_UNTIL_HIGH);
	expect(&x, 0, THAW, STORM);
	x.s.available_bytes--;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	assert_true(says(&x, 0, "evicted; would come back if there were memory: 180 MiB are out"));
	x.c.storm_refaults_per_s = 0;
	decide(&x);
	expect(&x, 0, NONE, BY_USER);
}

static void test_mostly_back(void **state)
{
	struct scene x;
	struct firn_unit *u;

	(void)state;
	begin(&x);
	u = add_out(&x, 10, FIRN_UNIT_EVICTED);
	u->private_bytes = 300 * MIB;
	u->out_bytes = 100 * MIB;
	decide(&x);
	expect(&x, 0, THAW, MOSTLY_BACK);
	u->out_bytes++;
	decide(&x);
	expect(&x, 0, NONE, OUT);
	assert_true(says(&x, 0, "evicted for 60 min already; 100 MiB are out"));
	u->out_bytes = 100 * MIB;
	x.s.reclaiming = true;
	x.s.available_bytes = x.sum.low_bytes + u->out_bytes;
	decide(&x);
	expect(&x, 0, THAW, MOSTLY_BACK);
	x.s.available_bytes--;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	assert_true(says(&x, 0, "819 MiB are to stay free"));
}

static void test_in_use(void **state)
{
	struct scene x;
	struct firn_unit *u;

	(void)state;
	begin(&x);
	u = add_out(&x, 30, FIRN_UNIT_EVICTED);
	u->idle_ns = SECOND;
	decide(&x);
	/* It runs, and misses nothing. */
	expect(&x, 0, NONE, OUT);
	u->refaults_per_s = 1;
	decide(&x);
	expect(&x, 0, THAW, IN_USE);
	x.s.available_bytes = x.sum.high_bytes + u->out_bytes - 1;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	assert_true(says(&x, 0, "1.5 GiB are to stay free"));
	x.c.storm_refaults_per_s = 0;
	decide(&x);
	assert_true(says(&x, 0, "1.5 GiB are to stay free"));
	x.s.available_bytes++;
	decide(&x);
	expect(&x, 0, THAW, IN_USE);
	/* What is promised to others is not there. */
	x.s.returning_bytes = 1;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	x.s.returning_bytes = 0;
	x.s.reserved_bytes = 1;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	x.s.reserved_bytes = 0;
	u->idle_ns = x.c.active_ns;
	decide(&x);
	expect(&x, 0, NONE, OUT);
	/* Not while processes stall. */
	u->idle_ns = 0;
	x.c.psi_below_hundredths = 10000;
	x.s.psi_some_hundredths = 10000;
	x.s.available_bytes = 7 * GIB;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
}

static void test_frozen(void **state)
{
	struct scene x;
	struct firn_unit *u;

	(void)state;
	begin(&x);
	u = add_out(&x, 30, FIRN_UNIT_FROZEN);
	u->refaults_per_s = 100000;
	u->out_ns = MINUTE;
	decide(&x);
	expect(&x, 0, THAW, ROOM);
	x.s.available_bytes = x.sum.high_bytes + u->out_bytes - 1;
	u->out_ns = x.c.max_frozen_ns - 1;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	u->out_ns++;
	decide(&x);
	expect(&x, 0, THAW, FROZEN_LONG);
	assert_true(says(&x, 0, "nothing else would wake it, and it was frozen for 15 min"));
	/* Even without memory. */
	x.s.available_bytes = 0;
	decide(&x);
	expect(&x, 0, THAW, FROZEN_LONG);
	x.c.max_frozen_ns = 0;
	decide(&x);
	expect(&x, 0, NONE, NO_ROOM);
	x.c.max_frozen_ns = 1;
	x.s.available_bytes = 8 * GIB;
	u->wake = true;
	decide(&x);
	expect(&x, 0, NONE, WAITS);
	assert_true(says(&x, 0, "until there is something for it to do"));
	u->by_user = true;
	decide(&x);
	expect(&x, 0, NONE, BY_USER);
	assert_true(says(&x, 0, "or until there is something for it to do"));
	u->wake = false;
	decide(&x);
	expect(&x, 0, NONE, BY_USER);
	assert_string_equal(words(&x, 0), "frozen by a user's request; stays so until asked to come back");
}

static void test_back_in_order(void **state)
{
	struct scene x;

	(void)state;
	begin(&x);
	for (uint32_t i = 0; i < 4; i++) {
		add_out(&x, 10, FIRN_UNIT_EVICTED)->idle_ns = 0;
		x.u[i].refaults_per_s = 1;
		x.u[i].out_bytes = 1 * GIB;
	}
	x.u[2].priority = 50;
	x.u[3].refaults_per_s = 20;
	decide(&x);
	/* 4 GiB are available, 1.6 are to stay: there is room for two. */
	expect(&x, 2, THAW, IN_USE);
	expect(&x, 3, THAW, IN_USE);
	expect(&x, 0, NONE, NO_ROOM);
	expect(&x, 1, NONE, NO_ROOM);
	assert_int_equal(x.sum.out, 4);
	assert_int_equal(x.order[0], 2);
	assert_int_equal(x.order[1], 3);
	assert_int_equal(x.sum.return_bytes, 2 * GIB);
	/* A smaller one still fits. */
	x.u[1].out_bytes = 300 * MIB;
	x.u[1].refaults_per_s = 0;
	x.u[1].private_bytes = 1 * GIB;
	decide(&x);
	expect(&x, 1, THAW, MOSTLY_BACK);
}

/* Words and limits. */

static void test_names(void **state)
{
	(void)state;
	for (unsigned int a = 0; a < FIRN_REASONS; a++) {
		assert_non_null(firn_reason_name(a));
		for (unsigned int b = 0; b < a; b++)
			assert_string_not_equal(firn_reason_name(a), firn_reason_name(b));
	}
	for (unsigned int a = 0; a < FIRN_ACTIONS; a++)
		assert_non_null(firn_action_name(a));
	for (unsigned int a = 0; a < FIRN_PRESSURES; a++)
		assert_non_null(firn_pressure_name(a));
	assert_null(firn_reason_name(FIRN_REASONS));
	assert_null(firn_action_name(FIRN_ACTIONS));
	assert_null(firn_pressure_name(FIRN_PRESSURES));
	assert_string_equal(firn_reason_name(FIRN_REASON_BY_USER), "by-user");
	assert_string_equal(firn_action_name(FIRN_ACTION_THAW), "thaw");
	assert_string_equal(firn_pressure_name(FIRN_PRESSURE_NEED), "need");
}

static void test_cut(void **state)
{
	struct scene x;
	char whole[FIRN_POLICY_TEXT], guard[FIRN_POLICY_TEXT + 1];

	(void)state;
	begin(&x);
	add(&x, 10);
	decide(&x);
	strcpy(whole, words(&x, 0));
	for (size_t size = 0; size <= strlen(whole) + 1; size++) {
		memset(guard, '#', sizeof(guard));
		firn_policy_explain(guard, size, &x.c, &x.s, 0, &x.d[0], &x.sum);
		if (size) {
			assert_int_equal(strlen(guard), size - 1);
			assert_int_equal(strncmp(guard, whole, size - 1), 0);
		}
		assert_int_equal(guard[size], '#');
	}
}

static void test_config(void **state)
{
	struct firn_policy_config c, good;

	(void)state;
	firn_policy_config_defaults(&good);
	assert_null(firn_policy_config_check(&good));
#define REFUSED(field, value) do { \
	c = good; \
	c.field = (value); \
	assert_non_null(firn_policy_config_check(&c)); \
} while (0)
	REFUSED(low_hundredths, 10001);
	REFUSED(high_hundredths, 10001);
	REFUSED(high_hundredths, good.low_hundredths - 1);
	REFUSED(psi_some_hundredths, 10001);
	REFUSED(psi_full_hundredths, 10001);
	REFUSED(psi_below_hundredths, 10001);
	REFUSED(psi_step_hundredths, 10001);
	REFUSED(pressure_for, -2);
	REFUSED(pressure_for, 102);
	REFUSED(max_backoff_ns, good.min_awake_ns - 1);
	REFUSED(estimate_hundredths, 10001);
	REFUSED(mostly_back_hundredths, 10001);
	good.low_bytes = 2;
	REFUSED(high_bytes, 1);
	c.high_bytes = 2;
	assert_null(firn_policy_config_check(&c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_mostly_back),
		cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_back_in_order),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
