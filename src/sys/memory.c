/* SPDX-License-Identifier: MIT */
#include "sys/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/types.h"

#define HUGE_BYTES ((size_t)2 << 20)

/* Present now, so that no page of it has to be found when memory is short. */
static int populate(void *p, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
	if (madvise(p, bytes, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL)
		return -ENOMEM;
#endif
	memset(p, 0, bytes);
	return 0;
}

void *firn_memory_reserve(size_t bytes)
{
	size_t slack = bytes < HUGE_BYTES ? 0 : HUGE_BYTES;
	size_t before, whole = firn_align_up(bytes, (size_t)sysconf(_SC_PAGESIZE));
	char *p;

	p = mmap(NULL, whole + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (slack) {
		before = firn_align_up((uintptr_t)p, HUGE_BYTES) - (uintptr_t)p;
		if (before)
			munmap(p, before);
		p += before;
		if (slack > before)
			munmap(p + whole, slack - before);
		madvise(p, bytes, MADV_HUGEPAGE);       /* refused: no harm */
	}
	madvise(p, bytes, MADV_DONTDUMP);
	if (populate(p, bytes) == 0)
		return p;
	munmap(p, bytes);
	return NULL;
}

void firn_memory_release(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}
