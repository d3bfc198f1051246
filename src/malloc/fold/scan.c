/* SPDX-License-Identifier: MIT */
/*
 * Going over the window: how long pages have been quiet, which folded ones became empty or were written, what
 * may be folded, and what shares frames already.  One class's lock at a time, for one unit.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "malloc/config.h"
#include "malloc/fold/barrier.h"
#include "malloc/fold/frame.h"
#include "malloc/fold/helper.h"
#include "malloc/fold/pass.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define LOOK_UNITS 512u                 /* looked at by one helper */
#define LOOK_UNITS_WAITING 128u         /* by one that is waited for */
#define READ_UNITS 32u                  /* by one read of pagemap */
#define BACKOFF_MAX 64u                 /* passes that a page is left alone for at most after it was written */
#define PATIENCE 2u                     /* ages that a quiet page waits for its neighbours */
#define EXISTS_PERCENT 25u              /* frames fuller than this stay as they are */
#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_FILE ((uint64_t)1 << 61)

/* The class of @unit if it is foldable, with its lock held; FIRN_CLASS_NONE otherwise. */
static unsigned int enter(uint32_t unit)
{
	unsigned int c = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;

	if (!firn_class_foldable(c))
		return FIRN_CLASS_NONE;
	firn_lock_take(&firn_bins[c].lock);
	if (firn_span_of(unit)->class == c &&
	    (__atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW) == c)
		return c;
	firn_lock_drop(&firn_bins[c].lock);
	return FIRN_CLASS_NONE;
}

static void leave(unsigned int c)
{
	firn_lock_drop(&firn_bins[c].lock);
}

static uint16_t hollow_pages(const struct firn_span *s)
{
	return s->closed & (uint16_t)~(s->folded | s->busy);
}

void firn_fold_reopened(struct firn_span *s, uint32_t unit, unsigned int c)
{
	__atomic_store_n(&firn_heap.kinds[unit], (uint8_t)(s->closed ? FIRN_KIND_SLOW | c : c), __ATOMIC_RELAXED);
	firn_span_relist(s);
}

static uint32_t print_of(const struct firn_span *s, unsigned int page, unsigned int words)
{
	uint64_t h = 0;

	for (unsigned int w = 0; w < words; w++)
		h = (h ^ atomic_load_explicit(&s->mask[page * words + w], memory_order_relaxed)) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

static void enter_mask(struct firn_span *s, unsigned int page, unsigned int c, uint32_t to)
{
	const struct firn_class *k = &firn_classes[c];
	struct firn_plan *p = &firn_pass.plan;

	for (unsigned int w = 0; w < k->page_words; w++) {
		uint64_t bits = atomic_load_explicit(&s->mask[page * k->page_words + w], memory_order_relaxed);

		if (k->size == p->region_bytes) {
			p->mask[(size_t)to * p->words + w] |= bits;
			continue;
		}
		for (; bits; bits &= bits - 1) {
			unsigned int first = (w * 64 + (unsigned int)__builtin_ctzll(bits)) * k->size;

			firn_plan_set(p, to, first, first + k->size - 1);
		}
	}
}

/* A page that may be folded. */
static void offer(struct firn_span *s, unsigned int page, unsigned int c, uint32_t to)
{
	const struct firn_class *k = &firn_classes[c];
	struct firn_plan *p = &firn_pass.plan;
	unsigned int n = 0;

	for (unsigned int w = 0; w < k->page_words; w++)
		n += (unsigned int)__builtin_popcountll(s->mask[page * k->page_words + w]);
	p->state[to] = FIRN_PLAN_OPEN;
	p->class[to] = (uint8_t)c;
	if (!n)
		return;
	enter_mask(s, page, c, to);
	if (n * 2 <= k->page_slots) {
		firn_pass.live_pages++;
		firn_pass.live_bytes += n * k->size;
	}
}

/* Candidates whose neighbours are not quiet yet wait for them for a while: the longer the run, the fewer mappings. */
static void offer_pages(struct firn_span *s, unsigned int c, uint32_t to, uint16_t candidates, uint16_t young, uint16_t old)
{
	for (unsigned int first = 0; first < FIRN_UNIT_PAGES; first += 1u << FIRN_PLAN_SHIFT_MAX) {
		uint16_t run = (uint16_t)(((1u << (1u << FIRN_PLAN_SHIFT_MAX)) - 1) << first);
		uint16_t pages = candidates & run;

		if (young & run)
			pages &= old;
		for (; pages; pages &= (uint16_t)(pages - 1)) {
			unsigned int page = (unsigned int)__builtin_ctz(pages);

			offer(s, page, c, to + page);
		}
	}
}

/* Mappings that begin in the unit.  @mapped: pages that map frames. */
static void count_vmas(uint32_t unit, const struct firn_span *s, uint16_t mapped)
{
	static uint32_t last;           /* the frame before this page; of no use to anybody else */

	if (unit == firn_pass.first)
		last = FIRN_FRAME_NONE;
	if (!mapped) {
		firn_pass.vmas += last != FIRN_FRAME_NONE;
		last = FIRN_FRAME_NONE;
		return;
	}
	for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page++) {
		uint32_t frame = mapped >> page & 1 ? s->frame[page] : FIRN_FRAME_NONE;

		if (frame != (last == FIRN_FRAME_NONE ? last : last + 1))
			firn_pass.vmas++;
		last = frame;
	}
}

