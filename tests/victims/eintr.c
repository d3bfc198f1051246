/* SPDX-License-Identifier: MIT */
/*
 * Every blocking call in a thread of its own, over and over.  A call with a timeout must time out, not
 * before its time and never with EINTR; a call without one must not return before "release".
 * --aio and --uring add io_getevents and io_uring_enter, whose users may be refused.
 */
#include "victim.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#define MS 900                          /* every timeout */

static int quiet_pipe[2], quiet_socket[2], listener, quiet_event, quiet_inotify, quiet_signalfd, epoll_fd;
static int release_pipe[2], release_socket[2], release_event, lock_fd, sem_id = -1, msg_id = -1;
static sigset_t usr2, quiet;            /* nobody sends the one; the other is every thread's mask */
static char lock_path[64], mq_name[64];
static mqd_t mq;
static pid_t child;
static uint32_t futex_timed, futex_released;
static atomic_bool ending;
static atomic_int interrupted, early, odd;
static char detail[400];
static pthread_mutex_t detail_lock = PTHREAD_MUTEX_INITIALIZER;
static char *buf;                       /* private memory: the kernel writes results to it */

struct call {
	const char *name;
	/* Returns the call's result with errno, and in *@want what a timeout looks like (errno; 0: result 0). */
	long (*run)(int *want);
	bool released;                  /* no timeout: ends by "release", with success */
	pthread_t thread;
	uint64_t turns;
};

static const struct timespec ts = { MS / 1000, MS % 1000 * 1000000l };

static long c_nanosleep(int *want)
{
	*want = 0;
	return nanosleep(&ts, NULL);
}

static long c_clock_nanosleep_abs(int *want)
{
	struct timespec t;
	long ret;

	*want = 0;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += MS * 1000000l;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	ret = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	errno = (int)ret;
	return ret ? -1 : 0;
}

static long c_poll(int *want)
{
	struct pollfd p = { quiet_pipe[0], POLLIN, 0 };

	*want = 0;
	return poll(&p, 1, MS);
}

static long c_ppoll(int *want)
{
	struct pollfd p = { quiet_pipe[0], POLLIN, 0 };

	*want = 0;
	return ppoll(&p, 1, &ts, &quiet);
}

static long c_select(int *want)
{
	struct timeval tv = { MS / 1000, MS % 1000 * 1000l };
	fd_set set;

	*want = 0;
	FD_ZERO(&set);
	FD_SET(quiet_pipe[0], &set);
	return select(quiet_pipe[0] + 1, &set, NULL, NULL, &tv);
}

static long c_pselect(int *want)
{
	fd_set set;

	*want = 0;
	FD_ZERO(&set);
	FD_SET(quiet_pipe[0], &set);
	return pselect(quiet_pipe[0] + 1, &set, NULL, NULL, &ts, &quiet);
}

static long c_epoll_wait(int *want)
{
	struct epoll_event e[4];

	*want = 0;
	return epoll_wait(epoll_fd, e, 4, MS);
}

static long c_epoll_pwait(int *want)
{
	struct epoll_event e[4];

	*want = 0;
	return epoll_pwait(epoll_fd, e, 4, MS, &quiet);
}

static long c_epoll_pwait2(int *want)
{
	struct epoll_event e[4];

	*want = 0;
	return syscall(SYS_epoll_pwait2, epoll_fd, e, 4, &ts, NULL, 0);
}

static long c_futex_relative(int *want)
{
	*want = ETIMEDOUT;
	return syscall(SYS_futex, &futex_timed, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0);
}

static long c_futex_absolute(int *want)
{
	struct timespec t;

	*want = ETIMEDOUT;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += MS * 1000000l;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return syscall(SYS_futex, &futex_timed, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, FUTEX_BITSET_MATCH_ANY);
}

static long c_semtimedop(int *want)
{
	struct sembuf op = { 0, -1, 0 };

	*want = EAGAIN;
	return semtimedop(sem_id, &op, 1, &ts);
}

static long c_sigtimedwait(int *want)
{
	siginfo_t info;

	*want = EAGAIN;
	return sigtimedwait(&usr2, &info, &ts);
}

static long c_accept(int *want)
{
	*want = EAGAIN;
	return accept(listener, NULL, NULL);
}

