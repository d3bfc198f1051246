/* SPDX-License-Identifier: MIT */
/*
 * The invariants, written a second time: nothing here uses how the code under test finds things out.  Reads
 * under the locks that the writers take; what no lock covers is checked only where @quiet.
 */
#include "malloc/check.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>

#include "malloc/api.h"
#include "malloc/config.h"
#include "malloc/fold/frame.h"
#include "malloc/fold/tick.h"
#include "malloc/large.h"
#include "malloc/os.h"
#include "malloc/stats.h"

__thread struct firn_check_where firn_check_where __attribute__((tls_model("initial-exec")));

static unsigned int broken(unsigned int number, unsigned int class, uint32_t unit)
{
	firn_check_where.class = class;
	firn_check_where.unit = unit;
	return number;
}

/* Bits of page @page's slots in word @w of its mask (page 0: of the span, where slots straddle pages). */
static uint64_t slot_bits(unsigned int c, unsigned int w)
{
	const struct firn_class *k = &firn_classes[c];
	unsigned int slots = k->page_slots ? k->page_slots : k->slots, from = w * 64;

	if (slots <= from)
		return 0;
	return slots - from >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (slots - from)) - 1;
}

static unsigned int words_of(unsigned int c)
{
	return firn_classes[c].page_words * (firn_classes[c].page_slots ? FIRN_UNIT_PAGES : 1);
}

struct look {
	int32_t used;
	uint16_t pages;                 /* that a slot whose bit is set lies in */
	bool beyond;                    /* a bit is set that belongs to no slot */
};

static struct look look_at(struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	struct look l = { 0, 0, false };

	for (unsigned int w = 0; w < words_of(c); w++) {
		uint64_t bits = atomic_load(&s->mask[w]);

		l.beyond |= bits & ~slot_bits(c, k->page_slots ? w % k->page_words : w);
		l.used += __builtin_popcountll(bits);
		for (; bits; bits &= bits - 1) {
			size_t i = w * 64 + (size_t)__builtin_ctzll(bits), from, to;

			if (k->page_slots) {
				l.pages |= (uint16_t)(1u << w / k->page_words);
				continue;
			}
			from = i * k->size;
			to = from + k->size - 1;
			for (size_t page = from / FIRN_PAGE_BYTES; page <= to / FIRN_PAGE_BYTES && page < FIRN_UNIT_PAGES; page++)
				l.pages |= (uint16_t)(1u << page);
		}
	}
	return l;
}

static unsigned int share_of(unsigned int c, int32_t nfree)
{
	int32_t slots = firn_classes[c].slots;

	if (nfree <= 0)
		return FIRN_BUCKET_FULL;
	if (nfree == slots)
		return FIRN_BUCKET_EMPTY;
	return nfree <= slots / 8 ? FIRN_BUCKET_DENSE : nfree <= slots / 2 ? FIRN_BUCKET_MIDDLE : FIRN_BUCKET_SPARSE;
}

/* The class's lock is held. */
static unsigned int check_span(struct firn_span *s, unsigned int c, bool quiet)
{
	uint32_t unit = firn_span_unit(s);
	unsigned int kind = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_ACQUIRE);
	/* Before the masks: slots may be freed in between, and none can be taken. */
	int32_t slots = firn_classes[c].slots, nfree = atomic_load(&s->nfree);
	struct look l = look_at(s, c);

	if ((kind & ~FIRN_KIND_SLOW) != c)
		return broken(1, c, unit);
	if (!s->closed != (kind < FIRN_KIND_SLOW))
		return broken(2, c, unit);
	if (l.beyond)
		return broken(3, c, unit);
	if (nfree > slots - l.used || (quiet && nfree != slots - l.used))
		return broken(4, c, unit);
	if (l.pages & (uint16_t)~s->touched)
		return broken(5, c, unit);
	if (((s->folded | s->busy) & (uint16_t)~s->closed) || (s->copied & s->closed & (uint16_t)~s->busy))
		return broken(6, c, unit);
	if ((s->closed | s->folded | s->copied | s->never) && !firn_class_foldable(c))
		return broken(7, c, unit);
	if (quiet && !s->closed && s->bucket != share_of(c, nfree))
		return broken(11, c, unit);
	return 0;
}

