/* SPDX-License-Identifier: MIT */
/*
 * Files into one configuration: first all of them are read into sections and entries, then these are applied in their
 * order: built in, profile, files.  Every entry is judged, also one that a later one overrules.
 */
#include "agent/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config_internal.h"
#include "agent/ini.h"
#include "base/fd.h"
#include "base/paths.h"

#define CHUNK_BYTES 16384u
#define FILE_BYTES_MAX (1u << 20)
#define FILES_MAX 1000u
#define NAME_MAX_BYTES 64u

struct firn_arena_chunk {
	struct firn_arena_chunk *next;
	size_t used, size;
	max_align_t data[];
};

void *firn_arena_take(struct firn_arena *a, size_t size)
{
	struct firn_arena_chunk *c = a->first;
	void *p;

	size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (!c || c->size - c->used < size) {
		size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;

		c = calloc(1, sizeof(*c) + room);
		if (!c)
			return NULL;
		c->size = room;
		c->next = a->first;
		a->first = c;
	}
	p = (char *)c->data + c->used;
	c->used += size;
	return p;
}

char *firn_arena_text(struct firn_arena *a, const char *text)
{
	size_t len = strlen(text) + 1;
	char *p = firn_arena_take(a, len);

	return p ? memcpy(p, text, len) : NULL;
}

void firn_arena_free(struct firn_arena *a)
{
	while (a->first) {
		struct firn_arena_chunk *c = a->first;

		a->first = c->next;
		free(c);
	}
}

struct loader {
	struct firn_config_whole *whole;
	struct firn_config_errors *errors;
	struct firn_arena *errors_arena;
	bool failed, no_memory;
	/* The file that is read. */
	const char *file;
	bool built_in;
	struct firn_config_section *first;      /* of its sections */
	struct firn_config_section *section;    /* NULL: none yet, or one that is passed over */
	bool passing_over;
};

