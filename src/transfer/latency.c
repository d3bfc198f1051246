/* SPDX-License-Identifier: MIT */
#include "transfer/latency.h"

#define UNIT_NS 1024u                /* the first doubling begins here */

/* Four steps to each doubling: its number, and the next two bits. */
static uint32_t step_of(uint64_t ns)
{
	uint64_t units = ns / (UNIT_NS / 4);
	unsigned int top;

	if (units < 4)
		return 0;
	top = 63 - (unsigned int)__builtin_clzll(units);
	return (uint32_t)firn_min_u64((top - 2) * 4 + ((units >> (top - 2)) & 3), FIRN_LATENCY_STEPS - 1);
}

/* Where a step ends. */
static uint64_t end_of(uint32_t step)
{
	return (uint64_t)(5 + step % 4) * (UNIT_NS / 4) << step / 4;
}

void firn_latency_add(struct firn_latency *l, uint64_t ns)
{
	uint64_t max = __atomic_load_n(&l->max_ns, __ATOMIC_RELAXED);

	__atomic_fetch_add(&l->steps[step_of(ns)], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&l->count, 1, __ATOMIC_RELAXED);
	while (ns > max && !__atomic_compare_exchange_n(&l->max_ns, &max, ns, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

uint64_t firn_latency_percentile(const struct firn_latency *l, unsigned int percent)
{
	uint64_t wanted, seen = 0, total = 0;

	for (uint32_t i = 0; i < FIRN_LATENCY_STEPS; i++)
		total += l->steps[i];
	wanted = (total * percent + 99) / 100;
	for (uint32_t i = 0; total && i < FIRN_LATENCY_STEPS; i++) {
		seen += l->steps[i];
		if (seen >= wanted)
			return i + 1 < FIRN_LATENCY_STEPS ? firn_min_u64(end_of(i), l->max_ns) : l->max_ns;
	}
	return 0;
}
