/* SPDX-License-Identifier: MIT */
/* 64 GiB of address space with a page each 16 MiB and some clusters.  Holes must stay zero. */
#include "victim.h"

#define SPAN (64ull << 30)
#define STEP (16ull << 20)

static char *base;

/* Look at @args pages where nothing was ever written. */
static int cmd_holes(char *args)
{
	uint64_t n = v_count(args, 2000);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t page = v_rand() % (SPAN / V_PAGE);
		struct v_page p = { .addr = (uintptr_t)base + page * V_PAGE, .patch_at = V_WORDS };

		/* Never a multiple of the step, nor in a cluster: those start at odd halves of it. */
		if (page * V_PAGE % STEP == 0 || page * V_PAGE % STEP >= STEP / 2)
			continue;
		v_check(&p);
	}
	return v_result(n);
}

static const struct v_command commands[] = { { "holes", cmd_holes }, { NULL, NULL } };

int main(int argc, char **argv)
{
	v_start(argc, argv, 0, 65536);
	base = mmap(NULL, SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		v_die("mmap of 64 GiB: %s", strerror(errno));
	madvise(base, SPAN, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < SPAN; at += STEP)
		v_add(base + at, v_any_kind());
	for (int i = 0; i < 64; i++) {
		uint64_t at = (v_rand() % (SPAN / STEP)) * STEP + STEP / 2 + V_PAGE;

		/* The same place twice would be two truths of one page. */
		for (uint64_t k = 0; k < v_t->n; k++) {
			if (v_t->page[k].addr == (uintptr_t)base + at)
				at = 0;
		}
		if (at)
			v_add_range(base + at, 1 + v_rand() % 200);
	}
	v_ready();
	return v_loop(commands);
}
