/* SPDX-License-Identifier: MIT */
/*
 * What a stopped thread waits for, decoded from its call and its memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "procmem/fds.h"
#include "procmem/waits.h"

#define BASE 0x10000u

/* A target's memory, and what was found of its descriptors. */
static struct {
	_Alignas(8) char bytes[4096];
	int fds[64];
	uint32_t events[64];
	unsigned int n;
} world;

static int peek(void *arg, uint64_t address, void *buf, size_t len)
{
	(void)arg;
	if (address < BASE || address - BASE > sizeof(world.bytes) || len > sizeof(world.bytes) - (address - BASE))
		return -EFAULT;
	memcpy(buf, world.bytes + (address - BASE), len);
	return 0;
}

static void descriptor(void *arg, int fd, uint32_t events)
{
	(void)arg;
	assert_true(world.n < 64);
	world.fds[world.n] = fd;
	world.events[world.n++] = events;
}

static struct firn_wait decode(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	const struct firn_wait_call call = { nr, { a, b, c, d, e, f } };
	const struct firn_wait_ops ops = { peek, descriptor, NULL };
	struct firn_wait w;

	world.n = 0;
	firn_wait_decode(&call, &ops, &w);
	return w;
}

static void put(unsigned int at, const void *what, size_t len)
{
	memcpy(world.bytes + at, what, len);
}

static void test_parse(void **state)
{
	struct firn_wait_call call;

	(void)state;
	assert_int_equal(firn_wait_parse("running\n", &call), -EAGAIN);
	assert_int_equal(firn_wait_parse("-1 0x7ff 0x7f0\n", &call), 0);
	assert_int_equal(call.nr, -1);
	assert_int_equal(firn_wait_parse("232 0x3 0x557ec78d8cf0 0x3ff 0x7a120 0x0 0xffffffffffffffff 0x7 0x8\n", &call), 0);
	assert_int_equal(call.nr, 232);
	assert_int_equal(call.args[1], 0x557ec78d8cf0);
	assert_int_equal(call.args[5], UINT64_MAX);
	assert_int_equal(firn_wait_parse("", &call), -EBADMSG);
	assert_int_equal(firn_wait_parse("x", &call), -EBADMSG);
	assert_int_equal(firn_wait_parse("232 0x3 0x5", &call), -EBADMSG);
}

static void test_epoll(void **state)
{
	struct firn_wait w = decode(SYS_epoll_pwait, 5, BASE, 8, 100, 0, 8);
	uint64_t mask = 0x1234;

	(void)state;
	assert_true(w.told);
	assert_int_equal(w.timeout_ns, 100000000);
	assert_int_equal(w.clock, -1);
	assert_int_equal(world.n, 1);
	assert_int_equal(world.fds[0], 5);
	assert_true(world.events[0] & POLLIN);
	assert_false(w.masked);
	put(0, &mask, sizeof(mask));
	w = decode(SYS_epoll_pwait, 5, BASE, 8, (uint32_t)-1, BASE, 8);
	assert_true(w.told && w.masked && w.mask == mask);
	assert_true(w.timeout_ns == FIRN_WAIT_FOR_EVER);
	/* A mask that cannot be read, or of another size: who knows what wakes it. */
	assert_false(decode(SYS_epoll_pwait, 5, BASE, 8, 0, 8, 8).told);
	assert_false(decode(SYS_epoll_pwait, 5, BASE, 8, 0, BASE, 16).told);
}

