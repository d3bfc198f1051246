/* SPDX-License-Identifier: MIT */
/*
 * One call over the agent's socket, watching the agent itself meanwhile: the keeper keeps a dead
 * agent's sockets open.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/client.h"
#include "proto/interface.h"

#define TICK_MS 100
#define DEPTH 16 /* of JSON; a reply has five levels */

static int fail_gone(struct firn_client *c, struct firn_error *e)
{
	c->broken = true;
	return firn_client_fail(e, FIRN_NO_AGENT, "agent-gone",
				"the agent went away during the call: see with: firn list");
}

static int fail_reply(struct firn_client *c, struct firn_error *e, const char *what)
{
	c->broken = true;
	return firn_client_fail(
		e, FIRN_FAILED, "bad-reply",
		"the agent's answer is not understood (%s): use firn and firnd of one version",
		what);
}

static void report(struct firn_client *c, double start_ms, struct firn_progress *progress)
{
	if (!c->progress)
		return;
	progress->elapsed_ms = firn_client_now_ms() - start_ms;
	c->progress(c->progress_arg, progress);
}

/*
 * Wait until the socket has @events, telling of the progress.  Returns 1 when it has them, 0 when
 * the agent is dead: what it sent before is still to be read.
 */
static int wait_for(struct firn_client *c, short events, double start_ms,
		    struct firn_progress *progress)
{
	struct pollfd p[2] = {
		{ .fd = c->fd, .events = events },
		{ .fd = c->pidfd, .events = POLLIN },
	};

	for (;;) {
		int n = poll(p, 2, c->progress ? TICK_MS : -1);

		if (n > 0 && p[0].revents)
			return 1;
		if (n > 0 && p[1].revents)
			return 0;
		/* EINTR: a signal handler of the program; go on waiting. */
		report(c, start_ms, progress);
	}
}

/* Send @text with its NUL. */
static int send_text(struct firn_client *c, const char *text, double start_ms,
		     struct firn_progress *progress, struct firn_error *e)
{
	size_t left = strlen(text) + 1;

	while (left > 0) {
		ssize_t n = send(c->fd, text, left, MSG_NOSIGNAL);

		if (n >= 0) {
			text += n;
			left -= (size_t)n;
		} else if (errno == EAGAIN) {
			if (!wait_for(c, POLLOUT, start_ms, progress))
				return fail_gone(c, e);
		} else if (errno != EINTR) {
			return fail_gone(c, e);
		}
	}
	return FIRN_OK;
}

static int grow(struct firn_client *c, struct firn_error *e)
{
	size_t size = c->in.size * 2;
	char *old = c->in.buf, *bigger;

	if (size > FIRN_REPLY_MAX_BYTES)
		return fail_reply(c, e, "too long");
	bigger = malloc(size);
	if (!bigger) {
		c->broken = true;
		return firn_client_fail_memory(e);
	}
	firn_frame_in_move(&c->in, bigger, size);
	free(old);
	return FIRN_OK;
}

/* One message. */
static int receive(struct firn_client *c, double start_ms, struct firn_progress *progress,
		   char **ret, size_t *ret_len, struct firn_error *e)
{
	bool alive = true;

	for (;;) {
		char *at;
		size_t room;
		ssize_t n;
		int r = firn_frame_in_next(&c->in, ret, ret_len);

		if (r == 1)
			return FIRN_OK;
		if (r == -EMSGSIZE) {
			r = grow(c, e);
			if (r != FIRN_OK)
				return r;
		} else if (r < 0) {
			return fail_reply(c, e, "empty");
		}
		room = firn_frame_in_space(&c->in, &at);
		n = recv(c->fd, at, room, MSG_DONTWAIT);
		if (n > 0)
			firn_frame_in_commit(&c->in, (size_t)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR) ||
			 (errno == EAGAIN && !alive))
			return fail_gone(c, e);
		else if (errno == EAGAIN)
			alive = wait_for(c, POLLIN, start_ms, progress);
	}
}

static struct json_object *parse(const char *text, size_t len)
{
	struct json_tokener *tokener = json_tokener_new_ex(DEPTH);
	struct json_object *o;

	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	/* With its NUL, so that the parser sees the end. */
	o = json_tokener_parse_ex(tokener, text, (int)len + 1);
	json_tokener_free(tokener);
	if (o && !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	return o;
}

static const char *string_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

static int64_t number_of(struct json_object *o, const char *key, int64_t otherwise)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return otherwise;
	return json_object_get_int64(v);
}

/* The agent said no. */
static int fail_error(const char *name, struct json_object *parameters, struct firn_error *e)
{
	const char *message = string_of(parameters, "message");
	const char *reason = string_of(parameters, "reason");
	const char *parameter = string_of(parameters, "parameter");
	int64_t code = number_of(parameters, "code", FIRN_FAILED);

	if (strcmp(name, FIRN_ERROR_FAILED) == 0) {
		if (code <= FIRN_OK || code > FIRN_SOME_FAILED)
			code = FIRN_FAILED;
		return firn_client_fail(e, (int)code, reason ? reason : "failed", "%s",
					message ? message
						: "the agent gave no reason: look at its log");
	}
	if (strcmp(name, FIRN_ERROR_METHOD_NOT_FOUND) == 0 ||
	    strcmp(name, FIRN_ERROR_METHOD_NOT_IMPLEMENTED) == 0 ||
	    strcmp(name, FIRN_ERROR_INTERFACE_NOT_FOUND) == 0)
		return firn_client_fail(
			e, FIRN_FAILED, "agent-too-old",
			"the running agent cannot do this: restart it with this version's firnd");
	if (strcmp(name, FIRN_ERROR_INVALID_PARAMETER) == 0)
		return firn_client_fail(e, FIRN_USAGE, "invalid-parameter",
					"the agent does not take the parameter %s: "
					"use firn and firnd of one version",
					parameter ? parameter : "given");
	return firn_client_fail(e, FIRN_FAILED, "failed", "the agent answered with the error %s",
				name);
}

