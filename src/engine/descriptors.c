/* SPDX-License-Identifier: MIT */
/*
 * The userfaultfd's way into the target, whatever its privileges: a socket pair made there, one end
 * taken out by pidfd_getfd, /dev/userfaultfd sent through it, and the ioctl made by the target.
 */
#include "engine/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "sys/sys.h"

#define HIGH_FD 960                 /* where the target's own copy goes, if it may have so many */

/* What the injected calls read and write, at the start of the scratch mapping. */
struct scratch {
	int32_t pair[2];
	int32_t pad[2];
	struct {
		uint64_t name;
		uint32_t namelen, pad;
		uint64_t iov, iovlen, control, controllen;
		uint32_t flags, pad2;
	} msg;                          /* struct msghdr, as the target sees it */
	uint64_t iov_base, iov_len;
	uint64_t byte;
	struct {
		uint64_t len;
		int32_t level, type;
		int32_t fd[2];
	} control;                      /* struct cmsghdr and descriptors: of the device; of the pack, or -1 */
};

static int call(struct firn_inject *i, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
		enum firn_point entry, enum firn_point exit, long *ret)
{
	struct firn_call k = { nr, { a, b, c, d, 0, 0 }, entry, exit };

	return firn_inject_call(i, &k, ret);
}

static int close_there(struct firn_inject *i, int fd)
{
	long r;

	if (fd < 0)
		return 0;
	return call(i, SYS_close, (uint64_t)fd, 0, 0, 0, FIRN_POINT_CLOSE_ENTRY, FIRN_POINT_CLOSE_EXIT, &r);
}

bool firn_uffd_is_one(pid_t pid, int fd)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return false;
	link[n] = 0;
	return !strcmp(link, "anon_inode:[userfaultfd]");
}

/* The inode of socket @fd of @pid; 0 where it is not one. */
static uint64_t socket_inode(pid_t pid, int fd)
{
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 8 || memcmp(link, "socket:[", 8))
		return 0;
	link[n] = 0;
	return strtoull(link + 8, NULL, 10);
}

static int send_descriptors(int socket, const int *fds, unsigned int n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	char byte = 'f';
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	long r;

	memset(&control, 0, sizeof(control));
	control.h.cmsg_len = CMSG_LEN(n * sizeof(int));
	control.h.cmsg_level = SOL_SOCKET;
	control.h.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.h), fds, n * sizeof(int));
	r = firn_sys.sendmsg(socket, &msg, MSG_NOSIGNAL);
	return r == 1 ? 0 : r < 0 ? (int)r : -EIO;
}

static int failed(struct firn_err *e, pid_t pid, const char *what, long r)
{
	if (r == -ESRCH)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do", pid);
	if (r == -ENOTRECOVERABLE)
		return firn_err_set(e, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
				    "process %d could not be put back after an injected call: it is left as it is", pid);
	return firn_err_set(e, FIRN_EXIT_REFUSED, (int)-r, "descriptors",
			    "process %d: %s failed (%s): it may lack free descriptors (RLIMIT_NOFILE)", pid, what,
			    strerror((int)-r));
}

int firn_uffd_enter(struct firn_engine *en, struct firn_target *t, struct firn_inject *i, int pack, int *ret_pack,
		    struct firn_err *e)
{
	const int sent[2] = { en->uffd_device, pack };
	struct uffdio_api api = { .api = UFFD_API, .features = FIRN_UFFD_FEATURES };
	uint64_t base = i->j->scratch;
	struct scratch s;
	struct rlimit nofile;
	FIRN_FD ours = -1;
	FIRN_FD copy = -1;
	long r = 0;
	int high = -1, low = -1, device = -1, err;
	uint64_t floor = HIGH_FD;

	memset(&s, 0, sizeof(s));
	s.pair[0] = s.pair[1] = -1;
	s.msg.iov = base + offsetof(struct scratch, iov_base);
	s.msg.iovlen = 1;
	s.msg.control = base + offsetof(struct scratch, control);
	s.msg.controllen = sizeof(s.control);
	s.iov_base = base + offsetof(struct scratch, byte);
	s.iov_len = 1;
	s.control.fd[0] = s.control.fd[1] = -1;
	err = firn_inject_write(i, 0, &s, sizeof(s));
	if (!err)
		err = firn_inject_begin(i, i->stop->threads[0].tid);
	if (err)
		return failed(e, t->pid, "preparing the descriptors", err);
	i->j->pair[0] = i->j->pair[1] = 0;
	i->j->opening_uffd = 1;
	i->j->has_pack = pack >= 0;

