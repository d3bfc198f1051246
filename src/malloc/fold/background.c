/* SPDX-License-Identifier: MIT */
/*
 * The thread of FIRN_MALLOC_BACKGROUND=1, for programs that neither allocate nor wait in a way that is seen.  All
 * signals are blocked in it: it takes none that are the program's.
 */
#include "malloc/fold/background.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/os.h"

#define LEAST_MS 10u
#define SOON_NS 1000000
#define STACK_BYTES (256u << 10)

static void *work(void *arg)
{
	uint32_t ms = firn_config.period_ms < firn_config.decay_ms ? firn_config.period_ms : firn_config.decay_ms;
	struct timespec t, soon = { 0, SOON_NS };
	enum firn_tick left;

	(void)arg;
	ms = ms / 2 > LEAST_MS ? ms / 2 : LEAST_MS;
	t = (struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000 };
	for (;;) {
		/* The kernel's own: the library's is interposed. */
		firn_os.call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&t, 0, 0, 0);
		while ((left = firn_fold_tick(true)) != FIRN_TICK_NOTHING)
			if (left == FIRN_TICK_SOON)
				firn_os.call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&soon, 0, 0, 0);
	}
	return NULL;
}

void firn_background_start(void)
{
	sigset_t all, own;
	pthread_attr_t a;
	pthread_t thread;

	if (!firn_config.background || pthread_attr_init(&a))
		return;
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &own);
	if (!pthread_create(&thread, &a, work, NULL))
		pthread_setname_np(thread, "firn-malloc");
	pthread_sigmask(SIG_SETMASK, &own, NULL);
	pthread_attr_destroy(&a);
}
