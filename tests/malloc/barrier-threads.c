/* SPDX-License-Identifier: MIT */
/* Threads that wait, get signals, come and go, or look for descriptors, while pages are folded. */
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/sem.h>
#include <sys/socket.h>

#include "barrier-cases.h"

#define ROUNDS 50

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

static const struct barrier_case cases[] = {
	{ "signal", case_signal, true },
	{ "flood", case_flood, true },
	{ "futex", case_futex, true },
	{ "descriptors", case_descriptors, true },
	{ "churn", case_churn, true },
	{ 0 },
};

int main(int argc, char **argv)
{
	return barrier_main(cases, argc, argv);
}
