/* SPDX-License-Identifier: MIT */
/*
 * Which process gives memory to which, and why: the patent's trigger.  A snapshot and a configuration in, one decision
 * with a reason for every unit out.
 *
 * Pure: the same input gives the same output, whatever the order of the units; no look at the system, no clock, no
 * allocation; any thread.  All times in the snapshot are durations, so there is no clock to ask.  docs/policy.md tells
 * the same to people.
 *
 * What always holds, and tests/unit/test_policy.c looks for:
 *  1. Only units of lower priority than the one that memory is wanted for are evicted or frozen.
 *  2. Of those that may be taken, one is taken only when all of lower priority are taken too; or they were passed over
 *     because they would exceed a budget or the store.
 *  3. Never taken: what is on the never-list, busy, refused by the engine, of another user than the one who asks,
 *     smaller than the minimum, awake for less than the minimum (doubled after quick returns), not idle for long
 *     enough, over its own day's budget; and what ticks, unless something will wake it.
 *  4. What is taken together fits in the day's budget and in the store.
 *  5. Nothing is taken when nothing is wanted; and of those with the highest priority taken, none without which enough
 *     would be taken.
 *  6. What is brought back together leaves the low watermark, or the high one, available (but for 7).
 *  7. What the agent froze and nothing wakes is not frozen for longer than max_frozen_ns.
 *  8. What a user asked to be frozen is never thawed.
 *  9. Every unit has a reason.
 */
#ifndef FIRN_POLICY_POLICY_H
#define FIRN_POLICY_POLICY_H

#include "base/types.h"

#define FIRN_PRIORITY_MAX 100
/* Who needs memory is the system itself: more than any unit. */
#define FIRN_PRIORITY_SYSTEM 101
/* config.pressure_for: the highest priority of the units that are active; the system's where none is. */
#define FIRN_FOR_ACTIVE (-1)
/* No limit: a budget, a store. */
#define FIRN_NO_LIMIT UINT64_MAX
/* unit.uid: the processes of a group belong to several users, so that only root's requests take it. */
#define FIRN_UID_SEVERAL UINT32_MAX

/* "hundredths" are hundredths of a percent, as of firn_percent_parse: 100 % is 10,000. */
struct firn_policy_config {
	/* Pressure.  A watermark in bytes, or, where that is 0, as a share of all memory. */
	uint64_t low_bytes;
	uint32_t low_hundredths;        /* with less available, reclaim begins */
	uint64_t high_bytes;
	uint32_t high_hundredths;       /* and goes on until so much is; at least the low one */
	uint32_t psi_some_hundredths;   /* avg10 of "some" from which on there is pressure; 0: not looked at */
	uint32_t psi_full_hundredths;   /* of "full" */
	uint32_t psi_below_hundredths;  /* PSI counts only while less than this share of memory is available */
	uint32_t psi_step_hundredths;   /* share of memory to make free at once, where only PSI asks for it */
	uint64_t psi_settle_ns;         /* and not again before so long after the last reclaim: avg10 looks back */
	int32_t pressure_for;           /* for which priority: FIRN_FOR_ACTIVE, or 0 to FIRN_PRIORITY_SYSTEM */
	uint64_t active_ns;             /* a unit is active that was idle for less */

	/* Candidates. */
	uint64_t min_bytes;             /* of private memory; a unit may have its own */
	uint64_t min_idle_ns;
	uint64_t need_min_idle_ns;      /* the same where it is urgent: somebody waits for memory now */
	uint64_t min_awake_ns;          /* since it came back, or began */
	uint64_t quick_return_ns;       /* who was out for less came back quickly: min_awake_ns doubles, each time, */
	uint64_t max_backoff_ns;        /* to this at most */
	uint32_t estimate_hundredths;   /* share of private memory that is written, where it is not known */
	uint64_t unit_daily_bytes;      /* to be written a day for one unit; 0: only the budget of all */

	/* Evict or freeze. */
	uint32_t ticks_per_minute;      /* from so many wake-ups a minute on a unit ticks; 0: none does */

	/* Back. */
	uint32_t storm_refaults_per_s;  /* from so many on, an evicted unit is brought back whole; 0: never for that */
	uint32_t mostly_back_hundredths;/* an evicted unit of which no more than this share is still out comes back whole */
	uint64_t max_frozen_ns;         /* frozen by the agent, without wake; 0: no maximum */
};

/* The values of the server profile, as docs/policy.md lists them. */
void firn_policy_config_defaults(struct firn_policy_config *ret);

/* NULL, or which of the values cannot be, in one static sentence ("the high watermark is below the low one"). Watermarks
 * in bytes and in shares cannot be compared without the size of memory: there the higher counts as the high one. */
const char *firn_policy_config_check(const struct firn_policy_config *config);

enum firn_unit_state {
	FIRN_UNIT_RUNNING,
	FIRN_UNIT_EVICTED,              /* runnable; pages in by itself */
	FIRN_UNIT_FROZEN,               /* stopped, and evicted */
	FIRN_UNIT_BUSY,                 /* something is being done to it, or it is wedged */
};

