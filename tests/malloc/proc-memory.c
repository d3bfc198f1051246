/* SPDX-License-Identifier: MIT */
/*
 * Where the memory of a folded heap is: swapped out and back, in several windows of a large heap, and in frames of
 * its own where the program wants that.
 */
#include <fcntl.h>

#include "m.h"

#define PAGE ((uintptr_t)4096)
#define WINDOW ((uintptr_t)256 << 20)   /* what one pass looks at */

/* A line for the test, and its answer. */
static void tell(const char *what)
{
	char line[8];

	printf("%s\n", what);
	fflush(stdout);
	CHECK(fgets(line, sizeof(line), stdin));
}

/* swapped: the test has the memory swapped out after each line. */
static void swapped(void)
{
	struct m_objects o = m_folded(21);

	tell("out");
	m_check_all(&o);
	tell("out again");
	/* Written as it comes back. */
	m_rewrite(&o, 5);
	m_check_all(&o);
	m_fold();
	m_check_all(&o);
	tell("out at the end");
	for (size_t i = 0; i < o.n; i += 2) {
		free(o.at[i].p);
		o.at[i].p = malloc(o.at[i].bytes);
		m_fill(o.at[i].p, o.at[i].bytes, o.at[i].seed);
	}
	m_check_all(&o);
	m_free_all(&o);
}

/* Is what is mapped at @p a frame that it shares, or the kernel's page of a file? */
static bool of_frame(const void *p)
{
	static int pagemap = -1;
	uint64_t entry;

	(void)*(volatile const char *)p;
	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)p / PAGE * sizeof(entry))), sizeof(entry));
	return entry >> 61 & 1;
}

static size_t of_frames(const struct m_objects *o)
{
	size_t n = 0;

	for (size_t i = 0; i < o->n; i++)
		n += of_frame(o->at[i].p);
	return n;
}

/* Of those that there are one in @of stays. */
static void thin_out(struct m_objects *o, unsigned int of, uint64_t seed)
{
	size_t n = 0;

	for (size_t i = 0; i < o->n; i++) {
		if (m_below(&seed, of))
			free(o->at[i].p);
		else
			o->at[n++] = o->at[i];
	}
	o->n = n;
}

/* Several windows of addresses, with large blocks that nobody touches in between. */
static void windows(void)
{
	enum { SETS = 4, BLOCK = 4 << 20, BLOCKS = 70 };
	struct m_objects o[SETS];
	char *block[SETS][BLOCKS];

	for (uint64_t s = 0; s < SETS; s++) {
		o[s] = m_sparse(100000, 16, 440, 1, s);
		for (int i = 0; i < BLOCKS; i++) {
			block[s][i] = malloc(BLOCK);
			CHECK(block[s][i]);
		}
	}
	for (uint64_t s = 0; s < SETS; s++)
		thin_out(&o[s], 16, s);
	m_fold();
	for (int s = 0; s < SETS; s++) {
		if (m_firn() && s)
			CHECK((uintptr_t)o[s].at[o[s].n / 2].p - (uintptr_t)o[s - 1].at[o[s - 1].n / 2].p > WINDOW);
		m_check_all(&o[s]);
		if (m_folds() && of_frames(&o[s]) < o[s].n / 4)
			FAIL("only %zu of %zu objects of set %d are in folded pages", of_frames(&o[s]), o[s].n, s);
		m_rewrite(&o[s], 7);
	}
	m_fold();
	for (int s = 0; s < SETS; s++) {
		m_check_all(&o[s]);
		m_free_all(&o[s]);
		for (int i = 0; i < BLOCKS; i++)
			free(block[s][i]);
	}
}

/* Named memory has frames of its own, before a fold and after it; the rest is folded. */
static void never_fold(void)
{
	struct m_objects o = m_sparse(120000, 16, 440, 16, 31);
	bool *named = m_map(o.n);
	size_t others = 0, before = 0;

	if (!m_firn())
		return;
	CHECK_EQ(m_never_fold(o.at[0].p, 0), 0);
	CHECK_EQ(m_never_fold(&before, 8), -EINVAL);
	CHECK_EQ(m_never_fold(o.at[0].p, SIZE_MAX), -EINVAL);
	for (size_t i = 0; i < o.n; i += 20) {
		named[i] = true;
		CHECK_EQ(m_never_fold(o.at[i].p, o.at[i].bytes), 0);
	}
	m_fold();
	for (size_t i = 0; i < o.n; i++) {
		if (named[i] && of_frame(o.at[i].p))
			FAIL("%p was folded", (void *)o.at[i].p);
		others += of_frame(o.at[i].p);
	}
	CHECK(!m_folds() || others > o.n / 4);
	/* And of those that are folded now. */
	for (size_t i = 10; i < o.n; i += 20) {
		before += of_frame(o.at[i].p);
		named[i] = true;
		CHECK_EQ(m_never_fold(o.at[i].p, o.at[i].bytes), 0);
		if (of_frame(o.at[i].p))
			FAIL("%p is still on its frame", (void *)o.at[i].p);
	}
	CHECK(!m_folds() || before > 100);
	m_check_all(&o);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < o.n; i++)
			if (!named[i])
				m_fill(o.at[i].p, o.at[i].bytes, o.at[i].seed);
		m_fold();
	}
	for (size_t i = 0; i < o.n; i++)
		if (named[i] && of_frame(o.at[i].p))
			FAIL("%p was folded later", (void *)o.at[i].p);
	m_check_all(&o);
	m_free_all(&o);
}

/*
 * Pages that became empty, while the span they are in did not, make up for new memory at once: what is held does not
 * grow meanwhile.  The test lets nothing decay.
 */
static void instead(void)
{
	enum { SMALL = 64, OTHER = 512 };
	const size_t n = (32 << 20) / SMALL, more = (24 << 20) / OTHER;
	char **p = m_map((n + more) * sizeof(*p)), **q = p + n;
	uint64_t before, after;
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		p[i] = malloc(SMALL);
		CHECK(p[i]);
		m_fill(p[i], SMALL, i);
	}
	/* The first page of each 64 KiB stays. */
	for (size_t i = 0; i < n; i++) {
		if ((uintptr_t)p[i] / PAGE % 16) {
			free(p[i]);
			p[i] = NULL;
		} else {
			kept++;
		}
	}
	before = m_now().touched_bytes;
	for (size_t i = 0; i < more; i++) {
		q[i] = malloc(OTHER);
		CHECK(q[i]);
		m_fill(q[i], OTHER, i);
	}
	after = m_now().touched_bytes;
	CHECK(kept > n / 32);
	if (m_firn() && after > before + (4 << 20))
		FAIL("%lu bytes are held, %lu were", (unsigned long)after, (unsigned long)before);
	for (size_t i = 0; i < n; i++) {
		if (p[i])
			CHECK_FILL(p[i], SMALL, i);
		free(p[i]);
	}
	for (size_t i = 0; i < more; i++) {
		CHECK_FILL(q[i], OTHER, i);
		free(q[i]);
	}
}

static const struct m_case cases[] = {
	{ "swapped", swapped },
	{ "windows", windows },
	{ "never-fold", never_fold },
	{ "instead", instead },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
