/* SPDX-License-Identifier: MIT */
#include "agent/ledger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/paths.h"
#include "base/size.h"
#include "policy/policy.h"
#include "sys/sys.h"

#define NAME "ledger"
#define HEADER "firn-ledger 1\n"
/* Targets of the past days are dropped first; then the oldest. */
#define LINES 1024u

static uint64_t boot_number(void)
{
	char buf[64];
	uint64_t h = 1469598103934665603ull;

	if (firn_sys_read_file("/proc/sys/kernel/random/boot_id", buf, sizeof(buf)) <= 0)
		return 0;
	for (const char *p = buf; *p; p++)
		h = (h ^ (unsigned char)*p) * 1099511628211ull;
	return h;
}

static struct firn_budget_time clocks(const struct firn_ledger *l)
{
	struct timespec wall, running;

	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_BOOTTIME, &running);
	return (struct firn_budget_time){ wall.tv_sec, (uint64_t)running.tv_sec * 1000000000u + (uint64_t)running.tv_nsec,
					  l->boot };
}

static struct firn_ledger_line *find(const struct firn_ledger *l, pid_t pid, uint64_t start_time)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->lines[i].pid == pid && l->lines[i].start_time == start_time)
			return &l->lines[i];
	return NULL;
}

static struct firn_ledger_line *make(struct firn_ledger *l, pid_t pid, uint64_t start_time)
{
	struct firn_ledger_line *line = find(l, pid, start_time);
	size_t kept = 0;

	if (line)
		return line;
	if (l->n == LINES) {
		for (size_t i = 0; i < l->n; i++)
			if (l->lines[i].wear.days == l->budget.days)
				l->lines[kept++] = l->lines[i];
		if (kept == LINES)
			memmove(l->lines, l->lines + 1, --kept * sizeof(*l->lines));
		l->n = kept;
	}
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 32;
		struct firn_ledger_line *grown = realloc(l->lines, size * sizeof(*grown));

		if (!grown)
			return NULL;
		l->lines = grown;
		l->size = size;
	}
	line = &l->lines[l->n++];
	*line = (struct firn_ledger_line){ .pid = pid, .start_time = start_time };
	return line;
}

#define BUDGET_IN "%" SCNu64 " %" SCNd64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 \
		  " %" SCNu64 " %" SCNu32 " %u"
#define BUDGET_OUT "%" PRIu64 " %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 \
		   " %" PRIu64 " %" PRIu32 " %u\n"
#define LINE_IN "%d %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %15[^\n]"
#define LINE_OUT "%d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n"

static bool load(struct firn_ledger *l, FILE *f)
{
	struct firn_budget *b = &l->budget;
	struct firn_ledger_line line, *made;
	unsigned int told;
	char text[512];

	if (!fgets(text, sizeof(text), f) || strcmp(text, HEADER) || !fgets(text, sizeof(text), f) ||
	    sscanf(text, BUDGET_IN, &b->days, &b->day, &b->carried_bytes, &b->spent_bytes, &b->today_bytes, &b->total_bytes,
		   &b->boot, &b->granted_ns, &b->before_ns, &b->grants, &told) != 11 || told > FIRN_BUDGET_USED_UP)
		return false;
	b->told = (enum firn_budget_level)told;
	while (fgets(text, sizeof(text), f)) {
		memset(&line, 0, sizeof(line));
		if (sscanf(text, LINE_IN, &line.pid, &line.start_time, &line.wear.days, &line.wear.today_bytes,
			   &line.wear.total_bytes, line.comm) < 5)
			return false;
		made = make(l, line.pid, line.start_time);
		if (made)
			*made = line;
	}
	return true;
}