/* Does page @page of @unit, or of the unit before or behind it, map something else than anonymous memory? */
static bool is_mapped(uint32_t unit, int page)
{
	unsigned int kind;

	if (page < 0) {
		if (!unit)
			return false;
		unit--;
		page = FIRN_UNIT_PAGES - 1;
	} else if (page == FIRN_UNIT_PAGES) {
		if (++unit >= __atomic_load_n(&firn_heap.units, __ATOMIC_RELAXED))
			return false;
		page = 0;
	}
	kind = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
	if (!firn_class_foldable(kind))
		return false;
	return ((__atomic_load_n(&firn_span_of(unit)->closed, __ATOMIC_RELAXED) |
		 __atomic_load_n(&firn_span_of(unit)->copied, __ATOMIC_RELAXED)) >> page & 1);
}

/* Would making pages @first .. @end - 1 anonymous save a mapping?  It does where they are joined to anonymous
 * ones on one side, and are cut off nothing on the other. */
static bool saves_mapping(const struct firn_span *s, uint32_t unit, unsigned int first, unsigned int end)
{
	bool before = is_mapped(unit, (int)first - 1), behind = is_mapped(unit, (int)end);

	if (before && behind)
		return false;
	if (before)
		return !first || s->frame[first - 1] + 1 != s->frame[first];
	return !behind || end == FIRN_UNIT_PAGES || s->frame[end - 1] + 1 != s->frame[end];
}

/* Pages that are mapped to frames for nothing: to be made anonymous again where that needs fewer mappings, or
 * where there are plenty. */
static void collect_releases(struct firn_span *s, uint32_t unit, unsigned int c, uint16_t copied_empty)
{
	uint16_t idle = hollow_pages(s) | copied_empty;
	bool plenty = firn_counted(&firn_counters.vmas) < 1024;

	while (idle && firn_pass.nrelease < FIRN_RELEASES) {
		unsigned int first = (unsigned int)__builtin_ctz(idle);
		unsigned int n = (unsigned int)__builtin_ctz(~((unsigned int)idle >> first)), end = first + n;
		uint16_t bits = (uint16_t)(((1u << n) - 1) << first);

		idle &= (uint16_t)~bits;
		/* A copy holds memory. */
		if (!plenty && !(copied_empty & bits) && !saves_mapping(s, unit, first, end))
			continue;
		s->closed |= bits;
		s->busy |= bits;
		firn_pass.release[firn_pass.nrelease++] = (struct firn_release) {
			.unit = unit, .page = (uint8_t)first, .n = (uint8_t)n, .class = (uint8_t)c,
		};
		firn_fold_reopened(s, unit, c);
	}
}

