/* SPDX-License-Identifier: MIT */
/* src/pack/reader.c and index.c: a damaged, cut or forged pack is an error, never other bytes. */
#include "pack_fixture.h"

#include <xxhash.h>

#define PS 4096u
#define PAGES 200u
#define BLOCKS_CAP 64u

static struct firn_block blocks[BLOCKS_CAP];
static uint64_t fills[16];
static uint32_t places[PAGES];
static uint8_t pages[PAGES * PS];

/* A pack of two slices with every kind of page. */
static void make_pack(struct memory_file *f, enum firn_cipher cipher)
{
	struct firn_builder_config config;
	struct firn_builder_pack pack = {
		.generation = 0x0123456789abcdef,
		.pid = 4711,
		.start_time = 99,
		.created_ns = 1234567890123456789,
		.boot_id = { 1, 2, 3 },
		.comm = "target",
		.blocks = blocks,
		.blocks_cap = BLOCKS_CAP,
		.fills = fills,
		.fills_cap = ARRAY_SIZE(fills),
	};
	struct firn_builder *b;
	uint64_t seed = 21;

	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t *page = pages + i * PS;

		if (i % 9 == 0)
			memset(page, 0, PS);
		else if (i % 9 == 1)
			memset(page, (int)(i % 5 + 1), PS);
		else if (i >= 48 && i < 70)
			fill_random(&seed, page, PS);
		else if (i % 9 == 2 && i > 9)
			memcpy(page, page - 7 * PS, PS);
		else
			fill_half(&seed, page, PS);
	}
	file_open(f, 2 << 20);
	config = file_config(f, cipher, PS);
	assert_int_equal(firn_builder_open(&b, &config), 0);
	assert_int_equal(firn_builder_begin(b, &pack), 0);
	assert_int_equal(add_pages(b, pages, 90, places), 0);
	assert_int_equal(firn_builder_end_slice(b), 0);
	assert_int_equal(add_pages(b, pages + 90 * PS, PAGES - 90, places + 90),
			 0);
	assert_int_equal(finish_simple(b, PAGES, places, NULL), 0);
	firn_builder_close(b);
}

static const uint8_t *key_of(enum firn_cipher cipher)
{
	return cipher == FIRN_CIPHER_OFF ? NULL : test_key;
}

/* Open and read everything.  Returns 0 when all pages are right; any error; never other bytes. */
static int read_all(struct memory_file *f, const uint8_t *key)
{
	uint8_t raw[16 * PS], page[PS];
	struct firn_reader r;
	int e;

	e = firn_reader_open(&r, key, f->bytes, file_read, f);
	if (e < 0)
		return e;
	e = firn_reader_verify(&r);
	for (uint32_t i = 0, number = UINT32_MAX; e == 0 && i < r.index.nplaces; i++) {
		uint32_t place = r.index.places[i];

		assert_int_equal(r.index.nplaces, PAGES);
		if (firn_place_kind(place) == FIRN_PLACE_SLOT) {
			if (firn_place_block(place) != number)
				assert_true(firn_reader_read_block(&r, firn_place_block(place),
								   raw) > 0);
			number = firn_place_block(place);
			assert_memory_equal(raw + firn_place_page(place) * PS, pages + i * PS, PS);
		} else {
			assert_int_equal(firn_reader_read_page(&r, place, page), 0);
			assert_memory_equal(page, pages + i * PS, PS);
		}
	}
	firn_reader_close(&r);
	return e;
}

