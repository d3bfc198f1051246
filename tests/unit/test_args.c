/* SPDX-License-Identifier: MIT */
/*
 * The command line: what is nearly right is refused, and the message says what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cli/args.h"

enum {
	WORDS = 16
};

static int parse(struct firn_args *a, const char *const *words)
{
	static char *argv[WORDS + 2];   /* a command points into it */
	int argc = 1;

	memset(argv, 0, sizeof(argv));
	argv[0] = (char *)"firn";

	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)words[argc - 1];
	return firn_args_parse(argc, argv, a);
}

static void test_decide(void **state)
{
	static const char *const reclaim[16] = { "reclaim", "--priority", "80", "1.5G", "--timeout=2min" };
	static const char *const priority[16] = { "priority", "5", "--tree", "6", "70" };
	static const char *const run[16] = { "run", "--need=1M", "--priority", "0", "--", "echo", "--json", "5" };
	static const char *const bare[16] = { "run", "--priority=7", "sleep", "--help" };
	struct firn_args a;

	(void)state;
	assert_int_equal(parse(&a, reclaim), FIRN_OK);
	assert_int_equal(a.size, 3ull << 29);
	assert_int_equal(a.priority, 80);
	assert_true(a.timeout_ns == 120000000000ull);
	firn_args_done(&a);
	assert_int_equal(parse(&a, priority), FIRN_OK);
	assert_int_equal(a.count, 2);
	assert_int_equal(a.targets[1].what, FIRN_SELECT_TREE);
	assert_int_equal(a.priority, 70);
	firn_args_done(&a);
	/* What belongs to the command is not ours. */
	assert_int_equal(parse(&a, run), FIRN_OK);
	assert_int_equal(a.size, 1 << 20);
	assert_int_equal(a.priority, 0);
	assert_false(a.json);
	assert_string_equal(a.command[0], "echo");
	assert_string_equal(a.command[2], "5");
	firn_args_done(&a);
	assert_int_equal(parse(&a, bare), FIRN_OK);
	assert_int_equal(a.verb, FIRN_VERB_RUN);
	assert_string_equal(a.command[1], "--help");
	firn_args_done(&a);
}

