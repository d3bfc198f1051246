// SPDX-License-Identifier: MIT
/* One thread allocates, another frees: batches of objects go through a queue.  With "both", each thread does
 * either in turn and frees only what the other one allocated.
 *
 *   handoff PERCENT [both] */
#include <stdbool.h>

#include "bench.h"

#define BATCH 256u
#define QUEUE 32u

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int first, n;
	void **batch[QUEUE];
};

static struct queue queue[2];
static long batches;
static bool both;

static void put(struct queue *q, void **batch)
{
	pthread_mutex_lock(&q->lock);
	while (q->n == QUEUE)
		pthread_cond_wait(&q->changed, &q->lock);
	q->batch[(q->first + q->n++) % QUEUE] = batch;
	pthread_cond_signal(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

static void **get(struct queue *q)
{
	void **batch;

	pthread_mutex_lock(&q->lock);
	while (!q->n)
		pthread_cond_wait(&q->changed, &q->lock);
	batch = q->batch[q->first];
	q->first = (q->first + 1) % QUEUE;
	q->n--;
	pthread_cond_signal(&q->changed);
	pthread_mutex_unlock(&q->lock);
	return batch;
}

static void **fill(struct random *r)
{
	void **batch = take(BATCH * sizeof(*batch));

	for (unsigned int i = 0; i < BATCH; i++) {
		size_t n = 16 + random_below(r, i % 16 ? 112 : 1000);

		batch[i] = take(n);
		*(unsigned char *)batch[i] = (unsigned char)n;
	}
	return batch;
}

static uintptr_t empty(void **batch)
{
	uintptr_t sum = 0;

	for (unsigned int i = 0; i < BATCH; i++) {
		sum += *(unsigned char *)batch[i];
		free(batch[i]);
	}
	free(batch);
	return sum;
}

static void *run(void *arg)
{
	unsigned int me = (unsigned int)(uintptr_t)arg;
	struct random r = { me + 1 };
	uintptr_t sum = 0;

	for (long i = 0; i < batches; i++) {
		if (both || !me)
			put(&queue[me], fill(&r));
		if (both || me)
			sum += empty(get(&queue[!me]));
	}
	return (void *)sum;
}

int main(int argc, char **argv)
{
	pthread_t other;
	uintptr_t sum;
	void *theirs;

	batches = 800 * argument(argc, argv, 1, 100);
	both = argc > 2 && !strcmp(argv[2], "both");
	if (both)
		batches /= 2;
	for (unsigned int i = 0; i < 2; i++) {
		pthread_mutex_init(&queue[i].lock, NULL);
		pthread_cond_init(&queue[i].changed, NULL);
	}
	other = start(run, (void *)1);
	sum = (uintptr_t)run((void *)0);
	pthread_join(other, &theirs);
	printf("%lu\n", (unsigned long)(sum + (uintptr_t)theirs));
	return 0;
}
