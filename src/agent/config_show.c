/* SPDX-License-Identifier: MIT */
/*
 * firnd --config-check and --config-show, which `firn config check` and `firn config show` run.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "agent/config_internal.h"
#include "agent/device.h"
#include "base/err.h"
#include "base/paths.h"
#include "base/size.h"

#define SMALL_FLASH_BYTES (2ull << 30)
#define DEVICE_HUNDREDTHS 500u

static uint64_t share_of(uint64_t bytes, uint32_t hundredths)
{
	return (uint64_t)((unsigned __int128)bytes * hundredths / 10000);
}

static uint64_t amount_of(const struct firn_config_amount *a, uint64_t whole, uint64_t none)
{
	switch (a->is) {
	case FIRN_AMOUNT_BYTES:
		return a->bytes;
	case FIRN_AMOUNT_SHARE:
		return share_of(whole, a->hundredths);
	case FIRN_AMOUNT_AUTO:
	case FIRN_AMOUNT_NONE:
		break;
	}
	return none;
}

uint64_t firn_config_store_room(const struct firn_config *c, uint64_t size, uint64_t free, uint64_t used)
{
	uint64_t limit = amount_of(&c->store_limit, size, UINT64_MAX), keep = amount_of(&c->store_free, size, 0);
	uint64_t below_limit = limit > used ? limit - used : 0, spare = free > keep ? free - keep : 0;

	return firn_min_u64(below_limit, spare);
}

uint64_t firn_config_daily_budget(const struct firn_config *c, const char *store_dir, char why[FIRN_CONFIG_WHY])
{
	const struct firn_config_amount *a = &c->daily_budget;
	uint32_t hundredths = a->is == FIRN_AMOUNT_SHARE ? a->hundredths : DEVICE_HUNDREDTHS;
	char share[FIRN_SIZE_TEXT], text[FIRN_CONFIG_WHY];
	struct firn_device d;
	struct statvfs fs;

	if (!why)
		why = text;
	if (a->is == FIRN_AMOUNT_BYTES || a->is == FIRN_AMOUNT_NONE) {
		snprintf(why, FIRN_CONFIG_WHY, "as configured");
		return a->is == FIRN_AMOUNT_BYTES ? a->bytes : FIRN_NO_LIMIT;
	}
	firn_percent_print(share, hundredths);
	if (!firn_device_of(store_dir, &d)) {
		if (a->is == FIRN_AMOUNT_AUTO && firn_device_is_small_flash(&d)) {
			snprintf(why, FIRN_CONFIG_WHY, "%s is small flash", d.name);
			return SMALL_FLASH_BYTES;
		}
		snprintf(why, FIRN_CONFIG_WHY, "%s of %s, which has %.1f GiB", share, d.name, (double)d.bytes / (1u << 30));
		return share_of(d.bytes, hundredths);
	}
	if (!statvfs(store_dir, &fs)) {
		uint64_t bytes = (uint64_t)fs.f_blocks * fs.f_frsize;

		snprintf(why, FIRN_CONFIG_WHY, "%s of the file system, which has %.1f GiB; its device is not known", share,
			 (double)bytes / (1u << 30));
		return share_of(bytes, hundredths);
	}
	snprintf(why, FIRN_CONFIG_WHY, "its device is not known");
	return SMALL_FLASH_BYTES;
}

/* Check */

static struct json_object *text_or_null(const char *text)
{
	return text ? json_object_new_string(text) : NULL;
}

static int print_json(struct json_object *o, int code)
{
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	return fflush(stdout) ? FIRN_EXIT_FAILED : code;
}

