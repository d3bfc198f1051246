// SPDX-License-Identifier: MIT
/* A table of objects whose sizes follow a Pareto distribution (most are small, some are large), replaced at random.
 *
 *   replace PERCENT [THREADS] */
#include <math.h>

#include "bench.h"

#define OBJECTS (1u << 15)
#define SIZES 4096u
#define SIZE_LEAST 16.0
#define SIZE_MOST 16000u

static uint16_t sizes[SIZES];
static long turns;

static void *run(void *arg)
{
	struct random r = { (uintptr_t)arg };
	unsigned char **table = need(calloc(OBJECTS, sizeof(*table)));
	uint64_t sum = 0;

	for (long i = 0; i < turns; i++) {
		uint64_t x = random_next(&r);
		unsigned int at = (unsigned int)(x & (OBJECTS - 1)), n = sizes[(x >> 20) % SIZES];

		if (table[at]) {
			sum += table[at][0];
			free(table[at]);
		}
		table[at] = take(n);
		table[at][0] = table[at][n - 1] = (unsigned char)x;
	}
	for (unsigned int i = 0; i < OBJECTS; i++)
		free(table[i]);
	free(table);
	return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv)
{
	long threads = argument(argc, argv, 2, 1);
	struct random r = { 1 };
	pthread_t other = 0;
	uintptr_t sum;

	turns = 350000 * argument(argc, argv, 1, 100) / threads;
	for (unsigned int i = 0; i < SIZES; i++) {
		double u = (double)(random_next(&r) >> 11) / 9007199254740992.0;
		double n = SIZE_LEAST / pow(1.0 - u, 1.0 / 1.2);

		sizes[i] = n > SIZE_MOST ? SIZE_MOST : (uint16_t)n;
	}
	if (threads > 1)
		other = start(run, (void *)7);
	sum = (uintptr_t)run((void *)5);
	if (threads > 1) {
		void *theirs;

		pthread_join(other, &theirs);
		sum += (uintptr_t)theirs;
	}
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
