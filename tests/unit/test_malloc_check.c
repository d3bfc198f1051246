/* SPDX-License-Identifier: MIT */
/*
 * The checks of -Dmalloc_checks=full: every invariant (docs/invariants.md, "Allocator") is broken by hand, and
 * its number reported; every misuse that the guards are for ends the process with its message.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "malloc/api.h"
#include "malloc/check.h"
#include "malloc/fold/frame.h"
#include "malloc/large.h"
#include "malloc/stats.h"
#include "malloc_prefixed.h"

/* Run @fn in a child, which must abort and say something with @text in it. */
static void assert_dies(void (*fn)(void), const char *text)
{
	char said[1024];
	int p[2], status;
	ssize_t n = 0, k;
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		dup2(p[1], 2);
		fn();
		_exit(0);
	}
	close(p[1]);
	while (n < (ssize_t)sizeof(said) - 1 && (k = read(p[0], said + n, sizeof(said) - 1 - (size_t)n)) > 0)
		n += k;
	said[n] = '\0';
	close(p[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, text))
		fail_msg("status %#x, said \"%s\", expected \"%s\"", status, said, text);
}

/* A block of class @ret_class, and the unit it lies in. */
static void *block(size_t n, unsigned int *ret_class, uint32_t *ret_unit)
{
	void *p = firn_test_malloc(n);

	assert_non_null(p);
	*ret_unit = firn_unit_of(p);
	*ret_class = firn_heap.kinds[*ret_unit];
	return p;
}

static void test_sound(void **state)
{
	(void)state;
	assert_int_equal(firn_check_all(true), 0);
}

static void test_span(void **state)
{
	unsigned int c;
	uint32_t unit;
	void *p = block(30, &c, &unit);         /* with its guard: 48 bytes, 85 slots a page */
	struct firn_span *s = firn_span_of(unit);
	uint16_t touched = s->touched;

	(void)state;
	assert_int_equal(c, 3);
	assert_int_equal(firn_check_span(unit, true), 0);
	firn_heap.kinds[unit] = (uint8_t)(c + 1);
	assert_int_equal(firn_check_span(unit, true), 1);
	firn_heap.kinds[unit] = (uint8_t)c;

	s->closed = 1;
	assert_int_equal(firn_check_span(unit, true), 2);
	assert_int_equal(firn_check_where.unit, unit);
	s->closed = 0;

	s->mask[1] |= (uint64_t)1 << 63;
	assert_int_equal(firn_check_span(unit, true), 3);
	s->mask[1] &= ~((uint64_t)1 << 63);

	s->nfree++;
	assert_int_equal(firn_check_span(unit, true), 4);
	assert_int_equal(firn_check_span(unit, false), 4);
	s->nfree -= 2;
	assert_int_equal(firn_check_span(unit, true), 4);
	assert_int_equal(firn_check_span(unit, false), 0);      /* it may lag */
	s->nfree++;

	s->touched = 0;
	assert_int_equal(firn_check_span(unit, true), 5);
	s->touched = touched;

	firn_heap.kinds[unit] |= FIRN_KIND_SLOW;
	assert_int_equal(firn_check_span(unit, true), 2);
	firn_heap.kinds[unit] = (uint8_t)c;
	s->folded = 1u << 15;
	assert_int_equal(firn_check_span(unit, true), 6);
	s->folded = 0;
	s->busy = 1u << 15;
	assert_int_equal(firn_check_span(unit, true), 6);
	s->busy = 0;

	assert_int_equal(firn_check_span(unit, true), 0);
	firn_test_free(p);
	p = block(600, &c, &unit);
	assert_false(firn_class_foldable(c));
	firn_span_of(unit)->copied = 1;
	assert_int_equal(firn_check_span(unit, true), 7);
	firn_span_of(unit)->copied = 0;
	firn_test_free(p);
	assert_int_equal(firn_check_all(true), 0);
}

