/* SPDX-License-Identifier: MIT */
/*
 * The block device below a directory, and how much may be written to it.  Reads sysfs and mountinfo only.
 */
#ifndef FIRN_AGENT_DEVICE_H
#define FIRN_AGENT_DEVICE_H

#include "base/types.h"

struct firn_device {
	char name[32];               /* "sda", "mmcblk0", "dm-0" */
	uint64_t bytes;              /* of the whole device, not of a partition */
	bool rotational, removable;
};

/*
 * The device of number @major:@minor, or the one that its partition belongs to.  @sys: "/sys".
 * Returns 0, or -ENODEV where there is none.
 */
int firn_device_read(const char *sys, unsigned int major, unsigned int minor, struct firn_device *ret);

/* The device that holds @path, or the nearest directory above it that exists.  Returns 0; -ENODEV where it is none that
 * we can tell: a network, memory, several devices. */
int firn_device_of(const char *path, struct firn_device *ret);

/* Small flash: a memory card or soldered flash (mmc), whatever can be pulled out, and what does not turn and has no more than
 * 64 GiB. */
bool firn_device_is_small_flash(const struct firn_device *d);

#endif
