/* SPDX-License-Identifier: MIT */
/* Counts of frames, and when frames and stores go: never while somebody needs them, or may. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "malloc/fold/frame.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define PAGE 4096u

static uint64_t soon(void)
{
	return firn_os.clock_ns() + 1000000000u;
}

static size_t tidy(bool exclusive)
{
	bool more;
	size_t pages;

	firn_frames_choose();
	pages = firn_frames_tidy(exclusive, soon(), &more);

	assert_false(more);
	return pages;
}

static long pages_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_blocks * 512 / PAGE;
}

/* A store of @n frames, all written with the letter of their place. */
static uint32_t make(uint32_t n, int *ret_fd)
{
	char page[PAGE];
	uint32_t first;
	int err;

	assert_int_not_equal(firn_store_open(n, &first, ret_fd, &err), FIRN_STORE_NONE);
	for (uint32_t i = 0; i < n; i++) {
		memset(page, 'a' + (int)(i % 26), sizeof(page));
		assert_int_equal(pwrite(*ret_fd, page, sizeof(page), (off_t)i * PAGE), PAGE);
	}
	return first;
}

static int setup(void **state)
{
	(void)state;
	return firn_frames_open();
}

static void test_count(void **state)
{
	uint64_t frames = firn_counted(&firn_counters.frames), saved = firn_counted(&firn_counters.saved_pages);
	uint32_t first;
	char *one, *two;
	unsigned int shift;
	int fd;

	(void)state;
	first = make(8, &fd);
	assert_int_equal(first % 64, 0);
	one = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	two = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	for (uint32_t i = 0; i < 8; i++) {
		firn_frame_map(first + i, 3, true);
		firn_frame_map(first + i, 3, i != 7);
	}
	assert_int_equal(firn_counted(&firn_counters.frames), frames + 8);
	assert_int_equal(firn_counted(&firn_counters.saved_pages), saved + 7);
	assert_int_equal(firn_frame_run(first + 5, &shift), first);
	assert_int_equal(shift, 3);
	assert_int_equal(firn_frame_count(first), 2);
	assert_int_equal(firn_frame_count(first + 7), 1);
	tidy(true);
	assert_int_equal(pages_of(fd), 8);
	/* One of two: the other still needs it. */
	firn_frame_drop(first + 2);
	assert_int_equal(tidy(true), 0);
	assert_int_equal(pages_of(fd), 8);
	assert_int_equal(two[2 * PAGE], 'c');
	/* Written pages have copies, which stay what they are when the frame goes. */
	one[2 * PAGE] = 'C';
	firn_frame_drop(first + 2);
	firn_frame_drop(first + 7);
	assert_true(firn_frames_untidy());
	assert_int_equal(tidy(false), 0);
	assert_int_equal(pages_of(fd), 8);
	assert_int_equal(tidy(true), 2);
	assert_int_equal(pages_of(fd), 6);
	assert_int_equal(one[2 * PAGE], 'C');
	assert_int_equal(one[2 * PAGE + 1], 'c');
	assert_int_equal(one[3 * PAGE], 'd');
	assert_int_equal(firn_counted(&firn_counters.frames), frames + 6);
	/* Nothing maps it any more: it goes, whoever is there. */
	munmap(one, 8 * PAGE);
	munmap(two, 8 * PAGE);
	for (uint32_t i = 0; i < 8; i++) {
		while (firn_frame_count(first + i))
			firn_frame_drop(first + i);
		firn_frame_unmap(first + i);
		firn_frame_unmap(first + i);
	}
	assert_int_equal(tidy(false), 6);
	assert_false(firn_frames_untidy());
	assert_int_equal(firn_counted(&firn_counters.frames), frames);
	assert_int_equal(firn_counted(&firn_counters.saved_pages), saved);
	close(fd);
}

static void test_many_stores(void **state)
{
	uint32_t first[40];
	int fd[40];

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 40; i++) {
			first[i] = make((uint32_t)(1 + i * 7), &fd[i]);
			for (int k = 0; k < i; k++)
				assert_true(first[i] >= first[k] + (uint32_t)(1 + k * 7) ||
					    first[k] >= first[i] + (uint32_t)(1 + i * 7));
			firn_frame_map(first[i], 0, true);
		}
		for (int i = 39; i >= 0; i--) {
			firn_frame_drop(first[i]);
			firn_frame_unmap(first[i]);
			close(fd[i]);
		}
		tidy(false);
		assert_false(firn_frames_untidy());
	}
}

/* A store that was made and then not used. */
static void test_unused(void **state)
{
	int fd;

	(void)state;
	make(3, &fd);
	assert_true(firn_frames_untidy());
	tidy(false);
	assert_false(firn_frames_untidy());
	close(fd);
}

static void test_fork(void **state)
{
	int fd, to[2], status;
	uint32_t first = make(4, &fd);
	char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0), byte = 0;
	pid_t child;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		firn_frame_map(first + i, 2, true);
	if (!firn_frames_exclusive())
		skip();         /* nothing may be locked, or /proc does not tell */
	assert_int_equal(pipe(to), 0);
	child = fork();
	if (!child) {
		if (read(to[0], &byte, 1) != 1)
			_exit(2);
		firn_frames_forked();
		/* Its parent's frames are not its to give back, even when nobody needs them here. */
		for (uint32_t i = 0; i < 4; i++)
			firn_frame_drop(first + i);
		tidy(true);
		_exit(at[PAGE] == 'b' && pages_of(fd) == 4 ? 0 : 1);
	}
	assert_false(firn_frames_exclusive());
	assert_int_equal(write(to[1], &byte, 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(pages_of(fd), 4);
	assert_true(firn_frames_exclusive());
	munmap(at, 4 * PAGE);
	for (uint32_t i = 0; i < 4; i++) {
		firn_frame_drop(first + i);
		firn_frame_unmap(first + i);
	}
	tidy(true);
	close(fd);
}

static void test_file_size_limit(void **state)
{
	struct rlimit before, small = { 4 * PAGE, 4 * PAGE };
	uint32_t first;
	pid_t child;
	int fd, err, status;

	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	child = fork();
	if (!child) {
		firn_frames_forked();
		/* The soft limit alone is the helper's to raise. */
		small.rlim_max = before.rlim_max;
		setrlimit(RLIMIT_FSIZE, &small);
		/* Where it is waited for: else it is a thread, whose limits are the program's. */
		firn_helper.caller = 0;
		if (firn_store_open(8, &first, &fd, &err) != FIRN_STORE_NONE || err != -EFBIG)
			_exit(4);
		firn_helper.caller = getpid();
		if (before.rlim_max == RLIM_INFINITY && firn_store_open(8, &first, &fd, &err) == FIRN_STORE_NONE)
			_exit(1);
		small.rlim_max = 4 * PAGE;
		setrlimit(RLIMIT_FSIZE, &small);
		if (firn_store_open(8, &first, &fd, &err) != FIRN_STORE_NONE || err != -EFBIG)
			_exit(2);
		_exit(firn_store_open(4, &first, &fd, &err) == FIRN_STORE_NONE ? 3 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_many_stores),
		cmocka_unit_test(test_unused),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_file_size_limit),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
