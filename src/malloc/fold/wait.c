/* SPDX-License-Identifier: MIT */
/*
 * A thread that is about to wait does the allocator's work first: the waiting functions of libc, interposed.
 *
 * While it works its signals are blocked, and the wait itself begins with the program's own mask in one step with
 * the kernel's look at them (ppoll and its like): a signal that came meanwhile interrupts the wait exactly as one
 * that comes during it.  A wait ends at once when what it waits for is there, and every function stays a
 * cancellation point, since each calls libc's own.
 *
 * A process that falls idle would never fold what it left behind: pages must be quiet for some periods first.  So
 * one thread of it at a time, when its wait is long, comes back a few times, and then sleeps for good.
 */
/* What fortify defines inline here are the functions that this file is about. */
#undef _FORTIFY_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "malloc/api.h"
#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/fold/seccomp.h"
#include "malloc/os.h"

#define SECOND_NS 1000000000ll
#define MS_NS 1000000ll
#define FOREVER INT64_MAX
#define LOOK_EVERY_MS 8                 /* nobody looks more often whether something is due */
#define WORTH_NS MS_NS                  /* a shorter wait is not worth anything */
#define MORE_ROUNDS 2                   /* beyond the age of a page: the folding itself, and what it frees */

/* fortify's two, which no header declares when it is off. */
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t bytes);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t bytes);

/* The definitions that ours stand before: libc's, as a rule. */
static struct {
	int (*poll)(struct pollfd *, nfds_t, int);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*poll_chk)(struct pollfd *, nfds_t, int, size_t);
	int (*ppoll_chk)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);
	int (*select)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
	int (*epoll_wait)(int, struct epoll_event *, int, int);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*epoll_pwait2)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
	int (*nanosleep)(const struct timespec *, struct timespec *);
	int (*clock_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
	int (*usleep)(useconds_t);
	unsigned int (*sleep)(unsigned int);
} next;

static _Atomic bool resolved;
static _Atomic uint64_t look_ms;        /* not before this */
static _Atomic uint64_t watched_ms;     /* until then a thread has the task of coming back */

