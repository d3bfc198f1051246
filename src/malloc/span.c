/* SPDX-License-Identifier: MIT */
/*
 * Refill and flush: slots move between the masks and the threads' caches in batches.  Refill holds the
 * class's lock; flush clears bits without it, and takes it only where the span changes its list.
 */
#include "malloc/span.h"

#include <string.h>
#include <sys/mman.h>

#include "malloc/check.h"
#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/heap.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define PURGE_UNITS 2048u               /* looked at in one purge */
#define PURGE_NS 200000u                /* and no longer than this */
#define INSTEAD_UNITS 64u               /* looked at for a unit of new memory */
#define INSTEAD_MISSES 7u               /* new units in a row for which none are looked at, at most */

struct firn_bin firn_bins[FIRN_CLASSES] = {
	[0 ... FIRN_CLASSES - 1] = { .list = { [0 ... FIRN_BUCKETS - 1] = FIRN_NO_UNIT } },
};

static enum firn_bucket bucket_of(unsigned int c, int32_t nfree)
{
	int32_t slots = firn_classes[c].slots;

	if (nfree <= 0)
		return FIRN_BUCKET_FULL;
	if (nfree >= slots)
		return FIRN_BUCKET_EMPTY;
	if (nfree <= slots / 8)
		return FIRN_BUCKET_DENSE;
	return nfree <= slots / 2 ? FIRN_BUCKET_MIDDLE : FIRN_BUCKET_SPARSE;
}

/* Set bits of the last word of a page (or span). */
static uint64_t valid_bits(unsigned int slots, unsigned int word)
{
	return slots >= (word + 1) * 64 ? ~(uint64_t)0 : ((uint64_t)1 << slots % 64) - 1;
}

/* Slots that refill would find. */
static int32_t available(struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	int32_t n = 0;

	if (!s->closed)
		return atomic_load_explicit(&s->nfree, memory_order_relaxed);
	for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page++)
		for (unsigned int w = 0; w < k->page_words && !(s->closed >> page & 1); w++)
			n += __builtin_popcountll(~atomic_load_explicit(&s->mask[page * k->page_words + w],
									 memory_order_relaxed) &
						  valid_bits(k->page_slots, w));
	return n;
}

static void unlink_span(struct firn_bin *bin, struct firn_span *s)
{
	if (s->bucket == FIRN_BUCKET_FULL)
		return;
	if (s->prev != FIRN_NO_UNIT)
		firn_span_of(s->prev)->next = s->next;
	else
		bin->list[s->bucket] = s->next;
	if (s->next != FIRN_NO_UNIT)
		firn_span_of(s->next)->prev = s->prev;
	__atomic_store_n(&s->bucket, FIRN_BUCKET_FULL, __ATOMIC_RELAXED);
}

static void link_span(struct firn_bin *bin, struct firn_span *s, enum firn_bucket b)
{
	uint32_t unit = firn_span_unit(s);

	__atomic_store_n(&s->bucket, (uint8_t)b, __ATOMIC_RELAXED);
	if (b == FIRN_BUCKET_FULL)
		return;
	s->prev = FIRN_NO_UNIT;
	s->next = bin->list[b];
	if (s->next != FIRN_NO_UNIT)
		firn_span_of(s->next)->prev = unit;
	bin->list[b] = unit;
}

/* An empty span gives its unit back, unless it is the class's only one with room, or a page of it is being
 * folded. */
static bool release(struct firn_bin *bin, struct firn_span *s)
{
	uint16_t special = s->closed | s->folded | s->copied;
	uint32_t unit = firn_span_unit(s);

	if (special)
		firn_fold_release(s, special);
	if (s->closed | s->folded | s->copied)
		return false;
	unlink_span(bin, s);
	bin->nspans--;
	s->class = FIRN_CLASS_NONE;
	firn_heap_free(unit, 1, s->touched);
	return true;
}

