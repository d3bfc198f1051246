/* SPDX-License-Identifier: MIT */
/*
 * The command line of firn.  A PID that is nearly a number, an option given twice or one that the
 * verb does not know is an error: guessing would freeze the wrong process.
 */
#include "cli/args.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cli/print.h"

enum {
	JSON = 1,
	DRY_RUN = 2,
	ALL = 4,
	TREE = 8,
	PIDS = 16,    /* takes PIDs */
	ONE_PID = 32, /* exactly one */
	PLACE = 64,   /* these three take a value */
	AFTER = 128,
	KIND = 256,
	CHECK_OR_SHOW = 1 << 20, /* takes one of these two words */
	PRIORITY = 512, /* these four too */
	NEED = 1024,
	TIMEOUT = 2048,
	FORMAT = 4096,
	SIZE = 8192,      /* takes one size */
	LAST_PRIORITY = 16384, /* the last word is a priority */
	FORCE = 131072,
	GROUP = 65536,    /* the selectors by name: they take a value too */
	WAKE = 1 << 21,
	COMMAND = 32768,  /* what follows the options is a command of its own */
	OR_NONE = 1 << 22,  /* PIDs may be left out: all are meant */
};

static const struct {
	enum firn_verb verb;
	const char *name;
	unsigned int takes;
} verbs[] = {
	{ FIRN_VERB_FREEZE, "freeze", JSON | DRY_RUN | FORCE | TREE | GROUP | PIDS | KIND | PLACE | AFTER | WAKE },
	{ FIRN_VERB_EVICT, "evict", JSON | DRY_RUN | FORCE | TREE | GROUP | PIDS | KIND | PLACE | AFTER },
	{ FIRN_VERB_THAW, "thaw", JSON | DRY_RUN | TREE | GROUP | PIDS | ALL },
	{ FIRN_VERB_LIST, "list", JSON },
	{ FIRN_VERB_SHOW, "show", JSON | PIDS | ONE_PID },
	{ FIRN_VERB_EXPLAIN, "explain", JSON | TREE | GROUP | PIDS | OR_NONE },
	{ FIRN_VERB_RECLAIM, "reclaim", JSON | DRY_RUN | SIZE | PRIORITY | TIMEOUT },
	{ FIRN_VERB_PRIORITY, "priority", JSON | DRY_RUN | TREE | GROUP | PIDS | LAST_PRIORITY },
	{ FIRN_VERB_RUN, "run", DRY_RUN | PRIORITY | NEED | TIMEOUT | COMMAND },
	{ FIRN_VERB_STATS, "stats", JSON | FORMAT },
	{ FIRN_VERB_MONITOR, "monitor", JSON },
	{ FIRN_VERB_TOP, "top", 0 },
	{ FIRN_VERB_CHECK, "check", JSON },
	{ FIRN_VERB_CONFIG, "config", JSON | CHECK_OR_SHOW },
	{ FIRN_VERB_HELP, "help", 0 },
};

static const struct {
	const char *name;
	unsigned int flag;
	enum firn_select what; /* of TREE and GROUP */
} options[] = {
	{ "--json", JSON, 0 },
	{ "--dry-run", DRY_RUN, 0 },
	{ "--all", ALL, 0 },
	{ "--force", FORCE, 0 },
	{ "--tree", TREE, FIRN_SELECT_TREE },
	{ "--cgroup", GROUP, FIRN_SELECT_CGROUP },
	{ "--unit", GROUP, FIRN_SELECT_UNIT },
	{ "--name", GROUP, FIRN_SELECT_NAME },
	{ "--container", GROUP, FIRN_SELECT_CONTAINER },
	{ "--place", PLACE, 0 },
	{ "--after", AFTER, 0 },
	{ "--kind", KIND, 0 },
	{ "--wake", WAKE, 0 },
	{ "--priority", PRIORITY, 0 },
	{ "--need", NEED, 0 },
	{ "--timeout", TIMEOUT, 0 },
	{ "--format", FORMAT, 0 },
};

static const char *const later_verbs[] = { "consolidate", "peek", "core", "map" };

