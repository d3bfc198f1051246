/* SPDX-License-Identifier: MIT */
#include "link/link.h"

#include <errno.h>
#include <string.h>

#define MAGIC 0x6b6e696c6e726966ull     /* "firnlink" */

/*
 * Two tables of runs and watched spans: a layout change is made in the one that is not in use, with
 * the number of the event it applies, and becomes visible by one store.
 */
struct firn_link_table {
	uint64_t next_seq;                  /* events below this one have been applied */
	uint32_t nruns, nwatched;           /* visible */
	uint32_t all_runs, all_watched;     /* with those not yet published */
	uint64_t pad[5];
	/* struct firn_run runs[max_runs]; struct firn_span watched[max_runs]; */
};

struct firn_link_memory {
	uint64_t magic;
	uint32_t page_size, max_runs, max_links;
	uint32_t nlinks, all_links;
	uint32_t active;                    /* which table is in use */
	uint64_t pad[4];
};

static struct firn_run *runs_of(const struct firn_link *l, const struct firn_link_table *t)
{
	(void)l;
	return (struct firn_run *)(void *)((char *)(uintptr_t)t + sizeof(*t));
}

static struct firn_span *watched_of(const struct firn_link *l, const struct firn_link_table *t)
{
	return (struct firn_span *)(void *)(runs_of(l, t) + l->m->max_runs);
}

static size_t table_bytes(uint32_t max_runs)
{
	return sizeof(struct firn_link_table) +
	       max_runs * (sizeof(struct firn_run) + sizeof(struct firn_span));
}

static size_t tables_at(uint32_t max_links)
{
	return firn_align_up(sizeof(struct firn_link_memory) + (size_t)max_links * sizeof(uint32_t), 64);
}

size_t firn_link_bytes(const struct firn_link_shape *s)
{
	return tables_at(s->max_links) + 2 * firn_align_up(table_bytes(s->max_runs), 64);
}

static void point_into(struct firn_link *l, void *mem)
{
	char *tables;

	l->m = mem;
	l->links = (uint32_t *)(void *)((char *)mem + sizeof(struct firn_link_memory));
	tables = (char *)mem + tables_at(l->m->max_links);
	l->tables[0] = (struct firn_link_table *)(void *)tables;
	l->tables[1] = (struct firn_link_table *)(void *)(tables +
							  firn_align_up(table_bytes(l->m->max_runs), 64));
	l->page_size = l->m->page_size;
	l->page_shift = (unsigned int)__builtin_ctz(l->page_size);
}

void firn_link_format(struct firn_link *l, void *mem, const struct firn_link_shape *s)
{
	struct firn_link_memory *m = mem;

	m->page_size = s->page_size;
	m->max_runs = s->max_runs;
	m->max_links = s->max_links;
	m->nlinks = m->all_links = m->active = 0;
	point_into(l, mem);
	memset(l->tables[0], 0, sizeof(*l->tables[0]));
	memset(l->tables[1], 0, sizeof(*l->tables[1]));
	__atomic_store_n(&m->magic, MAGIC, __ATOMIC_RELEASE);
}

static const struct firn_link_table *active(const struct firn_link *l)
{
	return l->tables[__atomic_load_n(&l->m->active, __ATOMIC_ACQUIRE)];
}

int firn_link_attach(struct firn_link *l, void *mem, size_t size)
{
	struct firn_link_memory *m = mem;
	struct firn_link_shape s;

	if (size < sizeof(*m) || m->magic != MAGIC || m->active > 1 || m->nlinks > m->max_links ||
	    m->page_size < 4096 || (m->page_size & (m->page_size - 1)))
		return -EBADMSG;
	s.page_size = m->page_size;
	s.max_runs = m->max_runs;
	s.max_links = m->max_links;
	if (firn_link_bytes(&s) > size)
		return -EBADMSG;
	point_into(l, mem);
	firn_link_unpublish(l);
	for (uint32_t i = 0; i < m->nlinks; i++)
		if (firn_link_state(l->links[i]) == FIRN_PAGE_IN_FLIGHT)
			l->links[i] = firn_link_make(FIRN_PAGE_EVICTED, firn_link_place(l->links[i]));
	return firn_link_check(l) ? -EBADMSG : 0;
}

