/* SPDX-License-Identifier: MIT */
/*
 * Run system calls in a stopped target.  The tracer may be killed at any instruction of it:
 *
 *  - The code that the thread runs lies in a cave: unused zero bytes at the end of the vdso (or of
 *    another executable private mapping), put there by ptrace and taken away at the end.
 *  - Most calls run from the trampoline: the instruction after the call is rt_sigreturn to a frame in
 *    the scratch mapping that holds the thread's whole context.  Without a tracer the thread makes
 *    its call and goes on where it was.
 *  - Before the scratch mapping exists, and when it goes, one call runs from the parking stub: without
 *    a tracer the thread pauses there, unseen by its parent, until a successor puts back the registers
 *    that the journal holds.
 *
 * The journal lies in memory that outlives the agent.  All functions run on the tracer's thread, with
 * every thread of the target stopped by a firn_stop.
 */
#ifndef FIRN_PROCMEM_INJECT_H
#define FIRN_PROCMEM_INJECT_H

#include "base/err.h"
#include "procmem/stop.h"
#include "sys/arch.h"
#include "sys/point.h"

#define FIRN_SCRATCH_BYTES 65536u
#define FIRN_SCRATCH_DATA 16384u            /* the first bytes are for arguments and results */
#define FIRN_SCRATCH_FRAME 49152u           /* from here on, the frame; between, room for a stack */

enum firn_inject_phase {
	FIRN_INJECT_NONE = 0,
	FIRN_INJECT_CAVE,               /* code may be in the cave */
	FIRN_INJECT_PARKED,             /* thread @tid may run from the stub; @regs, @sigmask are its own */
	FIRN_INJECT_SCRATCH,            /* the scratch mapping exists; the trampoline may be in use */
};

/* Resident memory shared with a successor; every field is written before what it describes happens. */
struct firn_inject_journal {
	uint32_t phase;
	int32_t tid;
	uint64_t cave;
	uint64_t scratch;
	uint64_t sigmask;
	struct firn_regs regs;
	uint32_t closing;               /* PARKED for the last call: the scratch mapping goes */
	uint32_t opening_uffd;          /* descriptors are on their way; scratch tells which */
	uint32_t has_pack;              /* a descriptor of the pack is there, or on its way */
	uint32_t pad;
	uint64_t pair[2];               /* inodes of the socket pair they travel by; 0: not known yet */
};

struct firn_inject {
	struct firn_stop *stop;
	struct firn_inject_journal *j;
	pid_t tid;                      /* the thread that makes the calls */
	bool called;                    /* its registers are the trampoline's, its signals blocked */
	struct firn_regs saved;
	uint64_t saved_mask;
	uint64_t frame_sp;
	unsigned char frame[FIRN_SCRATCH_BYTES - FIRN_SCRATCH_FRAME];
};

/* A description of the call for the named steps: entry and exit. */
struct firn_call {
	long nr;
	uint64_t args[6];
	enum firn_point entry, exit;
};

/*
 * Put the code into the target and make the scratch mapping.  @j is zero before.
 * Returns 0; -ESRCH the target ended; -ENOSPC no room for the code or the mapping.  On failure the
 * target is as it was, or -ENOTRECOVERABLE: it could not be put back (wedged).
 */
int firn_inject_open(struct firn_inject *i, struct firn_stop *stop, struct firn_inject_journal *j,
		     struct firn_err *e);

/* Make @tid the thread that runs the calls that follow.  Returns 0, -ESRCH, or -errno. */
int firn_inject_begin(struct firn_inject *i, pid_t tid);

/* Run one call.  Returns 0 with its result (negative errno or value) in *@ret, -ESRCH where the target
 * ended meanwhile, or -ENOTRECOVERABLE. */
int firn_inject_call(struct firn_inject *i, const struct firn_call *call, long *ret);

/* Put the thread back where it was.  Returns 0 or as above. */
int firn_inject_end(struct firn_inject *i);

/* Remove scratch mapping and code: nothing is left.  Returns 0 or as above. */
int firn_inject_close(struct firn_inject *i);

/* Copy between our memory and the scratch mapping's data bytes.  Return 0, or -errno. */
int firn_inject_write(struct firn_inject *i, uint32_t offset, const void *buf, size_t len);
int firn_inject_read(struct firn_inject *i, uint32_t offset, void *buf, size_t len);

/*
 * Take over from a dead tracer: put a parked thread back, let threads leave the trampoline.  The target
 * is stopped by @stop.  Returns 1 where the scratch mapping is there and injection is open as after
 * firn_inject_open, so that the caller closes it; 0 where nothing is left; -ESRCH, -ENOTRECOVERABLE.
 */
int firn_inject_take_over(struct firn_inject *i, struct firn_stop *stop, struct firn_inject_journal *j,
			  struct firn_err *e);

#endif
