// SPDX-License-Identifier: MIT
/* Binary trees of one node size, built and torn down at many depths beside one that lives throughout.
 *
 *   trees PERCENT */
#include "bench.h"

#define LONG_DEPTH 15u

struct node {
	struct node *left, *right;
};

static struct node *grow(unsigned int depth)
{
	struct node *t = take(sizeof(*t));

	t->left = depth ? grow(depth - 1) : NULL;
	t->right = depth ? grow(depth - 1) : NULL;
	return t;
}

static unsigned long count(const struct node *t)
{
	return t->left ? 1 + count(t->left) + count(t->right) : 1;
}

static void fell(struct node *t)
{
	if (t->left) {
		fell(t->left);
		fell(t->right);
	}
	free(t);
}

int main(int argc, char **argv)
{
	long percent = argument(argc, argv, 1, 100);
	struct node *lives = grow(LONG_DEPTH);
	unsigned long sum = 0;

	for (unsigned int depth = 4; depth <= LONG_DEPTH; depth += 2) {
		long turns = percent * 12 * (1 << (LONG_DEPTH - depth)) / 10;

		for (long i = 0; i < turns; i++) {
			struct node *t = grow(depth);

			sum += count(t);
			fell(t);
		}
	}
	printf("%lu\n", sum + count(lives));
	return 0;
}
