/* SPDX-License-Identifier: MIT */
#include "pager/pager.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "pager/blocks.h"
#include "sys/sys.h"
#include "transfer/pace.h"

#define MAX_TARGETS 4096u
#define FAULT_SLOTS 1u                  /* decoded blocks a thread remembers */
#define QUEUE_MAX 512u
#define AGAIN_PAUSE_NS 20000u
#define AGAIN_GIVE_UP_NS (50ull * 1000000u)     /* then others get the thread, and the fault is asked anew */
#define AGAIN_SAY 200u                          /* give-ups in a row that are worth a log line */
#define THREAD_STACK (256u << 10)
#define KEY_QUIT UINT64_MAX
#define KEY_KICK (UINT64_MAX - 1)

struct slot {
	struct firn_armed *armed;
	uint32_t users;
	uint32_t generation;
	bool overflow;                  /* a fault found the queue full: all are to be asked anew */
};

/* A fault that was read and is not served yet. */
struct fault {
	struct slot *slot;              /* used: it stays */
	uint64_t address;
	uint64_t since_ns;
};

struct worker {
	struct firn_pager *pager;
	pthread_t thread;
	struct firn_block_reader reader;
	void *page;                     /* to build one page in */
	unsigned int given_up;
};

struct firn_pager {
	int epoll;
	int quit;
	const struct firn_pager_ops *ops;
	int kick;                       /* a count of threads that the queue has work for */
	pthread_mutex_t lock;           /* slots and queue; held for a few instructions only */
	pthread_cond_t idle;
	struct slot slots[MAX_TARGETS];
	struct fault queue[QUEUE_MAX];  /* the oldest is served first, by whichever thread is free */
	uint32_t first, queued;
	struct firn_pager_blocks blocks;
	struct worker workers[FIRN_PAGER_THREADS];
};

static const struct {
	uint8_t event;
	enum firn_point point;
} event_points[] = {
	{ UFFD_EVENT_PAGEFAULT, FIRN_POINT_EV_FAULT }, { UFFD_EVENT_REMOVE, FIRN_POINT_EV_REMOVE },
	{ UFFD_EVENT_REMAP, FIRN_POINT_EV_REMAP },     { UFFD_EVENT_UNMAP, FIRN_POINT_EV_UNMAP },
	{ UFFD_EVENT_FORK, FIRN_POINT_EV_FORK },
};

