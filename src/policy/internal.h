/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/policy share; nobody else includes it.  Pure, like all of them.
 */
#ifndef FIRN_POLICY_INTERNAL_H
#define FIRN_POLICY_INTERNAL_H

#include "policy/policy.h"

/* All that one decision works on. */
struct firn_deciding {
	const struct firn_policy_config *c;
	const struct firn_policy_snapshot *s;
	struct firn_decision *d;
	uint32_t *order;
	struct firn_policy_summary *sum;
};

static inline bool firn_unit_is_out(const struct firn_unit *u)
{
	return u->state == FIRN_UNIT_EVICTED || u->state == FIRN_UNIT_FROZEN;
}

static inline uint32_t firn_unit_priority(const struct firn_unit *u)
{
	return u->priority < FIRN_PRIORITY_MAX ? u->priority : FIRN_PRIORITY_MAX;
}

static inline uint64_t firn_sub_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static inline uint64_t firn_add_u64(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

/* The share of @bytes; never more than 64 bits hold. */
static inline uint64_t firn_share(uint64_t bytes, uint32_t hundredths)
{
	uint64_t whole = bytes / 10000;

	if (hundredths && whole > (UINT64_MAX - bytes % 10000 * hundredths / 10000) / hundredths)
		return UINT64_MAX;
	return whole * hundredths + bytes % 10000 * hundredths / 10000;
}

/* pressure.c: is there pressure, how much is wanted, and for which priority?  Fills the summary's first part. */
void firn_policy_press(struct firn_deciding *x);

/* rank.c: does @u keep its memory whatever is wanted?  Its reason, or FIRN_REASON_NONE: it is a candidate. */
enum firn_reason firn_rank_exclude(const struct firn_deciding *x, const struct firn_unit *u, uint64_t cost);
/* Sort the order: candidates (d->place != 0 for now), those that are out, the rest; set the places. */
void firn_rank_sort(struct firn_deciding *x);
/* Of two units of one priority: for how long idle, in steps that double. */
unsigned int firn_rank_idle_step(const struct firn_policy_config *c, const struct firn_unit *u);

/* take.c: of the candidates, which are taken? */
void firn_policy_take(struct firn_deciding *x);

/* back.c: an evicted unit asks for so many pages, or so little of it is out, that the low watermark is all that must stay
 * free when it comes back; the reason, or FIRN_REASON_NONE. */
enum firn_reason firn_back_soon(const struct firn_policy_config *c, const struct firn_unit *u);
/* Of those that are out, which come back? */
void firn_policy_bring_back(struct firn_deciding *x);

#endif
