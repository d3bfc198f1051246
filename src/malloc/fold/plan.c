/* SPDX-License-Identifier: MIT */
/*
 * The search.  Runs of 8 pages first, then 4, 2 and single ones, since a run costs two mappings whatever its
 * length.  In each round runs of one class first, whose objects end and begin at the same places, then all.
 *
 * Densest first, each goes to the densest that has room: first fit, as in packing bins.  Masks are compared
 * 64 at a time: the nodes of a round are sorted and cut into blocks of 64, and of a block there is one word
 * for each region of a run, with a bit for each node that has something there.  The OR of the words of a
 * source's regions has a zero where a node fits.  So all destinations can be asked, where asking one after
 * the other allows a few hundred, and those would have to be guessed well.
 *
 * May use nothing: no system call, no lock, no libc.
 */
#include "malloc/fold/plan.h"

#define MAX_REGIONS 256u
#define RUN_MAX (1u << FIRN_PLAN_SHIFT_MAX)
#define OVERLAP_PERCENT 50u             /* of a source's pages that must fall together with others */
#define EASY_OBJECTS 32u                /* of a run that finds a place for itself */
#define ALIGN64(n) (((n) + 63) & ~(size_t)63)

/* Of the budget, how much there may be in use after a run of this shift was added. */
static const unsigned int vma_percent[FIRN_PLAN_SHIFT_MAX + 1] = { 75, 90, 100, 100 };

enum { GATHER, SORT, INDEX, MATCH };

static unsigned int regions_of(unsigned int region_bytes)
{
	return 4096 / region_bytes;
}

static unsigned int words_of(unsigned int region_bytes)
{
	return (regions_of(region_bytes) + 63) / 64;
}

struct layout {
	size_t mask, state, class, next, target, shift, flags, runs, node, sorted, fill, sorted_fill, index, dead, bucket, sample, end;
};

static struct layout layout_of(uint32_t npages, unsigned int region_bytes)
{
	struct layout l;
	size_t at = 0, n = npages, blocks = n / 64 + 1 + RUN_MAX;

	l.mask = at;
	at += ALIGN64(n * words_of(region_bytes) * 8);
	l.state = at;
	at += ALIGN64(n);
	l.class = at;
	at += ALIGN64(n);
	l.next = at;
	at += ALIGN64(n * 4);
	l.target = at;
	at += ALIGN64(n * 4);
	l.shift = at;
	at += ALIGN64(n);
	l.flags = at;
	at += ALIGN64(n);
	l.runs = at;
	at += ALIGN64(n);
	l.node = at;
	at += ALIGN64(n * 4);
	l.sorted = at;
	at += ALIGN64(n * 4);
	l.fill = at;
	at += ALIGN64(n * 2);
	l.sorted_fill = at;
	at += ALIGN64(n * 2);
	l.dead = at;
	at += ALIGN64(blocks * 8);
	l.bucket = at;
	at += ALIGN64((MAX_REGIONS * RUN_MAX + 2) * 4);
	l.sample = at;
	at += ALIGN64(MAX_REGIONS * RUN_MAX * 2);
	/* A round over runs of r pages has n / r nodes, and r times the words to a block. */
	l.index = at;
	at += ALIGN64(blocks * regions_of(region_bytes) * 8);
	l.end = at;
	return l;
}

size_t firn_plan_bytes(uint32_t npages, unsigned int region_bytes)
{
	return layout_of(npages, region_bytes).end;
}

void firn_plan_open(struct firn_plan *p, void *memory, uint32_t npages, unsigned int region_bytes)
{
	struct layout l = layout_of(npages, region_bytes);
	char *m = memory;

	*p = (struct firn_plan) {
		.npages = npages,
		.regions = regions_of(region_bytes),
		.words = words_of(region_bytes),
		.region_bytes = region_bytes,
		.fill_percent = 50,
		.group_max = 24,
		.mask = (uint64_t *)(m + l.mask),
		.state = (uint8_t *)(m + l.state),
		.class = (uint8_t *)(m + l.class),
		.next = (uint32_t *)(m + l.next),
		.target = (uint32_t *)(m + l.target),
		.shift = (uint8_t *)(m + l.shift),
		.flags = (uint8_t *)(m + l.flags),
		.runs = (uint8_t *)(m + l.runs),
		.node = (uint32_t *)(m + l.node),
		.sorted = (uint32_t *)(m + l.sorted),
		.fill = (uint16_t *)(m + l.fill),
		.sorted_fill = (uint16_t *)(m + l.sorted_fill),
		.index = (uint64_t *)(m + l.index),
		.dead = (uint64_t *)(m + l.dead),
		.bucket = (uint32_t *)(m + l.bucket),
		.sample = (uint16_t *)(m + l.sample),
	};
	for (uint32_t i = 0; i < npages; i++)
		p->shift[i] = UINT8_MAX;
}