const char *firn_verb_name(enum firn_verb verb)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (verbs[i].verb == verb)
			return verbs[i].name;
	}
	return "";
}

static int FIRN_PRINTF(2, 3) usage(struct firn_args *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->error, sizeof(a->error), fmt, ap);
	va_end(ap);
	return FIRN_USAGE;
}

static bool is_one_of(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(word, list[i]) == 0)
			return true;
	}
	return false;
}

/* How many letters to change, add, drop or swap with their neighbour; at most 2 are of interest. */
static size_t distance(const char *a, const char *b)
{
	enum {
		LONGEST = 15
	};
	size_t d[LONGEST + 1][LONGEST + 1];
	size_t m = strlen(a), n = strlen(b);

	if (m > LONGEST || n > LONGEST)
		return LONGEST;
	for (size_t i = 0; i <= m; i++) {
		for (size_t j = 0; j <= n; j++) {
			if (i == 0 || j == 0) {
				d[i][j] = i + j;
				continue;
			}
			d[i][j] = firn_min_u64(firn_min_u64(d[i - 1][j], d[i][j - 1]) + 1,
					       d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = firn_min_u64(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[m][n];
}

static const char *nearest_verb(const char *word)
{
	const char *best = NULL;
	size_t least = 3;

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		size_t d = distance(word, verbs[i].name);

		if (d < least && d < strlen(verbs[i].name)) {
			least = d;
			best = verbs[i].name;
		}
	}
	return best;
}

/* An unknown verb, or one of a later version. */
static int unknown_verb(struct firn_args *a, const char *word)
{
	char shown[64];
	const char *near = nearest_verb(word);

	firn_print_escaped(shown, sizeof(shown), word, 40);
	if (is_one_of(word, later_verbs, ARRAY_SIZE(later_verbs)))
		return usage(a, "%s comes with a later version: see firn --help", word);
	if (near)
		return usage(a, "unknown verb '%s': did you mean '%s'?", shown, near);
	return usage(a, "unknown verb '%s': see firn --help", shown);
}

static unsigned int find_verb(const char *word, enum firn_verb *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(word, verbs[i].name) == 0) {
			*ret = verbs[i].verb;
			return verbs[i].takes;
		}
	}
	*ret = FIRN_VERB_NONE;
	return 0;
}

static int add_target(struct firn_args *a, const char *word, enum firn_select what)
{
	char shown[64];
	long pid = 0;
	const char *p;

	firn_print_escaped(shown, sizeof(shown), word, 40);
	/* No strtol: it takes blanks, signs and what not. */
	for (p = word; *p >= '0' && *p <= '9' && pid <= INT_MAX; p++)
		pid = pid * 10 + (*p - '0');
	if (p == word || (*p && pid <= INT_MAX))
		return usage(a, "'%s' is not a PID: give a decimal number, as in 1234", shown);
	if (pid == 0 || pid > INT_MAX || word[0] == '0')
		return usage(a, "'%s' is no PID of a process: give a decimal number, as in 1234",
			     shown);
	for (size_t i = 0; i < a->count; i++) {
		if (a->targets[i].what <= FIRN_SELECT_TREE && a->targets[i].pid == pid)
			return usage(a, "%ld is named twice: name each target once", pid);
	}
	a->targets[a->count++] = (struct firn_selector){ what, (pid_t)pid, NULL };
	return FIRN_OK;
}

/* A group by name; what the agent does not take, it says. */
static int add_group(struct firn_args *a, const char *word, const char *option, enum firn_select what)
{
	char shown[64];

	firn_print_escaped(shown, sizeof(shown), word, 40);
	if (!*word)
		return usage(a, "%s has an empty value: give it, as in %s", option,
			     what == FIRN_SELECT_CGROUP	   ? "--cgroup /user.slice" :
			     what == FIRN_SELECT_UNIT	   ? "--unit redis.service" :
			     what == FIRN_SELECT_NAME	   ? "--name 'redis*'" :
							     "--container 4f3c2a");
	for (size_t i = 0; i < a->count; i++) {
		if (a->targets[i].what == what && strcmp(a->targets[i].name, word) == 0)
			return usage(a, "%s %s is named twice: name each target once", option, shown);
	}
	a->targets[a->count++] = (struct firn_selector){ what, 0, word };
	return FIRN_OK;
}

static int take_place(struct firn_args *a, const char *word)
{
	char shown[64];

	a->move = strcmp(word, "ram,store") == 0;
	a->ram = a->move || strcmp(word, "ram") == 0;
	if (a->ram || strcmp(word, "store") == 0)
		return FIRN_OK;
	firn_print_escaped(shown, sizeof(shown), word, 40);
	return usage(a, "'%s' is no place: ram, store, or ram,store", shown);
}

static int take_after(struct firn_args *a, const char *word)
{
	enum {
		YEAR = 365 * 86400
	};
	const char *p;
	char shown[64];
	long n = 0;

	for (p = word; *p >= '0' && *p <= '9' && n <= YEAR; p++)
		n = n * 10 + (*p - '0');
	a->after = n;
	if (p > word && !*p && n <= YEAR)
		return FIRN_OK;
	firn_print_escaped(shown, sizeof(shown), word, 40);
	return usage(a, "'%s' is no number of seconds up to a year: give one, as in --after=300", shown);
}

static int take_kind(struct firn_args *a, const char *word)
{
	char shown[64];

	if (strcmp(word, "copied") == 0) {
		a->kind = FIRN_COPIED;
	} else if (strcmp(word, "direct") == 0) {
		a->kind = FIRN_DIRECT;
	} else {
		firn_print_escaped(shown, sizeof(shown), word, 40);
		return usage(a, "unknown kind '%s': copied or direct", shown);
	}
	return FIRN_OK;
}

static int take_priority(struct firn_args *a, const char *word)
{
	char shown[64];
	int64_t n;

	if (firn_number_parse(word, 0, 100, &n) == 0) {
		a->priority = (int)n;
		return FIRN_OK;
	}
	firn_print_escaped(shown, sizeof(shown), word, 40);
	return usage(a, "'%s' is no priority: give 0 to 100; higher matters more", shown);
}

static int take_size(struct firn_args *a, const char *word)
{
	char shown[64];

	if (firn_size_parse(word, &a->size) == 0 && a->size && a->size <= INT64_MAX)
		return FIRN_OK;
	firn_print_escaped(shown, sizeof(shown), word, 40);
	if (a->size > INT64_MAX)
		return usage(a, "'%s' is more than any machine has: give a size, as in 2G or 512M", shown);
	return usage(a, "'%s' is no size: give one, as in 2G, 512M or 1.5GiB", shown);
}

static int take_timeout(struct firn_args *a, const char *word)
{
	char shown[64];

	if (firn_duration_parse(word, &a->timeout_ns) == 0 && a->timeout_ns)
		return FIRN_OK;
	firn_print_escaped(shown, sizeof(shown), word, 40);
	return usage(a, "'%s' is no time: give one, as in 500ms, 90s or 5min", shown);
}

static int take_format(struct firn_args *a, const char *word)
{
	static const char *const names[] = { "text", "json", "openmetrics" };
	char shown[64];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(word, names[i]) == 0) {
			a->format = (enum firn_args_format)i;
			return FIRN_OK;
		}
	}
	firn_print_escaped(shown, sizeof(shown), word, 40);
	return usage(a, "unknown format '%s': text, json or openmetrics", shown);
}

