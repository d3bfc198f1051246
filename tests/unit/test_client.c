/* SPDX-License-Identifier: MIT */
/*
 * libfirn against an agent that is a small process of ours: answers in pieces, nonsense, and an
 * agent that dies while a keeper holds its sockets open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/types.h"
#include "firn/firn.h"

static char dir[64];

/* What the agent does with a call. */
enum mode {
	ANSWER,
	ANSWER_AND_DIE,
	DIE, /* after part of the answer */
	CLOSE,
};

struct agent {
	pid_t pid;    /* 0 once it is reaped */
	pid_t keeper; /* holds its sockets */
};

static unsigned long long start_time(pid_t pid)
{
	char path[64], text[1024];
	char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	p = strrchr(text, ')') + 2;
	for (int field = 3; field < 22; field++)
		p = strchr(p, ' ') + 1;
	return strtoull(p, NULL, 10);
}

static void write_pid(const char *name, pid_t pid, unsigned long long start)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "%d %llu\n", (int)pid, start);
	fclose(f);
}

/* In the agent's process: take one call after the other. */
static void serve(int listener, const char *reply, size_t length, enum mode mode)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char c;

		while (fd >= 0 && read(fd, &c, 1) == 1) {
			if (c)
				continue;
			/* One byte a packet: the reader must put them together. */
			for (size_t i = 0; i < length && mode != CLOSE; i++) {
				if (write(fd, reply + i, 1) != 1)
					_exit(1);
			}
			if (mode == ANSWER_AND_DIE || mode == DIE)
				kill(getpid(), SIGKILL);
			if (mode == CLOSE)
				break;
		}
		close(fd);
	}
}

/*
 * Start an agent that answers each call with @reply.  Its sockets live on in its keeper, which
 * shares its descriptor table.
 */
static struct agent start(const char *reply, size_t length, enum mode mode)
{
	struct agent agent = { 0 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int ready[2];

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/firn.sock", dir);
	unlink(address.sun_path);
	assert_int_equal(pipe(ready), 0);
	agent.pid = fork();
	assert_true(agent.pid >= 0);
	if (agent.pid == 0) {
		int listener = socket(AF_UNIX, SOCK_STREAM, 0);
		pid_t keeper;

		if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
		    listen(listener, 8))
			_exit(1);
		keeper = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
		if (keeper == 0) {
			alarm(60);
			for (;;)
				pause();
		}
		alarm(60);
		if (write(ready[1], &keeper, sizeof(keeper)) != sizeof(keeper))
			_exit(1);
		serve(listener, reply, length, mode);
	}
	assert_int_equal(read(ready[0], &agent.keeper, sizeof(agent.keeper)), sizeof(agent.keeper));
	close(ready[0]);
	close(ready[1]);
	write_pid("agent.pid", agent.pid, start_time(agent.pid));
	write_pid("keeper.pid", agent.keeper, start_time(agent.keeper));
	return agent;
}

static void end(struct agent *agent)
{
	kill(agent->keeper, SIGKILL);
	if (agent->pid > 0) {
		kill(agent->pid, SIGKILL);
		waitpid(agent->pid, NULL, 0);
	}
}

static const char targets[] =
	"{\"parameters\":{\"targets\":[{\"pid\":5,\"state\":\"frozen\",\"comm\":\"a\","
	"\"pages\":{\"total\":7},\"ratio\":2,\"new\":[1,{}]},"
	"{\"pid\":6,\"error\":{\"code\":4,\"reason\":\"traced\",\"message\":\"m\"}}]}}";

static void test_no_agent(void **state)
{
	struct firn_client *client;
	struct firn_error error;

	(void)state;
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_NO_AGENT);
	assert_null(client);
	assert_string_equal(error.reason, "no-agent");
	assert_int_equal(firn_connect(&client, 0, NULL), FIRN_NO_AGENT);
}

static void test_answer(void **state)
{
	struct agent agent = start(targets, sizeof(targets), ANSWER);
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error error;
	const struct firn_target *t;

	(void)state;
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
	assert_int_equal(firn_agent_pid(client), agent.pid);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(firn_list(client, &result, &error), FIRN_OK);
		assert_int_equal(firn_result_count(result), 2);
		assert_int_equal(firn_result_code(result), FIRN_SOME_FAILED);
		t = firn_result_target(result, 0);
		assert_int_equal(t->pid, 5);
		assert_string_equal(t->state, "frozen");
		assert_int_equal(t->pages.total, 7);
		assert_int_equal(t->pages.lost, FIRN_UNKNOWN);
		assert_true(t->ratio == 2 && t->ms.total < 0 && t->error.code == FIRN_OK);
		assert_null(t->pack.path);
		t = firn_result_target(result, 1);
		assert_int_equal(t->error.code, FIRN_REFUSED);
		assert_string_equal(t->error.reason, "traced");
		assert_null(firn_result_target(result, 2));
		assert_non_null(strstr(firn_result_json(result), "\"new\":[1,{}]"));
		firn_result_free(result);
	}
	firn_close(client);
	end(&agent);
}