/* Twice at the same time does no harm.  Its calloc is ours, and ends here no more. */
static void resolve(void)
{
	static const struct {
		void *to;
		const char *name;
	} names[] = {
		{ &next.poll, "poll" }, { &next.ppoll, "ppoll" }, { &next.poll_chk, "__poll_chk" },
		{ &next.ppoll_chk, "__ppoll_chk" }, { &next.select, "select" }, { &next.pselect, "pselect" },
		{ &next.epoll_wait, "epoll_wait" }, { &next.epoll_pwait, "epoll_pwait" },
		{ &next.epoll_pwait2, "epoll_pwait2" }, { &next.nanosleep, "nanosleep" },
		{ &next.clock_nanosleep, "clock_nanosleep" }, { &next.usleep, "usleep" }, { &next.sleep, "sleep" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		*(void **)names[i].to = dlsym(RTLD_NEXT, names[i].name);
	atomic_store_explicit(&resolved, true, memory_order_release);
}

__attribute__((constructor(102))) static void start(void)
{
	resolve();
}

static inline void ready(void)
{
	if (firn_unlikely(!atomic_load_explicit(&resolved, memory_order_acquire)))
		resolve();
}

/* May there be something to do?  The way of nearly every wait: a load, and the coarse clock. */
static inline bool due(void)
{
	uint64_t now = firn_os.clock_ms();

	if (firn_likely(now < atomic_load_explicit(&look_ms, memory_order_relaxed)))
		return false;
	atomic_store_explicit(&look_ms, now + LOOK_EVERY_MS, memory_order_relaxed);
	/* busy: this is a signal handler in the middle of an allocation, whose locks are held. */
	return firn_init_done() && firn_heap.base && !firn_thread.busy && !firn_seccomp_known();
}

struct wait {
	/* Waits for @ns (FOREVER; 0: just looks) with @mask, NULL: the thread's present one.  errno as libc's. */
	int (*call)(struct wait *w, int64_t ns, const sigset_t *mask);
	const sigset_t *mask;           /* the program's for the wait; NULL: its thread's */
	int64_t end;                    /* on the monotonic clock; FOREVER */
	int error;                      /* errno afterwards */
	/* What it waits for. */
	int fd;
	int max;
	nfds_t n;
	void *what;
	fd_set *sets[3];
};

static int64_t now_ns(void)
{
	return (int64_t)firn_os.clock_ns();
}

static int64_t left(const struct wait *w)
{
	int64_t now;

	if (w->end == FOREVER)
		return FOREVER;
	now = now_ns();
	return now < w->end ? w->end - now : 0;
}

static int64_t end_of(int64_t seconds, int64_t ns)
{
	int64_t now = now_ns();

	return seconds > (FOREVER - now) / SECOND_NS - 2 ? FOREVER : now + seconds * SECOND_NS + ns;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){ ns / SECOND_NS, ns % SECOND_NS };
}

static bool valid(const struct timespec *t)
{
	return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < SECOND_NS;
}

static void restore(void *own)
{
	pthread_sigmask(SIG_SETMASK, own, NULL);
}

/* Come back within a wait after this. */
static int64_t watch_ns(void)
{
	return (int64_t)firn_config.period_ms * MS_NS;
}

/* The task of coming back: whose has not returned in time is gone, cancelled or left behind by a fork. */
static bool watch(bool mine)
{
	uint64_t now = firn_os.clock_ms(), old = atomic_load_explicit(&watched_ms, memory_order_relaxed);

	return (mine || old < now) &&
	       atomic_compare_exchange_strong_explicit(&watched_ms, &old, now + 2 * firn_config.period_ms + 1000,
						       memory_order_relaxed, memory_order_relaxed);
}

static int idle_with_mask(struct wait *w, const sigset_t *own)
{
	const sigset_t *mask = w->mask ? w->mask : own;
	unsigned int rounds = firn_config.fold ? firn_config.age + MORE_ROUNDS : 0;
	enum firn_tick tick;
	bool watching = false;
	int r;

	for (;;) {
		/* Ready, or interrupted: nothing is kept waiting for us. */
		r = w->call(w, 0, mask);
		if (r || !left(w))
			break;
		tick = left(w) > WORTH_NS ? firn_fold_tick(true) : FIRN_TICK_NOTHING;
		if (tick == FIRN_TICK_AGAIN)
			continue;
		if (tick == FIRN_TICK_SOON && left(w) > MS_NS) {
			r = w->call(w, MS_NS, mask);
			if (r)
				break;
			continue;
		}
		if (!rounds || left(w) <= watch_ns() || !watch(watching)) {
			if (watching)
				atomic_store_explicit(&watched_ms, 0, memory_order_relaxed);
			return w->call(w, left(w), mask);
		}
		watching = true;
		rounds--;
		r = w->call(w, watch_ns(), mask);
		if (r)
			break;
	}
	if (watching)
		atomic_store_explicit(&watched_ms, 0, memory_order_relaxed);
	return r;
}

/* Work, and wait for the rest.  Returns what the wait returned. */
static int idle(struct wait *w)
{
	sigset_t all, own;
	int r;

	w->error = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &own);
	pthread_cleanup_push(restore, &own);
	r = idle_with_mask(w, &own);
	if (r < 0)
		w->error = errno;
	pthread_cleanup_pop(1);
	errno = w->error;
	return r;
}

static int call_ppoll(struct wait *w, int64_t ns, const sigset_t *mask)
{
	struct timespec t = timespec_of(ns);

	return next.ppoll(w->what, w->n, ns == FOREVER ? NULL : &t, mask);
}

static int poll_idle(struct pollfd *fds, nfds_t n, int64_t end, const sigset_t *mask)
{
	struct wait w = { .call = call_ppoll, .mask = mask, .end = end, .n = n, .what = fds };

	return idle(&w);
}

FIRN_PUBLIC int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	ready();
	if ((timeout >= 0 && timeout <= 1) || !due())
		return next.poll(fds, n, timeout);
	return poll_idle(fds, n, timeout < 0 ? FOREVER : end_of(0, timeout * MS_NS), NULL);
}

FIRN_PUBLIC int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t bytes)
{
	ready();
	if (bytes / sizeof(*fds) < n)
		return next.poll_chk(fds, n, timeout, bytes);
	return poll(fds, n, timeout);
}

