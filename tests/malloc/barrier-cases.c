/* SPDX-License-Identifier: MIT */
/*
 * usage: barrier-cases CASE none|wp|tracer [USER-ID]
 *
 * One thing at a time that a barrier must cope with.  Exit 0: it does; 2: this tier cannot be had here.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/ioctl.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "barrier.h"

#define PAGES 1024u
#define ROUNDS 50

static enum firn_barrier_tier tier;
static struct job job = { .seed = 777 };

static void nap_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	firn_os.call(SYS_nanosleep, (long)&t, 0, 0, 0, 0, 0);
}

/* Folds until it works; a loaded machine may need a few attempts. */
static void must_fold(void)
{
	int err = 0;

	for (int i = 0; i < 200; i++) {
		err = fold_once(&job, 4);
		if (!err)
			return;
		nap_ms(1);
	}
	fail("no fold: %s (%d)", job.why, err);
}

/* Does not fold, and says why. */
static void must_refuse(int want, const char *why)
{
	int err = 0;

	for (int i = 0; i < 20; i++) {
		err = fold_once(&job, 4);
		if (err == want && strstr(job.why, why))
			return;
		/* A thread that happened to be late is another reason to refuse. */
		if (!err || (err != -EAGAIN && err != want))
			break;
	}
	fail("not refused for \"%s\" but: %s (%d)", why, job.why, err);
}

static void *idle_thread(void *arg)
{
	(void)arg;
	while (!atomic_load(&done))
		usleep(2000);
	return NULL;
}

static pthread_t thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	CHECK(pthread_create(&t, NULL, fn, arg) == 0);
	return t;
}

/* In the none tier there are no other threads to speak of. */
static void company(void)
{
	if (tier != FIRN_BARRIER_NONE)
		thread(idle_thread, NULL);
}

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

/* ---- signals: one that comes while a thread is stopped interrupts its call; a stop alone does not */

static _Atomic int handled;
static __thread int handled_here;
static int signal_tids[8];
static _Atomic int waiting_threads, answered;
static _Atomic int seen_eintr[8];

static void on_signal(int sig)
{
	(void)sig;
	handled++;
	handled_here++;
}

static int wait_once(int kind)
{
	static _Thread_local int fd = -1, sem = -1;
	struct epoll_event e;
	struct pollfd p = { .events = POLLIN };
	char c;

	switch (kind) {
	case 0:
		if (fd < 0)
			fd = epoll_create1(EPOLL_CLOEXEC);
		return epoll_wait(fd, &e, 1, -1);
	case 1:
		if (fd < 0)
			fd = epoll_create1(EPOLL_CLOEXEC);
		return epoll_pwait(fd, &e, 1, 3600000, NULL);
	case 2:
		if (fd < 0) {
			struct timeval t = { 3600, 0 };
			int pair[2];

			CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
			fd = pair[0];
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
		}
		return (int)recv(fd, &c, 1, 0);
	case 3:
		p.fd = -1;
		return poll(&p, 1, -1);
	case 4:
		if (sem < 0)
			sem = semget(IPC_PRIVATE, 1, 0600);
		struct sembuf op = { 0, -1, 0 };
		struct timespec ts = { 3600, 0 };
		int r = semtimedop(sem, &op, 1, &ts);
		int error = errno;

		semctl(sem, 0, IPC_RMID);
		sem = -1;
		errno = error;
		return r;
	case 5: {
		struct timespec t = { 3600, 0 };

		return nanosleep(&t, NULL);
	}
	}
	return pause();
}

#define KINDS 7

static void *signal_thread(void *arg)
{
	int kind = (int)(intptr_t)arg;

	signal_tids[kind] = (int)syscall(SYS_gettid);
	atomic_fetch_add(&waiting_threads, 1);
	while (!atomic_load(&done)) {
		int before = handled_here, r = wait_once(kind);

		if (r != -1 || errno != EINTR)
			fail("wait %d: %d, errno %d", kind, r, errno);
		if (handled_here == before)
			fail("wait %d was interrupted by nothing", kind);
		atomic_fetch_add(&seen_eintr[kind], 1);
		atomic_fetch_add(&answered, 1);
	}
	return NULL;
}

static int signal_in_helper(void *arg)
{
	struct firn_barrier b;
	int err = firn_barrier_open(&b);

	if (err)
		return err;
	if (arg)
		for (int i = 0; i < KINDS; i++)
			raw(SYS_tgkill, firn_helper.program, signal_tids[i], SIGUSR1, 0);
	firn_barrier_close(&b);
	return 0;
}

static bool all_asleep(void)
{
	for (int i = 0; i < KINDS; i++) {
		char path[64], text[256];
		FILE *f;
		size_t n;

		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", signal_tids[i]);
		f = fopen(path, "r");
		CHECK(f);
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
		text[n] = 0;
		if (strrchr(text, ')')[2] != 'S')
			return false;
	}
	return true;
}