static void test_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		uint8_t page[PS];
		struct memory_file f;
		struct firn_reader r;

		make_pack(&f, all_ciphers[i]);
		assert_int_equal(firn_reader_open(&r, key_of(all_ciphers[i]), f.bytes, file_read,
						  &f),
				 0);
		assert_int_equal(r.header.pid, 4711);
		assert_int_equal(r.header.start_time, 99);
		assert_int_equal(r.header.created_ns, 1234567890123456789);
		assert_string_equal(r.header.comm, "target");
		assert_int_equal(r.header.cipher, all_ciphers[i]);
		assert_int_equal(r.footer.slices, 2);
		assert_true(r.footer.raw_blocks > 0 && r.footer.raw_blocks < r.footer.blocks);
		assert_true(r.footer.duplicate_pages > 0);
		assert_int_equal(r.footer.zero_pages + r.footer.fill_pages +
					 r.footer.duplicate_pages + r.footer.unique_pages,
				 PAGES);
		assert_int_equal(r.index.ntargets, 1);
		assert_int_equal(r.index.targets[0].pid, 4711);
		assert_int_equal(r.index.runs[0].start.v, 0x7f0000000000);
		assert_memory_equal(r.index.blocks, blocks, r.index.nblocks * sizeof(*blocks));
		assert_int_equal(firn_reader_read_page(&r, 0, page), -EINVAL);
		assert_int_equal(firn_reader_read_page(&r, firn_place(FIRN_PLACE_ZERO, 1), page),
				 -EINVAL);
		assert_int_equal(firn_reader_read_page(&r,
						       firn_place(FIRN_PLACE_FILL, r.index.nfills),
						       page),
				 -EINVAL);
		assert_int_equal(
			firn_reader_read_page(&r, firn_place(FIRN_PLACE_SLOT, r.index.nblocks * 16),
					      page),
			-EINVAL);
		assert_int_equal(firn_reader_read_page(&r,
						       firn_place(FIRN_PLACE_SLOT,
								  (r.index.nblocks - 1) * 16 + 15),
						       page),
				 -EINVAL);
		firn_reader_close(&r);
		firn_reader_close(&r);
		assert_int_equal(read_all(&f, key_of(all_ciphers[i])), 0);
		file_close(&f);
	}
}

static void test_wrong_key(void **state)
{
	uint8_t other[FIRN_KEY_BYTES] = { 0 };

	(void)state;
	for (size_t i = 1; i < ARRAY_SIZE(all_ciphers); i++) {
		struct memory_file f;

		make_pack(&f, all_ciphers[i]);
		assert_int_equal(read_all(&f, NULL), -ENOKEY);
		assert_int_equal(read_all(&f, other), -EBADMSG);
		file_close(&f);
	}
}

static void test_truncation(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		struct memory_file f;
		size_t whole;

		make_pack(&f, all_ciphers[i]);
		whole = f.bytes;
		for (f.bytes = 0; f.bytes < whole; f.bytes += f.bytes % 4096 ? 1 : 4095)
			assert_int_equal(read_all(&f, key_of(all_ciphers[i])), -EBADMSG);
		/* A part of it lost, the footer where it belongs. */
		for (size_t cut = 4096; cut < whole - 4096; cut += 4096) {
			struct memory_file g;

			file_open(&g, whole);
			g.bytes = whole - 4096;
			memcpy(g.data, f.data, cut);
			memcpy(g.data + cut, f.data + cut + 4096, whole - cut - 4096);
			assert_int_equal(read_all(&g, key_of(all_ciphers[i])), -EBADMSG);
			file_close(&g);
		}
		file_close(&f);
	}
}

/* One bit anywhere: an error, or a bit that says nothing (padding); never other bytes. */
static void test_flips(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		const struct firn_pack_footer *footer;
		const uint8_t *key = key_of(all_ciphers[i]);
		size_t harmless = 0, padding, end = 4096;
		struct memory_file f;

		make_pack(&f, all_ciphers[i]);
		footer = (const struct firn_pack_footer *)(f.data + f.bytes - 4096);
		padding = f.bytes - 4096 - footer->index_offset - footer->index_bytes;
		for (uint32_t k = 0; k < footer->blocks; k++) {
			padding += blocks[k].offset.v - end;
			end = blocks[k].offset.v + blocks[k].stored_bytes + FIRN_TAG_BYTES;
		}
		padding += footer->index_offset - end;
		for (size_t at = 0; at < f.bytes; at++) {
			bool data = at >= 4096 && at < footer->index_offset;
			int e;

			/* The inside of blocks by sample; their edges and all else byte by byte. */
			if (data && at % 4096 > 64 && at % 61)
				continue;
			f.data[at] ^= 1 << at % 8;
			e = read_all(&f, key);
			f.data[at] ^= 1 << at % 8;
			if (e == 0)
				harmless++;
			else if (at < 4096)
				assert_true(e == -EBADMSG || e == -EOPNOTSUPP);
			else
				assert_int_equal(e, -EBADMSG);
			if (e == 0)
				assert_true(at >= 4096 && at < f.bytes - 4096);
		}
		/* Pieces of the index are padded too, by fewer than 16 bytes each. */
		assert_true(harmless <= padding + 16 * footer->index_pieces);
		assert_int_equal(read_all(&f, key), 0);
		file_close(&f);
	}
}