static void test_poll(void **state)
{
	struct pollfd p[3] = { { 7, POLLIN, 0 }, { -1, POLLIN, 0 }, { 9, POLLOUT, 0 } };
	int64_t t[2] = { 2, 5 };
	struct firn_wait w;

	(void)state;
	put(0, p, sizeof(p));
	put(512, t, sizeof(t));
	w = decode(SYS_ppoll, BASE, 3, BASE + 512, 0, 8, 0);
	assert_true(w.told);
	assert_int_equal(w.timeout_ns, 2000000005);
	assert_int_equal(world.n, 2);
	assert_int_equal(world.fds[1], 9);
	assert_int_equal(world.events[0], POLLIN | POLLERR | POLLHUP);
	assert_int_equal(world.events[1], POLLOUT | POLLERR | POLLHUP);
	/* Beyond what can be read, and more than there may be. */
	assert_false(decode(SYS_ppoll, BASE + 4090, 20, 0, 0, 8, 0).told);
	assert_false(decode(SYS_ppoll, BASE, UINT64_MAX, 0, 0, 8, 0).told);
	t[1] = 1000000000;
	put(512, t, sizeof(t));
	assert_false(decode(SYS_ppoll, BASE, 3, BASE + 512, 0, 8, 0).told);
#ifdef SYS_poll
	w = decode(SYS_poll, BASE, 3, (uint32_t)-1, 0, 0, 0);
	assert_true(w.told && w.timeout_ns == FIRN_WAIT_FOR_EVER && world.n == 2);
#endif
#ifdef SYS_restart_syscall
	/* The same, begun anew by the kernel: it does not say which call it was. */
	w = decode(SYS_restart_syscall, BASE, 3, 500, 0, 0, 0);
	assert_true(w.told && w.timeout_ns == 500000000 && world.n == 2);
	w = decode(SYS_restart_syscall, BASE, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, 0, 0, 0);
	assert_true(w.told && !world.n);
	assert_false(decode(SYS_restart_syscall, BASE, 0, 0, 0, 0, 0).told);
#endif
}

static void test_select(void **state)
{
	uint64_t in[2] = { 1ull << 3 | 1ull << 63, 1 | 2 }, out[2] = { 0, 1 };
	struct firn_wait w;

	(void)state;
	put(0, in, sizeof(in));
	put(64, out, sizeof(out));
	/* 66 descriptors, numbers 0 to 65. */
	w = decode(SYS_pselect6, 66, BASE, BASE + 64, 0, 0, 0);
	assert_true(w.told);
	assert_int_equal(world.n, 5);
	assert_int_equal(world.fds[0], 3);
	assert_int_equal(world.fds[1], 63);
	assert_int_equal(world.fds[2], 64);
	assert_int_equal(world.fds[3], 65);
	assert_int_equal(world.fds[4], 64);
	assert_true(world.events[4] & POLLOUT);
	w = decode(SYS_pselect6, 65, BASE, 0, 0, 0, 0);
	assert_int_equal(world.n, 3);
	assert_false(decode(SYS_pselect6, 1 << 30, BASE, 0, 0, 0, 0).told);
}

static void test_others(void **state)
{
	int64_t t[2] = { 3600, 0 };
	uint64_t set = 0x200;
	struct firn_wait w;

	(void)state;
	put(0, t, sizeof(t));
	put(64, &set, sizeof(set));
	w = decode(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, BASE, 0, 0, 0);
	assert_true(w.told && w.clock == CLOCK_MONOTONIC && w.timeout_ns == 3600000000000ull);
	w = decode(SYS_clock_nanosleep, CLOCK_REALTIME, 0, BASE, 0, 0, 0);
	assert_true(w.told && w.clock == -1);
	w = decode(SYS_rt_sigtimedwait, BASE + 64, 0, 0, 8, 0, 0);
	assert_true(w.told && w.accepts == set);
	w = decode(SYS_wait4, 0, 0, 0, 0, 0, 0);
	assert_true(w.told && w.for_child);
	w = decode(SYS_read, 4, BASE, 10, 0, 0, 0);
	assert_true(w.told && w.on == 4 && world.n == 1 && world.fds[0] == 4);
	w = decode(SYS_sendto, 4, BASE, 10, 0, 0, 0);
	assert_true(w.told && world.events[0] & POLLOUT && !(world.events[0] & POLLIN));
	w = decode(SYS_futex, BASE, FUTEX_WAIT_PRIVATE, 0, BASE, 0, 0);
	assert_true(w.told && w.timeout_ns == 3600000000000ull && w.clock == -1);
	w = decode(SYS_futex, BASE, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME, 0, BASE, 0, 0);
	assert_true(w.told && w.clock == CLOCK_REALTIME);
	assert_true(decode(SYS_semop, 0, 0, 0, 0, 0, 0).hidden);
	/* What is not known, and what computes, may look at anything next. */
	assert_false(decode(-1, 0, 0, 0, 0, 0, 0).told);
	assert_false(decode(SYS_getpid, 0, 0, 0, 0, 0, 0).told);
	assert_false(decode(SYS_ioctl, 3, 0, 0, 0, 0, 0).told);
	/* Never an overflow. */
	t[0] = INT64_MAX;
	put(0, t, sizeof(t));
	w = decode(SYS_nanosleep, BASE, 0, 0, 0, 0, 0);
	assert_true(w.told && w.timeout_ns == FIRN_WAIT_FOR_EVER);
	t[0] = -1;
	put(0, t, sizeof(t));
	assert_false(decode(SYS_nanosleep, BASE, 0, 0, 0, 0, 0).told);
}

