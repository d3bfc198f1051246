/* SPDX-License-Identifier: MIT */
#include "procmem/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/sys.h"

#define MAX_HIERARCHIES 32u
#define DEPTH 64

struct hierarchy {
	char name[64];                  /* as in struct firn_cgroup */
	char root[FIRN_CGROUP_PATH];    /* the path of what is mounted: "/" but in containers and for bind mounts */
	char point[FIRN_CGROUP_PATH];
};

/* What the kernel writes as \040 and the like. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
}

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* The name by which /proc/PID/cgroup knows the version 1 hierarchy that was mounted with @options. */
static bool name_of(const char *options, char *ret, size_t size)
{
	struct firn_lines l;
	bool found = false;
	char *line;

	if (firn_lines_open(&l, "/proc/self/cgroup"))
		return false;
	while (!found && firn_lines_next(&l, &line) > 0) {
		char *name = strchr(line, ':'), *end = name ? strchr(name + 1, ':') : NULL, first[64];

		if (!end || end == name + 1)
			continue;
		*end = 0;
		snprintf(first, sizeof(first), "%.*s", (int)strcspn(name + 1, ","), name + 1);
		found = has_word(options, first) && strlen(name + 1) < size;
		if (found)
			snprintf(ret, size, "%s", name + 1);
	}
	firn_lines_close(&l);
	return found;
}

/* One line of /proc/self/mountinfo.  False: not a hierarchy. */
static bool parse_mount(char *line, struct hierarchy *h)
{
	char *rest = strstr(line, " - "), *field, *save, *type, *options;
	const char *root = NULL, *point = NULL;

	if (!rest)
		return false;
	*rest = 0;
	type = strtok_r(rest + 3, " ", &save);
	if (!type || strncmp(type, "cgroup", 6))
		return false;
	strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " ", &save);
	h->name[0] = 0;
	if (strcmp(type, "cgroup2") && (!options || !name_of(options, h->name, sizeof(h->name))))
		return false;
	field = strtok_r(line, " ", &save);
	for (int i = 0; field; i++, field = strtok_r(NULL, " ", &save)) {
		if (i == 3)
			root = field;
		if (i == 4)
			point = field;
	}
	if (!root || !point || strlen(root) >= sizeof(h->root) || strlen(point) >= sizeof(h->point))
		return false;
	snprintf(h->root, sizeof(h->root), "%s", root);
	snprintf(h->point, sizeof(h->point), "%s", point);
	unescape(h->root);
	unescape(h->point);
	return true;
}

static int rank(const struct hierarchy *h)
{
	return !h->name[0] ? 0 : !strncmp(h->name, "name=", 5) ? 1 : 2;
}

static int by_rank(const void *a, const void *b)
{
	const struct hierarchy *x = *(struct hierarchy *const *)a, *y = *(struct hierarchy *const *)b;

	if (rank(x) != rank(y))
		return rank(x) - rank(y);
	return x < y ? -1 : x > y;
}

struct hierarchies {
	unsigned int n;
	struct hierarchy *order[MAX_HIERARCHIES];
	struct hierarchy all[MAX_HIERARCHIES];
};

/* The mounted hierarchies, in the order in which they are asked.  NULL: no memory. */
static struct hierarchies *read_mounts(void)
{
	struct hierarchies *h = calloc(1, sizeof(*h));
	struct firn_lines l;
	char *line;

	if (!h || firn_lines_open(&l, "/proc/self/mountinfo"))
		return h;
	while (h->n < MAX_HIERARCHIES && firn_lines_next(&l, &line) > 0)
		if (parse_mount(line, &h->all[h->n])) {
			h->order[h->n] = &h->all[h->n];
			h->n++;
		}
	firn_lines_close(&l);
	qsort(h->order, h->n, sizeof(h->order[0]), by_rank);
	return h;
}

/* Is @path @prefix, or below it?  Returns what follows the prefix ("" or "/..."), or NULL. */
static const char *below(const char *path, const char *prefix)
{
	size_t n = strlen(prefix);

	if (n && prefix[n - 1] == '/')
		n--;
	if (strncmp(path, prefix, n) || (path[n] && path[n] != '/'))
		return NULL;
	return path + n;
}

