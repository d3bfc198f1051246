/* SPDX-License-Identifier: MIT */
/*
 * What the tests of a pack's builder share: its tables, one that is opened on a file in memory, and the
 * check that every page comes back.
 */
#ifndef FIRN_TESTS_BUILDER_FIXTURE_H
#define FIRN_TESTS_BUILDER_FIXTURE_H

#include "pack_fixture.h"
#define PS 4096u
#define PAGES 4096u
#define BLOCKS_CAP 8192u

static struct firn_block blocks[BLOCKS_CAP];
static uint64_t fills[FIRN_FILLS_MAX];
static uint32_t places[65536 * 2];

static inline struct firn_builder *open_builder(struct memory_file *f, enum firn_cipher cipher)
{
	struct firn_builder_config config = file_config(f, cipher, PS);
	struct firn_builder *b;

	assert_int_equal(firn_builder_open(&b, &config), 0);
	return b;
}

static inline int begin(struct firn_builder *b, uint64_t generation, uint32_t blocks_cap,
			uint32_t fills_cap)
{
	struct firn_builder_pack pack = {
		.generation = generation,
		.pid = 4711,
		.start_time = 99,
		.created_ns = 1,
		.boot_id = { 1, 2, 3 },
		.comm = "target",
		.blocks = blocks,
		.blocks_cap = blocks_cap,
		.fills = fills,
		.fills_cap = fills_cap,
	};

	memset(blocks, 0xAA, sizeof(blocks));
	memset(fills, 0xAA, sizeof(fills));
	return firn_builder_begin(b, &pack);
}

/* Every page of the pack is the one in @pages; every block decodes. */
static inline void check_pack(struct memory_file *f, enum firn_cipher cipher, const uint8_t *pages,
			      uint32_t n, uint32_t page_size)
{
	uint8_t *page = malloc(page_size), *block = malloc((size_t)page_size * FIRN_BLOCK_PAGES);
	uint32_t number = UINT32_MAX;
	struct firn_reader r;

	assert_int_equal(firn_reader_open(&r, cipher == FIRN_CIPHER_OFF ? NULL : test_key, f->bytes,
					  file_read, f),
			 0);
	assert_int_equal(r.index.nplaces, n);
	assert_int_equal(firn_reader_verify(&r), 0);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t place = r.index.places[i];
		const uint8_t *found = page;

		if (firn_place_kind(place) != FIRN_PLACE_SLOT || i % 64 == 0) {
			assert_int_equal(firn_reader_read_page(&r, place, page), 0);
		} else {
			if (firn_place_block(place) != number) {
				number = firn_place_block(place);
				assert_int_equal(firn_reader_read_block(&r, number, block),
						 r.index.blocks[number].raw_pages);
			}
			found = block + (size_t)firn_place_page(place) * page_size;
		}
		assert_memory_equal(found, pages + (size_t)i * page_size, page_size);
	}
	firn_reader_close(&r);
	free(page);
	free(block);
}

#endif
