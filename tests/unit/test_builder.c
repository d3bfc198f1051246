/* SPDX-License-Identifier: MIT */
/* src/pack/builder.c: whatever pages go in, in whatever order, a reader finds each of them. */
#include "builder_fixture.h"

static void test_zero_and_fill(void **state)
{
	uint8_t *pages = calloc(64, PS);
	struct firn_builder_stats stats;
	struct memory_file f;
	struct firn_builder *b;
	uint64_t word;

	(void)state;
	file_open(&f, 4 << 20);
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 3), 0);

	/* 0 zero; 1, 2 the same fill; 3 another; 4 a third; 5 a fourth, beyond the table: stored; 6
	 * as 5. */
	for (int i = 1; i < 7; i++) {
		word = i < 3 ? 0x0101010101010101 : i >= 5 ? 55 : (uint64_t)i << 56;
		for (uint32_t k = 0; k < PS; k += 8)
			memcpy(pages + i * PS + k, &word, 8);
	}
	/* 7.. zero but for one byte, at each eighth of a page and at its ends: never zero, never
	 * filled. */
	for (int i = 7; i < 16; i++)
		pages[i * PS + (i == 15 ? PS - 1 : (uint32_t)(i - 7) * 512)] = (uint8_t)i;
	/* 16 repeats four bytes, so eight too; 17 repeats sixteen: stored. */
	for (uint32_t k = 0; k < PS; k += 4)
		memcpy(pages + 16 * PS + k, "\1\2\3", 4);
	for (uint32_t k = 0; k < PS; k += 16)
		memcpy(pages + 17 * PS + k, "0123456789abcdef", 16);

	assert_int_equal(add_pages(b, pages, 18, places), 0);
	assert_int_equal(places[0], firn_place(FIRN_PLACE_ZERO, 0));
	assert_int_equal(places[1], firn_place(FIRN_PLACE_FILL, 0));
	assert_int_equal(places[2], firn_place(FIRN_PLACE_FILL, 0));
	assert_int_equal(places[3], firn_place(FIRN_PLACE_FILL, 1));
	assert_int_equal(places[4], firn_place(FIRN_PLACE_FILL, 2));
	assert_int_equal(places[5], firn_place(FIRN_PLACE_SLOT, 0));
	assert_int_equal(places[6], firn_place(FIRN_PLACE_SLOT, 0));
	for (int i = 7; i < 18; i++)
		assert_int_equal(places[i], firn_place(FIRN_PLACE_SLOT, i - 6));
	assert_int_equal(fills[0], 0x0101010101010101);
	assert_int_equal(finish_simple(b, 18, places, NULL), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.pages, 18);
	assert_int_equal(stats.zero_pages, 1);
	assert_int_equal(stats.fill_pages, 4);
	assert_int_equal(stats.duplicate_pages, 1);
	assert_int_equal(stats.unique_pages, 12);
	assert_int_equal(stats.fills, 3);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, 18, PS);

	/* A pack of nothing but zeros has no block, and ending its slice writes nothing. */
	f.bytes = f.writes = 0;
	memset(pages, 0, 64 * PS);
	assert_int_equal(begin(b, 2, 0, 0), 0);
	assert_int_equal(add_pages(b, pages, 64, places), 0);
	assert_int_equal(firn_builder_end_slice(b), 0);
	assert_int_equal(f.writes, 0);
	assert_int_equal(finish_simple(b, 64, places, NULL), 0);
	assert_int_equal(f.writes, 1);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, 64, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

