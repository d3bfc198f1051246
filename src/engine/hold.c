/* SPDX-License-Identifier: MIT */
/*
 * Groups: all members are stopped before any of them is evicted.  A member that is held has an image without pack: it is
 * stopped by a SIGSTOP that was sent while all its threads were ptrace-stopped, and nothing of ours is in it.  So each can
 * then be evicted alone, as a target that was stopped before; its image takes the place of the held one's.
 *
 * Until the group is kept (firn_engine_group_keep) a successor lets all of it run.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "sys/sys.h"

uint64_t firn_engine_group_new(struct firn_engine *en)
{
	uint64_t id;

	pthread_mutex_lock(&en->lock);
	id = ++en->serial;
	pthread_mutex_unlock(&en->lock);
	return id;
}

void firn_engine_set_group(struct firn_image *image, const struct firn_group *group)
{
	image->group = group->id;
	snprintf(image->group_text, sizeof(image->group_text), "%s", group->text);
}

/* Stop it, look at what can be seen only then, and leave it stopped. */
static int stop(struct firn_engine *en, struct firn_target *t, const struct firn_evict_options *o,
		const struct firn_proc *proc, struct firn_err *e)
{
	size_t buffer_bytes = FIRN_SCRATCH_PAGES * en->page_size;
	struct firn_eviction *j = calloc(1, sizeof(*j));
	uint64_t start_time;
	int err;

	if (!j)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
	j->en = en;
	j->o = o;
	j->t = t;
	j->e = e;
	j->kind = o->kind ? o->kind : o->ram ? FIRN_PACK_COPIED : en->config.kind;
	j->buffer = malloc(buffer_bytes);
	err = j->buffer ? firn_stop_open(&j->stop, t->pid, proc->threads) : -ENOMEM;
	if (err) {
		firn_err_set(e, FIRN_EXIT_FAILED, -err, "no-memory", "process %d cannot be prepared (%s)", t->pid, strerror(-err));
		goto out;
	}
	firn_target_set_state(t, FIRN_TARGET_STOPPING);
	err = firn_stop_all(&j->stop, e);
	if (err)
		goto out;
	err = firn_proc_start_time(t->pid, &start_time);
	if (err || start_time != t->image->start_time)
		err = firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do", t->pid);
	if (!err && firn_engine_may_trace(o->uid, o->gid, t->pid) == -EPERM)
		err = firn_err_set(e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
				   "process %d is not yours: run firn as root, or as the process's user", t->pid);
	if (!err)
		err = firn_plan_hazards(t->pid, e);
	if (!err)
		err = firn_walk_check_threads(j);
	if (err) {
		firn_stop_resume(&j->stop, false);
		goto out;
	}
	t->image->was_stopped = j->stop.group_stop;
	if (o->wake)
		firn_wake_note(en, t, o->wake);
	/* Said before it is done: a successor finds it running, or stopped by us. */
	firn_target_set_state(t, FIRN_TARGET_HELD);
	firn_point(FIRN_POINT_HOLD_SAID);
	firn_stop_resume(&j->stop, true);
	firn_point(FIRN_POINT_HOLD_LEFT);
out:
	firn_stop_close(&j->stop);
	if (j->buffer)
		explicit_bzero(j->buffer, buffer_bytes);
	free(j->buffer);
	free(j);
	return err;
}

