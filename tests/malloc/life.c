/* SPDX-License-Identifier: MIT */
/* A library that allocates when it is loaded, hands out what it allocated, and frees the rest when it goes. */
#include <stdlib.h>
#include <string.h>

char *life_give(size_t n);
extern char **life_kept;

char **life_kept;

__attribute__((constructor))
static void begin(void)
{
	life_kept = calloc(500, sizeof(*life_kept));
	for (int i = 0; i < 500; i++) {
		life_kept[i] = malloc((size_t)i * 13 + 10);
		memset(life_kept[i], i, (size_t)i * 13 + 10);
	}
}

__attribute__((destructor))
static void end(void)
{
	for (int i = 0; i < 500; i++) {
		char *p = realloc(life_kept[i], (size_t)i * 20 + 20);

		if (!p || p[0] != (char)i || p[i * 13 + 9] != (char)i)
			abort();
		free(p);
	}
	free(life_kept);
	free(malloc(100000));
}

static __thread char *of_thread[40];

char *life_give(size_t n)
{
	char *p = malloc(n);

	free(of_thread[n % 40]);
	of_thread[n % 40] = malloc(n / 2 + 1);
	memset(p, 7, n);
	return p;
}