/* 65,536 different fills have a place each; one more is stored. */
static void test_many_fills(void **state)
{
	uint32_t n = FIRN_FILLS_MAX + 2;
	uint8_t *pages = malloc((size_t)n * PS);
	struct firn_builder_stats stats;
	struct memory_file f;
	struct firn_builder *b;

	(void)state;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t word = (i + 1) * 0x9E3779B97F4A7C15u;

		for (uint32_t k = 0; k < PS; k += 8)
			memcpy(pages + i * PS + k, &word, 8);
	}
	file_open(&f, 4 << 20);
	b = open_builder(&f, FIRN_CIPHER_OFF);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, UINT32_MAX), 0);
	assert_int_equal(add_pages(b, pages, n, places), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.fills, FIRN_FILLS_MAX);
	assert_int_equal(stats.unique_pages, 2);
	assert_int_equal(firn_place_kind(places[n - 1]), FIRN_PLACE_SLOT);
	assert_int_equal(finish_simple(b, n, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_OFF, pages, n, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

/* Words chosen to meet in one bucket of the fill table: the search stays short, and they are
 * stored. */
static void test_hostile_fills(void **state)
{
	uint32_t n = 300;
	uint64_t factor = 0x9E3779B97F4A7C15u, inverse = factor;
	uint8_t *pages = malloc((size_t)n * PS);
	struct firn_builder_stats stats;
	struct memory_file f;
	struct firn_builder *b;

	(void)state;
	for (int i = 0; i < 6; i++)
		inverse *= 2 - factor * inverse;
	assert_true(factor * inverse == 1);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t word = (((uint64_t)7 << 40) + i + 1) * inverse;

		for (uint32_t k = 0; k < PS; k += 8)
			memcpy(pages + i * PS + k, &word, 8);
	}
	file_open(&f, 4 << 20);
	b = open_builder(&f, FIRN_CIPHER_OFF);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, FIRN_FILLS_MAX), 0);
	assert_int_equal(add_pages(b, pages, n, places), 0);
	firn_builder_get_stats(b, &stats);
	assert_true(stats.fills < 100);
	assert_int_equal(stats.fills + stats.unique_pages, n);
	assert_int_equal(add_pages(b, pages, n, places), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.fill_pages, 2 * stats.fills);
	assert_int_equal(finish_simple(b, n, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_OFF, pages, n, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

static void test_duplicates(void **state)
{
	uint32_t half =
		2000; /* over a batch: the second half meets originals long sealed */
	uint8_t *pages = malloc((size_t)half * 2 * PS);
	struct firn_builder_stats stats;
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 11;

	(void)state;
	fill_half(&seed, pages, (size_t)half * PS);
	memcpy(pages + (size_t)half * PS, pages, (size_t)half * PS);
	file_open(&f, 32 << 20);
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);

	/* In one slice. */
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, half * 2, places), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.duplicate_pages, half);
	assert_int_equal(stats.unique_pages, half);
	assert_int_equal(f.originals_read, half);
	for (uint32_t i = 0; i < half; i++)
		assert_int_equal(places[i], places[half + i]);
	assert_int_equal(finish_simple(b, half * 2, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, half * 2, PS);

	/* Not across slices. */
	f.bytes = 0;
	assert_int_equal(begin(b, 2, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, half, places), 0);
	assert_int_equal(firn_builder_end_slice(b), 0);
	assert_int_equal(add_pages(b, pages + (size_t)half * PS, half, places + half), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.duplicate_pages, 0);
	assert_int_equal(finish_simple(b, half * 2, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, half * 2, PS);

	/* An original that cannot be read again: the page is stored. */
	f.bytes = 0;
	f.fail_originals = true;
	assert_int_equal(begin(b, 3, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, half * 2, places), 0);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.duplicate_pages, 0);
	assert_int_equal(finish_simple(b, half * 2, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, half * 2, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

static void test_table_full(void **state)
{
	uint8_t *pages = malloc(256 * PS);
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 5;

	(void)state;
	fill_half(&seed, pages, 256 * PS);
	file_open(&f, 4 << 20);
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);
	assert_int_equal(begin(b, 1, 10, 0), 0);
	assert_int_equal(add_pages(b, pages, 160, places), 0);
	assert_int_equal(add_pages(b, pages, 16, places + 160),
			 0); /* known ones */
	assert_int_equal(add_pages(b, pages + 160 * PS, 1, places + 176),
			 -ENOSPC);
	assert_int_equal(add_pages(b, pages, 1, places),
			 -ENOSPC); /* it sticks */
	assert_int_equal(firn_builder_end_slice(b), -ENOSPC);
	assert_int_equal(finish_simple(b, 160, places, NULL), -ENOSPC);
	assert_int_equal(f.writes, 0);
	assert_int_equal(begin(b, 2, 10, 0), 0);
	assert_int_equal(add_pages(b, pages, 160, places), 0);
	assert_int_equal(finish_simple(b, 160, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, 160, PS);
	for (uint32_t i = 10; i < 20; i++)
		assert_int_equal(blocks[i].offset.v,
				 0xAAAAAAAAAAAAAAAA); /* never beyond its table */
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

static void test_refused_index(void **state)
{
	struct firn_pack_target target = { .pid = 1, .runs = 1 };
	struct firn_pack_run run = { .start = { 0x1000 }, .npages = 64 };
	struct firn_builder_index index = { &target, &run, places, 1, 1, 64, 0 };
	uint8_t *pages = malloc(128 * PS);
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 8;
	uint32_t good;

	(void)state;
	fill_half(&seed, pages, 128 * PS);
	file_open(&f, 4 << 20);
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, 64, places), 0);
	good = places[9];
	places[9] = 0;
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	places[9] = firn_place(FIRN_PLACE_SLOT, 64);
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	places[9] = firn_place(FIRN_PLACE_FILL, 0);
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	places[9] = good;
	run.npages = 65;
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	run.npages = 64;
	run.start.v = 0x1001;
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	run.start.v = 0x1000;
	target.runs = 0;
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	assert_int_equal(f.writes, 0);

	/* The pack goes on. */
	target.runs = 1;
	assert_int_equal(add_pages(b, pages + 64 * PS, 64, places + 64), 0);
	run.npages = index.nplaces = 128;
	assert_int_equal(firn_builder_finish(b, &index, NULL), 0);
	check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, 128, PS);
	assert_int_equal(add_pages(b, pages, 1, places), -EINVAL);
	assert_int_equal(firn_builder_finish(b, &index, NULL), -EINVAL);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

/* Places inside of the caller's larger records; several targets; an index of many pieces. */
static void test_big_index(void **state)
{
	struct record {
		uint32_t place;
		uint32_t other[2];
	};
	uint32_t n = 100001;
	struct record *records = malloc(n * sizeof(*records));
	struct firn_pack_target targets[3] = {
		{ .pid = 1, .first_run = 0, .runs = n / 2 },
		{ .pid = 2, .first_run = n / 2, .runs = 0 },
		{ .pid = 3, .first_run = n / 2, .runs = n - n / 2, .group = 5 },
	};
	struct firn_pack_run *runs = malloc(n * sizeof(*runs));
	struct firn_builder_index index = {
		targets, runs, &records[0].place, 3, n, n, sizeof(*records),
	};
	uint8_t *kinds = calloc(17 * 23, PS);
	struct firn_reader r;
	struct memory_file f;
	struct firn_builder *b;

	(void)state;
	file_open(&f, 64 << 20);
	for (uint32_t i = 0; i < 17 * 23; i++) {
		kinds[(size_t)i * PS + 5] = i / 23 == 0;
		kinds[(size_t)i * PS + 6] = (uint8_t)(i % 23);
		kinds[(size_t)i * PS + 4095] = 1;
	}
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 10), 0);
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *page = kinds + (size_t)(i % 17 * 23 + i % 23) * PS;

		assert_int_equal(add_pages(b, page, 1, &records[i].place), 0);
		records[i].other[0] = records[i].other[1] = 0xFFFFFFFF;
		runs[i] = (struct firn_pack_run){ { (uint64_t)i * 2 * PS }, 1, n - 1 - i };
	}
	assert_int_equal(firn_builder_finish(b, &index, NULL), 0);
	assert_int_equal(firn_reader_open(&r, test_key, f.bytes, file_read, &f), 0);
	assert_true(r.footer.index_pieces > 20);
	assert_int_equal(r.index.nplaces, n);
	assert_memory_equal(r.index.runs, runs, n * sizeof(*runs));
	assert_memory_equal(r.index.targets, targets, sizeof(targets));
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(r.index.places[i], records[i].place);
	firn_reader_close(&r);
	firn_builder_close(b);
	file_close(&f);
	free(kinds);
	free(records);
	free(runs);
}

