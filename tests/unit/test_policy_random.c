/* SPDX-License-Identifier: MIT */
/*
 * Decisions on random snapshots, held to what policy.h says always holds.  What is expected is written down here anew
 * and as plainly as can be, not taken from src/policy.  A seed that fails is printed; `test_policy_random SEED` runs it
 * alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/policy.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define SECOND 1000000000ull
#define MINUTE (60 * SECOND)
#define MOST 40
#define SEEDS 20000

static uint64_t random_state, seed_now;
static uint64_t only_seed;

static uint64_t rnd(uint64_t below)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % below;
}

static bool one_in(uint64_t n)
{
	return !rnd(n);
}

#define CHECK(what) do { \
	if (!(what)) \
		fail_msg("seed %llu, line %d: %s", (unsigned long long)seed_now, __LINE__, #what); \
} while (0)

struct scene {
	struct firn_policy_config c;
	struct firn_policy_snapshot s;
	struct firn_unit u[MOST];
	struct firn_decision d[MOST];
	uint32_t order[MOST];
	struct firn_policy_summary sum;
};

static void make_config(struct firn_policy_config *c)
{
	firn_policy_config_defaults(c);
	c->low_hundredths = (uint32_t)rnd(3000);
	c->high_hundredths = c->low_hundredths + (uint32_t)rnd(3000);
	if (one_in(4))
		c->low_bytes = rnd(4) * GIB;
	if (one_in(4))
		c->high_bytes = rnd(6) * GIB;
	c->psi_some_hundredths = one_in(4) ? 0 : 1000;
	c->psi_full_hundredths = one_in(4) ? 0 : 500;
	c->psi_below_hundredths = (uint32_t)rnd(10001);
	c->psi_step_hundredths = (uint32_t)rnd(1000);
	c->pressure_for = one_in(2) ? FIRN_FOR_ACTIVE : (int32_t)rnd(102);
	c->min_bytes = rnd(3) * 50 * MIB;
	c->min_idle_ns = rnd(3) * MINUTE;
	c->need_min_idle_ns = rnd(2) * MINUTE;
	c->active_ns = rnd(2) * 30 * SECOND;
	c->min_awake_ns = rnd(3) * MINUTE;
	c->max_backoff_ns = c->min_awake_ns + rnd(10) * MINUTE;
	c->estimate_hundredths = (uint32_t)rnd(10001);
	c->unit_daily_bytes = one_in(2) ? 0 : rnd(1000) * MIB;
	c->ticks_per_minute = one_in(4) ? 0 : 60;
	c->storm_refaults_per_s = one_in(4) ? 0 : 100;
	c->mostly_back_hundredths = (uint32_t)rnd(5000);
	c->max_frozen_ns = one_in(4) ? 0 : 10 * MINUTE;
	CHECK(c->low_bytes || c->high_bytes || !firn_policy_config_check(c));
}

/* Few different values, so that ties and limits are met often. */
static void make_unit(struct firn_unit *u, uint64_t id)
{
	memset(u, 0, sizeof(*u));
	u->id = id;
	u->priority = one_in(20) ? (uint32_t)rnd(200) : (uint32_t)rnd(5) * 20;
	u->uid = one_in(20) ? FIRN_UID_SEVERAL : (uint32_t)rnd(3) * 1000;
	u->state = one_in(2) ? FIRN_UNIT_RUNNING : (enum firn_unit_state)rnd(4);
	u->never = one_in(8);
	u->refused = one_in(8);
	u->wake = one_in(2);
	u->by_user = one_in(4);
	u->in_ram = one_in(8);
	u->private_bytes = one_in(8) ? rnd(4 * GIB) : rnd(8) * 50 * MIB;
	u->shared_bytes = rnd(4) * 50 * MIB;
	u->stored_bytes = one_in(2) ? 0 : rnd(8) * 25 * MIB;
	u->min_bytes = one_in(8) ? rnd(4) * 50 * MIB : 0;
	u->written_today_bytes = rnd(3) * 200 * MIB;
	u->idle_ns = rnd(3) * (1 + rnd(40)) * 15 * SECOND;
	u->awake_ns = rnd(12) * MINUTE;
	u->out_ns = rnd(20) * MINUTE;
	u->quick_returns = one_in(2) ? 0 : (uint32_t)rnd(40);
	u->wakeups_per_minute = one_in(2) ? 0 : (uint32_t)rnd(120);
	if (u->state == FIRN_UNIT_EVICTED || u->state == FIRN_UNIT_FROZEN) {
		u->out_bytes = rnd(8) * 50 * MIB;
		u->refaults_per_s = one_in(2) ? 0 : (uint32_t)rnd(200);
		if (one_in(2))
			u->idle_ns = rnd(4) * 10 * SECOND;
	}
}

