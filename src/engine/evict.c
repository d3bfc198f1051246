/* SPDX-License-Identifier: MIT */
/*
 * Evict: plan, stop, walk, then for each slice gather and write, arm, drop; then leave.  The order is
 * the safety argument (docs/architecture.md): a page is dropped only when it is stored whole, and
 * whoever touches it from then on is answered.  Nothing is allocated from stop to leave.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/sys.h"

#define MAP_COUNT_MARGIN 131072u     /* runs that layout changes may add: two for each mapping */

void firn_eviction_lap(struct firn_eviction *j, enum firn_phase phase)
{
	uint64_t now = firn_sys.clock_ns();

	j->t->image->ns[phase] += now - j->clock;
	j->clock = now;
}

static void *reserve(size_t bytes, size_t populate)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Pages the job will surely need are there before the target is stopped. */
	memset(p, 0, populate < bytes ? populate : bytes);
	return p;
}

static int reserve_all(struct firn_eviction *j)
{
	uint64_t pages = j->plan.pages + j->plan.pages / 16 + 1024;
	size_t page = j->en->page_size;

	j->max_pages = (uint32_t)firn_min_u64(pages, FIRN_LINK_PLACE_MAX);
	j->max_stretches = j->max_pages + 64;
	j->stretches_bytes = j->max_stretches * sizeof(*j->stretches);
	j->places_bytes = j->max_pages * sizeof(*j->places);
	j->runs_bytes = j->max_stretches * sizeof(*j->runs);
	j->max_mappings = j->plan.vmas + 64;
	j->max_keep = j->plan.proc.threads * 32 * 2 + 16384;
	/* Stretches are mostly long: a tenth of the worst case is made ready, the rest may be had. */
	j->stretches = reserve(j->stretches_bytes, j->stretches_bytes / 10);
	j->runs = reserve(j->runs_bytes, j->runs_bytes / 10);
	j->places = reserve(j->places_bytes, j->places_bytes);
	j->mappings = reserve(j->max_mappings * sizeof(*j->mappings), j->max_mappings * sizeof(*j->mappings));
	j->keep = reserve(j->max_keep * sizeof(*j->keep), j->max_keep * sizeof(*j->keep));
	/* Each slice is as large as it may be, or half of what is left. */
	j->max_slices = j->max_pages / FIRN_SLICE_PAGES + 64;
	j->slices = reserve(j->max_slices * sizeof(*j->slices), j->max_slices * sizeof(*j->slices));
	j->buffer = reserve(FIRN_SCRATCH_PAGES * page, FIRN_SCRATCH_PAGES * page);
	if (!j->stretches || !j->runs || !j->places || !j->mappings || !j->keep || !j->buffer || !j->slices)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, ENOMEM, "no-memory",
				    "no memory for the tables of process %d: left running", j->plan.proc.pid);
	return 0;
}

