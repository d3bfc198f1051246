/* SPDX-License-Identifier: MIT */
/*
 * System calls that wait, and for what.  Decoding is a pure function of the call and of the memory that its
 * arguments point to; what it does not know is "not told", which makes the caller look at everything.
 */
#include "procmem/waits.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>

#include "sys/sys.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_futex_wait
#define SYS_futex_wait 455
#endif
#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

#define POLL_MAX 65536u              /* descriptors of one poll */
#define POLL_AT_ONCE 512u
#define SIGSET_BYTES 8u
#define READ_EVENTS (POLLIN | POLLRDHUP | POLLHUP | POLLERR)
#define WRITE_EVENTS (POLLOUT | POLLHUP | POLLERR)

int firn_wait_parse(const char *line, struct firn_wait_call *ret)
{
	char *end;
	int i;

	memset(ret, 0, sizeof(*ret));
	if (!strncmp(line, "running", 7))
		return -EAGAIN;
	ret->nr = strtol(line, &end, 10);
	if (end == line)
		return -EBADMSG;
	if (ret->nr < 0)
		return 0;               /* "-1 SP PC" */
	for (i = 0; i < 6; i++) {
		const char *at = end;

		if (*at != ' ')
			return -EBADMSG;
		ret->args[i] = strtoull(at, &end, 16);
		if (end == at)
			return -EBADMSG;
	}
	return 0;
}

static bool add_ns(uint64_t *ret, int64_t s, int64_t ns)
{
	if (s < 0 || ns < 0 || ns >= 1000000000)
		return false;
	*ret = (uint64_t)s > FIRN_WAIT_FOR_EVER / 1000000000 - 1 ? FIRN_WAIT_FOR_EVER :
								   (uint64_t)s * 1000000000u + (uint64_t)ns;
	return true;
}

/* A struct timespec of the target's; address 0: for ever. */
static bool timespec_at(const struct firn_wait_ops *o, uint64_t address, struct firn_wait *w)
{
	int64_t t[2];

	if (!address)
		return true;
	return !o->peek(o->arg, address, t, sizeof(t)) && add_ns(&w->timeout_ns, t[0], t[1]);
}

static void milliseconds(struct firn_wait *w, int32_t ms)
{
	if (ms >= 0)
		w->timeout_ns = (uint64_t)ms * 1000000u;
}

static bool mask_at(const struct firn_wait_ops *o, uint64_t address, uint64_t bytes, struct firn_wait *w)
{
	if (!address)
		return true;
	if (bytes != SIGSET_BYTES || o->peek(o->arg, address, &w->mask, sizeof(w->mask)))
		return false;
	w->masked = true;
	return true;
}

static bool poll_at(const struct firn_wait_ops *o, uint64_t address, uint64_t n)
{
	struct pollfd p[POLL_AT_ONCE];

	if (n > POLL_MAX)
		return false;
	while (n) {
		uint64_t now = firn_min_u64(n, POLL_AT_ONCE);

		if (o->peek(o->arg, address, p, now * sizeof(p[0])))
			return false;
		for (uint64_t i = 0; i < now; i++)
			if (p[i].fd >= 0)
				o->descriptor(o->arg, p[i].fd, (uint16_t)p[i].events | POLLERR | POLLHUP);
		address += now * sizeof(p[0]);
		n -= now;
	}
	return true;
}

static bool select_at(const struct firn_wait_ops *o, const uint64_t *args)
{
	static const uint32_t events[] = { READ_EVENTS, WRITE_EVENTS, POLLPRI };
	uint64_t n = args[0], word;

	if (n > POLL_MAX)
		return false;
	for (int set = 0; set < 3; set++) {
		for (uint64_t at = 0; args[set + 1] && at < n; at += 64) {
			if (o->peek(o->arg, args[set + 1] + at / 8, &word, sizeof(word)))
				return false;
			for (unsigned int bit = 0; bit < 64 && at + bit < n; bit++)
				if (word >> bit & 1)
					o->descriptor(o->arg, (int)(at + bit), events[set]);
		}
	}
	return true;
}

/* Other threads change the word, and they are stopped too; another process does where it is in shared memory, which
 * nothing shows. */
static bool futex(const struct firn_wait_ops *o, const uint64_t *args, struct firn_wait *w)
{
	uint32_t op = (uint32_t)args[1];
	int clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;

	switch (op & (uint32_t)FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
		return timespec_at(o, args[3], w);
	case FUTEX_LOCK_PI:
		clock = CLOCK_REALTIME;
		/* fall through */
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAIT_REQUEUE_PI:
	case FUTEX_LOCK_PI2:
		w->clock = clock;
		return timespec_at(o, args[3], w);
	}
	return false;
}

/*
 * A call that the kernel began anew by itself does not say which it was; its arguments are still those of the first
 * time.  One of poll, nanosleep, clock_nanosleep and futex.
 */
