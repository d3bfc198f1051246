// SPDX-License-Identifier: MIT
/* Batches of one size: allocate them all, then free them, in order or reversed; from one object to 4000, over
 * many sizes.  The bare fast path.
 *
 *   batches PERCENT [THREADS] */
#include "bench.h"

#define MOST 4000u

static const uint16_t batch[] = { 1, 5, 25, 100, 400, 1600, MOST };
static const uint16_t size[] = { 8, 24, 56, 100, 192, 384, 800 };
static long objects;                    /* of each batch and size */

static void *run(void *arg)
{
	void **slot = take(MOST * sizeof(*slot));
	uintptr_t sum = (uintptr_t)arg;

	for (unsigned int b = 0; b < sizeof(batch) / sizeof(*batch); b++) {
		for (unsigned int s = 0; s < sizeof(size) / sizeof(*size); s++) {
			long turns = objects / batch[b];

			for (long t = 0; t < turns; t++) {
				for (unsigned int i = 0; i < batch[b]; i++) {
					slot[i] = take(size[s]);
					*(unsigned int *)slot[i] = i;
				}
				for (unsigned int i = 0; i < batch[b]; i++) {
					void *p = slot[t & 1 ? i : batch[b] - 1u - i];

					sum += *(unsigned int *)p;
					free(p);
				}
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

	objects = 20000 * argument(argc, argv, 1, 100) / threads;
	if (threads > 1)
		other = start(run, NULL);
	sum = (uintptr_t)run(NULL);
	if (threads > 1) {
		void *theirs;

		pthread_join(other, &theirs);
		sum += (uintptr_t)theirs;
	}
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