static uint64_t *mask_of(const struct firn_plan *p, uint32_t page)
{
	return p->mask + (size_t)page * p->words;
}

static bool page_live(const struct firn_plan *p, uint32_t page)
{
	const uint64_t *m = mask_of(p, page);
	uint64_t any = 0;

	for (unsigned int w = 0; w < p->words; w++)
		any |= m[w];
	return any;
}

static unsigned int fill_of(const struct firn_plan *p, uint32_t page, unsigned int npages)
{
	const uint64_t *m = mask_of(p, page);
	unsigned int n = 0;

	for (unsigned int w = 0; w < npages * p->words; w++)
		n += (unsigned int)__builtin_popcountll(m[w]);
	return n;
}

static void unite(struct firn_plan *p, uint32_t to, uint32_t from, unsigned int npages)
{
	uint64_t *t = mask_of(p, to);
	const uint64_t *f = mask_of(p, from);

	for (unsigned int w = 0; w < npages * p->words; w++)
		t[w] |= f[w];
}

static void mark(struct firn_plan *p, uint32_t run, unsigned int shift, enum firn_plan_state state)
{
	for (uint32_t i = 0; i < 1u << shift; i++)
		p->state[run + i] = (uint8_t)state;
}

void firn_plan_exists(struct firn_plan *p, uint32_t head, unsigned int shift)
{
	mark(p, head, shift, FIRN_PLAN_HEAD);
	p->shift[head] = (uint8_t)shift;
	p->next[head] = FIRN_PLAN_NONE;
	p->target[head] = head;
	p->flags[head] = FIRN_PLAN_EXISTS;
	p->runs[head] = 1;
}

/* @run, and what was gathered on it, goes with the pages from @target on, which belong to the group of @head. */
static void join(struct firn_plan *p, uint32_t head, uint32_t run, unsigned int shift, uint32_t target)
{
	uint32_t last = run, move = target - run;
	unsigned int runs = p->runs[head];

	unite(p, target, run, 1u << shift);
	if (p->shift[run] == UINT8_MAX || p->state[run] != FIRN_PLAN_HEAD) {
		p->shift[run] = (uint8_t)shift;
		p->next[run] = FIRN_PLAN_NONE;
		p->target[run] = run;
	}
	p->flags[run] = 0;
	for (uint32_t m = run; m != FIRN_PLAN_NONE; m = p->next[m]) {
		p->target[m] += move;
		last = m;
		runs++;
	}
	p->runs[head] = (uint8_t)(runs < UINT8_MAX ? runs : UINT8_MAX);
	mark(p, run, shift, FIRN_PLAN_MEMBER);
	p->next[last] = p->next[head];
	p->next[head] = run;
}

void firn_plan_joins(struct firn_plan *p, uint32_t head, uint32_t run, unsigned int shift, uint32_t target)
{
	p->shift[run] = UINT8_MAX;
	join(p, head, run, shift, target);
}

/* The first page of the run that @page, in state HEAD, belongs to. */
static uint32_t head_of(const struct firn_plan *p, uint32_t page)
{
	for (unsigned int s = 0; s <= FIRN_PLAN_SHIFT_MAX; s++) {
		uint32_t h = page & ~((1u << s) - 1);

		if (p->state[h] == FIRN_PLAN_HEAD && p->shift[h] != UINT8_MAX && p->shift[h] >= s)
			return h;
	}
	return FIRN_PLAN_NONE;
}

