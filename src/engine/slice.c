/* SPDX-License-Identifier: MIT */
/*
 * Slices: gather pages into the pack and write it, arm their mappings, drop them.  Stored before dropped.
 *
 * The gatherer drives the builder through all slices, its workers read and encode, the writer writes; this
 * thread, the tracer, follows them: a slice that is gathered and stored is armed and dropped while the next
 * ones are gathered.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/sys.h"

#define PROGRESS_NS 100000000u
#define WRITE_LEAST_BYTES (512u << 10)

/* --- Builder callbacks, on its threads ------------------------------------------------------------ */

int firn_slice_write(void *ctx, const void *buf, size_t len, struct firn_poff offset)
{
	struct firn_eviction *j = ctx;
	size_t done = 0;

	if (j->in_ram && firn_ram_room(j->pack, len))
		return -ENOSPC;
	while (done < len) {
		long n = firn_sys.pwrite(j->pack->file.fd, (const char *)buf + done, len - done, offset.v + done);

		if (n == -EINTR || (n == -ENOSPC && !j->in_ram && firn_kept_give_way(j->en)))
			continue;
		if (n <= 0)
			return n ? (int)n : -EIO;
		done += (size_t)n;
		if (j->in_ram)
			continue;
		j->pack->file.m->write_calls++;
		j->pack->file.m->write_bytes += (uint64_t)n;
	}
	return 0;
}

static void run_workers(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker), void *arg)
{
	struct firn_eviction *j = ctx;

	firn_workers_run(j->workers, n, fn, arg);
}

static int unreadable(struct firn_eviction *j, uint64_t address, int err)
{
	pthread_mutex_lock(&j->lock);
	if (!j->read_err) {
		j->read_err = err;
		j->bad_address = address;
	}
	pthread_mutex_unlock(&j->lock);
	return err;
}

static int read_target(void *ctx, const struct firn_pack_run *runs, uint32_t n, void *buf)
{
	struct firn_eviction *j = ctx;
	struct iovec remote[64], local = { buf, 0 };
	size_t page = j->en->page_size;
	char *to = buf;
	int err;

	if (n && n <= ARRAY_SIZE(remote)) {
		for (uint32_t k = 0; k < n; k++) {
			remote[k].iov_base = (void *)(uintptr_t)runs[k].start.v;
			remote[k].iov_len = runs[k].npages * page;
			local.iov_len += remote[k].iov_len;
		}
		if (firn_sys.process_vm_readv(j->t->pid, &local, 1, remote, n) == (long)local.iov_len)
			n = 0;
	}
	/* What cannot be read that way (PROT_NONE) can be by another. */
	for (uint32_t k = 0; k < n; k++) {
		err = firn_proc_peek(j->t->pid, runs[k].start.v, to, runs[k].npages * page);
		if (err)
			return unreadable(j, runs[k].start.v, err);
		to += runs[k].npages * page;
	}
	__atomic_fetch_add(&j->read_bytes, local.iov_len, __ATOMIC_RELAXED);
	return 0;
}

/* --- Gathering, while slices before are armed and dropped ----------------------------------------- */

void firn_slices_cut(struct firn_eviction *j, bool falling)
{
	uint64_t rest = j->total_pages;
	uint32_t page = j->en->page_size;

	for (uint32_t next = 0; next < j->nstretches;) {
		struct firn_slice *s = &j->slices[j->nslices++];
		uint64_t size = !falling || rest <= 2 * FIRN_SLICE_LEAST_PAGES ? rest : rest / 2;

		size = firn_min_u64(size, FIRN_SLICE_PAGES);
		s->first = next;
		while (next < j->nstretches && s->pages < size) {
			struct firn_stretch *t = &j->stretches[next];
			uint64_t pages = (t->end - t->start) / page, room = size - s->pages;

			/* Cut it in two, if the tables have a place for the second half. */
			if (pages > room && j->nstretches < j->max_stretches && j->nslices < j->max_slices) {
				memmove(t + 1, t, (j->nstretches - next) * sizeof(*t));
				j->nstretches++;
				t[0].end = t[1].start = t[0].start + room * page;
				pages = room;
			}
			s->pages += pages;
			next++;
		}
		if (j->nslices == j->max_slices)
			for (; next < j->nstretches; next++)
				s->pages += (j->stretches[next].end - j->stretches[next].start) / page;
		s->last = next;
		rest -= s->pages;
	}
	for (uint32_t n = 0; n < j->nstretches; n++) {
		struct firn_pack_run *run = &j->runs[j->nruns++];

		run->start.v = j->stretches[n].start;
		run->npages = (uint32_t)((j->stretches[n].end - j->stretches[n].start) / page);
		run->first_place = j->nplaces;
		j->nplaces += run->npages;
	}
}

