/* SPDX-License-Identifier: MIT */
/* Sizes, alignments, limits, and what is in the memory: every function that allocates. */
#include "m.h"

static void alignment(void)
{
	for (size_t n = 0; n < 9000; n++) {
		void *p = malloc(m_size(n)), *q = calloc(1, m_size(n)), *r = realloc(NULL, m_size(n));

		CHECK(p && q && r);
		CHECK_EQ(((uintptr_t)p | (uintptr_t)q | (uintptr_t)r) % 16, 0);
		free(p);
		free(q);
		free(r);
	}
	for (unsigned int a = 0; a < 24; a++) {
		size_t align = (size_t)1 << a;
		static const size_t sizes[] = { 0, 1, 8, 16, 24, 31, 32, 33, 64, 100, 192, 448, 449, 512, 1000, 2048, 4095, 4096,
			4097, 10000, 32768, 32769, 65536, 65537, 300000, (8 << 20) - 100, 8 << 20, (8 << 20) + 1 };
		void *kept[2][sizeof(sizes) / sizeof(*sizes)];

		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			size_t n = sizes[i];

			kept[0][i] = kept[1][i] = NULL;
			if (n > 1 << 20 && a % 6)
				continue;
			void *p = NULL, *q = memalign(align, n), *r = aligned_alloc(align, n);

			CHECK(q && r);
			CHECK_EQ(((uintptr_t)q | (uintptr_t)r) % align, 0);
			CHECK(malloc_usable_size(q) >= n && malloc_usable_size(r) >= n);
			m_fill(q, malloc_usable_size(q), i);
			m_fill(r, malloc_usable_size(r), i + 1000);
			if (a >= 3) {
				errno = 77;
				CHECK_EQ(posix_memalign(&p, align, n), 0);
				CHECK(p && (uintptr_t)p % align == 0 && malloc_usable_size(p) >= n);
				m_fill(p, malloc_usable_size(p), i + 2000);
			}
			CHECK_FILL(q, malloc_usable_size(q), i);
			CHECK_FILL(r, malloc_usable_size(r), i + 1000);
			if (p)
				CHECK_FILL(p, malloc_usable_size(p), i + 2000);
			free(r);
			free(p);
			kept[0][i] = q;
			kept[1][i] = memalign(align, n);
			CHECK(kept[1][i] && (uintptr_t)kept[1][i] % align == 0);
			m_fill(kept[1][i], n, i + 3000);
		}
		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			if (!kept[0][i])
				continue;
			CHECK_FILL(kept[0][i], sizes[i], i);
			CHECK_FILL(kept[1][i], sizes[i], i + 3000);
			free(kept[0][i]);
			/* An aligned object can be resized like any other. */
			kept[1][i] = realloc(kept[1][i], sizes[i] + 100);
			CHECK(kept[1][i]);
			CHECK_FILL(kept[1][i], sizes[i], i + 3000);
			free(kept[1][i]);
		}
	}
	for (size_t n = 0; n < 20000; n += 500) {
		void *p = valloc(n), *q = pvalloc(n);

		CHECK(p && q && ((uintptr_t)p | (uintptr_t)q) % 4096 == 0);
		CHECK(malloc_usable_size(p) >= n && malloc_usable_size(q) >= (n + 4095) / 4096 * 4096);
		m_fill(q, (n + 4095) / 4096 * 4096, n);
		free(p);
		free(q);
	}
}

/* All that malloc_usable_size promises is the program's, next to objects of the same and of other sizes. */
static void usable(void)
{
	enum { N = 4000 };
	static struct { char *p; size_t n; } a[N];
	uint64_t rng = 5;

	CHECK_EQ(malloc_usable_size(NULL), 0);
	for (int i = 0; i < N; i++) {
		size_t n = i < 2500 ? (size_t)i : m_below(&rng, i % 50 ? 40000 : 400000);

		a[i].p = malloc(n);
		a[i].n = malloc_usable_size(a[i].p);
		CHECK(a[i].p && a[i].n >= n);
		m_fill(a[i].p, a[i].n, (uint64_t)i);
	}
	for (int i = 0; i < N; i++) {
		CHECK_FILL(a[i].p, a[i].n, (uint64_t)i);
		CHECK_EQ(malloc_usable_size(a[i].p), a[i].n);
	}
	for (int i = 0; i < N; i++) {
		CHECK_FILL(a[i].p, a[i].n, (uint64_t)i);
		free(a[i].p);
	}
}

