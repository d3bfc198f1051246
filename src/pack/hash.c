/* SPDX-License-Identifier: MIT */
/*
 * libxxhash is compiled for the oldest processor of its architecture; on x86-64 it also has code for newer ones, which
 * is three times as fast.  Debian's leaves the upper halves of the vector registers in use when it returns, and then
 * all code for old processors, LZ4's, libcrypto's and its own, is slowed to a third on some processors: clean up.
 */
#include "pack/hash.h"

#include <xxhash.h>
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
#else
uint64_t firn_hash(const void *data, size_t bytes)
{
	return XXH3_64bits(data, bytes);
}
#endif
