/* SPDX-License-Identifier: MIT */
#include "cli/decide.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/print.h"
#include "cli/say.h"
#include "cli/stats.h"

/* As shells have it. */
#define NOT_RUN 126
#define NO_COMMAND 127

static unsigned int timeout_ms(const struct firn_args *a)
{
	uint64_t ms = a->timeout_ns / 1000000u;

	return a->timeout_ns && !ms ? 1 : ms > UINT32_MAX ? UINT32_MAX : (unsigned int)ms;
}

static void line(const char *name, const char *fmt, ...) FIRN_PRINTF(2, 3);
static void line(const char *name, const char *fmt, ...)
{
	char text[640], shown[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	firn_print_escaped(shown, sizeof(shown), text, 400);
	printf("  %-9s %s\n", name, shown);
}

static void explain(const struct firn_target *t)
{
	bool running = t->state && strcmp(t->state, "running") == 0;
	char name[96], a[16], b[16], c[16];

	printf("%s\n", firn_print_target_name(name, sizeof(name), t));
	line("state", "%s", t->state ? t->state : "-");
	line("now", "%s", t->policy.text ? t->policy.text : "-");
	line("priority", "%lld, %s", (long long)t->policy.priority, t->policy.rule ? t->policy.rule : "by no rule");
	line("memory", "%s private, %s shared, %s out", firn_print_size(a, sizeof(a), (double)t->policy.private_bytes),
	     firn_print_size(b, sizeof(b), (double)t->policy.shared_bytes),
	     firn_print_size(c, sizeof(c), (double)t->policy.out_bytes));
	line("idle", "%s; processor %.1f%%, %lld faults a second, %lld wake-ups a minute",
	     firn_print_age(a, sizeof(a), (double)t->policy.idle_ms / 1e3), (double)t->policy.cpu_permille / 10,
	     (long long)t->policy.faults_per_s, (long long)t->policy.wakeups_per_minute);
	if (t->policy.place > 0)
		line("queue", "place %lld", (long long)t->policy.place);
	if (running)
		line("gain", "%s, for %s written", firn_print_size(a, sizeof(a), (double)t->policy.gain),
		     firn_print_size(b, sizeof(b), (double)t->policy.cost));
	if (t->policy.written_today > 0)
		line("written", "%s today", firn_print_size(a, sizeof(a), (double)t->policy.written_today));
	/* Of what is out already, or busy, the engine was not asked. */
	if (running || t->policy.refused)
		line("evict", "%s", t->policy.refused ? t->policy.refused : "possible");
}

int firn_do_explain(const struct firn_args *a)
{
	struct firn_client *client;
	struct firn_result *result;
	struct firn_error e;
	int r = firn_connect(&client, FIRN_CONNECT_START, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_explain(client, a->targets, a->count, &result, &e);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	else if (!a->count)
		firn_print_units(stdout, result, firn_want_colour());
	for (size_t i = 0; a->count && i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);

		if (t->error.code)
			firn_complain_target(t);
		else if (!a->json)
			explain(t);
	}
	if (!a->json && a->count && firn_result_text(result, "text"))
		line("host", "%s", firn_result_text(result, "text"));
	r = firn_result_code(result);
	firn_result_free(result);
	return r;
}

/* What each target gave, or would. */
static void print_given(const struct firn_args *a, const struct firn_result *result)
{
	char name[96], size[16], out[16], why[512];

	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);
		double gave = (double)(t->memory.before - t->memory.after);

		if (t->error.code) {
			firn_complain_target(t);
			continue;
		}
		firn_print_target_name(name, sizeof(name), t);
		if (a->dry_run)
			printf("would evict %s", name);
		else
			printf("%s gave %s, %s written", name, firn_print_size(size, sizeof(size), gave),
			       firn_print_size(out, sizeof(out), (double)t->io.write_bytes));
		firn_print_escaped(why, sizeof(why), t->policy.text ? t->policy.text : "", 300);
		printf("%s%s\n", *why ? ": " : "", why);
	}
}