/* One layout event, by its sequence number.  Layout lock held exclusively. */
static void apply(struct firn_pager *p, struct firn_armed *a, const struct uffd_msg *m, uint64_t seq)
{
	struct firn_range span = { m->arg.remove.start, m->arg.remove.end };
	int err = 0;

	switch (m->event) {
	case UFFD_EVENT_REMOVE:
		if (!firn_armed_is_own_drop(a, span))
			firn_link_removed(&a->link, span);
		break;
	case UFFD_EVENT_UNMAP:
		err = firn_link_unmapped(&a->link, seq, span);
		break;
	case UFFD_EVENT_REMAP:
		err = firn_link_moved(&a->link, seq, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
		break;
	case UFFD_EVENT_FORK:
		err = p->ops->forked(a, (int)m->arg.fork.ufd, seq);
		break;
	default:
		return;
	}
	if (err)
		firn_log("process %d: event %#x could not be followed: %s; what it moved waits for its pages", a->pid,
			 m->event, strerror(-err));
}

/* A fault to serve.  Where there are too many at once, this one is asked anew later: until then its thread
 * sleeps, and layout events behind it need not wait. */
static void note_fault(struct firn_pager *p, struct slot *s, uint64_t address)
{
	pthread_mutex_lock(&p->lock);
	if (p->queued < QUEUE_MAX) {
		p->queue[(p->first + p->queued++) % QUEUE_MAX] = (struct fault){ s, address, firn_sys.clock_ns() };
		s->users++;
		atomic_fetch_add(&s->armed->faults_waiting, 1);
	} else {
		s->overflow = true;
	}
	pthread_mutex_unlock(&p->lock);
}

/* Whoever watches a stopped target wants to know that it runs.  Layout lock held. */
static void tell_of_fault(const struct firn_armed *a)
{
	uint64_t one = 1;

	if (a->on_fault >= 0 && write(a->on_fault, &one, sizeof(one)) < 0)
		return;                 /* full: it was told often enough */
}

/*
 * Read what the kernel has for us, all of it, and apply the layout events: before any fault of the same
 * batch is served.  Faults are queued.  Layout lock held exclusively.
 */
static void drain(struct firn_pager *p, struct slot *s)
{
	struct firn_armed *a = s->armed;
	struct firn_ring *r = &a->m->ring;

	for (;;) {
		uint32_t n;
		long got;

		got = firn_sys.read(a->uffd, r->slots, sizeof(r->slots));
		if (got <= 0)
			break;
		n = (uint32_t)got / (uint32_t)sizeof(r->slots[0]);
		if (firn_sys.point)
			for (uint32_t k = 0; k < n; k++)
				for (size_t e = 0; e < ARRAY_SIZE(event_points); e++)
					if (event_points[e].event == r->slots[k].event)
						firn_point(event_points[e].point);
		for (uint32_t k = 0; k < n; k++) {
			const struct uffd_msg *m = &r->slots[k];

			if (m->event == UFFD_EVENT_PAGEFAULT) {
				tell_of_fault(a);
				note_fault(p, s, firn_align_down(m->arg.pagefault.address, a->link.page_size));
				continue;
			}
			apply(p, a, m, r->base + k);
			firn_ring_applied(r, k);
			firn_point(FIRN_POINT_EV_APPLIED);
		}
		firn_ring_empty(r, n);
	}
	if (firn_link_owes(&a->link) && !firn_armed_changing(a))
		firn_link_settled(&a->link);
}

static void drain_locked(struct firn_pager *p, struct slot *s, struct firn_armed *a)
{
	pthread_rwlock_wrlock(&a->layout);
	drain(p, s);
	pthread_rwlock_unlock(&a->layout);
}

/* Put back the faulting page, so that its thread goes on; unless it is to come @alone, then what else of its block is
 * missing around it. */
static enum firn_installed install_around(struct firn_armed *a, const struct firn_run *run, uint32_t index,
					  uint32_t block, const void *raw, bool alone)
{
	uint32_t window = FIRN_BLOCK_PAGES - 1, first, last, step;
	enum firn_installed r;

	r = firn_armed_install(a, run, index, 1, block, raw, &step);
	if (r != FIRN_INSTALLED || alone)
		return r;
	first = index - run->first < window ? run->first : index - window;
	last = (uint32_t)firn_min_u64((uint64_t)index + FIRN_BLOCK_PAGES, run->first + run->npages);
	for (uint32_t i = first; i < last; i += step) {
		/* The neighbours are a courtesy: what cannot be had now comes when it is asked for. */
		if (firn_armed_install(a, run, i, last - i, block, raw, &step) != FIRN_INSTALLED)
			break;
	}
	return FIRN_INSTALLED;
}

/* Whoever waits there asks again. */
static void wake_page(struct firn_armed *a, uint64_t address)
{
	struct uffdio_range range = { address, a->link.page_size };

	firn_sys.ioctl(a->uffd, UFFDIO_WAKE, &range);
}

/* Block @block for a fault, decoded: from what a stream has at hand, else from the store.  Faults in the order of the pack
 * wait for what the stream reads now: it brings more than they ask for.  No lock held. */
static int read_block(struct worker *w, struct firn_armed *a, uint32_t block, const void **ret)
{
	bool in_order = firn_pace_in_order(a, block);
	const void *stored = firn_window_enter(&a->window, a->pack, block, in_order);
	int err = -ENOENT;

	if (stored) {
		err = firn_block_decode(&w->reader, a->pack, block, stored, ret);
		firn_window_leave(&a->window);
	} else if (in_order) {
		atomic_store(&a->pull, block + 2);
	}
	return err ? firn_block_read(&w->reader, a->pack, block, ret) : 0;
}

/* One attempt at one fault. */
static enum firn_installed serve_once(struct worker *w, struct slot *s, struct firn_armed *a, uint64_t address)
{
	struct firn_range page = { address, address + a->link.page_size }, grown;
	struct firn_pager_blocks *blocks = &w->pager->blocks;
	uint64_t generation;
	uint32_t index, link, block;
	enum firn_installed r;
	struct firn_run run;
	bool recording, kept;
	const void *raw;
	int err = 0;

	pthread_rwlock_rdlock(&a->layout);
	switch (firn_link_find(&a->link, address, &run, &index)) {
	case FIRN_FOUND_HOLE:
		r = firn_armed_install_zero(a, page);
		goto out;
	case FIRN_FOUND_NOTHING:
		pthread_rwlock_unlock(&a->layout);
		pthread_rwlock_wrlock(&a->layout);
		drain(w->pager, s);
		if (firn_link_find(&a->link, address, &run, &index) != FIRN_FOUND_NOTHING) {
			r = FIRN_INSTALL_AGAIN;
			goto out;
		}
		err = w->pager->ops->grown(a, address, &grown);
		r = FIRN_INSTALL_AGAIN;
		/* Where a change is under way, what was seen may be its doing, and its event is to come. */
		if (firn_armed_changing(a))
			goto out;
		firn_link_settled(&a->link);
		if (err == 1 && !firn_link_grown(&a->link, grown))
			goto out;
		r = FIRN_INSTALLED;
		if (err)
			firn_armed_lose(a, address, "no link leads there");
		else
			wake_page(a, address);  /* the watch ended meanwhile: the kernel answers */
		goto out;
	case FIRN_FOUND_LINK:
		break;
	}
	firn_point(FIRN_POINT_FAULT_FOUND);
	link = firn_link_get(&a->link, index);
	switch (firn_link_state(link)) {
	case FIRN_PAGE_HOLE:
	case FIRN_PAGE_REMOVED:
		r = firn_armed_install_zero(a, page);
		goto out;
	case FIRN_PAGE_ZERO:
		r = firn_armed_install_zero(a, page);
		if (r == FIRN_INSTALLED)
			firn_link_move(&a->link, index, link, firn_link_make(FIRN_PAGE_RESIDENT, 0));
		goto out;
	case FIRN_PAGE_FILL:
		r = firn_armed_install_fill(a, &run, index, w->page);
		goto out;
	case FIRN_PAGE_RESIDENT:
		/* Somebody was quicker than this message. */
		wake_page(a, address);
		r = FIRN_INSTALLED;
		goto out;
	case FIRN_PAGE_IN_FLIGHT:       /* whoever has it wakes the waiters */
		r = FIRN_INSTALLED;
		goto out;
	case FIRN_PAGE_LOST:
		firn_armed_poison(a, address, 1);
		r = FIRN_INSTALLED;
		goto out;
	case FIRN_PAGE_EVICTED:
		break;
	}
	/* Read without the lock: a layout event must not wait for the disk. */
	pthread_rwlock_unlock(&a->layout);
	block = firn_link_place(link) / FIRN_BLOCK_PAGES;
	generation = a->pack->m->generation;
	recording = firn_recording_open(&a->m->recording);
	kept = firn_pager_blocks_page(blocks, generation, block, firn_link_place(link) % FIRN_BLOCK_PAGES, w->page);
	if (!kept)
		err = read_block(w, a, block, &raw);
	firn_point(FIRN_POINT_FAULT_READ);
	pthread_rwlock_rdlock(&a->layout);
	if (firn_link_find(&a->link, address, &run, &index) != FIRN_FOUND_LINK ||
	    firn_link_get(&a->link, index) != link) {
		r = FIRN_INSTALL_AGAIN;     /* it moved, or somebody was quicker: look anew */
	} else if (err) {
		firn_armed_lose(a, address, strerror(-err));
		r = FIRN_INSTALLED;
	} else {
		if (recording)
			firn_recording_note(&a->m->recording, address);
		if (kept)
			r = firn_armed_install_one(a, &run, index, block, w->page);
		else
			r = install_around(a, &run, index, block, raw, recording);
		firn_point(FIRN_POINT_FAULT_COPIED);
		if (recording && !kept) {
			pthread_rwlock_unlock(&a->layout);
			firn_pager_blocks_keep(blocks, generation, block, raw);
			return r;
		}
	}
out:
	pthread_rwlock_unlock(&a->layout);
	return r;
}

/* Threads for what is queued beyond the @own that the caller serves. */
static void wake_others(struct firn_pager *p, uint32_t own)
{
	uint64_t n;

	pthread_mutex_lock(&p->lock);
	n = p->queued > own ? firn_min_u64(p->queued - own, FIRN_PAGER_THREADS - 1) : 0;
	pthread_mutex_unlock(&p->lock);
	/* Where the count is full, they are all awake. */
	if (n && write(p->kick, &n, sizeof(n)) < 0)
		return;
}

static void serve(struct worker *w, struct slot *s, struct firn_armed *a, uint64_t address)
{
	uint64_t started = 0, pause = AGAIN_PAUSE_NS;

	for (;;) {
		enum firn_installed r = serve_once(w, s, a, address);

		if (r == FIRN_INSTALLED || r == FIRN_INSTALL_GONE)
			return;
		if (!started)
			started = firn_sys.clock_ns();
		if (r == FIRN_INSTALL_NO_MEMORY)
			pause = firn_min_u64(pause * 2, 10000000);
		drain_locked(w->pager, s, a);
		wake_others(w->pager, 0);
		if (firn_sys.clock_ns() - started > AGAIN_GIVE_UP_NS) {
			if (++w->given_up % AGAIN_SAY == 0)
				firn_log("process %d: page %#llx cannot be put back (%s): it is tried again and again",
					 a->pid, (unsigned long long)address,
					 r == FIRN_INSTALL_NO_MEMORY ? "no memory" : "its layout keeps changing");
			wake_page(a, address);
			return;
		}
		firn_sys.sleep_ns(pause);
	}
}

static void publish_counters(struct worker *w, struct firn_armed *a, const uint64_t before[3])
{
	__atomic_fetch_add(&a->m->read_calls, w->reader.read_calls - before[0], __ATOMIC_RELAXED);
	__atomic_fetch_add(&a->m->read_bytes, w->reader.read_bytes - before[1], __ATOMIC_RELAXED);
	__atomic_fetch_add(&a->m->blocks_read, w->reader.blocks_read - before[2], __ATOMIC_RELAXED);
}

static int arm_epoll(struct firn_pager *p, int uffd, uint64_t key, int op)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = key };

	return epoll_ctl(p->epoll, op, uffd, &ev) < 0 ? -errno : 0;
}

