/* SPDX-License-Identifier: MIT */
/*
 * The armed memory of one target: its userfaultfd, its links and the pack behind them; how pages are
 * given up and how they are put back.
 *
 * Lock order: layout (below) is the only lock here.  Whoever reads events from the userfaultfd, or
 * changes the layout, holds it exclusively from the read to the last applied event; whoever installs
 * pages holds it shared from the look-up to the ioctl.  An event that the kernel queues in between
 * makes the ioctl fail with EAGAIN, so a page is never put where something else now is.
 */
#ifndef FIRN_TRANSFER_ARMED_H
#define FIRN_TRANSFER_ARMED_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "link/link.h"
#include "link/ring.h"
#include "link/workset.h"
#include "procmem/inject.h"
#include "transfer/latency.h"
#include "transfer/packfile.h"
#include "transfer/uffd.h"
#include "transfer/window.h"

#define FIRN_DROP_SPANS 1024u        /* of one process_madvise: UIO_MAXIOV */

/* In shared memory: what a successor must know of a drop, and the events read. */
struct firn_armed_memory {
	uint32_t dropping;           /* the target may be in a drop of ours: REMOVE events that match */
	uint32_t drop_next;          /* drops[drop_next] are its own, in this order */
	uint32_t drop_count;
	uint32_t pad;
	struct firn_range drops[FIRN_DROP_SPANS];
	struct firn_ring ring;
	uint64_t blocks_read, read_calls, read_bytes, lost_pages;   /* counters, for show */
	struct firn_latency fault_latency;   /* from a fault's message to its page's being there */
	struct firn_recording recording;     /* of the working set: evicted pages, as they are asked for */
};

struct firn_armed {
	int uffd;                    /* non-blocking; owned by the engine's target */
	pid_t pid;
	uint64_t features;
	struct firn_link link;
	struct firn_packfile *pack;
	struct firn_armed_memory *m;
	pthread_rwlock_t layout;
	atomic_uint faults_waiting;  /* streams give way while it is not zero (pace.h) */
	_Atomic uint64_t fault_ns;   /* when the last was served */
	_Atomic uint32_t fault_block, fault_steps;   /* of the last, and how many before it came in the pack's order */
	_Atomic uint32_t pull;       /* one more than the block where faults in order would meet a stream; 0: none */
	struct firn_window window;   /* what a stream has at hand */
	atomic_bool gone;            /* the address space has ended */
	int on_fault;                /* an eventfd that is told of faults; -1: none.  Layout lock */
	void *owner;                 /* the engine's target; not looked at here */
};

/* Make the lock and counters ready.  Returns 0, or -errno. */
int firn_armed_init(struct firn_armed *a, pid_t pid, struct firn_armed_memory *m);
void firn_armed_done(struct firn_armed *a);

/* Watch @span for missing pages.  Returns 0, or -errno (-EINVAL: something there cannot be watched). */
int firn_armed_register(struct firn_armed *a, struct firn_range span);
/* Watch it no longer; faults waiting there are woken.  Returns 0; -ENOMEM where nothing is mapped any
 * more, and other errnos. */
int firn_armed_unregister(struct firn_armed *a, struct firn_range span);
/*
 * Is the target's layout changing, from before a change is seen in /proc until its event has been read?
 * In an address space that has ended, nothing is.
 */
bool firn_armed_changing(struct firn_armed *a);
/* Has its address space ended? */
bool firn_armed_ended(struct firn_armed *a);
/* Make every thread that waits for a fault of ours ask again.  Layout lock held. */
void firn_armed_wake_all(struct firn_armed *a);

/*
 * Drop @n <= FIRN_DROP_SPANS stored spans in the target, by its own thread.  Meanwhile another thread
 * must read the userfaultfd's events.  Tracer's thread, injection begun.
 * Returns 0; -ESRCH; -ENOTRECOVERABLE; or the error of madvise (nothing or a part was dropped; what was
 * is served from the pack).
 */
int firn_armed_drop(struct firn_armed *a, struct firn_inject *i, const struct firn_range *spans, uint32_t n);

/* The target is out of its drop: REMOVE events read from now on are its own.  Takes the layout lock. */
void firn_armed_dropped(struct firn_armed *a);

/*
 * Is this REMOVE event one of our own drop's?  Counts it if so.  Layout lock held exclusively.
 */
bool firn_armed_is_own_drop(struct firn_armed *a, struct firn_range span);

/* Add what @r has read since it was opened to the target's counters. */
void firn_armed_count_reads(struct firn_armed *a, const struct firn_block_reader *r);

/* What became of an attempt to put pages back. */
enum firn_installed {
	FIRN_INSTALLED,              /* there, or no longer wanted */
	FIRN_INSTALL_AGAIN,          /* the layout is changing: read the events, then try again */
	FIRN_INSTALL_NO_MEMORY,      /* the target's memory cgroup, or the machine, is full */
	FIRN_INSTALL_GONE,           /* the address space has ended */
};

/*
 * Put back the pages of @run from link @index on that block @block (decoded in @raw) holds, at most
 * @max links further; the first must be such a page.  @ret_links: links dealt with.
 * Layout lock held shared.
 */
enum firn_installed firn_armed_install(struct firn_armed *a, const struct firn_run *run, uint32_t index,
				       uint32_t max, uint32_t block, const void *raw, uint32_t *ret_links);

/* The same for page @index alone, whose contents are at @page. */
enum firn_installed firn_armed_install_one(struct firn_armed *a, const struct firn_run *run, uint32_t index,
					   uint32_t block, const void *page);

/* One page of one repeated word.  @page: a page of the caller's to build it in. */
enum firn_installed firn_armed_install_fill(struct firn_armed *a, const struct firn_run *run, uint32_t index,
					    void *page);

/* Zero pages at @span, where nothing must be known to be lost.  Layout lock held shared. */
enum firn_installed firn_armed_install_zero(struct firn_armed *a, struct firn_range span);

/* The pages from @address on cannot be read back: they are poisoned and their links LOST.  Where the
 * kernel cannot poison, whoever touches them waits.  Layout lock held shared.  Returns 0, or -errno. */
int firn_armed_poison(struct firn_armed *a, uint64_t address, uint32_t npages);
/* The same for one page, and say it in the log, with the reason @why. */
void firn_armed_lose(struct firn_armed *a, uint64_t address, const char *why);

#endif
