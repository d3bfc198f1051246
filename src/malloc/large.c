/* SPDX-License-Identifier: MIT */
/*
 * Huge allocations are in a table (by address, open addressing), the few that were freed last are kept for
 * reuse for a short while, as their pages cost more than anything else about them.
 */
#include "malloc/large.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "malloc/check.h"
#include "malloc/config.h"
#include "malloc/heap.h"
#include "malloc/os.h"

#define KEPT 32u
#define KEPT_BYTES ((size_t)64 << 20)     /* and as much as is in use */
#define HUGE_PAGE ((size_t)2 << 20)
#define FIRST_ENTRIES 256u
#define HANDLER_SPINS 1000000u

struct huge {
	uintptr_t address;              /* 0: empty; 1: was in use */
	size_t bytes;                   /* mapped */
};

static struct firn_lock lock;
static struct huge *table;
static size_t entries, in_table, dead, huge_bytes;
static struct {
	void *address;
	size_t bytes;
	uint64_t stamp_ms;
} kept[KEPT];
static size_t kept_bytes;

static size_t hash(uintptr_t address)
{
	return (address >> FIRN_PAGE_SHIFT) * 0x9e3779b97f4a7c15u >> 20;
}

static struct huge *find(const void *p)
{
	for (size_t i = hash((uintptr_t)p); entries; i++) {
		struct huge *h = &table[i & (entries - 1)];

		if (h->address == (uintptr_t)p)
			return h;
		if (!h->address)
			return NULL;
	}
	return NULL;
}

