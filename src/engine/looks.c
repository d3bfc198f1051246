/* SPDX-License-Identifier: MIT */
/*
 * What a resting target would do next, and so what is to be watched: its threads' system calls say what they wait
 * for.  Everything is looked at from outside, by copies that are polled and never read.  Runs on the watch's thread.
 *
 * A thread that waits is woken by what it waits for, and by nothing else: that counts whenever it is there.  Where a
 * thread computes, or wakes by itself every so often (ticks), it may look at any descriptor: there what comes
 * counts, and what had come before only once (firn_wake_record), since it may be left unread on purpose.
 */
#include "engine/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "sys/sys.h"

#define EVENTS_MASK 0xffffu          /* of an epoll member's: without its flags */
#define NEWS_EVENTS (POLLIN | POLLPRI | POLLRDHUP)
#define DEPTH 4                      /* of epoll in epoll */
#define CHILDREN 256u
#define SPARE 16u
#define SEEN_MAX (1 << 20)           /* descriptors are numbered below it, unless fs.nr_open was raised */

static uint64_t bit(int signal)
{
	return 1ull << (signal - 1);
}

/* Mark @fd; was it marked before? */
static bool see(struct firn_watch *w, int fd)
{
	if (fd < 0)
		return true;
	/* A number from the target's memory may be any. */
	if (fd >= SEEN_MAX)
		return false;
	if (fd >= w->nseen) {
		int n = (int)firn_align_up((uint64_t)fd + 1, 1024);
		uint8_t *grown = realloc(w->seen, (size_t)n);

		if (!grown)
			return false;
		memset(grown + w->nseen, 0, (size_t)(n - w->nseen));
		w->seen = grown;
		w->nseen = n;
	}
	if (w->seen[fd])
		return true;
	w->seen[fd] = 1;
	return false;
}

static void leave_out(struct firn_watch *w, int err)
{
	w->left_out++;
	if (!w->error)
		w->error = err;
}

/* Take in a new item, whose copy is the list's.  NULL: it was left out, and closed. */
static struct firn_watch_item *new_item(struct firn_watch *w, int copy)
{
	if (copy >= 0 && w->nitems == w->max_items && w->nitems < w->limit) {
		uint32_t n = w->max_items ? w->max_items * 2 : 64;
		struct firn_watch_item *grown = realloc(w->items, n * sizeof(*grown));

		if (grown) {
			w->items = grown;
			w->max_items = n;
		}
	}
	if (copy < 0 || w->nitems == w->max_items || w->nitems >= w->limit) {
		leave_out(w, copy < 0 ? -copy : w->nitems >= w->limit ? EMFILE : ENOMEM);
		if (copy >= 0)
			close(copy);
		return NULL;
	}
	memset(&w->items[w->nitems], 0, sizeof(w->items[0]));
	w->items[w->nitems].copy = copy;
	return &w->items[w->nitems++];
}

static void watch_item(struct firn_watch *w, struct firn_watch_item *item)
{
	uint32_t i = (uint32_t)(item - w->items);
	struct epoll_event ev = { .events = item->events | (item->news ? EPOLLET : 0), .data.u64 = FIRN_WATCH_ITEMS + i };

	if (!epoll_ctl(w->epoll, EPOLL_CTL_ADD, item->copy, &ev)) {
		w->descriptors++;
		return;
	}
	leave_out(w, errno);
	close(item->copy);
	w->nitems--;
	if (w->at_once == (int)i)
		w->at_once = -1;
}

/* Was this left as it was after it had woken the target once? */
static bool passed_before(const struct firn_wake_record *before, const struct firn_wake_passed *p)
{
	for (uint32_t i = 0; i < before->npassed; i++)
		if (before->passed[i].fd == p->fd && before->passed[i].ino == p->ino && before->passed[i].bytes == p->bytes)
			return true;
	return false;
}

/* What is there already.  An end of file, and a loss of the other side, are of no hurry to anybody. */
static void look_at_first(struct firn_watch *w, struct firn_watch_item *item, const struct firn_wake_record *before)
{
	struct pollfd p = { item->copy, (short)item->events, 0 };
	struct firn_wake_passed here = { .fd = item->fd, .ino = item->ino };
	int bytes = 0;

	if (poll(&p, 1, 0) <= 0)
		return;
	item->first = true;
	if (!(p.revents & (POLLIN | POLLPRI)))
		return;
	if (!ioctl(item->copy, FIONREAD, &bytes) && bytes <= 0)
		return;
	item->bytes = here.bytes = (uint32_t)bytes;
	if (!passed_before(before, &here) && w->at_once < 0)
		w->at_once = (int)(item - w->items);
	else if (!passed_before(before, &here))
		return;
	if (w->record.npassed < FIRN_WAKE_PASSED)
		w->record.passed[w->record.npassed++] = here;
}

