/* SPDX-License-Identifier: MIT */
/*
 * Signals around a stop.  A thread sleeps in epoll_pwait; SIGUSR1 sent during a stop must end that call
 * with EINTR after its handler ran once.  SIGCONT's handler must never run.  Blocked and pending signals
 * stay as they are.  "counts" tells: usr1 E eintr N cont N alarm N pending 0/1.
 */
#include "victim.h"

#include <sys/epoll.h>
#include <sys/time.h>

static atomic_int usr1, eintr, cont, alarms, other, in_wait;
static pthread_t waiter;
static pid_t waiter_tid;

static void on_usr1(int sig)
{
	(void)sig;
	atomic_fetch_add(&usr1, 1);
}

static void on_cont(int sig)
{
	(void)sig;
	atomic_fetch_add(&cont, 1);
}

static void on_alarm(int sig)
{
	(void)sig;
	atomic_fetch_add(&alarms, 1);
}

static void *wait_for_ever(void *arg)
{
	struct epoll_event e[2];
	int fd = epoll_create1(EPOLL_CLOEXEC);
	sigset_t set;

	waiter_tid = (pid_t)syscall(SYS_gettid);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (;;) {
		int n;

		atomic_store(&in_wait, 1);
		n = epoll_pwait(fd, e, 2, -1, &set);
		atomic_store(&in_wait, 0);
		if (n < 0 && errno == EINTR)
			atomic_fetch_add(&eintr, 1);
		else
			atomic_fetch_add(&other, 1);
	}
	return arg;
}

static int cmd_counts(char *args)
{
	sigset_t pending;

	(void)args;
	sigpending(&pending);
	v_say("usr1 %d eintr %d cont %d alarm %d other %d pending %d waiting %d", atomic_load(&usr1),
	      atomic_load(&eintr), atomic_load(&cont), atomic_load(&alarms), atomic_load(&other),
	      sigismember(&pending, SIGUSR2), atomic_load(&in_wait));
	return 0;
}

static int cmd_reset(char *args)
{
	(void)args;
	atomic_store(&usr1, 0);
	atomic_store(&eintr, 0);
	atomic_store(&cont, 0);
	atomic_store(&alarms, 0);
	atomic_store(&other, 0);
	return 0;
}

static int cmd_tid(char *args)
{
	(void)args;
	v_say("%d", waiter_tid);
	return 0;
}

/* SIGALRM after @args ms. */
static int cmd_alarm(char *args)
{
	uint64_t ms = v_count(args, 300);
	struct itimerval it = { .it_value = { (time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000) } };

	return setitimer(ITIMER_REAL, &it, NULL) ? v_say("setitimer: %s", strerror(errno)) : 0;
}

static const struct v_command commands[] = {
	{ "counts", cmd_counts }, { "reset", cmd_reset }, { "tid", cmd_tid }, { "alarm", cmd_alarm }, { NULL, NULL },
};

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_usr1 };
	sigset_t set;

	v_start(argc, argv, 8, 0);
	v_add_range(v_map(v_mib * 256, PROT_READ | PROT_WRITE, 0), v_mib * 256);
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = on_cont;
	sa.sa_flags = SA_RESTART;
	sigaction(SIGCONT, &sa, NULL);
	sa.sa_handler = on_alarm;
	sigaction(SIGALRM, &sa, NULL);
	signal(SIGWINCH, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR2);
	if (pthread_create(&waiter, NULL, wait_for_ever, NULL))
		v_die("pthread_create");
	while (!atomic_load(&in_wait))
		v_sleep_ms(1);
	v_sleep_ms(20);
	v_ready();
	return v_loop(commands);
}
