/* SPDX-License-Identifier: MIT */
/*
 * -Dmalloc_checks=full: the doors.  Behind each block lie guard bytes, and in the last word of its slot how
 * many bytes were asked for; freed blocks are filled.  So a write past the end, a second free, a write after
 * free and a wrong pointer are found at once, or when the block is freed or used again.
 */
#include <errno.h>
#include <string.h>

#include "malloc/api.h"
#include "malloc/check.h"
#include "malloc/config.h"
#include "malloc/large.h"

#define GUARD_BYTE 0xfd
#define FREED_BYTE 0xdf
#define WORD sizeof(uint64_t)
#define BEHIND (2 * WORD)               /* at least that much behind a block: guard bytes, and the word */
#define GUARD_MAX FIRN_PAGE_BYTES       /* of a large block's slack no more than this is guarded */
#define FREED_MAX ((size_t)64 << 10)    /* and filled */
#define FREED UINT64_MAX

/* What stands in a block's last word: of this block, so that another's is not taken for it. */
static uint64_t sealed(const void *p, uint64_t word)
{
	return word ^ ((uintptr_t)p * 0x9e3779b97f4a7c15u + 0x6669726e6d616c6cu);
}

static uint64_t read_word(const void *p, size_t usable)
{
	uint64_t word;

	memcpy(&word, (const char *)p + usable - WORD, WORD);
	return sealed(p, word);
}

static void write_word(void *p, size_t usable, uint64_t word)
{
	word = sealed(p, word);
	memcpy((char *)p + usable - WORD, &word, WORD);
}

/* Bytes to ask the allocator for; 0: too many. */
static size_t with_guard(size_t n)
{
	return n > PTRDIFF_MAX - 64 ? 0 : ((n + WORD - 1) & ~(WORD - 1)) + BEHIND;
}

static size_t guard_bytes(size_t n, size_t usable)
{
	size_t bytes = usable - WORD - n;

	return bytes < GUARD_MAX ? bytes : GUARD_MAX;
}

/* Does, or did, the page of slot @p map a frame?  Its free slots then have others' bytes. */
static bool was_folded(const void *p)
{
	const struct firn_span *s = firn_span_of(firn_unit_of(p));
	unsigned int page = ((uintptr_t)p & (FIRN_UNIT_BYTES - 1)) >> FIRN_PAGE_SHIFT;

	return (__atomic_load_n(&s->closed, __ATOMIC_RELAXED) | __atomic_load_n(&s->copied, __ATOMIC_RELAXED)) >> page & 1;
}

static bool is_slot(const void *p)
{
	unsigned int c;

	if (!firn_heap_has(p))
		return false;
	c = __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
	return c && c < FIRN_CLASSES;
}

static void *guarded(void *p, size_t n)
{
	size_t usable;

	if (!p)
		return NULL;
	usable = firn_usable(p);
	memset((char *)p + n, GUARD_BYTE, guard_bytes(n, usable));
	write_word(p, usable, n);
	firn_check_step(p);
	return p;
}

static bool all_bytes(const unsigned char *b, size_t n, unsigned char value)
{
	for (size_t i = 0; i < n; i++)
		if (b[i] != value)
			return false;
	return true;
}

/* A fresh slot that was freed before: nobody wrote to it since.  Pages of it may have been given back. */
static void check_freed(const void *p)
{
	const unsigned char *b = p;
	size_t usable = firn_usable(p), n;

	if (!is_slot(p) || was_folded(p) || read_word(p, usable) != FREED)
		return;
	for (size_t i = 0; i < usable - WORD; i += n) {
		n = FIRN_PAGE_BYTES - ((uintptr_t)(b + i) & (FIRN_PAGE_BYTES - 1));
		if (n > usable - WORD - i)
			n = usable - WORD - i;
		if (all_bytes(b + i, n, FREED_BYTE) || (n < usable - WORD && all_bytes(b + i, n, 0)))
			continue;
		while (b[i] == FREED_BYTE)
			i++;
		firn_die("write after free: byte %lu of the freed block of up to %lu bytes at %p was written", i,
			 usable - BEHIND, p);
	}
}