int firn_do_reclaim(const struct firn_args *a)
{
	struct firn_progress_line line = { .verb = "reclaim" };
	struct firn_result *result;
	struct firn_client *client;
	struct firn_error e;
	char size[16], available[16];
	int r = firn_connect(&client, FIRN_CONNECT_START, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	firn_progress_begin(client, &line);
	r = firn_reclaim(client, a->size, a->priority, timeout_ms(a), a->dry_run ? FIRN_DRY_RUN : 0, &result, &e);
	firn_progress_end(&line);
	firn_close(client);
	if (!result)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	else
		print_given(a, result);
	if (r != FIRN_OK) {
		firn_complain_text("", e.message);
	} else if (!a->json) {
		firn_print_size(available, sizeof(available), (double)firn_result_number(result, "after"));
		if (firn_result_number(result, "wanted") <= 0)
			printf("%s are available already: nothing was done\n", available);
		else if (!a->dry_run)
			printf("%s freed, %s available\n",
			       firn_print_size(size, sizeof(size), (double)firn_result_number(result, "freed")), available);
	}
	firn_result_free(result);
	return r;
}

int firn_do_priority(const struct firn_args *a)
{
	struct firn_result *result;
	struct firn_client *client;
	struct firn_error e;
	int r = firn_connect(&client, FIRN_CONNECT_START, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_set_priority(client, a->targets, a->count, a->priority, a->dry_run ? FIRN_DRY_RUN : 0, &result, &e);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (a->json)
		printf("%s\n", firn_result_json(result));
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);

		if (t->error.code)
			firn_complain_target(t);
		else if (!a->json)
			printf("%d %s priority %d\n", (int)t->pid, a->dry_run ? "would have" : "has", a->priority);
	}
	r = firn_result_code(result);
	firn_result_free(result);
	return r;
}

int firn_do_run(const struct firn_args *a)
{
	struct firn_progress_line line = { .verb = "run" };
	struct firn_result *result;
	struct firn_client *client;
	struct firn_error e;
	char shown[256];
	int r;

	if (a->priority >= 0 || a->size) {
		r = firn_connect(&client, FIRN_CONNECT_START, &e);
		if (r != FIRN_OK)
			return firn_fail(a, &e);
		firn_progress_begin(client, &line);
		r = firn_prepare_run(client, a->priority, a->size, timeout_ms(a), a->dry_run ? FIRN_DRY_RUN : 0, &result, &e);
		firn_progress_end(&line);
		firn_close(client);
		if (result && a->dry_run)
			print_given(a, result);
		firn_result_free(result);
		if (r != FIRN_OK)
			return firn_fail(a, &e);
	}
	if (a->dry_run) {
		printf("would run %s\n", a->command[0]);
		return FIRN_OK;
	}
	/* What we ignore, it shall not. */
	signal(SIGPIPE, SIG_DFL);
	fflush(stdout);
	execvp(a->command[0], a->command);
	r = errno;
	firn_print_escaped(shown, sizeof(shown), a->command[0], 200);
	firn_complain("cannot run %s: %s", shown, strerror(r));
	return r == ENOENT ? NO_COMMAND : NOT_RUN;
}

int firn_do_stats(const struct firn_args *a)
{
	bool json = a->json || a->format == FIRN_FORMAT_JSON;
	struct firn_client *client;
	struct firn_error e;
	char *text;
	int r = firn_connect(&client, 0, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_stats(client, json ? "json" : "openmetrics", &text, &e);
	firn_close(client);
	if (r != FIRN_OK)
		return firn_fail(a, &e);
	if (!json && a->format == FIRN_FORMAT_TEXT)
		firn_print_stats(stdout, text, firn_now_ms());
	else
		printf(json ? "%s\n" : "%s", text);
	free(text);
	return FIRN_OK;
}

static int print_event(void *arg, const char *json)
{
	(void)arg;
	return printf("%s\n", json) >= 0 && fflush(stdout) == 0;
}

int firn_do_monitor(const struct firn_args *a)
{
	struct firn_client *client;
	struct firn_error e;
	int r = firn_connect(&client, FIRN_CONNECT_START, &e);

	if (r != FIRN_OK)
		return firn_fail(a, &e);
	r = firn_monitor(client, print_event, NULL, &e);
	firn_close(client);
	return r == FIRN_OK ? FIRN_OK : firn_fail(a, &e);
}
