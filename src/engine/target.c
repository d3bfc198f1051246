/* SPDX-License-Identifier: MIT */
/*
 * The registry of targets, and what is reported of them.
 */
#include "engine/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "sys/sys.h"

#define SWEEP_NS (5ull * 1000000000u)

static const char *const state_names[] = {
	"planned", "stopping", "frozen", "evicted", "thawing", "resident", "wedged", "held",
};

static const char *const phase_names[] = {
	"plan", "stop", "walk", "gather", "write", "arm", "drop", "leave", "total", "run", "whole",
};

const char *firn_target_state_name(enum firn_target_state s)
{
	return state_names[s];
}

const char *firn_phase_name(enum firn_phase p)
{
	return phase_names[p];
}

struct firn_target *firn_target_new(void)
{
	struct firn_target *t = calloc(1, sizeof(*t));

	if (t) {
		t->pidfd = -1;
		t->armed.uffd = -1;
	}
	return t;
}

void firn_target_free(struct firn_engine *en, struct firn_target *t)
{
	(void)en;
	firn_fd_close(&t->pidfd);
	firn_fd_close(&t->armed.uffd);
	firn_image_unmap(t);
	free(t);
}

void firn_target_insert(struct firn_engine *en, struct firn_target *t)
{
	pthread_mutex_lock(&en->lock);
	t->next = en->targets;
	en->targets = t;
	pthread_mutex_unlock(&en->lock);
}

struct firn_target *firn_target_take(struct firn_engine *en, pid_t pid, uint64_t serial)
{
	struct firn_target *t;

	pthread_mutex_lock(&en->lock);
	for (;;) {
		for (t = en->targets; t; t = t->next)
			if (serial ? t->image->serial == serial : t->pid == pid)
				break;
		if (!t || !t->busy)
			break;
		pthread_cond_wait(&en->changed, &en->lock);
	}
	if (t)
		t->busy = true;
	pthread_mutex_unlock(&en->lock);
	return t;
}

void firn_target_release(struct firn_engine *en, struct firn_target *t)
{
	pthread_mutex_lock(&en->lock);
	t->busy = false;
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
}

void firn_target_forget(struct firn_engine *en, struct firn_target *t)
{
	firn_watch_end(t);
	if (t->served)
		firn_pager_remove(en->pager, &t->armed);
	pthread_mutex_lock(&en->lock);
	for (struct firn_target **p = &en->targets; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	/* First the image: a pack without one is swept by a successor, the other way round is not. */
	firn_sys.unlink(t->image_path);
	firn_pack_unref(t->pack);
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
	firn_target_free(en, t);
}

void firn_target_set_state(struct firn_target *t, enum firn_target_state s)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	t->image->since_ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	__atomic_store_n(&t->image->state, (uint32_t)s, __ATOMIC_SEQ_CST);
}

void firn_target_fill_report(const struct firn_target *t, struct firn_report *r)
{
	const struct firn_image *m = t->image;
	struct firn_proc proc;

	r->pid = t->pid;
	r->parent = m->parent;
	r->start_time = m->start_time;
	memcpy(r->comm, m->comm, sizeof(r->comm));
	r->state = (enum firn_target_state)m->state;
	r->since_ms = m->since_ms;
	firn_link_count(&t->armed.link, &r->counts);
	if (t->pack) {
		const struct firn_pack_memory *p = t->pack->file.m;

		r->generation = p->generation;
		r->pack_bytes = p->bytes;
		r->pack_raw_bytes = p->raw_bytes;
		r->duplicates = p->duplicates;
		r->blocks = p->blocks;
		r->base_generation = p->base_generation;
		r->base_bytes = t->pack->base ? t->pack->base->file.m->bytes : 0;
		r->reused_bytes = p->reused_pages * p->page_size;
		r->cipher = p->cipher;
		r->kind = p->kind == FIRN_PACK_DIRECT ? FIRN_PACK_DIRECT : FIRN_PACK_COPIED;
		r->write_calls = p->write_calls;
		r->write_bytes = p->write_bytes;
		memcpy(r->pack_path, firn_pack_path(t->pack), sizeof(r->pack_path));
		r->in_ram = p->in_ram;
		r->move_after_s = p->move_after_s;
	}
	r->read_calls = m->armed.read_calls;
	r->read_bytes = m->armed.read_bytes;
	r->blocks_read = m->armed.blocks_read;
	r->faults = m->armed.fault_latency.count;
	r->fault_p50_ns = firn_latency_percentile(&m->armed.fault_latency, 50);
	r->fault_p99_ns = firn_latency_percentile(&m->armed.fault_latency, 99);
	r->fault_max_ns = m->armed.fault_latency.max_ns;
	r->lost = m->armed.lost_pages;
	r->memory_before = m->memory_before;
	r->memory_after = m->memory_after;
	if (t->pid && !firn_proc_read(t->pid, &proc) && proc.start_time == m->start_time)
		r->memory_after = proc.rss_anon_bytes;
	r->pages = m->pages;
	r->set_pages = m->set.count;
	r->recorded_pages = firn_recording_count(&m->armed.recording);
	memcpy(r->ns, m->ns, sizeof(r->ns));
	r->group = m->group;
	memcpy(r->group_text, m->group_text, sizeof(r->group_text));
	firn_watch_fill(t, &r->wake);
}

