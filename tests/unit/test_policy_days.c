/* SPDX-License-Identifier: MIT */
/*
 * Days that pass in a moment: the policy decides, a model of a machine does what it says, and what comes of it is the
 * next snapshot.  The clock is a number.  Asserted are bounds; the figures are printed, and are in docs/policy.md.
 *
 * The model, second by second: a program holds so much private memory; it is in use now and then, for a while, by
 * chance (the seed decides) and more often at some hours than at others; in use, it touches a part of its memory.  What
 * of that is out comes back page by page, at the rate of a disk, or whole, when it is thawed.  Whoever needs memory
 * when there is none waits: those seconds are counted, and most of all those in which somebody else could have given
 * some and was not asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/budget.h"
#include "policy/policy.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define NS 1000000000ull
#define MINUTE 60
#define HOUR 3600
#define DAY 86400
#define MOST 80

#define LOOK_S 5                        /* the agent looks so often, and when somebody waits */
#define FILL_BYTES (300 * MIB)          /* a program fills memory at so much a second, */
#define FAULT_BYTES (60 * MIB)          /* pages in at so much, */
#define THAW_BYTES (800 * MIB)          /* is thawed at so much, */
#define EVICT_BYTES (500 * MIB)         /* and evicted at so much */

/* What a program is like. */
struct kind {
	const char *name;
	unsigned int number;            /* how many of it */
	uint32_t priority;
	bool never, wake;
	uint64_t bytes;
	unsigned int touched_percent;   /* of its memory, each time it is used */
	unsigned int stored_percent;    /* what its pack takes */
	unsigned int ticks;             /* wake-ups a minute when nobody uses it */
	unsigned int idle_s, used_s;    /* it is used after so long, for so long, on average */
	unsigned int from_hour, to_hour;/* it is used at these hours only */
	bool job;                       /* begins to run when it is used, and ends with it */
	bool announced;                 /* a job that says beforehand what it needs */
	bool contrary;                  /* is used when it is out, and only then */
};

struct program {
	const struct kind *k;
	enum firn_unit_state state;
	bool runs, used, waits, asked;
	int64_t change;                 /* it is used, or no more, from then on */
	int64_t busy_until;
	enum firn_unit_state next;      /* when it is busy no more */
	int64_t used_last, back_at, out_at;
	uint64_t in, out, stored;       /* bytes */
	uint64_t touch;                 /* it has yet to touch */
	uint64_t faulted;               /* bytes since the last look */
	uint32_t refaults;              /* a second, at the last look */
	uint32_t quick;
	struct firn_wear wear;
	unsigned int evictions;
};

struct world {
	struct firn_policy_config c;
	struct firn_budget_config bc;
	struct firn_budget budget;
	uint64_t random, total, system, store;
	bool agent;
	struct program p[MOST];
	size_t n;
	int64_t now, decided, reclaimed;
	bool reclaiming, stalled;
	double some;                    /* PSI's avg10, in percent */
	struct firn_unit u[MOST];
	struct firn_decision d[MOST];
	uint32_t order[MOST];
	/* What came of it. */
	unsigned int evicted, frozen, thawed, woken, quick, decisions, waits, waits_high, wait_longest, needless_longest;
	unsigned int returns_in_hour[24];
	uint64_t freed, refaulted;
	int64_t shortest_awake;
};

static uint64_t rnd(struct world *w, uint64_t below)
{
	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	return (w->random >> 33) % below;
}

/* About @mean on average: mostly less, now and then three times that. */
static int64_t about(struct world *w, unsigned int mean)
{
	uint64_t x = rnd(w, 1000) + 1;

	return 1 + (int64_t)(mean * (x * x / 1000) * 3 / 1000);
}

static uint64_t available(const struct world *w)
{
	uint64_t used = w->system;

	for (size_t i = 0; i < w->n; i++)
		used += w->p[i].in;
	return used < w->total ? w->total - used : 0;
}

