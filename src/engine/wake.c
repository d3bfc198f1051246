/* SPDX-License-Identifier: MIT */
/*
 * Wake on use: which targets are watched, and what is noted of them when they are stopped.
 */
#include "engine/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "sys/sys.h"

uint64_t firn_engine_wake_id(struct firn_engine *en)
{
	uint64_t id = firn_wake_now_ms() << 16;

	/* Beyond all that images of former agents hold, unless the clock was set back by their whole life. */
	pthread_mutex_lock(&en->lock);
	for (struct firn_target *t = en->targets; t; t = t->next)
		id = firn_max_u64(id, t->image->wake.id + 1);
	en->wake_id = firn_max_u64(id, en->wake_id + 1);
	id = en->wake_id;
	pthread_mutex_unlock(&en->lock);
	return id;
}

struct timers {
	struct firn_engine *en;
	struct firn_wake_memory *m;
	pid_t live;
};

/*
 * A timer that ticks, or is set anew every so often, must not wake.  How far away one is, is only to be seen now:
 * later it may have run out while the target could not set it anew.
 */
static int note_timer(void *arg, long number)
{
	struct timers *s = arg;
	uint64_t tick = s->en->config.wake_tick_ns ? s->en->config.wake_tick_ns : FIRN_WAKE_TICK_NS;
	struct firn_fd f;

	if (firn_fd_read(s->live, (int)number, &f) || f.kind != FIRN_FD_TIMERFD)
		return 0;
	if (f.interval_ns ? f.interval_ns < tick : f.left_ns ? f.left_ns < tick : !f.ticks)
		return 0;
	if (s->m->ntimers < FIRN_WAKE_TIMERS)
		s->m->timers[s->m->ntimers++] = f.fd;
	return 0;
}

void firn_wake_note(struct firn_engine *en, struct firn_target *t, uint64_t id)
{
	struct timers s = { en, &t->image->wake, firn_proc_live_thread(t->pid) };
	char dir[64];

	memset(s.m, 0, sizeof(*s.m));
	s.m->stopped_ms = firn_wake_now_ms();
	snprintf(dir, sizeof(dir), "/proc/%d/fd", s.live);
	firn_sys_each_number(dir, note_timer, &s);
	s.m->id = id;
}

void firn_wake_say(struct firn_engine *en, struct firn_wake_note *note)
{
	pthread_mutex_lock(&en->lock);
	note->next = NULL;
	*en->wake_last = note;
	en->wake_last = &note->next;
	pthread_cond_signal(&en->wake_said);
	pthread_mutex_unlock(&en->lock);
}

static void *say_all(void *arg)
{
	struct firn_engine *en = arg;

	prctl(PR_SET_NAME, "firnd-wake");
	pthread_mutex_lock(&en->lock);
	while (!en->wake_ending) {
		struct firn_wake_note *note = en->wake_notes;

		if (!note) {
			pthread_cond_wait(&en->wake_said, &en->lock);
			continue;
		}
		en->wake_notes = note->next;
		if (!en->wake_notes)
			en->wake_last = &en->wake_notes;
		pthread_mutex_unlock(&en->lock);
		en->on_wake(en->wake_arg, note->id, note->line);
		free(note);
		pthread_mutex_lock(&en->lock);
	}
	pthread_mutex_unlock(&en->lock);
	return NULL;
}

int firn_engine_on_wake(struct firn_engine *en, void (*fn)(void *arg, uint64_t id, const char *line), void *arg)
{
	int err;

	en->on_wake = fn;
	en->wake_arg = arg;
	en->wake_last = &en->wake_notes;
	pthread_cond_init(&en->wake_said, NULL);
	err = pthread_create(&en->wake_thread, NULL, say_all, en);
	en->wake_open = !err;
	return -err;
}

void firn_engine_wake_end(struct firn_engine *en)
{
	if (!en->wake_open)
		return;
	pthread_mutex_lock(&en->lock);
	en->wake_ending = true;
	pthread_cond_signal(&en->wake_said);
	pthread_mutex_unlock(&en->lock);
	pthread_join(en->wake_thread, NULL);
	for (struct firn_wake_note *note = en->wake_notes, *next; note; note = next) {
		next = note->next;
		free(note);
	}
	en->wake_open = false;
}

/* Is it frozen, to be woken, and is nobody looking?  One that was stopped by others before would not run if woken. */
static bool unwatched(const struct firn_engine *en, const struct firn_target *t)
{
	return en->wake_open && t->image->wake.id && !t->image->was_stopped && !firn_watch_goes_on(t) &&
	       ((t->image->state == FIRN_TARGET_FROZEN && t->served) || t->image->state == FIRN_TARGET_HELD);
}

void firn_engine_watch(struct firn_engine *en, uint64_t id)
{
	uint64_t seen = 0;

	for (;;) {
		struct firn_target *t;
		uint64_t next = 0;

		/* By order of birth, so that each is tried once. */
		pthread_mutex_lock(&en->lock);
		for (t = en->targets; t; t = t->next) {
			if (t->image->serial <= seen || (next && t->image->serial > next))
				continue;
			/* Those under way are looked at when that is over: nothing waits for them here. */
			if (id ? t->image->wake.id == id : t->wake_ready && !t->busy && unwatched(en, t))
				next = t->image->serial;
		}
		pthread_mutex_unlock(&en->lock);
		if (!next)
			return;
		seen = next;
		t = firn_target_take(en, 0, next);
		if (!t)
			continue;
		if (unwatched(en, t) && (id ? t->image->wake.id == id : t->wake_ready)) {
			int err;

			t->wake_ready = true;
			firn_watch_end(t);
			err = firn_watch_begin(en, t);
			if (err)
				firn_log("process %d: it cannot be watched (%s): only firn thaw brings it back; tried again in a while",
					 t->pid, strerror(-err));
		}
		firn_target_release(en, t);
	}
}

unsigned int firn_engine_wake_members(struct firn_engine *en, uint64_t id, pid_t *pids, unsigned int max)
{
	unsigned int n = 0;

	pthread_mutex_lock(&en->lock);
	for (struct firn_target *t = en->targets; t && n < max; t = t->next)
		if (t->image->wake.id == id && t->pid &&
		    (t->image->state == FIRN_TARGET_FROZEN || t->image->state == FIRN_TARGET_HELD))
			pids[n++] = t->pid;
	pthread_mutex_unlock(&en->lock);
	return n;
}