static void make(struct scene *x, uint64_t seed)
{
	struct firn_policy_snapshot *s = &x->s;

	memset(x, 0, sizeof(*x));
	seed_now = seed;
	random_state = seed * 0x9e3779b97f4a7c15ull;
	make_config(&x->c);
	s->total_bytes = 8 * GIB;
	s->available_bytes = one_in(4) ? 7 * GIB : rnd(8 * GIB);
	s->coming_bytes = one_in(3) ? rnd(GIB) : 0;
	s->returning_bytes = one_in(3) ? rnd(GIB) : 0;
	s->reserved_bytes = one_in(3) ? rnd(GIB) : 0;
	s->psi_known = !one_in(4);
	s->psi_some_hundredths = (uint32_t)rnd(2000);
	s->psi_full_hundredths = (uint32_t)rnd(1000);
	s->psi_triggered = one_in(4);
	s->reclaiming = one_in(2);
	s->since_reclaim_ns = one_in(4) ? UINT64_MAX : rnd(30) * SECOND;
	s->budget_bytes = one_in(2) ? FIRN_NO_LIMIT : rnd(8) * 100 * MIB;
	s->store_bytes = one_in(2) ? FIRN_NO_LIMIT : rnd(8) * 100 * MIB;
	if (one_in(3))
		s->need = (struct firn_need){ true, rnd(20) * 100 * MIB, (uint32_t)rnd(102),
					      one_in(2) ? 0 : (uint32_t)rnd(3) * 1000 };
	s->units = x->u;
	s->n = rnd(MOST + 1);
	for (size_t i = 0; i < s->n; i++)
		make_unit(&x->u[i], 1000 + i * 7);
}

static void decide(struct scene *x)
{
	memset(x->d, 0xa5, sizeof(x->d));
	memset(x->order, 0xa5, sizeof(x->order));
	memset(&x->sum, 0xa5, sizeof(x->sum));
	firn_policy_decide(&x->c, &x->s, x->d, x->order, &x->sum);
}

/* The model. */

static uint32_t priority(const struct firn_unit *u)
{
	return u->priority > 100 ? 100 : u->priority;
}

static bool out(const struct firn_unit *u)
{
	return u->state == FIRN_UNIT_EVICTED || u->state == FIRN_UNIT_FROZEN;
}

static uint64_t stored(const struct scene *x, const struct firn_unit *u)
{
	unsigned __int128 share = (unsigned __int128)u->private_bytes * x->c.estimate_hundredths / 10000;

	return u->stored_bytes ? u->stored_bytes : (uint64_t)share;
}

static uint64_t cost(const struct scene *x, const struct firn_unit *u)
{
	return u->in_ram ? 0 : stored(x, u);
}

static uint64_t gain(const struct scene *x, const struct firn_unit *u)
{
	uint64_t s = u->in_ram ? stored(x, u) : 0;

	return u->private_bytes > s ? u->private_bytes - s : 0;
}

static uint32_t for_priority(const struct scene *x)
{
	uint32_t best = 0;
	bool any = false;

	if (x->s.need.given)
		return x->s.need.priority;
	if (x->c.pressure_for >= 0)
		return (uint32_t)x->c.pressure_for;
	for (size_t i = 0; i < x->s.n; i++)
		if (x->u[i].state != FIRN_UNIT_FROZEN && x->u[i].idle_ns < x->c.active_ns) {
			any = true;
			if (priority(&x->u[i]) > best)
				best = priority(&x->u[i]);
		}
	return any ? best : 101;
}

static uint64_t awake_least(const struct firn_policy_config *c, uint32_t quick)
{
	uint64_t ns = c->min_awake_ns;

	for (uint32_t k = 0; k < quick && k < 60; k++)
		ns = 2 * ns > c->max_backoff_ns ? c->max_backoff_ns : 2 * ns;
	return ns;
}