static void begin(struct world *w, uint64_t seed, uint64_t total, const struct kind *kinds, size_t n)
{
	memset(w, 0, sizeof(*w));
	firn_policy_config_defaults(&w->c);
	w->random = seed * 0x9e3779b97f4a7c15ull;
	w->total = total;
	w->system = total / 10;
	w->store = 64 * GIB;
	w->bc = (struct firn_budget_config){ FIRN_NO_LIMIT, 0, 2000 };
	w->agent = true;
	w->reclaimed = -DAY;
	w->shortest_awake = INT64_MAX;
	for (size_t k = 0; k < n; k++)
		for (unsigned int i = 0; i < kinds[k].number; i++) {
			struct program *p = &w->p[w->n++];

			assert_true(w->n <= MOST);
			p->k = &kinds[k];
			p->change = about(w, kinds[k].idle_s);
			p->back_at = -DAY;
		}
}

/* It is used, or no more. */
static void change(struct world *w, struct program *p)
{
	int hour = (int)(w->now / HOUR % 24);
	bool open = p->k->from_hour < p->k->to_hour ? hour >= (int)p->k->from_hour && hour < (int)p->k->to_hour :
		    hour >= (int)p->k->from_hour || hour < (int)p->k->to_hour;

	if (p->used) {
		p->used = false;
		p->change = w->now + about(w, p->k->idle_s);
		if (p->k->job) {
			p->runs = false;
			p->in = 0;
		}
		return;
	}
	if (!open) {
		p->change = w->now + 10 * MINUTE;
		return;
	}
	if (!p->runs) {
		p->runs = true;
		p->asked = !p->k->announced;
		p->back_at = w->now;
	}
	p->used = true;
	p->change = w->now + about(w, p->k->used_s);
	p->touch = p->k->bytes / 100 * p->k->touched_percent;
}

/* It takes @bytes; what is not there it waits for. */
static void grow(struct world *w, struct program *p, uint64_t bytes, uint64_t *left)
{
	uint64_t reserve = w->total / 100, can = *left > reserve ? *left - reserve : 0;

	if (bytes > can) {
		w->stalled = true;
		p->waits = true;
		bytes = can;
	}
	p->in += bytes;
	*left -= bytes;
}

static void come_back(struct world *w, struct program *p, bool woken)
{
	p->state = FIRN_UNIT_BUSY;
	p->next = FIRN_UNIT_RUNNING;
	p->busy_until = w->now + 1 + (int64_t)(p->out / THAW_BYTES);
	if (w->now - p->out_at < (int64_t)(w->c.quick_return_ns / NS))
		w->quick++;
	p->quick = firn_policy_returned(&w->c, p->quick, (uint64_t)(w->now - p->out_at) * NS);
	w->thawed += !woken;
	w->woken += woken;
	w->returns_in_hour[w->now / HOUR % 24]++;
}

static void live(struct world *w, struct program *p, uint64_t *left)
{
	uint64_t all = p->in + p->out, bytes;

	p->waits = false;
	if (p->k->contrary && p->runs) {
		if (!p->touch)
			p->touch = all;
		p->used = p->in < p->k->bytes && (p->out || p->in < p->k->bytes / 2);
	} else if (w->now >= p->change) {
		change(w, p);
	}
	if (!p->runs || !p->asked)
		return;
	if (p->used)
		p->used_last = w->now;
	if (p->state == FIRN_UNIT_BUSY) {
		if (w->now < p->busy_until)
			return;
		p->state = p->next;
		if (p->state == FIRN_UNIT_RUNNING) {
			grow(w, p, p->out, left);
			p->out = 0;
			p->back_at = w->now;
		} else {
			uint64_t kept = p->in / 32;

			w->freed += p->in - kept;
			*left += p->in - kept;
			p->out += p->in - kept;
			p->in = kept;
			p->out_at = w->now;
			w->reclaimed = w->now;
		}
		return;
	}
	if (p->state == FIRN_UNIT_FROZEN) {
		if (p->used && p->k->wake)
			come_back(w, p, true);
		return;
	}
	if (!p->used || !all) {
		if (p->used)
			grow(w, p, FILL_BYTES < p->k->bytes ? FILL_BYTES : p->k->bytes, left);
		return;
	}
	/* What it has not got yet; what it touches of what is out. */
	if (p->state == FIRN_UNIT_RUNNING && p->in < p->k->bytes) {
		bytes = p->k->bytes - p->in;
		grow(w, p, bytes < FILL_BYTES ? bytes : FILL_BYTES, left);
	}
	if (p->touch) {
		uint64_t step = p->touch < FAULT_BYTES ? p->touch : FAULT_BYTES, before = p->in;

		bytes = (uint64_t)((double)step * (double)p->out / (double)all);
		grow(w, p, bytes, left);
		p->out -= p->in - before;
		if (p->state == FIRN_UNIT_EVICTED) {
			p->faulted += p->in - before;
			w->refaulted += p->in - before;
		}
		p->touch -= step;
	}
}

