/* SPDX-License-Identifier: MIT */
/*
 * A cgroup of its own for what `firn run` runs: below the one that it is in, so that every limit of that one still holds.
 */
#ifndef FIRN_AGENT_RUNGROUP_H
#define FIRN_AGENT_RUNGROUP_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Make it, in the version 2 hierarchy and in version 1's freezer where they are mounted, and move @pid there.
 * @ret_path  of the group in one of them; "" where there is none.
 * Returns in how many hierarchies.  What cannot be made is left out: the process stays where it is.  Any thread.
 */
unsigned int firn_rungroup_make(pid_t pid, char *ret_path, size_t size);

/* Remove those, of this agent or a former one, in which nobody is any more.  Returns how many are left.  Any thread. */
unsigned int firn_rungroup_sweep(void);

#endif
