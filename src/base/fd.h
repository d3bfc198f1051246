/* SPDX-License-Identifier: MIT */
/*
 * Descriptors and how they are given back: our own resources are released by scope.
 */
#ifndef FIRN_BASE_FD_H
#define FIRN_BASE_FD_H

#include <errno.h>
#include <unistd.h>

#include "base/types.h"

/* Close *@fd if it is one, keep errno, leave -1 behind.  Any thread. */
static inline void firn_fd_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		close(*fd);
		errno = saved;
	}
	*fd = -1;
}

/* Hand the descriptor on: the scope no longer closes it. */
static inline int firn_fd_steal(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define FIRN_FD FIRN_CLEANUP(firn_fd_close) int

#endif
