/* SPDX-License-Identifier: MIT */
/*
 * Memory that is not this process's alone: pages shared copy-on-write with a child, locked pages, a shared
 * anonymous mapping, a memfd mapped shared and private.  Prints where each lies: "map" answers
 * "cow A N locked A N shm A N memfd A N own A N child PID" (addresses in hex, pages).
 */
#include "victim.h"

#define N 2048ul
#define NLOCKED 512ul

static char *cow, *locked, *shm, *mem, *own;
static pid_t child;
static int to_child[2], from_child[2];

static int cmd_map(char *args)
{
	(void)args;
	v_say("cow %lx %lu locked %lx %lu shm %lx %lu memfd %lx %lu own %lx %lu child %d", (unsigned long)cow, N,
	      (unsigned long)locked, NLOCKED, (unsigned long)shm, N, (unsigned long)mem, N, (unsigned long)own, N,
	      child);
	return 0;
}

/* The child looks at everything it shares. */
static int cmd_child(char *args)
{
	char c = 'v';

	(void)args;
	if (write(to_child[1], &c, 1) != 1 || read(from_child[0], &c, 1) != 1)
		return v_say("the child does not answer");
	return c == 'o' ? 0 : v_say("the child found bad pages");
}

static const struct v_command commands[] = { { "map", cmd_map }, { "child", cmd_child }, { NULL, NULL } };

int main(int argc, char **argv)
{
	int fd;

	v_start(argc, argv, 0, 6 * N);
	cow = v_map(N, PROT_READ | PROT_WRITE, 0);
	locked = v_map(NLOCKED, PROT_READ | PROT_WRITE, 0);
	shm = mmap(NULL, N * V_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fd = memfd_create("shared", MFD_CLOEXEC);
	if (shm == MAP_FAILED || fd < 0 || ftruncate(fd, N * V_PAGE))
		v_die("shared memory: %s", strerror(errno));
	mem = mmap(NULL, N * V_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		v_die("memfd: %s", strerror(errno));
	v_add_range(cow, N);
	v_add_range(shm, N);
	v_add_range(mem, N);
	if (mlock(locked, NLOCKED * V_PAGE))
		v_die("mlock: %s", strerror(errno));
	v_add_range(locked, NLOCKED);
	if (pipe(to_child) || pipe(from_child))
		v_die("pipe");
	child = fork();
	if (child == 0) {
		char c;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(0);
		while (read(to_child[0], &c, 1) == 1) {
			/* The first three ranges. */
			for (uint64_t i = 0; i < 3 * N; i++)
				v_check(&v_t->page[i * 1009 % (3 * N)]);
			c = atomic_exchange(&v_bad_pages, 0) ? 'b' : 'o';
			if (write(from_child[1], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	own = v_map(N, PROT_READ | PROT_WRITE, 0);
	v_add_range(own, N);
	v_ready();
	return v_loop(commands);
}
