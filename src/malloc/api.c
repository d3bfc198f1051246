/* SPDX-License-Identifier: MIT */
/* malloc and its nearest family.  The rest of the surface: surface.c and cxx.c. */
#include "malloc/api.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/large.h"

/* Large and huge ones, guarded against signal handlers as the caches are. */
static void *alloc_large(size_t n, size_t align, bool *ret_zero)
{
	struct firn_thread *t = &firn_thread;
	int saved = errno;
	void *p;

	*ret_zero = false;
	if (t->busy) {
		p = firn_reserve_alloc(n, align);
	} else {
		struct firn_cache *cache = firn_thread_enter(t);

		p = firn_large_alloc(n, align, ret_zero);
		firn_thread_leave(t, cache);
		firn_fold_tick(false);
	}
	errno = p ? saved : ENOMEM;
	return p;
}

void *firn_alloc_slow(size_t n)
{
	bool zero;

	if (firn_unlikely(!firn_init_done()))
		firn_init();
	if (n <= FIRN_SMALL_MAX) {
		unsigned int c = firn_class_of(n);
		struct firn_cache_bin *b = &firn_thread.cache->bins[c];

		/* Classes that are too large for the table. */
		if (b->n)
			return b->slots[--b->n];
		return firn_cache_alloc(c);
	}
	return alloc_large(n, FIRN_ALIGN, &zero);
}

static bool free_large(void *p)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *cache;
	int saved = errno;
	bool ok;

	/* A signal handler that interrupted the allocator: the memory stays; it is rare and large enough to tell. */
	if (t->busy)
		return true;
	cache = firn_thread_enter(t);
	ok = firn_large_free(p);
	firn_thread_leave(t, cache);
	errno = saved;
	return ok;
}

static void free_foreign(void *p)
{
	firn_die("free of %p, which was not allocated here", p);
}

void firn_free_slow(void *p)
{
	unsigned int c;

	if (!p || firn_reserve_has(p))
		return;
	if (!firn_heap_has(p)) {
		if (!firn_init_done() || !free_large(p))
			free_foreign(p);
		return;
	}
	c = __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED);
	if (c == FIRN_KIND_LARGE) {
		if (!free_large(p))
			free_foreign(p);
		return;
	}
	c &= ~FIRN_KIND_SLOW;
	if (c - 1 >= FIRN_CLASSES - 1)
		free_foreign(p);
	if (firn_thread.cache->bins[c].n && firn_thread.cache->bins[c].slots[firn_thread.cache->bins[c].n - 1] == p)
		firn_die("double free of %p", p);
	firn_cache_free(c, p);
}

size_t firn_usable(const void *p)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *cache;
	size_t usable;

	if (firn_heap_has(p)) {
		unsigned int c = __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;

		if (c - 1 < FIRN_CLASSES - 1)
			return firn_classes[c].size;
	}
	if (firn_reserve_has(p))
		return firn_reserve_usable(p);
	if (t->busy)
		return firn_large_usable(p, false);
	/* A lock is taken: a signal handler must not wait for it. */
	cache = firn_thread_enter(t);
	usable = firn_large_usable(p, true);
	firn_thread_leave(t, cache);
	return usable;
}

void *firn_alloc_zeroed(size_t n)
{
	void *p;

	if (n > FIRN_SMALL_MAX) {
		bool zero;

		if (firn_unlikely(!firn_init_done()))
			firn_init();
		p = alloc_large(n, FIRN_ALIGN, &zero);
		if (p && !zero)
			memset(p, 0, n);
		return p;
	}
	p = firn_alloc(n);
	if (firn_likely(p != NULL))
		memset(p, 0, n);
	return p;
}

void *firn_alloc_aligned(size_t n, size_t align)
{
	bool zero;

	if (align <= FIRN_ALIGN)
		return firn_alloc(n);
	if (n > PTRDIFF_MAX || align > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	if (firn_unlikely(!firn_init_done()))
		firn_init();
	if (align <= FIRN_PAGE_BYTES && n <= FIRN_SMALL_MAX) {
		unsigned int c = firn_class_aligned(n, align);

		if (c != FIRN_CLASS_NONE) {
			struct firn_cache_bin *b = &firn_thread.cache->bins[c];

			return b->n ? b->slots[--b->n] : firn_cache_alloc(c);
		}
	}
	return alloc_large(n, align, &zero);
}

void *firn_realloc(void *p, size_t n)
{
	size_t usable;
	void *q;

	if (!p)
		return firn_alloc(n);
	if (!n) {
		firn_free(p);
		return NULL;
	}
	usable = firn_usable(p);
	if (!usable)
		firn_die("realloc of %p, which was not allocated here", p);
	/* In place, unless a quarter and more would be lost. */
	if (n <= usable && n >= usable - usable / 4)
		return p;
	if (usable > FIRN_SMALL_MAX && n > FIRN_SMALL_MAX && !firn_thread.busy) {
		struct firn_cache *cache = firn_thread_enter(&firn_thread);

		q = firn_large_resize(p, n);
		firn_thread_leave(&firn_thread, cache);
		if (q)
			return q;
	}
	q = firn_alloc(n);
	if (!q)
		return n <= usable ? p : NULL;
	memcpy(q, p, n < usable ? n : usable);
	firn_free(p);
	return q;
}

FIRN_PUBLIC void *FIRN_NAME(malloc)(size_t n)
{
	return firn_door_alloc(n);
}

FIRN_PUBLIC void FIRN_NAME(free)(void *p)
{
	firn_door_free(p);
}

FIRN_PUBLIC void *FIRN_NAME(calloc)(size_t count, size_t size)
{
	size_t n;

	if (firn_unlikely(__builtin_mul_overflow(count, size, &n))) {
		errno = ENOMEM;
		return NULL;
	}
	return firn_door_zeroed(n);
}

FIRN_PUBLIC void *FIRN_NAME(realloc)(void *p, size_t n)
{
	return firn_door_realloc(p, n);
}

FIRN_PUBLIC void *FIRN_NAME(reallocarray)(void *p, size_t count, size_t size)
{
	size_t n;

	if (firn_unlikely(__builtin_mul_overflow(count, size, &n))) {
		errno = ENOMEM;
		return NULL;
	}
	return firn_door_realloc(p, n);
}

/* As glibc's: an alignment that is no power of two is rounded up to one. */
FIRN_PUBLIC void *FIRN_NAME(memalign)(size_t align, size_t n)
{
	if (align > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	if (align & (align - 1))
		align = (size_t)1 << (64 - __builtin_clzl(align));
	return firn_door_aligned(n, align);
}

FIRN_PUBLIC int FIRN_NAME(posix_memalign)(void **ret, size_t align, size_t n)
{
	int saved = errno;
	void *p;

	if (align < sizeof(void *) || align & (align - 1))
		return EINVAL;
	p = firn_door_aligned(n, align);
	errno = saved;
	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

FIRN_PUBLIC void *FIRN_NAME(aligned_alloc)(size_t align, size_t n)
{
	if (!align || align & (align - 1)) {
		errno = EINVAL;
		return NULL;
	}
	return firn_door_aligned(n, align);
}

FIRN_PUBLIC size_t FIRN_NAME(malloc_usable_size)(void *p)
{
	return p ? firn_door_usable(p) : 0;
}