#define REPLY(text) { text, sizeof(text) }

/* What makes no sense ends the connection, with an error and no crash. */
static void test_nonsense(void **state)
{
	static const struct {
		const char *reply;
		size_t length;
	} cases[] = {
		REPLY(""),
		REPLY("x"),
		REPLY("[]"),
		REPLY("{}{}"),
		REPLY("{\"parameters\":{\"targets\":["), /* ends there: without its NUL */
		REPLY("{}"),
		REPLY("{\"parameters\":7}"),
		REPLY("{\"parameters\":{\"targets\":{}}}"),
		REPLY("{\"parameters\":{\"targets\":[null]}}"),
		REPLY("{\"parameters\":{\"targets\":[{\"pid\":\"5\"}]}}"),
		REPLY("{\"parameters\":{\"targets\":[{\"pid\":-5}]}}"),
		REPLY("{\"error\":\"org.firn.Agent.Failed\"}"),
		REPLY("{\"error\":\"org.firn.Agent.Failed\",\"parameters\":{\"code\":99}}"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool cut = i == 4;
		struct agent agent =
			start(cases[i].reply, cases[i].length - cut, cut ? ANSWER_AND_DIE : ANSWER);
		struct firn_client *client;
		struct firn_result *result;
		struct firn_error error;

		assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
		assert_int_equal(firn_list(client, &result, &error),
				 cut ? FIRN_NO_AGENT : FIRN_FAILED);
		assert_null(result);
		assert_true(error.message[0] && error.reason[0]);
		firn_close(client);
		end(&agent);
	}
}

static void test_error(void **state)
{
	static const char reply[] =
		"{\"error\":\"org.firn.Agent.Failed\",\"parameters\":"
		"{\"code\":7,\"reason\":\"full\",\"message\":\"full: make room\"}}";
	struct agent agent = start(reply, sizeof(reply), ANSWER);
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error error;

	(void)state;
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
	assert_int_equal(firn_show(client, 5, &result, &error), FIRN_STORE);
	assert_int_equal(error.code, FIRN_STORE);
	assert_string_equal(error.reason, "full");
	assert_string_equal(error.message, "full: make room");
	firn_close(client);
	end(&agent);
}

static void test_agent_dies(void **state)
{
	static const struct {
		enum mode mode;
		int code;
	} cases[] = {
		{ DIE, FIRN_NO_AGENT },
		{ CLOSE, FIRN_NO_AGENT },
		{ ANSWER_AND_DIE, FIRN_OK }, /* what it sent before counts */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct firn_selector target = { .what = FIRN_SELECT_PID, .pid = 5 };
		struct agent agent =
			start(targets, cases[i].mode == DIE ? 20 : sizeof(targets), cases[i].mode);
		struct firn_client *client;
		struct firn_result *result;
		struct firn_error error;

		assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
		assert_int_equal(firn_freeze(client, &target, 1, 0, &result, &error),
				 cases[i].code);
		if (cases[i].code == FIRN_OK) {
			firn_result_free(result);
		} else {
			assert_null(result);
			/* And again: no answer to an old call is taken for one to a new. */
			assert_int_equal(firn_list(client, &result, &error), FIRN_NO_AGENT);
		}
		firn_close(client);
		if (cases[i].mode != CLOSE) {
			siginfo_t info;

			/* The keeper's socket still listens; the agent is a zombie, then gone. */
			assert_int_equal(waitid(P_PID, (id_t)agent.pid, &info, WEXITED | WNOWAIT),
					 0);
			assert_int_equal(firn_connect(&client, 0, &error), FIRN_NO_AGENT);
			waitpid(agent.pid, NULL, 0);
			agent.pid = 0;
			assert_int_equal(firn_connect(&client, 0, &error), FIRN_NO_AGENT);
		}
		end(&agent);
	}
}

static void test_recycled_pid(void **state)
{
	struct agent agent = start(targets, sizeof(targets), ANSWER);
	struct firn_client *client;
	struct firn_error error;

	(void)state;
	write_pid("agent.pid", agent.pid, start_time(agent.pid) + 1);
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_NO_AGENT);
	write_pid("agent.pid", agent.pid, start_time(agent.pid));
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
	firn_close(client);
	end(&agent);
}

static void test_usage(void **state)
{
	struct agent agent = start(targets, sizeof(targets), ANSWER);
	struct firn_selector bad = { .what = FIRN_SELECT_PID }, good = { .what = FIRN_SELECT_TREE, .pid = 5 };
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error error;

	(void)state;
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
	assert_int_equal(firn_freeze(client, NULL, 0, 0, &result, &error), FIRN_USAGE);
	assert_int_equal(firn_freeze(client, &bad, 1, 0, &result, &error), FIRN_USAGE);
	assert_int_equal(firn_freeze(client, NULL, 0, FIRN_ALL, &result, &error), FIRN_USAGE);
	assert_int_equal(firn_thaw(client, &good, 1, FIRN_ALL, &result, &error), FIRN_USAGE);
	assert_int_equal(firn_evict(client, &good, 1, 1u << 30, &result, &error), FIRN_USAGE);
	assert_null(result);
	assert_int_equal(firn_thaw(client, NULL, 0, FIRN_ALL, &result, &error), FIRN_OK);
	firn_result_free(result);
	firn_close(client);
	end(&agent);
}

