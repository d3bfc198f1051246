/* SPDX-License-Identifier: MIT */
/*
 * The watch of a frozen target that is to be woken on use: a thread with a descriptor table of its own, which holds
 * the copies of the target's descriptors and sleeps until one of them, a signal, a timeout or somebody's SIGCONT
 * says that there is something to do.
 *
 * Why a table of its own: the keeper shares the agent's, so that a copy in it would keep a dead target's sockets and
 * pipes open beyond the agent's death too.  Why a thread for each target: as it ends, the kernel closes all copies
 * as it does for a process that ends; closing them while it runs could wait for a socket's SO_LINGER.
 */
#include "engine/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/sys.h"

#define THREAD_STACK (256u << 10)
#define TOLD 3                       /* what the agent tells us by, in our table */
#define LOOK_NS 250000000ull         /* signals sent to the process, and whether it runs */
#define LOOK_THREADS_NS 1000000000ull
#define REST_NS 3000000000ull        /* until all threads have come to rest */
#define AGAIN_NS 20000000ull
#define PATIENCE_NS 5000000000ull    /* from a failure, or a wake that led to nothing, to the next try */

enum { KEY_TOLD, KEY_PIDFD };        /* items follow from FIRN_WATCH_ITEMS on */

/* What a step comes to. */
enum { GO_ON = 0, END, GONE, WOKEN };

static void woken_by(struct firn_watch *w, const char *kind, int number)
{
	struct firn_woken *woken = &w->record.woken;

	snprintf(woken->kind, sizeof(woken->kind), "%s", kind);
	woken->fd = -1;
	woken->number = number;
}

/* A table of our own, with nothing in it but the standard three and @w->told. */
static int own_table(struct firn_watch *w)
{
	if (unshare(CLONE_FILES))
		return -errno;
	/* From here on nothing may fail but by ending: what remains in the table goes with the thread. */
	if (w->told != TOLD && dup2(w->told, TOLD) < 0)
		return -errno;
	if (syscall(SYS_close_range, TOLD + 1u, ~0u, 0u))
		return -errno;
	return 0;
}

static int watch_fd(struct firn_watch *w, int fd, uint64_t key)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = key };

	return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* Does it really run?  A thread on its way into the stop does not. */
static bool runs(struct firn_watch *w)
{
	uint64_t deadline = firn_sys.clock_ns() + REST_NS;
	int r;

	while ((r = firn_watch_runs(w)) > 0 && !w->ending) {
		if (firn_sys.clock_ns() > deadline)
			return true;
		firn_sys.sleep_ns(1000000);
	}
	return false;
}

/* Twice, a little apart: a tracer that looked at it lets go of it by way of running. */
static bool continued(struct firn_watch *w)
{
	if (firn_watch_runs(w) <= 0)
		return false;
	firn_sys.sleep_ns(AGAIN_NS);
	return firn_watch_runs(w) > 0;
}

static int item_ready(struct firn_watch *w, uint32_t i, uint32_t events)
{
	struct firn_watch_item *item = &w->items[i];
	struct firn_proc proc;
	struct pollfd p = { item->copy, POLLIN | POLLPRI, 0 };

	if (item->first) {
		int bytes = 0;

		item->first = false;
		/* Reported since it was there when we began: only more of it is news. */
		if (poll(&p, 1, 0) <= 0 || (!item->bytes && !(p.revents & (POLLIN | POLLPRI))))
			return GO_ON;
		if (ioctl(item->copy, FIONREAD, &bytes) || (uint32_t)bytes == item->bytes)
			return GO_ON;
	}
	if (item->child) {
		/* As long as another thread of the child is not reaped, its parent cannot wait for it. */
		if (!firn_proc_read(item->fd, &proc) && proc.state != 'Z' && proc.state != 'X')
			return GO_ON;
		woken_by(w, "child", item->fd);
		return WOKEN;
	}
	firn_watch_describe(w, i, events, &w->record.woken);
	return WOKEN;
}

static int look_for_signal(struct firn_watch *w, bool threads)
{
	int signal = firn_watch_signal(w, threads);

	if (!signal)
		return GO_ON;
	woken_by(w, "signal", signal);
	return WOKEN;
}

