/* SPDX-License-Identifier: MIT */
/*
 * A finished pack, read back through a callback: header, footer and index checked, then block by
 * block.  Nothing in a pack is believed before it has been checked.
 */
#ifndef FIRN_PACK_READER_H
#define FIRN_PACK_READER_H

#include "pack/codec.h"
#include "pack/index.h"
#include "pack/reuse.h"

/*
 * Read @len bytes at @offset, all of them.  @offset is any, and @len up to 1 MiB and a tag.
 * Returns 0, or -errno; fewer bytes than asked for are -EBADMSG.
 */
typedef int (*firn_reader_read)(void *ctx, void *buf, size_t len, struct firn_poff offset);

struct firn_reader {
	firn_reader_read read;
	void *ctx;
	uint64_t file_bytes;
	struct firn_pack_header header;
	struct firn_pack_footer footer;
	struct firn_pack_index index;   /* the arrays are this reader's */
	struct firn_reader *base;       /* firn_reader_set_base */
	struct firn_codec codec;
	void *sections;
	uint8_t *stored;                /* one block or piece, with its tag */
	uint8_t *raw;                   /* one block */
};

/*
 * Is this a header of a pack that this Firn reads?  Pure; @h is untrusted.
 * Returns 0; -EBADMSG damaged, or no pack; -EOPNOTSUPP a version, kind or cipher of another Firn.
 */
int firn_pack_header_check(const struct firn_pack_header *h);

/*
 * Does the footer fit header and file?  Pure but for the codec; everything but @file_bytes is
 * untrusted, and the header has passed its check.  @codec NULL: the seal is not looked at.
 * Returns 0; -EBADMSG; -EIO libcrypto failed.
 */
int firn_pack_footer_check(const struct firn_pack_footer *f, const struct firn_pack_header *h,
			   uint64_t file_bytes, struct firn_codec *codec);

/*
 * Open a pack of @file_bytes: check header, footer and seal, load and check the index.
 * @key  32 bytes, copied; may be NULL for a pack without cipher.
 * Any thread; then one thread at a time.  Allocates the index and two blocks; nothing does later.
 * Returns 0; -EBADMSG damaged, unfinished, or another key; -EOPNOTSUPP written by another Firn;
 * -ENOKEY encrypted and no key given; -ENOMEM; -EIO libcrypto failed; -errno of the callback.
 * On failure @r holds nothing, and closing it is allowed.
 */
int firn_reader_open(struct firn_reader *r, const uint8_t *key, uint64_t file_bytes,
		     firn_reader_read read, void *ctx);

/* Wipe and release.  A zeroed or closed reader is allowed. */
void firn_reader_close(struct firn_reader *r);

/*
 * Where @r's blocks before its own are: @base, open, which outlives it and is used by its thread.
 * Returns 0; -EBADMSG it is not the pack that @r was made upon.
 */
int firn_reader_set_base(struct firn_reader *r, struct firn_reader *base);

/* What a pack with @r for its base needs to know of it; for as long as @r is open. */
void firn_reader_base(const struct firn_reader *r, struct firn_base *ret);

/*
 * Read and decode block @number, as places number them, into @raw (room for FIRN_BLOCK_PAGES pages).  State: open.
 * Returns the pages in it; -EINVAL no such block; -ENOLINK it is the base's, which is not there; -EBADMSG; -EIO; -errno of the callback.
 * On failure @raw holds nothing of use.
 */
int firn_reader_read_block(struct firn_reader *r, uint32_t number, void *raw);

/*
 * The page at @place, whatever its kind, into @page (page size).  State: open.  One block is read
 * and decoded a call: for tests and tools.
 * Returns 0; -EINVAL no such place; else as firn_reader_read_block.
 */
int firn_reader_read_page(struct firn_reader *r, uint32_t place, void *page);

/* Read and decode every block of its own.  State: open.  Returns 0, or as firn_reader_read_block. */
int firn_reader_verify(struct firn_reader *r);

#endif
