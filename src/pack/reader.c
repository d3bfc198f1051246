/* SPDX-License-Identifier: MIT */
/*
 * Reads a finished pack through a callback.  Owns the index that it loaded, a codec and two buffers
 * of a block.  Every size and offset is checked before it is used; allocates in firn_reader_open
 * only.
 */
#include "pack/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define LZ4_RATIO_MAX 256u      /* LZ4's best is 255:1 */

static bool all_zero(const void *p, size_t bytes)
{
	const uint8_t *c = p;

	return bytes == 0 || (c[0] == 0 && !memcmp(c, c + 1, bytes - 1));
}

int firn_pack_header_check(const struct firn_pack_header *h)
{
	if (memcmp(h->magic, FIRN_PACK_MAGIC, sizeof(h->magic)) ||
	    h->checksum != XXH3_64bits(h, offsetof(struct firn_pack_header, checksum)))
		return -EBADMSG;
	if (h->version != FIRN_PACK_VERSION ||
	    (h->kind != FIRN_PACK_COPIED && h->kind != FIRN_PACK_DIRECT) ||
	    !firn_cipher_name((enum firn_cipher)h->cipher))
		return -EOPNOTSUPP;
	if (h->kind == FIRN_PACK_DIRECT && h->cipher != FIRN_CIPHER_OFF)
		return -EBADMSG;
	if (h->header_bytes != sizeof(*h) || h->block_pages != FIRN_BLOCK_PAGES ||
	    h->page_size < FIRN_PAGE_SIZE_MIN || h->page_size > FIRN_PAGE_SIZE_MAX ||
	    (h->page_size & (h->page_size - 1)) || !all_zero(h->zero, sizeof(h->zero)))
		return -EBADMSG;
	return 0;
}

int firn_pack_footer_check(const struct firn_pack_footer *f, const struct firn_pack_header *h,
			   uint64_t file_bytes, struct firn_codec *codec)
{
	const struct firn_pack_index counts = {
		.ntargets = f->targets,
		.nruns = f->runs,
		.nblocks = f->blocks,
		.nfills = f->fills,
		.nplaces = f->places,
		.ndigests = f->digests,
	};
	uint64_t room;

	if (memcmp(f->magic, FIRN_FOOTER_MAGIC, sizeof(f->magic)) ||
	    f->checksum != XXH3_64bits(f, offsetof(struct firn_pack_footer, checksum)))
		return -EBADMSG;
	if (f->version != FIRN_PACK_VERSION || f->generation != h->generation ||
	    f->file_bytes != file_bytes || file_bytes % FIRN_PACK_ALIGN ||
	    file_bytes < sizeof(*h) + sizeof(*f) || !all_zero(f->zero, sizeof(f->zero)))
		return -EBADMSG;

	/* The index ends where the footer's padding begins. */
	room = file_bytes - sizeof(*f);
	if (f->index_offset < sizeof(*h) || f->index_offset % FIRN_BLOCK_ALIGN ||
	    f->index_offset > room || f->index_bytes > room - f->index_offset ||
	    room - f->index_offset - f->index_bytes >= FIRN_PACK_ALIGN)
		return -EBADMSG;

	/* Counts of 32 bits: no sum overflows.  What cannot be in the file is not allocated. */
	if (f->base_generation ? f->digests || f->base_generation == f->generation :
				 f->base_bytes || f->base_blocks || !all_zero(f->base_seal, sizeof(f->base_seal)))
		return -EBADMSG;
	if (!f->targets || f->blocks > FIRN_BLOCKS_MAX || f->base_blocks > FIRN_BLOCKS_MAX - f->blocks ||
	    (f->digests && f->digests != f->places) || f->fills > FIRN_FILLS_MAX ||
	    f->index_raw_bytes != firn_pack_index_bytes(&counts) ||
	    f->index_raw_bytes / LZ4_RATIO_MAX > f->index_bytes ||
	    f->index_pieces !=
		    (f->index_raw_bytes + FIRN_INDEX_PIECE_BYTES - 1) / FIRN_INDEX_PIECE_BYTES)
		return -EBADMSG;
	if (!codec)
		return 0;
	return firn_codec_check(codec, h->generation, h, sizeof(*h), f,
				offsetof(struct firn_pack_footer, seal), f->seal);
}

