// SPDX-License-Identifier: MIT
/* Two-level logic, as a minimiser does: covers of cubes, their cofactors and complements by Shannon's expansion,
 * recursively, and what is contained removed.  Objects of 16 to some hundred bytes with the lifetimes of a
 * recursion, arrays that grow, and results that live on.
 *
 *   logic PERCENT */
#include <stdbool.h>

#include "bench.h"

#define KEPT 64

struct cube {
	uint32_t count;                 /* of literals */
	uint32_t words;
	uint64_t bits[];                /* two bits a variable: may be 0, may be 1 */
};

struct cover {
	unsigned int n, room, variables;
	struct cube **cube;
};

static unsigned int words_of(unsigned int variables)
{
	return (variables + 31) / 32;
}

static struct cube *new_cube(unsigned int variables)
{
	unsigned int words = words_of(variables);
	struct cube *c = take(sizeof(*c) + words * sizeof(c->bits[0]));

	c->count = 0;
	c->words = words;
	memset(c->bits, 0xff, words * sizeof(c->bits[0]));
	return c;
}

static struct cube *copy_cube(const struct cube *old)
{
	size_t n = sizeof(*old) + old->words * sizeof(old->bits[0]);

	return memcpy(take(n), old, n);
}

static unsigned int value_of(const struct cube *c, unsigned int v)
{
	return (unsigned int)(c->bits[v / 32] >> (v % 32 * 2)) & 3;
}

static void set_value(struct cube *c, unsigned int v, unsigned int value)
{
	c->count += (unsigned int)(value != 3) - (unsigned int)(value_of(c, v) != 3);
	c->bits[v / 32] = (c->bits[v / 32] & ~(3ull << (v % 32 * 2))) | (uint64_t)value << (v % 32 * 2);
}

static struct cover *new_cover(unsigned int variables)
{
	struct cover *f = take(sizeof(*f));

	*f = (struct cover){ .variables = variables };
	return f;
}

static void push(struct cover *f, struct cube *c)
{
	if (f->n == f->room) {
		f->room = f->room ? f->room * 2 : 4;
		f->cube = need(realloc(f->cube, f->room * sizeof(struct cube *)));
	}
	f->cube[f->n++] = c;
}

static void free_cover(struct cover *f)
{
	if (!f)
		return;
	for (unsigned int i = 0; i < f->n; i++)
		free(f->cube[i]);
	free(f->cube);
	free(f);
}

static bool contains(const struct cube *a, const struct cube *b)
{
	for (unsigned int i = 0; i < a->words; i++) {
		if (b->bits[i] & ~a->bits[i])
			return false;
	}
	return true;
}

/* Remove cubes that another one contains. */
static void minimise(struct cover *f)
{
	for (unsigned int i = 0; i < f->n; i++) {
		for (unsigned int j = 0; j < f->n; j++) {
			if (i == j || f->cube[j]->count > f->cube[i]->count || !contains(f->cube[j], f->cube[i]))
				continue;
			free(f->cube[i]);
			f->cube[i--] = f->cube[--f->n];
			break;
		}
	}
}

static struct cover *cofactor(const struct cover *f, unsigned int v, unsigned int value)
{
	struct cover *g = new_cover(f->variables);

	for (unsigned int i = 0; i < f->n; i++) {
		struct cube *c;

		if (!(value_of(f->cube[i], v) & value))
			continue;
		c = copy_cube(f->cube[i]);
		set_value(c, v, 3);
		push(g, c);
	}
	return g;
}

/* The variable that most cubes have a literal of; -1: none has. */
static int most_used(const struct cover *f)
{
	uint16_t *uses = need(calloc(f->variables, sizeof(*uses)));
	int best = -1;

	for (unsigned int i = 0; i < f->n; i++) {
		for (unsigned int v = 0; v < f->variables; v++)
			uses[v] = (uint16_t)(uses[v] + (value_of(f->cube[i], v) != 3));
	}
	for (unsigned int v = 0; v < f->variables; v++) {
		if (uses[v] && (best < 0 || uses[v] > uses[best]))
			best = (int)v;
	}
	free(uses);
	return best;
}

static struct cover *complement(const struct cover *f)
{
	struct cover *g = new_cover(f->variables);
	int v;

	if (!f->n) {
		push(g, new_cube(f->variables));
		return g;
	}
	for (unsigned int i = 0; i < f->n; i++) {
		if (!f->cube[i]->count)
			return g;               /* all is covered */
	}
	v = most_used(f);
	for (unsigned int value = 1; value <= 2; value++) {
		struct cover *half = cofactor(f, (unsigned int)v, value), *not = complement(half);

		free_cover(half);
		for (unsigned int i = 0; i < not->n; i++) {
			struct cube *c = not->cube[i];

			set_value(c, (unsigned int)v, value);
			push(g, c);
		}
		not->n = 0;
		free_cover(not);
	}
	minimise(g);
	return g;
}

int main(int argc, char **argv)
{
	long turns = 3 * argument(argc, argv, 1, 100);
	struct random r = { 42 };
	static struct cover *kept[KEPT];
	uint64_t sum = 0;

	for (long t = 0; t < turns; t++) {
		unsigned int variables = 12 + (unsigned int)random_below(&r, 120);
		unsigned int at = (unsigned int)random_below(&r, KEPT);
		struct cover *f = new_cover(variables);

		for (unsigned int i = 0; i < 11; i++) {
			struct cube *c = new_cube(variables);

			for (unsigned int k = 0; k < 6; k++)
				set_value(c, (unsigned int)random_below(&r, variables < 24 ? variables : 24),
					  1 + (unsigned int)random_below(&r, 2));
			push(f, c);
		}
		free_cover(kept[at]);
		kept[at] = complement(f);
		sum = sum * 31 + kept[at]->n;
		free_cover(f);
	}
	printf("%016lx\n", (unsigned long)sum);
	return 0;
}
