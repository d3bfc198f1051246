/* SPDX-License-Identifier: MIT */
/*
 * Thaw: let the target run, stream back what is missing in the order of the pack while the pagers answer
 * faults first, and when nothing is missing any more take everything of ours away.
 */
#include "engine/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "sys/sys.h"
#include "transfer/pace.h"

#define PAUSE_NS 50000u
#define PATIENCE_NS (20ull * 1000000000u)
#define SETTLE_TRIES 200
#define READ_LEAST_BYTES (512u << 10)
#define SLOTS 8u                     /* blocks that the walk page by page remembers */

struct stream {
	struct firn_engine *en;
	struct firn_target *t;
	const struct firn_evict_options *o;
	struct firn_err *e;
	struct firn_block_reader reader;
	struct firn_chunk chunk;
	struct firn_pace pace;
	bool holding;                /* what is held back of the working set comes later */
	void *page;
	uint64_t done, total;
};

static int damaged(struct stream *s, uint32_t block, int err)
{
	bool poisons = s->en->uffd_features & FIRN_UFFD_FEATURE_POISON;

	return firn_err_set(s->e, FIRN_EXIT_LOST, -err, "lost", "process %d: block %u of its pack cannot be read back (%s)%s",
			    s->t->pid, block, strerror(-err),
			    poisons ? ": its pages are poisoned, the rest is whole" :
				      ", and this kernel cannot poison its pages: whoever touches them waits, the pack is kept");
}

/*
 * The block of an evicted link, decoded: from the chunk at hand, or the next chunk.  A block behind
 * @highest holds the original of a duplicate: it is remembered, or read by itself.
 */
static int fetch(struct stream *s, uint32_t block, uint32_t highest, const void **ret)
{
	bool at_hand = block >= s->chunk.first && block - s->chunk.first < s->chunk.count;
	int err;

	if (!at_hand && block < highest)
		return firn_block_read(&s->reader, s->t->armed.pack, block, ret);
	if (!at_hand) {
		const struct firn_image *image = s->t->image;
		uint32_t end = UINT32_MAX;

		s->chunk.count = 0;
		/* What was held back of the set lies together, apart from the rest. */
		if (block < image->set_base)
			end = image->set_base;
		else if (block >= image->set_first && block - image->set_first < image->set_blocks)
			end = image->set_first + image->set_blocks;
		err = firn_chunk_read(&s->reader, s->t->armed.pack, block, end, &s->chunk);
		/* One bad place spoils the stretch, not every block in it. */
		if (err)
			return firn_block_read(&s->reader, s->t->armed.pack, block, ret);
	}
	return firn_chunk_decode(&s->reader, s->t->armed.pack, block, ret);
}

/* Deal with link @index of the @n-th run.  *@ret_step: how many links that was. */
static enum firn_installed step(struct stream *s, uint32_t n, uint32_t offset, uint32_t highest, uint32_t *ret_step)
{
	struct firn_armed *a = &s->t->armed;
	enum firn_installed r = FIRN_INSTALLED;
	uint32_t link, index, block;
	struct firn_run run;
	const void *raw;
	int err;

	*ret_step = 1;
	pthread_rwlock_rdlock(&a->layout);
	if (!firn_link_run(&a->link, n, &run) || offset >= run.npages)
		goto out;
	index = run.first + offset;
	link = firn_link_get(&a->link, index);
	if (firn_link_state(link) == FIRN_PAGE_FILL) {
		r = firn_armed_install_fill(a, &run, index, s->page);
		goto out;
	}
	if (firn_link_state(link) != FIRN_PAGE_EVICTED)
		goto out;
	block = firn_link_place(link) / FIRN_BLOCK_PAGES;
	pthread_rwlock_unlock(&a->layout);
	err = fetch(s, block, highest, &raw);
	pthread_rwlock_rdlock(&a->layout);
	if (!firn_link_run(&a->link, n, &run) || offset >= run.npages || run.first + offset != index ||
	    firn_link_get(&a->link, index) != link) {
		r = FIRN_INSTALL_AGAIN;
	} else if (err) {
		uint64_t address = run.start + ((uint64_t)offset << a->link.page_shift);

		damaged(s, block, err);
		firn_armed_lose(a, address, strerror(-err));
	} else {
		r = firn_armed_install(a, &run, index, run.npages - offset, block, raw, ret_step);
	}
out:
	pthread_rwlock_unlock(&a->layout);
	return r;
}