int firn_ledger_open(struct firn_ledger *l, const char *dir)
{
	FILE *f;

	memset(l, 0, sizeof(*l));
	l->config.daily_bytes = FIRN_NO_LIMIT;
	l->boot = boot_number();
	if (firn_path_join(l->path, sizeof(l->path) - 4, dir, NAME))
		return -ENAMETOOLONG;
	f = fopen(l->path, "re");
	if (!f)
		return 0;
	if (!load(l, f)) {
		firn_log("%s is damaged: what was written before is not counted", l->path);
		memset(&l->budget, 0, sizeof(l->budget));
		l->n = 0;
	}
	fclose(f);
	return 0;
}

void firn_ledger_close(struct firn_ledger *l)
{
	free(l->lines);
	l->lines = NULL;
	l->n = l->size = 0;
}

void firn_ledger_configure(struct firn_ledger *l, const struct firn_budget_config *config)
{
	l->config = *config;
}

static void roll(struct firn_ledger *l)
{
	struct firn_budget_time t = clocks(l);

	firn_budget_roll(&l->config, &l->budget, &t);
}

static int save(const struct firn_ledger *l)
{
	const struct firn_budget *b = &l->budget;
	char next[sizeof(l->path)];
	bool failed;
	FILE *f;

	snprintf(next, sizeof(next), "%.*s.new", (int)sizeof(next) - 5, l->path);
	f = fopen(next, "we");
	if (!f)
		return -errno;
	fchmod(fileno(f), 0600);
	fputs(HEADER, f);
	fprintf(f, BUDGET_OUT, b->days, b->day, b->carried_bytes, b->spent_bytes, b->today_bytes, b->total_bytes, b->boot,
		b->granted_ns, b->before_ns, b->grants, (unsigned int)b->told);
	for (size_t i = 0; i < l->n; i++) {
		const struct firn_ledger_line *line = &l->lines[i];
		char comm[16];

		snprintf(comm, sizeof(comm), "%s", line->comm);
		for (char *p = comm; *p; p++)
			if (*p == '\n')
				*p = ' ';
		fprintf(f, LINE_OUT, line->pid, line->start_time, line->wear.days, line->wear.today_bytes,
			line->wear.total_bytes, comm);
	}
	failed = ferror(f);
	if (fclose(f) || failed)
		return -EIO;
	return rename(next, l->path) ? -errno : 0;
}

void firn_ledger_note(struct firn_ledger *l, pid_t pid, uint64_t start_time, const char *comm, uint64_t bytes)
{
	struct firn_ledger_line *line;
	enum firn_budget_level level;
	char left[FIRN_SIZE_TEXT];
	int err;

	roll(l);
	line = make(l, pid, start_time);
	if (line)
		snprintf(line->comm, sizeof(line->comm), "%s", comm);
	firn_budget_spend(&l->budget, line ? &line->wear : NULL, bytes);
	if (firn_budget_news(&l->config, &l->budget, &level))
		firn_log(level == FIRN_BUDGET_USED_UP ?
			 "the day's budget of bytes written is used up: until tomorrow the agent evicts nothing by itself%s" :
			 "of the day's budget of bytes written %s are left",
			 level == FIRN_BUDGET_USED_UP ? "" : firn_size_print(left, firn_ledger_left(l) >> 20 << 20));
	err = save(l);
	if (err)
		firn_log("%s cannot be written (%s): bytes written are counted until the agent ends", l->path, strerror(-err));
}

uint64_t firn_ledger_left(struct firn_ledger *l)
{
	roll(l);
	return firn_budget_left(&l->config, &l->budget);
}

uint64_t firn_ledger_today(struct firn_ledger *l)
{
	roll(l);
	return l->budget.today_bytes;
}

uint64_t firn_ledger_total(const struct firn_ledger *l)
{
	return l->budget.total_bytes;
}

uint64_t firn_ledger_written(const struct firn_ledger *l, pid_t pid, uint64_t start_time)
{
	const struct firn_ledger_line *line = find(l, pid, start_time);

	return line ? firn_wear_today(&l->budget, &line->wear) : 0;
}
