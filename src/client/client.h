/* SPDX-License-Identifier: MIT */
/*
 * Inside libfirn: the connection and the call.  Nothing here is exported.
 */
#ifndef FIRN_CLIENT_CLIENT_H
#define FIRN_CLIENT_CLIENT_H

#include <json-c/json.h>

#include "base/types.h"
#include "firn/firn.h"
#include "proto/frame.h"

struct firn_client {
	int fd;                  /* the connected socket, non-blocking */
	int pidfd;               /* the agent; -1 where it is in another PID namespace */
	pid_t pid;               /* the agent, or 0 */
	int64_t move_after_s;    /* FIRN_UNKNOWN: the agent's default */
	bool broken;             /* the stream has lost its meaning: no call any more */
	struct firn_frame_in in; /* its buffer is ours */
	void (*progress)(void *arg, const struct firn_progress *progress);
	void *progress_arg;
};

/* Fill @e (may be NULL) and return @code. */
int firn_client_fail(struct firn_error *e, int code, const char *reason, const char *fmt, ...)
	FIRN_PRINTF(4, 5);

/* The same for a lack of memory. */
int firn_client_fail_memory(struct firn_error *e);

/* CLOCK_MONOTONIC in ms. */
double firn_client_now_ms(void);

/*
 * Call @method with @parameters (taken over; NULL for none) and wait for the answer.  FIRN_OK with
 * the answer's parameters in *@ret (the caller puts them); FIRN_NO_AGENT when the agent went away;
 * else the code that it sent.
 */
int firn_client_call(struct firn_client *c, const char *method, struct json_object *parameters,
		     struct json_object **ret, struct firn_error *e);

/* The same, with the answer as a result. */
int firn_client_call_result(struct firn_client *c, const char *method, struct json_object *parameters,
			    struct firn_result **ret, struct firn_error *e);

/*
 * Call @method, which answers again and again: @each(@arg, ...) with the parameters of each answer, until it says
 * false, then the client is of no use any more.  FIRN_OK then; or as firn_client_call().
 */
int firn_client_follow(struct firn_client *c, const char *method,
		       bool (*each)(void *arg, struct json_object *parameters), void *arg, struct firn_error *e);

/* Add @value, taken over, under @key.  False where memory lacks, as where @value is NULL for that. */
bool firn_client_add(struct json_object *o, const char *key, struct json_object *value);
/* An array of Selectors, or NULL. */
struct json_object *firn_client_selectors(const struct firn_selector *targets, size_t count);

/* The error that an answer holds beside its targets: its code, and @e filled; or FIRN_OK. */
int firn_client_result_error(const struct firn_result *result, struct firn_error *e);

/* Make a result of an answer's @parameters (taken over).  FIRN_OK, or FIRN_FAILED. */
int firn_client_result(struct json_object *parameters, struct firn_result **ret,
		       struct firn_error *e);

#endif
