/* SPDX-License-Identifier: MIT */
/*
 * The pack on disk: what docs/pack-format.md says, as C.  Structures and constants only; all
 * numbers are little endian and so are the hosts that Firn runs on.
 *
 *   header (4096) | blocks at 16-byte aligned offsets | index | zeros to 4096 | footer (4096)
 *
 * The footer is written last: a pack without one was never finished.
 */
#ifndef FIRN_PACK_FORMAT_H
#define FIRN_PACK_FORMAT_H

#include <assert.h>

#include "base/types.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the pack format is little endian, and so must be the host"
#endif

#define FIRN_PACK_MAGIC "FIRNPACK"      /* 8 bytes, no NUL */
#define FIRN_FOOTER_MAGIC "FIRNFOOT"
#define FIRN_PACK_VERSION 1u
#define FIRN_PACK_ALIGN 4096u           /* of the header, the footer and every write */
#define FIRN_BLOCK_ALIGN 16u            /* of a block's offset */
#define FIRN_BLOCK_PAGES 16u            /* OS pages of raw data in a full block */
#define FIRN_TAG_BYTES 16u              /* after the stored bytes of each block and index piece */
#define FIRN_KEY_BYTES 32u
#define FIRN_PAGE_SIZE_MIN 4096u
#define FIRN_PAGE_SIZE_MAX 65536u
#define FIRN_FILLS_MAX 65536u           /* same-filled words of one pack */
#define FIRN_BLOCKS_MAX (1u << 26)      /* slot numbers have 30 bits */
#define FIRN_INDEX_PIECE_BYTES 65536u   /* raw bytes of an index piece; the last may hold fewer */
#define FIRN_INDEX_FIRST_NUMBER 0xF0000000u /* block number of the first index piece */
#define FIRN_SEAL_NUMBER 0xFFFFFFFFu    /* block number of the footer's seal */
#define FIRN_INDEX_PIECES_MAX (FIRN_SEAL_NUMBER - FIRN_INDEX_FIRST_NUMBER)

/* An offset in a pack, in bytes.  A struct, so that it is not mixed with an address or a length. */
struct firn_poff {
	uint64_t v;
};

enum firn_pack_kind {
	FIRN_PACK_COPIED = 1,
	FIRN_PACK_DIRECT = 2,           /* plain pages, as the target wrote them: no tags, no cipher */
};

static inline const char *firn_pack_kind_name(enum firn_pack_kind kind)
{
	return kind == FIRN_PACK_DIRECT ? "direct" : "copied";
}

enum firn_cipher {
	FIRN_CIPHER_OFF = 0,            /* plaintext; the tag is a checksum */
	FIRN_CIPHER_AES_256_GCM = 1,
	FIRN_CIPHER_AES_256_OCB = 2,
};

enum firn_block_codec {
	FIRN_CODEC_RAW = 0,
	FIRN_CODEC_LZ4 = 1,             /* LZ4 block format, no frame */
};

/*
 * A page's place, 32 bits: kind (2, high) and value (30).  All zero bits are no place at all, so
 * that memory nobody filled in is never taken for a zero page.
 */
enum firn_place_kind {
	FIRN_PLACE_NONE = 0,
	FIRN_PLACE_ZERO = 1,    /* value 0 */
	FIRN_PLACE_FILL = 2,    /* value: index in the fill table */
	FIRN_PLACE_SLOT = 3,    /* value: block number * FIRN_BLOCK_PAGES + page in the block; blocks of the
				 * base come first, then the pack's own */
};

#define FIRN_PLACE_VALUE_MASK 0x3FFFFFFFu

static inline uint32_t firn_place(enum firn_place_kind kind, uint32_t value)
{
	return ((uint32_t)kind << 30) | (value & FIRN_PLACE_VALUE_MASK);
}

static inline enum firn_place_kind firn_place_kind(uint32_t place)
{
	return (enum firn_place_kind)(place >> 30);
}

static inline uint32_t firn_place_value(uint32_t place)
{
	return place & FIRN_PLACE_VALUE_MASK;
}

/* Of a SLOT place: its block, and its page in that block. */
static inline uint32_t firn_place_block(uint32_t place)
{
	return firn_place_value(place) / FIRN_BLOCK_PAGES;
}

static inline uint32_t firn_place_page(uint32_t place)
{
	return firn_place_value(place) % FIRN_BLOCK_PAGES;
}

/* The block table's entry, in memory and in the index. */
struct firn_block {
	struct firn_poff offset; /* of the stored bytes; 0: not written yet (in memory only) */
	uint32_t stored_bytes;          /* without the tag that follows them */
	uint8_t raw_pages;              /* 1..FIRN_BLOCK_PAGES */
	uint8_t codec;                  /* enum firn_block_codec */
	uint16_t reserved;              /* 0 */
};

/* Bytes that a block takes in the pack: stored bytes, tag, padding. */
static inline uint64_t firn_block_span_bytes(uint32_t stored_bytes)
{
	return firn_align_up((uint64_t)stored_bytes + FIRN_TAG_BYTES, FIRN_BLOCK_ALIGN);
}

/* The bytes of it that must be read: a block of a direct pack has no tag. */
static inline uint32_t firn_block_read_bytes(enum firn_pack_kind kind, uint32_t stored_bytes)
{
	return stored_bytes + (kind == FIRN_PACK_DIRECT ? 0 : FIRN_TAG_BYTES);
}

