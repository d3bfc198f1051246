/* SPDX-License-Identifier: MIT */
/* src/sys/memory.c: what is reserved is whole, zeroed, aligned, and nobody else's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/types.h"
#include "sys/memory.h"

#define HUGE_BYTES ((size_t)2 << 20)

static void test_reserve(void **state)
{
	/* Neighbours in memory, mostly: each must leave the others alone, when it comes and when it goes. */
	static const size_t sizes[] = {
		1, 4096, 4097, HUGE_BYTES - 1, HUGE_BYTES, HUGE_BYTES + 1, 3 * HUGE_BYTES + 12345, 65536, 5 * HUGE_BYTES,
	};
	unsigned char *all[ARRAY_SIZE(sizes)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		all[i] = firn_memory_reserve(sizes[i]);
		assert_non_null(all[i]);
		assert_int_equal((uintptr_t)all[i] % (sizes[i] < HUGE_BYTES ? 4096 : HUGE_BYTES), 0);
		for (size_t k = 0; k < sizes[i]; k++)
			if (all[i][k])
				fail_msg("byte %zu of %zu is not zero", k, sizes[i]);
		memset(all[i], (int)i + 1, sizes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t k = 0; k < sizes[i]; k++)
			if (all[i][k] != i + 1)
				fail_msg("byte %zu of %zu has changed", k, sizes[i]);
		firn_memory_release(all[i], sizes[i]);
	}
	firn_memory_release(NULL, HUGE_BYTES);
	assert_null(firn_memory_reserve((size_t)1 << 60));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
