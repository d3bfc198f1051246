/* SPDX-License-Identifier: MIT */
/*
 * Which pages go onto one frame: a pure function over masks.  No system call, no lock, no clock: the caller
 * gives it memory, calls firn_plan_step until it is done, and reads the groups.
 */
#ifndef FIRN_MALLOC_FOLD_PLAN_H
#define FIRN_MALLOC_FOLD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIRN_PLAN_SHIFT_MAX 3u          /* runs of 8, 4, 2, 1 pages */
#define FIRN_PLAN_NONE UINT32_MAX
#define FIRN_PLAN_CLASSES 256u

enum firn_plan_state {                  /* of a page of the window */
	FIRN_PLAN_OUT,                  /* stays where it is */
	FIRN_PLAN_OPEN,                 /* may be folded; its mask may be empty */
	FIRN_PLAN_HEAD,                 /* belongs to the run that a group is gathered on */
	FIRN_PLAN_MEMBER,               /* belongs to a run that goes onto the frames of a head */
};

struct firn_plan {
	/* The window, filled in by the caller after firn_plan_open. */
	uint32_t npages;
	unsigned int regions;           /* of a page: 2 .. 256, a power of two */
	unsigned int words;             /* of a page's mask */
	unsigned int region_bytes;
	uint64_t *mask;                 /* words a page: region masks; of heads: the union of all members */
	uint8_t *state;
	uint8_t *class;                 /* 0: of several */
	uint32_t vma_budget;            /* mappings that there may be; shorter runs leave a part of them to longer ones */
	uint32_t vmas_before;           /* that there are already */
	unsigned int fill_percent;      /* runs fuller than this are left where they are (50) */
	unsigned int group_max;         /* runs of a group (24): it is carried out in one go */
	const uint32_t *class_bytes;    /* smallest object of a class, by class */
	unsigned int nclasses;
	/* Groups: runs chained from the head's first page.  Indexed by the first page of a run. */
	uint32_t *next;                 /* the next run of the group; FIRN_PLAN_NONE at the end */
	uint32_t *target;               /* of a run: the page of the head's run that its first page goes with */
	uint8_t *shift;                 /* of a run: log2 of its pages; of others: UINT8_MAX */
	uint8_t *flags;                 /* of a head: FIRN_PLAN_EXISTS, FIRN_PLAN_CHANGED */
	uint8_t *runs;                  /* of a head: runs of the group, itself too; 255: or more */
	/* The result. */
	uint32_t saved_pages;
	uint32_t vmas;                  /* added, at most */
	uint64_t probes;
	/* The search's own. */
	struct {
		int level;              /* shift; -1: done */
		unsigned int class;     /* 1 .. nclasses - 1, then 0: across */
		int stage;
		uint32_t at, n;         /* progress in the stage; nodes */
		unsigned int step;      /* regions between samples */
	} search;
	uint32_t *node;                 /* first pages of the nodes, densest first */
	uint32_t *sorted;
	uint16_t *fill;                 /* regions set, by node */
	uint16_t *sorted_fill;
	uint64_t *index;                /* blocks of 64 nodes: a word a region of a run, one bit a node */
	uint64_t *dead;                 /* by block: nodes that take no more */
	uint32_t *bucket;               /* counting sort */
	uint16_t *sample;
	uint32_t class_pages[FIRN_PLAN_CLASSES];
};

#define FIRN_PLAN_EXISTS 1u             /* it is on frames already: its runs cost no more mappings */
#define FIRN_PLAN_CHANGED 2u            /* something was joined to it: to be carried out */

/* Bytes of memory that a plan over @npages (a multiple of 16) needs. */
size_t firn_plan_bytes(uint32_t npages, unsigned int region_bytes);

/* @memory: that many zero bytes, aligned to 64; stays the caller's.  Every page starts as OUT with shift UINT8_MAX. */
void firn_plan_open(struct firn_plan *p, void *memory, uint32_t npages, unsigned int region_bytes);

/* Enter bytes @first .. @last of page @page into its mask. */
static inline void firn_plan_set(struct firn_plan *p, uint32_t page, unsigned int first, unsigned int last)
{
	for (unsigned int r = first / p->region_bytes; r <= last / p->region_bytes; r++)
		p->mask[(size_t)page * p->words + r / 64] |= (uint64_t)1 << r % 64;
}

/* Runs that share frames already: a head, and then the others one by one.  @target: see struct firn_plan.
 * The head's mask becomes the union. */
void firn_plan_exists(struct firn_plan *p, uint32_t head, unsigned int shift);
void firn_plan_joins(struct firn_plan *p, uint32_t head, uint32_t run, unsigned int shift, uint32_t target);

/* All pages are entered. */
void firn_plan_start(struct firn_plan *p);

/* Go on for about @work units of work (a probe of 64 nodes is one).  Returns false when it is done. */
bool firn_plan_step(struct firn_plan *p, uint32_t work);

#endif
