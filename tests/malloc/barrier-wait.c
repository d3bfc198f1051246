/* SPDX-License-Identifier: MIT */
/*
 * usage: barrier-wait values|signals|cancel|forwards|speed [ROUNDS]
 *
 * The waiting functions, as libc has them, with the allocator's work done in between: to be run under
 * libfirnmalloc.so with a short period, and without it, which must make no difference.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(x) do { \
	if (!(x)) { \
		printf("FAIL: line %d: %s (errno %d, %s)\n", __LINE__, #x, errno, doing); \
		fflush(stdout); \
		_exit(1); \
	} \
} while (0)

int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t bytes);

static const char *doing = "";
static int full, empty, ep_full, ep_empty;      /* event counters, and epolls on them */

static const char *const names[] = {
	"poll", "ppoll", "__poll_chk", "select", "pselect", "epoll_wait", "epoll_pwait", "epoll_pwait2",
	"nanosleep", "clock_nanosleep", "clock_nanosleep, absolute", "usleep", "sleep", "ppoll, mask",
	"pselect, mask", "epoll_pwait, mask", "epoll_pwait2, mask",
};
#define KINDS (int)(sizeof(names) / sizeof(names[0]))
#define FIRST_SLEEP 8
#define SLEEPS 5
#define FIRST_MASKED 13

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Wait on @fd for @ms, -1: for ever.  Returns what the function returned, clock_nanosleep's answer as by errno. */
static int wait_for(int kind, bool ready, int ms, const sigset_t *mask)
{
	int fd = ready ? full : empty, ep = ready ? ep_full : ep_empty, r;
	struct pollfd p = { fd, POLLIN, 0 };
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L }, *tp = ms < 0 ? NULL : &t, rest;
	struct timeval v = { ms / 1000, ms % 1000 * 1000 };
	struct epoll_event e;
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	switch (kind) {
	case 0:
		return poll(&p, 1, ms);
	case 1:
		return ppoll(&p, 1, tp, NULL);
	case 2:
		return __poll_chk(&p, 1, ms, sizeof(p));
	case 3:
		r = select(fd + 1, &in, NULL, NULL, ms < 0 ? NULL : &v);
		CHECK(r < 0 || FD_ISSET(fd, &in) == ready);
		CHECK(r != 0 || (!v.tv_sec && !v.tv_usec));
		return r;
	case 4:
		r = pselect(fd + 1, &in, NULL, NULL, tp, NULL);
		CHECK(r < 0 || FD_ISSET(fd, &in) == ready);
		return r;
	case 5:
		return epoll_wait(ep, &e, 1, ms);
	case 6:
		return epoll_pwait(ep, &e, 1, ms, NULL);
	case 7:
		return epoll_pwait2(ep, &e, 1, tp, NULL);
	case 8:
		t.tv_sec += ms < 0 ? 1000 : 0;
		t.tv_nsec = ms < 0 ? 0 : t.tv_nsec;
		r = nanosleep(&t, &rest);
		CHECK(r == 0 || (rest.tv_sec <= t.tv_sec && rest.tv_sec >= t.tv_sec - 100));
		return r;
	case 9:
		t.tv_sec += ms < 0 ? 1000 : 0;
		t.tv_nsec = ms < 0 ? 0 : t.tv_nsec;
		r = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &rest);
		CHECK(r == 0 || (rest.tv_sec <= t.tv_sec && rest.tv_sec >= t.tv_sec - 100));
		errno = r ? r : errno;
		return r ? -1 : 0;
	case 10: {
		uint64_t end = now_ns() + (ms < 0 ? 1000000 : (uint64_t)ms) * 1000000;

		t.tv_sec = (time_t)(end / 1000000000);
		t.tv_nsec = (long)(end % 1000000000);
		r = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		errno = r ? r : errno;
		return r ? -1 : 0;
	}
	case 11:
		return usleep(ms < 0 ? 1000000000 : (useconds_t)ms * 1000);
	case 12:
		r = (int)sleep(ms < 0 ? 1000 : ms ? 1 : 0);
		CHECK(r == 0 || (ms < 0 && r >= 900 && r <= 1000));
		if (r)
			errno = EINTR;
		return r ? -1 : 0;
	case 13:
		return ppoll(&p, 1, tp, mask);
	case 14:
		return pselect(fd + 1, &in, NULL, NULL, tp, mask);
	case 15:
		return epoll_pwait(ep, &e, 1, ms, mask);
	case 16:
		return epoll_pwait2(ep, &e, 1, tp, mask);
	}
	return -1;
}

