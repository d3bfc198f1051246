/* SPDX-License-Identifier: MIT */
/*
 * Rules: each condition, their conjunction, which rule decides; patterns against a model; what a cgroup's path says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/cgroup.h"
#include "policy/rules.h"

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool match;
	} cases[] = {
		{ "redis", "redis", true },
		{ "redis", "redis-server", false },
		{ "redis-server", "redis", false },
		{ "redis*", "redis-server", true },
		{ "*", "anything/at all", true },
		{ "*", "", false },
		{ "*", NULL, false },
		{ "", "", false },
		{ "", "x", false },
		{ "/usr/*/sshd", "/usr/a/b/sshd", true },
		{ "/usr/*/sshd", "/usr/sshd", false },
		{ "a*b*c", "aXbXbXc", true },
		{ "a*b*c", "aXbXbX", false },
		{ "?at", "cat", true },
		{ "?at", "at", false },
		{ "[bc]at", "cat", true },
		{ "[bc]at", "rat", false },
		{ "[!bc]at", "rat", true },
		{ "[!bc]at", "bat", false },
		{ "[a-f]9", "e9", true },
		{ "[a-f]9", "g9", false },
		{ "[]]", "]", true },
		{ "[-a]", "-", true },
		{ "[a-]", "-", true },
		{ "[", "[", true },
		{ "a[b", "a[b", true },
		{ "a[b", "ab", false },
		{ "\\*", "*", true },
		{ "\\*", "x", false },
		{ "\\", "\\", true },
		{ "a|b", "b", true },
		{ "a|b", "a", true },
		{ "a|b", "a|b", false },
		{ "a\\|b", "a|b", true },
		{ " a | b* ", "bx", true },
		{ " a | b* ", "a", true },
		{ "a\\ |c", "a ", true },
		{ "Web Content", "Web Content", true },
		{ "sshd: *", "sshd: user@pts/0", true },
		{ "|a", "a", true },
		{ "|", "", false },
		{ "\xc3\xa4*", "\xc3\xa4rger", true },
		{ "*.py", "x.py.py", true },
		{ "**a**", "bab", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (firn_pattern_match(cases[i].pattern, cases[i].text) != cases[i].match)
			fail_msg("'%s' against '%s' is not %d", cases[i].pattern, cases[i].text, cases[i].match);
}

/* The same without backtracking tricks, for patterns of letters, '*' and '?'. */
static bool model(const char *p, const char *t)
{
	if (!*p)
		return !*t;
	if (*p == '*')
		return model(p + 1, t) || (*t && model(p, t + 1));
	return *t && (*p == '?' || *p == *t) && model(p + 1, t + 1);
}

static void test_patterns_random(void **state)
{
	unsigned int matches = 0;

	(void)state;
	srandom(19);
	for (int i = 0; i < 200000; i++) {
		char p[8], t[10];
		size_t np = 1 + (size_t)random() % (sizeof(p) - 1), nt = 1 + (size_t)random() % (sizeof(t) - 1);

		for (size_t k = 0; k < np; k++)
			p[k] = "ab*?*"[random() % 5];
		for (size_t k = 0; k < nt; k++)
			t[k] = "ab"[random() % 2];
		p[np] = t[nt] = 0;
		if (firn_pattern_match(p, t) != model(p, t))
			fail_msg("'%s' against '%s': not %d", p, t, model(p, t));
		matches += model(p, t);
	}
	assert_in_range(matches, 20000, 180000);
}

/* A pattern that makes a naive matcher take for ever. */
static void test_pattern_of_stars(void **state)
{
	char pattern[1001], text[10001];

	(void)state;
	for (size_t i = 0; i < 1000; i++)
		pattern[i] = i % 2 ? 'a' : '*';
	memcpy(pattern + 998, "*b", 3);
	memset(text, 'a', 10000);
	text[10000] = 0;
	assert_false(firn_pattern_match(pattern, text));
}

static const struct firn_subject redis = {
	.comm = "redis-server",
	.exe = "/usr/bin/redis-check-rdb",
	.cmdline = "/usr/bin/redis-server 127.0.0.1:6379",
	.cgroup = "/system.slice/redis-server.service",
	.unit = "redis-server.service",
	.user_unit = "",
	.user = "redis",
	.uid = 105,
	.oom_score_adj = 200,
	.is = FIRN_IS_TRACED,
};

static bool met(struct firn_rule r)
{
	struct firn_verdict v;

	r.sets = 1 << FIRN_RULE_PRIORITY;
	r.set.priority = 77;
	firn_rules_match(&r, 1, &redis, &v);
	assert_true(v.v.priority == 77 ? v.by[FIRN_RULE_PRIORITY] == &r : !v.by[FIRN_RULE_PRIORITY]);
	return v.v.priority == 77;
}

