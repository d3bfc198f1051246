/* SPDX-License-Identifier: MIT */
/* The search for pages to fold, over masks alone, against a model that compares all with all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "malloc/fold/plan.h"

#define PAGES 1024u
#define CLASSES 4u

static const uint32_t class_bytes[CLASSES] = { 0, 16, 48, 256 };

struct world {
	struct firn_plan plan;
	void *memory;
	uint64_t before[PAGES][4];      /* the masks as they were entered */
};

static uint32_t rnd(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void open_world(struct world *w, unsigned int region)
{
	size_t bytes = (firn_plan_bytes(PAGES, region) + 63) & ~(size_t)63;

	w->memory = aligned_alloc(64, bytes);
	memset(w->memory, 0, bytes);
	memset(w->before, 0, sizeof(w->before));
	firn_plan_open(&w->plan, w->memory, PAGES, region);
	w->plan.class_bytes = class_bytes;
	w->plan.nclasses = CLASSES;
	w->plan.vma_budget = 1000000;
}

static void close_world(struct world *w)
{
	free(w->memory);
}

static void open_page(struct world *w, uint32_t page, unsigned int class)
{
	w->plan.state[page] = FIRN_PLAN_OPEN;
	w->plan.class[page] = (uint8_t)class;
}

/* Object @slot of the page's class lives. */
static void live(struct world *w, uint32_t page, unsigned int slot)
{
	unsigned int size = class_bytes[w->plan.class[page]];

	firn_plan_set(&w->plan, page, slot * size, slot * size + size - 1);
}

static void run(struct world *w, uint32_t work)
{
	for (uint32_t i = 0; i < PAGES; i++)
		memcpy(w->before[i], w->plan.mask + (size_t)i * w->plan.words, w->plan.words * 8);
	firn_plan_start(&w->plan);
	while (firn_plan_step(&w->plan, work))
		;
}

static unsigned int bits(const uint64_t *mask)
{
	unsigned int n = 0;

	for (int i = 0; i < 4; i++)
		n += (unsigned int)__builtin_popcountll(mask[i]);
	return n;
}

static bool meet(const uint64_t *a, const uint64_t *b)
{
	return (a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3]);
}

/* Everything that a plan promises.  Returns the number of groups that are to be carried out. */
static unsigned int verify(struct world *w)
{
	struct firn_plan *p = &w->plan;
	static uint8_t seen[PAGES];
	uint32_t saved = 0, vmas = 0;
	unsigned int groups = 0;

	memset(seen, 0, sizeof(seen));
	for (uint32_t head = 0; head < PAGES; head++) {
		uint64_t all[8][4] = { { 0 } };
		unsigned int shift = p->shift[head], runs = 0, alive = 0;

		if (p->state[head] != FIRN_PLAN_HEAD || shift == UINT8_MAX)
			continue;
		assert_true(shift <= FIRN_PLAN_SHIFT_MAX && head % (1u << shift) == 0);
		assert_int_equal(p->target[head], head);
		for (uint32_t m = head; m != FIRN_PLAN_NONE; m = p->next[m]) {
			unsigned int n = 1u << p->shift[m], to = p->target[m] - head;

			assert_true(p->shift[m] <= shift && m % n == 0 && to % n == 0 && to + n <= 1u << shift);
			runs++;
			for (unsigned int i = 0; i < n; i++) {
				assert_int_equal(seen[m + i]++, 0);
				assert_int_equal(p->state[m + i], m == head ? FIRN_PLAN_HEAD : FIRN_PLAN_MEMBER);
				assert_false(meet(all[to + i], w->before[m + i]));
				for (int k = 0; k < 4; k++)
					all[to + i][k] |= w->before[m + i][k];
				alive += bits(w->before[m + i]) != 0;
			}
		}
		assert_int_equal(runs, p->runs[head]);
		assert_true(runs <= p->group_max);
		for (unsigned int i = 0; i < 1u << shift; i++) {
			assert_memory_equal(all[i], p->mask + (size_t)(head + i) * p->words, p->words * 8);
			alive -= bits(all[i]) != 0;
		}
		if (!(p->flags[head] & FIRN_PLAN_EXISTS))
			assert_true(runs > 1);
		saved += alive;
		groups += (p->flags[head] & FIRN_PLAN_CHANGED) != 0;
	}
	/* Every end of a run is the border of a mapping; runs that meet share one. */
	for (uint32_t i = 0; i <= PAGES; i++) {
		bool before = i && p->state[i - 1] >= FIRN_PLAN_HEAD, behind = i < PAGES && p->state[i] >= FIRN_PLAN_HEAD;

		vmas += before != behind || (before && behind && p->shift[i] != UINT8_MAX);
	}
	for (uint32_t i = 0; i < PAGES; i++) {
		assert_int_equal(seen[i], p->state[i] == FIRN_PLAN_HEAD || p->state[i] == FIRN_PLAN_MEMBER);
		if (p->state[i] == FIRN_PLAN_OPEN)
			assert_memory_equal(w->before[i], p->mask + (size_t)i * p->words, p->words * 8);
	}
	assert_int_equal(saved, p->saved_pages);
	assert_int_equal(vmas, p->vmas);
	assert_true(p->vmas_before + p->vmas <= p->vma_budget || !p->vmas);
	return groups;
}

