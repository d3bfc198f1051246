/* SPDX-License-Identifier: MIT */
/*
 * LZ4 and authenticated encryption of one piece at a time.  Owns its key schedules and scratch;
 * knows no file, no offset and no target.  Everything that decode is given may come from a hostile
 * pack.
 */
#include "pack/codec.h"

#include <errno.h>
#include <lz4.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NONCE_BYTES 12
#define SCRATCH_MIN_BYTES 16384u        /* the seal covers header and footer: 8168 bytes */
/* Of LZ4: as small as with 1 on the memory of programs, and a twelfth faster. */
#define ACCELERATION 2
#define RAW_BYTES_MAX (FIRN_BLOCK_PAGES * FIRN_PAGE_SIZE_MAX)

/* The associated data and the nonce are the structure's own bytes. */
static_assert(offsetof(struct firn_piece, generation) == 0, "nonce");
static_assert(offsetof(struct firn_piece, number) == 8, "nonce");

struct plain {
	const void *data;
	uint32_t bytes;
};

const char *firn_cipher_name(enum firn_cipher cipher)
{
	switch (cipher) {
	case FIRN_CIPHER_OFF:
		return "off";
	case FIRN_CIPHER_AES_256_GCM:
		return "aes-256-gcm";
	case FIRN_CIPHER_AES_256_OCB:
		return "aes-256-ocb";
	}
	return NULL;
}

int firn_cipher_from_name(const char *name, enum firn_cipher *ret)
{
	static const enum firn_cipher all[] = {
		FIRN_CIPHER_OFF, FIRN_CIPHER_AES_256_GCM, FIRN_CIPHER_AES_256_OCB,
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!strcmp(name, firn_cipher_name(all[i]))) {
			*ret = all[i];
			return 0;
		}
	}
	return -EINVAL;
}

static void checksum_tag(const struct firn_piece *p, const struct plain *extra, int extras,
			 const void *data, uint8_t tag[FIRN_TAG_BYTES])
{
	uint64_t h = XXH3_64bits(p, sizeof(*p));

	for (int i = 0; i < extras; i++)
		h = XXH3_64bits_withSeed(extra[i].data, extra[i].bytes, h);
	if (p->stored_bytes)
		h = XXH3_64bits_withSeed(data, p->stored_bytes, h);
	memcpy(tag, &h, sizeof(h));
	memset(tag + sizeof(h), 0, FIRN_TAG_BYTES - sizeof(h));
}

/* Start a message in @x: nonce and associated data. */
static int start_message(EVP_CIPHER_CTX *x, const struct firn_piece *p, const struct plain *extra,
			 int extras, int encrypt)
{
	int n;

	if (EVP_CipherInit_ex(x, NULL, NULL, NULL, (const uint8_t *)p, encrypt) != 1 ||
	    EVP_CipherUpdate(x, NULL, &n, (const uint8_t *)p, sizeof(*p)) != 1)
		return -EIO;
	for (int i = 0; i < extras; i++) {
		if (EVP_CipherUpdate(x, NULL, &n, extra[i].data, (int)extra[i].bytes) != 1)
			return -EIO;
	}
	return 0;
}

static int encrypt(struct firn_codec *c, const struct firn_piece *p, const struct plain *extra,
		   int extras, const void *data, void *out, uint8_t tag[FIRN_TAG_BYTES])
{
	int n = 0, tail = 0, r;
	uint8_t none[FIRN_TAG_BYTES] = { 0 };

	if (c->cipher == FIRN_CIPHER_OFF) {
		if (p->stored_bytes && out != data)
			memcpy(out, data, p->stored_bytes);
		checksum_tag(p, extra, extras, out, tag);
		return 0;
	}
	r = start_message(c->enc, p, extra, extras, 1);
	if (r < 0)
		return r;
	if (p->stored_bytes && EVP_EncryptUpdate(c->enc, out, &n, data, (int)p->stored_bytes) != 1)
		return -EIO;
	if (EVP_EncryptFinal_ex(c->enc, p->stored_bytes ? (uint8_t *)out + n : none, &tail) != 1 ||
	    (uint32_t)(n + tail) != p->stored_bytes ||
	    EVP_CIPHER_CTX_ctrl(c->enc, EVP_CTRL_AEAD_GET_TAG, FIRN_TAG_BYTES, tag) != 1)
		return -EIO;
	return 0;
}

