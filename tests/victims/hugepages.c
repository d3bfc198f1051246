/* SPDX-License-Identifier: MIT */
/* Transparent huge pages, with small pages around and a hole in one. */
#include "victim.h"

#define HUGE (2ul << 20)

static char *first;

/* Give back every second page. */
static int cmd_give_back(char *args)
{
	uint64_t n = v_mib * 256;

	(void)args;
	for (uint64_t i = 0; i < n; i += 2) {
		madvise(first + i * V_PAGE, V_PAGE, MADV_DONTNEED);
		v_t->page[i].kind = V_ZERO;
		v_t->page[i].patch_at = V_WORDS;
	}
	return v_result(n / 2);
}

static const struct v_command commands[] = { { "give-back", cmd_give_back }, { NULL, NULL } };

int main(int argc, char **argv)
{
	char *a;

	v_start(argc, argv, 256, 0);
	a = v_map(v_mib * 256 + 1024, PROT_READ | PROT_WRITE, 0);
	a = (char *)(((uintptr_t)a + HUGE - 1) & ~(HUGE - 1));
	if (madvise(a, v_mib << 20, MADV_HUGEPAGE))
		dprintf(2, "MADV_HUGEPAGE: %s\n", strerror(errno));
	v_add_range(a, v_mib * 256);
	first = a;
	/* One huge page split, one page of it given back. */
	madvise(a + HUGE + 5 * V_PAGE, V_PAGE, MADV_DONTNEED);
	v_t->page[512 + 5].kind = V_ZERO;
	v_t->page[512 + 5].patch_at = V_WORDS;
	v_ready();
	return v_loop(commands);
}
