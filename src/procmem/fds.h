/* SPDX-License-Identifier: MIT */
/*
 * The descriptors of a process: what kind each is, and what /proc tells of it.  Reads only.
 */
#ifndef FIRN_PROCMEM_FDS_H
#define FIRN_PROCMEM_FDS_H

#include <sys/types.h>

#include "base/types.h"

/* Only those that can be polled from another process without taking anything away from its owner have a name. */
enum firn_fd_kind {
	FIRN_FD_OTHER = 0,           /* files, devices, and what is not known */
	FIRN_FD_SOCKET,
	FIRN_FD_PIPE,                /* and fifos */
	FIRN_FD_EVENTFD,
	FIRN_FD_TIMERFD,
	FIRN_FD_EPOLL,
	FIRN_FD_SIGNALFD,            /* shows the signals of whoever polls it: never copied */
	FIRN_FD_INOTIFY,             /* and fanotify */
	FIRN_FD_TTY,
	FIRN_FD_PIDFD,
};

struct firn_fd {
	int fd;
	enum firn_fd_kind kind;
	uint64_t ino;                /* of a socket or pipe, else 0 */
	uint32_t flags;              /* of open(2) */
	/* of a timerfd: what is left, the period, how often it has expired unread */
	uint64_t left_ns, interval_ns, ticks;
	uint64_t sigmask;            /* of a signalfd */
};

/* The kind that /proc/PID/fd/N's link @text says; FIRN_FD_OTHER for a path.  *@ret_ino: see above. */
enum firn_fd_kind firn_fd_kind_of(const char *text, uint64_t *ret_ino);
/* Take in one line of /proc/PID/fdinfo/N. */
void firn_fd_line(const char *line, struct firn_fd *ret);
/* Of an epoll descriptor's: is it a member's line?  Its descriptor's number when it was added, the events asked for,
 * and its inode. */
bool firn_fd_member_line(const char *line, int *ret_fd, uint32_t *ret_events, uint64_t *ret_ino);

/* Descriptor @fd of @pid (a live thread of it).  Returns 0, or -errno (-ENOENT: not open). */
int firn_fd_read(pid_t pid, int fd, struct firn_fd *ret);
/*
 * The members of epoll descriptor @fd of @pid.  @fn as for firn_sys_each_number.
 * Returns what it returned, 0, or -errno.
 */
int firn_fd_each_member(pid_t pid, int fd, int (*fn)(void *arg, int fd, uint32_t events, uint64_t ino), void *arg);

#endif
