// SPDX-License-Identifier: MIT
/*
 * Decisions in words: names for metrics, sentences with the figures for people.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "policy/internal.h"

#define SECOND 1000000000ull

const char *firn_action_name(enum firn_action a)
{
	static const char *const names[FIRN_ACTIONS] = { "none", "evict", "freeze", "thaw" };

	return (unsigned int)a < FIRN_ACTIONS ? names[a] : NULL;
}

const char *firn_reason_name(enum firn_reason r)
{
	static const char *const names[FIRN_REASONS] = {
		[FIRN_REASON_NONE] = "none",
		[FIRN_REASON_IDLE] = "idle",
		[FIRN_REASON_TICKS_WAKES] = "ticks-wakes",
		[FIRN_REASON_BUSY] = "busy",
		[FIRN_REASON_NEVER] = "never",
		[FIRN_REASON_REFUSED] = "refused",
		[FIRN_REASON_OTHER_USER] = "other-user",
		[FIRN_REASON_PRIORITY] = "priority",
		[FIRN_REASON_SMALL] = "small",
		[FIRN_REASON_AWAKE] = "awake",
		[FIRN_REASON_BACKOFF] = "back-off",
		[FIRN_REASON_ACTIVE] = "active",
		[FIRN_REASON_TICKS] = "ticks",
		[FIRN_REASON_UNIT_BUDGET] = "unit-budget",
		[FIRN_REASON_BUDGET] = "budget",
		[FIRN_REASON_STORE] = "store",
		[FIRN_REASON_NO_NEED] = "no-need",
		[FIRN_REASON_ENOUGH] = "enough",
		[FIRN_REASON_STORM] = "storm",
		[FIRN_REASON_MOSTLY_BACK] = "mostly-back",
		[FIRN_REASON_IN_USE] = "in-use",
		[FIRN_REASON_ROOM] = "room",
		[FIRN_REASON_FROZEN_LONG] = "frozen-long",
		[FIRN_REASON_OUT] = "out",
		[FIRN_REASON_NO_ROOM] = "no-room",
		[FIRN_REASON_WAITS] = "waits",
		[FIRN_REASON_BY_USER] = "by-user",
	};

	return (unsigned int)r < FIRN_REASONS ? names[r] : NULL;
}

const char *firn_pressure_name(enum firn_pressure p)
{
	static const char *const names[FIRN_PRESSURES] = {
		"none", "low", "psi-full", "psi-some", "psi-trigger", "until-high", "need",
	};

	return (unsigned int)p < FIRN_PRESSURES ? names[p] : NULL;
}

/* A sentence that grows, cut where the buffer ends. */
struct text {
	char *buf;
	size_t size, len;
};

static void FIRN_PRINTF(2, 3) say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (t->len + 1 >= t->size)
		return;
	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len += firn_min_u64((uint64_t)n, t->size - t->len - 1);
}

/* Figures for sentences: three digits suffice, and a long time needs no seconds. */
static void say_size(struct text *t, uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int u = 0;
	uint64_t tenths;

	while (u + 1 < FIRN_ARRAY_SIZE(units) && bytes >> (10 * (u + 1)))
		u++;
	if (u)
		tenths = (bytes >> (10 * (u - 1))) * 10 / 1024;
	else
		tenths = bytes * 10;
	if (u && tenths < 100 && tenths % 10)
		say(t, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, units[u]);
	else
		say(t, "%" PRIu64 " %s", tenths / 10, units[u]);
}

static void say_time(struct text *t, uint64_t ns)
{
	static const struct {
		uint64_t s;
		const char *name;
	} units[] = { { 86400, "days" }, { 3600, "h" }, { 60, "min" } };
	uint64_t s = ns / SECOND;

	for (size_t k = 0; k < FIRN_ARRAY_SIZE(units); k++)
		if (s >= 2 * units[k].s) {
			say(t, "%" PRIu64 " %s", s / units[k].s, units[k].name);
			return;
		}
	say(t, "%" PRIu64 " s", s);
}

static void say_percent(struct text *t, uint32_t hundredths)
{
	char buf[FIRN_SIZE_TEXT];

	say(t, "%s", firn_percent_print(buf, hundredths));
}

/* "for priority 80, the highest that is active" */
static void say_for(struct text *t, const struct firn_policy_config *c, const struct firn_policy_snapshot *s,
		    const struct firn_policy_summary *sum)
{
	if (sum->for_priority >= FIRN_PRIORITY_SYSTEM)
		say(t, "the system%s", sum->nobody_active ? ", since nothing is active" : "");
	else
		say(t, "priority %" PRIu32 "%s", sum->for_priority,
		    !s->need.given && c->pressure_for < 0 ? ", the highest that is active" : "");
}

/* How long it must be awake, or idle, of how long it is. */
static void say_wait(struct text *t, const char *what, uint64_t is_ns, uint64_t least_ns)
{
	say(t, "%s ", what);
	say_time(t, is_ns);
	say(t, ", at least ");
	say_time(t, least_ns);
	say(t, " are asked for");
}

