/* SPDX-License-Identifier: MIT */
/*
 * One eviction under way: what its three files share.  evict.c is the whole operation, walk.c decides which
 * pages go, slice.c takes them.
 */
#ifndef FIRN_ENGINE_EVICTION_H
#define FIRN_ENGINE_EVICTION_H

#include "engine/internal.h"
#include "pack/direct.h"
#include "pack/reader.h"
#include "transfer/workers.h"

#define FIRN_SLICE_PAGES 65536u              /* 256 MiB of 4 KiB pages */
#define FIRN_SLICE_LEAST_PAGES 2048u
#define FIRN_SCRATCH_PAGES 16u               /* j->buffer */
#define FIRN_GAP_PAGES 3u                    /* holes this small are linked rather than splitting a run */

/* A stretch of pages to evict, inside one mapping. */
struct firn_stretch {
	uint64_t start, end;
	uint32_t mapping;            /* number of its mapping: stretches of one may be joined */
	uint32_t pad;
};

/* A mapping from which something is evicted.  It is watched whole: were it watched in part, it would be
 * two mappings, and the target's next mremap across both would fail. */
struct firn_mapping {
	struct firn_range span;
	bool watched;
};

/* Stretches [first, last): what is dropped in one step.  Written by the gatherer once it is gathered. */
struct firn_slice {
	uint32_t first, last;
	uint64_t pages;
	struct firn_builder_stats stats;     /* of the pack, up to its end */
};

struct firn_eviction {
	struct firn_engine *en;
	const struct firn_evict_options *o;
	struct firn_report *report;
	struct firn_err *e;
	struct firn_target *t;
	struct firn_target *held;            /* a group's member: how it was stopped; taken */
	struct firn_plan plan;
	struct firn_stop stop;
	struct firn_inject inject;
	struct firn_pagemap pagemap;
	enum firn_pack_kind kind;
	struct firn_builder *builder;        /* of a copied pack, */
	struct firn_direct *direct;          /* of a direct one; the target has the pack as pack_there */
	int pack_fd, pack_there;             /* -1: none; ours is for writing only */
	struct firn_pack_ref *pack;
	struct firn_pack_ref *base_pack;     /* until the pack has it; NULL: everything is stored */
	struct firn_reader base_reader;
	struct firn_base base;
	struct firn_digest *digests;         /* of every page, for the pack's index; NULL: none are made */
	enum firn_cipher cipher;     /* of the pack */
	bool in_ram;                 /* where it is made */
	/* reserved in the plan */
	struct firn_stretch *stretches;
	uint32_t nstretches, max_stretches;
	struct firn_mapping *mappings;
	uint32_t nmappings, max_mappings;
	uint64_t *keep;              /* addresses of pages that stay */
	uint32_t nkeep, max_keep;
	bool keep_full;              /* there were more */
	uint32_t next_keep;          /* the walk's place in them */
	uint32_t *places;            /* of every page, for the pack's index */
	struct firn_pack_run *runs;
	uint32_t nplaces, max_pages, nruns;
	char *buffer;                /* FIRN_SCRATCH_PAGES, of the tracer's */
	struct firn_slice *slices;
	uint32_t nslices, max_slices;
	uint64_t total_pages;
	uint64_t clock;
	uint64_t started;
	struct firn_workers *workers;
	struct firn_lane *gatherer;  /* drives the builder, slice after slice */
	struct firn_lane *writer;
	uint64_t read_bytes;         /* from the target; atomic */
	uint64_t pack_bytes;         /* the gatherer's, until it is waited for */
	pthread_mutex_t lock;        /* of what follows, up to the blank line */
	pthread_cond_t moved;
	uint32_t gathered;           /* slices that are */
	int gather_err;
	uint64_t bad_address;        /* where the target could not be read, with */
	int read_err;

	/* The order in the pack (workset.c); the gatherer's. */
	uint64_t *set;               /* addresses of the working set, ascending */
	struct firn_pack_run *set_runs, *pieces;
	uint32_t set_pages, nset_runs, next_set_run, max_pieces;

	bool armed;                  /* a slice was dropped: the target depends on us */
	size_t stretches_bytes, places_bytes, runs_bytes;
};


/* Charge the time since the last lap to @phase. */
void firn_eviction_lap(struct firn_eviction *j, enum firn_phase phase);

/* --- walk.c.  The target is stopped. --- */

/* Threads that an injected call would harm, or whose filter would end the target, were we killed in the
 * middle of one.  Returns 0, or -errno with *j->e. */
