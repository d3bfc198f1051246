/* SPDX-License-Identifier: MIT */
/*
 * Two hash tables with open addressing.  Searches are short whatever a target does: it may choose
 * pages whose hashes collide.
 */
#include "pack/elide.h"

#include <string.h>

#include "pack/hash.h"

#define ORIGINALS_MAX 65536u    /* of a window; more pages are stored without being offered */
#define ORIGINALS (2u * ORIGINALS_MAX)
#define FILL_SLOTS (2u * FIRN_FILLS_MAX)
#define PROBES_MAX 64u
#define SAME_MAX 4u             /* candidates with the same hash that are looked at */

/* Is the page one word over and over?  Leaves at the first that differs. */
static bool is_filled(const uint64_t *words, uint32_t page_size)
{
	return words[0] == words[1] && words[0] == words[page_size / 16] &&
	       words[0] == words[page_size / 8 - 1] && !memcmp(words, words + 1, page_size - 8);
}

bool firn_elide_is_filled(const void *page, uint32_t page_size, uint64_t *ret_word)
{
	const uint64_t *words = page;

	*ret_word = words[0];
	return is_filled(words, page_size);
}

struct firn_scan firn_elide_scan(const void *page, uint32_t page_size)
{
	uint64_t word;

	if (firn_elide_is_filled(page, page_size, &word))
		return (struct firn_scan){ word, true };
	return (struct firn_scan){ firn_hash(page, page_size), false };
}

size_t firn_elider_originals_bytes(void)
{
	return ORIGINALS * sizeof(struct firn_original);
}

size_t firn_elider_fills_bytes(void)
{
	return FILL_SLOTS * sizeof(uint32_t);
}

void firn_elider_begin(struct firn_elider *e, uint64_t *fills, uint32_t cap)
{
	memset(e->originals, 0, firn_elider_originals_bytes());
	if (e->nfills)
		memset(e->fill_slots, 0, firn_elider_fills_bytes());
	e->fills = fills;
	e->fills_cap = cap;
	e->nfills = e->window = e->noriginals = 0;
}

void firn_elider_end_window(struct firn_elider *e, uint32_t slot)
{
	e->window = slot;
	e->noriginals = 0;
}

void firn_elider_expect(const struct firn_elider *e, uint64_t hash)
{
	__builtin_prefetch(&e->originals[(uint32_t)hash % ORIGINALS], 1);
}

bool firn_elider_find_fill(struct firn_elider *e, uint64_t word, uint32_t *ret)
{
	uint32_t at = (uint32_t)((word * 0x9E3779B97F4A7C15u) >> 40);

	for (uint32_t probe = 0; probe < PROBES_MAX; probe++) {
		uint32_t *slot = &e->fill_slots[(at + probe) % FILL_SLOTS];

		if (!*slot) {
			if (e->nfills >= e->fills_cap)
				return false;
			e->fills[e->nfills] = word;
			*slot = ++e->nfills;
			*ret = *slot - 1;
			return true;
		}
		if (e->fills[*slot - 1] == word) {
			*ret = *slot - 1;
			return true;
		}
	}
	return false;
}

bool firn_elider_find_original(struct firn_elider *e, uint64_t hash,
			       bool (*same)(void *arg, const struct firn_original *o), void *arg,
			       uint32_t *ret_slot, struct firn_original **ret_free)
{
	uint32_t candidates = 0;

	*ret_free = NULL;
	for (uint32_t probe = 0; probe < PROBES_MAX; probe++) {
		struct firn_original *o = &e->originals[((uint32_t)hash + probe) % ORIGINALS];

		if (o->slot <= e->window) {
			if (e->noriginals < ORIGINALS_MAX)
				*ret_free = o;
			return false;
		}
		if (o->hash != hash >> 32)
			continue;
		if (same(arg, o)) {
			*ret_slot = o->slot - 1;
			return true;
		}
		if (++candidates == SAME_MAX)
			return false;
	}
	return false;
}

void firn_elider_enter(struct firn_elider *e, struct firn_original *free_entry, uint64_t hash,
		       uint64_t address, uint32_t slot)
{
	*free_entry = (struct firn_original){
		.address = address,
		.hash = (uint32_t)(hash >> 32),
		.slot = slot + 1,
	};
	e->noriginals++;
}
