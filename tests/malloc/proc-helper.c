/* SPDX-License-Identifier: MIT */
/*
 * What the process does at the instant in which a helper that nobody waits for is at work on its heap: a thread that
 * libc does not know.  A worker keeps the heap sparse, so that there are helpers again and again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "m.h"

#define ROUNDS 20
#define LOOKS 400000                    /* for a helper, until it is said that there is none */

static atomic_bool over;
static atomic_int worker_tid;
static struct m_objects kept;           /* the worker's, which it only reads */

static void *work(void *arg)
{
	struct m_objects passing = { .n = 0 };

	atomic_store(&worker_tid, (int)syscall(SYS_gettid));
	for (uint64_t seed = 1000; !atomic_load(&over); seed += 1000000) {
		passing = m_sparse(60000, 16, 400, 12, seed);
		for (int i = 0; i < 30 && !atomic_load(&over); i++) {
			m_check_all(&passing);
			free(malloc(3000));
			usleep(1000);
		}
		m_free_all(&passing);
		munmap(passing.at, (60000 / 12 * 2 + 64) * sizeof(struct m_object));
	}
	return arg;
}

static int tasks(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = -2;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Until there is a helper beside @ours threads.  Without the library there is none. */
static bool seen(int ours)
{
	for (int i = 0; m_folds() && i < LOOKS; i++)
		if (tasks() > ours)
			return true;
	if (m_folds())
		FAIL("no helper was seen: %s", m_now().why ? m_now().why : "");
	return false;
}

static int lowest(void)
{
	int fd = open("/dev/null", O_RDONLY);

	CHECK(fd >= 0);
	close(fd);
	return fd;
}

static int lowest_before;

static pthread_t begin(void)
{
	pthread_t worker;

	lowest_before = lowest();
	kept = m_sparse(60000, 16, 400, 12, 1);
	CHECK_EQ(pthread_create(&worker, NULL, work, NULL), 0);
	return worker;
}

static void end(pthread_t worker)
{
	atomic_store(&over, true);
	CHECK_EQ(pthread_join(worker, NULL), 0);
}

/* Nothing of helpers stays: no thread, no child, no descriptor. */
static void nothing_stays(void)
{
	CHECK_EQ(waitpid(-1, NULL, __WALL | WNOHANG), -1);
	CHECK_EQ(errno, ECHILD);
	for (int i = 0; tasks() != 1; i++) {
		CHECK(i < LOOKS);
		usleep(100);
	}
	CHECK_EQ(lowest(), lowest_before);
}

static void case_seen(void)
{
	pthread_t worker = begin();

	for (int i = 0; i < ROUNDS; i++) {
		seen(2);
		/* Its descriptors are not ours, and no child of ours is there. */
		CHECK_EQ(waitpid(-1, NULL, __WALL | WNOHANG), -1);
		m_check_all(&kept);
	}
	end(worker);
	nothing_stays();
}

static void in_child(uint64_t seed)
{
	m_check_all(&kept);
	m_rewrite(&kept, seed);
	m_check_all(&kept);
	free(malloc(100));
	m_free_all(&kept);
	m_check_all(&kept);
	_exit(0);
}

static void forks(pid_t (*fork_it)(void))
{
	pthread_t worker = begin();

	for (int i = 0; i < ROUNDS; i++) {
		pid_t child;

		seen(2);
		child = fork_it();
		if (!child)
			in_child((uint64_t)i * 1000);
		m_rewrite(&kept, (uint64_t)i * 77777);
		m_reap(child);
		m_check_all(&kept);
	}
	end(worker);
	nothing_stays();
}

static pid_t raw(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

/* A child of a raw clone in a process of several threads may use what needs no lock: what it holds. */
static void case_raw_clone(void)
{
	pthread_t worker = begin();

	for (int i = 0; i < ROUNDS; i++) {
		pid_t child;

		seen(2);
		child = raw();
		if (!child) {
			m_check_all(&kept);
			m_rewrite(&kept, (uint64_t)i * 1000);
			m_check_all(&kept);
			_exit(0);
		}
		m_rewrite(&kept, (uint64_t)i * 77777);
		m_reap(child);
		m_check_all(&kept);
	}
	end(worker);
	nothing_stays();
}

static void case_fork(void)
{
	forks(fork);
}

static void case_exec(void)
{
	if (m_argc > 2) {
		lowest_before = lowest();
		nothing_stays();
		return;
	}
	begin();
	seen(2);
	execl("/proc/self/exe", "proc-helper", "exec", "again", NULL);
	FAIL("exec");
}

static void case_exit(void)
{
	begin();
	seen(2);
	exit(0);
}

/* Calls that want one thread find one as soon as the program's own are gone. */
static void unshares(long (*unshare_it)(void))
{
	for (int i = 0; i < ROUNDS; i++) {
		pid_t child = fork();

		if (!child) {
			pthread_t worker = begin();

			seen(2);
			end(worker);
			/* libc knows that it ended a little before the kernel has forgotten it. */
			while (!syscall(SYS_tgkill, getpid(), atomic_load(&worker_tid), 0))
				;
			CHECK_EQ(unshare_it(), 0);
			m_check_all(&kept);
			_exit(0);
		}
		m_reap(child);
	}
}

static long by_libc(void)
{
	return unshare(CLONE_THREAD);
}

static long by_number(void)
{
	return syscall(SYS_unshare, CLONE_THREAD);
}

static void case_unshare(void)
{
	unshares(by_libc);
	unshares(by_number);
}

/* A filter for all threads comes while a helper is there, and would end the process for what a helper calls. */
static void case_seccomp(void)
{
	static const unsigned int deadly[] = { SYS_userfaultfd, SYS_memfd_create, SYS_close_range, SYS_pwrite64, SYS_ftruncate };
	struct sock_filter f[16] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	struct sock_fprog prog = { 1, f };
	pthread_t worker = begin();

	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
		f[prog.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, deadly[i], 0, 1);
		f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	}
	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	seen(2);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog), 0);
	for (int i = 0; i < 300; i++) {
		m_check_all(&kept);
		usleep(1000);
	}
	end(worker);
	nothing_stays();
}

int main(int argc, char **argv)
{
	static const struct m_case cases[] = {
		{ "seen", case_seen },
		{ "fork", case_fork },
		{ "raw-clone", case_raw_clone },
		{ "exec", case_exec },
		{ "exit", case_exit },
		{ "unshare", case_unshare },
		{ "seccomp", case_seccomp },
		{ NULL, NULL },
	};

	return m_main(cases, argc, argv);
}
