/* SPDX-License-Identifier: MIT */
#include "agent/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "sys/sys.h"

#define GROUPS 64
#define FAILED 127

/* Who it is to be. */
struct who {
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS];
	size_t ngroups;
	uint64_t capabilities;          /* in the agent's user namespace */
	char comm[16];
};

/* What root of a user namespace may there, it may nowhere else. */
static bool in_our_user_namespace(pid_t pid)
{
	struct stat ours, its;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	return !stat("/proc/self/ns/user", &ours) && !stat(path, &its) && ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
}

static int read_who(pid_t pid, struct who *w)
{
	struct firn_lines l;
	char path[64], *line;
	bool found = false;

	memset(w, 0, sizeof(*w));
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (firn_lines_open(&l, path))
		return -ESRCH;
	while (firn_lines_next(&l, &line) > 0) {
		if (!strncmp(line, "Name:\t", 6)) {
			snprintf(w->comm, sizeof(w->comm), "%s", line + 6);
		} else if (!strncmp(line, "Uid:\t", 5)) {
			w->uid = (uid_t)strtoul(line + 5, NULL, 10);
			found = true;
		} else if (!strncmp(line, "Gid:\t", 5)) {
			w->gid = (gid_t)strtoul(line + 5, NULL, 10);
		} else if (!strncmp(line, "CapPrm:\t", 8)) {
			w->capabilities = strtoull(line + 8, NULL, 16);
		} else if (!strncmp(line, "Groups:", 7)) {
			char *at = line + 7, *end;

			while (w->ngroups < GROUPS) {
				unsigned long g = strtoul(at, &end, 10);

				if (end == at)
					break;
				w->groups[w->ngroups++] = (gid_t)g;
				at = end;
			}
		}
	}
	firn_lines_close(&l);
	if (!in_our_user_namespace(pid))
		w->capabilities = 0;
	return found ? 0 : -ESRCH;
}

/*
 * Root keeps its capabilities when it changes into root, and gets back by exec what it gave up: both end here for a
 * target that has fewer, as in a container, whose /bin/sh this is going to be.  System calls only.
 */
static int confine(uint64_t capabilities)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	bool less = false;

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (int i = 0; i < 2; i++) {
		uint32_t its = (uint32_t)(capabilities >> 32 * i);

		less |= (data[i].permitted & ~its) != 0;
		data[i].permitted &= its;
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (!less)
		return 0;
	return syscall(SYS_capset, &header, data) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

/*
 * In the child of a process with many threads: system calls only.  Its own session, so that all it starts can be ended
 * with it; nothing of the agent's privileges beyond the target's own, of its protection or descriptors.
 */
static void become(const struct firn_hook *h, const struct who *w, int root, char *const *env)
{
	char sh[] = "/bin/sh", c[] = "-c";
	char *argv[] = { sh, c, (char *)h->command, NULL };
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;
	int fd;

	setsid();
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "0", 1) < 0)
		close(fd);
	/* Where it is in a chroot or a container, so is its hook. */
	if (fchdir(root) || chroot("."))
		_exit(FAILED);
	if (syscall(SYS_setgroups, w->ngroups, w->groups) || syscall(SYS_setresgid, w->gid, w->gid, w->gid) ||
	    syscall(SYS_setresuid, w->uid, w->uid, w->uid) || (!w->uid && confine(w->capabilities)))
		_exit(FAILED);
	fd = open("/dev/null", O_RDWR);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
	} else {
		close(0);
		close(1);
		close(2);
	}
	syscall(SYS_close_range, 3u, ~0u, 0u);
	for (int s = 1; s < NSIG; s++)
		sigaction(s, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(sh, argv, env);
	_exit(FAILED);
}

static int fail(struct firn_err *e, const struct firn_hook *h, int code, int err, const char *reason, const char *what)
{
	return firn_err_set(e, code, err, reason, "process %d: its %s hook %s", h->pid, h->event, what);
}

int firn_hook_run(const struct firn_hook *h, struct firn_err *e)
{
	char event[48], pid_text[32], comm[32], path[64];
	char search[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char *env[] = { search, event, pid_text, comm, NULL };
	FIRN_FD pidfd = -1;
	FIRN_FD root = -1;
	struct pollfd p;
	struct who w;
	int status = 0, n;
	pid_t child;

	snprintf(path, sizeof(path), "/proc/%d/root", h->pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || read_who(h->pid, &w))
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "no-process", "there is no process %d", h->pid);
	snprintf(event, sizeof(event), "FIRN_EVENT=%s", h->event);
	snprintf(pid_text, sizeof(pid_text), "FIRN_PID=%d", h->pid);
	snprintf(comm, sizeof(comm), "FIRN_COMM=%s", w.comm);
	child = fork();
	if (!child)
		become(h, &w, root, env);
	if (child < 0)
		return fail(e, h, FIRN_EXIT_FAILED, errno, "hook", "cannot be run: no process can be made");
	pidfd = (int)firn_sys.pidfd_open(child, 0);
	p = (struct pollfd){ pidfd, POLLIN, 0 };
	do
		n = poll(&p, 1, (int)firn_min_u64(h->timeout_ns / 1000000u + 1, INT32_MAX));
	while (n < 0 && errno == EINTR);
	/* What it started and left behind goes too, but only when it did not come to its end. */
	if (n <= 0) {
		kill(-child, SIGKILL);
		kill(child, SIGKILL);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (n <= 0)
		return fail(e, h, FIRN_EXIT_REFUSED, ETIMEDOUT, "hook-timeout",
			    "did not end in time and was killed: see hook-timeout in firn.conf");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return fail(e, h, FIRN_EXIT_REFUSED, ECANCELED, "hook", "said no: its exit status is not 0");
	return 0;
}
