/* SPDX-License-Identifier: MIT */
/*
 * The OS boundary: every call of the freezer to the kernel that can fail in an interesting way goes
 * through one table, whose entries tests may replace.  Results are negative errno, never -1.
 */
#ifndef FIRN_SYS_SYS_H
#define FIRN_SYS_SYS_H

#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/types.h"
#include "sys/point.h"

struct firn_sys {
	long (*ptrace)(int request, pid_t tid, void *addr, void *data);
	/* waitpid; 0 with WNOHANG where nothing changed. */
	long (*wait)(pid_t tid, int *status, int options);
	long (*kill)(pid_t pid, int sig);
	long (*pidfd_open)(pid_t pid, unsigned int flags);
	long (*pidfd_getfd)(int pidfd, int fd);
	long (*process_vm_readv)(pid_t pid, const struct iovec *local, unsigned long nlocal,
				 const struct iovec *remote, unsigned long nremote);
	long (*process_vm_writev)(pid_t pid, const struct iovec *local, unsigned long nlocal,
				  const struct iovec *remote, unsigned long nremote);
	long (*process_madvise)(int pidfd, const struct iovec *spans, unsigned long n, int advice);
	long (*open)(const char *path, int flags, int mode);
	long (*read)(int fd, void *buf, size_t len);
	long (*pread)(int fd, void *buf, size_t len, uint64_t offset);
	long (*pwrite)(int fd, const void *buf, size_t len, uint64_t offset);
	long (*ftruncate)(int fd, uint64_t len);
	long (*unlink)(const char *path);
	long (*ioctl)(int fd, unsigned long request, void *arg);
	long (*sendmsg)(int fd, const struct msghdr *msg, int flags);
	uint64_t (*clock_ns)(void);     /* monotonic */
	void (*sleep_ns)(uint64_t ns);
	/* Called at each named step; NULL unless a test asks for it. */
	void (*point)(enum firn_point point);
};

extern struct firn_sys firn_sys;

/*
 * Read up to @len bytes of a small /proc file into @buf and terminate it with NUL.
 * Returns the bytes read (< @len), or -errno.  Any thread; allocates nothing.
 */
long firn_sys_read_file(const char *path, char *buf, size_t len);

/* Lines of a file of any length, through one fixed buffer.  Lines over the buffer's size are cut. */
struct firn_lines {
	int fd;
	size_t pos, len;
	char buf[16384];
};

/* Open @path for reading.  Returns 0, or -errno.  The caller closes. */
int firn_lines_open(struct firn_lines *l, const char *path);
/* The next line without its newline, valid until the next call.  Returns 1, 0 at the end, or -errno. */
int firn_lines_next(struct firn_lines *l, char **ret);
void firn_lines_close(struct firn_lines *l);

/*
 * Numeric entries of a directory (/proc, /proc/PID/task, /proc/PID/fd), without allocating.
 * @fn returns 0 to go on; anything else ends the walk and is returned.  Returns 0, or -errno.
 */
int firn_sys_each_number(const char *dir, int (*fn)(void *arg, long number), void *arg);

#endif