static int decrypt(struct firn_codec *c, const struct firn_piece *p, const struct plain *extra,
		   int extras, const void *stored, void *out, const uint8_t tag[FIRN_TAG_BYTES])
{
	int n = 0, tail = 0, r;
	uint8_t expected[FIRN_TAG_BYTES], *rest;

	if (c->cipher == FIRN_CIPHER_OFF) {
		checksum_tag(p, extra, extras, stored, expected);
		return memcmp(expected, tag, sizeof(expected)) ? -EBADMSG : 0;
	}
	r = start_message(c->dec, p, extra, extras, 0);
	if (r < 0)
		return r;
	memcpy(expected, tag, sizeof(expected));
	if (EVP_CIPHER_CTX_ctrl(c->dec, EVP_CTRL_AEAD_SET_TAG, FIRN_TAG_BYTES, expected) != 1)
		return -EIO;
	if (p->stored_bytes &&
	    EVP_DecryptUpdate(c->dec, out, &n, stored, (int)p->stored_bytes) != 1)
		return -EIO;
	rest = p->stored_bytes ? (uint8_t *)out + n : expected;
	if (EVP_DecryptFinal_ex(c->dec, rest, &tail) != 1)
		return -EBADMSG;
	return (uint32_t)(n + tail) == p->stored_bytes ? 0 : -EIO;
}

/*
 * libcrypto grows OCB's table of offsets with the length of the longest message: grow it now, so
 * that nothing allocates later.  The output stays in scratch, so that its nonce gives nothing away.
 * What is decrypted has no tag that fits: that is said last.
 */
static int warm_up(struct firn_codec *c, uint32_t bytes)
{
	const struct firn_piece p = { .number = FIRN_SEAL_NUMBER, .stored_bytes = bytes };
	const struct firn_piece seal = { .number = FIRN_SEAL_NUMBER };
	const struct plain extra = { c->scratch, SCRATCH_MIN_BYTES };
	uint8_t tag[FIRN_TAG_BYTES] = { 0 };
	int r = 0;

	if (c->cipher == FIRN_CIPHER_OFF)
		return 0;
	if (c->enc) {
		r = encrypt(c, &p, NULL, 0, c->scratch, c->scratch, tag);
		if (r == 0)
			r = encrypt(c, &seal, &extra, 1, NULL, NULL, tag);
		memset(tag, 0, sizeof(tag));
	}
	if (r == 0)
		r = decrypt(c, &p, NULL, 0, c->scratch, c->scratch, tag);
	if (r == 0 || r == -EBADMSG)
		r = decrypt(c, &seal, &extra, 1, NULL, NULL, tag);
	return r == 0 || r == -EBADMSG ? 0 : -EOPNOTSUPP;
}

