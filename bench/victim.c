// SPDX-License-Identifier: MIT
/* The process that the benchmarks page out and back in.
 *
 * Owns one private anonymous mapping, filled deterministically: the first part of every page is
 * random bytes, the rest repeats one word of that page, so PERCENT of every page is compressible
 * and none is zero, same-filled or another one's duplicate.  It keeps no copy and no table of its
 * pages (the random order is a computed permutation): next to nothing but the mapping is paged out.
 *
 *   victim BYTES PERCENT serve commands, one a line, from standard input; one line answers each:
 *     fill               "fill NS SUM"
 *     order|random|one   "order|random|one NS SUM": touch (read) all pages in order, all in a
 *                        fixed shuffled order, or the page in the middle; SUM: of the words read
 *     latency            "latency NS 0 AT:COUNT...": how long each touch of the last "random" took,
 *                        clock included: COUNT touches of AT nanoseconds or a little (12 %) more
 *     change N           "change N NS N": write N pages anew, at random places (then "order" and "random" have other sums)
 *     verify             "verify NS WRONG": pages whose bytes are not what fill wrote
 *                        It says "ready ADDRESS BYTES" first and ends with its standard input.
 *   victim warm BYTES    touch that much memory once, give it back, and end.
 *
 * It speaks with read() and write() alone and allocates nothing after the start.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static unsigned char *memory;
static uint64_t npages;
static uint64_t page_bytes;
static uint64_t random_words;

/* Eight buckets between two powers of two, up to 2^40 ns. */
enum { SUB = 8, BUCKETS = 38 * SUB };
static uint32_t histogram[BUCKETS];
static uint8_t *changes;                /* of each page, how often it was written anew */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* The word at @index of page @page, as fill writes it. */
static uint64_t word(uint64_t page, uint64_t index)
{
	uint64_t base = (page + 1 + changes[page] * npages) * 0x9e3779b97f4a7c15u;

	if (index >= random_words)
		return mix(base);
	return mix(base + (index + 1) * 0xd1342543de82ef95u);
}

static uint64_t *page_at(uint64_t page)
{
	return (uint64_t *)(void *)(memory + page * page_bytes);
}

/* A bijection of [0, npages): mixed within the next power of two, walked on while outside. */
static uint64_t shuffled(uint64_t page)
{
	uint64_t mask = 1;
	unsigned int half;

	while (mask < npages)
		mask <<= 1;
	mask -= 1;
	half = (unsigned int)__builtin_popcountll(mask) / 2 + 1;
	do {
		for (unsigned int round = 0; round < 4; round++) {
			page = (page * 0x2545f491u + 0x9e3779b9u) & mask;
			page ^= page >> half;
		}
	} while (page >= npages);
	return page;
}

static uint64_t touch(uint64_t page)
{
	return *(volatile uint64_t *)page_at(page);
}

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int top;

	if (ns < SUB)
		return (unsigned int)ns;
	top = 63 - (unsigned int)__builtin_clzll(ns);
	top = (top - 2) * SUB + (unsigned int)(ns >> (top - 3)) % SUB;
	return top < BUCKETS ? top : BUCKETS - 1;
}

static uint64_t bucket_start(unsigned int bucket)
{
	return bucket < SUB ? bucket : (uint64_t)(SUB + bucket % SUB) << (bucket / SUB - 1);
}

static uint64_t touch_at_random(void)
{
	uint64_t sum = 0, last, now;

	memset(histogram, 0, sizeof(histogram));
	last = now_ns();
	for (uint64_t i = 0; i < npages; i++, last = now) {
		sum += touch(shuffled(i));
		now = now_ns();
		histogram[bucket_of(now - last)]++;
	}
	return sum;
}

static uint64_t fill(void)
{
	uint64_t sum = 0;

	for (uint64_t page = 0; page < npages; page++) {
		uint64_t *words = page_at(page);

		for (uint64_t i = 0; i < page_bytes / 8; i++)
			words[i] = word(page, i);
		sum += words[0];
	}
	return sum;
}

