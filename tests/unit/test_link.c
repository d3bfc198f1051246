/* SPDX-License-Identifier: MIT */
/*
 * The link manager against a trivial model: an array with a word per page of a small address space.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "link/link.h"

#define PAGE 4096u
#define PAGES 512u
#define BASE 0x7f0000000000ull

/* The model: of each page, what it should be found as. */
struct model {
	bool watched[PAGES];
	bool linked[PAGES];
	bool kept[PAGES];               /* moved away, and watched still: found as that, or as nothing known */
	uint32_t link[PAGES];
};

static void *memory(const struct firn_link_shape *shape)
{
	void *p = mmap(NULL, firn_link_bytes(shape), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void compare(const struct firn_link *l, const struct model *m)
{
	for (uint32_t p = 0; p < PAGES; p++) {
		struct firn_run run;
		uint32_t index;
		enum firn_found f = firn_link_find(l, BASE + (uint64_t)p * PAGE, &run, &index);

		if (m->linked[p]) {
			assert_int_equal(f, FIRN_FOUND_LINK);
			assert_int_equal(firn_link_get(l, index), m->link[p]);
		} else {
			assert_true(f == (m->watched[p] ? FIRN_FOUND_HOLE : FIRN_FOUND_NOTHING) ||
				    (m->kept[p] && f == FIRN_FOUND_NOTHING));
		}
	}
	assert_int_equal(firn_link_check(l), 0);
}

static struct firn_range span(uint32_t page, uint32_t n)
{
	return (struct firn_range){ BASE + (uint64_t)page * PAGE, BASE + (uint64_t)(page + n) * PAGE };
}

static void build(struct firn_link *l, struct model *m, unsigned int *seed)
{
	uint32_t slot = 0;

	memset(m, 0, sizeof(*m));
	for (uint32_t p = 0; p < PAGES / 2;) {
		uint32_t gap = (uint32_t)rand_r(seed) % 8, n = 1 + (uint32_t)rand_r(seed) % 24, first;

		p += gap;
		if (p + n > PAGES / 2)
			break;
		assert_int_equal(firn_link_add_watched(l, span(p, n)), 0);
		assert_int_equal(firn_link_add_run(l, BASE + (uint64_t)p * PAGE, n, &first), 0);
		for (uint32_t k = 0; k < n; k++) {
			uint32_t link = firn_link_make(FIRN_PAGE_EVICTED, slot++);

			firn_link_slots(l, first)[k] = link;
			m->watched[p + k] = m->linked[p + k] = true;
			m->link[p + k] = link;
		}
		p += n;
	}
	firn_link_publish(l);
}

static void model_unmap(struct model *m, uint32_t p, uint32_t n)
{
	for (uint32_t k = p; k < p + n; k++)
		m->watched[k] = m->linked[k] = m->kept[k] = false;
}

static void test_layout_changes_against_model(void **state)
{
	unsigned int seed = getenv("FIRN_SEED") ? (unsigned int)atoi(getenv("FIRN_SEED")) : (unsigned int)time(NULL);

	(void)state;
	print_message("seed %u (FIRN_SEED sets it)\n", seed);
	for (int round = 0; round < 60; round++) {
		struct firn_link_shape shape = { PAGE, 4096, 4096 };
		void *mem = memory(&shape);
		struct firn_link l;
		struct model m;
		uint64_t seq = 1;

		firn_link_format(&l, mem, &shape);
		build(&l, &m, &seed);
		compare(&l, &m);
		for (int op = 0; op < 80; op++, seq++) {
			uint32_t n = 1 + (uint32_t)rand_r(&seed) % 32, p = (uint32_t)rand_r(&seed) % (PAGES - n), to;

			switch (rand_r(&seed) % 4) {
			case 0:
				firn_link_removed(&l, span(p, n));
				for (uint32_t k = p; k < p + n; k++)
					if (m.linked[k])
						m.link[k] = firn_link_make(FIRN_PAGE_REMOVED, 0);
				break;
			case 1:
				assert_int_equal(firn_link_unmapped(&l, seq, span(p, n)), 0);
				model_unmap(&m, p, n);
				break;
			case 2: {
				struct model old;

				to = (uint32_t)rand_r(&seed) % (PAGES - n);
				if (to < p + n && p < to + n)
					break;          /* mremap refuses that itself */
				old = m;
				assert_int_equal(firn_link_moved(&l, seq, span(p, 1).start, span(to, 1).start,
								 (uint64_t)n * PAGE), 0);
				/* An event of the past, told again, changes nothing. */
				assert_int_equal(firn_link_moved(&l, seq, span(p, 1).start, span(to, 1).start,
								 (uint64_t)n * PAGE), 0);
				/* Nothing else is under way. */
				firn_link_settled(&l);
				assert_false(firn_link_owes(&l));
				for (uint32_t k = 0; k < n; k++) {
					m.linked[to + k] = old.linked[p + k];
					m.link[to + k] = old.link[p + k];
					m.watched[to + k] = true;
					m.watched[p + k] = m.linked[p + k] = false;
				}
				break;
			}
			case 3:
				assert_int_equal(firn_link_grown(&l, span(p, n)), 0);
				for (uint32_t k = p; k < p + n; k++)
					m.watched[k] = true;
				break;
			}
			compare(&l, &m);
		}
		/* A successor finds the same. */
		{
			struct firn_link again;

			assert_int_equal(firn_link_attach(&again, mem, firn_link_bytes(&shape)), 0);
			compare(&again, &m);
		}
		/* And so does a child. */
		{
			struct firn_link_shape child_shape;
			struct firn_link child;
			void *child_mem;

			firn_link_shape_of(&l, &child_shape);
			child_mem = memory(&child_shape);
			firn_link_format(&child, child_mem, &child_shape);
			assert_int_equal(firn_link_copy(&child, &l), 0);
			compare(&child, &m);
			munmap(child_mem, firn_link_bytes(&child_shape));
		}
		munmap(mem, firn_link_bytes(&shape));
	}
}

/*
 * Events that come in another order than the changes: threads that each make one change at a time, and tell
 * of it later.  The model is what the kernel has; when all is told, the tables are the same.
 */
#define THREADS 6

struct teller {
	uint32_t from, to, n;           /* pages moved; unmapped only, where to = PAGES */
	bool move_untold, unmap_untold;
};

static bool overlap(uint32_t a, uint32_t b, uint32_t n, uint32_t m)
{
	return a < b + m && b < a + n;
}

/* Twice away from one place within one report's delay: then only the order could tell which is whose.  And
 * nobody knows yet of what came and did not tell. */
static bool is_clear(const struct teller *t, uint32_t p, uint32_t to, uint32_t n)
{
	for (int k = 0; k < THREADS; k++) {
		if (t[k].move_untold && (overlap(p, t[k].to, n, t[k].n) || overlap(p, t[k].from, n, t[k].n)))
			return false;
		if (t[k].unmap_untold && t[k].to == PAGES && to < PAGES && overlap(p, t[k].from, n, t[k].n))
			return false;
	}
	return true;
}

static bool change(struct teller *all, struct teller *t, struct model *m, bool may_keep, unsigned int *seed)
{
	uint32_t n = 1 + (uint32_t)rand_r(seed) % 12, p = (uint32_t)rand_r(seed) % (PAGES - n), to = PAGES;
	struct model old = *m;
	bool keeps = may_keep && rand_r(seed) % 4 == 0;

	if (rand_r(seed) % 2) {
		to = (uint32_t)rand_r(seed) % (PAGES - n);
		if (to < p + n && p < to + n)
			return false;
	}
	for (uint32_t k = 0; k < n; k++) {
		if (!m->watched[p + k] || (to < PAGES && (m->watched[to + k] || m->kept[p + k])))
			return false;
	}
	if (!is_clear(all, p, to, n))
		return false;
	model_unmap(m, p, n);
	for (uint32_t k = 0; to < PAGES && k < n; k++) {
		m->linked[to + k] = old.linked[p + k];
		m->link[to + k] = old.link[p + k];
		m->watched[to + k] = true;
		m->watched[p + k] = m->kept[p + k] = keeps;
	}
	*t = (struct teller){ p, to, n, to < PAGES, to == PAGES || !keeps };
	return true;
}

static void tell(struct teller *t, struct firn_link *l, uint64_t seq)
{
	struct firn_range s = span(t->from, t->n);

	for (int again = 0; again < 2; again++) {
		if (t->move_untold)
			assert_int_equal(firn_link_moved(l, seq, s.start, span(t->to, 1).start, s.end - s.start), 0);
		else
			assert_int_equal(firn_link_unmapped(l, seq, s), 0);
	}
	if (t->move_untold)
		t->move_untold = false;
	else
		t->unmap_untold = false;
	assert_int_equal(firn_link_check(l), 0);
}

static void test_late_events_against_model(void **state)
{
	unsigned int seed = getenv("FIRN_SEED") ? (unsigned int)atoi(getenv("FIRN_SEED")) : (unsigned int)time(NULL);
	uint32_t owed = 0;

	(void)state;
	print_message("seed %u (FIRN_SEED sets it)\n", seed);
	for (int round = 0; round < 100; round++) {
		struct firn_link_shape shape = { PAGE, 4096, 4096 };
		struct teller t[THREADS] = { 0 };
		void *mem = memory(&shape);
		struct firn_link l;
		struct model m;
		uint64_t seq = 1;

		firn_link_format(&l, mem, &shape);
		build(&l, &m, &seed);
		/* Holes of a mapping are watched too. */
		for (uint32_t p = 0; p < PAGES / 2; p += 16) {
			assert_int_equal(firn_link_grown(&l, span(p, 8)), 0);
			for (uint32_t k = p; k < p + 8; k++)
				m.watched[k] = true;
		}
		for (int op = 0; op < 400; op++) {
			struct teller *one = &t[rand_r(&seed) % THREADS];

			if (one->move_untold || one->unmap_untold)
				tell(one, &l, seq++);
			else
				for (int tries = 0; tries < 50 && !change(t, one, &m, round % 2, &seed); tries++)
					;
			owed += firn_link_owes(&l);
		}
		for (int k = 0; k < THREADS; k++)
			while (t[k].move_untold || t[k].unmap_untold)
				tell(&t[k], &l, seq++);
		/* What was kept may be unmapped yet. */
		assert_true(!firn_link_owes(&l) || round % 2);
		compare(&l, &m);
		firn_link_settled(&l);
		compare(&l, &m);
		munmap(mem, firn_link_bytes(&shape));
	}
	assert_true(owed > 100);
}

static void test_unpublished_is_not_found(void **state)
{
	struct firn_link_shape shape = { PAGE, 16, 16 };
	void *mem = memory(&shape);
	struct firn_run run;
	struct firn_link l;
	uint32_t first, index;

	(void)state;
	firn_link_format(&l, mem, &shape);
	assert_int_equal(firn_link_add_watched(&l, span(0, 4)), 0);
	assert_int_equal(firn_link_add_run(&l, BASE, 4, &first), 0);
	assert_int_equal(firn_link_find(&l, BASE, &run, &index), FIRN_FOUND_NOTHING);
	firn_link_unpublish(&l);
	firn_link_publish(&l);
	assert_int_equal(firn_link_find(&l, BASE, &run, &index), FIRN_FOUND_NOTHING);
	munmap(mem, firn_link_bytes(&shape));
}

static void test_full_tables_refuse_and_change_nothing(void **state)
{
	struct firn_link_shape shape = { PAGE, 2, 64 };
	void *mem = memory(&shape);
	struct firn_link l;
	struct firn_run run;
	uint32_t first, index;

	(void)state;
	firn_link_format(&l, mem, &shape);
	for (uint32_t k = 0; k < 2; k++) {
		assert_int_equal(firn_link_add_watched(&l, span(k * 16, 8)), 0);
		assert_int_equal(firn_link_add_run(&l, span(k * 16, 1).start, 8, &first), 0);
		for (uint32_t i = 0; i < 8; i++)
			firn_link_slots(&l, first)[i] = firn_link_make(FIRN_PAGE_EVICTED, i);
	}
	assert_int_equal(firn_link_add_run(&l, span(64, 1).start, 1, &first), -ENOSPC);
	firn_link_publish(&l);
	/* Cutting a hole needs a third place. */
	assert_int_equal(firn_link_unmapped(&l, 1, span(2, 2)), -ENOSPC);
	assert_int_equal(firn_link_find(&l, span(2, 1).start, &run, &index), FIRN_FOUND_LINK);
	/* Runs that are back are dropped to make room. */
	for (uint32_t i = 0; i < 8; i++)
		assert_true(firn_link_move(&l, i, firn_link_make(FIRN_PAGE_EVICTED, i),
					   firn_link_make(FIRN_PAGE_RESIDENT, 0)));
	assert_int_equal(firn_link_unmapped(&l, 1, span(16, 8)), 0);
	assert_int_equal(firn_link_find(&l, span(16, 1).start, &run, &index), FIRN_FOUND_NOTHING);
	assert_int_equal(firn_link_check(&l), 0);
	munmap(mem, firn_link_bytes(&shape));
}

static void test_attach_resets_in_flight_and_refuses_nonsense(void **state)
{
	struct firn_link_shape shape = { PAGE, 16, 16 };
	size_t size = firn_link_bytes(&shape);
	void *mem = memory(&shape);
	struct firn_link l;
	uint32_t first;

	(void)state;
	firn_link_format(&l, mem, &shape);
	firn_link_add_watched(&l, span(0, 4));
	firn_link_add_run(&l, BASE, 4, &first);
	for (uint32_t i = 0; i < 4; i++)
		firn_link_slots(&l, first)[i] = firn_link_make(FIRN_PAGE_IN_FLIGHT, i + 7);
	firn_link_publish(&l);
	assert_int_equal(firn_link_attach(&l, mem, size), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(firn_link_get(&l, first + i), firn_link_make(FIRN_PAGE_EVICTED, i + 7));
	assert_int_equal(firn_link_attach(&l, mem, 16), -EBADMSG);
	assert_int_equal(firn_link_attach(&l, mem, size / 2), -EBADMSG);
	/* Random damage is refused or harmless, never followed out of bounds (run under ASan too). */
	{
		unsigned int seed = 7;
		unsigned char *copy = malloc(size);

		assert_non_null(copy);
		memcpy(copy, mem, size);
		for (int k = 0; k < 2000; k++) {
			memcpy(mem, copy, size);
			for (int b = 0; b < 3; b++)
				((unsigned char *)mem)[(size_t)rand_r(&seed) % size] = (unsigned char)rand_r(&seed);
			if (!firn_link_attach(&l, mem, size)) {
				struct firn_link_counts c;

				firn_link_count(&l, &c);
				firn_link_removed(&l, span(0, PAGES));
			}
		}
		free(copy);
	}
	munmap(mem, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_changes_against_model),
		cmocka_unit_test(test_late_events_against_model),
		cmocka_unit_test(test_unpublished_is_not_found),
		cmocka_unit_test(test_full_tables_refuse_and_change_nothing),
		cmocka_unit_test(test_attach_resets_in_flight_and_refuses_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
