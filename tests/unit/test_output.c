/* SPDX-License-Identifier: MIT */
/* src/pack/output.c, under a builder: full buffers, one after the other; what is said to be stored is. */
#include "builder_fixture.h"

static void test_one_write(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		uint8_t *pages = malloc((size_t)PAGES * PS);
		struct firn_builder_stats stats;
		struct memory_file f;
		struct firn_builder *b;
		uint64_t seed = i, total = 0;

		file_open(&f, 32 << 20);
		fill_half(&seed, pages, (size_t)PAGES * PS);    /* 16 MiB: a pack of over 8 */
		b = open_builder(&f, all_ciphers[i]);

		/* 12 MiB of them make one that fits. */
		assert_int_equal(begin(b, 1, BLOCKS_CAP, 100), 0);
		assert_int_equal(add_pages(b, pages, 3000, places), 0);
		assert_int_equal(finish_simple(b, 3000, places, &total), 0);
		firn_builder_get_stats(b, &stats);
		assert_true(total <= FIRN_BUILDER_OUT_BYTES);
		assert_int_equal(stats.write_calls, 1);
		assert_int_equal(stats.write_bytes, total);
		assert_int_equal(f.writes, 1);
		assert_int_equal(f.bytes, total);
		assert_int_equal(stats.blocks, (3000 + 15) / 16);
		check_pack(&f, all_ciphers[i], pages, 3000, PS);

		/* The same builder, another pack: full buffers, then the rest. */
		f.bytes = f.writes = 0;
		assert_int_equal(begin(b, 2, BLOCKS_CAP, 100), 0);
		assert_int_equal(add_pages(b, pages, PAGES, places), 0);
		assert_int_equal(finish_simple(b, PAGES, places, &total), 0);
		assert_true(total > FIRN_BUILDER_OUT_BYTES && total < 2 * FIRN_BUILDER_OUT_BYTES);
		assert_int_equal(f.writes, 2);
		check_pack(&f, all_ciphers[i], pages, PAGES, PS);
		firn_builder_close(b);
		file_close(&f);
		free(pages);
	}
}

/* A pack of exactly the buffer's size is one write; of one page more, two. */
static void test_exact_fit(void **state)
{
	uint8_t *pages = malloc((size_t)PAGES * PS);
	uint64_t seed = 1, total = 0;
	struct firn_builder_config config;
	struct memory_file f;
	struct firn_builder *b;

	(void)state;
	file_open(&f, 32 << 20);
	fill_half(&seed, pages, (size_t)PAGES * PS);
	b = open_builder(&f, FIRN_CIPHER_AES_256_OCB);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	assert_int_equal(add_pages(b, pages, 1000, places), 0);
	assert_int_equal(finish_simple(b, 1000, places, &total), 0);
	firn_builder_close(b);

	for (int less = 0; less < 40; less++) {
		config = file_config(&f, FIRN_CIPHER_AES_256_OCB, PS);
		config.out_bytes = (uint32_t)total - less * 4096;
		f.bytes = f.writes = 0;
		assert_int_equal(firn_builder_open(&b, &config), 0);
		assert_int_equal(begin(b, 2 + less, BLOCKS_CAP, 0), 0);
		assert_int_equal(add_pages(b, pages, 1000, places), 0);
		assert_int_equal(finish_simple(b, 1000, places, NULL), 0);
		assert_int_equal(f.writes, less ? 2 : 1);
		assert_int_equal(f.bytes, total);
		check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, 1000, PS);
		firn_builder_close(b);
	}
	file_close(&f);
	free(pages);
}

