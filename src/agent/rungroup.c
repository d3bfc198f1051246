/* SPDX-License-Identifier: MIT */
#include "agent/rungroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "procmem/cgroup.h"
#include "sys/sys.h"

#define PREFIX "firn-run-"
#define PATH_BYTES 2048

struct making {
	pid_t pid;
	char *path;
	size_t size;
	unsigned int made;
};

/* The group of @pid in a hierarchy, as /proc/PID/cgroup has it. */
static bool group_of(pid_t pid, const char *hierarchy, char *path, size_t size)
{
	struct firn_lines l;
	char file[64], *line;
	bool found = false;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", pid);
	if (firn_lines_open(&l, file))
		return false;
	while (!found && firn_lines_next(&l, &line) > 0) {
		char *names = strchr(line, ':'), *at = names ? strchr(names + 1, ':') : NULL;

		if (!at)
			continue;
		*at++ = 0;
		found = !strcmp(names + 1, hierarchy) && (size_t)snprintf(path, size, "%s", at) < size;
	}
	firn_lines_close(&l);
	return found;
}

static void make_in(struct making *m, const struct firn_cgroup *root)
{
	char path[FIRN_CGROUP_PATH], dir[PATH_BYTES], file[PATH_BYTES + 16], text[16];
	int fd, n;

	/* What begins with ".." is outside of the hierarchy as we see it. */
	if (!group_of(m->pid, root->hierarchy, path, sizeof(path)) || !strncmp(path, "/..", 3))
		return;
	if ((size_t)snprintf(dir, sizeof(dir), "%s%s%s" PREFIX "%d", root->dir, path, path[1] ? "/" : "", m->pid) >= sizeof(dir) ||
	    (mkdir(dir, 0755) && errno != EEXIST))
		return;
	snprintf(file, sizeof(file), "%s/cgroup.procs", dir);
	n = snprintf(text, sizeof(text), "%d", m->pid);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		rmdir(dir);
	else if (!m->made++)
		snprintf(m->path, m->size, "%s", dir + strlen(root->dir));
	if (fd >= 0)
		close(fd);
}

/* The first group of each hierarchy is its root. */
static int make(void *arg, const struct firn_cgroup *c, const char *base)
{
	(void)base;
	if (!strcmp(c->path, "/") && (!*c->hierarchy || !strcmp(c->hierarchy, "freezer")))
		make_in(arg, c);
	return 0;
}

unsigned int firn_rungroup_make(pid_t pid, char *ret_path, size_t size)
{
	struct making m = { pid, ret_path, size, 0 };

	*ret_path = 0;
	firn_cgroup_each_group(make, &m);
	return m.made;
}

static int sweep(void *arg, const struct firn_cgroup *c, const char *base)
{
	unsigned int *left = arg;
	char dir[PATH_BYTES];

	if (strncmp(base, PREFIX, strlen(PREFIX)))
		return 0;
	if ((size_t)snprintf(dir, sizeof(dir), "%s", c->dir) < sizeof(dir) && rmdir(dir))
		++*left;
	return 0;
}

unsigned int firn_rungroup_sweep(void)
{
	unsigned int left = 0;

	firn_cgroup_each_group(sweep, &left);
	return left;
}