/* May the run from @page on take part in the round? */
static bool eligible(const struct firn_plan *p, uint32_t page, unsigned int *ret_fill)
{
	unsigned int level = (unsigned int)p->search.level, npages = 1u << level, live = 0;
	uint32_t head;

	if (p->state[page] == FIRN_PLAN_HEAD) {
		head = head_of(p, page);
		if (head == FIRN_PLAN_NONE || p->shift[head] < level)
			return false;
		/* All that is on its frames would have to move for one short run. */
		if (p->shift[head] > level && !(p->flags[head] & FIRN_PLAN_CHANGED))
			return false;
		if (p->runs[head] >= p->group_max)
			return false;
	} else if (p->state[page] != FIRN_PLAN_OPEN) {
		return false;
	}
	for (uint32_t i = 0; i < npages; i++) {
		if (p->state[page + i] != p->state[page])
			return false;
		live += page_live(p, page + i);
	}
	if (p->search.class)
		for (uint32_t i = 0; i < npages; i++)
			if (p->class[page + i] != p->search.class)
				return false;
	/* One page saved for two mappings: the single page will do, if anything. */
	if (level && live < 2)
		return false;
	*ret_fill = fill_of(p, page, npages);
	if (p->state[page] == FIRN_PLAN_HEAD && (p->flags[head_of(p, page)] & FIRN_PLAN_CHANGED))
		return true;
	return *ret_fill && *ret_fill * 100 <= npages * p->regions * p->fill_percent;
}

/* The next round, or the end. */
static void next_round(struct firn_plan *p)
{
	p->search.stage = GATHER;
	p->search.at = p->search.n = 0;
	if (p->search.class == 0) {
		p->search.level--;
		p->search.class = 1;
	} else if (++p->search.class >= p->nclasses) {
		p->search.class = 0;
	}
	if (p->search.class == 0) {
		unsigned int least = UINT32_MAX;

		for (unsigned int c = 1; c < p->nclasses; c++)
			if (p->class_pages[c] && p->class_bytes[c] < least)
				least = p->class_bytes[c];
		p->search.step = least == UINT32_MAX ? 1 : (least + p->region_bytes - 1) / p->region_bytes;
	} else {
		p->search.step = (p->class_bytes[p->search.class] + p->region_bytes - 1) / p->region_bytes;
	}
}

/* Runs to begin with: the longest, unless most of them hold so many objects that they would hardly ever fit, and
 * there are mappings for shorter ones. */
static int first_level(const struct firn_plan *p)
{
	uint32_t sparse[FIRN_PLAN_SHIFT_MAX + 1] = { 0 }, easy[FIRN_PLAN_SHIFT_MAX + 1] = { 0 };
	uint32_t left = p->vma_budget > p->vmas_before ? p->vma_budget - p->vmas_before : 0;

	for (uint32_t page = 0; page + RUN_MAX <= p->npages; page += RUN_MAX) {
		unsigned int fill[RUN_MAX], bytes = p->class[page] < p->nclasses ? p->class_bytes[p->class[page]] : 0;

		if (p->state[page] != FIRN_PLAN_OPEN || !bytes)
			continue;
		for (unsigned int i = 0; i < RUN_MAX; i++)
			fill[i] = fill_of(p, page + i, 1);
		for (unsigned int l = 0; l <= FIRN_PLAN_SHIFT_MAX; l++)
			for (unsigned int i = 0, n; i < RUN_MAX; i += 1u << l) {
				n = 0;
				for (unsigned int k = i; k < i + (1u << l); k++)
					n += fill[k];
				if (!n || n * 4 > p->regions << l)
					continue;
				sparse[l]++;
				easy[l] += n * p->region_bytes / bytes <= EASY_OBJECTS;
			}
	}
	for (unsigned int l = FIRN_PLAN_SHIFT_MAX; l <= FIRN_PLAN_SHIFT_MAX; l--)
		if (easy[l] * 2 >= sparse[l])
			return (uint64_t)sparse[l] * 100 <= (uint64_t)left * vma_percent[1] || l == FIRN_PLAN_SHIFT_MAX ?
				(int)l : (int)FIRN_PLAN_SHIFT_MAX;
	return FIRN_PLAN_SHIFT_MAX;
}

void firn_plan_start(struct firn_plan *p)
{
	for (unsigned int c = 0; c < FIRN_PLAN_CLASSES; c++)
		p->class_pages[c] = 0;
	for (uint32_t i = 0; i < p->npages; i++)
		if (p->state[i] != FIRN_PLAN_OUT)
			p->class_pages[p->class[i]]++;
	p->search.level = first_level(p) + 1;
	p->search.class = 0;
	next_round(p);
}