/* Done with @s: whoever removes its target may go on. */
static void put_slot(struct firn_pager *p, struct slot *s)
{
	pthread_mutex_lock(&p->lock);
	if (!--s->users)
		pthread_cond_broadcast(&p->idle);
	pthread_mutex_unlock(&p->lock);
}

/* Faults that found the queue full are asked anew, now that there is room.  @s is used. */
static void ask_anew(struct firn_pager *p, struct slot *s, struct firn_armed *a)
{
	bool overflow;

	pthread_mutex_lock(&p->lock);
	overflow = s->overflow && p->queued < QUEUE_MAX / 2;
	if (overflow)
		s->overflow = false;
	pthread_mutex_unlock(&p->lock);
	if (!overflow)
		return;
	pthread_rwlock_rdlock(&a->layout);
	firn_armed_wake_all(a);
	pthread_rwlock_unlock(&a->layout);
}

static bool next_fault(struct firn_pager *p, struct fault *ret, struct firn_armed **ret_armed)
{
	bool any;

	pthread_mutex_lock(&p->lock);
	any = p->queued > 0;
	if (any) {
		*ret = p->queue[p->first];
		*ret_armed = ret->slot->armed;
		p->first = (p->first + 1) % QUEUE_MAX;
		p->queued--;
	}
	pthread_mutex_unlock(&p->lock);
	return any;
}

