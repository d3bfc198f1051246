/* SPDX-License-Identifier: MIT */
/*
 * Which system calls may be begun anew by the kernel when they returned -EINTR because we stopped their
 * thread.  Shared by all that stop threads.  A pure function of the call; knows nothing of processes.
 */
#ifndef FIRN_BASE_RESTART_H
#define FIRN_BASE_RESTART_H

#include <sys/syscall.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum firn_restart {
	FIRN_RESTART_NEVER,             /* it does not end so, or something was done: close, above all */
	FIRN_RESTART_SOCKET,            /* where its first argument is a socket */
	FIRN_RESTART_ALWAYS,
};

/* Rule for call number @nr of this architecture.  Calls that end with one of the kernel's own restart codes need
 * none: those restart by themselves. */
static inline enum firn_restart firn_restart_rule(long nr)
{
	switch (nr) {
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_io_getevents:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
	case SYS_rt_sigtimedwait:
	case SYS_msgrcv:
	case SYS_msgsnd:
	case SYS_accept:
	case SYS_accept4:
	case SYS_connect:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_mq_timedreceive:
	case SYS_mq_timedsend:
		return FIRN_RESTART_ALWAYS;
	case SYS_read:
	case SYS_readv:
	case SYS_write:
	case SYS_writev:
		return FIRN_RESTART_SOCKET;
	}
	return FIRN_RESTART_NEVER;
}

#endif
