/* SPDX-License-Identifier: MIT */
#include "base/paths.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>

static int copy(char *buf, size_t size, const char *s)
{
	int n = snprintf(buf, size, "%s", s);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int firn_runtime_dir(char *buf, size_t size)
{
	const char *dir = getenv("FIRN_RUNTIME_DIR");
	struct statfs fs;

	if (dir && *dir)
		return copy(buf, size, dir);
	if (statfs("/run", &fs) == 0 && fs.f_type == TMPFS_MAGIC)
		return copy(buf, size, "/run/firn");
	return copy(buf, size, "/dev/shm/firn");
}

int firn_state_dir(char *buf, size_t size)
{
	const char *dir = getenv("FIRN_STATE_DIR");

	return copy(buf, size, dir && *dir ? dir : "/var/lib/firn");
}

int firn_path_join(char *buf, size_t size, const char *dir, const char *name)
{
	int n = snprintf(buf, size, "%s/%s", dir, name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}