/* Serve what is queued, whoever's it is. */
static void serve_queue(struct worker *w)
{
	struct firn_pager *p = w->pager;
	struct firn_armed *a;
	struct fault f;

	while (next_fault(p, &f, &a)) {
		uint64_t before[3] = { w->reader.read_calls, w->reader.read_bytes, w->reader.blocks_read };
		uint64_t now;

		serve(w, f.slot, a, f.address);
		now = firn_sys.clock_ns();
		firn_latency_add(&a->m->fault_latency, now - f.since_ns);
		atomic_store(&a->fault_ns, now);
		atomic_fetch_sub(&a->faults_waiting, 1);
		publish_counters(w, a, before);
		ask_anew(p, f.slot, a);
		put_slot(p, f.slot);
	}
}

/* The target of @key has something to tell. */
static void handle(struct worker *w, uint64_t key)
{
	struct firn_pager *p = w->pager;
	struct slot *s = &p->slots[(uint32_t)key];
	struct firn_armed *a = NULL;

	pthread_mutex_lock(&p->lock);
	if (s->armed && s->generation == (uint32_t)(key >> 32)) {
		a = s->armed;
		s->users++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!a)
		return;
	drain_locked(p, s, a);
	/* The next batch may go to another thread while this one reads from the store; and so does all of
	 * this batch but the first. */
	arm_epoll(p, a->uffd, key, EPOLL_CTL_MOD);
	wake_others(p, 1);
	serve_queue(w);
	ask_anew(p, s, a);
	put_slot(p, s);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t one;

	for (;;) {
		struct epoll_event ev;
		int n = epoll_wait(w->pager->epoll, &ev, 1, -1);

		if (n < 0 && errno != EINTR)
			return NULL;
		if (n <= 0)
			continue;
		if (ev.data.u64 == KEY_QUIT)
			return NULL;
		if (ev.data.u64 != KEY_KICK)
			handle(w, ev.data.u64);
		else if (read(w->pager->kick, &one, sizeof(one)) > 0)
			serve_queue(w);
	}
}