/* --- Building ------------------------------------------------------------------------------------ */

int firn_link_add_run(struct firn_link *l, uint64_t start, uint32_t npages, uint32_t *ret_first)
{
	struct firn_link_table *t = l->tables[l->m->active];
	struct firn_run *r = runs_of(l, t) + t->all_runs;

	if (t->all_runs == l->m->max_runs || npages > l->m->max_links - l->m->all_links)
		return -ENOSPC;
	r->start = start;
	r->npages = npages;
	r->first = l->m->all_links;
	*ret_first = r->first;
	l->m->all_links += npages;
	t->all_runs++;
	return 0;
}

uint32_t *firn_link_slots(struct firn_link *l, uint32_t first)
{
	return l->links + first;
}

int firn_link_add_watched(struct firn_link *l, struct firn_span span)
{
	struct firn_link_table *t = l->tables[l->m->active];
	struct firn_span *w = watched_of(l, t);

	if (t->all_watched && w[t->all_watched - 1].end >= span.start) {
		w[t->all_watched - 1].end = firn_max_u64(w[t->all_watched - 1].end, span.end);
		return 0;
	}
	if (t->all_watched == l->m->max_runs)
		return -ENOSPC;
	w[t->all_watched++] = span;
	return 0;
}

void firn_link_publish(struct firn_link *l)
{
	struct firn_link_table *t = l->tables[l->m->active];

	__atomic_store_n(&l->m->nlinks, l->m->all_links, __ATOMIC_RELEASE);
	__atomic_store_n(&t->nwatched, t->all_watched, __ATOMIC_RELEASE);
	__atomic_store_n(&t->nruns, t->all_runs, __ATOMIC_RELEASE);
}

void firn_link_unpublish(struct firn_link *l)
{
	struct firn_link_table *t = l->tables[l->m->active];

	l->m->all_links = l->m->nlinks;
	t->all_watched = t->nwatched;
	t->all_runs = t->nruns;
}

/* --- Look-up ------------------------------------------------------------------------------------- */

