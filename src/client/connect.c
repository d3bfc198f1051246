/* SPDX-License-Identifier: MIT */
/*
 * Finding, starting and connecting to the agent.
 *
 * The keeper shares the agent's descriptors, so a socket that listens, or is connected, says
 * nothing about the agent's life: only the process itself does.  It is known by agent.pid (PID and
 * start time), and watched through a pidfd.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "client/client.h"

#define BUSY_WAIT_MS 5000.0    /* an agent that is alive but takes no connection */
#define START_WAIT_MS 120000.0 /* a starting agent may have much to recover */
#define FIRST_BUFFER_BYTES (64u << 10)

extern char **environ;

int firn_client_fail(struct firn_error *e, int code, const char *reason, const char *fmt, ...)
{
	va_list ap;

	if (e) {
		e->code = code;
		snprintf(e->reason, sizeof(e->reason), "%s", reason);
		va_start(ap, fmt);
		vsnprintf(e->message, sizeof(e->message), fmt, ap);
		va_end(ap);
	}
	return code;
}

int firn_client_fail_memory(struct firn_error *e)
{
	return firn_client_fail(e, FIRN_FAILED, "no-memory",
				"out of memory: free some and try again");
}

double firn_client_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void pause_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

static int open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool pidfd_is_dead(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* A small file as a string.  Returns 0, or negative errno. */
static int read_text(const char *path, char *buf, size_t size)
{
	FIRN_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

/* Field 22 of /proc/PID/stat, 0 where it cannot be read (hidepid); *@ret_zombie where it only waits
 * to be reaped. */
static unsigned long long start_time(pid_t pid, bool *ret_zombie)
{
	char path[64], text[1024], *p;
	char state;
	unsigned long long start;

	*ret_zombie = false;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (read_text(path, text, sizeof(text)) < 0)
		return 0;
	/* The name in parentheses may hold anything. */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s"
			 " %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
			 &state, &start) != 2)
		return 0;
	*ret_zombie = state == 'Z' || state == 'X';
	return start;
}

/* The process that @dir/@name tells of, 0 where it is dead or none is told of. */
static pid_t living(const char *dir, const char *name)
{
	char path[PATH_MAX], text[64];
	FIRN_FD pidfd = -1;
	int pid;
	unsigned long long told, start;
	bool zombie;

	if (firn_path_join(path, sizeof(path), dir, name) < 0 ||
	    read_text(path, text, sizeof(text)) < 0 || sscanf(text, "%d %llu", &pid, &told) != 2 ||
	    pid <= 0)
		return 0;
	pidfd = open_pidfd(pid);
	if (pidfd < 0 || pidfd_is_dead(pidfd))
		return 0;
	start = start_time(pid, &zombie);
	if (zombie || (start && start != told))
		return 0;
	return pid;
}

