/* SPDX-License-Identifier: MIT */
/* The day's budget: honest days, used-up days, and clocks that somebody sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/budget.h"
#include "policy/policy.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define HOUR_S 3600ll
#define DAY_S (24 * HOUR_S)
#define NS 1000000000ull
/* 2026-11-21 00:00 UTC */
#define MIDNIGHT (20778 * DAY_S)

static const struct firn_budget_config CONFIG = { 1000 * MIB, 400 * MIB, 2500 };

static struct firn_budget_time at(int64_t wall_s, int64_t running_s, uint64_t boot)
{
	return (struct firn_budget_time){ wall_s, (uint64_t)running_s * NS, boot };
}

/* A clock that nobody sets, booted at midnight. */
static bool roll_at(struct firn_budget *b, int64_t s)
{
	struct firn_budget_time t = at(MIDNIGHT + s, s, 7);

	return firn_budget_roll(&CONFIG, b, &t);
}

static void test_days(void **state)
{
	struct firn_budget b = { 0 };

	(void)state;
	assert_true(roll_at(&b, 13 * HOUR_S));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1000 * MIB);
	for (int64_t s = 13 * HOUR_S; s < 24 * HOUR_S; s += 600)
		assert_false(roll_at(&b, s));
	assert_false(roll_at(&b, DAY_S - 1));
	assert_true(roll_at(&b, DAY_S));
	/* Carried over: no more than the bound. */
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1400 * MIB);
	firn_budget_spend(&b, NULL, 1300 * MIB);
	assert_true(roll_at(&b, 2 * DAY_S + 5));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1100 * MIB);
	/* And what is carried over is not carried over for ever. */
	for (int64_t day = 3; day < 40; day++) {
		assert_true(roll_at(&b, day * DAY_S + 1));
		assert_false(roll_at(&b, day * DAY_S + 2));
		assert_int_equal(firn_budget_left(&CONFIG, &b), 1400 * MIB);
	}
	assert_int_equal(b.days, 40);
	/* Of days without an agent nothing comes. */
	assert_true(roll_at(&b, 90 * DAY_S));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1400 * MIB);
}

static void test_used_up(void **state)
{
	struct firn_budget b = { 0 };

	(void)state;
	roll_at(&b, 0);
	firn_budget_spend(&b, NULL, 1000 * MIB);
	assert_int_equal(firn_budget_left(&CONFIG, &b), 0);
	/* 1250 MiB more than there was: a day is lost, and a quarter of the next. */
	firn_budget_spend(&b, NULL, 1250 * MIB);
	assert_int_equal(firn_budget_left(&CONFIG, &b), 0);
	assert_true(roll_at(&b, DAY_S));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 0);
	assert_int_equal(b.today_bytes, 0);
	assert_true(roll_at(&b, 2 * DAY_S));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 750 * MIB);
	assert_int_equal(b.total_bytes, 2250 * MIB);
}

static void test_limits(void **state)
{
	const struct firn_budget_config none = { FIRN_NO_LIMIT, 0, 2500 }, nothing = { 0, 0, 2500 };
	struct firn_budget_time t = at(MIDNIGHT, 0, 7);
	struct firn_budget b = { 0 };
	enum firn_budget_level level;

	(void)state;
	firn_budget_roll(&none, &b, &t);
	firn_budget_spend(&b, NULL, 500 * GIB);
	assert_true(firn_budget_left(&none, &b) == FIRN_NO_LIMIT);
	assert_int_equal(firn_budget_level(&none, &b), FIRN_BUDGET_FINE);
	assert_false(firn_budget_news(&none, &b, &level));
	t.wall_s += DAY_S;
	assert_true(firn_budget_roll(&none, &b, &t));
	assert_true(firn_budget_left(&none, &b) == FIRN_NO_LIMIT);

	/* A configuration that was changed counts at once. */
	firn_budget_spend(&b, NULL, 300 * MIB);
	assert_int_equal(firn_budget_left(&CONFIG, &b), 700 * MIB);
	assert_int_equal(firn_budget_left(&nothing, &b), 0);

	memset(&b, 0, sizeof(b));
	firn_budget_roll(&nothing, &b, &t);
	assert_int_equal(firn_budget_left(&nothing, &b), 0);
	assert_int_equal(firn_budget_level(&nothing, &b), FIRN_BUDGET_USED_UP);
}