/* What an option lacks, where its value is. */
static const char *value_of(unsigned int flag, enum firn_select what)
{
	switch (flag) {
	case TREE:
		return "PID: give it, as in --tree 1234";
	case GROUP:
		return what == FIRN_SELECT_CGROUP ? "path: give it, as in --cgroup /user.slice" :
		       what == FIRN_SELECT_UNIT	  ? "unit: give it, as in --unit redis.service" :
		       what == FIRN_SELECT_NAME	  ? "pattern: give it, as in --name 'redis*'" :
						    "id: give it, as in --container 4f3c2a";
	case KIND:
		return "value: copied or direct";
	case PLACE:
		return "value: ram, store, or ram,store";
	case PRIORITY:
		return "value: 0 to 100, as in --priority 80";
	case NEED:
		return "size: give it, as in --need 2G";
	case TIMEOUT:
		return "time: give it, as in --timeout 30s";
	case FORMAT:
		return "value: text, json or openmetrics";
	default:
		return "seconds: give them, as in --after=300";
	}
}

#define WITH_VALUE (TREE | GROUP | KIND | PLACE | AFTER | PRIORITY | NEED | TIMEOUT | FORMAT)

/* An option: @value is what follows its '=', or NULL; @next the next word, or NULL.  *@ret_used:
 * @next was taken. */