/* Packs in the store?  Where we may not look: perhaps. */
static bool store_may_hold_packs(void)
{
	char state[PATH_MAX], store[PATH_MAX];
	struct dirent *d;
	bool found = false;
	DIR *dir;

	if (firn_state_dir(state, sizeof(state)) < 0 ||
	    firn_path_join(store, sizeof(store), state, FIRN_STORE_DIR) < 0)
		return true;
	dir = opendir(store);
	if (!dir)
		return errno != ENOENT;
	while (!found && (d = readdir(dir))) {
		size_t n = strlen(d->d_name);

		found = n > 5 && strcmp(d->d_name + n - 5, ".pack") == 0;
	}
	closedir(dir);
	return found;
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool take_program(const char *candidate, char *path, size_t size)
{
	char *real;
	bool fits;

	if (!is_program(candidate))
		return false;
	real = realpath(candidate, NULL);
	if (!real)
		return false;
	fits = strlen(real) < size;
	if (fits)
		strcpy(path, real);
	free(real);
	return fits;
}

FIRN_API int firn_find_agent(char *path, size_t size, struct firn_error *error)
{
	static const char *const beside[] = { "firnd", "../sbin/firnd", "../libexec/firn/firnd" };
	char here[PATH_MAX], candidate[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);
	const char *p = getenv("PATH");
	char *slash;

	if (n > 0) {
		here[n] = '\0';
		slash = strrchr(here, '/');
		if (slash) {
			*slash = '\0';
			for (size_t i = 0; i < ARRAY_SIZE(beside); i++) {
				if (firn_path_join(candidate, sizeof(candidate), here, beside[i]) ==
					    0 &&
				    take_program(candidate, path, size))
					return FIRN_OK;
			}
		}
	}
	while (p && *p) {
		size_t len = strcspn(p, ":");

		/* A relative entry would depend on where the caller stands: no place for a root
		 * daemon. */
		if (*p == '/' &&
		    (size_t)snprintf(candidate, sizeof(candidate), "%.*s/firnd", (int)len, p) <
			    sizeof(candidate) &&
		    take_program(candidate, path, size))
			return FIRN_OK;
		p += len + (p[len] == ':');
	}
	return firn_client_fail(error, FIRN_NO_AGENT, "no-firnd",
				"firnd is neither beside this program nor in PATH: install it");
}

/* No agent: say whether it matters, and what to do. */
static int fail_no_agent(const char *dir, struct firn_error *e)
{
	bool died = living(dir, FIRN_KEEPER_PID_NAME) && store_may_hold_packs();
	const char *what =
		died ? "the agent died and targets may wait for the next one" : "no agent runs";
	const char *reason = died ? "agent-died" : "no-agent";
	char firnd[PATH_MAX];

	if (firn_find_agent(firnd, sizeof(firnd), NULL) != FIRN_OK)
		return firn_client_fail(e, FIRN_NO_AGENT, reason,
					"%s: install firnd, then start it as root", what);
	return firn_client_fail(e, FIRN_NO_AGENT, reason, "%s: start one as root with: sudo %s",
				what, firnd);
}

enum attempt {
	CONNECTED,
	NOBODY, /* no agent lives */
	WAKING, /* none lives, but one was asked for */
	BUSY,   /* one lives, but does not take us now: try again */
	ERROR,  /* *e is filled */
};

static enum attempt attempt(const char *dir, struct firn_client *c, struct firn_error *e)
{
	FIRN_FD fd = -1;
	FIRN_FD pidfd = -1;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t length = sizeof(peer);
	pid_t agent;
	bool nobody;

	if (firn_path_join(address.sun_path, sizeof(address.sun_path), dir, FIRN_SOCKET_NAME) < 0) {
		firn_client_fail(e, FIRN_USAGE, "path-too-long",
				 "%s: too long for a socket: shorten FIRN_RUNTIME_DIR", dir);
		return ERROR;
	}
	agent = living(dir, FIRN_AGENT_PID_NAME);
	nobody = !agent && access(dir, X_OK) == 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		firn_client_fail(e, FIRN_FAILED, "socket", "cannot make a socket: %s",
				 strerror(errno));
		return ERROR;
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (nobody)
			return NOBODY;
		if (errno == ENOENT || errno == ENOTDIR)
			return agent ? BUSY : NOBODY;
		if (errno == EAGAIN || errno == ECONNREFUSED)
			return BUSY;
		firn_client_fail(
			e, errno == EACCES || errno == EPERM ? FIRN_NOT_PERMITTED : FIRN_NO_AGENT,
			"connect", "cannot connect to %s: %s", address.sun_path, strerror(errno));
		return ERROR;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		firn_client_fail(e, FIRN_NO_AGENT, "connect", "cannot tell who serves %s: %s",
				 address.sun_path, strerror(errno));
		return ERROR;
	}
	if (peer.uid != 0 && peer.uid != geteuid()) {
		firn_client_fail(e, FIRN_NOT_PERMITTED, "foreign-agent",
				 "%s belongs to user %u and not to root: remove it",
				 address.sun_path, (unsigned int)peer.uid);
		return ERROR;
	}
	/* PID 0: the agent is outside our PID namespace and cannot be watched. */
	if (peer.pid > 0) {
		/* Who made it is the agent; or a service manager, which hands it to each agent in turn, and
		 * starts one where none lives.  Or it was an earlier agent: the keeper keeps its socket open. */
		pidfd = open_pidfd(peer.pid);
		if (pidfd < 0 || pidfd_is_dead(pidfd))
			return agent && peer.pid != agent ? BUSY : NOBODY;
		if (nobody)
			return WAKING;
		if (agent && peer.pid != agent) {
			firn_fd_close(&pidfd);
			pidfd = open_pidfd(agent);
			if (pidfd < 0 || pidfd_is_dead(pidfd))
				return BUSY;
		}
	}
	c->pid = peer.pid > 0 && agent ? agent : peer.pid;
	c->fd = firn_fd_steal(&fd);
	c->pidfd = firn_fd_steal(&pidfd);
	return CONNECTED;
}

/* Read what is in @fd now; what no longer fits @text is let go. */
static void drain(int fd, char *text, size_t size, size_t *used)
{
	char sink[256];
	ssize_t n;

	for (;;) {
		bool full = *used == size - 1;

		n = full ? read(fd, sink, sizeof(sink)) : read(fd, text + *used, size - 1 - *used);
		if (n <= 0)
			return;
		if (!full)
			*used += (size_t)n;
	}
}

