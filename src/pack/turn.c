/* SPDX-License-Identifier: MIT */
/*
 * Who passes a turn first says so, then looks for sleepers; who goes to sleep first counts itself, then looks once
 * more.  So one of the two sees the other.
 */
#include "pack/turn.h"

#define LOOKS 1000u             /* some 20 to 50 us */

static void rest(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

int firn_turn_open(struct firn_turn *t)
{
	int err = pthread_mutex_init(&t->lock, NULL);

	if (err)
		return -err;
	err = pthread_cond_init(&t->moved, NULL);
	if (err)
		pthread_mutex_destroy(&t->lock);
	firn_turn_begin(t);
	return -err;
}

void firn_turn_close(struct firn_turn *t)
{
	pthread_cond_destroy(&t->moved);
	pthread_mutex_destroy(&t->lock);
}

void firn_turn_begin(struct firn_turn *t)
{
	atomic_store(&t->now, 0);
	atomic_store(&t->sleepers, 0);
	atomic_store(&t->over, false);
}

static bool decided(struct firn_turn *t, uint32_t number)
{
	return atomic_load(&t->now) == number || atomic_load(&t->over);
}

bool firn_turn_await(struct firn_turn *t, uint32_t number)
{
	for (unsigned int n = 0; n < LOOKS && !decided(t, number); n++)
		rest();
	if (!decided(t, number)) {
		pthread_mutex_lock(&t->lock);
		atomic_fetch_add(&t->sleepers, 1);
		while (!decided(t, number))
			pthread_cond_wait(&t->moved, &t->lock);
		atomic_fetch_sub(&t->sleepers, 1);
		pthread_mutex_unlock(&t->lock);
	}
	return !atomic_load(&t->over);
}

static void wake(struct firn_turn *t)
{
	if (!atomic_load(&t->sleepers))
		return;
	pthread_mutex_lock(&t->lock);
	pthread_cond_broadcast(&t->moved);
	pthread_mutex_unlock(&t->lock);
}

void firn_turn_pass(struct firn_turn *t)
{
	atomic_fetch_add(&t->now, 1);
	wake(t);
}

void firn_turn_end(struct firn_turn *t)
{
	atomic_store(&t->over, true);
	wake(t);
}