static void unmap(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

static void release_all(struct firn_eviction *j)
{
	size_t page = j->en->page_size;

	firn_order_release(j);
	unmap(j->stretches, j->stretches_bytes);
	unmap(j->runs, j->runs_bytes);
	unmap(j->places, j->places_bytes);
	unmap(j->digests, j->max_pages * sizeof(*j->digests));
	unmap(j->mappings, j->max_mappings * sizeof(*j->mappings));
	unmap(j->keep, j->max_keep * sizeof(*j->keep));
	unmap(j->slices, j->max_slices * sizeof(*j->slices));
	if (j->buffer)
		explicit_bzero(j->buffer, FIRN_SCRATCH_PAGES * page);
	unmap(j->buffer, FIRN_SCRATCH_PAGES * page);
}

/* Stop to leave.  The target is in the registry, busy, and its image exists. */
static int take(struct firn_eviction *j)
{
	struct firn_image *image = j->t->image;
	uint64_t start_time;
	int err;

	firn_target_set_state(j->t, FIRN_TARGET_STOPPING);
	j->clock = firn_sys.clock_ns();
	err = firn_stop_all(&j->stop, j->e);
	if (err)
		return err;
	firn_eviction_lap(j, FIRN_PHASE_STOP);
	image->was_stopped = j->stop.group_stop;
	if (j->held) {
		image->was_stopped = j->held->image->was_stopped;
		if (!j->stop.group_stop) {
			firn_stop_resume(&j->stop, false);
			return firn_err_set(j->e, FIRN_EXIT_FAILED, EAGAIN, "continued",
					    "process %d was let run by somebody else while its group was stopped: try again", j->t->pid);
		}
	}
	if (j->held)
		image->wake = j->held->image->wake;
	else if (j->o->freeze && j->o->wake)
		firn_wake_note(j->en, j->t, j->o->wake);
	firn_point(FIRN_POINT_STOPPED);
	err = firn_proc_start_time(j->t->pid, &start_time);
	if (err || start_time != image->start_time) {
		firn_stop_resume(&j->stop, false);
		return firn_err_set(j->e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do",
				    j->t->pid);
	}
	/* It may have become another user's since the request was looked at. */
	if (firn_engine_may_trace(j->o->uid, j->o->gid, j->t->pid) == -EPERM)
		err = firn_err_set(j->e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
				   "process %d is not yours: run firn as root, or as the process's user", j->t->pid);
	if (!err)
		err = firn_plan_hazards(j->t->pid, j->e);
	if (!err)
		err = firn_walk_check_threads(j);
	if (!err)
		err = firn_inject_open(&j->inject, &j->stop, &image->inject, j->e);
	if (err == -ENOTRECOVERABLE)
		goto out;
	if (err) {
		firn_stop_resume(&j->stop, false);
		return err;
	}
	err = firn_walk(j);
	if (err == -ENOTRECOVERABLE && !j->e->code)
		firn_err_set(j->e, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
			     "process %d could not be put back after an injected call: it is left as it is", j->t->pid);
	else if (err && !j->e->code)
		firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "walk", "process %d: its memory cannot be walked (%s): left running",
			     j->t->pid, strerror(-err));
	if (!err && !j->total_pages)
		err = firn_err_set(j->e, FIRN_EXIT_REFUSED, EINVAL, "nothing",
				   "process %d has no private memory that could be evicted", j->t->pid);
	if (!err && j->direct)
		err = firn_direct_plan(j->en, j->t->pid, j->total_pages, j->e);
	firn_point(FIRN_POINT_WALKED);
	firn_eviction_lap(j, FIRN_PHASE_WALK);
	if (!err)
		err = firn_uffd_enter(j->en, j->t, &j->inject, j->pack_fd, &j->pack_there, j->e);
	if (!err) {
		err = firn_pager_add(j->en->pager, &j->t->armed);
		j->t->served = !err;
		if (err)
			firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "pager", "too many targets: thaw some first");
	}
	firn_point(FIRN_POINT_UFFD_OPEN);
	if (!err)
		err = j->direct ? firn_direct_evict(j) : firn_slices_evict(j);
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		goto out;
	firn_point(FIRN_POINT_LEAVING);
	j->clock = firn_sys.clock_ns();
	if (err && !j->armed) {
		struct firn_err undo = { 0 };
		int back = firn_disarm(j->t, &j->inject, &undo);

		if (back) {
			*j->e = undo;
			err = back;
			goto out;
		}
	} else {
		int back = firn_inject_close(&j->inject);

		if (back) {
			err = firn_err_set(j->e, FIRN_EXIT_LOST, -back, "wedged",
					   "process %d could not be put back: it is left as it is, its pack is kept", j->t->pid);
			goto out;
		}
	}
	if (!err)
		firn_target_set_state(j->t, j->o->freeze ? FIRN_TARGET_FROZEN : FIRN_TARGET_EVICTED);
	else if (j->armed)
		firn_target_set_state(j->t, FIRN_TARGET_EVICTED);
	firn_stop_resume(&j->stop, !err && j->o->freeze);
	firn_point(FIRN_POINT_LEFT);
	firn_eviction_lap(j, FIRN_PHASE_LEAVE);
	return err;
out:
	if (err == -ENOTRECOVERABLE)
		firn_target_set_state(j->t, FIRN_TARGET_WEDGED);
	firn_stop_resume(&j->stop, false);
	return err;
}

