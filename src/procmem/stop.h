/* SPDX-License-Identifier: MIT */
/*
 * Stop every thread of a target and let it go again, without anyone seeing an interrupted call.
 * ptrace belongs to a thread: stop, resume and everything between run on one thread, the tracer.
 */
#ifndef FIRN_PROCMEM_STOP_H
#define FIRN_PROCMEM_STOP_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"
#include "sys/arch.h"

#define FIRN_STOP_DEADLINE_MS 3000

struct firn_thread {
	pid_t tid;
	bool stopped;                /* at PTRACE_EVENT_STOP, where registers may be set */
};

struct firn_stop {
	pid_t pid;
	bool group_stop;             /* the target was stopped by a signal before we came, or has one before it */
	bool stop_wanted;            /* a stop signal came while we held it: it is sent again at resume */
	unsigned int nthreads, capacity;
	struct firn_thread *threads; /* owned; mapped memory */
};

/* Reserve room for @threads threads and as many again.  Returns 0, or -ENOMEM. */
int firn_stop_open(struct firn_stop *s, pid_t pid, unsigned int threads);
void firn_stop_close(struct firn_stop *s);

/*
 * Seize and stop every thread, until no new one appears.  Then calls that returned -EINTR because of
 * it are marked for an unseen restart.
 * Returns 0; -ESRCH the target ended; -EPERM, -EBUSY (traced); -ETIMEDOUT a thread did not stop
 * within FIRN_STOP_DEADLINE_MS; -ENOMEM more threads than reserved.  On failure every thread runs again.
 */
int firn_stop_all(struct firn_stop *s, struct firn_err *e);

/*
 * Let go of every thread.  With @rest the target is left in a group-stop (SIGSTOP), and not one of
 * its instructions runs in between.  Returns 0, or the first error; every thread is let go of anyway.
 */
int firn_stop_resume(struct firn_stop *s, bool rest);

/* Of the one moment when a thread's signal mask is not its own; in memory that outlives the agent. */
struct firn_mask_journal {
	int32_t tid;                 /* 0: none */
	uint32_t pad;
	uint64_t mask;
};

/* End a group-stop of ours: continue the target, with the SIGCONT itself kept from its handlers.
 * The target is stopped by @s before and after.  Returns 0, or -errno. */
int firn_stop_continue(struct firn_stop *s, struct firn_mask_journal *j);

/* Put back a mask that a dead tracer left behind.  The target is stopped by @s. */
void firn_stop_restore_mask(struct firn_stop *s, struct firn_mask_journal *j);

/*
 * Wait for thread @tid's next stop.  Returns the wait status, or -ESRCH (gone), or -ETIMEDOUT.
 * @deadline_ns on the monotonic clock; 0 waits for ever.
 */
long firn_stop_wait(pid_t tid, uint64_t deadline_ns);

#endif
