/* SPDX-License-Identifier: MIT */
/*
 * Recovery: take over what a former agent left.  Every step may itself be cut short and done again.
 */
#include "engine/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/paths.h"
#include "sys/sys.h"

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

/* Is the thread that was made to drop pages still in that call? */
static bool drop_under_way(const struct firn_target *t)
{
	const struct firn_inject_journal *j = &t->image->inject;
	char path[64], buf[256];
	unsigned long long pc;
	long nr;

	if (!t->image->armed.dropping)
		return false;
	for (int tries = 0; tries < 1000; tries++) {
		char *last;

		snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", t->pid, j->tid);
		if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
			return false;
		if (!strncmp(buf, "running", 7)) {
			firn_sys.sleep_ns(1000000);
			continue;
		}
		nr = strtol(buf, NULL, 10);
		last = strrchr(buf, ' ');
		if (!last || sscanf(last, "%llx", &pc) != 1)
			return false;
		return (nr == SYS_process_madvise || nr == SYS_madvise) && pc - j->cave < FIRN_CAVE_BYTES;
	}
	return false;
}

static bool is_uffd(int fd)
{
	return firn_uffd_is_one(getpid(), fd);
}

/* Descriptor @number of the table that keeper @pid holds.  -errno where it is gone. */
static long from_keeper(pid_t pid, int number)
{
	FIRN_FD pidfd = -1;
	char path[64], comm[32];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (firn_sys_read_file(path, comm, sizeof(comm)) <= 0 || strcmp(comm, FIRN_KEEPER_COMM "\n"))
		return -ESRCH;
	pidfd = (int)firn_sys.pidfd_open(pid, 0);
	return pidfd < 0 ? pidfd : firn_sys.pidfd_getfd(pidfd, number);
}

/* Our own descriptor of the target's userfaultfd: the keeper's, else the target's. */
static int find_uffd(struct firn_target *t)
{
	FIRN_FD fd = -1;
	pid_t keeper;
	int number;

	if (firn_image_held(t->image, &keeper, &number)) {
		fd = (int)from_keeper(keeper, number);
		if (fd >= 0 && is_uffd(fd))
			return firn_fd_steal(&fd);
		firn_fd_close(&fd);
	}
	/* A child's own is with the keeper only: what it inherited is its parent's. */
	if (!t->image->parent && t->pidfd >= 0 && t->image->target_uffd >= 0) {
		fd = (int)firn_sys.pidfd_getfd(t->pidfd, t->image->target_uffd);
		if (fd >= 0 && is_uffd(fd))
			return firn_fd_steal(&fd);
	}
	return -1;
}

/* A fork event's descriptor is with the keeper, under the number that the event names. */
static void fetch_fork_descriptors(struct firn_target *t, pid_t keeper, pid_t own_keeper)
{
	struct firn_ring *r = &t->image->armed.ring;
	uint32_t n = firn_ring_count(r);

	for (uint32_t k = 0; k < n; k++) {
		struct uffd_msg *m = &r->slots[k];
		long fd;

		if (m->event != UFFD_EVENT_FORK || r->base + k < r->done)
			continue;
		/* Rewritten by a successor that died too: the upper half names the keeper that has it. */
		fd = from_keeper(m->arg.reserved.reserved1 >> 32 ? (pid_t)(m->arg.reserved.reserved1 >> 32) : keeper,
				 (int)m->arg.fork.ufd);
		if (fd >= 0 && !is_uffd((int)fd)) {
			close((int)fd);
			fd = -EBADF;
		}
		if (fd < 0) {
			firn_log("process %d: the descriptor of a child is lost (%s): the child waits for pages it touches",
				 t->pid, strerror((int)-fd));
			m->event = UFFD_EVENT_PAGEFAULT;        /* nothing to apply; those before it stay */
			continue;
		}
		/* One store; the struct is declared packed, but its argument is aligned. */
		__atomic_store_n((uint64_t *)(void *)((char *)m + offsetof(struct uffd_msg, arg)),
				 (uint64_t)(uint32_t)own_keeper << 32 | (uint32_t)fd, __ATOMIC_SEQ_CST);
	}
}

