/* SPDX-License-Identifier: MIT */
#include "link/workset.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MARKS 0xfffull
#define JUDGE_LEAST 16u              /* held back pages that say something */

/* An address and its rank in one word, to sort by either. */
#define RANK_BITS 13u
#define RANK_MASK ((1ull << RANK_BITS) - 1)

static_assert(2 * FIRN_WORKSET_MAX <= 1u << RANK_BITS, "ranks");

void firn_recording_note(struct firn_recording *r, uint64_t address)
{
	uint32_t n;

	if (!firn_recording_open(r))
		return;
	n = __atomic_fetch_add(&r->asked, 1, __ATOMIC_RELAXED);
	if (n < r->limit)
		__atomic_store_n(&r->pages[n], address, __ATOMIC_RELAXED);
}

bool firn_recording_open(const struct firn_recording *r)
{
	return __atomic_load_n(&r->asked, __ATOMIC_RELAXED) < r->limit;
}

uint32_t firn_recording_count(const struct firn_recording *r)
{
	return (uint32_t)firn_min_u64(r->asked, firn_min_u64(r->limit, FIRN_WORKSET_MAX));
}

void firn_workset_init(struct firn_workset *s)
{
	s->capacity = FIRN_WORKSET_FIRST;
	s->count = 0;
}

bool firn_workset_valid(const struct firn_workset *s, uint32_t page_size)
{
	if (s->capacity < FIRN_WORKSET_LEAST || s->capacity > FIRN_WORKSET_MAX || s->count > s->capacity)
		return false;
	for (uint32_t i = 0; i < s->count; i++)
		if (!s->pages[i] || s->pages[i] & (page_size - 1) || s->pages[i] >> (12 + 64 - RANK_BITS - 1))
			return false;
	return true;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool holds(const uint64_t *sorted, uint32_t n, uint64_t address)
{
	return bsearch(&address, sorted, n, sizeof(*sorted), ascending) != NULL;
}

/* @n addresses by rank: of equal ones the first stays.  Returns how many are left. */
static uint32_t unique(uint64_t *keys, uint32_t n)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < n; i++)
		keys[i] = keys[i] >> 12 << RANK_BITS | i;
	qsort(keys, n, sizeof(*keys), ascending);
	for (uint32_t i = 0; i < n; i++)
		if (!i || keys[i] >> RANK_BITS != keys[i - 1] >> RANK_BITS)
			keys[left++] = keys[i];
	for (uint32_t i = 0; i < left; i++)
		keys[i] = (keys[i] & RANK_MASK) << (64 - RANK_BITS) | keys[i] >> RANK_BITS;
	qsort(keys, left, sizeof(*keys), ascending);
	for (uint32_t i = 0; i < left; i++)
		keys[i] = keys[i] << RANK_BITS >> RANK_BITS << 12;
	return left;
}

void firn_workset_learn(struct firn_workset *s, const struct firn_recording *r, struct firn_workset_scratch *scratch)
{
	uint32_t n = firn_recording_count(r), held = 0, used = 0, left = 0, all = 0;
	uint64_t *keys = scratch->keys;
	bool stale;

	/* Even of a set that is whole, half of what was held back would have been asked for. */
	if (r->asked < s->count / FIRN_WORKSET_HOLD_BACK / 2) {
		for (uint32_t i = 0; i < s->count; i++)
			s->pages[i] &= ~MARKS;
		return;
	}
	/* What was held back and not asked for goes. */
	memcpy(keys, r->pages, n * sizeof(*keys));
	qsort(keys, n, sizeof(*keys), ascending);
	for (uint32_t i = 0; i < s->count; i++) {
		uint64_t address = s->pages[i] & ~MARKS;
		bool was_held = s->pages[i] & FIRN_WORKSET_HELD, was_used = was_held && holds(keys, n, address);

		held += was_held;
		used += was_used;
		if (!was_held || was_used)
			s->pages[left++] = address;
	}
	stale = held >= JUDGE_LEAST && used < held / 2;
	/* A set that is used stays before what is new; one that is not comes after it. */
	for (int turn = 0; turn < 2; turn++) {
		if ((turn == 0) == stale) {
			for (uint32_t i = 0; i < n; i++)
				if (r->pages[i])
					keys[all++] = r->pages[i];
		} else {
			memcpy(keys + all, s->pages, left * sizeof(*keys));
			all += left;
		}
	}
	all = unique(keys, all);
	if (stale)
		s->capacity = (uint32_t)firn_max_u64(s->capacity / 2, FIRN_WORKSET_LEAST);
	else if (all > s->capacity)
		s->capacity = (uint32_t)firn_min_u64(s->capacity * 2, FIRN_WORKSET_MAX);
	s->count = (uint32_t)firn_min_u64(all, s->capacity);
	memcpy(s->pages, keys, s->count * sizeof(*keys));
}