static int take_events(struct firn_watch *w, const struct epoll_event *ev, int n, bool *ret_look)
{
	int r = GO_ON;

	for (int i = 0; i < n && r == GO_ON; i++) {
		uint64_t count;

		switch (ev[i].data.u64) {
		case KEY_TOLD:
			if (read(TOLD, &count, sizeof(count)) == sizeof(count))
				*ret_look = true;
			break;
		case KEY_PIDFD:
			r = GONE;
			break;
		default:
			r = item_ready(w, (uint32_t)(ev[i].data.u64 - FIRN_WATCH_ITEMS), ev[i].events);
		}
	}
	return r;
}

static int look_out(struct firn_watch *w)
{
	uint64_t next = 0, next_threads = 0;

	for (;;) {
		uint64_t now = firn_sys.clock_ns(), until = firn_min_u64(next, w->due_ns);
		struct epoll_event ev[16];
		bool look = false;
		int n, r;

		n = epoll_wait(w->epoll, ev, ARRAY_SIZE(ev), until > now ? (int)((until - now) / 1000000) + 1 : 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		r = take_events(w, ev, n, &look);
		if (w->ending)
			return END;
		if (r)
			return r;
		now = firn_sys.clock_ns();
		if (!look && now < next && now < w->due_ns)
			continue;
		/* A page it asked for tells that it runs before the next regular look would. */
		if (continued(w)) {
			woken_by(w, "continued", 0);
			return WOKEN;
		}
		r = look_for_signal(w, now >= next_threads);
		if (r)
			return r;
		if (now >= w->due_ns) {
			woken_by(w, "timeout", w->due_tid);
			return WOKEN;
		}
		next = now + LOOK_NS;
		if (now >= next_threads)
			next_threads = now + LOOK_THREADS_NS;
	}
}

static int watch(struct firn_watch *w)
{
	uint64_t start;
	int err;

	w->pidfd = (int)firn_sys.pidfd_open(w->pid, 0);
	if (w->pidfd < 0 || firn_proc_start_time(w->pid, &start) || start != w->image->start_time)
		return GONE;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0)
		return -errno;
	err = watch_fd(w, TOLD, KEY_TOLD);
	if (!err)
		err = watch_fd(w, w->pidfd, KEY_PIDFD);
	if (err)
		return err;
	if (runs(w)) {
		woken_by(w, "continued", 0);
		return WOKEN;
	}
	if (w->ending)
		return END;
	err = firn_watch_survey(w);
	if (err)
		return err == -ESRCH || err == -ENOENT ? GONE : err;
	if (w->left_out)
		firn_log("process %d %s: %u of its descriptors cannot be watched (%s): what comes there does not wake it", w->pid,
			 w->image->comm, w->left_out, strerror(w->error));
	if (w->hidden)
		firn_log("process %d %s: %u of what it waits for cannot be watched (files, devices, locks): that does not wake it",
			 w->pid, w->image->comm, w->hidden);
	w->looking = true;
	firn_point(FIRN_POINT_WATCHED);
	if (w->at_once >= 0) {
		struct firn_watch_item *item = &w->items[w->at_once];
		struct pollfd p = { item->copy, (short)item->events, 0 };

		if (poll(&p, 1, 0) > 0) {
			firn_watch_describe(w, (uint32_t)w->at_once, (uint16_t)p.revents, &w->record.woken);
			return WOKEN;
		}
	}
	return look_out(w);
}

static void set_state(struct firn_watch *w, enum firn_watch_state s)
{
	w->state_ns = firn_sys.clock_ns();
	w->state = s;
}

/* The others of its group come back with it: that is what wakes them. */
static void tell_group(struct firn_watch *w)
{
	struct firn_wake_record record;

	pthread_mutex_lock(&w->en->lock);
	for (struct firn_target *t = w->en->targets; t; t = t->next) {
		if (t->image->wake.id != w->image->wake.id || t->pid == w->pid ||
		    (t->image->state != FIRN_TARGET_FROZEN && t->image->state != FIRN_TARGET_HELD))
			continue;
		firn_wake_record_load(w->en, t->pid, t->image->start_time, &record);
		memset(&record.woken, 0, sizeof(record.woken));
		snprintf(record.woken.kind, sizeof(record.woken.kind), "group");
		record.woken.fd = -1;
		record.woken.number = w->pid;
		record.woken.at_ms = w->record.woken.at_ms;
		firn_wake_record_save(w->en, t->pid, t->image->start_time, &record);
	}
	pthread_mutex_unlock(&w->en->lock);
}