/* No two pages that were left alone would have fitted, each with each: all were asked. */
static void verify_complete(struct world *w)
{
	struct firn_plan *p = &w->plan;

	for (uint32_t a = 0; a < PAGES; a++) {
		if (p->state[a] != FIRN_PLAN_OPEN || !bits(w->before[a]) || bits(w->before[a]) * 2 > p->regions)
			continue;
		for (uint32_t b = a + 1; b < PAGES; b++)
			if (p->state[b] == FIRN_PLAN_OPEN && bits(w->before[b]) && bits(w->before[b]) * 2 <= p->regions)
				assert_true(meet(w->before[a], w->before[b]));
	}
}

static void random_world(struct world *w, unsigned int region, uint32_t seed)
{
	unsigned int percent = 1 + rnd(&seed) % 30;

	open_world(w, region);
	for (uint32_t page = 0; page < PAGES; page++) {
		/* A span is of one class. */
		unsigned int class = 1 + (page / 16 * 2654435761u + seed) / 7 % (CLASSES - 1);

		if (rnd(&seed) % 50 == 0)
			continue;
		open_page(w, page, class);
		for (unsigned int s = 0; s < 4096 / class_bytes[class]; s++)
			if (rnd(&seed) % 100 < percent && rnd(&seed) % 3)
				live(w, page, s);
	}
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned int region = 16; region <= 2048; region *= 2)
		for (uint32_t seed = 1; seed <= 12; seed++) {
			static struct world w, again;

			random_world(&w, region, seed);
			run(&w, 1000000);
			verify(&w);
			verify_complete(&w);
			/* Slices make no difference. */
			random_world(&again, region, seed);
			run(&again, 1);
			assert_int_equal(again.plan.saved_pages, w.plan.saved_pages);
			assert_memory_equal(again.plan.target, w.plan.target, PAGES * 4);
			close_world(&w);
			close_world(&again);
		}
}

static void test_budget(void **state)
{
	(void)state;
	for (uint32_t budget = 0; budget < 400; budget += 13) {
		static struct world w;

		random_world(&w, 16, 5);
		w.plan.vma_budget = budget;
		w.plan.vmas_before = budget / 3;
		run(&w, 100);
		verify(&w);
		close_world(&w);
	}
}

/* Several objects lie in one region: its bit stands for all of them. */
static void test_region_above_object(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 64);
	open_page(&w, 0, 1);
	open_page(&w, 1, 1);
	open_page(&w, 2, 1);
	live(&w, 0, 0);
	live(&w, 0, 3);         /* the same region of 64 bytes */
	live(&w, 1, 1);         /* other bytes of it */
	live(&w, 2, 4);         /* another region */
	assert_int_equal(w.plan.mask[0], 1);
	run(&w, 100);
	assert_int_equal(verify(&w), 1);
	assert_int_equal(w.plan.saved_pages, 1);
	/* The third went with one of the two, which did not go with each other. */
	assert_int_equal(w.plan.state[2] == FIRN_PLAN_OPEN, 0);
	assert_int_equal((w.plan.state[0] == FIRN_PLAN_OPEN) + (w.plan.state[1] == FIRN_PLAN_OPEN), 1);
	close_world(&w);
}