static void test_refused(void **state)
{
	static const struct {
		const char *words[WORDS];
		const char *message;
	} cases[] = {
		{ { NULL }, "no verb: see firn --help" },
		{ { "" }, "'' is no verb: a verb comes first, see firn --help" },
		{ { "--json", "list" },
		  "'--json' is no verb: a verb comes first, see firn --help" },
		{ { "freze", "1" }, "unknown verb 'freze': did you mean 'freeze'?" },
		{ { "haw" }, "unknown verb 'haw': did you mean 'thaw'?" },
		{ { "thwa" }, "unknown verb 'thwa': did you mean 'thaw'?" },
		{ { "defragment" }, "unknown verb 'defragment': see firn --help" },
		{ { "a\033[31m" }, "unknown verb 'a?[31m': see firn --help" },
		{ { "config" }, "config lacks what to do: firn config check, or firn config show" },
		{ { "config", "edit" }, "config takes one of check and show: see firn config --help" },
		{ { "config", "show", "check" }, "config takes one of check and show: see firn config --help" },
		{ { "top", "5" }, "top takes no target ('5'): see firn top --help" },
		{ { "peek", "1" }, "peek comes with a later version: see firn --help" },
		{ { "reclaim" }, "reclaim lacks its size: give it, as in firn reclaim 2G" },
		{ { "reclaim", "2GB" }, "'2GB' is no size: give one, as in 2G, 512M or 1.5GiB" },
		{ { "reclaim", "lots" }, "'lots' is no size: give one, as in 2G, 512M or 1.5GiB" },
		{ { "reclaim", "-2G" }, "'-2G' is not a PID: give a decimal number, as in 1234" },
		{ { "reclaim", "0" }, "'0' is no size: give one, as in 2G, 512M or 1.5GiB" },
		{ { "reclaim", "1G", "2G" }, "reclaim takes no target ('2G'): see firn reclaim --help" },
		{ { "reclaim", "--priority", "101", "1G" },
		  "'101' is no priority: give 0 to 100; higher matters more" },
		{ { "reclaim", "--priority=x", "1G" },
		  "'x' is no priority: give 0 to 100; higher matters more" },
		{ { "reclaim", "--timeout=5", "1G" }, "'5' is no time: give one, as in 500ms, 90s or 5min" },
		{ { "reclaim", "--timeout" }, "--timeout lacks its time: give it, as in --timeout 30s" },
		{ { "reclaim", "8E" }, "'8E' is more than any machine has: give a size, as in 2G or 512M" },
		{ { "priority", "5" },
		  "priority lacks the priority: give 0 to 100 last, as in firn priority 1234 80" },
		{ { "priority", "5", "-1" }, "'-1' is no priority: give 0 to 100; higher matters more" },
		{ { "priority" }, "priority lacks its target: give a PID, as in firn priority 1234 80" },
		{ { "priority", "80", "1234" }, "'1234' is no priority: give 0 to 100; higher matters more" },
		{ { "priority", "5", "200" }, "'200' is no priority: give 0 to 100; higher matters more" },
		{ { "run", "--priority", "5" },
		  "run lacks its command: give it, as in firn run --priority 80 -- make -j8" },
		{ { "run", "--need", "x", "--", "true" }, "'x' is no size: give one, as in 2G, 512M or 1.5GiB" },
		{ { "run", "--tree", "5", "--", "true" }, "run has no option --tree: see firn run --help" },
		{ { "stats", "--format=xml" }, "unknown format 'xml': text, json or openmetrics" },
		{ { "stats", "--format=text", "--json" },
		  "--json and --format exclude each other: give one of them" },
		{ { "evict", "--wake", "5" }, "evict has no option --wake: see firn evict --help" },
		{ { "freeze", "--wake", "--wake", "5" }, "--wake is given twice: give it once" },
		{ { "freeze", "--wake=5", "5" }, "--wake takes no value: leave out '=' and what follows" },
		{ { "freeze" }, "freeze lacks its target: give a PID, as in firn freeze 1234" },
		{ { "freeze", "--" },
		  "freeze lacks its target: give a PID, as in firn freeze 1234" },
		{ { "freeze", "12x" }, "'12x' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "-1" }, "'-1' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "--", "-1" },
		  "'-1' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "+1" }, "'+1' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", " 1" }, "' 1' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "" }, "'' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "-" }, "'-' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "0" },
		  "'0' is no PID of a process: give a decimal number, as in 1234" },
		{ { "freeze", "01" },
		  "'01' is no PID of a process: give a decimal number, as in 1234" },
		{ { "freeze", "2147483648" },
		  "'2147483648' is no PID of a process: give a decimal number, as in 1234" },
		{ { "freeze", "99999999999999999999" },
		  "'99999999999999999999' is no PID of a process: give a decimal number, as in 1234" },
		{ { "freeze", "5", "5" }, "5 is named twice: name each target once" },
		{ { "freeze", "5", "--tree", "5" }, "5 is named twice: name each target once" },
		{ { "freeze", "--tree" }, "--tree lacks its PID: give it, as in --tree 1234" },
		{ { "freeze", "--tree=" }, "'' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "--tree", "--json" },
		  "'--json' is not a PID: give a decimal number, as in 1234" },
		{ { "freeze", "--cgroup" }, "--cgroup lacks its path: give it, as in --cgroup /user.slice" },
		{ { "freeze", "--unit" }, "--unit lacks its unit: give it, as in --unit redis.service" },
		{ { "freeze", "--name" }, "--name lacks its pattern: give it, as in --name 'redis*'" },
		{ { "freeze", "--container" }, "--container lacks its id: give it, as in --container 4f3c2a" },
		{ { "freeze", "--name=" }, "--name has an empty value: give it, as in --name 'redis*'" },
		{ { "thaw", "--cgroup", "" }, "--cgroup has an empty value: give it, as in --cgroup /user.slice" },
		{ { "freeze", "--name", "a", "--name=a" }, "--name a is named twice: name each target once" },
		{ { "show", "--cgroup", "/a" }, "show has no option --cgroup: see firn show --help" },
		{ { "freeze", "--json", "5", "--json" }, "--json is given twice: give it once" },
		{ { "freeze", "--kind" }, "--kind lacks its value: copied or direct" },
		{ { "freeze", "--kind", "mixed", "5" }, "unknown kind 'mixed': copied or direct" },
		{ { "thaw", "--kind=direct", "5" }, "thaw has no option --kind: see firn thaw --help" },
		{ { "freeze", "--json=yes", "5" },
		  "--json takes no value: leave out '=' and what follows" },
		{ { "freeze", "--jsn", "5" }, "unknown option '--jsn': see firn freeze --help" },
		{ { "freeze", "-n", "5" }, "unknown option '-n': see firn freeze --help" },
		{ { "freeze", "--all" }, "freeze has no option --all: see firn freeze --help" },
		{ { "freeze", "--place=disk", "5" }, "'disk' is no place: ram, store, or ram,store" },
		{ { "freeze", "--place" }, "--place lacks its value: ram, store, or ram,store" },
		{ { "freeze", "--place=ram", "--place=ram", "5" },
		  "--place is given twice: give it once" },
		{ { "freeze", "--place=ram", "--after=3", "5" },
		  "--after belongs to --place=ram,store: give both" },
		{ { "freeze", "--place=ram,store", "--after", "3s", "5" },
		  "'3s' is no number of seconds up to a year: give one, as in --after=300" },
		{ { "freeze", "--place=ram,store", "--after=31536001", "5" },
		  "'31536001' is no number of seconds up to a year: give one, as in --after=300" },
		{ { "thaw", "--place=ram", "5" }, "thaw has no option --place: see firn thaw --help" },
		{ { "thaw", "--all", "5" },
		  "--all and a target exclude each other: give one of them" },
		{ { "thaw", "--dry-run" },
		  "thaw lacks its target: give a PID, as in firn thaw 1234" },
		{ { "list", "5" }, "list takes no target ('5'): see firn list --help" },
		{ { "list", "--dry-run" }, "list has no option --dry-run: see firn list --help" },
		{ { "show", "5", "6" }, "show takes one PID: give one, or use firn list" },
		{ { "show", "--tree", "5" }, "show has no option --tree: see firn show --help" },
		{ { "help", "thaw", "list" },
		  "help takes one verb: give one, as in firn help freeze" },
		{ { "help", "frees" }, "unknown verb 'frees': did you mean 'freeze'?" },
		{ { "--version", "5" }, "--version stands alone: leave out what follows it" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct firn_args a;

		assert_int_equal(parse(&a, cases[i].words), FIRN_USAGE);
		assert_string_equal(a.error, cases[i].message);
		firn_args_done(&a);
	}
}

