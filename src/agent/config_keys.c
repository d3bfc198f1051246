/* SPDX-License-Identifier: MIT */
/*
 * Each key of the configuration: where it goes, what it may be, and how it is written.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config_internal.h"
#include "base/size.h"

#define NS_PER_S 1000000000ull
#define DAY_NS (86400 * NS_PER_S)

enum type {
	PROFILE,
	AUTO,
	SCOPE,
	ON_STOP,
	PATH,
	SIZE,
	DURATION,
	PERCENT,
	NUMBER,
	WATERMARK,                      /* bytes, and a share at @second */
	PRESSURE_FOR,
	AMOUNT,
};

enum { MAY_AUTO = 1, MAY_NONE = 2 };    /* an amount, beside bytes and a share */

struct key {
	const char *section, *name;
	enum type type;
	size_t offset, second;
	uint64_t min, max;              /* of a size, a duration in ns, hundredths, a number */
	unsigned int may;
};

#define AT(member) offsetof(struct firn_config, member)
#define POLICY(member) offsetof(struct firn_config, policy.member)

static const struct key keys[] = {
	{ "agent", "profile", PROFILE, AT(profile), 0, 0, 0, 0 },
	{ "agent", "auto", AUTO, AT(automatic), 0, 0, 0, 0 },
	{ "agent", "scope", SCOPE, AT(scope), 0, 0, 0, 0 },
	{ "agent", "on-stop", ON_STOP, AT(stop_leaves), 0, 0, 0, 0 },
	{ "agent", "look-every", DURATION, AT(look_ns), 0, NS_PER_S / 10, 3600 * NS_PER_S, 0 },
	{ "agent", "wake-tick", DURATION, AT(wake_tick_ns), 0, NS_PER_S / 10, DAY_NS, 0 },
	{ "agent", "metrics-textfile", PATH, AT(metrics_textfile), 0, 0, 0, 0 },
	{ "agent", "metrics-every", DURATION, AT(metrics_ns), 0, NS_PER_S, DAY_NS, 0 },

	{ "policy", "low", WATERMARK, POLICY(low_bytes), POLICY(low_hundredths), 0, 0, 0 },
	{ "policy", "high", WATERMARK, POLICY(high_bytes), POLICY(high_hundredths), 0, 0, 0 },
	{ "policy", "psi-some", PERCENT, POLICY(psi_some_hundredths), 0, 0, 10000, 0 },
	{ "policy", "psi-full", PERCENT, POLICY(psi_full_hundredths), 0, 0, 10000, 0 },
	{ "policy", "psi-below", PERCENT, POLICY(psi_below_hundredths), 0, 0, 10000, 0 },
	{ "policy", "psi-step", PERCENT, POLICY(psi_step_hundredths), 0, 0, 10000, 0 },
	{ "policy", "psi-settle", DURATION, POLICY(psi_settle_ns), 0, 0, DAY_NS, 0 },
	{ "policy", "pressure-for", PRESSURE_FOR, POLICY(pressure_for), 0, 0, 0, 0 },
	{ "policy", "active", DURATION, POLICY(active_ns), 0, 0, DAY_NS, 0 },
	{ "policy", "min-size", SIZE, POLICY(min_bytes), 0, 0, UINT64_MAX, 0 },
	{ "policy", "min-idle", DURATION, POLICY(min_idle_ns), 0, 0, 366 * DAY_NS, 0 },
	{ "policy", "need-min-idle", DURATION, POLICY(need_min_idle_ns), 0, 0, 366 * DAY_NS, 0 },
	{ "policy", "min-awake", DURATION, POLICY(min_awake_ns), 0, 0, 366 * DAY_NS, 0 },
	{ "policy", "quick-return", DURATION, POLICY(quick_return_ns), 0, 0, 366 * DAY_NS, 0 },
	{ "policy", "max-backoff", DURATION, POLICY(max_backoff_ns), 0, 0, 366 * DAY_NS, 0 },
	{ "policy", "estimate", PERCENT, POLICY(estimate_hundredths), 0, 0, 10000, 0 },
	{ "policy", "unit-daily-budget", SIZE, POLICY(unit_daily_bytes), 0, 0, UINT64_MAX, 0 },
	{ "policy", "ticks-per-minute", NUMBER, POLICY(ticks_per_minute), 0, 0, 1000000, 0 },
	{ "policy", "storm-refaults", NUMBER, POLICY(storm_refaults_per_s), 0, 0, 1000000000, 0 },
	{ "policy", "mostly-back", PERCENT, POLICY(mostly_back_hundredths), 0, 0, 10000, 0 },
	{ "policy", "max-frozen", DURATION, POLICY(max_frozen_ns), 0, 0, 366 * DAY_NS, 0 },

	{ "store", "limit", AMOUNT, AT(store_limit), 0, 0, 10000, MAY_NONE },
	{ "store", "keep-free", AMOUNT, AT(store_free), 0, 0, 10000, MAY_NONE },
	{ "store", "daily-budget", AMOUNT, AT(daily_budget), 0, 0, 1000000, MAY_AUTO | MAY_NONE },
	{ "store", "budget-warning", PERCENT, AT(budget_warn_hundredths), 0, 0, 10000, 0 },
	{ "store", "buffer", SIZE, AT(buffer_bytes), 0, 1 << 20, 1 << 30, 0 },
};
_Static_assert(ARRAY_SIZE(keys) <= FIRN_CONFIG_KEYS_MAX, "FIRN_CONFIG_KEYS_MAX");