/* Run firnd; it returns when its agent accepts connections. */
static int start_agent(struct firn_error *e)
{
	char path[PATH_MAX], text[512] = "";
	char *argv[] = { path, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	FIRN_FD err_read = -1;
	FIRN_FD err_write = -1;
	FIRN_FD pidfd = -1;
	int p[2];
	double deadline = firn_client_now_ms() + START_WAIT_MS;
	size_t used = 0;
	pid_t pid, waited;
	char *line;
	int r, status = 0;

	r = firn_find_agent(path, sizeof(path), e);
	if (r != FIRN_OK)
		return r;
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return firn_client_fail(e, FIRN_FAILED, "pipe", "cannot make a pipe: %s",
					strerror(errno));
	err_read = p[0];
	err_write = p[1];
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGCHLD);
	sigaddset(&defaults, SIGHUP);
	sigaddset(&defaults, SIGINT);
	sigaddset(&defaults, SIGTERM);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&actions, err_write, 2);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	/* A session of its own: Ctrl-C is for the client, and others may use the agent by then. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	r = posix_spawn(&pid, path, &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return firn_client_fail(e, FIRN_NO_AGENT, "start", "cannot run %s: %s", path,
					strerror(r));
	pidfd = open_pidfd(pid);
	firn_fd_close(&err_write);
	for (;;) {
		waited = waitpid(pid, &status, WNOHANG);
		if (waited != 0 && !(waited < 0 && errno == EINTR))
			break;
		if (firn_client_now_ms() >= deadline)
			return firn_client_fail(
				e, FIRN_NO_AGENT, "start-slow",
				"firnd (PID %d) is not ready after %.0f s: see its log", (int)pid,
				START_WAIT_MS / 1e3);
		/* The pipe's end is no sign: the agent may keep it open. */
		poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, pidfd < 0 ? 20 : 200);
		drain(err_read, text, sizeof(text), &used);
	}
	drain(err_read, text, sizeof(text), &used);
	text[used] = '\0';
	/* Somebody else reaped it: the next attempt to connect will tell. */
	if (waited < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
		return FIRN_OK;
	text[strcspn(text, "\n")] = '\0';
	line = strncmp(text, "firnd: ", 7) == 0 ? text + 7 : text;
	if (WIFSIGNALED(status))
		return firn_client_fail(e, FIRN_NO_AGENT, "start",
					"firnd was ended by signal %d: run %s --foreground",
					WTERMSIG(status), path);
	r = WEXITSTATUS(status);
	if (r > FIRN_SOME_FAILED || r == FIRN_USAGE)
		r = FIRN_NO_AGENT;
	if (!*line)
		return firn_client_fail(e, r, "start", "firnd exited with %d: run %s --foreground",
					WEXITSTATUS(status), path);
	return firn_client_fail(e, r, "start", "%s", line);
}

FIRN_API int firn_connect(struct firn_client **ret, unsigned int flags, struct firn_error *error)
{
	char dir[PATH_MAX];
	bool started = false;
	double deadline = firn_client_now_ms() + BUSY_WAIT_MS;
	struct firn_client *c;
	char *buffer;

	*ret = NULL;
	if (firn_runtime_dir(dir, sizeof(dir)) < 0)
		return firn_client_fail(error, FIRN_USAGE, "path-too-long",
					"FIRN_RUNTIME_DIR is too long: shorten it");
	c = calloc(1, sizeof(*c));
	buffer = malloc(FIRST_BUFFER_BYTES);
	if (!c || !buffer) {
		free(c);
		free(buffer);
		return firn_client_fail_memory(error);
	}
	firn_frame_in_init(&c->in, buffer, FIRST_BUFFER_BYTES);
	c->fd = c->pidfd = -1;
	c->move_after_s = FIRN_UNKNOWN;
	for (;;) {
		int r = FIRN_OK;

		switch (attempt(dir, c, error)) {
		case CONNECTED:
			*ret = c;
			return FIRN_OK;
		case BUSY:
			if (firn_client_now_ms() < deadline) {
				pause_ms(20);
				continue;
			}
			r = firn_client_fail(error, FIRN_NO_AGENT, "agent-busy",
					     "the agent takes no connection: look at its log in %s",
					     dir);
			break;
		case WAKING:
			/* Once is enough: what we sent waits for it. */
			while (!living(dir, FIRN_AGENT_PID_NAME) && firn_client_now_ms() < deadline)
				pause_ms(20);
			if (firn_client_now_ms() < deadline)
				continue;
			r = firn_client_fail(error, FIRN_NO_AGENT, "agent-busy",
					     "%s is listened to, and no agent starts: systemctl status firnd, or remove it",
					     dir);
			break;
		case NOBODY:
			if (started || !(flags & FIRN_CONNECT_START) || geteuid() != 0)
				r = fail_no_agent(dir, error);
			else
				r = start_agent(error);
			started = true;
			deadline = firn_client_now_ms() + BUSY_WAIT_MS;
			break;
		case ERROR:
			r = error ? error->code : FIRN_NO_AGENT;
			break;
		}
		if (r != FIRN_OK) {
			firn_close(c);
			return r;
		}
	}
}

FIRN_API void firn_close(struct firn_client *client)
{
	if (!client)
		return;
	firn_fd_close(&client->fd);
	firn_fd_close(&client->pidfd);
	free(client->in.buf);
	free(client);
}

FIRN_API pid_t firn_agent_pid(const struct firn_client *client)
{
	return client->pid;
}
