/* SPDX-License-Identifier: MIT */
/*
 * The heap: one range of addresses that grows upwards in units of 64 KiB from base, and the spans' metadata
 * that grows downwards from it.  Hands out runs of units; keeps free ones, resident for a short while.
 */
#ifndef FIRN_MALLOC_HEAP_H
#define FIRN_MALLOC_HEAP_H

#include "malloc/span.h"

struct firn_heap {
	uintptr_t base;                 /* of unit 0 */
	uintptr_t limit_bytes;          /* addresses at or past base + this are not the heap's */
	uint8_t *kinds;                 /* a byte a unit: FIRN_KIND_* or a class */
	uint32_t units;                 /* mapped so far; under the lock to change, atomic to read */
	uint32_t max_units;
	bool limited;                   /* the process may have so many addresses only */
	bool nohuge;                    /* the system would back it with huge pages: it is told not to */
	struct firn_lock lock;          /* free runs, growth */
};

extern struct firn_heap firn_heap;

static inline uint32_t firn_unit_of(const void *p)
{
	return (uint32_t)(((uintptr_t)p - firn_heap.base) >> FIRN_UNIT_SHIFT);
}

static inline void *firn_unit_address(uint32_t unit)
{
	return (void *)(firn_heap.base + ((uintptr_t)unit << FIRN_UNIT_SHIFT));
}

static inline struct firn_span *firn_span_of(uint32_t unit)
{
	return (struct firn_span *)firn_heap.base - unit - 1;
}

static inline uint32_t firn_span_unit(const struct firn_span *s)
{
	return (uint32_t)((struct firn_span *)firn_heap.base - s - 1);
}

static inline bool firn_heap_has(const void *p)
{
	return (uintptr_t)p - firn_heap.base < __atomic_load_n(&firn_heap.limit_bytes, __ATOMIC_RELAXED);
}

/* Reserve the range.  Once, before anything else, one thread.  Returns 0 or -ENOMEM. */
int firn_heap_open(void);

/* @n units in a row, their spans cleared but for mask words the caller resets; FIRN_NO_UNIT: out of memory.
 * *@ret_clean: all its bytes are zero.  Kinds are the caller's to set.  Thread: any; takes the heap's lock. */
uint32_t firn_heap_alloc(uint32_t n, bool *ret_clean);

/* Give back @n units from @first; @resident: a page of them may be.  Their kinds become NONE. */
void firn_heap_free(uint32_t first, uint32_t n, bool resident);

/* Units right behind @first .. @first + @n that are free, up to @more of them, become part of the run.  Returns success. */
bool firn_heap_extend(uint32_t first, uint32_t n, uint32_t more);

/* Return free runs to the kernel that have been free since before @before_ms (UINT64_MAX: all; else 16 MiB at
 * most).  Returns pages. */
size_t firn_heap_purge(uint64_t before_ms);

/* Make @pages pages from @address anonymous and empty again, whatever is mapped there.  0 or -errno (then
 * the old pages are intact). */
int firn_heap_remake(void *address, size_t pages);

#endif
