/* SPDX-License-Identifier: MIT */
#include "pack/reuse.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define PART_BYTES 32u                  /* of SHA-256 */

static_assert(sizeof(((struct firn_digester *)0)->secrets) % PART_BYTES == 0, "secrets");

int firn_digester_open(struct firn_digester *d, const uint8_t *key)
{
	uint8_t purpose[] = "firn: digests of pages 0", *to = d->secrets[0];
	unsigned int len;

	/* As in codec.c: its configuration concerns nothing here. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	for (size_t at = 0; at < sizeof(d->secrets); at += PART_BYTES) {
		purpose[sizeof(purpose) - 2]++;
		if (!HMAC(EVP_sha256(), key, FIRN_KEY_BYTES, purpose, sizeof(purpose) - 1, to + at, &len) || len != PART_BYTES) {
			firn_digester_close(d);
			return -EIO;
		}
	}
	return 0;
}

void firn_digester_close(struct firn_digester *d)
{
	OPENSSL_cleanse(d, sizeof(*d));
}

struct firn_digest firn_digest_page(const struct firn_digester *d, const void *page, uint32_t bytes)
{
	struct firn_digest a = firn_hash_keyed(page, bytes, d->secrets[0]);
	struct firn_digest b = firn_hash_keyed(page, bytes, d->secrets[1]);

	return (struct firn_digest){ { a.v[0] ^ b.v[0], a.v[1] ^ b.v[1] } };
}

/* Does run @n of @base hold @address? */
static bool holds(const struct firn_base *base, uint32_t n, uint64_t address, uint32_t page_size)
{
	const struct firn_pack_run *run = &base->runs[n];

	return address >= run->start.v && address - run->start.v < (uint64_t)run->npages * page_size;
}

/* The last run that begins at or before @address, or 0. */
static uint32_t search(const struct firn_base *base, uint64_t address)
{
	uint32_t low = 0, high = base->nruns;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (base->runs[mid].start.v <= address)
			low = mid;
		else
			high = mid;
	}
	return low;
}

uint32_t firn_base_find(const struct firn_base *base, uint32_t page_size, uint64_t address,
			const struct firn_digest *digest, uint32_t below, uint32_t *hint)
{
	uint32_t at, place;

	if (!base->nruns)
		return firn_place(FIRN_PLACE_NONE, 0);
	if (*hint >= base->nruns || !holds(base, *hint, address, page_size))
		*hint = search(base, address);
	if (!holds(base, *hint, address, page_size))
		return firn_place(FIRN_PLACE_NONE, 0);
	at = base->runs[*hint].first_place + (uint32_t)((address - base->runs[*hint].start.v) / page_size);
	place = base->places[at];
	if (firn_place_kind(place) != FIRN_PLACE_SLOT || firn_place_block(place) >= below ||
	    memcmp(&base->digests[at], digest, sizeof(*digest)))
		return firn_place(FIRN_PLACE_NONE, 0);
	return place;
}