static const char *const profiles[] = { "server", "desktop", "embedded" };

static int FIRN_PRINTF(2, 3) wrong(char why[FIRN_CONFIG_TEXT], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, FIRN_CONFIG_TEXT, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

unsigned int firn_config_keys(void)
{
	return ARRAY_SIZE(keys);
}

int firn_config_key_find(const char *section, const char *key)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(keys[i].section, section) && !strcmp(keys[i].name, key))
			return (int)i;
	return -1;
}

const char *firn_config_key_section(unsigned int number)
{
	return keys[number].section;
}

const char *firn_config_key_name(unsigned int number)
{
	return keys[number].name;
}

/* Values of several types of number, all judged alike.  @err: of their parse function. */
static int judge(const char *name, const char *value, int err, const char *want, bool outside, const char *min,
		 const char *max, char why[FIRN_CONFIG_TEXT])
{
	if (err == -EINVAL)
		return wrong(why, "%s is '%.80s', which is no %s", name, value, want);
	if (err || outside)
		return wrong(why, "%s is '%.80s': give %s to %s", name, value, min, max);
	return 0;
}

static int parse_size(const char *name, const char *value, uint64_t min, uint64_t max, uint64_t *ret,
		      char why[FIRN_CONFIG_TEXT])
{
	char low[FIRN_SIZE_TEXT], high[FIRN_SIZE_TEXT];
	uint64_t v = 0;
	int err = firn_size_parse(value, &v);

	err = judge(name, value, err, "size: give bytes, or as in 64MiB or 2G", v < min || v > max,
		    firn_size_print(low, min), firn_size_print(high, max), why);
	if (!err)
		*ret = v;
	return err;
}

static int parse_duration(const char *name, const char *value, uint64_t min, uint64_t max, uint64_t *ret,
			  char why[FIRN_CONFIG_TEXT])
{
	char low[FIRN_SIZE_TEXT], high[FIRN_SIZE_TEXT];
	uint64_t v = 0;
	int err = firn_duration_parse(value, &v);

	err = judge(name, value, err, "time: give one with its unit, as in 500ms, 90s, 5min or 2h", v < min || v > max,
		    firn_duration_print(low, min), firn_duration_print(high, max), why);
	if (!err)
		*ret = v;
	return err;
}

static int parse_percent(const char *name, const char *value, uint64_t min, uint64_t max, uint32_t *ret,
			 char why[FIRN_CONFIG_TEXT])
{
	char low[FIRN_SIZE_TEXT], high[FIRN_SIZE_TEXT];
	uint32_t v = 0;
	int err = firn_percent_parse(value, &v);

	err = judge(name, value, err, "percentage: give one as in 5% or 12.5%", v < min || v > max,
		    firn_percent_print(low, (uint32_t)min), firn_percent_print(high, (uint32_t)max), why);
	if (!err)
		*ret = v;
	return err;
}

