// SPDX-License-Identifier: MIT
/*
 * Pressure: is memory wanted, how much, and for which priority?
 *
 * Two signs count.  Available memory has two watermarks: below the low one reclaim begins, and it goes on until the
 * high one, so that it does not begin and end with every megabyte.  PSI says that processes wait for memory; it is
 * believed only while less than a share of memory is available, since a single process that thrashes in a small cgroup
 * of its own is helped by nobody's eviction.
 */
#include "policy/internal.h"

static uint64_t watermark(uint64_t bytes, uint32_t hundredths, uint64_t total)
{
	return bytes ? bytes : firn_share(total, hundredths);
}

static enum firn_pressure psi(const struct firn_policy_config *c, const struct firn_policy_snapshot *s)
{
	if (!s->psi_known || s->available_bytes >= firn_share(s->total_bytes, c->psi_below_hundredths))
		return FIRN_PRESSURE_NONE;
	if (c->psi_full_hundredths && s->psi_full_hundredths >= c->psi_full_hundredths)
		return FIRN_PRESSURE_FULL;
	if (c->psi_some_hundredths && s->psi_some_hundredths >= c->psi_some_hundredths)
		return FIRN_PRESSURE_SOME;
	return s->psi_triggered ? FIRN_PRESSURE_TRIGGER : FIRN_PRESSURE_NONE;
}

/* Whose need is it?  Units that are not idle cause it; the one of them that matters most is to have its memory. */
static uint32_t for_priority(const struct firn_policy_config *c, const struct firn_policy_snapshot *s,
			     bool *ret_nobody)
{
	uint32_t highest = 0;
	bool any = false;

	*ret_nobody = false;
	if (c->pressure_for >= 0)
		return (uint32_t)c->pressure_for;
	for (size_t i = 0; i < s->n; i++) {
		const struct firn_unit *u = &s->units[i];

		if (u->state == FIRN_UNIT_FROZEN || u->idle_ns >= c->active_ns)
			continue;
		any = true;
		if (firn_unit_priority(u) > highest)
			highest = firn_unit_priority(u);
	}
	*ret_nobody = !any;
	return any ? highest : FIRN_PRIORITY_SYSTEM;
}

void firn_policy_press(struct firn_deciding *x)
{
	const struct firn_policy_config *c = x->c;
	const struct firn_policy_snapshot *s = x->s;
	struct firn_policy_summary *sum = x->sum;
	enum firn_pressure stall = psi(c, s);
	uint64_t lacking;

	sum->psi_known = s->psi_known;
	sum->reclaiming = s->reclaiming;
	sum->low_bytes = watermark(c->low_bytes, c->low_hundredths, s->total_bytes);
	sum->high_bytes = firn_max_u64(sum->low_bytes,
				       watermark(c->high_bytes, c->high_hundredths, s->total_bytes));
	if (s->need.given) {
		sum->pressure = FIRN_PRESSURE_NEED;
		sum->urgent = true;
		sum->for_priority = s->need.priority;
		sum->wanted_bytes = s->need.bytes;
		return;
	}
	sum->for_priority = for_priority(c, s, &sum->nobody_active);
	lacking = firn_sub_u64(sum->high_bytes, s->available_bytes);
	if (s->available_bytes < sum->low_bytes) {
		sum->pressure = FIRN_PRESSURE_LOW;
	} else if (stall != FIRN_PRESSURE_NONE) {
		sum->pressure = stall;
		if (s->since_reclaim_ns >= c->psi_settle_ns)
			lacking = firn_max_u64(lacking, firn_share(s->total_bytes, c->psi_step_hundredths));
	} else if (s->reclaiming && lacking) {
		sum->pressure = FIRN_PRESSURE_UNTIL_HIGH;
	} else {
		sum->pressure = FIRN_PRESSURE_NONE;
		lacking = 0;
	}
	sum->reclaiming = sum->pressure != FIRN_PRESSURE_NONE;
	sum->urgent = stall == FIRN_PRESSURE_FULL || s->available_bytes < sum->low_bytes / 2;
	sum->wanted_bytes = firn_sub_u64(lacking, s->coming_bytes);
}