static void zero(void)
{
	void *p[8] = { malloc(m_size(0)), malloc(m_size(0)), calloc(m_size(0), 8), calloc(8, m_size(0)), realloc(NULL, m_size(0)),
		memalign(64, m_size(0)), aligned_alloc(64, m_size(0)), reallocarray(NULL, m_size(0), 4) };
	void *q = NULL;

	for (int i = 0; i < 8; i++)
		for (int j = 0; j < i; j++)
			CHECK(p[i] && p[i] != p[j]);
	for (int i = 0; i < 8; i++)
		free(p[i]);
	CHECK_EQ(posix_memalign(&q, 64, 0), 0);
	free(q);
	free(valloc(m_size(0)));
	free(pvalloc(m_size(0)));
	free(NULL);
	/* The C library frees. */
	for (size_t n = 1; n < 40 << 20; n = n * 3 + 1)
		for (int i = 0; i < 100; i++)
			CHECK(!realloc(m_hide(malloc(n)), m_size(0)));
}

#define NO_MEMORY(call) \
	do { \
		errno = 0; \
		void *x_ = (call); \
		if (x_ || errno != ENOMEM) \
			FAIL("%s: %p, errno %d", #call, x_, errno); \
	} while (0)

static void limits(void)
{
	char *kept = malloc(1000), *large = malloc(100000), *huge = malloc(20 << 20);
	size_t n;
	void *p;

	CHECK(kept && large && huge);
	m_fill(kept, 1000, 1);
	m_fill(large, 100000, 2);
	m_fill(huge, 20 << 20, 3);
	for (unsigned int i = 0; i < 6000; i++) {
		/* PTRDIFF_MAX is the first that is too large, and nothing above it wraps around to something small. */
		static const size_t from[] = { PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX / 4 * 3, PTRDIFF_MAX - 70000,
			SIZE_MAX - 70000, SIZE_MAX - 140000 };

		n = m_size(from[i % 7] - i / 7 * 13);
		NO_MEMORY(malloc(n));
		NO_MEMORY(calloc(1, n));
		NO_MEMORY(calloc(n, 1));
		NO_MEMORY(realloc(NULL, n));
		NO_MEMORY(realloc(kept, n));
		NO_MEMORY(realloc(large, n));
		NO_MEMORY(realloc(huge, n));
		NO_MEMORY(reallocarray(kept, n, 1));
		NO_MEMORY(reallocarray(kept, 1, n));
		NO_MEMORY(memalign(64, n));
		NO_MEMORY(memalign(1 << 20, n));
		NO_MEMORY(aligned_alloc(4096, n));
		NO_MEMORY(valloc(n));
		NO_MEMORY(pvalloc(n));
		p = kept;
		CHECK_EQ(posix_memalign(&p, 64, n), ENOMEM);
		CHECK(p == kept);
	}
	for (unsigned int a = 3; a < 64; a++) {
		for (n = PTRDIFF_MAX - 9; n < (size_t)PTRDIFF_MAX + 9; n++)
			NO_MEMORY(memalign((size_t)1 << a, m_size(n)));
		if (a >= 48)
			NO_MEMORY(aligned_alloc((size_t)1 << a, m_size(100)));
	}
	CHECK_FILL(kept, 1000, 1);
	CHECK_FILL(large, 100000, 2);
	CHECK_FILL(huge, 20 << 20, 3);
	free(kept);
	free(large);
	free(huge);
}

static void overflow(void)
{
	void *kept = malloc(100);

	m_fill(kept, 100, 9);
	for (unsigned int i = 1; i < 64; i++) {
		size_t a = (size_t)1 << i, b = (size_t)1 << (64 - i);

		for (size_t d = 0; d < 3; d++) {
			NO_MEMORY(calloc(m_size(a), m_size(b + d)));
			NO_MEMORY(calloc(m_size(a + d), m_size(b)));
			NO_MEMORY(reallocarray(NULL, m_size(a), m_size(b + d)));
			NO_MEMORY(reallocarray(kept, m_size(a + d), m_size(b)));
		}
	}
	NO_MEMORY(calloc(m_size(SIZE_MAX), m_size(SIZE_MAX)));
	NO_MEMORY(reallocarray(kept, m_size(SIZE_MAX), m_size(SIZE_MAX)));
	NO_MEMORY(calloc(m_size(SIZE_MAX / 3 + 1), 3));
	CHECK_FILL(kept, 100, 9);
	kept = reallocarray(kept, 50, 40);
	CHECK(kept && malloc_usable_size(kept) >= 2000);
	CHECK_FILL(kept, 100, 9);
	free(kept);
}

/* Alignments that are none: an error, or (memalign, aligned_alloc) the next power of two. */
static void bad_alignment(void)
{
	static const size_t bad[] = { 3, 5, 24, 48, 100, 4095, 4097, 65537, (1 << 20) + 8 };
	int here;
	void *p = &here;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t up = 1;

		while (up < bad[i])
			up *= 2;
		CHECK_EQ(posix_memalign(&p, bad[i], 100), EINVAL);
		for (int f = 0; f < 2; f++) {
			errno = 0;
			void *q = f ? memalign(m_size(bad[i]), 100) : aligned_alloc(m_size(bad[i]), 100);

			if (q) {
				CHECK_EQ((uintptr_t)q % up, 0);
				m_fill(q, 100, i);
				free(q);
			} else {
				CHECK_EQ(errno, EINVAL);
			}
		}
	}
	CHECK_EQ(posix_memalign(&p, 0, 100), EINVAL);
	CHECK_EQ(posix_memalign(&p, 1, 100), EINVAL);
	CHECK_EQ(posix_memalign(&p, 2, 100), EINVAL);
	CHECK_EQ(posix_memalign(&p, 4, 100), EINVAL);
	CHECK_EQ(posix_memalign(&p, SIZE_MAX, 100), EINVAL);
	CHECK_EQ(posix_memalign(&p, SIZE_MAX / 2 + 2, 100), EINVAL);
	CHECK(p == &here);
	for (size_t a = SIZE_MAX / 2 + 2; a; a = a < SIZE_MAX - 5 ? SIZE_MAX - 5 : a + 1) {
		errno = 0;
		CHECK(!memalign(m_size(a), 100));
		CHECK(errno == EINVAL || errno == ENOMEM);
	}
	free(memalign(m_size(0), 100));
	errno = 0;
	p = aligned_alloc(m_size(0), 100);
	CHECK(p || errno == EINVAL);
	free(p);
}

