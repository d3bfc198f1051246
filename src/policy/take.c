// SPDX-License-Identifier: MIT
/*
 * How far to go: which of the candidates are taken.
 *
 * Priority by priority, the lowest first.  A priority whose candidates together do not give what is lacking is taken
 * whole; the next one is then asked too.  In the last one as few are taken as suffice.
 */
#include "policy/internal.h"

/* What is lacking, and what may still be written; and the candidates of one priority, from and to in the order. */
struct taking {
	uint64_t lacking, budget, store;
	size_t from, to;
};

static void take(struct firn_deciding *x, size_t i)
{
	const struct firn_policy_config *c = x->c;
	const struct firn_unit *u = &x->s->units[i];
	bool ticks = c->ticks_per_minute && u->wakeups_per_minute >= c->ticks_per_minute;

	x->d[i].action = ticks ? FIRN_ACTION_FREEZE : FIRN_ACTION_EVICT;
	x->d[i].reason = ticks ? FIRN_REASON_TICKS_WAKES : FIRN_REASON_IDLE;
}

static void leave(struct firn_deciding *x, size_t i, enum firn_reason reason)
{
	x->d[i].action = FIRN_ACTION_NONE;
	x->d[i].reason = reason;
}

/* In their order, until enough is there; who would exceed a budget is passed over.  Returns how many. */
static size_t take_in_order(struct firn_deciding *x, const struct taking *t, uint64_t *ret_gain, uint64_t *ret_cost,
			    unsigned int *ret_step)
{
	uint64_t gain = 0, cost = 0;
	size_t taken = 0;

	for (size_t k = t->from; k < t->to; k++) {
		uint32_t i = x->order[k];
		unsigned int step = firn_rank_idle_step(x->c, &x->s->units[i]);

		if (gain >= t->lacking) {
			leave(x, i, FIRN_REASON_ENOUGH);
		} else if (x->d[i].cost_bytes > t->budget - cost) {
			leave(x, i, FIRN_REASON_BUDGET);
		} else if (x->d[i].cost_bytes > t->store - cost) {
			leave(x, i, FIRN_REASON_STORE);
		} else {
			take(x, i);
			gain = firn_add_u64(gain, x->d[i].gain_bytes);
			cost += x->d[i].cost_bytes;
			if (!taken++ || step < *ret_step)
				*ret_step = step;
		}
	}
	*ret_gain = gain;
	*ret_cost = cost;
	return taken;
}

/* One that suffices, that was idle no shorter than any of those taken (@step), and for which at most half as much again
 * is written (than @cost): the cheapest.  Its place in the order, or t->to. */
static size_t find_one(const struct firn_deciding *x, const struct taking *t, unsigned int step, uint64_t cost)
{
	uint64_t most = firn_min_u64(firn_add_u64(cost, cost / 2), firn_min_u64(t->budget, t->store));
	size_t best = t->to;

	for (size_t k = t->from; k < t->to; k++) {
		uint32_t i = x->order[k];

		if (x->d[i].gain_bytes < t->lacking || x->d[i].cost_bytes > most ||
		    firn_rank_idle_step(x->c, &x->s->units[i]) < step)
			continue;
		if (best == t->to || x->d[i].cost_bytes < x->d[x->order[best]].cost_bytes)
			best = k;
	}
	return best;
}

/* Enough was taken: as few as suffice. */
static void thin_out(struct firn_deciding *x, const struct taking *t, size_t taken, uint64_t gain, uint64_t cost,
		     unsigned int step)
{
	size_t one = taken > 1 ? find_one(x, t, step, cost) : t->to;

	if (one < t->to) {
		for (size_t k = t->from; k < t->to; k++)
			leave(x, x->order[k], FIRN_REASON_ENOUGH);
		take(x, x->order[one]);
		return;
	}
	/* The last one taken may make some before it needless; begin with those that are better left alone. */
	for (size_t k = t->to; k-- > t->from; ) {
		uint32_t i = x->order[k];

		if (x->d[i].action == FIRN_ACTION_NONE || gain - x->d[i].gain_bytes < t->lacking)
			continue;
		gain -= x->d[i].gain_bytes;
		leave(x, i, FIRN_REASON_ENOUGH);
	}
}

static void take_priority(struct firn_deciding *x, struct taking *t)
{
	uint64_t gain, cost;
	unsigned int step = 0;
	size_t taken = take_in_order(x, t, &gain, &cost, &step);

	if (gain >= t->lacking)
		thin_out(x, t, taken, gain, cost, step);
	for (size_t k = t->from; k < t->to; k++) {
		const struct firn_decision *d = &x->d[x->order[k]];

		if (d->action == FIRN_ACTION_NONE)
			continue;
		t->lacking = firn_sub_u64(t->lacking, d->gain_bytes);
		t->budget -= d->cost_bytes;
		t->store -= d->cost_bytes;
		x->sum->gain_bytes = firn_add_u64(x->sum->gain_bytes, d->gain_bytes);
		x->sum->cost_bytes += d->cost_bytes;
	}
}

void firn_policy_take(struct firn_deciding *x)
{
	struct taking t = { x->sum->wanted_bytes, x->s->budget_bytes, x->s->store_bytes, 0, 0 };

	while (t.from < x->sum->queued) {
		uint32_t priority = firn_unit_priority(&x->s->units[x->order[t.from]]);

		for (t.to = t.from; t.to < x->sum->queued; t.to++)
			if (firn_unit_priority(&x->s->units[x->order[t.to]]) != priority)
				break;
		if (x->sum->wanted_bytes)
			take_priority(x, &t);
		else
			for (size_t k = t.from; k < t.to; k++)
				leave(x, x->order[k], FIRN_REASON_NO_NEED);
		t.from = t.to;
	}
	x->sum->missing_bytes = t.lacking;
}