/* Errors to standard error, one line each, or as JSON to standard output. */
static int print_errors(int err, const struct firn_config_errors *e, bool json)
{
	struct json_object *o, *list;

	if (err == -EINVAL && json) {
		o = json_object_new_object();
		list = json_object_new_array();
		for (size_t i = 0; i < e->n; i++) {
			struct json_object *one = json_object_new_object();

			json_object_object_add(one, "file", text_or_null(e->list[i].file));
			json_object_object_add(one, "line", json_object_new_int64(e->list[i].line));
			json_object_object_add(one, "message", text_or_null(e->list[i].message));
			json_object_array_add(list, one);
		}
		json_object_object_add(o, "valid", json_object_new_boolean(false));
		json_object_object_add(o, "errors", list);
		print_json(o, 0);
	}
	if (err == -ENOMEM)
		fprintf(stderr, "firnd: no memory to read the configuration: try again\n");
	for (size_t i = 0; err == -EINVAL && i < e->n; i++) {
		if (e->list[i].line)
			fprintf(stderr, "firnd: %s:%u: %s\n", e->list[i].file, e->list[i].line, e->list[i].message);
		else
			fprintf(stderr, "firnd: %s: %s\n", e->list[i].file, e->list[i].message);
	}
	if (err == -EINVAL && e->more)
		fprintf(stderr, "firnd: and %zu more: correct these first\n", e->more);
	return err == -EINVAL ? FIRN_EXIT_USAGE : FIRN_EXIT_FAILED;
}

static struct json_object *file_list(const struct firn_config_whole *w)
{
	struct json_object *files = json_object_new_array();

	for (const struct firn_config_file *f = w->files; f; f = f->next)
		json_object_array_add(files, json_object_new_string(f->path));
	return files;
}

int firn_config_check(const char *dir, bool json)
{
	struct firn_config_errors e;
	struct firn_config *c;
	int err = firn_config_load(dir, &c, &e), code = FIRN_EXIT_OK;
	const struct firn_config_whole *w = (const void *)c;

	if (err) {
		code = print_errors(err, &e, json);
		firn_config_errors_clear(&e);
		return code;
	}
	if (json) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "valid", json_object_new_boolean(true));
		json_object_object_add(o, "files", file_list(w));
		json_object_object_add(o, "errors", json_object_new_array());
		code = print_json(o, FIRN_EXIT_OK);
	} else {
		for (const struct firn_config_file *f = w->files; f; f = f->next)
			printf("%s\n", f->path);
		if (w->files)
			printf("valid\n");
		else
			printf("valid: there is nothing in %s, what is built in counts\n", dir);
		code = fflush(stdout) ? FIRN_EXIT_FAILED : FIRN_EXIT_OK;
	}
	firn_config_errors_clear(&e);
	firn_config_free(c);
	return code;
}

/* Show */

static const char *origin_text(const struct firn_config_section *s, const struct firn_config_entry *e, char *buf,
			       size_t size)
{
	if (!s)
		snprintf(buf, size, "nobody");
	else if (s->built_in && !strcmp(s->kind, "profile"))
		snprintf(buf, size, "profile %s", s->name);
	else if (s->built_in)
		snprintf(buf, size, "default");
	else
		snprintf(buf, size, "%s:%u", s->file, e ? e->line : s->line);
	return buf;
}

static struct json_object *origin_json(const struct firn_config_section *s, const struct firn_config_entry *e)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "kind", json_object_new_string(!s || !s->built_in ? "file" :
								 !strcmp(s->kind, "profile") ? "profile" : "default"));
	if (s && s->built_in && !strcmp(s->kind, "profile"))
		json_object_object_add(o, "profile", json_object_new_string(s->name));
	if (s && !s->built_in) {
		json_object_object_add(o, "file", json_object_new_string(s->file));
		json_object_object_add(o, "line", json_object_new_int64(e ? e->line : s->line));
	}
	return o;
}

