// SPDX-License-Identifier: MIT
/*
 * When to bring back.  Room is what is available, less what is promised to others.  Who asks for its pages all the time
 * takes them anyhow, one by one: it comes back whole as long as that leaves the low watermark.  Who merely could come
 * back waits until there is no pressure, and it must leave the high one, so that no reclaim follows.
 */
#include "policy/internal.h"

enum firn_reason firn_back_soon(const struct firn_policy_config *c, const struct firn_unit *u)
{
	uint64_t all = firn_add_u64(u->out_bytes, u->private_bytes);

	if (u->state != FIRN_UNIT_EVICTED)
		return FIRN_REASON_NONE;
	if (c->storm_refaults_per_s && u->refaults_per_s >= c->storm_refaults_per_s)
		return FIRN_REASON_STORM;
	if (!u->by_user && u->out_bytes <= firn_share(all, c->mostly_back_hundredths))
		return FIRN_REASON_MOSTLY_BACK;
	return FIRN_REASON_NONE;
}

static enum firn_reason judge_evicted(const struct firn_deciding *x, const struct firn_unit *u, uint64_t room)
{
	const struct firn_policy_config *c = x->c;
	enum firn_reason soon = firn_back_soon(c, u);
	bool low = room >= firn_add_u64(x->sum->low_bytes, u->out_bytes);
	bool high = !x->sum->reclaiming && room >= firn_add_u64(x->sum->high_bytes, u->out_bytes);

	if (soon != FIRN_REASON_NONE)
		return low ? soon : FIRN_REASON_NO_ROOM;
	if (u->by_user)
		return FIRN_REASON_BY_USER;
	if (u->idle_ns < c->active_ns && u->refaults_per_s)
		return high ? FIRN_REASON_IN_USE : FIRN_REASON_NO_ROOM;
	return FIRN_REASON_OUT;
}

static enum firn_reason judge_frozen(const struct firn_deciding *x, const struct firn_unit *u, uint64_t room)
{
	if (u->by_user)
		return FIRN_REASON_BY_USER;
	if (u->wake)
		return FIRN_REASON_WAITS;
	if (x->c->max_frozen_ns && u->out_ns >= x->c->max_frozen_ns)
		return FIRN_REASON_FROZEN_LONG;
	if (!x->sum->reclaiming && room >= firn_add_u64(x->sum->high_bytes, u->out_bytes))
		return FIRN_REASON_ROOM;
	return FIRN_REASON_NO_ROOM;
}

void firn_policy_bring_back(struct firn_deciding *x)
{
	const struct firn_policy_snapshot *s = x->s;
	uint64_t room = firn_sub_u64(s->available_bytes, firn_add_u64(s->returning_bytes, s->reserved_bytes));

	for (size_t k = x->sum->queued; k < x->sum->queued + x->sum->out; k++) {
		uint32_t i = x->order[k];
		const struct firn_unit *u = &s->units[i];
		struct firn_decision *d = &x->d[i];

		if (s->need.given)
			d->reason = u->by_user ? FIRN_REASON_BY_USER : FIRN_REASON_OUT;
		else if (u->state == FIRN_UNIT_FROZEN)
			d->reason = judge_frozen(x, u, room);
		else
			d->reason = judge_evicted(x, u, room);
		if (d->reason < FIRN_REASON_STORM || d->reason > FIRN_REASON_FROZEN_LONG)
			continue;
		d->action = FIRN_ACTION_THAW;
		room = firn_sub_u64(room, u->out_bytes);
		x->sum->return_bytes = firn_add_u64(x->sum->return_bytes, u->out_bytes);
	}
}
