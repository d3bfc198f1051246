// SPDX-License-Identifier: MIT
/* Blocks of 1 to 1000 bytes in bursts that are freed first in first out, last in first out, or every k-th now and
 * the rest later; many more small than large ones.  With two threads, what one leaves of a burst the other frees.
 *
 *   patterns PERCENT [THREADS] */
#include <stdatomic.h>

#include "bench.h"

#define BURST 1024u
#define LEFT 32u

static long turns;
static _Atomic(void *) handed[2][LEFT * 16];

static size_t pick(struct random *r)
{
	uint64_t x = random_next(r);
	unsigned int shift = (unsigned int)(x & 7);

	/* Half of them below 64 bytes, one of eight above 500. */
	return 1 + (size_t)(x >> 32 & 1023) * (shift + 1) / 8 / (shift < 5 ? 8 : 1);
}

static void *run(void *arg)
{
	unsigned int me = (unsigned int)(uintptr_t)arg;
	struct random r = { me + 1 };
	void **slot = take(BURST * sizeof(*slot));
	uintptr_t sum = 0;

	for (long t = 0; t < turns; t++) {
		unsigned int step = 2 + (unsigned int)random_below(&r, 6);

		for (unsigned int i = 0; i < BURST; i++) {
			size_t n = pick(&r);

			slot[i] = take(n);
			*(unsigned char *)slot[i] = (unsigned char)n;
		}
		/* Some are left to the other thread (or to a later turn), in place of what it left. */
		for (unsigned int i = 0; i < LEFT; i++) {
			unsigned int at = i * (BURST / LEFT), to = (unsigned int)random_below(&r, LEFT * 16);

			sum += *(unsigned char *)slot[at];
			slot[at] = atomic_exchange_explicit(&handed[!me][to], slot[at], memory_order_acq_rel);
		}
		switch (t % 3) {
		case 0:
			for (unsigned int i = 0; i < BURST; i++)
				free(slot[i]);
			break;
		case 1:
			for (unsigned int i = BURST; i--;)
				free(slot[i]);
			break;
		default:
			for (unsigned int from = 0; from < step; from++) {
				for (unsigned int i = from; i < BURST; i += step)
					free(slot[i]);
			}
		}
	}
	free(slot);
	return (void *)sum;
}

int main(int argc, char **argv)
{
	long threads = argument(argc, argv, 2, 1);
	pthread_t other = 0;
	uintptr_t sum;

	turns = 700 * argument(argc, argv, 1, 100) / threads;
	if (threads > 1)
		other = start(run, (void *)1);
	sum = (uintptr_t)run((void *)0);
	if (threads > 1) {
		void *theirs;

		pthread_join(other, &theirs);
		sum += (uintptr_t)theirs;
	}
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