struct firn_builder_index firn_slice_index(struct firn_eviction *j, struct firn_pack_target *target)
{
	*target = (struct firn_pack_target){
		.pid = j->t->pid,
		.start_time = j->t->image->start_time,
		.runs = j->nruns,
	};
	memcpy(target->comm, j->t->image->comm, sizeof(target->comm));
	return (struct firn_builder_index){
		.targets = target, .ntargets = 1,
		.runs = j->runs, .nruns = j->nruns,
		.places = j->places, .nplaces = j->nplaces,
	};
}

static int finish_pack(struct firn_eviction *j)
{
	struct firn_pack_target target;
	struct firn_builder_index index = firn_slice_index(j, &target);

	return firn_builder_finish(j->builder, &index, &j->pack_bytes);
}

/* On the gatherer: the builder's driver, until the pack is whole or something failed. */
static int gather(void *arg)
{
	struct firn_eviction *j = arg;
	int err = firn_order_set(j);

	for (uint32_t n = 0; n < j->nslices; n++) {
		struct firn_slice *s = &j->slices[n];

		if (!err)
			err = firn_order_rest(j, s);
		if (!err)
			err = firn_builder_end_slice(j->builder);
		firn_builder_get_stats(j->builder, &s->stats);
		pthread_mutex_lock(&j->lock);
		if (err)
			j->gather_err = err;
		else
			j->gathered = n + 1;
		pthread_cond_signal(&j->moved);
		pthread_mutex_unlock(&j->lock);
	}
	return err ? err : finish_pack(j);
}

static int write_all(void *arg)
{
	struct firn_eviction *j = arg;

	firn_builder_write_all(j->builder);
	return 0;
}

/* Wait until slice @n is encoded. */
static int await_gathered(struct firn_eviction *j, uint32_t n)
{
	int err;

	pthread_mutex_lock(&j->lock);
	while (j->gathered <= n && !j->gather_err) {
		struct timespec until;
		uint64_t at;

		clock_gettime(CLOCK_MONOTONIC, &until);
		at = (uint64_t)until.tv_nsec + PROGRESS_NS;
		until.tv_sec += (time_t)(at / 1000000000u);
		until.tv_nsec = (long)(at % 1000000000u);
		pthread_cond_clockwait(&j->moved, &j->lock, CLOCK_MONOTONIC, &until);
		if (j->o->progress) {
			uint64_t pages = __atomic_load_n(&j->read_bytes, __ATOMIC_RELAXED) / j->en->page_size;

			pthread_mutex_unlock(&j->lock);
			j->o->progress(j->o->arg, "gather", firn_min_u64(pages, j->total_pages), j->total_pages);
			pthread_mutex_lock(&j->lock);
		}
	}
	err = j->gathered <= n ? j->gather_err : 0;
	pthread_mutex_unlock(&j->lock);
	return err;
}

/* --- One slice ----------------------------------------------------------------------------------- */

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
static int link_slice(struct firn_eviction *j, const struct firn_slice *s)
{
	struct firn_link *l = &j->t->armed.link;
	uint32_t page = j->en->page_size, place = j->runs[s->first].first_place;

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

int firn_slice_store_failed(struct firn_eviction *j, int err)
{
	if (j->in_ram)
		return firn_err_set(j->e, FIRN_EXIT_STORE, -err, err == -ENOSPC ? "ram-full" : "ram-write",
				    "process %d: its pack cannot be kept in memory (%s: %s): it runs on, nothing is lost; use --place=store",
				    j->t->pid, j->en->config.private_dir, strerror(-err));
	if (err == -ENOSPC || err == -EDQUOT)
		return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-full",
				    "store %s is full: process %d runs on, nothing is lost; free space there",
				    j->en->config.store_dir, j->t->pid);
	return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-write",
			    "store %s: writing failed (%s): process %d runs on, nothing is lost", j->en->config.store_dir,
			    strerror(-err), j->t->pid);
}

