/* SPDX-License-Identifier: MIT */
/* Every name of the interface: whose it is, that what one returns another takes, and what those that tell say. */
#include <dirent.h>
#include <wchar.h>

#include "m.h"

static void *find(const char *name)
{
	void *f = dlsym(RTLD_DEFAULT, name);
	Dl_info info;

	if (!m_firn())
		return f;
	if (!f)
		FAIL("%s is missing", name);
	CHECK(dladdr(f, &info));
	if (!strstr(info.dli_fname, "firnmalloc"))
		FAIL("%s is of %s", name, info.dli_fname);
	return f;
}

/* None is left to the C library, whose heap knows nothing of ours. */
static void names(void)
{
	static const char *const all[] = { "malloc", "calloc", "realloc", "free", "reallocarray", "memalign", "posix_memalign",
		"aligned_alloc", "valloc", "pvalloc", "malloc_usable_size", "cfree", "free_sized", "free_aligned_sized",
		"malloc_trim", "mallopt", "mallinfo", "mallinfo2", "malloc_stats", "malloc_info", "__libc_malloc",
		"__libc_calloc", "__libc_realloc", "__libc_free", "__libc_memalign", "__libc_valloc", "__libc_pvalloc",
		/* new and delete: all, as the C++ standard counts them. */
		"_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",
		"_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPv", "_ZdlPvm",
		"_ZdaPvm", "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t", "_ZdlPvSt11align_val_t", "_ZdaPvSt11align_val_t",
		"_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t",
		"_ZdaPvSt11align_val_tRKSt9nothrow_t", "firn_malloc_stats", "firn_malloc_consolidate", "firn_malloc_never_fold",
		"firn_malloc_version" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		find(all[i]);
}

/* What one function allocated any other may resize and free. */
static void mixed(void)
{
	typedef void *(*allocate)(size_t);
	typedef void (*release)(void *);
	allocate from[] = { malloc, valloc, pvalloc, (allocate)find("__libc_malloc"), (allocate)find("__libc_valloc"),
		(allocate)find("__libc_pvalloc"), (allocate)find("_Znwm"), (allocate)find("_Znam") };
	release to[] = { free, (release)find("cfree"), (release)find("__libc_free"), (release)find("_ZdlPv"), (release)find("_ZdaPv") };
	void *(*again)(void *, size_t) = (__typeof__(again))find("__libc_realloc");
	void *(*zeroed)(size_t, size_t) = (__typeof__(zeroed))find("__libc_calloc");
	void *(*aligned)(size_t, size_t) = (__typeof__(aligned))find("__libc_memalign");
	void (*sized)(void *, size_t) = (__typeof__(sized))find("free_sized");
	void (*sized_aligned)(void *, size_t, size_t) = (__typeof__(sized_aligned))find("free_aligned_sized");
	int (*posix)(void **, size_t, size_t) = posix_memalign;
	static const size_t sizes[] = { 1, 16, 100, 448, 500, 4096, 30000, 70000, 200000, 9 << 20 };

	CHECK(!m_firn() || (to[1] && sized && sized_aligned));
	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		size_t n = sizes[s];
		void *p;

		for (size_t i = 0; i < sizeof(from) / sizeof(*from); i++) {
			for (size_t k = 0; k < sizeof(to) / sizeof(*to); k++) {
				if (!from[i] || !to[k])
					continue;
				p = from[i](n);
				CHECK(p);
				m_fill(p, n, i);
				p = k & 1 ? again(p, n + 50) : realloc(p, n + 50);
				CHECK(p);
				CHECK_FILL(p, n, i);
				to[k](p);
			}
		}
		p = zeroed(1, n);
		CHECK(p && m_zero(p, n));
		free(p);
		p = aligned(4096, n);
		CHECK(p && (uintptr_t)p % 4096 == 0);
		free(p);
		if (!sized)
			continue;
		sized(malloc(n), n);
		sized(calloc(1, n), n);
		sized(realloc(malloc(n / 2), n), n);
		sized_aligned(aligned_alloc(64, n), 64, n);
		sized_aligned(aligned_alloc(8192, n), 8192, n);
		CHECK_EQ(posix(&p, 256, n), 0);
		sized_aligned(p, 256, n);
	}
	if (sized) {
		errno = 5;
		sized(NULL, 10);
		sized_aligned(NULL, 64, 10);
		to[1](NULL);
		CHECK_EQ(errno, 5);
	}
}