static void take_snapshot(struct world *w, struct firn_policy_snapshot *s)
{
	memset(s, 0, sizeof(*s));
	s->total_bytes = w->total;
	s->available_bytes = available(w);
	s->psi_known = true;
	s->psi_some_hundredths = (uint32_t)(w->some * 100);
	s->psi_triggered = w->stalled;
	s->reclaiming = w->reclaiming;
	s->since_reclaim_ns = (uint64_t)(w->now - w->reclaimed) * NS;
	s->budget_bytes = firn_budget_left(&w->bc, &w->budget);
	s->store_bytes = w->store;
	s->units = w->u;
	s->n = w->n;
	for (size_t i = 0; i < w->n; i++) {
		struct program *p = &w->p[i];
		uint64_t cost = p->in / 100 * p->k->stored_percent;

		w->u[i] = (struct firn_unit){
			.id = i + 1,
			.priority = p->k->priority,
			.state = p->runs && p->asked ? p->state : FIRN_UNIT_BUSY,
			.never = p->k->never,
			.wake = p->k->wake,
			.private_bytes = p->in,
			.out_bytes = p->out,
			.stored_bytes = cost,
			.written_today_bytes = firn_wear_today(&w->budget, &p->wear),
			.idle_ns = p->runs ? (uint64_t)(w->now - p->used_last) * NS : UINT64_MAX,
			.awake_ns = (uint64_t)(w->now - p->back_at) * NS,
			.out_ns = (uint64_t)(w->now - p->out_at) * NS,
			.quick_returns = p->quick,
			.wakeups_per_minute = p->k->ticks,
			.refaults_per_s = p->refaults,
		};
		if (p->state == FIRN_UNIT_BUSY && p->next == FIRN_UNIT_RUNNING)
			s->returning_bytes += p->out;
		else if (p->state == FIRN_UNIT_BUSY)
			s->coming_bytes += p->in;
		s->store_bytes -= p->stored;
	}
}

static void take(struct world *w, struct program *p, bool freeze, uint64_t cost)
{
	int64_t awake = w->now - p->back_at;

	if (p->evictions++ && awake < w->shortest_awake)
		w->shortest_awake = awake;
	/* The rule is looked at here, not only its result: never before its time, with back-off. */
	assert_true((uint64_t)awake * NS >= firn_policy_awake_ns(&w->c, p->quick));
	p->state = FIRN_UNIT_BUSY;
	p->next = freeze ? FIRN_UNIT_FROZEN : FIRN_UNIT_EVICTED;
	p->busy_until = w->now + 1 + (int64_t)(p->in / EVICT_BYTES);
	p->stored = cost;
	firn_budget_spend(&w->budget, &p->wear, cost);
	w->evicted += !freeze;
	w->frozen += freeze;
}

static void decide(struct world *w, const struct firn_need *need)
{
	struct firn_policy_snapshot s;
	struct firn_policy_summary sum;

	take_snapshot(w, &s);
	if (need) {
		s.need = *need;
		s.need.bytes = need->bytes > s.available_bytes + s.coming_bytes ?
			       need->bytes - s.available_bytes - s.coming_bytes : 0;
	}
	firn_policy_decide(&w->c, &s, w->d, w->order, &sum);
	w->reclaiming = sum.reclaiming;
	w->decisions++;
	for (size_t i = 0; i < w->n; i++) {
		struct program *p = &w->p[i];

		assert_true(w->d[i].reason != FIRN_REASON_NONE);
		if (w->d[i].action == FIRN_ACTION_THAW) {
			come_back(w, p, false);
		} else if (w->d[i].action != FIRN_ACTION_NONE) {
			assert_true(p->k->priority < sum.for_priority && !p->used);
			take(w, p, w->d[i].action == FIRN_ACTION_FREEZE, w->d[i].cost_bytes);
		}
	}
}

