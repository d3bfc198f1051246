/* SPDX-License-Identifier: MIT */
/* A pack made upon an earlier one: what is found there, what is not, and that every page comes back. */
#include "pack_fixture.h"

#define PS 4096u
#define PAGES 900u
#define BLOCKS_CAP 256u

static uint8_t other_key[FIRN_KEY_BYTES] = { 1 };

struct made {
	struct memory_file f;
	struct firn_block blocks[BLOCKS_CAP];
	uint64_t fills[64];
	uint32_t places[PAGES];
	struct firn_digest digests[PAGES];
	struct firn_builder_stats stats;
	struct firn_reader r;
};

static void test_digest(void **state)
{
	static uint8_t page[PS], was[PS];
	struct firn_digest first, again;
	struct firn_digester d, other;
	uint64_t seed = test_seed();

	(void)state;
	fill_random(&seed, page, sizeof(page));
	assert_int_equal(firn_digester_open(&d, test_key), 0);
	assert_int_equal(firn_digester_open(&other, other_key), 0);
	first = firn_digest_page(&d, page, PS);
	again = firn_digest_page(&other, page, PS);
	assert_memory_not_equal(&first, &again, sizeof(first));
	for (unsigned int i = 0; i < 4000; i++) {
		memcpy(was, page, PS);
		page[next_random(&seed) % PS] ^= (uint8_t)(1u << next_random(&seed) % 8);
		again = firn_digest_page(&d, page, PS);
		assert_memory_not_equal(&first, &again, sizeof(first));
		memcpy(page, was, PS);
	}
	again = firn_digest_page(&d, page, PS);
	assert_memory_equal(&first, &again, sizeof(first));
	/* Two words that change places, and two sign bits: a sum of products does not see all of these. */
	for (unsigned int i = 0; i + 8 < PS / 8; i++) {
		uint64_t *w = (uint64_t *)(void *)page;

		memcpy(was, page, PS);
		w[i] ^= 1ull << 63;
		w[i + 8] ^= 1ull << 63;
		again = firn_digest_page(&d, page, PS);
		assert_memory_not_equal(&first, &again, sizeof(first));
		memcpy(page, was, PS);
		w[i] = w[i + 8];
		memcpy(&w[i + 8], was + i * 8ull, 8);
		again = firn_digest_page(&d, page, PS);
		assert_memory_not_equal(&first, &again, sizeof(first));
		memcpy(page, was, PS);
	}
	firn_digester_close(&d);
	firn_digester_close(&other);
}

static void test_find(void **state)
{
	const struct firn_pack_run runs[] = {
		{ { 0x10000 }, 2, 0 }, { { 0x20000 }, 1, 2 }, { { 0x21000 }, 1, 3 },
	};
	const uint32_t places[] = {
		firn_place(FIRN_PLACE_SLOT, 0), firn_place(FIRN_PLACE_ZERO, 0), firn_place(FIRN_PLACE_SLOT, 16),
		firn_place(FIRN_PLACE_SLOT, 17),
	};
	const struct firn_digest digests[] = { { { 1, 2 } }, { { 0, 0 } }, { { 3, 4 } }, { { 5, 6 } } }, zero = { { 0, 0 } };
	const struct firn_base base = { .nruns = 3, .runs = runs, .places = places, .digests = digests };
	const struct firn_base empty = { .nruns = 0 };
	uint32_t hint = 0;

	(void)state;
#define FIND(address, digest, below) firn_base_find(&base, PS, address, digest, below, &hint)
	for (int round = 0; round < 2; round++) {
		assert_int_equal(FIND(0x21000, &digests[3], UINT32_MAX), places[3]);
		assert_int_equal(FIND(0x10000, &digests[0], UINT32_MAX), places[0]);
		assert_int_equal(FIND(0x20000, &digests[2], UINT32_MAX), places[2]);
		assert_int_equal(FIND(0x20000, &digests[2], 1), 0);
		assert_int_equal(FIND(0x10000, &digests[0], 1), places[0]);
		assert_int_equal(FIND(0x20000, &digests[3], UINT32_MAX), 0);
		assert_int_equal(FIND(0x11000, &zero, UINT32_MAX), 0);          /* no slot */
		assert_int_equal(FIND(0x12000, &zero, UINT32_MAX), 0);
		assert_int_equal(FIND(0xf000, &digests[0], UINT32_MAX), 0);
		assert_int_equal(FIND(0x22000, &digests[3], UINT32_MAX), 0);
		hint = 1000;
	}
	hint = 0;
	assert_int_equal(firn_base_find(&empty, PS, 0x10000, &digests[0], UINT32_MAX, &hint), 0);
#undef FIND
}