/* Undo or finish what was being done to the target when the agent died. */
static int settle(struct firn_target *t, struct firn_err *e)
{
	struct firn_image *image = t->image;
	struct firn_inject *inject;
	struct firn_proc proc;
	struct firn_stop stop;
	int err;

	if (image->inject.phase == FIRN_INJECT_NONE && !image->mask.tid)
		return 0;
	err = firn_proc_read(t->pid, &proc);
	if (err)
		return -ESRCH;
	inject = calloc(1, sizeof(*inject));
	if (!inject)
		return -ENOMEM;
	err = firn_stop_open(&stop, t->pid, proc.threads);
	if (err)
		goto out;
	err = firn_stop_all(&stop, e);
	if (!err) {
		firn_stop_restore_mask(&stop, &image->mask);
		err = firn_inject_take_over(inject, &stop, &image->inject, e);
		if (err == 1) {
			err = 0;
			if (image->inject.opening_uffd || image->inject.has_pack)
				err = firn_uffd_sweep(t, inject, t->served ? image->target_uffd : -1);
			if (!err)
				err = firn_inject_close(inject);
		}
		firn_stop_resume(&stop, false);
	}
	firn_stop_close(&stop);
out:
	free(inject);
	return err;
}

/*
 * Does the target run, for certain?  A thread that a tracer has just let go of, or that was let go of because
 * its tracer died, is on its way back into the group-stop and looks as if it ran: only the kernel's answer to
 * a tracer tells.  Where it cannot be had the target counts as stopped, and its thaw looks again.
 */
static bool runs(struct firn_target *t, struct firn_err *e)
{
	struct firn_proc proc;
	struct firn_stop stop;
	bool r = false;

	if (firn_proc_read(t->pid, &proc) || proc.state == 'T')
		return false;
	if (firn_stop_open(&stop, t->pid, proc.threads))
		return false;
	if (!firn_stop_all(&stop, e)) {
		r = !stop.group_stop;
		firn_stop_resume(&stop, false);
	}
	firn_stop_close(&stop);
	return r;
}

static void discard(struct firn_engine *en, struct firn_target *t)
{
	firn_sys.unlink(t->image_path);
	if (t->pack) {
		pthread_mutex_lock(&en->lock);
		firn_pack_unref(t->pack);
		pthread_mutex_unlock(&en->lock);
	}
	firn_target_free(en, t);
}

/* First half: map what is there and find its descriptors.  NULL: it was nothing, and is deleted. */
static struct firn_target *open_one(struct firn_engine *en, const char *path)
{
	struct firn_target *t = firn_target_new();
	struct firn_link_counts counts;
	struct firn_image *image;
	uint64_t start;
	pid_t keeper;
	int err, number;

	if (!t)
		return NULL;
	err = firn_image_open(en, t, path);
	if (err) {
		/* Kept: it is all that is known of a process whose pages are in a pack. */
		firn_log("%s is not a usable link state (%s): its target, if there is one, waits for its pages", path,
			 strerror(-err));
		en->keep_packs = true;
		firn_target_free(en, t);
		return NULL;
	}
	image = t->image;
	t->wake_ready = true;
	en->serial = firn_max_u64(en->serial, firn_max_u64(image->serial, image->group));
	if (image->parent && image->state == FIRN_TARGET_PLANNED)
		goto nothing;           /* a child half made: its event is still in its parent's ring */
	if (t->pid) {
		t->pidfd = (int)firn_sys.pidfd_open(t->pid, 0);
		if (t->pidfd < 0 || firn_proc_start_time(t->pid, &start) || start != image->start_time) {
			if (!image->parent)
				goto nothing;
			/* It was taken for a sibling that has ended: only its memory tells whether it has. */
			firn_fd_close(&t->pidfd);
			t->pid = image->pid = 0;
		}
	}
	if (image->generation) {
		err = firn_pack_ref_open(en, &t->pack, image->generation);
		if (err)
			firn_log("process %d: the tables of its pack are gone (%s): its evicted pages are lost", t->pid,
				 strerror(-err));
		else
			t->armed.pack = &t->pack->file;
	}
	firn_image_held(image, &keeper, &number);
	t->armed.uffd = find_uffd(t);
	if (t->armed.uffd >= 0 && firn_target_ended(t))
		goto nothing;
	firn_link_count(&t->armed.link, &counts);
	if (t->armed.uffd < 0 && counts.pages[FIRN_PAGE_EVICTED])
		firn_log("process %d: nobody holds its userfaultfd any more: %llu evicted pages are lost to it, pack %s is kept",
			 t->pid, (unsigned long long)counts.pages[FIRN_PAGE_EVICTED], t->pack ? firn_pack_path(t->pack) : "-");
	/* The events that were read name descriptors in the table of the agent that read them. */
	fetch_fork_descriptors(t, keeper, en->config.keeper);
	firn_image_hold(en, image, t->armed.uffd);
	return t;
nothing:
	discard(en, t);
	return NULL;
}

