/* SPDX-License-Identifier: MIT */
/*
 * The budget of bytes written a day, and how much was written for whom: flash wears.
 *
 * Pure: the clocks are arguments, and nothing is read, written or allocated; one thread at a time.  The caller keeps
 * the structures where they outlive the agent and the boot (field by field: they are no file format).
 *
 * A budget's day is a day of the wall clock in UTC.  When one begins, the budget is granted anew; what the last one
 * left over is carried over, up to a bound; what was written beyond it (an estimate was too low) is taken off.  Of days
 * without an agent nothing is carried over.  Because wall clocks are set:
 *  - a day that was granted is not granted again: when the clock is set back, the next grant comes when the day after the
 *    last one granted begins, or when 25 hours of the running clock have passed;
 *  - of any three grants of one boot, the last comes 24 hours after the first at the earliest, however often the clock
 *    is set forward.  A reboot believes the clock.
 */
#ifndef FIRN_POLICY_BUDGET_H
#define FIRN_POLICY_BUDGET_H

#include "base/types.h"

struct firn_budget_config {
	uint64_t daily_bytes;           /* 0: nothing is written; FIRN_NO_LIMIT (policy.h): no budget */
	uint64_t carry_bytes;           /* what a day leaves over is carried over, up to so much */
	uint32_t warn_hundredths;       /* warn when no more than this share of the day's is left; of a percent */
};

/* The clocks, read together. */
struct firn_budget_time {
	int64_t wall_s;                 /* CLOCK_REALTIME */
	uint64_t running_ns;            /* CLOCK_BOOTTIME */
	uint64_t boot;                  /* a number made from the boot id */
};

enum firn_budget_level {
	FIRN_BUDGET_FINE,
	FIRN_BUDGET_LOW,                /* at or below the warning threshold */
	FIRN_BUDGET_USED_UP,
};

/* All zero: nothing was granted yet. */
struct firn_budget {
	uint64_t days;                  /* granted so far; names the day for struct firn_wear */
	int64_t day;                    /* the last one granted, in days since 1970 */
	uint64_t carried_bytes;         /* into it */
	uint64_t spent_bytes;           /* of it; may begin with what the day before spent too much */
	uint64_t today_bytes;           /* written in it */
	uint64_t total_bytes;           /* written ever */
	uint64_t boot;                  /* of the next three */
	uint64_t granted_ns;            /* running clock at the last grant; 0: before this boot */
	uint64_t before_ns;             /* and at the one before it */
	uint32_t grants;                /* in this boot, counted to 2 */
	enum firn_budget_level told;    /* by firn_budget_news, of this day */
};

/* What was written for one target.  All zero: nothing. */
struct firn_wear {
	uint64_t days;                  /* budget.days when something was last written */
	uint64_t today_bytes;           /* in that day */
	uint64_t total_bytes;
};

/* Begin a new day if it is time.  Before every other look at @b, as often as one likes.  True: a new day began. */
bool firn_budget_roll(const struct firn_budget_config *c, struct firn_budget *b, const struct firn_budget_time *t);

/* What may still be written today; FIRN_NO_LIMIT where there is no budget. */
uint64_t firn_budget_left(const struct firn_budget_config *c, const struct firn_budget *b);

/* @bytes were written, for the target of @w (may be NULL).  More than was left: the next day has less. */
void firn_budget_spend(struct firn_budget *b, struct firn_wear *w, uint64_t bytes);

enum firn_budget_level firn_budget_level(const struct firn_budget_config *c, const struct firn_budget *b);

/* True, once a day for each: there is less than before, LOW or USED_UP, and *@ret is news to be told. */
bool firn_budget_news(const struct firn_budget_config *c, struct firn_budget *b, enum firn_budget_level *ret);

/* Written for the target of @w in the day of @b. */
uint64_t firn_wear_today(const struct firn_budget *b, const struct firn_wear *w);

/* The daily bytes where the configuration names none, for a store on a device of @device_bytes (0: not known): 2 GiB on
 * flash of less than 64 GiB and where the size is not known, else 5 % of the device. */
uint64_t firn_budget_default(uint64_t device_bytes, bool flash);

#endif
