/* SPDX-License-Identifier: MIT */
/* A program that was linked with -lfirnmalloc, whose soname and symbol versions it has in it. */
#include "m.h"

int main(void)
{
	struct firn_malloc_stats s = { .size = sizeof(s) };
	Dl_info info;
	void *p;

	CHECK(dladdr((void *)(uintptr_t)malloc, &info));
	if (!strstr(info.dli_fname, getenv("LD_PRELOAD") ? "/libfirnmalloc.so" : "/libfirnmalloc.so.0"))
		FAIL("malloc is of %s", info.dli_fname);
	CHECK(dlvsym(RTLD_DEFAULT, "firn_malloc_stats", "FIRNMALLOC_0.1") == (void *)(uintptr_t)firn_malloc_stats);
	CHECK(!dlvsym(RTLD_DEFAULT, "firn_malloc_stats", "FIRNMALLOC_0.0"));
	p = malloc(m_size(100000));
	CHECK_EQ(firn_malloc_stats(&s), 0);
	CHECK(s.allocated_bytes >= 100000);
	free(p);
	puts(firn_malloc_version());
	return 0;
}