int firn_engine_hold(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o, struct firn_report *ret)
{
	struct firn_link_shape shape = { .page_size = en->page_size, .max_links = 1, .max_runs = 1 };
	struct firn_plan plan;
	struct firn_target *t;
	int err;

	memset(ret, 0, sizeof(*ret));
	ret->pid = ret->err.pid = pid;
	t = firn_target_take(en, pid, 0);
	if (t) {
		enum firn_target_state s = (enum firn_target_state)t->image->state;

		firn_target_fill_report(t, ret);
		firn_target_release(en, t);
		return firn_err_set(&ret->err, FIRN_EXIT_REFUSED, EALREADY, "already",
				    "process %d is already %s: thaw it first, or leave it so", pid, firn_target_state_name(s));
	}
	err = firn_plan_make(en, pid, o, true, &plan, &ret->err);
	/* With its group it is stopped all the same. */
	if (err && !strcmp(ret->err.reason, "nothing")) {
		firn_err_clear(&ret->err);
		ret->err.pid = pid;
		err = 0;
	}
	memcpy(ret->comm, plan.proc.comm, sizeof(ret->comm));
	ret->start_time = plan.proc.start_time;
	ret->memory_before = plan.proc.rss_anon_bytes;
	ret->pages = plan.pages;
	ret->group = o->group->id;
	snprintf(ret->group_text, sizeof(ret->group_text), "%s", o->group->text);
	if (err || o->dry_run)
		return err;
	t = firn_target_new();
	if (!t)
		return firn_err_set(&ret->err, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
	t->pid = pid;
	t->busy = true;
	t->pidfd = (int)firn_sys.pidfd_open(pid, 0);
	if (t->pidfd < 0)
		err = firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	if (!err)
		err = firn_image_create(en, t, &plan.proc, &shape, &ret->err);
	if (err) {
		firn_target_free(en, t);
		return err;
	}
	t->image->memory_before = t->image->memory_after = plan.proc.rss_anon_bytes;
	firn_engine_set_group(t->image, o->group);
	firn_target_insert(en, t);
	err = stop(en, t, o, &plan.proc, &ret->err);
	firn_target_fill_report(t, ret);
	if (err)
		firn_target_forget(en, t);
	else
		firn_target_release(en, t);
	return err;
}

int firn_hold_end(struct firn_engine *en, struct firn_target *t, struct firn_report *ret)
{
	uint64_t start = firn_sys.clock_ns();
	int err = firn_target_let_run(t, &ret->err);

	if (!err) {
		t->image->ns[FIRN_PHASE_RUN] = t->image->ns[FIRN_PHASE_WHOLE] = firn_sys.clock_ns() - start;
		firn_target_set_state(t, FIRN_TARGET_RESIDENT);
	}
	firn_target_fill_report(t, ret);
	if (err && err != -ESRCH && !firn_target_ended(t)) {
		firn_target_release(en, t);
		return err;
	}
	if (err)
		err = firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended", ret->pid);
	firn_target_forget(en, t);
	return err;
}

int firn_engine_run(struct firn_engine *en, pid_t pid, struct firn_report *ret)
{
	struct firn_target *t = firn_target_take(en, pid, 0);
	uint64_t start = firn_sys.clock_ns();
	int err;

	memset(ret, 0, sizeof(*ret));
	ret->pid = ret->err.pid = pid;
	if (!t)
		return firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ENOENT, "not-frozen",
				    "process %d is neither frozen nor evicted: nothing to thaw", pid);
	if (t->image->state == FIRN_TARGET_HELD) {
		err = firn_hold_end(en, t, ret);
		firn_point(FIRN_POINT_GROUP_RUN);
		return err;
	}
	err = 0;
	if (t->image->state == FIRN_TARGET_FROZEN) {
		err = firn_target_let_run(t, &ret->err);
		if (!err) {
			t->image->ns[FIRN_PHASE_RUN] = firn_sys.clock_ns() - start;
			firn_target_set_state(t, FIRN_TARGET_EVICTED);
		}
		firn_point(FIRN_POINT_GROUP_RUN);
	}
	firn_target_fill_report(t, ret);
	firn_target_release(en, t);
	return err;
}

void firn_engine_bring(struct firn_engine *en, pid_t pid)
{
	struct firn_target *t = firn_target_take(en, pid, 0);

	if (!t)
		return;
	if (t->pack && t->image->state == FIRN_TARGET_FROZEN)
		firn_engine_workset_bring(en, t);
	firn_target_release(en, t);
}

void firn_engine_group_keep(struct firn_engine *en, uint64_t id)
{
	pthread_mutex_lock(&en->lock);
	/* The first store counts: a successor keeps a group of which one says so. */
	for (struct firn_target *t = en->targets; t; t = t->next)
		if (t->image->group == id)
			__atomic_store_n(&t->image->group_kept, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&en->lock);
	firn_point(FIRN_POINT_GROUP_KEPT);
}

static bool kept(struct firn_target *const *targets, int n, uint64_t group)
{
	for (int i = 0; i < n; i++)
		if (targets[i] && targets[i]->image->group == group && targets[i]->image->group_kept)
			return true;
	return false;
}

int firn_groups_settle(struct firn_engine *en, struct firn_target **targets, int n)
{
	int ended = 0;

	/* The youngest first: no child is older than its parent, and it shall run before that looks for it. */
	for (int i = n - 1; i >= 0; i--) {
		struct firn_target *t = targets[i];
		struct firn_report r = { 0 };
		int err = 0;

		if (!t || !t->image->group || kept(targets, n, t->image->group))
			continue;
		if (t->image->state == FIRN_TARGET_HELD) {
			t->busy = true;
			err = firn_hold_end(en, t, &r);
			if (!err || err == -ESRCH) {
				targets[i] = NULL;
				ended++;
			}
		} else if (t->image->state == FIRN_TARGET_FROZEN) {
			err = firn_target_let_run(t, &r.err);
			if (!err)
				firn_target_set_state(t, FIRN_TARGET_EVICTED);
		}
		if (err && err != -ESRCH)
			firn_log("process %d, of a group that was not frozen whole, cannot be let run (%s): thaw it", r.pid,
				 r.err.code ? r.err.message : strerror(-err));
	}
	return ended;
}