unsigned int firn_check_span(uint32_t unit, bool quiet)
{
	unsigned int c = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_ACQUIRE) & ~FIRN_KIND_SLOW, number = 0;
	struct firn_span *s = firn_span_of(unit);
	struct firn_cache *cache;

	if (c == FIRN_CLASS_NONE || c >= FIRN_CLASSES)
		return 0;
	/* A signal handler that allocates must not wait for a lock that its own thread holds. */
	cache = firn_thread_enter(&firn_thread);
	firn_lock_take(&firn_bins[c].lock);
	/* Else it has become something else meanwhile. */
	if (s->class == c && (quiet || (__atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_ACQUIRE) & ~FIRN_KIND_SLOW) == c))
		number = check_span(s, c, quiet);
	else if (quiet)
		number = broken(1, c, unit);
	firn_lock_drop(&firn_bins[c].lock);
	firn_thread_leave(&firn_thread, cache);
	return number;
}

/* The class's lock is held.  @listed: spans found. */
static unsigned int check_lists(unsigned int c, uint32_t *listed)
{
	const struct firn_bin *bin = &firn_bins[c];
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE);

	for (unsigned int b = FIRN_BUCKET_FULL; b < FIRN_BUCKETS; b++) {
		uint32_t prev = FIRN_NO_UNIT;

		for (uint32_t u = bin->list[b]; u != FIRN_NO_UNIT; u = firn_span_of(u)->next) {
			const struct firn_span *s;

			if (u >= units || b == FIRN_BUCKET_FULL || ++*listed > bin->nspans)
				return broken(8, c, u);
			s = firn_span_of(u);
			if (s->class != c || s->bucket != b || s->prev != prev)
				return broken(8, c, u);
			prev = u;
		}
	}
	return 0;
}

/* A slot that somebody has cached. */
static unsigned int check_cached(const void *p, unsigned int c)
{
	uint32_t unit;
	int bit;

	if (!firn_heap_has(p))
		return broken(14, c, FIRN_NO_UNIT);
	unit = firn_unit_of(p);
	if ((__atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW) != c)
		return broken(14, c, unit);
	bit = firn_span_slot(c, (uintptr_t)p & (FIRN_UNIT_BYTES - 1));
	if (bit < 0 || !(atomic_load(&firn_span_of(unit)->mask[bit / 64]) >> bit % 64 & 1))
		return broken(14, c, unit);
	return 0;
}

unsigned int firn_check_bin(unsigned int c, bool quiet)
{
	struct firn_bin *bin = &firn_bins[c];
	uint32_t listed = 0, in_list = 0, spans = 0, units;
	int64_t used = 0;
	unsigned int number;
	struct firn_cache *cache;

	cache = firn_thread_enter(&firn_thread);
	firn_lock_take(&bin->lock);
	units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE);
	number = check_lists(c, &listed);
	for (uint32_t u = 0; u < units && !number; u++) {
		struct firn_span *s = firn_span_of(u);
		unsigned int kind = __atomic_load_n(&firn_heap.kinds[u], __ATOMIC_ACQUIRE);

		/* Of this class only under this lock. */
		if ((kind & ~FIRN_KIND_SLOW) != c || s->class != c)
			continue;
		spans++;
		in_list += s->bucket != FIRN_BUCKET_FULL;
		number = check_span(s, c, quiet);
		if (quiet)
			used += look_at(s, c).used;
	}
	if (!number && spans != bin->nspans)
		number = broken(9, c, FIRN_NO_UNIT);
	if (!number && in_list != listed)
		number = broken(10, c, FIRN_NO_UNIT);
	if (!number && quiet && used != atomic_load(&bin->used))
		number = broken(12, c, FIRN_NO_UNIT);
	if (!number && bin->stored > firn_depot_slots(c))
		number = broken(13, c, FIRN_NO_UNIT);
	for (uint32_t i = 0; i < bin->stored && !number; i++)
		number = check_cached(bin->depot[i], c);
	firn_lock_drop(&bin->lock);
	firn_thread_leave(&firn_thread, cache);
	return number;
}

/* Its own thread's, and nobody else's: no lock.  Of the slots the last @newest: comparing all with all takes long. */
static unsigned int check_cache(unsigned int c, uint32_t newest)
{
	const struct firn_cache *cache = firn_thread.cache;
	const struct firn_cache_bin *b = &cache->bins[c];
	unsigned int number = 0;

	if (b->n > b->cap || b->cap > firn_classes[c].cache_max)
		return broken(13, c, FIRN_NO_UNIT);
	for (uint32_t i = b->n > newest ? b->n - newest : 0; i < b->n && !number; i++) {
		number = check_cached(b->slots[i], c);
		for (uint32_t j = 0; j < i && !number; j++)
			if (b->slots[j] == b->slots[i])
				number = broken(15, c, firn_unit_of(b->slots[i]));
	}
	return number;
}

unsigned int firn_check_cache(unsigned int c)
{
	return check_cache(c, UINT32_MAX);
}