static int take_option(struct firn_args *a, unsigned int takes, unsigned int *given,
		       const char *name, const char *value, const char *next, bool *ret_used)
{
	const char *verb = firn_verb_name(a->verb);
	unsigned int flag = 0;
	enum firn_select what = FIRN_SELECT_PID;
	char shown[64];

	*ret_used = false;
	firn_print_escaped(shown, sizeof(shown), name, 40);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (strcmp(name, options[i].name) == 0) {
			flag = options[i].flag;
			what = options[i].what;
		}
	}
	if (!flag && name[1] >= '0' && name[1] <= '9')
		return usage(a, "'%s' is not a PID: give a decimal number, as in 1234", shown);
	if (!flag)
		return usage(a, "unknown option '%s': see firn %s --help", shown, verb);
	if (!(takes & flag))
		return usage(a, "%s has no option %s: see firn %s --help", verb, name, verb);
	if (flag & WITH_VALUE && !value) {
		if (!next)
			return usage(a, "%s lacks its %s", name, value_of(flag, what));
		value = next;
		*ret_used = true;
	}
	if (flag == TREE)
		return add_target(a, value, FIRN_SELECT_TREE);
	if (flag == GROUP)
		return add_group(a, value, name, what);
	if (value && !(flag & WITH_VALUE))
		return usage(a, "%s takes no value: leave out '=' and what follows", name);
	if (*given & flag)
		return usage(a, "%s is given twice: give it once", name);
	*given |= flag;
	if (flag == KIND)
		return take_kind(a, value);
	if (flag == PLACE)
		return take_place(a, value);
	if (flag == PRIORITY)
		return take_priority(a, value);
	if (flag == NEED)
		return take_size(a, value);
	if (flag == TIMEOUT)
		return take_timeout(a, value);
	if (flag == FORMAT)
		return take_format(a, value);
	return flag == AFTER ? take_after(a, value) : FIRN_OK;
}

