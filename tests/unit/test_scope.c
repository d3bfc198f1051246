/* SPDX-License-Identifier: MIT */
/* What a scope takes, and who is in it: real children, and a process tree whose middle ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/scope.h"
#include "procmem/cgroup.h"
#include "procmem/proc.h"

static void test_nonsense(void **state)
{
	static const char *const texts[] = {
		"tree", "tree:", "tree:0", "tree:-1", "tree:1x", "tree: 1", "tree:1-", "tree:1-0", "tree:99999999999999999999",
		"user:", "cgroup:", "cgroup:/a/../b", "cgroup:.", "pid:1", "ALL", " all", "all:", "tree:1:2",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct firn_err e = { 0 };
		struct firn_scope *s;

		if (!firn_scope_parse(&s, texts[i], &e))
			fail_msg("'%s' was taken", texts[i]);
		assert_null(s);
		assert_int_equal(e.code, FIRN_EXIT_USAGE);
	}
}

static void test_nobody_there(void **state)
{
	static const char *const texts[] = { "user:no-such-user", "cgroup:/no-such-cgroup-here", "tree:4194304",
					     "cgroup:/sys/fs/cgroup/memory/no-such-cgroup-here" };
	char own[64];
	struct firn_scope *s;
	struct firn_err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		memset(&e, 0, sizeof(e));
		assert_int_not_equal(firn_scope_parse(&s, texts[i], &e), 0);
		assert_int_equal(e.code, FIRN_EXIT_NOT_FOUND);
	}
	/* The number, but not the process. */
	snprintf(own, sizeof(own), "tree:%d-1", getpid());
	memset(&e, 0, sizeof(e));
	assert_int_equal(firn_scope_parse(&s, own, &e), -ESRCH);
}

static void test_all(void **state)
{
	static const char *const texts[] = { NULL, "", "all" };
	struct firn_scope *s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_int_equal(firn_scope_parse(&s, texts[i], NULL), 0);
		assert_true(firn_scope_is_all(s));
		assert_string_equal(firn_scope_text(s), "all");
		assert_true(firn_scope_has(s, 1));
		assert_true(firn_scope_has(s, getpid()));
		firn_scope_free(s);
	}
	assert_true(firn_scope_is_all(NULL));
	firn_scope_free(NULL);
}

static pid_t child(void)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_tree(void **state)
{
	pid_t root = child(), beside = child();
	struct firn_scope *s, *own;
	char text[64];
	uint64_t start;

	(void)state;
	assert_int_equal(firn_proc_start_time(root, &start), 0);
	snprintf(text, sizeof(text), "tree:%d-%llu", root, (unsigned long long)start);
	assert_int_equal(firn_scope_parse(&s, text, NULL), 0);
	snprintf(text, sizeof(text), "tree:%d", getpid());
	assert_int_equal(firn_scope_parse(&own, text, NULL), 0);
	assert_true(firn_scope_has(s, root));
	assert_false(firn_scope_has(s, beside));
	assert_false(firn_scope_has(s, getpid()));
	assert_false(firn_scope_has(s, 1));
	assert_true(firn_scope_has(own, getpid()));
	assert_true(firn_scope_has(own, root));
	assert_true(firn_scope_has(own, beside));
	assert_false(firn_scope_has(own, getppid()));
	assert_true(firn_scope_within(own, root));
	end(root);
	end(beside);
	assert_false(firn_scope_has(s, root));
	firn_scope_free(s);
	firn_scope_free(own);
}

/* A root with a child and a grandchild; the middle one ends on SIGTERM.  *@ret: root, child, grandchild. */
static void three(pid_t ret[3])
{
	int p[2];

	assert_int_equal(pipe(p), 0);
	ret[0] = fork();
	if (!ret[0]) {
		pid_t pids[2];

		pids[0] = fork();
		if (!pids[0]) {
			pids[1] = fork();
			if (!pids[1])
				for (;;)
					pause();
			pids[0] = getpid();
			if (write(p[1], pids, sizeof(pids)) != sizeof(pids))
				_exit(1);
			for (;;)
				pause();
		}
		waitpid(pids[0], NULL, 0);
		for (;;)
			pause();
	}
	assert_int_equal(read(p[0], ret + 1, 2 * sizeof(pid_t)), 2 * sizeof(pid_t));
	close(p[0]);
	close(p[1]);
}