static void test_kinds(void **state)
{
	uint64_t ino;

	(void)state;
	assert_int_equal(firn_fd_kind_of("socket:[1234]", &ino), FIRN_FD_SOCKET);
	assert_int_equal(ino, 1234);
	assert_int_equal(firn_fd_kind_of("pipe:[77]", &ino), FIRN_FD_PIPE);
	assert_int_equal(firn_fd_kind_of("anon_inode:[eventpoll]", &ino), FIRN_FD_EPOLL);
	assert_int_equal(firn_fd_kind_of("anon_inode:inotify", &ino), FIRN_FD_INOTIFY);
	assert_int_equal(firn_fd_kind_of("anon_inode:[userfaultfd]", &ino), FIRN_FD_OTHER);
	assert_int_equal(firn_fd_kind_of("anon_inode:[io_uring]", &ino), FIRN_FD_OTHER);
	assert_int_equal(firn_fd_kind_of("/tmp/socket:[1]", &ino), FIRN_FD_OTHER);
	assert_int_equal(ino, 0);
	assert_int_equal(firn_fd_kind_of("", &ino), FIRN_FD_OTHER);
}

static void test_fdinfo(void **state)
{
	struct firn_fd f = { 0 };
	uint32_t events;
	uint64_t ino;
	int fd;

	(void)state;
	firn_fd_line("flags:\t02004002", &f);
	firn_fd_line("it_value: (4, 5)", &f);
	firn_fd_line("it_interval: (0, 50000000)", &f);
	firn_fd_line("ticks: 3", &f);
	firn_fd_line("sigmask:\t0000000000000800", &f);
	assert_int_equal(f.flags, 02004002);
	assert_int_equal(f.left_ns, 4000000005);
	assert_int_equal(f.interval_ns, 50000000);
	assert_int_equal(f.ticks, 3);
	assert_int_equal(f.sigmask, 0x800);
	firn_fd_line("it_value: (99999999999999, 0)", &f);
	assert_true(f.left_ns == UINT64_MAX);
	firn_fd_line("it_value: (x", &f);
	firn_fd_line("it_value:", &f);
	assert_int_equal(f.left_ns, 0);
	assert_true(firn_fd_member_line("tfd:        4 events: 80000019 data:                4  pos:0 ino:1f0af4 sdev:9", &fd,
					&events, &ino));
	assert_int_equal(fd, 4);
	assert_int_equal(events, 0x80000019);
	assert_int_equal(ino, 0x1f0af4);
	assert_false(firn_fd_member_line("pos:\t0", &fd, &events, &ino));
	assert_false(firn_fd_member_line("tfd: -4 events: 1", &fd, &events, &ino));
	assert_false(firn_fd_member_line("tfd:", &fd, &events, &ino));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),  cmocka_unit_test(test_epoll), cmocka_unit_test(test_poll),
		cmocka_unit_test(test_select), cmocka_unit_test(test_others), cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_fdinfo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