/* Does somebody wait for memory now? */
static bool urgent(const struct scene *x)
{
	const struct firn_policy_snapshot *s = &x->s;
	bool full = s->psi_known && x->c.psi_full_hundredths && s->psi_full_hundredths >= x->c.psi_full_hundredths &&
		    s->available_bytes / 8 < GIB / 10000.0 * x->c.psi_below_hundredths;

	return s->need.given || full || s->available_bytes < x->sum.low_bytes / 2;
}

/* May it be taken, its own limits alone considered? */
static bool eligible(const struct scene *x, const struct firn_unit *u)
{
	const struct firn_policy_config *c = &x->c;
	bool ticks = c->ticks_per_minute && u->wakeups_per_minute >= c->ticks_per_minute;

	return u->state == FIRN_UNIT_RUNNING && !u->never && !u->refused &&
	       !(x->s.need.given && x->s.need.uid && x->s.need.uid != u->uid) &&
	       priority(u) < for_priority(x) &&
	       gain(x, u) > 0 && u->private_bytes >= (u->min_bytes ? u->min_bytes : c->min_bytes) &&
	       u->awake_ns >= c->min_awake_ns && u->awake_ns >= awake_least(c, u->quick_returns) &&
	       u->idle_ns >= (urgent(x) ? c->need_min_idle_ns : c->min_idle_ns) &&
	       (!ticks || u->wake) &&
	       (!c->unit_daily_bytes || !cost(x, u) || u->written_today_bytes + cost(x, u) <= c->unit_daily_bytes);
}

static bool fits(const struct scene *x, uint64_t bytes)
{
	return bytes <= x->s.budget_bytes && bytes <= x->s.store_bytes;
}

static bool taken(const struct firn_decision *d)
{
	return d->action == FIRN_ACTION_EVICT || d->action == FIRN_ACTION_FREEZE;
}

static void check_pressure(const struct scene *x)
{
	const struct firn_policy_config *c = &x->c;
	const struct firn_policy_snapshot *s = &x->s;
	uint64_t low = c->low_bytes ? c->low_bytes : 8 * GIB / 10000 * c->low_hundredths;
	uint64_t high = c->high_bytes ? c->high_bytes : 8 * GIB / 10000 * c->high_hundredths;
	uint64_t wanted = 0, slack = 10000;
	bool stalls;

	if (high < low)
		high = low;
	CHECK(x->sum.low_bytes - low <= slack && x->sum.high_bytes - high <= slack);
	CHECK(x->sum.psi_known == s->psi_known && x->sum.urgent == urgent(x));
	if (s->need.given) {
		CHECK(x->sum.wanted_bytes == s->need.bytes && x->sum.reclaiming == s->reclaiming);
		return;
	}
	low = x->sum.low_bytes;
	high = x->sum.high_bytes;
	stalls = s->psi_known && s->available_bytes / 8 < GIB / 10000.0 * c->psi_below_hundredths &&
		 (s->psi_triggered ||
		  (c->psi_some_hundredths && s->psi_some_hundredths >= c->psi_some_hundredths) ||
		  (c->psi_full_hundredths && s->psi_full_hundredths >= c->psi_full_hundredths));
	CHECK(x->sum.reclaiming == (s->available_bytes < low || stalls ||
				    (s->reclaiming && s->available_bytes < high)));
	if (x->sum.reclaiming && s->available_bytes < high)
		wanted = high - s->available_bytes;
	if (stalls && s->available_bytes >= low && s->since_reclaim_ns >= c->psi_settle_ns &&
	    wanted < GIB / 1250 * c->psi_step_hundredths) {
		CHECK(x->sum.wanted_bytes + s->coming_bytes >= wanted);
		CHECK(x->sum.wanted_bytes <= GIB / 1250.0 * c->psi_step_hundredths);
		return;
	}
	CHECK(x->sum.wanted_bytes == (wanted > s->coming_bytes ? wanted - s->coming_bytes : 0));
}

