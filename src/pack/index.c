/* SPDX-License-Identifier: MIT */
/*
 * The checks of an index.  Nothing in it is believed before they pass; they allocate nothing.
 */
#include "pack/index.h"

#include <errno.h>

uint64_t firn_pack_index_bytes(const struct firn_pack_index *x)
{
	return x->ntargets * (uint64_t)sizeof(*x->targets) + x->nruns * (uint64_t)sizeof(*x->runs) +
	       x->nblocks * (uint64_t)sizeof(*x->blocks) + x->nfills * (uint64_t)sizeof(*x->fills) +
	       x->nplaces * (uint64_t)sizeof(*x->places) +
	       x->ndigests * (uint64_t)sizeof(*x->digests);
}

bool firn_block_valid(const struct firn_block *e, enum firn_pack_kind kind, uint32_t page_size,
		      uint64_t data_end)
{
	uint32_t raw_bytes = e->raw_pages * page_size;
	uint32_t align = kind == FIRN_PACK_DIRECT ? FIRN_PACK_ALIGN : FIRN_BLOCK_ALIGN;

	if (!e->raw_pages || e->raw_pages > FIRN_BLOCK_PAGES || e->reserved)
		return false;
	if (e->codec == FIRN_CODEC_RAW ? e->stored_bytes != raw_bytes :
	    e->codec != FIRN_CODEC_LZ4 || !e->stored_bytes || e->stored_bytes >= raw_bytes)
		return false;
	if (kind == FIRN_PACK_DIRECT && e->codec != FIRN_CODEC_RAW)
		return false;
	return e->offset.v % align == 0 && e->offset.v >= FIRN_PACK_ALIGN && e->offset.v <= data_end &&
	       data_end - e->offset.v >= firn_block_bytes(kind, e->stored_bytes);
}

static bool runs_valid(const struct firn_pack_index *x, uint32_t page_size)
{
	uint32_t next_run = 0;

	for (uint32_t t = 0; t < x->ntargets; t++) {
		const struct firn_pack_target *target = &x->targets[t];
		uint64_t end = 0;

		if (target->first_run != next_run || target->runs > x->nruns - next_run ||
		    target->reserved)
			return false;
		next_run += target->runs;
		for (uint32_t i = target->first_run; i < next_run; i++) {
			const struct firn_pack_run *run = &x->runs[i];
			uint64_t bytes = (uint64_t)run->npages * page_size;

			if (!run->npages || run->start.v % page_size || run->start.v < end ||
			    run->start.v > UINT64_MAX - bytes)
				return false;
			if (run->first_place > x->nplaces ||
			    run->npages > x->nplaces - run->first_place)
				return false;
			end = run->start.v + bytes;
		}
	}
	return next_run == x->nruns;
}

int firn_pack_index_check(const struct firn_pack_index *x, uint32_t page_size, uint64_t data_end)
{
	uint64_t end = FIRN_PACK_ALIGN;

	if (!x->ntargets || x->nblocks > FIRN_BLOCKS_MAX || x->base_blocks > FIRN_BLOCKS_MAX - x->nblocks ||
	    (x->ndigests && x->ndigests != x->nplaces) || x->nfills > FIRN_FILLS_MAX ||
	    !x->place_stride || x->place_stride % sizeof(uint32_t))
		return -EBADMSG;
	if (!runs_valid(x, page_size))
		return -EBADMSG;
	for (uint32_t i = 0; i < x->nblocks; i++) {
		const struct firn_block *e = &x->blocks[i];

		if (!firn_block_valid(e, x->kind, page_size, data_end) || e->offset.v < end)
			return -EBADMSG;
		end = e->offset.v + firn_block_bytes(x->kind, e->stored_bytes);
	}
	for (uint32_t i = 0; i < x->nplaces; i++) {
		uint32_t place = firn_pack_index_place(x, i), block = firn_place_block(place);

		switch (firn_place_kind(place)) {
		case FIRN_PLACE_SLOT:
			if (block < x->base_blocks)
				continue;
			block -= x->base_blocks;
			if (block >= x->nblocks ||
			    firn_place_page(place) >= x->blocks[block].raw_pages)
				return -EBADMSG;
			continue;
		case FIRN_PLACE_FILL:
			if (firn_place_value(place) >= x->nfills)
				return -EBADMSG;
			continue;
		case FIRN_PLACE_ZERO:
			if (firn_place_value(place))
				return -EBADMSG;
			continue;
		case FIRN_PLACE_NONE:
			return -EBADMSG;
		}
	}
	return 0;
}