struct survey {
	struct firn_watch *w;
	struct firn_wake_record before;
	int depth;
	bool news;                   /* of the members that are looked at */
	bool plain;                  /* all members can be polled through their epoll descriptor */
};

static bool timer_counts(const struct firn_watch *w, int fd)
{
	for (uint32_t i = 0; i < w->image->wake.ntimers && i < FIRN_WAKE_TIMERS; i++)
		if (w->image->wake.timers[i] == fd)
			return true;
	return false;
}

static void add_epoll(struct survey *s, int fd, bool news);

/* Watch one descriptor of the target for @events. */
static void add(struct survey *s, const struct firn_fd *f, uint32_t events, bool news)
{
	struct firn_watch *w = s->w;
	struct firn_watch_item *item;

	switch (f->kind) {
	case FIRN_FD_OTHER:
		w->hidden++;
		return;
	case FIRN_FD_SIGNALFD:
		w->takes |= f->sigmask;
		return;
	case FIRN_FD_TIMERFD:
		if (!timer_counts(w, f->fd))
			return;
		break;
	case FIRN_FD_EPOLL:
		add_epoll(s, f->fd, news);
		return;
	default:
		break;
	}
	item = new_item(w, (int)firn_sys.pidfd_getfd(w->pidfd, f->fd));
	if (!item)
		return;
	item->fd = f->fd;
	item->kind = f->kind;
	item->ino = f->ino;
	item->events = events;
	item->news = news;
	if (news)
		look_at_first(w, item, &s->before);
	watch_item(w, item);
}

/* Polling takes nothing from it, from whichever process. */
static bool is_plain(const struct survey *s, const struct firn_fd *f)
{
	switch (f->kind) {
	case FIRN_FD_OTHER:
	case FIRN_FD_SIGNALFD:
	case FIRN_FD_EPOLL:
		return false;
	case FIRN_FD_TIMERFD:
		return timer_counts(s->w, f->fd);
	default:
		return true;
	}
}

static int look_at_member(void *arg, int fd, uint32_t events, uint64_t ino)
{
	struct survey *s = arg;
	struct firn_fd f;

	(void)events;
	if (firn_fd_read(s->w->live, fd, &f) || (f.ino && f.ino != ino) || !is_plain(s, &f)) {
		s->plain = false;
		return 1;
	}
	return 0;
}

static int mark_member(void *arg, int fd, uint32_t events, uint64_t ino)
{
	struct survey *s = arg;

	(void)events;
	(void)ino;
	see(s->w, fd);
	return 0;
}

static int add_member(void *arg, int fd, uint32_t events, uint64_t ino)
{
	struct survey *s = arg;
	struct firn_fd f;

	if (!(events & EVENTS_MASK & ~(uint32_t)(POLLERR | POLLHUP)))
		return 0;               /* one shot, and that is over */
	if (firn_fd_read(s->w->live, fd, &f) || (f.ino && f.ino != ino)) {
		s->w->hidden++;         /* closed there, and kept by somebody else */
		return 0;
	}
	add(s, &f, events & EVENTS_MASK, s->news || (events & EPOLLET));
	return 0;
}

/*
 * An epoll descriptor is itself readable where its owner's epoll_wait would return: that is exact, and one copy is
 * enough.  But whoever polls it asks its members in the asker's name, and drops what it finds not ready from the
 * owner's list: of a signalfd the owner would lose a signal, of /proc/self/mounts a change.  And timers that tick
 * would wake.  There the members are watched in its place.
 */
static void add_epoll(struct survey *s, int fd, bool news)
{
	struct firn_watch *w = s->w;
	bool outer = s->news;

	if (++s->depth > DEPTH) {
		w->hidden++;
	} else {
		s->plain = true;
		firn_fd_each_member(w->live, fd, look_at_member, s);
		firn_fd_each_member(w->live, fd, mark_member, s);
		if (s->plain) {
			struct firn_watch_item *item = new_item(w, (int)firn_sys.pidfd_getfd(w->pidfd, fd));

			if (item) {
				item->fd = fd;
				item->kind = FIRN_FD_EPOLL;
				item->events = POLLIN;
				item->news = news;
				if (news)
					look_at_first(w, item, &s->before);
				watch_item(w, item);
			}
		} else {
			s->news = news;
			firn_fd_each_member(w->live, fd, add_member, s);
			s->news = outer;
		}
	}
	s->depth--;
}

/* --- Threads ------------------------------------------------------------------------------------- */

static int peek(void *arg, uint64_t address, void *buf, size_t len)
{
	struct survey *s = arg;

	return firn_proc_peek(s->w->pid, address, buf, len);
}