void firn_span_relist(struct firn_span *s)
{
	unsigned int c = s->class;
	struct firn_bin *bin = &firn_bins[c];
	int32_t nfree = atomic_load(&s->nfree);
	enum firn_bucket b;

	if (nfree == firn_classes[c].slots && bin->list[FIRN_BUCKET_EMPTY] != FIRN_NO_UNIT &&
	    s->bucket != FIRN_BUCKET_EMPTY && release(bin, s))
		return;
	b = bucket_of(c, nfree);
	if (b != FIRN_BUCKET_FULL && s->closed && !available(s, c))
		b = FIRN_BUCKET_FULL;
	if (b == s->bucket)
		return;
	unlink_span(bin, s);
	link_span(bin, s, b);
}

/* A new span of class @c; its lock is held.  *@ret_clean: its memory is new. */
static struct firn_span *add(unsigned int c, bool *ret_clean)
{
	bool clean;
	uint32_t unit = firn_heap_alloc(1, &clean);
	struct firn_span *s;

	if (unit == FIRN_NO_UNIT)
		return NULL;
	s = firn_span_of(unit);
	firn_check_new_unit(firn_unit_address(unit), clean);
	for (unsigned int w = 0; w < FIRN_MASK_WORDS; w++)
		if (atomic_load_explicit(&s->mask[w], memory_order_relaxed))
			atomic_store_explicit(&s->mask[w], 0, memory_order_relaxed);
	s->idle = s->closed = s->folded = s->copied = s->never = 0;
	s->touched = clean ? 0 : UINT16_MAX;
	memset(s->quiet, 0, sizeof(s->quiet));
	memset(s->backoff, 0, sizeof(s->backoff));
	memset(s->writes, 0, sizeof(s->writes));
	s->class = (uint8_t)c;
	atomic_store(&s->nfree, firn_classes[c].slots);
	firn_bins[c].nspans++;
	__atomic_store_n(&firn_heap.kinds[unit], c, __ATOMIC_RELEASE);
	link_span(&firn_bins[c], s, FIRN_BUCKET_EMPTY);
	*ret_clean = clean;
	return s;
}

/*
 * Where refill begins in a page: not at its first slot, but somewhere of the page's own, so that pages which
 * were filled in the same way, and of which the same slots stay, can be folded onto each other.
 */
static unsigned int start_of(uint32_t unit, unsigned int page, unsigned int slots)
{
	uint32_t h = (unit * FIRN_UNIT_PAGES + page) * 2654435761u;

	return (unsigned int)((uint64_t)(h ^ h >> 15) * slots >> 32);
}

struct taking {
	void **slots;
	unsigned int want, room, got;
};

/* Take free slots of the @slots from @mask on, from slot @start on and around.  @base: of slot 0. */
static void take(struct taking *t, _Atomic uint64_t *mask, unsigned int slots, unsigned int start, uintptr_t base,
		 size_t size)
{
	unsigned int nwords = (slots + 63) / 64, got = t->got;

	for (unsigned int i = 0; i <= nwords && got < t->want; i++) {
		unsigned int w = (start / 64 + i) % nwords;
		uint64_t open = valid_bits(slots, w), old, bits, rest;
		uintptr_t first = base + w * 64 * size;

		if (!i)
			open &= ~(uint64_t)0 << start % 64;
		else if (i == nwords)
			open &= ((uint64_t)1 << start % 64) - 1;
		old = atomic_load_explicit(&mask[w], memory_order_relaxed);
		bits = rest = ~old & open;
		if (!bits)
			continue;
		if (!~rest && t->room - got >= 64) {
			/* A whole word: a few more than wanted, if need be. */
			for (unsigned int j = 0; j < 64; j++)
				t->slots[got + j] = (void *)(first + j * size);
			rest = 0;
			got += 64;
		}
		for (; rest && got < t->want; rest &= rest - 1)
			t->slots[got++] = (void *)(first + (unsigned int)__builtin_ctzll(rest) * size);
		bits &= ~rest;
		/* Where no bit is set nobody can clear one. */
		if (old)
			atomic_fetch_or_explicit(&mask[w], bits, memory_order_acquire);
		else
			atomic_store_explicit(&mask[w], bits, memory_order_relaxed);
	}
	atomic_thread_fence(memory_order_acquire);
	t->got = got;
}