static long c_recv(int *want)
{
	char c;

	*want = EAGAIN;
	return recv(quiet_socket[0], &c, 1, 0);
}

static long c_recvmsg(int *want)
{
	struct iovec v = { buf, 64 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	*want = EAGAIN;
	return recvmsg(quiet_socket[0], &m, 0);
}

static long c_mq_timedreceive(int *want)
{
	struct timespec t;

	*want = ETIMEDOUT;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += MS * 1000000l;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return mq_timedreceive(mq, buf + 4096, 8192, NULL, &t);
}

static long c_timerfd(int *want)
{
	struct itimerspec it = { .it_value = ts };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t n = 0;
	long ret;

	*want = 0;
	timerfd_settime(fd, 0, &it, NULL);
	ret = read(fd, &n, 8);
	close(fd);
	return ret == 8 && n == 1 ? 0 : -1;
}

static long c_pipe_read(int *want)
{
	char c;

	*want = 0;
	return read(release_pipe[0], &c, 1) == 1 ? 0 : -1;
}

static long c_socket_read(int *want)
{
	char c;

	*want = 0;
	return read(release_socket[0], &c, 1) == 1 ? 0 : -1;
}

static long c_eventfd_read(int *want)
{
	uint64_t n;

	*want = 0;
	return read(release_event, &n, 8) == 8 ? 0 : -1;
}

static long c_inotify_read(int *want)
{
	*want = 0;
	return read(quiet_inotify, buf, 4096) > 0 ? 0 : -1;
}

static long c_signalfd_read(int *want)
{
	struct signalfd_siginfo si;

	*want = 0;
	return read(quiet_signalfd, &si, sizeof(si)) == sizeof(si) ? 0 : -1;
}

static long c_semop(int *want)
{
	struct sembuf op = { 1, -1, 0 };

	*want = 0;
	return semop(sem_id, &op, 1);
}

static long c_msgrcv(int *want)
{
	struct {
		long type;
		char text[8];
	} m;

	*want = 0;
	return msgrcv(msg_id, &m, 8, 0, 0) >= 0 ? 0 : -1;
}

static long c_flock(int *want)
{
	int fd = open(lock_path, O_RDWR | O_CLOEXEC);
	long ret = flock(fd, LOCK_EX);

	*want = 0;
	close(fd);
	return ret;
}

static long c_ofd_lock(int *want)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	int fd = open(lock_path, O_RDWR | O_CLOEXEC);
	long ret = fcntl(fd, F_OFD_SETLKW, &fl);

	*want = 0;
	close(fd);
	return ret;
}

static long c_wait4(int *want)
{
	int status;

	*want = 0;
	return waitpid(child, &status, 0) == child ? 0 : -1;
}

