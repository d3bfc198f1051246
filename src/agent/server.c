/* SPDX-License-Identifier: MIT */
#include "agent/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/json.h"
#include "agent/notify.h"
#include "agent/task.h"
#include "agent/underway.h"
#include "agent/wake.h"
#include "base/fd.h"
#include "base/log.h"
#include "proto/frame.h"
#include "proto/interface.h"
#include "sys/sys.h"

#define MAX_CONNECTIONS 256u
#define USER_CONNECTIONS 64u         /* of one user that is not root */
#define UNREAD_MAX (1u << 20)        /* who has so much to read is not listened to until it was read */
#define FIRST_BUFFER 4096u
#define TICK_MS 1000

struct connection {
	struct connection *next;
	uint64_t serial;
	int fd;
	bool busy;                      /* a call of it runs as a job */
	bool mute;                      /* the call under way is a oneway call: nothing is answered */
	bool closing;
	bool monitors;                  /* is told of every event */
	struct ucred peer;
	struct firn_frame_in in;
	char *out;                      /* what waits to be sent */
	size_t out_len, out_sent, out_size;
};

struct server {
	struct firn_server_config config;
	struct firn_jobs *jobs;
	struct connection *connections;
	unsigned int nconnections;
	struct firn_underway underway;
	uint64_t serial;
	int epoll, signals;
	bool stopping;                  /* thaw all, then end */
	uint64_t idle_since;
};

enum { EV_LISTEN = 1, EV_SIGNALS, EV_JOBS, EV_CONNECTIONS };

static void watch(struct server *s, int fd, uint64_t key, uint32_t events, int op)
{
	struct epoll_event ev = { .events = events, .data.u64 = key };

	epoll_ctl(s->epoll, op, fd, &ev);
}

static void close_connection(struct server *s, struct connection *c)
{
	for (struct connection **p = &s->connections; *p; p = &(*p)->next) {
		if (*p == c) {
			*p = c->next;
			break;
		}
	}
	/* The keeper has the descriptor too: only shutdown reaches the peer. */
	shutdown(c->fd, SHUT_RDWR);
	firn_fd_close(&c->fd);
	free(c->in.buf);
	free(c->out);
	free(c);
	s->nconnections--;
}

static struct connection *find_connection(struct server *s, uint64_t serial)
{
	for (struct connection *c = s->connections; c; c = c->next)
		if (c->serial == serial)
			return c;
	return NULL;
}

static bool behind(const struct connection *c)
{
	return c->out_len - c->out_sent > UNREAD_MAX;
}

static void flush(struct server *s, struct connection *c)
{
	while (c->out_sent < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			c->closing = true;
		if (n <= 0)
			break;
		c->out_sent += (size_t)n;
	}
	if (c->out_sent == c->out_len)
		c->out_sent = c->out_len = 0;
	watch(s, c->fd, EV_CONNECTIONS + c->serial, (behind(c) ? 0 : EPOLLIN) | (c->out_len ? EPOLLOUT : 0),
	      EPOLL_CTL_MOD);
}

static void say(struct server *s, struct connection *c, struct json_object *message)
{
	size_t len;
	const char *text = json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN, &len);

	if (c->mute) {
		json_object_put(message);
		return;
	}
	/* Who is never quite done with reading needs no more room than what is unread. */
	if (c->out_len + len + 1 > c->out_size && c->out_sent) {
		memmove(c->out, c->out + c->out_sent, c->out_len - c->out_sent);
		c->out_len -= c->out_sent;
		c->out_sent = 0;
	}
	if (c->out_len + len + 1 > c->out_size) {
		size_t size = (c->out_len + len + 1) * 2;
		char *grown = size <= FIRN_REPLY_MAX_BYTES ? realloc(c->out, size) : NULL;

		if (!grown) {
			c->closing = true;
			json_object_put(message);
			return;
		}
		c->out = grown;
		c->out_size = size;
	}
	memcpy(c->out + c->out_len, text, len + 1);
	c->out_len += len + 1;
	json_object_put(message);
	flush(s, c);
}