/* Make a pack of the pages as they are, upon @base or with digests, and open it. */
static struct made *make(const uint8_t *pages, enum firn_cipher cipher, uint64_t generation, struct made *upon,
			 uint32_t below)
{
	struct made *m = calloc(1, sizeof(*m));
	const struct firn_pack_run runs[2] = {
		{ { (uintptr_t)pages }, 300, 0 }, { { (uintptr_t)pages + 300 * PS }, PAGES - 300, 300 },
	};
	struct firn_pack_target target = { .pid = 4711, .start_time = 99, .runs = 2, .comm = "target" };
	struct firn_builder_index index = {
		.targets = &target, .runs = runs, .places = m->places, .ntargets = 1, .nruns = 2, .nplaces = PAGES,
	};
	struct firn_base base;
	struct firn_builder_pack pack = {
		.generation = generation, .blocks = m->blocks, .blocks_cap = BLOCKS_CAP,
		.fills = m->fills, .fills_cap = ARRAY_SIZE(m->fills),
		.digests = upon ? NULL : m->digests, .base = upon ? &base : NULL,
	};
	struct firn_builder_config config;
	struct firn_builder *b;

	file_open(&m->f, 16 << 20);
	m->f.threads = 3;
	config = file_config(&m->f, cipher, PS);
	config.digest_key = test_key;
	if (upon)
		firn_reader_base(&upon->r, &base);
	assert_int_equal(firn_builder_open(&b, &config), 0);
	assert_int_equal(firn_builder_begin(b, &pack), 0);
	firn_builder_reuse_below(b, below);
	assert_int_equal(firn_builder_add(b, runs, 1, m->places), 0);
	firn_builder_reuse_below(b, UINT32_MAX);
	assert_int_equal(firn_builder_end_slice(b), 0);
	assert_int_equal(firn_builder_add(b, runs + 1, 1, m->places), 0);
	assert_int_equal(firn_builder_finish(b, &index, NULL), 0);
	firn_builder_get_stats(b, &m->stats);
	firn_builder_close(b);
	assert_int_equal(m->stats.zero_pages + m->stats.fill_pages + m->stats.duplicate_pages + m->stats.unique_pages +
				 m->stats.reused_pages,
			 PAGES);
	assert_int_equal(firn_reader_open(&m->r, cipher == FIRN_CIPHER_OFF ? NULL : test_key, m->f.bytes, file_read, &m->f),
			 0);
	return m;
}

static void discard(struct made *m)
{
	firn_reader_close(&m->r);
	file_close(&m->f);
	free(m);
}

static void compare(struct made *m, const uint8_t *pages)
{
	static uint8_t page[PS];

	for (uint32_t i = 0; i < PAGES; i++) {
		assert_int_equal(firn_reader_read_page(&m->r, m->r.index.places[i], page), 0);
		assert_memory_equal(page, pages + (size_t)i * PS, PS);
	}
	assert_int_equal(firn_reader_verify(&m->r), 0);
}

static void make_pages(uint8_t *pages, uint64_t *seed)
{
	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t *page = pages + (size_t)i * PS;

		if (i % 13 == 0)
			memset(page, 0, PS);
		else if (i % 13 == 1)
			memset(page, (int)(i / 13 % 9 + 1), PS);
		else if (i % 13 == 2 && i > 26)
			memcpy(page, page - 13ull * PS, PS);    /* a duplicate */
		else
			fill_half(seed, page, PS);
	}
}