/* All that is taken, and all that is not. */
static void check_taken(const struct scene *x)
{
	uint64_t all_gain = 0, all_cost = 0, lower_gain = 0, band_cost = 0, band_idle = 0;
	uint32_t highest = 0;
	unsigned int in_band = 0;

	for (size_t i = 0; i < x->s.n; i++) {
		if (!taken(&x->d[i]))
			continue;
		CHECK(eligible(x, &x->u[i]));
		CHECK(x->d[i].gain_bytes == gain(x, &x->u[i]) && x->d[i].cost_bytes == cost(x, &x->u[i]));
		CHECK((x->d[i].action == FIRN_ACTION_FREEZE) ==
		      (x->c.ticks_per_minute && x->u[i].wakeups_per_minute >= x->c.ticks_per_minute));
		all_gain += gain(x, &x->u[i]);
		all_cost += cost(x, &x->u[i]);
		if (priority(&x->u[i]) > highest)
			highest = priority(&x->u[i]);
	}
	CHECK(fits(x, all_cost));
	CHECK(x->sum.gain_bytes == all_gain && x->sum.cost_bytes == all_cost);
	CHECK(x->sum.missing_bytes == (x->sum.wanted_bytes > all_gain ? x->sum.wanted_bytes - all_gain : 0));
	if (!x->sum.wanted_bytes)
		CHECK(!all_gain);
	for (size_t i = 0; i < x->s.n; i++) {
		if (taken(&x->d[i]) && priority(&x->u[i]) < highest)
			lower_gain += gain(x, &x->u[i]);
		if (!taken(&x->d[i]) || priority(&x->u[i]) != highest)
			continue;
		/* None of the last priority is needless. */
		CHECK(all_gain - gain(x, &x->u[i]) < x->sum.wanted_bytes);
		in_band++;
		band_cost += cost(x, &x->u[i]);
		if (x->u[i].idle_ns > band_idle)
			band_idle = x->u[i].idle_ns;
	}
	for (size_t i = 0; i < x->s.n; i++) {
		const struct firn_unit *u = &x->u[i];
		bool over_budget = x->d[i].reason == FIRN_REASON_BUDGET || x->d[i].reason == FIRN_REASON_STORE;

		if (!eligible(x, u)) {
			CHECK(!taken(&x->d[i]) && !x->d[i].place);
			continue;
		}
		CHECK((x->d[i].place != 0) == fits(x, cost(x, u)));
		if (taken(&x->d[i]))
			continue;
		/* Passed over only where the limit is real. */
		if (over_budget)
			CHECK(!fits(x, cost(x, u) + all_cost));
		/* Lowest first, and as far as is needed. */
		if ((all_gain && priority(u) < highest) || x->sum.missing_bytes)
			CHECK(over_budget);
		/* One instead of many. */
		if (in_band > 1 && priority(u) == highest && !x->sum.missing_bytes && x->d[i].place)
			CHECK(lower_gain + gain(x, u) < x->sum.wanted_bytes || cost(x, u) > band_cost ||
			      u->idle_ns < band_idle);
	}
}

static void check_back(const struct scene *x)
{
	const struct firn_policy_snapshot *s = &x->s;
	uint64_t promised = s->returning_bytes + s->reserved_bytes, soon = 0, later = 0, all = 0;
	uint64_t room = s->available_bytes > promised ? s->available_bytes - promised : 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct firn_unit *u = &x->u[i];
		const struct firn_decision *d = &x->d[i];
		bool long_frozen = u->state == FIRN_UNIT_FROZEN && !u->by_user && !u->wake && x->c.max_frozen_ns &&
				   u->out_ns >= x->c.max_frozen_ns && !s->need.given;

		CHECK(!long_frozen || d->reason == FIRN_REASON_FROZEN_LONG);
		if (d->action != FIRN_ACTION_THAW)
			continue;
		all += u->out_bytes;
		CHECK(out(u) && !s->need.given && d->gain_bytes == u->out_bytes && !d->cost_bytes);
		CHECK(!u->by_user || (u->state == FIRN_UNIT_EVICTED && x->c.storm_refaults_per_s &&
				      u->refaults_per_s >= x->c.storm_refaults_per_s));
		CHECK(u->state == FIRN_UNIT_EVICTED || !u->wake);
		switch (d->reason) {
		case FIRN_REASON_FROZEN_LONG:
			CHECK(long_frozen);
			break;
		case FIRN_REASON_STORM:
			CHECK(u->refaults_per_s >= x->c.storm_refaults_per_s && x->c.storm_refaults_per_s);
			soon += u->out_bytes;
			break;
		case FIRN_REASON_MOSTLY_BACK:
			CHECK(u->out_bytes <= u->private_bytes);
			soon += u->out_bytes;
			break;
		default:
			CHECK(d->reason == FIRN_REASON_ROOM || u->idle_ns < x->c.active_ns);
			CHECK(!x->sum.reclaiming);
			later += u->out_bytes;
		}
	}
	CHECK(x->sum.return_bytes == all);
	CHECK(!(soon + later) || soon + later + x->sum.low_bytes <= room);
	CHECK(!later || later + x->sum.high_bytes <= room);
	/* Somebody stays out for want of room: it is not there. */
	for (size_t i = 0; i < s->n; i++)
		if (x->d[i].reason == FIRN_REASON_NO_ROOM)
			CHECK(x->sum.reclaiming || room < x->u[i].out_bytes + all + x->sum.high_bytes);
}