/* Blocks of the same size in each other's place: the number is part of what the tag vouches for. */
static void test_swapped_blocks(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		size_t n = 16 * PS + FIRN_TAG_BYTES;
		uint8_t *swap = malloc(n);
		struct memory_file f;
		struct firn_reader r;
		uint32_t a = UINT32_MAX, b = UINT32_MAX;

		make_pack(&f, all_ciphers[i]);
		assert_int_equal(firn_reader_open(&r, key_of(all_ciphers[i]), f.bytes, file_read,
						  &f),
				 0);
		for (uint32_t k = 0; k < r.index.nblocks; k++) {
			if (r.index.blocks[k].codec == FIRN_CODEC_RAW &&
			    r.index.blocks[k].raw_pages == 16) {
				b = a;
				a = k;
			}
		}
		if (b != UINT32_MAX) {
			uint8_t *pa = f.data + r.index.blocks[a].offset.v;
			uint8_t *pb = f.data + r.index.blocks[b].offset.v;

			memcpy(swap, pa, n);
			memcpy(pa, pb, n);
			memcpy(pb, swap, n);
		} else {
			memcpy(f.data + r.index.blocks[1].offset.v,
			       f.data + r.index.blocks[0].offset.v, n / 2);
		}
		assert_int_equal(firn_reader_verify(&r), -EBADMSG);
		firn_reader_close(&r);
		file_close(&f);
		free(swap);
	}
}

static void seal_again(struct memory_file *f)
{
	struct firn_pack_header *h = (struct firn_pack_header *)f->data;
	struct firn_pack_footer *t = (struct firn_pack_footer *)(f->data + f->bytes - 4096);
	struct firn_codec c;

	assert_int_equal(firn_codec_open(&c, FIRN_CIPHER_OFF, NULL, 65536), 0);
	h->checksum = XXH3_64bits(h, offsetof(struct firn_pack_header, checksum));
	assert_int_equal(firn_codec_sign(&c, h->generation, h, sizeof(*h), t,
					 offsetof(struct firn_pack_footer, seal), t->seal), 0);
	t->checksum = XXH3_64bits(t, offsetof(struct firn_pack_footer, checksum));
	firn_codec_close(&c);
}

/*
 * Without a cipher anyone can make checksums fit.  Forged headers and footers may say what they
 * like: the reader reads nothing beyond the file, allocates no more than the file could hold, and
 * does not crash.
 */
static void test_forged(void **state)
{
	static const uint64_t nasty[] = {
		0, 1, 15, 16, 4095, 4096, 4097, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
		0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFF000, 0xFFFFFFFFFFFFFFF0,
		0xFFFFFFFFFFFFFFFF,
	};
	uint64_t seed = test_seed();
	struct memory_file f;
	uint8_t *whole;

	(void)state;
	make_pack(&f, FIRN_CIPHER_OFF);
	whole = malloc(f.bytes);
	memcpy(whole, f.data, f.bytes);
	for (int i = 0; i < 20000; i++) {
		bool header = next_random(&seed) % 4 == 0;
		uint8_t *base = header ? f.data : f.data + f.bytes - 4096;
		unsigned int changes = 1 + (unsigned int)(next_random(&seed) % 3);
		struct firn_reader r;
		int e;

		for (unsigned int k = 0; k < changes; k++) {
			size_t at = 8 + next_random(&seed) % ((header ? 80 : 112) / 4) * 4;
			uint64_t v = nasty[next_random(&seed) % ARRAY_SIZE(nasty)];

			if (next_random(&seed) % 3 == 0) {
				memcpy(&v, base + at, 4);
				v += next_random(&seed) % 33 - 16;
			}
			memcpy(base + at, &v, next_random(&seed) % 2 ? 4 : 8);
		}
		seal_again(&f);
		e = firn_reader_open(&r, test_key, f.bytes, file_read, &f);
		if (e == 0)
			firn_reader_verify(&r);
		else
			assert_true(e == -EBADMSG || e == -EOPNOTSUPP);
		firn_reader_close(&r);
		memcpy(f.data, whole, 4096);
		memcpy(f.data + f.bytes - 4096, whole + f.bytes - 4096, 4096);
	}
	assert_int_equal(read_all(&f, NULL), 0);
	free(whole);
	file_close(&f);
}

