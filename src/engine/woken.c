/* SPDX-License-Identifier: MIT */
/*
 * What woke a target, in words, and where that is kept: a file beside the images, as long as the process lives.
 */
#include "engine/watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "sys/sys.h"

#define RECORD_MAGIC 0x31656b61776e7266ull   /* "frnwake1" */
#define SUFFIX ".wake"
#define MEMBERS 1024u                /* of an epoll descriptor that are asked which it was */

/* --- Which, and what ------------------------------------------------------------------------------ */

static void address(const struct sockaddr_storage *s, socklen_t len, char *buf, size_t size)
{
	const struct sockaddr_un *un = (const void *)s;
	char host[INET6_ADDRSTRLEN];
	size_t path = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;

	switch (s->ss_family) {
	case AF_INET: {
		const struct sockaddr_in *in = (const void *)s;

		if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)))
			snprintf(buf, size, "%s:%u", host, ntohs(in->sin_port));
		break;
	}
	case AF_INET6: {
		const struct sockaddr_in6 *in6 = (const void *)s;

		if (inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)))
			snprintf(buf, size, "[%s]:%u", host, ntohs(in6->sin6_port));
		break;
	}
	case AF_UNIX:
		if (path > 1 && !un->sun_path[0])
			snprintf(buf, size, "@%.*s", (int)path - 1, un->sun_path + 1);
		else if (path)
			snprintf(buf, size, "%.*s", (int)path, un->sun_path);
		break;
	}
	/* A process chose the path: nothing of it may look like something else in a log. */
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 32 || *p == 127)
			*p = '?';
}

static const char *of_socket(int fd, uint32_t events, struct firn_woken *ret)
{
	struct sockaddr_storage s;
	socklen_t len = sizeof(s);
	int value = 0, bytes = 0, type = 0;

	memset(&s, 0, sizeof(s));
	if (!getsockname(fd, (void *)&s, &len))
		address(&s, len, ret->local, sizeof(ret->local));
	len = sizeof(value);
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) && value)
		return "connection";
	len = sizeof(s);
	memset(&s, 0, sizeof(s));
	if (!getpeername(fd, (void *)&s, &len))
		address(&s, len, ret->peer, sizeof(ret->peer));
	if (events & POLLERR)
		return "error";
	if (!(events & (POLLIN | POLLPRI)))
		return events & (POLLHUP | POLLRDHUP) ? "end" : "room";
	len = sizeof(type);
	if (!getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_DGRAM)
		return "datagram";
	if (events & (POLLHUP | POLLRDHUP) && !ioctl(fd, FIONREAD, &bytes) && !bytes)
		return "end";
	return "data";
}

static void describe(struct firn_watch *w, int fd, int copy, enum firn_fd_kind kind, uint32_t events,
		     struct firn_woken *ret)
{
	const char *word = "event";
	char path[64];
	ssize_t n;

	ret->fd = fd;
	ret->local[0] = ret->peer[0] = 0;
	switch (kind) {
	case FIRN_FD_SOCKET:
		word = of_socket(copy, events, ret);
		break;
	case FIRN_FD_PIPE:
	case FIRN_FD_TTY:
		word = events & POLLIN ? "data" : events & POLLOUT ? "room" : "end";
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", w->live, fd);
		n = readlink(path, ret->local, sizeof(ret->local) - 1);
		ret->local[n > 0 ? n : 0] = 0;
		for (char *p = ret->local; *p; p++)
			if ((unsigned char)*p < 32 || *p == 127)
				*p = '?';
		break;
	case FIRN_FD_TIMERFD:
		word = "timer";
		break;
	case FIRN_FD_INOTIFY:
		word = "file";
		break;
	case FIRN_FD_PIDFD:
		word = "process";
		break;
	default:
		break;
	}
	snprintf(ret->kind, sizeof(ret->kind), "%s", word);
}

struct member {
	struct firn_watch *w;
	struct firn_woken *ret;
	unsigned int asked;
};

/* Is it this member of an epoll descriptor? */
static int ask_member(void *arg, int fd, uint32_t events, uint64_t ino)
{
	struct member *m = arg;
	struct firn_fd f;
	struct pollfd p;
	FIRN_FD copy = -1;

	if (m->asked++ == MEMBERS)
		return 1;
	if (firn_fd_read(m->w->live, fd, &f) || (f.ino && f.ino != ino))
		return 0;
	copy = (int)firn_sys.pidfd_getfd(m->w->pidfd, fd);
	p = (struct pollfd){ copy, (short)(events & 0xffff), 0 };
	/* Ready to be written to it is all the time, where it does not wait for that alone. */
	if (events & POLLIN)
		p.events &= ~POLLOUT;
	if (copy < 0 || poll(&p, 1, 0) <= 0)
		return 0;
	describe(m->w, fd, copy, f.kind, (uint16_t)p.revents, m->ret);
	return 1;
}

