/* SPDX-License-Identifier: MIT */
/*
 * Random allocations against a model, while the allocator folds: fold-random <threads> <seconds> <seed> [size].
 * Each thread owns a table of objects whose every byte follows from a seed of the object's own; it allocates,
 * frees (also in waves that leave pages sparse), writes, hands objects to its neighbours, and looks at every
 * byte again and again.  Exits 0, or aborts at the first wrong byte.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OBJECTS 60000
#define MAILBOX 64

struct object {
	unsigned char *p;
	uint32_t size, seed;
};

struct worker {
	pthread_t thread;
	unsigned int number;
	uint64_t random, operations, checked;
	struct object *table;
};

static struct {
	_Atomic(struct object *) slot[MAILBOX];
} boxes[64];
static unsigned int nworkers;
static size_t fixed_size;
static time_t end;

static uint32_t next(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 16);
}

static unsigned char byte_of(uint32_t seed, uint32_t i)
{
	return (unsigned char)((seed + i * 2654435761u) >> 13);
}

static void fill(struct object *o)
{
	for (uint32_t i = 0; i < o->size; i++)
		o->p[i] = byte_of(o->seed, i);
}

static void check(struct worker *w, const struct object *o)
{
	for (uint32_t i = 0; i < o->size; i++)
		if (o->p[i] != byte_of(o->seed, i)) {
			fprintf(stderr, "byte %u of %u at %p is %02x, not %02x\n", i, o->size, (void *)o->p, o->p[i],
				byte_of(o->seed, i));
			abort();
		}
	w->checked++;
}

static uint32_t size_of(struct worker *w)
{
	static const uint16_t usual[] = { 16, 24, 32, 48, 64, 100, 128, 240, 256, 400, 448, 600, 2000 };

	if (fixed_size)
		return (uint32_t)fixed_size;
	return next(w) % 8 ? usual[next(w) % 13] : 1 + next(w) % 700;
}

static void make(struct worker *w, struct object *o)
{
	o->size = size_of(w);
	o->seed = next(w);
	o->p = malloc(o->size);
	if (!o->p)
		abort();
	fill(o);
}

static void drop(struct worker *w, struct object *o)
{
	check(w, o);
	memset(o->p, 0xdd, o->size);
	free(o->p);
	o->p = NULL;
}

/* An object goes to another thread's table by way of a mailbox. */
static void post(struct worker *w, struct object *o)
{
	struct object *letter = malloc(sizeof(*letter));
	unsigned int to = next(w) % nworkers, slot = next(w) % MAILBOX;

	*letter = *o;
	o->p = NULL;
	letter = atomic_exchange(&boxes[to].slot[slot], letter);
	if (letter) {
		drop(w, letter);
		free(letter);
	}
}

static void collect(struct worker *w)
{
	struct object *letter = atomic_exchange(&boxes[w->number].slot[next(w) % MAILBOX], NULL);
	struct object *o = &w->table[next(w) % OBJECTS];

	if (!letter)
		return;
	if (o->p)
		drop(w, o);
	*o = *letter;
	free(letter);
}

static void some_operations(struct worker *w)
{
	for (int i = 0; i < 2000; i++) {
		struct object *o = &w->table[next(w) % OBJECTS];
		uint32_t what = next(w) % 16;

		w->operations++;
		if (!o->p) {
			if (what < 4)
				make(w, o);
		} else if (what < 4) {
			drop(w, o);
		} else if (what < 5) {
			check(w, o);
			o->seed = next(w);
			fill(o);
		} else if (what < 6) {
			uint32_t size = size_of(w);

			check(w, o);
			o->p = realloc(o->p, size);
			o->size = size;
			fill(o);
		} else if (what < 7 && nworkers > 1) {
			post(w, o);
		} else if (what < 8 && nworkers > 1) {
			collect(w);
		} else {
			check(w, o);
		}
	}
}

/* Fill the table, then leave one of ten. */
static void wave(struct worker *w)
{
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (!w->table[i].p)
			make(w, &w->table[i]);
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (next(w) % 10 && w->table[i].p)
			drop(w, &w->table[i]);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	w->table = calloc(OBJECTS, sizeof(*w->table));
	while (time(NULL) < end) {
		wave(w);
		for (int quiet = 0; quiet < 30 && time(NULL) < end; quiet++) {
			usleep(2000);
			for (uint32_t i = next(w) % 16; i < OBJECTS; i += 16)
				if (w->table[i].p)
					check(w, &w->table[i]);
		}
		for (int i = 0; i < 20; i++)
			some_operations(w);
		if (!w->number)
			malloc_trim(0);
		for (uint32_t i = 0; i < OBJECTS; i++)
			if (w->table[i].p)
				check(w, &w->table[i]);
	}
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (w->table[i].p)
			drop(w, &w->table[i]);
	free(w->table);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct worker workers[64];
	uint64_t operations = 0, checked = 0;

	if (argc < 4)
		return 2;
	nworkers = (unsigned int)atoi(argv[1]);
	end = time(NULL) + atoi(argv[2]);
	fixed_size = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;
	for (unsigned int i = 0; i < nworkers; i++) {
		workers[i].number = i;
		workers[i].random = strtoul(argv[3], NULL, 0) * 0x9e3779b97f4a7c15u + i + 1;
		if (nworkers > 1)
			pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		else
			work(&workers[i]);
	}
	for (unsigned int i = 0; i < nworkers; i++) {
		if (nworkers > 1)
			pthread_join(workers[i].thread, NULL);
		operations += workers[i].operations;
		checked += workers[i].checked;
	}
	printf("%lu operations, %lu objects checked\n", (unsigned long)operations, (unsigned long)checked);
	return 0;
}
