/* SPDX-License-Identifier: MIT */
/*
 * The verbs that leave the choice to the agent, or ask about it.
 */
#include <string.h>

#include "client/client.h"
#include "proto/interface.h"

static int build_failed(struct json_object *parameters, struct firn_error *e)
{
	json_object_put(parameters);
	return firn_client_fail_memory(e);
}

static bool add_number(struct json_object *o, const char *key, int64_t v)
{
	return firn_client_add(o, key, json_object_new_int64(v));
}

static bool add_dry_run(struct json_object *o, unsigned int flags)
{
	return !(flags & FIRN_DRY_RUN) || firn_client_add(o, "dryRun", json_object_new_boolean(1));
}

FIRN_API int firn_explain(struct firn_client *client, const struct firn_selector *targets, size_t count,
			  struct firn_result **ret, struct firn_error *error)
{
	struct json_object *p = json_object_new_object();

	*ret = NULL;
	if (!p || (count && !firn_client_add(p, "targets", firn_client_selectors(targets, count))))
		return build_failed(p, error);
	return firn_client_call_result(client, FIRN_METHOD_EXPLAIN, p, ret, error);
}

FIRN_API int firn_set_priority(struct firn_client *client, const struct firn_selector *targets, size_t count,
			       int priority, unsigned int flags, struct firn_result **ret, struct firn_error *error)
{
	struct json_object *p = json_object_new_object();

	*ret = NULL;
	if (!p || !firn_client_add(p, "targets", firn_client_selectors(targets, count)) ||
	    !add_number(p, "priority", priority) || !add_dry_run(p, flags))
		return build_failed(p, error);
	return firn_client_call_result(client, FIRN_METHOD_PRIORITY, p, ret, error);
}

/* A call whose answer may hold an error beside what was done all the same. */
static int call_partly(struct firn_client *c, const char *method, struct json_object *p, struct firn_result **ret,
		       struct firn_error *e)
{
	int r = firn_client_call_result(c, method, p, ret, e);

	return r == FIRN_OK ? firn_client_result_error(*ret, e) : r;
}

FIRN_API int firn_reclaim(struct firn_client *client, uint64_t bytes, int priority, unsigned int timeout_ms,
			  unsigned int flags, struct firn_result **ret, struct firn_error *error)
{
	struct json_object *p;

	*ret = NULL;
	if (flags & ~FIRN_DRY_RUN || bytes > INT64_MAX)
		return firn_client_fail(error, FIRN_USAGE, "usage", "a size or a flag that does not fit");
	p = json_object_new_object();
	if (!p || !add_number(p, "bytes", (int64_t)bytes) || (priority >= 0 && !add_number(p, "priority", priority)) ||
	    (timeout_ms && !add_number(p, "timeout", timeout_ms)) || !add_dry_run(p, flags))
		return build_failed(p, error);
	return call_partly(client, FIRN_METHOD_RECLAIM, p, ret, error);
}

FIRN_API int firn_prepare_run(struct firn_client *client, int priority, uint64_t bytes, unsigned int timeout_ms,
			      unsigned int flags, struct firn_result **ret, struct firn_error *error)
{
	struct json_object *p;

	*ret = NULL;
	if (flags & ~FIRN_DRY_RUN || bytes > INT64_MAX)
		return firn_client_fail(error, FIRN_USAGE, "usage", "a size or a flag that does not fit");
	p = json_object_new_object();
	if (!p || (bytes && !add_number(p, "need", (int64_t)bytes)) ||
	    (priority >= 0 && !add_number(p, "priority", priority)) ||
	    (timeout_ms && !add_number(p, "timeout", timeout_ms)) || !add_dry_run(p, flags))
		return build_failed(p, error);
	return call_partly(client, FIRN_METHOD_RUN, p, ret, error);
}

FIRN_API int firn_stats(struct firn_client *client, const char *format, char **ret, struct firn_error *error)
{
	struct json_object *p = json_object_new_object(), *answer, *text;
	int r;

	*ret = NULL;
	if (!p || !firn_client_add(p, "format", json_object_new_string(format)))
		return build_failed(p, error);
	r = firn_client_call(client, FIRN_METHOD_STATS, p, &answer, error);
	if (r != FIRN_OK)
		return r;
	if (json_object_object_get_ex(answer, "text", &text) && json_object_is_type(text, json_type_string))
		*ret = strdup(json_object_get_string(text));
	json_object_put(answer);
	return *ret ? FIRN_OK : firn_client_fail_memory(error);
}

struct following {
	int (*event)(void *arg, const char *json);
	void *arg;
};

static bool follow(void *arg, struct json_object *parameters)
{
	struct following *f = arg;
	struct json_object *event;

	if (!parameters || !json_object_object_get_ex(parameters, "event", &event))
		return true;
	return f->event(f->arg, json_object_to_json_string_ext(event, JSON_C_TO_STRING_PLAIN |
							       JSON_C_TO_STRING_NOSLASHESCAPE)) != 0;
}

FIRN_API int firn_monitor(struct firn_client *client, int (*event)(void *arg, const char *json), void *arg,
			  struct firn_error *error)
{
	struct following f = { event, arg };

	return firn_client_follow(client, FIRN_METHOD_MONITOR, follow, &f, error);
}