void firn_scan_unit(uint32_t unit)
{
	unsigned int c = enter(unit), words = firn_classes[c].page_words;
	uint32_t to = (unit - firn_pass.first) * FIRN_UNIT_PAGES;
	struct firn_span *s = firn_span_of(unit);
	uint16_t empty = 0, candidates = 0, young = 0, old = 0;

	if (c == FIRN_CLASS_NONE) {
		count_vmas(unit, NULL, 0);
		return;
	}
	for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page++) {
		uint16_t bit = (uint16_t)(1u << page);
		uint32_t print = print_of(s, page, words);

		if (print != s->print[page]) {
			s->print[page] = print;
			s->quiet[page] = 0;
		} else if (s->quiet[page] < UINT8_MAX) {
			s->quiet[page]++;
		}
		if (s->backoff[page])
			s->backoff[page]--;
		if (!firn_page_any(s, page, words))
			empty |= bit;
		if (s->folded & empty & bit) {
			/* Its last object went.  Its mapping stays until that is cheap to change. */
			firn_frame_drop(s->frame[page]);
			s->folded &= (uint16_t)~bit;
			firn_count(&firn_counters.released_pages, 1);
		}
		if ((s->closed | s->never) & bit)
			continue;
		if (firn_pass.force || (s->quiet[page] >= firn_config.age && !s->backoff[page]))
			candidates |= bit;
		else if (!s->backoff[page])
			young |= bit;
		if (s->quiet[page] / PATIENCE >= firn_config.age)
			old |= bit;
	}
	firn_pass.young_pages += (unsigned int)__builtin_popcount(young & (uint16_t)~empty);
	if (firn_pass.search)
		offer_pages(s, c, to, candidates, young, old);
	firn_pass.touched_pages += (unsigned int)__builtin_popcount(s->touched & (uint16_t)~s->closed);
	count_vmas(unit, s, s->closed | s->copied);
	if (s->closed | s->copied)
		collect_releases(s, unit, c, s->copied & empty & (uint16_t)~s->closed);
	leave(c);
}

void firn_scan_release(void)
{
	for (unsigned int i = 0; i < firn_pass.nrelease; i++) {
		struct firn_release *r = &firn_pass.release[i];
		char *address = (char *)firn_unit_address(r->unit) + r->page * FIRN_PAGE_BYTES;
		struct firn_span *s = firn_span_of(r->unit);
		uint16_t bits = (uint16_t)(((1u << r->n) - 1) << r->page);
		bool done = !firn_heap_remake(address, r->n);

		firn_lock_take(&firn_bins[r->class].lock);
		s->busy &= (uint16_t)~bits;
		s->closed &= (uint16_t)~(done ? bits : bits & s->copied);
		for (unsigned int page = r->page; done && page < r->page + r->n; page++) {
			firn_frame_unmap(s->frame[page]);
			if (!(s->copied >> page & 1))
				firn_uncount(&firn_counters.folded_pages, 1);
			s->quiet[page] = s->backoff[page] = 0;
		}
		if (done) {
			s->copied &= (uint16_t)~bits;
			s->touched &= (uint16_t)~bits;
			s->never &= (uint16_t)~bits;
		}
		firn_fold_reopened(s, r->unit, r->class);
		firn_lock_drop(&firn_bins[r->class].lock);
	}
	firn_pass.nrelease = 0;
}

void firn_fold_release(struct firn_span *s, uint16_t pages)
{
	uint32_t unit = firn_span_unit(s);
	unsigned int c = s->class;

	/* What a slice has in hands it gives back itself. */
	pages &= (s->closed | s->copied) & (uint16_t)~s->busy;
	while (pages) {
		unsigned int first = (unsigned int)__builtin_ctz(pages);
		unsigned int n = (unsigned int)__builtin_ctz(~((unsigned int)pages >> first));
		uint16_t bits = (uint16_t)(((1u << n) - 1) << first);

		pages &= (uint16_t)~bits;
		if (firn_heap_remake((char *)firn_unit_address(unit) + first * FIRN_PAGE_BYTES, n))
			continue;
		for (unsigned int page = first; page < first + n; page++) {
			if (s->folded >> page & 1) {
				firn_frame_drop(s->frame[page]);
				firn_count(&firn_counters.released_pages, 1);
			}
			firn_frame_unmap(s->frame[page]);
			if (s->closed >> page & 1)
				firn_uncount(&firn_counters.folded_pages, 1);
		}
		s->folded &= (uint16_t)~bits;
		s->closed &= (uint16_t)~bits;
		s->copied &= (uint16_t)~bits;
		s->touched &= (uint16_t)~bits;
		s->never &= (uint16_t)~bits;
	}
	if (!s->closed)
		__atomic_store_n(&firn_heap.kinds[unit], (uint8_t)c, __ATOMIC_RELAXED);
}

