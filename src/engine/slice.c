/* SPDX-License-Identifier: MIT */
/*
 * Slices: gather pages into the pack and write it, arm their mappings, drop them.  Stored before dropped.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/sys.h"

#define WORKERS 2u                   /* threads that encode */

/* --- Builder callbacks --------------------------------------------------------------------------- */

/* On the lane: the one write that is under way. */
static int write_out(void *arg)
{
	struct firn_eviction *j = arg;
	uint64_t start = firn_sys.clock_ns();
	size_t done = 0, len = j->write.len;

	while (done < len) {
		long n = firn_sys.pwrite(j->pack->file.fd, (const char *)j->write.buf + done, len - done,
					 j->write.offset + done);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -EIO;
		done += (size_t)n;
		j->pack->file.m->write_calls++;
		j->pack->file.m->write_bytes += (uint64_t)n;
	}
	j->write_ns += firn_sys.clock_ns() - start;
	return 0;
}

static int write_pack(void *ctx, const void *buf, size_t len, struct firn_poff offset)
{
	struct firn_eviction *j = ctx;

	j->write.buf = buf;
	j->write.len = len;
	j->write.offset = offset.v;
	firn_lane_begin(j->lane, write_out, j);
	return 0;
}

static int await_write(void *ctx)
{
	struct firn_eviction *j = ctx;
	uint64_t start = firn_sys.clock_ns();
	int err = firn_lane_wait(j->lane);

	j->wait_ns += firn_sys.clock_ns() - start;
	return err;
}

static void run_workers(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker), void *arg)
{
	struct firn_eviction *j = ctx;

	firn_workers_run(j->workers, n, fn, arg);
}

/* A suspected duplicate: its original is still in the target, since its slice is. */
static int same_page(void *ctx, uint64_t original, const void *page)
{
	struct firn_eviction *j = ctx;
	char *mine = j->buffer + FIRN_GATHER_BYTES;

	if (firn_proc_peek(j->t->pid, original, mine, j->en->page_size))
		return 0;
	return !memcmp(mine, page, j->en->page_size);
}

/* --- One slice ----------------------------------------------------------------------------------- */

struct firn_slice firn_slice_next(struct firn_eviction *j, uint32_t first)
{
	struct firn_slice s = { first, first, 0 };

	while (s.last < j->nstretches && s.pages < FIRN_SLICE_PAGES) {
		struct firn_stretch *t = &j->stretches[s.last];
		uint64_t pages = (t->end - t->start) / j->en->page_size, room = FIRN_SLICE_PAGES - s.pages;

		if (pages > room) {
			/* Cut it in two; the table has a place for the second half. */
			if (j->nstretches == j->max_stretches)
				break;
			memmove(t + 1, t, (j->nstretches - s.last) * sizeof(*t));
			j->nstretches++;
			t[0].end = t[1].start = t[0].start + room * j->en->page_size;
			pages = room;
		}
		s.pages += pages;
		s.last++;
	}
	return s;
}

static int read_target(struct firn_eviction *j, uint64_t address, size_t len)
{
	return firn_proc_peek(j->t->pid, address, j->buffer, len);
}

static int gather(struct firn_eviction *j, const struct firn_slice *s)
{
	uint32_t page = j->en->page_size;

	for (uint32_t n = s->first; n < s->last; n++) {
		const struct firn_stretch *t = &j->stretches[n];
		struct firn_pack_run *run = &j->runs[j->nruns++];

		run->start.v = t->start;
		run->npages = (uint32_t)((t->end - t->start) / page);
		run->first_place = j->nplaces;
		for (uint64_t a = t->start; a < t->end;) {
			size_t len = (size_t)firn_min_u64(t->end - a, FIRN_GATHER_BYTES);
			uint32_t pages = (uint32_t)(len / page);
			int err = read_target(j, a, len);

			if (err)
				return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "read",
						    "process %d: memory at %#llx cannot be read (%s): left running, nothing evicted",
						    j->t->pid, (unsigned long long)a, strerror(-err));
			for (uint32_t k = 0; k < pages; k++)
				j->cookies[k] = a + (uint64_t)k * page;
			err = firn_builder_add_pages(j->builder, j->buffer, pages, j->cookies,
						     j->places + j->nplaces);
			if (err)
				return err;
			j->nplaces += pages;
			a += len;
			if (j->o->progress)
				j->o->progress(j->o->arg, "gather", j->done_pages + j->nplaces, j->total_pages);
		}
	}
	return 0;
}

