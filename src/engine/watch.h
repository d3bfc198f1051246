/* SPDX-License-Identifier: MIT */
/*
 * The watch of one target: what wake.c's thread and what looks.c sets up share.
 */
#ifndef FIRN_ENGINE_WATCH_H
#define FIRN_ENGINE_WATCH_H

#include <stdatomic.h>

#include "engine/internal.h"
#include "procmem/fds.h"
#include "procmem/waits.h"

#define FIRN_WATCH_ITEMS 16384u      /* copies for one target */

/* A copy that is watched. */
struct firn_watch_item {
	int fd;                      /* its number in the target; of a child, its PID */
	int copy;
	enum firn_fd_kind kind;
	bool child;
	bool news;                   /* only what comes from now on counts */
	bool first;                  /* the first report is of what was there before: @bytes */
	uint32_t events;             /* of poll(2) */
	uint32_t bytes;
	uint64_t ino;
};

struct firn_watch_thread {
	pid_t tid;
	uint64_t takes;              /* signals that would end what it waits for */
};

enum firn_watch_state {
	FIRN_WATCH_ON,
	FIRN_WATCH_WOKE,
	FIRN_WATCH_FAILED,
	FIRN_WATCH_ENDED,            /* asked to, or the target has ended */
};

struct firn_watch {
	struct firn_engine *en;
	struct firn_image *image;    /* there until the watch has ended */
	pid_t pid;
	pthread_t thread;
	int told;                    /* eventfd in the agent's table: look again */
	atomic_bool ending, looking;
	atomic_int state;            /* enum firn_watch_state */
	_Atomic uint64_t state_ns;   /* since when */
	atomic_uint descriptors, left_out, hidden;
	_Atomic uint64_t due_ms;     /* realtime; 0: none */

	/* The thread's own; descriptors are of its table. */
	int pidfd, epoll;
	pid_t live;                  /* a thread that shows the descriptors */
	uint64_t tick_ns;            /* what is shorter is a tick */
	bool ticks;                  /* a thread runs, or looks at what it likes soon: anything new counts */
	bool for_child;
	uint8_t *seen;               /* by descriptor: it needs no other look */
	int nseen;
	struct firn_watch_item *items;
	uint32_t nitems, max_items, limit;
	struct firn_watch_thread *threads;
	uint32_t nthreads, max_threads;
	uint64_t takes;              /* of all threads, and of signalfds */
	uint64_t timer_signals;
	uint64_t due_ns;             /* monotonic; UINT64_MAX: none */
	pid_t due_tid;
	struct firn_wake_record record;      /* of the last wake, and what is now passed over */
	int at_once;                 /* item that wakes it without further ado; -1: none */
	int error;                   /* the first reason to leave one out */
};

/*
 * Copy what the resting target waits for, and what it may look at.  Returns 0; -ESRCH; -ENOMEM.  Where single
 * descriptors cannot be had, left_out counts them.
 */
int firn_watch_survey(struct firn_watch *w);
/* Is a signal there that it would take?  Its number, or 0.  @threads: also one that was sent to a single thread. */
int firn_watch_signal(struct firn_watch *w, bool threads);
/* Does a thread of it run?  -1: it has none left. */
int firn_watch_runs(const struct firn_watch *w);
/* What it was: item @i has @events. */
void firn_watch_describe(struct firn_watch *w, uint32_t i, uint32_t events, struct firn_woken *ret);
/* For a sentence: "a connection at descriptor 6 (127.0.0.1:6379)". */
void firn_woken_text(const struct firn_woken *woken, char *buf, size_t size);

/* What a watch has to say.  Its thread cannot start a job itself: that would have its descriptor table. */
struct firn_wake_note {
	struct firn_wake_note *next;
	uint64_t id;
	char line[480];
};

/* Have it said by the engine's own thread, see firn_engine_on_wake; @note is taken over. */
void firn_wake_say(struct firn_engine *en, struct firn_wake_note *note);

/* Realtime, in ms. */
uint64_t firn_wake_now_ms(void);

#endif
