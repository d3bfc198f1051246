/* SPDX-License-Identifier: MIT */
#include "pack/direct.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OUT_BYTES (256u << 10)
#define RAW_BYTES FIRN_INDEX_PIECE_BYTES
#define STORED_BYTES (FIRN_INDEX_PIECE_BYTES + FIRN_PACK_ALIGN)

struct firn_direct {
	uint32_t page_size;
	firn_direct_write write;
	void *ctx;
	struct firn_codec codec;
	uint8_t *raw, *stored, *out;    /* one mapping, which begins at raw */
	struct firn_pack_header header;
	struct firn_builder_pack pack;
	uint64_t pages;
	uint64_t end;                   /* offset behind the last page */
	uint32_t blocks, slices;
	uint64_t out_at;                /* offset in the pack of out's first byte */
	uint32_t out_used;
};

int firn_direct_open(struct firn_direct **ret, uint32_t page_size, firn_direct_write write, void *ctx)
{
	struct firn_direct *d;
	void *map;
	int r;

	*ret = NULL;
	if (page_size < FIRN_PAGE_SIZE_MIN || page_size > FIRN_PAGE_SIZE_MAX || (page_size & (page_size - 1)))
		return -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->page_size = page_size;
	d->write = write;
	d->ctx = ctx;
	map = mmap(NULL, RAW_BYTES + STORED_BYTES + OUT_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (map == MAP_FAILED) {
		free(d);
		return -ENOMEM;
	}
	d->raw = map;
	d->stored = d->raw + RAW_BYTES;
	d->out = d->stored + STORED_BYTES;
	r = firn_codec_open(&d->codec, FIRN_CIPHER_OFF, NULL, FIRN_INDEX_PIECE_BYTES);
	if (r < 0) {
		firn_direct_close(d);
		return r;
	}
	*ret = d;
	return 0;
}

void firn_direct_close(struct firn_direct *d)
{
	if (!d)
		return;
	firn_codec_close(&d->codec);
	munmap(d->raw, RAW_BYTES + STORED_BYTES + OUT_BYTES);
	free(d);
}

static int flush(struct firn_direct *d)
{
	int r = d->out_used ? d->write(d->ctx, d->out, d->out_used, (struct firn_poff){ d->out_at }) : 0;

	d->out_at += d->out_used;
	d->out_used = 0;
	return r;
}

/* What is appended begins and ends aligned; so does every full buffer. */
static int append(void *ctx, const void *data, uint32_t bytes)
{
	struct firn_direct *d = ctx;
	const uint8_t *from = data;
	int r = 0;

	while (bytes && r == 0) {
		uint32_t n = (uint32_t)firn_min_u64(bytes, OUT_BYTES - d->out_used);

		memcpy(d->out + d->out_used, from, n);
		d->out_used += n;
		from += n;
		bytes -= n;
		if (d->out_used == OUT_BYTES)
			r = flush(d);
	}
	return r;
}

int firn_direct_begin(struct firn_direct *d, const struct firn_builder_pack *pack)
{
	d->pack = *pack;
	d->pack.fills = NULL;
	d->pages = 0;
	d->blocks = d->slices = 0;
	d->end = sizeof(d->header);
	d->out_at = 0;
	d->out_used = 0;
	firn_pack_make_header(&d->header, pack, FIRN_PACK_DIRECT, FIRN_CIPHER_OFF, d->page_size);
	append(d, &d->header, sizeof(d->header));
	return flush(d);
}

int firn_direct_add(struct firn_direct *d, const struct firn_pack_run *runs, uint32_t n, uint32_t *places,
		    struct firn_poff *ret)
{
	uint32_t slot = d->blocks * FIRN_BLOCK_PAGES;
	uint64_t pages = 0, left;

	for (uint32_t i = 0; i < n; i++)
		pages += runs[i].npages;
	if ((pages + FIRN_BLOCK_PAGES - 1) / FIRN_BLOCK_PAGES >
	    firn_min_u64(d->pack.blocks_cap, FIRN_BLOCKS_MAX) - d->blocks)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < runs[i].npages; k++)
			places[runs[i].first_place + k] = firn_place(FIRN_PLACE_SLOT, slot++);
	ret->v = d->end;
	for (left = pages; left;) {
		uint32_t now = (uint32_t)firn_min_u64(left, FIRN_BLOCK_PAGES);

		d->pack.blocks[d->blocks++] = (struct firn_block){
			.offset = { d->end },
			.stored_bytes = now * d->page_size,
			.raw_pages = (uint8_t)now,
			.codec = FIRN_CODEC_RAW,
		};
		d->end += (uint64_t)now * d->page_size;
		left -= now;
	}
	d->pages += pages;
	d->slices += pages != 0;
	return 0;
}

uint32_t firn_direct_blocks(const struct firn_direct *d)
{
	return d->blocks;
}

struct firn_poff firn_direct_end(const struct firn_direct *d)
{
	return (struct firn_poff){ d->end };
}

int firn_direct_finish(struct firn_direct *d, const struct firn_builder_index *index, uint64_t *ret_bytes)
{
	const struct firn_pack_end end = { &d->codec, d->raw, d->stored, append, d };
	struct firn_pack_index x = firn_pack_make_index(index, FIRN_PACK_DIRECT, &d->pack, d->blocks, 0);
	struct firn_pack_footer footer = {
		.slices = d->slices,
		.unique_pages = d->pages,
		.raw_blocks = d->blocks,
	};
	int r;

	if (firn_pack_index_check(&x, d->page_size, d->end) < 0)
		return -EINVAL;
	d->out_at = d->end;
	r = firn_pack_append_end(&end, &d->header, &x, d->end, &footer);
	if (r == 0)
		r = flush(d);
	if (r == 0)
		*ret_bytes = footer.file_bytes;
	return r;
}