static bool rebuild(size_t n)
{
	struct huge *old = table, *new;
	size_t before = entries;

	new = firn_os.mmap(NULL, n * sizeof(*new), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (firn_os_failed(new))
		return false;
	table = new;
	entries = n;
	dead = 0;
	for (size_t k = 0; k < before; k++) {
		if (old[k].address < 2)
			continue;
		for (size_t i = hash(old[k].address);; i++) {
			if (table[i & (n - 1)].address)
				continue;
			table[i & (n - 1)] = old[k];
			break;
		}
	}
	if (old)
		firn_os.munmap(old, before * sizeof(*old));
	return true;
}

static bool enter(void *p, size_t bytes)
{
	if ((in_table + dead + 1) * 2 > entries) {
		size_t n = FIRST_ENTRIES;

		while (n < (in_table + 1) * 4)
			n *= 2;
		/* Without memory for a larger table this one serves until it is nearly full. */
		if (!rebuild(n) && (in_table + dead + 1) * 8 > entries * 7)
			return false;
	}
	for (size_t i = hash((uintptr_t)p);; i++) {
		struct huge *h = &table[i & (entries - 1)];

		if (h->address > 1)
			continue;
		dead -= h->address;
		*h = (struct huge){ (uintptr_t)p, bytes };
		in_table++;
		huge_bytes += bytes;
		return true;
	}
}

static void forget(struct huge *h)
{
	huge_bytes -= h->bytes;
	h->address = 1;
	in_table--;
	dead++;
}

static size_t whole_pages(size_t n)
{
	return (n + FIRN_PAGE_BYTES - 1) & ~(FIRN_PAGE_BYTES - 1);
}

/* A mapping that was kept and is not much too long.  The lock is held. */
static void *reuse(size_t bytes, size_t align, size_t *ret_bytes)
{
	unsigned int best = KEPT;

	for (unsigned int i = 0; i < KEPT; i++)
		if (kept[i].address && kept[i].bytes >= bytes && kept[i].bytes / 4 <= bytes / 3 &&
		    !((uintptr_t)kept[i].address & (align - 1)) && (best == KEPT || kept[i].bytes < kept[best].bytes))
			best = i;
	if (best == KEPT)
		return NULL;
	void *p = kept[best].address;

	*ret_bytes = kept[best].bytes;
	kept_bytes -= kept[best].bytes;
	__atomic_store_n(&kept[best].address, NULL, __ATOMIC_RELAXED);
	return p;
}

static void *map_huge(size_t bytes, size_t align)
{
	size_t room = bytes + align, front;
	char *p;

	if (align <= FIRN_PAGE_BYTES)
		room = bytes;
	if (room < bytes)
		return NULL;
	p = firn_os.mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (firn_os_failed(p))
		return NULL;
	if (room == bytes)
		return p;
	front = (uintptr_t)-(intptr_t)p & (align - 1);
	if (front)
		firn_os.munmap(p, front);
	if (room - front - bytes)
		firn_os.munmap(p + front + bytes, room - front - bytes);
	return p + front;
}

static void *huge_alloc(size_t n, size_t align, bool *ret_zero)
{
	size_t bytes = whole_pages(n);
	void *p;

	firn_lock_take(&lock);
	p = reuse(bytes, align, &bytes);
	*ret_zero = !p;
	firn_lock_drop(&lock);
	if (!p && align < HUGE_PAGE && bytes >= HUGE_PAGE)
		p = map_huge(bytes, HUGE_PAGE);
	if (!p)
		p = map_huge(bytes, align);
	if (!p)
		return NULL;
	firn_lock_take(&lock);
	if (!enter(p, bytes)) {
		firn_os.munmap(p, bytes);
		p = NULL;
	}
	firn_lock_drop(&lock);
	return p;
}

/* Memory or addresses are out: what is kept for later goes.  False where there was none. */
static bool give_back(void)
{
	size_t pages = firn_large_purge(UINT64_MAX);

	pages += firn_span_purge(true);
	return pages + firn_heap_purge(UINT64_MAX);
}

void *firn_large_alloc(size_t n, size_t align, bool *ret_zero)
{
	bool huge = n > FIRN_LARGE_MAX || align > FIRN_LARGE_MAX;
	uint32_t units, extra, unit, skip;
	struct firn_span *s;
	void *p;

	if (n > PTRDIFF_MAX || align > PTRDIFF_MAX)
		return NULL;
	if (huge) {
		p = huge_alloc(n, align, ret_zero);
		if (!p && firn_large_purge(UINT64_MAX))
			p = huge_alloc(n, align, ret_zero);
		/* Where addresses are limited the heap may hold them. */
		if (p || align > FIRN_LARGE_MAX || n >> FIRN_UNIT_SHIFT >= __atomic_load_n(&firn_heap.units, __ATOMIC_RELAXED))
			return p;
	}
	units = (uint32_t)((n + FIRN_UNIT_BYTES - 1) >> FIRN_UNIT_SHIFT);
	if (!units)
		units = 1;
	/* Where addresses are limited the rest of a unit is not left unused. */
	if (!huge && firn_heap.limited && ((size_t)units << FIRN_UNIT_SHIFT) - n > n / 8) {
		p = huge_alloc(n, align, ret_zero);
		if (p)
			return p;
	}
	extra = align > FIRN_UNIT_BYTES ? (uint32_t)(align >> FIRN_UNIT_SHIFT) - 1 : 0;
	unit = firn_heap_alloc(units + extra, ret_zero);
	if (unit == FIRN_NO_UNIT) {
		/* The heap's range may be full, or hemmed in. */
		p = huge ? NULL : huge_alloc(n, align, ret_zero);
		if (p || !give_back())
			return p;
		unit = firn_heap_alloc(units + extra, ret_zero);
		if (unit == FIRN_NO_UNIT)
			return huge ? NULL : huge_alloc(n, align, ret_zero);
	}
	skip = (uint32_t)(((uintptr_t)-(intptr_t)firn_unit_address(unit) & (align - 1)) >> FIRN_UNIT_SHIFT);
	if (skip)
		firn_heap_free(unit, skip, !*ret_zero);
	if (extra - skip)
		firn_heap_free(unit + skip + units, extra - skip, !*ret_zero);
	unit += skip;
	s = firn_span_of(unit);
	s->units = units;
	s->class = FIRN_CLASS_NONE;
	s->bytes = whole_pages(n ? n : 1);
	__atomic_store_n(&firn_heap.kinds[unit], FIRN_KIND_LARGE, __ATOMIC_RELEASE);
	return firn_unit_address(unit);
}

bool firn_large_free(void *p)
{
	void *drop[2] = { NULL, NULL };
	size_t drop_bytes[2] = { 0, 0 }, limit;
	struct huge *h;

	if (firn_heap_has(p)) {
		uint32_t unit = firn_unit_of(p);
		uint8_t large = FIRN_KIND_LARGE;

		/* Whoever frees it first. */
		if ((uintptr_t)p & (FIRN_UNIT_BYTES - 1) ||
		    !__atomic_compare_exchange_n(&firn_heap.kinds[unit], &large, FIRN_KIND_TAIL, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_RELAXED))
			return false;
		firn_heap_free(unit, firn_span_of(unit)->units, true);
		return true;
	}
	firn_lock_take(&lock);
	h = find(p);
	if (h) {
		unsigned int slot = KEPT, oldest = 0;

		drop[0] = p;
		drop_bytes[0] = h->bytes;
		limit = KEPT_BYTES + huge_bytes;
		forget(h);
		for (unsigned int i = 0; i < KEPT; i++) {
			if (!kept[i].address)
				slot = i;
			else if (kept[i].stamp_ms < kept[oldest].stamp_ms)
				oldest = i;
		}
		if (drop_bytes[0] <= limit / 2) {
			/* The oldest makes room. */
			if (slot == KEPT || kept_bytes + drop_bytes[0] > limit) {
				if (kept[oldest].address) {
					drop[1] = kept[oldest].address;
					drop_bytes[1] = kept[oldest].bytes;
					kept_bytes -= kept[oldest].bytes;
					__atomic_store_n(&kept[oldest].address, NULL, __ATOMIC_RELAXED);
					slot = oldest;
				}
			}
			if (slot != KEPT && kept_bytes + drop_bytes[0] <= limit) {
				__atomic_store_n(&kept[slot].address, p, __ATOMIC_RELAXED);
				kept[slot].bytes = drop_bytes[0];
				kept[slot].stamp_ms = firn_os.clock_ms();
				kept_bytes += drop_bytes[0];
				drop[0] = NULL;
			}
		}
	}
	firn_lock_drop(&lock);
	for (int i = 0; i < 2; i++)
		if (drop[i])
			firn_os.munmap(drop[i], drop_bytes[i]);
	return h;
}

/* False: its own thread holds it, below a signal handler, as nobody else would that long. */
static bool lock_for_a_while(void)
{
	for (unsigned int i = 0; i < HANDLER_SPINS; i++)
		if (firn_lock_try(&lock))
			return true;
	return false;
}

size_t firn_large_usable(const void *p, bool wait)
{
	size_t bytes = 0;
	struct huge *h;
	bool locked;

	if (firn_heap_has(p)) {
		uint32_t unit = firn_unit_of(p);

		if (__atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) != FIRN_KIND_LARGE ||
		    (uintptr_t)p & (FIRN_UNIT_BYTES - 1))
			return 0;
		return firn_span_of(unit)->bytes;
	}
	locked = wait || lock_for_a_while();
	if (wait)
		firn_lock_take(&lock);
	h = find(p);
	if (h)
		bytes = h->bytes;
	if (locked)
		firn_lock_drop(&lock);
	return bytes;
}

