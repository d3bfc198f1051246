/* SPDX-License-Identifier: MIT */
/*
 * The verbs, and the agent's answers as structs.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "proto/interface.h"

#define FREEZE_FLAGS (EVICT_FLAGS | FIRN_WAKE)
#define EVICT_FLAGS (FIRN_DRY_RUN | FIRN_IN_RAM | FIRN_MOVE | FIRN_COPIED | FIRN_DIRECT | FIRN_FORCE)

/* The strings of a target point into the JSON. */
struct firn_result {
	struct json_object *json;
	char *text;
	size_t count;
	struct firn_target targets[];
};

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v;

	if (!o || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, type))
		return NULL;
	return v;
}

static const char *get_string(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_string);

	return v ? json_object_get_string(v) : NULL;
}

static int64_t get_number(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_int);

	if (v)
		return json_object_get_int64(v);
	return FIRN_UNKNOWN;
}

static double get_real(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_double);

	if (!v)
		v = member(o, key, json_type_int);
	return v ? json_object_get_double(v) : FIRN_UNKNOWN;
}

static void fill(struct firn_target *t, struct json_object *o)
{
	struct json_object *pages = member(o, "pages", json_type_object);
	struct json_object *pack = member(o, "pack", json_type_object);
	struct json_object *io = member(o, "io", json_type_object);
	struct json_object *memory = member(o, "memory", json_type_object);
	struct json_object *ms = member(o, "ms", json_type_object);
	struct json_object *error = member(o, "error", json_type_object);
	struct json_object *policy = member(o, "policy", json_type_object);
	struct json_object *refused = member(o, "refused", json_type_object);
	struct json_object *group = member(o, "group", json_type_object);
	struct json_object *wake, *v;
	int64_t code;

	t->id = get_string(o, "id");
	t->pid = (pid_t)get_number(o, "pid");
	t->comm = get_string(o, "comm");
	t->state = get_string(o, "state");
	t->kind = get_string(o, "kind");
	t->since_ms = get_number(o, "since");

	t->pages.total = get_number(pages, "total");
	t->pages.evicted = get_number(pages, "evicted");
	t->pages.zero = get_number(pages, "zero");
	t->pages.filled = get_number(pages, "filled");
	t->pages.resident = get_number(pages, "resident");
	t->pages.removed = get_number(pages, "removed");
	t->pages.lost = get_number(pages, "lost");

	t->pack.path = get_string(pack, "path");
	t->place = get_string(pack, "place");
	t->reused_bytes = get_number(pack, "reused");
	t->base_bytes = get_number(pack, "baseBytes");
	t->pack.cipher = get_string(pack, "cipher");
	t->pack.codec = get_string(pack, "codec");
	t->pack.bytes = get_number(pack, "bytes");
	t->pack.blocks = get_number(pack, "blocks");
	t->pack.raw = get_number(pack, "raw");
	t->pack.duplicates = get_number(pack, "duplicates");
	t->pack.generation = get_number(pack, "generation");

	t->io.write_calls = get_number(io, "writeCalls");
	t->io.write_bytes = get_number(io, "writeBytes");
	t->io.read_calls = get_number(io, "readCalls");
	t->io.read_bytes = get_number(io, "readBytes");
	t->io.blocks_read = get_number(io, "blocksRead");
	t->io.faults = get_number(io, "faults");

	t->memory.before = get_number(memory, "before");
	t->memory.after = get_number(memory, "after");
	t->ratio = get_real(o, "ratio");

	t->ms.plan = get_real(ms, "plan");
	t->ms.stop = get_real(ms, "stop");
	t->ms.walk = get_real(ms, "walk");
	t->ms.gather = get_real(ms, "gather");
	t->ms.write = get_real(ms, "write");
	t->ms.arm = get_real(ms, "arm");
	t->ms.drop = get_real(ms, "drop");
	t->ms.leave = get_real(ms, "leave");
	t->ms.total = get_real(ms, "total");
	t->ms.run = get_real(ms, "run");
	t->ms.whole = get_real(ms, "whole");

	t->policy.uid = get_number(policy, "uid");
	t->policy.priority = get_number(policy, "priority");
	t->policy.place = get_number(policy, "place");
	t->policy.gain = get_number(policy, "gain");
	t->policy.cost = get_number(policy, "cost");
	t->policy.private_bytes = get_number(policy, "private");
	t->policy.shared_bytes = get_number(policy, "shared");
	t->policy.out_bytes = get_number(policy, "out");
	t->policy.written_today = get_number(policy, "writtenToday");
	t->policy.idle_ms = get_number(policy, "idleMs");
	t->policy.awake_ms = get_number(policy, "awakeMs");
	t->policy.cpu_permille = get_number(policy, "cpuPermille");
	t->policy.faults_per_s = get_number(policy, "faultsPerSecond");
	t->policy.wakeups_per_minute = get_number(policy, "wakeupsPerMinute");
	t->policy.rule = get_string(policy, "rule");
	t->policy.action = get_string(policy, "action");
	t->policy.reason = get_string(policy, "reason");
	t->policy.text = policy ? get_string(policy, "text") : get_string(o, "why");
	t->policy.refused = get_string(refused, "message");
	t->group.id = get_number(group, "id");
	t->group.selector = get_string(group, "selector");
	wake = member(o, "wake", json_type_object);
	v = wake ? member(wake, "watching", json_type_boolean) : NULL;
	t->wake.on_use = v != NULL;
	t->wake.watching = v && json_object_get_boolean(v);
	t->wake.descriptors = get_number(wake, "descriptors");
	t->wake.left_out = get_number(wake, "leftOut");
	t->wake.hidden = get_number(wake, "hidden");
	t->wake.due_ms = get_number(wake, "due");
	wake = member(o, "woken", json_type_object);
	t->woken.by = get_string(wake, "by");
	t->woken.local = get_string(wake, "local");
	t->woken.peer = get_string(wake, "peer");
	t->woken.at_ms = get_number(wake, "at");
	t->woken.fd = get_number(wake, "fd");
	t->woken.number = get_number(wake, "number");

	if (error) {
		code = get_number(error, "code");
		t->error.code =
			code > FIRN_OK && code <= FIRN_SOME_FAILED ? (int)code : FIRN_FAILED;
		t->error.reason = get_string(error, "reason");
		t->error.message = get_string(error, "message");
	}
}