static void test_news(void **state)
{
	struct firn_budget b = { 0 };
	enum firn_budget_level level = FIRN_BUDGET_FINE;

	(void)state;
	roll_at(&b, 0);
	firn_budget_spend(&b, NULL, 749 * MIB);
	assert_false(firn_budget_news(&CONFIG, &b, &level));
	firn_budget_spend(&b, NULL, 1 * MIB);
	assert_true(firn_budget_news(&CONFIG, &b, &level));
	assert_int_equal(level, FIRN_BUDGET_LOW);
	firn_budget_spend(&b, NULL, 1 * MIB);
	assert_false(firn_budget_news(&CONFIG, &b, &level));
	firn_budget_spend(&b, NULL, 300 * MIB);
	assert_true(firn_budget_news(&CONFIG, &b, &level));
	assert_int_equal(level, FIRN_BUDGET_USED_UP);
	assert_false(firn_budget_news(&CONFIG, &b, &level));
	roll_at(&b, DAY_S);
	assert_false(firn_budget_news(&CONFIG, &b, &level));
	firn_budget_spend(&b, NULL, 2000 * MIB);
	assert_true(firn_budget_news(&CONFIG, &b, &level));
	assert_int_equal(level, FIRN_BUDGET_USED_UP);
}

static void test_wear(void **state)
{
	struct firn_budget b = { 0 };
	struct firn_wear one = { 0 }, other = { 0 };

	(void)state;
	roll_at(&b, 0);
	firn_budget_spend(&b, &one, 10);
	firn_budget_spend(&b, &other, 5);
	firn_budget_spend(&b, &one, 20);
	assert_int_equal(firn_wear_today(&b, &one), 30);
	assert_int_equal(firn_wear_today(&b, &other), 5);
	assert_int_equal(b.today_bytes, 35);
	roll_at(&b, DAY_S);
	assert_int_equal(firn_wear_today(&b, &one), 0);
	firn_budget_spend(&b, &one, 7);
	assert_int_equal(firn_wear_today(&b, &one), 7);
	assert_int_equal(one.total_bytes, 37);
	assert_int_equal(firn_wear_today(&b, &other), 0);
	assert_int_equal(other.total_bytes, 5);
	assert_int_equal(b.total_bytes, 42);
}

static void test_set_back(void **state)
{
	struct firn_budget b = { 0 };
	struct firn_budget_time t = at(MIDNIGHT + 10 * DAY_S, 100, 7);

	(void)state;
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
	firn_budget_spend(&b, NULL, 1000 * MIB);
	/* Back by a week, and day after day, in an hour: nothing is granted. */
	for (int64_t k = 0; k <= 14; k++) {
		t = at(MIDNIGHT + 3 * DAY_S + k * DAY_S / 2, 100 + k * 240, 7);
		assert_false(firn_budget_roll(&CONFIG, &b, &t));
	}
	/* It stays a week behind: days go on by the running clock. */
	t = at(MIDNIGHT + 3 * DAY_S, 100 + 25 * HOUR_S - 1, 7);
	assert_false(firn_budget_roll(&CONFIG, &b, &t));
	t = at(MIDNIGHT + 3 * DAY_S + 1, 100 + 25 * HOUR_S, 7);
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1000 * MIB);
	t = at(MIDNIGHT + 4 * DAY_S, 100 + 49 * HOUR_S, 7);
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
}

static void test_set_forward(void **state)
{
	struct firn_budget b = { 0 };
	struct firn_budget_time t = at(MIDNIGHT, 100, 7);
	unsigned int grants = 0;

	(void)state;
	/* A year in an hour, by a clock that is set on and on: two days' budgets. */
	for (int64_t k = 0; k < 365; k++) {
		t = at(MIDNIGHT + k * DAY_S, 100 + k * 10, 7);
		if (firn_budget_roll(&CONFIG, &b, &t)) {
			firn_budget_spend(&b, NULL, firn_budget_left(&CONFIG, &b));
			grants++;
		}
	}
	assert_int_equal(grants, 2);
	assert_int_equal(b.total_bytes, 2000 * MIB);
	/* And set right again, the next comes in time. */
	t = at(MIDNIGHT + DAY_S + 120, 100 + 25 * HOUR_S + 120, 7);
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
}

static void test_reboot(void **state)
{
	struct firn_budget b = { 0 };
	struct firn_budget_time t = at(MIDNIGHT + 12 * HOUR_S, 500, 1);

	(void)state;
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
	firn_budget_spend(&b, NULL, 900 * MIB);
	/* Twenty reboots, and as many agents: the same day. */
	for (int64_t k = 0; k < 20; k++) {
		t = at(MIDNIGHT + 13 * HOUR_S + k * 100, 10, 2 + (uint64_t)k);
		assert_false(firn_budget_roll(&CONFIG, &b, &t));
	}
	/* A board without a clock of its own boots in 1970, and is told the time later. */
	t = at(5, 5, 100);
	assert_false(firn_budget_roll(&CONFIG, &b, &t));
	t = at(MIDNIGHT + 20 * HOUR_S, 60, 100);
	assert_false(firn_budget_roll(&CONFIG, &b, &t));
	t = at(MIDNIGHT + DAY_S, 60 + 4 * HOUR_S, 100);
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
	assert_int_equal(firn_budget_left(&CONFIG, &b), 1100 * MIB);
	/* One that is on for an hour a day has each day's budget. */
	for (int64_t k = 2; k < 10; k++) {
		t = at(MIDNIGHT + k * DAY_S + 12 * HOUR_S, 30, 100 + (uint64_t)k);
		assert_true(firn_budget_roll(&CONFIG, &b, &t));
		t.wall_s += HOUR_S;
		t.running_ns += (uint64_t)HOUR_S * NS;
		assert_false(firn_budget_roll(&CONFIG, &b, &t));
	}
}

