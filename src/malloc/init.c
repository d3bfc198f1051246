/* SPDX-License-Identifier: MIT */
/* The first allocation, which may come before libc is ready; the constructor; and fork. */
#include <pthread.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "malloc/api.h"
#include "malloc/config.h"
#include "malloc/fold/background.h"
#include "malloc/fold/fold.h"
#include "malloc/large.h"

static _Atomic int state;               /* 0 nothing, 1 being set up, 2 ready */
static bool environment_read;

bool firn_init_done(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) == 2;
}

static void read_environment(void)
{
	if (environment_read || !environ)
		return;
	environment_read = true;
	/* Whoever starts a program with more rights than his own does not configure it. */
	if (!getauxval(AT_SECURE))
		firn_config_read(environ);
}

void firn_init(void)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&state, &none, 1)) {
		/* Another thread is at it. */
		while (!firn_init_done())
			;
		return;
	}
	read_environment();
	if (firn_cache_open() || firn_heap_open())
		firn_die("no address space for a heap");
	firn_depot_open();
	atomic_store(&state, 2);
}

/* Lock order: the pass, the classes in ascending order, the heap, huge allocations, the caches' list. */
static void before_fork(void)
{
	firn_fold_before_fork();
	for (unsigned int c = 1; c < FIRN_CLASSES; c++)
		firn_lock_take(&firn_bins[c].lock);
	firn_lock_take(&firn_heap.lock);
	firn_large_lock();
	firn_cache_lock();
}

static void after_fork(bool child)
{
	firn_cache_unlock(child);
	firn_large_unlock(child);
	if (child)
		firn_lock_reset(&firn_heap.lock);
	else
		firn_lock_drop(&firn_heap.lock);
	for (unsigned int c = FIRN_CLASSES - 1; c > 0; c--) {
		if (child)
			firn_lock_reset(&firn_bins[c].lock);
		else
			firn_lock_drop(&firn_bins[c].lock);
	}
	firn_fold_after_fork(child);
}

static void after_fork_parent(void)
{
	after_fork(false);
}

static void after_fork_child(void)
{
	after_fork(true);
	firn_background_start();
}

__attribute__((constructor(101))) static void start(void)
{
	if (!firn_init_done())
		firn_init();
	read_environment();
	/* First to register, last to run before a fork: nobody allocates after it. */
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
	firn_background_start();
}