static int gather_failed(struct firn_eviction *j, int err)
{
	if (!j->read_err)
		return firn_slice_store_failed(j, err);
	return firn_err_set(j->e, FIRN_EXIT_FAILED, -j->read_err, "read",
			    "process %d: memory at %#llx cannot be read (%s): left running, nothing evicted", j->t->pid,
			    (unsigned long long)j->bad_address, strerror(-j->read_err));
}

/* The slice's blocks are in the store: then the tables may say so. */
static int await_stored(struct firn_eviction *j, const struct firn_slice *s, bool last)
{
	struct firn_pack_memory *m = j->pack->file.m;
	int err;

	err = last ? firn_lane_wait(j->gatherer) : firn_builder_await(j->builder, s->stats.end);
	/* Through the page cache, writing can fail later: not after the drop. */
	if (!err && j->pack->buffered && fdatasync(j->pack->file.fd))
		err = -errno;
	if (err)
		return gather_failed(j, err);
	m->fills = s->stats.fills;
	m->duplicates = s->stats.duplicate_pages;
	m->reused_pages = s->stats.reused_pages;
	m->digests = last && j->digests;
	m->raw_bytes = s->stats.pages * j->en->page_size;
	m->bytes = last ? j->pack_bytes : s->stats.end;
	__atomic_store_n(&m->blocks, s->stats.blocks, __ATOMIC_RELEASE);
	return 0;
}

int firn_slice_take(struct firn_eviction *j, const struct firn_slice *s)
{
	struct firn_link *l = &j->t->armed.link;
	int err;

	err = arm(j, s);
	if (!err)
		err = link_slice(j, s);
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
	j->t->image->pages += s->pages;
	if (err)
		return firn_err_set(j->e, err == -ESRCH ? FIRN_EXIT_NOT_FOUND : FIRN_EXIT_LOST, -err,
				    err == -ESRCH ? "gone" : "wedged",
				    err == -ESRCH ? "process %d ended meanwhile: nothing to do" :
						    "process %d could not be put back after dropping: it is left as it is, its pack is kept",
				    j->t->pid);
	return 0;
}

static int evict_slice(struct firn_eviction *j, uint32_t n)
{
	const struct firn_slice *s = &j->slices[n];
	int err;

	err = await_gathered(j, n);
	if (err)
		return gather_failed(j, err);
	firn_point(FIRN_POINT_GATHERED);
	firn_eviction_lap(j, FIRN_PHASE_GATHER);
	err = await_stored(j, s, n + 1 == j->nslices);
	if (err)
		return err;
	firn_point(FIRN_POINT_WRITTEN);
	firn_eviction_lap(j, FIRN_PHASE_WRITE);
	return firn_slice_take(j, s);
}

int firn_slices_evict(struct firn_eviction *j)
{
	int err = 0;

	firn_slices_cut(j, true);
	firn_lane_begin(j->writer, write_all, j);
	firn_lane_begin(j->gatherer, gather, j);
	for (uint32_t n = 0; !err && n < j->nslices; n++)
		err = evict_slice(j, n);
	if (err)
		firn_builder_abort(j->builder);
	firn_lane_wait(j->gatherer);
	firn_lane_wait(j->writer);
	return err;
}

void firn_slice_describe(struct firn_eviction *j, struct firn_builder_pack *ret)
{
	struct timespec ts;
	char boot[64];

	memset(ret, 0, sizeof(*ret));
	ret->pid = j->t->pid;
	ret->start_time = j->t->image->start_time;
	clock_gettime(CLOCK_REALTIME, &ts);
	ret->generation = j->pack->file.m->generation;
	ret->created_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	memcpy(ret->comm, j->t->image->comm, sizeof(ret->comm));
	ret->blocks = j->pack->file.blocks;
	ret->blocks_cap = j->pack->file.m->max_blocks;
	ret->fills = j->pack->file.fills;
	ret->fills_cap = j->pack->file.m->max_fills;
	ret->digests = j->digests;
	ret->base = j->pack->base ? &j->base : NULL;
	if (firn_sys_read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) > 0) {
		unsigned int n = 0, byte;

		for (char *p = boot; *p && n < 16; p += *p == '-' ? 1 : 2)
			if (*p != '-' && sscanf(p, "%2x", &byte) == 1)
				ret->boot_id[n++] = (uint8_t)byte;
	}
}

