/* SPDX-License-Identifier: MIT */
/*
 * Children forked while their parent was evicted.  The kernel hands a userfaultfd of the child's memory
 * to whoever reads the fork event; its pages are served by that alone, from a copy of the parent's
 * links and the same pack.  Which process the child is, is found out later: it matters only for
 * taking the inherited duplicate of the parent's descriptor away, and for show.
 */
#include "engine/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "sys/sys.h"

static struct firn_engine *engine;      /* the pager's callbacks carry no context of ours */

void firn_child_set_engine(struct firn_engine *en)
{
	engine = en;
}

/*
 * What the fork makes of mappings, read at the fork since it may have changed after the eviction: some the
 * child does not get, or gets empty; some have grown since we last looked.
 */
static void follow_mappings(struct firn_link *child, pid_t parent)
{
	struct firn_vmas v;
	struct firn_vma m;

	if (firn_vmas_open(&v, firn_proc_live_thread(parent), true))
		return;
	while (firn_vmas_next(&v, &m) > 0) {
		struct firn_range span = { m.start, m.end };

		if (m.uffd)
			firn_link_grown(child, span);
		if (m.wipe_on_fork)
			firn_link_removed(child, span);
		if (m.dont_fork)
			firn_link_forget(child, span);
	}
	firn_vmas_close(&v);
}

static int forked(struct firn_armed *parent_armed, int uffd, uint64_t seq)
{
	struct firn_engine *en = engine;
	struct firn_target *parent = parent_armed->owner, *t = firn_target_new();
	struct firn_proc proc = { .pid = parent->pid };
	struct firn_link_shape shape;
	struct firn_err e = { 0 };
	int err;

	/* A successor may apply an event whose child is already there. */
	pthread_mutex_lock(&en->lock);
	for (struct firn_target *k = en->targets; k; k = k->next) {
		if (k->image->parent_serial == parent->image->serial && k->image->fork_seq == seq) {
			pthread_mutex_unlock(&en->lock);
			firn_fd_close(&uffd);
			if (t)
				firn_target_free(en, t);
			return 0;
		}
	}
	pthread_mutex_unlock(&en->lock);
	if (!t)
		return -ENOMEM;         /* the descriptor stays open: closing it would let the child read zeros */
	t->armed.uffd = uffd;
	firn_link_shape_of(&parent_armed->link, &shape);
	memcpy(proc.comm, parent->image->comm, sizeof(proc.comm));
	proc.start_time = parent->image->start_time;
	err = firn_image_create(en, t, &proc, &shape, &e);
	t->armed.uffd = uffd;
	if (err)
		goto fail;
	t->image->pid = 0;
	t->pid = 0;
	t->image->parent = parent->pid;
	t->image->parent_serial = parent->image->serial;
	t->image->fork_seq = seq;
	t->image->start_time = 0;
	firn_image_hold(en, t->image, uffd);
	t->image->target_uffd = parent->image->target_uffd;
	t->image->generation = parent->image->generation;
	err = firn_link_copy(&t->armed.link, &parent_armed->link);
	if (err)
		goto fail;
	follow_mappings(&t->armed.link, parent->pid);
	pthread_mutex_lock(&en->lock);
	t->pack = parent->pack;
	t->pack->users++;
	pthread_mutex_unlock(&en->lock);
	t->armed.pack = &t->pack->file;
	t->armed.pid = 0;
	firn_target_set_state(t, FIRN_TARGET_EVICTED);
	t->busy = true;                 /* nobody's but ours until it is served */
	firn_target_insert(en, t);
	firn_point(FIRN_POINT_CHILD_MADE);
	err = firn_pager_add(en->pager, &t->armed);
	t->served = !err;
	firn_target_release(en, t);
	return err;
fail:
	firn_log("process %d: its child has no link table (%s): the child waits for pages it touches", parent->pid,
		 e.code ? e.message : strerror(-err));
	t->armed.uffd = -1;             /* kept open on purpose: closing it would let the child read zeros */
	if (t->image)
		firn_sys.unlink(t->image_path);
	firn_target_free(en, t);
	return err;
}

/*
 * A mapping that grows in place says nothing; parts of what it grew by may be all that is left of it.  The
 * kernel knows what our userfaultfd watches: an address there that no link claims never held anything
 * that we evicted, since every move and removal is reported.
 */
static int grown(struct firn_armed *a, uint64_t address, struct firn_range *ret)
{
	struct firn_target *t = a->owner;
	struct firn_vmas v;
	struct firn_vma m;
	bool found = false;
	int r;

	pthread_mutex_lock(&engine->lock);
	firn_child_identify(engine, t);
	pthread_mutex_unlock(&engine->lock);
	if (!t->pid)
		return -ESRCH;
	r = firn_vmas_open(&v, firn_proc_live_thread(t->pid), true);
	if (r)
		return r;
	while (!found && (r = firn_vmas_next(&v, &m)) > 0 && m.start <= address)
		found = m.uffd && address < m.end;
	firn_vmas_close(&v);
	if (r < 0)
		return r;
	ret->start = m.start;
	ret->end = m.end;
	return found;
}

const struct firn_pager_ops firn_engine_pager_ops = { forked, grown };

struct search {
	struct firn_engine *en;
	struct firn_target *t;
	struct firn_proc best;
};

static int look(void *arg, long number)
{
	struct search *s = arg;
	struct firn_proc p;

	for (struct firn_target *k = s->en->targets; k; k = k->next)
		if (k->pid == (pid_t)number)
			return 0;
	if (!firn_uffd_is_one((pid_t)number, s->t->image->target_uffd) || firn_proc_read((pid_t)number, &p))
		return 0;
	if (p.ppid != s->t->image->parent)
		return 0;
	if (!s->best.pid || p.start_time < s->best.start_time ||
	    (p.start_time == s->best.start_time && p.pid < s->best.pid))
		s->best = p;
	return 0;
}

void firn_child_identify(struct firn_engine *en, struct firn_target *t)
{
	struct search s = { en, t, { 0 } };

	/* Older siblings first: processes are born in the order of their fork events. */
	if (t->pid || t->image->target_uffd < 0)
		return;
	for (struct firn_target *k = en->targets; k; k = k->next)
		if (!k->pid && k->image->parent == t->image->parent && k->image->serial < t->image->serial)
			firn_child_identify(en, k);
	firn_sys_each_number("/proc", look, &s);
	if (!s.best.pid)
		return;
	t->pidfd = (int)firn_sys.pidfd_open(s.best.pid, 0);
	if (t->pidfd < 0)
		return;
	t->image->start_time = s.best.start_time;
	memcpy(t->image->comm, s.best.comm, sizeof(t->image->comm));
	t->image->pid = s.best.pid;
	t->pid = s.best.pid;
	t->armed.pid = s.best.pid;
}