/* One pass over all links.  Returns 0; -ESRCH gone; -ENOMEM its memory cgroup is full; -EAGAIN. */
static int pass(struct stream *s)
{
	struct firn_link *l = &s->t->armed.link;
	struct firn_run run;
	uint32_t highest = 0;

	for (uint32_t n = 0; firn_link_run(l, n, &run); n++) {
		uint64_t stuck_since = 0;

		for (uint32_t offset = 0, k; offset < run.npages;) {
			uint32_t link = firn_link_get(l, run.first + offset), block;
			enum firn_installed r;

			if (firn_link_state(link) != FIRN_PAGE_EVICTED && firn_link_state(link) != FIRN_PAGE_FILL) {
				offset++;
				continue;
			}
			if (s->holding && firn_link_state(link) == FIRN_PAGE_EVICTED &&
			    firn_engine_workset_held(s->t->image, firn_link_place(link) / FIRN_BLOCK_PAGES)) {
				offset++;
				continue;
			}
			firn_pace_give_way(&s->pace, &s->t->armed);
			r = step(s, n, offset, highest, &k);
			if (r == FIRN_INSTALLED) {
				block = firn_link_place(link) / FIRN_BLOCK_PAGES;
				if (firn_link_state(link) == FIRN_PAGE_EVICTED && block > highest)
					highest = block;
				offset += k;
				s->done += k;
				stuck_since = 0;
				firn_point(FIRN_POINT_THAW_BLOCK);
				if (s->o->progress)
					s->o->progress(s->o->arg, "thaw", s->done, s->total);
				continue;
			}
			if (r == FIRN_INSTALL_GONE)
				return -ESRCH;
			if (!stuck_since)
				stuck_since = firn_sys.clock_ns();
			if (firn_sys.clock_ns() - stuck_since > PATIENCE_NS)
				return r == FIRN_INSTALL_NO_MEMORY ? -ENOMEM : -EAGAIN;
			/* The pagers bring the events; the table may be another one by then. */
			firn_sys.sleep_ns(PAUSE_NS);
			if (!firn_link_run(l, n, &run))
				return 0;
		}
	}
	return 0;
}

/* What is still to come, besides pages that are zero anyway. */
static bool missing(struct firn_target *t)
{
	struct firn_link_counts c;
	bool r;

	pthread_rwlock_rdlock(&t->armed.layout);
	firn_link_count(&t->armed.link, &c);
	r = c.pages[FIRN_PAGE_EVICTED] || c.pages[FIRN_PAGE_IN_FLIGHT] || c.pages[FIRN_PAGE_FILL];
	pthread_rwlock_unlock(&t->armed.layout);
	return r;
}

static void count(void *arg, uint64_t pages)
{
	struct stream *s = arg;

	s->done = pages;
	if (s->o->progress)
		s->o->progress(s->o->arg, "thaw", s->done, s->total);
}

/* How much is read at once: an eighth of a small pack, so that reading and putting back go side by side. */
static size_t staging_bytes(const struct firn_packfile *p)
{
	uint64_t bytes = firn_max_u64(firn_packfile_bytes(p) / 8, READ_LEAST_BYTES);

	return (size_t)firn_align_up(firn_min_u64(bytes, FIRN_READER_STORED_BYTES), FIRN_PACK_ALIGN);
}

