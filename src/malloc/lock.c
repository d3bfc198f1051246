/* SPDX-License-Identifier: MIT */
#include "malloc/lock.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include "malloc/os.h"

#define SPINS 100

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void firn_lock_wait(struct firn_lock *l)
{
	/* Held for a microsecond, as a rule. */
	for (int i = 0; i < SPINS; i++) {
		if (!atomic_load_explicit(&l->word, memory_order_relaxed) && firn_lock_try(l))
			return;
		relax();
	}
	while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire))
		firn_os.call(SYS_futex, (long)&l->word, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

void firn_lock_wake(struct firn_lock *l)
{
	firn_os.call(SYS_futex, (long)&l->word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