int firn_client_result(struct json_object *parameters, struct firn_result **ret,
		       struct firn_error *e)
{
	struct json_object *targets = member(parameters, "targets", json_type_array);
	size_t count = targets ? json_object_array_length(targets) : 0;
	struct firn_result *result;
	const char *text;

	result = calloc(1, sizeof(*result) + count * sizeof(result->targets[0]));
	text = json_object_to_json_string_ext(parameters, JSON_C_TO_STRING_PLAIN |
								  JSON_C_TO_STRING_NOSLASHESCAPE);
	if (result && text)
		result->text = strdup(text);
	if (!result || !result->text) {
		free(result);
		json_object_put(parameters);
		return firn_client_fail_memory(e);
	}
	result->json = parameters;
	for (size_t i = 0; i < count; i++) {
		struct json_object *o = json_object_array_get_idx(targets, i);

		if (json_object_is_type(o, json_type_object) && get_number(o, "pid") >= 0)   /* 0: a child not yet identified */
			fill(&result->targets[result->count++], o);
	}
	if (!targets || result->count != count) {
		firn_result_free(result);
		return firn_client_fail(
			e, FIRN_FAILED, "bad-reply",
			"the agent's answer names no targets: use firn and firnd of one version");
	}
	*ret = result;
	return FIRN_OK;
}

int firn_client_call_result(struct firn_client *c, const char *method, struct json_object *parameters,
			    struct firn_result **ret, struct firn_error *e)
{
	struct json_object *answer;
	int r;

	*ret = NULL;
	r = firn_client_call(c, method, parameters, &answer, e);
	return r == FIRN_OK ? firn_client_result(answer, ret, e) : r;
}

bool firn_client_add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static struct json_object *selector(const struct firn_selector *s)
{
	static const char *const words[] = { "pid", "tree", "cgroup", "unit", "name", "container" };
	struct json_object *o = json_object_new_object();
	bool by_pid = s->what == FIRN_SELECT_PID || s->what == FIRN_SELECT_TREE;

	if (!o || firn_client_add(o, (unsigned int)s->what < ARRAY_SIZE(words) ? words[s->what] : "unknown",
		      by_pid ? json_object_new_int64(s->pid) : json_object_new_string(s->name ? s->name : "")))
		return o;
	json_object_put(o);
	return NULL;
}

struct json_object *firn_client_selectors(const struct firn_selector *targets, size_t count)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < count; i++) {
		struct json_object *o = selector(&targets[i]);

		if (!o || json_object_array_add(array, o) != 0) {
			json_object_put(o);
			json_object_put(array);
			array = NULL;
		}
	}
	return array;
}

static int change(struct firn_client *c, const char *method, const struct firn_selector *targets,
		  size_t count, unsigned int flags, unsigned int allowed, struct firn_result **ret,
		  struct firn_error *e)
{
	struct json_object *parameters;
	const char *kind = flags & FIRN_DIRECT ? "direct" : flags & FIRN_COPIED ? "copied" : NULL;
	bool whole = flags & FIRN_ALL, built;

