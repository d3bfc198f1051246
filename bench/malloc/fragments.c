// SPDX-License-Identifier: MIT
/* Ways to leave a heap in tatters.  Builds one of them, says "filled", goes on with light traffic (a few requests
 * every 10 ms) for as long as memory is watched, says "held", waits for a line, and then verifies every object
 * that is left.  Objects form lists, so that no table of pointers adds to what is measured.
 *
 *   fragments MODE MIB SECONDS
 *
 *   random64, random256   objects of that size; 90 % are freed at random
 *   shift                 ten generations, each of another size, each freed to 90 % at random before the next
 *   regular               strings of one length, a quarter kept (every fourth), the length doubled each round, so
 *                         that MIB are live each time
 *   kth                   16 to 448 bytes; every eighth survives
 *   longlived             one of ten lives on among short-lived ones, which pass by in a window of MIB
 *   threads               eight threads, two at a time, each leaving 5 % behind */
#include <unistd.h>

#include "bench.h"

struct object {
	struct object *next;
	uint64_t size;
	uint64_t word[];
};

static struct random r = { 2026 };

static uint64_t word_of(const struct object *o, size_t i)
{
	return ((uintptr_t)o + i) * 0x9e3779b97f4a7c15u;
}

static struct object *make(size_t n, struct object *next)
{
	struct object *o = take(n);

	o->next = next;
	o->size = n;
	for (size_t i = 0; i < (n - sizeof(*o)) / sizeof(o->word[0]); i++)
		o->word[i] = word_of(o, i);
	return o;
}

static void check(const struct object *o)
{
	for (size_t i = 0; i < (o->size - sizeof(*o)) / sizeof(o->word[0]); i++) {
		if (o->word[i] != word_of(o, i)) {
			fprintf(stderr, "an object of %zu bytes at %p has changed\n", (size_t)o->size, (const void *)o);
			exit(1);
		}
	}
}

static size_t mixed(struct random *from)
{
	uint64_t x = random_next(from);
	/* 16 to 448, small ones twice as often. */
	size_t n = 1 + (size_t)(x >> 32) % 28;

	return 16 * (x & 1 ? (n + 1) / 2 : n);
}

/* Keep each object with a chance of 1 in @of. */
static struct object *keep_random(struct object *list, struct random *from, unsigned int of)
{
	struct object *kept = NULL, *next;

	for (; list; list = next) {
		next = list->next;
		if (random_below(from, of)) {
			free(list);
		} else {
			list->next = kept;
			kept = list;
		}
	}
	return kept;
}

static struct object *keep_every(struct object *list, unsigned int kth)
{
	struct object *kept = NULL, **end = &kept, *next;

	for (unsigned int i = 0; list; list = next, i++) {
		next = list->next;
		if (i % kth) {
			free(list);
		} else {
			*end = list;
			end = &list->next;
			*end = NULL;
		}
	}
	return kept;
}

static size_t bytes_of(const struct object *list)
{
	size_t n = 0;

	for (; list; list = list->next)
		n += list->size;
	return n;
}

static struct object *join(struct object *front, struct object *list)
{
	struct object **end = &front;

	while (*end)
		end = &(*end)->next;
	*end = list;
	return front;
}

static struct object *fill(struct object *list, size_t bytes, size_t size)
{
	while (bytes) {
		size_t n = size ? size : mixed(&r);

		list = make(n, list);
		bytes -= n < bytes ? n : bytes;
	}
	return list;
}

static struct object *shift(size_t bytes)
{
	static const uint16_t size[] = { 48, 64, 80, 112, 144, 176, 224, 288, 352, 432 };
	struct object *all = NULL;

	for (unsigned int i = 0; i < sizeof(size) / sizeof(*size); i++)
		all = join(keep_random(fill(NULL, bytes / 10, size[i]), &r, 10), all);
	return all;
}

static struct object *regular(size_t bytes)
{
	struct object *all = NULL;

	for (size_t length = 64; length <= 8192; length *= 2) {
		size_t live = bytes_of(all);

		all = keep_every(fill(all, bytes - live, length), 4);
	}
	return all;
}

static struct object *longlived(size_t bytes)
{
	size_t window = bytes / 232;            /* the mean size */
	struct object **recent = need(calloc(window, sizeof(struct object *))), *kept = NULL;

	for (size_t i = 0; i < 8 * window; i++) {
		size_t at = random_below(&r, window);

		if (random_below(&r, 10)) {
			free(recent[at]);
			recent[at] = make(mixed(&r), NULL);
		} else if (i % 8 == 0) {
			kept = make(mixed(&r), kept);
		}
	}
	for (size_t i = 0; i < window; i++)
		free(recent[i]);
	free(recent);
	return kept;
}

static size_t thread_bytes;

static void *leave_some(void *arg)
{
	struct random own = { (uintptr_t)arg };
	struct object *list = NULL;

	for (size_t n = 0; n < thread_bytes; n += list->size)
		list = make(mixed(&own), list);
	return keep_random(list, &own, 20);
}

static struct object *threads(size_t bytes)
{
	struct object *all = NULL;

	thread_bytes = bytes / 8;
	for (uintptr_t i = 0; i < 8; i += 2) {
		pthread_t a = start(leave_some, (void *)(i + 1)), b = start(leave_some, (void *)(i + 2));
		void *kept;

		pthread_join(a, &kept);
		all = join(kept, all);
		pthread_join(b, &kept);
		all = join(kept, all);
	}
	return all;
}

static void traffic(double seconds)
{
	uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
	void *request[100];

	while (now_ns() < until) {
		for (unsigned int i = 0; i < 100; i++)
			request[i] = make(16 + 16 * random_below(&r, 60), NULL);
		for (unsigned int i = 0; i < 100; i++)
			free(request[i]);
		usleep(10000);
	}
}

static void say(const char *what)
{
	puts(what);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	size_t bytes = (size_t)argument(argc, argv, 2, 100) << 20;
	double seconds = argc > 3 ? atof(argv[3]) : 6;
	struct object *all;

	if (!strcmp(mode, "random64"))
		all = keep_random(fill(NULL, bytes, 64), &r, 10);
	else if (!strcmp(mode, "random256"))
		all = keep_random(fill(NULL, bytes, 256), &r, 10);
	else if (!strcmp(mode, "shift"))
		all = shift(bytes);
	else if (!strcmp(mode, "regular"))
		all = regular(bytes);
	else if (!strcmp(mode, "kth"))
		all = keep_every(fill(NULL, bytes, 0), 8);
	else if (!strcmp(mode, "longlived"))
		all = longlived(bytes);
	else if (!strcmp(mode, "threads"))
		all = threads(bytes);
	else
		return 2;
	printf("live %zu\n", bytes_of(all));
	say("filled");
	traffic(seconds);
	say("held");
	(void)!getchar();
	for (const struct object *o = all; o; o = o->next)
		check(o);
	say("intact");
	return 0;
}
