/* SPDX-License-Identifier: MIT */
/*
 * Threads that do at random what can be done with memory, against a model: address, size, seed of every object.
 * Every byte is looked at before an object is freed, resized or handed to another thread.
 *
 * model THREADS OPERATIONS SEED     prints the seed first, and at the end what the allocator did meanwhile
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "m.h"

#define OBJECTS 2500            /* that one thread holds */
#define HANDS 1024
#define PHASES 6                /* a thread ends, and another takes over what it holds, so many times */

static _Atomic(struct m_object *) hands[HANDS];
static unsigned long operations, seed;

struct worker {
	struct m_object at[OBJECTS];
	uint64_t rng;
	unsigned int phase;
};

static size_t some_size(uint64_t *rng)
{
	size_t kind = m_below(rng, 1000);

	if (kind < 750)
		return m_below(rng, 449);
	if (kind < 960)
		return m_below(rng, 5000);
	if (kind < 990)
		return m_below(rng, 40000);
	if (kind < 999)
		return m_below(rng, 200000);
	return m_below(rng, kind == 999 && m_below(rng, 12) == 0 ? 10 << 20 : 500000);
}

/* Small objects whole; of large ones what is cheap to look at. */
static size_t looked_at(const struct m_object *o)
{
	return o->bytes < 61000 ? o->bytes : 60000;
}

static void write_object(struct m_object *o, uint64_t s)
{
	o->seed = s;
	m_fill(o->p, looked_at(o), s);
	if (o->bytes >= 61000)
		m_fill(o->p + o->bytes - 1000, 1000, s);
}

static void look(const struct m_object *o)
{
	size_t n = looked_at(o), d = m_differs(o->p, n, o->seed);

	if (d != n)
		FAIL("seed %lu: byte %zu of %u at %p is not what was written there", seed, d, o->bytes, (void *)o->p);
	if (o->bytes >= 61000 && m_differs(o->p + o->bytes - 1000, 1000, o->seed) != 1000)
		FAIL("seed %lu: the end of %u bytes at %p is not what was written there", seed, o->bytes, (void *)o->p);
}

static void allocate(struct m_object *o, uint64_t *rng)
{
	size_t n = some_size(rng), align = 16;
	void *p = NULL;

	switch (m_below(rng, 12)) {
	case 0:
		p = calloc(1, n);
		if (p && !m_zero(p, n < 60000 ? n : 60000))
			FAIL("seed %lu: calloc of %zu bytes at %p is not zero", seed, n, p);
		break;
	case 1:
		align = (size_t)1 << m_below(rng, 14);
		p = memalign(align, n);
		break;
	case 2:
		align = (size_t)8 << m_below(rng, 9);
		if (posix_memalign(&p, align, n))
			p = NULL;
		break;
	case 3:
		p = realloc(NULL, n);
		break;
	default:
		p = malloc(n);
	}
	if (!p)
		FAIL("seed %lu: no %zu bytes", seed, n);
	if ((uintptr_t)p & (align - 1) || (uintptr_t)p & 15 || malloc_usable_size(p) < n)
		FAIL("seed %lu: %p for %zu bytes aligned to %zu, %zu usable", seed, p, n, align, malloc_usable_size(p));
	o->p = p;
	o->bytes = (uint32_t)n;
	write_object(o, m_random(rng));
}

static void release(struct m_object *o)
{
	look(o);
	free(o->p);
	o->p = NULL;
}

static void resize(struct m_object *o, uint64_t *rng)
{
	struct m_object was = *o;
	size_t n = 1 + (m_below(rng, 3) ? was.bytes + m_below(rng, was.bytes / 2 + 50) : some_size(rng));

	look(o);
	o->p = realloc(o->p, n);
	if (!o->p)
		FAIL("seed %lu: no %zu bytes for %u", seed, n, was.bytes);
	o->bytes = (uint32_t)n;
	n = n < was.bytes ? n : was.bytes;
	if (n > 60000)
		n = 60000;
	if (m_differs(o->p, n, was.seed) != n)
		FAIL("seed %lu: realloc from %u to %u at %p lost bytes", seed, was.bytes, o->bytes, (void *)o->p);
	write_object(o, m_random(rng));
}