/*
 * Random packs against the trivial model, which is the pages themselves: random kinds of pages,
 * sizes of calls and slices, buffers, ciphers, page sizes, threads, and writes that are late.
 */
static void one_random_pack(uint64_t *seed)
{
	static const uint32_t page_sizes[] = { 4096, 4096, 16384, 65536 };
	uint32_t ps = page_sizes[next_random(seed) % 4];
	uint32_t n = 1 + (uint32_t)(next_random(seed) % (ps == 4096 ? 3000 : 300)), done = 0;
	enum firn_cipher cipher = all_ciphers[next_random(seed) % 3];
	uint8_t *pages = malloc((size_t)n * ps);
	struct firn_builder_config config;
	struct firn_builder_stats stats;
	struct memory_file f;
	struct firn_builder *b;
	uint64_t total;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *page = pages + (size_t)i * ps;
		uint64_t word = next_random(seed);

		switch (next_random(seed) % 8) {
		case 0:
			memset(page, 0, ps);
			break;
		case 1:
			memset(page, (uint8_t)word % 5, ps);
			break;
		case 2:
			for (uint32_t k = 0; k < ps; k += 8)
				memcpy(page + k, &word, 8);
			break;
		case 3:
			fill_random(seed, page, ps);
			break;
		case 4:
			memset(page, 0, ps);
			page[word % ps] = (uint8_t)(word >> 32);
			break;
		case 5:
			if (i) {
				memcpy(page, pages + word % i * ps, ps);
				break;
			}
			/* fallthrough */
		default:
			fill_half(seed, page, ps);
		}
	}
	file_open(&f, (size_t)n * ps * 2 + (16 << 20));
	f.own_writer = next_random(seed) % 2;
	f.threads = (uint32_t)(next_random(seed) % 4);
	config = file_config(&f, cipher, ps);
	config.out_bytes = (uint32_t)(65536 + next_random(seed) % 64 * 4096);
	assert_int_equal(firn_builder_open(&b, &config), 0);
	/* One that is begun and forgotten leaves no trace in the next. */
	if (next_random(seed) % 2) {
		assert_int_equal(begin(b, 1, BLOCKS_CAP, 100), 0);
		start_writer(&f, b);
		assert_int_equal(add_pages(b, pages, n, places), 0);
		firn_builder_abort(b);
		join_writer(&f);
		f.bytes = 0;
	}
	assert_int_equal(begin(b, 2, BLOCKS_CAP, (uint32_t)(next_random(seed) % 100)), 0);
	start_writer(&f, b);
	while (done < n) {
		uint32_t k = 1 + (uint32_t)(next_random(seed) % (n - done));

		if (next_random(seed) % 2 && k > 40)
			k = 40;
		assert_int_equal(add_pages(b, pages + (size_t)done * ps, k, places + done),
				 0);
		done += k;
		if (next_random(seed) % 3 == 0)
			assert_int_equal(firn_builder_end_slice(b), 0);
	}
	assert_int_equal(finish_simple(b, n, places, &total), 0);
	assert_int_equal(total, f.bytes);
	firn_builder_get_stats(b, &stats);
	assert_int_equal(stats.pages, n);
	assert_int_equal(stats.zero_pages + stats.fill_pages + stats.duplicate_pages +
				 stats.unique_pages,
			 n);
	assert_int_equal(stats.write_bytes, total);
	join_writer(&f);
	firn_builder_close(b);
	check_pack(&f, cipher, pages, n, ps);
	file_close(&f);
	free(pages);
}