/* Collect the runs of the round.  Returns work done. */
static uint32_t gather(struct firn_plan *p, uint32_t work)
{
	uint32_t npages = 1u << p->search.level, from = p->search.at;
	unsigned int fill;

	while (p->search.at < p->npages && p->search.at - from < work * 8) {
		uint32_t page = p->search.at;

		p->search.at += npages;
		if ((p->search.class && p->class[page] != p->search.class) || !eligible(p, page, &fill))
			continue;
		p->fill[p->search.n] = (uint16_t)fill;
		p->node[p->search.n++] = page;
	}
	if (p->search.at >= p->npages) {
		p->search.at = 0;
		p->search.stage = p->search.n > 1 ? SORT : MATCH;
	}
	return (p->search.at - from) / 8 + 1;
}

/* By counting, densest first. */
static uint32_t sort(struct firn_plan *p)
{
	unsigned int most = p->regions << p->search.level;
	uint32_t n = p->search.n, sum = 0, *nodes = p->node;
	uint16_t *fill = p->fill;

	for (unsigned int f = 0; f <= most; f++)
		p->bucket[f] = 0;
	for (uint32_t i = 0; i < n; i++)
		p->bucket[fill[i]]++;
	for (unsigned int f = most + 1; f-- > 0; ) {
		uint32_t k = p->bucket[f];

		p->bucket[f] = sum;
		sum += k;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t to = p->bucket[fill[i]]++;

		p->sorted[to] = nodes[i];
		p->sorted_fill[to] = fill[i];
	}
	p->node = p->sorted;
	p->sorted = nodes;
	p->fill = p->sorted_fill;
	p->sorted_fill = fill;
	p->search.stage = INDEX;
	p->search.at = 0;
	return n / 64 + 1;
}

/* Enter the regions of the run from @page on for node @node. */
static void enter(struct firn_plan *p, uint32_t node, uint32_t page)
{
	unsigned int npages = 1u << p->search.level, rows = p->regions << p->search.level;
	uint64_t *block = p->index + (size_t)(node / 64) * rows, bit = (uint64_t)1 << node % 64;

	for (unsigned int i = 0; i < npages; i++)
		for (unsigned int w = 0; w < p->words; w++)
			for (uint64_t bits = mask_of(p, page + i)[w]; bits; bits &= bits - 1)
				block[i * p->regions + w * 64 + (unsigned int)__builtin_ctzll(bits)] |= bit;
}

/* One block. */
static uint32_t build(struct firn_plan *p)
{
	unsigned int rows = p->regions << p->search.level;
	uint32_t b = p->search.at, n = p->search.n;
	uint64_t *block = p->index + (size_t)b * rows;

	for (unsigned int r = 0; r < rows; r++)
		block[r] = 0;
	for (uint32_t i = b * 64; i < n && i < b * 64 + 64; i++)
		enter(p, i, p->node[i]);
	/* What is past the end takes nothing. */
	p->dead[b] = n - b * 64 >= 64 ? 0 : ~(uint64_t)0 << (n - b * 64);
	if ((++p->search.at) * 64 >= n) {
		p->search.stage = MATCH;
		p->search.at = n;
	}
	return 64;
}

/* Regions of the run from @page on that are enough to ask about: no object of the round lies between two. */
static unsigned int samples(struct firn_plan *p, uint32_t page)
{
	unsigned int npages = 1u << p->search.level, n = 0, last = 0;

	for (unsigned int i = 0; i < npages; i++)
		for (unsigned int w = 0; w < p->words; w++) {
			uint64_t set = mask_of(p, page + i)[w], before, after, bits;

			before = set << 1 | (w ? mask_of(p, page + i)[w - 1] >> 63 : 0);
			after = set >> 1 | (w + 1 < p->words ? mask_of(p, page + i)[w + 1] << 63 : 0);
			for (bits = set; bits; bits &= bits - 1) {
				unsigned int b = (unsigned int)__builtin_ctzll(bits);
				unsigned int r = i * p->regions + w * 64 + b;
				bool edge = !(before >> b & 1) || (!p->search.class && !(after >> b & 1));

				if (!edge && r - last < p->search.step)
					continue;
				p->sample[n++] = (uint16_t)r;
				last = r;
			}
		}
	return n;
}

/* Do the masks of two runs AND to zero, and do enough pages of @a fall together with pages of @b? */
static bool fits(const struct firn_plan *p, uint32_t a, uint32_t b, unsigned int *ret_saved)
{
	unsigned int npages = 1u << p->search.level, both = 0, live = 0;

	for (unsigned int i = 0; i < npages; i++) {
		const uint64_t *x = mask_of(p, a + i), *y = mask_of(p, b + i);
		uint64_t any_x = 0, any_y = 0, meet = 0;

		for (unsigned int w = 0; w < p->words; w++) {
			meet |= x[w] & y[w];
			any_x |= x[w];
			any_y |= y[w];
		}
		if (meet)
			return false;
		both += any_x && any_y;
		live += any_x != 0;
	}
	*ret_saved = both;
	return both >= (npages > 1 ? 2 : 1) && both * 100 >= live * OVERLAP_PERCENT;
}

