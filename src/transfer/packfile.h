/* SPDX-License-Identifier: MIT */
/*
 * One pack in the store, and the tables that find a block in it.  The tables lie in shared memory that
 * outlives the agent; several targets (a process and its forked children) may live on one pack.
 */
#ifndef FIRN_TRANSFER_PACKFILE_H
#define FIRN_TRANSFER_PACKFILE_H

#include "pack/codec.h"
#include "pack/format.h"
#include "transfer/workers.h"

/* The largest piece that one read brings in, and the most decoded blocks a reader remembers. */
#define FIRN_READER_STORED_BYTES (8u << 20)
#define FIRN_READER_SLOTS 64u

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
	uint32_t write_calls;           /* to the store: what is kept in RAM costs it nothing */
	uint32_t in_ram;                /* which file is the pack: the one in memory, else the one in the store */
	uint64_t write_bytes;
	uint32_t move_after_s;          /* from RAM to the store, then; FIRN_PACK_STAYS */
	uint32_t kind;                  /* enum firn_pack_kind */
	uint32_t base_blocks;           /* of the base, whose blocks are numbered first; 0: there is none */
	uint32_t set_blocks;            /* of this pack's own blocks, the first so many hold the working set */
	uint64_t base_generation;
	uint64_t reused_pages;          /* whose contents are in the base */
	uint32_t digests, pad;          /* its index tells whether pages have changed: it may be a base */
};

struct firn_packfile {
	int fd;                         /* O_DIRECT where the store can; owned by whoever opened it.  Another file with
	                                 * the same bytes may come in its place at any time, by dup3. */
	struct firn_pack_memory *m;
	struct firn_block *blocks;      /* its own */
	uint64_t *fills;
	const struct firn_packfile *base;   /* set before anybody reads; has none itself */
};

#define FIRN_PACK_STAYS UINT32_MAX
#define FIRN_PACK_MEMORY_MAGIC 0x6e6b6361706e7266ull

size_t firn_packfile_memory_bytes(uint32_t max_blocks, uint32_t max_fills);
/* Format zeroed @mem / attach to @mem of @size bytes.  Attach returns -EBADMSG where it is not ours. */
void firn_packfile_format(struct firn_packfile *p, void *mem, uint32_t max_blocks, uint32_t max_fills);
int firn_packfile_attach(struct firn_packfile *p, void *mem, size_t size);

/*
 * Blocks are numbered through: the base's, if there is one, then the pack's own.  Which file block *@number is in;
 * *@number becomes its number there.
 */
static inline const struct firn_packfile *firn_packfile_of(const struct firn_packfile *p, uint32_t *number)
{
	if (*number < p->m->base_blocks)
		return p->base;
	*number -= p->m->base_blocks;
	return p;
}

/* How many blocks there are, and bytes of files, the base's included. */
static inline uint32_t firn_packfile_blocks(const struct firn_packfile *p)
{
	return p->m->base_blocks + p->m->blocks;
}

static inline uint64_t firn_packfile_bytes(const struct firn_packfile *p)
{
	return p->m->bytes + (p->m->base_blocks ? p->base->m->bytes : 0);
}

/* A stretch of the pack, read at once: in one file. */
struct firn_chunk {
	uint32_t first, count;          /* blocks in it */
	uint64_t offset;                /* in the file, of its first byte in the staging */
};

/* What one read brought, or brings, with the begin of its first block before it. */
struct firn_staging {
	char *mem;                      /* room for a block, then the bytes read, aligned */
	const struct firn_packfile *p;  /* NULL: nothing */
	const struct firn_packfile *file;   /* that the bytes are of: it, or its base */
	struct firn_chunk chunk;
	uint64_t read, end;             /* of the file: what is read, to be read */
	size_t needed;                  /* of it, what the file has for certain */
};

/* A thread's means of reading blocks: buffers of fixed size, made once. */
struct firn_block_reader {
	struct firn_codec codecs[3];    /* by enum firn_cipher: packs of another setting stay readable */
	void *scratch;                  /* theirs */
	struct firn_staging staging[2]; /* one is worked on while the other is read into */
	size_t staging_bytes;           /* to read at once into each */
	unsigned int at_hand;           /* which of them holds the caller's chunk */
	struct firn_lane *lane;
	bool under_way;                 /* the other one is read into, or was: the lane tells */
	void *single;                   /* aligned; one block, so that a chunk at hand stays */
	size_t single_bytes;
	uint32_t page_size;
	uint32_t nslots;
	char *raw;                      /* decoded blocks; block n in slot n % nslots */
	struct {
		uint64_t generation;    /* 0: empty */
		uint32_t block;
	} slots[FIRN_READER_SLOTS];
	uint64_t read_calls, read_bytes, blocks_read;   /* since opened; the owner's thread only */
};

/* Make a reader.  @staging_bytes: to read at once for chunks, a multiple of 4096: twice that memory,
 * and a thread that reads ahead; 0 where only single blocks are read. @nslots:
 * decoded blocks to remember, at most FIRN_READER_SLOTS.  Returns 0, -ENOMEM, -EOPNOTSUPP. */
int firn_block_reader_open(struct firn_block_reader *r, const uint8_t *key, uint32_t page_size,
			   size_t staging_bytes, uint32_t nslots);
void firn_block_reader_close(struct firn_block_reader *r);

/*
 * Block @number of @p, decoded (second pager): remembered, or read.  *@ret is valid until the reader's
 * next use.  Allocates nothing.
 * Returns 0; -EBADMSG the pack is damaged there; -EIO or another errno of the read.
 */
int firn_block_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void **ret);

/* Stored bytes [@offset, @offset + @bytes) of file @p, not of its base, by one read into @buf, which has room up to the next 4096 and is
 * aligned so, as @offset is.  Returns as firn_block_read. */
int firn_block_read_span(struct firn_block_reader *r, const struct firn_packfile *p, uint64_t offset, void *buf,
			 size_t bytes);
/* Block @number of @p, whose stored bytes are at @stored.  As firn_block_read. */
int firn_block_decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void *stored,
		      const void **ret);

/*
 * Read blocks from @first on, below @end, as many as one call of the staging's size brings.  Where @first follows the
 * chunk before, the part of it that came with that one is not read again: so a pack comes in by as many
 * calls as its bytes take.  Returns as firn_block_read.
 */
int firn_chunk_read(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first, uint32_t end,
		    struct firn_chunk *ret);
/* Begin to read what firn_chunk_read(@r, @p, @first, @end, …) will be asked for next, while the caller works on the
 * chunk at hand.  Whoever looked at the chunk before that one has done with it.  Returns how many
 * blocks from @first on are coming; 0 where nothing can be read ahead. */
uint32_t firn_chunk_ahead(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t first, uint32_t end);
/* The stored bytes of block @number of the chunk at hand; there until the call of firn_chunk_ahead after the next
 * firn_chunk_read, or the second firn_chunk_read from now.  For any thread. */
const void *firn_chunk_stored(const struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number);
/* Block @number of the chunk at hand, decoded.  As firn_block_read. */
int firn_chunk_decode(struct firn_block_reader *r, const struct firn_packfile *p, uint32_t number, const void **ret);

#endif