static void reply(struct server *s, struct connection *c, struct json_object *parameters)
{
	struct json_object *m = json_object_new_object();

	json_object_object_add(m, "parameters", parameters);
	say(s, c, m);
}

static void reply_error(struct server *s, struct connection *c, const char *name, struct json_object *parameters)
{
	struct json_object *m = json_object_new_object();

	json_object_object_add(m, "error", json_object_new_string(name));
	json_object_object_add(m, "parameters", parameters);
	say(s, c, m);
}

static void reply_text_error(struct server *s, struct connection *c, const char *name, const char *key, const char *value)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, key, json_object_new_string(value));
	reply_error(s, c, name, p);
}

static void reply_failed(struct server *s, struct connection *c, int code, const char *reason, const char *message)
{
	struct firn_err e = { 0 };

	firn_err_set(&e, code, 0, reason, "%s", message);
	reply_error(s, c, FIRN_ERROR_FAILED, firn_json_trouble(&e));
}

static bool get_flag(struct json_object *o, const char *key)
{
	struct json_object *v;

	return o && json_object_object_get_ex(o, key, &v) && json_object_get_boolean(v);
}

/* May @c have one more call on a thread of its own?  False: it was answered. */
static bool may_begin(struct server *s, struct connection *c)
{
	int err = firn_underway_begin(&s->underway, c->serial, c->peer.uid);

	if (err)
		reply_failed(s, c, FIRN_EXIT_FAILED, err == -EAGAIN ? "too-many" : "no-memory", err == -EAGAIN ?
			     "as many requests of this user as may be are under way: wait until one of them has ended" :
			     "the agent has no memory for this request: try again");
	return !err;
}

static bool start_job(struct server *s, struct firn_job *job)
{
	job->jobs = s->jobs;
	if (!firn_job_start(job))
		return true;
	free(job->selects);
	free(job);
	return false;
}

static void change(struct server *s, struct connection *c, enum firn_method method, struct json_object *parameters,
		   bool more)
{
	struct json_object *targets = NULL;
	struct firn_job *job;

	if (s->stopping) {
		reply_failed(s, c, FIRN_EXIT_NO_AGENT, "stopping", "the agent is ending: try again, a new one will start");
		return;
	}
	job = calloc(1, sizeof(*job));
	if (!job)
		goto no_memory;
	job->connection = c->serial;
	job->method = method;
	job->dry_run = firn_json_dry_run(parameters);
	job->force = get_flag(parameters, "force");
	if (!firn_job_kind(job, parameters)) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "kind");
		goto out;
	}
	job->wake = get_flag(parameters, "wake");
	if (job->wake && method != FIRN_CALL_FREEZE) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "wake");
		goto out;
	}
	job->all = method == FIRN_CALL_THAW && get_flag(parameters, "all");
	job->more = more;
	job->uid = c->peer.uid;
	job->gid = c->peer.gid;
	job->client = c->peer.pid;
	if (job->all && job->uid) {
		reply_failed(s, c, FIRN_EXIT_NOT_PERMITTED, "not-permitted", "only root thaws all: name your own targets");
		goto out;
	}
	if (method != FIRN_CALL_THAW && !firn_job_place(job, parameters)) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "place");
		goto out;
	}
	if (parameters)
		json_object_object_get_ex(parameters, "targets", &targets);
	if (!job->all && (!json_object_is_type(targets, json_type_array) || !json_object_array_length(targets))) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "targets");
		goto out;
	}
	if (!job->all && json_object_array_length(targets) > FIRN_JOB_TARGETS) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "targets");
		goto out;
	}
	job->selects = job->all ? NULL : calloc(json_object_array_length(targets), sizeof(*job->selects));
	if (!job->all && !job->selects)
		goto no_memory;
	for (size_t i = 0; !job->all && i < json_object_array_length(targets); i++) {
		struct firn_err e = { 0 };

		if (!firn_json_selector(json_object_array_get_idx(targets, i), &job->selects[job->nselects++], &e))
			continue;
		if (e.code)
			reply_error(s, c, FIRN_ERROR_FAILED, firn_json_trouble(&e));
		else
			reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "targets");
		goto out;
	}
	if (!may_begin(s, c))
		goto out;
	if (!start_job(s, job))
		goto no_memory_started;
	c->busy = true;
	return;