/* Forged piece heads, with the rest of the file as it was. */
static void test_forged_pieces(void **state)
{
	uint64_t seed = test_seed();
	struct firn_pack_footer *t;
	struct memory_file f;

	(void)state;
	make_pack(&f, FIRN_CIPHER_OFF);
	t = (struct firn_pack_footer *)(f.data + f.bytes - 4096);
	for (int i = 0; i < 5000; i++) {
		uint8_t *head = f.data + t->index_offset, saved[16];
		struct firn_reader r;
		uint32_t v = (uint32_t)next_random(&seed) >> next_random(&seed) % 32;

		memcpy(saved, head, 16);
		memcpy(head + next_random(&seed) % 4 * 4, &v, 4);
		if (memcmp(saved, head, 16))
			assert_int_equal(firn_reader_open(&r, NULL, f.bytes, file_read, &f),
					 -EBADMSG);
		memcpy(head, saved, 16);
	}
	assert_int_equal(read_all(&f, NULL), 0);
	file_close(&f);
}

/* A random file is no pack. */
static void test_noise(void **state)
{
	uint64_t seed = 77;
	struct memory_file f;

	(void)state;
	file_open(&f, 65536);
	fill_random(&seed, f.data, 65536);
	for (f.bytes = 0; f.bytes <= 65536; f.bytes += 4096)
		assert_int_equal(read_all(&f, NULL), -EBADMSG);
	file_close(&f);
}

static void test_index_check(void **state)
{
	struct firn_pack_target targets[2] = { { .first_run = 0, .runs = 2 },
					       { .first_run = 2, .runs = 1 } };
	struct firn_pack_run runs[3] = {
		{ { 0x1000 }, 2, 0 }, { { 0x3000 }, 1, 2 }, { { 0x1000 }, 4, 0 },
	};
	struct firn_block table[2] = {
		{ { 4096 }, 65536, 16, FIRN_CODEC_RAW, 0 },
		{ { 4096 + 65552 }, 100, 3, FIRN_CODEC_LZ4, 0 },
	};
	uint64_t words[1] = { 5 };
	uint32_t p[4] = {
		firn_place(FIRN_PLACE_ZERO, 0),
		firn_place(FIRN_PLACE_FILL, 0),
		firn_place(FIRN_PLACE_SLOT, 15),
		firn_place(FIRN_PLACE_SLOT, 18),
	};
	struct firn_pack_index x = {
		.targets = targets, .runs = runs, .blocks = table, .fills = words, .places = p,
		.ntargets = 2, .nruns = 3, .nblocks = 2, .nfills = 1, .nplaces = 4, .place_stride = 4,
		.kind = FIRN_PACK_COPIED,
	};
	uint64_t end = 4096 + 65552 + 128;

#define GOOD() assert_int_equal(firn_pack_index_check(&x, PS, end), 0)
#define BAD(lvalue, value) do {                                                         \
		__typeof__(lvalue) was = (lvalue);                                      \
									                \
		(lvalue) = (value);                                                     \
		assert_int_equal(firn_pack_index_check(&x, PS, end), -EBADMSG);         \
		(lvalue) = was;                                                         \
	} while (0)

	(void)state;
	GOOD();
	BAD(end, end - 1);
	BAD(end, 0);
	BAD(x.ntargets, 0);
	BAD(x.ntargets, 1);             /* a run that is nobody's */
	BAD(x.nruns, 2);
	BAD(x.nplaces, 3);
	BAD(x.nblocks, 1);
	BAD(x.nfills, 0);
	BAD(x.place_stride, 0);
	BAD(x.place_stride, 6);
	BAD(targets[0].first_run, 1);
	BAD(targets[1].first_run, 1);
	BAD(targets[1].runs, 2);
	BAD(targets[1].runs, UINT32_MAX);
	BAD(targets[1].reserved, 1);
	BAD(runs[0].start.v, 0x1001);
	BAD(runs[0].npages, 0);
	BAD(runs[0].npages, 3);         /* overlaps the next */
	BAD(runs[2].npages, 5);
	BAD(runs[2].npages, UINT32_MAX);
	BAD(runs[2].first_place, 1);
	BAD(runs[2].first_place, UINT32_MAX);
	BAD(runs[2].start.v, 0xFFFFFFFFFFFFF000);
	BAD(runs[1].start.v, 0x2000);
	BAD(runs[1].start.v, 0);
	BAD(table[0].offset.v, 0);
	BAD(table[0].offset.v, 4097);
	BAD(table[0].offset.v, 4112);
	BAD(table[1].offset.v, 4096);
	BAD(table[1].offset.v, 0xFFFFFFFFFFFFFFF0);
	BAD(table[0].stored_bytes, 65535);
	BAD(table[0].raw_pages, 17);
	BAD(table[0].raw_pages, 0);
	BAD(table[0].codec, 2);
	BAD(table[0].codec, FIRN_CODEC_LZ4);    /* did not shrink */
	BAD(table[0].reserved, 1);
	BAD(table[1].stored_bytes, 0);
	BAD(table[1].stored_bytes, 113);
	BAD(table[1].stored_bytes, UINT32_MAX);
	BAD(table[1].raw_pages, 2);             /* its page 2 is somebody's place */
	BAD(p[0], 0);                           /* never a zero page by default */
	BAD(p[0], firn_place(FIRN_PLACE_ZERO, 1));
	BAD(p[1], firn_place(FIRN_PLACE_FILL, 1));
	BAD(p[2], firn_place(FIRN_PLACE_SLOT, 19));
	BAD(p[2], firn_place(FIRN_PLACE_SLOT, 32));
	BAD(p[2], UINT32_MAX);
	GOOD();
	targets[0].runs = 3;
	targets[1].first_run = 3;
	targets[1].runs = 0;
	runs[2].start.v = 0x4000;
	GOOD();
