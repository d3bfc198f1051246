/* SPDX-License-Identifier: MIT */
/*
 * Decoded blocks that the pagers share.  While a working set is recorded a fault brings back its own page only, so
 * that the neighbours are seen when they are needed; they wait here.
 */
#ifndef FIRN_PAGER_BLOCKS_H
#define FIRN_PAGER_BLOCKS_H

#include <pthread.h>

#include "base/types.h"

#define FIRN_PAGER_BLOCKS 12u

struct firn_pager_blocks {
	pthread_mutex_t lock;        /* held for one copy */
	uint32_t page_size;
	size_t block_bytes;
	uint32_t next;               /* is replaced next */
	struct {
		uint64_t generation; /* of its pack; 0: empty */
		uint32_t block;
	} of[FIRN_PAGER_BLOCKS];
	char *raw;
};

/* All memory that it will use.  Returns 0, or -ENOMEM. */
int firn_pager_blocks_open(struct firn_pager_blocks *b, uint32_t page_size, size_t block_bytes);
void firn_pager_blocks_close(struct firn_pager_blocks *b);
/* Page @page of a block, into @to.  False where the block is not here.  Any thread. */
bool firn_pager_blocks_page(struct firn_pager_blocks *b, uint64_t generation, uint32_t block, uint32_t page, void *to);
/* Keep a block, in place of the oldest.  Any thread. */
void firn_pager_blocks_keep(struct firn_pager_blocks *b, uint64_t generation, uint32_t block, const void *raw);

#endif
