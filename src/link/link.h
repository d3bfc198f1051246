/* SPDX-License-Identifier: MIT */
/*
 * The link manager: for each page of a target that was evicted, where its contents are and in which
 * state it is; and for every other address that a userfaultfd watches, that nothing was there.
 *
 * It all lies in one piece of memory that the caller maps, shared and outliving the agent.  No I/O, no
 * allocation, no locks: who may call what, when, is said below.  Invariants: docs/invariants.md.
 */
#ifndef FIRN_LINK_LINK_H
#define FIRN_LINK_LINK_H

#include "base/types.h"

/* The states of a page.  A link is 32 bits: state in the upper 3, place in the lower 29. */
enum firn_page_state {
	FIRN_PAGE_HOLE = 0,          /* nothing was there, or it stayed resident: a zero page is right */
	FIRN_PAGE_ZERO = 1,          /* it held zeros */
	FIRN_PAGE_FILL = 2,          /* one 64-bit word repeated; place: its number in the fill table */
	FIRN_PAGE_EVICTED = 3,       /* place: its slot in the pack */
	FIRN_PAGE_IN_FLIGHT = 4,     /* as EVICTED; somebody is reading its block */
	FIRN_PAGE_RESIDENT = 5,      /* back in the target */
	FIRN_PAGE_REMOVED = 6,       /* the target gave it up: a zero page is right */
	FIRN_PAGE_LOST = 7,          /* cannot be read back: poisoned, never zeros */
};

#define FIRN_LINK_PLACE_BITS 29
#define FIRN_LINK_PLACE_MAX ((1u << FIRN_LINK_PLACE_BITS) - 1)

static inline uint32_t firn_link_make(enum firn_page_state state, uint32_t place)
{
	return (uint32_t)state << FIRN_LINK_PLACE_BITS | place;
}

static inline enum firn_page_state firn_link_state(uint32_t link)
{
	return (enum firn_page_state)(link >> FIRN_LINK_PLACE_BITS);
}

static inline uint32_t firn_link_place(uint32_t link)
{
	return link & FIRN_LINK_PLACE_MAX;
}

/* Neighbouring pages whose links are neighbours too. */
struct firn_run {
	uint64_t start;              /* address of the first page */
	uint32_t npages;
	uint32_t first;              /* number of its first link */
};

struct firn_link_shape {
	uint32_t page_size;
	uint32_t max_runs;           /* of runs, and of watched spans */
	uint32_t max_links;
};

struct firn_link_table;
struct firn_link_memory;

struct firn_link {
	struct firn_link_memory *m;
	uint32_t *links;
	struct firn_link_table *tables[2];
	uint32_t page_size;
	unsigned int page_shift;
};

/* Bytes that a link memory of @shape needs.  Only what is used of it is ever touched. */
size_t firn_link_bytes(const struct firn_link_shape *shape);
/* Make @mem (zero bytes, page aligned) an empty link memory and attach to it. */
void firn_link_format(struct firn_link *l, void *mem, const struct firn_link_shape *shape);
/*
 * Attach to what a former agent left in @mem of @size bytes; pages in flight become EVICTED again.
 * Returns 0, or -EBADMSG where it is not a link memory, or is inconsistent.
 */
int firn_link_attach(struct firn_link *l, void *mem, size_t size);

/* --- Building.  One thread; look-ups may go on meanwhile. ----------------------------------------- */

/*
 * Append a run after all others (higher address), links uninitialised: the caller fills
 * firn_link_slots(l, run.first) before firn_link_publish.  Returns 0, or -ENOSPC.
 */
int firn_link_add_run(struct firn_link *l, uint64_t start, uint32_t npages, uint32_t *ret_first);
uint32_t *firn_link_slots(struct firn_link *l, uint32_t first);
/* Append a watched span; it may touch or overlap only the last.  Returns 0, or -ENOSPC. */
int firn_link_add_watched(struct firn_link *l, struct firn_range span);
/* Make what was appended visible to look-ups. */
void firn_link_publish(struct firn_link *l);
/* Drop everything appended since the last publish. */
void firn_link_unpublish(struct firn_link *l);

/* --- Look-up.  Any thread that holds the layout lock shared. -------------------------------------- */

enum firn_found {
	FIRN_FOUND_LINK,             /* *@ret_run, *@ret_index */
	FIRN_FOUND_HOLE,             /* watched, never evicted */
	FIRN_FOUND_NOTHING,          /* not known: an error, never a zero page by default */
};

enum firn_found firn_link_find(const struct firn_link *l, uint64_t address, struct firn_run *ret_run,
			       uint32_t *ret_index);
uint32_t firn_link_get(const struct firn_link *l, uint32_t index);
/* One transition; false where the link is no longer @from. */
bool firn_link_move(struct firn_link *l, uint32_t index, uint32_t from, uint32_t to);
/* The @n-th run or watched span, in order of address; false past the last. */
bool firn_link_run(const struct firn_link *l, uint32_t n, struct firn_run *ret);
bool firn_link_watched(const struct firn_link *l, uint32_t n, struct firn_range *ret);

struct firn_link_counts {
	uint64_t pages[8];           /* by enum firn_page_state, of linked pages; HOLE: gaps inside runs */
	uint64_t runs, watched;
};

void firn_link_count(const struct firn_link *l, struct firn_link_counts *ret);

/* --- Layout changes.  The layout lock is held exclusively. ---------------------------------------- */

/* The pages of @span were given up (MADV_DONTNEED, MADV_FREE).  May be repeated. */
void firn_link_removed(struct firn_link *l, struct firn_range span);
/*
 * @span was unmapped / @len bytes were moved from @from to @to / @span grew a watched mapping.  @seq
 * numbers the event: one that was applied before is not applied again.  A move to where something is still
 * known to be may be told before that has told its leave (link.c).  Either the change is whole, or not
 * visible.  Returns 0, or -ENOSPC (the tables are full; nothing changed).
 */
int firn_link_unmapped(struct firn_link *l, uint64_t seq, struct firn_range span);
int firn_link_moved(struct firn_link *l, uint64_t seq, uint64_t from, uint64_t to, uint64_t len);
int firn_link_grown(struct firn_link *l, struct firn_range span);
/* Is there something that has left and has not told all of it? */
bool firn_link_owes(const struct firn_link *l);
/* No change is under way, and every event is applied: nothing is owed any more. */
void firn_link_settled(struct firn_link *l);
/* Forget @span, by no event.  Returns as above. */
int firn_link_forget(struct firn_link *l, struct firn_range span);

/* Make @child, freshly formatted with room enough, a copy of @parent.  Returns 0, or -ENOSPC. */
int firn_link_copy(struct firn_link *child, const struct firn_link *parent);
/* The shape a copy needs. */
void firn_link_shape_of(const struct firn_link *l, struct firn_link_shape *ret);

/* Check every invariant (slow).  Returns 0, or the number of the first that does not hold. */
int firn_link_check(const struct firn_link *l);

#endif
