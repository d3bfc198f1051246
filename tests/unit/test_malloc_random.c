/* SPDX-License-Identifier: MIT */
/* Threads that use the allocator at random, against a model; for the sanitizers.  FIRN_TEST_SEED=number. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "malloc_prefixed.h"

static void test_one_thread(void **state)
{
	(void)state;
	assert_int_equal(crowd_run(1, 2, 20000, crowd_seed()), 0);
}

static void test_threads(void **state)
{
	(void)state;
	assert_int_equal(crowd_run(8, 3, 3000, crowd_seed() + 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_thread),
		cmocka_unit_test(test_threads),
	};

	prefixed_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