static int open_cipher(struct firn_codec *c, const uint8_t *key, bool encrypts)
{
	const char *name = c->cipher == FIRN_CIPHER_AES_256_OCB ? "AES-256-OCB" : "AES-256-GCM";
	EVP_CIPHER *type;
	int r = 0;

	/* Its configuration file concerns nothing here, and reading it leaves half a megabyte resident. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	type = EVP_CIPHER_fetch(NULL, name, NULL);
	if (!type)
		return -EOPNOTSUPP;
	c->dec = EVP_CIPHER_CTX_new();
	c->enc = encrypts ? EVP_CIPHER_CTX_new() : NULL;
	if (!c->dec || (encrypts && !c->enc))
		r = -ENOMEM;
	else if (EVP_CIPHER_get_iv_length(type) != NONCE_BYTES ||
		 EVP_DecryptInit_ex2(c->dec, type, key, NULL, NULL) != 1 ||
		 (encrypts && EVP_EncryptInit_ex2(c->enc, type, key, NULL, NULL) != 1))
		r = -EOPNOTSUPP;
	EVP_CIPHER_free(type);
	return r;
}

size_t firn_codec_scratch_bytes(uint32_t max_raw_bytes)
{
	return max_raw_bytes > SCRATCH_MIN_BYTES ? max_raw_bytes : SCRATCH_MIN_BYTES;
}

/* @scratch NULL: of its own. */
static int open_codec(struct firn_codec *c, enum firn_cipher cipher, const uint8_t *key,
		      uint32_t max_raw_bytes, void *scratch, bool encodes)
{
	size_t scratch_bytes = firn_codec_scratch_bytes(max_raw_bytes);
	int r = 0;

	memset(c, 0, sizeof(*c));
	if (!firn_cipher_name(cipher) || !max_raw_bytes || max_raw_bytes > RAW_BYTES_MAX ||
	    (cipher != FIRN_CIPHER_OFF && !key))
		return -EINVAL;
	c->cipher = cipher;
	c->max_raw_bytes = max_raw_bytes;
	c->lent = scratch;
	c->scratch = scratch ? scratch : calloc(1, scratch_bytes);
	if (encodes)
		c->lz4 = calloc(1, (size_t)LZ4_sizeofState());
	if (!c->scratch || (encodes && !c->lz4))
		r = -ENOMEM;
	if (r == 0 && cipher != FIRN_CIPHER_OFF)
		r = open_cipher(c, key, encodes);
	if (r == 0)
		r = warm_up(c, (uint32_t)scratch_bytes);
	if (r < 0)
		firn_codec_close(c);
	return r;
}

int firn_codec_open(struct firn_codec *c, enum firn_cipher cipher, const uint8_t *key,
		    uint32_t max_raw_bytes)
{
	return open_codec(c, cipher, key, max_raw_bytes, NULL, true);
}

int firn_codec_open_decoder(struct firn_codec *c, enum firn_cipher cipher, const uint8_t *key,
			    uint32_t max_raw_bytes, void *scratch)
{
	return open_codec(c, cipher, key, max_raw_bytes, scratch, false);
}

void firn_codec_close(struct firn_codec *c)
{
	EVP_CIPHER_CTX_free(c->enc);            /* wipes the key schedule */
	EVP_CIPHER_CTX_free(c->dec);
	if (c->lz4)
		OPENSSL_cleanse(c->lz4, (size_t)LZ4_sizeofState());
	if (c->scratch)
		OPENSSL_cleanse(c->scratch, c->max_raw_bytes);
	free(c->lz4);
	if (!c->lent)
		free(c->scratch);
	memset(c, 0, sizeof(*c));
}

uint32_t firn_codec_compress(struct firn_codec *c, const void *raw, uint32_t raw_bytes, void *out,
			     uint8_t *ret_codec)
{
	/* Decoding a block that hardly shrank costs more than it saved. */
	int cap = (int)(raw_bytes - raw_bytes / 32 - (raw_bytes < 32));
	int n = cap > 0 ? LZ4_compress_fast_extState(c->lz4, raw, out, (int)raw_bytes, cap, ACCELERATION) : 0;

	*ret_codec = n > 0 ? FIRN_CODEC_LZ4 : FIRN_CODEC_RAW;
	return n > 0 ? (uint32_t)n : raw_bytes;
}

/* Is this a piece that some Firn may have written, and that fits this codec? */
static bool piece_valid(const struct firn_codec *c, const struct firn_piece *p)
{
	if (!p->raw_bytes || p->raw_bytes > c->max_raw_bytes || p->number == FIRN_SEAL_NUMBER ||
	    p->zero[0] || p->zero[1] || p->zero[2])
		return false;
	switch (p->codec) {
	case FIRN_CODEC_RAW:
		return p->stored_bytes == p->raw_bytes;
	case FIRN_CODEC_LZ4:
		return p->stored_bytes && p->stored_bytes < p->raw_bytes;
	}
	return false;
}

int firn_codec_seal(struct firn_codec *c, const struct firn_piece *p, const void *data, void *out)
{
	if (!c->lz4 || !piece_valid(c, p))
		return -EINVAL;
	return encrypt(c, p, NULL, 0, data, out, (uint8_t *)out + p->stored_bytes);
}

int firn_codec_encode(struct firn_codec *c, struct firn_piece *p, const void *raw, void *out)
{
	if (!c->lz4 || !p->raw_bytes || p->raw_bytes > c->max_raw_bytes)
		return -EINVAL;
	p->stored_bytes = firn_codec_compress(c, raw, p->raw_bytes, c->scratch, &p->codec);
	return firn_codec_seal(c, p, p->codec == FIRN_CODEC_RAW ? raw : c->scratch, out);
}

int firn_codec_decode(struct firn_codec *c, const struct firn_piece *p, const void *stored,
		      void *raw)
{
	bool is_raw = p->codec == FIRN_CODEC_RAW;
	const void *data = stored;
	int r;

	if (!piece_valid(c, p))
		return -EBADMSG;
	r = decrypt(c, p, NULL, 0, stored, is_raw ? raw : c->scratch,
		    (const uint8_t *)stored + p->stored_bytes);
	if (r < 0)
		return r;
	if (c->cipher != FIRN_CIPHER_OFF)
		data = is_raw ? raw : c->scratch;
	if (is_raw) {
		if (data != raw)
			memcpy(raw, data, p->raw_bytes);
		return 0;
	}
	if (LZ4_decompress_safe(data, raw, (int)p->stored_bytes, (int)p->raw_bytes) !=
	    (int)p->raw_bytes)
		return -EBADMSG;
	return 0;
}

int firn_codec_sign(struct firn_codec *c, uint64_t generation, const void *a, uint32_t a_bytes,
		    const void *b, uint32_t b_bytes, uint8_t ret_tag[FIRN_TAG_BYTES])
{
	const struct firn_piece p = { .generation = generation, .number = FIRN_SEAL_NUMBER };
	const struct plain extra[] = { { a, a_bytes }, { b, b_bytes } };

	if (!c->lz4)
		return -EINVAL;
	return encrypt(c, &p, extra, ARRAY_SIZE(extra), NULL, NULL, ret_tag);
}

int firn_codec_check(struct firn_codec *c, uint64_t generation, const void *a, uint32_t a_bytes,
		     const void *b, uint32_t b_bytes, const uint8_t tag[FIRN_TAG_BYTES])
{
	const struct firn_piece p = { .generation = generation, .number = FIRN_SEAL_NUMBER };
	const struct plain extra[] = { { a, a_bytes }, { b, b_bytes } };

	return decrypt(c, &p, extra, ARRAY_SIZE(extra), NULL, NULL, tag);
}