	err = call(i, SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, base, FIRN_POINT_SOCKETPAIR_ENTRY,
		   FIRN_POINT_SOCKETPAIR_EXIT, &r);
	if (err || r < 0) {
		err = failed(e, t->pid, "socketpair", err ? err : r);
		goto out;
	}
	err = firn_inject_read(i, 0, &s, sizeof(s));
	if (err)
		goto bad;
	i->j->pair[0] = socket_inode(t->pid, s.pair[0]);
	i->j->pair[1] = socket_inode(t->pid, s.pair[1]);
	ours = (int)firn_sys.pidfd_getfd(t->pidfd, s.pair[0]);
	if (ours < 0) {
		err = failed(e, t->pid, "pidfd_getfd", ours);
		goto undo;
	}
	err = send_descriptors(ours, sent, pack < 0 ? 1 : 2);
	if (err) {
		failed(e, t->pid, "sending a descriptor", err);
		goto undo;
	}
	err = call(i, SYS_recvmsg, (uint64_t)s.pair[1], base + offsetof(struct scratch, msg),
		   MSG_CMSG_CLOEXEC | MSG_DONTWAIT, 0, FIRN_POINT_RECVMSG_ENTRY, FIRN_POINT_RECVMSG_EXIT, &r);
	if (!err)
		err = firn_inject_read(i, 0, &s, sizeof(s));
	if (err)
		goto bad;
	device = s.control.fd[0];
	/* A descriptor that found no room is not told of. */
	if (r != 1 || device < 0 || (pack >= 0 && s.control.fd[1] < 0)) {
		err = failed(e, t->pid, "receiving a descriptor", r < 0 ? r : -EMFILE);
		goto undo;
	}
	err = call(i, SYS_ioctl, (uint64_t)device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK, 0,
		   FIRN_POINT_IOCTL_ENTRY, FIRN_POINT_IOCTL_EXIT, &r);
	if (err)
		goto bad;
	if (r < 0) {
		err = failed(e, t->pid, "opening a userfaultfd", r);
		goto undo;
	}
	low = (int)r;
	/* Out of the way of programs that count on the lowest number. */
	if (!prlimit(t->pid, RLIMIT_NOFILE, NULL, &nofile) && nofile.rlim_cur < floor + 8)
		floor = nofile.rlim_cur > 16 ? nofile.rlim_cur - 8 : 0;
	err = call(i, SYS_fcntl, (uint64_t)low, F_DUPFD_CLOEXEC, floor, 0, FIRN_POINT_FCNTL_ENTRY,
		   FIRN_POINT_FCNTL_EXIT, &r);
	if (err)
		goto bad;
	high = r < 0 ? low : (int)r;
	copy = (int)firn_sys.pidfd_getfd(t->pidfd, high);
	if (copy < 0) {
		err = failed(e, t->pid, "pidfd_getfd", copy);
		goto undo;
	}
	/* Asked for on our copy: EVENT_FORK needs CAP_SYS_PTRACE in the caller. */
	r = firn_sys.ioctl(copy, UFFDIO_API, &api);
	if (r < 0) {
		err = firn_err_set(e, FIRN_EXIT_KERNEL, (int)-r, "uffd-api",
				   "the kernel's userfaultfd lacks layout events (%s): Linux 6.1 or newer is needed",
				   strerror((int)-r));
		goto undo;
	}
	if (close_there(i, s.pair[0]) || close_there(i, s.pair[1]) || close_there(i, device) ||
	    (low != high && close_there(i, low)))
		goto bad;
	t->image->target_uffd = high;
	t->armed.uffd = firn_fd_steal(&copy);
	firn_image_hold(en, t->image, t->armed.uffd);
	i->j->opening_uffd = 0;
	if (pack >= 0)
		*ret_pack = s.control.fd[1];
	err = 0;
	goto out;
bad:
	err = err ? err : -ENOTRECOVERABLE;
	failed(e, t->pid, "an injected call", err);
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		goto out;
undo:
	close_there(i, s.pair[0]);
	close_there(i, s.pair[1]);
	close_there(i, device);
	close_there(i, s.control.fd[1]);
	close_there(i, low);
	if (high != low)
		close_there(i, high);
	i->j->opening_uffd = i->j->has_pack = 0;
out:
	if (err != -ESRCH && err != -ENOTRECOVERABLE) {
		int back = firn_inject_end(i);

		if (back)
			err = failed(e, t->pid, "putting the thread back", back);
	}
	return err;
}

