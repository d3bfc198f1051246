/* SPDX-License-Identifier: MIT */
#include "transfer/pace.h"

#include <sched.h>

#include "sys/sys.h"

#define LOOK_NS 100000u

static bool faults_come(const struct firn_armed *a, uint64_t now)
{
	return atomic_load(&a->faults_waiting) || now < atomic_load(&a->fault_ns) + FIRN_PACE_QUIET_NS;
}

void firn_pace_begin(struct firn_pace *p, struct firn_armed *a)
{
	p->patience_ns = FIRN_PACE_PATIENCE_NS;
	atomic_store(&a->fault_ns, firn_sys.clock_ns());
}

void firn_pace_give_way(struct firn_pace *p, struct firn_armed *a)
{
	uint64_t now = firn_sys.clock_ns();

	while (p->patience_ns && faults_come(a, now)) {
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

size_t firn_pace_read_bytes(const struct firn_armed *a, size_t bytes)
{
	return faults_come(a, firn_sys.clock_ns()) ? firn_min_u64(bytes, FIRN_PACE_SMALL_BYTES) : bytes;
}