static const size_t steps[] = { 1, 15, 16, 17, 100, 440, 448, 449, 512, 1000, 4000, 4096, 4097, 16000, 32000, 32768, 32769, 65000,
	65536, 65537, 100000, 131072, 131073, 500000, (8 << 20) - 65536, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, (8 << 20) + 70000,
	12 << 20, 30 << 20 };
#define STEPS (sizeof(steps) / sizeof(*steps))

/* All of what is small; of what is large, a piece of each page. */
static void fill_some(char *p, size_t n, uint64_t seed)
{
	size_t all = n < 40000 ? n : 40000;

	m_fill(p, all, seed);
	for (size_t at = 40960; at + 64 <= n; at += 4096)
		m_fill(p + at, 64, seed + at);
}

static void check_some(const char *p, size_t n, uint64_t seed)
{
	size_t all = n < 40000 ? n : 40000;

	CHECK_FILL(p, all, seed);
	for (size_t at = 40960; at + 64 <= n; at += 4096)
		CHECK_FILL(p + at, 64, seed + at);
}

/* From every size to every other and on, with neighbours: contents stay. */
static void resize(void)
{
	for (size_t i = 0; i < STEPS; i++) {
		for (size_t j = 0; j < STEPS; j++) {
			size_t n = steps[i], m = steps[j], least = n < m ? n : m;

			if (n + m > 20 << 20 && (i + j) % 8)
				continue;
			char *before = malloc(n), *p = malloc(n), *after = malloc(n);

			CHECK(before && p && after);
			fill_some(p, n, i);
			m_fill(before, n < 5000 ? n : 5000, i + 1);
			m_fill(after, n < 5000 ? n : 5000, i + 2);
			errno = 55;
			p = realloc(p, m);
			CHECK(p && malloc_usable_size(p) >= m && (uintptr_t)p % 16 == 0);
			CHECK_EQ(errno, 55);
			check_some(p, least, i);
			fill_some(p, m, j);
			CHECK_FILL(before, n < 5000 ? n : 5000, i + 1);
			CHECK_FILL(after, n < 5000 ? n : 5000, i + 2);
			free(before);
			p = realloc(p, n);
			CHECK(p);
			check_some(p, least, j);
			free(after);
			free(p);
		}
	}
}