int firn_uffd_leave(struct firn_target *t, struct firn_inject *i)
{
	int err, fd = t->image->target_uffd;

	/* The target may have closed it itself, and the number may be its own by now. */
	if (fd < 0 || !firn_uffd_is_one(i->stop->threads[0].tid, fd))
		return 0;
	err = firn_inject_begin(i, i->stop->threads[0].tid);
	if (!err)
		err = close_there(i, fd);
	if (!err)
		err = firn_inject_end(i);
	if (!err)
		t->image->target_uffd = -1;
	return err;
}

int firn_pack_leave(struct firn_inject *i, int fd)
{
	int err = firn_inject_begin(i, i->stop->threads[0].tid);

	if (!err)
		err = close_there(i, fd);
	if (!err)
		err = firn_inject_end(i);
	if (!err)
		i->j->has_pack = 0;
	return err;
}

/* Are these the two ends of one socket pair?  A word sent into one comes out of the other. */
static bool is_our_pair(int pidfd, const int32_t pair[2])
{
	uint64_t token = 0x6669726e66697265ull, back = 0;
	FIRN_FD a = (int)firn_sys.pidfd_getfd(pidfd, pair[0]);
	FIRN_FD b = (int)firn_sys.pidfd_getfd(pidfd, pair[1]);
	char junk[64];

	if (a < 0 || b < 0)
		return false;
	while (recv(b, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	return send(a, &token, sizeof(token), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(token) &&
	       recv(b, &back, sizeof(back), MSG_DONTWAIT) == sizeof(back) && back == token;
}

/* Descriptors to close: userfaultfds but one, and those of the pack. */
struct strays {
	pid_t pid;
	bool uffds;
	struct stat pack;               /* st_ino 0: none */
	int keep, fds[8];
	unsigned int n;
};

static int note_stray(void *arg, long fd)
{
	struct strays *u = arg;
	char path[64];
	struct stat st;
	bool is_one = u->uffds && fd != u->keep && firn_uffd_is_one(u->pid, (int)fd);

	snprintf(path, sizeof(path), "/proc/%d/fd/%ld", u->pid, fd);
	if (!is_one && u->pack.st_ino && !stat(path, &st))
		is_one = st.st_ino == u->pack.st_ino && st.st_dev == u->pack.st_dev;
	if (is_one && u->n < ARRAY_SIZE(u->fds))
		u->fds[u->n++] = (int)fd;
	return 0;
}

int firn_uffd_sweep(struct firn_target *t, struct firn_inject *i, int keep)
{
	struct strays u = { .pid = t->pid, .uffds = i->j->opening_uffd, .keep = keep };
	char path[64], link[64];
	struct scratch s;
	ssize_t n;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/fd", t->pid);
	if (i->j->has_pack && t->pack && fstat(t->pack->file.fd, &u.pack))
		u.pack.st_ino = 0;
	firn_sys_each_number(path, note_stray, &u);
	memset(&s, -1, sizeof(s));
	err = i->j->opening_uffd ? firn_inject_read(i, 0, &s, sizeof(s)) : 0;
	if (!err)
		err = firn_inject_begin(i, i->stop->threads[0].tid);
	if (err)
		return err;
	if (s.control.fd[0] >= 0) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", t->pid, s.control.fd[0]);
		n = readlink(path, link, sizeof(link) - 1);
		if (n > 0) {
			link[n] = 0;
			if (!strcmp(link, FIRN_UFFD_DEVICE))
				err = close_there(i, s.control.fd[0]);
		}
	}
	if (!i->j->pair[0] && s.pair[0] >= 0 && is_our_pair(t->pidfd, s.pair))
		for (int k = 0; k < 2; k++)
			i->j->pair[k] = socket_inode(t->pid, s.pair[k]);
	for (int k = 0; !err && k < 2; k++)
		if (i->j->pair[k] && i->j->pair[k] == socket_inode(t->pid, s.pair[k]))
			err = close_there(i, s.pair[k]);
	for (unsigned int k = 0; !err && k < u.n; k++)
		err = close_there(i, u.fds[k]);
	if (!err)
		err = firn_inject_end(i);
	if (!err)
		i->j->opening_uffd = i->j->has_pack = 0;
	return err;
}
