// SPDX-License-Identifier: MIT
/* A server: each connection is a table of objects, replaced at random by the thread that serves it; after a while
 * the thread ends and a new one takes the table over, so most objects are freed by another thread than the one
 * that allocated them.  Two threads at a time.
 *
 *   server PERCENT */
#include "bench.h"

#define OBJECTS 5000u
#define SIZE_LEAST 8u
#define SIZE_MOST 1000u
#define SHIFTS 20u

struct connection {
	struct random r;
	long turns;
	uint64_t sum;
	unsigned char *object[OBJECTS];
};

static void replace(struct connection *c, unsigned int at)
{
	size_t n = SIZE_LEAST + random_below(&c->r, SIZE_MOST - SIZE_LEAST);

	if (c->object[at]) {
		c->sum += c->object[at][0];
		free(c->object[at]);
	}
	c->object[at] = take(n);
	c->object[at][0] = (unsigned char)n;
	c->object[at][n - 1] = (unsigned char)at;
}

static void *serve(void *arg)
{
	struct connection *c = arg;

	for (long i = 0; i < c->turns; i++)
		replace(c, (unsigned int)random_below(&c->r, OBJECTS));
	return NULL;
}

int main(int argc, char **argv)
{
	static struct connection connection[2];
	long turns = 7000 * argument(argc, argv, 1, 100);

	for (unsigned int k = 0; k < 2; k++) {
		connection[k].r.state = k + 1;
		connection[k].turns = turns;
		for (unsigned int i = 0; i < OBJECTS; i++)
			replace(&connection[k], i);
	}
	for (unsigned int s = 0; s < SHIFTS; s++) {
		pthread_t a = start(serve, &connection[0]), b = start(serve, &connection[1]);

		pthread_join(a, NULL);
		pthread_join(b, NULL);
		/* Whoever serves next has other slots before it. */
		for (unsigned int i = s & 7; i < OBJECTS; i += 8) {
			unsigned char *o = connection[0].object[i];

			connection[0].object[i] = connection[1].object[i];
			connection[1].object[i] = o;
		}
	}
	printf("%lu\n", (unsigned long)(connection[0].sum + connection[1].sum));
	return 0;
}