static long c_futex(int *want)
{
	long ret;

	*want = 0;
	ret = syscall(SYS_futex, &futex_released, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return ret < 0 && errno == EAGAIN ? 0 : ret;
}

static aio_context_t aio;

static long c_io_getevents(int *want)
{
	struct io_event e[2];
	struct timespec t = ts;

	*want = 0;
	return syscall(SYS_io_getevents, aio, 1, 2, e, &t);
}

static int uring_fd;

static long c_io_uring_enter(int *want)
{
	struct __kernel_timespec t = { ts.tv_sec, ts.tv_nsec };
	struct io_uring_getevents_arg arg = { .ts = (uintptr_t)&t };

	*want = ETIME;
	return syscall(SYS_io_uring_enter, uring_fd, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg,
		       sizeof(arg));
}

static struct call calls[] = {
	{ .name = "nanosleep", .run = c_nanosleep },
	{ .name = "clock_nanosleep absolute", .run = c_clock_nanosleep_abs },
	{ .name = "poll", .run = c_poll },
	{ .name = "ppoll", .run = c_ppoll },
	{ .name = "select", .run = c_select },
	{ .name = "pselect", .run = c_pselect },
	{ .name = "epoll_wait", .run = c_epoll_wait },
	{ .name = "epoll_pwait", .run = c_epoll_pwait },
	{ .name = "epoll_pwait2", .run = c_epoll_pwait2 },
	{ .name = "futex relative", .run = c_futex_relative },
	{ .name = "futex absolute", .run = c_futex_absolute },
	{ .name = "semtimedop", .run = c_semtimedop },
	{ .name = "rt_sigtimedwait", .run = c_sigtimedwait },
	{ .name = "accept with SO_RCVTIMEO", .run = c_accept },
	{ .name = "recv with SO_RCVTIMEO", .run = c_recv },
	{ .name = "recvmsg with SO_RCVTIMEO", .run = c_recvmsg },
	{ .name = "mq_timedreceive", .run = c_mq_timedreceive },
	{ .name = "read of a timerfd", .run = c_timerfd },
	{ .name = "read of a pipe", .run = c_pipe_read, .released = true },
	{ .name = "read of a socket", .run = c_socket_read, .released = true },
	{ .name = "read of an eventfd", .run = c_eventfd_read, .released = true },
	{ .name = "read of inotify", .run = c_inotify_read, .released = true },
	{ .name = "read of a signalfd", .run = c_signalfd_read, .released = true },
	{ .name = "semop", .run = c_semop, .released = true },
	{ .name = "msgrcv", .run = c_msgrcv, .released = true },
	{ .name = "flock", .run = c_flock, .released = true },
	{ .name = "F_OFD_SETLKW", .run = c_ofd_lock, .released = true },
	{ .name = "wait4", .run = c_wait4, .released = true },
	{ .name = "futex", .run = c_futex, .released = true },
	{ .name = "io_getevents", .run = c_io_getevents },
	{ .name = "io_uring_enter", .run = c_io_uring_enter },
};
#define NCALLS (sizeof(calls) / sizeof(*calls))

static void note(atomic_int *count, const char *name, long ret, int err, double took)
{
	pthread_mutex_lock(&detail_lock);
	atomic_fetch_add(count, 1);
	if (strlen(detail) < 300)
		snprintf(detail + strlen(detail), sizeof(detail) - strlen(detail), " %s: %ld %s after %.3f s;", name,
			 ret, ret < 0 ? strerrorname_np(err) ? strerrorname_np(err) : "?" : "", took);
	pthread_mutex_unlock(&detail_lock);
}

static void *caller(void *arg)
{
	struct call *c = arg;

	while (!atomic_load(&ending)) {
		double from = v_now(), took;
		int want = 0, err;
		long ret;

		errno = 0;
		ret = c->run(&want);
		err = errno;
		took = v_now() - from;
		if (ret < 0 && err == EINTR)
			note(&interrupted, c->name, ret, err, took);
		else if (c->released) {
			if (!atomic_load(&ending))
				note(&early, c->name, ret, err, took);
			else if (ret)
				note(&odd, c->name, ret, err, took);
			return NULL;
		} else if (want ? ret != -1 || err != want : ret != 0)
			note(&odd, c->name, ret, err, took);
		/* 4 ms: one tick of a coarse clock. */
		else if (took < MS / 1000.0 - 0.004)
			note(&early, c->name, ret, err, took);
		c->turns++;
	}
	return NULL;
}

static int cmd_status(char *args)
{
	uint64_t turns = 0;
	int i = atomic_load(&interrupted), e = atomic_load(&early), o = atomic_load(&odd);

	(void)args;
	for (unsigned int k = 0; k < NCALLS; k++)
		turns += calls[k].turns;
	pthread_mutex_lock(&detail_lock);
	v_say("%" PRIu64 " calls, %d interrupted, %d early, %d odd:%s", turns, i, e, o, detail);
	pthread_mutex_unlock(&detail_lock);
	return i || e || o ? -1 : 0;
}

static int cmd_release(char *args)
{
	struct sembuf op = { 1, 1, 0 };
	struct {
		long type;
		char text[8];
	} m = { 1, "x" };
	uint64_t one = 1;

	(void)args;
	if (cmd_status(NULL))
		return -1;
	atomic_store(&ending, true);
	__atomic_store_n(&futex_released, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &futex_released, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0);
	semop(sem_id, &op, 1);
	msgsnd(msg_id, &m, 8, 0);
	kill(child, SIGKILL);
	if (write(release_pipe[1], "x", 1) != 1 || write(release_socket[1], "x", 1) != 1 ||
	    write(release_event, &one, 8) != 8)
		return v_say("release: %s", strerror(errno));
	close(lock_fd);
	unlink(lock_path);
	kill(getpid(), SIGHUP);
	for (unsigned int k = 0; k < NCALLS; k++) {
		if (calls[k].thread)
			pthread_join(calls[k].thread, NULL);
	}
	return cmd_status(NULL);
}

static const struct v_command commands[] = {
	{ "status", cmd_status },
	{ "verify", cmd_status },
	{ "release", cmd_release },
	{ NULL, NULL },
};

static void clean(void)
{
	unlink(lock_path);
	mq_unlink(mq_name);
	semctl(sem_id, 0, IPC_RMID);
	msgctl(msg_id, IPC_RMID, NULL);
}

/* The names and System V objects go with this process, however it ends. */
static void start_janitor(void)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		v_die("pipe");
	if (fork() == 0) {
		char c;

		setsid();
		signal(SIGHUP, SIG_IGN);
		close(fd[1]);
		close(0);
		close(1);
		while (read(fd[0], &c, 1) < 0 && errno == EINTR)
			;
		clean();
		_exit(0);
	}
	close(fd[0]);
}

