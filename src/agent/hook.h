/* SPDX-License-Identifier: MIT */
/*
 * Commands that the configuration wants run before a process is frozen and after it is thawed: as that process's user,
 * and not for longer than they may.
 */
#ifndef FIRN_AGENT_HOOK_H
#define FIRN_AGENT_HOOK_H

#include <sys/types.h>

#include "base/err.h"

struct firn_hook {
	const char *command;         /* for /bin/sh -c */
	const char *event;           /* "before-freeze", "after-thaw" */
	pid_t pid;                   /* whose user, groups and root directory it gets, and no more capabilities than it has */
	uint64_t timeout_ns;         /* then it is killed, with what it started in its session */
};

/*
 * Run it and wait for it.  It gets FIRN_EVENT, FIRN_PID and FIRN_COMM, a PATH, and no descriptors but /dev/null.  Any
 * thread, but none that traces: it waits.
 * Returns 0; -ECANCELED it said no (its exit status is not 0); -ETIMEDOUT; -ESRCH the process has ended; -errno where it
 * could not be run; each with *@e (FIRN_EXIT_REFUSED for the first two).
 */
int firn_hook_run(const struct firn_hook *h, struct firn_err *e);

#endif
