/* SPDX-License-Identifier: MIT */
/*
 * XXH3-64 by the widest instructions that this processor has.
 *
 * The builder's own; not for others.
 */
#ifndef FIRN_PACK_HASH_H
#define FIRN_PACK_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t firn_hash(const void *data, size_t bytes);

#endif
