/* SPDX-License-Identifier: MIT */
#include "sys/point.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys/sys.h"

static const char *const names[] = {
#define X(id, name) name,
	FIRN_POINTS(X)
#undef X
};

static enum firn_point kill_point = FIRN_POINT_COUNT, sleep_point = FIRN_POINT_COUNT;
static atomic_long kill_after;
static long sleep_ms;

const char *firn_point_name(enum firn_point point)
{
	return names[point];
}

static void pass(enum firn_point point)
{
	if (point == sleep_point)
		firn_sys.sleep_ns((uint64_t)sleep_ms * 1000000u);
	if (point == kill_point && atomic_fetch_sub(&kill_after, 1) == 1)
		kill(getpid(), SIGKILL);
}

/* "name" or "name:n".  The point, or FIRN_POINT_COUNT. */
static enum firn_point parse(const char *spec, long *n)
{
	size_t len = strcspn(spec, ":");

	*n = 1;
	if (spec[len] == ':') {
		char *end;

		*n = strtol(spec + len + 1, &end, 10);
		if (*end || *n < 1)
			return FIRN_POINT_COUNT;
	}
	for (int i = 0; i < FIRN_POINT_COUNT; i++)
		if (strlen(names[i]) == len && !memcmp(names[i], spec, len))
			return (enum firn_point)i;
	return FIRN_POINT_COUNT;
}

int firn_point_kill_at(const char *spec)
{
	long n;

	kill_point = parse(spec, &n);
	atomic_store(&kill_after, n);
	firn_sys.point = pass;
	return kill_point == FIRN_POINT_COUNT ? -EINVAL : 0;
}

int firn_point_sleep_at(const char *spec)
{
	sleep_point = parse(spec, &sleep_ms);
	firn_sys.point = pass;
	return sleep_point == FIRN_POINT_COUNT ? -EINVAL : 0;
}

void firn_point(enum firn_point point)
{
	if (firn_sys.point)
		firn_sys.point(point);
}
