// SPDX-License-Identifier: MIT
/* How fast this machine's processors could bring pages back if nothing had to be read: blocks that are
 * already in memory are decoded (authenticated, decrypted, decompressed) and installed by UFFDIO_COPY, on
 * all processors at once.  It uses Firn's codec and nothing else of Firn.
 *
 *   ceiling BYTES PERCENT    "ceiling NS STORED": nanoseconds for BYTES of pages of which PERCENT is
 *                            compressible, and the bytes they take stored; 512 MiB at most is kept
 * Exit status: 0, 1 it could not be measured (standard error says why), 2 usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pack/codec.h"

enum { MOST_THREADS = 64 };

struct block {
	struct firn_piece piece;
	size_t at;              /* in stored */
};

static struct block *blocks;
static uint8_t *stored, *pages;
static uint64_t nblocks;
static uint32_t block_bytes;
static int uffd;
static const uint8_t key[32] = { 1 };
static atomic_uint_fast64_t next_block;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t random_word(void)
{
	static uint64_t x = 1;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void encode(uint32_t page_bytes, unsigned int percent)
{
	uint64_t *raw = malloc(block_bytes);
	uint32_t random_words = page_bytes / 8 * (100 - percent) / 100;
	struct firn_codec codec;
	size_t end = 0;

	if (!raw || firn_codec_open(&codec, FIRN_CIPHER_AES_256_OCB, key, block_bytes))
		fail("ceiling: codec");
	for (uint64_t n = 0; n < nblocks; n++) {
		for (uint32_t i = 0; i < block_bytes / 8; i++)
			raw[i] = i % (page_bytes / 8) < random_words || !i ? random_word() : raw[i - 1];
		blocks[n].at = end;
		blocks[n].piece = (struct firn_piece){ .generation = 1, .number = (uint32_t)n,
						       .raw_bytes = block_bytes };
		if (firn_codec_encode(&codec, &blocks[n].piece, raw, stored + end))
			fail("ceiling: encode");
		end += blocks[n].piece.stored_bytes + FIRN_TAG_BYTES;
	}
	firn_codec_close(&codec);
	free(raw);
}

static void *decode(void *unused)
{
	uint8_t *raw = aligned_alloc(block_bytes, block_bytes);
	struct firn_codec codec;
	uint64_t n;

	if (!raw || firn_codec_open(&codec, FIRN_CIPHER_AES_256_OCB, key, block_bytes))
		fail("ceiling: codec");
	while ((n = atomic_fetch_add(&next_block, 1)) < nblocks) {
		struct uffdio_copy copy = { .dst = (uintptr_t)(pages + n * block_bytes),
					    .src = (uintptr_t)raw, .len = block_bytes };

		if (firn_codec_decode(&codec, &blocks[n].piece, stored + blocks[n].at, raw))
			fail("ceiling: decode");
		if (ioctl(uffd, UFFDIO_COPY, &copy))
			fail("ceiling: UFFDIO_COPY");
	}
	firn_codec_close(&codec);
	free(raw);
	return unused;
}

static uint8_t *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("ceiling: mmap");
	return p;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range;
	pthread_t threads[MOST_THREADS];
	long nthreads = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
	uint64_t start, all = 0;

	if (argc != 3)
		return 2;
	if (nthreads > MOST_THREADS)
		nthreads = MOST_THREADS;
	block_bytes = FIRN_BLOCK_PAGES * page_bytes;
	nblocks = strtoull(argv[1], NULL, 10) / block_bytes;
	if (nblocks < 1 || nblocks * block_bytes > (uint64_t)512 << 20)
		return 2;
	blocks = calloc(nblocks, sizeof(*blocks));
	stored = map(nblocks * (block_bytes + FIRN_TAG_BYTES));
	pages = map(nblocks * block_bytes);
	/* Small pages, as a target's are when they come back one block at a time; warm ones. */
	madvise(pages, nblocks * block_bytes, MADV_NOHUGEPAGE);
	memset(pages, 1, nblocks * block_bytes);
	madvise(pages, nblocks * block_bytes, MADV_DONTNEED);
	if (!blocks)
		fail("ceiling: calloc");
	encode(page_bytes, (unsigned int)(strtoul(argv[2], NULL, 10) % 100));
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	range = (struct uffdio_register){ .range = { (uintptr_t)pages, nblocks * block_bytes },
					  .mode = UFFDIO_REGISTER_MODE_MISSING };
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range))
		fail("ceiling: userfaultfd");
	start = now_ns();
	for (long i = 0; i < nthreads; i++) {
		if ((errno = pthread_create(&threads[i], NULL, decode, NULL)))
			fail("ceiling: thread");
	}
	for (long i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	start = now_ns() - start;
	for (uint64_t n = 0; n < nblocks; n++)
		all += blocks[n].piece.stored_bytes + FIRN_TAG_BYTES;
	printf("ceiling %" PRIu64 " %" PRIu64 "\n", start, all);
	return 0;
}
