// SPDX-License-Identifier: MIT
/* Threads that come and go: each allocates objects of its own, exchanges some with a common table, keeps some until
 * it ends, and leaves what it put into the table behind.  Two threads at a time, some thousand in all.
 *
 *   churn PERCENT */
#include <stdatomic.h>

#include "bench.h"

#define SHARED 1000u
#define OWN 400u

static _Atomic(void *) shared[SHARED];

static void *block(struct random *r)
{
	uint64_t x = random_next(r);
	/* Mostly small; one of 64 up to 2 KiB, one of 1024 up to 64 KiB. */
	size_t n = 16 + (x >> 32 & 127), *p;

	if (!(x & 1023))
		n *= 500;
	else if (!(x & 63))
		n *= 16;
	p = take(n);
	p[0] = n;
	((unsigned char *)p)[n - 1] = (unsigned char)(n ^ 0x5a);
	return p;
}

static void check_free(void *block)
{
	size_t *p = block;

	if (!p)
		return;
	if (((unsigned char *)p)[p[0] - 1] != (unsigned char)((p[0] ^ 0x5a)) && p[0] > 16) {
		fputs("a block was overwritten\n", stderr);
		abort();
	}
	free(p);
}

static void *live(void *arg)
{
	struct random r = { (uintptr_t)arg };
	void *own[OWN] = { NULL };

	for (unsigned int i = 0; i < OWN * 6; i++) {
		unsigned int at = (unsigned int)random_below(&r, OWN);

		check_free(own[at]);
		own[at] = block(&r);
		if (!random_below(&r, 5)) {
			unsigned int to = (unsigned int)random_below(&r, SHARED);

			own[at] = atomic_exchange_explicit(&shared[to], own[at], memory_order_acq_rel);
		}
	}
	for (unsigned int i = 0; i < OWN; i++)
		check_free(own[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	long turns = 25 * argument(argc, argv, 1, 100);

	for (long t = 0; t < turns; t++) {
		pthread_t a = start(live, (void *)(2 * t + 1)), b = start(live, (void *)(2 * t + 2));

		pthread_join(a, NULL);
		pthread_join(b, NULL);
	}
	for (unsigned int i = 0; i < SHARED; i++)
		check_free(shared[i]);
	printf("%ld\n", turns);
	return 0;
}
