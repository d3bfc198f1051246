/* SPDX-License-Identifier: MIT */
/*
 * Stop the other threads: SEIZE and INTERRUPT until no new one appears.  Runs in the helper, with all signals
 * blocked.  Owns nothing that outlives the helper: where it dies, the kernel lets every thread go.
 */
#include "malloc/fold/tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/restart.h"
#include "malloc/fold/arch.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

#define TIDS (sizeof(((struct firn_barrier *)0)->tids) / sizeof(int))
#define PF_IO_WORKER 0x10ul
#define PF_USER_WORKER 0x4000ul
#define LOOK_NS 1000000                 /* after this, see what a thread that does not stop is doing */
#define LATE_NS 2000000000              /* how long to look after a thread that is late, to hide its -EINTR */

/* b->tids: first the b->stopped ones that are stopped, then those that are to stop. */
struct stop {
	struct firn_barrier *b;
	int seized;
	int fd;                         /* /proc/PROGRAM/task */
	const char *why;
};

enum doing {
	DOING_GONE,                     /* has exited, or is about to be reported so */
	DOING_RUN,                      /* runs, or sleeps where a stop reaches it */
	DOING_WAIT,                     /* waits in the kernel and ends its call as usual */
	DOING_OTHER_WAIT,               /* waits in the kernel, in a call that might end with -EINTR */
	DOING_VFORK,                    /* waits for a vfork child, which uses our memory */
	DOING_UNKNOWN,                  /* /proc does not tell */
	DOING_KERNEL,                   /* not the program's code at all: a worker of io_uring or vhost */
};

static long ptrace_call(long request, int tid, long address, long data)
{
	return firn_os.call(SYS_ptrace, request, tid, address, data, 0, 0);
}

/* "/proc/PROGRAM/task"; returns its end. */
static char *tasks_path(char *buf)
{
	char *p = firn_helper_put_number(firn_helper_put(buf, "/proc/"), (unsigned long)firn_helper.program);

	return firn_helper_put(p, "/task");
}

/* The path of thread @tid's @rest; returns its end. */
static char *task_path(char *buf, int tid, const char *rest)
{
	char *p = firn_helper_put(tasks_path(buf), "/");

	return firn_helper_put(firn_helper_put_number(p, (unsigned long)tid), rest);
}

static long read_task(int tid, const char *name, char *text, size_t size, enum doing *ret)
{
	char path[64];
	long n;

	task_path(path, tid, name);
	n = firn_helper_read(path, text, size);
	/* Only a thread that is not there need not be stopped. */
	*ret = n == -ENOENT || n == -ESRCH ? DOING_GONE : DOING_UNKNOWN;
	return n;
}

/* @waiting: what a thread in state D waits in matters. */
static enum doing look(int tid, bool waiting)
{
	char text[512], *p;
	unsigned long flags = 0;
	enum doing none;
	long nr;

	if (read_task(tid, "/stat", text, sizeof(text), &none) <= 0)
		return none;
	/* pid (name) state ppid pgrp session tty tpgid flags; a name may hold anything. */
	p = strrchr(text, ')');
	if (!p || !p[1] || !p[2])
		return DOING_UNKNOWN;
	char state = p[2];

	p += 2;
	for (int i = 0; i < 6 && p; i++)
		if ((p = strchr(p, ' ')))
			p++;
	for (; p && *p >= '0' && *p <= '9'; p++)
		flags = flags * 10 + (unsigned long)(*p - '0');
	if (state == 'Z' || state == 'X')
		return DOING_GONE;
	if (flags & (PF_IO_WORKER | PF_USER_WORKER))
		return DOING_KERNEL;
	if (state != 'D' || !waiting)
		return DOING_RUN;
	if (read_task(tid, "/syscall", text, sizeof(text), &none) <= 0)
		return none;
	if (text[0] < '0' || text[0] > '9')
		return text[0] == '-' ? DOING_WAIT : DOING_RUN;  /* -1: a page fault */
	nr = firn_helper_field(text, "", -1);
	switch (nr) {
#ifdef SYS_vfork
	case SYS_vfork:
#endif
	case SYS_clone:
	case SYS_clone3:
		return DOING_VFORK;
	}
	return firn_restart_rule(nr) == FIRN_RESTART_NEVER ? DOING_WAIT : DOING_OTHER_WAIT;
}

static bool known(const struct stop *s, int tid)
{
	for (int i = 0; i < s->seized; i++)
		if (s->b->tids[i] == tid)
			return true;
	return tid == firn_helper.caller;
}

static int refuse(struct stop *s, int err, const char *why)
{
	s->why = why;
	return err;
}