static void test_lists(void **state)
{
	unsigned int c;
	uint32_t unit, other;
	void *p = block(5000, &c, &unit);
	struct firn_span *s = firn_span_of(unit);
	struct firn_bin *bin = &firn_bins[c];
	uint8_t bucket = s->bucket;

	(void)state;
	assert_int_not_equal(bucket, FIRN_BUCKET_FULL);
	assert_int_equal(bin->nspans, 1);
	assert_int_equal(firn_check_bin(c, true), 0);
	s->bucket = (uint8_t)(bucket == FIRN_BUCKET_SPARSE ? FIRN_BUCKET_MIDDLE : FIRN_BUCKET_SPARSE);
	assert_int_equal(firn_check_bin(c, true), 8);
	s->bucket = bucket;
	other = s->prev;
	s->prev = unit;
	assert_int_equal(firn_check_bin(c, true), 8);
	s->prev = other;

	bin->nspans++;
	assert_int_equal(firn_check_bin(c, true), 9);
	bin->nspans--;

	bin->list[bucket] = FIRN_NO_UNIT;
	assert_int_equal(firn_check_bin(c, false), 10);
	/* In a list, but not in that of its share. */
	s->bucket = FIRN_BUCKET_EMPTY;
	bin->list[FIRN_BUCKET_EMPTY] = unit;
	assert_int_equal(firn_check_bin(c, true), 11);
	assert_int_equal(firn_check_bin(c, false), 0);
	bin->list[FIRN_BUCKET_EMPTY] = FIRN_NO_UNIT;
	s->bucket = bucket;
	bin->list[bucket] = unit;

	bin->used++;
	assert_int_equal(firn_check_bin(c, true), 12);
	bin->used--;
	assert_int_equal(firn_check_bin(c, true), 0);
	firn_test_free(p);
}

static void test_cached(void **state)
{
	unsigned int c;
	uint32_t unit;
	void *p = block(100, &c, &unit), *q = firn_test_malloc(100);
	struct firn_cache_bin *b = &firn_thread.cache->bins[c];
	uint32_t cap = b->cap;
	_Atomic uint64_t *word;
	uint64_t bit;
	void *slot;
	int i;

	(void)state;
	firn_test_free(p);
	firn_test_free(q);
	assert_true(b->n >= 2);
	assert_int_equal(firn_check_cache(c), 0);
	b->cap = firn_classes[c].cache_max + 1;
	assert_int_equal(firn_check_cache(c), 13);
	b->cap = cap;

	i = firn_span_slot(c, (uintptr_t)b->slots[0] & (FIRN_UNIT_BYTES - 1));
	word = &firn_span_of(firn_unit_of(b->slots[0]))->mask[i / 64];
	bit = (uint64_t)1 << i % 64;
	*word &= ~bit;
	assert_int_equal(firn_check_cache(c), 14);
	*word |= bit;
	b->slots[0] = (char *)b->slots[0] + 8;
	assert_int_equal(firn_check_cache(c), 14);
	b->slots[0] = (char *)b->slots[0] - 8;

	slot = b->slots[1];
	b->slots[1] = b->slots[0];
	assert_int_equal(firn_check_cache(c), 15);
	b->slots[1] = slot;
	assert_int_equal(firn_check_cache(c), 0);

	assert_int_equal(firn_bins[c].stored, 0);
	firn_bins[c].depot[0] = &slot;
	firn_bins[c].stored = 1;
	assert_int_equal(firn_check_bin(c, true), 14);
	firn_bins[c].stored = firn_depot_slots(c) + 1;
	assert_int_equal(firn_check_bin(c, true), 13);
	firn_bins[c].stored = 0;
}

