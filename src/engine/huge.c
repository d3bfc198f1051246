/* SPDX-License-Identifier: MIT */
/*
 * Transparent huge pages: noted when a target is evicted, and made again when it is whole.  Pages come back by
 * UFFDIO_COPY, one frame each; UFFDIO_MOVE would take a huge page whole, but only one of the target's own.
 */
#include "engine/eviction.h"

#include <errno.h>

#include "sys/sys.h"

#define HUGE_BYTES ((uint64_t)2 << 20)
#define AT_ONCE 16u                     /* huge pages by one call */
#define PATIENCE_NS 1000000000u
#define COLLAPSE 25                     /* MADV_COLLAPSE, Linux 6.1; older headers have no name for it */

int firn_huge_note(struct firn_eviction *j, struct firn_range mapping)
{
	struct firn_image *image = j->t->image;
	struct firn_range r;
	int err;

	for (uint64_t at = mapping.start; (err = firn_pagemap_next_huge(&j->pagemap, mapping, at, &r)) > 0; at = r.end) {
		if (image->nhuge && image->huge[image->nhuge - 1].end == r.start)
			image->huge[image->nhuge - 1].end = r.end;
		else if (image->nhuge < FIRN_HUGE_MAX)
			image->huge[image->nhuge++] = r;
		else
			return 0;
	}
	return err == -EOPNOTSUPP ? 0 : err;
}

/* Is the huge page's worth at @at still what was evicted from there?  Nothing of it may have been removed or moved by the
 * target; pages that stayed in memory have no link, they are few. */
static bool is_whole(struct firn_target *t, uint64_t at)
{
	const struct firn_link *l = &t->armed.link;
	uint64_t unknown = 0;

	for (uint64_t a = at; a < at + HUGE_BYTES; a += l->page_size) {
		struct firn_run run;
		uint32_t index;

		if (firn_link_find(l, a, &run, &index) != FIRN_FOUND_LINK) {
			unknown++;
			continue;
		}
		switch (firn_link_state(firn_link_get(l, index))) {
		case FIRN_PAGE_REMOVED:
		case FIRN_PAGE_LOST:
			return false;
		case FIRN_PAGE_HOLE:
			unknown++;
			break;
		default:
			break;
		}
	}
	return unknown * l->page_size <= HUGE_BYTES / 16;
}

void firn_huge_restore(struct firn_target *t)
{
	const struct firn_image *image = t->image;
	uint64_t deadline = firn_sys.clock_ns() + PATIENCE_NS;

	for (uint32_t n = 0; n < image->nhuge && n < FIRN_HUGE_MAX && t->pidfd >= 0; n++) {
		uint64_t at = firn_align_up(image->huge[n].start, HUGE_BYTES), last = image->huge[n].end;

		while (last - at >= HUGE_BYTES && at < last) {
			struct iovec span = { (void *)(uintptr_t)at, 0 };
			long r = 0;

			pthread_rwlock_rdlock(&t->armed.layout);
			while (last - at >= HUGE_BYTES && span.iov_len < AT_ONCE * HUGE_BYTES && is_whole(t, at)) {
				span.iov_len += HUGE_BYTES;
				at += HUGE_BYTES;
			}
			pthread_rwlock_unlock(&t->armed.layout);
			if (span.iov_len)
				r = firn_sys.process_madvise(t->pidfd, &span, 1, COLLAPSE);
			else
				at += HUGE_BYTES;
			/* No huge page free, or the mapping is another one: the rest may go. */
			if (r == -EPERM || r == -ESRCH || r == -ENOSYS || firn_sys.clock_ns() > deadline)
				return;
		}
	}
}
