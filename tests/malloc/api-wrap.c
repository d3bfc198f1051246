/* SPDX-License-Identifier: MIT */
/*
 * A program that has a malloc of its own over glibc's __libc_ names, as some that count do: its functions are
 * called, and call on to the library's; the library's call nothing of the program's.
 */
#include <stdatomic.h>

#include "m.h"

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void *__libc_valloc(size_t n);
void *__libc_pvalloc(size_t n);
void __libc_free(void *p);

static atomic_int inside, calls;

/* Entered a second time by what it called: round in circles. */
#define ENTER() \
	do { \
		if (atomic_fetch_add(&inside, 1)) \
			FAIL("%s came back to the program", __func__); \
		atomic_fetch_add(&calls, 1); \
	} while (0)
#define LEAVE(value) \
	do { \
		__typeof__(value) v_ = (value); \
		atomic_fetch_sub(&inside, 1); \
		return v_; \
	} while (0)

void *malloc(size_t n)
{
	ENTER();
	LEAVE(__libc_malloc(n));
}

void *calloc(size_t count, size_t size)
{
	ENTER();
	LEAVE(__libc_calloc(count, size));
}

void *realloc(void *p, size_t n)
{
	ENTER();
	LEAVE(__libc_realloc(p, n));
}

void *memalign(size_t align, size_t n)
{
	ENTER();
	LEAVE(__libc_memalign(align, n));
}

void *aligned_alloc(size_t align, size_t n)
{
	ENTER();
	LEAVE(__libc_memalign(align, n));
}

void *valloc(size_t n)
{
	ENTER();
	LEAVE(__libc_valloc(n));
}

void *pvalloc(size_t n)
{
	ENTER();
	LEAVE(__libc_pvalloc(n));
}

int posix_memalign(void **ret, size_t align, size_t n)
{
	ENTER();
	*ret = __libc_memalign(align, n);
	LEAVE(*ret ? 0 : ENOMEM);
}

void free(void *p)
{
	ENTER();
	__libc_free(p);
	atomic_fetch_sub(&inside, 1);
}

static void wrapped(void)
{
	static const size_t sizes[] = { 1, 100, 448, 5000, 40000, 200000, 9 << 20 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		size_t n = sizes[i];
		int before = atomic_load(&calls);
		void *p[8] = { malloc(n), calloc(n, 1), realloc(NULL, n), memalign(64, n), aligned_alloc(4096, n), valloc(n), pvalloc(n) };

		CHECK_EQ(posix_memalign(&p[7], 128, n), 0);
		CHECK(m_zero(p[1], n));
		for (uint64_t k = 0; k < 8; k++) {
			CHECK(p[k]);
			m_fill(p[k], n, k);
		}
		for (uint64_t k = 0; k < 8; k++) {
			CHECK_FILL(p[k], n, k);
			p[k] = realloc(p[k], n * 2);
			CHECK_FILL(p[k], n, k);
			free(p[k]);
		}
		CHECK_EQ(atomic_load(&calls), before + 24);
	}
	/* What the C library allocates comes by the program's, too. */
	int before = atomic_load(&calls);

	free(strdup("text"));
	CHECK_EQ(atomic_load(&calls), before + 2);
	struct m_objects o = m_folded(1);

	m_check_all(&o);
	m_free_all(&o);
}

static const struct m_case cases[] = {
	{ "wrapped", wrapped },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
