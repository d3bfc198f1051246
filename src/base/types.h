/* SPDX-License-Identifier: MIT */
/*
 * Types and small helpers that every folder may use.  Allocates nothing, does no I/O.
 */
#ifndef FIRN_BASE_TYPES_H
#define FIRN_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address in a target.  A struct, so that the compiler refuses to mix it with one of ours. */
struct firn_taddr {
	uint64_t v;
};

/* A half-open interval of a target's addresses, page aligned. */
struct firn_range {
	uint64_t start;
	uint64_t end;
};

#define FIRN_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) FIRN_ARRAY_SIZE(a)
#endif
#define FIRN_CLEANUP(f) __attribute__((cleanup(f)))
#define FIRN_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* @a is a power of two. */
static inline uint64_t firn_align_up(uint64_t x, uint64_t a)
{
	return (x + a - 1) & ~(a - 1);
}

static inline uint64_t firn_align_down(uint64_t x, uint64_t a)
{
	return x & ~(a - 1);
}

static inline uint64_t firn_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t firn_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