/* What is taken, or would be. */
static void say_gain(struct text *t, const struct firn_unit *u, const struct firn_decision *d)
{
	say(t, "idle for ");
	say_time(t, u->idle_ns);
	say(t, "; gives ");
	say_size(t, d->gain_bytes);
	if (d->cost_bytes) {
		say(t, ", writes ");
		say_size(t, d->cost_bytes);
	}
}

static void say_limit(struct text *t, const char *what, uint64_t cost, uint64_t left)
{
	say(t, "would write ");
	say_size(t, cost);
	say(t, "; %s has ", what);
	say_size(t, left);
	say(t, " left");
}

static void say_room(struct text *t, const struct firn_unit *u, const struct firn_policy_snapshot *s)
{
	say_size(t, u->out_bytes);
	say(t, " are out, ");
	say_size(t, s->available_bytes);
	say(t, " are available");
}

static void say_running(struct text *t, const struct firn_policy_config *c, const struct firn_policy_snapshot *s,
			const struct firn_unit *u, const struct firn_decision *d, const struct firn_policy_summary *sum)
{
	uint64_t left;

	switch (d->reason) {
	case FIRN_REASON_IDLE:
		say(t, "evicted, as number %" PRIu32 ": priority %" PRIu32 ", ", d->place, u->priority);
		say_gain(t, u, d);
		break;
	case FIRN_REASON_TICKS_WAKES:
		say(t, "frozen, as number %" PRIu32 ": priority %" PRIu32 ", wakes up %" PRIu32
		    " times a minute but is thawed when there is something to do; ",
		    d->place, u->priority, u->wakeups_per_minute);
		say_gain(t, u, d);
		break;
	case FIRN_REASON_BUSY:
		say(t, "something is being done to it already, or it is wedged");
		break;
	case FIRN_REASON_NEVER:
		say(t, "on the never-list%s%s", u->never_why ? ": " : "", u->never_why ? u->never_why : "");
		break;
	case FIRN_REASON_REFUSED:
		say(t, "cannot be frozen%s%s", u->refused_why ? ": " : "", u->refused_why ? u->refused_why : "");
		break;
	case FIRN_REASON_OTHER_USER:
		say(t, "belongs to %s, not to user %" PRIu32 ", who asks",
		    u->uid == FIRN_UID_SEVERAL ? "several users" : "another user", s->need.uid);
		break;
	case FIRN_REASON_PRIORITY:
		say(t, "priority %" PRIu32 " is not below ", u->priority);
		say_for(t, c, s, sum);
		break;
	case FIRN_REASON_SMALL:
		say(t, "gives ");
		say_size(t, d->gain_bytes);
		say(t, ", less than the ");
		say_size(t, u->min_bytes ? u->min_bytes : c->min_bytes);
		say(t, " that are worth it");
		break;
	case FIRN_REASON_AWAKE:
		say_wait(t, "awake for", u->awake_ns, c->min_awake_ns);
		break;
	case FIRN_REASON_BACKOFF:
		say_wait(t, "awake for", u->awake_ns, firn_policy_awake_ns(c, u->quick_returns));
		say(t, ", since it came back quickly %" PRIu32 " %s", u->quick_returns,
		    u->quick_returns == 1 ? "time" : "times");
		break;
	case FIRN_REASON_ACTIVE:
		say_wait(t, "idle for", u->idle_ns, sum->urgent ? c->need_min_idle_ns : c->min_idle_ns);
		break;
	case FIRN_REASON_TICKS:
		say(t, "wakes up %" PRIu32 " times a minute (%" PRIu32
		    " and more: would page in again), and nothing would thaw it if it were frozen",
		    u->wakeups_per_minute, c->ticks_per_minute);
		break;
	case FIRN_REASON_UNIT_BUDGET:
		left = firn_sub_u64(c->unit_daily_bytes, u->written_today_bytes);
		say_limit(t, "its budget of today", d->cost_bytes, left);
		break;
	case FIRN_REASON_BUDGET:
		if (!s->budget_bytes)
			say(t, "the day's budget of bytes to write is used up");
		else
			say_limit(t, d->place ? "the day's budget, those before it counted," : "the day's budget",
				  d->cost_bytes, d->place ? firn_sub_u64(s->budget_bytes, sum->cost_bytes) :
				  s->budget_bytes);
		break;
	case FIRN_REASON_STORE:
		say_limit(t, d->place ? "the store, those before it counted," : "the store", d->cost_bytes,
			  d->place ? firn_sub_u64(s->store_bytes, sum->cost_bytes) : s->store_bytes);
		break;
	case FIRN_REASON_NO_NEED:
		say(t, "number %" PRIu32 " of %" PRIu32 " when memory is wanted; now none is: ", d->place, sum->queued);
		say_gain(t, u, d);
		break;
	case FIRN_REASON_ENOUGH:
		say(t, "number %" PRIu32 " of %" PRIu32 ", not needed: others give the ", d->place, sum->queued);
		say_size(t, sum->wanted_bytes);
		say(t, " that are wanted");
		break;
	default:
		break;
	}
}

