/* SPDX-License-Identifier: MIT */
#include "transfer/packfile.h"

#include <errno.h>
#include <string.h>

#include "sys/memory.h"
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

int firn_block_reader_open(struct firn_block_reader *r, const uint8_t *key, uint32_t page_size,
			   size_t staging_bytes, uint32_t nslots)
{
	size_t block = FIRN_BLOCK_PAGES * page_size;

	memset(r, 0, sizeof(*r));
	r->page_size = page_size;
	r->scratch = firn_memory_reserve(firn_codec_scratch_bytes((uint32_t)block));
	if (!r->scratch)
		return -ENOMEM;
	for (int c = FIRN_CIPHER_OFF; c <= FIRN_CIPHER_AES_256_OCB; c++) {
		int err = firn_codec_open_decoder(&r->codecs[c], (enum firn_cipher)c, c == FIRN_CIPHER_OFF ? NULL : key,
						  (uint32_t)block, r->scratch);

		if (err) {
			firn_block_reader_close(r);
			return err;
		}
	}
	r->nslots = nslots;
	r->single_bytes = firn_align_up(block + FIRN_TAG_BYTES, DIRECT_ALIGN) + DIRECT_ALIGN;
	r->staging_bytes = staging_bytes;
	for (int i = 0; staging_bytes && i < 2; i++)
		r->staging[i].mem = firn_memory_reserve(r->single_bytes + staging_bytes);
	if (staging_bytes && firn_lane_open(&r->lane)) {
		firn_block_reader_close(r);
		return -ENOMEM;
	}
	r->single = firn_memory_reserve(r->single_bytes);
	r->raw = firn_memory_reserve(block * nslots);
	if ((staging_bytes && (!r->staging[0].mem || !r->staging[1].mem)) || !r->single || !r->raw) {
		firn_block_reader_close(r);
		return -ENOMEM;
	}
	return 0;
}

/* Other people's memory: wiped before it goes. */
static void release(void *p, size_t bytes)
{
	if (!p)
		return;
	explicit_bzero(p, bytes);
	firn_memory_release(p, bytes);
}

void firn_block_reader_close(struct firn_block_reader *r)
{
	firn_lane_close(r->lane);
	for (size_t c = 0; c < ARRAY_SIZE(r->codecs); c++)
		firn_codec_close(&r->codecs[c]);
	release(r->scratch, firn_codec_scratch_bytes(FIRN_BLOCK_PAGES * r->page_size));
	for (int i = 0; i < 2; i++)
		release(r->staging[i].mem, r->single_bytes + r->staging_bytes);
	release(r->single, r->single_bytes);
	release(r->raw, (size_t)FIRN_BLOCK_PAGES * r->page_size * r->nslots);
	memset(r, 0, sizeof(*r));
}

/* At least @needed of the @len bytes at @offset, by as few calls as the device grants.  Alignment asks for
 * bytes beyond the end of the file: they do not matter. */
static int read_whole(struct firn_block_reader *r, const struct firn_packfile *p, char *buf, uint64_t offset,
		      size_t len, size_t needed)
{
	size_t done = 0;

	while (done < needed) {
		long n = firn_sys.pread(p->fd, buf + done, len - done, offset + done);

		__atomic_fetch_add(&r->read_calls, 1, __ATOMIC_RELAXED);   /* the lane counts too */
		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EBADMSG;   /* shorter than its own table says */
		done += (size_t)n;
		__atomic_fetch_add(&r->read_bytes, (uint64_t)n, __ATOMIC_RELAXED);
		if (done < needed && done % DIRECT_ALIGN)
			return -EBADMSG;
	}
	return 0;
}

static bool is_direct(const struct firn_packfile *p)
{
	return p->m->kind == FIRN_PACK_DIRECT;
}

static uint64_t end_of(const struct firn_packfile *p, uint32_t number)
{
	return p->blocks[number].offset.v +
	       firn_block_read_bytes((enum firn_pack_kind)p->m->kind, p->blocks[number].stored_bytes);
}

static char *slot_of(struct firn_block_reader *r, uint32_t number)
{
	return r->raw + (size_t)(number % r->nslots) * FIRN_BLOCK_PAGES * r->page_size;
}

static bool remembered(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number)
{
	return r->slots[number % r->nslots].generation == p->m->generation &&
	       r->slots[number % r->nslots].block == number;
}

static int decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void *stored)
{
	struct firn_piece piece = firn_piece_of_block(p->m->generation, number, p->m->page_size,
						      &p->blocks[number]);
	uint32_t slot = number % r->nslots;
	int err;

	r->slots[slot].generation = 0;
	if (!is_direct(p)) {
		err = firn_codec_decode(&r->codecs[p->m->cipher], &piece, stored, slot_of(r, number));
		if (err)
			return err;
	} else if (stored != slot_of(r, number)) {
		memcpy(slot_of(r, number), stored, p->blocks[number].stored_bytes);
	}
	r->slots[slot].generation = p->m->generation;
	r->slots[slot].block = number;
	r->blocks_read++;
	return 0;
}