/* The size that @p was allocated with.  Anything wrong with @p ends the process; @who: "free", ... */
static size_t check_block(const void *p, const char *who)
{
	size_t usable, guard;
	uint64_t n;

	if (is_slot(p)) {
		unsigned int c = __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
		int bit = firn_span_slot(c, (uintptr_t)p & (FIRN_UNIT_BYTES - 1));

		if (bit < 0)
			firn_die("%s of %p, which is not the start of an allocation", who, p);
		if (!(atomic_load(&firn_span_of(firn_unit_of(p))->mask[bit / 64]) >> bit % 64 & 1))
			firn_die("double free of %p (%s)", p, who);
	}
	usable = firn_usable(p);
	if (!usable)
		firn_die("%s of %p, which was not allocated here, or is free", who, p);
	n = read_word(p, usable);
	if (n == FREED)
		firn_die("double free of %p (%s)", p, who);
	if (n > usable - WORD)
		firn_die("overflow: the end of the block at %p was overwritten, found by %s", p, who);
	guard = guard_bytes(n, usable);
	for (size_t i = 0; i < guard; i++)
		if (((const unsigned char *)p)[n + i] != GUARD_BYTE)
			firn_die("overflow: byte %lu behind the block of %lu bytes at %p was written, found by %s", i, n, p, who);
	return n;
}

void *firn_door_alloc(size_t n)
{
	size_t total = with_guard(n);
	void *p;

	if (!total) {
		errno = ENOMEM;
		return NULL;
	}
	p = firn_alloc(total);
	if (p)
		check_freed(p);
	return guarded(p, n);
}

void *firn_door_zeroed(size_t n)
{
	size_t total = with_guard(n);
	void *p;

	if (total && total > FIRN_SMALL_MAX)
		return guarded(firn_alloc_zeroed(total), n);
	p = firn_door_alloc(n);
	if (p)
		memset(p, 0, n);
	return p;
}

void *firn_door_aligned(size_t n, size_t align)
{
	size_t total = with_guard(n);
	void *p;

	if (!total) {
		errno = ENOMEM;
		return NULL;
	}
	p = firn_alloc_aligned(total, align);
	if (p)
		check_freed(p);
	return guarded(p, n);
}

size_t firn_door_usable(const void *p)
{
	return check_block(p, "malloc_usable_size");
}

void firn_door_free(void *p)
{
	size_t usable;

	if (!p)
		return;
	check_block(p, "free");
	usable = firn_usable(p);
	/* What is folded would get a frame of its own; there the bit in the mask tells.  In a signal handler that
	 * interrupted the allocator a freed block may be kept in a list, through its first word. */
	if (firn_thread.busy || (is_slot(p) && was_folded(p))) {
		if (firn_thread.busy)
			write_word(p, usable, usable);
	} else {
		size_t fill = usable - WORD;

		memset(p, FREED_BYTE, fill < FREED_MAX || is_slot(p) ? fill : FREED_MAX);
		write_word(p, usable, FREED);
	}
	firn_free(p);
	firn_check_step(p);
}

void firn_door_free_sized(void *p, size_t n)
{
	size_t had;

	if (!p)
		return;
	had = check_block(p, "free_sized");
	if (had != n)
		firn_die("free of %p as %lu bytes, which was allocated with %lu", p, n, had);
	firn_door_free(p);
}

static bool resize_large(void *p, size_t total)
{
	struct firn_cache *cache = firn_thread_enter(&firn_thread);
	bool ok = firn_large_resize(p, total) == p;

	firn_thread_leave(&firn_thread, cache);
	return ok;
}

void *firn_door_realloc(void *p, size_t n)
{
	size_t total = with_guard(n), had, usable;
	void *q;

	if (!p)
		return firn_door_alloc(n);
	had = check_block(p, "realloc");
	if (!n) {
		firn_door_free(p);
		return NULL;
	}
	if (!total) {
		errno = ENOMEM;
		return NULL;
	}
	usable = firn_usable(p);
	if (total <= usable && total >= usable - usable / 4)
		return guarded(p, n);
	/* Those of the heap only: a huge one may move. */
	if (firn_heap_has(p) && usable > FIRN_SMALL_MAX && total > FIRN_SMALL_MAX && !firn_thread.busy &&
	    resize_large(p, total))
		return guarded(p, n);
	q = firn_door_alloc(n);
	if (!q)
		return NULL;
	memcpy(q, p, had < n ? had : n);
	firn_door_free(p);
	return q;
}