static uint32_t link_of_place(uint32_t place)
{
	switch (firn_place_kind(place)) {
	case FIRN_PLACE_ZERO:
		return firn_link_make(FIRN_PAGE_ZERO, 0);
	case FIRN_PLACE_FILL:
		return firn_link_make(FIRN_PAGE_FILL, firn_place_value(place));
	case FIRN_PLACE_SLOT:
		return firn_link_make(FIRN_PAGE_EVICTED, firn_place_value(place));
	default:
		return firn_link_make(FIRN_PAGE_LOST, 0);
	}
}

/* Enter the slice's pages into the link table, small holes between them included. */
static int link_slice(struct firn_eviction *j, const struct firn_slice *s, uint32_t first_place)
{
	struct firn_link *l = &j->t->armed.link;
	uint32_t page = j->en->page_size, place = first_place;

	for (uint32_t n = s->first; n < s->last;) {
		uint64_t start = j->stretches[n].start, end = j->stretches[n].end;
		uint32_t m = n + 1, first, *slots;
		int err;

		while (m < s->last && j->stretches[m].mapping == j->stretches[n].mapping &&
		       j->stretches[m].start - end <= FIRN_GAP_PAGES * page)
			end = j->stretches[m++].end;
		err = firn_link_add_run(l, start, (uint32_t)((end - start) / page), &first);
		if (err)
			return err;
		slots = firn_link_slots(l, first);
		for (; n < m; n++) {
			for (uint64_t a = j->stretches[n].start; a < j->stretches[n].end; a += page)
				slots[(a - start) / page] = link_of_place(j->places[place++]);
			if (n + 1 < m)
				for (uint64_t a = j->stretches[n].end; a < j->stretches[n + 1].start; a += page)
					slots[(a - start) / page] = firn_link_make(FIRN_PAGE_HOLE, 0);
		}
	}
	return 0;
}

/*
 * Watch the mappings of the slice, neighbours by one call.  The link table knows of it first, so that a
 * fault in a hole finds an answer.
 */
static int arm(struct firn_eviction *j, const struct firn_slice *s)
{
	uint32_t first = j->stretches[s->first].mapping, last = j->stretches[s->last - 1].mapping;
	struct firn_armed *a = &j->t->armed;
	int err = 0;

	if (j->mappings[first].watched)
		first++;                /* the slice before began it */
	for (int pass = 0; pass < 2 && !err; pass++) {
		for (uint32_t n = first; n <= last && !err;) {
			struct firn_range span = j->mappings[n].span;

			j->mappings[n++].watched = true;
			while (n <= last && j->mappings[n].span.start == span.end) {
				span.end = j->mappings[n].span.end;
				j->mappings[n++].watched = true;
			}
			err = pass ? firn_armed_register(a, span) : firn_link_add_watched(&a->link, span);
		}
		if (!pass && !err)
			firn_link_publish(&a->link);
	}
	return err;
}

static int drop(struct firn_eviction *j, const struct firn_slice *s)
{
	struct firn_range spans[64];
	uint32_t k = 0;
	int err;

	err = firn_inject_begin(&j->inject, j->stop.threads[0].tid);
	for (uint32_t n = s->first; !err && n < s->last; n++) {
		spans[k].start = j->stretches[n].start;
		spans[k++].end = j->stretches[n].end;
		if (k == ARRAY_SIZE(spans) || n + 1 == s->last) {
			err = firn_armed_drop(&j->t->armed, &j->inject, spans, k);
			k = 0;
		}
	}
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		return err;
	if (err)
		firn_log("process %d: dropping its pages failed (%s): they stay in memory as well, nothing is lost",
			 j->t->pid, strerror(-err));
	return firn_inject_end(&j->inject);
}

static int store_failed(struct firn_eviction *j, int err)
{
	if (err == -ENOSPC || err == -EDQUOT)
		return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-full",
				    "store %s is full: process %d runs on, nothing is lost; free space there",
				    j->en->config.store_dir, j->t->pid);
	return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-write",
			    "store %s: writing failed (%s): process %d runs on, nothing is lost", j->en->config.store_dir,
			    strerror(-err), j->t->pid);
}

static int write_slice(struct firn_eviction *j, bool last)
{
	struct firn_pack_target target = {
		.pid = j->t->pid,
		.start_time = j->t->image->start_time,
		.runs = j->nruns,
	};
	struct firn_builder_index index = {
		.targets = &target, .ntargets = 1,
		.runs = j->runs, .nruns = j->nruns,
		.places = j->places, .nplaces = j->nplaces,
	};
	struct firn_pack_memory *m = j->pack->file.m;
	struct firn_builder_stats stats;
	int err;

	memcpy(target.comm, j->t->image->comm, sizeof(target.comm));
	err = last ? firn_builder_finish(j->builder, &index, &m->bytes) : firn_builder_end_slice(j->builder);
	/* Through the page cache, writing can fail later: not after the drop. */
	if (!err && j->pack->buffered && fdatasync(j->pack->file.fd))
		err = -errno;
	if (err)
		return store_failed(j, err);
	firn_builder_get_stats(j->builder, &stats);
	m->fills = stats.fills;
	m->duplicates = stats.duplicate_pages;
	m->raw_bytes = stats.pages * j->en->page_size;
	__atomic_store_n(&m->blocks, stats.blocks, __ATOMIC_RELEASE);
	if (!last)
		m->bytes = stats.write_bytes;
	return 0;
}