static int run(struct firn_eviction *j)
{
	struct firn_link_shape shape;
	int err;

	err = reserve_all(j);
	if (err)
		return err;
	shape.page_size = j->en->page_size;
	shape.max_links = j->max_pages + j->max_pages * FIRN_GAP_PAGES;
	shape.max_runs = j->max_stretches + MAP_COUNT_MARGIN;
	err = firn_image_create(j->en, j->t, &j->plan.proc, &shape, j->e);
	if (err)
		return err;
	j->t->image->memory_before = j->plan.proc.rss_anon_bytes;
	if (j->held)
		firn_engine_set_group(j->t->image, j->o->group);
	firn_engine_workset_load(j->en, j->t);
	if (firn_order_prepare(j))
		return firn_err_set(j->e, FIRN_EXIT_FAILED, ENOMEM, "no-memory",
				    "no memory for the tables of process %d: left running", j->plan.proc.pid);
	/* The links that will be filled are in memory before the target is stopped. */
	madvise((void *)firn_align_down((uintptr_t)j->t->armed.link.links, j->en->page_size),
		firn_align_up(j->max_pages * 4ull, j->en->page_size), 23 /* MADV_POPULATE_WRITE */);
	err = firn_stop_open(&j->stop, j->t->pid, j->plan.proc.threads);
	if (!err)
		err = firn_pagemap_open(&j->pagemap, j->t->pid);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "process %d cannot be prepared (%s)", j->t->pid,
				    strerror(-err));
	firn_kept_use(j);
	if (!j->base_pack && j->kind == FIRN_PACK_COPIED && firn_slice_makes_digests(j)) {
		j->digests = reserve(j->max_pages * sizeof(*j->digests), j->max_pages * sizeof(*j->digests));
		if (!j->digests)
			return firn_err_set(j->e, FIRN_EXIT_FAILED, ENOMEM, "no-memory",
					    "no memory for the tables of process %d: left running", j->plan.proc.pid);
	}
	err = j->kind == FIRN_PACK_DIRECT ? firn_direct_open_pack(j) : firn_slice_open_pack(j);
	if (err)
		return err;
	j->t->pack = j->pack;
	j->t->armed.pack = &j->pack->file;
	j->t->image->generation = j->pack->file.m->generation;
	firn_target_insert(j->en, j->t);
	firn_point(FIRN_POINT_PLAN_DONE);
	firn_eviction_lap(j, FIRN_PHASE_PLAN);
	return take(j);
}

static void finish(struct firn_eviction *j, int err)
{
	struct firn_engine *en = j->en;
	struct firn_target *t = j->t;
	struct firn_proc proc;

	firn_direct_close_pack(j);
	firn_slice_close_pack(j);
	firn_kept_release(j);
	firn_pagemap_close(&j->pagemap);
	firn_stop_close(&j->stop);
	release_all(j);
	if (!t->image) {
		firn_target_free(en, t);
		return;
	}
	t->image->ns[FIRN_PHASE_TOTAL] = firn_sys.clock_ns() - j->started;
	if (!firn_proc_read(t->pid, &proc))
		t->image->memory_after = proc.rss_anon_bytes;
	firn_target_fill_report(t, j->report);
	if (!t->pack) {
		/* Not in the registry yet. */
		if (j->pack)
			firn_pack_unref(j->pack);
		firn_sys.unlink(t->image_path);
		firn_target_free(en, t);
	} else if (!err || t->image->state == FIRN_TARGET_WEDGED) {
		firn_target_release(en, t);
	} else if (err == -ESRCH || !j->armed) {
		firn_target_forget(en, t);
	} else {
		/* A later slice failed: what earlier ones took comes back, so that nothing changed. */
		struct firn_report thawed;
		struct firn_err cause = j->report->err;

		memset(&thawed, 0, sizeof(thawed));
		firn_thaw_target(en, t, j->o, &thawed);
		j->report->err = cause;
		j->report->state = thawed.state;
	}
}