/* Log2 of the length of the run that page @page maps frames as part of; whether it begins there. */
static unsigned int run_at(const struct firn_span *s, uint16_t mapped, unsigned int page, bool *ret_begins)
{
	unsigned int most, h;
	uint32_t base = firn_frame_run(s->frame[page], &most);

	for (h = most; h > 0; h--) {
		unsigned int first = page & ~((1u << h) - 1), i;
		uint32_t frame = s->frame[page] - (page - first);

		if (frame < base || (frame - base) & ((1u << h) - 1))
			continue;
		for (i = 0; i < 1u << h; i++)
			if (!(mapped >> (first + i) & 1) || s->frame[first + i] != frame + i)
				break;
		if (i == 1u << h)
			break;
	}
	*ret_begins = !(page & ((1u << h) - 1));
	return h;
}

/* The head of the group on the frames from @base on, if one was entered. */
static uint32_t head_on(uint32_t base)
{
	uint32_t head = *firn_frame_note(base);

	if (head >= firn_pass.plan.npages || firn_pass.plan.state[head] != FIRN_PLAN_HEAD ||
	    firn_pass.plan.shift[head] == UINT8_MAX ||
	    firn_span_of(firn_pass_unit(head))->frame[head % FIRN_UNIT_PAGES] != base)
		return FIRN_PLAN_NONE;
	return head;
}

static void enter_run(struct firn_span *s, unsigned int c, unsigned int page, unsigned int shift, uint32_t to)
{
	for (unsigned int i = 0; i < 1u << shift; i++) {
		firn_pass.plan.class[to + i] = (uint8_t)c;
		if (s->folded >> (page + i) & 1)
			enter_mask(s, page + i, c, to + i);
	}
}

static void scan_existing(uint32_t unit, bool heads)
{
	unsigned int c = enter(unit), most, n;
	uint32_t to = (unit - firn_pass.first) * FIRN_UNIT_PAGES;
	struct firn_span *s = firn_span_of(unit);
	struct firn_plan *p = &firn_pass.plan;
	uint16_t mapped;

	if (c == FIRN_CLASS_NONE)
		return;
	mapped = s->closed & (uint16_t)~s->busy;
	for (unsigned int page = 0; page < FIRN_UNIT_PAGES; page += n) {
		uint32_t base, head;
		unsigned int h;
		uint16_t bits;
		bool begins;

		n = 1;
		if (!(mapped >> page & 1))
			continue;
		h = run_at(s, mapped, page, &begins);
		if (!begins)
			continue;
		n = 1u << h;
		base = firn_frame_run(s->frame[page], &most);
		bits = (uint16_t)(((1u << n) - 1) << page);
		if (!(s->folded & bits))
			continue;
		head = head_on(base);
		if (heads) {
			if (h != most || head != FIRN_PLAN_NONE)
				continue;
			enter_run(s, c, page, h, to + page);
			*firn_frame_note(base) = head = to + page;
			firn_plan_exists(p, head, h);
			p->node[head] = 0;
		} else {
			if (head == FIRN_PLAN_NONE)
				continue;
			if (head != to + page) {
				enter_run(s, c, page, h, to + page);
				firn_plan_joins(p, head, to + page, h, head + (s->frame[page] - base));
				if (p->class[head] != c)
					for (unsigned int i = 0; i < 1u << most; i++)
						p->class[head + i] = 0;
			}
			/* For firn_scan_check_heads: are all there? */
			p->node[head] += (uint32_t)__builtin_popcount(s->folded & bits);
		}
		if (s->never & bits)
			p->runs[head] = UINT8_MAX;
	}
	leave(c);
}

void firn_scan_heads(uint32_t unit)
{
	scan_existing(unit, true);
}

void firn_scan_members(uint32_t unit)
{
	scan_existing(unit, false);
}

/* A group moves as a whole or not at all, and only when it has become sparse. */
void firn_scan_check_heads(void)
{
	struct firn_plan *p = &firn_pass.plan;

	for (uint32_t head = 0; head < p->npages; head++) {
		unsigned int shift = p->shift[head], count = 0, fill = 0;
		uint32_t base;

		if (p->state[head] != FIRN_PLAN_HEAD || shift == UINT8_MAX)
			continue;
		base = firn_span_of(firn_pass_unit(head))->frame[head % FIRN_UNIT_PAGES];
		for (unsigned int i = 0; i < 1u << shift; i++)
			count += firn_frame_count(base + i);
		for (unsigned int w = 0; w < p->words << shift; w++)
			fill += (unsigned int)__builtin_popcountll(p->mask[(size_t)head * p->words + w]);
		if (count != p->node[head] || fill * 100 > (p->regions << shift) * EXISTS_PERCENT) {
			p->runs[head] = UINT8_MAX;
			continue;
		}
		firn_pass.live_pages += 1u << shift;
		firn_pass.live_bytes += (uint64_t)fill * p->region_bytes;
	}
}

