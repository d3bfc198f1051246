/* SPDX-License-Identifier: MIT */
/*
 * Rules: what the configuration says of a process.  Pure: no look at the system, no clock, no allocation; any thread.
 *
 * A rule has conditions, all of which must be met, and sets some keys.  Rules are asked in their order, and of those
 * whose conditions are met the last one that sets a key decides it; only "never = always" is not taken back by a
 * later rule.  A rule without conditions is for all.
 */
#ifndef FIRN_POLICY_RULES_H
#define FIRN_POLICY_RULES_H

#include "base/types.h"

/* What a process is: bits. */
enum firn_subject_is {
	FIRN_IS_INIT = 1 << 0,
	FIRN_IS_AGENT = 1 << 1,
	FIRN_IS_KEEPER = 1 << 2,
	FIRN_IS_KERNEL_THREAD = 1 << 3,
	FIRN_IS_REALTIME = 1 << 4,       /* one of its threads, at least */
	FIRN_IS_TRACED = 1 << 5,
	FIRN_IS_LOGIN_SHELL = 1 << 6,    /* leads a session that has a terminal */
	FIRN_IS_INHIBITOR = 1 << 7,      /* holds an inhibitor lock of systemd-logind */
	FIRN_IS_OOM_AVOID = 1 << 8,      /* ManagedOOMPreference=avoid, */
	FIRN_IS_OOM_OMIT = 1 << 9,       /* =omit */
};
#define FIRN_IS_COUNT 10

/* Its word in a rule's "is": "kernel-thread"; NULL where @bit is none.  And back; 0 where it is none. */
const char *firn_is_name(unsigned int bit);
unsigned int firn_is_from_name(const char *name);

/* A process, as rules see it.  Texts that are NULL or "" are not known, or there is no such thing: a condition on
 * them is not met, not even "*". */
struct firn_subject {
	const char *comm;            /* its name, at most 15 bytes */
	const char *exe;             /* path of its program, without " (deleted)" */
	const char *cmdline;         /* its arguments, one blank between them */
	const char *cgroup;          /* path of its cgroup, "/system.slice/cron.service" */
	const char *unit;            /* systemd's unit, "cron.service", "user@1000.service" */
	const char *user_unit;       /* the unit of the user's systemd, "app-editor.scope" */
	const char *container;       /* the container's id */
	const char *user;            /* the real user's name, where /etc/passwd has one */
	uint32_t uid;                /* real */
	int32_t oom_score_adj;
	unsigned int is;             /* enum firn_subject_is */
};

enum firn_never {
	FIRN_NEVER_NO,
	FIRN_NEVER_YES,              /* not by the agent's own decision; an explicit request needs --force */
	FIRN_NEVER_ALWAYS,           /* not at all */
};

enum firn_rule_kind {
	FIRN_RULE_KIND_AGENT,        /* as the agent's options say */
	FIRN_RULE_KIND_COPIED,
	FIRN_RULE_KIND_DIRECT,
};

enum firn_rule_place {
	FIRN_RULE_PLACE_STORE,
	FIRN_RULE_PLACE_RAM,
	FIRN_RULE_PLACE_RAM_STORE,
};

/* What a rule may set. */
enum firn_rule_key {
	FIRN_RULE_PRIORITY,
	FIRN_RULE_NEVER,
	FIRN_RULE_WAKE,
	FIRN_RULE_KIND,
	FIRN_RULE_PLACE,
	FIRN_RULE_MIN_SIZE,
	FIRN_RULE_BEFORE_FREEZE,
	FIRN_RULE_AFTER_THAW,
	FIRN_RULE_HOOK_TIMEOUT,
	FIRN_RULE_KEYS
};

struct firn_rule_values {
	uint32_t priority;           /* 0-100; higher matters more */
	enum firn_never never;
	bool wake;                   /* thaw it when there is something for it to do */
	enum firn_rule_kind kind;
	enum firn_rule_place place;
	uint64_t min_bytes;          /* with less private memory it is not worth it */
	const char *before_freeze;   /* commands, run as the target's user; NULL or "": none */
	const char *after_thaw;
	uint64_t hook_timeout_ns;
};

struct firn_rule_span {
	int64_t min, max;            /* both included */
};

struct firn_rule {
	const char *name;            /* as in [rule NAME] */
	const char *file;            /* where it is written */
	uint32_t line;
	/* Conditions: patterns (see firn_pattern_match), NULL: none. */
	const char *comm, *exe, *cmdline, *cgroup, *unit, *user_unit, *container, *user;
	bool has_uid, has_oom_score_adj;
	struct firn_rule_span uid, oom_score_adj;
	unsigned int is;             /* any of them; 0: no condition */
	/* What it sets. */
	unsigned int sets;           /* bits 1 << enum firn_rule_key */
	struct firn_rule_values set;
};

/* What the rules say of one process. */
struct firn_verdict {
	struct firn_rule_values v;
	const struct firn_rule *by[FIRN_RULE_KEYS];  /* the rule that decided; NULL: none did, and the value is 0 */
};

/* Ask @n rules of @s.  *@ret points into the rules, and is as good for as long as they are. */
void firn_rules_match(const struct firn_rule *rules, size_t n, const struct firn_subject *s, struct firn_verdict *ret);

/*
 * Is @text one of the alternatives of @pattern?  They are divided by '|'.  '*' stands for any run of characters, '/'
 * too, '?' for one, [a-z] and [!a-z] for one of a set; a backslash takes the next one's meaning away.  Blanks around an
 * alternative do not count.  Time is at most the product of both lengths.  False where @text is NULL or "".
 */
bool firn_pattern_match(const char *pattern, const char *text);

/* "5", "5..10", "..10", "5..": whole numbers.  Returns 0, or -EINVAL, -ERANGE as firn_number_parse. */
int firn_rule_span_parse(const char *text, int64_t min, int64_t max, struct firn_rule_span *ret);

#endif