static int seize(struct stop *s, int tid)
{
	long r;

	switch (look(tid, true)) {
	case DOING_GONE:
		return 0;
	case DOING_KERNEL:
		/* The kernel ends its operation with -EINTR when it is stopped. */
		return refuse(s, -EAGAIN, "io_uring works for this process in a thread that cannot be stopped");
	case DOING_VFORK:
		return refuse(s, -EAGAIN, "a thread waits for its vfork child");
	case DOING_UNKNOWN:
		return refuse(s, -EAGAIN, "its threads cannot be looked at");
	default:
		break;
	}
	if (s->seized == (int)TIDS)
		return refuse(s, -EAGAIN, "too many threads");
	r = ptrace_call(PTRACE_SEIZE, tid, 0, 0);
	if (r == -ESRCH)
		return 0;
	if (r < 0) {
		if (look(tid, false) == DOING_GONE)
			return 0;
		return refuse(s, -EPERM, "the kernel does not let this process trace its own threads");
	}
	s->b->tids[s->seized++] = tid;
	return 1;
}

/* Every number in the open directory @fd, until fn returns < 0.  Returns that, or how many times fn returned 1. */
static int each_number(int fd, int (*fn)(struct stop *, int), struct stop *s)
{
	char buf[4096] __attribute__((aligned(8)));
	int n = 0;
	long r;

	if (firn_os.call(SYS_lseek, fd, 0, SEEK_SET, 0, 0, 0) < 0)
		return -EAGAIN;
	while ((r = firn_os.call(SYS_getdents64, fd, (long)buf, sizeof(buf), 0, 0, 0)) > 0) {
		for (long at = 0; at < r;) {
			/* struct linux_dirent64: inode, offset, length at 16, type at 18, name at 19 */
			unsigned short len;
			int tid = 0, err;

			memcpy(&len, buf + at + 16, sizeof(len));
			for (const char *p = buf + at + 19; *p >= '0' && *p <= '9'; p++)
				tid = tid * 10 + (*p - '0');
			at += len;
			err = tid ? fn(s, tid) : 0;
			if (err < 0)
				return err;
			n += err;
		}
	}
	return r < 0 ? refuse(s, -EAGAIN, "its threads cannot be listed") : n;
}

static int seize_new(struct stop *s, int tid)
{
	return known(s, tid) ? 0 : seize(s, tid);
}

static int is_partner(struct stop *s, int pid)
{
	long r;

	if (pid == firn_helper.program || pid == (int)firn_os.call(SYS_getpid, 0, 0, 0, 0, 0, 0))
		return 0;
	r = firn_os.call(SYS_kcmp, firn_helper.program, pid, KCMP_VM, 0, 0, 0);
	if (r == 0)
		return refuse(s, -EAGAIN, "another process shares this one's memory");
	if (r == -ENOSYS)
		return refuse(s, -EPERM, "this kernel cannot tell who shares this process's memory (CONFIG_KCMP)");
	/* A process that we may not look at is another user's. */
	return 0;
}

/* A process that shares our memory and is none of our threads (clone with CLONE_VM) would go on writing. */
static int partners(struct stop *s)
{
	int fd = firn_helper_open("/proc", O_RDONLY | O_DIRECTORY), err;

	if (fd < 0)
		return refuse(s, -EPERM, "no /proc");
	err = each_number(fd, is_partner, s);
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return err < 0 ? err : 0;
}

static bool is_socket(int tid, long fd)
{
	char path[80], text[8];

	if (fd < 0)
		return false;
	firn_helper_put_number(task_path(path, tid, "/fd/"), (unsigned long)fd);
	return firn_os.call(SYS_readlinkat, AT_FDCWD, (long)path, (long)text, sizeof(text), 0, 0) > 7 &&
	       !memcmp(text, "socket:", 7);
}

/* The stop ended a call with -EINTR: the kernel is to begin it anew, unseen. */
static void hide(int tid)
{
	long nr, arg0;

	if (!firn_arch_interrupted(tid, &nr, &arg0))
		return;
	switch (firn_restart_rule(nr)) {
	case FIRN_RESTART_NEVER:
		return;
	case FIRN_RESTART_SOCKET:
		if (!is_socket(tid, arg0))
			return;
		break;
	case FIRN_RESTART_ALWAYS:
		break;
	}
	firn_arch_restart(tid);
}

static void forget(struct stop *s, int i)
{
	struct firn_barrier *b = s->b;

	if (i < b->stopped) {
		b->tids[i] = b->tids[--b->stopped];
		i = b->stopped;
	}
	b->tids[i] = b->tids[--s->seized];
}

