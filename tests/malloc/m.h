/* SPDX-License-Identifier: MIT */
/*
 * What the allocator's test programs share.  They use the malloc interface alone, so that each also runs on
 * the C library's own malloc: that run comes first, and must pass.  What only Firn's allocator has is found by
 * name at run time.  A program is a table of cases; "program CASE" runs one and exits 0 when it holds.
 *
 * The model: every object's bytes follow from a seed.  The model's own memory comes from mmap, so that a
 * broken allocator cannot break it.
 */
#ifndef FIRN_TESTS_MALLOC_M_H
#define FIRN_TESTS_MALLOC_M_H

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "firn/malloc.h"

/* Says where and why by write(2), in any state of the heap, then exits 1 at once. */
__attribute__((noreturn, format(printf, 3, 4), unused))
static void m_fail(const char *file, int line, const char *format, ...)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%s:%d: ", file, line);
	__builtin_va_list ap;

	__builtin_va_start(ap, format);
	n += vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
	__builtin_va_end(ap);
	if (n > (int)sizeof(text) - 2)
		n = sizeof(text) - 2;
	text[n++] = '\n';
	n = (int)write(2, text, (size_t)n);
	_exit(n < 0 ? 2 : 1);
}

#define FAIL(...) m_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) \
	do { \
		if (!(condition)) \
			FAIL("%s (errno %d)", #condition, errno); \
	} while (0)
#define CHECK_EQ(a, b) \
	do { \
		long long a_ = (long long)(a), b_ = (long long)(b); \
		if (a_ != b_) \
			FAIL("%s is %lld, not %s = %lld", #a, a_, #b, b_); \
	} while (0)

/* The compiler may know what malloc does, and leave out calls whose result it thinks nobody needs. */
__attribute__((unused))
static void *m_hide(const void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return (void *)(uintptr_t)p;
}

__attribute__((unused))
static size_t m_size(size_t n)
{
	__asm__ volatile("" : "+r"(n));
	return n;
}

__attribute__((unused))
static uint64_t m_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Below @n. */
__attribute__((unused))
static size_t m_below(uint64_t *state, size_t n)
{
	return m_random(state) % n;
}

static inline uint64_t m_word(uint64_t seed, size_t i)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + i * 0xd6e8feb86659fd93u;

	return (x ^ x >> 32) * 0xd6e8feb86659fd93u;
}

__attribute__((unused))
static void m_fill(void *p, size_t n, uint64_t seed)
{
	char *to = p;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		uint64_t w = m_word(seed, i);

		memcpy(to + i, &w, 8);
	}
	if (i < n) {
		uint64_t w = m_word(seed, i);

		memcpy(to + i, &w, n - i);
	}
}

/* The first byte of @n that is not as filled; @n where all are. */
__attribute__((unused))
static size_t m_differs(const void *p, size_t n, uint64_t seed)
{
	const char *from = p;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t w = m_word(seed, i), v = w;
		size_t k = n - i < 8 ? n - i : 8;

		memcpy(&v, from + i, k);
		if (v != w)
			for (size_t j = 0; j < k; j++)
				if (((char *)&v)[j] != ((char *)&w)[j])
					return i + j;
	}
	return n;
}

#define CHECK_FILL(p, n, seed) \
	do { \
		size_t d_ = m_differs(p, n, seed); \
		if (d_ != (size_t)(n)) \
			FAIL("byte %zu of %zu at %p is not what was written there", d_, (size_t)(n), (void *)(p)); \
	} while (0)

__attribute__((unused))
static bool m_zero(const void *p, size_t n)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i])
			return false;
	return true;
}

__attribute__((unused))
static void *m_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Firn's allocator, or the C library's (NULL functions). */
static __typeof__(&firn_malloc_stats) m_stats;
static __typeof__(&firn_malloc_consolidate) m_consolidate;
static __typeof__(&firn_malloc_never_fold) m_never_fold;

__attribute__((constructor(101), unused))
static void m_find(void)
{
	m_stats = (__typeof__(m_stats))dlsym(RTLD_DEFAULT, "firn_malloc_stats");
	m_consolidate = (__typeof__(m_consolidate))dlsym(RTLD_DEFAULT, "firn_malloc_consolidate");
	m_never_fold = (__typeof__(m_never_fold))dlsym(RTLD_DEFAULT, "firn_malloc_never_fold");
}

__attribute__((unused))
static bool m_firn(void)
{
	return m_consolidate != NULL;
}

