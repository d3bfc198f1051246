/* SPDX-License-Identifier: MIT */
#include "agent/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/size.h"

#define FIRST_FD 3
#define FDS_MAX 1000
#define KEY_NAME "firn-key"
#define NS_PER_US 1000u

static struct {
	struct sockaddr_un address;
	socklen_t address_len;          /* 0: nobody to tell */
	uint64_t watchdog_ns;           /* 0: none */
	uint64_t told_ns;
	int listening;                  /* -1: none */
	int key;                        /* -1: none */
} manager = { .listening = -1, .key = -1 };

/* A number of the environment that is for this process; 0 where there is none. */
static int64_t number_of(const char *name, const char *pid_name)
{
	const char *text = getenv(name), *pid = getenv(pid_name);
	int64_t n, owner;

	if (!text || firn_number_parse(text, 1, INT64_MAX / 1000, &n))
		return 0;
	if (pid && (firn_number_parse(pid, 1, INT32_MAX, &owner) || owner != getpid()))
		return 0;
	return n;
}

static bool listens(int fd)
{
	int yes = 0, domain = 0;
	socklen_t len = sizeof(yes);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) && yes &&
	       !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX;
}

/* Is @name number @n in @names, which ':' divides? */
static bool is_named(const char *names, int n, const char *name)
{
	while (names && n--) {
		names = strchr(names, ':');
		names += names ? 1 : 0;
	}
	return names && strcspn(names, ":") == strlen(name) && !strncmp(names, name, strlen(name));
}

void firn_notify_begin(int *ret_first_free)
{
	static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
					     "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES" };
	const char *path = getenv("NOTIFY_SOCKET");
	int64_t fds = getenv("LISTEN_PID") ? number_of("LISTEN_FDS", "LISTEN_PID") : 0;
	size_t len = path ? strlen(path) : 0;

	*ret_first_free = FIRST_FD;
	if (fds > FDS_MAX)
		fds = 0;
	for (int fd = FIRST_FD; fd < FIRST_FD + (int)fds; fd++) {
		int flags = fcntl(fd, F_GETFL);

		if (manager.listening < 0 && listens(fd)) {
			manager.listening = fd;
			fcntl(fd, F_SETFL, flags | O_NONBLOCK);
		} else if (manager.key < 0 && is_named(getenv("LISTEN_FDNAMES"), fd - FIRST_FD, KEY_NAME)) {
			manager.key = fd;
		} else {
			close(fd);
			continue;
		}
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		*ret_first_free = fd + 1;
	}
	/* "@name" is in the abstract namespace. */
	if (len > 1 && len < sizeof(manager.address.sun_path) && (*path == '/' || *path == '@')) {
		manager.address.sun_family = AF_UNIX;
		memcpy(manager.address.sun_path, path, len);
		if (*path == '@')
			manager.address.sun_path[0] = 0;
		manager.address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	}
	manager.watchdog_ns = (uint64_t)number_of("WATCHDOG_USEC", "WATCHDOG_PID") * NS_PER_US;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

int firn_notify_socket(void)
{
	return manager.listening;
}

int firn_notify_take_key(void)
{
	return firn_fd_steal(&manager.key);
}

/* @handed: a descriptor that goes along, or -1. */
static void tell(const char *state, int handed)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec text = { (void *)(uintptr_t)state, strlen(state) };
	struct msghdr m = {
		.msg_name = &manager.address,
		.msg_namelen = manager.address_len,
		.msg_iov = &text,
		.msg_iovlen = 1,
	};
	FIRN_FD fd = -1;

	if (!manager.address_len)
		return;
	if (handed >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		control.header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), &handed, sizeof(handed));
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;     /* told again, or not needed */
}

void firn_notify(const char *state)
{
	tell(state, -1);
}

void firn_notify_keep_key(int fd)
{
	if (fd >= 0)
		tell("FDSTORE=1\nFDNAME=" KEY_NAME, fd);
	else
		tell("FDSTOREREMOVE=1\nFDNAME=" KEY_NAME, -1);
}

void firn_notify_reloading(void)
{
	struct timespec t;
	char state[96];

	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld",
		 (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
	firn_notify(state);
}

void firn_notify_alive(uint64_t now_ns, bool stopping)
{
	uint64_t every_ns = manager.watchdog_ns / 4;

	if (stopping && (!every_ns || every_ns > 1000000000u))
		every_ns = 1000000000u;
	if (!every_ns || (manager.told_ns && now_ns - manager.told_ns < every_ns))
		return;
	manager.told_ns = now_ns;
	firn_notify(stopping ? "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000" : "WATCHDOG=1");
}
