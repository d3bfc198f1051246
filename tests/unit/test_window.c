/* SPDX-License-Identifier: MIT */
/* src/transfer/window.c, and what src/transfer/pace.c takes for an order. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sys/sys.h"
#include "transfer/armed.h"
#include "transfer/pace.h"

static struct firn_window window;
static struct firn_packfile pack;
static char stored[4096];
static atomic_bool shown;

static void make_pack(void)
{
	firn_packfile_format(&pack, calloc(1, firn_packfile_memory_bytes(100, 0)), 100, 0);
	for (uint32_t i = 0; i < 100; i++)
		pack.blocks[i].offset.v = 4096 + i * 32;
}

static void test_only_what_is_there(void **state)
{
	const struct firn_chunk c = { 10, 5, 0 };
	struct firn_packfile other = pack;

	(void)state;
	assert_int_equal(firn_window_init(&window), 0);
	assert_null(firn_window_enter(&window, &pack, 0, true));
	firn_window_show(&window, &pack, &c, stored);
	assert_null(firn_window_enter(&window, &pack, 9, false));
	assert_null(firn_window_enter(&window, &pack, 15, true));
	assert_null(firn_window_enter(&window, &other, 10, false));
	assert_ptr_equal(firn_window_enter(&window, &pack, 10, false), stored);
	firn_window_leave(&window);
	assert_ptr_equal(firn_window_enter(&window, &pack, 14, true), stored + 4 * 32);
	firn_window_leave(&window);
	/* Coming, and it does not come: the wait ends. */
	firn_window_announce(&window, 20, 5);
	assert_null(firn_window_enter(&window, &pack, 20, false));
	assert_null(firn_window_enter(&window, &pack, 24, true));
	firn_window_shut(&window);
	assert_null(firn_window_enter(&window, &pack, 10, true));
	firn_window_done(&window);
}

static void *show_next(void *arg)
{
	firn_window_show(&window, &pack, &(struct firn_chunk){ 15, 5, 0 }, stored + 1024);
	atomic_store(&shown, true);
	return arg;
}

static void test_it_stays_while_it_is_used(void **state)
{
	const void *patient;
	pthread_t thread;

	(void)state;
	assert_int_equal(firn_window_init(&window), 0);
	firn_window_show(&window, &pack, &(struct firn_chunk){ 10, 5, 0 }, stored);
	firn_window_announce(&window, 15, 5);
	assert_non_null(firn_window_enter(&window, &pack, 12, false));
	assert_int_equal(pthread_create(&thread, NULL, show_next, NULL), 0);
	for (int i = 0; i < 50; i++) {
		firn_sys.sleep_ns(1000000);
		assert_false(atomic_load(&shown));
	}
	firn_window_leave(&window);
	/* It comes now: by the wait, or before it. */
	patient = firn_window_enter(&window, &pack, 16, true);
	pthread_join(thread, NULL);
	if (patient)
		firn_window_leave(&window);
	assert_ptr_equal(firn_window_enter(&window, &pack, 16, false), stored + 1024 + 32);
	firn_window_leave(&window);
	assert_null(firn_window_enter(&window, &pack, 12, false));
	firn_window_shut(&window);
	firn_window_done(&window);
}

static void test_order(void **state)
{
	static struct firn_armed a;
	uint32_t block = 100;

	(void)state;
	firn_pace_open(&a);
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(firn_pace_in_order(&a, i * 7919 % 8192));
	for (uint32_t i = 0; i <= 2 * FIRN_PACE_IN_ORDER; i++)
		firn_pace_in_order(&a, block += 1 + i);
	assert_true(firn_pace_in_order(&a, block));     /* another page of it */
	assert_true(firn_pace_in_order(&a, block + 1));
	assert_true(firn_pace_in_order(&a, 3));         /* a duplicate's original */
	assert_true(firn_pace_in_order(&a, block + 2));
	for (uint32_t i = 0; i <= FIRN_PACE_IN_ORDER; i++)
		firn_pace_in_order(&a, 8000 - i);
	assert_false(firn_pace_in_order(&a, block + 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_what_is_there),
		cmocka_unit_test(test_it_stays_while_it_is_used),
		cmocka_unit_test(test_order),
	};

	make_pack();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