int main(int argc, char **argv)
{
	struct timeval tv = { MS / 1000, MS % 1000 * 1000l };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct mq_attr attr = { .mq_maxmsg = 2, .mq_msgsize = 64 };
	struct epoll_event ev = { .events = EPOLLIN };
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	bool uring = false;
	sigset_t hup;

	v_start(argc, argv, 0, 4096);
	v_add_range(v_map(1024, PROT_READ | PROT_WRITE, 0), 1024);
	buf = v_map(8, PROT_READ | PROT_WRITE, 0);
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	sigemptyset(&hup);
	sigaddset(&hup, SIGHUP);
	quiet = usr2;
	sigaddset(&quiet, SIGHUP);
	sigprocmask(SIG_BLOCK, &quiet, NULL);
	snprintf(lock_path, sizeof(lock_path), "/tmp/firn-eintr-%d", getpid());
	snprintf(mq_name, sizeof(mq_name), "/firn-eintr-%d", getpid());
	sem_id = semget(IPC_PRIVATE, 2, 0600);
	msg_id = msgget(IPC_PRIVATE, 0600);
	start_janitor();
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	mq = mq_open(mq_name, O_RDWR | O_CREAT, 0600, &attr);
	if (mq == (mqd_t)-1) {
		/* Some kernels lack it.  The thread is left out. */
		dprintf(2, "mq_open: %s\n", strerror(errno));
	}
	if (pipe(quiet_pipe) || pipe(release_pipe) || socketpair(AF_UNIX, SOCK_STREAM, 0, quiet_socket) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, release_socket))
		v_die("pipes");
	setsockopt(quiet_socket[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&un, sizeof(sa_family_t)) || listen(listener, 4))
		v_die("listen");
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	quiet_event = eventfd(0, 0);
	release_event = eventfd(0, 0);
	epoll_fd = epoll_create1(0);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, quiet_event, &ev);
	lock_fd = open(lock_path, O_RDWR | O_CREAT, 0600);
	if (lock_fd < 0 || flock(lock_fd, LOCK_EX) || fcntl(lock_fd, F_OFD_SETLK, &fl))
		v_die("%s: %s", lock_path, strerror(errno));
	quiet_inotify = inotify_init();
	inotify_add_watch(quiet_inotify, lock_path, IN_ALL_EVENTS & ~(IN_OPEN | IN_CLOSE));
	quiet_signalfd = signalfd(-1, &hup, 0);
	if (v_option("--aio") && syscall(SYS_io_setup, 8, &aio))
		v_die("io_setup: %s", strerror(errno));
	if (v_option("--uring")) {
		struct io_uring_params p = { 0 };

		uring_fd = (int)syscall(SYS_io_uring_setup, 4, &p);
		uring = uring_fd >= 0;
		if (!uring)
			v_die("io_uring_setup: %s", strerror(errno));
	}
	for (unsigned int k = 0; k < NCALLS; k++) {
		struct call *c = &calls[k];

		if ((c->run == c_io_getevents && !aio) || (c->run == c_io_uring_enter && !uring) ||
		    (c->run == c_mq_timedreceive && mq == (mqd_t)-1))
			continue;
		if (pthread_create(&c->thread, NULL, caller, c))
			v_die("pthread_create");
	}
	v_sleep_ms(50);
	v_ready();
	return v_loop(commands);
}
