/* SPDX-License-Identifier: MIT */
/*
 * The bulk of a thaw: the pack read from its begin to its end, by large reads, while workers decode its blocks
 * and put their pages back, wherever in the target those belong.
 */
#ifndef FIRN_ENGINE_STREAM_H
#define FIRN_ENGINE_STREAM_H

#include "engine/internal.h"

/*
 * Bring back the evicted pages of @t, which is the caller's alone and may run meanwhile.  It does what it can
 * without waiting: what it leaves (what is held back of the working set, a place that cannot be read, a mapping that is being moved, a full memory
 * cgroup) is for the caller to look at, page by page.  @reader is open, with staging.
 * @progress, NULL or called by this thread: pages that are back.
 * Memory, while it lasts: four bytes for each of the target's pages, and for each worker a block and a codec.
 * Returns 0; -ESRCH its address space has ended; -ENOMEM, nothing was done.
 */
int firn_stream_back(struct firn_engine *en, struct firn_target *t, struct firn_block_reader *reader,
		     void (*progress)(void *arg, uint64_t pages), void *arg);

#endif