static int bring_back(struct stream *s)
{
	struct firn_armed *a = &s->t->armed;
	struct firn_link_counts c;
	int err;

	err = firn_block_reader_open(&s->reader, s->en->config.key, s->en->page_size, staging_bytes(a->pack), SLOTS);
	if (err)
		return firn_err_set(s->e, FIRN_EXIT_FAILED, -err, "no-memory",
				    "no memory to read process %d back: it runs on, page by page", s->t->pid);
	if (posix_memalign(&s->page, s->en->page_size, s->en->page_size)) {
		firn_block_reader_close(&s->reader);
		return firn_err_set(s->e, FIRN_EXIT_FAILED, ENOMEM, "no-memory",
				    "no memory to read process %d back: it runs on, page by page", s->t->pid);
	}
	firn_link_count(&a->link, &c);
	s->total = c.pages[FIRN_PAGE_EVICTED] + c.pages[FIRN_PAGE_FILL];
	err = firn_stream_back(s->en, s->t, &s->reader, count, s);
	/* What it left, and what is in no block.  A change of layout may move pages past the walker: until
	 * nothing is missing, again. */
	s->holding = true;
	while (err != -ESRCH) {
		err = pass(s);
		s->holding = false;
		if (err || !missing(s->t) || firn_target_ended(s->t))
			break;
	}
	firn_armed_count_reads(a, &s->reader);
	explicit_bzero(s->page, s->en->page_size);
	free(s->page);
	firn_block_reader_close(&s->reader);
	if (err == -ENOMEM)
		return firn_err_set(s->e, FIRN_EXIT_FAILED, ENOMEM, "no-room",
				    "process %d: there is no memory for the rest of its pages: it runs on, page by page",
				    s->t->pid);
	if (err == -EAGAIN)
		return firn_err_set(s->e, FIRN_EXIT_FAILED, EAGAIN, "layout",
				    "process %d keeps changing its mappings: it runs on, page by page; try again", s->t->pid);
	return err;
}

/*
 * Watch nothing of the stopped target any more.  We do not know all that is watched, since a mapping grows in
 * place without a message; left watched in part, it would be two, and the target's next mremap of it would
 * fail.  So the mappings tell, and each goes whole, neighbours by one call.
 */
static void unwatch(struct firn_target *t)
{
	struct firn_armed *a = &t->armed;
	struct firn_range known = { 0, 0 }, joined = { 0, 0 };
	struct firn_vmas v;
	struct firn_vma m;
	uint32_t n = 0;
	int err;

	err = firn_vmas_open(&v, firn_proc_live_thread(t->pid), false);
	if (err) {
		firn_log("process %d: its mappings cannot be read (%s): they are watched until no descriptor is left",
			 t->pid, strerror(-err));
		return;
	}
	pthread_rwlock_rdlock(&a->layout);
	while (firn_vmas_next(&v, &m) > 0) {
		struct firn_range span = { m.start, m.end };

		if (m.why != FIRN_VMA_OK)
			continue;
		while (known.end <= span.start && firn_link_watched(&a->link, n, &known))
			n++;
		/* One that we do not know of may be another userfaultfd's.  An older kernel would let us end that
		 * watch; to begin one there is refused by all. */
		if ((known.end <= span.start || known.start >= span.end) && firn_armed_register(a, span))
			continue;
		if (span.start != joined.end) {
			if (joined.end)
				firn_armed_unregister(a, joined);
			joined.start = span.start;
		}
		joined.end = span.end;
	}
	if (joined.end)
		firn_armed_unregister(a, joined);
	pthread_rwlock_unlock(&a->layout);
	firn_vmas_close(&v);
}

int firn_disarm(struct firn_target *t, struct firn_inject *i, struct firn_err *e)
{
	struct firn_armed *a = &t->armed;
	int err;

	if (a->uffd >= 0)
		unwatch(t);
	firn_point(FIRN_POINT_THAW_DISARMED);
	err = firn_uffd_leave(t, i);
	firn_point(FIRN_POINT_THAW_CLOSED);
	if (!err)
		err = firn_inject_close(i);
	if (!err)
		return 0;
	if (err == -ESRCH)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do", t->pid);
	return firn_err_set(e, FIRN_EXIT_LOST, -err, "wedged",
			    "process %d could not be put back (%s): it is left as it is, its pack is kept", t->pid,
			    strerror(-err));
}