static bool restarted(const struct firn_wait_ops *o, const uint64_t *args, struct firn_wait *w)
{
	uint64_t op = args[1];

	if (args[0] < 4096) {
		/* clock_nanosleep: only one that is not absolute is restarted so. */
		return timespec_at(o, args[2], w);
	}
	if (op == FUTEX_WAIT_PRIVATE || op == (FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG) ||
	    op == (FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME))
		return futex(o, args, w);
	if (op && op <= POLL_MAX && (int32_t)args[2] >= 0) {
		milliseconds(w, (int32_t)args[2]);
		return poll_at(o, args[0], op);
	}
	return false;
}

static void read_from(const struct firn_wait_ops *o, const uint64_t *args, struct firn_wait *w)
{
	w->on = (int)args[0];
	o->descriptor(o->arg, w->on, READ_EVENTS);
}

static void write_to(const struct firn_wait_ops *o, const uint64_t *args, struct firn_wait *w)
{
	w->on = (int)args[0];
	o->descriptor(o->arg, w->on, WRITE_EVENTS);
}

static bool decode(const struct firn_wait_call *call, const struct firn_wait_ops *o, struct firn_wait *w)
{
	const uint64_t *a = call->args;
	uint64_t pair[2];

	switch (call->nr) {
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
		read_from(o, a, w);
		milliseconds(w, (int32_t)a[3]);
		return true;
#endif
	case SYS_epoll_pwait:
		read_from(o, a, w);
		milliseconds(w, (int32_t)a[3]);
		return mask_at(o, a[4], a[5], w);
	case SYS_epoll_pwait2:
		read_from(o, a, w);
		return timespec_at(o, a[3], w) && mask_at(o, a[4], a[5], w);
#ifdef SYS_poll
	case SYS_poll:
		milliseconds(w, (int32_t)a[2]);
		return poll_at(o, a[0], a[1]);
#endif
	case SYS_ppoll:
		return poll_at(o, a[0], a[1]) && timespec_at(o, a[2], w) && mask_at(o, a[3], a[4], w);
#ifdef SYS_select
	case SYS_select:
		/* A struct timeval. */
		if (a[4] && (o->peek(o->arg, a[4], pair, sizeof(pair)) || pair[1] >= 1000000 ||
			     !add_ns(&w->timeout_ns, (int64_t)pair[0], (int64_t)pair[1] * 1000)))
			return false;
		return select_at(o, a);
#endif
	case SYS_pselect6:
		if (a[5] && (o->peek(o->arg, a[5], pair, sizeof(pair)) || !mask_at(o, pair[0], pair[1], w)))
			return false;
		return timespec_at(o, a[4], w) && select_at(o, a);
	case SYS_read:
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_mq_timedreceive:
		read_from(o, a, w);
		/* The queue's deadline is of the real time. */
		w->clock = call->nr == SYS_mq_timedreceive && a[4] ? CLOCK_REALTIME : -1;
		return call->nr != SYS_mq_timedreceive || timespec_at(o, a[4], w);
	case SYS_recvmmsg:
		read_from(o, a, w);
		return timespec_at(o, a[4], w);
	case SYS_write:
	case SYS_writev:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_connect:
		write_to(o, a, w);
		return true;
	case SYS_nanosleep:
		return timespec_at(o, a[0], w);
	case SYS_clock_nanosleep:
		w->clock = a[1] & TIMER_ABSTIME ? (int)a[0] : -1;
		return timespec_at(o, a[2], w);
#ifdef SYS_pause
	case SYS_pause:
		return true;
#endif
	case SYS_rt_sigsuspend:
		return mask_at(o, a[0], a[1], w);
	case SYS_rt_sigtimedwait:
		if (a[3] != SIGSET_BYTES || o->peek(o->arg, a[0], &w->accepts, sizeof(w->accepts)))
			return false;
		return timespec_at(o, a[2], w);
	case SYS_wait4:
	case SYS_waitid:
		w->for_child = true;
		return true;
	case SYS_futex:
		return futex(o, a, w);
	case SYS_futex_waitv:
	case SYS_futex_wait:
		return false;
#ifdef SYS_restart_syscall
	case SYS_restart_syscall:
		return restarted(o, a, w);
#endif
	case SYS_flock:
		w->hidden = true;
		return true;
	case SYS_semop:
	case SYS_msgrcv:
	case SYS_msgsnd:
		w->hidden = true;
		return true;
	case SYS_semtimedop:
		w->hidden = true;
		return timespec_at(o, a[3], w);
	}
	return false;
}

void firn_wait_decode(const struct firn_wait_call *call, const struct firn_wait_ops *ops, struct firn_wait *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->timeout_ns = FIRN_WAIT_FOR_EVER;
	ret->clock = ret->on = -1;
	ret->told = decode(call, ops, ret);
}

int firn_wait_read(pid_t pid, pid_t tid, const struct firn_wait_ops *ops, struct firn_wait *ret)
{
	struct firn_wait_call call;
	char path[64], line[256];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	if (firn_sys_read_file(path, line, sizeof(line)) <= 0)
		return -ESRCH;
	err = firn_wait_parse(line, &call);
	if (err == -EAGAIN)
		return err;
	if (err)
		call.nr = -1;
	firn_wait_decode(&call, ops, ret);
	return 0;
}
