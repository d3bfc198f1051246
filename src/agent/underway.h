/* SPDX-License-Identifier: MIT */
/*
 * Calls that are under way, each on a thread of its own: how many a user may have at once.  A client that goes away
 * leaves its call to run to its end, so connections alone do not bound them.  Main thread.
 */
#ifndef FIRN_AGENT_UNDERWAY_H
#define FIRN_AGENT_UNDERWAY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Of a user that is not root. */
#define FIRN_UNDERWAY_MAX 16u

struct firn_underway {
	struct firn_underway_call {
		uint64_t connection;
		uid_t uid;
	} *calls;
	size_t n, size;
};

/* A call of @connection (a serial number, which has no other) begins.  Returns 0; -EAGAIN the user has as many as may be;
 * -ENOMEM.  On failure nothing is counted. */
int firn_underway_begin(struct firn_underway *u, uint64_t connection, uid_t uid);
/* It ended; one that is not known is none. */
void firn_underway_end(struct firn_underway *u, uint64_t connection);
void firn_underway_clear(struct firn_underway *u);

#endif
