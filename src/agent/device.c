/* SPDX-License-Identifier: MIT */
#include "agent/device.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sys/sys.h"

#define SMALL_BYTES (64ull << 30)

static uint64_t number_in(const char *dir, const char *name, uint64_t otherwise)
{
	char path[PATH_MAX + 64], buf[32];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return otherwise;
	return strtoull(buf, NULL, 10);
}

int firn_device_read(const char *sys, unsigned int major, unsigned int minor, struct firn_device *ret)
{
	char path[256], dir[PATH_MAX], partition[PATH_MAX + 16], *slash;

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", sys, major, minor);
	if (!realpath(path, dir))
		return -ENODEV;
	/* What wears is the whole device. */
	snprintf(partition, sizeof(partition), "%s/partition", dir);
	slash = strrchr(dir, '/');
	if (!access(partition, F_OK) && slash) {
		*slash = 0;
		slash = strrchr(dir, '/');
	}
	*ret = (struct firn_device){ .bytes = number_in(dir, "size", 0) * 512 };
	snprintf(ret->name, sizeof(ret->name), "%.31s", slash ? slash + 1 : dir);
	ret->rotational = number_in(dir, "queue/rotational", 1);
	ret->removable = number_in(dir, "removable", 0);
	return ret->bytes ? 0 : -ENODEV;
}

/* The device that mountinfo names for a file system without one of its own number, as btrfs is. */
static int find_source(unsigned int major, unsigned int minor, struct firn_device *ret)
{
	struct firn_lines l;
	char *line, number[32];
	int found = -ENODEV;

	snprintf(number, sizeof(number), "%u:%u", major, minor);
	if (firn_lines_open(&l, "/proc/self/mountinfo"))
		return -ENODEV;
	while (found && firn_lines_next(&l, &line) > 0) {
		char *save, *field = strtok_r(line, " ", &save), *after = NULL;
		struct stat st;
		int n = 0;

		/* id parent MAJOR:MINOR root at options [optional...] - type SOURCE options */
		for (; field; field = strtok_r(NULL, " ", &save), n++) {
			if (n == 2 && strcmp(field, number))
				break;
			if (n > 2 && !strcmp(field, "-")) {
				strtok_r(NULL, " ", &save);
				after = strtok_r(NULL, " ", &save);
				break;
			}
		}
		if (after && *after == '/' && !stat(after, &st) && S_ISBLK(st.st_mode))
			found = firn_device_read("/sys", major(st.st_rdev), minor(st.st_rdev), ret);
	}
	firn_lines_close(&l);
	return found;
}

int firn_device_of(const char *path, struct firn_device *ret)
{
	char dir[PATH_MAX], *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", path);
	while (stat(dir, &st)) {
		slash = strrchr(dir, '/');
		if (!slash || errno != ENOENT)
			return -ENODEV;
		/* The root's slash stays. */
		slash[slash == dir] = 0;
	}
	if (major(st.st_dev) && !firn_device_read("/sys", major(st.st_dev), minor(st.st_dev), ret))
		return 0;
	return find_source(major(st.st_dev), minor(st.st_dev), ret);
}

bool firn_device_is_small_flash(const struct firn_device *d)
{
	if (!strncmp(d->name, "mmcblk", 6) || !strncmp(d->name, "mtdblock", 8))
		return true;
	return !d->rotational && (d->removable || d->bytes <= SMALL_BYTES);
}
