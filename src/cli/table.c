/* SPDX-License-Identifier: MIT */
/*
 * The table of firn top, as text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/print.h"
#include "cli/top.h"

/* What is wider than its column is cut: one process must not break the table. */
#define FIXED 72

void firn_top_head(char *buf, size_t size, int columns)
{
	char text[128];

	snprintf(text, sizeof(text), "%7s %-*s %-7s %3s %8s %8s %5s %5s %8s %8s %s", "PID", 9 + (columns > FIXED + 30 ? 7 : 0), "NAME",
		 "STATE", "PRI", "PRIVATE", "OUT", "IDLE", "FLT/S", "GAIN", "COST", columns > FIXED + 12 ? "NOW" : "");
	snprintf(buf, size, "%.*s", columns, text);
}

static const char *rate(char *buf, size_t size, int64_t n)
{
	if (n < 0)
		snprintf(buf, size, "-");
	else if (n < 100000)
		snprintf(buf, size, "%lld", (long long)n);
	else
		snprintf(buf, size, "%lldk", (long long)(n / 1000));
	return buf;
}

void firn_top_line(char *buf, size_t size, int columns, const struct firn_target *t)
{
	int name_width = 9 + (columns > FIXED + 30 ? 7 : 0), width, room = columns - FIXED - (name_width - 9) - 1;
	char name[64], state[32], now[1024], private[16], out[16], idle[16], faults[32], gain[16], cost[16];

	width = firn_print_escaped(name, sizeof(name), t->comm ? t->comm : "-", name_width);
	firn_print_escaped(state, sizeof(state), t->state ? t->state : "-", 7);
	firn_print_size(private, sizeof(private), (double)t->policy.private_bytes);
	firn_print_size(out, sizeof(out), t->policy.out_bytes > 0 ? (double)t->policy.out_bytes : -1);
	firn_print_age(idle, sizeof(idle), (double)t->policy.idle_ms / 1e3);
	/* "3 min" has no room: "3min". */
	for (char *p = idle, *q = idle;; p++) {
		if (*p != ' ')
			*q++ = *p;
		if (!*p)
			break;
	}
	firn_print_size(gain, sizeof(gain), (double)t->policy.gain);
	firn_print_size(cost, sizeof(cost), (double)t->policy.cost);
	now[0] = 0;
	if (room >= 8)
		firn_print_escaped(now, sizeof(now),
				   t->policy.action && strcmp(t->policy.action, "none") ? t->policy.action :
				   t->policy.reason ? t->policy.reason : "", room);
	snprintf(buf, size, "%7d %s%*s %-7s %3lld %8s %8s %5.5s %5.5s %8s %8s %s", (int)t->pid, name, name_width - width, "",
		 state, (long long)t->policy.priority, private, out, idle, rate(faults, sizeof(faults), t->policy.faults_per_s),
		 gain, cost, now);
}

static int down(int64_t a, int64_t b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

static int by_private(const void *a, const void *b)
{
	const struct firn_target *const *p = a, *const *q = b;
	int r = down((*p)->policy.private_bytes + (*p)->policy.out_bytes, (*q)->policy.private_bytes + (*q)->policy.out_bytes);

	return r ? r : down((*q)->pid, (*p)->pid);
}

static int by_idle(const void *a, const void *b)
{
	const struct firn_target *const *p = a, *const *q = b;
	int r = down((*p)->policy.idle_ms, (*q)->policy.idle_ms);

	return r ? r : down((*q)->pid, (*p)->pid);
}

static int by_priority(const void *a, const void *b)
{
	const struct firn_target *const *p = a, *const *q = b;
	int r = down((*q)->policy.priority, (*p)->policy.priority);

	return r ? r : by_private(a, b);
}

static int by_pid(const void *a, const void *b)
{
	const struct firn_target *const *p = a, *const *q = b;

	return down((*q)->pid, (*p)->pid);
}

void firn_top_sort(const struct firn_target **targets, size_t n, enum firn_top_order order)
{
	static int (*const compare[FIRN_TOP_ORDERS])(const void *, const void *) = { NULL, by_private, by_idle, by_priority,
										     by_pid };

	if (compare[order] && n)
		qsort(targets, n, sizeof(*targets), compare[order]);
}