/* Stop it once more, see that nothing is missing, take everything of ours away. */
static int leave(struct stream *s)
{
	struct firn_target *t = s->t;
	struct firn_image *image = t->image;
	struct firn_proc proc;
	struct firn_inject *inject;
	struct firn_stop stop;
	int err;

	err = firn_proc_read(t->pid, &proc);
	if (err || proc.start_time != image->start_time)
		return -ESRCH;
	inject = calloc(1, sizeof(*inject));
	if (!inject)
		return -ENOMEM;
	err = firn_stop_open(&stop, t->pid, proc.threads);
	if (err) {
		free(inject);
		return err;
	}
	for (int tries = 0;; tries++) {
		err = firn_stop_all(&stop, s->e);
		if (err)
			goto out;
		/* Nothing may have been moved away while we looked elsewhere. */
		if (!missing(t))
			break;
		firn_stop_resume(&stop, false);
		if (tries == SETTLE_TRIES) {
			err = firn_err_set(s->e, FIRN_EXIT_FAILED, EAGAIN, "layout",
					   "process %d keeps changing its mappings: it runs on, page by page; try again",
					   t->pid);
			goto out;
		}
		err = pass(s);
		if (err)
			goto out;
	}
	memset(&image->inject, 0, sizeof(image->inject));
	err = firn_inject_open(inject, &stop, &image->inject, s->e);
	if (!err)
		err = firn_disarm(t, inject, s->e);
	if (err == -ENOTRECOVERABLE)
		firn_target_set_state(t, FIRN_TARGET_WEDGED);
	firn_stop_resume(&stop, false);
out:
	firn_stop_close(&stop);
	free(inject);
	return err;
}

int firn_target_let_run(struct firn_target *t, struct firn_err *e)
{
	struct firn_proc proc;
	struct firn_stop stop;
	int err;

	/* What it closes when it runs must be closed by that. */
	firn_watch_end(t);

	if ((t->image->state != FIRN_TARGET_FROZEN && t->image->state != FIRN_TARGET_HELD) || t->image->was_stopped)
		return 0;
	err = firn_proc_read(t->pid, &proc);
	if (err || proc.start_time != t->image->start_time)
		return -ESRCH;
	err = firn_stop_open(&stop, t->pid, proc.threads);
	if (err)
		return err;
	err = firn_stop_all(&stop, e);
	if (!err) {
		firn_point(FIRN_POINT_THAW_STOPPED);
		if (stop.group_stop)
			err = firn_stop_continue(&stop, &t->image->mask);
		firn_stop_resume(&stop, false);
	}
	firn_stop_close(&stop);
	return err;
}

int firn_thaw_target(struct firn_engine *en, struct firn_target *t, const struct firn_evict_options *o,
		     struct firn_report *ret)
{
	struct stream s = { .en = en, .t = t, .o = o, .e = &ret->err };
	struct firn_image *image = t->image;
	uint64_t start = o->began_ns ? o->began_ns : firn_sys.clock_ns();
	struct firn_proc proc;
	int err = 0;

