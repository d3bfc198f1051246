/* SPDX-License-Identifier: MIT */
#include "link/ring.h"

#include <string.h>

uint32_t firn_ring_count(const struct firn_ring *r)
{
	uint32_t n = 0;

	while (n < FIRN_RING_SLOTS && r->slots[n].event)
		n++;
	return n;
}

void firn_ring_applied(struct firn_ring *r, uint32_t n)
{
	__atomic_store_n(&r->done, r->base + n + 1, __ATOMIC_SEQ_CST);
}

void firn_ring_empty(struct firn_ring *r, uint32_t n)
{
	if (r->done < r->base + n)
		__atomic_store_n(&r->done, r->base + n, __ATOMIC_SEQ_CST);
	/* From the last to the first: a successor that finds some left finds a prefix of them. */
	while (n--)
		memset(&r->slots[n], 0, sizeof(r->slots[n]));
	__atomic_store_n(&r->base, r->done, __ATOMIC_SEQ_CST);
}