static unsigned int count_cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return n < (int)FIRN_BUILDER_WORKERS_MAX ? (unsigned int)n : FIRN_BUILDER_WORKERS_MAX;
}

/*
 * How much is written at once: an eighth of what the process has, so that writing begins early and little is made
 * ready for a small one, and as much as a device likes, or the configuration allows, for a large one.  Each write but
 * the last begins and ends at multiples of it: half a megabyte is a multiple of what most arrays and flash write at once.
 */
static uint32_t output_bytes(pid_t pid, uint64_t buffer_bytes)
{
	struct firn_proc p;
	uint64_t bytes = firn_proc_read(pid, &p) ? 0 : p.rss_anon_bytes / 8;
	/* There are two. */
	uint64_t most = buffer_bytes ? firn_align_down(buffer_bytes / 2, FIRN_PACK_ALIGN) : FIRN_BUILDER_OUT_BYTES;

	bytes = firn_align_up(firn_max_u64(bytes, WRITE_LEAST_BYTES), WRITE_LEAST_BYTES);
	return (uint32_t)firn_min_u64(bytes, most);
}

/* On the gatherer. */
static int open_builder(void *arg)
{
	struct firn_eviction *j = arg;
	struct firn_builder_config config = {
		.page_size = j->en->page_size,
		.cipher = j->cipher,
		.key = j->cipher == FIRN_CIPHER_OFF ? NULL : j->en->config.key,
		.digest_key = firn_slice_makes_digests(j) ? j->en->config.key : NULL,
		.workers = count_cores(),
		.out_bytes = output_bytes(j->report->pid, j->en->config.buffer_bytes),
		.own_writer = true,
		.ops = { .read = read_target, .write = firn_slice_write, .run = run_workers },
		.ctx = j,
	};
	int err = firn_workers_open(&j->workers, config.workers);

	return err ? err : firn_builder_open(&j->builder, &config);
}

int firn_slice_prepare(struct firn_eviction *j)
{
	int err = firn_lane_open(&j->gatherer);

	if (!err)
		err = firn_lane_open(&j->writer);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory to begin");
	firn_lane_begin(j->gatherer, open_builder, j);
	return 0;
}

int firn_slice_open_pack(struct firn_eviction *j)
{
	struct firn_pack_shape shape = {
		.kind = FIRN_PACK_COPIED,
		.max_blocks = firn_slice_blocks_max(j),
		.max_fills = FIRN_FILLS_MAX / 16,
		.cipher = j->cipher,
		.in_ram = j->in_ram,
		.move_after_s = j->in_ram && j->o->move ? j->o->after_s : FIRN_PACK_STAYS,
		.base = j->base_pack,
	};
	struct firn_builder_pack pack;
	int err;

	err = firn_pack_ref_create(j->en, &j->pack, &shape, j->e);
	if (err)
		return err;
	if (j->base_pack) {
		j->t->image->set_first = j->base_pack->file.m->blocks;
		j->t->image->set_base = (uint32_t)firn_min_u64(j->base_pack->file.m->set_blocks, FIRN_SET_BLOCKS_MAX / 2);
		j->base_pack = NULL;    /* the pack's now */
	}
	/* The tables are sparse files in the same place, and a page that cannot be had there is our end. */
	j->pack->ram_reserve = j->pack->memory_bytes + j->t->image_bytes;
	err = firn_lane_wait(j->gatherer);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory for a pack's buffers (%s)",
				    strerror(-err));
	firn_slice_describe(j, &pack);
	err = firn_builder_begin(j->builder, &pack);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "builder", "a pack cannot be begun (%s)", strerror(-err));
	return 0;
}

void firn_slice_close_pack(struct firn_eviction *j)
{
	firn_lane_close(j->gatherer);
	firn_lane_close(j->writer);
	firn_workers_close(j->workers);
	firn_builder_close(j->builder);
	j->gatherer = j->writer = NULL;
	j->workers = NULL;
	j->builder = NULL;
}
