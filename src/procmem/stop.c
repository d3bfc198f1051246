/* SPDX-License-Identifier: MIT */
#include "procmem/stop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/restart.h"
#include "procmem/proc.h"
#include "sys/sys.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#define OPT_SYSGOOD 1ul
#define OPT_SUSPEND_SECCOMP (1ul << 21)

int firn_stop_open(struct firn_stop *s, pid_t pid, unsigned int threads)
{
	void *p;

	memset(s, 0, sizeof(*s));
	s->pid = pid;
	s->capacity = threads * 2 + 64;
	p = mmap(NULL, s->capacity * sizeof(*s->threads), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	s->threads = p;
	return 0;
}

void firn_stop_close(struct firn_stop *s)
{
	if (s->threads)
		munmap(s->threads, s->capacity * sizeof(*s->threads));
	s->threads = NULL;
}

long firn_stop_wait(pid_t tid, uint64_t deadline_ns)
{
	int status;
	long r;

	for (uint64_t pause = 20000;; pause = firn_min_u64(pause * 2, 1000000)) {
		/*
		 * Without a deadline, wait for any thread that this one traces: when the target is
		 * killed, its leader's end is reported only after ours have reaped all the others.
		 */
		r = deadline_ns ? firn_sys.wait(tid, &status, __WALL | WNOHANG) :
				  firn_sys.wait(-1, &status, __WALL | __WNOTHREAD);
		if (r == tid)
			break;
		if (r < 0)
			return -ESRCH;
		if (!deadline_ns) {
			pause = 10000;
			continue;
		}
		if (firn_sys.clock_ns() > deadline_ns)
			return -ETIMEDOUT;
		firn_sys.sleep_ns(pause);
	}
	if (!WIFSTOPPED(status))
		return -ESRCH;
	return status;
}

static bool is_stop_signal(int sig)
{
	return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

struct seize {
	struct firn_stop *s;
	unsigned int added;
	int err;
};

/* Is thread @tid under seccomp?  Where that cannot be read, yes. */
static bool filtered(pid_t pid, pid_t tid)
{
	return firn_proc_seccomp(pid, tid) != 0;
}

static int seize_one(void *arg, long number)
{
	struct seize *z = arg;
	struct firn_stop *s = z->s;
	unsigned long options = OPT_SYSGOOD | OPT_SUSPEND_SECCOMP;
	pid_t tid = (pid_t)number;
	long r;

	for (unsigned int i = 0; i < s->nthreads; i++)
		if (s->threads[i].tid == tid)
			return 0;
	if (s->nthreads == s->capacity) {
		z->err = -ENOMEM;
		return 1;
	}
	/* Any thread may have a filter of its own.  Where the kernel does not suspend filters (or not for us),
	 * a thread without one can do without. */
	r = firn_sys.ptrace(PTRACE_SEIZE, tid, NULL, (void *)options);
	if (r == -EINVAL || (r == -EPERM && !filtered(s->pid, tid)))
		r = firn_sys.ptrace(PTRACE_SEIZE, tid, NULL, (void *)OPT_SYSGOOD);
	if (r == -ESRCH)
		return 0;
	if (r < 0) {
		char path[64], buf[512];

		/* A thread that has exited, leader or not, stays in the directory and cannot be seized. */
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", s->pid, tid);
		if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
			return 0;
		for (char *p = strrchr(buf, ')'); p; p = NULL)
			if (p[1] && (p[2] == 'Z' || p[2] == 'X'))
				return 0;
		z->err = (int)r;
		return 1;
	}
	firn_sys.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	s->threads[s->nthreads].tid = tid;
	s->threads[s->nthreads].stopped = false;
	s->nthreads++;
	z->added++;
	return 0;
}

static void forget(struct firn_stop *s, unsigned int i)
{
	s->threads[i] = s->threads[--s->nthreads];
}

/* Bring thread @i to its event stop.  Returns 0, -ESRCH (thread gone, forgotten), or -ETIMEDOUT. */
static int await_stop(struct firn_stop *s, unsigned int i, uint64_t deadline)
{
	struct firn_thread *t = &s->threads[i];

	for (;;) {
		long status = firn_stop_wait(t->tid, deadline);
		int sig;

		if (status == -ESRCH) {
			forget(s, i);
			return -ESRCH;
		}
		if (status < 0)
			return (int)status;
		sig = WSTOPSIG(status);
		if (status >> 16 == PTRACE_EVENT_STOP) {
			if (is_stop_signal(sig))
				s->group_stop = true;
			t->stopped = true;
			return 0;
		}
		/* A signal on its way in: let it be delivered; the stop we asked for follows before the
		 * first instruction of its handler. */
		firn_sys.ptrace(PTRACE_CONT, t->tid, NULL, (void *)(uintptr_t)sig);
	}
}

static bool fd_is_socket(pid_t pid, long fd)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%ld", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	return n > 7 && !memcmp(link, "socket:", 7);
}

/* May the call that returned -EINTR when stopped be begun anew? */
static bool may_restart(pid_t pid, long nr, long arg0)
{
	switch (firn_restart_rule(nr)) {
	case FIRN_RESTART_ALWAYS:
		return true;
	case FIRN_RESTART_SOCKET:
		return fd_is_socket(pid, arg0);
	case FIRN_RESTART_NEVER:
		break;
	}
	return false;
}

static void hide_interruption(struct firn_stop *s)
{
	struct firn_regs regs;

	for (unsigned int i = 0; i < s->nthreads; i++) {
		pid_t tid = s->threads[i].tid;
		long nr;

		if (firn_arch_get_regs(tid, &regs))
			continue;
		nr = firn_arch_syscall_nr(&regs);
		if (nr < 0 || firn_arch_result(&regs) != -EINTR ||
		    !may_restart(s->pid, nr, firn_arch_syscall_arg0(&regs)))
			continue;
		firn_arch_restart_unseen(&regs);
		firn_arch_set_regs(tid, &regs);
	}
}

/*
 * A SIGSTOP that was sent to the process before a thread of it could take it: our interrupt comes first.  Other stop
 * signals may be blocked or have handlers, and wait for ever.
 */
static bool stop_signal_waits(const struct firn_stop *s)
{
	struct __ptrace_peeksiginfo_args args = { .flags = PTRACE_PEEKSIGINFO_SHARED, .nr = 1 };
	siginfo_t info;

	for (; firn_sys.ptrace(PTRACE_PEEKSIGINFO, s->threads[0].tid, &args, &info) == 1; args.off++)
		if (info.si_signo == SIGSTOP)
			return true;
	return false;
}

int firn_stop_all(struct firn_stop *s, struct firn_err *e)
{
	uint64_t deadline = firn_sys.clock_ns() + FIRN_STOP_DEADLINE_MS * 1000000ull;
	char dir[64];
	int err;

	s->nthreads = 0;
	s->group_stop = s->stop_wanted = false;
	snprintf(dir, sizeof(dir), "/proc/%d/task", s->pid);
	for (;;) {
		struct seize z = { s, 0, 0 };

		err = firn_sys_each_number(dir, seize_one, &z);
		if (err < 0)
			goto gone;
		if (z.err) {
			err = z.err;
			firn_stop_resume(s, false);
			if (err == -EPERM)
				return firn_err_set(e, FIRN_EXIT_REFUSED, EPERM, "ptrace",
						    "process %d may not be traced (another tracer, or the kernel forbids it): detach it first",
						    s->pid);
			return firn_err_set(e, FIRN_EXIT_FAILED, -err, "seize", "process %d cannot be seized: %s, left running",
					    s->pid, strerror(-err));
		}
		for (unsigned int i = 0; i < s->nthreads;) {
			if (s->threads[i].stopped) {
				i++;
				continue;
			}
			err = await_stop(s, i, deadline);
			if (err == -ETIMEDOUT) {
				pid_t tid = s->threads[i].tid;

				firn_stop_resume(s, false);
				return firn_err_set(e, FIRN_EXIT_REFUSED, ETIMEDOUT, "unstoppable",
						    "process %d: thread %d does not stop (it waits in the kernel, perhaps for a vfork child): try again later",
						    s->pid, tid);
			}
			if (!err)
				i++;
		}
		if (!z.added)
			break;
	}
	if (!s->nthreads)
		goto gone;
	if (!s->group_stop)
		s->group_stop = stop_signal_waits(s);
	hide_interruption(s);
	return 0;
gone:
	firn_stop_resume(s, false);
	return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", s->pid);
}

int firn_stop_resume(struct firn_stop *s, bool rest)
{
	uint64_t deadline = firn_sys.clock_ns() + FIRN_STOP_DEADLINE_MS * 1000000ull;
	int first = 0;

	/* One that waited, too, may have been taken while we held it. */
	if (((rest && !s->group_stop) || s->stop_wanted) && s->nthreads)
		firn_sys.kill(s->pid, SIGSTOP);
	for (unsigned int i = 0; i < s->nthreads; i++) {
		struct firn_thread *t = &s->threads[i];
		uintptr_t sig = 0;
		long r;

		/* A thread must be stopped to be let go of; a signal on its way in goes on. */
		if (!t->stopped) {
			long status = firn_stop_wait(t->tid, deadline);

			if (status == -ESRCH)
				continue;
			if (status > 0 && status >> 16 == 0)
				sig = (uintptr_t)WSTOPSIG(status);
		}
		r = firn_sys.ptrace(PTRACE_DETACH, t->tid, NULL, (void *)sig);
		if (r < 0 && r != -ESRCH && !first)
			first = (int)r;
		t->stopped = false;
	}
	s->nthreads = 0;
	return first;
}

int firn_stop_continue(struct firn_stop *s, struct firn_mask_journal *j)
{
	uint64_t mask = 0, only_cont = ~(1ull << (SIGCONT - 1));
	uint64_t deadline = firn_sys.clock_ns() + FIRN_STOP_DEADLINE_MS * 1000000ull;
	bool taken = false;
	pid_t tid;
	int err = 0;

	if (!s->nthreads)
		return -ESRCH;
	tid = s->threads[0].tid;
	/*
	 * Sending SIGCONT ends the group-stop; the signal itself then waits for a thread.  Thread 0 is
	 * made to take it, and nothing else, and it goes no further than us.  It is continued without
	 * an interrupt, which would be reported before the signal; it runs nothing, since the signal
	 * is there.  Its first report is the end of the group-stop.
	 */
	if (firn_sys.ptrace(PTRACE_GETSIGMASK, tid, (void *)8, &mask) < 0)
		return -ESRCH;
	j->mask = mask;
	__atomic_store_n(&j->tid, tid, __ATOMIC_SEQ_CST);
	firn_sys.ptrace(PTRACE_SETSIGMASK, tid, (void *)8, &only_cont);
	firn_point(FIRN_POINT_CONT_MASK);
	if (firn_sys.kill(s->pid, SIGCONT) < 0)
		err = -ESRCH;
	firn_point(FIRN_POINT_CONT_SENT);
	while (!err) {
		long status;

		if (taken)
			firn_sys.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
		firn_sys.ptrace(PTRACE_CONT, tid, NULL, NULL);
		status = firn_stop_wait(tid, deadline);
		if (status < 0) {
			err = (int)status;
			break;
		}
		if (status >> 16 == PTRACE_EVENT_STOP) {
			if (taken)
				break;
		} else if (WSTOPSIG(status) == SIGCONT) {
			taken = true;
		} else if (is_stop_signal(WSTOPSIG(status))) {
			s->stop_wanted = true;   /* somebody stops it at this moment: their wish */
			taken = true;
		}
	}
	if (err == -ETIMEDOUT) {
		/* Nothing came: make sure that it is stopped all the same. */
		firn_sys.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
		firn_stop_wait(tid, deadline + FIRN_STOP_DEADLINE_MS * 1000000ull);
	}
	firn_sys.ptrace(PTRACE_SETSIGMASK, tid, (void *)8, &mask);
	__atomic_store_n(&j->tid, 0, __ATOMIC_SEQ_CST);
	s->group_stop = false;
	return err == -ESRCH ? err : 0;
}

void firn_stop_restore_mask(struct firn_stop *s, struct firn_mask_journal *j)
{
	for (unsigned int i = 0; j->tid && i < s->nthreads; i++)
		if (s->threads[i].tid == j->tid)
			firn_sys.ptrace(PTRACE_SETSIGMASK, j->tid, (void *)8, &j->mask);
	j->tid = 0;
}
