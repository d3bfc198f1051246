/* SPDX-License-Identifier: MIT */
/*
 * The barrier: while pages are copied and remapped nobody writes to them.  All of it runs in a helper process
 * that shares our memory and nothing else: it has its own descriptors, so that the program never sees one of
 * ours, and no descriptor outlives a pass.
 */
#ifndef FIRN_MALLOC_FOLD_BARRIER_H
#define FIRN_MALLOC_FOLD_BARRIER_H

#include "malloc/config.h"

/*
 * Run fn(arg) in a helper: clone(CLONE_VM | CLONE_VFORK | CLONE_FILES), all signals blocked, then a
 * descriptor table of its own with nothing in it.  The calling thread waits and is not stopped by the barrier.
 * fn uses raw system calls only (malloc/os.h), no libc call that sets errno or takes a lock, no stdio.
 * Thread: any that holds the pass lock.  Returns fn's value, or -errno where no helper could be made.
 */
int firn_helper_run(int (*fn)(void *arg), void *arg);

/* What the folder itself has locked in memory: more than that is the program's (VmLck). */
extern unsigned int firn_barrier_locked_kb;

/* May this process fold at all, and how: looked at in the helper. */
struct firn_barrier {
	enum firn_barrier_tier tier;
	int uffd;                       /* WP: the helper's; -1 */
	bool wp_unpopulated;            /* else populate before protecting */
	const char *why;                /* static text: why not a better one; NULL: there is none */
	/* TRACER: what was stopped, and when. */
	uint64_t since_ns;
	int stopped;
	int tids[512];
};

/*
 * Milliseconds until a stop of the other threads is due again, where that is the tier of the last attempt; 0
 * otherwise.  Cheap: asked before a helper is made.  Thread: any that holds the pass lock.
 */
uint64_t firn_barrier_wait_ms(void);

/*
 * In the helper.  Chooses the best tier that is allowed and possible, and holds for the whole process what it
 * must: TRACER stops all other threads here (5 ms deadline, interrupted calls restart unseen).
 * Returns 0; -EAGAIN not now (VmPin > 0, a tracer, a deadline passed, stopped less than stop_ms ago); -EBUSY a helper
 * that nobody waits for cannot, since only WP lets all threads run; -EPERM never in this process.  b->why says
 * which.  On failure nothing is held.
 */
int firn_barrier_open(struct firn_barrier *b);

/* In the helper, between two holds: what may forbid folding at any time, memory that was pinned, a debugger.
 * 0, or as firn_barrier_open; what is held stays so. */
int firn_barrier_look(struct firn_barrier *b);

/* Pages from @address on are written by nobody until release.  WP: register and protect; a no-op otherwise.
 * 0 or -errno (then nothing is held of this range). */
int firn_barrier_hold(struct firn_barrier *b, void *address, size_t pages);

/* Let writers go on.  The range was remapped, or it was not: then it is unprotected. */
void firn_barrier_release(struct firn_barrier *b, void *address, size_t pages, bool remapped);

/* Lets every thread run again. */
void firn_barrier_close(struct firn_barrier *b);

#endif