static int parse_number(const char *name, const char *value, int64_t min, int64_t max, int64_t *ret,
			char why[FIRN_CONFIG_TEXT])
{
	char low[24], high[24];
	int err = firn_number_parse(value, min, max, ret);

	snprintf(low, sizeof(low), "%lld", (long long)min);
	snprintf(high, sizeof(high), "%lld", (long long)max);
	return judge(name, value, err, "whole number: give one as in 60", false, low, high, why);
}

static int parse_flag(const char *name, const char *value, bool *ret, char why[FIRN_CONFIG_TEXT])
{
	*ret = !strcmp(value, "yes");
	if (*ret || !strcmp(value, "no"))
		return 0;
	return wrong(why, "%s is '%.80s': give yes or no", name, value);
}

static int parse_profile(const char *value, const char **ret, char why[FIRN_CONFIG_TEXT])
{
	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
		if (!strcmp(value, profiles[i])) {
			*ret = profiles[i];
			return 0;
		}
	}
	return wrong(why, "profile is '%.80s': give server, desktop or embedded", value);
}

static const char *const autos[] = { "no", "dry-run", "yes" };

static int parse_auto(const char *value, enum firn_config_auto *ret, char why[FIRN_CONFIG_TEXT])
{
	for (int i = 0; i < (int)ARRAY_SIZE(autos); i++) {
		if (!strcmp(value, autos[i])) {
			*ret = (enum firn_config_auto)i;
			return 0;
		}
	}
	return wrong(why, "auto is '%.80s': give yes, no, or dry-run", value);
}

/* Its form only: whether there is such a cgroup, process or user may change between now and its use. */
static int check_scope(const char *value, char why[FIRN_CONFIG_TEXT])
{
	if (!*value || !strcmp(value, "all") || (!strncmp(value, "cgroup:", 7) && value[7]) ||
	    (!strncmp(value, "tree:", 5) && value[5] >= '1' && value[5] <= '9') || (!strncmp(value, "user:", 5) && value[5]))
		return 0;
	return wrong(why, "scope is '%.80s': give cgroup:PATH, tree:PID, user:NAME, or all", value);
}

static int parse_amount(const struct key *k, const char *value, struct firn_config_amount *ret,
			char why[FIRN_CONFIG_TEXT])
{
	struct firn_config_amount v = { .is = FIRN_AMOUNT_NONE };
	size_t len = strlen(value);
	int err = 0;

	if ((k->may & MAY_AUTO) && !strcmp(value, "auto")) {
		v.is = FIRN_AMOUNT_AUTO;
	} else if ((k->may & MAY_NONE) && !strcmp(value, "none")) {
		v.is = FIRN_AMOUNT_NONE;
	} else if (len && value[len - 1] == '%') {
		v.is = FIRN_AMOUNT_SHARE;
		err = parse_percent(k->name, value, 0, k->max, &v.hundredths, why);
	} else {
		v.is = FIRN_AMOUNT_BYTES;
		err = firn_size_parse(value, &v.bytes);
		if (err == -EINVAL)
			return wrong(why, "%s is '%.80s': give a size as in 2GiB, a share as in 5%%%s or none", k->name, value,
				     k->may & MAY_AUTO ? ", auto," : "");
		if (err)
			return wrong(why, "%s is '%.80s': that is too much, give less, or none", k->name, value);
	}
	if (!err)
		*ret = v;
	return err;
}

static int parse_watermark(struct firn_config *c, const struct key *k, const char *value, char why[FIRN_CONFIG_TEXT])
{
	uint64_t bytes = 0, *bytes_at = (uint64_t *)(void *)((char *)c + k->offset);
	uint32_t share = 0, *share_at = (uint32_t *)(void *)((char *)c + k->second);
	size_t len = strlen(value);
	int err;

	if (len && value[len - 1] == '%')
		err = parse_percent(k->name, value, 0, 10000, &share, why);
	else
		err = parse_size(k->name, value, 0, UINT64_MAX, &bytes, why);
	if (!err) {
		*bytes_at = bytes;
		*share_at = share;
	}
	return err;
}

