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

static enum firn_point kill_point = FIRN_POINT_COUNT;
static atomic_long kill_after;

const char *firn_point_name(enum firn_point point)
{
	return names[point];
}

static void kill_here(enum firn_point point)
{
	if (point == kill_point && atomic_fetch_sub(&kill_after, 1) == 1)
		kill(getpid(), SIGKILL);
}

int firn_point_kill_at(const char *spec)
{
	size_t len = strcspn(spec, ":");
	long n = 1;

	if (spec[len] == ':') {
		char *end;

		n = strtol(spec + len + 1, &end, 10);
		if (*end || n < 1)
			return -EINVAL;
	}
	for (int i = 0; i < FIRN_POINT_COUNT; i++) {
		if (strlen(names[i]) == len && !memcmp(names[i], spec, len)) {
			kill_point = (enum firn_point)i;
			atomic_store(&kill_after, n);
			firn_sys.point = kill_here;
			return 0;
		}
	}
	return -EINVAL;
}

void firn_point(enum firn_point point)
{
	if (firn_sys.point)
		firn_sys.point(point);
}
