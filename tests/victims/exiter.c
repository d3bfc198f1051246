/* SPDX-License-Identifier: MIT */
/* Ends in every way a process can: exits, executes itself anew, is killed by itself, loses its main thread. */
#include "victim.h"

static int cmd_exit(char *args)
{
	_exit((int)v_count(args, 0));
}

/* exit() runs handlers and destructors: they touch memory. */
static int cmd_exit_full(char *args)
{
	exit((int)v_count(args, 0));
}

static int cmd_exec(char *args)
{
	(void)args;
	execl("/proc/self/exe", v_argv[0], "--mib", "4", (char *)NULL);
	return v_say("exec: %s", strerror(errno));
}

static int cmd_abort(char *args)
{
	(void)args;
	raise(SIGKILL);
	return 0;
}

static void *answer(void *arg)
{
	v_loop(NULL);
	return arg;
}

/* The main thread ends; another answers from then on. */
static int cmd_leave(char *args)
{
	pthread_t th;

	(void)args;
	if (pthread_create(&th, NULL, answer, NULL))
		v_die("pthread_create");
	v_answer(0);
	pthread_exit(NULL);
}

static const struct v_command commands[] = {
	{ "exit", cmd_exit }, { "exit-full", cmd_exit_full }, { "exec", cmd_exec },
	{ "abort", cmd_abort }, { "leave", cmd_leave }, { NULL, NULL },
};

int main(int argc, char **argv)
{
	v_start(argc, argv, 16, 0);
	v_add_range(v_map(v_mib * 256, PROT_READ | PROT_WRITE, 0), v_mib * 256);
	v_ready();
	return v_loop(commands);
}
