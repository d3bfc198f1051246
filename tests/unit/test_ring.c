/* SPDX-License-Identifier: MIT */
/*
 * The event ring: at whatever instant its reader ends, a successor finds the layout events that were not
 * applied, and applies none twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "link/ring.h"

static void fill(struct firn_ring *r, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		r->slots[k].event = UFFD_EVENT_UNMAP;
		r->slots[k].arg.remove.start = r->base + k;
	}
}

/* What a successor does; counts applications of each event. */
static void replay(struct firn_ring *r, unsigned int *applied)
{
	uint32_t n = firn_ring_count(r);

	for (uint32_t k = 0; k < n; k++) {
		if (r->base + k < r->done)
			continue;
		applied[r->slots[k].arg.remove.start]++;
		firn_ring_applied(r, k);
	}
	firn_ring_empty(r, n);
}

static void test_death_between_events(void **state)
{
	(void)state;
	for (uint32_t died_after = 0; died_after <= 5; died_after++) {
		struct firn_ring r = { 0 };
		unsigned int applied[64] = { 0 };

		/* A whole batch before it, so that sequence numbers are not slot numbers. */
		fill(&r, 3);
		replay(&r, applied);
		fill(&r, 5);
		for (uint32_t k = 0; k < died_after; k++) {
			applied[r.slots[k].arg.remove.start]++;
			firn_ring_applied(&r, k);
		}
		replay(&r, applied);
		for (uint32_t k = 0; k < 8; k++)
			assert_int_equal(applied[k], 1);
		assert_int_equal(firn_ring_count(&r), 0);
		assert_int_equal(r.base, 8);
	}
}

static void test_death_while_emptying(void **state)
{
	(void)state;
	for (uint32_t cleared = 0; cleared <= 5; cleared++) {
		struct firn_ring r = { 0 };
		unsigned int applied[64] = { 0 };

		fill(&r, 5);
		r.done = 5;
		/* from the last to the first, and no further */
		for (uint32_t k = 0; k < cleared; k++)
			memset(&r.slots[4 - k], 0, sizeof(r.slots[0]));
		replay(&r, applied);
		for (uint32_t k = 0; k < 5; k++)
			assert_int_equal(applied[k], 0);
		assert_int_equal(r.base, 5);
		assert_int_equal(r.done, 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death_between_events),
		cmocka_unit_test(test_death_while_emptying),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
