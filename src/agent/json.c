/* SPDX-License-Identifier: MIT */
#include "agent/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pack/codec.h"
#include "proto/interface.h"
#include "transfer/packfile.h"

static void put(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void put_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

/* @digits after the point; doubles print as they were made. */
static void put_number(struct json_object *o, const char *key, double v, int digits)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*f", digits, v);
	json_object_object_add(o, key, json_object_new_double_s(v, text));
}

struct json_object *firn_json_trouble(const struct firn_err *e)
{
	struct json_object *o = json_object_new_object();

	put(o, "code", (uint64_t)e->code);
	put_text(o, "reason", e->reason);
	put_text(o, "message", e->message);
	return o;
}

/* A target is a hundred objects.  Its text alone takes a tenth, and an answer may hold hundreds of targets. */
static struct json_object *as_text(struct json_object *o)
{
	char *text = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	struct json_object *t = text ? json_object_new_boolean(false) : NULL;

	if (!t) {
		free(text);
		return o;
	}
	json_object_set_serializer(t, json_object_userdata_to_json_string, text, json_object_free_userdata);
	json_object_put(o);
	return t;
}

static struct json_object *watching(const struct firn_watching *w)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "watching", json_object_new_boolean(w->on));
	put(o, "descriptors", w->descriptors);
	put(o, "leftOut", w->left_out);
	put(o, "hidden", w->hidden);
	if (w->due_ms)
		put(o, "due", w->due_ms);
	return o;
}

static struct json_object *woken(const struct firn_woken *w)
{
	struct json_object *o = json_object_new_object();

	put_text(o, "by", w->kind);
	put(o, "at", w->at_ms);
	if (w->fd >= 0)
		put(o, "fd", (uint64_t)w->fd);
	if (w->number)
		put(o, "number", (uint64_t)w->number);
	if (w->local[0])
		put_text(o, "local", w->local);
	if (w->peer[0])
		put_text(o, "peer", w->peer);
	return o;
}

struct json_object *firn_json_report(const struct firn_report *r)
{
	return firn_json_report_why(r, NULL);
}

struct json_object *firn_json_report_why(const struct firn_report *r, const char *why)
{
	struct json_object *o = json_object_new_object(), *pages = json_object_new_object(),
			   *pack = json_object_new_object(), *io = json_object_new_object(),
			   *memory = json_object_new_object(), *ms = json_object_new_object();
	const uint64_t *c = r->counts.pages;
	char id[64];

	snprintf(id, sizeof(id), "%d-%llu", r->pid, (unsigned long long)r->start_time);
	put_text(o, "id", id);
	put(o, "pid", (uint64_t)r->pid);
	if (why)
		put_text(o, "why", why);
	if (r->parent)
		put(o, "parent", (uint64_t)r->parent);
	put_text(o, "comm", r->comm);
	put_text(o, "state", firn_target_state_name(r->state));
	put_text(o, "kind", firn_pack_kind_name(r->kind));
	put(o, "since", r->since_ms);

	put(pages, "total", r->pages);
	put(pages, "evicted", c[FIRN_PAGE_EVICTED] + c[FIRN_PAGE_IN_FLIGHT]);
	put(pages, "zero", c[FIRN_PAGE_ZERO]);
	put(pages, "filled", c[FIRN_PAGE_FILL]);
	put(pages, "resident", c[FIRN_PAGE_RESIDENT]);
	put(pages, "removed", c[FIRN_PAGE_REMOVED]);
	put(pages, "lost", r->lost);
	put(pages, "workingSet", r->set_pages);
	put(pages, "recorded", r->recorded_pages);
	json_object_object_add(o, "pages", pages);