/* The heap's lock is held.  A free run that begins at @unit. */
static unsigned int check_free(uint32_t unit, uint32_t units, uint32_t *ret_n)
{
	const struct firn_span *s = firn_span_of(unit), *last;
	uint32_t n = s->units;

	if (!n || n > units - unit)
		return broken(16, 0, unit);
	last = firn_span_of(unit + n - 1);
	if (last->units != n || last->resident != s->resident)
		return broken(16, 0, unit);
	for (uint32_t u = unit; u < unit + n; u++)
		if (firn_heap.kinds[u] != FIRN_KIND_NONE)
			return broken(16, 0, u);
	if (s->next != FIRN_NO_UNIT && (s->next >= units || firn_span_of(s->next)->prev != unit))
		return broken(16, 0, unit);
	if (unit + n < units && firn_heap.kinds[unit + n] == FIRN_KIND_NONE && firn_span_of(unit + n)->resident == s->resident)
		return broken(17, 0, unit);
	*ret_n = n;
	return 0;
}

/* Only where quiet: their owners change them without the heap's lock. */
static unsigned int check_large(uint32_t unit, uint32_t units, uint32_t *ret_n)
{
	const struct firn_span *s = firn_span_of(unit);
	uint32_t n = s->units;

	if (!n || n > units - unit || s->class != FIRN_CLASS_NONE || !s->bytes || s->bytes > (uint64_t)n * FIRN_UNIT_BYTES)
		return broken(18, 0, unit);
	for (uint32_t u = unit + 1; u < unit + n; u++)
		if (firn_heap.kinds[u] != FIRN_KIND_TAIL)
			return broken(18, 0, u);
	*ret_n = n;
	return 0;
}

unsigned int firn_check_heap(bool quiet)
{
	struct firn_heap *h = &firn_heap;
	unsigned int number = 0;
	struct firn_cache *cache;

	cache = firn_thread_enter(&firn_thread);
	firn_lock_take(&h->lock);
	for (uint32_t u = 0, n; u < h->units && !number; u += n) {
		unsigned int kind = __atomic_load_n(&h->kinds[u], __ATOMIC_ACQUIRE);

		n = 1;
		if (kind == FIRN_KIND_NONE)
			number = check_free(u, h->units, &n);
		else if (kind == FIRN_KIND_LARGE && quiet)
			number = check_large(u, h->units, &n);
		else if (kind == FIRN_KIND_TAIL && quiet)
			number = broken(19, 0, u);
		else if (kind < FIRN_KIND_LARGE && (kind & ~FIRN_KIND_SLOW) >= FIRN_CLASSES)
			number = broken(1, kind, u);
	}
	firn_lock_drop(&h->lock);
	firn_thread_leave(&firn_thread, cache);
	if (!number && !firn_huge_sound())
		number = broken(20, 0, FIRN_NO_UNIT);
	return number;
}

/* What lies on a frame, a bit for 16 bytes, and how many pages need it. */
struct frame {
	uint64_t taken[FIRN_PAGE_BYTES / FIRN_ALIGN / 64];
	uint32_t pages;
};

#define FRAMES_MAX (1u << 22)

/* Enter the slots of page @page.  False: somebody else's lie there. */
static bool enter_page(struct frame *f, struct firn_span *s, unsigned int page)
{
	const struct firn_class *k = &firn_classes[s->class];

	f->pages++;
	for (unsigned int i = 0; i < k->page_slots; i++) {
		if (!(atomic_load(&s->mask[page * k->page_words + i / 64]) >> i % 64 & 1))
			continue;
		for (unsigned int g = i * k->size / FIRN_ALIGN; g < (i + 1) * k->size / FIRN_ALIGN; g++) {
			if (f->taken[g / 64] >> g % 64 & 1)
				return false;
			f->taken[g / 64] |= (uint64_t)1 << g % 64;
		}
	}
	return true;
}

static unsigned int check_frames(struct frame *frames)
{
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE);

	for (int turn = 0; turn < 2; turn++)
		for (uint32_t u = 0; u < units; u++) {
			unsigned int c = firn_heap.kinds[u] & ~FIRN_KIND_SLOW;
			struct firn_span *s = firn_span_of(u);

			if (!firn_class_foldable(c))
				continue;
			for (uint16_t left = s->folded; left; left &= (uint16_t)(left - 1)) {
				unsigned int page = (unsigned int)__builtin_ctz(left);
				uint32_t frame = s->frame[page];

				if (frame >= FRAMES_MAX)
					return broken(24, c, u);
				if (!turn && !enter_page(&frames[frame], s, page))
					return broken(23, c, u);
				if (turn && frames[frame].pages != firn_frame_count(frame))
					return broken(24, c, u);
			}
		}
	return 0;
}

