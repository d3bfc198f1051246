/* SPDX-License-Identifier: MIT */
/*
 * Ways by which the kernel writes into memory of a program: pipes, UDP, and datagrams of AF_UNIX.
 * The program that includes this defines CHECK before.
 */
#ifndef FIRN_TESTS_MALLOC_LINKS_H
#define FIRN_TESTS_MALLOC_LINKS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

struct link {
	const char *name;
	int request[2];         /* [0] to read from, [1] to write to */
	int answer[2];
	bool own_epoll;         /* wait in epoll_wait before each read */
};

static void pipe_pair(int pair[2])
{
	CHECK(pipe(pair) == 0);
}

/* A timeout makes an interrupted read return EINTR, whatever handler there is. */
static void time_out(int fd)
{
	struct timeval t = { 20, 0 };

	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0);
}

static void udp_pair(int pair[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	pair[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	pair[1] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(pair[0] >= 0 && pair[1] >= 0);
	CHECK(bind(pair[0], (struct sockaddr *)&a, sizeof(a)) == 0);
	CHECK(getsockname(pair[0], (struct sockaddr *)&a, &len) == 0);
	CHECK(connect(pair[1], (struct sockaddr *)&a, sizeof(a)) == 0);
	time_out(pair[0]);
}

static void unix_pair(int pair[2])
{
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
	time_out(pair[0]);
}

static void link_open(struct link *l, const char *name, void (*pair)(int *))
{
	l->name = name;
	pair(l->request);
	pair(l->answer);
}

#endif