/* Does somebody of lower priority than @high sit idle on memory that could be had? */
static bool could_give(const struct world *w, const struct program *high)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct program *p = &w->p[i];

		if (p->runs && p->asked && !p->used && p->state == FIRN_UNIT_RUNNING && !p->k->never &&
		    p->k->priority < high->k->priority && p->in >= w->c.min_bytes &&
		    w->now - p->used_last >= (int64_t)(w->c.need_min_idle_ns / NS) &&
		    (uint64_t)(w->now - p->back_at) * NS >= firn_policy_awake_ns(&w->c, p->quick) &&
		    (p->k->ticks < w->c.ticks_per_minute || p->k->wake) &&
		    p->in / 100 * p->k->stored_percent <= firn_budget_left(&w->bc, &w->budget))
			return true;
	}
	return false;
}

/* A job that says what it needs waits until it is there, or nobody is left to give. */
static void announce(struct world *w, struct program *p)
{
	struct firn_need need = { true, p->k->bytes + w->total / 50, p->k->priority, 0 };
	struct firn_policy_snapshot s;

	decide(w, &need);
	take_snapshot(w, &s);
	p->asked = s.available_bytes >= need.bytes || (!s.coming_bytes && w->now - p->back_at > 30);
	if (p->asked)
		p->back_at = w->now;
}

static void pass(struct world *w, int64_t seconds)
{
	int64_t end = w->now + seconds;
	unsigned int waits_since[MOST] = { 0 }, needless_since[MOST] = { 0 };

	for (; w->now < end; w->now++) {
		uint64_t left = available(w);
		struct firn_budget_time t = { w->now, (uint64_t)w->now * NS, 1 };

		firn_budget_roll(&w->bc, &w->budget, &t);
		w->stalled = false;
		for (size_t k = 0; k < w->n; k++)
			live(w, &w->p[(k + (size_t)w->now) % w->n], &left);
		w->some += ((w->stalled ? 100 : 0) - w->some) / 10;
		for (size_t i = 0; i < w->n; i++) {
			struct program *p = &w->p[i];

			w->waits += p->waits;
			if (p->k->priority < 60)
				continue;
			w->waits_high += p->waits;
			waits_since[i] = p->waits ? waits_since[i] + 1 : 0;
			needless_since[i] = p->waits && could_give(w, p) ? needless_since[i] + 1 : 0;
			if (needless_since[i] > w->needless_longest)
				w->needless_longest = needless_since[i];
			if (waits_since[i] > w->wait_longest)
				w->wait_longest = waits_since[i];
		}
		if (!w->agent) {
			for (size_t i = 0; i < w->n; i++)
				w->p[i].asked |= w->p[i].runs;
			continue;
		}
		for (size_t i = 0; i < w->n; i++)
			if (w->p[i].runs && !w->p[i].asked)
				announce(w, &w->p[i]);
		if (w->now < w->decided + (w->stalled ? 1 : LOOK_S))
			continue;
		for (size_t i = 0; i < w->n; i++) {
			w->p[i].refaults = (uint32_t)(w->p[i].faulted / 4096 / (uint64_t)(w->now - w->decided));
			w->p[i].faulted = 0;
			if (w->p[i].state == FIRN_UNIT_RUNNING)
				w->p[i].stored = 0;
		}
		decide(w, NULL);
		w->decided = w->now;
	}
}

static unsigned int most_returns(const struct world *w)
{
	unsigned int most = 0;

	for (size_t h = 0; h < 24; h++)
		if (w->returns_in_hour[h] > most)
			most = w->returns_in_hour[h];
	return most;
}

static void print(const struct world *w, const char *name, uint64_t seed)
{
	unsigned int returns = w->thawed + w->woken;

	printf("%s, seed %llu: %u evicted, %u frozen; %u thawed, %u woken, %u of them quick: %.1f an hour, at most %u; "
	       "%.1f GiB freed, %.1f written, %.1f paged in; waited for memory: %u s, priority 60 and up %u s, "
	       "at most %u s, %u s where it could be had; %u decisions\n",
	       name, (unsigned long long)seed, w->evicted, w->frozen, w->thawed, w->woken, w->quick, returns / 24.0,
	       most_returns(w), (double)w->freed / GIB, (double)w->budget.total_bytes / GIB,
	       (double)w->refaulted / GIB, w->waits, w->waits_high, w->wait_longest, w->needless_longest,
	       w->decisions);
}

