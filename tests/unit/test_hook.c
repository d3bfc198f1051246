/* SPDX-License-Identifier: MIT */
/* Hooks as real processes; as root also those of another user. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/hook.h"

#define SECOND 1000000000ull
#define NOBODY 65534

static char file[64];

static int begin(void **state)
{
	int fd;

	(void)state;
	snprintf(file, sizeof(file), "/tmp/firn-hook-XXXXXX");
	fd = mkstemp(file);
	fchmod(fd, 0666);
	close(fd);
	return fd < 0;
}

static int end(void **state)
{
	(void)state;
	return unlink(file);
}

static void contents(char *buf, size_t size)
{
	int fd = open(file, O_RDONLY);
	ssize_t n = read(fd, buf, size - 1);

	close(fd);
	assert_true(n >= 0);
	buf[n] = 0;
}

static pid_t sleeper(bool nobody)
{
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "a sleeper");
		if (nobody && (setgid(NOBODY) || setuid(NOBODY)))
			_exit(1);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int run(pid_t pid, const char *command, uint64_t timeout_ns, struct firn_err *e)
{
	struct firn_hook h = { command, "before-freeze", pid, timeout_ns };

	memset(e, 0, sizeof(*e));
	return firn_hook_run(&h, e);
}

static void test_environment(void **state)
{
	char command[256], text[512], want[128];
	struct firn_err e;
	pid_t pid;

	(void)state;
	if (geteuid())
		skip();
	pid = sleeper(true);
	snprintf(command, sizeof(command),
		 "{ echo $FIRN_EVENT $FIRN_PID $FIRN_COMM; id -u; id -g; ls /proc/self/fd | wc -l; } > %s", file);
	assert_int_equal(run(pid, command, 20 * SECOND, &e), 0);
	contents(text, sizeof(text));
	/* Three descriptors, and the one that ls looks through. */
	snprintf(want, sizeof(want), "before-freeze %d a sleeper\n%d\n%d\n4\n", pid, NOBODY, NOBODY);
	assert_string_equal(text, want);
	stop(pid);
}

static void test_says_no(void **state)
{
	struct firn_err e;
	pid_t pid;

	(void)state;
	if (geteuid())
		skip();
	pid = sleeper(false);
	assert_int_equal(run(pid, "exit 3", 20 * SECOND, &e), -ECANCELED);
	assert_int_equal(e.code, FIRN_EXIT_REFUSED);
	assert_string_equal(e.reason, "hook");
	assert_int_equal(run(pid, "kill -9 $$", 20 * SECOND, &e), -ECANCELED);
	assert_int_equal(run(pid, "no-such-command-of-ours", 20 * SECOND, &e), -ECANCELED);
	stop(pid);
	assert_int_equal(run(pid, "true", 20 * SECOND, &e), -ESRCH);
}

static void test_in_time(void **state)
{
	char command[256], text[64];
	struct firn_err e;
	pid_t pid, left;

	(void)state;
	if (geteuid())
		skip();
	pid = sleeper(false);
	snprintf(command, sizeof(command), "sleep 1000 & echo $! > %s; wait", file);
	assert_int_equal(run(pid, command, 300000000u, &e), -ETIMEDOUT);
	assert_string_equal(e.reason, "hook-timeout");
	/* What it had started is gone with it. */
	contents(text, sizeof(text));
	left = atoi(text);
	assert_true(left > 0);
	for (int i = 0; i < 1000 && !kill(left, 0); i++) {
		char state_of = 'Z', path[64], buf[256] = "";
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/stat", left);
		fd = open(path, O_RDONLY);
		if (fd >= 0 && read(fd, buf, sizeof(buf) - 1) > 0 && strrchr(buf, ')'))
			state_of = strrchr(buf, ')')[2];
		close(fd);
		if (state_of == 'Z' || state_of == 'X')
			break;
		usleep(10000);
		assert_true(i < 999);
	}
	stop(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_environment, begin, end),
		cmocka_unit_test_setup_teardown(test_says_no, begin, end),
		cmocka_unit_test_setup_teardown(test_in_time, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