int firn_slice_evict(struct firn_eviction *j, const struct firn_slice *s, bool last)
{
	struct firn_link *l = &j->t->armed.link;
	uint32_t first_place = j->nplaces;
	uint64_t write_ns = j->write_ns, wait_ns = j->wait_ns;
	int err;

	err = gather(j, s);
	if (err)
		return j->e->code ? err : store_failed(j, err);
	firn_point(FIRN_POINT_GATHERED);
	err = write_slice(j, last);
	if (err)
		return err;
	firn_point(FIRN_POINT_WRITTEN);
	firn_eviction_lap(j, FIRN_PHASE_GATHER);
	/* Writing overlaps gathering: what had to be waited for is not gathering. */
	j->t->image->ns[FIRN_PHASE_GATHER] -= j->wait_ns - wait_ns;
	j->t->image->ns[FIRN_PHASE_WRITE] += j->write_ns - write_ns;

	err = arm(j, s);
	if (!err)
		err = link_slice(j, s, first_place);
	if (err) {
		firn_link_unpublish(l);
		return firn_err_set(j->e, FIRN_EXIT_REFUSED, -err, "arm",
				    "process %d: its memory cannot be watched (%s): left running, nothing evicted", j->t->pid,
				    strerror(-err));
	}
	firn_link_publish(l);
	firn_point(FIRN_POINT_ARMED);
	firn_eviction_lap(j, FIRN_PHASE_ARM);

	j->armed = true;
	err = drop(j, s);
	firn_point(FIRN_POINT_DROPPED);
	firn_eviction_lap(j, FIRN_PHASE_DROP);
	j->done_pages += s->pages;
	j->t->image->pages += s->pages;
	if (err)
		return firn_err_set(j->e, err == -ESRCH ? FIRN_EXIT_NOT_FOUND : FIRN_EXIT_LOST, -err,
				    err == -ESRCH ? "gone" : "wedged",
				    err == -ESRCH ? "process %d ended meanwhile: nothing to do" :
						    "process %d could not be put back after dropping: it is left as it is, its pack is kept",
				    j->t->pid);
	return 0;
}

int firn_slice_open_pack(struct firn_eviction *j)
{
	struct firn_builder_config config = {
		.page_size = j->en->page_size,
		.cipher = j->en->config.cipher,
		.key = j->en->config.cipher == FIRN_CIPHER_OFF ? NULL : j->en->config.key,
		.workers = WORKERS,
		.ops = { .write = write_pack, .wait = await_write, .run = run_workers, .same = same_page },
		.ctx = j,
	};
	struct firn_builder_pack pack = { .pid = j->t->pid, .start_time = j->t->image->start_time };
	struct timespec ts;
	char boot[64];
	int err;

	/* A block for every sixteen pages, and a partial one for each slice. */
	err = firn_pack_ref_create(j->en, &j->pack,
				   j->max_pages / FIRN_BLOCK_PAGES + j->max_pages / FIRN_SLICE_PAGES + 16,
				   FIRN_FILLS_MAX / 16, j->e);
	if (err)
		return err;
	err = firn_workers_open(&j->workers, WORKERS);
	if (!err)
		err = firn_lane_open(&j->lane);
	if (!err)
		err = firn_builder_open(&j->builder, &config);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory for a pack's buffers (%s)",
				    strerror(-err));
	clock_gettime(CLOCK_REALTIME, &ts);
	pack.generation = j->pack->file.m->generation;
	pack.created_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	memcpy(pack.comm, j->t->image->comm, sizeof(pack.comm));
	pack.blocks = j->pack->file.blocks;
	pack.blocks_cap = j->pack->file.m->max_blocks;
	pack.fills = j->pack->file.fills;
	pack.fills_cap = j->pack->file.m->max_fills;
	if (firn_sys_read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) > 0) {
		unsigned int n = 0, byte;

		for (char *p = boot; *p && n < 16; p += *p == '-' ? 1 : 2)
			if (*p != '-' && sscanf(p, "%2x", &byte) == 1)
				pack.boot_id[n++] = (uint8_t)byte;
	}
	err = firn_builder_begin(j->builder, &pack);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "builder", "a pack cannot be begun (%s)", strerror(-err));
	return 0;
}