static int parse_pressure_for(const char *value, int32_t *ret, char why[FIRN_CONFIG_TEXT])
{
	int64_t v;

	if (!strcmp(value, "active")) {
		*ret = FIRN_FOR_ACTIVE;
	} else if (!strcmp(value, "system")) {
		*ret = FIRN_PRIORITY_SYSTEM;
	} else if (!firn_number_parse(value, 0, FIRN_PRIORITY_MAX, &v)) {
		*ret = (int32_t)v;
	} else {
		return wrong(why, "pressure-for is '%.80s': give active, system, or a priority from 0 to 100", value);
	}
	return 0;
}

int firn_config_key_set(struct firn_config *c, struct firn_arena *a, unsigned int number, const char *value,
			char why[FIRN_CONFIG_TEXT])
{
	const struct key *k = &keys[number];
	void *at = (char *)c + k->offset;
	const char **text = at;
	int64_t n;
	int err;

	switch (k->type) {
	case PROFILE:
		return parse_profile(value, text, why);
	case AUTO:
		return parse_auto(value, at, why);
	case SCOPE:
		err = check_scope(value, why);
		if (err)
			return err;
		*text = firn_arena_text(a, strcmp(value, "all") ? value : "");
		return *text ? 0 : -ENOMEM;
	case ON_STOP:
		c->stop_leaves = !strcmp(value, "leave");
		if (c->stop_leaves || !strcmp(value, "thaw"))
			return 0;
		return wrong(why, "on-stop is '%.80s': give thaw or leave", value);
	case PATH:
		if (*value && *value != '/')
			return wrong(why, "%s is '%.80s': give a path that begins with /", k->name, value);
		*text = firn_arena_text(a, value);
		return *text ? 0 : -ENOMEM;
	case SIZE:
		return parse_size(k->name, value, k->min, k->max, at, why);
	case DURATION:
		return parse_duration(k->name, value, k->min, k->max, at, why);
	case PERCENT:
		return parse_percent(k->name, value, k->min, k->max, at, why);
	case NUMBER:
		err = parse_number(k->name, value, (int64_t)k->min, (int64_t)k->max, &n, why);
		if (!err)
			*(uint32_t *)at = (uint32_t)n;
		return err;
	case WATERMARK:
		return parse_watermark(c, k, value, why);
	case PRESSURE_FOR:
		return parse_pressure_for(value, at, why);
	case AMOUNT:
		return parse_amount(k, value, at, why);
	}
	return -EINVAL;
}

const char *firn_config_key_text(const struct firn_config *c, unsigned int number, char *buf, size_t size)
{
	const struct key *k = &keys[number];
	const void *at = (const char *)c + k->offset;
	const struct firn_config_amount *amount = at;
	const uint32_t *share = (const void *)((const char *)c + k->second);
	char text[FIRN_SIZE_TEXT] = "";
	const char *say = text;
	int32_t priority;

	switch (k->type) {
	case PROFILE:
	case PATH:
		say = *(const char *const *)at;
		break;
	case SCOPE:
		say = *(const char *const *)at;
		say = say && *say ? say : "all";
		break;
	case ON_STOP:
		say = c->stop_leaves ? "leave" : "thaw";
		break;
	case AUTO:
		say = autos[c->automatic];
		break;
	case SIZE:
		firn_size_print(text, *(const uint64_t *)at);
		break;
	case DURATION:
		firn_duration_print(text, *(const uint64_t *)at);
		break;
	case PERCENT:
		firn_percent_print(text, *(const uint32_t *)at);
		break;
	case NUMBER:
		snprintf(text, sizeof(text), "%u", *(const uint32_t *)at);
		break;
	case WATERMARK:
		if (*(const uint64_t *)at)
			firn_size_print(text, *(const uint64_t *)at);
		else
			firn_percent_print(text, *share);
		break;
	case PRESSURE_FOR:
		priority = *(const int32_t *)at;
		if (priority == FIRN_FOR_ACTIVE || priority == FIRN_PRIORITY_SYSTEM)
			say = priority == FIRN_FOR_ACTIVE ? "active" : "system";
		else
			snprintf(text, sizeof(text), "%d", priority);
		break;
	case AMOUNT:
		if (amount->is == FIRN_AMOUNT_AUTO || amount->is == FIRN_AMOUNT_NONE)
			say = amount->is == FIRN_AMOUNT_AUTO ? "auto" : "none";
		else if (amount->is == FIRN_AMOUNT_BYTES)
			firn_size_print(text, amount->bytes);
		else
			firn_percent_print(text, amount->hundredths);
		break;
	}
	snprintf(buf, size, "%s", say ? say : "");
	return buf;
}