static void *huge_resize(void *p, size_t n)
{
	size_t bytes = whole_pages(n);
	struct huge *h, old;
	void *new;

	firn_lock_take(&lock);
	h = find(p);
	if (!h) {
		firn_lock_drop(&lock);
		return NULL;
	}
	/* Out of the table while it moves: the address it leaves may be somebody else's at once. */
	old = *h;
	forget(h);
	new = firn_os.mremap(p, old.bytes, bytes, MREMAP_MAYMOVE, NULL);
	if (firn_os_failed(new)) {
		enter(p, old.bytes);
		new = NULL;
	} else {
		enter(new, bytes);
	}
	firn_lock_drop(&lock);
	return new;
}

void *firn_large_resize(void *p, size_t n)
{
	struct firn_span *s;
	uint32_t unit, units;

	if (n > PTRDIFF_MAX)
		return NULL;
	if (!firn_heap_has(p))
		return n > FIRN_LARGE_MAX ? huge_resize(p, n) : NULL;
	if (n > FIRN_LARGE_MAX || n <= FIRN_SMALL_MAX)
		return NULL;
	unit = firn_unit_of(p);
	s = firn_span_of(unit);
	units = (uint32_t)((n + FIRN_UNIT_BYTES - 1) >> FIRN_UNIT_SHIFT);
	if (units > s->units && !firn_heap_extend(unit, s->units, units - s->units))
		return NULL;
	if (units < s->units)
		firn_heap_free(unit + units, s->units - units, true);
	s->units = units;
	s->bytes = whole_pages(n);
	return p;
}

size_t firn_large_purge(unsigned long before_ms)
{
	size_t pages = 0;

	for (unsigned int i = 0; i < KEPT; i++) {
		void *p = NULL;
		size_t bytes = 0;

		if (!__atomic_load_n(&kept[i].address, __ATOMIC_RELAXED))
			continue;
		firn_lock_take(&lock);
		if (kept[i].address && kept[i].stamp_ms <= before_ms) {
			p = kept[i].address;
			bytes = kept[i].bytes;
			__atomic_store_n(&kept[i].address, NULL, __ATOMIC_RELAXED);
			kept_bytes -= bytes;
		}
		firn_lock_drop(&lock);
		if (p)
			firn_os.munmap(p, bytes);
		pages += bytes / FIRN_PAGE_BYTES;
	}
	return pages;
}

size_t firn_huge_bytes(void)
{
	return __atomic_load_n(&huge_bytes, __ATOMIC_RELAXED);
}

size_t firn_huge_count(void)
{
	return __atomic_load_n(&in_table, __ATOMIC_RELAXED);
}

bool firn_huge_has(const void *p, size_t n)
{
	bool found = false;

	firn_lock_take(&lock);
	for (size_t i = 0; i < entries && !found; i++) {
		const struct huge *h = &table[i];
		size_t off = (uintptr_t)p - h->address;

		found = h->address > 1 && off < h->bytes && n <= h->bytes - off;
	}
	firn_lock_drop(&lock);
	return found;
}

void firn_large_lock(void)
{
	firn_lock_take(&lock);
}

void firn_large_unlock(bool child)
{
	if (child)
		firn_lock_reset(&lock);
	else
		firn_lock_drop(&lock);
}

#ifdef FIRN_MALLOC_CHECKS
size_t *firn_huge_bytes_word(void)
{
	return &huge_bytes;
}

bool firn_huge_sound(void)
{
	size_t n = 0, gone = 0, bytes = 0, bytes_kept = 0;
	bool sound;

	firn_lock_take(&lock);
	for (size_t i = 0; i < entries; i++) {
		gone += table[i].address == 1;
		if (table[i].address < 2)
			continue;
		n++;
		bytes += table[i].bytes;
	}
	for (unsigned int i = 0; i < KEPT; i++)
		if (kept[i].address)
			bytes_kept += kept[i].bytes;
	sound = n == in_table && gone == dead && bytes == huge_bytes && bytes_kept == kept_bytes;
	firn_lock_drop(&lock);
	return sound;
}
#endif