static void test_units(void **state)
{
	char *p = firn_test_malloc(70000);
	uint32_t unit = firn_unit_of(p), run = 0, n, next_run;
	struct firn_span *s = firn_span_of(unit), *first, *second, saved;

	(void)state;
	assert_int_equal(firn_heap.kinds[unit], FIRN_KIND_LARGE);
	while (firn_heap.kinds[run] != FIRN_KIND_NONE || firn_span_of(run)->units < 4)
		run += firn_heap.kinds[run] == FIRN_KIND_NONE ? firn_span_of(run)->units : 1;
	first = firn_span_of(run);
	n = first->units;
	assert_int_equal(firn_check_heap(true), 0);

	first->units = n - 1;
	assert_int_equal(firn_check_heap(true), 16);
	assert_int_equal(firn_check_heap(false), 16);
	first->units = n;
	firn_heap.kinds[run + 1] = FIRN_KIND_TAIL;
	assert_int_equal(firn_check_heap(true), 16);
	firn_heap.kinds[run + 1] = FIRN_KIND_NONE;

	/* Two runs side by side that should be one. */
	second = firn_span_of(run + 1);
	saved = *second;
	next_run = first->units;
	first->units = 1;
	second->units = firn_span_of(run + n - 1)->units = n - 1;
	second->resident = first->resident;
	second->next = second->prev = FIRN_NO_UNIT;
	assert_int_equal(firn_check_heap(true), 17);
	*second = saved;
	first->units = firn_span_of(run + n - 1)->units = next_run;
	assert_int_equal(firn_check_heap(true), 0);

	s->bytes += 1u << 20;
	assert_int_equal(firn_check_heap(true), 18);
	s->bytes -= 1u << 20;
	/* A unit that belongs to nobody. */
	next_run = (uint32_t)s->bytes;
	s->units--;
	s->bytes = FIRN_UNIT_BYTES;
	assert_int_equal(firn_check_heap(true), 19);
	s->units++;
	s->bytes = next_run;

	*firn_huge_bytes_word() += 4096;
	assert_int_equal(firn_check_heap(true), 20);
	*firn_huge_bytes_word() -= 4096;
	assert_int_equal(firn_check_heap(true), 0);
	firn_test_free(p);
}

/* Two pages that map one frame, as far as tables go. */
static void test_frames(void **state)
{
	struct firn_span *s[2];
	unsigned int page[2], c;
	_Atomic uint64_t *word;
	uint32_t unit, frame;
	uint64_t mask;
	int fd, error;
	void *p[2];

	(void)state;
	assert_int_equal(firn_frames_open(), 0);
	assert_int_not_equal(firn_store_open(64, &frame, &fd, &error), FIRN_STORE_NONE);
	close(fd);
	for (unsigned int i = 0; i < 2; i++) {
		p[i] = block(i ? 40 : 300, &c, &unit);
		s[i] = firn_span_of(unit);
		page[i] = (uintptr_t)p[i] >> FIRN_PAGE_SHIFT & (FIRN_UNIT_PAGES - 1);
		s[i]->closed = s[i]->folded = (uint16_t)(1u << page[i]);
		firn_heap.kinds[unit] |= FIRN_KIND_SLOW;
		s[i]->frame[page[i]] = frame + i;
		firn_frame_map(frame + i, 0, true);
		firn_count(&firn_counters.folded_pages, 1);
	}
	assert_int_equal(firn_check_frames(), 0);
	/* Something lies everywhere. */
	word = firn_span_page_mask(s[1], page[1]);
	mask = *word;
	*word = ~(uint64_t)0;
	assert_int_equal(firn_check_frames(), 0);
	s[1]->frame[page[1]] = frame;
	assert_int_equal(firn_check_frames(), 23);
	s[1]->frame[page[1]] = frame + 1;
	*word = mask;
	firn_frame_map(frame, 0, true);
	assert_int_equal(firn_check_frames(), 24);
	firn_frame_drop(frame);
	s[1]->frame[page[1]] = 1u << 22;
	assert_int_equal(firn_check_frames(), 24);
	for (unsigned int i = 0; i < 2; i++) {
		s[i]->closed = s[i]->folded = 0;
		firn_heap.kinds[firn_span_unit(s[i])] = s[i]->class;
		firn_frame_drop(frame + i);
		firn_frame_unmap(frame + i);
		firn_uncount(&firn_counters.folded_pages, 1);
		firn_test_free(p[i]);
	}
	firn_frame_unmap(frame);
	assert_int_equal(firn_check_all(true), 0);
}

static void test_table(void **state)
{
	volatile struct firn_class *k = (struct firn_class *)(uintptr_t)&firn_classes[5];
	uint32_t magic = k->magic;
	uintptr_t from = (uintptr_t)firn_classes & ~(FIRN_PAGE_BYTES - 1);

	(void)state;
	assert_int_equal(firn_check_table(), 0);
	assert_int_equal(mprotect((void *)from, (uintptr_t)(firn_classes + FIRN_CLASSES) - from, PROT_READ | PROT_WRITE), 0);
	k->magic += k->magic / 8;
	assert_int_equal(firn_check_table(), 21);
	k->magic = magic;
	k->page_slots = (uint16_t)(k->page_slots + 1);
	assert_int_equal(firn_check_table(), 21);
	k->page_slots = (uint16_t)(k->page_slots - 1);
	assert_int_equal(firn_check_table(), 0);
}