no_memory:
	reply_failed(s, c, FIRN_EXIT_FAILED, "no-memory", "the agent has no memory for this request: try again");
out:
	if (job)
		free(job->selects);
	free(job);
	return;
no_memory_started:
	firn_underway_end(&s->underway, c->serial);
	reply_failed(s, c, FIRN_EXIT_FAILED, "no-thread", "the agent cannot start a thread: try again");
}

struct listing {
	struct connection *c;
	struct json_object *targets;
};

static void list_one(void *arg, const struct firn_report *r)
{
	struct listing *l = arg;

	if (!l->c->peer.uid || (r->pid && !firn_engine_may_trace(l->c->peer.uid, l->c->peer.gid, r->pid)))
		json_object_array_add(l->targets, firn_json_report(r));
}

static void list(struct server *s, struct connection *c)
{
	struct listing l = { c, json_object_new_array() };
	struct json_object *p = json_object_new_object();
	uint64_t kept;

	firn_engine_each(s->config.engine, list_one, &l);
	json_object_object_add(p, "targets", l.targets);
	json_object_object_add(p, "ramBytes", json_object_new_int64((int64_t)firn_engine_ram_bytes(s->config.engine)));
	firn_engine_kept(s->config.engine, &kept);
	json_object_object_add(p, "keptBytes", json_object_new_int64((int64_t)kept));
	reply(s, c, p);
}

static void show(struct server *s, struct connection *c, struct json_object *parameters)
{
	pid_t pid = parameters ? firn_json_pid(parameters, "pid") : 0;
	struct json_object *targets, *p;
	struct firn_report r;
	char message[128];

	if (!pid) {
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "pid");
		return;
	}
	if (firn_engine_may_trace(c->peer.uid, c->peer.gid, pid) == -EPERM) {
		snprintf(message, sizeof(message), "process %d is not yours: run firn as root, or as the process's user", pid);
		reply_failed(s, c, FIRN_EXIT_NOT_PERMITTED, "not-permitted", message);
		return;
	}
	if (firn_engine_show(s->config.engine, pid, &r) && firn_engine_show_woken(s->config.engine, pid, &r)) {
		snprintf(message, sizeof(message), "process %d is neither frozen nor evicted: see firn list", pid);
		reply_failed(s, c, FIRN_EXIT_NOT_FOUND, "not-frozen", message);
		return;
	}
	targets = json_object_new_array();
	json_object_array_add(targets, firn_json_report(&r));
	p = json_object_new_object();
	json_object_object_add(p, "targets", targets);
	reply(s, c, p);
}

static void ping(struct server *s, struct connection *c)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, "pid", json_object_new_int(getpid()));
	json_object_object_add(p, "version", json_object_new_string(FIRN_VERSION));
	json_object_object_add(p, "keeper", json_object_new_int(s->config.keeper->pid));
	reply(s, c, p);
}

static void get_info(struct server *s, struct connection *c)
{
	struct json_object *p = json_object_new_object(), *interfaces = json_object_new_array();

	json_object_object_add(p, "vendor", json_object_new_string("The Firn authors"));
	json_object_object_add(p, "product", json_object_new_string("Firn"));
	json_object_object_add(p, "version", json_object_new_string(FIRN_VERSION));
	json_object_object_add(p, "url", json_object_new_string(""));
	json_object_array_add(interfaces, json_object_new_string(FIRN_INTERFACE_SERVICE));
	json_object_array_add(interfaces, json_object_new_string(FIRN_INTERFACE));
	json_object_object_add(p, "interfaces", interfaces);
	reply(s, c, p);
}