/* Into a hand, and take what was there. */
static void hand(struct m_object *o, uint64_t *rng)
{
	struct m_object *box = NULL, *other;

	if (o->p) {
		box = malloc(sizeof(*box));
		CHECK(box);
		*box = *o;
		o->p = NULL;
	}
	other = atomic_exchange(&hands[m_below(rng, HANDS)], box);
	if (other) {
		*o = *other;
		free(other);
		look(o);
	}
}

/* Most of the small ones go, as at the end of a request: sparse pages stay. */
static void thin_out(struct worker *w)
{
	for (int i = 0; i < OBJECTS; i++)
		if (w->at[i].p && m_below(&w->rng, 8))
			release(&w->at[i]);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned long i = 0; i < operations / PHASES; i++) {
		struct m_object *o = &w->at[m_below(&w->rng, OBJECTS)];
		size_t what = m_below(&w->rng, 100);

		if (!o->p) {
			if (what < 90)
				allocate(o, &w->rng);
			else
				hand(o, &w->rng);
		} else if (what < 45) {
			release(o);
		} else if (what < 55) {
			resize(o, &w->rng);
		} else if (what < 70) {
			hand(o, &w->rng);
		} else if (what < 80) {
			look(o);
			write_object(o, m_random(&w->rng));
		} else {
			look(o);
		}
		if (i % 4096 == 4095) {
			thin_out(w);
			if (m_below(&w->rng, 16) == 0)
				m_fold();
		}
	}
	return NULL;
}

static void *supervise(void *arg)
{
	struct worker *w = arg;

	for (w->phase = 0; w->phase < PHASES; w->phase++) {
		pthread_t t;

		CHECK_EQ(pthread_create(&t, NULL, work, w), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long threads = argc > 1 ? strtoul(argv[1], NULL, 0) : 24;
	struct worker *w = m_map(threads * sizeof(*w));
	pthread_t t[256];

	operations = argc > 2 ? strtoul(argv[2], NULL, 0) : 60000;
	seed = argc > 3 ? strtoul(argv[3], NULL, 0) : (unsigned long)getpid();
	printf("seed %lu\n", seed);
	fflush(stdout);
	CHECK(threads >= 1 && threads <= 256);
	for (unsigned long i = 0; i < threads; i++) {
		w[i].rng = seed * 1000 + i;
		if (threads == 1)
			work(&w[0]);
		else
			CHECK_EQ(pthread_create(&t[i], NULL, supervise, &w[i]), 0);
	}
	for (unsigned long i = 0; i < threads && threads > 1; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	for (unsigned long i = 0; i < threads; i++)
		thin_out(&w[i]);
	m_fold();
	struct firn_malloc_stats s = m_now();

	for (unsigned long i = 0; i < threads; i++)
		for (int k = 0; k < OBJECTS; k++)
			if (w[i].at[k].p)
				release(&w[i].at[k]);
	for (int i = 0; i < HANDS; i++) {
		struct m_object *o = atomic_load(&hands[i]);

		if (o)
			release(o);
		free(o);
	}
	m_fold();
	struct firn_malloc_stats end = m_now();

	printf("passes %lu folds %lu failed %lu written %lu released %lu folded %lu at-end %lu why %s\n", (unsigned long)s.passes,
	       (unsigned long)end.folds, (unsigned long)end.failed_folds, (unsigned long)end.unfolds_by_write,
	       (unsigned long)end.released_pages, (unsigned long)s.folded_pages, (unsigned long)end.folded_pages,
	       end.why ? end.why : "");
	return 0;
}
