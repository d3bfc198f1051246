/* SPDX-License-Identifier: MIT */
/*
 * What the tests of src/pack share: a pack in memory, its callbacks, a seeded generator of pages,
 * and a count of allocations.  Included once by each test program.
 */
#ifndef FIRN_TESTS_PACK_FIXTURE_H
#define FIRN_TESTS_PACK_FIXTURE_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "pack/builder.h"
#include "pack/reader.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FIRN_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FIRN_TEST_SANITIZED 1
#endif
#endif
#ifndef FIRN_TEST_SANITIZED
#define FIRN_TEST_SANITIZED 0
#endif

static atomic_ulong allocations __attribute__((unused));

#if !FIRN_TEST_SANITIZED
/* Count what anyone in this process allocates, libcrypto included. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

void *malloc(size_t bytes)
{
	allocations++;
	return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
	allocations++;
	return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
	allocations++;
	return __libc_realloc(p, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	allocations++;
	return __libc_memalign(align, bytes);
}

int posix_memalign(void **ret, size_t align, size_t bytes)
{
	allocations++;
	*ret = __libc_memalign(align, bytes);
	return *ret ? 0 : ENOMEM;
}
#endif

static const enum firn_cipher all_ciphers[] __attribute__((unused)) = {
	FIRN_CIPHER_OFF, FIRN_CIPHER_AES_256_GCM, FIRN_CIPHER_AES_256_OCB,
};

static const uint8_t test_key[FIRN_KEY_BYTES] = {
	0x4f, 0x1d, 0x62, 0xc8, 0x0b, 0x97, 0x33, 0xae, 0x58, 0xe4, 0x71,
	0x06, 0xdd, 0x2a, 0xbf, 0x90, 0x15, 0x7c, 0xe9, 0x44, 0xa3, 0x3e,
	0x86, 0xf2, 0x69, 0xd0, 0x0c, 0xb5, 0x27, 0x9a, 0x5b, 0xc1,
};

static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

static inline void fill_random(uint64_t *state, void *to, size_t bytes)
{
	uint8_t *at = to;

	for (; bytes >= 8; bytes -= 8, at += 8) {
		uint64_t v = next_random(state);

		memcpy(at, &v, 8);
	}
	while (bytes--)
		*at++ = (uint8_t)next_random(state);
}

/* About half compressible: of each 64 bytes, 32 are random. */
static inline void fill_half(uint64_t *state, void *to, size_t bytes)
{
	memset(to, 0x20, bytes);
	for (size_t i = 0; i + 64 <= bytes; i += 64)
		fill_random(state, (uint8_t *)to + i, 32);
}

/* A pack in memory. */
struct memory_file {
	uint8_t *data;
	size_t bytes;
	size_t cap;
	unsigned int writes;
	unsigned int fail_at;           /* the n-th write fails with -ENOSPC; 0: none */
	uint32_t page_size;
	atomic_uint originals_read;     /* one page, read again */
	bool fail_originals;
	unsigned int threads;           /* run() uses so many; 0: the caller's only */
	bool own_writer;                /* a thread of its own writes */
	pthread_t writer;
};

static inline void file_open(struct memory_file *f, size_t cap)
{
	memset(f, 0, sizeof(*f));
	f->data = malloc(cap);
	assert_non_null(f->data);
	f->cap = cap;
}

static inline void file_close(struct memory_file *f)
{
	free(f->data);
	memset(f, 0, sizeof(*f));
}

static inline int file_write(void *ctx, const void *buf, size_t len, struct firn_poff offset)
{
	struct memory_file *f = ctx;

	assert_int_equal(offset.v, f->bytes);   /* sequential */
	assert_int_equal((uintptr_t)buf % 4096, 0);
	assert_int_equal(len % 4096, 0);
	assert_true(len > 0 && offset.v + len <= f->cap);
	if (++f->writes == f->fail_at)
		return -ENOSPC;
	f->bytes += len;
	memcpy(f->data + offset.v, buf, len);
	return 0;
}