static void test_conditions(void **state)
{
	(void)state;
	assert_true(met((struct firn_rule){ 0 }));
	assert_true(met((struct firn_rule){ .comm = "redis-server" }));
	assert_false(met((struct firn_rule){ .comm = "redis" }));
	assert_true(met((struct firn_rule){ .exe = "/usr/bin/*" }));
	assert_false(met((struct firn_rule){ .exe = "/usr/sbin/*" }));
	assert_true(met((struct firn_rule){ .cmdline = "*:6379" }));
	assert_false(met((struct firn_rule){ .cmdline = "*:6380" }));
	assert_true(met((struct firn_rule){ .cgroup = "/system.slice/*" }));
	assert_false(met((struct firn_rule){ .cgroup = "/user.slice/*" }));
	assert_true(met((struct firn_rule){ .unit = "nginx.service | redis-*.service" }));
	assert_false(met((struct firn_rule){ .unit = "nginx.service" }));
	assert_false(met((struct firn_rule){ .user_unit = "*" }));
	assert_false(met((struct firn_rule){ .container = "*" }));
	assert_true(met((struct firn_rule){ .user = "redis" }));
	assert_false(met((struct firn_rule){ .user = "root" }));
	assert_true(met((struct firn_rule){ .has_uid = true, .uid = { 105, 105 } }));
	assert_true(met((struct firn_rule){ .has_uid = true, .uid = { 100, 999 } }));
	assert_false(met((struct firn_rule){ .has_uid = true, .uid = { 0, 104 } }));
	assert_false(met((struct firn_rule){ .has_uid = true, .uid = { 106, UINT32_MAX } }));
	assert_true(met((struct firn_rule){ .has_oom_score_adj = true, .oom_score_adj = { 200, 1000 } }));
	assert_false(met((struct firn_rule){ .has_oom_score_adj = true, .oom_score_adj = { -1000, -1 } }));
	assert_true(met((struct firn_rule){ .is = FIRN_IS_TRACED }));
	assert_true(met((struct firn_rule){ .is = FIRN_IS_TRACED | FIRN_IS_REALTIME }));
	assert_false(met((struct firn_rule){ .is = FIRN_IS_REALTIME }));
	/* All of them, not any. */
	assert_true(met((struct firn_rule){ .comm = "redis*", .user = "redis", .is = FIRN_IS_TRACED }));
	assert_false(met((struct firn_rule){ .comm = "redis*", .user = "root", .is = FIRN_IS_TRACED }));
	assert_false(met((struct firn_rule){ .comm = "redis*", .user = "redis", .is = FIRN_IS_INIT }));
}

#define SET(key) (1u << FIRN_RULE_##key)

/* The last rule that sets a key decides it, and each key for itself. */
static void test_last_decides(void **state)
{
	static const struct firn_rule rules[] = {
		{ .name = "all", .sets = SET(PRIORITY) | SET(WAKE) | SET(HOOK_TIMEOUT) | SET(MIN_SIZE),
		  .set = { .priority = 50, .wake = true, .hook_timeout_ns = 10, .min_bytes = 5 } },
		{ .name = "low", .comm = "redis*", .sets = SET(PRIORITY) | SET(NEVER) | SET(BEFORE_FREEZE),
		  .set = { .priority = 10, .never = FIRN_NEVER_YES, .before_freeze = "save" } },
		{ .name = "other", .comm = "nginx", .sets = SET(PRIORITY), .set = { .priority = 99 } },
		{ .name = "ours", .user = "redis", .sets = SET(NEVER) | SET(WAKE) | SET(PLACE) | SET(KIND) | SET(AFTER_THAW),
		  .set = { .never = FIRN_NEVER_NO, .wake = false, .place = FIRN_RULE_PLACE_RAM,
			   .kind = FIRN_RULE_KIND_DIRECT, .after_thaw = "warm" } },
	};
	struct firn_verdict v;

	(void)state;
	firn_rules_match(rules, ARRAY_SIZE(rules), &redis, &v);
	assert_int_equal(v.v.priority, 10);
	assert_ptr_equal(v.by[FIRN_RULE_PRIORITY], &rules[1]);
	assert_int_equal(v.v.never, FIRN_NEVER_NO);
	assert_ptr_equal(v.by[FIRN_RULE_NEVER], &rules[3]);
	assert_false(v.v.wake);
	assert_ptr_equal(v.by[FIRN_RULE_WAKE], &rules[3]);
	assert_int_equal(v.v.kind, FIRN_RULE_KIND_DIRECT);
	assert_int_equal(v.v.place, FIRN_RULE_PLACE_RAM);
	assert_int_equal(v.v.min_bytes, 5);
	assert_ptr_equal(v.by[FIRN_RULE_MIN_SIZE], &rules[0]);
	assert_string_equal(v.v.before_freeze, "save");
	assert_string_equal(v.v.after_thaw, "warm");
	assert_int_equal(v.v.hook_timeout_ns, 10);
	assert_ptr_equal(v.by[FIRN_RULE_HOOK_TIMEOUT], &rules[0]);
	firn_rules_match(rules, 0, &redis, &v);
	assert_int_equal(v.v.priority, 0);
	assert_null(v.by[FIRN_RULE_PRIORITY]);
}