/* The number of the first run that ends after @address. */
static uint32_t run_from(const struct firn_link *l, const struct firn_link_table *t, uint64_t address)
{
	const struct firn_run *r = runs_of(l, t);
	uint32_t lo = 0, hi = __atomic_load_n(&t->nruns, __ATOMIC_ACQUIRE);

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r[mid].start + ((uint64_t)r[mid].npages << l->page_shift) > address)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static uint32_t watched_from(const struct firn_link *l, const struct firn_link_table *t, uint64_t address)
{
	const struct firn_span *w = watched_of(l, t);
	uint32_t lo = 0, hi = __atomic_load_n(&t->nwatched, __ATOMIC_ACQUIRE);

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (w[mid].end > address)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

enum firn_found firn_link_find(const struct firn_link *l, uint64_t address, struct firn_run *ret_run,
			       uint32_t *ret_index)
{
	const struct firn_link_table *t = active(l);
	uint32_t n = run_from(l, t, address);

	if (n < t->nruns && runs_of(l, t)[n].start <= address) {
		*ret_run = runs_of(l, t)[n];
		*ret_index = ret_run->first + (uint32_t)((address - ret_run->start) >> l->page_shift);
		return FIRN_FOUND_LINK;
	}
	n = watched_from(l, t, address);
	if (n < t->nwatched && watched_of(l, t)[n].start <= address)
		return FIRN_FOUND_HOLE;
	return FIRN_FOUND_NOTHING;
}

uint32_t firn_link_get(const struct firn_link *l, uint32_t index)
{
	return __atomic_load_n(&l->links[index], __ATOMIC_ACQUIRE);
}

bool firn_link_move(struct firn_link *l, uint32_t index, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&l->links[index], &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

bool firn_link_run(const struct firn_link *l, uint32_t n, struct firn_run *ret)
{
	const struct firn_link_table *t = active(l);

	if (n >= __atomic_load_n(&t->nruns, __ATOMIC_ACQUIRE))
		return false;
	*ret = runs_of(l, t)[n];
	/* Without the layout lock a run may be read while it is rewritten: never past the links. */
	return ret->first <= l->m->nlinks && ret->npages <= l->m->nlinks - ret->first;
}

bool firn_link_watched(const struct firn_link *l, uint32_t n, struct firn_span *ret)
{
	const struct firn_link_table *t = active(l);

	if (n >= __atomic_load_n(&t->nwatched, __ATOMIC_ACQUIRE))
		return false;
	*ret = watched_of(l, t)[n];
	return true;
}

static bool is_missing(enum firn_page_state s)
{
	return s == FIRN_PAGE_EVICTED || s == FIRN_PAGE_IN_FLIGHT || s == FIRN_PAGE_ZERO || s == FIRN_PAGE_FILL;
}

static bool run_missing(const struct firn_link *l, const struct firn_run *r)
{
	for (uint32_t i = 0; i < r->npages; i++)
		if (is_missing(firn_link_state(firn_link_get(l, r->first + i))))
			return true;
	return false;
}

void firn_link_count(const struct firn_link *l, struct firn_link_counts *ret)
{
	struct firn_run r;

	memset(ret, 0, sizeof(*ret));
	for (uint32_t n = 0; firn_link_run(l, n, &r); n++)
		for (uint32_t i = 0; i < r.npages; i++)
			ret->pages[firn_link_state(firn_link_get(l, r.first + i))]++;
	ret->runs = active(l)->nruns;
	ret->watched = active(l)->nwatched;
}

/* --- Layout changes ------------------------------------------------------------------------------ */

void firn_link_removed(struct firn_link *l, struct firn_span span)
{
	const struct firn_link_table *t = active(l);

	for (uint32_t n = run_from(l, t, span.start); n < t->nruns; n++) {
		struct firn_run r = runs_of(l, t)[n];
		uint64_t end = r.start + ((uint64_t)r.npages << l->page_shift);
		uint64_t a = firn_max_u64(r.start, span.start), b = firn_min_u64(end, span.end);

		if (r.start >= span.end)
			break;
		for (; a < b; a += l->page_size) {
			uint32_t i = r.first + (uint32_t)((a - r.start) >> l->page_shift);

			__atomic_store_n(&l->links[i], firn_link_make(FIRN_PAGE_REMOVED, 0), __ATOMIC_RELEASE);
		}
	}
}

/* The part of @r in [@start, @end), moved by @delta.  False where there is none. */
static bool clip(const struct firn_link *l, const struct firn_run *r, uint64_t start, uint64_t end,
		 uint64_t delta, struct firn_run *ret)
{
	uint64_t rend = r->start + ((uint64_t)r->npages << l->page_shift);
	uint64_t a = firn_max_u64(r->start, start), b = firn_min_u64(rend, end);

	if (a >= b)
		return false;
	ret->first = r->first + (uint32_t)((a - r->start) >> l->page_shift);
	ret->start = a + delta;
	ret->npages = (uint32_t)((b - a) >> l->page_shift);
	return true;
}

struct edit {
	struct firn_link *l;
	struct firn_link_table *to;
	bool full;
};

static void emit_run(struct edit *e, const struct firn_run *r)
{
	if (e->to->nruns == e->l->m->max_runs)
		e->full = true;
	else
		runs_of(e->l, e->to)[e->to->nruns++] = *r;
}

static void emit_watched(struct edit *e, uint64_t start, uint64_t end)
{
	struct firn_span *w = watched_of(e->l, e->to);

	if (start >= end)
		return;
	if (e->to->nwatched && w[e->to->nwatched - 1].end == start) {
		w[e->to->nwatched - 1].end = end;
	} else if (e->to->nwatched == e->l->m->max_runs) {
		e->full = true;
	} else {
		w[e->to->nwatched].start = start;
		w[e->to->nwatched++].end = end;
	}
}

/* Copy the runs of @from that lie outside both @cut and @cut2; with @only_missing, those still needed. */
static void copy_runs(struct edit *e, const struct firn_link_table *from, struct firn_span cut,
		      struct firn_span cut2, bool only_missing)
{
	const struct firn_run *r = runs_of(e->l, from);

	if (cut2.start < cut.start) {
		struct firn_span swap = cut;

		cut = cut2;
		cut2 = swap;
	}
	for (uint32_t n = 0; n < from->nruns; n++) {
		struct firn_run piece;

		if (only_missing && !run_missing(e->l, &r[n]))
			continue;
		if (clip(e->l, &r[n], 0, cut.start, 0, &piece))
			emit_run(e, &piece);
		if (clip(e->l, &r[n], cut.end, cut2.start, 0, &piece))
			emit_run(e, &piece);
		if (clip(e->l, &r[n], cut2.end, UINT64_MAX, 0, &piece))
			emit_run(e, &piece);
	}
}

/* Runs from @tail on were appended out of order: put them in their place. */
static void sort_tail(struct edit *e, uint32_t tail)
{
	struct firn_run *r = runs_of(e->l, e->to);

	/* Insertion from the right: the moved runs are few, or lie together. */
	for (uint32_t i = tail; i < e->to->nruns; i++) {
		struct firn_run moved = r[i];
		uint32_t lo = 0, hi = i;

		while (lo < hi) {
			uint32_t mid = lo + (hi - lo) / 2;

			if (r[mid].start < moved.start)
				lo = mid + 1;
			else
				hi = mid;
		}
		memmove(r + lo + 1, r + lo, (i - lo) * sizeof(*r));
		r[lo] = moved;
	}
}

/* Watched spans less @cut plus @add, in order. */
static void copy_watched(struct edit *e, const struct firn_link_table *from, struct firn_span cut,
			 struct firn_span add)
{
	const struct firn_span *w = watched_of(e->l, from);
	bool added = add.start >= add.end;

	for (uint32_t n = 0; n < from->nwatched; n++) {
		struct firn_span s = w[n];

		if (!added && s.end >= add.start) {
			if (s.start <= add.end) {
				/* touches: grow the new span by it */
				add.start = firn_min_u64(add.start, s.start);
				add.end = firn_max_u64(add.end, s.end);
				continue;
			}
			emit_watched(e, add.start, add.end);
			added = true;
		}
		emit_watched(e, s.start, firn_min_u64(s.end, cut.start));
		emit_watched(e, firn_max_u64(s.start, cut.end), s.end);
	}
	if (!added)
		emit_watched(e, add.start, add.end);
}

static struct edit begin(struct firn_link *l)
{
	struct edit e = { l, l->tables[!l->m->active], false };

	firn_link_unpublish(l);
	e.to->nruns = e.to->nwatched = 0;
	return e;
}

static void commit(struct edit *e, uint64_t next_seq)
{
	e->to->next_seq = next_seq;
	e->to->all_runs = e->to->nruns;
	e->to->all_watched = e->to->nwatched;
	__atomic_store_n(&e->l->m->active, !e->l->m->active, __ATOMIC_SEQ_CST);
}

static const struct firn_span nothing = { UINT64_MAX, UINT64_MAX };
static const struct firn_span no_span = { 0, 0 };

static bool touches_runs(const struct firn_link *l, struct firn_span s)
{
	const struct firn_link_table *t = active(l);
	uint32_t n = run_from(l, t, s.start);

	return n < t->nruns && runs_of(l, t)[n].start < s.end;
}

static bool touches_watched(const struct firn_link *l, struct firn_span s)
{
	const struct firn_link_table *t = active(l);
	uint32_t n = watched_from(l, t, s.start);

	return n < t->nwatched && watched_of(l, t)[n].start < s.end;
}

static int cut_out(struct firn_link *l, struct firn_span span, uint64_t next_seq)
{
	const struct firn_link_table *from = active(l);

	if (!touches_runs(l, span) && !touches_watched(l, span))
		return 0;
	for (int tight = 0; tight < 2; tight++) {
		struct edit e = begin(l);

		copy_runs(&e, from, span, nothing, tight);
		copy_watched(&e, from, span, no_span);
		if (!e.full) {
			commit(&e, next_seq);
			return 0;
		}
	}
	return -ENOSPC;
}

int firn_link_unmapped(struct firn_link *l, uint64_t seq, struct firn_span span)
{
	return seq < active(l)->next_seq ? 0 : cut_out(l, span, seq + 1);
}

int firn_link_forget(struct firn_link *l, struct firn_span span)
{
	return cut_out(l, span, active(l)->next_seq);
}

int firn_link_moved(struct firn_link *l, uint64_t seq, uint64_t from, uint64_t to, uint64_t len)
{
	const struct firn_link_table *t = active(l);
	struct firn_span source = { from, from + len }, target = { to, to + len };

	if (seq < t->next_seq)
		return 0;
	for (int tight = 0; tight < 2; tight++) {
		struct edit e = begin(l);
		const struct firn_run *r = runs_of(l, t);
		uint32_t tail;

		/* What still lies under the target belongs to an unmap that is not reported yet. */
		copy_runs(&e, t, source, target, tight);
		tail = e.to->nruns;
		for (uint32_t n = 0; n < t->nruns; n++) {
			struct firn_run piece;

			if (clip(l, &r[n], source.start, source.end, to - from, &piece))
				emit_run(&e, &piece);
		}
		if (!e.full)
			sort_tail(&e, tail);
		copy_watched(&e, t, nothing, target);
		if (!e.full) {
			commit(&e, seq + 1);
			return 0;
		}
	}
	return -ENOSPC;
}

int firn_link_grown(struct firn_link *l, struct firn_span span)
{
	const struct firn_link_table *from = active(l);
	struct edit e = begin(l);

	copy_runs(&e, from, nothing, nothing, false);
	copy_watched(&e, from, nothing, span);
	if (e.full)
		return -ENOSPC;
	commit(&e, from->next_seq);
	return 0;
}

void firn_link_shape_of(const struct firn_link *l, struct firn_link_shape *ret)
{
	ret->page_size = l->page_size;
	ret->max_runs = l->m->max_runs;
	ret->max_links = l->m->nlinks;
}

int firn_link_copy(struct firn_link *child, const struct firn_link *parent)
{
	const struct firn_link_table *from = active(parent);
	struct firn_link_table *to = child->tables[0];

	if (child->m->max_links < parent->m->nlinks || child->m->max_runs < from->nruns ||
	    child->m->max_runs < from->nwatched)
		return -ENOSPC;
	memcpy(child->links, parent->links, parent->m->nlinks * sizeof(uint32_t));
	for (uint32_t i = 0; i < parent->m->nlinks; i++)
		if (firn_link_state(child->links[i]) == FIRN_PAGE_IN_FLIGHT)
			child->links[i] = firn_link_make(FIRN_PAGE_EVICTED, firn_link_place(child->links[i]));
	memcpy(runs_of(child, to), runs_of(parent, from), from->nruns * sizeof(struct firn_run));
	memcpy(watched_of(child, to), watched_of(parent, from), from->nwatched * sizeof(struct firn_span));
	child->m->all_links = parent->m->nlinks;
	to->all_runs = from->nruns;
	to->all_watched = from->nwatched;
	to->next_seq = 0;
	firn_link_publish(child);
	return 0;
}

int firn_link_check(const struct firn_link *l)
{
	const struct firn_link_table *t = active(l);
	const struct firn_run *r = runs_of(l, t);
	const struct firn_span *w = watched_of(l, t);
	uint64_t mask = l->page_size - 1;

	if (l->m->nlinks > l->m->max_links || t->nruns > l->m->max_runs || t->nwatched > l->m->max_runs)
		return 1;
	for (uint32_t n = 0; n < t->nruns; n++) {
		if (!r[n].npages || (r[n].start & mask) || r[n].first > l->m->nlinks ||
		    r[n].npages > l->m->nlinks - r[n].first)
			return 2;
		if (n && r[n - 1].start + ((uint64_t)r[n - 1].npages << l->page_shift) > r[n].start)
			return 3;
	}
	for (uint32_t n = 0; n < t->nwatched; n++) {
		if (w[n].start >= w[n].end || (w[n].start & mask) || (w[n].end & mask))
			return 4;
		if (n && w[n - 1].end > w[n].start)
			return 5;
	}
	/* Every linked page that may be missing is watched. */
	for (uint32_t n = 0; n < t->nruns; n++) {
		uint64_t a = r[n].start, end = a + ((uint64_t)r[n].npages << l->page_shift);

		while (a < end) {
			uint32_t k = watched_from(l, t, a);

			if (k >= t->nwatched || w[k].start > a)
				return 6;
			a = firn_min_u64(w[k].end, end);
		}
	}
	return 0;
}