/* Second half: serve it, and finish what was begun.  Returns true where the target lives on. */
static bool take_over(struct firn_engine *en, struct firn_target *t)
{
	struct firn_image *image = t->image;
	struct firn_link_counts counts;
	struct firn_err e = { 0 };
	int err = 0;

	if (t->armed.uffd >= 0 && t->pack) {
		/* What the ring holds was read while the target was stopped in a drop, if it was in one: then
		 * it is the drop's.  What is read from here on is, where the drop is still under way. */
		bool under_way = drop_under_way(t);

		firn_pager_replay(en->pager, &t->armed);
		if (!under_way)
			firn_armed_dropped(&t->armed);
		err = firn_pager_add(en->pager, &t->armed);
		t->served = !err;
		if (err)
			firn_log("process %d cannot be served (%s): it waits for pages it touches", t->pid, strerror(-err));
	}
	if (t->pid)
		err = settle(t, &e);
	firn_armed_dropped(&t->armed);
	if (err && err != -ESRCH) {
		firn_log("process %d: %s", t->pid, e.code ? e.message : strerror(-err));
		firn_target_set_state(t, FIRN_TARGET_WEDGED);
		return true;
	}
	if (!err && image->state == FIRN_TARGET_HELD)
		return true;
	firn_link_count(&t->armed.link, &counts);
	if (!err && !t->served && counts.pages[FIRN_PAGE_EVICTED] + counts.pages[FIRN_PAGE_FILL]) {
		/* It cannot be served, and it has pages that only its pack holds: nothing is deleted. */
		firn_target_set_state(t, FIRN_TARGET_WEDGED);
		return true;
	}
	/* It ended, or had not come so far that it depends on us. */
	if (err || !t->served) {
		firn_target_forget(en, t);
		return false;
	}
	/* Frozen, unless the agent died between saying so and the stop. */
	if (image->state == FIRN_TARGET_FROZEN ? runs(t, &e) : image->state != FIRN_TARGET_WEDGED)
		firn_target_set_state(t, FIRN_TARGET_EVICTED);
	return true;
}

static int by_serial(const struct dirent **a, const struct dirent **b)
{
	unsigned long long x = 0, y = 0;

	sscanf((*a)->d_name, "%*d-%*u-%llu", &x);
	sscanf((*b)->d_name, "%*d-%*u-%llu", &y);
	return x < y ? -1 : x > y;
}

static int is_image(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 7 && !strcmp(d->d_name + n - 7, ".target");
}

int firn_engine_recover(struct firn_engine *en, bool *ret_whole)
{
	struct dirent **names = NULL;
	int n = scandir(en->config.private_dir, &names, is_image, by_serial), live = 0, found = 0;
	struct firn_target **targets = calloc(n > 0 ? (size_t)n : 1, sizeof(*targets));

	if (!targets)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		struct firn_target *t = NULL;
		char path[1024];

		if (!firn_path_join(path, sizeof(path), en->config.private_dir, names[i]->d_name))
			t = open_one(en, path);
		if (t) {
			firn_target_insert(en, t);
			targets[found++] = t;
		}
		free(names[i]);
	}
	free(names);
	firn_kept_recover(en);
	/* All are known before an event is applied: a child may already be there. */
	*ret_whole = !en->keep_packs;
	for (int i = 0; i < found; i++) {
		struct firn_image *image = targets[i]->image;
		bool held = targets[i]->armed.uffd >= 0;

		if (!take_over(en, targets[i])) {
			targets[i] = NULL;
			continue;
		}
		live++;
		if (!held && image->generation)
			*ret_whole = false;
	}
	live -= firn_groups_settle(en, targets, found);
	free(targets);
	if (!en->keep_packs)
		firn_image_sweep(en);
	firn_engine_workset_sweep(en);
	firn_wake_sweep(en);
	return live;
}
