// SPDX-License-Identifier: MIT
/* Large blocks, twenty at a time, replaced at random.  "medium": 64 KiB to 4 MiB (the larger, the rarer), one byte
 * of every page written; "huge": 5 to 25 MiB, one byte of every 64 KiB.
 *
 *   large PERCENT medium|huge */
#include "bench.h"

#define BLOCKS 20u

int main(int argc, char **argv)
{
	int huge = argc > 2 && !strcmp(argv[2], "huge");
	long turns = (huge ? 30 : 400) * argument(argc, argv, 1, 100);
	static unsigned char *block[BLOCKS];
	struct random r = { 3 };
	uint64_t sum = 0;

	for (long t = 0; t < turns; t++) {
		unsigned char **b = &block[random_below(&r, BLOCKS)];
		size_t n, step = huge ? 65536 : 4096;

		if (huge) {
			n = (5u << 20) + random_below(&r, 20u << 20);
		} else {
			uint64_t x = random_below(&r, 1984);

			n = 65536 + (size_t)(x * x);
		}
		if (*b) {
			sum += (*b)[0];
			free(*b);
		}
		*b = take(n);
		for (size_t i = 0; i < n; i += step)
			(*b)[i] = (unsigned char)t;
	}
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