void firn_watch_describe(struct firn_watch *w, uint32_t i, uint32_t events, struct firn_woken *ret)
{
	const struct firn_watch_item *item = &w->items[i];
	struct member m = { w, ret, 0 };

	describe(w, item->fd, item->copy, item->kind, events, ret);
	/* Its members were found harmless to poll. */
	if (item->kind == FIRN_FD_EPOLL)
		firn_fd_each_member(w->live, item->fd, ask_member, &m);
}

void firn_woken_text(const struct firn_woken *woken, char *buf, size_t size)
{
	static const struct {
		const char *kind, *text;
	} texts[] = {
		{ "connection", "a connection" },   { "data", "data" },
		{ "datagram", "a datagram" },	    { "end", "the end of its input" },
		{ "error", "an error" },	    { "room", "room to write" },
		{ "timer", "a timer" },		    { "file", "a change of a file" },
		{ "process", "the end of a process" },
	};
	const char *text = "an event";

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!strcmp(texts[i].kind, woken->kind))
			text = texts[i].text;
	if (!strcmp(woken->kind, "signal"))
		snprintf(buf, size, "signal %d", woken->number);
	else if (!strcmp(woken->kind, "child"))
		snprintf(buf, size, "the end of its child %d", woken->number);
	else if (!strcmp(woken->kind, "timeout"))
		snprintf(buf, size, "a timeout of thread %d", woken->number);
	else if (!strcmp(woken->kind, "continued"))
		snprintf(buf, size, "somebody's SIGCONT");
	else if (!strcmp(woken->kind, "group"))
		snprintf(buf, size, "process %d of its group", woken->number);
	else
		snprintf(buf, size, "%s at descriptor %d%s%s%s%s%s", text, woken->fd, woken->local[0] ? " (" : "", woken->local,
			 woken->peer[0] ? " from " : "", woken->peer, woken->local[0] ? ")" : "");
}

/* --- The record ----------------------------------------------------------------------------------- */

static int record_path(struct firn_engine *en, pid_t pid, uint64_t start_time, char *path, size_t size)
{
	char name[64];

	snprintf(name, sizeof(name), "%d-%llu" SUFFIX, pid, (unsigned long long)start_time);
	return firn_path_join(path, size, en->config.private_dir, name);
}

int firn_wake_record_load(struct firn_engine *en, pid_t pid, uint64_t start_time, struct firn_wake_record *ret)
{
	struct firn_wake_record r;
	char path[1024];
	FIRN_FD fd = -1;

	memset(ret, 0, sizeof(*ret));
	if (record_path(en, pid, start_time, path, sizeof(path)))
		return -ENAMETOOLONG;
	fd = (int)firn_sys.open(path, O_RDONLY, 0);
	if (fd < 0)
		return fd;
	if (firn_sys.pread(fd, &r, sizeof(r), 0) != sizeof(r) || r.magic != RECORD_MAGIC || r.npassed > FIRN_WAKE_PASSED ||
	    memchr(r.woken.kind, 0, sizeof(r.woken.kind)) == NULL || memchr(r.woken.local, 0, sizeof(r.woken.local)) == NULL ||
	    memchr(r.woken.peer, 0, sizeof(r.woken.peer)) == NULL)
		return -EBADMSG;
	*ret = r;
	return 0;
}

int firn_wake_record_save(struct firn_engine *en, pid_t pid, uint64_t start_time, const struct firn_wake_record *record)
{
	struct firn_wake_record r = *record;
	char path[1024];
	FIRN_FD fd = -1;
	long n;

	if (record_path(en, pid, start_time, path, sizeof(path)))
		return -ENAMETOOLONG;
	r.magic = RECORD_MAGIC;
	/* A page of memory, written by one call: whole, or not one that is read. */
	fd = (int)firn_sys.open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return fd;
	n = firn_sys.pwrite(fd, &r, sizeof(r), 0);
	if (n == sizeof(r))
		return 0;
	firn_sys.unlink(path);
	return n < 0 ? (int)n : -ENOSPC;
}

void firn_wake_sweep(struct firn_engine *en)
{
	firn_sweep_ended(en, SUFFIX);
}
