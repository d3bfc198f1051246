/* SPDX-License-Identifier: MIT */
/* What the folder's own files share: the pass lock, and the passes that ticks drive. */
#ifndef FIRN_MALLOC_FOLD_TICK_H
#define FIRN_MALLOC_FOLD_TICK_H

#include "malloc/fold/fold.h"

/* Held by whoever ticks.  Order: this one, then classes' locks in ascending order, then the heap's. */
extern struct firn_lock firn_pass_lock;

/* Take the pass lock, and see to it that no page is held: a slice that was begun comes to its end. */
void firn_pass_stop(void);

#endif
