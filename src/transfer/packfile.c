/* SPDX-License-Identifier: MIT */
#include "transfer/packfile.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/sys.h"

#define DIRECT_ALIGN 4096u

size_t firn_packfile_memory_bytes(uint32_t max_blocks, uint32_t max_fills)
{
	return sizeof(struct firn_pack_memory) + (size_t)max_blocks * sizeof(struct firn_block) +
	       (size_t)max_fills * sizeof(uint64_t);
}

static void point_into(struct firn_packfile *p, void *mem)
{
	p->m = mem;
	p->blocks = (struct firn_block *)(void *)(p->m + 1);
	p->fills = (uint64_t *)(void *)(p->blocks + p->m->max_blocks);
}

void firn_packfile_format(struct firn_packfile *p, void *mem, uint32_t max_blocks, uint32_t max_fills)
{
	struct firn_pack_memory *m = mem;

	m->max_blocks = max_blocks;
	m->max_fills = max_fills;
	point_into(p, mem);
	m->magic = FIRN_PACK_MEMORY_MAGIC;
}

int firn_packfile_attach(struct firn_packfile *p, void *mem, size_t size)
{
	struct firn_pack_memory *m = mem;

	if (size < sizeof(*m) || m->magic != FIRN_PACK_MEMORY_MAGIC || m->cipher > FIRN_CIPHER_AES_256_OCB ||
	    firn_packfile_memory_bytes(m->max_blocks, m->max_fills) > size)
		return -EBADMSG;
	point_into(p, mem);
	return 0;
}

static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int firn_block_reader_open(struct firn_block_reader *r, const uint8_t *key, uint32_t page_size,
			   size_t stored_bytes)
{
	memset(r, 0, sizeof(*r));
	for (int c = FIRN_CIPHER_OFF; c <= FIRN_CIPHER_AES_256_OCB; c++) {
		int err = firn_codec_open(&r->codecs[c], (enum firn_cipher)c, c == FIRN_CIPHER_OFF ? NULL : key,
					  FIRN_BLOCK_PAGES * page_size);

		if (err) {
			firn_block_reader_close(r);
			return err;
		}
	}
	r->stored_bytes = stored_bytes;
	r->page_size = page_size;
	r->stored = reserve(stored_bytes);
	r->raw = reserve(FIRN_BLOCK_PAGES * page_size);
	if (!r->stored || !r->raw) {
		firn_block_reader_close(r);
		return -ENOMEM;
	}
	return 0;
}

void firn_block_reader_close(struct firn_block_reader *r)
{
	for (size_t c = 0; c < ARRAY_SIZE(r->codecs); c++)
		firn_codec_close(&r->codecs[c]);
	if (r->stored) {
		explicit_bzero(r->stored, r->stored_bytes);
		munmap(r->stored, r->stored_bytes);
	}
	if (r->raw) {
		explicit_bzero(r->raw, FIRN_BLOCK_PAGES * r->page_size);
		munmap(r->raw, FIRN_BLOCK_PAGES * r->page_size);
	}
	memset(r, 0, sizeof(*r));
}

/* The whole of [@offset, @offset + @len), by as few calls as the device grants.  Beyond the end of the
 * file, alignment asks for bytes that are not there: they do not matter. */
static int read_whole(struct firn_block_reader *r, const struct firn_packfile *p, uint64_t offset, size_t len,
		      size_t needed)
{
	size_t done = 0;

	while (done < needed) {
		long n = firn_sys.pread(p->fd, (char *)r->stored + done, len - done, offset + done);

		r->read_calls++;
		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EBADMSG;   /* shorter than its own table says */
		done += (size_t)n;
		r->read_bytes += (uint64_t)n;
		if (done < needed && done % DIRECT_ALIGN)
			return -EBADMSG;
	}
	return 0;
}

static int decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void *stored)
{
	struct firn_piece piece = firn_piece_of_block(p->m->generation, number, p->m->page_size,
						      &p->blocks[number]);
	int err;

	if (r->raw_generation == p->m->generation && r->raw_block == number)
		return 0;
	r->raw_generation = 0;
	err = firn_codec_decode(&r->codecs[p->m->cipher], &piece, stored, r->raw);
	if (err)
		return err;
	r->raw_generation = p->m->generation;
	r->raw_block = number;
	r->blocks_read++;
	return 0;
}

int firn_block_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number)
{
	struct firn_chunk c;
	uint64_t start, end;
	int err;

	if (r->raw_generation == p->m->generation && r->raw_block == number)
		return 0;
	if (number >= p->m->max_blocks || !p->blocks[number].offset.v)
		return -EBADMSG;
	start = firn_align_down(p->blocks[number].offset.v, DIRECT_ALIGN);
	end = p->blocks[number].offset.v + p->blocks[number].stored_bytes + FIRN_TAG_BYTES;
	if (end - start > r->stored_bytes - DIRECT_ALIGN)
		return -EBADMSG;
	err = read_whole(r, p, start, firn_align_up(end - start, DIRECT_ALIGN), end - start);
	if (err)
		return err;
	c.first = number;
	c.count = 1;
	c.offset = start;
	return firn_chunk_decode(r, p, &c, number);
}

int firn_chunk_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first,
		    struct firn_chunk *ret)
{
	uint64_t start, end = 0;
	uint32_t n = first;
	int err;

	if (first >= p->m->max_blocks || !p->blocks[first].offset.v)
		return -EBADMSG;
	start = firn_align_down(p->blocks[first].offset.v, DIRECT_ALIGN);
	for (; n < p->m->blocks; n++) {
		uint64_t e = p->blocks[n].offset.v + p->blocks[n].stored_bytes + FIRN_TAG_BYTES;

		if (!p->blocks[n].offset.v || e < start || firn_align_up(e - start, DIRECT_ALIGN) > r->stored_bytes)
			break;
		end = e;
	}
	if (n == first)
		return -EBADMSG;
	err = read_whole(r, p, start, firn_align_up(end - start, DIRECT_ALIGN), end - start);
	if (err)
		return err;
	ret->first = first;
	ret->count = n - first;
	ret->offset = start;
	return 0;
}

int firn_chunk_decode(struct firn_block_reader *r, const struct firn_packfile *p, const struct firn_chunk *c,
		      uint32_t number)
{
	return decode(r, p, number, (char *)r->stored + (p->blocks[number].offset.v - c->offset));
}