static bool page_empty(const _Atomic uint64_t *mask, unsigned int words)
{
	uint64_t any = 0;

	for (unsigned int w = 0; w < words; w++)
		any |= atomic_load_explicit(&mask[w], memory_order_relaxed);
	return !any;
}

/* Fuller pages first: those in use, then those that are resident, then the rest. */
static void take_pages(struct taking *t, struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	uint32_t unit = firn_span_unit(s);
	uintptr_t base = (uintptr_t)firn_unit_address(unit);
	uint16_t open = (uint16_t)~s->closed, empty = 0, group;

	for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page++)
		if (page_empty(&s->mask[page * k->page_words], k->page_words))
			empty |= (uint16_t)(1u << page);
	for (int turn = 0; turn < 3 && t->got < t->want; turn++) {
		group = turn == 0 ? open & ~empty : turn == 1 ? open & empty & s->touched : open & empty & ~s->touched;
		for (; group && t->got < t->want; group &= group - 1) {
			unsigned int page = (unsigned int)__builtin_ctz(group), before = t->got;

			take(t, &s->mask[page * k->page_words], k->page_slots, start_of(unit, page, k->page_slots),
			     base + page * FIRN_PAGE_BYTES, k->size);
			if (t->got == before)
				continue;
			s->touched |= (uint16_t)(1u << page);
			s->idle &= (uint16_t)~(1u << page);
		}
	}
}

/* Pages that slot @i of a class whose slots straddle pages lies in. */
static uint16_t pages_of(unsigned int c, unsigned int i)
{
	unsigned int first = i * firn_classes[c].size >> FIRN_PAGE_SHIFT;
	unsigned int last = ((i + 1) * firn_classes[c].size - 1) >> FIRN_PAGE_SHIFT;

	return (uint16_t)((2u << last) - (1u << first));
}

static void take_straddling(struct taking *t, struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	uintptr_t base = (uintptr_t)firn_unit_address(firn_span_unit(s));
	unsigned int before = t->got;
	uint16_t pages = 0;

	take(t, s->mask, k->slots, 0, base, k->size);
	for (unsigned int i = before; i < t->got; i++)
		pages |= pages_of(c, (unsigned int)(((uintptr_t)t->slots[i] - base) / k->size));
	s->touched |= pages;
	s->idle &= (uint16_t)~pages;
}

