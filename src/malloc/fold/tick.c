/* SPDX-License-Identifier: MIT */
/*
 * When: purges and passes are driven by threads of the program that come by.  Owns the pass lock and the
 * time at which something is due next; may use nothing of libc.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "malloc/cache.h"
#include "malloc/config.h"
#include "malloc/fold/frame.h"
#include "malloc/fold/pass.h"
#include "malloc/heap.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#define NEVER UINT64_MAX
#define GAP_MS 2u                       /* between two slices of a thread that has other things to do */
#define SHARE 50u                       /* passes that give nothing take one part in so many of the time */
/* Of firn_config.cpu_percent of a minute, a sixth may be used up at once; it comes back at two thirds of that rate.
 * The rest is for the last pass that was begun before it was used up. */
#define BURST_MS 10000

struct firn_lock firn_pass_lock;

static _Atomic uint64_t due_ms;         /* of the earliest of all that is due */
static _Atomic bool under_way;          /* a pass, and it need not wait */
/* Under the pass lock. */
static uint64_t purge_ms, pass_ms, slice_ms;
static int64_t credit_ns;               /* processor time that passes may use; below 0: that they used beyond it */
static uint64_t credit_ms;              /* when that was so; 0: never yet */

/* Which process this is all about: a page that a fork wipes tells a child, even one of a raw clone(), from one
 * that shares our memory. */
static struct own {
	_Atomic long pid;               /* 0: wiped; -1: being set */
} *own;

static long pid(void)
{
	return firn_os.call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* A signal handler that allocates would wait for a lock that its own thread holds. */
static void block_signals(uint64_t *ret_before)
{
	uint64_t all = ~(uint64_t)0;

	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)ret_before, sizeof(all), 0, 0);
}

static void unblock_signals(const uint64_t *before)
{
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)before, 0, sizeof(*before), 0, 0);
}

static void forget_parents(void)
{
	firn_lock_reset(&firn_pass_lock);
	/* Its memory was not inherited. */
	firn_pass.memory = NULL;
	firn_pass_end();
	firn_frames_forked();
	purge_ms = pass_ms = slice_ms = 0;
	atomic_store(&under_way, false);
	atomic_store(&due_ms, 0);
}

