/* SPDX-License-Identifier: MIT */
#include "transfer/pace.h"

#include <sched.h>

#include "sys/sys.h"

#define LOOK_NS 100000u

static bool faults_come(const struct firn_armed *a, uint64_t now)
{
	return atomic_load(&a->faults_waiting) || now < atomic_load(&a->fault_ns) + FIRN_PACE_QUIET_NS;
}

void firn_pace_open(struct firn_armed *a)
{
	atomic_store(&a->fault_ns, firn_sys.clock_ns() - FIRN_PACE_QUIET_NS + FIRN_PACE_FIRST_NS);
	atomic_store(&a->fault_steps, 0);
	atomic_store(&a->pull, 0);
}

void firn_pace_begin(struct firn_pace *p)
{
	p->patience_ns = FIRN_PACE_PATIENCE_NS;
}

void firn_pace_give_way(struct firn_pace *p, struct firn_armed *a)
{
	uint64_t now = firn_sys.clock_ns();

	while (p->patience_ns && faults_come(a, now) && atomic_load(&a->fault_steps) < FIRN_PACE_IN_ORDER) {
		uint64_t before = now;

		firn_sys.sleep_ns(LOOK_NS);
		now = firn_sys.clock_ns();
		p->patience_ns -= firn_min_u64(now - before, p->patience_ns);
	}
	/* No more than a yield from then on: a stream that sleeps is overtaken by faults, and each reads alone
	 * what one read would have brought. */
	if (atomic_load(&a->faults_waiting))
		sched_yield();
}

bool firn_pace_in_order(struct firn_armed *a, uint32_t block)
{
	uint32_t last = atomic_load(&a->fault_block), steps = atomic_load(&a->fault_steps);

	if (block != last && block - last - 1 < FIRN_PACE_NEAR) {
		atomic_store(&a->fault_block, block);
		steps += steps < 2 * FIRN_PACE_IN_ORDER;
	} else if (block != last && steps) {
		/* The original of a duplicate, or somebody else's: the order may go on. */
		steps -= steps > 1 ? 2 : 1;
	} else {
		atomic_store(&a->fault_block, block);
	}
	atomic_store(&a->fault_steps, steps);
	return steps >= FIRN_PACE_IN_ORDER;
}