/* Growth by a little at a time, of a few at once, as strings and vectors grow; then down again. */
static void resize_walk(void)
{
	enum { N = 8 };
	char *p[N] = { NULL };
	size_t n[N] = { 0 }, m;
	uint64_t rng = 7;

	for (int round = 0; round < 5000; round++) {
		size_t i = m_below(&rng, N), limit = i == 0 ? 20 << 20 : i < 4 ? 300000 : 5000;

		if (round % 3 == 0)
			m = n[i] * 3 / 2 + 1;
		else if (round % 7 == 0)
			m = n[i] - n[i] / 3;
		else
			m = n[i] + m_below(&rng, 200);
		if (m == 0 || m > limit)
			m = 1 + m_below(&rng, 64);
		p[i] = realloc(p[i], m);
		CHECK(p[i]);
		/* All that was there, where it is small; else its ends. */
		size_t least = n[i] < m ? n[i] : m;

		if (least <= 20000 || round % 100 == 0) {
			CHECK_FILL(p[i], least, i);
		} else {
			CHECK_FILL(p[i], 4096, i);
		}
		m_fill(p[i], m <= 20000 || m > n[i] ? m : 4096, i);
		n[i] = m;
	}
	for (int i = 0; i < N; i++)
		free(p[i]);
}

static void dirty(size_t n, unsigned int count)
{
	char **p = m_map(count * sizeof(*p));

	for (unsigned int i = 0; i < count; i++) {
		p[i] = malloc(n);
		CHECK(p[i]);
		memset(p[i], 0xa5, malloc_usable_size(p[i]));
	}
	for (unsigned int i = 0; i < count; i++)
		free(p[(i * 7919u) % count]);
	munmap(p, count * sizeof(*p));
}

static void clean(size_t n, unsigned int count)
{
	char **p = m_map(count * sizeof(*p));

	for (unsigned int i = 0; i < count; i++) {
		p[i] = i % 2 ? calloc(1, n) : calloc(n, 1);
		CHECK(p[i]);
		if (!m_zero(p[i], n))
			FAIL("calloc of %zu bytes is not zero", n);
		memset(p[i], 0xc3, malloc_usable_size(p[i]));
	}
	for (unsigned int i = 0; i < count; i++)
		free(p[i]);
	munmap(p, count * sizeof(*p));
}

/* calloc is zero: fresh, after use, after memory went back to the system, and next to a shrunk neighbour. */
static void calloc_zero(void)
{
	for (size_t i = 0; i < STEPS; i++) {
		size_t n = steps[i];
		unsigned int count = n < 5000 ? 1009 : n < 100000 ? 51 : n < 1000000 ? 5 : 1;

		clean(n, count);
		dirty(n, count);
		clean(n, count);
		if (i % 4 == 0)
			malloc_trim(0);
		clean(n, count);
		if (n > 1000) {
			char *p = malloc(n), *q;

			memset(p, 0x77, malloc_usable_size(p));
			q = realloc(p, n / 3);
			clean(n / 3, 2);
			clean(n / 2, 2);
			free(q);
			clean(n, 2);
		}
	}
}

/* The same where pages were folded, written and given back. */
static void calloc_folded(void)
{
	for (unsigned int round = 0; round < 4; round++) {
		struct m_objects o = m_folded(round);

		clean(64, 5000);
		clean(400, 5000);
		m_check_all(&o);
		if (round & 1)
			m_rewrite(&o, 99);
		for (size_t i = 0; i < o.n / 2; i++)
			free(o.at[i].p);
		clean(24, 9000);
		clean(440, 9000);
		m_fold();
		clean(128, 5000);
		for (size_t i = o.n / 2; i < o.n; i++) {
			CHECK_FILL(o.at[i].p, o.at[i].bytes, o.at[i].seed);
			free(o.at[i].p);
		}
		clean(64, 9000);
		clean(16, 9000);
		clean(300, 9000);
		malloc_trim(0);
		clean(64, 9000);
	}
}