/* Is there room in memory?  Where not, a pack that would be moved to the store later begins there. */
static int choose_ram(struct firn_eviction *j)
{
	struct firn_err none = { 0 };
	int err = firn_ram_check(j->en, j->plan.proc.pid, j->plan.pages, j->o->move ? &none : j->e);

	j->in_ram = !err;
	return j->o->move ? 0 : err;
}

int firn_engine_evict(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o,
		      struct firn_report *ret)
{
	struct firn_eviction *j;
	struct firn_target *known;
	struct firn_proc proc;
	int err = 0;

	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	j = calloc(1, sizeof(*j));
	if (!j)
		return firn_err_set(&ret->err, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
	j->en = en;
	j->o = o;
	j->report = ret;
	j->e = &ret->err;
	j->pagemap.fd = j->pack_fd = j->pack_there = -1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->moved, NULL);
	j->started = j->clock = firn_sys.clock_ns();
	ret->err.pid = pid;

	pthread_mutex_lock(&en->builder_lock);
	known = firn_target_take(en, pid, 0);
	if (o->group && known && known->image->state == FIRN_TARGET_HELD && known->image->group == o->group->id) {
		j->held = known;
		known = NULL;
	} else if (o->group && !known && (firn_proc_identity(pid, &proc) || proc.state == 'Z' || proc.state == 'X')) {
		err = firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
		goto out;
	} else if (o->group && !known) {
		err = firn_err_set(&ret->err, FIRN_EXIT_FAILED, EAGAIN, "thawed",
				   "process %d was thawed while its group was stopped: try again", pid);
		goto out;
	}
	if (known) {
		enum firn_target_state s = (enum firn_target_state)known->image->state;

		firn_target_fill_report(known, ret);
		firn_target_release(en, known);
		err = firn_err_set(&ret->err, FIRN_EXIT_REFUSED, EALREADY, "already",
				   "process %d is already %s: thaw it first, or leave it so", pid,
				   firn_target_state_name(s));
		goto out;
	}
	/* What stays in memory needs no store. */
	j->cipher = o->ram && !o->move ? firn_ram_cipher(en) : en->config.cipher;
	j->kind = o->kind ? o->kind : o->ram ? FIRN_PACK_COPIED : en->config.kind;
	if (o->ram && j->kind == FIRN_PACK_DIRECT)
		err = firn_err_set(&ret->err, FIRN_EXIT_REFUSED, EINVAL, "kind-in-memory",
				   "process %d: a direct pack cannot be kept in memory, it would take as much: use --kind=copied", pid);
	else if (!o->ram || o->move)
		err = firn_store_check(en->config.store_dir, &ret->err);
	if (!err && !o->dry_run && j->kind == FIRN_PACK_COPIED)
		err = firn_slice_prepare(j);
	if (!err)
		err = firn_plan_make(en, pid, o, o->dry_run || o->ram || j->kind == FIRN_PACK_DIRECT, &j->plan, &ret->err);
	if (!err && o->ram)
		err = choose_ram(j);
	if (!err && j->kind == FIRN_PACK_DIRECT)
		err = firn_direct_plan(en, pid, j->plan.pages, &ret->err);
	if (err || o->dry_run) {
		memcpy(ret->comm, j->plan.proc.comm, sizeof(ret->comm));
		ret->start_time = j->plan.proc.start_time;
		ret->memory_before = j->plan.proc.rss_anon_bytes;
		ret->pages = j->plan.pages;
		goto out;
	}
	j->t = firn_target_new();
	if (!j->t) {
		err = firn_err_set(&ret->err, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
		goto out;
	}
	j->t->pid = pid;
	j->t->busy = true;
	j->t->pidfd = (int)firn_sys.pidfd_open(pid, 0);
	if (j->t->pidfd < 0)
		err = firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	else
		err = run(j);
	finish(j, err);
out:
	/* Its own image has taken the place. */
	if (j->held && !err)
		firn_target_forget(en, j->held);
	else if (j->held)
		firn_target_release(en, j->held);
	firn_slice_close_pack(j);
	pthread_mutex_unlock(&en->builder_lock);
	free(j);
	return err;
}