static void test_always_stays(void **state)
{
	static const struct firn_rule rules[] = {
		{ .name = "traced", .is = FIRN_IS_TRACED, .sets = SET(NEVER), .set = { .never = FIRN_NEVER_ALWAYS } },
		{ .name = "all", .sets = SET(NEVER), .set = { .never = FIRN_NEVER_NO } },
	};
	struct firn_verdict v;

	(void)state;
	firn_rules_match(rules, ARRAY_SIZE(rules), &redis, &v);
	assert_int_equal(v.v.never, FIRN_NEVER_ALWAYS);
	assert_ptr_equal(v.by[FIRN_RULE_NEVER], &rules[0]);
}

static void test_spans(void **state)
{
	static const struct {
		const char *text;
		int result;
		int64_t min, max;
	} cases[] = {
		{ "5", 0, 5, 5 },          { "5..10", 0, 5, 10 },       { "..10", 0, -1000, 10 },
		{ "5..", 0, 5, 1000 },     { "-1000", 0, -1000, -1000 }, { "-10..-5", 0, -10, -5 },
		{ "..", -EINVAL, 0, 0 },   { "", -EINVAL, 0, 0 },       { "10..5", -EINVAL, 0, 0 },
		{ "5..x", -EINVAL, 0, 0 }, { "5...6", -EINVAL, 0, 0 },  { "1001", -ERANGE, 0, 0 },
		{ "..1001", -ERANGE, 0, 0 }, { "5-10", -EINVAL, 0, 0 },
		{ "00000000000000000000000005..6", -EINVAL, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct firn_rule_span s = { 0, 0 };
		int r = firn_rule_span_parse(cases[i].text, -1000, 1000, &s);

		if (r != cases[i].result || s.min != cases[i].min || s.max != cases[i].max)
			fail_msg("'%s': %d, %lld..%lld", cases[i].text, r, (long long)s.min, (long long)s.max);
	}
}

static void test_words(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < FIRN_IS_COUNT; i++) {
		assert_non_null(firn_is_name(1u << i));
		assert_int_equal(firn_is_from_name(firn_is_name(1u << i)), 1u << i);
	}
	assert_null(firn_is_name(1u << FIRN_IS_COUNT));
	assert_null(firn_is_name(3));
	assert_int_equal(firn_is_from_name("initial"), 0);
	assert_int_equal(firn_is_from_name(""), 0);
}

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

static void test_cgroups(void **state)
{
	static const struct {
		const char *path, *unit, *user_unit, *container;
	} cases[] = {
		{ "/", "", "", "" },
		{ "", "", "", "" },
		{ "/system.slice/cron.service", "cron.service", "", "" },
		{ "/init.scope", "init.scope", "", "" },
		{ "/user.slice/user-1000.slice/session-2.scope", "session-2.scope", "", "" },
		{ "/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.scope", "user@1000.service",
		  "app-editor.scope", "" },
		{ "/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service", "init.scope", "" },
		{ "/system.slice/a.service/sub/b.service", "a.service", "", "" },
		{ "/system.slice/docker-" ID ".scope", "docker-" ID ".scope", "", ID },
		{ "/docker/" ID, "", "", ID },
		{ "/docker/" ID "/system.slice/cron.service", "cron.service", "", ID },
		{ "/docker/" ID "/docker/" ID2, "", "", ID2 },
		{ "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-" ID ".scope",
		  "cri-containerd-" ID ".scope", "", ID },
		{ "/kubepods/besteffort/pod1-2/" ID, "", "", ID },
		{ "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:" ID, "containerd.service", "",
		  ID },
		{ "/machine.slice/libpod-" ID ".scope/container", "libpod-" ID ".scope", "", ID },
		{ "/machine.slice/libpod-conmon-" ID ".scope", "libpod-conmon-" ID ".scope", "", "" },
		{ "/kubepods.slice/crio-conmon-" ID ".scope", "crio-conmon-" ID ".scope", "", "" },
		{ "/lxc.payload.web/init.scope", "init.scope", "", "web" },
		{ "/machine.slice/systemd-nspawn@deb.service/payload", "systemd-nspawn@deb.service", "", "deb" },
		{ "/machine.slice/machine-qemu.scope", "machine-qemu.scope", "", "qemu" },
		{ "/x/0123456789abcdef", "", "", "" },
		{ "/x/g" ID, "", "", "" },
		{ "/x/" ID "0", "", "", "" },
		{ "/.service", "", "", "" },
	};
	char buf[256], small[4];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(firn_cgroup_unit(cases[i].path, buf, sizeof(buf)), cases[i].unit);
		assert_string_equal(firn_cgroup_user_unit(cases[i].path, buf, sizeof(buf)), cases[i].user_unit);
		assert_string_equal(firn_cgroup_container(cases[i].path, buf, sizeof(buf)), cases[i].container);
	}
	assert_string_equal(firn_cgroup_unit("/system.slice/cron.service", small, sizeof(small)), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),     cmocka_unit_test(test_patterns_random),
		cmocka_unit_test(test_pattern_of_stars), cmocka_unit_test(test_conditions),
		cmocka_unit_test(test_last_decides), cmocka_unit_test(test_always_stays),
		cmocka_unit_test(test_spans),        cmocka_unit_test(test_words),
		cmocka_unit_test(test_cgroups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