/* One leading slash, none doubled, none at the end; no "." and "..".  False: it is none or too long. */
static bool clean(const char *name, char *ret, size_t size)
{
	size_t used = 0;

	while (*name) {
		size_t n;

		name += strspn(name, "/");
		n = strcspn(name, "/");
		if (!n)
			break;
		if ((n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (used + n + 2 > size)
			return false;
		ret[used++] = '/';
		memcpy(ret + used, name, n);
		used += n;
		name += n;
	}
	if (!used)
		ret[used++] = '/';
	ret[used] = 0;
	return true;
}

/* @path of @h as a group, where it exists. */
static bool place(const struct hierarchy *h, const char *path, struct firn_cgroup *ret)
{
	const char *rest = below(path, h->root);
	struct stat st;

	if (!rest)
		return false;
	snprintf(ret->hierarchy, sizeof(ret->hierarchy), "%s", h->name);
	snprintf(ret->path, sizeof(ret->path), "%s", path);
	if (snprintf(ret->dir, sizeof(ret->dir), "%s%s", h->point, rest) >= (int)sizeof(ret->dir))
		return false;
	return !stat(ret->dir, &st) && S_ISDIR(st.st_mode);
}

static int is_one(void *arg, pid_t pid)
{
	(void)arg;
	(void)pid;
	return 1;
}

static int find_in(struct hierarchies *h, const char *path, struct firn_cgroup *ret)
{
	const struct hierarchy *mount = NULL;
	struct firn_cgroup c;
	bool found = false;

	/* A directory: of the innermost mount that it is below. */
	for (unsigned int i = 0; i < h->n; i++)
		if (below(path, h->order[i]->point) && (!mount || strlen(h->order[i]->point) > strlen(mount->point)))
			mount = h->order[i];
	if (mount) {
		const char *root = strcmp(mount->root, "/") ? mount->root : "", *rest = below(path, mount->point);

		if (snprintf(c.path, sizeof(c.path), "%s%s", root, *root || *rest ? rest : "/") >= (int)sizeof(c.path))
			return -ENOENT;
		return place(mount, c.path, ret) ? 0 : -ENOENT;        /* the path is told in any case */
	}
	for (unsigned int i = 0; i < h->n; i++) {
		if (!place(h->order[i], path, &c))
			continue;
		if (!found)
			*ret = c;
		found = true;
		if (firn_cgroup_each(&c, is_one, NULL) == 1) {
			*ret = c;
			break;
		}
	}
	return found ? 0 : -ENOENT;
}

int firn_cgroup_find(const char *name, struct firn_cgroup *ret, struct firn_err *e)
{
	struct hierarchies *h;
	char path[FIRN_CGROUP_PATH];
	int err;

	if (!*name || !clean(name, path, sizeof(path)))
		return firn_err_set(e, FIRN_EXIT_USAGE, EINVAL, "cgroup-path",
				    "'%.100s' is no path of a cgroup: give one as in /system.slice/a.service", name);
	h = read_mounts();
	if (!h)
		return firn_err_set(e, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to look for cgroups");
	snprintf(ret->path, sizeof(ret->path), "%s", path);
	err = h->n ? find_in(h, path, ret) : -ENXIO;
	free(h);
	if (err == -ENXIO)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ENOENT, "no-cgroups",
				    "no cgroup hierarchy is mounted here: name processes by their PIDs");
	if (err)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ENOENT, "no-such-cgroup",
				    "there is no cgroup %.150s: look below /sys/fs/cgroup", path);
	return 0;
}

bool firn_cgroup_holds(const struct firn_cgroup *c, pid_t pid)
{
	struct firn_lines l;
	char path[64], *line;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	if (firn_lines_open(&l, path))
		return false;
	while (firn_lines_next(&l, &line) > 0) {
		char *name = strchr(line, ':'), *end = name ? strchr(name + 1, ':') : NULL;

		if (!end)
			continue;
		*end = 0;
		if (strcmp(name + 1, c->hierarchy))
			continue;
		found = below(end + 1, c->path) != NULL;
		break;
	}
	firn_lines_close(&l);
	return found;
}

/* A walk down from one group: its processes, or the groups themselves. */
struct walk {
	int (*process)(void *arg, pid_t pid);
	int (*group)(void *arg, const struct firn_cgroup *c, const char *base);
	void *arg;
	struct firn_cgroup at;          /* the path and directory grow and shrink on the way */
};

static int each_process(struct walk *w)
{
	struct firn_lines l;
	char path[FIRN_CGROUP_PATH + 16], *line;
	int r = 0;

	snprintf(path, sizeof(path), "%s/cgroup.procs", w->at.dir);
	/* Not readable in a threaded group of version 2: its processes are its parent's. */
	if (firn_lines_open(&l, path))
		return 0;
	while (!r && firn_lines_next(&l, &line) > 0) {
		pid_t pid = (pid_t)strtol(line, NULL, 10);

		/* 0: one that this PID namespace does not see. */
		if (pid > 0)
			r = w->process(w->arg, pid);
	}
	firn_lines_close(&l);
	return r;
}

static int descend(struct walk *w, int depth)
{
	size_t dir_len = strlen(w->at.dir), path_len = strlen(w->at.path);
	struct dirent *d;
	int r = 0;
	DIR *dir;

	if (w->process) {
		r = each_process(w);
	} else {
		const char *base = strrchr(w->at.path, '/');

		r = w->group(w->arg, &w->at, base ? base + 1 : "");
	}
	dir = !r && depth < DEPTH ? opendir(w->at.dir) : NULL;
	while (dir && !r && (d = readdir(dir))) {
		size_t n = strlen(d->d_name);
		bool top = path_len == 1;       /* "/": the name follows without another slash */

		if (d->d_type != DT_DIR || !strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || dir_len + n + 2 > sizeof(w->at.dir) ||
		    path_len + n + 2 > sizeof(w->at.path))
			continue;
		snprintf(w->at.dir + dir_len, sizeof(w->at.dir) - dir_len, "/%s", d->d_name);
		snprintf(w->at.path + path_len, sizeof(w->at.path) - path_len, "%s%s", top ? "" : "/", d->d_name);
		r = descend(w, depth + 1);
		w->at.dir[dir_len] = 0;
		w->at.path[path_len] = 0;
	}
	if (dir)
		closedir(dir);
	return r;
}

int firn_cgroup_each(const struct firn_cgroup *c, int (*fn)(void *arg, pid_t pid), void *arg)
{
	struct walk w = { .process = fn, .arg = arg, .at = *c };

	if (access(c->dir, F_OK))
		return -ENOENT;
	return descend(&w, 0);
}

int firn_cgroup_each_group(int (*fn)(void *arg, const struct firn_cgroup *c, const char *base), void *arg)
{
	struct hierarchies *h = read_mounts();
	int r = 0;

	for (unsigned int i = 0; h && !r && i < h->n; i++) {
		struct walk w = { .group = fn, .arg = arg };

		if (place(h->order[i], h->order[i]->root, &w.at))
			r = descend(&w, 0);
	}
	free(h);
	return r;
}