unsigned int firn_check_frames(void)
{
	struct frame *frames;
	unsigned int number;
	struct firn_cache *cache;

	if (!firn_counted(&firn_counters.folded_pages))
		return 0;
	cache = firn_thread_enter(&firn_thread);
	firn_pass_stop();
	frames = firn_os.mmap(NULL, FRAMES_MAX * sizeof(*frames), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	number = firn_os_failed(frames) ? 0 : check_frames(frames);
	if (!firn_os_failed(frames))
		firn_os.munmap(frames, FRAMES_MAX * sizeof(*frames));
	firn_lock_drop(&firn_pass_lock);
	firn_thread_leave(&firn_thread, cache);
	return number;
}

unsigned int firn_check_table(void)
{
	for (unsigned int c = 1; c < FIRN_CLASSES; c++) {
		const struct firn_class *k = &firn_classes[c];
		bool first = c == 1 || c == FIRN_PINNED_FIRST || c == FIRN_PLAIN_FIRST;

		if (k->size % FIRN_ALIGN || (!first && k->size <= firn_classes[c - 1].size))
			return broken(21, c, FIRN_NO_UNIT);
		if (firn_class_foldable(c) && (!k->page_slots || k->size > FIRN_FOLD_MAX))
			return broken(21, c, FIRN_NO_UNIT);
		if (k->page_slots && ((size_t)k->page_slots * k->size > FIRN_PAGE_BYTES ||
				      k->slots != k->page_slots * FIRN_UNIT_PAGES || k->page_slots > k->page_words * 64))
			return broken(21, c, FIRN_NO_UNIT);
		if (words_of(c) > FIRN_MASK_WORDS || (size_t)k->slots * k->size > FIRN_UNIT_BYTES)
			return broken(21, c, FIRN_NO_UNIT);
		for (unsigned int i = 0; i < (k->page_slots ? k->page_slots : k->slots); i++)
			if (firn_span_slot(c, (size_t)i * k->size) != (int)i || firn_span_slot(c, (size_t)i * k->size + 1) >= 0)
				return broken(21, c, FIRN_NO_UNIT);
	}
	for (size_t n = 0; n <= FIRN_SMALL_MAX; n++)
		if (firn_classes[firn_class_of(n)].size < n)
			return broken(21, firn_class_of(n), FIRN_NO_UNIT);
	return 0;
}

unsigned int firn_check_all(bool quiet)
{
	unsigned int number = firn_check_table();

	for (unsigned int c = 1; c < FIRN_CLASSES && !number; c++) {
		number = firn_check_cache(c);
		if (!number)
			number = firn_check_bin(c, quiet);
	}
	if (!number)
		number = firn_check_heap(quiet);
	return number || !quiet ? number : firn_check_frames();
}

static void expect(unsigned int number)
{
	if (number)
		firn_die("invariant %u of the allocator does not hold (class %u, unit %u)", number, firn_check_where.class,
			 firn_check_where.unit);
}

void firn_check_step(const void *p)
{
	static __thread uint32_t since __attribute__((tls_model("initial-exec")));
	static _Atomic uint32_t next_class;
	bool quiet = __libc_single_threaded;
	unsigned int c;

	/* A signal handler in the middle of the allocator, or a thread at its end. */
	if (firn_thread.busy)
		return;
	if (p && firn_heap_has(p)) {
		uint32_t unit = firn_unit_of(p);

		c = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
		expect(firn_check_span(unit, quiet));
		if (c < FIRN_CLASSES)
			expect(check_cache(c, 2));
	}
	/* The rest costs as much as the heap is large: class by class, that often that it costs as much as the above. */
	if (since++ < 32 + __atomic_load_n(&firn_heap.units, __ATOMIC_RELAXED) / 8)
		return;
	since = 0;
	c = atomic_fetch_add(&next_class, 1) % FIRN_CLASSES;
	if (c) {
		expect(firn_check_cache(c));
		expect(firn_check_bin(c, quiet));
		return;
	}
	expect(firn_check_heap(quiet));
	if (quiet)
		expect(firn_check_frames());
}

void firn_check_new_unit(void *unit, bool clean)
{
	const uint64_t *word = unit;

	if (!clean) {
		memset(unit, 0, FIRN_UNIT_BYTES);
		return;
	}
	for (size_t i = 0; i < FIRN_UNIT_BYTES / sizeof(*word); i++)
		if (word[i])
			expect(broken(22, 0, firn_unit_of(unit)));
}
