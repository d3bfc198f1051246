/* SPDX-License-Identifier: MIT */
/* When nothing may be folded, and that it is refused for just that reason. */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#include "barrier-cases.h"

/* ---- pinned and locked memory */

static void case_pinned(void)
{
	struct io_uring_params p = { 0 };
	struct iovec v = { arena, PAGE };
	int ring = (int)syscall(SYS_io_uring_setup, 4, &p);

	company();
	if (ring < 0) {
		printf("no io_uring here\n");
		exit(2);
	}
	must_fold();
	memset(arena, 1, PAGE);
	CHECK(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &v, 1) == 0);
	must_refuse(-EAGAIN, "pinned");
	CHECK(syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0) == 0);
	must_fold();
	close(ring);
}

static void case_locked(void)
{
	company();
	/* What the folder itself has locked does not count. */
	firn_barrier_locked_kb = 4;
	CHECK(mlock(arena, PAGE) == 0);
	must_fold();
	CHECK(mlock(arena, 4 * PAGE) == 0);
	must_refuse(-EPERM, "locked");
}

/* ---- seccomp filters that kill */

static void install(int how)
{
	static const int forbidden[] = { SYS_memfd_create, SYS_ptrace, SYS_userfaultfd, SYS_unshare, SYS_close_range, SYS_vfork,
					 SYS_kcmp, SYS_prlimit64 };
	struct sock_filter f[64];
	struct sock_fprog prog = { .filter = f };
	unsigned short n = 0;
	long r = -1;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)forbidden[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	}
	/* prctl too, where we see it come: then nobody needs to ask. */
	if (how != 2) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = n;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (how == 0)
		r = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
	else if (how == 1)
		r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
	else
		r = firn_os_call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&prog, 0, 0, 0);
	CHECK(r == 0);
}

static void *install_later(void *arg)
{
	struct timespec t = { 0, (long)(intptr_t)arg * 77777 };

	firn_os_call(SYS_nanosleep, (long)&t, 0, 0, 0, 0, 0);
	install(1);
	atomic_store(&done, true);
	return NULL;
}

static void case_seccomp(void)
{
	/* The last ones at another moment each. */
	for (int how = 0; how < 64; how++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (!pid) {
			if (how < 3) {
				/* Asking what there is, and failing to install, change nothing. */
				CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == -1 && errno != 0);
				CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) == -1 && errno == EFAULT);
				must_fold();
				install(how);
			} else if (how == 3) {
				CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
				firn_os_call(SYS_exit, fold_once(&job, 4) != -EPERM, 0, 0, 0, 0, 0);
			} else {
				/* While folds are under way, for all threads. */
				thread(install_later, (void *)(intptr_t)how);
				while (!atomic_load(&done))
					fold_once(&job, how % 4 + 1);
			}
			for (int i = 0; i < 10; i++)
				CHECK(fold_once(&job, 4) == -EPERM);
			_exit(0);
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		if (status)
			fail("way %d of installing a filter: status %x", how, (unsigned int)status);
	}
}

/* ---- somebody traces this process */

static void case_traced(void)
{
	int sync[2], ack[2], status;
	char c;
	pid_t self = getpid(), pid;

	company();
	must_fold();
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	CHECK(pipe(sync) == 0 && pipe(ack) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		int r = ptrace(PTRACE_SEIZE, self, 0, 0) == 0;

		CHECK(write(ack[1], r ? "y" : "n", 1) == 1);
		CHECK(read(sync[0], &c, 1) == 1);
		if (r) {
			ptrace(PTRACE_INTERRUPT, self, 0, 0);
			waitpid(self, &status, __WALL);
			ptrace(PTRACE_DETACH, self, 0, 0);
		}
		CHECK(write(ack[1], "d", 1) == 1);
		_exit(0);
	}
	CHECK(read(ack[0], &c, 1) == 1);
	CHECK(c == 'y');
	must_refuse(-EAGAIN, "traces");
	CHECK(write(sync[1], "x", 1) == 1);
	CHECK(read(ack[0], &c, 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid);
	must_fold();
}

/* ---- vfork under way in another thread; a process that shares the memory */

static _Atomic int in_child;

static void *vforker(void *arg)
{
	(void)arg;
	pid_t pid = vfork();

	if (!pid) {
		in_child = 1;
		while (in_child == 1) {
			struct timespec t = { 0, 1000000 };

			(*(volatile uint64_t *)live(8))++;
			firn_os_call(SYS_nanosleep, (long)&t, 0, 0, 0, 0, 0);
		}
		_exit(0);
	}
	CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
	return NULL;
}

static int partner(void *arg)
{
	(void)arg;
	in_child = 1;
	while (in_child == 1)
		(*(volatile uint64_t *)live(8))++;
	return 0;
}

static void while_in_child(const char *why)
{
	while (!in_child)
		nap_ms(1);
	if (tier == FIRN_BARRIER_WP) {
		for (int i = 0; i < 100; i++)
			must_fold();
	} else {
		for (int i = 0; i < 5; i++)
			must_refuse(-EAGAIN, why);
	}
	in_child = 2;
}

static void case_vfork(void)
{
	pthread_t t;

	company();
	t = thread(vforker, NULL);
	while_in_child(tier == FIRN_BARRIER_NONE ? "single thread" : "shares");
	CHECK(pthread_join(t, NULL) == 0);
	if (tier != FIRN_BARRIER_NONE)
		must_fold();
}

static void case_partner(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	pid_t pid;

	company();
	must_fold();
	pid = clone(partner, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	CHECK(pid > 0);
	while_in_child(tier == FIRN_BARRIER_NONE ? "single thread" : "shares");
	CHECK(waitpid(pid, NULL, 0) == pid);
	must_fold();
}

/* ---- limits, and rights that are missing */

static void case_limits(void)
{
	struct rlimit old, none = { 0, 0 };

	company();
	must_fold();
	if (getuid()) {
		CHECK(getrlimit(RLIMIT_NPROC, &old) == 0);
		none.rlim_max = old.rlim_max;
		CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
		for (int i = 0; i < 10; i++)
			CHECK(fold_once(&job, 4) == -EAGAIN);
		CHECK(setrlimit(RLIMIT_NPROC, &old) == 0);
		must_fold();
	}
	CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	none.rlim_max = old.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	must_fold();
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	if (getuid() && tier == FIRN_BARRIER_TRACER) {
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		for (int i = 0; i < 10; i++)
			CHECK(fold_once(&job, 4) == -EPERM);
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
		must_fold();
	}
}

static const struct barrier_case cases[] = {
	{ "pinned", case_pinned, false },
	{ "locked", case_locked, false },
	{ "seccomp", case_seccomp, false },
	{ "traced", case_traced, false },
	{ "vfork", case_vfork, false },
	{ "partner", case_partner, false },
	{ "limits", case_limits, false },
	{ 0 },
};

int main(int argc, char **argv)
{
	return barrier_main(cases, argc, argv);
}
