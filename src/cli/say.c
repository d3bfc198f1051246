/* SPDX-License-Identifier: MIT */
#include "cli/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/print.h"

#define PROGRESS_AFTER_MS 1000.0

void firn_complain(const char *fmt, ...)
{
	va_list ap;

	fputs("firn: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void firn_complain_text(const char *prefix, const char *text)
{
	char shown[1024];

	firn_print_escaped(shown, sizeof(shown), text, 600);
	firn_complain("%s%s", prefix, shown);
}

bool firn_is_terminal(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

bool firn_want_colour(void)
{
	const char *no = getenv("NO_COLOR");

	return (!no || !*no) && firn_is_terminal(STDOUT_FILENO);
}

int64_t firn_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void show_progress(void *arg, const struct firn_progress *p)
{
	struct firn_progress_line *line = arg;
	char pid[16] = "", step[48] = "", part[16] = "", ms[16];

	if (p->elapsed_ms < PROGRESS_AFTER_MS)
		return;
	if (p->pid > 0)
		snprintf(pid, sizeof(pid), " %d", (int)p->pid);
	if (p->phase) {
		char phase[32];

		firn_print_escaped(phase, sizeof(phase), p->phase, 16);
		snprintf(step, sizeof(step), " %s", phase);
	}
	if (p->total > 0 && p->done >= 0 && p->done <= p->total)
		snprintf(part, sizeof(part), " %.0f%%", 100.0 * (double)p->done / (double)p->total);
	fprintf(stderr, "\r\033[K%s%s:%s%s, %s", line->verb, pid, step, part,
		firn_print_ms(ms, sizeof(ms), p->elapsed_ms));
	fflush(stderr);
	line->shown = true;
}

void firn_progress_end(struct firn_progress_line *line)
{
	if (line->shown)
		fputs("\r\033[K", stderr);
	line->shown = false;
}

void firn_progress_begin(struct firn_client *client, struct firn_progress_line *line)
{
	if (firn_is_terminal(STDERR_FILENO))
		firn_on_progress(client, show_progress, line);
}

/* A JSON string may hold anything but quotes, backslashes and control characters as they are. */
static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

int firn_fail(const struct firn_args *a, const struct firn_error *e)
{
	if (a->json) {
		printf("{\"error\":{\"code\":%d,\"reason\":", e->code);
		print_json_string(e->reason);
		printf(",\"message\":");
		print_json_string(e->message);
		printf("}}\n");
	}
	firn_complain_text("", e->message);
	return e->code;
}

/* Its message may begin with "process PID", which we have said, or say it by itself. */
void firn_complain_target(const struct firn_target *t)
{
	const char *text = t->error.message ? t->error.message : "failed: see the agent's log";
	char name[96], process[32], none[48], thread[32], prefix[104];
	const char *between = ": ";
	int n = snprintf(process, sizeof(process), "process %d", (int)t->pid);
	bool named;

	snprintf(none, sizeof(none), "there is no process %d", (int)t->pid);
	snprintf(thread, sizeof(thread), "%d is a thread", (int)t->pid);
	named = strncmp(text, none, strlen(none)) == 0 || strncmp(text, thread, strlen(thread)) == 0;
	if (strncmp(text, process, (size_t)n) == 0 && strncmp(text + n, ": ", 2) == 0) {
		text += n + 2;
	} else if (strncmp(text, process, (size_t)n) == 0 && text[n] == ' ') {
		text += n + 1;
		between = " ";
	}
	snprintf(prefix, sizeof(prefix), "%s%s", firn_print_target_name(name, sizeof(name), t),
		 between);
	/* Without a PID it is said of a whole group, by its name. */
	firn_complain_text(t->pid && !named ? prefix : "", text);
}