int firn_walk_check_threads(struct firn_eviction *j);
/* Find the pages to evict: j->stretches, j->mappings, j->total_pages.  Injection is open.  Returns 0, -ESRCH,
 * -ENOTRECOVERABLE, or another errno, where nothing changed. */
int firn_walk(struct firn_eviction *j);

/* --- huge.c --- */

/* Note which parts of @mapping are huge pages, before any is split.  Returns 0, or -errno of pagemap. */
int firn_huge_note(struct firn_eviction *j, struct firn_range mapping);

/* --- workset.c: the working set comes first in the pack --- */

/* Reserve what the order needs; the set is loaded.  In the plan.  Returns 0, or -ENOMEM. */
int firn_order_prepare(struct firn_eviction *j);
void firn_order_release(struct firn_eviction *j);
/* Add the pages of the set that are evicted, then each slice's others.  Errors as firn_builder_add. */
int firn_order_set(struct firn_eviction *j);
int firn_order_rest(struct firn_eviction *j, const struct firn_slice *s);

/* --- slice.c --- */

/* Begin to make buffers and threads, beside the plan.  Returns 0, or -errno with *j->e. */
int firn_slice_prepare(struct firn_eviction *j);
/* Make the pack, and see that what it needs was made.  In the plan.  Returns 0, or -errno with *j->e. */
int firn_slice_open_pack(struct firn_eviction *j);
/*
 * Evict everything that was walked, slice by slice: gather, write, arm, drop.  While a slice is armed and
 * dropped, the next ones are gathered and written.  The target is stopped, injection open, the pager serves it.
 * Returns 0, or -errno with *j->e.  Before the first drop (j->armed says whether there was one) all pages are
 * in place, and before a later one all pages of its slice; -ESRCH and -ENOTRECOVERABLE as in inject.h.
 * Afterwards nothing reads the target any more.
 */
int firn_slices_evict(struct firn_eviction *j);
/* End what serves the builder, and the builder: whatever there is of them.  May be called again. */
void firn_slice_close_pack(struct firn_eviction *j);

/* What both kinds share.  Cut what was walked into slices; @falling: smaller towards the end, where something goes
 * on beside a slice's drop, but not beside the last one's. */
void firn_slices_cut(struct firn_eviction *j, bool falling);
/* Arm and drop a slice that is stored and whose blocks the pack's tables show. */
int firn_slice_take(struct firn_eviction *j, const struct firn_slice *s);
/* Write to the pack, as firn_builder_ops says; @ctx: the eviction. */
int firn_slice_write(void *ctx, const void *buf, size_t len, struct firn_poff offset);
/* What the pack says of itself, and of whom it holds what. */
void firn_slice_describe(struct firn_eviction *j, struct firn_builder_pack *ret);
struct firn_builder_index firn_slice_index(struct firn_eviction *j, struct firn_pack_target *target);
/* Set *j->e for a store that refused with @err; returns an errno. */
int firn_slice_store_failed(struct firn_eviction *j, int err);

/* Does the pack say what its pages are, so that a later one can be made upon it? */
static inline bool firn_slice_makes_digests(const struct firn_eviction *j)
{
	return j->en->config.keep_percent && !j->o->ram;
}

/* Blocks that the pack may have, at most. */
static inline uint32_t firn_slice_blocks_max(const struct firn_eviction *j)
{
	return (uint32_t)firn_builder_blocks_max(j->max_pages, j->en->page_size, j->max_slices + 1);
}

/* --- kept.c: the pack of the eviction before --- */

/*
 * Look for a pack that was kept of the target: j->base_pack, j->base.  Its index is loaded, and checked with all that
 * a tag can vouch for; one that is of no use is given up.  In the plan; what fails costs no more than bytes written.
 */
void firn_kept_use(struct firn_eviction *j);
/* Give back what it loaded, and the pack where none was made upon it.  May be called again. */
void firn_kept_release(struct firn_eviction *j);

/* --- direct.c: as slice.c, where the target writes its pages itself --- */

/* May @pid, whose limits are looked at, write so many pages itself?  Returns 0, or -errno with *@e. */
int firn_direct_plan(struct firn_engine *en, pid_t pid, uint64_t pages, struct firn_err *e);
int firn_direct_open_pack(struct firn_eviction *j);
int firn_direct_evict(struct firn_eviction *j);
void firn_direct_close_pack(struct firn_eviction *j);

#endif
