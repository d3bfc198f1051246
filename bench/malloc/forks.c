// SPDX-License-Identifier: MIT
/* How long does fork() take with a heap of MIB?  Every second MiB of it is freed to 90 % at random; then the
 * allocator is asked to give back what it can, so that Firn's heap is half folded.  Writes "name value" lines.
 *
 *   forks MIB */
#include <dlfcn.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "firn/malloc.h"

#define SIZE 256u
#define FORKS 15u

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	size_t n = ((size_t)argument(argc, argv, 1, 200) << 20) / SIZE;
	void **slot = need(calloc(n, sizeof(*slot)));
	int (*ask)(struct firn_malloc_stats *);
	void *found = dlsym(RTLD_DEFAULT, "firn_malloc_stats");
	struct random r = { 8 };
	uint64_t took[FORKS];

	for (size_t i = 0; i < n; i++) {
		slot[i] = take(SIZE);
		memset(slot[i], (int)i, SIZE);
	}
	for (size_t i = 0; i < n; i++) {
		if (i * SIZE >> 20 & 1 && random_below(&r, 10)) {
			free(slot[i]);
			slot[i] = NULL;
		}
	}
	malloc_trim(0);
	memcpy(&ask, &found, sizeof(ask));
	if (ask) {
		struct firn_malloc_stats s = { .size = sizeof(s) };

		if (!ask(&s))
			printf("folded_pages %lu\nframes %lu\n", (unsigned long)s.folded_pages, (unsigned long)s.frames);
	}
	fflush(stdout);
	for (unsigned int i = 0; i < FORKS; i++) {
		uint64_t begun = now_ns();
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		took[i] = now_ns() - begun;
		if (pid < 0 || waitpid(pid, NULL, 0) != pid) {
			perror("fork");
			return 1;
		}
	}
	printf("first_ns %lu\n", (unsigned long)took[0]);
	qsort(took, FORKS, sizeof(*took), by_size);
	printf("median_ns %lu\nmax_ns %lu\n", (unsigned long)took[FORKS / 2], (unsigned long)took[FORKS - 1]);
	return 0;
}
