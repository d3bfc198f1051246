/* SPDX-License-Identifier: MIT */
/*
 * What the allocator benchmarks share: a random generator of their own (libc's may lock or allocate), clocks,
 * and arguments.  Every program does a fixed amount of work and writes what it computed, so that nothing
 * can be left out by the compiler and a wrong allocator shows.
 */
#ifndef FIRN_BENCH_MALLOC_H
#define FIRN_BENCH_MALLOC_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
	uint64_t x = r->state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Less than @n, which is less than 2^32. */
static inline uint64_t random_below(struct random *r, uint64_t n)
{
	return (random_next(r) >> 32) * n >> 32;
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void *need(void *p)
{
	if (!p) {
		fputs("out of memory\n", stderr);
		exit(1);
	}
	return p;
}

static inline void *take(size_t n)
{
	return need(malloc(n));
}

/* The @i-th argument as a number, or @otherwise. */
static inline long argument(int argc, char **argv, int i, long otherwise)
{
	return i < argc ? atol(argv[i]) : otherwise;
}

static inline pthread_t start(void *(*run)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, run, arg)) {
		fputs("no thread\n", stderr);
		exit(1);
	}
	return t;
}

#endif
