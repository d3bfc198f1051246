/* SPDX-License-Identifier: MIT */
/*
 * XXH3, of 64 bits and with a secret of 128, by the widest instructions that this processor has.
 *
 * The builder's own; not for others.
 */
#ifndef FIRN_PACK_HASH_H
#define FIRN_PACK_HASH_H

#include "pack/format.h"

#define FIRN_HASH_SECRET_BYTES 192u

uint64_t firn_hash(const void *data, size_t bytes);
/* @secret: FIRN_HASH_SECRET_BYTES that look random. */
struct firn_digest firn_hash_keyed(const void *data, size_t bytes, const uint8_t *secret);

#endif
