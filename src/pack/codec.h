/* SPDX-License-Identifier: MIT */
/*
 * Raw bytes to stored bytes and back: LZ4, then authenticated encryption (or a checksum).
 *
 * A codec belongs to one thread at a time.  It allocates in firn_codec_open only.  It does no I/O
 * and knows neither the pack's layout nor the target.
 */
#ifndef FIRN_PACK_CODEC_H
#define FIRN_PACK_CODEC_H

#include "pack/format.h"

struct evp_cipher_ctx_st;

struct firn_codec {
	enum firn_cipher cipher;
	uint32_t max_raw_bytes;
	struct evp_cipher_ctx_st *enc;  /* NULL with FIRN_CIPHER_OFF, and in a decoder */
	struct evp_cipher_ctx_st *dec;  /* NULL with FIRN_CIPHER_OFF */
	void *lz4;                      /* compression state; NULL in a decoder */
	uint8_t *scratch;               /* max_raw_bytes; of LZ4 data inside one call */
	bool lent;                      /* scratch is the owner's */
};

/*
 * Make a codec ready: key schedules, the cipher's tables and LZ4's state.
 * @key            32 bytes, copied; NULL is right for FIRN_CIPHER_OFF only.
 * @max_raw_bytes  largest piece that will be given: 1..1 MiB; use FIRN_BLOCK_PAGES * page size, and
 *                 at least FIRN_INDEX_PIECE_BYTES where an index is written or read.
 * Any thread; the caller owns @c and closes it, from any thread.
 * Returns 0; -EINVAL a bad parameter; -ENOMEM; -EOPNOTSUPP libcrypto has no such cipher here.
 * On failure @c holds nothing, and closing it is allowed.
 */
int firn_codec_open(struct firn_codec *c, enum firn_cipher cipher, const uint8_t *key,
		    uint32_t max_raw_bytes);

/*
 * As firn_codec_open, but only firn_codec_decode and firn_codec_check may be called; the others that can fail return
 * -EINVAL.  It has no state of LZ4 and one key schedule.
 * @scratch  firn_codec_scratch_bytes(@max_raw_bytes) that outlive @c; other decoders of the same thread may have
 *           them too.  Closing wipes them.  NULL: its own.
 */
int firn_codec_open_decoder(struct firn_codec *c, enum firn_cipher cipher, const uint8_t *key,
			    uint32_t max_raw_bytes, void *scratch);
size_t firn_codec_scratch_bytes(uint32_t max_raw_bytes);

/* Wipe and release.  A zeroed or closed codec is allowed. */
void firn_codec_close(struct firn_codec *c);

/*
 * First half of encoding: find how @raw is stored.
 * @raw_bytes   1..max_raw_bytes.   @out  room for @raw_bytes; must not overlap @raw.
 * @ret_codec   FIRN_CODEC_LZ4: the stored bytes are in @out; FIRN_CODEC_RAW: they are @raw itself,
 *              since LZ4 saves less than a thirty-second part, and @out holds nothing of use.
 * Thread: the codec's.  Returns the stored bytes; cannot fail.
 */
uint32_t firn_codec_compress(struct firn_codec *c, const void *raw, uint32_t raw_bytes, void *out,
			     uint8_t *ret_codec);

/*
 * Second half: encrypt @data and put the tag behind it.
 * @p     what the tag vouches for; p->stored_bytes of @data are read.  No two calls under one key
 *        may have the same generation and number, unless @data and *@p are the same too.
 * @out   room for p->stored_bytes + FIRN_TAG_BYTES; may be @data, may not overlap it otherwise.
 * Thread: the codec's.  Returns 0; -EINVAL; -EIO libcrypto failed: @out holds nothing of use.
 */
int firn_codec_seal(struct firn_codec *c, const struct firn_piece *p, const void *data, void *out);

/*
 * Both halves.
 * @p     comes with generation, number and raw_bytes; stored_bytes and codec are filled in.
 * @out   room for p->raw_bytes + FIRN_TAG_BYTES; must not overlap @raw.
 * Thread: the codec's.  Returns 0; -EINVAL; -EIO as firn_codec_seal.
 */
int firn_codec_encode(struct firn_codec *c, struct firn_piece *p, const void *raw, void *out);

/*
 * Check, decrypt and decompress.  *@p may come from an untrusted pack: nothing is believed of it.
 * @stored  p->stored_bytes and the tag behind them: the caller has made sure that they are there.
 * @raw     room for p->raw_bytes, must not overlap @stored.
 * Thread: the codec's.
 * Returns 0; -EBADMSG wrong tag, or a piece that no Firn writes; -EIO libcrypto failed.
 * On failure @raw holds nothing of use and must not reach a target.
 */
int firn_codec_decode(struct firn_codec *c, const struct firn_piece *p, const void *stored,
		      void *raw);

/*
 * The footer's seal: a tag over two plain buffers, under FIRN_SEAL_NUMBER.
 * Thread: the codec's.  Returns 0; -EIO libcrypto failed.  check: also -EBADMSG, a wrong tag.
 */
int firn_codec_sign(struct firn_codec *c, uint64_t generation, const void *a, uint32_t a_bytes,
		    const void *b, uint32_t b_bytes, uint8_t ret_tag[FIRN_TAG_BYTES]);
int firn_codec_check(struct firn_codec *c, uint64_t generation, const void *a, uint32_t a_bytes,
		     const void *b, uint32_t b_bytes, const uint8_t tag[FIRN_TAG_BYTES]);

/* "aes-256-ocb", "aes-256-gcm" or "off"; NULL for anything else. */
const char *firn_cipher_name(enum firn_cipher cipher);

/* The cipher of that name.  Returns 0, or -EINVAL. */
int firn_cipher_from_name(const char *name, enum firn_cipher *ret);

#endif