/* The address of a page is where it lies in this process. */
static inline int pages_read(void *ctx, const struct firn_pack_run *runs, uint32_t n, void *buf)
{
	struct memory_file *f = ctx;
	uint8_t *to = buf;

	if (n == 1 && runs->npages == 1) {
		f->originals_read++;
		if (f->fail_originals)
			return -EIO;
	}
	for (uint32_t i = 0; i < n; i++) {
		memcpy(to, (const void *)(uintptr_t)runs[i].start.v,
		       (size_t)runs[i].npages * f->page_size);
		to += (size_t)runs[i].npages * f->page_size;
	}
	return 0;
}

static inline int file_read(void *ctx, void *buf, size_t len, struct firn_poff offset)
{
	struct memory_file *f = ctx;

	if (offset.v > f->bytes || len > f->bytes - offset.v)
		return -EBADMSG;
	memcpy(buf, f->data + offset.v, len);
	return 0;
}

struct worker {
	pthread_t thread;
	void (*fn)(void *arg, uint32_t i, uint32_t worker);
	void *arg;
	uint32_t n;
	uint32_t number;
	atomic_uint *next;
};

static inline void *work(void *arg)
{
	struct worker *w = arg;
	uint32_t i;

	while ((i = atomic_fetch_add(w->next, 1)) < w->n)
		w->fn(w->arg, i, w->number);
	return NULL;
}

static inline void file_run(void *ctx, uint32_t n,
			    void (*fn)(void *arg, uint32_t i, uint32_t worker), void *arg)
{
	struct memory_file *f = ctx;
	struct worker workers[FIRN_BUILDER_WORKERS_MAX];
	atomic_uint next = 0;

	for (uint32_t i = 0; i < f->threads; i++) {
		workers[i] =
			(struct worker){ .fn = fn, .arg = arg, .n = n, .number = i, .next = &next };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < f->threads; i++)
		pthread_join(workers[i].thread, NULL);
}

/* Config of a builder on @f: its fields say which callbacks are used. */
static inline struct firn_builder_config file_config(struct memory_file *f, enum firn_cipher cipher,
						     uint32_t page_size)
{
	struct firn_builder_config config = {
		.page_size = page_size,
		.cipher = cipher,
		.key = cipher == FIRN_CIPHER_OFF ? NULL : test_key,
		.workers = f->threads ? f->threads : 1,
		.ops.write = file_write,
		.ops.read = pages_read,
		.own_writer = f->own_writer,
		.ctx = f,
	};

	f->page_size = page_size;
	if (f->threads)
		config.ops.run = file_run;
	return config;
}

static inline void *write_all(void *arg)
{
	firn_builder_write_all(arg);
	return NULL;
}

static inline void start_writer(struct memory_file *f, struct firn_builder *b)
{
	if (f->own_writer)
		assert_int_equal(pthread_create(&f->writer, NULL, write_all, b), 0);
}

static inline void join_writer(struct memory_file *f)
{
	if (f->own_writer)
		pthread_join(f->writer, NULL);
}

/* The @n pages at @pages, as one run. */
static inline int add_pages(struct firn_builder *b, const uint8_t *pages, uint32_t n,
			    uint32_t *places)
{
	struct firn_pack_run run = { { (uintptr_t)pages }, n, 0 };

	return firn_builder_add(b, &run, 1, places);
}

/* One target whose pages have the places 0.. in one run. */
static inline int finish_simple(struct firn_builder *b, uint32_t npages, const uint32_t *places,
				uint64_t *ret_bytes)
{
	struct firn_pack_target target = {
		.pid = 4711, .start_time = 99, .runs = 1, .comm = "target"
	};
	struct firn_pack_run run = { .start = { 0x7f0000000000 }, .npages = npages };
	struct firn_builder_index index = {
		.targets = &target,
		.runs = &run,
		.places = places,
		.ntargets = 1,
		.nruns = 1,
		.nplaces = npages,
	};

	return firn_builder_finish(b, &index, ret_bytes);
}

/* FIRN_SEED, or one from the clock; printed, so that a failure can be had again. */
static inline uint64_t test_seed(void)
{
	const char *given = getenv("FIRN_SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = given ? strtoull(given, NULL, 0)
		     : (uint64_t)now.tv_nsec * 2654435761u ^ (uint64_t)now.tv_sec;
	print_message("FIRN_SEED=0x%llx\n", (unsigned long long)seed);
	return seed;
}

#endif