static void test_before_1970(void **state)
{
	struct firn_budget b = { 0 };
	struct firn_budget_time t = at(-1, 0, 7);

	(void)state;
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
	assert_int_equal(b.day, -1);
	t = at(-DAY_S, 10, 7);
	assert_false(firn_budget_roll(&CONFIG, &b, &t));
	t = at(0, 20, 7);
	assert_true(firn_budget_roll(&CONFIG, &b, &t));
}

static uint64_t rnd(uint64_t *seed, uint64_t below)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (*seed >> 33) % below;
}

/* The model: a list of grants.  Whatever clocks do, writing what is left each time never takes more than a day's bytes
 * for each grant, and grants are as far apart as is promised. */
static void test_random(void **state)
{
	enum { STEPS = 3000 };
	static struct {
		int64_t real_s, day;
		uint64_t boot;
	} grants[STEPS];

	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct firn_budget b = { 0 };
		uint64_t r = seed * 77777, boot = 1, written = 0;
		int64_t real_s = 0, booted_s = -500, offset_s = MIDNIGHT + (int64_t)rnd(&r, DAY_S);
		bool honest = seed % 4 == 0, wild = seed % 4 == 1;
		size_t n = 0;

		printf("seed %llu\n", (unsigned long long)seed);
		for (unsigned int step = 0; step < STEPS; step++) {
			struct firn_budget_time t;
			uint64_t left, whole, owed;

			real_s += (int64_t)rnd(&r, 3 * HOUR_S);
			if (!honest && !rnd(&r, wild ? 3 : 30))
				offset_s += (int64_t)rnd(&r, 20 * DAY_S) - 10 * DAY_S;
			if (!wild && !rnd(&r, 50)) {
				boot++;
				booted_s = real_s;
			}
			t = at(real_s + offset_s, real_s - booted_s, boot);
			if (firn_budget_roll(&CONFIG, &b, &t)) {
				grants[n].real_s = real_s;
				grants[n].boot = boot;
				grants[n].day = (real_s + offset_s) / DAY_S;
				if (n >= 2 && grants[n - 2].boot == boot)
					assert_true(real_s - grants[n - 2].real_s >= DAY_S);
				if (n >= 1 && grants[n - 1].boot == boot && grants[n].day <= grants[n - 1].day)
					assert_true(real_s - grants[n - 1].real_s >= 25 * HOUR_S);
				if (n >= 1 && honest)
					assert_true(grants[n].day > grants[n - 1].day);
				n++;
			}
			/* An honest clock's day has begun when its first hours are over. */
			if (honest)
				assert_int_equal(b.day, (real_s + offset_s) / DAY_S);
			left = firn_budget_left(&CONFIG, &b);
			assert_true(left <= CONFIG.daily_bytes + CONFIG.carry_bytes);
			if (!rnd(&r, 4)) {
				uint64_t bytes = rnd(&r, 400 * MIB);

				/* Now and then an estimate is too low. */
				if (bytes > left && rnd(&r, 8))
					bytes = left;
				firn_budget_spend(&b, NULL, bytes);
				written += bytes;
			}
			assert_int_equal(b.total_bytes, written);
			assert_int_equal(b.days, n);
			/* What was overdrawn is paid back, or still owed. */
			whole = CONFIG.daily_bytes + b.carried_bytes;
			owed = b.spent_bytes > whole ? b.spent_bytes - whole : 0;
			assert_true(written <= n * CONFIG.daily_bytes + owed);
		}
	}
}

static void test_default(void **state)
{
	(void)state;
	assert_int_equal(firn_budget_default(0, false), 2 * GIB);
	assert_int_equal(firn_budget_default(32 * GIB, true), 2 * GIB);
	assert_int_equal(firn_budget_default(1000 * GIB, true), 50 * GIB);
	assert_int_equal(firn_budget_default(20 * GIB, false), 1 * GIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_days),
		cmocka_unit_test(test_used_up),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_news),
		cmocka_unit_test(test_wear),
		cmocka_unit_test(test_set_back),
		cmocka_unit_test(test_set_forward),
		cmocka_unit_test(test_reboot),
		cmocka_unit_test(test_before_1970),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