static void wait_for_parent(pid_t pid, pid_t not)
{
	pid_t parent = not;

	for (int i = 0; i < 2000 && parent == not; i++) {
		usleep(1000);
		assert_int_equal(firn_proc_parent(pid, &parent), 0);
	}
	assert_int_not_equal(parent, not);
}

/* Its parent ends, and it goes to us, outside of the scope's tree: a member that was seen stays one. */
static void test_reparented(void **state)
{
	pid_t pids[3];
	struct firn_scope *seen, *unseen;
	char text[64];

	(void)state;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	three(pids);
	snprintf(text, sizeof(text), "tree:%d", pids[0]);
	assert_int_equal(firn_scope_parse(&seen, text, NULL), 0);
	assert_int_equal(firn_scope_parse(&unseen, text, NULL), 0);
	assert_true(firn_scope_has(seen, pids[2]));
	kill(pids[1], SIGKILL);
	wait_for_parent(pids[2], pids[1]);
	assert_true(firn_scope_has(seen, pids[2]));
	assert_false(firn_scope_has(unseen, pids[2]));
	/* The root's end changes nothing for those that are left. */
	end(pids[0]);
	assert_true(firn_scope_has(seen, pids[2]));
	assert_false(firn_scope_has(seen, getpid()));
	end(pids[2]);
	assert_false(firn_scope_has(seen, pids[2]));
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	firn_scope_free(seen);
	firn_scope_free(unseen);
}

/* More members than the table begins with, most of which end. */
static void test_many_members(void **state)
{
	enum {
		N = 700
	};
	static pid_t pids[N];
	struct firn_scope *s;
	char text[64];

	(void)state;
	snprintf(text, sizeof(text), "tree:%d", getpid());
	assert_int_equal(firn_scope_parse(&s, text, NULL), 0);
	for (int i = 0; i < N; i++) {
		pids[i] = child();
		assert_true(firn_scope_has(s, pids[i]));
		if (i % 3)
			end(pids[i]);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(firn_scope_has(s, pids[i]), i % 3 == 0);
		if (i % 3 == 0)
			end(pids[i]);
	}
	firn_scope_free(s);
}

static void test_user(void **state)
{
	struct firn_scope *s;
	pid_t other = child();
	char text[64];

	(void)state;
	snprintf(text, sizeof(text), "user:%u", getuid());
	assert_int_equal(firn_scope_parse(&s, text, NULL), 0);
	assert_true(firn_scope_has(s, other));
	firn_scope_free(s);
	assert_int_equal(firn_scope_parse(&s, "user:65533", NULL), 0);
	assert_false(firn_scope_has(s, other));
	firn_scope_free(s);
	end(other);
}

struct looking {
	pid_t pid;
	bool found;
};

static int look(void *arg, pid_t pid)
{
	struct looking *l = arg;

	l->found |= pid == l->pid;
	return 0;
}

/* Our own, in every hierarchy there is: that of the kernel's word and of its directory are one. */
static void test_own_cgroup(void **state)
{
	struct firn_cgroup c, d;
	struct firn_scope *s;
	struct firn_err e = { 0 };
	pid_t other = child();
	char line[2048], text[1100];
	FILE *f = fopen("/proc/self/cgroup", "r");
	int found = 0;

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		struct looking l = { other, false };
		char *path = strchr(strchr(line, ':') + 1, ':') + 1;

		path[strcspn(path, "\n")] = 0;
		if (firn_cgroup_find(path, &c, &e))
			continue;
		found++;
		assert_true(firn_cgroup_find(c.dir, &d, &e) == 0);
		assert_string_equal(c.path, d.path);
		assert_string_equal(c.hierarchy, d.hierarchy);
		snprintf(text, sizeof(text), "cgroup:%s", c.dir);
		/* A path may be another hierarchy's first. */
		assert_int_equal(firn_scope_parse(&s, text, NULL), 0);
		assert_int_equal(firn_scope_has(s, other), firn_cgroup_holds(&c, other));
		assert_true(firn_cgroup_each(&c, look, &l) == 0);
		assert_int_equal(l.found, firn_cgroup_holds(&c, other));
		firn_scope_free(s);
	}
	fclose(f);
	end(other);
	if (!found)
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nonsense),      cmocka_unit_test(test_nobody_there), cmocka_unit_test(test_all),
		cmocka_unit_test(test_tree),          cmocka_unit_test(test_reparented),   cmocka_unit_test(test_many_members),
		cmocka_unit_test(test_user),          cmocka_unit_test(test_own_cgroup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
