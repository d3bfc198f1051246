/* SPDX-License-Identifier: MIT */
#include "pager/blocks.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int firn_pager_blocks_open(struct firn_pager_blocks *b, uint32_t page_size, size_t block_bytes)
{
	void *p = mmap(NULL, FIRN_PAGER_BLOCKS * block_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	memset(b, 0, sizeof(*b));
	if (p == MAP_FAILED)
		return -ENOMEM;
	b->page_size = page_size;
	b->block_bytes = block_bytes;
	b->raw = p;
	return -pthread_mutex_init(&b->lock, NULL);
}

void firn_pager_blocks_close(struct firn_pager_blocks *b)
{
	if (!b->raw)
		return;
	explicit_bzero(b->raw, FIRN_PAGER_BLOCKS * b->block_bytes);
	munmap(b->raw, FIRN_PAGER_BLOCKS * b->block_bytes);
	pthread_mutex_destroy(&b->lock);
	memset(b, 0, sizeof(*b));
}

/* Where the block is, or FIRN_PAGER_BLOCKS.  Locked. */
static uint32_t find(const struct firn_pager_blocks *b, uint64_t generation, uint32_t block)
{
	uint32_t i = 0;

	while (i < FIRN_PAGER_BLOCKS && (b->of[i].generation != generation || b->of[i].block != block))
		i++;
	return i;
}

bool firn_pager_blocks_page(struct firn_pager_blocks *b, uint64_t generation, uint32_t block, uint32_t page, void *to)
{
	uint32_t i;

	pthread_mutex_lock(&b->lock);
	i = find(b, generation, block);
	if (i < FIRN_PAGER_BLOCKS)
		memcpy(to, b->raw + i * b->block_bytes + (size_t)page * b->page_size, b->page_size);
	pthread_mutex_unlock(&b->lock);
	return i < FIRN_PAGER_BLOCKS;
}

void firn_pager_blocks_keep(struct firn_pager_blocks *b, uint64_t generation, uint32_t block, const void *raw)
{
	pthread_mutex_lock(&b->lock);
	if (find(b, generation, block) == FIRN_PAGER_BLOCKS) {
		memcpy(b->raw + b->next * b->block_bytes, raw, b->block_bytes);
		b->of[b->next].generation = generation;
		b->of[b->next].block = block;
		b->next = (b->next + 1) % FIRN_PAGER_BLOCKS;
	}
	pthread_mutex_unlock(&b->lock);
}