static void test_largest_region(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 2048);
	assert_int_equal(w.plan.regions, 2);
	for (uint32_t page = 0; page < 4; page++) {
		open_page(&w, page, 1);
		live(&w, page, page < 2 ? 5 + page : 200 + page);
	}
	run(&w, 100);
	assert_int_equal(verify(&w), 1);
	assert_int_equal(w.plan.saved_pages, 2);
	close_world(&w);
}

/* Eight pages go with eight as one run, empty pages among them, for two mappings each. */
static void test_runs(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 16);
	for (uint32_t run_first = 32; run_first <= 64; run_first += 16)
		for (uint32_t i = 0; i < 8; i++) {
			open_page(&w, run_first + i, 3);
			if (i != 3)
				live(&w, run_first + i, (run_first / 16 + i) % 16);
		}
	run(&w, 100);
	assert_int_equal(verify(&w), 1);
	assert_int_equal(w.plan.saved_pages, 14);
	assert_int_equal(w.plan.vmas, 6);
	for (uint32_t run_first = 32; run_first <= 64; run_first += 16)
		assert_int_equal(w.plan.shift[run_first], 3);
	close_world(&w);
}

/* More than two to a frame, as many as have room. */
static void test_many_to_one(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 16);
	for (uint32_t i = 0; i < 16; i++) {
		open_page(&w, i * 16, 3);
		live(&w, i * 16, i);
	}
	run(&w, 100);
	assert_int_equal(verify(&w), 1);
	assert_int_equal(w.plan.saved_pages, 15);
	close_world(&w);
}

static void test_across_classes(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 16);
	open_page(&w, 0, 1);
	open_page(&w, 16, 2);
	open_page(&w, 32, 3);
	live(&w, 0, 0);         /* bytes 0 to 15 */
	live(&w, 16, 1);        /* 48 to 95 */
	live(&w, 32, 1);        /* 256 to 511 */
	run(&w, 100);
	assert_int_equal(verify(&w), 1);
	assert_int_equal(w.plan.saved_pages, 2);
	close_world(&w);
}

/* What is more than half full stays. */
static void test_full_stay(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 16);
	for (uint32_t page = 0; page < 2; page++) {
		open_page(&w, page * 16, 3);
		for (unsigned int s = 0; s < (page ? 2u : 9u); s++)
			live(&w, page * 16, page ? 14 + s : s);
	}
	run(&w, 100);
	assert_int_equal(verify(&w), 0);
	close_world(&w);
}

/* Runs that share frames already move together, at no more mappings of their own. */
static void test_existing(void **state)
{
	static struct world w;

	(void)state;
	open_world(&w, 16);
	for (uint32_t i = 0; i < 3; i++) {
		w.plan.class[i * 16] = 3;
		live(&w, i * 16, i);
	}
	open_page(&w, 64, 3);
	live(&w, 64, 9);
	for (uint32_t i = 0; i < PAGES; i++)
		memcpy(w.before[i], w.plan.mask + (size_t)i * w.plan.words, w.plan.words * 8);
	firn_plan_exists(&w.plan, 0, 0);
	firn_plan_joins(&w.plan, 0, 16, 0, 0);
	firn_plan_joins(&w.plan, 0, 32, 0, 0);
	firn_plan_start(&w.plan);
	while (firn_plan_step(&w.plan, 1))
		;
	assert_int_equal(w.plan.saved_pages, 1);
	assert_int_equal(w.plan.vmas, 2);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(w.plan.state[i < 3 ? i * 16 : 64] != FIRN_PLAN_OPEN);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_region_above_object),
		cmocka_unit_test(test_largest_region),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_many_to_one),
		cmocka_unit_test(test_across_classes),
		cmocka_unit_test(test_full_stay),
		cmocka_unit_test(test_existing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