	*ret = NULL;
	if (flags & ~allowed || (whole ? count != 0 : count == 0) || (flags & FIRN_DIRECT && flags & FIRN_COPIED) ||
	    (flags & FIRN_MOVE && !(flags & FIRN_IN_RAM)))
		return firn_client_fail(e, FIRN_USAGE, "usage",
					"no target, or a flag that does not fit");
	for (size_t i = 0; i < count; i++) {
		bool by_pid = targets[i].what == FIRN_SELECT_PID || targets[i].what == FIRN_SELECT_TREE;

		if ((unsigned int)targets[i].what > FIRN_SELECT_CONTAINER ||
		    (by_pid ? targets[i].pid <= 0 : !targets[i].name || !*targets[i].name))
			return firn_client_fail(e, FIRN_USAGE, "usage",
						"selector %zu is no process", i);
	}
	parameters = json_object_new_object();
	built = parameters &&
		(whole ? firn_client_add(parameters, "all", json_object_new_boolean(1))
		       : firn_client_add(parameters, "targets", firn_client_selectors(targets, count))) &&
		(!(flags & FIRN_DRY_RUN) || firn_client_add(parameters, "dryRun", json_object_new_boolean(1))) &&
		(!(flags & FIRN_WAKE) || firn_client_add(parameters, "wake", json_object_new_boolean(1))) &&
		(!(flags & FIRN_FORCE) || firn_client_add(parameters, "force", json_object_new_boolean(1))) &&
		(!kind || firn_client_add(parameters, "kind", json_object_new_string(kind))) &&
		(!(flags & FIRN_IN_RAM) ||
		 firn_client_add(parameters, "place",
		     json_object_new_string(flags & FIRN_MOVE ? FIRN_PACK_PLACE_RAM_STORE
							      : FIRN_PACK_PLACE_RAM))) &&
		(!(flags & FIRN_MOVE) || c->move_after_s < 0 ||
		 firn_client_add(parameters, "after", json_object_new_int64(c->move_after_s)));
	if (!built) {
		json_object_put(parameters);
		return firn_client_fail_memory(e);
	}
	return firn_client_call_result(c, method, parameters, ret, e);
}

FIRN_API int firn_freeze(struct firn_client *client, const struct firn_selector *targets,
			 size_t count, unsigned int flags, struct firn_result **ret,
			 struct firn_error *error)
{
	return change(client, FIRN_METHOD_FREEZE, targets, count, flags, FREEZE_FLAGS, ret, error);
}

FIRN_API int firn_evict(struct firn_client *client, const struct firn_selector *targets,
			size_t count, unsigned int flags, struct firn_result **ret,
			struct firn_error *error)
{
	return change(client, FIRN_METHOD_EVICT, targets, count, flags, EVICT_FLAGS, ret, error);
}

FIRN_API int firn_thaw(struct firn_client *client, const struct firn_selector *targets,
		       size_t count, unsigned int flags, struct firn_result **ret,
		       struct firn_error *error)
{
	return change(client, FIRN_METHOD_THAW, targets, count, flags, FIRN_DRY_RUN | FIRN_ALL, ret,
		      error);
}

FIRN_API void firn_move_after(struct firn_client *client, unsigned int seconds)
{
	client->move_after_s = seconds;
}

FIRN_API int firn_list(struct firn_client *client, struct firn_result **ret,
		       struct firn_error *error)
{
	return firn_client_call_result(client, FIRN_METHOD_LIST, NULL, ret, error);
}

FIRN_API int firn_show(struct firn_client *client, pid_t pid, struct firn_result **ret,
		       struct firn_error *error)
{
	struct json_object *parameters = json_object_new_object();

	*ret = NULL;
	if (!parameters || !firn_client_add(parameters, "pid", json_object_new_int64(pid))) {
		json_object_put(parameters);
		return firn_client_fail_memory(error);
	}
	return firn_client_call_result(client, FIRN_METHOD_SHOW, parameters, ret, error);
}

FIRN_API int firn_stop(struct firn_client *client, struct firn_error *error)
{
	struct json_object *answer;
	int r = firn_client_call(client, FIRN_METHOD_STOP, NULL, &answer, error);

	if (r == FIRN_OK)
		json_object_put(answer);
	return r;
}

FIRN_API const char *firn_version(void)
{
	return FIRN_VERSION;
}

FIRN_API size_t firn_result_count(const struct firn_result *result)
{
	return result->count;
}

FIRN_API const struct firn_target *firn_result_target(const struct firn_result *result, size_t i)
{
	return i < result->count ? &result->targets[i] : NULL;
}

FIRN_API int64_t firn_result_number(const struct firn_result *result, const char *key)
{
	return get_number(member(result->json, "summary", json_type_object), key);
}

FIRN_API const char *firn_result_text(const struct firn_result *result, const char *key)
{
	return get_string(member(result->json, "summary", json_type_object), key);
}

int firn_client_result_error(const struct firn_result *result, struct firn_error *e)
{
	struct json_object *error = member(result->json, "error", json_type_object);
	const char *reason = get_string(error, "reason"), *message = get_string(error, "message");
	int64_t code = get_number(error, "code");

	if (!error)
		return FIRN_OK;
	return firn_client_fail(e, code > FIRN_OK && code <= FIRN_SOME_FAILED ? (int)code : FIRN_FAILED,
				reason ? reason : "failed", "%s", message ? message : "the agent gave no reason");
}

FIRN_API int firn_result_code(const struct firn_result *result)
{
	for (size_t i = 0; i < result->count; i++) {
		if (result->targets[i].error.code != FIRN_OK)
			return result->count == 1 ? result->targets[i].error.code
						  : FIRN_SOME_FAILED;
	}
	return FIRN_OK;
}

FIRN_API const char *firn_result_json(const struct firn_result *result)
{
	return result->text;
}

FIRN_API void firn_result_free(struct firn_result *result)
{
	if (!result)
		return;
	json_object_put(result->json);
	free(result->text);
	free(result);
}