static void say_out(struct text *t, const struct firn_policy_config *c, const struct firn_policy_snapshot *s,
		    const struct firn_unit *u, const struct firn_decision *d, const struct firn_policy_summary *sum)
{
	const char *state = u->state == FIRN_UNIT_FROZEN ? "frozen" : "evicted";

	switch (d->reason) {
	case FIRN_REASON_STORM:
		say(t, "comes back whole: it asks for %" PRIu32 " pages a second (%" PRIu32 " and more are too many); ",
		    u->refaults_per_s, c->storm_refaults_per_s);
		say_room(t, u, s);
		break;
	case FIRN_REASON_MOSTLY_BACK:
		say(t, "comes back whole: most of it is back already; ");
		say_room(t, u, s);
		break;
	case FIRN_REASON_IN_USE:
		say(t, "comes back whole: it is in use, and memory is there; ");
		say_room(t, u, s);
		break;
	case FIRN_REASON_ROOM:
		say(t, "comes back: nothing else would wake it, and memory is there; ");
		say_room(t, u, s);
		break;
	case FIRN_REASON_FROZEN_LONG:
		say(t, "comes back: nothing else would wake it, and it was frozen for ");
		say_time(t, u->out_ns);
		say(t, ", the longest allowed being ");
		say_time(t, c->max_frozen_ns);
		break;
	case FIRN_REASON_OUT:
		say(t, "%s for ", state);
		say_time(t, u->out_ns);
		say(t, " already; ");
		say_size(t, u->out_bytes);
		say(t, " are out");
		break;
	case FIRN_REASON_NO_ROOM:
		say(t, "%s; would come back if there were memory: ", state);
		say_room(t, u, s);
		say(t, ", ");
		say_size(t, firn_back_soon(c, u) != FIRN_REASON_NONE ? sum->low_bytes : sum->high_bytes);
		say(t, " are to stay free");
		break;
	case FIRN_REASON_WAITS:
		say(t, "frozen for ");
		say_time(t, u->out_ns);
		say(t, ", until there is something for it to do; ");
		say_size(t, u->out_bytes);
		say(t, " are out");
		break;
	case FIRN_REASON_BY_USER:
		say(t, "%s by a user's request; stays so until asked to come back%s", state,
		    u->wake ? ", or until there is something for it to do" : "");
		break;
	default:
		break;
	}
}

const char *firn_policy_explain(char *buf, size_t size, const struct firn_policy_config *config,
				const struct firn_policy_snapshot *s, size_t i, const struct firn_decision *d,
				const struct firn_policy_summary *summary)
{
	struct text t = { buf, size, 0 };

	if (size)
		buf[0] = '\0';
	if (firn_unit_is_out(&s->units[i]))
		say_out(&t, config, s, &s->units[i], d, summary);
	else
		say_running(&t, config, s, &s->units[i], d, summary);
	return buf;
}

const char *firn_policy_explain_summary(char *buf, size_t size, const struct firn_policy_config *config,
					const struct firn_policy_snapshot *s,
					const struct firn_policy_summary *sum)
{
	struct text t = { buf, size, 0 };

	if (size)
		buf[0] = '\0';
	if (!s->psi_known && !s->need.given)
		say(&t, "PSI not known, by available memory alone: ");
	switch (sum->pressure) {
	case FIRN_PRESSURE_NONE:
		say(&t, "no pressure: ");
		say_size(&t, s->available_bytes);
		say(&t, " available, reclaim begins below ");
		say_size(&t, sum->low_bytes);
		return buf;
	case FIRN_PRESSURE_LOW:
		say(&t, "pressure: ");
		say_size(&t, s->available_bytes);
		say(&t, " available, less than ");
		say_size(&t, sum->low_bytes);
		break;
	case FIRN_PRESSURE_FULL:
		say(&t, "pressure: nothing ran for ");
		say_percent(&t, s->psi_full_hundredths);
		say(&t, " of the last 10 s for want of memory");
		break;
	case FIRN_PRESSURE_SOME:
		say(&t, "pressure: something waited for memory for ");
		say_percent(&t, s->psi_some_hundredths);
		say(&t, " of the last 10 s");
		break;
	case FIRN_PRESSURE_TRIGGER:
		say(&t, "pressure: a trigger fired");
		break;
	case FIRN_PRESSURE_UNTIL_HIGH:
		say(&t, "pressure: ");
		say_size(&t, s->available_bytes);
		say(&t, " available again, reclaim goes on until ");
		say_size(&t, sum->high_bytes);
		break;
	case FIRN_PRESSURE_NEED:
		say(&t, "asked for");
		break;
	default:
		break;
	}
	say(&t, "; ");
	say_size(&t, sum->wanted_bytes);
	say(&t, " wanted for ");
	say_for(&t, config, s, sum);
	say(&t, "; %" PRIu32 " of %" PRIu32 " candidates give ",
	    sum->actions[FIRN_ACTION_EVICT] + sum->actions[FIRN_ACTION_FREEZE], sum->queued);
	say_size(&t, sum->gain_bytes);
	if (sum->missing_bytes) {
		say(&t, ", ");
		say_size(&t, sum->missing_bytes);
		say(&t, " are missing");
	}
	return buf;
}
