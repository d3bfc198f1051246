/* SPDX-License-Identifier: MIT */
/*
 * What a stopped thread was waiting for: the system call that it was stopped in, read from outside.
 */
#ifndef FIRN_PROCMEM_WAITS_H
#define FIRN_PROCMEM_WAITS_H

#include <sys/types.h>

#include "base/types.h"

#define FIRN_WAIT_FOR_EVER UINT64_MAX

struct firn_wait_call {
	long nr;                     /* -1: in no call */
	uint64_t args[6];
};

struct firn_wait {
	bool told;                   /* false: it computes, or nothing is known of its call: what it looks at next is open */
	bool for_child;              /* a child's end would end the call */
	bool hidden;                 /* it waits for what no descriptor shows: a semaphore, a lock, a queue */
	bool masked;                 /* @mask is blocked during the call, in place of the thread's own */
	uint64_t mask;
	uint64_t accepts;            /* signals that the call itself takes, though they are blocked */
	uint64_t timeout_ns;         /* FIRN_WAIT_FOR_EVER; on @clock where it is absolute, else from its begin */
	int clock;                   /* clockid_t; -1: not absolute */
	int on;                      /* the one descriptor that it reads or writes itself; -1: none */
};

/* What is needed of the thread's process. */
struct firn_wait_ops {
	/* Read its memory.  Returns 0, or -errno. */
	int (*peek)(void *arg, uint64_t address, void *buf, size_t len);
	/* The call ends when descriptor @fd has one of @events (of poll(2)). */
	void (*descriptor)(void *arg, int fd, uint32_t events);
	void *arg;
};

/* Parse a line of /proc/PID/syscall.  Returns 0; -EAGAIN it runs; -EBADMSG. */
int firn_wait_parse(const char *line, struct firn_wait_call *ret);

/* What @call waits for.  Always fills *@ret; memory that cannot be read leaves it not told. */
void firn_wait_decode(const struct firn_wait_call *call, const struct firn_wait_ops *ops, struct firn_wait *ret);

/* The same for thread @tid of @pid, whose threads are all stopped.  Returns 0; -ESRCH; -EAGAIN it runs. */
int firn_wait_read(pid_t pid, pid_t tid, const struct firn_wait_ops *ops, struct firn_wait *ret);

#endif
