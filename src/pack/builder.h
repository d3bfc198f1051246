/* SPDX-License-Identifier: MIT */
/*
 * The gatherer: pages in, a pack out, in as few sequential writes as there are full buffers.
 *
 * A builder is opened once, with all the memory that it will ever use, and then makes one pack
 * after the other:
 *
 *   open -> { begin -> { add ... end_slice } ... finish } ... -> close
 *
 * Nothing but full buffers is written before finish: a pack whose bytes fit one is one write call.
 * The first failure sticks: every later call but begin and close returns it, and no page that is not
 * known to be stored (firn_builder_await) may be dropped from its target.
 *
 * One thread at a time drives a builder; await, get_stats and abort are for any thread, at any time.
 * The callbacks read() and write() are called by the threads that run() spreads over, write() by
 * the writer where there is one.  The builder does no I/O of its own and knows no target: it knows
 * runs of pages, by their addresses.
 */
#ifndef FIRN_PACK_BUILDER_H
#define FIRN_PACK_BUILDER_H

#include "pack/ends.h"

#define FIRN_BUILDER_OUT_BYTES (8u << 20)
#define FIRN_BUILDER_WORKERS_MAX 16u

/* Pages that one worker deals with at a time: 256 KiB, which its core's cache holds, or a block. */
static inline uint32_t firn_builder_batch_pages(uint32_t page_size)
{
	return page_size < 16384 ? 262144u / page_size : FIRN_BLOCK_PAGES;
}

/* Blocks that @pages may take: each batch may end with a block that is not full. */
static inline uint64_t firn_builder_blocks_max(uint64_t pages, uint32_t page_size, uint32_t adds)
{
	return pages / FIRN_BLOCK_PAGES + pages / firn_builder_batch_pages(page_size) + 2ull * adds;
}

struct firn_builder;

struct firn_builder_ops {
	/*
	 * Copy the pages of @n runs to @buf, one behind the other; first_place says nothing here.
	 * On any of the threads, on several at once.  A page of a slice may be read again until the
	 * slice ends, and has the same bytes then.  Returns 0, or -errno.
	 */
	int (*read)(void *ctx, const struct firn_pack_run *runs, uint32_t n, void *buf);
	/*
	 * Write @len bytes at @offset; sequential, 4096-byte aligned in address, length and offset;
	 * one call at a time.  Returns 0 when all of it is written, or -errno.
	 */
	int (*write)(void *ctx, const void *buf, size_t len, struct firn_poff offset);
	/*
	 * Optional: call fn(arg, i, ...) once for each i < @n, on any threads, best at the same
	 * time, and return when all calls have.  n <= the workers given at open.  NULL: the builder
	 * calls fn itself.
	 */
	void (*run)(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t thread),
		    void *arg);
};

struct firn_builder_config {
	uint32_t page_size;             /* bytes: a power of two, 4096..65536 */
	enum firn_cipher cipher;
	const uint8_t *key;             /* 32 bytes, copied; NULL for FIRN_CIPHER_OFF */
	const uint8_t *digest_key;      /* the same, for digests; NULL: no pack of it has digests or a base */
	uint32_t workers;               /* 0: 1 */
	uint32_t out_bytes;             /* of each of two buffers: a multiple of 4096, >= 64 KiB, and
					 * raised to hold a block; 0: FIRN_BUILDER_OUT_BYTES */
	bool own_writer;                /* a thread runs firn_builder_write_all for each pack; if not,
					 * whoever fills a buffer writes it */
	struct firn_builder_ops ops;
	void *ctx;
};

/*
 * Reserve everything: buffers, tables and a codec per worker.  Any thread.
 * Memory, with the defaults and 4 KiB pages: 16 MiB of buffers, 2.5 MiB of tables and 0.6 MiB a
 * worker, present before it returns.
 * Returns 0; -EINVAL a bad parameter; -ENOMEM; -EOPNOTSUPP no such cipher.
 * On failure *@ret is NULL.
 */
