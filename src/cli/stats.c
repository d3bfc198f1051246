/* SPDX-License-Identifier: MIT */
/*
 * The agent's counters as people read them: the few that are asked for, out of the OpenMetrics text.
 */
#include "cli/stats.h"

#include <stdlib.h>
#include <string.h>

#include "cli/print.h"

/* The value of a sample, "operations_total{verb=\"evict\",cause=\"request\"}"; negative where it is not told. */
static double value(const char *text, const char *sample)
{
	size_t len = strlen(sample);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, "firn_", 5) == 0 && strncmp(line + 5, sample, len) == 0 && line[5 + len] == ' ')
			return strtod(line + 5 + len, NULL);
	}
	return -1;
}

static double operations(const char *text, const char *what, const char *verb, const char *cause)
{
	char sample[96];

	snprintf(sample, sizeof(sample), "%s_total{verb=\"%s\",cause=\"%s\"}", what, verb, cause);
	return value(text, sample);
}

static void label(FILE *out, const char *name)
{
	fprintf(out, "%-10s ", name);
}

static void size(FILE *out, const char *before, double bytes, const char *after)
{
	char buf[16];

	fprintf(out, "%s%s%s", before, firn_print_size(buf, sizeof(buf), bytes), after);
}

static void print_operations(FILE *out, const char *text)
{
	static const char *const verbs[] = { "freeze", "evict", "thaw" };
	static const char *const causes[] = { "request", "reclaim", "policy", "wake" };

	label(out, "");
	for (size_t c = 0; c < ARRAY_SIZE(causes); c++)
		fprintf(out, "%8s ", causes[c]);
	fprintf(out, "%8s\n", "failed");
	for (size_t v = 0; v < ARRAY_SIZE(verbs); v++) {
		double failed = 0;

		label(out, verbs[v]);
		for (size_t c = 0; c < ARRAY_SIZE(causes); c++) {
			double n = operations(text, "failures", verbs[v], causes[c]);

			failed += n > 0 ? n : 0;
			n = operations(text, "operations", verbs[v], causes[c]);
			fprintf(out, "%8.0f ", n > 0 ? n : 0);
		}
		fprintf(out, "%8.0f\n", failed);
	}
}

/* What a family with one label has above 0: "self 1, traced 2".  Whether it had anything. */
static bool print_each(FILE *out, const char *name, const char *text, const char *family, bool word_first)
{
	char prefix[64], word[64], shown[64];
	bool any = false;
	double n;

	snprintf(prefix, sizeof(prefix), "firn_%s{", family);
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, prefix, strlen(prefix)) != 0 || sscanf(line, "%*[^\"]\"%63[^\"]\"} %lf", word, &n) != 2 ||
		    n <= 0)
			continue;
		if (!any)
			label(out, name);
		firn_print_escaped(shown, sizeof(shown), word, 32);
		fputs(any ? ", " : "", out);
		if (word_first)
			fprintf(out, "%s %.0f", shown, n);
		else
			fprintf(out, "%.0f %s", n, shown);
		any = true;
	}
	if (any)
		fputc('\n', out);
	return any;
}

/* A mean, from a histogram's sum and count. */
static double mean_ms(const char *text, const char *name)
{
	char sample[64];
	double n, sum;

	snprintf(sample, sizeof(sample), "%s_count", name);
	n = value(text, sample);
	snprintf(sample, sizeof(sample), "%s_sum", name);
	sum = value(text, sample);
	return n > 0 ? sum / n * 1e3 : -1;
}

static void print_times(FILE *out, const char *text)
{
	static const struct {
		const char *name, *says;
	} times[] = {
		{ "evict_seconds", "evict" },
		{ "thaw_run_seconds", "running again after" },
		{ "thaw_whole_seconds", "whole after" },
	};
	char buf[16];
	bool any = false;

	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		double ms = mean_ms(text, times[i].name);

		if (ms < 0)
			continue;
		if (!any)
			label(out, "on average");
		fprintf(out, "%s%s %s", any ? ", " : "", times[i].says, firn_print_ms(buf, sizeof(buf), ms));
		any = true;
	}
	if (any)
		fputc('\n', out);
}

void firn_print_stats(FILE *out, const char *text, int64_t now_ms)
{
	double since = value(text, "started_seconds"), now = (double)now_ms / 1e3, n;
	char age[16];

	label(out, "agent");
	fprintf(out, "began %s ago\n", firn_print_age(age, sizeof(age), since < 0 ? -1 : now > since ? now - since : 0));
	print_operations(out, text);
	print_each(out, "why not", text, "refusals_total", true);
	label(out, "memory");
	size(out, "taken ", value(text, "evicted_bytes_total"), "");
	size(out, ", given back ", value(text, "freed_bytes_total"), "");
	size(out, "; out now ", value(text, "out_bytes"), "\n");
	label(out, "packs");
	size(out, "in the store ", value(text, "pack_bytes{place=\"store\"}"), "");
	size(out, ", in memory ", value(text, "pack_bytes{place=\"ram\"}"), "\n");
	label(out, "disk");
	size(out, "written ", value(text, "written_bytes_total"), "");
	size(out, ", read ", value(text, "read_bytes_total"), "");
	n = value(text, "faults_total");
	if (n >= 0)
		fprintf(out, "; %.0f fault%s answered", n, n == 1 ? "" : "s");
	fputc('\n', out);
	if (value(text, "budget_bytes") >= 0) {
		label(out, "budget");
		size(out, "", value(text, "budget_used_bytes"), "");
		size(out, " of ", value(text, "budget_bytes"), " written today\n");
	}
	if (!print_each(out, "targets", text, "targets", false)) {
		label(out, "targets");
		fputs("none\n", out);
	}
	print_times(out, text);
	label(out, "host");
	size(out, "", value(text, "memory_total_bytes"), "");
	size(out, ", available ", value(text, "memory_available_bytes"), "");
	n = value(text, "pressure_percent{kind=\"some\"}");
	if (n >= 0)
		fprintf(out, "; pressure some %.4g%%, full %.4g%%", n,
			value(text, "pressure_percent{kind=\"full\"}"));
	fputc('\n', out);
	n = value(text, "lost_pages_total");
	if (n > 0) {
		label(out, "lost");
		fprintf(out, "%.0f page%s could not be read back\n", n, n == 1 ? "" : "s");
	}
}