/* A reason for everybody, that belongs to what is done; words; the order; the counts. */
static void check_words(const struct scene *x)
{
	uint32_t actions[FIRN_ACTIONS] = { 0 }, reasons[FIRN_REASONS] = { 0 }, queued = 0, outs = 0;
	char text[FIRN_POLICY_TEXT];
	bool seen[MOST] = { false };

	for (size_t i = 0; i < x->s.n; i++) {
		const struct firn_decision *d = &x->d[i];

		CHECK((unsigned int)d->reason < FIRN_REASONS && d->reason != FIRN_REASON_NONE);
		CHECK((unsigned int)d->action < FIRN_ACTIONS);
		CHECK((d->reason == FIRN_REASON_IDLE) == (d->action == FIRN_ACTION_EVICT));
		CHECK((d->reason == FIRN_REASON_TICKS_WAKES) == (d->action == FIRN_ACTION_FREEZE));
		CHECK((d->reason >= FIRN_REASON_STORM && d->reason <= FIRN_REASON_FROZEN_LONG) ==
		      (d->action == FIRN_ACTION_THAW));
		CHECK(out(&x->u[i]) == (d->reason >= FIRN_REASON_STORM));
		CHECK((d->reason == FIRN_REASON_NEVER) ==
		      (x->u[i].never && x->u[i].state == FIRN_UNIT_RUNNING));
		firn_policy_explain(text, sizeof(text), &x->c, &x->s, i, d, &x->sum);
		CHECK(strlen(text) >= 10 && strlen(text) < sizeof(text) - 1);
		actions[d->action]++;
		reasons[d->reason]++;
		queued += d->place != 0;
		outs += out(&x->u[i]);
	}
	CHECK(!memcmp(actions, x->sum.actions, sizeof(actions)));
	CHECK(!memcmp(reasons, x->sum.reasons, sizeof(reasons)));
	CHECK(queued == x->sum.queued && outs == x->sum.out);
	CHECK(x->sum.for_priority == for_priority(x));
	for (size_t k = 0; k < x->s.n; k++) {
		uint32_t i = x->order[k];

		CHECK(i < x->s.n && !seen[i]);
		seen[i] = true;
		CHECK(x->d[i].place == (k < queued ? k + 1 : 0));
		CHECK(out(&x->u[i]) == (k >= queued && k < queued + outs));
		if (k && k < queued)
			CHECK(priority(&x->u[x->order[k - 1]]) <= priority(&x->u[i]));
		if (k > queued && k < queued + outs)
			CHECK(priority(&x->u[x->order[k - 1]]) >= priority(&x->u[i]));
	}
	/* Of one priority, who was idle for four times as long, and for more than the minimum, goes first. */
	for (size_t a = 0; a < queued; a++)
		for (size_t b = a + 1; b < queued; b++) {
			const struct firn_unit *first = &x->u[x->order[a]], *then = &x->u[x->order[b]];
			uint64_t least = x->c.min_idle_ns > SECOND ? x->c.min_idle_ns : SECOND;

			CHECK(priority(first) != priority(then) || then->idle_ns < 2 * least ||
			      then->idle_ns < 4 * first->idle_ns);
		}
	firn_policy_explain_summary(text, sizeof(text), &x->c, &x->s, &x->sum);
	CHECK(strlen(text) >= 10 && strlen(text) < sizeof(text) - 1);
}