static void errno_kept(void)
{
	for (size_t i = 0; i < STEPS; i++) {
		for (unsigned int round = 0; round < 40; round++) {
			void *p[50], *q;

			for (int k = 0; k < 50; k++) {
				errno = 4321;
				p[k] = k % 5 == 0 ? memalign(64, steps[i]) : k % 5 == 1 ? calloc(1, steps[i]) : malloc(steps[i]);
				CHECK_EQ(errno, 4321);
				if (steps[i] > 1000000)
					break;
			}
			for (int k = 0; k < 50; k++) {
				errno = 1234;
				free(p[k]);
				CHECK_EQ(errno, 1234);
				if (steps[i] > 1000000)
					break;
			}
			errno = 99;
			CHECK_EQ(posix_memalign(&q, 4096, steps[i]), 0);
			malloc_usable_size(q);
			free(q);
			free(NULL);
			CHECK_EQ(errno, 99);
		}
	}
	errno = 42;
	malloc_trim(0);
	CHECK_EQ(errno, 42);
	struct m_objects o = m_folded(3);

	for (size_t i = 0; i < o.n; i++) {
		errno = 4242;
		free(o.at[i].p);
		CHECK_EQ(errno, 4242);
	}
}

static void limit_memory(size_t bytes)
{
	struct rlimit r = { bytes, bytes };

	CHECK_EQ(setrlimit(RLIMIT_AS, &r), 0);
}

/* What the address space holds already. */
static size_t mapped(void)
{
	size_t pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%zu", &pages) == 1);
	fclose(f);
	return pages * 4096;
}

/* Memory is out: NULL and ENOMEM from each, what was there stays, and memory that is freed can be had again. */
static void no_memory(void)
{
	enum { N = 1 << 21 };
	char **p = m_map(N * sizeof(*p));
	char *kept = malloc(3000), *large = malloc(200000), *huge = malloc(20 << 20);
	size_t first = 0, kept_bytes = 3000;

	m_fill(kept, kept_bytes, 1);
	m_fill(large, 200000, 2);
	m_fill(huge, 20 << 20, 3);
	limit_memory(mapped() + (100 << 20));
	for (int round = 0; round < 3; round++) {
		size_t n = 0;

		/* Down from large to small until nothing of any size is left. */
		for (size_t size = 1 << 20; size >= 16; size = size > 70000 ? size / 4 : size / 3) {
			for (; n < N; n++) {
				errno = 0;
				p[n] = malloc(size);
				if (!p[n]) {
					CHECK_EQ(errno, ENOMEM);
					break;
				}
				m_fill(p[n], 16, n);
			}
		}
		CHECK(n > 100 && n < N);
		if (!round)
			first = n;
		else if (n < first / 2)
			FAIL("%zu objects at first, %zu in round %d", first, n, round);
		NO_MEMORY(malloc(64 << 20));
		NO_MEMORY(calloc(1, 64 << 20));
		NO_MEMORY(realloc(kept, 64 << 20));
		NO_MEMORY(realloc(large, 64 << 20));
		NO_MEMORY(realloc(huge, 200 << 20));
		NO_MEMORY(memalign(4096, 64 << 20));
		NO_MEMORY(aligned_alloc(1 << 16, 64 << 20));
		NO_MEMORY(valloc(64 << 20));
		NO_MEMORY(pvalloc(64 << 20));
		NO_MEMORY(reallocarray(kept, 64, 1 << 20));
		void *q = NULL;

		CHECK_EQ(posix_memalign(&q, 256, 64 << 20), ENOMEM);
		malloc_trim(0);
		m_fold();
		CHECK_FILL(kept, kept_bytes, 1);
		CHECK_FILL(large, 200000, 2);
		CHECK_FILL(huge, 20 << 20, 3);
		for (size_t i = 0; i < n; i++) {
			CHECK_FILL(p[i], 16, i);
			errno = 7;
			free(p[i]);
			CHECK_EQ(errno, 7);
		}
		/* Shrinking needs no memory. */
		kept = realloc(kept, --kept_bytes);
		CHECK(kept);
	}
	p[0] = malloc(16 << 20);
	CHECK(p[0]);
	memset(p[0], 1, 16 << 20);
	free(p[0]);
	free(kept);
	free(large);
	free(huge);
}

static const struct m_case cases[] = {
	{ "alignment", alignment },
	{ "usable", usable },
	{ "zero", zero },
	{ "limits", limits },
	{ "overflow", overflow },
	{ "bad-alignment", bad_alignment },
	{ "resize", resize },
	{ "resize-walk", resize_walk },
	{ "calloc-zero", calloc_zero },
	{ "calloc-folded", calloc_folded },
	{ "errno", errno_kept },
	{ "no-memory", no_memory },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