/* Rules */

enum condition { COMM, EXE, CMDLINE, CGROUP, UNIT, USER_UNIT, CONTAINER, USER, UID, SCORE, IS };

static const struct {
	const char *name;
	enum condition which;
	size_t offset;                  /* of a pattern */
} conditions[] = {
	{ "comm", COMM, offsetof(struct firn_rule, comm) },
	{ "exe", EXE, offsetof(struct firn_rule, exe) },
	{ "cmdline", CMDLINE, offsetof(struct firn_rule, cmdline) },
	{ "cgroup", CGROUP, offsetof(struct firn_rule, cgroup) },
	{ "unit", UNIT, offsetof(struct firn_rule, unit) },
	{ "user-unit", USER_UNIT, offsetof(struct firn_rule, user_unit) },
	{ "container", CONTAINER, offsetof(struct firn_rule, container) },
	{ "user", USER, offsetof(struct firn_rule, user) },
	{ "uid", UID, 0 },
	{ "oom-score-adj", SCORE, 0 },
	{ "is", IS, 0 },
};

static const struct {
	const char *name;
	enum firn_rule_key key;
} sets[] = {
	{ "priority", FIRN_RULE_PRIORITY },
	{ "never", FIRN_RULE_NEVER },
	{ "wake", FIRN_RULE_WAKE },
	{ "kind", FIRN_RULE_KIND },
	{ "place", FIRN_RULE_PLACE },
	{ "min-size", FIRN_RULE_MIN_SIZE },
	{ "before-freeze", FIRN_RULE_BEFORE_FREEZE },
	{ "after-thaw", FIRN_RULE_AFTER_THAW },
	{ "hook-timeout", FIRN_RULE_HOOK_TIMEOUT },
};
_Static_assert(ARRAY_SIZE(sets) == FIRN_RULE_KEYS, "every key of a rule has its word");

bool firn_config_rule_condition(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++)
		if (!strcmp(conditions[i].name, key))
			return true;
	return false;
}

/* The next of @value's alternatives from @from on, without blanks around it.  False: there are no more. */
static bool next_word(const char **from, char *word, size_t size)
{
	const char *p = *from, *end;
	size_t len;

	if (!p)
		return false;
	end = strchr(p, '|');
	*from = end ? end + 1 : NULL;
	p += strspn(p, " \t");
	len = end ? (size_t)(end - p) : strlen(p);
	while (len && (p[len - 1] == ' ' || p[len - 1] == '\t'))
		len--;
	snprintf(word, size, "%.*s", (int)len, p);
	return true;
}

static int parse_is(const char *value, unsigned int *ret, char why[FIRN_CONFIG_TEXT])
{
	const char *from = value;
	char word[64];

	*ret = 0;
	while (next_word(&from, word, sizeof(word))) {
		unsigned int bit = firn_is_from_name(word);
		char all[200] = "";

		for (unsigned int i = 0; !bit && i < FIRN_IS_COUNT; i++)
			snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "", firn_is_name(1u << i));
		if (!bit)
			return wrong(why, "is has '%.40s': give some of %s, with | between them", word, all);
		*ret |= bit;
	}
	return 0;
}

/* The kernel keeps 15 bytes of a name: what is longer would never match, and nobody would know. */
static int check_comm(const char *value, char why[FIRN_CONFIG_TEXT])
{
	const char *from = value;
	char word[256];

	while (next_word(&from, word, sizeof(word)))
		if (!strpbrk(word, "*?[\\") && strlen(word) > 15)
			return wrong(why, "comm has '%.60s', and names have 15 bytes at most: write %.15s, or use exe", word, word);
	return 0;
}

