/* SPDX-License-Identifier: MIT */
/*
 * The allocator inside of a test program, under names of its own: the program's malloc stays libc's, or a
 * sanitizer's.  And threads that use it at random, against a model.
 */
#ifndef FIRN_TESTS_MALLOC_PREFIXED_H
#define FIRN_TESTS_MALLOC_PREFIXED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "malloc/config.h"
#include "malloc/os.h"

void *firn_test_malloc(size_t n);
void *firn_test_calloc(size_t count, size_t size);
void *firn_test_realloc(void *p, size_t n);
void *firn_test_memalign(size_t align, size_t n);
int firn_test_posix_memalign(void **ret, size_t align, size_t n);
void *firn_test_pvalloc(size_t n);
void firn_test_free(void *p);
void firn_test_free_sized(void *p, size_t n);
size_t firn_test_malloc_usable_size(void *p);
int firn_test_malloc_trim(size_t leave);

/* A sanitizer has to see what is mapped and unmapped, or it takes new memory for old. */
static void *see_mmap(void *address, size_t bytes, int prot, int flags, int fd, long offset)
{
	void *p = mmap(address, bytes, prot, flags, fd, offset);

	return p == MAP_FAILED ? (void *)(intptr_t)-ENOMEM : p;
}

static int see_munmap(void *address, size_t bytes)
{
	return munmap(address, bytes) ? -EINVAL : 0;
}

static void *see_mremap(void *old, size_t old_bytes, size_t new_bytes, int flags, void *address)
{
	(void)old;
	(void)old_bytes;
	(void)new_bytes;
	(void)flags;
	(void)address;
	return (void *)(intptr_t)-ENOMEM;
}

static void prefixed_open(void)
{
	firn_os.mmap = see_mmap;
	firn_os.munmap = see_munmap;
	firn_os.mremap = see_mremap;
	/* Passes are the live tests' business: here nothing is stopped, traced or shared. */
	firn_config.fold = false;
}

#define CROWD 512u
#define OWN 64u

struct block {
	unsigned char *p;
	size_t n;
	unsigned int seed;
};

/* Blocks that wait for whichever thread comes by: freed, written and resized by others than who made them. */
static _Atomic(struct block *) crowd[CROWD];
static _Atomic unsigned int failures;

static unsigned int next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(*state >> 33);
}

static unsigned char byte_of(unsigned int seed, size_t i)
{
	return (unsigned char)(seed + i * 31);
}

/* First, last, and some in between: small blocks whole. */
static size_t step_of(size_t n)
{
	return n > 4096 ? 509 : 1;
}

static void fill(struct block *b, unsigned int seed)
{
	b->seed = seed;
	for (size_t i = 0; i < b->n; i += step_of(b->n))
		b->p[i] = byte_of(seed, i);
}

static void expect_bytes(const struct block *b, size_t n)
{
	for (size_t i = 0; i < n; i += step_of(b->n)) {
		if (b->p[i] == byte_of(b->seed, i))
			continue;
		if (!atomic_fetch_add(&failures, 1))
			fprintf(stderr, "byte %zu of %zu at %p is %#x, not %#x\n", i, b->n, (void *)b->p, b->p[i],
				byte_of(b->seed, i));
		return;
	}
}

static void expect(bool ok, const char *what, const void *p, size_t n)
{
	if (!ok && !atomic_fetch_add(&failures, 1))
		fprintf(stderr, "%s: %p, %zu bytes\n", what, p, n);
}

static size_t random_size(uint64_t *state)
{
	unsigned int r = next(state);

	switch (r % 64) {
	case 0:
		return next(state) % (9u << 20);
	case 1:
		return next(state) % 300000;
	case 2:
	case 3:
	case 4:
		return next(state) % 40000;
	default:
		return next(state) % (16u << r % 8);
	}
}

static bool zeroed(const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static void make(struct block *b, uint64_t *state)
{
	size_t align = (size_t)8 << next(state) % 10;
	void *p = NULL;

	b->n = random_size(state);
	switch (next(state) % 8) {
	case 0:
		b->p = firn_test_calloc(1, b->n);
		expect(b->p && zeroed(b->p, b->n), "calloc", b->p, b->n);
		break;
	case 1:
		expect(!firn_test_posix_memalign(&p, align, b->n) && !((uintptr_t)p & (align - 1)), "posix_memalign", p, b->n);
		b->p = p;
		break;
	default:
		b->p = firn_test_malloc(b->n);
		expect(b->p && !((uintptr_t)b->p & 15), "malloc", b->p, b->n);
	}
	expect(firn_test_malloc_usable_size(b->p) >= b->n, "malloc_usable_size", b->p, b->n);
	fill(b, next(state));
}

static void resize(struct block *b, uint64_t *state)
{
	size_t n = random_size(state) + 1, keep = b->n < n ? b->n : n;
	struct block old = *b;

	b->p = firn_test_realloc(b->p, n);
	expect(b->p != NULL, "realloc", b->p, n);
	old.p = b->p;
	expect_bytes(&old, keep);
	b->n = n;
	fill(b, next(state));
}

static void drop(struct block *b)
{
	expect_bytes(b, b->n);
	firn_test_free(b->p);
	b->p = NULL;
}

struct work {
	uint64_t seed;
	unsigned int operations;
};

static void *work(void *arg)
{
	const struct work *w = arg;
	struct block own[OWN] = { 0 };
	uint64_t state = w->seed;

	for (unsigned int i = 0; i < w->operations; i++) {
		unsigned int r = next(&state);
		struct block *b = &own[r / 8 % OWN], *other;

		if (!b->p) {
			make(b, &state);
		} else if (r % 8 < 2) {
			resize(b, &state);
		} else if (r % 8 < 4) {
			/* Leave it to somebody, take what somebody left. */
			other = firn_test_malloc(sizeof(*other));
			*other = *b;
			b->p = NULL;
			other = atomic_exchange(&crowd[next(&state) % CROWD], other);
			if (other) {
				*b = *other;
				firn_test_free(other);
			}
		} else {
			drop(b);
		}
		if (i % 4096 == 2048)
			firn_test_malloc_trim(0);
	}
	for (unsigned int i = 0; i < OWN; i++)
		if (own[i].p)
			drop(&own[i]);
	return NULL;
}

/* @rounds times @threads threads that begin and end. */
static unsigned int crowd_run(unsigned int threads, unsigned int rounds, unsigned int operations, uint64_t seed)
{
	for (unsigned int round = 0; round < rounds; round++) {
		pthread_t thread[64];
		struct work w[64];

		for (unsigned int t = 0; t < threads; t++) {
			w[t] = (struct work){ seed + round * 1000 + t, operations };
			if (pthread_create(&thread[t], NULL, work, &w[t]))
				abort();
		}
		for (unsigned int t = 0; t < threads; t++)
			pthread_join(thread[t], NULL);
	}
	for (unsigned int i = 0; i < CROWD; i++) {
		struct block *b = atomic_exchange(&crowd[i], NULL);

		if (b) {
			drop(b);
			firn_test_free(b);
		}
	}
	if (failures)
		fprintf(stderr, "seed %llu: %u failures\n", (unsigned long long)seed, failures);
	return failures;
}

static uint64_t crowd_seed(void)
{
	const char *s = getenv("FIRN_TEST_SEED");

	return s ? strtoull(s, NULL, 0) : 20260101;
}

#endif
