/* SPDX-License-Identifier: MIT */
/*
 * libxxhash is compiled for the oldest processor of its architecture; on x86-64 it also has code for newer ones, which
 * is three times as fast.  Debian's leaves the upper halves of the vector registers in use when it returns, and then
 * all code for old processors, LZ4's, libcrypto's and its own, is slowed to a third on some processors: clean up.
 */
#include "pack/hash.h"

#include <xxhash.h>

static_assert(FIRN_HASH_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN, "secret");
#ifdef FIRN_XXH3_DISPATCH
#define XXH_DISPATCH_DISABLE_REPLACE
#include <immintrin.h>
#include <xxh_x86dispatch.h>

__attribute__((target("avx"))) static void clean_up(void)
{
	_mm256_zeroupper();
}

uint64_t firn_hash(const void *data, size_t bytes)
{
	uint64_t h;

	if (!__builtin_cpu_supports("avx2"))
		return XXH3_64bits(data, bytes);
	h = XXH3_64bits_dispatch(data, bytes);
	clean_up();
	return h;
}

struct firn_digest firn_hash_keyed(const void *data, size_t bytes, const uint8_t *secret)
{
	XXH128_hash_t h;

	if (!__builtin_cpu_supports("avx2")) {
		h = XXH3_128bits_withSecret(data, bytes, secret, FIRN_HASH_SECRET_BYTES);
	} else {
		h = XXH3_128bits_withSecret_dispatch(data, bytes, secret, FIRN_HASH_SECRET_BYTES);
		clean_up();
	}
	return (struct firn_digest){ { h.low64, h.high64 } };
}
#else
uint64_t firn_hash(const void *data, size_t bytes)
{
	return XXH3_64bits(data, bytes);
}

struct firn_digest firn_hash_keyed(const void *data, size_t bytes, const uint8_t *secret)
{
	XXH128_hash_t h = XXH3_128bits_withSecret(data, bytes, secret, FIRN_HASH_SECRET_BYTES);

	return (struct firn_digest){ { h.low64, h.high64 } };
}
#endif
