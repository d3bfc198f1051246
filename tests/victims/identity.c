/* SPDX-License-Identifier: MIT */
/* A process with something of everything that a stop could disturb: descriptors, timers, masks, threads. */
#include "victim.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

static int sleeper_pipe[2];

static void *sleeper(void *arg)
{
	sigset_t set;
	char c;

	sigfillset(&set);
	sigdelset(&set, SIGRTMIN + (int)(uintptr_t)arg);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	prctl(PR_SET_NAME, "sleeper");
	while (read(sleeper_pipe[0], &c, 1) < 0 && errno == EINTR)
		;
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct itimerspec far = { .it_value = { 100000, 0 }, .it_interval = { 77, 0 } };
	struct sigevent sev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5 };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct epoll_event ev = { .events = EPOLLIN };
	struct rlimit lim = { 200, 300 };
	int fd[2], efd, tfd, ep, file;
	static char alt[65536];
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	timer_t timer;
	pthread_t th;

	v_start(argc, argv, 8, 0);
	v_add_range(v_map(v_mib * 128, PROT_READ | PROT_WRITE, 0), v_mib * 128);
	v_add_range(v_map(v_mib * 128, PROT_READ | PROT_WRITE, 0), v_mib * 128);
	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) || socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) || pipe(sleeper_pipe))
		v_die("pipe");
	if (write(fd[0], "waiting", 7) != 7)
		v_die("write");
	efd = eventfd(3, EFD_NONBLOCK);
	tfd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
	timerfd_settime(tfd, 0, &far, NULL);
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, efd, &ev);
	file = open("/proc/self/exe", O_RDONLY);
	lseek(file, 123, SEEK_SET);
	dup2(file, 150);
	if (memfd_create("identity", MFD_CLOEXEC) < 0)
		v_die("memfd");
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGCONT, &sa, NULL);
	sigaction(SIGTSTP, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigaltstack(&ss, NULL);
	if (timer_create(CLOCK_MONOTONIC, &sev, &timer) || timer_settime(timer, 0, &far, NULL))
		v_die("timer");
	for (uintptr_t i = 1; i <= 3; i++) {
		if (pthread_create(&th, NULL, sleeper, (void *)i))
			v_die("pthread_create");
	}
	prctl(PR_SET_TIMERSLACK, 123456);
	umask(027);
	setrlimit(RLIMIT_NOFILE, &lim);
	if (chdir("/usr/share"))
		v_die("chdir");
	v_sleep_ms(50);
	v_ready();
	return v_loop(NULL);
}