struct look {
	uint32_t first, units;
	uint16_t written[LOOK_UNITS];
};

static uint16_t mapped_now(uint32_t unit)
{
	unsigned int kind = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED);

	if (kind < FIRN_KIND_SLOW || !firn_class_foldable(kind & ~FIRN_KIND_SLOW))
		return 0;
	return __atomic_load_n(&firn_span_of(unit)->closed, __ATOMIC_RELAXED);
}

static int look_in_helper(void *arg)
{
	uint64_t entries[READ_UNITS * FIRN_UNIT_PAGES];
	struct look *l = arg;
	int fd = firn_helper_open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0)
		return fd;
	for (uint32_t i = 0, n; i < l->units; i += n) {
		long bytes;

		n = 1;
		if (!mapped_now(l->first + i))
			continue;
		while (n < READ_UNITS && i + n < l->units && mapped_now(l->first + i + n))
			n++;
		bytes = (long)(n * FIRN_UNIT_PAGES * sizeof(entries[0]));
		if (firn_os.call(SYS_pread64, fd, (long)entries, bytes,
				 (long)((uintptr_t)firn_unit_address(l->first + i) / FIRN_PAGE_BYTES * sizeof(entries[0])),
				 0, 0) != bytes)
			continue;
		/* One that is swapped out is left for later: not every entry that looks so is one. */
		for (uint32_t k = 0; k < n * FIRN_UNIT_PAGES; k++)
			if ((entries[k] & (PAGEMAP_PRESENT | PAGEMAP_FILE)) == PAGEMAP_PRESENT)
				l->written[i + k / FIRN_UNIT_PAGES] |= (uint16_t)(1u << k % FIRN_UNIT_PAGES);
	}
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return 0;
}

/* Pages of @unit have private copies: they are the unit's own again. */
static void mark_written(uint32_t unit, uint16_t written)
{
	unsigned int c = enter(unit);
	struct firn_span *s = firn_span_of(unit);

	if (c == FIRN_CLASS_NONE)
		return;
	/* Whatever became of the unit since the look: a private page of a closed one is a copy. */
	written &= s->closed & (uint16_t)~s->busy;
	for (uint16_t left = written; left; left &= (uint16_t)(left - 1)) {
		unsigned int page = (unsigned int)__builtin_ctz(left), backoff;

		if (s->folded >> page & 1) {
			firn_frame_drop(s->frame[page]);
			firn_count(&firn_counters.unfolds_by_write, 1);
		}
		firn_uncount(&firn_counters.folded_pages, 1);
		if (s->writes[page] < UINT8_MAX)
			s->writes[page]++;
		backoff = s->writes[page] > 5 ? BACKOFF_MAX : 2u << s->writes[page];
		s->backoff[page] = (uint8_t)(backoff < BACKOFF_MAX ? backoff : BACKOFF_MAX);
		s->quiet[page] = 0;
	}
	if (written) {
		s->folded &= (uint16_t)~written;
		s->closed &= (uint16_t)~written;
		s->copied |= written;
		firn_fold_reopened(s, unit, c);
	}
	leave(c);
}

int firn_scan_look(void)
{
	static struct look l;
	int err;

	if (!firn_pass_begun()) {
		l = (struct look){ .first = firn_pass.first + firn_pass.at, .units = firn_pass.units - firn_pass.at };
		if (l.units > LOOK_UNITS)
			l.units = LOOK_UNITS;
	}
	err = firn_pass_helper(look_in_helper, &l, false);
	if (err == -EBUSY) {
		if (l.units > LOOK_UNITS_WAITING)
			l.units = LOOK_UNITS_WAITING;
		err = firn_pass_helper(look_in_helper, &l, true);
	}
	if (err == -EINPROGRESS)
		return err;
	firn_pass.at += l.units;
	for (uint32_t i = 0; !err && i < l.units; i++)
		if (l.written[i])
			mark_written(l.first + i, l.written[i]);
	return err;
}
