/* SPDX-License-Identifier: MIT */
/*
 * First and second pager.  Threads that wait for the userfaultfds of all armed targets, apply layout
 * events, and answer faults: the first pager finds a faulting page's link, the second reads its block
 * from the store.  They allocate nothing, log only failures, and take no lock that a tracer holds.
 */
#ifndef FIRN_PAGER_PAGER_H
#define FIRN_PAGER_PAGER_H

#include "transfer/armed.h"

#define FIRN_PAGER_THREADS 4    /* mostly they wait for the store */

struct firn_pager;

struct firn_pager_ops {
	/*
	 * @parent forked; the child's memory is watched by descriptor @uffd, which is the callee's from
	 * now on.  @seq numbers the event.  Layout lock held exclusively.  Returns 0, or -errno: the
	 * child then stays without a pager, and its faults wait.
	 */
	int (*forked)(struct firn_armed *parent, int uffd, uint64_t seq);
	/* A mapping grew in place and an address past what we watched faulted.  1 with the mapping in
	 * *@ret where it belongs to a watched one; 0 where nothing is watched there; -errno where that cannot
	 * be seen.  Layout lock held exclusively. */
	int (*grown)(struct firn_armed *a, uint64_t address, struct firn_range *ret);
};

/* Start the threads.  @key as in firn_block_reader_open.  Returns 0, or -errno. */
int firn_pager_start(struct firn_pager **ret, const struct firn_pager_ops *ops, const uint8_t *key,
		     uint32_t page_size);
/* End them; every target has been removed. */
void firn_pager_stop(struct firn_pager *p);

/* Serve @a from now on; its uffd is set.  Any thread.  Returns 0, -ENOSPC (too many targets), -errno. */
int firn_pager_add(struct firn_pager *p, struct firn_armed *a);
/* Stop serving @a; when it returns, no pager thread uses it.  Any thread but the pager's. */
void firn_pager_remove(struct firn_pager *p, struct firn_armed *a);

/*
 * Apply what a dead agent had read and not dealt with, then wake everyone who waits.  Before
 * firn_pager_add.  Returns 0, or -errno.
 */
int firn_pager_replay(struct firn_pager *p, struct firn_armed *a);

#endif