/* The C library allocates for the program in many places, and frees for it. */
static void library(void)
{
	char *line = NULL, *text = NULL, *s, *memory = NULL;
	size_t n = 0;
	struct dirent **list;
	FILE *f;
	int count;

	for (int i = 0; i < 300; i++) {
		s = strdup("text that is copied");
		CHECK_EQ(asprintf(&text, "%s %d", s, i), (int)strlen(text));
		free(s);
		free(text);
	}
	f = fopen("/proc/self/maps", "r");
	CHECK(f);
	while (getline(&line, &n, f) > 0)
		CHECK(malloc_usable_size(line) >= n);
	free(line);
	fclose(f);
	f = open_memstream(&memory, &n);
	for (int i = 0; i < 30000; i++)
		fprintf(f, "%d ", i);
	fclose(f);
	CHECK(malloc_usable_size(memory) > n);
	free(memory);
	count = scandir("/proc/self", &list, NULL, alphasort);
	CHECK(count > 10);
	while (count--)
		free(list[count]);
	free(list);
	s = realpath("/proc/self/../self/exe", NULL);
	CHECK(s);
	free(s);
	s = getcwd(NULL, 0);
	CHECK(s);
	free(s);
	wchar_t *w = wcsdup(L"wide");

	free(w);
	CHECK_EQ(setenv("A_NAME_OF_THE_TEST", "value", 1), 0);
	CHECK_EQ(unsetenv("A_NAME_OF_THE_TEST"), 0);
}

static void info(void)
{
	struct mallinfo2 before, after;
	struct mallinfo old;
	enum { N = 20000 };
	void **p = m_map(N * sizeof(*p));

	free(malloc(1));
	before = mallinfo2();
	for (int i = 0; i < N; i++)
		p[i] = malloc(200);
	void *huge = malloc(40 << 20);

	after = mallinfo2();
	CHECK(huge && after.uordblks + after.hblkhd >= before.uordblks + before.hblkhd + N * 200 + (40 << 20));
	CHECK(after.uordblks + after.hblkhd <= before.uordblks + before.hblkhd + N * 300 + (41 << 20));
	CHECK(after.arena + after.hblkhd >= after.uordblks);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	old = mallinfo();
#pragma GCC diagnostic pop
	CHECK(old.uordblks + old.hblkhd >= N * 200);
	for (int i = 0; i < N; i++)
		free(p[i]);
	free(huge);
	after = mallinfo2();
	/* Caches of threads may still count as used. */
	CHECK(after.uordblks + after.hblkhd <= before.uordblks + before.hblkhd + N * 100);
	CHECK_EQ(mallopt(M_MMAP_THRESHOLD, 1 << 20), 1);
	CHECK_EQ(mallopt(M_TRIM_THRESHOLD, 1 << 20), 1);
	CHECK_EQ(mallopt(M_ARENA_MAX, 2), 1);
	int r = malloc_trim(0);

	CHECK(r == 0 || r == 1);
}

/* XML on standard output, which the test reads; text on standard error. */
static void tell(void)
{
	void *p = malloc(100000);

	CHECK(p);
	errno = 0;
	int r = malloc_info(1, stdout);

	CHECK(r == EINVAL || (r == -1 && errno == EINVAL));
	CHECK_EQ(malloc_info(0, stdout), 0);
	fflush(stdout);
	malloc_stats();
	free(p);
}

static size_t resident(void)
{
	size_t size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%zu %zu", &size, &pages) == 2);
	fclose(f);
	return pages * 4096;
}

/* malloc_trim gives back what is free. */
static void trim(void)
{
	enum { N = 400000 };
	char **p = m_map(N * sizeof(*p));
	size_t full;

	for (int i = 0; i < N; i++) {
		p[i] = malloc(i % 1000 == 0 ? 40000 : 100);
		memset(p[i], 1, 100);
	}
	full = resident();
	for (int i = 0; i < N; i++)
		free(p[i]);
	malloc_trim(0);
	if (resident() > full - (30 << 20))
		FAIL("%zu bytes are resident after malloc_trim, %zu before", resident(), full);
}

static const struct m_case cases[] = {
	{ "names", names },
	{ "mixed", mixed },
	{ "library", library },
	{ "info", info },
	{ "tell", tell },
	{ "trim", trim },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