static void case_signal(void)
{
	struct sigaction a = { .sa_handler = on_signal };
	int helpers = 0, spaced = 0;

	CHECK(sigaction(SIGUSR1, &a, NULL) == 0);
	for (int i = 0; i < KINDS; i++)
		thread(signal_thread, (void *)(intptr_t)i);
	while (atomic_load(&waiting_threads) < KINDS)
		nap_ms(1);
	for (int round = 1; round <= ROUNDS; round++) {
		bool send = round % 2;

		/* Asleep in the wait itself, twice in a row: a thread may sleep for a lock of the C library's. */
		do
			nap_ms(1);
		while (!all_asleep() || (nap_ms(1), !all_asleep()));
		while (firn_helper_run(signal_in_helper, send ? &job : NULL))
			if (++spaced > 2000)
				fail("the threads cannot be stopped");
		helpers++;
		while (atomic_load(&answered) < KINDS * ((round + 1) / 2))
			nap_ms(1);
	}
	CHECK(atomic_load(&handled) == KINDS * ((ROUNDS + 1) / 2));
	printf("%d stops, %d signals to each of %d waits: every one of them interrupted, nothing else did\n", helpers,
	       (ROUNDS + 1) / 2, KINDS);
}

/* ---- many signals, some of which are on their way in at the moment of a stop */

static _Atomic uint64_t sent, got;

static void on_flood(int sig)
{
	(void)sig;
	atomic_fetch_add(&got, 1);
}

static void *flood_target(void *arg)
{
	*(pthread_t *)arg = pthread_self();
	atomic_fetch_add(&waiting_threads, 1);
	for (;;)
		if (wait_once(0) != -1 || errno != EINTR)
			fail("a flooded wait: errno %d", errno);
}

static void *flooder(void *arg)
{
	while (!atomic_load(&done)) {
		/* Real-time signals queue: each must be handled. */
		if (pthread_kill(*(pthread_t *)arg, SIGRTMIN + 1) == 0)
			atomic_fetch_add(&sent, 1);
		while (atomic_load(&sent) - atomic_load(&got) > 10 && !atomic_load(&done))
			sched_yield();
	}
	return NULL;
}

static void case_flood(void)
{
	struct sigaction a = { .sa_handler = on_flood };
	static pthread_t target;
	pthread_t t;

	CHECK(sigaction(SIGRTMIN + 1, &a, NULL) == 0);
	thread(flood_target, &target);
	while (!atomic_load(&waiting_threads))
		nap_ms(1);
	t = thread(flooder, &target);
	for (int i = 0; i < 1000; i++)
		must_fold();
	atomic_store(&done, true);
	CHECK(pthread_join(t, NULL) == 0);
	for (int i = 0; i < 2000 && atomic_load(&got) != atomic_load(&sent); i++)
		nap_ms(1);
	CHECK(atomic_load(&got) == atomic_load(&sent));
	printf("%lu signals\n", (unsigned long)sent);
}

/* ---- a waiter on a futex in a page that is folded */

static uint32_t *word;

static void *futex_waiter(void *arg)
{
	int op = (int)(intptr_t)arg;

	atomic_fetch_add(&waiting_threads, 1);
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0)
		syscall(SYS_futex, word, op, 0, NULL, NULL, 0);
	return NULL;
}

static void case_futex(void)
{
	word = (uint32_t *)live(0);
	for (int i = 0; i < 20; i++) {
		int wait = i % 2 ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, wake = i % 2 ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE;
		pthread_t t;
		long woken = 0;

		__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
		atomic_store(&waiting_threads, 0);
		t = thread(futex_waiter, (void *)(intptr_t)wait);
		while (!atomic_load(&waiting_threads))
			nap_ms(1);
		nap_ms(5);
		/* All of the arena, and so the futex's page too. */
		for (int k = 0; k < 40; k++)
			must_fold();
		__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
		/* The waiter may be on its way into its wait, from a stop: then it looks at the word. */
		for (int k = 0; k < 2000 && woken == 0; k++) {
			woken = syscall(SYS_futex, word, wake, 1, NULL, NULL, 0);
			if (!woken)
				nap_ms(1);
			if (pthread_tryjoin_np(t, NULL) == 0) {
				t = 0;
				break;
			}
		}
		if (t) {
			CHECK(woken == 1);
			CHECK(pthread_join(t, NULL) == 0);
		}
	}
}

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

/* ---- no descriptor of ours is ever seen */