static void FIRN_PRINTF(4, 5) error(struct loader *l, const char *file, uint32_t line, const char *fmt, ...)
{
	struct firn_config_errors *e = l->errors;
	char text[FIRN_CONFIG_TEXT];
	va_list ap;

	l->failed = true;
	if (!e)
		return;
	if (e->n == FIRN_CONFIG_ERRORS) {
		e->more++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* What a file holds may go to a terminal. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	if (!e->list)
		e->list = firn_arena_take(l->errors_arena, FIRN_CONFIG_ERRORS * sizeof(*e->list));
	if (!e->list) {
		l->no_memory = true;
		return;
	}
	e->list[e->n].file = firn_arena_text(l->errors_arena, file);
	e->list[e->n].line = line;
	e->list[e->n].message = firn_arena_text(l->errors_arena, text);
	if (e->list[e->n].file && e->list[e->n].message)
		e->n++;
	else
		l->no_memory = true;
}

void firn_config_errors_clear(struct firn_config_errors *e)
{
	if (e->memory) {
		firn_arena_free(e->memory);
		free(e->memory);
	}
	memset(e, 0, sizeof(*e));
}

/* Reading */

static bool is_plain(const char *kind)
{
	for (unsigned int i = 0; i < firn_config_keys(); i++)
		if (!strcmp(kind, firn_config_key_section(i)))
			return true;
	return false;
}

static void on_section(void *arg, uint32_t line, const char *text)
{
	struct loader *l = arg;
	size_t word = strcspn(text, " \t");
	const char *name = text + word + strspn(text + word, " \t");
	bool named = !strncmp(text, "rule", word) && word == 4;
	struct firn_config_section *s, *before;
	char kind[NAME_MAX_BYTES + 1];

	l->section = NULL;
	l->passing_over = true;
	if (!*text) {
		error(l, l->file, line, "the section has no name: give one of agent, policy, store, or rule NAME");
		return;
	}
	if (word > NAME_MAX_BYTES || strlen(name) > NAME_MAX_BYTES) {
		error(l, l->file, line, "the name of the section is longer than 64 bytes: give a shorter one");
		return;
	}
	snprintf(kind, sizeof(kind), "%.*s", (int)word, text);
	named = named || (l->built_in && !strcmp(kind, "profile"));
	if (!named && (!is_plain(kind) || *name)) {
		error(l, l->file, line, "there is no section [%s]: give one of agent, policy, store, or rule NAME", text);
		return;
	}
	if (named && !*name) {
		error(l, l->file, line, "the rule has no name: write [rule NAME]");
		return;
	}
	for (before = l->first; before; before = before->next) {
		if (strcmp(before->kind, kind) || strcmp(before->name, name))
			continue;
		error(l, l->file, line, "section [%s] is here twice, first in line %u: write it once", text, before->line);
		return;
	}
	s = firn_arena_take(&l->whole->arena, sizeof(*s));
	if (!s || !(s->kind = firn_arena_text(&l->whole->arena, kind)) ||
	    !(s->name = firn_arena_text(&l->whole->arena, name))) {
		l->no_memory = true;
		return;
	}
	s->file = l->file;
	s->line = line;
	s->built_in = l->built_in;
	s->last = &s->entries;
	*l->whole->last = s;
	l->whole->last = &s->next;
	if (!l->first)
		l->first = s;
	l->section = s;
	l->passing_over = false;
}

static void on_key(void *arg, uint32_t line, const char *key, const char *value)
{
	struct loader *l = arg;
	struct firn_config_entry *e;

	if (l->passing_over)
		return;         /* of a section that was complained about */
	if (!l->section) {
		error(l, l->file, line, "'%.60s' is in no section: write [agent], [policy], [store] or [rule NAME] before it", key);
		return;
	}
	for (e = l->section->entries; e; e = e->next) {
		if (strcmp(e->key, key))
			continue;
		error(l, l->file, line, "%.60s is set twice, first in line %u: set it once", key, e->line);
		return;
	}
	e = firn_arena_take(&l->whole->arena, sizeof(*e));
	if (!e || !(e->key = firn_arena_text(&l->whole->arena, key)) ||
	    !(e->value = firn_arena_text(&l->whole->arena, value))) {
		l->no_memory = true;
		return;
	}
	e->line = line;
	*l->section->last = e;
	l->section->last = &e->next;
}

static void on_bad(void *arg, uint32_t line, const char *message)
{
	struct loader *l = arg;

	error(l, l->file, line, "%s", message);
}

static const struct firn_ini_calls calls = { on_section, on_key, on_bad };

static void read_text(struct loader *l, const char *file, bool built_in, char *text, size_t len)
{
	l->file = firn_arena_text(&l->whole->arena, file);
	l->built_in = built_in;
	l->first = l->section = NULL;
	l->passing_over = false;
	if (!built_in) {
		struct firn_config_file *f = firn_arena_take(&l->whole->arena, sizeof(*f));

		if (!f) {
			l->no_memory = true;
			return;
		}
		f->path = l->file;
		*l->whole->last_file = f;
		l->whole->last_file = &f->next;
	}
	if (!l->file)
		l->no_memory = true;
	else
		firn_ini_read(text, len, &calls, l);
}

static void read_built_in(struct loader *l)
{
	char *text = malloc(firn_config_defaults_len);

	if (!text) {
		l->no_memory = true;
		return;
	}
	memcpy(text, firn_config_defaults, firn_config_defaults_len);
	read_text(l, FIRN_CONFIG_BUILT_IN, true, text, firn_config_defaults_len);
	free(text);
}

/* All of a file.  @optional: it may be missing. */
static void read_file(struct loader *l, const char *path, bool optional)
{
	/* A FIFO would be waited for. */
	FIRN_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t len = 0, size;
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 && errno == ENOENT && optional)
		return;
	if (fd < 0 || fstat(fd, &st)) {
		error(l, path, 0, "cannot be read (%s): make it readable, or take it away", strerror(errno));
		return;
	}
	if (!S_ISREG(st.st_mode)) {
		error(l, path, 0, "is not a regular file: put one there, or take it away");
		return;
	}
	/* It says which commands are run, and as whom. */
	if (!geteuid() && (st.st_uid || (st.st_mode & 022))) {
		error(l, path, 0, "others than root may write to it: chown it to root, and chmod go-w");
		return;
	}
	if (st.st_size > (off_t)FILE_BYTES_MAX) {
		error(l, path, 0, "is larger than 1 MiB: shorten it");
		return;
	}
	size = (size_t)st.st_size + 1;
	text = malloc(size);
	if (!text) {
		l->no_memory = true;
		return;
	}
	while (len < size && (n = read(fd, text + len, size - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			error(l, path, 0, "cannot be read (%s): make it readable, or take it away", strerror(errno));
			free(text);
			return;
		}
		len += (size_t)n;
	}
	if (len == size)
		error(l, path, 0, "grew while it was read: try again");
	else
		read_text(l, path, false, text, len);
	free(text);
}

static int is_drop_in(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return d->d_name[0] != '.' && len > 5 && !strcmp(d->d_name + len - 5, ".conf");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_dir(struct loader *l, const char *dir)
{
	char path[4096], below[4096];
	struct dirent **names;
	int n;

	if (firn_path_join(path, sizeof(path), dir, "firn.conf") || firn_path_join(below, sizeof(below), dir, "firn.conf.d")) {
		error(l, dir, 0, "the path is too long: give a shorter one");
		return;
	}
	read_file(l, path, true);
	n = scandir(below, &names, is_drop_in, by_bytes);
	if (n < 0) {
		if (errno != ENOENT)
			error(l, below, 0, "cannot be read (%s): make it a readable directory, or take it away", strerror(errno));
		return;
	}
	for (int i = 0; i < n; i++) {
		if (i == (int)FILES_MAX)
			error(l, below, 0, "has more than 1000 files: join some");
		else if (i < (int)FILES_MAX && firn_path_join(path, sizeof(path), below, names[i]->d_name))
			error(l, below, 0, "the path is too long: give a shorter one");
		else if (i < (int)FILES_MAX)
			read_file(l, path, false);
		free(names[i]);
	}
	free(names);
}

/* Applying */

static void set(struct loader *l, const struct firn_config_section *s, const struct firn_config_entry *e,
		const char *section, const char *key)
{
	int number = firn_config_key_find(section, key), err;
	char why[FIRN_CONFIG_TEXT];

	if (number < 0) {
		error(l, s->file, e->line, "there is no key '%.60s' in [%s]: see firn.conf(5)", key, section);
		return;
	}
	err = firn_config_key_set(&l->whole->config, &l->whole->arena, (unsigned int)number, e->value, why);
	if (err == -ENOMEM)
		l->no_memory = true;
	else if (err)
		error(l, s->file, e->line, "%s", why);
	else
		l->whole->from[number] = (struct firn_config_origin){ s, e };
}

static void apply_plain(struct loader *l, bool built_in)
{
	for (const struct firn_config_section *s = l->whole->sections; s; s = s->next) {
		if (s->built_in != built_in || !strcmp(s->kind, "rule") || !strcmp(s->kind, "profile"))
			continue;
		for (const struct firn_config_entry *e = s->entries; e; e = e->next)
			set(l, s, e, s->kind, e->key);
	}
}

/* [profile NAME], whose keys are "section.key". */
static void apply_profile(struct loader *l, const char *name)
{
	for (const struct firn_config_section *s = l->whole->sections; s; s = s->next) {
		if (strcmp(s->kind, "profile") || strcmp(s->name, name))
			continue;
		for (const struct firn_config_entry *e = s->entries; e; e = e->next) {
			const char *dot = strchr(e->key, '.');
			char section[NAME_MAX_BYTES];

			snprintf(section, sizeof(section), "%.*s", dot ? (int)(dot - e->key) : 0, e->key);
			set(l, s, e, section, dot ? dot + 1 : e->key);
		}
	}
}

/* The profile goes before all that files set, wherever they name it. */
static const char *find_profile(struct loader *l)
{
	const char *name = l->whole->config.profile;

	for (const struct firn_config_section *s = l->whole->sections; s; s = s->next)
		for (const struct firn_config_entry *e = s->entries; e && !strcmp(s->kind, "agent"); e = e->next)
			if (!strcmp(e->key, "profile"))
				name = e->value;
	return name;
}

/* A later rule of the same name. */
static const struct firn_config_section *find_later(const struct firn_config_section *s)
{
	for (const struct firn_config_section *later = s->next; later; later = later->next)
		if (!strcmp(later->kind, "rule") && !strcmp(later->name, s->name))
			return later;
	return NULL;
}

static void make_rule(struct loader *l, const struct firn_config_section *s, struct firn_rule *r)
{
	char why[FIRN_CONFIG_TEXT];

	*r = (struct firn_rule){ .name = s->name, .file = s->file, .line = s->line };
	for (const struct firn_config_entry *e = s->entries; e; e = e->next) {
		int err = firn_config_rule_set(r, &l->whole->arena, e->key, e->value, why);

		if (err == -ENOMEM)
			l->no_memory = true;
		else if (err == -ENOENT)
			error(l, s->file, e->line, "there is no key '%.60s' in a rule: see firn.conf(5)", e->key);
		else if (err)
			error(l, s->file, e->line, "%s", why);
	}
}

static bool sets_something(const struct firn_config_section *s)
{
	for (const struct firn_config_entry *e = s->entries; e; e = e->next)
		if (!firn_config_rule_condition(e->key))
			return true;
	return false;
}

static void apply_rules(struct loader *l)
{
	struct firn_config_whole *w = l->whole;
	struct firn_rule *rules;
	size_t n = 0;

	for (const struct firn_config_section *s = w->sections; s; s = s->next)
		n += !strcmp(s->kind, "rule");
	if (n > FIRN_CONFIG_RULES_MAX) {
		error(l, l->file, 0, "there are more than 4096 rules: join some, with | between patterns");
		return;
	}
	rules = firn_arena_take(&w->arena, (n + 1) * sizeof(*rules));
	w->rule_sections = firn_arena_take(&w->arena, (n + 1) * sizeof(*w->rule_sections));
	if (!rules || !w->rule_sections) {
		l->no_memory = true;
		return;
	}
	n = 0;
	for (const struct firn_config_section *s = w->sections; s; s = s->next) {
		const struct firn_config_section *later;

		if (strcmp(s->kind, "rule"))
			continue;
		make_rule(l, s, &rules[n]);
		if (!sets_something(s))
			error(l, s->file, s->line, "rule %s sets nothing: give it priority, never, wake, or another key to set",
			      s->name);
		later = find_later(s);
		if (later && s->built_in && rules[n].set.never == FIRN_NEVER_ALWAYS)
			error(l, later->file, later->line, "rule %s is built in and stays: give yours another name", s->name);
		if (later)
			continue;
		w->rule_sections[n++] = s;
	}
	w->config.rules = rules;
	w->config.nrules = n;
}

static void check_policy(struct loader *l)
{
	const char *wrong = firn_policy_config_check(&l->whole->config.policy);
	const struct firn_config_origin *last = NULL;

	if (!wrong)
		return;
	/* The policy does not know lines: the last that a file sets is as good as any. */
	for (unsigned int i = 0; i < firn_config_keys(); i++) {
		const struct firn_config_origin *o = &l->whole->from[i];

		if (!strcmp(firn_config_key_section(i), "policy") && o->entry && (!o->section->built_in || !last))
			last = o;
	}
	error(l, last ? last->section->file : FIRN_CONFIG_BUILT_IN, last ? last->entry->line : 0,
	      "%s: change one of the two in [policy]", wrong);
}

static int by_line(const void *a, const void *b)
{
	const struct firn_config_error *x = a, *y = b;
	int files = strcmp(x->file, y->file);

	return files ? files : x->line < y->line ? -1 : x->line > y->line;
}

int firn_config_load(const char *dir, struct firn_config **ret, struct firn_config_errors *errors)
{
	struct loader l = { .errors = errors };

	if (errors) {
		memset(errors, 0, sizeof(*errors));
		l.errors_arena = errors->memory = calloc(1, sizeof(*l.errors_arena));
		if (!l.errors_arena)
			return -ENOMEM;
	}
	l.whole = calloc(1, sizeof(*l.whole));
	if (!l.whole)
		return -ENOMEM;
	l.whole->last = &l.whole->sections;
	l.whole->last_file = &l.whole->files;
	read_built_in(&l);
	if (dir)
		read_dir(&l, dir);
	apply_plain(&l, true);
	apply_profile(&l, find_profile(&l));
	apply_plain(&l, false);
	apply_rules(&l);
	if (!l.failed)
		check_policy(&l);
	if (l.no_memory || l.failed) {
		if (errors && errors->n)
			qsort(errors->list, errors->n, sizeof(*errors->list), by_line);
		firn_config_free(&l.whole->config);
		return l.no_memory ? -ENOMEM : -EINVAL;
	}
	*ret = &l.whole->config;
	return 0;
}

void firn_config_free(struct firn_config *c)
{
	struct firn_config_whole *w = (struct firn_config_whole *)(void *)c;

	if (!w)
		return;
	firn_arena_free(&w->arena);
	free(w);
}

const char *firn_config_dir(void)
{
	const char *dir = getenv("FIRN_CONFIG_DIR");

	return dir && *dir ? dir : "/etc/firn";
}
