/* SPDX-License-Identifier: MIT */
/*
 * Turns: steps that several threads take in the order of numbers, each as soon as the one before is done.
 *
 * A step is shorter than it takes to put a processor to sleep and wake it, above all in a virtual machine: who waits
 * looks again and again for a while before it sleeps.
 *
 * The builder's own; not for others.
 */
#ifndef FIRN_PACK_TURN_H
#define FIRN_PACK_TURN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct firn_turn {
	atomic_uint now;                /* the number whose turn it is */
	atomic_uint sleepers;
	atomic_bool over;               /* nobody waits any more */
	pthread_mutex_t lock;           /* for sleeping only */
	pthread_cond_t moved;
};

/* Returns 0, or -errno. */
int firn_turn_open(struct firn_turn *t);
void firn_turn_close(struct firn_turn *t);

/* Start with number 0.  Nobody waits. */
void firn_turn_begin(struct firn_turn *t);

/* Wait for the turn of @number.  False: it does not come. */
bool firn_turn_await(struct firn_turn *t, uint32_t number);

/* End one's turn: the next number's begins. */
void firn_turn_pass(struct firn_turn *t);

/* No turn comes any more, until begin.  Any thread. */
void firn_turn_end(struct firn_turn *t);

#endif
