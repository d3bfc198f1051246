/* SPDX-License-Identifier: MIT */
/*
 * Control groups: find one by its name, and who is in it.  Version 1, version 2 and both at once (hybrid).  Reads
 * only; nothing is kept between calls, since groups come and go.
 */
#ifndef FIRN_PROCMEM_CGROUP_H
#define FIRN_PROCMEM_CGROUP_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define FIRN_CGROUP_PATH 1024

/* A group, by its place in one hierarchy. */
struct firn_cgroup {
	char hierarchy[64];             /* as /proc/PID/cgroup names it: "" for version 2, "memory", "name=systemd" */
	char path[FIRN_CGROUP_PATH];    /* in the hierarchy, as /proc/PID/cgroup has it: "/" or "/a/b" */
	char dir[FIRN_CGROUP_PATH];     /* where it is mounted */
};

/*
 * Find the group @name: a path below a hierarchy's root ("/a/b" or "a/b"), or that of its directory
 * ("/sys/fs/cgroup/memory/a/b").  Where several hierarchies have the path, the first one in which it holds a process
 * counts: version 2, then systemd's, then the others in the order of their mounts.
 * Where there is none, ret->path is what it would be.
 * Returns 0; -EINVAL not a path (FIRN_EXIT_USAGE); -ENOENT there is no such group, or no hierarchy is mounted
 * (FIRN_EXIT_NOT_FOUND); each with *@e.  Any thread.
 */
int firn_cgroup_find(const char *name, struct firn_cgroup *ret, struct firn_err *e);

/* Is @pid in the group, or in one below it?  No for a process that has ended or cannot be looked at. */
bool firn_cgroup_holds(const struct firn_cgroup *c, pid_t pid);

/*
 * Every process of the group and of those below it.  @fn returns 0 to go on; anything else ends the walk and is
 * returned.  Returns 0, or -ENOENT where the group is gone.
 */
int firn_cgroup_each(const struct firn_cgroup *c, int (*fn)(void *arg, pid_t pid), void *arg);

/*
 * Every group of every mounted hierarchy, in firn_cgroup_find's order of hierarchies, parents before children; @base
 * is the last part of its path.  @fn as above.  Returns 0.
 */
int firn_cgroup_each_group(int (*fn)(void *arg, const struct firn_cgroup *c, const char *base), void *arg);

#endif