static inline uint64_t firn_block_bytes(enum firn_pack_kind kind, uint32_t stored_bytes)
{
	return kind == FIRN_PACK_DIRECT ? stored_bytes : firn_block_span_bytes(stored_bytes);
}

/*
 * What a tag vouches for beside the stored bytes: the associated data of the cipher, byte for byte.
 * Nonce: the first twelve bytes (generation, number).
 */
struct firn_piece {
	uint64_t generation;
	uint32_t number;                /* of a block, FIRN_INDEX_FIRST_NUMBER + n, or the seal's */
	uint32_t raw_bytes;
	uint32_t stored_bytes;
	uint8_t codec;
	uint8_t zero[3];
};

/* The tag's view of block @number in the pack of @generation. */
static inline struct firn_piece firn_piece_of_block(uint64_t generation, uint32_t number,
						    uint32_t page_size, const struct firn_block *e)
{
	return (struct firn_piece){
		.generation = generation,
		.number = number,
		.raw_bytes = e->raw_pages * page_size,
		.stored_bytes = e->stored_bytes,
		.codec = e->codec,
	};
}

struct firn_pack_header {
	uint8_t magic[8];
	uint32_t version;
	uint32_t header_bytes;          /* 4096 */
	uint8_t kind;                   /* enum firn_pack_kind */
	uint8_t cipher;                 /* enum firn_cipher */
	uint8_t codec;                  /* of blocks that shrink */
	uint8_t block_pages;            /* FIRN_BLOCK_PAGES */
	uint32_t page_size;             /* bytes */
	uint32_t machine;               /* ELF e_machine: 62 x86-64, 183 aarch64 */
	int32_t pid;                    /* first target, in the agent's pid namespace */
	uint64_t generation;            /* never used twice under one key */
	uint64_t start_time;            /* first target: field 22 of /proc/PID/stat */
	uint64_t created_ns;            /* CLOCK_REALTIME */
	uint8_t boot_id[16];
	char comm[16];                  /* first target, NUL padded */
	uint8_t zero[4088 - 88];
	uint64_t checksum;              /* XXH3-64 of the 4088 bytes before it */
};

/* Index sections, in this order, without gaps: targets, runs, blocks, fills (u64), digests,
 * places (u32). */
struct firn_pack_target {
	int32_t pid;
	uint32_t group;                 /* 0: none; equal numbers were one request */
	uint64_t start_time;
	uint32_t first_run;
	uint32_t runs;
	char comm[16];
	uint64_t reserved;              /* 0 */
};

/* Consecutive pages of a target whose places are consecutive in the place table. */
struct firn_pack_run {
	struct firn_taddr start;        /* page aligned */
	uint32_t npages;                /* > 0 */
	uint32_t first_place;
};

/* Of a page's contents, keyed (reuse.h).  Of a page that has no slot: zeros. */
struct firn_digest {
	uint64_t v[2];
};

/* Before each index piece's stored bytes. */
struct firn_index_piece {
	uint32_t stored_bytes;
	uint32_t raw_bytes;
	uint8_t codec;
	uint8_t zero[7];
};

struct firn_pack_footer {
	uint8_t magic[8];
	uint32_t version;
	uint32_t index_pieces;
	uint64_t generation;
	uint64_t file_bytes;            /* the whole pack, this footer included */
	uint64_t index_offset;          /* 16-byte aligned; blocks lie in [4096, index_offset) */
	uint64_t index_bytes;           /* of all pieces with their heads, tags and padding */
	uint64_t index_raw_bytes;
	uint32_t targets;
	uint32_t runs;
	uint32_t blocks;
	uint32_t fills;
	uint32_t places;
	uint32_t slices;
	uint64_t zero_pages;            /* for people: what became of the pages added */
	uint64_t fill_pages;
	uint64_t duplicate_pages;
	uint64_t unique_pages;
	uint64_t raw_blocks;
	uint64_t base_generation;       /* of the pack that holds the blocks before base_blocks; 0: none */
	uint64_t base_bytes;            /* its length, */
	uint32_t base_blocks;           /* how many blocks it has, */
	uint32_t digests;               /* (of this pack: 0, or as many as places) */
	uint64_t reused_pages;          /* for people: pages whose place is in the base */
	uint8_t base_seal[FIRN_TAG_BYTES];      /* and the seal of its footer */
	uint8_t zero[4072 - 168];
	uint8_t seal[FIRN_TAG_BYTES];   /* tag over the header and the 4072 bytes before it */
	uint64_t checksum;              /* XXH3-64 of the 4088 bytes before it */
};

static_assert(sizeof(struct firn_block) == 16, "block table entry");
static_assert(sizeof(struct firn_piece) == 24, "associated data");
static_assert(sizeof(struct firn_pack_header) == 4096, "header");
static_assert(offsetof(struct firn_pack_header, zero) == 88, "header");
static_assert(sizeof(struct firn_pack_target) == 48, "target");
static_assert(sizeof(struct firn_pack_run) == 16, "run");
static_assert(sizeof(struct firn_digest) == 16, "digest");
static_assert(sizeof(struct firn_index_piece) == 16, "index piece");
static_assert(sizeof(struct firn_pack_footer) == 4096, "footer");
static_assert(offsetof(struct firn_pack_footer, zero) == 168, "footer");
static_assert(offsetof(struct firn_pack_footer, seal) == 4072, "footer");

#endif