/* What await says is stored is in the file, final, with its pages; the rest comes with finish. */
static void test_stored(void **state)
{
	(void)state;
	for (int own_writer = 0; own_writer < 2; own_writer++) {
		uint32_t sizes[] = { 1, 16, 17, 500, 1024, 1025, 3000 }, done = 0, block = 0;
		uint8_t *pages = malloc((size_t)8192 * PS), *raw = malloc(16 * PS);
		struct firn_builder_stats stats;
		struct firn_builder_config config;
		struct memory_file f;
		struct firn_builder *b;
		struct firn_codec codec;
		uint64_t seed = 5;

		file_open(&f, 64 << 20);
		f.own_writer = own_writer;
		fill_half(&seed, pages, (size_t)8192 * PS);
		config = file_config(&f, FIRN_CIPHER_AES_256_GCM, PS);
		config.out_bytes = 256 << 10;
		assert_int_equal(firn_builder_open(&b, &config), 0);
		assert_int_equal(firn_codec_open(&codec, FIRN_CIPHER_AES_256_GCM, test_key,
						 16 * PS),
				 0);
		assert_int_equal(begin(b, 77, BLOCKS_CAP, 0), 0);
		start_writer(&f, b);
		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
			assert_int_equal(add_pages(b, pages + (size_t)done * PS, sizes[s],
						   places + done),
					 0);
			assert_int_equal(firn_builder_end_slice(b), 0);
			assert_int_equal(firn_builder_end_slice(b), 0);         /* again: nothing */
			firn_builder_get_stats(b, &stats);
			assert_int_equal(firn_builder_await(b, stats.end / config.out_bytes *
								       config.out_bytes),
					 0);
			for (uint32_t i = 0; i < sizes[s]; i += 16, block++) {
				const struct firn_block *e = &blocks[block];
				struct firn_piece p = firn_piece_of_block(77, block, PS, e);
				uint32_t n = sizes[s] - i < 16 ? sizes[s] - i : 16;
				uint64_t end = e->offset.v + firn_block_span_bytes(e->stored_bytes);

				assert_int_equal(e->raw_pages, n);
				assert_int_equal(places[done + i],
						 firn_place(FIRN_PLACE_SLOT, block * 16));
				assert_true(end <= stats.end);
				if (end > stats.end / config.out_bytes * config.out_bytes)
					continue;
				assert_int_equal(firn_codec_decode(&codec, &p, f.data + e->offset.v,
								   raw),
						 0);
				assert_memory_equal(raw, pages + (size_t)(done + i) * PS,
						    (size_t)n * PS);
			}
			done += sizes[s];
		}
		assert_int_equal(stats.slices, ARRAY_SIZE(sizes));
		assert_int_equal(finish_simple(b, done, places, NULL), 0);
		assert_int_equal(firn_builder_await(b, stats.end), 0);
		join_writer(&f);
		check_pack(&f, FIRN_CIPHER_AES_256_GCM, pages, done, PS);
		firn_codec_close(&codec);
		firn_builder_close(b);
		file_close(&f);
		free(pages);
		free(raw);
	}
}

static void *await_all(void *arg)
{
	return (void *)(intptr_t)firn_builder_await(arg, UINT64_MAX);
}

/* Whoever waits is told when the pack is given up, and the builder makes the next one. */
static void test_abort(void **state)
{
	uint8_t *pages = malloc(64 * PS);
	struct memory_file f;
	struct firn_builder *b;
	pthread_t waiter;
	uint64_t seed = 5;
	void *result;

	(void)state;
	fill_half(&seed, pages, 64 * PS);
	file_open(&f, 4 << 20);
	f.own_writer = true;
	b = open_builder(&f, FIRN_CIPHER_OFF);
	assert_int_equal(begin(b, 1, BLOCKS_CAP, 0), 0);
	start_writer(&f, b);
	assert_int_equal(add_pages(b, pages, 64, places), 0);
	assert_int_equal(pthread_create(&waiter, NULL, await_all, b), 0);
	firn_builder_abort(b);
	join_writer(&f);
	pthread_join(waiter, &result);
	assert_int_equal((intptr_t)result, -ECANCELED);
	assert_int_equal(add_pages(b, pages, 64, places), -ECANCELED);
	assert_int_equal(finish_simple(b, 64, places, NULL), -ECANCELED);
	assert_int_equal(f.writes, 0);
	assert_int_equal(begin(b, 2, BLOCKS_CAP, 0), 0);
	start_writer(&f, b);
	assert_int_equal(add_pages(b, pages, 64, places), 0);
	assert_int_equal(finish_simple(b, 64, places, NULL), 0);
	join_writer(&f);
	check_pack(&f, FIRN_CIPHER_OFF, pages, 64, PS);
	firn_builder_close(b);
	file_close(&f);
	free(pages);
}

