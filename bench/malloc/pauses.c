// SPDX-License-Identifier: MIT
/* How long does a thread wait for the allocator?  One thread builds a heap of MIB, frees 85 % of it at random, goes
 * on with light traffic for some seconds, frees the rest, and starts again; each of its calls is timed.  Another
 * spins: it reads a clock and writes objects of its own, which may be folded, and notes when the clock jumped.
 * Writes "name value" lines; nanoseconds.
 *
 *   pauses SECONDS MIB [TRAFFIC_SECONDS] */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "bench.h"
#include "firn/malloc.h"

#define STALL_NS 20000u                 /* less is the machine's own noise: an interrupt */
#define SPINNER_OBJECTS 20000u

/* Counts by time: sixteen steps a doubling. */
struct histogram {
	uint64_t count[64 * 16], n, total, longest;
};

static void note(struct histogram *h, uint64_t ns)
{
	unsigned int log = ns < 16 ? 3 : 63 - (unsigned int)__builtin_clzll(ns);
	unsigned int at = ns < 16 ? (unsigned int)ns : log * 16 + ((unsigned int)(ns >> (log - 4)) & 15);

	h->count[at]++;
	h->n++;
	h->total += ns;
	if (ns > h->longest)
		h->longest = ns;
}

static uint64_t percentile(const struct histogram *h, double part)
{
	uint64_t before = 0, rank = (uint64_t)((double)h->n * part);

	for (unsigned int i = 0; i < 64 * 16; i++) {
		before += h->count[i];
		if (before > rank)
			return i < 16 ? i : (16 + (uint64_t)(i & 15)) << (i / 16 - 4);
	}
	return h->longest;
}

static void print(const char *name, const struct histogram *h)
{
	printf("%s_n %lu\n%s_p50 %lu\n%s_p99 %lu\n%s_p999 %lu\n%s_max %lu\n%s_total %lu\n", name, (unsigned long)h->n, name,
	       (unsigned long)percentile(h, 0.5), name, (unsigned long)percentile(h, 0.99), name,
	       (unsigned long)percentile(h, 0.999), name, (unsigned long)h->longest, name, (unsigned long)h->total);
}

static struct histogram mallocs, frees, stalls;
static atomic_bool over;
static uint64_t spun_ns;

static void *spin(void *arg)
{
	static uint64_t *object[SPINNER_OBJECTS];
	struct random r = { 77 };
	uint64_t begun, before;

	(void)arg;
	for (unsigned int i = 0; i < SPINNER_OBJECTS; i++)
		object[i] = need(calloc(1, 16 + 16 * random_below(&r, 8)));
	/* Sparse, so that they are folded too. */
	for (unsigned int i = 0; i < SPINNER_OBJECTS; i++) {
		if (i % 8) {
			free(object[i]);
			object[i] = NULL;
		}
	}
	begun = before = now_ns();
	for (uint64_t turn = 0; !atomic_load_explicit(&over, memory_order_relaxed); turn++) {
		uint64_t now;

		/* One of them is written every now and then: folded pages are mostly read. */
		if (!(turn & 0xffff))
			++*object[random_below(&r, SPINNER_OBJECTS / 8) * 8];
		now = now_ns();
		if (now - before >= STALL_NS)
			note(&stalls, now - before);
		before = now;
	}
	spun_ns = before - begun;
	return NULL;
}

static void *timed_malloc(size_t n)
{
	uint64_t begun = now_ns();
	void *p = malloc(n);

	note(&mallocs, now_ns() - begun);
	return need(p);
}

static void timed_free(void *p)
{
	uint64_t begun = now_ns();

	free(p);
	note(&frees, now_ns() - begun);
}

static void cycle(void **slot, unsigned int n, double traffic_seconds, uint64_t end, struct random *r)
{
	uint64_t until;

	for (unsigned int i = 0; i < n; i++) {
		size_t size = 16 + 16 * random_below(r, 24);

		slot[i] = timed_malloc(size);
		memset(slot[i], (int)i, size);
	}
	for (unsigned int i = 0; i < n; i++) {
		if (random_below(r, 100) < 85) {
			timed_free(slot[i]);
			slot[i] = NULL;
		}
	}
	for (until = now_ns() + (uint64_t)(traffic_seconds * 1e9); now_ns() < until && now_ns() < end;) {
		for (unsigned int i = 0; i < 50; i++) {
			unsigned int at = (unsigned int)random_below(r, n);

			if (slot[at])
				timed_free(slot[at]);
			slot[at] = timed_malloc(16 + 16 * random_below(r, 24));
			if (random_below(r, 100) < 85) {
				timed_free(slot[at]);
				slot[at] = NULL;
			}
		}
		usleep(2000);
	}
	for (unsigned int i = 0; i < n; i++) {
		if (slot[i])
			timed_free(slot[i]);
	}
}

static void print_own(void)
{
	int (*ask)(struct firn_malloc_stats *);
	struct firn_malloc_stats s = { .size = sizeof(s) };
	struct histogram own = { .n = 0 };
	void *found = dlsym(RTLD_DEFAULT, "firn_malloc_stats");

	memcpy(&ask, &found, sizeof(ask));
	if (!ask || ask(&s))
		return;
	for (unsigned int i = 0; i < FIRN_MALLOC_PAUSES; i++) {
		/* The upper end of each: what is said is no less than what was. */
		for (uint64_t k = 0; k < s.pauses[i]; k++)
			note(&own, (2ull << i) - 1 < s.longest_pause_ns ? (2ull << i) - 1 : s.longest_pause_ns);
	}
	print("own", &own);
	printf("fold_ns %lu\npasses %lu\nfolds %lu\nstops %lu\nbarrier %d\n", (unsigned long)s.fold_ns,
	       (unsigned long)s.passes, (unsigned long)s.folds, (unsigned long)s.stops, (int)s.barrier);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, traffic_seconds = argc > 3 ? atof(argv[3]) : 4;
	unsigned int n = (unsigned int)((argument(argc, argv, 2, 96) << 20) / 200);     /* the mean size */
	uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9);
	void **slot = need(calloc(n, sizeof(*slot)));
	struct random r = { 5 };
	pthread_t spinner = start(spin, NULL);

	while (now_ns() < end)
		cycle(slot, n, traffic_seconds, end, &r);
	print_own();
	atomic_store(&over, true);
	pthread_join(spinner, NULL);
	print("malloc", &mallocs);
	print("free", &frees);
	print("stall", &stalls);
	printf("spun_ns %lu\nwall_ns %lu\n", (unsigned long)spun_ns, (unsigned long)(now_ns() - begun));
	return 0;
}
