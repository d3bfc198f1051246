/* SPDX-License-Identifier: MIT */
/* Percentiles against a sorted list: never less than the true one, at most a quarter more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "transfer/latency.h"

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_empty(void **state)
{
	struct firn_latency l = { 0 };

	(void)state;
	assert_int_equal(firn_latency_percentile(&l, 50), 0);
}

static void test_one(void **state)
{
	(void)state;
	for (uint64_t ns = 1; ns < 1ull << 62; ns = ns * 3 + 1) {
		struct firn_latency l = { 0 };

		firn_latency_add(&l, ns);
		assert_int_equal(l.count, 1);
		assert_int_equal(firn_latency_percentile(&l, 1), ns);
		assert_int_equal(firn_latency_percentile(&l, 99), ns);
	}
}

static void test_random(void **state)
{
	static const unsigned int percents[] = { 1, 50, 90, 99, 100 };
	uint64_t ns[1000];

	(void)state;
	for (unsigned int seed = 1; seed <= 50; seed++) {
		struct firn_latency l = { 0 };
		size_t n = 1 + seed * 19;

		printf("seed %u\n", seed);
		srand(seed);
		for (size_t i = 0; i < n; i++) {
			ns[i] = 2000u + ((uint64_t)rand() << (unsigned int)(rand() % 8)) % 30000000000ull;
			firn_latency_add(&l, ns[i]);
		}
		qsort(ns, n, sizeof(*ns), ascending);
		for (size_t k = 0; k < sizeof(percents) / sizeof(*percents); k++) {
			uint64_t exact = ns[(n * percents[k] + 99) / 100 - 1];
			uint64_t said = firn_latency_percentile(&l, percents[k]);

			assert_true(said >= exact);
			assert_true(said <= exact + exact / 4);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