static void tell(struct firn_watch *w)
{
	char text[400];
	struct firn_wake_note *note;
	int err;

	w->record.woken.at_ms = firn_wake_now_ms();
	err = firn_wake_record_save(w->en, w->pid, w->image->start_time, &w->record);
	if (err)
		firn_log("process %d: what woke it cannot be kept (%s): firn show does not say it", w->pid, strerror(-err));
	tell_group(w);
	firn_woken_text(&w->record.woken, text, sizeof(text));
	note = calloc(1, sizeof(*note));
	if (!note) {
		firn_log("process %d %s: woken by %s: no memory to say so: tried again in a while", w->pid, w->image->comm, text);
		return;
	}
	note->id = w->image->wake.id;
	snprintf(note->line, sizeof(note->line), "process %d %s: woken by %s: it is thawed", w->pid, w->image->comm, text);
	firn_wake_say(w->en, note);
}

static void *run(void *arg)
{
	struct firn_watch *w = arg;
	bool own;
	int r;

	prctl(PR_SET_NAME, "firnd-watch");
	r = own_table(w);
	own = !r;
	if (own)
		r = watch(w);
	/* Before it runs again: what it closes then must be closed.  Of a dead one the end of this thread closes all. */
	if (own && r != GONE)
		syscall(SYS_close_range, (unsigned int)TOLD, ~0u, 0u);
	w->descriptors = 0;
	if (r < 0)
		firn_log("process %d %s: it cannot be watched (%s): only firn thaw brings it back; tried again in a while", w->pid,
			 w->image->comm, strerror(-r));
	set_state(w, r == WOKEN ? FIRN_WATCH_WOKE : r < 0 ? FIRN_WATCH_FAILED : FIRN_WATCH_ENDED);
	firn_point(FIRN_POINT_WOKEN);
	if (r == WOKEN)
		tell(w);
	return NULL;
}

int firn_watch_begin(struct firn_engine *en, struct firn_target *t)
{
	struct firn_watch *w = calloc(1, sizeof(*w));
	pthread_attr_t attr;
	int err;

	if (!w)
		return -ENOMEM;
	w->en = en;
	w->image = t->image;
	w->pid = t->pid;
	w->tick_ns = en->config.wake_tick_ns ? en->config.wake_tick_ns : FIRN_WAKE_TICK_NS;
	w->state_ns = firn_sys.clock_ns();
	w->told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->told < 0) {
		err = -errno;
		free(w);
		return err;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	err = pthread_create(&w->thread, &attr, run, w);
	pthread_attr_destroy(&attr);
	if (err) {
		close(w->told);
		free(w);
		return -err;
	}
	pthread_rwlock_wrlock(&t->armed.layout);
	t->armed.on_fault = w->told;
	pthread_rwlock_unlock(&t->armed.layout);
	pthread_mutex_lock(&en->lock);
	t->watch = w;
	pthread_mutex_unlock(&en->lock);
	return 0;
}

void firn_watch_end(struct firn_target *t)
{
	struct firn_watch *w = t->watch;
	uint64_t one = 1;

	if (!w)
		return;
	/* Under the lock under which the pagers tell of faults. */
	pthread_rwlock_wrlock(&t->armed.layout);
	t->armed.on_fault = -1;
	pthread_rwlock_unlock(&t->armed.layout);
	pthread_mutex_lock(&w->en->lock);
	t->watch = NULL;
	pthread_mutex_unlock(&w->en->lock);
	w->ending = true;
	if (write(w->told, &one, sizeof(one)) < 0)
		firn_log("process %d: its watch cannot be told to end: %s", w->pid, strerror(errno));
	pthread_join(w->thread, NULL);
	close(w->told);
	free(w->seen);
	free(w->items);
	free(w->threads);
	free(w);
}

bool firn_watch_goes_on(const struct firn_target *t)
{
	const struct firn_watch *w = t->watch;

	if (!w)
		return false;
	switch ((enum firn_watch_state)w->state) {
	case FIRN_WATCH_ON:
	case FIRN_WATCH_ENDED:
		return true;
	case FIRN_WATCH_WOKE:
	case FIRN_WATCH_FAILED:
		break;
	}
	return firn_sys.clock_ns() - w->state_ns < PATIENCE_NS;
}

void firn_watch_fill(const struct firn_target *t, struct firn_watching *ret)
{
	const struct firn_watch *w = t->watch;

	ret->id = t->image->wake.id;
	if (!w)
		return;
	ret->on = w->state == FIRN_WATCH_ON && w->looking;
	ret->descriptors = w->descriptors;
	ret->left_out = w->left_out;
	ret->hidden = w->hidden;
	ret->due_ms = w->due_ms;
}