/* The same again; and the same for units in another order. */
static void check_same(const struct scene *x)
{
	static struct scene y;
	size_t at[MOST];

	y = *x;
	y.s.units = y.u;
	decide(&y);
	CHECK(!memcmp(y.d, x->d, x->s.n * sizeof(*x->d)) && !memcmp(&y.sum, &x->sum, sizeof(y.sum)));
	CHECK(!memcmp(y.order, x->order, x->s.n * sizeof(*x->order)));
	for (size_t i = 0; i < x->s.n; i++)
		at[i] = i;
	for (size_t i = x->s.n; i-- > 1; ) {
		size_t k = rnd(i + 1), v = at[i];

		at[i] = at[k];
		at[k] = v;
	}
	for (size_t i = 0; i < x->s.n; i++)
		y.u[i] = x->u[at[i]];
	decide(&y);
	CHECK(!memcmp(&y.sum, &x->sum, sizeof(y.sum)));
	for (size_t i = 0; i < x->s.n; i++)
		CHECK(!memcmp(&y.d[i], &x->d[at[i]], sizeof(y.d[i])));
	for (size_t k = 0; k < x->s.n; k++)
		CHECK(y.u[y.order[k]].id == x->u[x->order[k]].id);
}

/* How often what was looked for was there: a check of what never happens proves nothing. */
static struct {
	unsigned int missing, pressures[FIRN_PRESSURES], reasons[FIRN_REASONS];
} met;

static void note(const struct scene *x)
{
	met.pressures[x->sum.pressure]++;
	met.missing += x->sum.missing_bytes != 0;
	for (size_t i = 0; i < x->s.n; i++)
		met.reasons[x->d[i].reason]++;
}

static void test_random(void **state)
{
	static struct scene x;
	uint64_t from = only_seed ? only_seed : 1, to = only_seed ? only_seed : SEEDS;

	(void)state;
	printf("seeds %llu to %llu\n", (unsigned long long)from, (unsigned long long)to);
	for (uint64_t seed = from; seed <= to; seed++) {
		make(&x, seed);
		decide(&x);
		check_pressure(&x);
		check_taken(&x);
		check_back(&x);
		check_words(&x);
		check_same(&x);
		note(&x);
	}
	if (only_seed)
		return;
	for (unsigned int r = 1; r < FIRN_REASONS; r++) {
		printf("%s %u, ", firn_reason_name(r), met.reasons[r]);
		assert_true(met.reasons[r] >= 100);
	}
	for (unsigned int p = 0; p < FIRN_PRESSURES; p++) {
		printf("%s %u, ", firn_pressure_name(p), met.pressures[p]);
		assert_true(met.pressures[p] >= 100);
	}
	printf("missing %u\n", met.missing);
	assert_true(met.missing >= 100);
}

/* Units in a large snapshot, some alike: it stays quick, and the order is one. */
static void test_many(void **state)
{
	enum { N = 20000 };
	struct firn_unit *u = calloc(N, sizeof(*u));
	struct firn_decision *d = calloc(N, sizeof(*d));
	uint32_t *order = calloc(N, sizeof(*order));
	struct firn_policy_summary sum;
	static struct scene x;

	(void)state;
	assert_true(u && d && order);
	make(&x, 1);
	firn_policy_config_defaults(&x.c);
	for (size_t i = 0; i < N; i++) {
		make_unit(&u[i], N - i);
		u[i].priority = (uint32_t)rnd(3);
		u[i].shared_bytes = rnd(2) * GIB;
	}
	x.s.units = u;
	x.s.n = N;
	x.s.need = (struct firn_need){ true, 100 * GIB, 80, 0 };
	x.s.budget_bytes = x.s.store_bytes = FIRN_NO_LIMIT;
	firn_policy_decide(&x.c, &x.s, d, order, &sum);
	assert_true(sum.queued > N / 10);
	assert_int_equal(sum.missing_bytes, 0);
	for (size_t k = 1; k < sum.queued; k++)
		assert_true(u[order[k - 1]].priority <= u[order[k]].priority);
	free(u);
	free(d);
	free(order);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_many),
	};

	only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
