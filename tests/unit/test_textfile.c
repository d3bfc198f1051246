/* SPDX-License-Identifier: MIT */
/*
 * The metrics file: whole at every moment, readable by others, and no way to have root write elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/textfile.h"

#define SECOND 1000000000ull

static char dir[64], path[128], fresh[140];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/firn-textfile-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/firn.prom", dir);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	unlink(fresh);
	return rmdir(dir);
}

static const char *contents(const char *file)
{
	static char buf[64];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	return buf;
}

static void test_written(void **state)
{
	struct firn_textfile t = { 0 };
	struct stat st;
	mode_t mask = umask(077);

	(void)state;
	assert_int_equal(firn_textfile_wait_ms(&t, 5 * SECOND), -1);
	firn_textfile_set(&t, path, 15 * SECOND);
	assert_int_equal(firn_textfile_wait_ms(&t, 5 * SECOND), 0);
	assert_int_equal(firn_textfile_write(&t, "a 1\n", 5 * SECOND), 0);
	assert_string_equal(contents(path), "a 1\n");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(access(fresh, F_OK), -1);
	assert_in_range(firn_textfile_wait_ms(&t, 6 * SECOND), 14000, 14001);
	assert_int_equal(firn_textfile_wait_ms(&t, 20 * SECOND), 0);
	assert_int_equal(firn_textfile_write(&t, "b\n", 20 * SECOND), 0);
	assert_string_equal(contents(path), "b\n");
	/* The same settings again change nothing; a shorter time counts at once. */
	firn_textfile_set(&t, path, 15 * SECOND);
	assert_in_range(firn_textfile_wait_ms(&t, 21 * SECOND), 14000, 14001);
	firn_textfile_set(&t, path, SECOND);
	assert_int_equal(firn_textfile_wait_ms(&t, 21 * SECOND), 0);
	firn_textfile_set(&t, "", SECOND);
	assert_int_equal(firn_textfile_wait_ms(&t, 21 * SECOND), -1);
	umask(mask);
}

/* Whoever may write to the directory has put a link where the new version is made. */
static void test_link(void **state)
{
	struct firn_textfile t = { 0 };
	char victim[140];
	int fd;

	(void)state;
	snprintf(victim, sizeof(victim), "%s/victim", dir);
	fd = open(victim, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "kept", 4), 4);
	close(fd);
	assert_int_equal(symlink(victim, fresh), 0);
	firn_textfile_set(&t, path, SECOND);
	assert_int_equal(firn_textfile_write(&t, "a 1\n", 1), 0);
	assert_string_equal(contents(victim), "kept");
	assert_string_equal(contents(path), "a 1\n");
	assert_int_equal(unlink(victim), 0);
}

/* How many lines the log, which is standard error, has. */
static unsigned int logged(FILE *log)
{
	unsigned int n = 0;

	rewind(log);
	for (int c; (c = fgetc(log)) != EOF;)
		n += c == '\n';
	return n;
}

static void test_errors(void **state)
{
	struct firn_textfile t = { 0 };
	int console = dup(STDERR_FILENO);
	FILE *log = tmpfile();
	char missing[140];

	(void)state;
	assert_non_null(log);
	dup2(fileno(log), STDERR_FILENO);
	snprintf(missing, sizeof(missing), "%s/none/firn.prom", dir);
	firn_textfile_set(&t, missing, SECOND);
	for (uint64_t s = 1; s < 5; s++) {
		assert_int_equal(firn_textfile_wait_ms(&t, s * SECOND), 0);
		assert_int_equal(firn_textfile_write(&t, "a\n", s * SECOND), -ENOENT);
	}
	assert_int_equal(logged(log), 1);
	assert_int_equal(firn_textfile_write(&t, NULL, 5 * SECOND), -ENOMEM);
	assert_int_equal(logged(log), 2);
	/* It works, and then does not again: that is news. */
	firn_textfile_set(&t, path, SECOND);
	assert_int_equal(firn_textfile_write(&t, "a\n", 6 * SECOND), 0);
	assert_int_equal(mkdir(fresh, 0700), 0);
	assert_int_not_equal(firn_textfile_write(&t, "b\n", 7 * SECOND), 0);
	assert_int_not_equal(firn_textfile_write(&t, "b\n", 8 * SECOND), 0);
	assert_int_equal(logged(log), 3);
	assert_string_equal(contents(path), "a\n");
	assert_int_equal(rmdir(fresh), 0);
	dup2(console, STDERR_FILENO);
	close(console);
	fclose(log);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