FIRN_PUBLIC int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	ready();
	if ((timeout && (!valid(timeout) || (!timeout->tv_sec && timeout->tv_nsec <= WORTH_NS))) || !due())
		return next.ppoll(fds, n, timeout, mask);
	return poll_idle(fds, n, timeout ? end_of(timeout->tv_sec, timeout->tv_nsec) : FOREVER, mask);
}

FIRN_PUBLIC int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
			    size_t bytes)
{
	ready();
	if (bytes / sizeof(*fds) < n)
		return next.ppoll_chk(fds, n, timeout, mask, bytes);
	return ppoll(fds, n, timeout, mask);
}

/* The sets are both question and answer: an answer of nothing must leave the question. */
static int call_pselect(struct wait *w, int64_t ns, const sigset_t *mask)
{
	struct timespec t = timespec_of(ns);
	fd_set copy[3], *sets[3];
	int r;

	for (int i = 0; i < 3; i++) {
		sets[i] = w->sets[i] ? &copy[i] : NULL;
		if (sets[i])
			copy[i] = *w->sets[i];
	}
	r = next.pselect(w->max, sets[0], sets[1], sets[2], ns == FOREVER ? NULL : &t, mask);
	for (int i = 0; i < 3 && r > 0; i++)
		if (sets[i])
			*w->sets[i] = copy[i];
	return r;
}

static int select_idle(int n, fd_set *in, fd_set *out, fd_set *except, int64_t end, const sigset_t *mask)
{
	struct wait w = { .call = call_pselect, .mask = mask, .end = end, .max = n, .sets = { in, out, except } };
	size_t bytes = ((size_t)n + 63) / 64 * 8;
	fd_set whole[3];
	int r;

	/* The program's sets may be shorter than an fd_set: only what @n covers is theirs. */
	for (int i = 0; i < 3; i++) {
		if (!w.sets[i])
			continue;
		memset(&whole[i], 0, sizeof(whole[i]));
		memcpy(&whole[i], w.sets[i], bytes);
		w.sets[i] = &whole[i];
	}
	r = idle(&w);
	if (r < 0)
		return r;
	for (int i = 0; i < 3; i++) {
		fd_set *to = i == 0 ? in : i == 1 ? out : except;

		if (to && r)
			memcpy(to, &whole[i], bytes);
		else if (to)
			memset(to, 0, bytes);
	}
	return r;
}

FIRN_PUBLIC int select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	int64_t end = FOREVER;
	int r;

	ready();
	if (n < 0 || n > FD_SETSIZE ||
	    (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0 ||
			 (!timeout->tv_sec && timeout->tv_usec <= WORTH_NS / 1000))) || !due())
		return next.select(n, in, out, except, timeout);
	if (timeout)
		end = end_of(timeout->tv_sec, (int64_t)timeout->tv_usec * 1000);
	r = select_idle(n, in, out, except, end, NULL);
	if (timeout && end != FOREVER) {
		int64_t now = now_ns(), rest = now < end ? end - now : 0;

		/* As the kernel does, whatever the outcome. */
		timeout->tv_sec = rest / SECOND_NS;
		timeout->tv_usec = rest % SECOND_NS / 1000;
	}
	return r;
}

FIRN_PUBLIC int pselect(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
			const sigset_t *mask)
{
	ready();
	if (n < 0 || n > FD_SETSIZE ||
	    (timeout && (!valid(timeout) || (!timeout->tv_sec && timeout->tv_nsec <= WORTH_NS))) || !due())
		return next.pselect(n, in, out, except, timeout, mask);
	return select_idle(n, in, out, except, timeout ? end_of(timeout->tv_sec, timeout->tv_nsec) : FOREVER, mask);
}