static void count_progress(void *arg, const struct firn_progress *progress)
{
	int *highest = arg;

	if (progress->phase && strcmp(progress->phase, "gather") == 0 && progress->done > *highest)
		*highest = (int)progress->done;
}

static void test_progress(void **state)
{
	static const char reply[] =
		"{\"parameters\":{\"progress\":{\"pid\":5,\"phase\":\"gather\",\"done\":1,\"total\":2}},"
		"\"continues\":true}\0"
		"{\"parameters\":{\"progress\":{\"pid\":5,\"phase\":\"gather\",\"done\":2,\"total\":2}},"
		"\"continues\":true}\0"
		"{\"parameters\":{\"targets\":[]}}";
	struct agent agent = start(reply, sizeof(reply), ANSWER);
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error error;
	int highest = 0;

	(void)state;
	assert_int_equal(firn_connect(&client, 0, &error), FIRN_OK);
	firn_on_progress(client, count_progress, &highest);
	assert_int_equal(firn_thaw(client, NULL, 0, FIRN_ALL, &result, &error), FIRN_OK);
	assert_int_equal(highest, 2);
	assert_int_equal(firn_result_count(result), 0);
	assert_int_equal(firn_result_code(result), FIRN_OK);
	firn_result_free(result);
	firn_close(client);
	end(&agent);
}

/* A firnd that says no, one that says nothing, and one that claims success and is not there. */
static void test_start(void **state)
{
	static const struct {
		const char *script;
		int code;
		const char *reason, *message;
	} cases[] = {
		{ "echo 'firnd: the store is full: make room' >&2; exit 7", FIRN_STORE, "start",
		  "the store is full: make room" },
		{ "exit 42", FIRN_NO_AGENT, "start", "firnd exited with 42" },
		{ "kill -9 $$", FIRN_NO_AGENT, "start", "firnd was ended by signal 9" },
		{ "sleep 60 >&2 & echo $! >\"$FIRN_RUNTIME_DIR/agent.pid\"; exit 0", FIRN_NO_AGENT,
		  "no-agent", "no agent runs" },
	};
	char path[128], pid_path[128], saved[4096];
	struct firn_client *client;
	struct firn_error error;

	(void)state;
	if (geteuid() != 0)
		skip();
	snprintf(pid_path, sizeof(pid_path), "%s/agent.pid", dir);
	unlink(pid_path);
	snprintf(saved, sizeof(saved), "%s", getenv("PATH"));
	snprintf(path, sizeof(path), "%s:%s", dir, "/usr/bin:/bin");
	setenv("PATH", path, 1);
	snprintf(path, sizeof(path), "%s/firnd", dir);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		FILE *f = fopen(path, "we");
		int pid;

		assert_non_null(f);
		fprintf(f, "#!/bin/sh\n%s\n", cases[i].script);
		fclose(f);
		assert_int_equal(chmod(path, 0755), 0);
		assert_int_equal(firn_connect(&client, FIRN_CONNECT_START, &error), cases[i].code);
		assert_null(client);
		assert_string_equal(error.reason, cases[i].reason);
		assert_non_null(strstr(error.message, cases[i].message));
		if (i + 1 < ARRAY_SIZE(cases))
			continue;
		/* It did not wait for the end of what kept its standard error open. */
		f = fopen(pid_path, "re");
		assert_non_null(f);
		assert_int_equal(fscanf(f, "%d", &pid), 1);
		fclose(f);
		kill(pid, SIGKILL);
	}
	unlink(path);
	setenv("PATH", saved, 1);
}

static int make_dirs(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/firn-test-XXXXXX");
	return mkdtemp(dir) && setenv("FIRN_RUNTIME_DIR", dir, 1) == 0 &&
			       setenv("FIRN_STATE_DIR", dir, 1) == 0
		       ? 0
		       : -1;
}

static int remove_dirs(void **state)
{
	static const char *const names[] = { "firn.sock", "agent.pid", "keeper.pid" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_agent),   cmocka_unit_test(test_answer),
		cmocka_unit_test(test_nonsense),   cmocka_unit_test(test_error),
		cmocka_unit_test(test_agent_dies), cmocka_unit_test(test_recycled_pid),
		cmocka_unit_test(test_usage),      cmocka_unit_test(test_progress),
		cmocka_unit_test(test_start),
	};

	return cmocka_run_group_tests(tests, make_dirs, remove_dirs);
}