static void *closer(void *arg)
{
	(void)arg;
	while (!atomic_load(&done))
		for (int fd = 3; fd < 64; fd++)
			if (close(fd) == 0 || errno != EBADF)
				fail("descriptor %d was there", fd);
	return NULL;
}

static void case_descriptors(void)
{
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	thread(closer, NULL);
	thread(closer, NULL);
	for (int i = 0; i < 400; i++)
		must_fold();
}

/* ---- the helper is killed in the middle */

static _Atomic uint64_t beats;

static void *beat(void *arg)
{
	(void)arg;
	while (!atomic_load(&done)) {
		(*(volatile uint64_t *)live(0))++;
		atomic_fetch_add(&beats, 1);
	}
	return NULL;
}

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

/* ---- threads, forks and stops come and go meanwhile */

static void *short_thread(void *arg)
{
	uint64_t *p = arg;

	(*p)++;
	return NULL;
}

static void *thread_churn(void *arg)
{
	uint64_t *mine = (uint64_t *)live((uintptr_t)arg), n = 0;

	while (!atomic_load(&done)) {
		pthread_t t;

		CHECK(pthread_create(&t, NULL, short_thread, mine) == 0);
		CHECK(pthread_join(t, NULL) == 0);
		CHECK(*mine == ++n);
	}
	return NULL;
}

static void *fork_churn(void *arg)
{
	uint64_t *mine = (uint64_t *)live((uintptr_t)arg);
	char *args[] = { (char *)"true", NULL }, *env[] = { NULL };

	for (uint64_t n = 0; !atomic_load(&done); n++) {
		int status;
		pid_t pid;

		*mine = n;
		if (n % 2) {
			CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, args, env) == 0);
		} else {
			pid = fork();
			CHECK(pid >= 0);
			if (!pid) {
				bool same = *mine == n;

				*mine = 0;
				_exit(!same);
			}
		}
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(status == 0 && *mine == n);
	}
	return NULL;
}

static void case_churn(void)
{
	pthread_t t[3];
	pid_t self = getpid(), stopper;
	int status;

	t[0] = thread(thread_churn, (void *)16);
	t[1] = thread(fork_churn, (void *)24);
	t[2] = thread(beat, NULL);
	stopper = fork();
	CHECK(stopper >= 0);
	if (!stopper) {
		for (int i = 0; i < 40; i++) {
			kill(self, SIGSTOP);
			nap_ms(2);
			kill(self, SIGCONT);
			nap_ms(10);
		}
		_exit(0);
	}
	for (int i = 0; i < 300; i++) {
		int err = fold_once(&job, 8);

		if (err && err != -EAGAIN)
			fail("fold: %s (%d)", job.why, err);
		nap_ms(1);
	}
	CHECK(waitpid(stopper, &status, 0) == stopper);
	atomic_store(&done, true);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	CHECK(*(uint64_t *)live(0) == atomic_load(&beats));
	printf("%lu pages folded\n", (unsigned long)folded);
}

static const struct {
	const char *name;
	void (*run)(void);
	bool threads;           /* not for the none tier */
} cases[] = {
	{ "hole", case_hole, true },
	{ "signal", case_signal, true },
	{ "flood", case_flood, true },
	{ "futex", case_futex, true },
	{ "pinned", case_pinned, false },
	{ "locked", case_locked, false },
	{ "seccomp", case_seccomp, false },
	{ "traced", case_traced, false },
	{ "vfork", case_vfork, true },
	{ "partner", case_partner, false },
	{ "limits", case_limits, false },
	{ "descriptors", case_descriptors, true },
	{ "killed", case_killed, false },
	{ "older", case_older, false },
	{ "faults", case_faults, false },
	{ "churn", case_churn, true },
};

/* Can this tier be had at all?  In a child: the answer may leave traces. */
static bool possible(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		int err;

		company();
		do
			err = fold_once(&job, 1);
		while (err == -EAGAIN);
		if (err)
			printf("no folding: %s (%d)\n", job.why, err);
		fflush(stdout);
		_exit(err != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status == 0;
}

int main(int argc, char **argv)
{
	CHECK(argc > 2);
	firn_config.barrier = tier = tier_of(argv[2]);
	arena_open(PAGES);
	if (argc > 3 && !getuid()) {
		CHECK(setgid((gid_t)atoi(argv[3])) == 0 && setuid((uid_t)atoi(argv[3])) == 0);
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	}
	if (!possible())
		return 2;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strcmp(cases[i].name, argv[1]))
			continue;
		CHECK(!cases[i].threads || tier != FIRN_BARRIER_NONE || !strcmp(argv[1], "vfork"));
		cases[i].run();
		atomic_store(&done, true);
		printf("%s, %s: ok\n", argv[1], argv[2]);
		fflush(stdout);
		_exit(0);
	}
	fail("no case %s", argv[1]);
}