static void dirty_unit(void)
{
	char *p = firn_test_malloc(100000);

	memset(p, 1, 100000);
	firn_check_new_unit((char *)((uintptr_t)p & ~(FIRN_UNIT_BYTES - 1)), true);
}

/* A check after an operation, not called by hand. */
static void break_and_go_on(void)
{
	unsigned int c;
	uint32_t unit;

	block(200, &c, &unit);
	firn_span_of(unit)->nfree += 3;
	firn_test_free(firn_test_malloc(200));
}

static void test_reported(void **state)
{
	(void)state;
	assert_dies(dirty_unit, "invariant 22 ");
	assert_dies(break_and_go_on, "invariant 4 ");
}

static void overflow_by_one(void)
{
	char *p = firn_test_malloc(33);

	p[33] = 0;
	firn_test_free(p);
}

static void overflow_realloc(void)
{
	char *p = firn_test_malloc(100);

	p[107] = 'x';
	p = firn_test_realloc(p, 200);
}

static void overflow_large(void)
{
	char *p = firn_test_malloc(100000);

	p[100000] = 1;
	firn_test_free(p);
}

static void overflow_far(void)
{
	char *p = firn_test_malloc(40);

	memset(p, 'x', 64);
	firn_test_free(p);
}

static void free_twice(void)
{
	void *p = firn_test_malloc(64);

	firn_test_free(p);
	firn_test_free(p);
}

static void free_twice_others_between(void)
{
	void *p = firn_test_malloc(64), *q = firn_test_malloc(64);

	firn_test_free(p);
	firn_test_free(q);
	firn_test_free(p);
}

static void free_twice_flushed(void)
{
	void *p = firn_test_malloc(64), *stays = firn_test_malloc(64);

	firn_test_free(p);
	firn_test_malloc_trim(0);
	if (stays)
		firn_test_free(p);
}

static void free_twice_large(void)
{
	void *p = firn_test_malloc(1000000);

	firn_test_free(p);
	firn_test_free(p);
}

static void free_middle(void)
{
	firn_test_free((char *)firn_test_malloc(1000) + 16);
}

static void free_middle_large(void)
{
	firn_test_free((char *)firn_test_malloc(200000) + 65536);
}

static void free_foreign(void)
{
	int i[4];

	firn_test_free(i);
}

static void write_after_free(void)
{
	char *p = firn_test_malloc(72);

	firn_test_free(p);
	p[8]++;
	if (firn_test_malloc(72) != p)
		_exit(1);
}

static void realloc_freed(void)
{
	void *p = firn_test_malloc(72);

	firn_test_free(p);
	p = firn_test_realloc(p, 100);
}

static void wrong_size(void)
{
	firn_test_free_sized(firn_test_malloc(50), 51);
}

static void test_misuse(void **state)
{
	(void)state;
	assert_dies(overflow_by_one, "overflow: byte 0 behind the block of 33 bytes");
	assert_dies(overflow_realloc, "found by realloc");
	assert_dies(overflow_large, "overflow: byte 0 behind the block of 100000 bytes");
	assert_dies(overflow_far, "overflow: ");
	assert_dies(free_twice, "double free of 0x");
	assert_dies(free_twice_others_between, "double free of 0x");
	assert_dies(free_twice_flushed, "double free of 0x");
	assert_dies(free_twice_large, "which was not allocated here, or is free");
	assert_dies(free_middle, "which is not the start of an allocation");
	assert_dies(free_middle_large, "which was not allocated here");
	assert_dies(free_foreign, "which was not allocated here");
	assert_dies(write_after_free, "write after free: byte 8 ");
	assert_dies(realloc_freed, "double free of 0x");
	assert_dies(wrong_size, "as 51 bytes, which was allocated with 50");
}

static void test_threads(void **state)
{
	(void)state;
	assert_int_equal(crowd_run(24, 2, 1000, crowd_seed()), 0);
	assert_int_equal(firn_check_all(true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),
		cmocka_unit_test(test_span),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_reported),
		cmocka_unit_test(test_misuse),
		cmocka_unit_test(test_threads),
	};

	prefixed_open();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