/* 8 GiB; somebody works from nine to six, and looks in again in the evening. */
static const struct kind DESKTOP[] = {
	{ "shell and compositor", 1, 70, true, false, 500 * MIB, 20, 50, 300, 60, 600, 8, 23, false, false, false },
	{ "editor", 1, 60, false, false, 1200 * MIB, 50, 40, 30, 600, 1200, 9, 18, false, false, false },
	{ "language server", 3, 40, false, false, 700 * MIB, 60, 35, 6, 3600, 900, 9, 18, false, false, false },
	{ "browser", 1, 60, false, false, 600 * MIB, 50, 50, 200, 300, 600, 8, 23, false, false, false },
	{ "tab", 14, 50, false, false, 180 * MIB, 40, 45, 4, 7200, 300, 8, 23, false, false, false },
	{ "chat", 1, 45, false, false, 500 * MIB, 30, 45, 120, 1800, 120, 8, 23, false, false, false },
	{ "mail", 1, 40, false, false, 400 * MIB, 50, 45, 12, 3600, 180, 8, 20, false, false, false },
	{ "notebook kernel", 4, 30, false, false, 600 * MIB, 70, 60, 2, 10800, 600, 9, 18, false, false, false },
	{ "virtual machine", 1, 30, false, false, 1500 * MIB, 40, 40, 20, 14400, 1200, 9, 18, false, false, false },
	{ "compiler run", 1, 65, false, false, 1800 * MIB, 100, 40, 0, 3600, 240, 9, 18, true, false, false },
};

/* 16 GiB: game servers that pause themselves, notebooks and agents of many users, a database, and jobs at night. */
static const struct kind SERVER[] = {
	{ "database", 1, 90, true, false, 3000 * MIB, 10, 60, 900, 5, 600, 0, 24, false, false, false },
	{ "web server", 2, 80, false, false, 300 * MIB, 50, 50, 300, 5, 600, 0, 24, false, false, false },
	{ "game server", 9, 30, false, true, 1100 * MIB, 60, 40, 1200, 14400, 3600, 14, 2, false, false, false },
	{ "notebook kernel", 14, 20, false, false, 500 * MIB, 60, 55, 2, 14400, 900, 8, 20, false, false, false },
	{ "coding agent", 16, 40, false, false, 350 * MIB, 50, 40, 10, 5400, 600, 7, 22, false, false, false },
	{ "nightly job", 1, 70, false, false, 6000 * MIB, 100, 50, 0, 3600, 5400, 1, 5, true, true, false },
	{ "report", 1, 60, false, false, 2000 * MIB, 100, 50, 0, 7200, 600, 0, 24, true, false, false },
};

static struct world day, without;

/* A day with an agent, and the same without. */
static void run_day_for(const char *name, const struct kind *kinds, size_t n, uint64_t total, uint64_t daily,
			uint64_t seed, int32_t pressure_for)
{
	begin(&day, seed, total, kinds, n);
	day.bc.daily_bytes = daily;
	day.c.pressure_for = pressure_for;
	pass(&day, DAY);
	print(&day, name, seed);
	begin(&without, seed, total, kinds, n);
	without.agent = false;
	pass(&without, DAY);
	printf("  without an agent: waited for memory: %u s, priority 60 and up %u s\n", without.waits,
	       without.waits_high);
	/* Whatever the day was like. */
	assert_true(day.budget.total_bytes <= daily);
	assert_true(day.shortest_awake >= (int64_t)(day.c.min_awake_ns / NS));
	assert_true(day.needless_longest <= LOOK_S);
}

static void run_day(const char *name, const struct kind *kinds, size_t n, uint64_t total, uint64_t daily, uint64_t seed)
{
	run_day_for(name, kinds, n, total, daily, seed, FIRN_FOR_ACTIVE);
}

static void expect_good(double returns_an_hour, unsigned int in_one_hour, double written_gib)
{
	/* It was a hard day, so that there was something to do, */
	assert_true(without.waits_high > 1800);
	assert_true(day.evicted + day.frozen >= 40 && day.thawed + day.woken >= 30);
	/* and it helped those that matter, and the others too, */
	assert_true(day.waits_high * 25 <= without.waits_high);
	assert_true(day.waits * 25 <= without.waits);
	/* without making anybody come and go. */
	assert_true(day.thawed + day.woken <= returns_an_hour * 24);
	assert_true(most_returns(&day) <= in_one_hour);
	assert_true((double)day.budget.total_bytes <= written_gib * GIB);
}