/* A process or a group: what is acted on as one. */
struct firn_unit {
	uint64_t id;                    /* no two of a snapshot have the same; breaks ties */
	uint32_t priority;              /* 0-100, higher matters more; above counts as 100 */
	uint32_t uid;                   /* FIRN_UID_SEVERAL */
	enum firn_unit_state state;
	bool never;                     /* not by the agent's own decision */
	const char *never_why;          /* for the sentence: which rule; or NULL */
	bool refused;                   /* the engine's plan refuses it */
	const char *refused_why;
	bool wake;                      /* something will thaw it when there is something for it to do */
	bool by_user;                   /* evicted or frozen by a user's request, not by the agent */
	bool in_ram;                    /* its pack would stay in memory: nothing is written, and less is gained */
	uint64_t private_bytes;         /* resident, that an eviction would take */
	uint64_t shared_bytes;          /* resident, that it would not */
	uint64_t out_bytes;             /* evicted, and not back */
	uint64_t stored_bytes;          /* what its pack would take, from its last one or an estimate; 0: not known */
	uint64_t min_bytes;             /* its own minimum of private bytes; 0: the configuration's */
	uint64_t written_today_bytes;   /* for it */
	uint64_t idle_ns;               /* since it last was busy, by processor time, faults and wake-ups */
	uint64_t awake_ns;              /* since it came back or began; of one that is out: not looked at */
	uint64_t out_ns;                /* since it was evicted or frozen */
	uint32_t quick_returns;         /* as firn_policy_returned counts them */
	uint32_t wakeups_per_minute;    /* 0 also where it is not known */
	uint32_t refaults_per_s;        /* pages that an evicted one asked for */
};

struct firn_need {
	bool given;
	uint64_t bytes;                 /* to be freed beyond what is available; what is under way for it is off */
	uint32_t priority;              /* whose it is, 0 to FIRN_PRIORITY_SYSTEM */
	uint32_t uid;                   /* who asks: not 0: only that user's units */
};

struct firn_policy_snapshot {
	uint64_t total_bytes;           /* memory of the host, or of the scope's cgroup where it has a limit */
	uint64_t available_bytes;
	uint64_t coming_bytes;          /* that evictions under way will yet free */
	uint64_t returning_bytes;       /* that thaws under way will yet take */
	uint64_t reserved_bytes;        /* made free for somebody who has yet to take them: not for those who return */
	bool psi_known;                 /* the next three */
	uint32_t psi_some_hundredths;   /* avg10 */
	uint32_t psi_full_hundredths;
	bool psi_triggered;             /* a trigger fired since the last decision */
	bool reclaiming;                /* summary.reclaiming of the last decision; false before the first */
	uint64_t since_reclaim_ns;      /* since the last eviction ended; UINT64_MAX: there was none */
	uint64_t budget_bytes;          /* left of the day's, without what is under way; FIRN_NO_LIMIT */
	uint64_t store_bytes;           /* free in the store, without what is under way; FIRN_NO_LIMIT */
	struct firn_need need;          /* given: the decision is for it alone, and brings nobody back */
	const struct firn_unit *units;
	size_t n;
};

enum firn_action {
	FIRN_ACTION_NONE,
	FIRN_ACTION_EVICT,              /* stays runnable */
	FIRN_ACTION_FREEZE,             /* evict and stop; it is to be woken */
	FIRN_ACTION_THAW,               /* bring back whole, and let run */
	FIRN_ACTIONS
};

enum firn_reason {
	FIRN_REASON_NONE,               /* in no decision */
	/* Taken. */
	FIRN_REASON_IDLE,               /* evict */
	FIRN_REASON_TICKS_WAKES,        /* freeze: it ticks, so it would page in again; something will wake it */
	/* Running, and not taken.  The first that holds, in this order. */
	FIRN_REASON_BUSY,
	FIRN_REASON_NEVER,
	FIRN_REASON_REFUSED,
	FIRN_REASON_OTHER_USER,
	FIRN_REASON_PRIORITY,           /* not below the one that memory is (or would be) wanted for */
	FIRN_REASON_SMALL,
	FIRN_REASON_AWAKE,              /* came back, or began, too recently */
	FIRN_REASON_BACKOFF,            /* the same, after quick returns */
	FIRN_REASON_ACTIVE,             /* not idle for long enough */
	FIRN_REASON_TICKS,              /* would page in again; nothing would wake it */
	FIRN_REASON_UNIT_BUDGET,
	FIRN_REASON_BUDGET,             /* more than the day's budget has left, or would have left after those before it */
	FIRN_REASON_STORE,              /* the same of the store's space */
	FIRN_REASON_NO_NEED,            /* a candidate; nothing is wanted */
	FIRN_REASON_ENOUGH,             /* a candidate; others give what is wanted */
	/* Brought back. */
	FIRN_REASON_STORM,              /* asks for so many pages that all at once is better */
	FIRN_REASON_MOSTLY_BACK,        /* little of it is still out */
	FIRN_REASON_IN_USE,             /* active, and memory is there again */
	FIRN_REASON_ROOM,               /* frozen without wake, and memory is there again */
	FIRN_REASON_FROZEN_LONG,        /* frozen without wake, for the maximum */
	/* Out, and stays so. */
	FIRN_REASON_OUT,                /* evicted, and not in use; or the decision is for a need */
	FIRN_REASON_NO_ROOM,            /* would come back if there was memory */
	FIRN_REASON_WAITS,              /* frozen until something wakes it */
	FIRN_REASON_BY_USER,            /* a user's request; comes back by request, or on use where that was asked */
	FIRN_REASONS
};