/* One report of the kernel's.  Returns false where there is none. */
static bool reap(struct stop *s)
{
	struct firn_barrier *b = s->b;
	int status, i;
	long tid = firn_os.call(SYS_wait4, -1, (long)&status, __WALL | WNOHANG, 0, 0, 0);

	if (tid == -ECHILD)
		b->stopped = s->seized = 0;
	if (tid <= 0)
		return false;
	for (i = 0; i < s->seized && b->tids[i] != (int)tid; i++)
		;
	if (i == s->seized)
		return true;
	if (!WIFSTOPPED(status)) {
		forget(s, i);
	} else if (status >> 16 == PTRACE_EVENT_STOP) {
		if (i >= b->stopped) {
			b->tids[i] = b->tids[b->stopped];
			b->tids[b->stopped++] = (int)tid;
		}
	} else {
		/* A signal that was on its way in is delivered; the stop follows before its handler begins. */
		ptrace_call(PTRACE_CONT, (int)tid, 0, status >> 16 ? 0 : WSTOPSIG(status));
	}
	return true;
}

/* The kernel tells of each report by SIGCHLD, which is blocked, and so stays pending. */
static void nap(uint64_t ns)
{
	uint64_t set = (uint64_t)1 << (SIGCHLD - 1);
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	firn_os.call(SYS_rt_sigtimedwait, (long)&set, 0, (long)&t, sizeof(set), 0, 0);
}

static int await_all(struct stop *s, uint64_t deadline)
{
	uint64_t look_at = firn_os.clock_ns() + LOOK_NS;

	for (;;) {
		uint64_t now;

		while (reap(s))
			;
		if (s->b->stopped == s->seized)
			return 0;
		now = firn_os.clock_ns();
		if (now >= deadline)
			return refuse(s, -EAGAIN, "a thread did not stop in time");
		if (now < look_at) {
			nap(look_at - now < deadline - now ? look_at - now : deadline - now);
			continue;
		}
		for (int i = s->b->stopped; i < s->seized; i++) {
			enum doing d = look(s->b->tids[i], true);

			if (d == DOING_VFORK)
				return refuse(s, -EAGAIN, "a thread waits for its vfork child");
		}
		look_at = deadline;
	}
}

/*
 * Giving up: those that are stopped go on at once.  One that is still on its way to its stop may be about to
 * return -EINTR from its call because of us, so we see it stop first.  One that waits where it cannot be woken
 * ends its call as usual, and is let go of when the helper exits.
 */
static void give_up(struct stop *s)
{
	uint64_t deadline = firn_os.clock_ns() + LATE_NS;

	for (;;) {
		while (reap(s))
			;
		while (s->b->stopped) {
			hide(s->b->tids[0]);
			ptrace_call(PTRACE_DETACH, s->b->tids[0], 0, 0);
			forget(s, 0);
		}
		for (int i = 0; i < s->seized;) {
			enum doing d = look(s->b->tids[i], true);

			if (d == DOING_VFORK || d == DOING_WAIT)
				forget(s, i);
			else
				i++;
		}
		if (!s->seized || firn_os.clock_ns() > deadline)
			return;
		nap(LOOK_NS);
	}
}

/* The signal by which the kernel tells us of stops, whatever the program does with its own.  This table of
 * handlers is the helper's. */
static void hear_stops(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = { SIG_DFL, 0, NULL, 0 };

	firn_os.call(SYS_rt_sigaction, SIGCHLD, (long)&action, 0, sizeof(action.mask), 0, 0);
}

int firn_tracer_stop(struct firn_barrier *b)
{
	struct stop s = { b, 0, -1, "no /proc" };
	uint64_t deadline;
	char path[64];
	int err;

	b->stopped = 0;
	if (!firn_arch_can_restart) {
		b->why = "threads cannot be stopped unseen on this architecture";
		return -EPERM;
	}
	hear_stops();
	err = partners(&s);
	if (err)
		goto out;
	tasks_path(path);
	err = s.fd = firn_helper_open(path, O_RDONLY | O_DIRECTORY);
	if (err < 0) {
		err = -EPERM;
		goto out;
	}
	/* All that takes time is done before the first thread is stopped. */
	err = each_number(s.fd, seize_new, &s);
	b->since_ns = firn_os.clock_ns();
	deadline = b->since_ns + FIRN_TRACER_DEADLINE_NS;
	while (err > 0) {
		for (int i = s.seized - err; i < s.seized; i++)
			ptrace_call(PTRACE_INTERRUPT, b->tids[i], 0, 0);
		err = await_all(&s, deadline);
		if (!err)
			err = each_number(s.fd, seize_new, &s);
	}
	firn_os.call(SYS_close, s.fd, 0, 0, 0, 0, 0);
	if (err < 0)
		give_up(&s);
	for (int i = 0; i < b->stopped; i++)
		hide(b->tids[i]);
out:
	if (err < 0)
		b->why = s.why;
	return err;
}

void firn_tracer_go(struct firn_barrier *b)
{
	for (int i = 0; i < b->stopped; i++)
		ptrace_call(PTRACE_DETACH, b->tids[i], 0, 0);
	b->stopped = 0;
}