/* Something to do for the allocator. */
static void work(void)
{
	static char *p[4000];

	for (int i = 0; i < 4000; i++)
		p[i] = malloc((size_t)(i % 400 + 1));
	for (int i = 0; i < 4000; i++)
		if (i % 10)
			free(p[i]), p[i] = NULL;
	for (int i = 0; i < 4000; i += 10)
		free(p[i]);
}

static void values(int rounds)
{
	struct epoll_event e;
	struct timespec bad = { 0, 2000000000 }, neg = { -1, 0 };
	struct timeval bad_v = { 0, -5 }, v = { 5, 0 };
	struct pollfd *volatile nowhere = (struct pollfd *)8;
	fd_set in, out;

	for (int round = 0; round < rounds; round++) {
		for (int kind = 0; kind < KINDS; kind++) {
			bool waits = kind < FIRST_SLEEP || kind >= FIRST_SLEEP + SLEEPS;
			uint64_t from, ms = kind == 12 ? 1000 : 30;

			doing = names[kind];
			work();
			errno = 77;
			if (waits) {
				CHECK(wait_for(kind, true, -1, NULL) == 1);
				CHECK(wait_for(kind, true, 0, NULL) == 1);
				CHECK(wait_for(kind, true, 5000, NULL) == 1);
			}
			CHECK(wait_for(kind, false, 0, NULL) == 0);
			if (kind == 12 && round)
				continue;
			from = now_ns();
			CHECK(wait_for(kind, false, (int)ms, NULL) == 0);
			CHECK(now_ns() - from >= ms * 1000000);
			CHECK(errno == 77);
		}
		/* What is wrong stays wrong. */
		doing = "errors";
		usleep(10000);
		CHECK(epoll_wait(empty, &e, 1, 50) == -1 && errno == EINVAL);
		usleep(10000);
		CHECK(epoll_wait(-1, &e, 1, 50) == -1 && errno == EBADF);
		usleep(10000);
		CHECK(epoll_wait(ep_empty, &e, 0, 50) == -1 && errno == EINVAL);
		usleep(10000);
		CHECK(ppoll(NULL, 0, &bad, NULL) == -1 && errno == EINVAL);
		usleep(10000);
		CHECK(nanosleep(&bad, NULL) == -1 && errno == EINVAL);
		CHECK(nanosleep(&neg, NULL) == -1 && errno == EINVAL);
		CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL) == EINVAL);
		CHECK(clock_nanosleep(999, 0, &neg, NULL) == EINVAL);
		usleep(10000);
		CHECK(select(-1, NULL, NULL, NULL, &v) == -1 && errno == EINVAL);
		CHECK(select(0, NULL, NULL, NULL, &bad_v) == -1 && errno == EINVAL);
		usleep(10000);
		CHECK(poll(nowhere, 1, 50) == -1 && errno == EFAULT);
		/* Sets: the question is left where the answer is not an answer; the rest of the time is told. */
		usleep(10000);
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_SET(empty, &in);
		FD_SET(full, &in);
		FD_SET(full, &out);
		v = (struct timeval){ 5, 0 };
		CHECK(select((full > empty ? full : empty) + 1, &in, &out, NULL, &v) == 2);
		CHECK(FD_ISSET(full, &in) && FD_ISSET(full, &out) && !FD_ISSET(empty, &in));
		CHECK(v.tv_sec <= 5 && v.tv_sec > 3);
		usleep(10000);
		FD_ZERO(&in);
		FD_SET(60, &in);
		FD_SET(empty, &in);
		CHECK(select(61, &in, NULL, NULL, &v) == -1 && errno == EBADF);
		CHECK(FD_ISSET(60, &in) && FD_ISSET(empty, &in));
	}
}

