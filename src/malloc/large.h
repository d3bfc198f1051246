/* SPDX-License-Identifier: MIT */
/*
 * Allocations without a class: large ones are runs of the heap's units, huge ones mappings of their own.
 */
#ifndef FIRN_MALLOC_LARGE_H
#define FIRN_MALLOC_LARGE_H

#include <stdbool.h>
#include <stddef.h>

#define FIRN_LARGE_MAX ((size_t)8 << 20)

/* @n bytes at a multiple of @align, a power of two.  *@ret_zero: they are all zero.  NULL: out of memory.
 * Thread: any; signals may not interrupt it by an allocation. */
void *firn_large_alloc(size_t n, size_t align, bool *ret_zero);

/* Give @p back.  False: it is no large or huge allocation. */
bool firn_large_free(void *p);

/* Usable bytes of @p; 0: it is no large or huge allocation.  @wait: for the lock; a signal handler that interrupted
 * the allocator does not wait for ever, as its own thread may hold it. */
size_t firn_large_usable(const void *p, bool wait);

/* Make @p hold @n bytes without copying; the address may change.  NULL: it cannot be done, @p is as it was. */
void *firn_large_resize(void *p, size_t n);

/* Give back what was kept for reuse before @before_ms.  Returns pages. */
size_t firn_large_purge(unsigned long before_ms);

/* Bytes in use in mappings of their own. */
size_t firn_huge_bytes(void);
size_t firn_huge_count(void);

/* Do all bytes of @p .. @p + @n - 1 lie in one huge allocation?  Thread: any, no lock held. */
bool firn_huge_has(const void *p, size_t n);

void firn_large_lock(void);
void firn_large_unlock(bool child);

#endif