static int take_condition(struct firn_rule *r, struct firn_arena *a, size_t i, const char *value,
			  char why[FIRN_CONFIG_TEXT])
{
	const char **pattern = (const char **)(void *)((char *)r + conditions[i].offset);
	bool score = conditions[i].which == SCORE;
	int64_t min = score ? -1000 : 0, max = score ? 1000 : UINT32_MAX;
	int err;

	if (!*value)
		return wrong(why, "%s is empty: give what it must be, or take it away", conditions[i].name);
	switch (conditions[i].which) {
	case UID:
	case SCORE:
		err = firn_rule_span_parse(value, min, max, score ? &r->oom_score_adj : &r->uid);
		if (err)
			return wrong(why, "%s is '%.80s': give a number from %lld to %lld, or a span of them as in %s",
				     conditions[i].name, value, (long long)min, (long long)max,
				     score ? "-1000..-500 or 300.." : "1000..60000 or ..999");
		r->has_uid = r->has_uid || !score;
		r->has_oom_score_adj = r->has_oom_score_adj || score;
		return 0;
	case IS:
		return parse_is(value, &r->is, why);
	case COMM:
		err = check_comm(value, why);
		if (err)
			return err;
		break;
	case EXE:
	case CMDLINE:
	case CGROUP:
	case UNIT:
	case USER_UNIT:
	case CONTAINER:
	case USER:
		break;
	}
	*pattern = firn_arena_text(a, value);
	return *pattern ? 0 : -ENOMEM;
}

static int parse_never(const char *value, enum firn_never *ret, char why[FIRN_CONFIG_TEXT])
{
	static const char *const words[] = { "no", "yes", "always" };

	for (int i = 0; i < (int)ARRAY_SIZE(words); i++) {
		if (!strcmp(value, words[i])) {
			*ret = (enum firn_never)i;
			return 0;
		}
	}
	return wrong(why, "never is '%.80s': give yes, no, or always", value);
}

static int take_value(struct firn_rule *r, struct firn_arena *a, size_t i, const char *value,
		      char why[FIRN_CONFIG_TEXT])
{
	static const char *const kinds[] = { "agent", "copied", "direct" }, *const places[] = { "store", "ram", "ram,store" };
	const char *name = sets[i].name, **hook;
	int64_t n = 0;
	int err = 0;

	switch (sets[i].key) {
	case FIRN_RULE_PRIORITY:
		err = parse_number(name, value, 0, FIRN_PRIORITY_MAX, &n, why);
		r->set.priority = (uint32_t)n;
		break;
	case FIRN_RULE_NEVER:
		err = parse_never(value, &r->set.never, why);
		break;
	case FIRN_RULE_WAKE:
		err = parse_flag(name, value, &r->set.wake, why);
		break;
	case FIRN_RULE_KIND:
		err = wrong(why, "kind is '%.80s': give copied, direct, or agent for the agent's own", value);
		for (int k = 0; k < (int)ARRAY_SIZE(kinds); k++)
			if (!strcmp(value, kinds[k])) {
				r->set.kind = (enum firn_rule_kind)k;
				err = 0;
			}
		break;
	case FIRN_RULE_PLACE:
		err = wrong(why, "place is '%.80s': give store, ram, or ram,store", value);
		for (int k = 0; k < (int)ARRAY_SIZE(places); k++)
			if (!strcmp(value, places[k])) {
				r->set.place = (enum firn_rule_place)k;
				err = 0;
			}
		break;
	case FIRN_RULE_MIN_SIZE:
		err = parse_size(name, value, 0, UINT64_MAX, &r->set.min_bytes, why);
		break;
	case FIRN_RULE_BEFORE_FREEZE:
	case FIRN_RULE_AFTER_THAW:
		hook = sets[i].key == FIRN_RULE_BEFORE_FREEZE ? &r->set.before_freeze : &r->set.after_thaw;
		*hook = firn_arena_text(a, value);
		err = *hook ? 0 : -ENOMEM;
		break;
	case FIRN_RULE_HOOK_TIMEOUT:
		err = parse_duration(name, value, NS_PER_S / 1000, 600 * NS_PER_S, &r->set.hook_timeout_ns, why);
		break;
	case FIRN_RULE_KEYS:
		break;
	}
	if (!err)
		r->sets |= 1u << sets[i].key;
	return err;
}

int firn_config_rule_set(struct firn_rule *r, struct firn_arena *a, const char *key, const char *value,
			 char why[FIRN_CONFIG_TEXT])
{
	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++)
		if (!strcmp(conditions[i].name, key))
			return take_condition(r, a, i, value, why);
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		if (!strcmp(sets[i].name, key))
			return take_value(r, a, i, value, why);
	return -ENOENT;
}