#undef GOOD
#undef BAD
}

static int failing_read(void *ctx, void *buf, size_t len, struct firn_poff offset)
{
	struct memory_file *f = ctx;

	if (++f->writes == f->fail_at)
		return -EIO;
	return file_read(ctx, buf, len, offset);
}

/* The n-th read fails: its errno comes back, and nothing leaks. */
static void test_read_failures(void **state)
{
	struct memory_file f;
	bool failed = true;
	unsigned int n;

	(void)state;
	make_pack(&f, FIRN_CIPHER_AES_256_GCM);
	for (n = 1; failed; n++) {
		struct firn_reader r;
		int e;

		f.writes = 0;
		f.fail_at = n;
		e = firn_reader_open(&r, test_key, f.bytes, failing_read, &f);
		if (e == 0) {
			e = firn_reader_verify(&r);
			firn_reader_close(&r);
		}
		failed = e != 0;
		if (failed)
			assert_int_equal(e, -EIO);
	}
	assert_true(n > 10);
	file_close(&f);
}

static void test_no_allocation(void **state)
{
	(void)state;
	if (FIRN_TEST_SANITIZED)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(all_ciphers); i++) {
		uint8_t page[PS];
		struct memory_file f;
		struct firn_reader r;
		unsigned long before;

		make_pack(&f, all_ciphers[i]);
		assert_int_equal(firn_reader_open(&r, key_of(all_ciphers[i]), f.bytes, file_read,
						  &f),
				 0);
		before = allocations;
		assert_int_equal(firn_reader_verify(&r), 0);
		assert_int_equal(firn_reader_read_page(&r, r.index.places[5], page), 0);
		f.data[r.index.blocks[3].offset.v] ^= 1;
		assert_int_equal(firn_reader_verify(&r), -EBADMSG);
		assert_int_equal(allocations - before, 0);
		firn_reader_close(&r);
		file_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_wrong_key),
		cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_flips),
		cmocka_unit_test(test_swapped_blocks),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_forged_pieces),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_index_check),
		cmocka_unit_test(test_read_failures),
		cmocka_unit_test(test_no_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
