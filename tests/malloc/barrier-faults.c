/* SPDX-License-Identifier: MIT */
/* Kernels that lack something, calls that fail, a helper that is killed, a write to what is held. */
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <signal.h>

#include "barrier-cases.h"

/* ---- a hole that is written to while it is held */

static struct {
	char *at;
	_Atomic int phase;      /* 1 held, 2 about to write, 3 written */
	_Atomic bool lost;
} hole;

static void *hole_writer(void *arg)
{
	(void)arg;
	while (atomic_load(&hole.phase) != 1)
		;
	atomic_store(&hole.phase, 2);
	*(volatile char *)hole.at = 'x';
	atomic_store(&hole.phase, 3);
	return NULL;
}

static int hole_in_helper(void *arg)
{
	struct firn_barrier b;
	int err = firn_barrier_open(&b);
	long fd;
	bool mapped;

	(void)arg;
	if (err)
		return err;
	err = firn_barrier_hold(&b, hole.at, 1);
	if (err)
		return err;
	atomic_store(&hole.phase, 1);
	/* The tracer's threads are stopped; nobody will say that he writes. */
	for (int i = 0; i < 100 && atomic_load(&hole.phase) != 3; i++)
		nap_ms(1);
	if (atomic_load(&hole.phase) == 3)
		atomic_store(&hole.lost, true);
	fd = raw(SYS_memfd_create, (long)"hole", 1, 0, 0);
	raw(SYS_ftruncate, fd, PAGE, 0, 0);
	mapped = !firn_os_failed(firn_os.mmap(hole.at, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE, (int)fd, 0));
	firn_barrier_release(&b, hole.at, 1, mapped);
	firn_barrier_close(&b);
	return 0;
}

static void case_hole(void)
{
	for (int i = 0; i < 3; i++) {
		pthread_t t;
		int err;

		hole.at = arena + (size_t)i * PAGE;
		atomic_store(&hole.phase, 0);
		t = thread(hole_writer, NULL);
		do
			err = firn_helper_run(hole_in_helper, NULL);
		while (err == -EAGAIN);
		CHECK(err == 0);
		CHECK(!atomic_load(&hole.lost));
		CHECK(pthread_join(t, NULL) == 0);
		CHECK(*hole.at == 'x');
	}
}

/* ---- the helper is killed in the middle */

static int die_in_helper(void *arg)
{
	struct firn_barrier b;
	int err = firn_barrier_open(&b);

	(void)arg;
	if (err)
		return err;
	firn_barrier_hold(&b, arena, 16);
	nap_ms(2);
	raw(SYS_kill, raw(SYS_getpid, 0, 0, 0, 0), SIGKILL, 0, 0);
	return 0;
}

static void case_killed(void)
{
	if (tier != FIRN_BARRIER_NONE)
		thread(beat, NULL);
	for (int i = 0; i < 20; i++) {
		uint64_t before;
		int err;

		do
			err = firn_helper_run(die_in_helper, NULL);
		while (err == -EAGAIN);
		CHECK(err == -ECHILD);
		before = atomic_load(&beats);
		while (tier != FIRN_BARRIER_NONE && atomic_load(&beats) == before)
			nap_ms(1);
		must_fold();
	}
}

/* ---- kernels that lack something, and calls that fail */

static struct firn_malloc_os real;
static int lacks;               /* a call's number; -1: the newest feature of userfaultfd */
static long instead;
static _Atomic int countdown, failed_nr;

static long call_lacking(long nr, long a, long b, long c, long d, long e, long f)
{
	if (lacks >= 0 && nr == lacks)
		return instead;
	if (lacks < 0 && nr == SYS_ioctl && (unsigned long)b == UFFDIO_API && ((struct uffdio_api *)c)->features >> 13 & 1)
		return -EINVAL;
	return real.call(nr, a, b, c, d, e, f);
}

static bool fails_now(long nr)
{
	/* What cannot fail, and what only waits. */
	if (nr == SYS_rt_sigprocmask || nr == SYS_wait4 || nr == SYS_rt_sigtimedwait || nr == SYS_futex ||
	    nr == SYS_getpid || nr == SYS_gettid || nr == SYS_nanosleep)
		return false;
	if (atomic_fetch_sub(&countdown, 1) != 1)
		return false;
	atomic_store(&failed_nr, (int)nr);
	return true;
}

static long call_failing(long nr, long a, long b, long c, long d, long e, long f)
{
	return fails_now(nr) ? -ENOMEM : real.call(nr, a, b, c, d, e, f);
}

static void *mmap_failing(void *address, size_t bytes, int prot, int flags, int fd, long offset)
{
	return fails_now(SYS_mmap) ? (void *)-ENOMEM : real.mmap(address, bytes, prot, flags, fd, offset);
}

static void lacking(int nr, long answer)
{
	lacks = nr;
	instead = answer;
	firn_os.call = call_lacking;
}

static void case_older(void)
{
	company();
	real = firn_os;
	if (tier == FIRN_BARRIER_WP) {
		lacking(-1, 0);
		case_hole();
		for (int i = 0; i < 20; i++)
			must_fold();
	}
	lacking(SYS_close_range, -ENOSYS);
	CHECK(fold_once(&job, 4) == -ENOSYS);
	lacking(SYS_openat, -ENOENT);
	must_refuse(-EPERM, "/proc");
	lacking(SYS_readlinkat, -ENOENT);
	must_refuse(-EPERM, "/proc");
	lacking(SYS_unshare, -EPERM);
	must_fold();
	if (tier == FIRN_BARRIER_TRACER) {
		lacking(SYS_kcmp, -ENOSYS);
		must_refuse(-EPERM, "CONFIG_KCMP");
		lacking(SYS_ptrace, -EPERM);
		must_refuse(-EPERM, "trace");
	}
	firn_os.call = real.call;
	must_fold();
}

static void *patterns(void *arg)
{
	size_t n = PAGES - 32;
	uint64_t round = 0;

	(void)arg;
	for (; !atomic_load(&done); round++)
		for (size_t i = 0; i < n; i++) {
			volatile uint64_t *p = (uint64_t *)(live(32 + i) + 512);

			if (*p != round)
				fail("page %zu was lost after call %d failed", 32 + i, atomic_load(&failed_nr));
			*p = round + 1;
		}
	return NULL;
}

static void case_faults(void)
{
	pthread_t t = 0;
	int n, folds = 0;

	real = firn_os;
	if (tier != FIRN_BARRIER_NONE)
		t = thread(patterns, NULL);
	must_fold();
	firn_os.call = call_failing;
	firn_os.mmap = mmap_failing;
	for (n = 1;; n++) {
		int err;

		atomic_store(&failed_nr, -1);
		atomic_store(&countdown, n);
		err = fold_once(&job, 2);
		folds += err == 0;
		if (atomic_load(&countdown) > 0 && !err)
			break;
		CHECK(n < 2000);
	}
	firn_os = real;
	must_fold();
	atomic_store(&done, true);
	if (t)
		CHECK(pthread_join(t, NULL) == 0);
	printf("%d calls failed, one at a time; %d of these folds were whole all the same\n", n - 1, folds);
}

static const struct barrier_case cases[] = {
	{ "hole", case_hole, true },
	{ "killed", case_killed, false },
	{ "older", case_older, false },
	{ "faults", case_faults, false },
	{ 0 },
};

int main(int argc, char **argv)
{
	return barrier_main(cases, argc, argv);
}