/* ---- a signal at any moment of a wait interrupts it */

static _Atomic int round_now, acked;
static _Atomic int handled;
static int tid;
static bool pending_first;

static void on_signal(int sig)
{
	struct pollfd p = { -1, 0, 0 };

	(void)sig;
	handled++;
	/* Allowed in a handler. */
	poll(&p, 1, 2);
}

static bool asleep(void)
{
	char path[64], text[256];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	CHECK(n > 0);
	text[n] = 0;
	return strrchr(text, ')')[2] == 'S';
}

static void nap(long us)
{
	struct timespec t = { 0, us * 1000 };

	syscall(SYS_nanosleep, &t, NULL);
}

static void *sender(void *arg)
{
	pthread_t to = *(pthread_t *)arg;
	unsigned int seed = 5;

	for (int round = 1;; round++) {
		while (atomic_load(&round_now) != round) {
			if (atomic_load(&round_now) < 0)
				return NULL;
			nap(50);
		}
		while (!asleep())
			nap(20);
		nap(rand_r(&seed) % 80000);
		CHECK(pthread_kill(to, SIGUSR1) == 0);
		while (atomic_load(&acked) != round)
			nap(50);
	}
}

static void signals(int rounds)
{
	struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, chld = { .sa_handler = SIG_IGN };
	pthread_t self = pthread_self(), t;
	sigset_t usr1, none;
	int n = 0;

	CHECK(sigaction(SIGUSR1, &a, NULL) == 0 && sigaction(SIGWINCH, &chld, NULL) == 0);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigemptyset(&none);
	tid = (int)syscall(SYS_gettid);
	CHECK(pthread_create(&t, NULL, sender, &self) == 0);
	for (int round = 0; round < rounds; round++) {
		for (int kind = 0; kind < KINDS; kind++) {
			sigset_t now;
			int before = handled;

			doing = names[kind];
			work();
			if (kind >= FIRST_MASKED)
				CHECK(pthread_sigmask(SIG_BLOCK, &usr1, NULL) == 0);
			pending_first = kind >= FIRST_MASKED && round % 2;
			errno = 0;
			if (pending_first) {
				/* It is there before the wait begins. */
				CHECK(pthread_kill(self, SIGUSR1) == 0);
				CHECK(wait_for(kind, false, -1, &none) == -1 && errno == EINTR);
			} else {
				atomic_store(&round_now, ++n);
				CHECK(wait_for(kind, false, -1, &none) == -1 && errno == EINTR);
				atomic_store(&acked, n);
			}
			CHECK(handled == before + 1);
			CHECK(pthread_sigmask(SIG_UNBLOCK, &usr1, &now) == 0);
			CHECK(sigismember(&now, SIGUSR1) == (kind >= FIRST_MASKED));
			CHECK(sigismember(&now, SIGTERM) == 0);
		}
	}
	atomic_store(&round_now, -1);
	CHECK(pthread_join(t, NULL) == 0);
	printf("%d waits, each interrupted by its signal\n", rounds * KINDS);
}

/* ---- cancellation at any moment, with the signal mask as it was */

static sigset_t cleanup_mask;
static _Atomic bool entered;

static void cleanup(void *arg)
{
	(void)arg;
	pthread_sigmask(SIG_BLOCK, NULL, &cleanup_mask);
}

