/* SPDX-License-Identifier: MIT */
/*
 * What is in the store already: the pages of an earlier pack, found by address and by a keyed digest of their
 * contents.
 *
 * The digest is XXH3-128 under one secret, exclusive-or that under another; both are derived from the key of the packs.
 * Of pages that differ by chance two have the same with a probability of 2^-128.  Whoever chooses pages knows neither
 * the secrets nor digests (they stand in the encrypted index only), so he can do no better than to choose pairs that
 * many secrets take for equal.  XXH3 sums products of 32 bits: of pairs that flip the upper bit of two words 64 bytes
 * apart, one secret in 2^33 sees none; two secrets, one pair in 2^66.
 */
#ifndef FIRN_PACK_REUSE_H
#define FIRN_PACK_REUSE_H

#include "pack/hash.h"

/* What makes digests.  Any number of threads may use one. */
struct firn_digester {
	uint8_t secrets[2][FIRN_HASH_SECRET_BYTES];
};

/* Derive the secrets from the packs' key, 32 bytes; equal keys give equal digests.  Returns 0; -EIO libcrypto failed. */
int firn_digester_open(struct firn_digester *d, const uint8_t *key);
void firn_digester_close(struct firn_digester *d);
/* The digest of the @bytes of a page. */
struct firn_digest firn_digest_page(const struct firn_digester *d, const void *page, uint32_t bytes);

/* A finished pack of one target, whole, without a base of its own: its index, which has passed its checks. */
struct firn_base {
	uint64_t generation;
	uint64_t bytes;                 /* of its file */
	uint8_t seal[FIRN_TAG_BYTES];   /* of its footer */
	uint32_t blocks;
	uint32_t nruns;
	const struct firn_pack_run *runs;
	const uint32_t *places;
	const struct firn_digest *digests;      /* of every place */
};

/*
 * The place of the page at @address in @base, if its contents there had @digest and lie in a block before
 * @below; else FIRN_PLACE_NONE.  @hint: 0 at first; the run that was found last.
 */
uint32_t firn_base_find(const struct firn_base *base, uint32_t page_size, uint64_t address,
			const struct firn_digest *digest, uint32_t below, uint32_t *hint);

#endif
