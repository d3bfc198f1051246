/* SPDX-License-Identifier: MIT */
/*
 * What an index must satisfy, whether we are about to write it or have just read it.  Pure
 * functions.
 */
#ifndef FIRN_PACK_INDEX_H
#define FIRN_PACK_INDEX_H

#include "pack/format.h"

/* All sections of an index.  The arrays are the owner's. */
struct firn_pack_index {
	const struct firn_pack_target *targets;
	const struct firn_pack_run *runs;
	const struct firn_block *blocks;
	const uint64_t *fills;
	const uint32_t *places;
	const struct firn_digest *digests;
	uint32_t ntargets;
	uint32_t nruns;
	uint32_t nblocks;
	uint32_t nfills;
	uint32_t nplaces;
	uint32_t ndigests;              /* 0, or as many as places */
	uint32_t base_blocks;           /* in places, blocks before this number are another pack's */
	uint32_t place_stride;          /* bytes from one place to the next, a multiple of 4 */
	enum firn_pack_kind kind;       /* 0: COPIED */
};

/* Place @i.  @i < nplaces. */
static inline uint32_t firn_pack_index_place(const struct firn_pack_index *x, uint32_t i)
{
	return *(const uint32_t *)((const uint8_t *)x->places + (size_t)i * x->place_stride);
}

/* Bytes of all sections together. */
uint64_t firn_pack_index_bytes(const struct firn_pack_index *x);

/*
 * May this entry be a block of a pack of @kind whose blocks lie in [4096, @data_end)?  Sizes that pass fit a
 * raw buffer of FIRN_BLOCK_PAGES pages and a stored one of that and a tag.
 */
bool firn_block_valid(const struct firn_block *e, enum firn_pack_kind kind, uint32_t page_size,
		      uint64_t data_end);

/*
 * Does everything in @x point at something that is there?
 *   1. every target's runs are in the run table, and together they are all of it, in order;
 *   2. a run is page aligned, not empty, and does not wrap; of one target they ascend without
 *      overlap;
 *   3. a run's places are in the place table;
 *   4. blocks are valid, ascend and do not overlap;
 *   5. a place is zero, an existing fill, an existing page of an existing block, or in a block of the base,
 *      which is known elsewhere;
 *   6. there are no digests, or one for each place.
 * Returns 0, or -EBADMSG.
 */
int firn_pack_index_check(const struct firn_pack_index *x, uint32_t page_size, uint64_t data_end);

#endif