/* The sections lie in one allocation, in the file's order, which keeps each one aligned. */
static void lay_out(struct firn_reader *r)
{
	const struct firn_pack_footer *f = &r->footer;
	struct firn_pack_index *x = &r->index;
	uint8_t *at = r->sections;

	x->kind = (enum firn_pack_kind)r->header.kind;
	x->ntargets = f->targets;
	x->nruns = f->runs;
	x->nblocks = f->blocks;
	x->nfills = f->fills;
	x->nplaces = f->places;
	x->ndigests = f->digests;
	x->base_blocks = f->base_blocks;
	x->place_stride = sizeof(uint32_t);
	x->targets = (const struct firn_pack_target *)at;
	at += (size_t)x->ntargets * sizeof(*x->targets);
	x->runs = (const struct firn_pack_run *)at;
	at += (size_t)x->nruns * sizeof(*x->runs);
	x->blocks = (const struct firn_block *)at;
	at += (size_t)x->nblocks * sizeof(*x->blocks);
	x->fills = (const uint64_t *)at;
	at += (size_t)x->nfills * sizeof(*x->fills);
	x->digests = (const struct firn_digest *)at;
	at += (size_t)x->ndigests * sizeof(*x->digests);
	x->places = (const uint32_t *)at;
}

static int load_index(struct firn_reader *r)
{
	const struct firn_pack_footer *f = &r->footer;
	uint64_t at = f->index_offset, end = f->index_offset + f->index_bytes, done = 0;

	for (uint32_t i = 0; i < f->index_pieces; i++) {
		uint64_t raw_bytes =
			firn_min_u64(f->index_raw_bytes - done, FIRN_INDEX_PIECE_BYTES);
		struct firn_index_piece head;
		struct firn_piece p;
		uint64_t span;
		int e;

		if (end - at < sizeof(head))
			return -EBADMSG;
		e = r->read(r->ctx, &head, sizeof(head), (struct firn_poff){ at });
		if (e < 0)
			return e;
		at += sizeof(head);
		if (head.raw_bytes != raw_bytes || head.stored_bytes > raw_bytes ||
		    !all_zero(head.zero, sizeof(head.zero)))
			return -EBADMSG;
		span = firn_block_span_bytes(head.stored_bytes);
		if (end - at < span)
			return -EBADMSG;
		e = r->read(r->ctx, r->stored, head.stored_bytes + FIRN_TAG_BYTES,
			    (struct firn_poff){ at });
		if (e < 0)
			return e;
		p = (struct firn_piece){
			.generation = f->generation,
			.number = FIRN_INDEX_FIRST_NUMBER + i,
			.raw_bytes = head.raw_bytes,
			.stored_bytes = head.stored_bytes,
			.codec = head.codec,
		};
		e = firn_codec_decode(&r->codec, &p, r->stored, (uint8_t *)r->sections + done);
		if (e < 0)
			return e;
		at += span;
		done += raw_bytes;
	}
	return at == end && done == f->index_raw_bytes ? 0 : -EBADMSG;
}

static int open_pack(struct firn_reader *r, const uint8_t *key)
{
	uint32_t block_bytes;
	int e;

	if (r->file_bytes < sizeof(r->header) + sizeof(r->footer))
		return -EBADMSG;
	e = r->read(r->ctx, &r->header, sizeof(r->header), (struct firn_poff){ 0 });
	if (e < 0)
		return e;
	e = firn_pack_header_check(&r->header);
	if (e < 0)
		return e;
	if (r->header.cipher != FIRN_CIPHER_OFF && !key)
		return -ENOKEY;
	block_bytes = FIRN_BLOCK_PAGES * r->header.page_size;   /* >= FIRN_INDEX_PIECE_BYTES */
	e = firn_codec_open_decoder(&r->codec, (enum firn_cipher)r->header.cipher, key, block_bytes, NULL);
	if (e < 0)
		return e;
	e = r->read(r->ctx, &r->footer, sizeof(r->footer),
		    (struct firn_poff){ r->file_bytes - sizeof(r->footer) });
	if (e < 0)
		return e;
	e = firn_pack_footer_check(&r->footer, &r->header, r->file_bytes, &r->codec);
	if (e < 0)
		return e;

	if (r->footer.index_raw_bytes > SIZE_MAX)
		return -ENOMEM;
	r->sections = malloc(r->footer.index_raw_bytes);
	r->stored = malloc(block_bytes + FIRN_TAG_BYTES);
	r->raw = malloc(block_bytes);
	if (!r->sections || !r->stored || !r->raw)
		return -ENOMEM;
	e = load_index(r);
	if (e < 0)
		return e;
	lay_out(r);
	return firn_pack_index_check(&r->index, r->header.page_size, r->footer.index_offset);
}

