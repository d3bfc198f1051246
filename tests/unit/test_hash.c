/* SPDX-License-Identifier: MIT */
/* The hash by wide instructions is the hash by any others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xxhash.h>

#include "pack/hash.h"

static void test_same_as_xxh3(void **state)
{
	static uint8_t bytes[65536];
	uint64_t x = 88172645463325252u;

	(void)state;
	for (size_t n = 0; n < sizeof(bytes); n++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bytes[n] = (uint8_t)x;
	}
	for (size_t len = 0; len <= sizeof(bytes); len = len < 300 ? len + 1 : len * 2 - 17)
		assert_true(firn_hash(bytes, len) == XXH3_64bits(bytes, len));
	for (size_t at = 0; at < 64; at++)
		assert_true(firn_hash(bytes + at, 4096) == XXH3_64bits(bytes + at, 4096));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_xxh3),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
