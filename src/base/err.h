/* SPDX-License-Identifier: MIT */
/*
 * One error, owned by the caller, of fixed size: it never allocates.
 */
#ifndef FIRN_BASE_ERR_H
#define FIRN_BASE_ERR_H

#include "base/types.h"

/* The exit codes of firn and firnd, documented in firn(1). */
enum firn_exit {
	FIRN_EXIT_OK = 0,
	FIRN_EXIT_FAILED = 1,        /* failed; the target is whole */
	FIRN_EXIT_USAGE = 2,
	FIRN_EXIT_NOT_FOUND = 3,     /* no such target */
	FIRN_EXIT_REFUSED = 4,       /* the target cannot, or must not, be frozen */
	FIRN_EXIT_NOT_PERMITTED = 5,
	FIRN_EXIT_NO_AGENT = 6,
	FIRN_EXIT_STORE = 7,
	FIRN_EXIT_KERNEL = 8,        /* the kernel lacks something */
	FIRN_EXIT_LOST = 9,          /* pages lost, or the target is wedged */
	FIRN_EXIT_SOME_FAILED = 10,
};

struct firn_err {
	int code;           /* enum firn_exit */
	int err;            /* positive errno, or 0 */
	int32_t pid;        /* the process concerned, or 0 */
	uint64_t address;   /* in the target, or 0 */
	char stage[16];     /* freeze's step, "plan", "stop", ... */
	char reason[32];    /* a short stable word, e.g. "traced"; counters and scripts use it */
	char message[256];  /* one line: what is wrong, and what to do */
};

/*
 * Fill @e (may be NULL) and return -@err, or -EINVAL where @err is 0.  The first error wins: a filled
 * @e is left as it is, so that the cause is reported and not what followed from it.
 * Any thread; does not allocate.
 */
int firn_err_set(struct firn_err *e, int code, int err, const char *reason, const char *fmt, ...)
	FIRN_PRINTF(5, 6);

/* Forget what @e holds. */
void firn_err_clear(struct firn_err *e);

#endif
