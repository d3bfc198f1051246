/* SPDX-License-Identifier: MIT */
/*
 * The event ring.  Messages are read from the userfaultfd straight into it, so that a message which
 * the kernel has handed out is never only in the memory of a process that may die.
 *
 * A slot whose first byte is zero is empty (no event has number 0).  Life of a batch: all slots empty;
 * read() fills the first n; layout events are applied, each by its sequence number base + slot; `done`
 * is set past them; slots are emptied; base follows.  A successor finds which were not applied.
 */
#ifndef FIRN_LINK_RING_H
#define FIRN_LINK_RING_H

#include <linux/userfaultfd.h>

#include "base/types.h"

#define FIRN_RING_SLOTS 64u

struct firn_ring {
	uint64_t base;               /* sequence number of slot 0 */
	uint64_t done;               /* events below are applied */
	uint64_t pad[6];
	struct uffd_msg slots[FIRN_RING_SLOTS];
};

/* Messages in the ring. */
uint32_t firn_ring_count(const struct firn_ring *r);
/* Slot @n's event was applied. */
void firn_ring_applied(struct firn_ring *r, uint32_t n);
/* All @n messages are dealt with, or need not be: the ring is empty. */
void firn_ring_empty(struct firn_ring *r, uint32_t n);

#endif
