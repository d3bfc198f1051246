/* SPDX-License-Identifier: MIT */
/*
 * Folded memory and fork: fold-fork <rounds>.  Parent and child, made by fork(), _Fork() or a raw clone(), both
 * write, free and fold what they share at the start; neither sees the other.  Exits 0, or aborts.
 */
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 60000

static unsigned char *objects[N];
static unsigned char values[N];
static unsigned int seed = 1;

static unsigned int rnd(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 8;
}

static size_t size_of(int i)
{
	return (size_t)(16 + i * 7 % 300);
}

static void make(int i)
{
	objects[i] = malloc(size_of(i));
	values[i] = (unsigned char)rnd();
	memset(objects[i], values[i], size_of(i));
}

static void check(const char *who)
{
	for (int i = 0; i < N; i++)
		for (size_t k = 0; objects[i] && k < size_of(i); k++)
			if (objects[i][k] != values[i]) {
				fprintf(stderr, "%s: byte %zu of %zu at %p is %02x, not %02x\n", who, k, size_of(i),
					(void *)objects[i], objects[i][k], values[i]);
				abort();
			}
}

static void change(unsigned int how_many)
{
	for (unsigned int n = 0; n < how_many; n++) {
		int i = (int)(rnd() % N);

		if (!objects[i]) {
			make(i);
		} else if (rnd() % 3) {
			free(objects[i]);
			objects[i] = NULL;
		} else {
			values[i] = (unsigned char)rnd();
			memset(objects[i], values[i], size_of(i));
		}
	}
}

static void life(const char *who, unsigned int own)
{
	seed = own;
	for (int round = 0; round < 4; round++) {
		check(who);
		change(N / 8);
		malloc_trim(0);
		check(who);
		usleep(3000);
	}
}

static pid_t begin(int how)
{
	if (how == 1)
		return _Fork();
	if (how == 2)
		return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	return fork();
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 6, status;

	for (int i = 0; i < N; i++)
		make(i);
	for (int i = 0; i < N; i++)
		if (rnd() % 8) {
			free(objects[i]);
			objects[i] = NULL;
		}
	for (int round = 0; round < rounds; round++) {
		pid_t child;

		malloc_trim(0);
		check("before");
		child = begin(round % 3);
		if (child < 0)
			return 1;
		if (!child) {
			pid_t grandchild;

			life("child", 100u + (unsigned int)round);
			grandchild = fork();
			life(grandchild ? "child" : "grandchild", (unsigned int)getpid());
			if (!grandchild)
				_exit(0);
			if (waitpid(grandchild, &status, 0) != grandchild || status)
				_exit(3);
			_exit(0);
		}
		life("parent", (unsigned int)round);
		if (waitpid(child, &status, 0) != child || status) {
			fprintf(stderr, "round %d: the child ended with %x\n", round, status);
			return 1;
		}
		life("parent", 50u + (unsigned int)round);
	}
	puts("ok");
	return 0;
}
