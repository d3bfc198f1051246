/* SPDX-License-Identifier: MIT */
/* Memory as an allocator hands it out: blocks of many sizes from brk and from mmap, of every content. */
#include "victim.h"

#include <malloc.h>

int main(int argc, char **argv)
{
	size_t left;

	v_start(argc, argv, 512, 0);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	left = v_mib * 256;
	while (left) {
		/* 16 KiB to 4 MiB; those under 1 MiB come from brk. */
		size_t pages = (size_t)4 << v_rand() % 9;
		void *a;

		if (pages > left)
			pages = left;
		if (posix_memalign(&a, V_PAGE, pages * V_PAGE))
			v_die("no memory");
		v_add_range(a, pages);
		left -= pages;
	}
	v_ready();
	return v_loop(NULL);
}
