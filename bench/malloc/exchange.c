// SPDX-License-Identifier: MIT
/* Bursts of up to 16 KB objects (the larger, the rarer) on two threads; every other burst is exchanged with the
 * other thread before it is freed.  Every byte is written once.
 *
 *   exchange PERCENT */
#include <stdatomic.h>

#include "bench.h"

#define BURST 200u
#define PLACES 8u

struct burst {
	void *block[BURST];
};

static _Atomic(struct burst *) place[PLACES];
static long turns;

static struct burst *fill(struct random *r)
{
	struct burst *b = take(sizeof(*b));

	for (unsigned int i = 0; i < BURST; i++) {
		uint64_t least = random_below(r, 16000), other = random_below(r, 16000);
		size_t n;

		/* The least of three: falls off towards the large ones. */
		if (other < least)
			least = other;
		other = random_below(r, 16000);
		if (other < least)
			least = other;
		n = 8 + (size_t)(least * least / 16000);
		b->block[i] = take(n);
		memset(b->block[i], (int)i, n);
	}
	return b;
}

static uintptr_t empty(struct burst *b)
{
	uintptr_t sum = 0;

	if (!b)
		return 0;
	for (unsigned int i = 0; i < BURST; i++) {
		sum += *(unsigned char *)b->block[i];
		free(b->block[i]);
	}
	free(b);
	return sum;
}

static void *run(void *arg)
{
	struct random r = { (uintptr_t)arg };
	uintptr_t sum = 0;

	for (long i = 0; i < turns; i++) {
		struct burst *b = fill(&r);

		if (i & 1)
			b = atomic_exchange_explicit(&place[random_below(&r, PLACES)], b, memory_order_acq_rel);
		sum += empty(b);
	}
	return (void *)sum;
}

int main(int argc, char **argv)
{
	uintptr_t sum;
	pthread_t other;
	void *theirs;

	turns = 200 * argument(argc, argv, 1, 100);
	other = start(run, (void *)2);
	sum = (uintptr_t)run((void *)1);
	pthread_join(other, &theirs);
	sum += (uintptr_t)theirs;
	for (unsigned int i = 0; i < PLACES; i++)
		sum += empty(place[i]);
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