bool firn_target_ended(struct firn_target *t)
{
	struct pollfd p = { t->pidfd, POLLIN, 0 };

	if (atomic_load(&t->armed.gone))
		return true;
	/* Which process a forked child is, is a guess among siblings: only its memory tells. */
	if (!t->image->parent && t->pidfd >= 0 && poll(&p, 1, 0) > 0)
		return true;
	return firn_armed_ended(&t->armed);
}

void firn_engine_each(struct firn_engine *en, void (*fn)(void *arg, const struct firn_report *r), void *arg)
{
	pthread_mutex_lock(&en->lock);
	for (struct firn_target *t = en->targets; t; t = t->next) {
		struct firn_report r;

		/* Being evicted: its other image tells. */
		if (t->image->state == FIRN_TARGET_HELD && t->busy)
			continue;
		memset(&r, 0, sizeof(r));
		firn_child_identify(en, t);
		firn_target_fill_report(t, &r);
		fn(arg, &r);
	}
	pthread_mutex_unlock(&en->lock);
}

int firn_engine_show_woken(struct firn_engine *en, pid_t pid, struct firn_report *ret)
{
	struct firn_wake_record record;
	struct firn_proc proc;

	memset(ret, 0, sizeof(*ret));
	if (firn_proc_read(pid, &proc) || firn_wake_record_load(en, pid, proc.start_time, &record))
		return -ENOENT;
	ret->pid = pid;
	ret->start_time = proc.start_time;
	memcpy(ret->comm, proc.comm, sizeof(ret->comm));
	ret->state = FIRN_TARGET_RESIDENT;
	ret->since_ms = record.woken.at_ms;
	ret->memory_before = ret->memory_after = proc.rss_anon_bytes;
	ret->woken = record.woken;
	return 0;
}

int firn_engine_show(struct firn_engine *en, pid_t pid, struct firn_report *ret)
{
	struct firn_wake_record record;
	int err = -ENOENT;

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&en->lock);
	for (struct firn_target *t = en->targets; t; t = t->next) {
		firn_child_identify(en, t);
		if (t->pid == pid) {
			firn_target_fill_report(t, ret);
			err = 0;
			break;
		}
	}
	pthread_mutex_unlock(&en->lock);
	if (err)
		return err;
	firn_wake_record_load(en, pid, ret->start_time, &record);
	ret->woken = record.woken;
	return 0;
}

pid_t firn_engine_keeper(struct firn_engine *en)
{
	pid_t keeper;

	pthread_mutex_lock(&en->lock);
	keeper = en->config.keeper;
	pthread_mutex_unlock(&en->lock);
	return keeper;
}

void firn_engine_set_keeper(struct firn_engine *en, pid_t keeper)
{
	pthread_mutex_lock(&en->lock);
	en->config.keeper = keeper;
	for (struct firn_target *t = en->targets; t; t = t->next)
		firn_image_hold(en, t->image, t->armed.uffd);
	pthread_mutex_unlock(&en->lock);
}

unsigned int firn_engine_reap(struct firn_engine *en)
{
	unsigned int left = 0;
	uint64_t seen = 0, now = firn_sys.clock_ns();

	if (now - en->swept_ns > SWEEP_NS) {
		en->swept_ns = now;
		firn_engine_workset_sweep(en);
		firn_wake_sweep(en);
		firn_kept_sweep(en);
	}
	/* By order of birth.  Asking takes the layout lock, which others hold when they want the registry's:
	 * so the target is taken, and asked without. */
	for (;;) {
		struct firn_target *t, *next = NULL;
		bool ended;

		pthread_mutex_lock(&en->lock);
		for (t = en->targets; t; t = t->next)
			if (t->image->serial > seen && (!next || t->image->serial < next->image->serial))
				next = t;
		if (next) {
			seen = next->image->serial;
			left++;
			if (next->busy) {
				pthread_mutex_unlock(&en->lock);
				continue;
			}
			next->busy = true;
		}
		pthread_mutex_unlock(&en->lock);
		if (!next)
			return left;
		ended = next->image->state != FIRN_TARGET_WEDGED && firn_target_ended(next);
		if (ended) {
			left--;
			firn_target_forget(en, next);
		} else {
			firn_target_release(en, next);
		}
	}
}