static void test_random_packs(void **state)
{
	static const uint64_t failed_before[] = { 0 };  /* seeds that once failed */
	uint64_t seed;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(failed_before); i++) {
		seed = failed_before[i];
		one_random_pack(&seed);
	}
	seed = test_seed();
	for (int i = 0; i < 30; i++)
		one_random_pack(&seed);
}

/* Pages that only look alike are not read again to be compared. */
static void test_originals_are_read_rarely(void **state)
{
	uint32_t n = 20000;
	uint8_t *pages = malloc((size_t)n * PS);
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 12;

	(void)state;
	memset(pages, 0, (size_t)n * PS);
	for (uint32_t i = 0; i < n; i++) {
		fill_random(&seed, pages + (size_t)i * PS + 8, 16);
		pages[(size_t)i * PS] = 1;
	}
	file_open(&f, 64 << 20);
	b = open_builder(&f, FIRN_CIPHER_OFF);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, n, places), 0);
	assert_int_equal(f.originals_read, 0);
	assert_int_equal(finish_simple(b, n, places, NULL), 0);
	check_pack(&f, FIRN_CIPHER_OFF, pages, n, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

static void test_parameters(void **state)
{
	struct memory_file f = { 0 };
	struct firn_builder_config good = file_config(&f, FIRN_CIPHER_AES_256_OCB, PS), c;
	struct firn_builder *b = (struct firn_builder *)&f;

	(void)state;
	c = good;
	c.page_size = 2048;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	assert_null(b);
	c.page_size = 4097;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c.page_size = 131072;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c = good;
	c.key = NULL;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c = good;
	c.workers = FIRN_BUILDER_WORKERS_MAX + 1;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c = good;
	c.ops.write = NULL;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c = good;
	c.ops.read = NULL;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	c = good;
	c.out_bytes = 65537;
	assert_int_equal(firn_builder_open(&b, &c), -EINVAL);
	assert_int_equal(firn_builder_open(&b, &good), 0);
	assert_int_equal(firn_builder_end_slice(b), -EINVAL);
	assert_int_equal(begin(b, 0, 1, 1), 0);
	assert_int_equal(begin(b, 0, 1, 1), -EINVAL);   /* never twice the same nonces */
	assert_int_equal(firn_builder_end_slice(b), -EINVAL);
	assert_int_equal(begin(b, 1, 1, 1), 0);
	firn_builder_closep(&b);
	assert_null(b);
	firn_builder_close(NULL);
}

static void lazy_run(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker),
		     void *arg)
{
	(void)ctx;
	for (uint32_t i = 0; i + 1 < n; i++)
		fn(arg, i, 0);
}

