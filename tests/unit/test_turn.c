/* SPDX-License-Identifier: MIT */
/* Turns: whoever comes in whatever order, and sleeps or not, the steps are taken by number; and an end lets all go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "pack/turn.h"

#define THREADS 4u
#define STEPS 4000u

struct crew {
	struct firn_turn turn;
	atomic_uint next;               /* number to be handed out */
	uint32_t taken;                 /* steps so far: whose turn it is writes it */
	uint32_t wrong;
	bool slow;                      /* long steps, so that the others sleep */
};

static void *take_steps(void *arg)
{
	struct crew *c = arg;
	uint32_t number;

	while ((number = atomic_fetch_add(&c->next, 1)) < STEPS / (c->slow ? 20 : 1)) {
		if (!firn_turn_await(&c->turn, number))
			break;
		c->wrong += c->taken != number;
		c->taken++;
		if (c->slow)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
		firn_turn_pass(&c->turn);
	}
	return NULL;
}

static void run(struct crew *c, void *(*fn)(void *))
{
	pthread_t threads[THREADS];

	for (uint32_t n = 0; n < THREADS; n++)
		assert_int_equal(pthread_create(&threads[n], NULL, fn, c), 0);
	for (uint32_t n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
}

static void test_order(void **state)
{
	(void)state;
	for (int slow = 0; slow < 2; slow++) {
		struct crew c = { .slow = slow };

		assert_int_equal(firn_turn_open(&c.turn), 0);
		run(&c, take_steps);
		assert_int_equal(c.taken, STEPS / (slow ? 20 : 1));
		assert_int_equal(c.wrong, 0);
		firn_turn_close(&c.turn);
	}
}

/* Waits for a turn that never comes; the last of them ends it all. */
static void *wait_in_vain(void *arg)
{
	struct crew *c = arg;
	bool last = atomic_fetch_add(&c->next, 1) == THREADS - 1;

	if (last) {
		while (atomic_load(&c->turn.sleepers) < THREADS - 1)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
		firn_turn_end(&c->turn);
	}
	if (firn_turn_await(&c->turn, 7))
		__atomic_fetch_add(&c->wrong, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void test_end(void **state)
{
	struct crew c = { .slow = false };

	(void)state;
	assert_int_equal(firn_turn_open(&c.turn), 0);
	run(&c, wait_in_vain);
	assert_int_equal(c.wrong, 0);
	assert_false(firn_turn_await(&c.turn, 0));
	firn_turn_begin(&c.turn);
	assert_true(firn_turn_await(&c.turn, 0));
	firn_turn_close(&c.turn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
