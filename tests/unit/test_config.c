/* SPDX-License-Identifier: MIT */
/*
 * The configuration: every way to be wrong has its line and its words; what counts is the last word; what is built in
 * is valid, protects what it must, and agrees with the policy's own defaults.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/config_internal.h"
#include "agent/device.h"
#include "agent/ini.h"

#define MIB (1ull << 20)
#define SECOND 1000000000ull

static char dir[64];

static void write_bytes(const char *name, const char *text, size_t len)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void write_file(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

static void remove_file(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
}

static int setup(void **state)
{
	char path[128];

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/firn-config-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/firn.conf.d", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static struct firn_config *load(void)
{
	struct firn_config_errors e;
	struct firn_config *c = NULL;
	int err = firn_config_load(dir, &c, &e);

	if (err)
		fail_msg("%d, %s:%u: %s", err, e.n ? e.list[0].file : "", e.n ? e.list[0].line : 0,
			 e.n ? e.list[0].message : "");
	assert_int_equal(e.n, 0);
	firn_config_errors_clear(&e);
	return c;
}

/* @text is wrong in one way only, in @line (0: the file as a whole), and @words are told. */
static void wrong(const char *text, unsigned int line, const char *words)
{
	struct firn_config_errors e;
	struct firn_config *c = (void *)1;
	char file[128];

	write_file("firn.conf", text);
	snprintf(file, sizeof(file), "%s/firn.conf", dir);
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_ptr_equal(c, (void *)1);
	if (e.n != 1 || e.list[0].line != line || strcmp(e.list[0].file, file) || !strstr(e.list[0].message, words) ||
	    !strchr(e.list[0].message, ':'))
		fail_msg("'%s': %zu, %s:%u: %s", text, e.n, e.n ? e.list[0].file : "", e.n ? e.list[0].line : 0,
			 e.n ? e.list[0].message : "");
	firn_config_errors_clear(&e);
	/* And without a list. */
	assert_int_equal(firn_config_load(dir, &c, NULL), -EINVAL);
	remove_file("firn.conf");
}

