/* SPDX-License-Identifier: MIT */
#include "agent/underway.h"

#include <errno.h>
#include <stdlib.h>

int firn_underway_begin(struct firn_underway *u, uint64_t connection, uid_t uid)
{
	unsigned int same = 0;

	for (size_t i = 0; uid && i < u->n; i++)
		same += u->calls[i].uid == uid;
	if (same >= FIRN_UNDERWAY_MAX)
		return -EAGAIN;
	if (u->n == u->size) {
		size_t size = u->size ? u->size * 2 : 16;
		struct firn_underway_call *grown = realloc(u->calls, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		u->calls = grown;
		u->size = size;
	}
	u->calls[u->n++] = (struct firn_underway_call){ connection, uid };
	return 0;
}

void firn_underway_end(struct firn_underway *u, uint64_t connection)
{
	for (size_t i = 0; i < u->n; i++) {
		if (u->calls[i].connection != connection)
			continue;
		u->calls[i] = u->calls[--u->n];
		return;
	}
}

void firn_underway_clear(struct firn_underway *u)
{
	free(u->calls);
	*u = (struct firn_underway){ 0 };
}
