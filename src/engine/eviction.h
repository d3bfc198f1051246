/* SPDX-License-Identifier: MIT */
/*
 * One eviction under way: what its three files share.  evict.c is the whole operation, walk.c decides which
 * pages go, slice.c takes them.
 */
#ifndef FIRN_ENGINE_EVICTION_H
#define FIRN_ENGINE_EVICTION_H

#include "engine/internal.h"
#include "transfer/workers.h"

#define FIRN_SLICE_PAGES 65536u              /* 256 MiB of 4 KiB pages */
#define FIRN_GATHER_BYTES (1u << 20)         /* read from the target at a time */
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

struct firn_eviction {
	struct firn_engine *en;
	const struct firn_evict_options *o;
	struct firn_report *report;
	struct firn_err *e;
	struct firn_target *t;
	struct firn_plan plan;
	struct firn_stop stop;
	struct firn_inject inject;
	struct firn_pagemap pagemap;
	struct firn_builder *builder;
	struct firn_pack_ref *pack;
	/* reserved in the plan */
	struct firn_stretch *stretches;
	uint32_t nstretches, max_stretches;
	struct firn_mapping *mappings;
	uint32_t nmappings, max_mappings;
	uint64_t *keep;              /* addresses of pages that stay */
	uint32_t nkeep, max_keep;
	bool keep_full;              /* there were more */
	uint32_t *places;            /* of every page, for the pack's index */
	struct firn_pack_run *runs;
	uint32_t nplaces, max_pages, nruns;
	char *buffer;                /* FIRN_GATHER_BYTES */
	uint64_t *cookies;
	uint64_t total_pages, done_pages;
	uint64_t clock;
	uint64_t started;
	struct firn_workers *workers;
	struct firn_lane *lane;
	struct {
		const void *buf;
		size_t len;
		uint64_t offset;
	} write;                     /* the lane's, while it is under way */
	uint64_t write_ns;           /* in write calls; read when none is under way */
	uint64_t wait_ns;            /* of it, what gathering had to wait for */
	bool armed;                  /* a slice was dropped: the target depends on us */
	size_t stretches_bytes, places_bytes, runs_bytes;
};

/* Stretches [first, last) of one slice. */
struct firn_slice {
	uint32_t first, last;
	uint64_t pages;
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

/* --- slice.c --- */

/* Make the pack, its builder and the threads that serve it.  In the plan.  Returns 0, or -errno with *j->e. */
int firn_slice_open_pack(struct firn_eviction *j);
/* The next slice from stretch @first on. */
struct firn_slice firn_slice_next(struct firn_eviction *j, uint32_t first);
/*
 * Gather, write, arm, drop.  The target is stopped, injection open, the pager serves it.
 * Returns 0, or -errno with *j->e.  Before the drop (j->armed says whether there was one) its pages are
 * all in place; -ESRCH and -ENOTRECOVERABLE as in inject.h.
 */
int firn_slice_evict(struct firn_eviction *j, const struct firn_slice *s, bool last);

#endif
