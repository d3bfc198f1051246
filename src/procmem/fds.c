/* SPDX-License-Identifier: MIT */
#include "procmem/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/sys.h"

#define TTY_MAJOR 4u
#define TTYAUX_MAJOR 5u
#define PTS_FIRST_MAJOR 136u
#define PTS_LAST_MAJOR 143u

static const struct {
	const char *text;
	enum firn_fd_kind kind;
} anonymous[] = {
	{ "anon_inode:[eventfd]", FIRN_FD_EVENTFD },	 { "anon_inode:[timerfd]", FIRN_FD_TIMERFD },
	{ "anon_inode:[eventpoll]", FIRN_FD_EPOLL },	 { "anon_inode:[signalfd]", FIRN_FD_SIGNALFD },
	{ "anon_inode:inotify", FIRN_FD_INOTIFY },	 { "anon_inode:[inotify]", FIRN_FD_INOTIFY },
	{ "anon_inode:[fanotify]", FIRN_FD_INOTIFY },	 { "anon_inode:[pidfd]", FIRN_FD_PIDFD },
};

enum firn_fd_kind firn_fd_kind_of(const char *text, uint64_t *ret_ino)
{
	unsigned long long ino;

	*ret_ino = 0;
	if (sscanf(text, "socket:[%llu]", &ino) == 1) {
		*ret_ino = ino;
		return FIRN_FD_SOCKET;
	}
	if (sscanf(text, "pipe:[%llu]", &ino) == 1) {
		*ret_ino = ino;
		return FIRN_FD_PIPE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(anonymous); i++)
		if (!strcmp(text, anonymous[i].text))
			return anonymous[i].kind;
	return FIRN_FD_OTHER;
}

/* "(seconds, nanoseconds)" */
static uint64_t timer_ns(const char *text)
{
	unsigned long long s, ns;

	if (sscanf(text, " (%llu, %llu)", &s, &ns) != 2 || ns >= 1000000000)
		return 0;
	return s > UINT64_MAX / 1000000000 - 1 ? UINT64_MAX : s * 1000000000u + ns;
}

void firn_fd_line(const char *line, struct firn_fd *ret)
{
	if (!strncmp(line, "flags:", 6))
		ret->flags = (uint32_t)strtoul(line + 6, NULL, 8);
	else if (!strncmp(line, "ticks:", 6))
		ret->ticks = strtoull(line + 6, NULL, 10);
	else if (!strncmp(line, "it_value:", 9))
		ret->left_ns = timer_ns(line + 9);
	else if (!strncmp(line, "it_interval:", 12))
		ret->interval_ns = timer_ns(line + 12);
	else if (!strncmp(line, "sigmask:", 8))
		ret->sigmask = strtoull(line + 8, NULL, 16);
}

bool firn_fd_member_line(const char *line, int *ret_fd, uint32_t *ret_events, uint64_t *ret_ino)
{
	unsigned long long ino;
	const char *at;

	if (sscanf(line, "tfd: %d events: %x", ret_fd, ret_events) != 2 || *ret_fd < 0)
		return false;
	at = strstr(line, " ino:");
	*ret_ino = at && sscanf(at, " ino:%llx", &ino) == 1 ? ino : 0;
	return true;
}

/* What has a path: a fifo, a terminal, or nothing for us. */
static void look_at_file(const char *path, struct firn_fd *ret)
{
	struct statx st;

	/* As it is known here: no server of a network file system is asked, which might not answer. */
	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &st))
		return;
	if (S_ISFIFO(st.stx_mode)) {
		ret->kind = FIRN_FD_PIPE;
		ret->ino = st.stx_ino;
	} else if (S_ISCHR(st.stx_mode) &&
		   (st.stx_rdev_major == TTY_MAJOR || (st.stx_rdev_major == TTYAUX_MAJOR && !st.stx_rdev_minor) ||
		    (st.stx_rdev_major >= PTS_FIRST_MAJOR && st.stx_rdev_major <= PTS_LAST_MAJOR))) {
		ret->kind = FIRN_FD_TTY;
	}
}

int firn_fd_read(pid_t pid, int fd, struct firn_fd *ret)
{
	struct firn_lines lines;
	char path[64], text[128];
	ssize_t n;
	char *line;
	int err;

	memset(ret, 0, sizeof(*ret));
	ret->fd = fd;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = 0;
	ret->kind = firn_fd_kind_of(text, &ret->ino);
	if (ret->kind == FIRN_FD_OTHER && text[0] == '/')
		look_at_file(path, ret);
	if (ret->kind != FIRN_FD_TIMERFD && ret->kind != FIRN_FD_SIGNALFD && ret->kind != FIRN_FD_PIPE)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	err = firn_lines_open(&lines, path);
	if (err)
		return err;
	while (firn_lines_next(&lines, &line) > 0)
		firn_fd_line(line, ret);
	firn_lines_close(&lines);
	return 0;
}

int firn_fd_each_member(pid_t pid, int fd, int (*fn)(void *arg, int fd, uint32_t events, uint64_t ino), void *arg)
{
	struct firn_lines lines;
	char path[64], *line;
	uint32_t events;
	uint64_t ino;
	int err, member;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	err = firn_lines_open(&lines, path);
	if (err)
		return err;
	while (!err && (err = firn_lines_next(&lines, &line)) > 0)
		err = firn_fd_member_line(line, &member, &events, &ino) ? fn(arg, member, events, ino) : 0;
	firn_lines_close(&lines);
	return err;
}
