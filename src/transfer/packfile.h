/* SPDX-License-Identifier: MIT */
/*
 * One pack in the store, and the tables that find a block in it.  The tables lie in shared memory that
 * outlives the agent; several targets (a process and its forked children) may live on one pack.
 */
#ifndef FIRN_TRANSFER_PACKFILE_H
#define FIRN_TRANSFER_PACKFILE_H

#include "pack/codec.h"
#include "pack/format.h"

/* In shared memory, followed by blocks[max_blocks] and fills[max_fills]. */
struct firn_pack_memory {
	uint64_t magic;
	uint64_t generation;
	uint32_t cipher;
	uint32_t page_size;
	uint32_t max_blocks, max_fills;
	uint64_t bytes;                 /* of the file */
	uint64_t raw_bytes;             /* of the pages in it, before elision */
	uint64_t duplicates;
	uint32_t blocks, fills;         /* in use */
	uint32_t write_calls, pad;
	uint64_t write_bytes;
};

struct firn_packfile {
	int fd;                         /* O_DIRECT where the store can; owned by whoever opened it */
	struct firn_pack_memory *m;
	struct firn_block *blocks;
	uint64_t *fills;
};

#define FIRN_PACK_MEMORY_MAGIC 0x6d6b6361706e7266ull

size_t firn_packfile_memory_bytes(uint32_t max_blocks, uint32_t max_fills);
/* Format zeroed @mem / attach to @mem of @size bytes.  Attach returns -EBADMSG where it is not ours. */
void firn_packfile_format(struct firn_packfile *p, void *mem, uint32_t max_blocks, uint32_t max_fills);
int firn_packfile_attach(struct firn_packfile *p, void *mem, size_t size);

/* A thread's means of reading blocks: buffers of fixed size, made once. */
struct firn_block_reader {
	struct firn_codec codecs[3];    /* by enum firn_cipher: packs of another setting stay readable */
	void *stored;                   /* aligned */
	size_t stored_bytes;
	uint32_t page_size;
	void *raw;                      /* one block */
	uint64_t raw_generation;        /* which block @raw holds; 0: none */
	uint32_t raw_block;
	uint64_t read_calls, read_bytes, blocks_read;   /* since opened; the owner's thread only */
};

/* The largest piece that one read brings in. */
#define FIRN_READER_STORED_BYTES (8u << 20)

/* @stored_bytes of staging: FIRN_READER_STORED_BYTES for streams, less for faults (>= 256 KiB).
 * Returns 0, -ENOMEM, -EOPNOTSUPP. */
int firn_block_reader_open(struct firn_block_reader *r, const uint8_t *key, uint32_t page_size,
			   size_t stored_bytes);
void firn_block_reader_close(struct firn_block_reader *r);

/*
 * Bring block @number of @p into r->raw (second pager).  Allocates nothing.
 * Returns 0; -EBADMSG the pack is damaged there; -EIO or another errno of the read.
 */
int firn_block_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number);

/* A stretch of the pack, read at once. */
struct firn_chunk {
	uint32_t first, count;          /* blocks in it */
	uint64_t offset;                /* of stored[0] in the file */
};

/* Read as many blocks from @first on as the staging holds, in one call.  Returns as firn_block_read. */
int firn_chunk_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first,
		    struct firn_chunk *ret);
/* Decode block @number of @c into r->raw. */
int firn_chunk_decode(struct firn_block_reader *r, const struct firn_packfile *p, const struct firn_chunk *c,
		      uint32_t number);

#endif
