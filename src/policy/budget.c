// SPDX-License-Identifier: MIT
/*
 * The budget of bytes written a day.  See budget.h for what it promises when clocks are set.
 */
#include "policy/budget.h"
#include "policy/internal.h"

#define DAY_S 86400
#define HOUR_NS 3600000000000ull
#define SMALL_FLASH_BYTES (64ull << 30)
#define SMALL_FLASH_DAILY_BYTES (2ull << 30)

static int64_t day_of(int64_t wall_s)
{
	return wall_s / DAY_S - (wall_s % DAY_S < 0);
}

/* What the day had, and has, in all. */
static uint64_t whole(const struct firn_budget_config *c, const struct firn_budget *b)
{
	return firn_add_u64(c->daily_bytes, b->carried_bytes);
}

static bool is_due(const struct firn_budget *b, const struct firn_budget_time *t, int64_t day)
{
	if (!b->days)
		return true;
	if (day > b->day)
		return b->grants < 2 || firn_sub_u64(t->running_ns, b->before_ns) >= 24 * HOUR_NS;
	/* Within a day that is as long as it should be, this never is.  The hour is for clocks that are being slewed. */
	return firn_sub_u64(t->running_ns, b->granted_ns) >= 25 * HOUR_NS;
}

bool firn_budget_roll(const struct firn_budget_config *c, struct firn_budget *b, const struct firn_budget_time *t)
{
	int64_t day = day_of(t->wall_s);
	uint64_t had = whole(c, b);

	if (b->boot != t->boot) {
		/* The last grant was before this boot: at least for as long ago as this one runs. */
		b->boot = t->boot;
		b->granted_ns = 0;
		b->before_ns = 0;
		b->grants = 0;
	}
	if (!is_due(b, t, day))
		return false;
	if (!b->days || c->daily_bytes == FIRN_NO_LIMIT) {
		b->carried_bytes = 0;
		b->spent_bytes = 0;
	} else {
		b->carried_bytes = firn_min_u64(firn_sub_u64(had, b->spent_bytes), c->carry_bytes);
		b->spent_bytes = firn_sub_u64(b->spent_bytes, had);
	}
	b->days++;
	b->day = day;
	b->today_bytes = 0;
	b->before_ns = b->granted_ns;
	b->granted_ns = t->running_ns;
	b->grants += b->grants < 2;
	b->told = FIRN_BUDGET_FINE;
	return true;
}

uint64_t firn_budget_left(const struct firn_budget_config *c, const struct firn_budget *b)
{
	return c->daily_bytes == FIRN_NO_LIMIT ? FIRN_NO_LIMIT : firn_sub_u64(whole(c, b), b->spent_bytes);
}

void firn_budget_spend(struct firn_budget *b, struct firn_wear *w, uint64_t bytes)
{
	b->spent_bytes = firn_add_u64(b->spent_bytes, bytes);
	b->today_bytes = firn_add_u64(b->today_bytes, bytes);
	b->total_bytes = firn_add_u64(b->total_bytes, bytes);
	if (!w)
		return;
	w->today_bytes = firn_add_u64(firn_wear_today(b, w), bytes);
	w->total_bytes = firn_add_u64(w->total_bytes, bytes);
	w->days = b->days;
}

enum firn_budget_level firn_budget_level(const struct firn_budget_config *c, const struct firn_budget *b)
{
	uint64_t left = firn_budget_left(c, b);

	if (!left)
		return FIRN_BUDGET_USED_UP;
	if (left == FIRN_NO_LIMIT || left > firn_share(whole(c, b), c->warn_hundredths))
		return FIRN_BUDGET_FINE;
	return FIRN_BUDGET_LOW;
}

bool firn_budget_news(const struct firn_budget_config *c, struct firn_budget *b, enum firn_budget_level *ret)
{
	enum firn_budget_level level = firn_budget_level(c, b);

	if (level <= b->told)
		return false;
	b->told = level;
	*ret = level;
	return true;
}

uint64_t firn_wear_today(const struct firn_budget *b, const struct firn_wear *w)
{
	return w->days == b->days ? w->today_bytes : 0;
}

uint64_t firn_budget_default(uint64_t device_bytes, bool flash)
{
	if (!device_bytes || (flash && device_bytes < SMALL_FLASH_BYTES))
		return SMALL_FLASH_DAILY_BYTES;
	return device_bytes / 20;
}