static void test_taken(void **state)
{
	struct firn_args a;

	(void)state;
	assert_int_equal(parse(&a, (const char *const[]){ "freeze", "--json", "5", "--tree", "6",
							  "--tree=7", "--dry-run", NULL }),
			 FIRN_OK);
	assert_int_equal(a.verb, FIRN_VERB_FREEZE);
	assert_true(a.json && a.dry_run && !a.all);
	assert_int_equal(a.count, 3);
	assert_true(a.targets[0].what == FIRN_SELECT_PID && a.targets[0].pid == 5);
	assert_true(a.targets[1].what == FIRN_SELECT_TREE && a.targets[1].pid == 6);
	assert_true(a.targets[2].what == FIRN_SELECT_TREE && a.targets[2].pid == 7);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "thaw", "5", "--cgroup", "/a", "--unit=b.service", "--name", "5",
							  "--container=abcd", "--name=--x", "6", NULL }),
			 FIRN_OK);
	assert_int_equal(a.count, 7);
	assert_true(a.targets[1].what == FIRN_SELECT_CGROUP && a.targets[2].what == FIRN_SELECT_UNIT);
	assert_true(a.targets[3].what == FIRN_SELECT_NAME && a.targets[4].what == FIRN_SELECT_CONTAINER);
	assert_string_equal(a.targets[1].name, "/a");
	assert_string_equal(a.targets[2].name, "b.service");
	assert_string_equal(a.targets[3].name, "5");
	assert_string_equal(a.targets[4].name, "abcd");
	assert_string_equal(a.targets[5].name, "--x");
	assert_true(a.targets[6].what == FIRN_SELECT_PID && a.targets[6].pid == 6);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "evict", "--force", "5", NULL }), FIRN_OK);
	assert_true(a.force && a.count == 1);
	firn_args_done(&a);
	assert_int_equal(parse(&a, (const char *const[]){ "freeze", "5", NULL }), FIRN_OK);
	assert_false(a.force);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "evict", "--place=ram", "5", NULL }), FIRN_OK);
	assert_true(a.ram && !a.move && a.after == -1);
	firn_args_done(&a);
	assert_int_equal(parse(&a, (const char *const[]){ "freeze", "--place", "ram,store", "--after", "7", "5",
							  NULL }),
			 FIRN_OK);
	assert_true(a.ram && a.move && a.after == 7 && a.count == 1);
	firn_args_done(&a);
	assert_int_equal(parse(&a, (const char *const[]){ "freeze", "--place=store", "5", NULL }), FIRN_OK);
	assert_true(!a.ram && !a.move);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "thaw", "--all", NULL }), FIRN_OK);
	assert_true(a.verb == FIRN_VERB_THAW && a.all && !a.json && a.count == 0);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "show", "--", "2147483647", NULL }),
			 FIRN_OK);
	assert_true(a.verb == FIRN_VERB_SHOW && a.count == 1 && a.targets[0].pid == INT32_MAX);
	firn_args_done(&a);

	/* --help wins over what it stands beside. */
	assert_int_equal(parse(&a, (const char *const[]){ "evict", "--help", "12x", NULL }),
			 FIRN_OK);
	assert_true(a.verb == FIRN_VERB_HELP && a.topic == FIRN_VERB_EVICT);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "help", "list", NULL }), FIRN_OK);
	assert_true(a.verb == FIRN_VERB_HELP && a.topic == FIRN_VERB_LIST);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "config", "show", "--json", NULL }), FIRN_OK);
	assert_true(a.verb == FIRN_VERB_CONFIG && a.show && a.json);
	firn_args_done(&a);
	assert_int_equal(parse(&a, (const char *const[]){ "config", "check", NULL }), FIRN_OK);
	assert_true(a.verb == FIRN_VERB_CONFIG && !a.show);
	firn_args_done(&a);

	assert_int_equal(parse(&a, (const char *const[]){ "--version", NULL }), FIRN_OK);
	assert_int_equal(a.verb, FIRN_VERB_VERSION);
	firn_args_done(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decide),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
