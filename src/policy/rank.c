// SPDX-License-Identifier: MIT
/*
 * Candidates: who keeps its memory in any case, and in which order the others give theirs.
 */
#include "policy/internal.h"

uint64_t firn_policy_awake_ns(const struct firn_policy_config *config, uint32_t quick_returns)
{
	uint64_t most = firn_max_u64(config->max_backoff_ns, config->min_awake_ns);
	uint64_t ns = config->min_awake_ns;

	for (; ns && ns < most && quick_returns; quick_returns--)
		ns = ns > most / 2 ? most : ns * 2;
	return ns;
}

uint32_t firn_policy_returned(const struct firn_policy_config *config, uint32_t quick_returns, uint64_t out_ns)
{
	if (out_ns >= config->quick_return_ns)
		return quick_returns / 2;
	return quick_returns < UINT32_MAX ? quick_returns + 1 : quick_returns;
}

/* What its pack would take. */
static uint64_t stored(const struct firn_policy_config *config, const struct firn_unit *u)
{
	return u->stored_bytes ? u->stored_bytes : firn_share(u->private_bytes, config->estimate_hundredths);
}

uint64_t firn_policy_gain(const struct firn_policy_config *config, const struct firn_unit *u)
{
	return u->in_ram ? firn_sub_u64(u->private_bytes, stored(config, u)) : u->private_bytes;
}

uint64_t firn_policy_cost(const struct firn_policy_config *config, const struct firn_unit *u)
{
	return u->in_ram ? 0 : stored(config, u);
}

enum firn_reason firn_rank_exclude(const struct firn_deciding *x, const struct firn_unit *u, uint64_t cost)
{
	const struct firn_policy_config *c = x->c;
	const struct firn_policy_snapshot *s = x->s;

	if (u->state == FIRN_UNIT_BUSY)
		return FIRN_REASON_BUSY;
	if (u->never)
		return FIRN_REASON_NEVER;
	if (u->refused)
		return FIRN_REASON_REFUSED;
	if (s->need.given && s->need.uid && s->need.uid != u->uid)
		return FIRN_REASON_OTHER_USER;
	if (firn_unit_priority(u) >= x->sum->for_priority)
		return FIRN_REASON_PRIORITY;
	if (!firn_policy_gain(c, u) || u->private_bytes < (u->min_bytes ? u->min_bytes : c->min_bytes))
		return FIRN_REASON_SMALL;
	if (u->awake_ns < c->min_awake_ns)
		return FIRN_REASON_AWAKE;
	if (u->awake_ns < firn_policy_awake_ns(c, u->quick_returns))
		return FIRN_REASON_BACKOFF;
	if (u->idle_ns < (x->sum->urgent ? c->need_min_idle_ns : c->min_idle_ns))
		return FIRN_REASON_ACTIVE;
	if (c->ticks_per_minute && u->wakeups_per_minute >= c->ticks_per_minute && !u->wake)
		return FIRN_REASON_TICKS;
	if (c->unit_daily_bytes && cost && firn_add_u64(u->written_today_bytes, cost) > c->unit_daily_bytes)
		return FIRN_REASON_UNIT_BUDGET;
	if (cost > s->budget_bytes)
		return FIRN_REASON_BUDGET;
	if (cost > s->store_bytes)
		return FIRN_REASON_STORE;
	return FIRN_REASON_NONE;
}

unsigned int firn_rank_idle_step(const struct firn_policy_config *c, const struct firn_unit *u)
{
	uint64_t times = u->idle_ns / firn_max_u64(c->min_idle_ns, 1000000000);
	unsigned int step = 0;

	while (times >>= 1)
		step++;
	return step;
}

/* @a : @b in eighths. */
static uint64_t eighths(uint64_t a, uint64_t b)
{
	return b ? firn_min_u64(a, UINT64_MAX / 8) * 8 / b : UINT64_MAX;
}

/* -1: @a comes before @b. */
static int descending(uint64_t a, uint64_t b)
{
	return (a < b) - (a > b);
}

/* Candidates: lowest priority, longest idle (in doubling steps: an hour or 70 minutes is the same), most memory for a
 * byte written, least shared, largest. */
static int compare_candidates(const struct firn_deciding *x, uint32_t i, uint32_t k)
{
	const struct firn_unit *a = &x->s->units[i], *b = &x->s->units[k];
	const struct firn_decision *da = &x->d[i], *db = &x->d[k];
	int r = descending(firn_unit_priority(b), firn_unit_priority(a));

	if (!r)
		r = descending(firn_rank_idle_step(x->c, a), firn_rank_idle_step(x->c, b));
	if (!r)
		r = descending(eighths(da->gain_bytes, da->cost_bytes), eighths(db->gain_bytes, db->cost_bytes));
	if (!r)
		r = descending(eighths(a->private_bytes, firn_add_u64(a->private_bytes, a->shared_bytes)),
			       eighths(b->private_bytes, firn_add_u64(b->private_bytes, b->shared_bytes)));
	if (!r)
		r = descending(da->gain_bytes, db->gain_bytes);
	return r;
}

/* Those that are out: highest priority, most asked for, most recently used, smallest. */
static int compare_out(const struct firn_deciding *x, uint32_t i, uint32_t k)
{
	const struct firn_unit *a = &x->s->units[i], *b = &x->s->units[k];
	int r = descending(firn_unit_priority(a), firn_unit_priority(b));

	if (!r)
		r = descending(a->refaults_per_s, b->refaults_per_s);
	if (!r)
		r = descending(b->idle_ns, a->idle_ns);
	if (!r)
		r = descending(b->out_bytes, a->out_bytes);
	return r;
}

static unsigned int class_of(const struct firn_deciding *x, uint32_t i)
{
	if (x->d[i].place)
		return 0;
	return firn_unit_is_out(&x->s->units[i]) ? 1 : 2;
}

static int compare(const struct firn_deciding *x, uint32_t i, uint32_t k)
{
	unsigned int class = class_of(x, i);
	int r = descending(class_of(x, k), class);

	if (!r && class == 0)
		r = compare_candidates(x, i, k);
	else if (!r && class == 1)
		r = compare_out(x, i, k);
	/* No two are equal: what is chosen does not hang on how they were found. */
	return r ? r : descending(x->s->units[k].id, x->s->units[i].id);
}

/* Let the element at @root sink to where nothing below it comes later. */
static void sift(const struct firn_deciding *x, size_t root, size_t n)
{
	uint32_t *o = x->order;

	for (size_t child; (child = 2 * root + 1) < n; root = child) {
		uint32_t v = o[root];

		if (child + 1 < n && compare(x, o[child], o[child + 1]) < 0)
			child++;
		if (compare(x, v, o[child]) >= 0)
			return;
		o[root] = o[child];
		o[child] = v;
	}
}

void firn_rank_sort(struct firn_deciding *x)
{
	size_t n = x->s->n;

	/* A heap sort: qsort(3) may allocate. */
	for (size_t i = n / 2; i-- > 0; )
		sift(x, i, n);
	for (size_t i = n; i-- > 1; ) {
		uint32_t v = x->order[0];

		x->order[0] = x->order[i];
		x->order[i] = v;
		sift(x, 0, i);
	}
	for (size_t k = 0; k < n && x->d[x->order[k]].place; k++)
		x->d[x->order[k]].place = (uint32_t)k + 1;
}