/* Write @count pages anew, at random places. */
static uint64_t change(uint64_t count)
{
	static uint64_t seed;

	for (uint64_t n = 0; n < count; n++) {
		uint64_t page = mix(++seed * 0x9e3779b97f4a7c15u) % npages, *words = page_at(page);

		changes[page]++;
		for (uint64_t i = 0; i < page_bytes / 8; i++)
			words[i] = word(page, i);
	}
	return count;
}

static uint64_t verify(void)
{
	uint64_t wrong = 0;

	for (uint64_t page = 0; page < npages; page++) {
		const uint64_t *words = page_at(page);
		uint64_t differs = 0;

		for (uint64_t i = 0; i < page_bytes / 8; i++)
			differs |= words[i] ^ word(page, i);
		wrong += differs != 0;
	}
	return wrong;
}

static void say(const char *line, size_t length)
{
	while (length) {
		ssize_t n = write(STDOUT_FILENO, line, length);

		if (n <= 0)
			_exit(1);
		line += n;
		length -= (size_t)n;
	}
}

static void say_histogram(void)
{
	char text[48];

	for (unsigned int i = 0; i < BUCKETS; i++) {
		if (histogram[i])
			say(text, (size_t)snprintf(text, sizeof(text), " %" PRIu64 ":%" PRIu32,
						   bucket_start(i), histogram[i]));
	}
}

/* Does what @command says and answers it; false when it is no command. */
static bool obey(const char *command)
{
	char line[128];
	uint64_t start = now_ns();
	uint64_t answer = 0;
	int length;

	if (!strcmp(command, "fill")) {
		answer = fill();
	} else if (!strcmp(command, "order")) {
		for (uint64_t i = 0; i < npages; i++)
			answer += touch(i);
	} else if (!strcmp(command, "random")) {
		answer = touch_at_random();
	} else if (!strcmp(command, "one")) {
		answer = touch(npages / 2);
	} else if (!strcmp(command, "verify")) {
		answer = verify();
	} else if (!strncmp(command, "change ", 7)) {
		answer = change(strtoull(command + 7, NULL, 10));
	} else if (strcmp(command, "latency") != 0) {
		return false;
	}
	length = snprintf(line, sizeof(line), "%s %" PRIu64 " %" PRIu64, command, now_ns() - start,
			  answer);
	say(line, (size_t)length);
	if (!strcmp(command, "latency"))
		say_histogram();
	say("\n", 1);
	return true;
}

static int serve(void)
{
	char line[128];
	size_t have = 0;
	ssize_t n;

	while ((n = read(STDIN_FILENO, line + have, sizeof(line) - have)) > 0) {
		char *end;

		have += (size_t)n;
		while ((end = memchr(line, '\n', have))) {
			size_t used = (size_t)(end - line) + 1;

			*end = '\0';
			if (!obey(line))
				return 2;
			have -= used;
			memmove(line, line + used, have);
		}
		if (have == sizeof(line))
			return 2;
	}
	return 0;
}

static void *map(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("victim: mmap");
		exit(1);
	}
	return p;
}

static int warm(uint64_t bytes)
{
	volatile unsigned char *p = map(bytes);

	madvise((void *)p, bytes, MADV_HUGEPAGE);
	for (uint64_t i = 0; i < bytes; i += page_bytes)
		p[i] = 1;
	return 0;
}

int main(int argc, char **argv)
{
	char line[128];
	int length;

	page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc == 3 && !strcmp(argv[1], "warm"))
		return warm(strtoull(argv[2], NULL, 10));
	if (argc != 3)
		return 2;
	random_words = page_bytes / 8 * (100 - strtoull(argv[2], NULL, 10) % 100) / 100;
	npages = strtoull(argv[1], NULL, 10) / page_bytes;
	if (npages < 2)
		return 2;
	memory = map(npages * page_bytes);
	changes = map(npages * sizeof(*changes));
	/* Every peer moves the same small pages, whatever the host's setting is. */
	madvise(memory, npages * page_bytes, MADV_NOHUGEPAGE);
	length = snprintf(line, sizeof(line), "ready %" PRIuPTR " %" PRIu64 "\n", (uintptr_t)memory,
			  npages * page_bytes);
	say(line, (size_t)length);
	return serve();
}
