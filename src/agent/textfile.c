/* SPDX-License-Identifier: MIT */
#include "agent/textfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

void firn_textfile_set(struct firn_textfile *t, const char *path, uint64_t every_ns)
{
	if (strcmp(t->path, path)) {
		snprintf(t->path, sizeof(t->path), "%s", path);
		t->due_ns = 0;
		t->told = 0;
	} else if (every_ns < t->every_ns) {
		t->due_ns = 0;
	}
	t->every_ns = every_ns;
}

int firn_textfile_wait_ms(const struct firn_textfile *t, uint64_t now_ns)
{
	if (!*t->path)
		return -1;
	return now_ns >= t->due_ns ? 0 : (int)firn_min_u64((t->due_ns - now_ns) / 1000000u + 1, INT_MAX);
}

/* The directory may be another user's: the file that root writes is made anew and is no link.  Its name does not end as
 * the collector's files do. */
static int write_new(const char *path, const char *text)
{
	size_t left = strlen(text);
	FIRN_FD fd = -1;
	int err = 0;

	if (unlink(path) && errno != ENOENT)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	while (!err && left) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			err = -errno;
		text += n > 0 ? n : 0;
		left -= n > 0 ? (size_t)n : 0;
	}
	if (!err && fchmod(fd, 0644))
		err = -errno;
	return err;
}

int firn_textfile_write(struct firn_textfile *t, const char *text, uint64_t now_ns)
{
	char next[FIRN_TEXTFILE_PATH + 8];
	int err = text ? 0 : -ENOMEM;

	t->due_ns = now_ns + t->every_ns;
	snprintf(next, sizeof(next), "%s.new", t->path);
	if (!err)
		err = write_new(next, text);
	if (!err && rename(next, t->path))
		err = -errno;
	if (err && text)
		unlink(next);
	if (err && -err != t->told)
		firn_log("metrics cannot be written to %s (%s): it stays as it is until they can", t->path, strerror(-err));
	t->told = -err;
	return err;
}
