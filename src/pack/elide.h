/* SPDX-License-Identifier: MIT */
/*
 * What need not be stored: zero pages, pages of one repeated word, and pages equal to one that is
 * stored already.
 *
 * scan looks at a page by itself, on any thread; everything else is for one thread at a time.
 * The builder's own; not for others.
 */
#ifndef FIRN_PACK_ELIDE_H
#define FIRN_PACK_ELIDE_H

#include "pack/format.h"

/* What a look at a page says of it. */
struct firn_scan {
	uint64_t value;                 /* the repeated word, or the page's XXH3-64 */
	bool is_filled;
};

struct firn_scan firn_elide_scan(const void *page, uint32_t page_size);

/* Is the page one word over and over?  Then *@ret_word. */
bool firn_elide_is_filled(const void *page, uint32_t page_size, uint64_t *ret_word);

/* A stored page that others may be equal to. */
struct firn_original {
	uint64_t address;
	uint32_t hash;                  /* upper half */
	uint32_t slot;                  /* slot + 1; 0, or one before the window: free */
};

struct firn_elider {
	struct firn_original *originals;
	uint32_t *fill_slots;           /* index in the fill table + 1; 0: free */
	uint64_t *fills;                /* the pack's fill table */
	uint32_t nfills, fills_cap;
	uint32_t window;                /* first slot whose page may be an original */
	uint32_t noriginals;            /* in the window */
};

/* Bytes of the two tables, which the caller reserves, zeroed. */
size_t firn_elider_originals_bytes(void);
size_t firn_elider_fills_bytes(void);

/* Start a pack: @fills has room for @cap words. */
void firn_elider_begin(struct firn_elider *e, uint64_t *fills, uint32_t cap);

/* Pages stored so far (slots before @slot) are no originals any more. */
void firn_elider_end_window(struct firn_elider *e, uint32_t slot);

/* The fill table's index of @word, entered where it is new.  False where it cannot be. */
bool firn_elider_find_fill(struct firn_elider *e, uint64_t word, uint32_t *ret);

/* Its entry will be looked for: let the memory bring it near.  Any thread, at any time. */
void firn_elider_expect(const struct firn_elider *e, uint64_t hash);

/*
 * Look for a stored page with hash @hash that same() says is equal; same(arg, original) returns true
 * only for equal bytes.  True: *@ret_slot is its slot.  Otherwise *@ret_free is where this page may be
 * entered by firn_elider_enter, NULL for nowhere.
 */
bool firn_elider_find_original(struct firn_elider *e, uint64_t hash,
			       bool (*same)(void *arg, const struct firn_original *o), void *arg,
			       uint32_t *ret_slot, struct firn_original **ret_free);
void firn_elider_enter(struct firn_elider *e, struct firn_original *free_entry, uint64_t hash,
		       uint64_t address, uint32_t slot);

#endif
