// SPDX-License-Identifier: MIT
/* Strings that grow piece by piece with realloc (by what is needed, not by doubling), are cut, copied and dropped;
 * the typical size drifts upwards in the course of the run.
 *
 *   growth PERCENT */
#include "bench.h"

#define STRINGS 4000u

struct string {
	char *text;
	size_t n;
};

static void append(struct string *s, struct random *r, size_t n)
{
	s->text = need(realloc(s->text, s->n + n + 1));
	memset(s->text + s->n, (int)('a' + random_below(r, 26)), n);
	s->n += n;
	s->text[s->n] = '\0';
}

int main(int argc, char **argv)
{
	long turns = 70000 * argument(argc, argv, 1, 100);
	static struct string string[STRINGS];
	struct random r = { 9 };
	uint64_t sum = 0;

	for (long t = 0; t < turns; t++) {
		size_t limit = 64 + (size_t)(3000 * t / turns);
		struct string *s = &string[random_below(&r, STRINGS)];

		append(s, &r, 1 + random_below(&r, limit / 8));
		if (s->n > limit && random_below(&r, 4)) {
			sum += strlen(s->text);
			free(s->text);
			*s = (struct string){ NULL, 0 };
		} else if (s->n > limit) {
			char *copy;

			s->n /= 8;
			s->text[s->n] = '\0';
			copy = strdup(s->text);
			free(s->text);
			s->text = need(copy);
		}
	}
	printf("%lu\n", (unsigned long)sum);
	return 0;
}