static void waits_for(void *arg, int fd, uint32_t events)
{
	struct survey *s = arg;
	struct firn_fd f;

	/* Two threads may wait for one: the first look serves both, but for one that reads and one that writes. */
	if (see(s->w, fd)) {
		for (uint32_t i = 0; i < s->w->nitems; i++) {
			struct firn_watch_item *item = &s->w->items[i];
			struct epoll_event ev = { .data.u64 = FIRN_WATCH_ITEMS + i };

			if (item->fd != fd || item->child || item->news)
				continue;
			item->events |= events & EVENTS_MASK;
			ev.events = item->events;
			epoll_ctl(s->w->epoll, EPOLL_CTL_MOD, item->copy, &ev);
			return;
		}
	}
	if (!firn_fd_read(s->w->live, fd, &f))
		add(s, &f, events & EVENTS_MASK, false);
}

static uint64_t clock_now(int clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t firn_wake_now_ms(void)
{
	return clock_now(CLOCK_REALTIME) / 1000000;
}

/* A socket's own time limit. */
static uint64_t socket_timeout(const struct firn_watch *w, int fd)
{
	struct timeval t;
	socklen_t len = sizeof(t);

	for (uint32_t i = 0; i < w->nitems; i++)
		if (w->items[i].fd == fd && w->items[i].kind == FIRN_FD_SOCKET &&
		    !getsockopt(w->items[i].copy, SOL_SOCKET, SO_RCVTIMEO, &t, &len) && (t.tv_sec || t.tv_usec))
			return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_usec * 1000u;
	return FIRN_WAIT_FOR_EVER;
}

/* It goes on by itself: soon, which is a tick, or at a time when it is to be woken. */
static void take_timeout(struct firn_watch *w, pid_t tid, const struct firn_wait *wait)
{
	uint64_t since = firn_wake_now_ms() - w->image->wake.stopped_ms, left = wait->timeout_ns, now;

	since = since > UINT64_MAX / 2000000 ? 0 : since * 1000000;     /* the clock was set back */
	if (wait->on >= 0 && left == FIRN_WAIT_FOR_EVER)
		left = socket_timeout(w, wait->on);
	if (left > FIRN_WAIT_FOR_EVER / 2)
		return;                 /* centuries */
	if (wait->clock >= 0) {
		now = clock_now(wait->clock);
		if (!now) {
			w->ticks = true;
			return;
		}
		/* What was left when it was stopped. */
		left = left + since > now ? left + since - now : 0;
	}
	if (left < w->tick_ns) {
		w->ticks = true;
		return;
	}
	left = left > since ? left - since : 0;
	now = firn_sys.clock_ns();
	if (left < UINT64_MAX - now && now + left < w->due_ns) {
		w->due_ns = now + left;
		w->due_tid = tid;
		w->due_ms = firn_wake_now_ms() + left / 1000000;
	}
}

struct pending {
	uint64_t own, shared, blocked;
};

static int read_pending(pid_t pid, pid_t tid, struct pending *ret)
{
	char path[64], buf[8192], *at;

	memset(ret, 0, sizeof(*ret));
	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return -ESRCH;
	at = strstr(buf, "\nSigPnd:");
	if (!at)
		return 0;               /* a thread that has ended */
	ret->own = strtoull(at + 8, NULL, 16);
	at = strstr(buf, "\nShdPnd:");
	ret->shared = at ? strtoull(at + 8, NULL, 16) : 0;
	at = strstr(buf, "\nSigBlk:");
	ret->blocked = at ? strtoull(at + 8, NULL, 16) : ~0ull;
	return 0;
}

static int look_at_thread(void *arg, long number)
{
	struct survey *s = arg;
	struct firn_watch *w = s->w;
	struct firn_wait_ops ops = { peek, waits_for, s };
	struct firn_wait wait;
	struct pending p;
	pid_t tid = (pid_t)number;

	if (firn_wait_read(w->pid, tid, &ops, &wait) == -EAGAIN)
		memset(&wait, 0, sizeof(wait));
	else if (wait.told)
		take_timeout(w, tid, &wait);
	w->ticks |= !wait.told;
	w->for_child |= wait.for_child;
	w->hidden += wait.hidden;
	if (read_pending(w->pid, tid, &p))
		return 0;
	if (w->nthreads == w->max_threads) {
		uint32_t n = w->max_threads ? w->max_threads * 2 : 16;
		struct firn_watch_thread *grown = realloc(w->threads, n * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		w->threads = grown;
		w->max_threads = n;
	}
	w->threads[w->nthreads++] = (struct firn_watch_thread){ tid, ~(wait.masked ? wait.mask : p.blocked) | wait.accepts };
	w->takes |= w->threads[w->nthreads - 1].takes;
	return 0;
}

static int state_of_thread(void *arg, long number)
{
	int *runs = arg;
	struct firn_proc proc;

	if (firn_proc_read((pid_t)number, &proc) || proc.state == 'Z' || proc.state == 'X')
		return 0;
	*runs = proc.state != 'T' && proc.state != 't';
	return *runs;
}

int firn_watch_runs(const struct firn_watch *w)
{
	char dir[64];
	int runs = -1;

	snprintf(dir, sizeof(dir), "/proc/%d/task", w->pid);
	firn_sys_each_number(dir, state_of_thread, &runs);
	return runs;
}

/* --- Signals and children ------------------------------------------------------------------------- */

static void read_timers(struct firn_watch *w)
{
	struct firn_lines lines;
	char path[64], *line;
	int signal;

	w->timer_signals = bit(SIGALRM) | bit(SIGVTALRM) | bit(SIGPROF);
	snprintf(path, sizeof(path), "/proc/%d/timers", w->pid);
	if (firn_lines_open(&lines, path))
		return;
	while (firn_lines_next(&lines, &line) > 0)
		if (sscanf(line, "signal: %d/", &signal) == 1 && signal >= 1 && signal <= 64)
			w->timer_signals |= bit(signal);
	firn_lines_close(&lines);
}

/*
 * One signal that is there and would be taken.  A timer's that comes within a tick of the stop is a tick, now and
 * later: it waits until it is taken.
 */
static int taken_of(struct firn_watch *w, uint64_t pending, uint64_t takes)
{
	uint64_t since = firn_wake_now_ms() - w->image->wake.stopped_ms;

	pending &= takes & ~(bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU) | bit(SIGCONT));
	if (since < w->tick_ns / 1000000)
		w->image->wake.ticked |= pending & w->timer_signals;
	pending &= ~w->image->wake.ticked;
	return pending ? __builtin_ctzll(pending) + 1 : 0;
}

int firn_watch_signal(struct firn_watch *w, bool threads)
{
	struct pending p;
	int signal;

	for (uint32_t i = 0; i < w->nthreads; i++) {
		if (read_pending(w->pid, w->threads[i].tid, &p))
			continue;
		signal = taken_of(w, p.shared, w->takes);
		if (!signal)
			signal = taken_of(w, p.own, w->threads[i].takes);
		if (signal || !threads)
			return signal;
	}
	return 0;
}

static int look_at_children(void *arg, long number)
{
	struct survey *s = arg;
	struct firn_watch *w = s->w;
	struct firn_watch_item *item;
	char path[96], buf[4096], *at = buf, *end;
	unsigned int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%ld/children", w->pid, number);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return 0;
	for (long pid; n < CHILDREN && (pid = strtol(at, &end, 10)) > 0 && end != at; at = end, n++) {
		item = new_item(w, (int)firn_sys.pidfd_open((pid_t)pid, 0));
		if (!item)
			continue;
		item->fd = (int)pid;
		item->kind = FIRN_FD_PIDFD;
		item->child = true;
		item->events = POLLIN;
		item->news = !w->for_child;
		if (item->news)
			look_at_first(w, item, &s->before);
		watch_item(w, item);
	}
	return 0;
}

/* What it is not known to wait for, but might look at. */
static int add_open(void *arg, long number)
{
	struct survey *s = arg;
	struct firn_fd f;

	if (see(s->w, (int)number) || firn_fd_read(s->w->live, (int)number, &f) || f.kind == FIRN_FD_OTHER ||
	    (f.kind == FIRN_FD_PIPE && (f.flags & O_ACCMODE) == O_WRONLY))
		return 0;
	add(s, &f, NEWS_EVENTS, true);
	return 0;
}

int firn_watch_survey(struct firn_watch *w)
{
	struct survey s = { .w = w };
	struct rlimit nofile;
	char dir[64];
	int err;

	/* Some are needed to look at /proc. */
	w->limit = FIRN_WATCH_ITEMS;
	if (!getrlimit(RLIMIT_NOFILE, &nofile))
		w->limit = (uint32_t)firn_min_u64(w->limit, nofile.rlim_cur > SPARE ? nofile.rlim_cur - SPARE : 0);
	w->live = firn_proc_live_thread(w->pid);
	w->at_once = -1;
	w->due_ns = UINT64_MAX;
	firn_wake_record_load(w->en, w->pid, w->image->start_time, &s.before);
	w->record.woken.fd = -1;
	read_timers(w);
	snprintf(dir, sizeof(dir), "/proc/%d/task", w->pid);
	err = firn_sys_each_number(dir, look_at_thread, &s);
	if (err)
		return err;
	snprintf(dir, sizeof(dir), "/proc/%d/fd", w->live);
	if (w->ticks)
		firn_sys_each_number(dir, add_open, &s);
	snprintf(dir, sizeof(dir), "/proc/%d/task", w->pid);
	if (w->ticks || w->for_child)
		firn_sys_each_number(dir, look_at_children, &s);
	return 0;
}