static void test_wrong(void **state)
{
	static const struct {
		const char *text;
		unsigned int line;
		const char *words;
	} cases[] = {
		/* Lines. */
		{ "auto = yes\n", 1, "'auto' is in no section: write [agent]" },
		{ "[agent]\nauto\n", 2, "write key = value" },
		{ "[agent]\n\n\n= yes\n", 4, "there is no key before '='" },
		{ "[agent\n", 1, "a section is [name]" },
		{ "[agent] auto = yes\n", 1, "a section is [name]" },
		{ "# \n; \n[]\n", 3, "the section has no name" },
		{ "[agent]\nauto = y\001s\n", 2, "control character" },
		{ "[agent]\nauto = \033[31m\n", 2, "control character" },
		{ "[agents]\nauto = yes\n", 1, "there is no section [agents]" },
		{ "[agent x]\nauto = yes\n", 1, "there is no section [agent x]" },
		{ "[Agent]\nauto = yes\n", 1, "there is no section [Agent]" },
		{ "[profile big]\nstore.buffer = 1G\n", 1, "there is no section [profile big]" },
		{ "[agent]\n[policy]\n[agent]\nprofile = nonsense\n", 3, "section [agent] is here twice, first in line 1" },
		{ "[rule a]\nwake = yes\n[rule  a]\nwake = yes\n", 3, "is here twice, first in line 1" },
		{ "[rule]\nnever = yes\n", 1, "the rule has no name" },
		{ "[agent]\nauto = no\nauto = yes\n", 3, "auto is set twice, first in line 2" },
		{ "[agent]\nautomatic = yes\n", 2, "there is no key 'automatic' in [agent]" },
		{ "[agent]\nlimit = 1G\n", 2, "there is no key 'limit' in [agent]" },
		/* Values. */
		{ "[agent]\nprofile = laptop\n", 2, "give server, desktop or embedded" },
		{ "[agent]\nauto = true\n", 2, "give yes, no, or dry-run" },
		{ "[agent]\nauto =\n", 2, "auto is ''" },
		{ "[agent]\nauto = yes ; by night\n", 2, "auto is 'yes ; by night'" },
		{ "[agent]\non-stop = kill\n", 2, "give thaw or leave" },
		{ "[agent]\nscope = group:x\n", 2, "give cgroup:PATH" },
		{ "[agent]\nscope = tree:x\n", 2, "give cgroup:PATH" },
		{ "[agent]\nscope = user:\n", 2, "give cgroup:PATH" },
		{ "[agent]\nlook-every = 5\n", 2, "look-every is '5', which is no time" },
		{ "[agent]\nlook-every = 1ms\n", 2, "give 100ms to 1h" },
		{ "[agent]\nmetrics-textfile = firn.prom\n", 2, "give a path that begins with /" },
		{ "[policy]\nlow = 2Q\n", 2, "low is '2Q', which is no size" },
		{ "[policy]\nlow = 101%\n", 2, "give 0% to 100%" },
		{ "[policy]\nlow =\n", 2, "low is ''" },
		{ "[policy]\npsi-some = 10\n", 2, "psi-some is '10', which is no percentage" },
		{ "[policy]\npsi-some = 100.01%\n", 2, "give 0% to 100%" },
		{ "[policy]\npressure-for = 101\n", 2, "give active, system, or a priority" },
		{ "[policy]\nmin-size = -1\n", 2, "min-size is '-1', which is no size" },
		{ "[policy]\nmin-size = 2 G\n", 2, "which is no size" },
		{ "[policy]\nmin-size = 99999999999999999999\n", 2, "give 0 to 18446744073709551615" },
		{ "[policy]\nmin-idle = 5 min\n", 2, "which is no time" },
		{ "[policy]\nticks-per-minute = 1.5\n", 2, "which is no whole number" },
		{ "[policy]\nticks-per-minute = 1000001\n", 2, "give 0 to 1000000" },
		{ "[policy]\nlow = 20%\nhigh = 10%\n", 3, "the high watermark is below the low one" },
		{ "[store]\nlimit = auto\n", 2, "limit is 'auto'" },
		{ "[store]\nlimit = much\n", 2, "a share as in 5% or none" },
		{ "[store]\nlimit = 101%\n", 2, "give 0% to 100%" },
		{ "[store]\ndaily-budget = -1G\n", 2, "daily-budget is '-1G'" },
		{ "[store]\ndaily-budget = 99999999999999999999G\n", 2, "that is too much" },
		{ "[store]\nbuffer = 4096\n", 2, "give 1MiB to 1GiB" },
		/* Rules. */
		{ "[rule a]\npriority = 101\n", 2, "priority is '101': give 0 to 100" },
		{ "[rule a]\npriority = -1\n", 2, "priority is '-1': give 0 to 100" },
		{ "[rule a]\npriority = high\n", 2, "which is no whole number" },
		{ "[rule a]\nnever = maybe\n", 2, "give yes, no, or always" },
		{ "[rule a]\nwake = 1\n", 2, "give yes or no" },
		{ "[rule a]\nkind = folded\n", 2, "give copied, direct, or agent" },
		{ "[rule a]\nplace = disk\n", 2, "give store, ram, or ram,store" },
		{ "[rule a]\nmin-size = big\n", 2, "which is no size" },
		{ "[rule a]\nhook-timeout = 11min\n", 2, "give 1ms to 10min" },
		{ "[rule a]\ncomm =\nwake = yes\n", 2, "comm is empty" },
		{ "[rule a]\ncomm = a | dbus-broker-launch\nwake = yes\n", 2, "write dbus-broker-lau, or use exe" },
		{ "[rule a]\nuid = alice\nwake = yes\n", 2, "give a number from 0 to 4294967295" },
		{ "[rule a]\nuid = 10..5\nwake = yes\n", 2, "or a span of them" },
		{ "[rule a]\noom-score-adj = 1001\nwake = yes\n", 2, "give a number from -1000 to 1000" },
		{ "[rule a]\nis = traced | initial\nwake = yes\n", 2, "is has 'initial': give some of init, agent" },
		{ "[rule a]\nname = x\nwake = yes\n", 2, "there is no key 'name' in a rule" },
		{ "[rule a]\ncomm = x\n", 1, "rule a sets nothing" },
		{ "[rule init]\nnever = no\n", 1, "rule init is built in and stays" },
		{ "[rule kernel-threads]\nnever = yes\n", 1, "rule kernel-threads is built in and stays" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		wrong(cases[i].text, cases[i].line, cases[i].words);
}

static void test_long_lines(void **state)
{
	char text[12000];
	struct firn_config *c;
	size_t n;

	(void)state;
	/* As long as may be: nothing of it is cut. */
	n = (size_t)sprintf(text, "[rule a]\nbefore-freeze = ");
	memset(text + n, 'x', 4096 - strlen("before-freeze = "));
	n += 4096 - strlen("before-freeze = ");
	strcpy(text + n, "\nwake = yes\n");
	write_file("firn.conf", text);
	c = load();
	assert_int_equal(strlen(c->rules[c->nrules - 1].set.before_freeze), 4096 - strlen("before-freeze = "));
	assert_true(c->rules[c->nrules - 1].set.wake);
	firn_config_free(c);
	/* A byte more, with and without a line behind it. */
	strcpy(text + n, "x\nwake = yes\n");
	wrong(text, 2, "longer than 4096 bytes");
	strcpy(text + n, "x");
	memcpy(text, "[agent]\n\n#", 10);
	wrong(text, 3, "longer than 4096 bytes");
	strcpy(text + n, "x\n");
	wrong(text, 3, "longer than 4096 bytes");
	/* A name. */
	memset(text, 'n', 100);
	memcpy(text, "[rule ", 6);
	strcpy(text + 71, "]\nwake = yes\n");
	wrong(text, 1, "longer than 64 bytes");
}

/* All that is wrong is told, by file and line, up to a number. */
static void test_all_errors(void **state)
{
	struct firn_config_errors e;
	struct firn_config *c;
	char text[8000] = "[agent]\n";

	(void)state;
	write_file("firn.conf", "[agent]\nauto = 1\nbad\n[rule a]\npriority = 1000\nwake = 2\n");
	write_file("firn.conf.d/10-a.conf", "[polcy]\nlow = 1\n[policy]\nlow = -\n");
	write_file("firn.conf.d/.hidden.conf", "nonsense\n");
	write_file("firn.conf.d/README", "nonsense\n");
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_int_equal(e.n, 6);
	for (size_t i = 0; i < 6; i++) {
		static const unsigned int lines[] = { 2, 3, 5, 6, 1, 4 };

		assert_int_equal(e.list[i].line, lines[i]);
		assert_string_equal(strrchr(e.list[i].file, '/'), i < 4 ? "/firn.conf" : "/10-a.conf");
	}
	firn_config_errors_clear(&e);
	for (int i = 0; i < 150; i++)
		sprintf(text + strlen(text), "key-%d = x\n", i);
	write_file("firn.conf", text);
	remove_file("firn.conf.d/10-a.conf");
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_int_equal(e.n, FIRN_CONFIG_ERRORS);
	assert_int_equal(e.more, 50);
	firn_config_errors_clear(&e);
	firn_config_errors_clear(&e);
	remove_file("firn.conf.d/.hidden.conf");
	remove_file("firn.conf.d/README");
	remove_file("firn.conf");
}

static const struct firn_config_origin *from(const struct firn_config *c, const char *section, const char *key)
{
	return &((const struct firn_config_whole *)(const void *)c)->from[firn_config_key_find(section, key)];
}

/* Later files overrule earlier ones, key by key; files overrule the profile, wherever it is named. */
static void test_precedence(void **state)
{
	struct firn_config *c;

	(void)state;
	write_file("firn.conf", "[policy]\r\n  min-size = 1.5G  \r\nmin-idle = 90s\n[store]\nbuffer = 8MiB\n"
				"[agent]\nauto = yes\nscope = user:alice\n");
	write_file("firn.conf.d/20-b.conf", "[policy]\nmin-idle = 2h");
	write_file("firn.conf.d/10-a.conf", "\xef\xbb\xbf[policy]\nmin-idle = 3h\nlow = 1GiB\nhigh = 3GiB\n[agent]\nprofile = embedded\n");
	c = load();
	assert_string_equal(c->profile, "embedded");
	assert_int_equal(c->automatic, FIRN_AUTO_YES);
	assert_string_equal(c->scope, "user:alice");
	assert_int_equal(c->policy.min_bytes, 1536 * MIB);
	assert_int_equal(c->policy.min_idle_ns, 7200 * SECOND);
	assert_int_equal(c->policy.low_bytes, 1024 * MIB);
	assert_int_equal(c->policy.low_hundredths, 0);
	assert_int_equal(c->policy.high_bytes, 3072 * MIB);
	assert_int_equal(c->buffer_bytes, 8 * MIB);
	assert_int_equal(c->daily_budget.is, FIRN_AMOUNT_BYTES);
	assert_int_equal(c->daily_budget.bytes, 2048 * MIB);
	assert_int_equal(from(c, "policy", "min-idle")->entry->line, 2);
	assert_non_null(strstr(from(c, "policy", "min-idle")->section->file, "20-b.conf"));
	assert_true(from(c, "policy", "psi-some")->section->built_in);
	assert_string_equal(from(c, "store", "daily-budget")->section->kind, "profile");
	firn_config_free(c);
	remove_file("firn.conf.d/10-a.conf");
	c = load();
	assert_string_equal(c->profile, "server");
	assert_int_equal(c->daily_budget.is, FIRN_AMOUNT_AUTO);
	firn_config_free(c);
	remove_file("firn.conf.d/20-b.conf");
	remove_file("firn.conf");
}

static const struct firn_rule *find_rule(const struct firn_config *c, const char *name)
{
	for (size_t i = 0; i < c->nrules; i++)
		if (!strcmp(c->rules[i].name, name))
			return &c->rules[i];
	return NULL;
}

/* Rules: all their keys; one of a later file takes the place of an earlier one's, at its own place in the order. */
static void test_rules(void **state)
{
	struct firn_config *c;
	const struct firn_rule *r;

	(void)state;
	write_file("firn.conf",
		   "[rule all of it]\ncomm = a*\nexe = /b | /c d\ncmdline = * --x=1;2 *\ncgroup = /e/*\nunit = f.service\n"
		   "user-unit = g.scope\ncontainer = *\nuser = h\nuid = 1000..\noom-score-adj = ..-1\nis = traced | realtime\n"
		   "priority = 100\nnever = always\nwake = yes\nkind = direct\nplace = ram,store\nmin-size = 1MiB\n"
		   "before-freeze = save # all ; of it\nafter-thaw = warm\nhook-timeout = 1.5s\n"
		   "[rule b]\ncomm = b\npriority = 1\n[rule c]\ncomm = c\npriority = 2\n");
	write_file("firn.conf.d/x.conf", "[rule b]\ncomm = bb\npriority = 3\n[rule ssh]\ncomm = sshd\npriority = 90\n");
	c = load();
	r = find_rule(c, "all of it");
	assert_string_equal(r->comm, "a*");
	assert_string_equal(r->exe, "/b | /c d");
	assert_string_equal(r->cmdline, "* --x=1;2 *");
	assert_string_equal(r->cgroup, "/e/*");
	assert_string_equal(r->unit, "f.service");
	assert_string_equal(r->user_unit, "g.scope");
	assert_string_equal(r->container, "*");
	assert_string_equal(r->user, "h");
	assert_true(r->has_uid && r->uid.min == 1000 && r->uid.max == UINT32_MAX);
	assert_true(r->has_oom_score_adj && r->oom_score_adj.min == -1000 && r->oom_score_adj.max == -1);
	assert_int_equal(r->is, FIRN_IS_TRACED | FIRN_IS_REALTIME);
	assert_int_equal(r->sets, (1u << FIRN_RULE_KEYS) - 1);
	assert_int_equal(r->set.priority, 100);
	assert_int_equal(r->set.never, FIRN_NEVER_ALWAYS);
	assert_true(r->set.wake);
	assert_int_equal(r->set.kind, FIRN_RULE_KIND_DIRECT);
	assert_int_equal(r->set.place, FIRN_RULE_PLACE_RAM_STORE);
	assert_int_equal(r->set.min_bytes, MIB);
	assert_string_equal(r->set.before_freeze, "save # all ; of it");
	assert_string_equal(r->set.after_thaw, "warm");
	assert_int_equal(r->set.hook_timeout_ns, 3 * SECOND / 2);
	assert_int_equal(r->line, 1);
	/* b of the second file, once, behind c. */
	r = find_rule(c, "b");
	assert_string_equal(r->comm, "bb");
	assert_true(r > find_rule(c, "c"));
	for (const struct firn_rule *other = r + 1; other < c->rules + c->nrules; other++)
		assert_string_not_equal(other->name, "b");
	/* One that was built in, and no longer says never. */
	r = find_rule(c, "ssh");
	assert_int_equal(r->sets, 1u << FIRN_RULE_PRIORITY);
	assert_non_null(strstr(r->file, "x.conf"));
	assert_ptr_equal(r, &c->rules[c->nrules - 1]);
	firn_config_free(c);
	remove_file("firn.conf.d/x.conf");
	remove_file("firn.conf");
}

static void test_bad_files(void **state)
{
	struct firn_config_errors e;
	struct firn_config *c;
	char path[128], big[1000];

	(void)state;
	snprintf(path, sizeof(path), "%s/firn.conf", dir);
	/* Nobody waits for a FIFO. */
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_non_null(strstr(e.list[0].message, "is not a regular file"));
	firn_config_errors_clear(&e);
	unlink(path);
	assert_int_equal(symlink("nowhere", path), 0);
	c = load();             /* as if there was none */
	firn_config_free(c);
	unlink(path);
	memset(big, '#', sizeof(big));
	big[999] = '\n';
	write_file("firn.conf", "");
	for (int i = 0; i < 1100; i++) {
		int fd = open(path, O_WRONLY | O_APPEND);

		assert_int_equal(write(fd, big, sizeof(big)), sizeof(big));
		close(fd);
	}
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_non_null(strstr(e.list[0].message, "larger than 1 MiB"));
	firn_config_errors_clear(&e);
	/* Bytes with NUL among them. */
	write_bytes("firn.conf", "[agent]\nauto = \0yes\n", 20);
	assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
	assert_int_equal(e.list[0].line, 2);
	firn_config_errors_clear(&e);
	if (!geteuid()) {
		write_file("firn.conf", "[agent]\nauto = yes\n");
		assert_int_equal(chmod(path, 0666), 0);
		assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
		assert_non_null(strstr(e.list[0].message, "others than root may write to it"));
		assert_int_equal(e.list[0].line, 0);
		firn_config_errors_clear(&e);
		assert_int_equal(chmod(path, 0644), 0);
		assert_int_equal(chown(path, 65534, 0), 0);
		assert_int_equal(firn_config_load(dir, &c, &e), -EINVAL);
		firn_config_errors_clear(&e);
	}
	unlink(path);
}

/* What is built in, and the policy's own idea of it. */
static void test_built_in(void **state)
{
	struct firn_policy_config policy;
	struct firn_config *c;
	struct firn_verdict v;
	struct firn_subject nobody = { .comm = "x", .uid = 1000 };

	(void)state;
	assert_int_equal(firn_config_load(NULL, &c, NULL), 0);
	assert_string_equal(c->profile, "server");
	assert_int_equal(c->automatic, FIRN_AUTO_NO);
	assert_string_equal(c->scope, "");
	assert_int_equal(c->buffer_bytes, 16 * MIB);
	memset(&policy, 0, sizeof(policy));
	firn_policy_config_defaults(&policy);
	for (unsigned int i = 0; i < firn_config_keys(); i++) {
		struct firn_config other = *c;
		char ours[64], theirs[64];

		other.policy = policy;
		assert_string_equal(firn_config_key_text(c, i, ours, sizeof(ours)),
				    firn_config_key_text(&other, i, theirs, sizeof(theirs)));
		/* Every key has a value that says where it is from. */
		assert_non_null(from(c, firn_config_key_section(i), firn_config_key_name(i))->entry);
	}
	firn_rules_match(c->rules, c->nrules, &nobody, &v);
	assert_int_equal(v.v.priority, 50);
	assert_int_equal(v.v.never, FIRN_NEVER_NO);
	assert_int_equal(v.v.hook_timeout_ns, 5 * SECOND);
	for (int i = 0; i < FIRN_RULE_KEYS; i++)
		assert_string_equal(v.by[i]->name, "default");
	firn_config_free(c);
}

/* A value as it is printed is the same when it is read: for all keys, of all profiles. */
static void test_printed(void **state)
{
	static const char *const profiles[] = { "server", "desktop", "embedded" };

	(void)state;
	for (size_t p = 0; p < ARRAY_SIZE(profiles); p++) {
		struct firn_config *c, *again;
		char text[8192] = "", value[512];
		const char *section = "";

		snprintf(text, sizeof(text), "[agent]\nprofile = %s\n", profiles[p]);
		write_file("firn.conf", text);
		c = load();
		text[0] = 0;
		for (unsigned int i = 0; i < firn_config_keys(); i++) {
			if (strcmp(section, firn_config_key_section(i)))
				sprintf(text + strlen(text), "[%s]\n", section = firn_config_key_section(i));
			sprintf(text + strlen(text), "%s = %s\n", firn_config_key_name(i),
				firn_config_key_text(c, i, value, sizeof(value)));
		}
		write_file("firn.conf", text);
		again = load();
		for (unsigned int i = 0; i < firn_config_keys(); i++) {
			char back[512];

			assert_string_equal(firn_config_key_text(c, i, value, sizeof(value)),
					    firn_config_key_text(again, i, back, sizeof(back)));
		}
		assert_memory_equal(&c->policy, &again->policy, sizeof(c->policy));
		if (!strcmp(profiles[p], "embedded")) {
			assert_int_equal(c->buffer_bytes, 4 * MIB);
			assert_int_equal(c->daily_budget.bytes, 2048 * MIB);
		}
		firn_config_free(c);
		firn_config_free(again);
	}
	remove_file("firn.conf");
}

static enum firn_never never(const struct firn_config *c, struct firn_subject s)
{
	struct firn_verdict v;

	firn_rules_match(c->rules, c->nrules, &s, &v);
	return v.v.never;
}

/* The never-list that is built in: each of what it must hold. */
static void test_never_list(void **state)
{
	static const char *const names[] = {
		"sshd", "sshd-session", "dropbear", "login", "agetty", "Xorg", "Xwayland", "gnome-shell", "kwin_wayland",
		"kwin_x11", "sway", "weston", "Hyprland", "labwc", "mutter-x11-fram", "gdm3", "gdm-x11-session", "sddm", "lightdm",
		"dbus-daemon", "dbus-broker", "dbus-broker-lau", "systemd", "systemd-journal", "systemd-logind",
		"systemd-udevd", "(sd-pam)", "systemd-oomd", "systemd-resolve", "rsyslogd", "NetworkManager", "containerd",
		"containerd-shim", "conmon", "sshfs", "ntfs-3g", "pipewire", "firn",
	};
	static const char *const others[] = { "redis-server", "python3", "node", "bash", "Xnest2", "firefox", "loginx",
					      "mysystemd", "java", "postgres", "Web Content" };
	struct firn_config *c;

	(void)state;
	assert_int_equal(firn_config_load(NULL, &c, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (never(c, (struct firn_subject){ .comm = names[i] }) != FIRN_NEVER_YES)
			fail_msg("%s is not on the list", names[i]);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (never(c, (struct firn_subject){ .comm = others[i] }) != FIRN_NEVER_NO)
			fail_msg("%s is on the list", others[i]);
	for (unsigned int i = 0; i < FIRN_IS_COUNT; i++) {
		unsigned int bit = 1u << i;
		bool always = bit & (FIRN_IS_INIT | FIRN_IS_AGENT | FIRN_IS_KEEPER | FIRN_IS_KERNEL_THREAD);

		if (bit != FIRN_IS_OOM_AVOID)
			assert_int_equal(never(c, (struct firn_subject){ .comm = "x", .is = bit }),
					 always ? FIRN_NEVER_ALWAYS : FIRN_NEVER_YES);
	}
	assert_int_equal(never(c, (struct firn_subject){ .comm = "x", .oom_score_adj = -1000 }), FIRN_NEVER_YES);
	assert_int_equal(never(c, (struct firn_subject){ .comm = "x", .oom_score_adj = -999 }), FIRN_NEVER_NO);
	assert_int_equal(never(c, (struct firn_subject){ .comm = "x", .exe = "/usr/lib/systemd/systemd-foo" }), FIRN_NEVER_YES);
	firn_config_free(c);
	/* A rule for all does not take back what is refused always. */
	write_file("firn.conf", "[rule all]\nnever = no\n[rule mine]\ncomm = precious\nnever = yes\n");
	c = load();
	assert_int_equal(never(c, (struct firn_subject){ .comm = "systemd", .is = FIRN_IS_INIT }), FIRN_NEVER_ALWAYS);
	assert_int_equal(never(c, (struct firn_subject){ .comm = "sshd" }), FIRN_NEVER_NO);
	assert_int_equal(never(c, (struct firn_subject){ .comm = "precious" }), FIRN_NEVER_YES);
	firn_config_free(c);
	remove_file("firn.conf");
}

static void test_store(void **state)
{
	struct firn_config *c;
	char why[FIRN_CONFIG_WHY];

	(void)state;
	write_file("firn.conf", "[store]\nlimit = 50%\nkeep-free = 10%\ndaily-budget = 3GiB\n");
	c = load();
	assert_int_equal(firn_config_store_room(c, 1000, 1000, 0), 500);
	assert_int_equal(firn_config_store_room(c, 1000, 1000, 200), 300);
	assert_int_equal(firn_config_store_room(c, 1000, 300, 200), 200);
	assert_int_equal(firn_config_store_room(c, 1000, 50, 0), 0);
	assert_int_equal(firn_config_store_room(c, 1000, 1000, 501), 0);
	assert_int_equal(firn_config_daily_budget(c, "/", why), 3072 * MIB);
	firn_config_free(c);
	write_file("firn.conf", "[store]\nlimit = 100\nkeep-free = 100\ndaily-budget = none\n");
	c = load();
	assert_int_equal(firn_config_store_room(c, 1000, 1000, 0), 100);
	assert_int_equal(firn_config_store_room(c, 1000, 150, 0), 50);
	assert_int_equal(firn_config_daily_budget(c, "/", why), FIRN_NO_LIMIT);
	firn_config_free(c);
	write_file("firn.conf", "[store]\nlimit = none\nkeep-free = none\ndaily-budget = 1%\n");
	c = load();
	assert_int_equal(firn_config_store_room(c, 1000, 700, 900), 700);
	/* Whatever lies below: it is not nothing, and not without end. */
	assert_in_range(firn_config_daily_budget(c, "/", why), 1, FIRN_NO_LIMIT - 1);
	assert_true(strlen(why) > 5);
	firn_config_free(c);
	remove_file("firn.conf");
}

static void make_device(const char *path, const char *size, const char *rotational, const char *removable)
{
	char name[256], full[512];

	snprintf(full, sizeof(full), "mkdir -p %s/%s/queue", dir, path);
	assert_int_equal(system(full), 0);
	snprintf(name, sizeof(name), "%s/size", path);
	write_file(name, size);
	snprintf(name, sizeof(name), "%s/queue/rotational", path);
	write_file(name, rotational);
	snprintf(name, sizeof(name), "%s/removable", path);
	write_file(name, removable);
}

static void link_device(const char *number, const char *to)
{
	char name[256], target[300];

	snprintf(name, sizeof(name), "%s/dev/block", dir);
	snprintf(target, sizeof(target), "mkdir -p %s", name);
	assert_int_equal(system(target), 0);
	snprintf(name, sizeof(name), "%s/dev/block/%s", dir, number);
	snprintf(target, sizeof(target), "../../%s", to);
	assert_int_equal(symlink(target, name), 0);
}

/* A made-up /sys. */
static void test_devices(void **state)
{
	struct firn_device d;

	(void)state;
	make_device("devices/x/block/sda", "1000215216\n", "0\n", "0\n");
	make_device("devices/x/block/sda/sda1", "2048\n", "1\n", "0\n");
	write_file("devices/x/block/sda/sda1/partition", "1\n");
	make_device("devices/x/block/sdb", "7814037168\n", "1\n", "0\n");
	make_device("devices/x/block/sdc", "62500000\n", "0\n", "1\n");
	make_device("devices/x/block/mmcblk0", "500000000\n", "0\n", "0\n");
	make_device("devices/x/block/mmcblk0/mmcblk0p2", "400000000\n", "0\n", "0\n");
	write_file("devices/x/block/mmcblk0/mmcblk0p2/partition", "2\n");
	make_device("devices/x/block/nvme0n1", "125829120\n", "0\n", "0\n");
	make_device("devices/x/block/loop0", "0\n", "0\n", "0\n");
	link_device("8:0", "devices/x/block/sda");
	link_device("8:1", "devices/x/block/sda/sda1");
	link_device("8:16", "devices/x/block/sdb");
	link_device("8:32", "devices/x/block/sdc");
	link_device("179:2", "devices/x/block/mmcblk0/mmcblk0p2");
	link_device("259:0", "devices/x/block/nvme0n1");
	link_device("7:0", "devices/x/block/loop0");
	assert_int_equal(firn_device_read(dir, 8, 1, &d), 0);
	assert_string_equal(d.name, "sda");
	assert_int_equal(d.bytes, 1000215216ull * 512);
	assert_false(d.rotational || d.removable || firn_device_is_small_flash(&d));
	assert_int_equal(firn_device_read(dir, 8, 16, &d), 0);
	assert_string_equal(d.name, "sdb");
	assert_true(d.rotational);
	assert_false(firn_device_is_small_flash(&d));
	assert_int_equal(firn_device_read(dir, 8, 32, &d), 0);
	assert_true(d.removable && firn_device_is_small_flash(&d));
	assert_int_equal(firn_device_read(dir, 179, 2, &d), 0);
	assert_string_equal(d.name, "mmcblk0");
	assert_int_equal(d.bytes, 500000000ull * 512);
	assert_true(firn_device_is_small_flash(&d));
	assert_int_equal(firn_device_read(dir, 259, 0, &d), 0);
	assert_true(firn_device_is_small_flash(&d));
	assert_int_equal(firn_device_read(dir, 7, 0, &d), -ENODEV);
	assert_int_equal(firn_device_read(dir, 1, 1, &d), -ENODEV);
	/* A small disk that turns is none. */
	d = (struct firn_device){ .name = "sdd", .bytes = 1 << 30, .rotational = true };
	assert_false(firn_device_is_small_flash(&d));
	/* The real one, whichever it is: a path that is not there is looked up above. */
	if (!firn_device_of("/", &d))
		assert_true(d.bytes && d.name[0]);
	assert_int_equal(firn_device_of("relative/not/there", &d), -ENODEV);
}

/* Random bytes, and valid files with bytes changed: an answer, and no more.  Means most under ASan. */
static void test_random(void **state)
{
	static const char *const words[] = { "[agent]", "[rule x]", "[", "]", "=", "auto", "yes", "\n", " ", "priority", "50", "comm",
					     "[policy]", "low", "5%", "2GiB", "#", ";", "|", "\\", "..", "is", "traced", "\r\n", "uid",
					     "-1000", "[store]", "limit", "99999999999999999999", "scope", "tree:1", "\xff" };
	unsigned int valid = 0;

	(void)state;
	srandom(18);
	for (int round = 0; round < 3000; round++) {
		struct firn_config_errors e;
		struct firn_config *c;
		char text[2048];
		size_t len = 0;
		int err;

		if (round % 3 == 0) {
			len = (size_t)random() % sizeof(text);
			for (size_t i = 0; i < len; i++)
				text[i] = (char)random();
		} else if (round % 3 == 1) {
			for (int n = (int)(random() % 60); n; n--) {
				const char *w = words[(size_t)random() % ARRAY_SIZE(words)];

				memcpy(text + len, w, strlen(w));
				len += strlen(w);
			}
		} else {
			size_t start = (size_t)random() % (firn_config_defaults_len - sizeof(text));

			len = sizeof(text);
			memcpy(text, firn_config_defaults + start, len);
			for (int n = (int)(random() % 5); n; n--)
				text[(size_t)random() % len] = (char)random();
		}
		write_bytes("firn.conf", text, len);
		err = firn_config_load(dir, &c, &e);
		assert_true(err == 0 ? e.n == 0 : err == -EINVAL && e.n > 0);
		for (size_t i = 0; i < e.n; i++)
			for (const char *p = e.list[i].message; *p; p++)
				assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
		if (!err)
			firn_config_free(c);
		valid += !err;
		firn_config_errors_clear(&e);
	}
	assert_in_range(valid, 1, 2999);
	remove_file("firn.conf");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong),     cmocka_unit_test(test_long_lines), cmocka_unit_test(test_all_errors),
		cmocka_unit_test(test_precedence), cmocka_unit_test(test_rules),     cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_built_in),  cmocka_unit_test(test_printed),    cmocka_unit_test(test_never_list),
		cmocka_unit_test(test_store),     cmocka_unit_test(test_devices),    cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