void firn_depot_open(void)
{
	size_t n = 0;
	void *p;

	for (unsigned int c = 1; c < FIRN_CLASSES; c++)
		n += firn_depot_slots(c);
	p = firn_os.mmap(NULL, n * sizeof(void *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (firn_os_failed(p))
		return;
	for (unsigned int c = 1; c < FIRN_CLASSES; c++) {
		firn_bins[c].depot = p;
		p = (void **)p + firn_depot_slots(c);
	}
}

bool firn_depot_put(unsigned int c, void *const *slots, unsigned int n)
{
	struct firn_bin *bin = &firn_bins[c];
	bool ok;

	firn_lock_take(&bin->lock);
	ok = bin->depot && bin->stored + n <= firn_depot_slots(c);
	if (ok) {
		memcpy(bin->depot + bin->stored, slots, n * sizeof(*slots));
		__atomic_store_n(&bin->stored, bin->stored + n, __ATOMIC_RELAXED);
	}
	firn_lock_drop(&bin->lock);
	return ok;
}

/* Up to @want slots out of the depot.  The class's lock is held. */
static unsigned int depot_take(unsigned int c, void **slots, unsigned int want)
{
	struct firn_bin *bin = &firn_bins[c];
	unsigned int n = bin->stored < want ? bin->stored : want;

	__atomic_store_n(&bin->stored, bin->stored - n, __ATOMIC_RELAXED);
	memcpy(slots, bin->depot + bin->stored, n * sizeof(*slots));
	return n;
}

void firn_depot_drain(void)
{
	void *slots[128];
	unsigned int n;

	for (unsigned int c = 1; c < FIRN_CLASSES; c++) {
		while (__atomic_load_n(&firn_bins[c].stored, __ATOMIC_RELAXED)) {
			firn_lock_take(&firn_bins[c].lock);
			n = depot_take(c, slots, sizeof(slots) / sizeof(slots[0]));
			firn_lock_drop(&firn_bins[c].lock);
			firn_span_flush(c, slots, n);
		}
	}
}

static size_t purge_unit(uint32_t u, bool all);

/*
 * A span took @pages pages of new memory.  As many that have become empty elsewhere go at once, if they are easily found:
 * they are of no use to another class, and programs which go from one size to the next would hold both until the
 * empty ones have decayed.
 */
static void give_back_instead(size_t pages)
{
	static _Atomic uint32_t cursor, misses, skip;
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE), left, u, n;
	size_t given = 0;

	/* Threads may disturb each other here: then one looks once too often. */
	left = atomic_load_explicit(&skip, memory_order_relaxed);
	if (left) {
		atomic_store_explicit(&skip, left - 1, memory_order_relaxed);
		return;
	}
	u = atomic_load_explicit(&cursor, memory_order_relaxed);
	for (n = 0; n < INSTEAD_UNITS && n < units && given < pages; n++, u++) {
		if (u >= units)
			u = 0;
		given += purge_unit(u, true);
	}
	atomic_store_explicit(&cursor, u, memory_order_relaxed);
	left = given ? 0 : 2 * atomic_load_explicit(&misses, memory_order_relaxed) + 1;
	if (left > INSTEAD_MISSES)
		left = INSTEAD_MISSES;
	atomic_store_explicit(&misses, left, memory_order_relaxed);
	atomic_store_explicit(&skip, left, memory_order_relaxed);
	firn_count(&firn_counters.purged_pages, given);
}

unsigned int firn_span_refill(unsigned int c, void **slots, unsigned int want, unsigned int room)
{
	struct firn_bin *bin = &firn_bins[c];
	struct taking t = { slots, want, room, 0 };
	size_t fresh = 0;

	firn_lock_take(&bin->lock);
	if (bin->stored) {
		t.got = depot_take(c, slots, want);
		firn_lock_drop(&bin->lock);
		return t.got;
	}
	while (t.got < want) {
		unsigned int before = t.got;
		struct firn_span *s = NULL;
		bool clean;

		for (unsigned int b = FIRN_BUCKET_DENSE; b < FIRN_BUCKETS && !s; b++)
			if (bin->list[b] != FIRN_NO_UNIT)
				s = firn_span_of(bin->list[b]);
		if (!s) {
			/* Not one more than the first for a batch: it may be the last memory there is. */
			if (t.got && want > 1 && t.got >= want / 2)
				break;
			s = add(c, &clean);
			if (!s)
				break;
			fresh += clean ? FIRN_UNIT_PAGES : 0;
		}
		if (firn_classes[c].page_slots)
			take_pages(&t, s, c);
		else
			take_straddling(&t, s, c);
		atomic_fetch_sub(&s->nfree, (int32_t)(t.got - before));
		if (t.got == before) {
			/* What is free lies in closed pages, or is not yet counted. */
			unlink_span(bin, s);
			continue;
		}
		firn_span_relist(s);
	}
	if (t.got)
		atomic_fetch_add_explicit(&bin->used, t.got, memory_order_relaxed);
	firn_lock_drop(&bin->lock);
	if (fresh)
		give_back_instead(fresh);
	/* The cache is used from its end: what came from the fullest page is used first. */
	for (unsigned int i = 0, j = t.got; i + 1 < j; i++) {
		void *p = slots[i];

		slots[i] = slots[--j];
		slots[j] = p;
	}
	return t.got;
}

/* @n bits of span @s were cleared. */
static void freed(struct firn_span *s, unsigned int c, int32_t n)
{
	int32_t nfree = atomic_fetch_add(&s->nfree, n) + n;

	if (bucket_of(c, nfree) == __atomic_load_n(&s->bucket, __ATOMIC_RELAXED))
		return;
	firn_lock_take(&firn_bins[c].lock);
	/* It may have become something else meanwhile: whoever made it so has put it where it belongs. */
	if (s->class == c)
		firn_span_relist(s);
	firn_lock_drop(&firn_bins[c].lock);
}

/* One of @slots to @end, or the one at @end where there is none, is no slot. */
static void bad_pointer(unsigned int c, uintptr_t start, void *const *slots, void *const *end)
{
	while (slots < end && !(((uintptr_t)*slots - start) % firn_classes[c].size))
		slots++;
	firn_die("free of %p, which is not the start of an allocation", *slots);
}

/*
 * Clear the bits of the slots from *@slots on that lie in the same word as the first, and move *@slots past
 * them.  Slots count from @start, the start of their page, or of their unit where they straddle pages.
 */
static void clear_word(unsigned int c, _Atomic uint64_t *words, uintptr_t start, void *const **slots, void *const *end)
{
	const struct firn_class *k = &firn_classes[c];
	const uint64_t size = k->size, magic = k->magic;
	uint32_t limit = k->page_slots ? k->page_slots : k->slots;
	uint32_t word = (uint32_t)(((uintptr_t)**slots - start) * magic >> 32) / 64;
	uintptr_t first = start + word * 64 * size;
	uint64_t range, bits = 0, wrong = 0, old;
	void *const *p = *slots;

	limit -= word * 64;     /* one past the last, at most: then no slot is there */
	range = (limit < 64 ? limit : 64) * size;
	do {
		uint64_t within = (uintptr_t)*p - first, slot = within * magic >> 32;

		if (within >= range)
			break;
		wrong |= slot * size ^ within;
		bits |= (uint64_t)1 << slot;
	} while (++p < end);
	if (firn_unlikely(wrong || p == *slots))
		bad_pointer(c, start, *slots, p);
	/* Clearing is what gives the slots away: all that was done to them comes before. */
	old = atomic_fetch_and_explicit(&words[word], ~bits, memory_order_release);
	if (firn_unlikely((old & bits) != bits || __builtin_popcountll(bits) != p - *slots))
		firn_die("double free of an allocation of %u bytes (found when %u of them were given back)", k->size,
			 (unsigned int)(end - *slots));
	*slots = p;
}

void firn_span_flush(unsigned int c, void *const *slots, unsigned int n)
{
	const struct firn_class *k = &firn_classes[c];
	unsigned int shift = k->page_slots ? FIRN_PAGE_SHIFT : FIRN_UNIT_SHIFT;
	void *const *end = slots + n, *const *from = slots;
	struct firn_span *span = NULL;

	atomic_fetch_sub_explicit(&firn_bins[c].used, n, memory_order_relaxed);
	while (slots < end) {
		uintptr_t start = (uintptr_t)*slots & ~(((uintptr_t)1 << shift) - 1);
		struct firn_span *s = firn_span_of(firn_unit_of(*slots));
		_Atomic uint64_t *words = s->mask;

		if (s != span) {
			if (span)
				freed(span, c, (int32_t)(slots - from));
			span = s;
			from = slots;
		}
		if (k->page_slots)
			words += (start >> FIRN_PAGE_SHIFT & (FIRN_UNIT_PAGES - 1)) * k->page_words;
		clear_word(c, words, start, &slots, end);
	}
	if (span)
		freed(span, c, (int32_t)(slots - from));
}

/* Pages of @s in which no slot is taken. */
static uint16_t empty_pages(struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	uint16_t used = 0;

	if (k->page_slots) {
		for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page++)
			if (!page_empty(&s->mask[page * k->page_words], k->page_words))
				used |= (uint16_t)(1u << page);
		return (uint16_t)~used;
	}
	for (unsigned int w = 0; w < k->page_words; w++)
		for (uint64_t bits = atomic_load_explicit(&s->mask[w], memory_order_relaxed); bits; bits &= bits - 1)
			used |= pages_of(c, w * 64 + (unsigned int)__builtin_ctzll(bits));
	return (uint16_t)~used;
}

