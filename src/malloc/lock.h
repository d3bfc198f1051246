/* SPDX-License-Identifier: MIT */
/* A lock of one word: an atomic, and a futex where it is held. */
#ifndef FIRN_MALLOC_LOCK_H
#define FIRN_MALLOC_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct firn_lock {
	_Atomic uint32_t word;          /* 0 free, 1 held, 2 held and somebody waits */
};

void firn_lock_wait(struct firn_lock *l);
void firn_lock_wake(struct firn_lock *l);

static inline bool firn_lock_try(struct firn_lock *l)
{
	uint32_t free = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &free, 1, memory_order_acquire, memory_order_relaxed);
}

static inline void firn_lock_take(struct firn_lock *l)
{
	if (!firn_lock_try(l))
		firn_lock_wait(l);
}

static inline void firn_lock_drop(struct firn_lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2)
		firn_lock_wake(l);
}

/* In a forked child, for locks that the parent's fork handler took. */
static inline void firn_lock_reset(struct firn_lock *l)
{
	atomic_store_explicit(&l->word, 0, memory_order_relaxed);
}

#endif
