/* SPDX-License-Identifier: MIT */
/* What a program must not do with the heap.  Each case says "about ADDRESS", then must be ended with a message. */
#include <pthread.h>

#include "m.h"

static char object_of_the_program[256] __attribute__((aligned(64)));

static void *about(void *p)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "about %p\n", p);

	if (write(1, text, (size_t)n) != n)
		_exit(2);
	return m_hide(p);
}

/* Fill and empty the caches, so that a bad pointer among them reaches its mask. */
static void churn(size_t n)
{
	enum { N = 60000 };
	void **p = m_map(N * sizeof(*p));

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++)
			p[i] = malloc(n);
		for (int i = 0; i < N; i++)
			free(p[i]);
	}
}

static size_t bytes(void)
{
	return m_argc > 2 ? strtoul(m_argv[2], NULL, 0) : 64;
}

static void twice(void)
{
	char *p = about(malloc(bytes()));

	free(p);
	free(m_hide(p));
	churn(bytes());
}

/* Others of its class were freed in between. */
static void twice_later(void)
{
	void *p[40];

	for (int i = 0; i < 40; i++)
		p[i] = malloc(bytes());
	for (int i = 0; i < 40; i++)
		free(p[i]);
	free(about(p[3]));
	/* The cache goes back to the masks, and this shows. */
	malloc_trim(0);
	churn(bytes());
}

/* Its cache was emptied in between. */
static void twice_much_later(void)
{
	char *p = malloc(bytes()), *kept = malloc(bytes());

	free(p);
	churn(bytes() + 1000);
	malloc_trim(0);
	free(about(p));
	churn(bytes());
	free(kept);
}

static void *free_it(void *p)
{
	free(p);
	return NULL;
}

static void twice_by_threads(void)
{
	char *p = malloc(bytes());
	pthread_t t;

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(pthread_create(&t, NULL, free_it, p), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
		if (i == 0)
			about(p);
	}
	churn(bytes());
}

static void foreign_static(void)
{
	free(about(object_of_the_program + 16));
	churn(64);
}

static void foreign_stack(void)
{
	char here[128] __attribute__((aligned(64)));

	free(about(here + 32));
	churn(64);
}

static void foreign_map(void)
{
	free(about((char *)m_map(1 << 20) + 4096));
	churn(64);
}

static void foreign_low(void)
{
	free(about((void *)0x1000));
}

static void foreign_wild(void)
{
	free(about((void *)0x7ffffffff000));
}

static void middle(void)
{
	char *p = malloc(bytes());

	free(about(p + (bytes() >= 64 ? 32 : 16)));
	churn(bytes());
}

static void odd(void)
{
	char *p = malloc(bytes());

	free(about(p + 1));
	churn(bytes());
}

static void realloc_freed(void)
{
	char *p = malloc(bytes()), *q;

	free(about(p));
	q = realloc(m_hide(p), bytes() * 3 + 100);
	free(q);
	churn(bytes());
}

static void realloc_foreign(void)
{
	free(realloc(about(object_of_the_program + 16), 100));
	churn(100);
}

/* Never allocated, in a page of objects that are. */
static void never(void)
{
	enum { N = 3000 };
	static char *p[N];
	char *last = NULL;

	for (int i = 0; i < N; i++) {
		p[i] = malloc(bytes());
		if (p[i] > last)
			last = p[i];
	}
	free(about(last + ((bytes() + 15) & ~15ul) * 64));
	churn(bytes());
}

/* An object of a folded page. */
static void twice_folded(void)
{
	struct m_objects o = m_folded(1);
	char *p = o.at[o.n / 2].p;

	free(p);
	free(about(p));
	churn(o.at[o.n / 2].bytes);
}

static const struct m_case cases[] = {
	{ "twice", twice },
	{ "twice-later", twice_later },
	{ "twice-much-later", twice_much_later },
	{ "twice-by-threads", twice_by_threads },
	{ "foreign-static", foreign_static },
	{ "foreign-stack", foreign_stack },
	{ "foreign-map", foreign_map },
	{ "foreign-low", foreign_low },
	{ "foreign-wild", foreign_wild },
	{ "middle", middle },
	{ "odd", odd },
	{ "realloc-freed", realloc_freed },
	{ "realloc-foreign", realloc_foreign },
	{ "never", never },
	{ "twice-folded", twice_folded },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