static void show_text(const struct firn_config_whole *w, const char *budget)
{
	char value[512], from[4200], line[600];
	const char *section = "";

	for (unsigned int i = 0; i < firn_config_keys(); i++) {
		if (strcmp(section, firn_config_key_section(i))) {
			section = firn_config_key_section(i);
			printf("%s[%s]\n", i ? "\n" : "", section);
		}
		firn_config_key_text(&w->config, i, value, sizeof(value));
		snprintf(line, sizeof(line), "%s = %s", firn_config_key_name(i), value);
		printf("%-32s # %s", line, origin_text(w->from[i].section, w->from[i].entry, from, sizeof(from)));
		printf(strcmp(firn_config_key_name(i), "daily-budget") ? "\n" : "; that is %s\n", budget);
	}
	for (size_t i = 0; i < w->config.nrules; i++) {
		const struct firn_config_section *s = w->rule_sections[i];

		snprintf(line, sizeof(line), "[rule %s]", s->name);
		printf("\n%-32s # %s\n", line, origin_text(s, NULL, from, sizeof(from)));
		for (const struct firn_config_entry *e = s->entries; e; e = e->next)
			printf("%s = %s\n", e->key, e->value);
	}
}

static struct json_object *show_json(const struct firn_config_whole *w, uint64_t budget, const char *why)
{
	struct json_object *o = json_object_new_object(), *values = json_object_new_array(), *rules = json_object_new_array();
	struct json_object *daily = json_object_new_object();
	char text[4200];

	for (unsigned int i = 0; i < firn_config_keys(); i++) {
		struct json_object *v = json_object_new_object();

		json_object_object_add(v, "section", json_object_new_string(firn_config_key_section(i)));
		json_object_object_add(v, "key", json_object_new_string(firn_config_key_name(i)));
		json_object_object_add(v, "value",
				       json_object_new_string(firn_config_key_text(&w->config, i, text, sizeof(text))));
		json_object_object_add(v, "from", origin_json(w->from[i].section, w->from[i].entry));
		json_object_array_add(values, v);
	}
	for (size_t i = 0; i < w->config.nrules; i++) {
		const struct firn_config_section *s = w->rule_sections[i];
		struct json_object *r = json_object_new_object(), *conditions = json_object_new_object();
		struct json_object *sets = json_object_new_object();

		for (const struct firn_config_entry *e = s->entries; e; e = e->next)
			json_object_object_add(firn_config_rule_condition(e->key) ? conditions : sets, e->key,
					       json_object_new_string(e->value));
		json_object_object_add(r, "name", json_object_new_string(s->name));
		json_object_object_add(r, "from", origin_json(s, NULL));
		json_object_object_add(r, "conditions", conditions);
		json_object_object_add(r, "sets", sets);
		json_object_array_add(rules, r);
	}
	if (budget == FIRN_NO_LIMIT)
		json_object_object_add(daily, "bytes", NULL);
	else
		json_object_object_add(daily, "bytes", json_object_new_uint64(budget));
	json_object_object_add(daily, "says", json_object_new_string(why));
	json_object_object_add(o, "files", file_list(w));
	json_object_object_add(o, "values", values);
	json_object_object_add(o, "dailyBudget", daily);
	json_object_object_add(o, "rules", rules);
	return o;
}

int firn_config_show(const char *dir, bool json)
{
	char state[512], why[FIRN_CONFIG_WHY], bytes[FIRN_SIZE_TEXT], budget_text[FIRN_CONFIG_WHY + 64];
	struct firn_config_errors e;
	struct firn_config *c;
	int err = firn_config_load(dir, &c, &e), code;
	uint64_t budget;

	if (err) {
		code = print_errors(err, &e, json);
		firn_config_errors_clear(&e);
		return code;
	}
	if (firn_state_dir(state, sizeof(state)))
		snprintf(state, sizeof(state), "/");
	budget = firn_config_daily_budget(c, state, why);
	if (budget == FIRN_NO_LIMIT)
		snprintf(budget_text, sizeof(budget_text), "no limit");
	else
		snprintf(budget_text, sizeof(budget_text), "%s a day: %s", firn_size_print(bytes, budget), why);
	if (json) {
		code = print_json(show_json((const void *)c, budget, why), FIRN_EXIT_OK);
	} else {
		show_text((const void *)c, budget_text);
		code = fflush(stdout) ? FIRN_EXIT_FAILED : FIRN_EXIT_OK;
	}
	firn_config_errors_clear(&e);
	firn_config_free(c);
	return code;
}
