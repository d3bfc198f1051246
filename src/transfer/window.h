/* SPDX-License-Identifier: MIT */
/*
 * What a stream has in its hands, for others to use: the stored bytes of the chunk that it works on, and which
 * blocks are coming next.  A fault on one of those blocks needs no read of its own.
 */
#ifndef FIRN_TRANSFER_WINDOW_H
#define FIRN_TRANSFER_WINDOW_H

#include <pthread.h>

#include "transfer/packfile.h"

#define FIRN_WINDOW_WAIT_NS 20000000u   /* for what is coming, at most */

struct firn_window {
	pthread_mutex_t lock;           /* held for a few instructions */
	pthread_cond_t changed;
	const struct firn_packfile *pack;   /* NULL: shut */
	struct firn_chunk chunk;        /* at hand */
	const char *stored;             /* its first block */
	uint32_t coming, ncoming;       /* blocks that are being read */
	uint32_t users;                 /* of stored */
};

/* Make it, shut.  Returns 0, or -errno. */
int firn_window_init(struct firn_window *w);
void firn_window_done(struct firn_window *w);

/* Show @chunk of @pack, at @stored, in place of what was shown: nobody uses that any more when this returns.  The
 * stream's thread. */
void firn_window_show(struct firn_window *w, const struct firn_packfile *pack, const struct firn_chunk *chunk,
		      const void *stored);
/* @n blocks from @first on will be shown next.  The stream's thread. */
void firn_window_announce(struct firn_window *w, uint32_t first, uint32_t n);
/* The stream ends.  As firn_window_show. */
void firn_window_shut(struct firn_window *w);

/*
 * The stored bytes of @block of @pack, or NULL where they are not here.  With @patient: where they are coming they
 * are waited for, FIRN_WINDOW_WAIT_NS at most.  They stay until firn_window_leave, which is to come soon: the stream
 * waits for it.  Any thread, without the layout lock.
 */
const void *firn_window_enter(struct firn_window *w, const struct firn_packfile *pack, uint32_t block, bool patient);
void firn_window_leave(struct firn_window *w);

#endif