static void get_description(struct server *s, struct connection *c, struct json_object *parameters)
{
	struct json_object *name = NULL, *p;
	const char *asked = "", *text;

	if (parameters && json_object_object_get_ex(parameters, "interface", &name) &&
	    json_object_is_type(name, json_type_string))
		asked = json_object_get_string(name);
	text = firn_interface_description(asked);
	if (!text) {
		reply_text_error(s, c, FIRN_ERROR_INTERFACE_NOT_FOUND, "interface", asked);
		return;
	}
	p = json_object_new_object();
	json_object_object_add(p, "description", json_object_new_string(text));
	reply(s, c, p);
}

static void start_task(struct server *s, struct connection *c, enum firn_method method, struct json_object *parameters,
		       bool more)
{
	struct firn_task task = {
		.jobs = s->jobs,
		.control = s->config.control,
		.metrics = s->config.metrics,
		.connection = c->serial,
		.method = method,
		.parameters = parameters,
		.peer = c->peer,
		.more = more,
	};

	if (s->stopping) {
		reply_failed(s, c, FIRN_EXIT_NO_AGENT, "stopping", "the agent is ending: try again, a new one will start");
		return;
	}
	if (!may_begin(s, c))
		return;
	json_object_get(parameters);
	if (firn_task_start(&task)) {
		json_object_put(parameters);
		firn_underway_end(&s->underway, c->serial);
		reply_failed(s, c, FIRN_EXIT_FAILED, "no-thread", "the agent cannot start a thread: try again");
		return;
	}
	c->busy = true;
}

/* The connection is told of events until it is closed; what else it calls is not answered. */
static void monitor(struct server *s, struct connection *c, bool more)
{
	if (c->peer.uid)
		reply_failed(s, c, FIRN_EXIT_NOT_PERMITTED, "not-permitted", "only root monitors the agent");
	else if (!more)
		reply_text_error(s, c, FIRN_ERROR_INVALID_PARAMETER, "parameter", "more");
	else
		c->busy = c->monitors = true;
}

/* Everything comes back, then the agent ends.  @connection: who is told; 0: nobody. */
static void begin_stop(struct server *s, uint64_t connection)
{
	struct firn_job *job;

	if (s->stopping)
		return;
	s->stopping = true;
	s->jobs->ending = true;
	firn_notify("STOPPING=1");
	job = calloc(1, sizeof(*job));
	if (!job)
		return;
	job->connection = connection;
	job->method = FIRN_CALL_THAW;
	job->all = job->settle = true;
	start_job(s, job);
}

/* End as soon as no job runs; the next agent takes over what is out. */
static void leave(struct server *s)
{
	s->stopping = true;
	firn_notify("STOPPING=1");
}

static void reload(struct server *s)
{
	struct firn_config *old;

	firn_notify_reloading();
	old = firn_live_reload(s->config.live);
	if (old)
		firn_control_reload(s->config.control, s->config.live->config);
	firn_config_free(old);
	firn_notify("READY=1");
}

static void take_signal(struct server *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) > 0) {
		if (info.ssi_signo == SIGHUP)
			reload(s);
		else if (s->config.live->config->stop_leaves)
			leave(s);
		else
			begin_stop(s, 0);
	}
}

