/* SPDX-License-Identifier: MIT */
/*
 * When: purges and passes are driven by threads of the program that come by.  Owns the pass lock and the
 * time at which something is due next; may use nothing of libc.
 */
#include <signal.h>
#include <sys/syscall.h>

#include "malloc/config.h"
#include "malloc/fold/tick.h"
#include "malloc/heap.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define NEVER UINT64_MAX

struct firn_lock firn_pass_lock;

static _Atomic uint64_t due_ms;         /* of the earliest of all that is due */
static uint64_t purge_ms;               /* under the pass lock */
static long self;                       /* the process that all of this is about */

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

bool firn_fold_tick(bool idle)
{
	uint64_t now = firn_os.clock_ms(), half = firn_config.decay_ms / 2, signals;

	(void)idle;
	if (now < atomic_load_explicit(&due_ms, memory_order_relaxed) || !firn_heap.base)
		return false;
	block_signals(&signals);
	if (!firn_lock_try(&firn_pass_lock)) {
		unblock_signals(&signals);
		return false;
	}
	if (!self)
		self = pid();
	if (self == pid() && now >= purge_ms) {
		atomic_store_explicit(&due_ms, NEVER, memory_order_relaxed);
		firn_span_purge(false);
		firn_heap_purge(now > firn_config.decay_ms ? now - firn_config.decay_ms : 0);
		purge_ms = now + (half ? half : 1);
	}
	atomic_store_explicit(&due_ms, purge_ms, memory_order_relaxed);
	firn_lock_drop(&firn_pass_lock);
	unblock_signals(&signals);
	return false;
}

size_t firn_fold_now(void)
{
	size_t pages = 0;
	uint64_t signals;

	if (!firn_heap.base)
		return 0;
	block_signals(&signals);
	firn_lock_take(&firn_pass_lock);
	if (!self)
		self = pid();
	if (self == pid()) {
		pages = firn_span_purge(true);
		pages += firn_heap_purge(UINT64_MAX);
	}
	firn_lock_drop(&firn_pass_lock);
	unblock_signals(&signals);
	return pages * FIRN_PAGE_BYTES;
}

void firn_fold_release(struct firn_span *s, uint16_t pages)
{
	(void)s;
	(void)pages;
}

void firn_fold_before_fork(void)
{
	firn_lock_take(&firn_pass_lock);
}

void firn_fold_after_fork(bool child)
{
	if (child) {
		firn_lock_reset(&firn_pass_lock);
		self = pid();
	} else {
		firn_lock_drop(&firn_pass_lock);
	}
}
