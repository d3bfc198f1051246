/* SPDX-License-Identifier: MIT */
/*
 * Size classes: at most 12.5 % of the larger size apart (or 16 bytes, the alignment).  Slots of 448 bytes and
 * less never straddle a page, so that a page can be folded; the rest lie back to back in their span.
 */
#ifndef FIRN_MALLOC_CLASS_H
#define FIRN_MALLOC_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIRN_PAGE_SHIFT 12
#define FIRN_PAGE_BYTES ((size_t)1 << FIRN_PAGE_SHIFT)
#define FIRN_UNIT_SHIFT 16
#define FIRN_UNIT_BYTES ((size_t)1 << FIRN_UNIT_SHIFT)
#define FIRN_UNIT_PAGES (FIRN_UNIT_BYTES / FIRN_PAGE_BYTES)

#define FIRN_ALIGN 16u
#define FIRN_TABLE_MAX 1024u            /* sizes up to here are looked up in firn_class_by_size */
#define FIRN_SMALL_MAX 32768u           /* the largest size that has a class */
#define FIRN_FOLD_MAX 448u              /* the largest foldable slot: an O_DIRECT buffer is 512 or more */

/* 1 .. FIRN_FOLDABLE_LAST can be folded; _PINNED_ ones hold aligned allocations, and are not. */
#define FIRN_CLASS_NONE 0u
#define FIRN_FOLDABLE_LAST 23u
#define FIRN_PINNED_FIRST 24u
#define FIRN_PINNED_LAST 32u
#define FIRN_PLAIN_FIRST 33u            /* 512 bytes */
#define FIRN_CLASSES 82u                /* class numbers are below this */

struct firn_class {
	uint32_t size;                  /* bytes a slot */
	uint32_t magic;                 /* offset * magic >> 32 is the slot: ceil(2^32 / size) */
	uint16_t slots;                 /* in a span */
	uint16_t page_slots;            /* in a page; 0: slots straddle pages */
	uint16_t page_words;            /* mask words of a page; of the whole span where slots straddle */
	uint16_t cache_max;             /* slots that a thread's cache holds at most */
};

/* The depot keeps this many bytes of free slots of a class. */
#define FIRN_DEPOT_BYTES ((size_t)256 << 10)

extern const struct firn_class firn_classes[FIRN_CLASSES];
extern const uint8_t firn_class_by_size[FIRN_TABLE_MAX / 16 + 1];

/* Class of the slots that hold @n bytes.  @n <= FIRN_SMALL_MAX. */
static inline unsigned int firn_class_of(size_t n)
{
	if (n <= FIRN_TABLE_MAX)
		return firn_class_by_size[(n + 15) / 16];
	unsigned int shift = 60u - (unsigned int)__builtin_clzl(n - 1);   /* eight steps a doubling */

	return FIRN_PLAIN_FIRST + 1 + (shift - 6) * 8 + ((unsigned int)((n - 1) >> shift) & 7);
}

/* Class of slots that hold @n bytes aligned to @align, which is a power of two in 32 .. FIRN_PAGE_BYTES.
 * FIRN_CLASS_NONE where only whole pages will do. */
unsigned int firn_class_aligned(size_t n, size_t align);

static inline uint32_t firn_depot_slots(unsigned int c)
{
	return (uint32_t)(FIRN_DEPOT_BYTES / firn_classes[c].size);
}

static inline bool firn_class_foldable(unsigned int c)
{
	return c - 1 < FIRN_FOLDABLE_LAST;
}

#endif