int firn_reader_open(struct firn_reader *r, const uint8_t *key, uint64_t file_bytes,
		     firn_reader_read read, void *ctx)
{
	int e;

	memset(r, 0, sizeof(*r));
	r->read = read;
	r->ctx = ctx;
	r->file_bytes = file_bytes;
	e = open_pack(r, key);
	if (e)
		firn_reader_close(r);
	return e;
}

int firn_reader_set_base(struct firn_reader *r, struct firn_reader *base)
{
	const struct firn_pack_footer *f = &r->footer, *b = &base->footer;

	if (!f->base_generation || b->base_generation || f->base_generation != b->generation ||
	    f->base_bytes != base->file_bytes || f->base_blocks != b->blocks ||
	    r->header.page_size != base->header.page_size || memcmp(f->base_seal, b->seal, sizeof(b->seal)))
		return -EBADMSG;
	r->base = base;
	return 0;
}

void firn_reader_base(const struct firn_reader *r, struct firn_base *ret)
{
	*ret = (struct firn_base){
		.generation = r->footer.generation,
		.bytes = r->file_bytes,
		.blocks = r->footer.blocks,
		.nruns = r->footer.runs,
		.runs = r->index.runs,
		.places = r->index.places,
		.digests = r->index.digests,
	};
	memcpy(ret->seal, r->footer.seal, sizeof(ret->seal));
}

void firn_reader_close(struct firn_reader *r)
{
	size_t block_bytes = (size_t)FIRN_BLOCK_PAGES * r->header.page_size;

	firn_codec_close(&r->codec);
	if (r->raw)
		explicit_bzero(r->raw, block_bytes);
	if (r->stored)
		explicit_bzero(r->stored, block_bytes);
	free(r->sections);
	free(r->stored);
	free(r->raw);
	memset(r, 0, sizeof(*r));
}

int firn_reader_read_block(struct firn_reader *r, uint32_t number, void *raw)
{
	const struct firn_block *e;
	struct firn_piece p;
	int err;

	if (number < r->index.base_blocks)
		return r->base ? firn_reader_read_block(r->base, number, raw) : -ENOLINK;
	number -= r->index.base_blocks;
	if (number >= r->index.nblocks)
		return -EINVAL;
	e = &r->index.blocks[number];
	if (r->index.kind == FIRN_PACK_DIRECT) {
		err = r->read(r->ctx, raw, e->stored_bytes, e->offset);
		return err < 0 ? err : e->raw_pages;
	}
	p = firn_piece_of_block(r->header.generation, number, r->header.page_size, e);
	err = r->read(r->ctx, r->stored, (size_t)e->stored_bytes + FIRN_TAG_BYTES, e->offset);
	if (err < 0)
		return err;
	err = firn_codec_decode(&r->codec, &p, r->stored, raw);
	return err < 0 ? err : e->raw_pages;
}

int firn_reader_read_page(struct firn_reader *r, uint32_t place, void *page)
{
	uint32_t ps = r->header.page_size, value = firn_place_value(place);
	int n;

	switch (firn_place_kind(place)) {
	case FIRN_PLACE_NONE:
		return -EINVAL;
	case FIRN_PLACE_ZERO:
		if (value)
			return -EINVAL;
		memset(page, 0, ps);
		return 0;
	case FIRN_PLACE_FILL:
		if (value >= r->index.nfills)
			return -EINVAL;
		for (uint32_t i = 0; i < ps; i += sizeof(uint64_t))
			memcpy((uint8_t *)page + i, &r->index.fills[value], sizeof(uint64_t));
		return 0;
	case FIRN_PLACE_SLOT:
		break;
	}
	n = firn_reader_read_block(r, firn_place_block(place), r->raw);
	if (n < 0)
		return n;
	if (firn_place_page(place) >= (uint32_t)n)
		return -EINVAL;
	memcpy(page, r->raw + (size_t)firn_place_page(place) * ps, ps);
	return 0;
}

int firn_reader_verify(struct firn_reader *r)
{
	for (uint32_t i = 0; i < r->index.nblocks; i++) {
		int n = firn_reader_read_block(r, r->index.base_blocks + i, r->raw);

		if (n < 0)
			return n;
	}
	return 0;
}
