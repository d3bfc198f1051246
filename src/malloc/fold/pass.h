/* SPDX-License-Identifier: MIT */
/*
 * A pass: what the folder's files share.  All of it is under the pass lock, and done in slices.
 *
 * A page of a foldable span is in one of these states, changed under its class's lock:
 *   open      none of the bits below: anonymous, slots are handed out from it
 *   held      closed, busy: a slice is remapping it, and nobody else does
 *   folded    closed, folded: maps a frame that holds its objects, and has a part in the frame's count
 *   hollow    closed alone: maps a frame, has no object, and no part in the count
 *   copied    copied, not closed: it was folded and then written; a private copy in a file's mapping; slots are
 *             handed out from it
 * held is left within the slice that made it; the others last.
 */
#ifndef FIRN_MALLOC_FOLD_PASS_H
#define FIRN_MALLOC_FOLD_PASS_H

#include "malloc/fold/plan.h"
#include "malloc/fold/tick.h"
#include "malloc/heap.h"

#define FIRN_WINDOW_UNITS 4096u         /* 256 MiB of heap are looked at by one pass */
#define FIRN_RELEASES 32u
#define FIRN_SLICE_RUNS 1024u

enum firn_pass_stage {
	FIRN_PASS_NONE,
	FIRN_PASS_LOOK,                 /* which folded pages were written? */
	FIRN_PASS_SCAN,                 /* ages, emptied pages, candidates */
	FIRN_PASS_HEADS,                /* runs that share frames already */
	FIRN_PASS_MEMBERS,
	FIRN_PASS_SEARCH,
	FIRN_PASS_CARRY,                /* carry out the groups */
	FIRN_PASS_TIDY,                 /* frames that nobody needs */
};

struct firn_release {                   /* pages to be made anonymous again */
	uint32_t unit;
	uint8_t page, n;
	uint8_t class;
	bool done;
};

struct firn_pass {
	enum firn_pass_stage stage;
	bool force;                     /* regardless of age and gain */
	bool search;                    /* there may be something to gain: the plan's memory is there */
	uint64_t unfolds;               /* the counter at its begin */
	uint32_t first, units;          /* the window */
	uint32_t at;                    /* progress of the stage, in units; CARRY: in pages */
	char *memory;
	size_t bytes;
	struct firn_plan plan;
	/* What SCAN found. */
	uint64_t touched_pages;         /* of the window */
	uint64_t live_pages, live_bytes;        /* of candidates */
	uint64_t young_pages;           /* not quiet yet, and not empty */
	uint32_t vmas;                  /* mappings of the window */
	struct firn_release release[FIRN_RELEASES];
	unsigned int nrelease;
	uint64_t spent_ns;              /* processor time in slices of this pass, */
	uint64_t helper_ns;             /* of helpers in the present slice */
	uint64_t given_back;            /* bytes */
	uint32_t room;                  /* mappings that may be added, as found out by adding them */
	bool asked;                     /* TIDY: whether a forked process maps our frames */
	bool full;                      /* the budget of mappings, or what the kernel allows, is reached */
};

extern struct firn_pass firn_pass;

/* Where page @page of the plan lies. */
static inline uint32_t firn_pass_unit(uint32_t page)
{
	return firn_pass.first + page / FIRN_UNIT_PAGES;
}

static inline char *firn_pass_address(uint32_t page)
{
	return (char *)firn_unit_address(firn_pass.first) + (size_t)page * FIRN_PAGE_BYTES;
}

/* Begin or end.  A pass that ends early leaves no trace. */
void firn_pass_begin(bool force);
void firn_pass_end(void);

/*
 * Run fn(arg) in a helper, and count its processor time.  Without @wait, nobody waits for it: -EINPROGRESS says that
 * it is at work on @arg, and that this is to be called again, with the same, before anything else of a pass or a
 * purge is done; -EBUSY that it was not begun, since it is better to wait.
 */
int firn_pass_helper(int (*fn)(void *arg), void *arg, bool wait);

/* Is this to be called again? */
bool firn_pass_begun(void);

/* Hurry a helper that nobody waits for, and wait for it.  No page is held when this returns. */
void firn_pass_finish(void);

/* A processor time clock. */
uint64_t firn_cpu_ns(int clock);

/* One slice.  Returns false where the pass is over; *@ret_wait_ms: where it cannot go on now. */
bool firn_pass_slice(uint32_t *ret_wait_ms);

/* scan.c.  Stages that go over the window unit by unit: one unit. */
void firn_scan_unit(uint32_t unit);
void firn_scan_heads(uint32_t unit);
void firn_scan_members(uint32_t unit);
void firn_scan_check_heads(void);
void firn_scan_release(void);
/* Look from unit firn_pass.at on.  In a helper of its own.  0; -EINPROGRESS, as firn_carry; or another -errno. */
int firn_scan_look(void);

/* carry.c.  Some groups, from page firn_pass.at of the plan on.  0; -EINPROGRESS: they were begun, and this is to be
 * called again; -EAGAIN: not now; another -errno: not at all. */
int firn_carry(void);

/* Bits of the mask of page @page of span @s, folded into one word; 0: no slot is taken. */
static inline uint64_t firn_page_any(struct firn_span *s, unsigned int page, unsigned int words)
{
	uint64_t any = 0;

	for (unsigned int w = 0; w < words; w++)
		any |= atomic_load_explicit(&s->mask[page * words + w], memory_order_relaxed);
	return any;
}

/* After closed changed, under the class's lock: frees go the slow way or not; the span may be gone after it. */
void firn_fold_reopened(struct firn_span *s, uint32_t unit, unsigned int c);

#endif