/* A timeout may end later, never earlier: up to the next millisecond. */
static int call_epoll(struct wait *w, int64_t ns, const sigset_t *mask)
{
	int64_t ms = ns / MS_NS + (ns % MS_NS != 0);

	return next.epoll_pwait(w->fd, w->what, w->max, ns == FOREVER ? -1 : ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

static int call_epoll2(struct wait *w, int64_t ns, const sigset_t *mask)
{
	struct timespec t = timespec_of(ns);

	return next.epoll_pwait2(w->fd, w->what, w->max, ns == FOREVER ? NULL : &t, mask);
}

FIRN_PUBLIC int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
	ready();
	if ((timeout >= 0 && timeout <= 1) || !due())
		return next.epoll_wait(fd, events, max, timeout);
	struct wait w = { .call = call_epoll, .end = timeout < 0 ? FOREVER : end_of(0, timeout * MS_NS),
			  .fd = fd, .max = max, .what = events };

	return idle(&w);
}

FIRN_PUBLIC int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
	ready();
	if ((timeout >= 0 && timeout <= 1) || !due())
		return next.epoll_pwait(fd, events, max, timeout, mask);
	struct wait w = { .call = call_epoll, .mask = mask, .end = timeout < 0 ? FOREVER : end_of(0, timeout * MS_NS),
			  .fd = fd, .max = max, .what = events };

	return idle(&w);
}

FIRN_PUBLIC int epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout,
			     const sigset_t *mask)
{
	ready();
	if (!next.epoll_pwait2) {
		errno = ENOSYS;
		return -1;
	}
	if ((timeout && (!valid(timeout) || (!timeout->tv_sec && timeout->tv_nsec <= WORTH_NS))) || !due())
		return next.epoll_pwait2(fd, events, max, timeout, mask);
	struct wait w = { .call = call_epoll2, .mask = mask,
			  .end = timeout ? end_of(timeout->tv_sec, timeout->tv_nsec) : FOREVER,
			  .fd = fd, .max = max, .what = events };

	return idle(&w);
}

/* Sleep until @end.  Returns 0, or -1 when a signal's handler ran. */
static int sleep_idle(int64_t end)
{
	struct wait w = { .call = call_ppoll, .end = end };
	int error = errno, r = idle(&w);

	errno = error;
	return r;
}

static void rest_of(int64_t end, struct timespec *ret)
{
	int64_t now = now_ns();

	if (ret)
		*ret = timespec_of(now < end ? end - now : 0);
}

FIRN_PUBLIC int nanosleep(const struct timespec *time, struct timespec *rest)
{
	int64_t end;

	ready();
	if (!valid(time) || (!time->tv_sec && time->tv_nsec <= WORTH_NS) || !due() ||
	    (end = end_of(time->tv_sec, time->tv_nsec)) == FOREVER)
		return next.nanosleep(time, rest);
	if (!sleep_idle(end))
		return 0;
	rest_of(end, rest);
	errno = EINTR;
	return -1;
}

FIRN_PUBLIC int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest)
{
	int64_t end;

	ready();
	/* An absolute time on a clock that can be set is the kernel's business alone. */
	if (!valid(time) || (clock != CLOCK_MONOTONIC && (clock != CLOCK_REALTIME || flags)) ||
	    (flags & ~TIMER_ABSTIME) || (!flags && !time->tv_sec && time->tv_nsec <= WORTH_NS) || !due())
		return next.clock_nanosleep(clock, flags, time, rest);
	if (flags)
		end = time->tv_sec < FOREVER / SECOND_NS - 1 ? time->tv_sec * SECOND_NS + time->tv_nsec : FOREVER;
	else
		end = end_of(time->tv_sec, time->tv_nsec);
	if (end == FOREVER)
		return next.clock_nanosleep(clock, flags, time, rest);
	if (!sleep_idle(end))
		return 0;
	if (!flags)
		rest_of(end, rest);
	return EINTR;
}

FIRN_PUBLIC int usleep(useconds_t us)
{
	ready();
	if (us <= WORTH_NS / 1000 || !due())
		return next.usleep(us);
	if (!sleep_idle(end_of(us / 1000000, us % 1000000 * 1000ll)))
		return 0;
	errno = EINTR;
	return -1;
}

FIRN_PUBLIC unsigned int sleep(unsigned int seconds)
{
	struct timespec rest;
	int64_t end;

	ready();
	if (!seconds || !due())
		return next.sleep(seconds);
	end = end_of(seconds, 0);
	if (!sleep_idle(end))
		return 0;
	rest_of(end, &rest);
	return (unsigned int)rest.tv_sec;
}
