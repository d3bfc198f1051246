/* SPDX-License-Identifier: MIT */
/* The working set over many thaws of a target that asks for the same, for less, for something else, for nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/workset.h"

#define PAGE 4096ull

static struct firn_workset set;
static struct firn_recording recording;
static struct firn_workset_scratch scratch;

static bool in_set(uint64_t address)
{
	for (uint32_t i = 0; i < set.count; i++)
		if ((set.pages[i] & ~(PAGE - 1)) == address)
			return true;
	return false;
}

static uint32_t count_in(uint64_t first, uint32_t n)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < n; i++)
		found += in_set(first + i * PAGE);
	return found;
}

/* As an engine does: one page in sixteen is held back; the target wants @n pages from @first on, asks for what it
 * does not have, and learns. */
static void thaw(uint64_t first, uint32_t n)
{
	struct firn_workset before;

	memset(&recording, 0, sizeof(recording));
	recording.limit = set.capacity;
	for (uint32_t i = 0; i < set.count; i++)
		if (!(rand() % FIRN_WORKSET_HOLD_BACK))
			set.pages[i] |= FIRN_WORKSET_HELD;
	before = set;
	for (uint32_t k = 0; k < n; k++) {
		uint64_t address = first + k * PAGE;
		bool there = false;

		for (uint32_t i = 0; i < before.count && !there; i++)
			there = before.pages[i] == address;     /* marked ones differ */
		if (!there)
			firn_recording_note(&recording, address);
	}
	firn_workset_learn(&set, &recording, &scratch);
	assert_true(firn_workset_valid(&set, PAGE));
	for (uint32_t i = 0; i < set.count; i++)
		for (uint32_t k = 0; k < i; k++)
			assert_true(set.pages[i] != set.pages[k]);
}

static int begin(void **state)
{
	(void)state;
	srand(1);
	firn_workset_init(&set);
	return 0;
}

static void test_first(void **state)
{
	(void)state;
	thaw(16 * PAGE, 300);
	assert_int_equal(set.count, 300);
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(set.pages[i], (16 + i) * PAGE);
}

static void test_stable(void **state)
{
	(void)state;
	for (int i = 0; i < 40; i++)
		thaw(16 * PAGE, 700);
	assert_int_equal(set.count, 700);
	assert_int_equal(count_in(16 * PAGE, 700), 700);
}

static void test_grows(void **state)
{
	(void)state;
	for (int i = 0; i < 12; i++)
		thaw(16 * PAGE, 3000);
	assert_int_equal(count_in(16 * PAGE, 3000), 3000);
}

static void test_bounded(void **state)
{
	(void)state;
	for (int i = 0; i < 12; i++)
		thaw(16 * PAGE, 20000);
	assert_int_equal(set.count, FIRN_WORKSET_MAX);
	/* What is needed first, since more does not fit. */
	assert_int_equal(count_in(16 * PAGE, 1024), 1024);
}

static void test_shrinks(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		thaw(16 * PAGE, 1000);
	for (int i = 0; i < 60; i++)
		thaw(16 * PAGE, 600);
	assert_int_equal(count_in(16 * PAGE, 600), 600);
	assert_true(set.count < 600 + 100);
}

static void test_drifts(void **state)
{
	(void)state;
	for (int i = 0; i < 6; i++)
		thaw(16 * PAGE, 800);
	thaw(1 << 24, 800);
	assert_int_equal(count_in(1 << 24, 400), 400);
	for (int i = 0; i < 3; i++)
		thaw(1 << 24, 800);
	assert_int_equal(count_in(1 << 24, 800), 800);
	assert_true(set.count < 800 + 400);
}

/* Pages at random: none is asked for twice, and so next to nothing is brought in. */
static void test_useless(void **state)
{
	(void)state;
	for (uint64_t i = 1; i < 20; i++)
		thaw(i << 30, 5000);
	assert_true(set.count <= FIRN_WORKSET_FIRST / 4);
}

static void test_nobody_came(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		thaw(16 * PAGE, 1000);
	for (int i = 0; i < 50; i++)
		thaw(1 << 30, 20);
	assert_int_equal(count_in(16 * PAGE, 1000), 1000);
}

/* A recording whose writer was killed between its number and its address. */
static void test_cut_short(void **state)
{
	(void)state;
	memset(&recording, 0, sizeof(recording));
	recording.limit = 100;
	for (uint32_t i = 0; i < 300; i++)
		firn_recording_note(&recording, (16 + i) * PAGE);
	assert_int_equal(firn_recording_count(&recording), 100);
	assert_false(firn_recording_open(&recording));
	recording.pages[7] = 0;
	recording.pages[9] = recording.pages[8];
	firn_workset_learn(&set, &recording, &scratch);
	assert_int_equal(set.count, 98);
	assert_true(firn_workset_valid(&set, PAGE));
}

static void test_valid(void **state)
{
	(void)state;
	assert_true(firn_workset_valid(&set, PAGE));
	set.capacity = FIRN_WORKSET_MAX + 1;
	assert_false(firn_workset_valid(&set, PAGE));
	set.capacity = FIRN_WORKSET_MAX;
	set.count = FIRN_WORKSET_MAX + 1;
	assert_false(firn_workset_valid(&set, PAGE));
	set.count = 1;
	set.pages[0] = 16 * PAGE + 8;
	assert_false(firn_workset_valid(&set, PAGE));
	set.pages[0] = 1ull << 63;
	assert_false(firn_workset_valid(&set, PAGE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_first, begin),
		cmocka_unit_test_setup(test_stable, begin),
		cmocka_unit_test_setup(test_grows, begin),
		cmocka_unit_test_setup(test_bounded, begin),
		cmocka_unit_test_setup(test_shrinks, begin),
		cmocka_unit_test_setup(test_drifts, begin),
		cmocka_unit_test_setup(test_useless, begin),
		cmocka_unit_test_setup(test_nobody_came, begin),
		cmocka_unit_test_setup(test_cut_short, begin),
		cmocka_unit_test_setup(test_valid, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
