/* SPDX-License-Identifier: MIT */
/* The fast paths, for every door of the library: C names, glibc's own names, C++ operators. */
#ifndef FIRN_MALLOC_API_H
#define FIRN_MALLOC_API_H

#include "malloc/cache.h"
#include "malloc/heap.h"

/* The public names; a test that must not replace its own malloc gives them a prefix. */
#ifdef FIRN_MALLOC_PREFIX
#define FIRN_PASTE(a, b) a##b
#define FIRN_PASTE2(a, b) FIRN_PASTE(a, b)
#define FIRN_NAME(name) FIRN_PASTE2(FIRN_MALLOC_PREFIX, name)
#else
#define FIRN_NAME(name) name
#endif
#define FIRN_PUBLIC __attribute__((visibility("default")))

/* Out of line: everything but a hit in the thread's cache.  errno: ENOMEM with NULL, else kept. */
void *firn_alloc_slow(size_t n);
void firn_free_slow(void *p);

/* @n bytes, zeroed; aligned to @align (a power of two); resized as realloc does. */
void *firn_alloc_zeroed(size_t n);
void *firn_alloc_aligned(size_t n, size_t align);
void *firn_realloc(void *p, size_t n);

/* Usable bytes of @p, which is not NULL.  0: not an allocation of ours. */
size_t firn_usable(const void *p);

/* Set up at the first allocation; the constructor finishes what needs libc.  Thread: any. */
void firn_init(void);
bool firn_init_done(void);

static inline void *firn_alloc(size_t n)
{
	if (firn_likely(n <= FIRN_TABLE_MAX)) {
		struct firn_cache_bin *b = &firn_thread.cache->bins[firn_class_by_size[(n + 15) / 16]];
		uint32_t k = b->n;

		if (firn_likely(k)) {
			b->n = --k;
			return b->slots[k];
		}
	}
	return firn_alloc_slow(n);
}

static inline void firn_free(void *p)
{
	uintptr_t off = (uintptr_t)p - firn_heap.base;

	if (firn_likely(off < __atomic_load_n(&firn_heap.limit_bytes, __ATOMIC_RELAXED))) {
		unsigned int c = __atomic_load_n(&firn_heap.kinds[off >> FIRN_UNIT_SHIFT], __ATOMIC_RELAXED);

		if (firn_likely(c - 1 < FIRN_CLASSES - 1)) {
			struct firn_cache_bin *b = &firn_thread.cache->bins[c];
			uint32_t k = b->n;

			if (firn_likely(k != b->cap && b->slots[(long)k - 1] != p)) {
				b->slots[k] = p;
				b->n = k + 1;
				return;
			}
		}
	}
	firn_free_slow(p);
}

/*
 * The doors: what the public functions of any name call.  With -Dmalloc_checks=full they lead through check.c.
 * @n of free_sized is what was asked for; it is looked at by the checks only.
 */
#ifdef FIRN_MALLOC_CHECKS
void *firn_door_alloc(size_t n);
void *firn_door_zeroed(size_t n);
void *firn_door_aligned(size_t n, size_t align);
void *firn_door_realloc(void *p, size_t n);
size_t firn_door_usable(const void *p);
void firn_door_free(void *p);
void firn_door_free_sized(void *p, size_t n);
#else
static inline void *firn_door_alloc(size_t n)
{
	return firn_alloc(n);
}

static inline void *firn_door_zeroed(size_t n)
{
	return firn_alloc_zeroed(n);
}

static inline void *firn_door_aligned(size_t n, size_t align)
{
	return firn_alloc_aligned(n, align);
}

static inline void *firn_door_realloc(void *p, size_t n)
{
	return firn_realloc(p, n);
}

static inline size_t firn_door_usable(const void *p)
{
	return firn_usable(p);
}

static inline void firn_door_free(void *p)
{
	firn_free(p);
}

static inline void firn_door_free_sized(void *p, size_t n)
{
	(void)n;
	firn_free(p);
}
#endif

#endif