struct firn_decision {
	enum firn_action action;
	enum firn_reason reason;
	uint32_t place;                 /* in the queue of candidates, from 1; 0: not in it */
	uint64_t gain_bytes;            /* memory that taking it frees; of one that is out: that its return takes */
	uint64_t cost_bytes;            /* that are written to the store for it; 0 of one that is out */
};

enum firn_pressure {
	FIRN_PRESSURE_NONE,
	FIRN_PRESSURE_LOW,              /* below the low watermark */
	FIRN_PRESSURE_FULL,             /* PSI full */
	FIRN_PRESSURE_SOME,             /* PSI some */
	FIRN_PRESSURE_TRIGGER,          /* a PSI trigger */
	FIRN_PRESSURE_UNTIL_HIGH,       /* none new; not yet at the high watermark */
	FIRN_PRESSURE_NEED,             /* an explicit need */
	FIRN_PRESSURES
};

struct firn_policy_summary {
	enum firn_pressure pressure;
	bool reclaiming;                /* give it to the next snapshot.  A decision for a need leaves it as it is */
	bool psi_known;                 /* false: by available memory alone */
	bool urgent;                    /* an explicit need, PSI full, or less than half of the low watermark */
	bool nobody_active;             /* FIRN_FOR_ACTIVE, and no unit is: for the system */
	uint32_t for_priority;          /* whose need it is, or would be; FIRN_PRIORITY_SYSTEM */
	uint64_t low_bytes, high_bytes; /* the watermarks */
	uint64_t wanted_bytes;          /* to be freed by this decision */
	uint64_t gain_bytes;            /* that those taken free together */
	uint64_t cost_bytes;            /* that are written for it */
	uint64_t missing_bytes;         /* wanted, and nobody gives it */
	uint64_t return_bytes;          /* that those brought back take */
	uint32_t queued;                /* how many candidates there are */
	uint32_t out;                   /* how many are out, busy ones not counted */
	uint32_t actions[FIRN_ACTIONS]; /* how many units have each */
	uint32_t reasons[FIRN_REASONS];
};

/*
 * Decide.  @decisions: @s->n of them, set whole, in the order of the units.  @order: room for @s->n; afterwards the
 * indices of units: first ret->queued candidates in the order in which they are to be taken (those with an action are
 * to be taken), then ret->out that are out, in the order in which they come back, then the rest.
 * @decisions and @order may be NULL where @s->n is 0.  @s->n is at most UINT32_MAX.
 */
void firn_policy_decide(const struct firn_policy_config *config, const struct firn_policy_snapshot *s,
			struct firn_decision *decisions, uint32_t *order, struct firn_policy_summary *ret);

/* How long a unit with so many quick returns stays awake at least. */
uint64_t firn_policy_awake_ns(const struct firn_policy_config *config, uint32_t quick_returns);

/* A unit came back whole after @out_ns: its new number of quick returns.  One more where that was quick, else half. */
uint32_t firn_policy_returned(const struct firn_policy_config *config, uint32_t quick_returns, uint64_t out_ns);

/* What evicting @u would free, and write to the store. */
uint64_t firn_policy_gain(const struct firn_policy_config *config, const struct firn_unit *u);
uint64_t firn_policy_cost(const struct firn_policy_config *config, const struct firn_unit *u);

/* Short stable words for metrics and scripts: "evict", "back-off", "until-high".  NULL for no such value. */
const char *firn_action_name(enum firn_action a);
const char *firn_reason_name(enum firn_reason r);
const char *firn_pressure_name(enum firn_pressure p);

/* Enough for the sentences below, with their NUL, unless names in them are long: then they are cut. */
#define FIRN_POLICY_TEXT 320

/* Why unit @i of @s got its decision: one sentence with the figures, without a full stop.  @summary is of the same
 * decision.  Returns @buf. */
const char *firn_policy_explain(char *buf, size_t size, const struct firn_policy_config *config,
				const struct firn_policy_snapshot *s, size_t i, const struct firn_decision *d,
				const struct firn_policy_summary *summary);

/* What is wanted, why, for whom, and who gives it: one sentence.  Returns @buf. */
const char *firn_policy_explain_summary(char *buf, size_t size, const struct firn_policy_config *config,
					const struct firn_policy_snapshot *s,
					const struct firn_policy_summary *summary);

#endif