/* A run() that leaves a job undone is a failure, not a pack with a hole. */
static void test_lazy_run(void **state)
{
	uint8_t *pages = malloc(64 * PS);
	struct firn_builder_config config;
	struct memory_file f;
	struct firn_builder *b;
	uint64_t seed = 12;

	(void)state;
	fill_random(&seed, pages, 64 * PS);
	file_open(&f, 4 << 20);
	config = file_config(&f, FIRN_CIPHER_OFF, PS);
	config.ops.run = lazy_run;
	assert_int_equal(firn_builder_open(&b, &config), 0);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, 64, places), -EIO);
	assert_int_equal(firn_builder_end_slice(b), -EIO);
	assert_int_equal(f.writes, 0);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

static void test_no_allocation(void **state)
{
	uint8_t *pages;

	(void)state;
	if (FIRN_TEST_SANITIZED)
		skip();
	pages = malloc((size_t)PAGES * PS);
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct memory_file f;
		struct firn_builder *b;
		unsigned long before;
		uint64_t seed = 5;

		fill_half(&seed, pages, (size_t)PAGES * PS);
		memset(pages + 7 * PS, 0, PS * 3);
		memset(pages + 17 * PS, 9, PS * 3);
		memcpy(pages + 100 * PS, pages, PS);
		file_open(&f, 32 << 20);
		b = open_builder(&f, all_ciphers[i]);
		before = allocations;
		for (int k = 0; k < 2; k++) {
			f.bytes = 0;
			assert_int_equal(begin(b, 1 + k, BLOCKS_CAP, 10), 0);
			assert_int_equal(add_pages(b, pages, PAGES / 2, places),
					 0);
			assert_int_equal(firn_builder_end_slice(b), 0);
			assert_int_equal(add_pages(b, pages + (size_t)PAGES / 2 * PS,
								PAGES / 2, places + PAGES / 2),
					 0);
			assert_int_equal(finish_simple(b, PAGES, places, NULL), 0);
		}
		assert_int_equal(allocations - before, 0);
		check_pack(&f, all_ciphers[i], pages, PAGES, PS);
		firn_builder_close(b);
		file_close(&f);
	}
	free(pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zero_and_fill),
		cmocka_unit_test(test_many_fills),
		cmocka_unit_test(test_hostile_fills),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_table_full),
		cmocka_unit_test(test_refused_index),
		cmocka_unit_test(test_big_index),
		cmocka_unit_test(test_random_packs),
		cmocka_unit_test(test_originals_are_read_rarely),
		cmocka_unit_test(test_parameters),
		cmocka_unit_test(test_lazy_run),
		cmocka_unit_test(test_no_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
