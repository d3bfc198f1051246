/* SPDX-License-Identifier: MIT */
/*
 * The gatherer: pages in, a pack out, in as few sequential writes as there are full buffers.
 *
 * A builder is opened once, with all the memory that it will ever use, and then makes one pack
 * after the other:
 *
 *   open -> { begin -> { add_pages ... end_slice } ... finish } ... -> close
 *
 * finish also ends the slice that is under way: a pack whose bytes fit the output buffer is then
 * one write call.  The first failure sticks: every later call but begin and close returns it, and
 * no page of the slice that was under way may be dropped from its target.  Slices ended before stay
 * valid.
 *
 * One thread at a time drives a builder; callbacks run on that thread, but for the work that run()
 * spreads.  It does no I/O of its own and knows no target: a page is bytes and a cookie.
 */
#ifndef FIRN_PACK_BUILDER_H
#define FIRN_PACK_BUILDER_H

#include "pack/index.h"

#define FIRN_BUILDER_OUT_BYTES (8u << 20)
#define FIRN_BUILDER_BATCH_BYTES (4u << 20)     /* raw: 64 blocks of 4 KiB pages */
#define FIRN_BUILDER_WORKERS_MAX 16u
/* Beyond so many unique pages of a slice, no more are offered as originals of duplicates. */
#define FIRN_BUILDER_SLICE_PAGES 65536u

struct firn_builder;

struct firn_builder_ops {
	/*
	 * Write @len bytes at @offset; sequential, 4096-byte aligned in address, length and offset.
	 * Without wait() the bytes are written when it returns; with it they may be under way, and
	 * @buf stays untouched until wait() has returned.  Returns 0 when all of it will be or is
	 * written, or -errno.
	 */
	int (*write)(void *ctx, const void *buf, size_t len, struct firn_poff offset);
	/*
	 * Optional: every write so far is done.  At most one write is under way at a time.  Costs a
	 * second output buffer, and lets writing and encoding overlap.  Returns 0, or -errno of any
	 * of them.
	 */
	int (*wait)(void *ctx);
	/*
	 * Optional: call fn(arg, i, worker) once for each i < @n, on any threads, and return when
	 * all calls have.  worker < the workers given at open; calls that overlap in time have
	 * different workers.  NULL: the builder calls fn itself, in order, as worker 0.
	 */
	void (*run)(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker),
		    void *arg);
	/*
	 * Optional: is the page added in this slice with cookie @original byte for byte the same as
	 * @page (page size)?  Returns 1 yes; anything else: no, or cannot say, and the page is
	 * stored.
	 */
	int (*same)(void *ctx, uint64_t original, const void *page);
};

struct firn_builder_config {
	uint32_t page_size;             /* bytes: a power of two, 4096..65536 */
	enum firn_cipher cipher;
	const uint8_t *key;             /* 32 bytes, copied; NULL for FIRN_CIPHER_OFF */
	uint32_t workers;               /* 0: 1 */
	uint32_t out_bytes;             /* multiple of 4096, >= 64 KiB; 0: FIRN_BUILDER_OUT_BYTES */
	uint32_t batch_bytes;           /* raw, encoded in one run(); 0: FIRN_BUILDER_BATCH_BYTES */
	struct firn_builder_ops ops;
	void *ctx;
};

/*
 * Reserve everything: buffers, tables and a codec per worker.  Any thread.
 * Memory, with the defaults and 4 KiB pages: 16 MiB of buffers (24 with wait()) and 3 MiB of
 * tables, present before it returns.
 * Returns 0; -EINVAL a bad parameter; -ENOMEM; -EOPNOTSUPP no such cipher.
 * On failure *@ret is NULL.
 */
int firn_builder_open(struct firn_builder **ret, const struct firn_builder_config *config);

/* Wipe and release; a pack under way is forgotten (with wait(), waited for).  NULL is allowed. */
void firn_builder_close(struct firn_builder *b);
static inline void firn_builder_closep(struct firn_builder **b)
{
	firn_builder_close(*b);
	*b = NULL;
}

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
};

/*
 * Start a pack; whatever was under way is forgotten.  Allocates nothing.
 * State: open.  Returns 0; -EINVAL a table missing, or the generation of the pack before;
 * -errno of wait() for a write that was still under way.
 */
int firn_builder_begin(struct firn_builder *b, const struct firn_builder_pack *pack);

/*
 * Take in @n pages and say where each will be.
 * @pages    @n pages, one behind the other, any alignment of 8 bytes; read only during the call.
 * @cookies  @n names for same(); NULL: duplicates are then looked for among the newest pages only.
 * @places   @n places, set on success.  Zero and fill places are right at once; a slot's block is
 *           in the pack once the slice has ended.
 * State: between begin and finish.  Allocates nothing.
 * Returns 0; -ENOSPC the block table is full; -EIO libcrypto failed; -errno of write() or wait();
 * -EINVAL no pack is under way.
 * On failure the slice is lost: none of its pages may be dropped.
 */
int firn_builder_add_pages(struct firn_builder *b, const void *pages, uint32_t n,
			   const uint64_t *cookies, uint32_t *places);

/*
 * Encode and write everything that was added.  On success each block of the slice is in the pack,
 * its entry in the block table is final, and its pages may be dropped once the caller has synced as
 * it pleases.  Without a page added since the last one: does nothing, 0.
 * State and errors as firn_builder_add_pages.
 */
int firn_builder_end_slice(struct firn_builder *b);

/* What the pack holds of whom: input of the index, beside the builder's own tables. */
struct firn_builder_index {
	const struct firn_pack_target *targets;
	const struct firn_pack_run *runs;       /* of one target: ascending, not overlapping */
	const uint32_t *places;
	uint32_t ntargets;              /* >= 1 */
	uint32_t nruns;
	uint32_t nplaces;
	uint32_t place_stride;          /* bytes from one place to the next; 0: 4, packed */
};

/*
 * End the slice, then write index and footer: the pack is complete and ends with *@ret_bytes.
 * State: between begin and finish; on success the builder awaits begin.  @ret_bytes may be NULL.
 * Returns as firn_builder_add_pages; also -EINVAL an index that firn_pack_index_check() refuses (a
 * run outside of the places, a place outside of the tables): the pack may then go on and be
 * finished anew.
 */
int firn_builder_finish(struct firn_builder *b, const struct firn_builder_index *index,
			uint64_t *ret_bytes);

/* Of the pack under way or last finished. */
struct firn_builder_stats {
	uint64_t pages;                 /* added: zero + fill + duplicate + unique */
	uint64_t zero_pages;
	uint64_t fill_pages;
	uint64_t duplicate_pages;
	uint64_t unique_pages;          /* stored */
	uint64_t same_calls;
	uint64_t stored_bytes;          /* of blocks, with tags and padding to 16 */
	uint64_t write_calls;
	uint64_t write_bytes;           /* header, index, footer and padding included */
	uint32_t blocks;
	uint32_t raw_blocks;            /* that did not shrink */
	uint32_t fills;
	uint32_t slices;
};

void firn_builder_get_stats(const struct firn_builder *b, struct firn_builder_stats *ret);

#endif