/*
 * Fail the n-th write for n = 1, 2, ... until none is left: what was said to be stored is there.
 */
static void write_failures(bool own_writer, unsigned int threads)
{
	uint32_t slice_pages = 900, slices = 4, n;
	uint8_t *pages = malloc((size_t)slice_pages * slices * PS), *raw = malloc(16 * PS);
	bool failed = true;

	for (n = 1; failed; n++) {
		struct firn_builder_config config;
		struct firn_builder *b;
		struct firn_codec codec;
		struct memory_file f;
		uint64_t seed = 5, stored = 0;
		int r = 0;

		file_open(&f, 32 << 20);
		f.own_writer = own_writer;
		f.threads = threads;
		f.fail_at = n;
		fill_half(&seed, pages, (size_t)slice_pages * slices * PS);
		config = file_config(&f, FIRN_CIPHER_AES_256_OCB, PS);
		config.out_bytes = 512 << 10;
		assert_int_equal(firn_builder_open(&b, &config), 0);
		assert_int_equal(begin(b, n, BLOCKS_CAP, 0), 0);
		start_writer(&f, b);
		for (uint32_t s = 0; s < slices && r == 0; s++) {
			struct firn_builder_stats stats;
			uint64_t whole;

			r = add_pages(b, pages + (size_t)s * slice_pages * PS, slice_pages,
				      places + s * slice_pages);
			if (r == 0)
				r = firn_builder_end_slice(b);
			firn_builder_get_stats(b, &stats);
			whole = stats.end / config.out_bytes * config.out_bytes;
			if (r == 0)
				r = firn_builder_await(b, whole);
			if (r == 0)
				stored = whole;
		}
		if (r == 0)
			r = finish_simple(b, slice_pages * slices, places, NULL);
		failed = r != 0;
		if (failed) {
			assert_int_equal(r, -ENOSPC);
			assert_int_equal(add_pages(b, pages, 1, places), -ENOSPC);
			assert_int_equal(firn_builder_end_slice(b), -ENOSPC);
			assert_int_equal(firn_builder_await(b, UINT64_MAX), -ENOSPC);
			assert_int_equal(finish_simple(b, 1, places, NULL), -ENOSPC);
		} else {
			check_pack(&f, FIRN_CIPHER_AES_256_OCB, pages, slice_pages * slices, PS);
		}
		join_writer(&f);
		assert_int_equal(firn_codec_open(&codec, FIRN_CIPHER_AES_256_OCB, test_key,
						 16 * PS),
				 0);
		for (uint32_t k = 0; blocks[k].offset.v < stored; k++) {
			struct firn_piece p = firn_piece_of_block(n, k, PS, &blocks[k]);
			uint32_t place = firn_place(FIRN_PLACE_SLOT, k * 16), page = 0;

			if (blocks[k].offset.v + firn_block_span_bytes(blocks[k].stored_bytes) >
			    stored)
				break;
			assert_int_equal(firn_codec_decode(&codec, &p, f.data + blocks[k].offset.v,
							   raw),
					 0);
			while (places[page] != place)
				page++;
			assert_memory_equal(raw, pages + (size_t)page * PS,
					    (size_t)blocks[k].raw_pages * PS);
		}
		firn_codec_close(&codec);
		firn_builder_close(b);
		file_close(&f);
	}
	assert_true(n > 12);
	free(pages);
	free(raw);
}

static void test_write_failures(void **state)
{
	(void)state;
	write_failures(false, 0);
	write_failures(true, 0);
	write_failures(true, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_write),
		cmocka_unit_test(test_exact_fit),
		cmocka_unit_test(test_stored),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_write_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