	if (r->generation) {
		put_text(pack, "path", r->pack_path);
		put_text(pack, "place", r->in_ram ? FIRN_PACK_PLACE_RAM : FIRN_PACK_PLACE_STORE);
		if (r->in_ram && r->move_after_s != FIRN_PACK_STAYS)
			put(pack, "moveAfter", r->move_after_s);
		put(pack, "bytes", r->pack_bytes);
		put(pack, "raw", r->pack_raw_bytes);
		put(pack, "blocks", r->blocks);
		put(pack, "duplicates", r->duplicates);
		if (r->base_generation) {
			put(pack, "base", r->base_generation);
			put(pack, "baseBytes", r->base_bytes);
			put(pack, "reused", r->reused_bytes);
		}
		put_text(pack, "cipher", firn_cipher_name((enum firn_cipher)r->cipher));
		put_text(pack, "codec", r->kind == FIRN_PACK_DIRECT ? "raw" : "lz4");
		put(pack, "generation", r->generation);
		json_object_object_add(o, "pack", pack);
		if (r->pack_bytes)
			put_number(o, "ratio", (double)r->pack_raw_bytes / (double)(r->pack_bytes + r->base_bytes), 2);
	} else {
		json_object_put(pack);
	}

	put(io, "writeCalls", r->write_calls);
	put(io, "writeBytes", r->write_bytes);
	put(io, "readCalls", r->read_calls);
	put(io, "readBytes", r->read_bytes);
	put(io, "blocksRead", r->blocks_read);
	put(io, "faults", r->faults);
	if (r->faults) {
		put_number(io, "faultP50Us", (double)r->fault_p50_ns / 1e3, 0);
		put_number(io, "faultP99Us", (double)r->fault_p99_ns / 1e3, 0);
		put_number(io, "faultMaxUs", (double)r->fault_max_ns / 1e3, 0);
	}
	json_object_object_add(o, "io", io);

	put(memory, "before", r->memory_before);
	put(memory, "after", r->memory_after);
	json_object_object_add(o, "memory", memory);

	for (int p = 0; p < FIRN_PHASES; p++)
		if (r->ns[p])
			put_number(ms, firn_phase_name((enum firn_phase)p), (double)r->ns[p] / 1e6, 3);
	json_object_object_add(o, "ms", ms);
	if (r->group) {
		struct json_object *group = json_object_new_object();

		put(group, "id", r->group);
		put_text(group, "selector", r->group_text);
		json_object_object_add(o, "group", group);
	}
	if (r->wake.id)
		json_object_object_add(o, "wake", watching(&r->wake));
	if (r->woken.at_ms)
		json_object_object_add(o, "woken", woken(&r->woken));
	if (r->err.code)
		json_object_object_add(o, "error", firn_json_trouble(&r->err));
	return as_text(o);
}

pid_t firn_json_pid(struct json_object *o, const char *key)
{
	struct json_object *v;
	int64_t n;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return 0;
	n = json_object_get_int64(v);
	return n > 0 && n <= INT32_MAX ? (pid_t)n : 0;
}

int firn_json_selector(struct json_object *o, struct firn_select *ret, struct firn_err *e)
{
	int by = -1;

	if (!json_object_is_type(o, json_type_object))
		return -EINVAL;
	for (int i = 0; firn_select_word((enum firn_select_by)i); i++) {
		if (!json_object_object_get_ex(o, firn_select_word((enum firn_select_by)i), NULL))
			continue;
		if (by >= 0)
			return -EINVAL;
		by = i;
	}
	if (by == FIRN_BY_PID || by == FIRN_BY_TREE) {
		pid_t pid = firn_json_pid(o, firn_select_word((enum firn_select_by)by));

		return pid ? firn_select_make(ret, (enum firn_select_by)by, pid, NULL, e) : -EINVAL;
	}
	if (by >= 0) {
		struct json_object *v;

		json_object_object_get_ex(o, firn_select_word((enum firn_select_by)by), &v);
		if (!json_object_is_type(v, json_type_string))
			return -EINVAL;
		return firn_select_make(ret, (enum firn_select_by)by, 0, json_object_get_string(v), e);
	}
	return -EINVAL;
}

bool firn_json_dry_run(struct json_object *parameters)
{
	struct json_object *v;

	return parameters && json_object_object_get_ex(parameters, "dryRun", &v) &&
	       (!json_object_is_type(v, json_type_boolean) || json_object_get_boolean(v));
}