static void test_desktop(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		run_day("desktop", DESKTOP, sizeof(DESKTOP) / sizeof(*DESKTOP), 8 * GIB, 25 * GIB, seed);
		expect_good(4, 20, 16);
	}
}

static void test_server(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		run_day("server", SERVER, sizeof(SERVER) / sizeof(*SERVER), 16 * GIB, 50 * GIB, seed);
		expect_good(4, 20, 32);
	}
}

/* Small flash: the budget ends the day, not the machine. */
static void test_small_budget(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		run_day("desktop, 2 GiB a day", DESKTOP, sizeof(DESKTOP) / sizeof(*DESKTOP), 8 * GIB, 2 * GIB, seed);
		assert_true(day.budget.total_bytes > 2 * GIB - 300 * MIB);
		assert_true(day.waits_high <= without.waits_high);
	}
}

/* Nobody said what matters more: nothing is taken for an equal; unless all pressure is the system's. */
static void test_all_equal(void **state)
{
	static struct kind equal[sizeof(DESKTOP) / sizeof(*DESKTOP)];
	const size_t n = sizeof(equal) / sizeof(*equal);

	(void)state;
	memcpy(equal, DESKTOP, sizeof(equal));
	for (size_t i = 0; i < n; i++)
		equal[i].priority = 50;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		run_day_for("desktop, all equal", equal, n, 8 * GIB, 25 * GIB, seed, FIRN_FOR_ACTIVE);
		assert_true(day.evicted + day.frozen <= 10);
		run_day_for("desktop, all equal, for the system", equal, n, 8 * GIB, 25 * GIB, seed,
			    FIRN_PRIORITY_SYSTEM);
		assert_true(day.waits * 25 <= without.waits);
		assert_true(day.thawed + day.woken <= 4 * 24 && most_returns(&day) <= 20);
	}
}

/* The worst that can be: who is out is wanted back at once, and its memory is wanted again and again. */
static const struct kind CONTRARY[] = {
	{ "contrary", 20, 10, false, false, 150 * MIB, 100, 50, 0, 10, 60, 0, 24, false, false, true },
	{ "hog", 1, 90, false, false, 2500 * MIB, 100, 50, 0, 60, 120, 0, 24, true, false, false },
};

static void test_no_oscillation(void **state)
{
	unsigned int most = 2, evictions = 0;
	uint64_t ns, all = 0;

	(void)state;
	begin(&day, 1, 5 * GIB, CONTRARY, 2);
	day.bc.daily_bytes = FIRN_NO_LIMIT;
	/* As many as the doubling minimum allows in a day. */
	for (uint32_t quick = 0; (ns = firn_policy_awake_ns(&day.c, quick)) + all < DAY * NS; quick++, most++)
		all += ns;
	pass(&day, DAY);
	print(&day, "contrary", 1);
	for (size_t i = 0; i < day.n; i++) {
		assert_true(day.p[i].evictions <= most);
		evictions += day.p[i].evictions;
	}
	printf("at most %u evictions of one, on average %.1f\n", most, evictions / 20.0);
	assert_true(evictions >= 20 * most / 2);
	assert_true(day.quick >= evictions / 2);
	assert_true(day.shortest_awake >= (int64_t)(day.c.min_awake_ns / NS));
}

/* The clock is a number: the same day is the same day. */
static void test_again(void **state)
{
	unsigned int evicted;
	uint64_t freed;

	(void)state;
	run_day("desktop", DESKTOP, sizeof(DESKTOP) / sizeof(*DESKTOP), 8 * GIB, 25 * GIB, 9);
	evicted = day.evicted;
	freed = day.freed;
	run_day("desktop", DESKTOP, sizeof(DESKTOP) / sizeof(*DESKTOP), 8 * GIB, 25 * GIB, 9);
	assert_int_equal(day.evicted, evicted);
	assert_true(day.freed == freed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_desktop),
		cmocka_unit_test(test_server),
		cmocka_unit_test(test_small_budget),
		cmocka_unit_test(test_all_equal),
		cmocka_unit_test(test_no_oscillation),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
