/* SPDX-License-Identifier: MIT */
/*
 * Varlink's framing over a caller's buffer.  Knows nothing of JSON, sockets or memory.
 */
#include "proto/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void firn_frame_in_init(struct firn_frame_in *f, void *buf, size_t size)
{
	*f = (struct firn_frame_in){ .buf = buf, .size = size };
}

static void compact(struct firn_frame_in *f)
{
	if (f->start == 0)
		return;
	memmove(f->buf, f->buf + f->start, f->end - f->start);
	f->scanned -= f->start;
	f->end -= f->start;
	f->start = 0;
}

size_t firn_frame_in_space(struct firn_frame_in *f, char **ret)
{
	compact(f);
	*ret = f->buf + f->end;
	return f->size - f->end;
}

void firn_frame_in_commit(struct firn_frame_in *f, size_t n)
{
	assert(n <= f->size - f->end);
	f->end += n;
}

int firn_frame_in_next(struct firn_frame_in *f, char **ret, size_t *ret_len)
{
	char *nul = memchr(f->buf + f->scanned, '\0', f->end - f->scanned);

	if (!nul) {
		f->scanned = f->end;
		return f->end - f->start == f->size ? -EMSGSIZE : 0;
	}
	if (nul == f->buf + f->start)
		return -EBADMSG;
	*ret = f->buf + f->start;
	*ret_len = (size_t)(nul - *ret);
	f->start = f->scanned = (size_t)(nul - f->buf) + 1;
	return 1;
}

int firn_frame_in_move(struct firn_frame_in *f, void *buf, size_t size)
{
	size_t pending = f->end - f->start;

	if (size < pending)
		return -EINVAL;
	memcpy(buf, f->buf + f->start, pending);
	f->buf = buf;
	f->size = size;
	f->scanned -= f->start;
	f->start = 0;
	f->end = pending;
	return 0;
}

void firn_frame_out_init(struct firn_frame_out *f, void *buf, size_t size)
{
	*f = (struct firn_frame_out){ .buf = buf, .size = size };
}

int firn_frame_out_put(struct firn_frame_out *f, const char *text, size_t len)
{
	if (len == 0 || memchr(text, '\0', len))
		return -EINVAL;
	if (len >= f->size - (f->end - f->start))
		return -ENOBUFS;
	if (len >= f->size - f->end) {
		memmove(f->buf, f->buf + f->start, f->end - f->start);
		f->end -= f->start;
		f->start = 0;
	}
	memcpy(f->buf + f->end, text, len);
	f->buf[f->end + len] = '\0';
	f->end += len + 1;
	return 0;
}

size_t firn_frame_out_pending(const struct firn_frame_out *f, const char **ret)
{
	*ret = f->buf + f->start;
	return f->end - f->start;
}

void firn_frame_out_consume(struct firn_frame_out *f, size_t n)
{
	assert(n <= f->end - f->start);
	f->start += n;
	if (f->start == f->end)
		f->start = f->end = 0;
}
