/* SPDX-License-Identifier: MIT */
/*
 * Deep stacks.  The commands are answered from the bottom of a recursion of the main stack; a thread waits
 * at the bottom of one of its own.  Growing goes deeper, unwinding checks every frame on the way up.
 */
#include "victim.h"

#define FRAME 128       /* words of a frame's pattern */

static int to_thread[2], from_thread[2];
static atomic_int frames_bad;

static const struct v_command commands[];

static void __attribute__((noinline)) descend(unsigned int depth, uint64_t salt, void (*bottom)(void))
{
	volatile uint64_t w[FRAME];

	for (unsigned int i = 0; i < FRAME; i++)
		w[i] = v_mix(salt + (uint64_t)depth * FRAME + i);
	if (depth)
		descend(depth - 1, salt, bottom);
	else if (bottom)
		bottom();
	for (unsigned int i = 0; i < FRAME; i++) {
		if (w[i] != v_mix(salt + (uint64_t)depth * FRAME + i)) {
			atomic_fetch_add(&frames_bad, 1);
			return;
		}
	}
}

static unsigned int frames(char *args, unsigned long kib)
{
	return (unsigned int)(v_count(args, kib) * 1024 / (FRAME * 8));
}

static int result(void)
{
	int bad = atomic_exchange(&frames_bad, 0);

	return bad ? v_say("%d frames wrong", bad) : 0;
}

/* Grow the main stack by @args KiB and come back. */
static int cmd_grow(char *args)
{
	descend(frames(args, 2048), v_rand(), NULL);
	return result();
}

static int ask_thread(char what)
{
	char c;

	if (write(to_thread[1], &what, 1) != 1 || read(from_thread[0], &c, 1) != 1)
		return v_say("the thread does not answer: %s", strerror(errno));
	return result();
}

static int cmd_tgrow(char *args)
{
	(void)args;
	return ask_thread('g');
}

/* Both stacks all the way up, checked, and down again. */
static int cmd_unwind(char *args)
{
	(void)args;
	if (ask_thread('u'))
		return -1;
	return 1;
}

static int cmd_all(char *args)
{
	if (cmd_grow(args) || cmd_tgrow(args))
		return -1;
	return cmd_unwind(args);
}

static void thread_bottom(void)
{
	char c;

	for (;;) {
		if (read(to_thread[0], &c, 1) != 1)
			v_die("thread: %s", strerror(errno));
		if (c == 'u')
			return;
		descend(2 << 10, 99, NULL);
		if (write(from_thread[1], &c, 1) != 1)
			v_die("thread: %s", strerror(errno));
	}
}

static void *thread(void *arg)
{
	char c = 'u';

	for (;;) {
		descend(3 << 10, 77, thread_bottom);
		if (write(from_thread[1], &c, 1) != 1)
			v_die("thread: %s", strerror(errno));
	}
	return arg;
}

static void main_bottom(void)
{
	static bool first = true;

	if (first)
		v_ready();
	first = false;
	v_loop(commands);
}

static const struct v_command commands[] = {
	{ "grow", cmd_grow },
	{ "tgrow", cmd_tgrow },
	{ "unwind", cmd_unwind },
	{ "verify", cmd_unwind },
	{ "touch-random", cmd_all },
	{ "touch-order", cmd_all },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	pthread_attr_t attr;
	pthread_t th;

	v_start(argc, argv, 0, 16);
	if (pipe(to_thread) || pipe(from_thread))
		v_die("pipe");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16 << 20);
	if (pthread_create(&th, &attr, thread, NULL))
		v_die("pthread_create");
	for (;;) {
		/* 3 MiB of the 8 that a stack may have. */
		descend(3 << 10, 55, main_bottom);
		v_text[0] = 0;
		v_answer(result());
	}
}