int firn_block_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void **ret)
{
	const struct firn_block *b;
	char *buf = r->single;
	uint64_t start, end;
	int err;

	p = firn_packfile_of(p, &number);
	*ret = slot_of(r, number);
	if (remembered(r, p, number))
		return 0;
	if (number >= p->m->max_blocks || !p->blocks[number].offset.v)
		return -EBADMSG;
	b = &p->blocks[number];
	start = firn_align_down(b->offset.v, DIRECT_ALIGN);
	end = end_of(p, number);
	if (end < start || firn_align_up(end - start, DIRECT_ALIGN) > r->single_bytes)
		return -EBADMSG;
	if (is_direct(p)) {
		/* Its pages are in the file as they are. */
		r->slots[number % r->nslots].generation = 0;
		buf = slot_of(r, number);
	}
	err = read_whole(r, p, buf, start, firn_align_up(end - start, DIRECT_ALIGN), end - start);
	if (err)
		return err;
	return decode(r, p, number, buf + (b->offset.v - start));
}

int firn_block_read_span(struct firn_block_reader *r, const struct firn_packfile *p, uint64_t offset, void *buf,
			 size_t bytes)
{
	return read_whole(r, p, buf, offset, firn_align_up(bytes, DIRECT_ALIGN), bytes);
}

int firn_block_decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void *stored,
		      const void **ret)
{
	p = firn_packfile_of(p, &number);
	*ret = slot_of(r, number);
	return remembered(r, p, number) ? 0 : decode(r, p, number, stored);
}

/* Where in the staging the byte at @offset of the file is. */
static char *staged(const struct firn_block_reader *r, const struct firn_staging *s, uint64_t offset)
{
	return s->mem + r->single_bytes + (offset - s->read);
}

/* Plan the read that brings block @number, below @below, into @s, after what is at hand.  False: there is none. */
static bool plan_chunk(const struct firn_block_reader *r, const struct firn_packfile *pack, uint32_t number,
		       uint32_t below, struct firn_staging *s)
{
	const struct firn_staging *before = &r->staging[r->at_hand];
	uint32_t n, first = number, last;
	const struct firn_packfile *p = firn_packfile_of(pack, &first);
	uint64_t start, stop, limit;

	s->p = NULL;
	/* In the numbers of that file. */
	last = below > number ? (uint32_t)firn_min_u64((uint64_t)first + (below - number), p->m->blocks) : 0;
	if (first >= last || !p->blocks[first].offset.v)
		return false;
	start = stop = p->blocks[first].offset.v;
	s->read = firn_align_down(start, DIRECT_ALIGN);
	/* Its begin came with the chunk at hand. */
	if (before->p && before->file == p && before->read + before->needed == before->end && start >= before->chunk.offset &&
	    start <= before->end && before->end - start <= r->single_bytes && end_of(p, first) > before->end)
		s->read = before->end;
	limit = s->read + r->staging_bytes;
	for (n = first; n < last; n++) {
		uint64_t from = p->blocks[n].offset.v, to = end_of(p, n);

		if (from < start || to < from || from >= limit)
			break;
		stop = firn_min_u64(to, limit);
		if (to > limit)
			break;
	}
	s->end = firn_min_u64(limit, firn_align_up(stop, DIRECT_ALIGN));
	if (n == first || s->end <= s->read)
		return false;
	s->p = pack;
	s->file = p;
	s->needed = (size_t)(stop - s->read);
	s->chunk = (struct firn_chunk){ number, n - first, firn_min_u64(start, s->read) };
	return true;
}

/* On the lane, or by the caller. */
static int read_staging(void *arg)
{
	struct firn_block_reader *r = arg;
	struct firn_staging *s = &r->staging[!r->at_hand];

	return read_whole(r, s->file, s->mem + r->single_bytes, s->read, (size_t)(s->end - s->read), s->needed);
}

int firn_chunk_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first, uint32_t end,
		    struct firn_chunk *ret)
{
	struct firn_staging *before = &r->staging[r->at_hand], *s = &r->staging[!r->at_hand];
	bool come = r->under_way;
	int err = 0;

	if (r->under_way) {
		err = firn_lane_wait(r->lane);
		r->under_way = false;
	}
	if (err || !come || s->p != p || s->chunk.first != first) {
		if (!plan_chunk(r, p, first, end, s))
			return -EBADMSG;
		err = read_staging(r);
		if (err) {
			s->p = NULL;
			return err;
		}
	}
	if (s->chunk.offset < s->read)
		memcpy(staged(r, s, s->chunk.offset), staged(r, before, s->chunk.offset),
		       (size_t)(s->read - s->chunk.offset));
	r->at_hand = !r->at_hand;
	*ret = s->chunk;
	return 0;
}

uint32_t firn_chunk_ahead(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first, uint32_t end)
{
	struct firn_staging *s = &r->staging[!r->at_hand];

	if (r->under_way || !plan_chunk(r, p, first, end, s))
		return 0;
	r->under_way = true;
	firn_lane_begin(r->lane, read_staging, r);
	return s->chunk.count;
}

const void *firn_chunk_stored(const struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number)
{
	p = firn_packfile_of(p, &number);
	return staged(r, &r->staging[r->at_hand], p->blocks[number].offset.v);
}

int firn_chunk_decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void **ret)
{
	return firn_block_decode(r, p, number, firn_chunk_stored(r, p, number), ret);
}