/* Part of a longer run that a group is gathered on: it takes, and does not go. */
static bool is_fixed(const struct firn_plan *p, uint32_t page)
{
	return p->state[page] == FIRN_PLAN_HEAD && p->shift[head_of(p, page)] != p->search.level;
}

/* Mappings that the run from @page on adds: one at each end that does not meet another run. */
static uint32_t cost_of(const struct firn_plan *p, uint32_t page)
{
	uint32_t end = page + (1u << p->search.level);

	if (p->state[page] != FIRN_PLAN_OPEN)
		return 0;
	return (!page || p->state[page - 1] < FIRN_PLAN_HEAD) + (end >= p->npages || p->state[end] < FIRN_PLAN_HEAD);
}

/* The source @i joins the destination @j.  False: no mapping is left for it. */
static bool merge(struct firn_plan *p, uint32_t i, uint32_t j, unsigned int saved)
{
	unsigned int level = (unsigned int)p->search.level;
	uint32_t from = p->node[i], to = p->node[j], head = to, cost = cost_of(p, from) + cost_of(p, to);

	/* Two that meet each other. */
	if (p->state[from] == FIRN_PLAN_OPEN && p->state[to] == FIRN_PLAN_OPEN &&
	    (from + (1u << level) == to || to + (1u << level) == from))
		cost--;
	if ((uint64_t)(p->vmas_before + p->vmas + cost) * 100 > (uint64_t)p->vma_budget * vma_percent[level])
		return false;
	p->vmas += cost;
	p->saved_pages += saved;
	enter(p, j, from);
	if (p->state[to] == FIRN_PLAN_OPEN) {
		firn_plan_exists(p, to, level);
		p->flags[to] = 0;
	} else {
		head = head_of(p, to);
	}
	join(p, head, from, level, to);
	if (p->class[head] != p->class[from])
		for (uint32_t k = 0; k < 1u << p->shift[head]; k++)
			p->class[head + k] = 0;
	p->flags[head] |= FIRN_PLAN_CHANGED;
	p->dead[i / 64] |= (uint64_t)1 << i % 64;
	if (p->runs[head] >= p->group_max)
		p->dead[j / 64] |= (uint64_t)1 << j % 64;
	return true;
}

/* Find a place for the next source.  Returns work done. */
static uint32_t match(struct firn_plan *p)
{
	unsigned int rows = p->regions << p->search.level, n, saved;
	uint32_t i, tried = 0, b;

	i = p->search.n - p->search.at--;
	if ((p->dead[i / 64] >> i % 64 & 1) || is_fixed(p, p->node[i]))
		return 1;
	n = samples(p, p->node[i]);
	for (b = 0; b <= i / 64; b++) {
		const uint64_t *block = p->index + (size_t)b * rows;
		uint64_t taken = p->dead[b];

		if (b == i / 64)
			taken |= ~(uint64_t)0 << i % 64;
		for (unsigned int k = 0; k < n && ~taken; k++)
			taken |= block[p->sample[k]];
		tried++;
		for (uint64_t room = ~taken; room; room &= room - 1) {
			uint32_t j = b * 64 + (unsigned int)__builtin_ctzll(room);

			if (!fits(p, p->node[i], p->node[j], &saved))
				continue;
			if (!merge(p, i, j, saved)) {
				p->search.level = -1;
				return tried;
			}
			p->probes += tried;
			return tried + 4;
		}
	}
	p->probes += tried;
	return tried + 1;
}

bool firn_plan_step(struct firn_plan *p, uint32_t work)
{
	uint32_t done = 0;

	while (done < work && p->search.level >= 0) {
		switch (p->search.stage) {
		case GATHER:
			if (p->search.class && !p->class_pages[p->search.class]) {
				next_round(p);
				break;
			}
			done += gather(p, work - done);
			break;
		case SORT:
			done += sort(p);
			break;
		case INDEX:
			done += build(p);
			break;
		default:
			if (p->search.n > 1 && p->search.at)
				done += match(p);
			else
				next_round(p);
		}
	}
	return p->search.level >= 0;
}