/* The class's lock is held: nothing is taken from an empty page meanwhile. */
static size_t purge_span(struct firn_span *s, unsigned int c, bool all)
{
	uint16_t empty = empty_pages(s, c) & s->touched & (uint16_t)~(s->closed | s->folded | s->copied);
	uint16_t gone = all ? empty : empty & s->idle;
	char *base = firn_unit_address(firn_span_unit(s));
	size_t pages = 0;

	s->idle = empty & (uint16_t)~gone;
	s->touched &= (uint16_t)~gone;
	s->never &= (uint16_t)~gone;
	while (gone) {
		unsigned int first = (unsigned int)__builtin_ctz(gone);
		unsigned int n = (unsigned int)__builtin_ctz(~((unsigned int)gone >> first));

		uint16_t bits = (uint16_t)(((1u << n) - 1) << first);

		gone &= (uint16_t)~bits;
		/* Locked in memory, for one: it keeps what is in it. */
		if (firn_os.madvise(base + first * FIRN_PAGE_BYTES, n * FIRN_PAGE_BYTES, MADV_DONTNEED))
			s->touched |= bits;
		else
			pages += n;
	}
	if (atomic_load(&s->nfree) == firn_classes[c].slots && !s->idle && !s->touched)
		release(&firn_bins[c], s);
	return pages;
}

