/* SPDX-License-Identifier: MIT */
/* src/transfer/packfile.c: a pack comes back by few, large, aligned reads. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sys/sys.h"
#include "transfer/packfile.h"

#define PS 4096u

static atomic_uint calls;
static atomic_ullong bytes_read;
static uint64_t file_bytes;

/* Each byte of the file tells its offset. */
static long fake_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	uint64_t *words = buf;

	(void)fd;
	assert_true(len <= FIRN_READER_STORED_BYTES);
	assert_int_equal((uintptr_t)buf % 4096, 0);
	assert_int_equal(len % 4096, 0);
	assert_int_equal(offset % 4096, 0);
	if (offset >= file_bytes)
		return 0;
	len = (size_t)firn_min_u64(len, file_bytes - offset);
	for (size_t i = 0; i < len / 8; i++)
		words[i] = offset + i * 8;
	calls++;
	bytes_read += len;
	return (long)len;
}

/* A pack of @n blocks of about @stored_bytes; the blocks' spans. */
static uint64_t make_pack(struct firn_packfile *p, void *mem, uint32_t n, uint32_t stored_bytes)
{
	uint64_t at = 4096;

	firn_packfile_format(p, mem, n, 0);
	p->fd = 0;
	p->m->generation = 1;
	p->m->page_size = PS;
	p->m->cipher = FIRN_CIPHER_OFF;
	p->m->blocks = n;
	for (uint32_t i = 0; i < n; i++) {
		p->blocks[i] = (struct firn_block){
			.offset = { at }, .stored_bytes = stored_bytes - i * 7919 % (stored_bytes / 2), .raw_pages = 16,
		};
		at += firn_block_span_bytes(p->blocks[i].stored_bytes);
	}
	p->m->bytes = file_bytes = firn_align_up(at, 4096) + 4096;
	return at - 4096;
}

static void test_few_reads(void **state)
{
	static const struct {
		uint32_t blocks, stored_bytes;
	} packs[] = { { 1, 100 }, { 100, 65536 }, { 3000, 33000 }, { 5000, 65536 }, { 20000, 400 } };

	(void)state;
	firn_sys.pread = fake_pread;
	for (size_t k = 0; k < ARRAY_SIZE(packs); k++) {
		uint32_t n = packs[k].blocks, next = 0;
		void *mem = calloc(1, firn_packfile_memory_bytes(n, 0));
		struct firn_block_reader r;
		struct firn_packfile p;
		uint64_t bytes = make_pack(&p, mem, n, packs[k].stored_bytes);

		assert_int_equal(firn_block_reader_open(&r, (const uint8_t[32]){ 0 }, PS, FIRN_READER_STORED_BYTES, 4), 0);
		calls = 0;
		bytes_read = 0;
		while (next < n) {
			struct firn_chunk c;

			assert_int_equal(firn_chunk_read(&r, &p, next, n, &c), 0);
			assert_int_equal(c.first, next);
			assert_true(c.count > 0 && c.first + c.count <= n);
			for (uint32_t i = c.first; i < c.first + c.count; i++) {
				uint64_t at = p.blocks[i].offset.v, word;

				memcpy(&word, (const char *)firn_chunk_stored(&r, &p, i) + (8 - at % 8) % 8, 8);
				assert_true(word == firn_align_up(at, 8));
			}
			next += c.count;
			if (next % 3)
				firn_chunk_ahead(&r, &p, next, n);
		}
		assert_true(calls <= (bytes + FIRN_READER_STORED_BYTES - 1) / FIRN_READER_STORED_BYTES);
		assert_true(bytes_read <= firn_align_up(bytes, 4096));
		firn_block_reader_close(&r);
		free(mem);
	}
}

/* Not all of it, and not in its order: nothing is read but what is asked for, and it is right. */
static void test_parts(void **state)
{
	static const struct {
		uint32_t first, end;
	} parts[] = { { 0, 10 }, { 10, 400 }, { 400, 401 }, { 401, 3000 }, { 5, 6 }, { 6, 3000 }, { 2999, 3000 }, { 0, 1 } };
	void *mem = calloc(1, firn_packfile_memory_bytes(3000, 0));
	struct firn_block_reader r;
	struct firn_packfile p;

	(void)state;
	firn_sys.pread = fake_pread;
	make_pack(&p, mem, 3000, 33000);
	assert_int_equal(firn_block_reader_open(&r, (const uint8_t[32]){ 0 }, PS, 1u << 20, 4), 0);
	for (size_t k = 0; k < 4 * ARRAY_SIZE(parts); k++) {
		uint32_t i = (uint32_t)(k * 7 / 4 % ARRAY_SIZE(parts)), next = (i + 7) % ARRAY_SIZE(parts);
		struct firn_chunk c;

		bytes_read = 0;
		assert_int_equal(firn_chunk_read(&r, &p, parts[i].first, parts[i].end, &c), 0);
		assert_int_equal(c.first, parts[i].first);
		assert_true(c.count > 0 && c.first + c.count <= parts[i].end);
		for (uint32_t b = c.first; b < c.first + c.count; b++) {
			uint64_t at = firn_align_up(p.blocks[b].offset.v, 8), word;

			memcpy(&word, (const char *)firn_chunk_stored(&r, &p, b) + (at - p.blocks[b].offset.v), 8);
			assert_true(word == at);
		}
		assert_true(bytes_read <= 2u << 20);        /* the other one that was read ahead, too */
		if (k % 2)
			firn_chunk_ahead(&r, &p, parts[next].first, parts[next].end);
	}
	assert_int_equal(firn_chunk_read(&r, &p, 3000, 3001, &(struct firn_chunk){ 0 }), -EBADMSG);
	firn_block_reader_close(&r);
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_few_reads),
		cmocka_unit_test(test_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
