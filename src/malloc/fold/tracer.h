/* SPDX-License-Identifier: MIT */
/* The tracer tier: the helper stops every other thread, and nobody sees an interrupted call. */
#ifndef FIRN_MALLOC_FOLD_TRACER_H
#define FIRN_MALLOC_FOLD_TRACER_H

#include "malloc/fold/barrier.h"

#define FIRN_TRACER_DEADLINE_NS 5000000

/*
 * In the helper: stop all threads of firn_helper.program but the caller's; b->tids are theirs.
 * Returns 0; -EAGAIN not now; -EPERM never.  b->why says which.  On failure no thread is stopped; some may be
 * traced until the helper exits, which it must do then.
 */
int firn_tracer_stop(struct firn_barrier *b);

/* All run again. */
void firn_tracer_go(struct firn_barrier *b);

#endif