static int parse_words(struct firn_args *a, unsigned int takes, int argc, char *const *argv)
{
	unsigned int given = 0;
	bool only_targets = false;

	for (int i = 0; i < argc; i++) {
		const char *word = argv[i];
		int r;

		if (takes & COMMAND && (strcmp(word, "--") == 0 || word[0] != '-' || !word[1])) {
			a->command = argv + i + (strcmp(word, "--") == 0);
			break;
		}
		if (!only_targets && strcmp(word, "--") == 0) {
			only_targets = true;
			continue;
		}
		if (!only_targets && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
			a->topic = a->verb;
			a->verb = FIRN_VERB_HELP;
			return FIRN_OK;
		}
		if (takes & LAST_PRIORITY && i == argc - 1 && a->count && word[0] == '-' && word[1] >= '0' && word[1] <= '9') {
			r = take_priority(a, word);
		} else if (!only_targets && word[0] == '-' && word[1]) {
			const char *equals = strchr(word, '=');
			char name[64];
			bool used;

			snprintf(name, sizeof(name), "%.*s",
				 (int)firn_min_u64(equals ? (size_t)(equals - word) : strlen(word),
						   63),
				 word);
			r = take_option(a, takes, &given, name, equals ? equals + 1 : NULL,
					i + 1 < argc ? argv[i + 1] : NULL, &used);
			i += used;
		} else if (takes & CHECK_OR_SHOW && !(given & CHECK_OR_SHOW) &&
			   (strcmp(word, "check") == 0 || strcmp(word, "show") == 0)) {
			given |= CHECK_OR_SHOW;
			a->show = word[0] == 's';
			r = FIRN_OK;
		} else if (takes & CHECK_OR_SHOW) {
			return usage(a, "config takes one of check and show: see firn config --help");
		} else if (takes & SIZE && !a->size) {
			r = take_size(a, word);
		} else if (takes & LAST_PRIORITY && i == argc - 1 && a->count) {
			r = take_priority(a, word);
		} else if (!(takes & PIDS)) {
			char shown[64];

			firn_print_escaped(shown, sizeof(shown), word, 40);
			r = usage(a, "%s takes no target ('%s'): see firn %s --help",
				  firn_verb_name(a->verb), shown, firn_verb_name(a->verb));
		} else {
			r = add_target(a, word, FIRN_SELECT_PID);
		}
		if (r != FIRN_OK)
			return r;
	}
	if (takes & COMMAND && (!a->command || !*a->command))
		return usage(a, "run lacks its command: give it, as in firn run --priority 80 -- make -j8");
	if (takes & SIZE && !a->size)
		return usage(a, "reclaim lacks its size: give it, as in firn reclaim 2G");
	if (takes & LAST_PRIORITY && a->count && a->priority < 0)
		return usage(a, "priority lacks the priority: give 0 to 100 last, as in firn priority 1234 80");
	if (given & JSON && given & FORMAT)
		return usage(a, "--json and --format exclude each other: give one of them");
	a->json = given & JSON;
	a->dry_run = given & DRY_RUN;
	a->all = given & ALL;
	a->force = given & FORCE;
	a->wake = given & WAKE;
	if (a->after >= 0 && !a->move)
		return usage(a, "--after belongs to --place=ram,store: give both");
	if (a->all && a->count)
		return usage(a, "--all and a target exclude each other: give one of them");
	if (takes & CHECK_OR_SHOW && !(given & CHECK_OR_SHOW))
		return usage(a, "config lacks what to do: firn config check, or firn config show");
	if (takes & PIDS && !(takes & OR_NONE) && !a->count && !a->all)
		return usage(a, "%s lacks its target: give a PID, as in firn %s 1234%s",
			     firn_verb_name(a->verb), firn_verb_name(a->verb), takes & LAST_PRIORITY ? " 80" : "");
	if (takes & ONE_PID && a->count > 1)
		return usage(a, "%s takes one PID: give one, or use firn list",
			     firn_verb_name(a->verb));
	return FIRN_OK;
}

int firn_args_parse(int argc, char *const *argv, struct firn_args *a)
{
	unsigned int takes;
	const char *word;

	*a = (struct firn_args){ .after = -1, .priority = -1 };
	if (argc < 2)
		return usage(a, "no verb: see firn --help");
	word = argv[1];
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 ||
	    strcmp(word, "--version") == 0) {
		if (argc > 2)
			return usage(a, "%s stands alone: leave out what follows it", word);
		a->verb = word[2] == 'v' ? FIRN_VERB_VERSION : FIRN_VERB_HELP;
		return FIRN_OK;
	}
	if (word[0] == '-' || !*word) {
		char shown[64];

		firn_print_escaped(shown, sizeof(shown), word, 40);
		return usage(a, "'%s' is no verb: a verb comes first, see firn --help", shown);
	}
	takes = find_verb(word, &a->verb);
	if (a->verb == FIRN_VERB_NONE)
		return unknown_verb(a, word);
	if (a->verb == FIRN_VERB_HELP) {
		if (argc > 3)
			return usage(a, "help takes one verb: give one, as in firn help freeze");
		if (argc == 3) {
			find_verb(argv[2], &a->topic);
			if (a->topic == FIRN_VERB_NONE)
				return unknown_verb(a, argv[2]);
		}
		return FIRN_OK;
	}
	a->targets = calloc((size_t)argc, sizeof(*a->targets));
	if (!a->targets) {
		usage(a, "out of memory: free some and try again");
		return FIRN_FAILED;
	}
	return parse_words(a, takes, argc - 2, argv + 2);
}

void firn_args_done(struct firn_args *a)
{
	free(a->targets);
	a->targets = NULL;
	a->count = 0;
}