static void call(struct server *s, struct connection *c, const char *text, size_t len)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *m = tokener ? json_tokener_parse_ex(tokener, text, (int)len) : NULL;
	struct json_object *name = NULL, *parameters = NULL;

	if (tokener)
		json_tokener_free(tokener);
	if (!json_object_is_type(m, json_type_object) || !json_object_object_get_ex(m, "method", &name) ||
	    !json_object_is_type(name, json_type_string)) {
		c->closing = true;      /* not Varlink: there is no way to answer */
		json_object_put(m);
		return;
	}
	if (json_object_object_get_ex(m, "parameters", &parameters) &&
	    !json_object_is_type(parameters, json_type_object))
		parameters = NULL;
	c->mute = get_flag(m, "oneway");
	switch (firn_method_find(json_object_get_string(name))) {
	case FIRN_CALL_FREEZE:
	case FIRN_CALL_EVICT:
	case FIRN_CALL_THAW:
		change(s, c, firn_method_find(json_object_get_string(name)), parameters, get_flag(m, "more"));
		break;
	case FIRN_CALL_LIST:
		list(s, c);
		break;
	case FIRN_CALL_SHOW:
		show(s, c, parameters);
		break;
	case FIRN_CALL_EXPLAIN:
	case FIRN_CALL_RECLAIM:
	case FIRN_CALL_PRIORITY:
	case FIRN_CALL_RUN:
	case FIRN_CALL_STATS:
		start_task(s, c, firn_method_find(json_object_get_string(name)), parameters, get_flag(m, "more"));
		break;
	case FIRN_CALL_MONITOR:
		monitor(s, c, get_flag(m, "more"));
		break;
	case FIRN_CALL_PING:
		ping(s, c);
		break;
	case FIRN_CALL_STOP:
		if (c->peer.uid) {
			reply_failed(s, c, FIRN_EXIT_NOT_PERMITTED, "not-permitted", "only root stops the agent");
		} else {
			c->busy = true;
			begin_stop(s, c->serial);
		}
		break;
	case FIRN_CALL_GET_INFO:
		get_info(s, c);
		break;
	case FIRN_CALL_GET_DESCRIPTION:
		get_description(s, c, parameters);
		break;
	case FIRN_CALL_UNKNOWN:
		reply_text_error(s, c, FIRN_ERROR_METHOD_NOT_FOUND, "method", json_object_get_string(name));
		break;
	}
	if (!c->busy)
		c->mute = false;
	json_object_put(m);
}

/* Calls of one connection are answered in their order: the next waits for the running one. */
static void take_calls(struct server *s, struct connection *c)
{
	char *text;
	size_t len;
	int r;

	while (!c->busy && !c->closing && !behind(c) && (r = firn_frame_in_next(&c->in, &text, &len)) != 0) {
		if (r == -EMSGSIZE)
			return;         /* no end of it yet, and the buffer is full: receive() makes a larger one */
		if (r < 0) {
			c->closing = true;
			return;
		}
		call(s, c, text, len);
	}
}

static void receive(struct server *s, struct connection *c)
{
	while (!behind(c)) {
		char *space;
		size_t room = firn_frame_in_space(&c->in, &space);
		ssize_t n;

		if (!room) {
			size_t size = c->in.size * 2;
			char *old = c->in.buf, *grown;

			grown = size <= FIRN_CALL_MAX_BYTES ? malloc(size) : NULL;   /* a peer that sends more is cut off */
			if (!grown || firn_frame_in_move(&c->in, grown, size)) {
				free(grown);
				c->closing = true;
				return;
			}
			free(old);
			continue;
		}
		n = recv(c->fd, space, room, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			c->closing = true;
			return;
		}
		firn_frame_in_commit(&c->in, (size_t)n);
		take_calls(s, c);
		if (c->closing)
			return;
	}
}

/* Root can always speak with the agent, whatever a user does. */
static bool too_many_of(const struct server *s, uid_t uid)
{
	unsigned int n = 0;

	for (const struct connection *c = s->connections; uid && c; c = c->next)
		n += c->peer.uid == uid;
	return n >= USER_CONNECTIONS;
}

static void accept_one(struct server *s)
{
	socklen_t len = sizeof(struct ucred);
	struct connection *c;
	char *buf;
	int fd = accept4(s->config.listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	c = s->nconnections < MAX_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
	buf = c ? malloc(FIRST_BUFFER) : NULL;
	if (!buf || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &len) || too_many_of(s, c->peer.uid)) {
		shutdown(fd, SHUT_RDWR);
		close(fd);
		free(buf);
		free(c);
		return;
	}
	c->fd = fd;
	c->serial = ++s->serial;
	firn_frame_in_init(&c->in, buf, FIRST_BUFFER);
	c->next = s->connections;
	s->connections = c;
	s->nconnections++;
	watch(s, fd, EV_CONNECTIONS + c->serial, EPOLLIN, EPOLL_CTL_ADD);
}