static void test_random_rounds(void **state)
{
	uint64_t seed = test_seed();
	uint8_t *pages = aligned_alloc(PS, (size_t)PAGES * PS);

	(void)state;
	for (unsigned int c = 0; c < ARRAY_SIZE(all_ciphers); c++) {
		struct made *base;

		make_pages(pages, &seed);
		base = make(pages, all_ciphers[c], 1, NULL, UINT32_MAX);
		assert_int_equal(base->stats.reused_pages, 0);
		compare(base, pages);
		for (uint32_t round = 0; round < 12; round++) {
			uint32_t changes = (uint32_t)(next_random(&seed) % (round % 2 ? 40 : PAGES)), slots = 0, unchanged = 0;
			static bool changed[PAGES];
			struct made *m;

			if (!round)
				changes = 0;
			memset(changed, 0, sizeof(changed));
			for (uint32_t i = 0; i < changes; i++) {
				uint32_t n = (uint32_t)(next_random(&seed) % PAGES);
				uint8_t *page = pages + (size_t)n * PS;

				changed[n] = true;
				switch (next_random(&seed) % 4) {
				case 0:
					page[next_random(&seed) % PS] ^= 0x80;
					break;
				case 1:
					fill_half(&seed, page, PS);
					break;
				case 2:
					memset(page, (int)(next_random(&seed) % 3), PS);
					break;
				default:
					memcpy(page, pages + next_random(&seed) % PAGES * PS, PS);
				}
			}
			m = make(pages, all_ciphers[c], 2 + round, base, UINT32_MAX);
			for (uint32_t i = 0; i < PAGES; i++) {
				slots += firn_place_kind(base->r.index.places[i]) == FIRN_PLACE_SLOT;
				unchanged += firn_place_kind(base->r.index.places[i]) == FIRN_PLACE_SLOT && !changed[i];
			}
			/* Changes add up from round to round, and may undo one. */
			assert_true(m->stats.reused_pages <= slots);
			if (!round) {
				assert_int_equal(m->stats.reused_pages, slots);
				assert_int_equal(m->stats.blocks, 0);
			} else if (round == 1) {
				assert_true(m->stats.reused_pages >= unchanged);
			}
			if (m->stats.reused_pages) {
				static uint8_t raw[FIRN_BLOCK_PAGES * PS];

				assert_int_equal(firn_reader_read_block(&m->r, 0, raw), -ENOLINK);
			}
			assert_int_equal(firn_reader_set_base(&m->r, &base->r), 0);
			compare(m, pages);
			discard(m);
		}
		discard(base);
	}
	free(pages);
}

static void test_below(void **state)
{
	uint64_t seed = test_seed();
	uint8_t *pages = aligned_alloc(PS, (size_t)PAGES * PS);
	struct made *base, *m;

	(void)state;
	make_pages(pages, &seed);
	base = make(pages, FIRN_CIPHER_OFF, 1, NULL, UINT32_MAX);
	m = make(pages, FIRN_CIPHER_OFF, 2, base, 3);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t was = base->r.index.places[i], is = m->r.index.places[i];

		if (firn_place_kind(was) != FIRN_PLACE_SLOT)
			continue;
		if (firn_place_block(was) < 3)
			assert_int_equal(is, was);
		else
			assert_true(firn_place_block(is) >= base->r.footer.blocks);
	}
	assert_int_equal(firn_reader_set_base(&m->r, &base->r), 0);
	compare(m, pages);
	discard(m);
	discard(base);
	free(pages);
}

static void test_refused(void **state)
{
	uint64_t seed = test_seed();
	uint8_t *pages = aligned_alloc(PS, (size_t)PAGES * PS);
	struct firn_builder_config config;
	struct made *base, *other, *m;
	struct firn_builder_pack pack;
	struct firn_builder *b;
	struct memory_file f;
	struct firn_base of;

	(void)state;
	make_pages(pages, &seed);
	base = make(pages, FIRN_CIPHER_AES_256_OCB, 1, NULL, UINT32_MAX);
	m = make(pages, FIRN_CIPHER_AES_256_OCB, 2, base, UINT32_MAX);
	/* The same generation and pages, another pack: its seal is another. */
	pages[PAGES * PS - 1] ^= 1;
	other = make(pages, FIRN_CIPHER_AES_256_OCB, 1, NULL, UINT32_MAX);
	assert_int_equal(firn_reader_set_base(&m->r, &other->r), -EBADMSG);
	assert_int_equal(firn_reader_set_base(&m->r, &m->r), -EBADMSG);
	assert_int_equal(firn_reader_set_base(&base->r, &other->r), -EBADMSG);

	file_open(&f, 16 << 20);
	config = file_config(&f, FIRN_CIPHER_OFF, PS);
	assert_int_equal(firn_builder_open(&b, &config), 0);
	firn_reader_base(&base->r, &of);
	pack = (struct firn_builder_pack){
		.generation = 7, .blocks = m->blocks, .blocks_cap = BLOCKS_CAP, .digests = m->digests,
	};
	assert_int_equal(firn_builder_begin(b, &pack), -EINVAL);
	pack.digests = NULL;
	pack.base = &of;
	assert_int_equal(firn_builder_begin(b, &pack), -EINVAL);
	firn_builder_close(b);
	config.digest_key = test_key;
	assert_int_equal(firn_builder_open(&b, &config), 0);
	pack.digests = m->digests;
	assert_int_equal(firn_builder_begin(b, &pack), -EINVAL);
	pack.digests = NULL;
	assert_int_equal(firn_builder_begin(b, &pack), 0);
	firn_builder_close(b);
	file_close(&f);
	discard(m);
	discard(other);
	discard(base);
	free(pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_digest),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_random_rounds),
		cmocka_unit_test(test_below),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
