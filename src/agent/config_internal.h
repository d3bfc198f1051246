/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the configuration share: config.c reads files and puts them together, config_keys.c knows each key,
 * config_show.c prints.  For these alone, and their tests.
 */
#ifndef FIRN_AGENT_CONFIG_INTERNAL_H
#define FIRN_AGENT_CONFIG_INTERNAL_H

#include "agent/config.h"

#define FIRN_CONFIG_TEXT 320    /* of a message */
#define FIRN_CONFIG_KEYS_MAX 48u
#define FIRN_CONFIG_RULES_MAX 4096u
/* What is built in is told by this name, where files are told by their paths. */
#define FIRN_CONFIG_BUILT_IN "built in"

/* Memory that is freed as one. */
struct firn_arena {
	struct firn_arena_chunk *first;
};
/* Zeroed, or NULL. */
void *firn_arena_take(struct firn_arena *a, size_t size);
char *firn_arena_text(struct firn_arena *a, const char *text);
void firn_arena_free(struct firn_arena *a);

/* key = value, where it is written. */
struct firn_config_entry {
	struct firn_config_entry *next;
	const char *key, *value;
	uint32_t line;
};

/* A section of one file. */
struct firn_config_section {
	struct firn_config_section *next;
	const char *kind;            /* "agent", "rule", "profile"... */
	const char *name;            /* of a rule or a profile; "" */
	const char *file;
	uint32_t line;
	bool built_in;
	struct firn_config_entry *entries, **last;
};

/* Where the value of a plain key comes from. */
struct firn_config_origin {
	const struct firn_config_section *section;   /* NULL: nobody sets it */
	const struct firn_config_entry *entry;
};

/* A file that was read. */
struct firn_config_file {
	struct firn_config_file *next;
	const char *path;
};

struct firn_config_whole {
	struct firn_config config;
	struct firn_arena arena;
	struct firn_config_file *files, **last_file;     /* without what is built in */
	struct firn_config_section *sections, **last;    /* of all files, in their order */
	struct firn_config_origin from[FIRN_CONFIG_KEYS_MAX];
	const struct firn_config_section **rule_sections;   /* as config.rules */
};

/* Plain keys, by number from 0 on. */
unsigned int firn_config_keys(void);
/* Returns its number, or -1. */
int firn_config_key_find(const char *section, const char *key);
const char *firn_config_key_section(unsigned int number);
const char *firn_config_key_name(unsigned int number);
/* Set it.  Returns 0; -EINVAL, and @why says what is wrong and what to do; -ENOMEM. */
int firn_config_key_set(struct firn_config *c, struct firn_arena *a, unsigned int number, const char *value,
			char why[FIRN_CONFIG_TEXT]);
/* Its value as it would be written.  Returns @buf. */
const char *firn_config_key_text(const struct firn_config *c, unsigned int number, char *buf, size_t size);

/* The same of a rule's keys; -ENOENT: there is no such key. */
int firn_config_rule_set(struct firn_rule *r, struct firn_arena *a, const char *key, const char *value,
			 char why[FIRN_CONFIG_TEXT]);
/* Is it one of a rule's conditions?  False: it is one of those that a rule sets. */
bool firn_config_rule_condition(const char *key);

/* src/agent/defaults.conf. */
extern const char firn_config_defaults[];
extern const size_t firn_config_defaults_len;

#endif
