/* SPDX-License-Identifier: MIT */
/*
 * Two buffers as one ring.  Offset x of the pack lies at ring[x % (2 * buffer_bytes)]; buffer number
 * x / buffer_bytes is written at once.
 *
 * Invariants, under the lock:
 *   1. written <= reserved <= written + 2 * buffer_bytes; written is a multiple of buffer_bytes.
 *   2. filled[k % 2] counts bytes of buffer k alone, since k + 2 is not begun before k is written.
 *   3. while `writing`, the buffer at `written` is full and nobody touches it.
 */
#include "pack/output.h"

#include <errno.h>
#include <string.h>

int firn_output_open(struct firn_output *o)
{
	int err = pthread_mutex_init(&o->lock, NULL);

	if (err)
		return -err;
	err = pthread_cond_init(&o->moved, NULL);
	if (err)
		pthread_mutex_destroy(&o->lock);
	return -err;
}

void firn_output_close(struct firn_output *o)
{
	pthread_cond_destroy(&o->moved);
	pthread_mutex_destroy(&o->lock);
}

void firn_output_begin(struct firn_output *o)
{
	pthread_mutex_lock(&o->lock);
	o->err = 0;
	o->open = true;
	o->reserved = o->written = 0;
	o->filled[0] = o->filled[1] = 0;
	o->write_calls = 0;
	pthread_mutex_unlock(&o->lock);
}

/* Lock held. */
static int fail(struct firn_output *o, int err)
{
	if (!o->err)
		o->err = err < 0 ? err : -EIO;
	pthread_cond_broadcast(&o->moved);
	return o->err;
}

int firn_output_fail(struct firn_output *o, int err)
{
	pthread_mutex_lock(&o->lock);
	err = fail(o, err);
	pthread_mutex_unlock(&o->lock);
	return err;
}

static uint8_t *at(struct firn_output *o, uint64_t offset)
{
	return o->ring + offset % (2 * (uint64_t)o->buffer_bytes);
}

/* Lock held, and let go meanwhile: write the @len filled bytes at `written`. */
static void write_buffer(struct firn_output *o, uint32_t len)
{
	uint64_t offset = o->written;
	int r;

	o->writing = true;
	pthread_mutex_unlock(&o->lock);
	r = o->write(o->ctx, at(o, offset), len, (struct firn_poff){ offset });
	pthread_mutex_lock(&o->lock);
	o->writing = false;
	if (r) {
		fail(o, r);
		return;
	}
	o->write_calls++;
	o->filled[offset / o->buffer_bytes % 2] = 0;
	o->written = offset + len;
	pthread_cond_broadcast(&o->moved);
}

static bool full(const struct firn_output *o)
{
	return !o->err && !o->writing &&
	       o->filled[o->written / o->buffer_bytes % 2] == o->buffer_bytes;
}

int firn_output_reserve(struct firn_output *o, const uint32_t *sizes, uint32_t n, uint64_t *offsets)
{
	uint32_t done = 0;

	pthread_mutex_lock(&o->lock);
	while (!o->err && done < n) {
		if (o->reserved + sizes[done] <= o->written + 2 * (uint64_t)o->buffer_bytes) {
			offsets[done] = o->reserved;
			o->reserved += sizes[done++];
		} else if (done) {
			break;
		} else {
			pthread_cond_wait(&o->moved, &o->lock);
		}
	}
	if (o->err)
		done = (uint32_t)o->err;
	pthread_mutex_unlock(&o->lock);
	return (int)done;
}

void *firn_output_at(struct firn_output *o, uint64_t offset, uint32_t len)
{
	uint64_t ring_bytes = 2 * (uint64_t)o->buffer_bytes;

	return offset % ring_bytes + len <= ring_bytes ? at(o, offset) : NULL;
}

void firn_output_put(struct firn_output *o, uint64_t offset, const void *data, uint32_t len)
{
	uint64_t ring_bytes = 2 * (uint64_t)o->buffer_bytes;
	uint32_t first = (uint32_t)firn_min_u64(len, ring_bytes - offset % ring_bytes);

	memcpy(at(o, offset), data, first);
	if (first < len)
		memcpy(o->ring, (const uint8_t *)data + first, len - first);
}

void firn_output_filled(struct firn_output *o, uint64_t offset, uint32_t len)
{
	pthread_mutex_lock(&o->lock);
	while (len) {
		uint32_t n = (uint32_t)firn_min_u64(len, o->buffer_bytes - offset % o->buffer_bytes);
		uint32_t *filled = &o->filled[offset / o->buffer_bytes % 2];

		*filled += n;
		if (*filled == o->buffer_bytes && o->own_writer)
			pthread_cond_broadcast(&o->moved);
		offset += n;
		len -= n;
	}
	while (!o->own_writer && full(o))
		write_buffer(o, o->buffer_bytes);
	pthread_mutex_unlock(&o->lock);
}

int firn_output_await(struct firn_output *o, uint64_t offset)
{
	int err;

	pthread_mutex_lock(&o->lock);
	while (!o->err && o->written < offset)
		pthread_cond_wait(&o->moved, &o->lock);
	err = o->err;
	pthread_mutex_unlock(&o->lock);
	return err;
}

int firn_output_flush(struct firn_output *o)
{
	uint32_t rest, padding;
	int err;

	pthread_mutex_lock(&o->lock);
	/* Full buffers first: they are the writer's. */
	while (!o->err && (o->writing || o->reserved - o->written >= o->buffer_bytes)) {
		if (full(o))
			write_buffer(o, o->buffer_bytes);
		else
			pthread_cond_wait(&o->moved, &o->lock);
	}
	rest = (uint32_t)(o->reserved - o->written);
	padding = (uint32_t)(firn_align_up(rest, FIRN_PACK_ALIGN) - rest);
	if (!o->err && rest) {
		memset(at(o, o->reserved), 0, padding);
		o->reserved += padding;
		write_buffer(o, rest + padding);
	}
	o->open = false;
	err = o->err;
	pthread_cond_broadcast(&o->moved);
	pthread_mutex_unlock(&o->lock);
	return err;
}

void firn_output_write_all(struct firn_output *o)
{
	pthread_mutex_lock(&o->lock);
	while (o->open && !o->err) {
		if (full(o))
			write_buffer(o, o->buffer_bytes);
		else
			pthread_cond_wait(&o->moved, &o->lock);
	}
	pthread_mutex_unlock(&o->lock);
}