	firn_watch_end(t);
	if (image->state == FIRN_TARGET_HELD)
		return firn_hold_end(en, t, ret);
	if (!o->began_ns)
		image->ns[FIRN_PHASE_RUN] = 0;
	image->ns[FIRN_PHASE_WHOLE] = 0;
	firn_engine_workset_bring(en, t);
	if (t->pid)
		err = firn_target_let_run(t, &ret->err);
	if (!err) {
		firn_target_set_state(t, FIRN_TARGET_THAWING);
		if (!o->began_ns)
			image->ns[FIRN_PHASE_RUN] = firn_sys.clock_ns() - start;
		firn_pace_open(&t->armed);
		firn_pace_begin(&s.pace);
		firn_point(FIRN_POINT_THAW_RUNNING);
		err = bring_back(&s);
	}
	if (!err && image->armed.lost_pages && !(en->uffd_features & FIRN_UFFD_FEATURE_POISON))
		err = firn_err_set(&ret->err, FIRN_EXIT_LOST, EIO, "lost",
				   "process %d: %llu of its pages cannot be read back, and this kernel cannot poison them: whoever touches them waits, pack %s is kept",
				   t->pid, (unsigned long long)image->armed.lost_pages, firn_pack_path(t->pack));
	if (!err && firn_target_ended(t))
		err = -ESRCH;
	if (!err) {
		firn_point(FIRN_POINT_THAW_WHOLE);
		pthread_mutex_lock(&en->lock);
		firn_child_identify(en, t);
		pthread_mutex_unlock(&en->lock);
	}
	if (!err && t->pid)
		err = leave(&s);
	/* A child's process may have been taken for a sibling that has ended: its memory is whole. */
	if (err == -ESRCH && image->parent && !firn_target_ended(t))
		err = 0;
	image->ns[FIRN_PHASE_WHOLE] = firn_sys.clock_ns() - start;
	if (!err) {
		firn_engine_workset_keep(en, t);
		firn_target_set_state(t, FIRN_TARGET_RESIDENT);
		firn_huge_restore(t);
	}
	if (t->pid && !firn_proc_read(t->pid, &proc))
		image->memory_after = proc.rss_anon_bytes;
	firn_target_fill_report(t, ret);
	if (err == -ESRCH || (err && firn_target_ended(t))) {
		if (!ret->err.code)
			firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone",
				     "process %d has ended: its pack is deleted", t->pid);
		firn_target_forget(en, t);
		return -ESRCH;
	}
	if (err) {
		if (image->state == FIRN_TARGET_THAWING)
			firn_target_set_state(t, FIRN_TARGET_EVICTED);
		firn_target_release(en, t);
		return err;
	}
	if (ret->lost)
		firn_err_set(&ret->err, FIRN_EXIT_LOST, EIO, "lost",
			     "process %d: %llu of its pages could not be read back from its pack and are poisoned, the rest is whole: see the agent's log",
			     t->pid, (unsigned long long)ret->lost);
	firn_kept_keep(en, t);
	firn_point(FIRN_POINT_THAW_LEFT);
	firn_target_forget(en, t);
	return ret->err.code ? -EIO : 0;
}

int firn_engine_thaw(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o, struct firn_report *ret)
{
	struct firn_target *t;

	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	ret->err.pid = pid;
	t = firn_target_take(en, pid, 0);
	if (!t) {
		uint64_t start;

		if (firn_proc_start_time(pid, &start))
			return firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "no-such-process",
					    "there is no process %d: nothing to thaw", pid);
		return firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ENOENT, "not-frozen",
				    "process %d is neither frozen nor evicted: nothing to thaw", pid);
	}
	if (o->dry_run || t->image->state == FIRN_TARGET_WEDGED) {
		bool wedged = t->image->state == FIRN_TARGET_WEDGED;

		firn_target_fill_report(t, ret);
		firn_target_release(en, t);
		return wedged ? firn_err_set(&ret->err, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
					     "process %d is wedged: it is not touched any more, its pack is kept", pid) :
				0;
	}
	return firn_thaw_target(en, t, o, ret);
}

int firn_engine_thaw_all(struct firn_engine *en, const struct firn_evict_options *o,
			 void (*fn)(void *arg, const struct firn_report *r), void *arg)
{
	uint64_t seen = 0;
	int first = 0;

	for (;;) {
		struct firn_target *t;
		struct firn_report r;
		uint64_t next = 0;
		int err = 0;

		/* By order of birth, so that each is tried once. */
		pthread_mutex_lock(&en->lock);
		for (t = en->targets; t; t = t->next)
			if (t->image->serial > seen && (!next || t->image->serial < next))
				next = t->image->serial;
		pthread_mutex_unlock(&en->lock);
		if (!next)
			return first;
		seen = next;
		t = firn_target_take(en, 0, next);
		if (!t)
			continue;
		memset(&r, 0, sizeof(r));
		r.err.pid = t->pid;
		if (o->dry_run || t->image->state == FIRN_TARGET_WEDGED) {
			firn_target_fill_report(t, &r);
			if (t->image->state == FIRN_TARGET_WEDGED)
				err = firn_err_set(&r.err, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
						   "process %d is wedged: it is not touched any more, its pack is kept",
						   t->pid);
			firn_target_release(en, t);
		} else {
			err = firn_thaw_target(en, t, o, &r);
			/* It ended meanwhile: that is no failure of thawing all. */
			if (r.err.code == FIRN_EXIT_NOT_FOUND) {
				firn_err_clear(&r.err);
				err = 0;
			}
		}
		if (err && !first)
			first = err;
		fn(arg, &r);
	}
}
