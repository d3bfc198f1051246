/* SPDX-License-Identifier: MIT */
/*
 * The command line of firn, parsed strictly.  Prints nothing.
 */
#ifndef FIRN_CLI_ARGS_H
#define FIRN_CLI_ARGS_H

#include "base/types.h"
#include "firn/firn.h"

enum firn_verb {
	FIRN_VERB_NONE,
	FIRN_VERB_FREEZE,
	FIRN_VERB_EVICT,
	FIRN_VERB_THAW,
	FIRN_VERB_LIST,
	FIRN_VERB_SHOW,
	FIRN_VERB_EXPLAIN,
	FIRN_VERB_RECLAIM,
	FIRN_VERB_PRIORITY,
	FIRN_VERB_RUN,
	FIRN_VERB_STATS,
	FIRN_VERB_MONITOR,
	FIRN_VERB_TOP,
	FIRN_VERB_CHECK,
	FIRN_VERB_CONFIG,
	FIRN_VERB_HELP,
	FIRN_VERB_VERSION,
};

enum firn_args_format {
	FIRN_FORMAT_TEXT,
	FIRN_FORMAT_JSON,
	FIRN_FORMAT_OPENMETRICS,
};

struct firn_args {
	enum firn_verb verb;
	enum firn_verb topic; /* of help, or NONE */
	bool json, dry_run, all, force;
	bool show;         /* config show; else config check */
	bool wake;         /* freeze */
	bool ram, move;    /* --place=ram; =ram,store */
	long after;        /* seconds, or -1: not given */
	unsigned int kind;   /* FIRN_COPIED, FIRN_DIRECT, or 0: not given */
	int priority;        /* 0 to 100, or -1: not given */
	uint64_t size;       /* bytes, of reclaim or --need; 0: not given */
	uint64_t timeout_ns; /* 0: not given */
	enum firn_args_format format;
	char *const *command; /* of run, with its NULL; points into argv */
	struct firn_selector *targets; /* freed by firn_args_done() */
	size_t count;
	char error[256]; /* what is wrong: what to do */
};

/*
 * Parse @argv, whose [0] is the program's name.  Returns FIRN_OK; FIRN_USAGE, and @a->error says
 * why; FIRN_FAILED when memory lacks.  Call firn_args_done() in every case.
 */
int firn_args_parse(int argc, char *const *argv, struct firn_args *a);

void firn_args_done(struct firn_args *a);

/* The verb's word; "" for none. */
const char *firn_verb_name(enum firn_verb verb);

#endif