static char *call_text(const char *method, struct json_object *parameters, bool more)
{
	struct json_object *call = json_object_new_object();
	struct json_object *name = json_object_new_string(method);
	char *text = NULL;

	if (call && name && json_object_object_add(call, "method", name) == 0) {
		name = NULL;
		if (parameters &&
		    json_object_object_add(call, "parameters", json_object_get(parameters)) != 0)
			json_object_put(parameters);
		else if (!more ||
			 json_object_object_add(call, "more", json_object_new_boolean(1)) == 0)
			text = strdup(json_object_to_json_string_ext(
				call, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	}
	json_object_put(name);
	json_object_put(call);
	return text;
}

/* The call itself; what it asks for is to be received.  @parameters stays the caller's. */
static int send_call(struct firn_client *c, const char *method, struct json_object *parameters, bool more, double start_ms,
		     struct firn_progress *progress, struct firn_error *e)
{
	char *text;
	int r;

	if (c->broken)
		return fail_gone(c, e);
	text = call_text(method, parameters, more);
	if (!text)
		return firn_client_fail_memory(e);
	r = send_text(c, text, start_ms, progress, e);
	free(text);
	return r;
}

static void take_progress(struct json_object *parameters, struct firn_progress *progress,
			  char *phase, size_t size)
{
	struct json_object *p;
	const char *name;

	if (!json_object_object_get_ex(parameters, "progress", &p) ||
	    !json_object_is_type(p, json_type_object))
		return;
	name = string_of(p, "phase");
	snprintf(phase, size, "%s", name ? name : "");
	progress->phase = name ? phase : NULL;
	progress->pid = (pid_t)number_of(p, "pid", 0);
	progress->done = number_of(p, "done", 0);
	progress->total = number_of(p, "total", 0);
}

int firn_client_call(struct firn_client *c, const char *method, struct json_object *parameters,
		     struct json_object **ret, struct firn_error *e)
{
	struct firn_progress progress = { 0 };
	double start_ms = firn_client_now_ms();
	struct json_object *reply = NULL, *p, *v;
	char phase[32], *message;
	const char *error;
	size_t len;
	bool goes_on;
	int r;

	*ret = NULL;
	r = send_call(c, method, parameters, c->progress != NULL, start_ms, &progress, e);
	json_object_put(parameters);
	while (r == FIRN_OK) {
		r = receive(c, start_ms, &progress, &message, &len, e);
		if (r != FIRN_OK)
			break;
		reply = parse(message, len);
		if (!reply)
			return fail_reply(c, e, "no JSON object");
		if (!json_object_object_get_ex(reply, "parameters", &p) ||
		    !json_object_is_type(p, json_type_object))
			p = NULL;
		error = string_of(reply, "error");
		if (error) {
			r = fail_error(error, p, e);
			break;
		}
		goes_on = json_object_object_get_ex(reply, "continues", &v) &&
			  json_object_get_boolean(v);
		if (!goes_on) {
			*ret = p ? json_object_get(p) : json_object_new_object();
			if (!*ret)
				r = firn_client_fail_memory(e);
			break;
		}
		take_progress(p, &progress, phase, sizeof(phase));
		report(c, start_ms, &progress);
		json_object_put(reply);
		reply = NULL;
	}
	json_object_put(reply);
	return r;
}

int firn_client_follow(struct firn_client *c, const char *method,
		       bool (*each)(void *arg, struct json_object *parameters), void *arg, struct firn_error *e)
{
	struct firn_progress progress = { 0 };
	double start_ms = firn_client_now_ms();
	bool goes_on = true;
	char *message;
	size_t len;
	int r = send_call(c, method, NULL, true, start_ms, &progress, e);

	while (r == FIRN_OK && goes_on) {
		struct json_object *reply, *p;

		r = receive(c, start_ms, &progress, &message, &len, e);
		if (r != FIRN_OK)
			break;
		reply = parse(message, len);
		if (!reply)
			return fail_reply(c, e, "no JSON object");
		if (!json_object_object_get_ex(reply, "parameters", &p) || !json_object_is_type(p, json_type_object))
			p = NULL;
		if (string_of(reply, "error"))
			r = fail_error(string_of(reply, "error"), p, e);
		else
			goes_on = each(arg, p);
		json_object_put(reply);
	}
	/* More may come that nobody reads. */
	c->broken = true;
	return r;
}

FIRN_API void firn_on_progress(struct firn_client *client,
			       void (*fn)(void *arg, const struct firn_progress *progress),
			       void *arg)
{
	client->progress = fn;
	client->progress_arg = arg;
}
