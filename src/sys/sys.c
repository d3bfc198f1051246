/* SPDX-License-Identifier: MIT */
/*
 * The real entries of the table, and the /proc readers built on them.
 */
#include "sys/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long result(long r)
{
	return r < 0 ? -errno : r;
}

static long real_ptrace(int request, pid_t tid, void *addr, void *data)
{
	/* The raw call: glibc's wrapper returns PEEK's word in place of an error. */
	return result(syscall(SYS_ptrace, (long)request, (long)tid, addr, data));
}

static long real_wait(pid_t tid, int *status, int options)
{
	long r;

	do {
		r = result(waitpid(tid, status, options));
	} while (r == -EINTR);
	return r;
}

static long real_kill(pid_t pid, int sig)
{
	return result(kill(pid, sig));
}

static long real_pidfd_open(pid_t pid, unsigned int flags)
{
	return result(syscall(SYS_pidfd_open, pid, flags));
}

static long real_pidfd_getfd(int pidfd, int fd)
{
	return result(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

static long real_process_vm_readv(pid_t pid, const struct iovec *local, unsigned long nlocal,
				  const struct iovec *remote, unsigned long nremote)
{
	return result(process_vm_readv(pid, local, nlocal, remote, nremote, 0));
}

static long real_process_vm_writev(pid_t pid, const struct iovec *local, unsigned long nlocal,
				   const struct iovec *remote, unsigned long nremote)
{
	return result(process_vm_writev(pid, local, nlocal, remote, nremote, 0));
}

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

static long real_process_madvise(int pidfd, const struct iovec *spans, unsigned long n, int advice)
{
	return result(syscall(SYS_process_madvise, pidfd, spans, n, advice, 0));
}

static long real_open(const char *path, int flags, int mode)
{
	return result(open(path, flags | O_CLOEXEC, mode));
}

static long real_read(int fd, void *buf, size_t len)
{
	return result(read(fd, buf, len));
}

static long real_pread(int fd, void *buf, size_t len, uint64_t offset)
{
	return result(pread(fd, buf, len, (off_t)offset));
}

static long real_pwrite(int fd, const void *buf, size_t len, uint64_t offset)
{
	return result(pwrite(fd, buf, len, (off_t)offset));
}

static long real_ftruncate(int fd, uint64_t len)
{
	return result(ftruncate(fd, (off_t)len));
}

static long real_unlink(const char *path)
{
	return result(unlink(path));
}

static long real_ioctl(int fd, unsigned long request, void *arg)
{
	return result(ioctl(fd, request, arg));
}

static long real_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return result(sendmsg(fd, msg, flags));
}

static uint64_t real_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void real_sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	nanosleep(&ts, NULL);
}

struct firn_sys firn_sys = {
	.ptrace = real_ptrace,
	.wait = real_wait,
	.kill = real_kill,
	.pidfd_open = real_pidfd_open,
	.pidfd_getfd = real_pidfd_getfd,
	.process_vm_readv = real_process_vm_readv,
	.process_vm_writev = real_process_vm_writev,
	.process_madvise = real_process_madvise,
	.open = real_open,
	.read = real_read,
	.pread = real_pread,
	.pwrite = real_pwrite,
	.ftruncate = real_ftruncate,
	.unlink = real_unlink,
	.ioctl = real_ioctl,
	.sendmsg = real_sendmsg,
	.clock_ns = real_clock_ns,
	.sleep_ns = real_sleep_ns,
};

long firn_sys_read_file(const char *path, char *buf, size_t len)
{
	long fd = firn_sys.open(path, O_RDONLY, 0);
	size_t done = 0;
	long n = 0;

	if (fd < 0)
		return fd;
	while (done < len - 1) {
		n = firn_sys.read((int)fd, buf + done, len - 1 - done);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	close((int)fd);
	buf[done] = 0;
	return n < 0 ? n : (long)done;
}

/*
 * The kernel makes records (of smaps, say) until so much is there, or until one does not fit in its page: that
 * one it throws away and makes again at the next read, which for a large mapping takes milliseconds.
 */
#define READ_BYTES 2048u

int firn_lines_open(struct firn_lines *l, const char *path)
{
	long fd = firn_sys.open(path, O_RDONLY, 0);

	l->fd = (int)fd;
	l->pos = l->len = 0;
	return fd < 0 ? (int)fd : 0;
}

int firn_lines_next(struct firn_lines *l, char **ret)
{
	for (;;) {
		char *nl = memchr(l->buf + l->pos, '\n', l->len - l->pos);
		long n;

		if (nl) {
			*nl = 0;
			*ret = l->buf + l->pos;
			l->pos = (size_t)(nl - l->buf) + 1;
			return 1;
		}
		memmove(l->buf, l->buf + l->pos, l->len - l->pos);
		l->len -= l->pos;
		l->pos = 0;
		if (l->len == sizeof(l->buf) - 1) {
			l->buf[l->len] = 0;
			*ret = l->buf;
			l->len = 0;
			return 1;
		}
		n = firn_sys.read(l->fd, l->buf + l->len, firn_min_u64(sizeof(l->buf) - 1 - l->len, READ_BYTES));
		if (n < 0)
			return (int)n;
		if (n == 0) {
			if (!l->len)
				return 0;
			l->buf[l->len] = 0;
			*ret = l->buf;
			l->len = 0;
			return 1;
		}
		l->len += (size_t)n;
	}
}

void firn_lines_close(struct firn_lines *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

int firn_sys_each_number(const char *dir, int (*fn)(void *arg, long number), void *arg)
{
	_Alignas(8) char buf[4096];
	long fd = firn_sys.open(dir, O_RDONLY | O_DIRECTORY, 0);
	int r = 0;

	if (fd < 0)
		return (int)fd;
	for (;;) {
		long n = syscall(SYS_getdents64, (int)fd, buf, sizeof(buf));

		if (n <= 0) {
			r = n < 0 ? -errno : 0;
			break;
		}
		for (long o = 0; o < n;) {
			struct dirent64_raw *d = (struct dirent64_raw *)(void *)(buf + o);
			long number = 0;
			const char *p = d->name;

			while (*p >= '0' && *p <= '9')
				number = number * 10 + (*p++ - '0');
			if (!*p && p != d->name)
				r = fn(arg, number);
			if (r)
				goto out;
			o += d->reclen;
		}
	}
out:
	close((int)fd);
	return r;
}
