/* SPDX-License-Identifier: MIT */
/*
 * A pack of kind direct: everything of it but its pages, which their owner writes itself.
 *
 *   open -> { begin -> { add, the pages are written ... } finish } ... -> close
 *
 * add() says where in the pack the pages of some runs go: behind one another, in the order of the
 * runs, so that one gathered write puts them there.  There is no compression, no checksum of a page,
 * nothing is elided, and no page is ever looked at.
 *
 * One thread at a time.  Memory: 0.4 MiB, made at open.
 */
#ifndef FIRN_PACK_DIRECT_H
#define FIRN_PACK_DIRECT_H

#include "pack/ends.h"

struct firn_direct;

/* As in firn_builder_ops: write @len bytes at @offset, all of them, 4096-byte aligned in address, length
 * and offset.  Returns 0, or -errno. */
typedef int (*firn_direct_write)(void *ctx, const void *buf, size_t len, struct firn_poff offset);

/* Returns 0; -EINVAL a bad page size; -ENOMEM.  On failure *@ret is NULL. */
int firn_direct_open(struct firn_direct **ret, uint32_t page_size, firn_direct_write write, void *ctx);
void firn_direct_close(struct firn_direct *d);

/* Start a pack and write its header; fills are not used.  Returns 0, or -errno of write(). */
int firn_direct_begin(struct firn_direct *d, const struct firn_builder_pack *pack);

/* Blocks that @pages may take, added in @adds calls. */
static inline uint64_t firn_direct_blocks_max(uint64_t pages, uint32_t adds)
{
	return pages / FIRN_BLOCK_PAGES + adds;
}

/*
 * The pages of @n runs are next: enter them into the block table, and page k of run r into
 * places[r.first_place + k].  *@ret: where the first of them goes.
 * Returns 0; -ENOSPC the block table is full, and nothing changed.
 */
int firn_direct_add(struct firn_direct *d, const struct firn_pack_run *runs, uint32_t n, uint32_t *places,
		    struct firn_poff *ret);

/* Blocks in the table, and the offset behind the last. */
uint32_t firn_direct_blocks(const struct firn_direct *d);
struct firn_poff firn_direct_end(const struct firn_direct *d);

/*
 * Every page added is written: write index and footer.  *@ret_bytes: the pack's length.
 * Returns 0; -EINVAL as firn_builder_finish; -EIO libcrypto failed; -errno of write().
 */
int firn_direct_finish(struct firn_direct *d, const struct firn_builder_index *index, uint64_t *ret_bytes);

#endif
