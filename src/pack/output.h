/* SPDX-License-Identifier: MIT */
/*
 * The way out of a pack: two buffers, one behind the other, that several threads fill and that are
 * written one after the other, each whole, by one call.
 *
 * Bytes of the pack are reserved in the order of the file, then filled in by whoever reserved them,
 * in any order.  A buffer is written as soon as every byte of it is filled, while the other is being
 * filled.  The first failure sticks, and wakes whoever waits.
 *
 * The builder's own; not for others.
 */
#ifndef FIRN_PACK_OUTPUT_H
#define FIRN_PACK_OUTPUT_H

#include <pthread.h>

#include "pack/format.h"

struct firn_output {
	int (*write)(void *ctx, const void *buf, size_t len, struct firn_poff offset);
	void *ctx;
	uint8_t *ring;                  /* 2 * buffer_bytes, 4096-byte aligned */
	uint32_t buffer_bytes;          /* a multiple of 4096; what is reserved at once is smaller */
	bool own_writer;                /* a thread runs firn_output_write_all() */

	pthread_mutex_t lock;           /* of all that follows */
	pthread_cond_t moved;           /* broadcast whenever something of it changes */
	int err;
	bool open;                      /* between begin and flush */
	bool writing;
	uint64_t reserved;              /* offsets in the pack: given out up to here, */
	uint64_t written;               /* and written up to here */
	uint32_t filled[2];             /* bytes, of each buffer */
	uint64_t write_calls;
};

/* Make lock and condition; the other fields above the lock are the caller's.  Returns 0, or -errno. */
int firn_output_open(struct firn_output *o);
void firn_output_close(struct firn_output *o);

/* Start at offset 0, without failure.  Nothing is under way. */
void firn_output_begin(struct firn_output *o);

/* Fail with @err, unless it failed before.  Any thread.  Returns the first failure. */
int firn_output_fail(struct firn_output *o, int err);

/*
 * Reserve bytes for the first of @n pieces of @sizes, and for as many more as there is room for
 * now: offsets[i] is where the i-th begins.  Waits for room for the first; a piece is no larger than
 * a buffer.  One thread at a time, and it has filled all that it reserved before.
 * Returns how many, or the failure.
 */
int firn_output_reserve(struct firn_output *o, const uint32_t *sizes, uint32_t n,
			uint64_t *offsets);

/* Where the @len bytes at @offset, which are reserved, are to be put; NULL: not in one piece. */
void *firn_output_at(struct firn_output *o, uint64_t offset, uint32_t len);

/* Put them there from @data.  Any thread, as firn_output_at. */
void firn_output_put(struct firn_output *o, uint64_t offset, const void *data, uint32_t len);

/* The @len bytes at @offset are in place.  Writes, where there is no writer.  Any thread. */
void firn_output_filled(struct firn_output *o, uint64_t offset, uint32_t len);

/* Wait until the pack is written up to @offset, which its last flush or full buffer reaches.
 * Any thread.  Returns 0, or the failure. */
int firn_output_await(struct firn_output *o, uint64_t offset);

/* Pad to 4096 bytes, write everything, and end the pack.  All that is reserved is filled.
 * Returns 0, or the failure. */
int firn_output_flush(struct firn_output *o);

/* The writer: write what is full until the pack has ended or failed. */
void firn_output_write_all(struct firn_output *o);

#endif