/* Is this the process whose heap this is, and not one that borrows its memory? */
static bool is_ours(void)
{
	static _Atomic bool setting;
	struct own *o = __atomic_load_n(&own, __ATOMIC_ACQUIRE);
	long known, me = pid();

	if (!o) {
		if (atomic_exchange(&setting, true))
			return false;
		o = firn_os.mmap(NULL, FIRN_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (firn_os_failed(o)) {
			atomic_store(&setting, false);
			return false;
		}
		firn_os.madvise(o, FIRN_PAGE_BYTES, MADV_WIPEONFORK);
		atomic_store(&o->pid, me);
		__atomic_store_n(&own, o, __ATOMIC_RELEASE);
		return true;
	}
	known = 0;
	if (!atomic_compare_exchange_strong(&o->pid, &known, -1))
		return known == me;
	forget_parents();
	atomic_store(&o->pid, me);
	return true;
}

static bool may_fold(void)
{
	return firn_config.fold && firn_config.barrier != FIRN_BARRIER_OFF;
}

/* Milliseconds until passes may use more processor time. */
static uint64_t rest_ms(uint64_t now)
{
	int64_t each = (int64_t)firn_config.cpu_percent * 10000, a_ms = each * 2 / 3, most = each * BURST_MS;

	credit_ns = credit_ms ? credit_ns + (int64_t)(now - credit_ms) * a_ms : most;
	if (credit_ns > most)
		credit_ns = most;
	credit_ms = now;
	return credit_ns < 0 ? (uint64_t)(-credit_ns / a_ms + 1) : 0;
}

static void begin_pass(uint64_t now)
{
	/* What threads cached before and did not use since goes back to the masks as they come by. */
	atomic_fetch_add_explicit(&firn_cache_epoch, 1, memory_order_relaxed);
	firn_pass_begin(false);
	pass_ms = now + (firn_config.period_ms ? firn_config.period_ms : 1);
	slice_ms = now;
}

static void go_on(uint64_t now)
{
	uint64_t given = firn_pass.given_back, spent = firn_pass.spent_ns, rest;
	uint32_t wait_ms;
	bool more = firn_pass_slice(&wait_ms);

	credit_ns -= (int64_t)(firn_pass.spent_ns - spent);
	if (more) {
		slice_ms = now + (wait_ms ? wait_ms : GAP_MS);
		atomic_store_explicit(&under_way, !wait_ms || firn_pass_begun(), memory_order_relaxed);
		return;
	}
	atomic_store_explicit(&under_way, false, memory_order_relaxed);
	if (firn_pass.given_back > given)
		given = firn_pass.given_back;
	rest = given ? 0 : firn_pass.spent_ns * SHARE / 1000000;
	if (pass_ms < now + rest)
		pass_ms = now + rest;
}

/* One thing of it.  Returns whether there is another. */
static enum firn_tick do_what_is_due(uint64_t now, bool idle)
{
	uint64_t half = firn_config.decay_ms / 2, next, rest;

	if (now >= purge_ms && !firn_pass_begun()) {
		uint64_t begun = firn_os.clock_ns();

		firn_span_purge(false);
		firn_heap_purge(now > firn_config.decay_ms ? now - firn_config.decay_ms : 0);
		firn_count_pause(firn_os.clock_ns() - begun);
		purge_ms = now + (firn_span_purge_unfinished() ? idle ? 0 : GAP_MS : half ? half : 1);
	} else if (firn_pass.stage != FIRN_PASS_NONE) {
		if (now >= slice_ms || atomic_load_explicit(&under_way, memory_order_relaxed))
			go_on(now);
	} else if (now >= pass_ms && may_fold()) {
		rest = rest_ms(now);
		if (rest)
			pass_ms = now + rest;
		else
			begin_pass(now);
		if (firn_pass.stage != FIRN_PASS_NONE)
			go_on(now);
	}
	next = firn_pass_begun() ? slice_ms : purge_ms;
	if (firn_pass.stage != FIRN_PASS_NONE) {
		if (slice_ms < next)
			next = slice_ms;
	} else if (may_fold() && pass_ms < next) {
		next = pass_ms;
	}
	atomic_store_explicit(&due_ms, next, memory_order_relaxed);
	if (firn_pass_begun())
		return FIRN_TICK_SOON;
	return next <= now || atomic_load_explicit(&under_way, memory_order_relaxed) ? FIRN_TICK_AGAIN : FIRN_TICK_NOTHING;
}

enum firn_tick firn_fold_tick(bool idle)
{
	uint64_t now = firn_os.clock_ms(), signals;
	enum firn_tick left = FIRN_TICK_NOTHING;

	if (now < atomic_load_explicit(&due_ms, memory_order_relaxed) &&
	    !(idle && atomic_load_explicit(&under_way, memory_order_relaxed)))
		return FIRN_TICK_NOTHING;
	if (!firn_heap.base)
		return FIRN_TICK_NOTHING;
	block_signals(&signals);
	if (is_ours() && firn_lock_try(&firn_pass_lock)) {
		left = do_what_is_due(now, idle);
		firn_lock_drop(&firn_pass_lock);
	}
	unblock_signals(&signals);
	return left;
}

void firn_pass_stop(void)
{
	firn_lock_take(&firn_pass_lock);
	firn_pass_finish();
}

/* The pass lock is let go between slices: a fork waits for it. */
static size_t whole_pass(void)
{
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE), wait_ms = 0;
	size_t bytes = 0;

	firn_pass_end();
	for (uint32_t done = 0; done < units && !wait_ms; done += FIRN_WINDOW_UNITS) {
		firn_pass_begin(true);
		atomic_store_explicit(&under_way, true, memory_order_relaxed);
		while (!wait_ms && firn_pass_slice(&wait_ms)) {
			firn_lock_drop(&firn_pass_lock);
			firn_lock_take(&firn_pass_lock);
		}
		bytes += firn_pass.given_back;
	}
	/* Where the barrier is not to be had just now, ticks go on with it. */
	slice_ms = firn_os.clock_ms() + wait_ms;
	atomic_store_explicit(&under_way, false, memory_order_relaxed);
	return bytes;
}

size_t firn_fold_now(void)
{
	size_t bytes = 0;
	uint64_t signals;

	if (!firn_heap.base)
		return 0;
	block_signals(&signals);
	if (is_ours()) {
		firn_pass_stop();
		bytes = (firn_span_purge(true) + firn_heap_purge(UINT64_MAX)) * FIRN_PAGE_BYTES;
		if (may_fold())
			bytes += whole_pass();
		atomic_store_explicit(&due_ms, 0, memory_order_relaxed);
		firn_lock_drop(&firn_pass_lock);
	}
	unblock_signals(&signals);
	return bytes;
}

void firn_fold_before_fork(void)
{
	firn_pass_stop();
}

void firn_fold_after_fork(bool child)
{
	if (!child) {
		firn_lock_drop(&firn_pass_lock);
		return;
	}
	forget_parents();
	if (own)
		atomic_store(&own->pid, pid());
}