static void tell_monitors(struct server *s, struct json_object *message)
{
	struct connection *next;

	for (struct connection *c = s->connections; c; c = next) {
		next = c->next;
		if (!c->monitors)
			continue;
		say(s, c, json_object_get(message));
		if (c->closing)
			close_connection(s, c);
	}
}

static void deliver(struct server *s)
{
	struct firn_outgoing *o;
	uint64_t count;

	if (read(s->jobs->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	while ((o = firn_jobs_take(s->jobs))) {
		struct connection *c = find_connection(s, o->connection);

		if (o->final)
			firn_underway_end(&s->underway, o->connection);
		if (o->connection == FIRN_TO_MONITORS) {
			tell_monitors(s, o->message);
			json_object_put(o->message);
		} else if (c) {
			say(s, c, o->message);
			if (o->final) {
				c->busy = c->mute = false;
				take_calls(s, c);
			}
			if (c->closing)
				close_connection(s, c);
		} else {
			json_object_put(o->message);
		}
		free(o);
	}
}

static bool may_end(struct server *s, unsigned int targets)
{
	uint64_t now = firn_sys.clock_ns(), kept;
	int idle_s;

	pthread_mutex_lock(&s->jobs->lock);
	if (s->jobs->running || s->jobs->first)
		s->idle_since = now;
	pthread_mutex_unlock(&s->jobs->lock);
	if (s->idle_since != now && s->stopping)
		return true;
	if (targets || s->nconnections)
		s->idle_since = now;
	/* With the agent goes the key of the packs that it keeps. */
	idle_s = firn_engine_kept(s->config.engine, &kept) ? s->config.kept_exit_s : s->config.idle_exit_s;
	return idle_s && now - s->idle_since > (uint64_t)idle_s * 1000000000u;
}

int firn_server_run(const struct firn_server_config *config)
{
	struct server s = { .config = *config, .jobs = config->jobs };
	sigset_t set;
	int err;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s.signals < 0 || s.epoll < 0)
		return -errno;
	watch(&s, config->listening, EV_LISTEN, EPOLLIN, EPOLL_CTL_ADD);
	watch(&s, s.signals, EV_SIGNALS, EPOLLIN, EPOLL_CTL_ADD);
	watch(&s, s.jobs->wake, EV_JOBS, EPOLLIN, EPOLL_CTL_ADD);
	firn_wake_open(s.jobs);
	s.idle_since = firn_sys.clock_ns();
	for (;;) {
		struct epoll_event ev[16];
		int n = epoll_wait(s.epoll, ev, ARRAY_SIZE(ev), TICK_MS);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct connection *c;

			switch (ev[i].data.u64) {
			case EV_LISTEN:
				accept_one(&s);
				continue;
			case EV_SIGNALS:
				take_signal(&s);
				continue;
			case EV_JOBS:
				deliver(&s);
				continue;
			}
			c = find_connection(&s, ev[i].data.u64 - EV_CONNECTIONS);
			if (!c)
				continue;
			if (ev[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
				flush(&s, c);
				take_calls(&s, c);
			}
			if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				receive(&s, c);
			if (c->closing)
				close_connection(&s, c);
		}
		if (firn_keeper_replace(config->keeper)) {
			firn_engine_set_keeper(config->engine, config->keeper->pid);
			firn_control_set_keeper(config->control, config->keeper->pid);
			err = firn_keeper_settle(config->keeper, config->runtime_dir);
			firn_log("the keeper ended: process %d takes its place%s%s", config->keeper->pid,
				 err ? "; its file cannot be written: " : "", err ? strerror(-err) : "");
		}
		firn_notify_alive(firn_sys.clock_ns(), s.stopping);
		firn_engine_move_packs(config->engine);
		firn_engine_watch(config->engine, 0);
		if (may_end(&s, firn_engine_reap(config->engine)))
			break;
	}
	firn_engine_wake_end(config->engine);
	while (s.connections)
		close_connection(&s, s.connections);
	firn_underway_clear(&s.underway);
	return 0;
}
