/* SPDX-License-Identifier: MIT */
#include "policy/rules.h"

#include <errno.h>
#include <string.h>

#include "base/size.h"

static const char *const is_names[FIRN_IS_COUNT] = {
	"init",        "agent",     "keeper",    "kernel-thread", "realtime",
	"traced",      "login-shell", "inhibitor", "oom-avoid",     "oom-omit",
};

const char *firn_is_name(unsigned int bit)
{
	for (unsigned int i = 0; i < FIRN_IS_COUNT; i++)
		if (bit == 1u << i)
			return is_names[i];
	return NULL;
}

unsigned int firn_is_from_name(const char *name)
{
	for (unsigned int i = 0; i < FIRN_IS_COUNT; i++)
		if (!strcmp(name, is_names[i]))
			return 1u << i;
	return 0;
}

/* One character of a pattern, before @end, against @c.  Returns what follows it, or NULL: no match. */
static const char *match_one(const char *p, const char *end, unsigned char c)
{
	const char *q = p + 1;
	bool in = false, not;

	if (*p == '?')
		return q;
	if (*p == '\\' && q < end)
		return (unsigned char)*q == c ? q + 1 : NULL;
	if (*p != '[')
		return (unsigned char)*p == c ? q : NULL;
	not = q < end && *q == '!';
	q += not;
	/* A ] that comes first is itself. */
	for (const char *first = q; q < end && (*q != ']' || q == first); q++) {
		unsigned char low = (unsigned char)*q, high = low;

		if (end - q > 2 && q[1] == '-' && q[2] != ']') {
			high = (unsigned char)q[2];
			q += 2;
		}
		in = in || (c >= low && c <= high);
	}
	if (q == end)
		return c == '[' ? p + 1 : NULL;    /* a set without an end is no set */
	return in != not ? q + 1 : NULL;
}

/* The alternative from @p to @end against all of @text.  Only the last star is ever tried anew: what an earlier one
 * could give, the later one can take. */
static bool match_alternative(const char *p, const char *end, const char *text)
{
	const char *star = NULL, *after_star = NULL;

	while (*text) {
		const char *next = p < end && *p != '*' ? match_one(p, end, (unsigned char)*text) : NULL;

		if (p < end && *p == '*') {
			star = ++p;
			after_star = text;
		} else if (next) {
			p = next;
			text++;
		} else if (star) {
			p = star;
			text = ++after_star;
		} else {
			return false;
		}
	}
	while (p < end && *p == '*')
		p++;
	return p == end;
}

bool firn_pattern_match(const char *pattern, const char *text)
{
	if (!text || !*text)
		return false;
	for (const char *p = pattern;;) {
		const char *end = p, *trimmed;

		while (*end && *end != '|')
			end += *end == '\\' && end[1] ? 2 : 1;
		while (p < end && *p == ' ')
			p++;
		for (trimmed = end; trimmed > p && trimmed[-1] == ' '; trimmed--)
			if (trimmed - p > 1 && trimmed[-2] == '\\')
				break;
		if (match_alternative(p, trimmed, text))
			return true;
		if (!*end)
			return false;
		p = end + 1;
	}
}

int firn_rule_span_parse(const char *text, int64_t min, int64_t max, struct firn_rule_span *ret)
{
	const char *dots = strstr(text, "..");
	struct firn_rule_span span = { min, max };
	char first[24];
	int err = 0;

	if (!dots) {
		err = firn_number_parse(text, min, max, &span.min);
		span.max = span.min;
	} else {
		size_t len = (size_t)(dots - text);

		if (len >= sizeof(first) || (!len && !dots[2]))
			return -EINVAL;
		memcpy(first, text, len);
		first[len] = 0;
		if (len)
			err = firn_number_parse(first, min, max, &span.min);
		if (!err && dots[2])
			err = firn_number_parse(dots + 2, min, max, &span.max);
		if (!err && span.min > span.max)
			return -EINVAL;
	}
	if (!err)
		*ret = span;
	return err;
}

static bool in_span(const struct firn_rule_span *span, int64_t v)
{
	return v >= span->min && v <= span->max;
}

static bool applies(const struct firn_rule *r, const struct firn_subject *s)
{
	/* The cheap ones first. */
	return (!r->is || (r->is & s->is)) && (!r->has_uid || in_span(&r->uid, s->uid)) &&
	       (!r->has_oom_score_adj || in_span(&r->oom_score_adj, s->oom_score_adj)) &&
	       (!r->comm || firn_pattern_match(r->comm, s->comm)) && (!r->user || firn_pattern_match(r->user, s->user)) &&
	       (!r->unit || firn_pattern_match(r->unit, s->unit)) &&
	       (!r->user_unit || firn_pattern_match(r->user_unit, s->user_unit)) &&
	       (!r->container || firn_pattern_match(r->container, s->container)) &&
	       (!r->exe || firn_pattern_match(r->exe, s->exe)) &&
	       (!r->cgroup || firn_pattern_match(r->cgroup, s->cgroup)) &&
	       (!r->cmdline || firn_pattern_match(r->cmdline, s->cmdline));
}

static void take(struct firn_verdict *v, const struct firn_rule *r, enum firn_rule_key key)
{
	if (!(r->sets & 1u << key))
		return;
	if (key == FIRN_RULE_NEVER && v->v.never == FIRN_NEVER_ALWAYS)
		return;
	v->by[key] = r;
	switch (key) {
	case FIRN_RULE_PRIORITY:
		v->v.priority = r->set.priority;
		break;
	case FIRN_RULE_NEVER:
		v->v.never = r->set.never;
		break;
	case FIRN_RULE_WAKE:
		v->v.wake = r->set.wake;
		break;
	case FIRN_RULE_KIND:
		v->v.kind = r->set.kind;
		break;
	case FIRN_RULE_PLACE:
		v->v.place = r->set.place;
		break;
	case FIRN_RULE_MIN_SIZE:
		v->v.min_bytes = r->set.min_bytes;
		break;
	case FIRN_RULE_BEFORE_FREEZE:
		v->v.before_freeze = r->set.before_freeze;
		break;
	case FIRN_RULE_AFTER_THAW:
		v->v.after_thaw = r->set.after_thaw;
		break;
	case FIRN_RULE_HOOK_TIMEOUT:
		v->v.hook_timeout_ns = r->set.hook_timeout_ns;
		break;
	case FIRN_RULE_KEYS:
		break;
	}
}

void firn_rules_match(const struct firn_rule *rules, size_t n, const struct firn_subject *s, struct firn_verdict *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < n; i++) {
		if (!applies(&rules[i], s))
			continue;
		for (int key = 0; key < FIRN_RULE_KEYS; key++)
			take(ret, &rules[i], (enum firn_rule_key)key);
	}
}
