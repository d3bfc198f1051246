/* SPDX-License-Identifier: MIT */
/* A small debugger: seizes the process named by its argument, says ready, lets go at the end of its input. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	pid_t pid = argc > 1 ? atoi(argv[1]) : 0;
	char c;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL)) {
		perror("PTRACE_SEIZE");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
