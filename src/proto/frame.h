/* SPDX-License-Identifier: MIT */
/*
 * Varlink's framing: a message is JSON text ended by one NUL byte.
 *
 * The bytes live in a buffer of the caller's; nothing here allocates, reads or writes.  Whatever a
 * peer sends, the outcome is a message, "not yet", or an error; what the text means is for the JSON
 * parser.  Not thread-safe: one thread at a time for each struct.
 */
#ifndef FIRN_PROTO_FRAME_H
#define FIRN_PROTO_FRAME_H

#include "base/types.h"

/* Longest message with its NUL, in bytes: a peer that sends more is cut off. */
#define FIRN_CALL_MAX_BYTES (256u << 10)
#define FIRN_REPLY_MAX_BYTES (64u << 20)

/*
 * Bytes that came in.  Invariants:
 *  1. start <= scanned <= end <= size;
 *  2. no NUL lies in [start, scanned).
 */
struct firn_frame_in {
	char *buf;
	size_t size;    /* of buf, bytes; it limits the length of a message */
	size_t start;   /* first byte of the next message */
	size_t scanned; /* where the search for its NUL goes on */
	size_t end;     /* end of what has come in */
};

/* Begin with an empty @buf of @size > 0 bytes; it stays the caller's and must outlive @f. */
void firn_frame_in_init(struct firn_frame_in *f, void *buf, size_t size);

/*
 * Where the next bytes go: returns how many fit at *@ret, 0 when the buffer is full (call next():
 * it gives a message, or -EMSGSIZE).  Moves what is pending to the front: messages returned so far
 * are no longer valid.
 */
size_t firn_frame_in_space(struct firn_frame_in *f, char **ret);

/* @n bytes were put where space() said.  @n <= what it returned. */
void firn_frame_in_commit(struct firn_frame_in *f, size_t n);

/*
 * Take the next message.  Returns 1 with its text (NUL-terminated, *@ret_len bytes without the NUL,
 * valid until the next space() or move()); 0 when it is not complete yet; -EMSGSIZE when it cannot
 * fit the buffer; -EBADMSG when it is empty.  After an error the stream has no meaning: close it.
 */
int firn_frame_in_next(struct firn_frame_in *f, char **ret, size_t *ret_len);

/* Go on in a bigger buffer: the pending bytes are copied to @buf.  -EINVAL where they do not fit,
 * and nothing changed.  The old buffer is the caller's to free. */
int firn_frame_in_move(struct firn_frame_in *f, void *buf, size_t size);

/* Bytes that wait to go out.  start <= end <= size. */
struct firn_frame_out {
	char *buf;
	size_t size;
	size_t start;
	size_t end;
};

/* Begin with an empty @buf of @size bytes; it stays the caller's and must outlive @f. */
void firn_frame_out_init(struct firn_frame_out *f, void *buf, size_t size);

/* Append one message of @len > 0 bytes of text and its NUL.  -EINVAL where the text is empty or has
 * a NUL in it; -ENOBUFS where there is no room now; in both cases nothing changed. */
int firn_frame_out_put(struct firn_frame_out *f, const char *text, size_t len);

/* What waits to be written: its length, and *@ret to it; 0 for nothing. */
size_t firn_frame_out_pending(const struct firn_frame_out *f, const char **ret);

/* @n bytes of it were written.  @n <= what pending() returned. */
void firn_frame_out_consume(struct firn_frame_out *f, size_t n);

#endif