int firn_builder_open(struct firn_builder **ret, const struct firn_builder_config *config);

/* Wipe and release; a pack under way is forgotten.  No call is under way.  NULL is allowed. */
void firn_builder_close(struct firn_builder *b);
static inline void firn_builder_closep(struct firn_builder **b)
{
	firn_builder_close(*b);
	*b = NULL;
}

/*
 * Start a pack; whatever was under way is forgotten.  Allocates nothing.
 * State: open, no call under way.  Returns 0; -EINVAL a table missing, or the generation of the pack
 * before; digests or a base without digest_key; digests and a base.
 */
int firn_builder_begin(struct firn_builder *b, const struct firn_builder_pack *pack);

/* The writer's whole work for one pack: returns when it is finished, or has failed.  Only with
 * own_writer, once for each begin, on a thread of its own. */
void firn_builder_write_all(struct firn_builder *b);

/*
 * Take in the pages of @n runs, in any order of addresses, and say where each will be: page k of run
 * r in places[r.first_place + k].  What is added first lies first in the pack, and what one call
 * adds begins a block.
 * State: between begin and finish.  Allocates nothing.
 * On success the blocks are encoded, on their way, and their entries final; their pages may be
 * dropped when firn_builder_await() has returned 0 for the stats' `end`, and end_slice was called.
 * Returns 0; -ENOSPC the block table is full; -EIO libcrypto failed; -errno of read() or write();
 * -EINVAL no pack is under way; -ECANCELED.
 */
int firn_builder_add(struct firn_builder *b, const struct firn_pack_run *runs, uint32_t n,
		     uint32_t *places);

/*
 * Pages added so far are not read again: a later page that is equal to one of them is stored anew.
 * State and errors as firn_builder_add.
 */
int firn_builder_end_slice(struct firn_builder *b);

/*
 * Wait until everything before offset @end of the pack has been written.  It comes to that when a
 * buffer is full, or by finish, on another thread.
 * Returns 0, or the failure.
 */
int firn_builder_await(struct firn_builder *b, uint64_t end);

/*
 * Of the pages added from here on, only those whose block in the base is before @blocks are taken from there
 * (at first: all).  No add is under way.
 */
void firn_builder_reuse_below(struct firn_builder *b, uint32_t blocks);

/* Let every call that is under way, and every later one up to begin, fail with -ECANCELED. */
void firn_builder_abort(struct firn_builder *b);

/*
 * End the slice, then write what is left, index and footer: the pack is complete and ends with
 * *@ret_bytes.
 * State: between begin and finish; on success the builder awaits begin.  @ret_bytes may be NULL.
 * Returns as firn_builder_add; also -EINVAL an index that firn_pack_index_check() refuses (a
 * run outside of the places, a place outside of the tables): the pack may then go on and be
 * finished anew.
 */
int firn_builder_finish(struct firn_builder *b, const struct firn_builder_index *index,
			uint64_t *ret_bytes);

/* Of the pack under way or last finished, up to the last add that returned. */
struct firn_builder_stats {
	uint64_t pages;                 /* added: zero + fill + duplicate + unique + reused */
	uint64_t zero_pages;
	uint64_t fill_pages;
	uint64_t duplicate_pages;
	uint64_t unique_pages;          /* stored */
	uint64_t reused_pages;          /* found in the base */
	uint64_t stored_bytes;          /* of blocks, with tags and padding to 16 */
	uint64_t write_calls;
	uint64_t write_bytes;           /* header, index, footer and padding included */
	uint32_t blocks;
	uint32_t raw_blocks;            /* that did not shrink */
	uint32_t fills;
	uint32_t slices;
	uint64_t end;                   /* offset in the pack behind what was added */
};

void firn_builder_get_stats(struct firn_builder *b, struct firn_builder_stats *ret);

#endif