/* What purge_span returns, for a unit of which nothing is known; no lock is held. */
static size_t purge_unit(uint32_t u, bool all)
{
	unsigned int c = __atomic_load_n(&firn_heap.kinds[u], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
	struct firn_span *s = firn_span_of(u);
	size_t pages = 0;

	if (c == FIRN_CLASS_NONE || c >= FIRN_CLASSES)
		return 0;
	/* Too little is free for a page to be empty. */
	if (atomic_load_explicit(&s->nfree, memory_order_relaxed) < firn_classes[c].page_slots ||
	    __atomic_load_n(&s->bucket, __ATOMIC_RELAXED) == FIRN_BUCKET_FULL)
		return 0;
	firn_lock_take(&firn_bins[c].lock);
	if (s->class == c && (__atomic_load_n(&firn_heap.kinds[u], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW) == c)
		pages = purge_span(s, c, all);
	firn_lock_drop(&firn_bins[c].lock);
	return pages;
}

static _Atomic uint32_t purge_left;    /* units of a look that ran out of time */

bool firn_span_purge_unfinished(void)
{
	return atomic_load_explicit(&purge_left, memory_order_relaxed);
}

size_t firn_span_purge(bool all)
{
	static _Atomic uint32_t cursor;
	uint32_t todo = atomic_load(&purge_left), n;
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE), u = all ? 0 : atomic_load(&cursor);
	uint64_t until = firn_os.clock_ns() + PURGE_NS;
	size_t pages = 0;

	firn_depot_drain();

	if (!todo || todo > units)
		todo = units < PURGE_UNITS ? units : PURGE_UNITS;
	for (n = 0; n < (all ? units : todo); n++, u++) {
		if (u >= units)
			u = 0;
		pages += purge_unit(u, all);
		if (!all && n % 16 == 15 && firn_os.clock_ns() > until) {
			n++;
			u++;
			break;
		}
	}
	if (!all) {
		atomic_store(&cursor, u);
		atomic_store(&purge_left, todo - n);
	}
	firn_count(&firn_counters.purged_pages, pages);
	return pages;
}