/* The tests say whether pages must be folded here; or must not. */
__attribute__((unused))
static bool m_folds(void)
{
	const char *s = getenv("TEST_FOLDS");

	return m_firn() && s && *s == '1';
}

__attribute__((unused))
static bool m_never_folds(void)
{
	const char *s = getenv("TEST_FOLDS");

	return m_firn() && s && *s == '0';
}

__attribute__((unused))
static struct firn_malloc_stats m_now(void)
{
	struct firn_malloc_stats s = { .size = sizeof(s) };

	if (m_stats)
		CHECK_EQ(m_stats(&s), 0);
	return s;
}

/* Consolidate, as far as the allocator can. */
__attribute__((unused))
static void m_fold(void)
{
	if (m_consolidate)
		m_consolidate();
	else
		malloc_trim(0);
}

/* Objects that a program holds, by address, size and seed. */
struct m_object {
	char *p;
	uint32_t bytes;
	uint64_t seed;
};

struct m_objects {
	struct m_object *at;
	size_t n;
};

/*
 * A sparse heap: @n objects of @low .. @high bytes, of which about one in @keep stays.  Which ones is random,
 * so that pages can be folded onto each other.
 */
__attribute__((unused))
static struct m_objects m_sparse(size_t n, size_t low, size_t high, unsigned int keep, uint64_t seed)
{
	struct m_objects o = { .at = m_map((n / keep * 2 + 64) * sizeof(struct m_object)) };
	struct m_object *all = m_map(n * sizeof(*all));
	uint64_t rng = seed;

	for (size_t i = 0; i < n; i++) {
		all[i].bytes = (uint32_t)(low + m_below(&rng, high - low + 1));
		all[i].seed = seed + i;
		all[i].p = malloc(all[i].bytes);
		CHECK(all[i].p);
		m_fill(all[i].p, all[i].bytes, all[i].seed);
	}
	for (size_t i = 0; i < n; i++) {
		if (m_below(&rng, keep) == 0 && o.n < n / keep * 2 + 64)
			o.at[o.n++] = all[i];
		else
			free(all[i].p);
	}
	munmap(all, n * sizeof(*all));
	return o;
}

__attribute__((unused))
static void m_check_all(const struct m_objects *o)
{
	for (size_t i = 0; i < o->n; i++)
		CHECK_FILL(o->at[i].p, o->at[i].bytes, o->at[i].seed);
}

/* Other contents for all. */
__attribute__((unused))
static void m_rewrite(struct m_objects *o, uint64_t seed)
{
	for (size_t i = 0; i < o->n; i++) {
		o->at[i].seed = seed + i;
		m_fill(o->at[i].p, o->at[i].bytes, o->at[i].seed);
	}
}

__attribute__((unused))
static void m_free_all(struct m_objects *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->at[i].p);
	o->n = 0;
}

/* A sparse heap of 16 MiB and more that has been folded, where folding is possible. */
__attribute__((unused))
static struct m_objects m_folded(uint64_t seed)
{
	struct m_objects o = m_sparse(120000, 16, 440, 16, seed);

	m_fold();
	if (m_folds()) {
		struct firn_malloc_stats s = m_now();

		if (s.folded_pages < 100)
			FAIL("only %lu pages are folded: %s", (unsigned long)s.folded_pages, s.why ? s.why : "");
	}
	if (m_never_folds())
		CHECK_EQ(m_now().folded_pages, 0);
	return o;
}

/* A child of fork ends well. */
__attribute__((unused))
static void m_reap(pid_t pid)
{
	int status = -1;

	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("child %d ended with status %#x", pid, (unsigned int)status);
}

struct m_case {
	const char *name;
	void (*run)(void);
};

static int m_argc __attribute__((unused));
static char **m_argv __attribute__((unused));

/* "program CASE [more]" runs one; "program --list" names them. */
__attribute__((unused))
static int m_main(const struct m_case *cases, int argc, char **argv)
{
	m_argc = argc;
	m_argv = argv;
	for (const struct m_case *c = cases; c->name; c++) {
		if (argc > 1 && strcmp(argv[1], "--list") == 0) {
			puts(c->name);
		} else if (argc > 1 && strcmp(argv[1], c->name) == 0) {
			c->run();
			return 0;
		}
	}
	if (argc > 1 && strcmp(argv[1], "--list") == 0)
		return 0;
	fprintf(stderr, "%s: no such case\n", argc > 1 ? argv[1] : "");
	return 2;
}

#endif
