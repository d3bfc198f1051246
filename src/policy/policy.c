// SPDX-License-Identifier: MIT
/*
 * One decision from beginning to end; the configuration's defaults and limits.
 */
#include <string.h>

#include "policy/internal.h"

#define SECOND 1000000000ull
#define MIB (1ull << 20)

void firn_policy_config_defaults(struct firn_policy_config *ret)
{
	*ret = (struct firn_policy_config) {
		.low_hundredths = 800,
		.high_hundredths = 1200,
		.psi_some_hundredths = 1000,
		.psi_full_hundredths = 500,
		.psi_below_hundredths = 2500,
		.psi_step_hundredths = 200,
		.psi_settle_ns = 15 * SECOND,
		.pressure_for = FIRN_PRIORITY_SYSTEM,
		.active_ns = 30 * SECOND,
		.min_bytes = 16 * MIB,
		.min_idle_ns = 300 * SECOND,
		.need_min_idle_ns = 10 * SECOND,
		.min_awake_ns = 120 * SECOND,
		.quick_return_ns = 600 * SECOND,
		.max_backoff_ns = 7200 * SECOND,
		.estimate_hundredths = 5000,
		.unit_daily_bytes = 0,
		.ticks_per_minute = 60,
		.storm_refaults_per_s = 500,
		.mostly_back_hundredths = 2500,
		.max_frozen_ns = 900 * SECOND,
	};
}

const char *firn_policy_config_check(const struct firn_policy_config *c)
{
	if (c->low_hundredths > 10000 || c->high_hundredths > 10000)
		return "a watermark is more than all memory";
	if (c->low_bytes && c->high_bytes && c->high_bytes < c->low_bytes)
		return "the high watermark is below the low one";
	if (!c->low_bytes && !c->high_bytes && c->high_hundredths < c->low_hundredths)
		return "the high watermark is below the low one";
	if (c->psi_some_hundredths > 10000 || c->psi_full_hundredths > 10000)
		return "a bound of PSI is more than 100%";
	if (c->psi_below_hundredths > 10000 || c->psi_step_hundredths > 10000)
		return "a share of memory is more than 100%";
	if (c->pressure_for < FIRN_FOR_ACTIVE || c->pressure_for > FIRN_PRIORITY_SYSTEM)
		return "what pressure is for is no priority";
	if (c->max_backoff_ns < c->min_awake_ns)
		return "the longest back-off is shorter than the minimum awake time";
	if (c->estimate_hundredths > 10000)
		return "the estimated share that is written is more than 100%";
	if (c->mostly_back_hundredths > 10000)
		return "the share that is still out is more than 100%";
	return NULL;
}

void firn_policy_decide(const struct firn_policy_config *config, const struct firn_policy_snapshot *s,
			struct firn_decision *decisions, uint32_t *order, struct firn_policy_summary *ret)
{
	struct firn_deciding x = { config, s, decisions, order, ret };

	memset(ret, 0, sizeof(*ret));
	firn_policy_press(&x);
	for (size_t i = 0; i < s->n; i++) {
		const struct firn_unit *u = &s->units[i];
		struct firn_decision *d = &decisions[i];

		order[i] = (uint32_t)i;
		memset(d, 0, sizeof(*d));
		if (firn_unit_is_out(u)) {
			d->gain_bytes = u->out_bytes;
			ret->out++;
			continue;
		}
		d->gain_bytes = firn_policy_gain(config, u);
		d->cost_bytes = firn_policy_cost(config, u);
		d->reason = firn_rank_exclude(&x, u, d->cost_bytes);
		if (d->reason == FIRN_REASON_NONE) {
			d->place = 1;
			ret->queued++;
		}
	}
	firn_rank_sort(&x);
	firn_policy_take(&x);
	firn_policy_bring_back(&x);
	for (size_t i = 0; i < s->n; i++) {
		ret->actions[decisions[i].action]++;
		ret->reasons[decisions[i].reason]++;
	}
}
