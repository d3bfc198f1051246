/* SPDX-License-Identifier: MIT */
/*
 * The two ends of a pack: the header before its blocks, index and footer behind them.  The same for
 * both kinds.  Allocates nothing and does no I/O of its own.
 */
#ifndef FIRN_PACK_ENDS_H
#define FIRN_PACK_ENDS_H

#include "pack/codec.h"
#include "pack/index.h"
#include "pack/reuse.h"

/* One pack.  The tables are the caller's (shared memory, say) and outlive the pack's making. */
struct firn_builder_pack {
	uint64_t generation;            /* never used before under this key */
	uint32_t machine;               /* ELF e_machine; 0: this host's */
	int32_t pid;
	uint64_t start_time;
	uint64_t created_ns;
	uint8_t boot_id[16];
	char comm[16];
	struct firn_block *blocks;      /* filled in as blocks are encoded */
	uint32_t blocks_cap;            /* at most FIRN_BLOCKS_MAX are used */
	uint64_t *fills;                /* words of same-filled pages */
	uint32_t fills_cap;             /* at most FIRN_FILLS_MAX are used; may be 0 */
	struct firn_digest *digests;    /* by the number of the place, zeros at first; NULL: none are made */
	const struct firn_base *base;   /* whose pages need not be stored again; NULL: none */
};

/* What the pack holds of whom: input of the index, beside the pack's own tables. */
struct firn_builder_index {
	const struct firn_pack_target *targets;
	const struct firn_pack_run *runs;       /* of one target: ascending, not overlapping */
	const uint32_t *places;
	uint32_t ntargets;              /* >= 1 */
	uint32_t nruns;
	uint32_t nplaces;
	uint32_t place_stride;          /* bytes from one place to the next; 0: 4, packed */
};

/* The index of a pack with these tables. */
struct firn_pack_index firn_pack_make_index(const struct firn_builder_index *given,
					    enum firn_pack_kind kind,
					    const struct firn_builder_pack *pack, uint32_t nblocks,
					    uint32_t nfills);

/* Fill in *@h.  Pure. */
void firn_pack_make_header(struct firn_pack_header *h, const struct firn_builder_pack *pack,
			   enum firn_pack_kind kind, enum firn_cipher cipher, uint32_t page_size);

/* Means of writing the end: buffers of the caller's. */
struct firn_pack_end {
	struct firn_codec *codec;       /* of the pack's cipher */
	uint8_t *raw;                   /* FIRN_INDEX_PIECE_BYTES */
	uint8_t *stored;                /* FIRN_PACK_ALIGN more than that */
	/* Take the next @bytes of the pack.  Returns 0, or -errno. */
	int (*append)(void *ctx, const void *data, uint32_t bytes);
	void *ctx;
};

/*
 * Append index and footer at offset @at, where the blocks end.
 * @x  has passed firn_pack_index_check().
 * @f  comes with the counts that are for people, and zeros; the rest is filled in.
 * Returns 0; -EIO libcrypto failed; -errno of append().
 */
int firn_pack_append_end(const struct firn_pack_end *e, const struct firn_pack_header *h,
			 const struct firn_pack_index *x, uint64_t at, struct firn_pack_footer *f);

#endif
