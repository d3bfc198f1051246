/* SPDX-License-Identifier: MIT */
#include "link/link.h"

#include <errno.h>
#include <string.h>

#define MAGIC 0x6b6e696c6e726966ull     /* "firnlink" */

/*
 * A thread tells of its munmap or mremap when that is done and others may already use the place.  So events
 * come in another order than the changes, and what arrives may be reported where something is still known
 * to be.  That has left, and owes its report: it is put aside, oldest first, and the report that comes is
 * taken for its own, not for one of what lies there now.  An mremap owes two, its move and then its unmap.
 */
#define HOLE_OWED UINT32_MAX            /* in place of its first link: watched, had none */
#define UNMAP_OWED (UINT32_MAX - 1)     /* has told where it went, and not yet that the place is free */

/*
 * Two tables of runs, watched spans and what is owed: a layout change is made in the one that is not in
 * use, with the number of the event it applies, and becomes visible by one store.
 */
struct firn_link_table {
	uint64_t next_seq;                  /* events below this one have been applied */
	uint32_t nruns, nwatched;           /* visible */
	uint32_t all_runs, all_watched;     /* with those not yet published */
	uint32_t nowed, pad32;
	uint64_t pad[4];
	/* struct firn_run runs[max_runs]; struct firn_range watched[max_runs]; struct firn_run owed[max_runs]; */
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

static struct firn_range *watched_of(const struct firn_link *l, const struct firn_link_table *t)
{
	return (struct firn_range *)(void *)(runs_of(l, t) + l->m->max_runs);
}

static struct firn_run *owed_of(const struct firn_link *l, const struct firn_link_table *t)
{
	return (struct firn_run *)(void *)(watched_of(l, t) + l->m->max_runs);
}

static size_t table_bytes(uint32_t max_runs)
{
	return sizeof(struct firn_link_table) +
	       max_runs * (2 * sizeof(struct firn_run) + sizeof(struct firn_range));
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

int firn_link_add_watched(struct firn_link *l, struct firn_range span)
{
	struct firn_link_table *t = l->tables[l->m->active];
	struct firn_range *w = watched_of(l, t);

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
	const struct firn_range *w = watched_of(l, t);
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

bool firn_link_watched(const struct firn_link *l, uint32_t n, struct firn_range *ret)
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

void firn_link_removed(struct firn_link *l, struct firn_range span)
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

static uint64_t run_end(const struct firn_link *l, const struct firn_run *r)
{
	return r->start + ((uint64_t)r->npages << l->page_shift);
}

/* The part of @r in [@start, @end), moved by @delta.  False where there is none. */
static bool clip(const struct firn_link *l, const struct firn_run *r, uint64_t start, uint64_t end,
		 uint64_t delta, struct firn_run *ret)
{
	uint64_t rend = r->start + ((uint64_t)r->npages << l->page_shift);
	uint64_t a = firn_max_u64(r->start, start), b = firn_min_u64(rend, end);

	if (a >= b)
		return false;
	ret->first = r->first + (r->first < UNMAP_OWED ? (uint32_t)((a - r->start) >> l->page_shift) : 0);
	ret->start = a + delta;
	ret->npages = (uint32_t)((b - a) >> l->page_shift);
	return true;
}

struct edit {
	struct firn_link *l;
	struct firn_link_table *to;
	bool full;
	bool unmap;     /* this is an unmap: what tells its leave may have told its move before */
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
	struct firn_range *w = watched_of(e->l, e->to);

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

static void emit_owed(struct edit *e, const struct firn_run *r)
{
	if (e->to->nowed == e->l->m->max_runs)
		e->full = true;
	else
		owed_of(e->l, e->to)[e->to->nowed++] = *r;
}

/*
 * The first stretch of @cut, from @at on, that is owed and leaves with it; *@ret_entry: the oldest entry that
 * it belongs to.  False where there is none.
 */
static bool next_owed(const struct edit *e, const struct firn_link_table *from, uint64_t at, struct firn_range cut,
		      struct firn_run *ret, uint32_t *ret_entry)
{
	const struct firn_run *owed = owed_of(e->l, from);
	struct firn_run piece;
	bool found = false;

	for (uint32_t n = 0; n < from->nowed; n++) {
		/* Up to where an older one begins. */
		uint64_t end = found ? ret->start : cut.end;

		if ((owed[n].first == UNMAP_OWED && !e->unmap) || !clip(e->l, &owed[n], at, end, 0, &piece))
			continue;
		*ret = piece;
		*ret_entry = n;
		found = true;
	}
	return found;
}

static void emit_clipped(struct edit *e, const struct firn_run *r, uint64_t start, uint64_t end, uint64_t delta)
{
	struct firn_run piece;

	if (clip(e->l, r, start, end, delta, &piece))
		emit_run(e, &piece);
}

/* Copy what of @r does not leave with @cut: in there, what is owed has left before, and @r has come since. */
static void copy_staying(struct edit *e, const struct firn_link_table *from, const struct firn_run *r,
			 struct firn_range cut)
{
	struct firn_run owed;
	uint32_t entry;

	emit_clipped(e, r, 0, cut.start, 0);
	for (uint64_t at = cut.start; next_owed(e, from, at, cut, &owed, &entry); at = run_end(e->l, &owed))
		emit_clipped(e, r, owed.start, run_end(e->l, &owed), 0);
	emit_clipped(e, r, cut.end, UINT64_MAX, 0);
}

/* Copy the runs of @from that lie outside @gone and do not leave with @cut; with @only_missing, those needed. */
static void copy_runs(struct edit *e, const struct firn_link_table *from, struct firn_range cut,
		      struct firn_range gone, bool only_missing)
{
	const struct firn_run *r = runs_of(e->l, from);

	for (uint32_t n = 0; n < from->nruns; n++) {
		struct firn_run piece;

		if (only_missing && !run_missing(e->l, &r[n]))
			continue;
		if (clip(e->l, &r[n], 0, gone.start, 0, &piece))
			copy_staying(e, from, &piece, cut);
		if (clip(e->l, &r[n], gone.end, UINT64_MAX, 0, &piece))
			copy_staying(e, from, &piece, cut);
	}
}

/* Copy what is owed.  In @cut the oldest has told its leave, or its move alone. */
static void copy_owed(struct edit *e, const struct firn_link_table *from, struct firn_range cut)
{
	const struct firn_run *owed = owed_of(e->l, from);

	for (uint32_t n = 0; n < from->nowed; n++) {
		uint64_t at = cut.start, rest = 0;
		struct firn_run told, piece;
		uint32_t entry;

		for (; next_owed(e, from, at, cut, &told, &entry); at = run_end(e->l, &told)) {
			if (entry != n)
				continue;
			if (clip(e->l, &owed[n], rest, told.start, 0, &piece))
				emit_owed(e, &piece);
			rest = run_end(e->l, &told);
			told.first = UNMAP_OWED;
			if (!e->unmap)
				emit_owed(e, &told);
		}
		if (clip(e->l, &owed[n], rest, UINT64_MAX, 0, &piece))
			emit_owed(e, &piece);
	}
}

/* What is known to be in @span has left it, as something else has come. */
static void displace(struct edit *e, const struct firn_link_table *from, struct firn_range span)
{
	const struct firn_run *r = runs_of(e->l, from);
	const struct firn_range *w = watched_of(e->l, from);

	for (uint32_t n = watched_from(e->l, from, span.start); n < from->nwatched && w[n].start < span.end; n++) {
		uint64_t at = firn_max_u64(w[n].start, span.start), end = firn_min_u64(w[n].end, span.end);

		while (at < end) {
			uint32_t k = run_from(e->l, from, at);
			uint64_t next = k < from->nruns ? firn_min_u64(firn_max_u64(r[k].start, at), end) : end;
			struct firn_run piece = { at, (uint32_t)((next - at) >> e->l->page_shift), HOLE_OWED };

			/* A hole up to the next run, or that run. */
			if (next > at || clip(e->l, &r[k], at, end, 0, &piece))
				emit_owed(e, &piece);
			at = run_end(e->l, &piece);
		}
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

/* The next watched stretch, and before it, or with it, what of @add belongs there. */
static void emit_between(struct edit *e, struct firn_range *add, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	if (add->start < add->end && end >= add->start) {
		if (start <= add->end) {
			/* touches: grow the new span by it */
			add->start = firn_min_u64(add->start, start);
			add->end = firn_max_u64(add->end, end);
			return;
		}
		emit_watched(e, add->start, add->end);
		add->end = add->start;
	}
	emit_watched(e, start, end);
}

/* Watched spans less what leaves with @cut, plus @add, in order. */
static void copy_watched(struct edit *e, const struct firn_link_table *from, struct firn_range cut,
			 struct firn_range add)
{
	const struct firn_range *w = watched_of(e->l, from);
	struct firn_run owed;
	uint32_t entry;

	for (uint32_t n = 0; n < from->nwatched; n++) {
		uint64_t at = firn_max_u64(cut.start, w[n].start);

		emit_between(e, &add, w[n].start, firn_min_u64(w[n].end, cut.start));
		for (; next_owed(e, from, at, cut, &owed, &entry) && owed.start < w[n].end; at = run_end(e->l, &owed))
			emit_between(e, &add, owed.start, firn_min_u64(w[n].end, run_end(e->l, &owed)));
		emit_between(e, &add, firn_max_u64(w[n].start, cut.end), w[n].end);
	}
	emit_watched(e, add.start, add.end);
}

static struct edit begin(struct firn_link *l)
{
	struct edit e = { l, l->tables[!l->m->active], false, true };

	firn_link_unpublish(l);
	e.to->nruns = e.to->nwatched = e.to->nowed = 0;
	return e;
}

static void commit(struct edit *e, uint64_t next_seq)
{
	e->to->next_seq = next_seq;
	e->to->all_runs = e->to->nruns;
	e->to->all_watched = e->to->nwatched;
	__atomic_store_n(&e->l->m->active, !e->l->m->active, __ATOMIC_SEQ_CST);
}

static const struct firn_range nothing = { UINT64_MAX, UINT64_MAX };
static const struct firn_range no_span = { 0, 0 };

static bool touches_runs(const struct firn_link *l, struct firn_range s)
{
	const struct firn_link_table *t = active(l);
	uint32_t n = run_from(l, t, s.start);

	return n < t->nruns && runs_of(l, t)[n].start < s.end;
}

static bool touches_watched(const struct firn_link *l, struct firn_range s)
{
	const struct firn_link_table *t = active(l);
	uint32_t n = watched_from(l, t, s.start);

	return n < t->nwatched && watched_of(l, t)[n].start < s.end;
}

static bool touches_owed(const struct firn_link *l, struct firn_range s)
{
	const struct firn_link_table *t = active(l);
	const struct firn_run *owed = owed_of(l, t);

	for (uint32_t n = 0; n < t->nowed; n++)
		if (owed[n].start < s.end && run_end(l, &owed[n]) > s.start)
			return true;
	return false;
}

static int cut_out(struct firn_link *l, struct firn_range span, uint64_t next_seq)
{
	const struct firn_link_table *from = active(l);

	if (!touches_runs(l, span) && !touches_watched(l, span) && !touches_owed(l, span))
		return 0;
	for (int tight = 0; tight < 2; tight++) {
		struct edit e = begin(l);

		copy_runs(&e, from, span, nothing, tight);
		copy_watched(&e, from, span, no_span);
		copy_owed(&e, from, span);
		if (!e.full) {
			commit(&e, next_seq);
			return 0;
		}
	}
	return -ENOSPC;
}

int firn_link_unmapped(struct firn_link *l, uint64_t seq, struct firn_range span)
{
	return seq < active(l)->next_seq ? 0 : cut_out(l, span, seq + 1);
}

int firn_link_forget(struct firn_link *l, struct firn_range span)
{
	return cut_out(l, span, active(l)->next_seq);
}

static void owe_unmap(struct edit *e, uint64_t start, uint64_t end)
{
	struct firn_run place = { start, (uint32_t)((end - start) >> e->l->page_shift), UNMAP_OWED };

	if (start < end)
		emit_owed(e, &place);
}

/*
 * What is in [@start, @end) leaves for @delta further on, and the unmap of the place is to come.  Where one is
 * owed already and nothing came since, the place was kept (MREMAP_DONTUNMAP), and it is still that one.
 */
static void leave_for(struct edit *e, const struct firn_link_table *from, uint64_t start, uint64_t end,
		      uint64_t delta)
{
	const struct firn_run *r = runs_of(e->l, from);
	const struct firn_range *w = watched_of(e->l, from);
	const struct edit all = { .l = e->l, .unmap = true };
	uint64_t at = start;
	struct firn_run owed;
	uint32_t entry;

	for (; next_owed(&all, from, at, (struct firn_range){ start, end }, &owed, &entry); at = run_end(e->l, &owed)) {
		uint64_t until = run_end(e->l, &owed);

		owe_unmap(e, at, owed.start);
		for (uint32_t n = watched_from(e->l, from, owed.start); n < from->nwatched && w[n].start < until; n++)
			owe_unmap(e, firn_max_u64(w[n].start, owed.start), firn_min_u64(w[n].end, until));
	}
	owe_unmap(e, at, end);
	for (uint32_t n = run_from(e->l, from, start); n < from->nruns && r[n].start < end; n++)
		emit_clipped(e, &r[n], start, end, delta);
}

/* What tells that it left @source for @delta further on: what is owed there, else what is there. */
static void move_runs(struct edit *e, const struct firn_link_table *from, struct firn_range source, uint64_t delta)
{
	uint64_t at = source.start;
	struct firn_run owed;
	uint32_t entry;

	for (; next_owed(e, from, at, source, &owed, &entry); at = run_end(e->l, &owed)) {
		leave_for(e, from, at, owed.start, delta);
		if (owed.first != HOLE_OWED)
			emit_clipped(e, &owed, owed.start, run_end(e->l, &owed), delta);
	}
	leave_for(e, from, at, source.end, delta);
}

int firn_link_moved(struct firn_link *l, uint64_t seq, uint64_t from, uint64_t to, uint64_t len)
{
	const struct firn_link_table *t = active(l);
	struct firn_range source = { from, from + len }, target = { to, to + len };

	if (seq < t->next_seq)
		return 0;
	for (int tight = 0; tight < 2; tight++) {
		struct edit e = begin(l);
		uint32_t tail;

		e.unmap = false;
		copy_runs(&e, t, source, target, tight);
		copy_watched(&e, t, source, target);
		copy_owed(&e, t, source);
		displace(&e, t, target);
		tail = e.to->nruns;
		move_runs(&e, t, source, to - from);
		if (!e.full)
			sort_tail(&e, tail);
		if (!e.full) {
			commit(&e, seq + 1);
			return 0;
		}
	}
	return -ENOSPC;
}

int firn_link_grown(struct firn_link *l, struct firn_range span)
{
	const struct firn_link_table *from = active(l);
	struct edit e = begin(l);

	copy_runs(&e, from, nothing, nothing, false);
	copy_watched(&e, from, nothing, span);
	copy_owed(&e, from, nothing);
	if (e.full)
		return -ENOSPC;
	commit(&e, from->next_seq);
	return 0;
}

bool firn_link_owes(const struct firn_link *l)
{
	return active(l)->nowed;
}

void firn_link_settled(struct firn_link *l)
{
	const struct firn_link_table *from = active(l);
	struct edit e;

	if (!from->nowed)
		return;
	e = begin(l);
	copy_runs(&e, from, nothing, nothing, false);
	copy_watched(&e, from, nothing, no_span);
	commit(&e, from->next_seq);
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
	memcpy(watched_of(child, to), watched_of(parent, from), from->nwatched * sizeof(struct firn_range));
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
	const struct firn_range *w = watched_of(l, t);
	uint64_t mask = l->page_size - 1;

	if (l->m->nlinks > l->m->max_links || t->nruns > l->m->max_runs || t->nwatched > l->m->max_runs ||
	    t->nowed > l->m->max_runs)
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
	for (uint32_t n = 0; n < t->nowed; n++) {
		const struct firn_run *o = owed_of(l, t) + n;

		if (!o->npages || (o->start & mask) ||
		    (o->first < UNMAP_OWED && (o->first > l->m->nlinks || o->npages > l->m->nlinks - o->first)))
			return 2;
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
