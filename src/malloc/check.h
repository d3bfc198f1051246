/* SPDX-License-Identifier: MIT */
/*
 * Checks of the allocator's invariants, by their numbers in docs/invariants.md ("Allocator").  Compiled with
 * -Dmalloc_checks=full only; in any other build nothing of this file exists, and its hooks are empty.
 */
#ifndef FIRN_MALLOC_CHECK_H
#define FIRN_MALLOC_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef FIRN_MALLOC_CHECKS

/*
 * Each returns the number of the first invariant that does not hold, 0 where all do; firn_check_where says
 * of which class and unit.  @quiet: no other thread is in the allocator, so that counts which lag behind for an
 * instant have to be right.  Thread: any, not in the middle of anything; they take the locks they need.
 */
unsigned int firn_check_span(uint32_t unit, bool quiet);
unsigned int firn_check_bin(unsigned int c, bool quiet);
unsigned int firn_check_cache(unsigned int c);  /* the calling thread's */
unsigned int firn_check_heap(bool quiet);
unsigned int firn_check_table(void);
unsigned int firn_check_frames(void);           /* only where quiet */
unsigned int firn_check_all(bool quiet);

struct firn_check_where {
	unsigned int class;
	uint32_t unit;
};
extern __thread struct firn_check_where firn_check_where __attribute__((tls_model("initial-exec")));

/* large.c's part of firn_check_heap: its table is its own. */
bool firn_huge_sound(void);
size_t *firn_huge_bytes_word(void);     /* for a test that breaks it */

/* After an operation on @p (or NULL): what is near it, and by and by everything.  Ends the process with a message. */
void firn_check_step(const void *p);

/* A unit becomes a span: a clean one is all zero, another one is made so, to tell old contents from writes
 * after free. */
void firn_check_new_unit(void *unit, bool clean);

#else

static inline void firn_check_new_unit(void *unit, bool clean)
{
	(void)unit;
	(void)clean;
}

#endif
#endif