static void *cancelled(void *arg)
{
	int kind = (int)(intptr_t)arg;
	sigset_t none;

	sigemptyset(&none);
	work();
	pthread_cleanup_push(cleanup, NULL);
	atomic_store(&entered, true);
	wait_for(kind, false, -1, &none);
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancel(int rounds)
{
	unsigned int seed = 9;

	for (int round = 0; round < rounds; round++) {
		for (int kind = 0; kind < KINDS; kind++) {
			pthread_t t;
			void *answer;

			doing = names[kind];
			atomic_store(&entered, false);
			sigfillset(&cleanup_mask);
			CHECK(pthread_create(&t, NULL, cancelled, (void *)(intptr_t)kind) == 0);
			while (!atomic_load(&entered))
				nap(20);
			nap(rand_r(&seed) % 60000);
			CHECK(pthread_cancel(t) == 0);
			CHECK(pthread_join(t, &answer) == 0);
			CHECK(answer == PTHREAD_CANCELED);
			CHECK(!sigismember(&cleanup_mask, SIGTERM) && !sigismember(&cleanup_mask, SIGUSR1));
		}
	}
	printf("%d threads cancelled\n", rounds * KINDS);
}

/* ---- prctl and syscall forward as libc's do */

static void forwards(void)
{
	char name[32] = "";
	pid_t pid;
	int status;

	doing = "forwards";
	errno = 77;
	CHECK(prctl(PR_SET_NAME, "forwards") == 0);
	CHECK(prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "forwards"));
	CHECK(errno == 77);
	CHECK(prctl(12345678) == -1 && errno == EINVAL);
	errno = 77;
	CHECK(syscall(SYS_getpid) == getpid() && errno == 77);
	CHECK(syscall(SYS_close, -1) == -1 && errno == EBADF);
	CHECK(syscall(99999) == -1 && errno == ENOSYS);
	CHECK(syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0) == 0 && !strcmp(name, "forwards"));
	/* Six arguments. */
	int fd = (int)syscall(SYS_memfd_create, "x", 0);
	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	CHECK(pwrite(fd, "z", 1, 4096) == 1);
	char *p = (char *)syscall(SYS_mmap, NULL, 4096, 1, 1, fd, 4096L);
	CHECK(p != (char *)-1 && *p == 'z');
	CHECK(syscall(SYS_mmap, NULL, 4096, 1, 1, fd, 1L) == -1 && errno == EINVAL);
	/* A fork by hand. */
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	CHECK(pid >= 0);
	if (!pid)
		_exit(5);
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
}

static void speed(void)
{
	struct pollfd p = { full, POLLIN, 0 };
	enum { N = 2000000 };
	uint64_t a, b;

	work();
	a = now_ns();
	for (int i = 0; i < N; i++)
		CHECK(poll(&p, 1, 1000) == 1);
	b = now_ns();
	printf("poll: %.1f ns a call\n", (double)(b - a) / N);
}

int main(int argc, char **argv)
{
	struct epoll_event e = { .events = EPOLLIN };
	int rounds = argc > 2 ? atoi(argv[2]) : 4;

	full = eventfd(1, EFD_CLOEXEC);
	empty = eventfd(0, EFD_CLOEXEC);
	ep_full = epoll_create1(EPOLL_CLOEXEC);
	ep_empty = epoll_create1(EPOLL_CLOEXEC);
	CHECK(epoll_ctl(ep_full, EPOLL_CTL_ADD, full, &e) == 0);
	CHECK(epoll_ctl(ep_empty, EPOLL_CTL_ADD, empty, &e) == 0);
	CHECK(argc > 1);
	if (!strcmp(argv[1], "values"))
		values(rounds);
	else if (!strcmp(argv[1], "signals"))
		signals(rounds);
	else if (!strcmp(argv[1], "cancel"))
		cancel(rounds);
	else if (!strcmp(argv[1], "forwards"))
		forwards();
	else
		speed();
	printf("%s: ok\n", argv[1]);
	return 0;
}