int firn_pager_start(struct firn_pager **ret, const struct firn_pager_ops *ops, const uint8_t *key,
		     uint32_t page_size)
{
	struct firn_pager *p = calloc(1, sizeof(*p));
	struct epoll_event quit = { .events = EPOLLIN, .data.u64 = KEY_QUIT };
	struct epoll_event kick = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = KEY_KICK };
	pthread_attr_t attr;
	int err;

	if (!p)
		return -ENOMEM;
	p->ops = ops;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->idle, NULL);
	p->epoll = epoll_create1(EPOLL_CLOEXEC);
	p->quit = eventfd(0, EFD_CLOEXEC);
	p->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	if (p->epoll < 0 || p->quit < 0 || p->kick < 0)
		return -errno;
	if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->quit, &quit) ||
	    epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->kick, &kick))
		return -errno;
	err = firn_pager_blocks_open(&p->blocks, page_size, (size_t)FIRN_BLOCK_PAGES * page_size);
	if (err)
		return err;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	for (int i = 0; i < FIRN_PAGER_THREADS; i++) {
		struct worker *w = &p->workers[i];

		w->pager = p;
		err = firn_block_reader_open(&w->reader, key, page_size, 0, FAULT_SLOTS);
		if (err)
			return err;
		if (posix_memalign(&w->page, page_size, page_size))
			return -ENOMEM;
		err = pthread_create(&w->thread, &attr, work, w);
		if (err)
			return -err;
	}
	pthread_attr_destroy(&attr);
	*ret = p;
	return 0;
}

void firn_pager_stop(struct firn_pager *p)
{
	uint64_t one = 1;

	if (write(p->quit, &one, sizeof(one)) < 0)
		return;
	for (int i = 0; i < FIRN_PAGER_THREADS; i++) {
		pthread_join(p->workers[i].thread, NULL);
		firn_block_reader_close(&p->workers[i].reader);
		free(p->workers[i].page);
	}
	close(p->epoll);
	close(p->quit);
	close(p->kick);
	firn_pager_blocks_close(&p->blocks);
	free(p);
}

int firn_pager_add(struct firn_pager *p, struct firn_armed *a)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&p->lock);
	for (uint32_t i = 0; i < MAX_TARGETS; i++) {
		struct slot *s = &p->slots[i];

		if (s->armed || s->users)
			continue;
		s->armed = a;
		s->overflow = false;
		s->generation++;
		err = arm_epoll(p, a->uffd, (uint64_t)s->generation << 32 | i, EPOLL_CTL_ADD);
		if (err)
			s->armed = NULL;
		break;
	}
	pthread_mutex_unlock(&p->lock);
	return err;
}

void firn_pager_remove(struct firn_pager *p, struct firn_armed *a)
{
	pthread_mutex_lock(&p->lock);
	for (uint32_t i = 0; i < MAX_TARGETS; i++) {
		struct slot *s = &p->slots[i];

		if (s->armed != a)
			continue;
		epoll_ctl(p->epoll, EPOLL_CTL_DEL, a->uffd, NULL);
		s->generation++;        /* what epoll still tells of it is of nobody */
		while (s->users)
			pthread_cond_wait(&p->idle, &p->lock);
		s->armed = NULL;
		break;
	}
	pthread_mutex_unlock(&p->lock);
}

int firn_pager_replay(struct firn_pager *p, struct firn_armed *a)
{
	struct firn_ring *r = &a->m->ring;
	uint32_t n = firn_ring_count(r);

	pthread_rwlock_wrlock(&a->layout);
	for (uint32_t k = 0; k < n; k++) {
		if (r->slots[k].event == UFFD_EVENT_PAGEFAULT || r->base + k < r->done)
			continue;
		apply(p, a, &r->slots[k], r->base + k);
		firn_ring_applied(r, k);
	}
	firn_ring_empty(r, n);
	firn_armed_wake_all(a);
	pthread_rwlock_unlock(&a->layout);
	return 0;
}
