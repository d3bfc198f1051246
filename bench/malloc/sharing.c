// SPDX-License-Identifier: MIT
/* False sharing.  "active": two threads each allocate small objects, write them often and free them: do they get
 * parts of one cache line?  "passive": the same after each has freed an object that the main thread allocated.
 *
 *   sharing PERCENT active|passive */
#include "bench.h"

#define WRITES 2000u
#define SIZE 8u

static long turns;

static void *run(void *given)
{
	uintptr_t sum = 0;

	free(given);
	for (long t = 0; t < turns; t++) {
		volatile unsigned char *p = take(SIZE);

		for (unsigned int i = 0; i < SIZE; i++)
			p[i] = (unsigned char)t;
		for (unsigned int w = 0; w < WRITES; w++)
			p[w % SIZE] = (unsigned char)(p[w % SIZE] + w);
		sum += p[0];
		free((void *)(uintptr_t)p);
	}
	return (void *)sum;
}

int main(int argc, char **argv)
{
	void *a = NULL, *b = NULL, *sum_a, *sum_b;
	pthread_t other;

	turns = 3000 * argument(argc, argv, 1, 100);
	if (argc > 2 && !strcmp(argv[2], "passive")) {
		a = take(SIZE);
		b = take(SIZE);
	}
	other = start(run, b);
	sum_a = run(a);
	pthread_join(other, &sum_b);
	printf("%lu\n", (unsigned long)((uintptr_t)sum_a + (uintptr_t)sum_b));
	return 0;
}
