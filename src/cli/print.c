/* SPDX-License-Identifier: MIT */
/*
 * What firn writes for people: lines, a table, units.
 */
#include "cli/print.h"

#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

/* What the agent did not tell is a dash, and a part of a sentence about it is left out. */
static const char *put(char *buf, size_t size, const char *text)
{
	snprintf(buf, size, "%s", text);
	return buf;
}

const char *firn_print_size(char *buf, size_t size, double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t u = 0;

	if (bytes < 0)
		return put(buf, size, "-");
	/* What would be rounded to 1024 is 1.0 of the next. */
	while (bytes >= 1023.5 && u + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, size, u > 0 && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return buf;
}

const char *firn_print_ms(char *buf, size_t size, double ms)
{
	if (ms < 0)
		return put(buf, size, "-");
	if (ms < 99.5)
		snprintf(buf, size, ms < 9.95 ? "%.1f ms" : "%.0f ms", ms);
	else if (ms < 9995)
		snprintf(buf, size, "%.2f s", ms / 1e3);
	else
		snprintf(buf, size, ms < 99950 ? "%.1f s" : "%.0f s", ms / 1e3);
	return buf;
}

const char *firn_print_age(char *buf, size_t size, double seconds)
{
	if (seconds < 0)
		return put(buf, size, "-");
	if (seconds < 60)
		snprintf(buf, size, "%d s", (int)seconds);
	else if (seconds < 3600)
		snprintf(buf, size, "%d min", (int)(seconds / 60));
	else if (seconds < 48 * 3600)
		snprintf(buf, size, "%d h", (int)(seconds / 3600));
	else
		snprintf(buf, size, "%.0f d", seconds / 86400);
	return buf;
}

int firn_print_escaped(char *buf, size_t size, const char *text, int columns)
{
	mbstate_t state = { 0 };
	size_t used = 0, left = strlen(text);
	int width = 0;

	while (left > 0 && width < columns) {
		wchar_t c;
		size_t n = mbrtowc(&c, text, left, &state);
		int w = n == (size_t)-1 || n == (size_t)-2 || n == 0 || !iswprint((wint_t)c)
				? -1
				: wcwidth(c);

		if (w < 0 && (n == (size_t)-1 || n == (size_t)-2 || n == 0)) {
			memset(&state, 0, sizeof(state));
			n = 1;
		}
		if (used + (w < 0 ? 1 : n) >= size || width + (w < 0 ? 1 : w) > columns)
			break;
		if (w < 0) {
			buf[used++] = '?';
			width++;
		} else {
			memcpy(buf + used, text, n);
			used += n;
			width += w;
		}
		text += n;
		left -= n;
	}
	buf[used] = '\0';
	return width;
}

const char *firn_print_target_name(char *buf, size_t size, const struct firn_target *t)
{
	char comm[64] = "";

	if (t->comm)
		firn_print_escaped(comm, sizeof(comm), t->comm, 15);
	snprintf(buf, size, "%d%s%s", (int)t->pid, *comm ? " " : "", comm);
	return buf;
}

static double page_bytes(void)
{
	return (double)sysconf(_SC_PAGESIZE);
}

static double taken_bytes(const struct firn_target *t)
{
	return t->pages.total < 0 ? -1 : (double)t->pages.total * page_bytes();
}

/* What of it is out of memory now. */
static double out_bytes(const struct firn_target *t)
{
	double pages = 0;

	if (t->pages.evicted < 0)
		return -1;
	pages += (double)t->pages.evicted;
	pages += t->pages.zero > 0 ? (double)t->pages.zero : 0;
	pages += t->pages.filled > 0 ? (double)t->pages.filled : 0;
	return pages * page_bytes();
}

static const char *plural(int64_t n)
{
	return n == 1 ? "" : "s";
}

void firn_print_done(FILE *out, const char *verb, bool dry_run, const struct firn_target *t)
{
	static const struct {
		const char *verb, *past;
	} words[] = { { "freeze", "froze" }, { "evict", "evicted" }, { "thaw", "thawed" } };
	char name[96], a[16];
	double bytes = taken_bytes(t);
	const char *past = verb;
	bool thaw = strcmp(verb, "thaw") == 0;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(verb, words[i].verb) == 0)
			past = words[i].past;
	}
	firn_print_target_name(name, sizeof(name), t);
	if (dry_run)
		fprintf(out, "would %s %s", verb, name);
	else
		fprintf(out, "%s %s", past, name);
	if (bytes >= 0)
		fprintf(out, ": %s", firn_print_size(a, sizeof(a), bytes));
	if (dry_run) {
		fprintf(out, "\n");
		return;
	}
	if (!thaw && t->ms.total >= 0)
		fprintf(out, " in %s", firn_print_ms(a, sizeof(a), t->ms.total));
	if (thaw) {
		if (t->ms.run >= 0)
			fprintf(out, ", ran after %s", firn_print_ms(a, sizeof(a), t->ms.run));
		if (t->ms.whole >= 0)
			fprintf(out, ", whole after %s", firn_print_ms(a, sizeof(a), t->ms.whole));
		if (t->io.read_calls >= 0)
			fprintf(out, ", %lld read%s", (long long)t->io.read_calls,
				plural(t->io.read_calls));
	} else {
		if (t->pack.bytes >= 0)
			fprintf(out, ", pack %s%s", firn_print_size(a, sizeof(a), (double)t->pack.bytes),
				t->place && strcmp(t->place, "ram") == 0 ? " in RAM" : "");
		if (t->ratio >= 0)
			fprintf(out, " (ratio %.1f)", t->ratio);
		if (t->io.write_calls >= 0)
			fprintf(out, ", %lld write%s", (long long)t->io.write_calls,
				plural(t->io.write_calls));
	}
	fprintf(out, "\n");
}

/* Does an earlier target of the result, which did not fail, belong to the same group? */
static bool group_known(const struct firn_result *result, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		const struct firn_target *t = firn_result_target(result, k);

		if (!t->error.code && t->group.id == firn_result_target(result, i)->group.id)
			return true;
	}
	return false;
}

void firn_print_groups(FILE *out, const struct firn_result *result)
{
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);
		char text[320];
		int64_t n = 0;

		if (t->error.code || !t->group.selector || group_known(result, i))
			continue;
		for (size_t k = i; k < firn_result_count(result); k++) {
			const struct firn_target *other = firn_result_target(result, k);

			n += !other->error.code && other->group.id == t->group.id;
		}
		firn_print_escaped(text, sizeof(text), t->group.selector, 280);
		fprintf(out, "%s: %lld process%s\n", text, (long long)n, n == 1 ? "" : "es");
	}
}

static const char *state_colour(const struct firn_target *t)
{
	if (!t->state || strcmp(t->state, "wedged") == 0 || t->pages.lost > 0)
		return "\033[1;31m";
	if (strcmp(t->state, "frozen") == 0 || strcmp(t->state, "held") == 0)
		return "\033[36m";
	if (strcmp(t->state, "evicted") == 0)
		return "\033[34m";
	return "";
}

void firn_print_list(FILE *out, const struct firn_result *result, int64_t now_ms, bool colour)
{
	if (firn_result_count(result) == 0) {
		fprintf(out, "nothing found: no process is frozen or evicted\n");
		return;
	}
	fprintf(out, "%7s  %-15s  %-8s  %6s  %8s  %8s  %8s  %5s  %s\n", "PID", "NAME", "STATE", "AGE",
		"TAKEN", "OUT", "PACK", "RATIO", "PLACE");
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);
		const char *on = colour ? state_colour(t) : "", *off = *on ? "\033[0m" : "";
		char comm[64], state[16], age[16], taken[16], gone[16], pack[16], ratio[16] = "-", place[16];
		int width = firn_print_escaped(comm, sizeof(comm), t->comm ? t->comm : "-", 15);

		firn_print_escaped(state, sizeof(state), t->state ? t->state : "-", 8);
		firn_print_escaped(place, sizeof(place), t->place ? t->place : "-", 8);
		if (t->ratio >= 0)
			snprintf(ratio, sizeof(ratio), "%.1f", t->ratio);
		firn_print_age(age, sizeof(age),
			       t->since_ms < 0
				       ? -1
				       : (double)(now_ms > t->since_ms ? now_ms - t->since_ms : 0) /
						 1e3);
		firn_print_size(taken, sizeof(taken), taken_bytes(t));
		firn_print_size(gone, sizeof(gone), out_bytes(t));
		firn_print_size(pack, sizeof(pack), (double)t->pack.bytes);
		fprintf(out, "%7d  %s%*s  %s%-8s%s  %6s  %8s  %8s  %8s  %5s  %s\n", (int)t->pid, comm,
			15 - width, "", on, state, off, age, taken, gone, pack, ratio, place);
	}
	firn_print_groups(out, result);
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);

		if (t->pages.lost > 0)
			fprintf(out, "%d has lost %lld page%s: see firn show %d\n", (int)t->pid,
				(long long)t->pages.lost, plural(t->pages.lost), (int)t->pid);
	}
}

void firn_print_units(FILE *out, const struct firn_result *result, bool colour)
{
	const char *host = firn_result_text(result, "text");
	char text[512];

	if (firn_result_count(result) == 0)
		fprintf(out, "nothing found: no process of yours is in the agent's scope\n");
	else
		fprintf(out, "%7s  %-15s  %-7s  %3s  %8s  %6s  %8s  %s\n", "PID", "NAME", "STATE", "PRI", "PRIVATE", "IDLE",
			"GAIN", "NOW");
	for (size_t i = 0; i < firn_result_count(result); i++) {
		const struct firn_target *t = firn_result_target(result, i);
		const char *on = colour ? state_colour(t) : "", *off = *on ? "\033[0m" : "", *now = t->policy.reason;
		char comm[64], state[16], private[16], idle[16], gain[16];
		int width = firn_print_escaped(comm, sizeof(comm), t->comm ? t->comm : "-", 15);

		firn_print_escaped(state, sizeof(state), t->state ? t->state : "-", 7);
		if (t->policy.action && strcmp(t->policy.action, "none"))
			now = t->policy.action;
		firn_print_escaped(text, sizeof(text), now ? now : "-", 12);
		fprintf(out, "%7d  %s%*s  %s%-7s%s  %3lld  %8s  %6s  %8s  %s\n", (int)t->pid, comm, 15 - width, "", on, state, off,
			(long long)t->policy.priority,
			firn_print_size(private, sizeof(private), (double)t->policy.private_bytes),
			firn_print_age(idle, sizeof(idle), (double)t->policy.idle_ms / 1e3),
			firn_print_size(gain, sizeof(gain), (double)t->policy.gain), text);
	}
	if (host) {
		firn_print_escaped(text, sizeof(text), host, 400);
		fprintf(out, "%s\n", text);
	}
}

static void label(FILE *out, const char *name)
{
	fprintf(out, "  %-9s ", name);
}

/* ", 12 name" after the first; nothing where @n is not known. */
static void count(FILE *out, bool *first, int64_t n, const char *name)
{
	if (n < 0)
		return;
	fprintf(out, "%s%lld %s", *first ? "" : ", ", (long long)n, name);
	*first = false;
}

static void show_io(FILE *out, const char *name, int64_t calls, int64_t bytes)
{
	char a[16];

	if (calls < 0)
		return;
	label(out, name);
	fprintf(out, "%lld call%s", (long long)calls, plural(calls));
	if (bytes >= 0)
		fprintf(out, ", %s", firn_print_size(a, sizeof(a), (double)bytes));
}

static void show_pages(FILE *out, const struct firn_target *t)
{
	char a[16], b[16];
	bool first = true;

	if (t->pages.total < 0)
		return;
	label(out, "taken");
	fprintf(out, "%s, %lld pages", firn_print_size(a, sizeof(a), taken_bytes(t)),
		(long long)t->pages.total);
	if (out_bytes(t) >= 0)
		fprintf(out, "; out now %s", firn_print_size(b, sizeof(b), out_bytes(t)));
	fprintf(out, "\n");
	label(out, "pages");
	count(out, &first, t->pages.evicted, "evicted");
	count(out, &first, t->pages.zero, "zero");
	count(out, &first, t->pages.filled, "filled");
	count(out, &first, t->pages.resident, "back");
	count(out, &first, t->pages.removed, "removed");
	count(out, &first, t->pages.lost, "lost");
	fprintf(out, "\n");
}

static void show_pack(FILE *out, const struct firn_target *t)
{
	char text[512], a[16], b[16];
	bool first = true;

	if (t->pack.path) {
		firn_print_escaped(text, sizeof(text), t->pack.path, 400);
		label(out, "pack");
		fprintf(out, "%s%s\n", text, t->place && strcmp(t->place, "ram") == 0 ? " (in RAM)" : "");
	}
	if (t->pack.bytes < 0)
		return;
	label(out, "");
	fprintf(out, "%s", firn_print_size(a, sizeof(a), (double)t->pack.bytes));
	if (t->pack.raw >= 0)
		fprintf(out, " for %s", firn_print_size(a, sizeof(a), (double)t->pack.raw));
	if (t->ratio >= 0)
		fprintf(out, " (ratio %.2f)", t->ratio);
	if (t->base_bytes > 0)
		fprintf(out, ", %s of it in an earlier pack of %s", firn_print_size(a, sizeof(a), (double)t->reused_bytes),
			firn_print_size(b, sizeof(b), (double)t->base_bytes));
	fprintf(out, ", ");
	count(out, &first, t->pack.blocks, "blocks");
	count(out, &first, t->pack.duplicates, "duplicate pages");
	fprintf(out, "\n");
	if (t->pack.codec || t->pack.cipher) {
		char codec[32] = "-", cipher[32] = "-";

		if (t->pack.codec)
			firn_print_escaped(codec, sizeof(codec), t->pack.codec, 30);
		if (t->pack.cipher)
			firn_print_escaped(cipher, sizeof(cipher), t->pack.cipher, 30);
		label(out, "");
		fprintf(out, "%s, encryption %s", codec, cipher);
		if (t->pack.generation >= 0)
			fprintf(out, ", generation %lld", (long long)t->pack.generation);
		fprintf(out, "\n");
	}
}

static void show_times(FILE *out, const struct firn_target *t)
{
	const struct {
		const char *name;
		double ms;
	} steps[] = {
		{ "plan", t->ms.plan },         { "stop", t->ms.stop },
		{ "walk", t->ms.walk },         { "gather", t->ms.gather },
		{ "write", t->ms.write },       { "arm", t->ms.arm },
		{ "drop", t->ms.drop },         { "leave", t->ms.leave },
		{ "total", t->ms.total },       { "ran after", t->ms.run },
		{ "whole after", t->ms.whole },
	};
	char a[16];
	int shown = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i].ms < 0)
			continue;
		if (shown % 5 == 0) {
			if (shown)
				fprintf(out, "\n");
			label(out, shown ? "" : "time");
		}
		fprintf(out, "%s%s %s", shown % 5 ? ", " : "", steps[i].name,
			firn_print_ms(a, sizeof(a), steps[i].ms));
		shown++;
	}
	if (shown)
		fprintf(out, "\n");
}

static void put_time(FILE *out, int64_t ms)
{
	time_t at = (time_t)(ms / 1000);
	char text[64];
	struct tm tm;

	if (ms > 0 && localtime_r(&at, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
		fprintf(out, "%s", text);
}

static void show_wake(FILE *out, const struct firn_target *t)
{
	char a[160];

	if (t->wake.on_use) {
		label(out, "wake");
		fprintf(out, "on use; %s, %lld descriptor%s", t->wake.watching ? "watched" : "not watched now",
			(long long)t->wake.descriptors, plural(t->wake.descriptors));
		if (t->wake.left_out > 0)
			fprintf(out, ", %lld that cannot be", (long long)t->wake.left_out);
		if (t->wake.hidden > 0)
			fprintf(out, ", %lld that nothing shows", (long long)t->wake.hidden);
		if (t->wake.due_ms > 0) {
			fprintf(out, "; at ");
			put_time(out, t->wake.due_ms);
		}
		fprintf(out, "\n");
	}
	if (!t->woken.by)
		return;
	label(out, "woken");
	firn_print_escaped(a, sizeof(a), t->woken.by, 20);
	fprintf(out, "by %s", a);
	if (t->woken.number > 0)
		fprintf(out, " %lld", (long long)t->woken.number);
	if (t->woken.fd >= 0)
		fprintf(out, " at descriptor %lld", (long long)t->woken.fd);
	if (t->woken.local) {
		firn_print_escaped(a, sizeof(a), t->woken.local, 120);
		fprintf(out, ", %s", a);
	}
	if (t->woken.peer) {
		firn_print_escaped(a, sizeof(a), t->woken.peer, 120);
		fprintf(out, " from %s", a);
	}
	fprintf(out, ", ");
	put_time(out, t->woken.at_ms);
	fprintf(out, "\n");
}

/* One that woke, and is no target any more: nothing but that is known. */
static bool only_woken(const struct firn_target *t)
{
	return t->woken.by && t->pages.total <= 0 && !t->pack.path;
}

void firn_print_show(FILE *out, const struct firn_target *t, int64_t now_ms)
{
	char name[96], text[256], a[16], b[16];
	bool first = false;

	fprintf(out, "%s\n", firn_print_target_name(name, sizeof(name), t));
	label(out, "state");
	firn_print_escaped(text, sizeof(text), t->state ? t->state : "-", 20);
	fprintf(out, "%s", text);
	if (t->kind) {
		firn_print_escaped(text, sizeof(text), t->kind, 20);
		fprintf(out, " (%s)", text);
	}
	if (t->since_ms >= 0) {
		time_t since = (time_t)(t->since_ms / 1000);
		struct tm tm;

		if (localtime_r(&since, &tm) &&
		    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
			fprintf(out, " since %s, %s", text,
				firn_print_age(a, sizeof(a),
					       now_ms > t->since_ms
						       ? (double)(now_ms - t->since_ms) / 1e3
						       : 0));
	}
	fprintf(out, "\n");
	if (t->id) {
		firn_print_escaped(text, sizeof(text), t->id, 60);
		label(out, "id");
		fprintf(out, "%s\n", text);
	}
	if (t->group.selector) {
		firn_print_escaped(text, sizeof(text), t->group.selector, 240);
		label(out, "group");
		fprintf(out, "%s\n", text);
	}
	if (t->error.code) {
		firn_print_escaped(text, sizeof(text), t->error.message ? t->error.message : "-",
				   200);
		label(out, "error");
		fprintf(out, "%s\n", text);
	}
	if (t->memory.before >= 0 && t->memory.after >= 0) {
		label(out, "memory");
		fprintf(out, "%s before, %s after (private, anonymous)\n",
			firn_print_size(a, sizeof(a), (double)t->memory.before),
			firn_print_size(b, sizeof(b), (double)t->memory.after));
	}
	show_wake(out, t);
	if (only_woken(t))
		return;
	show_pages(out, t);
	show_pack(out, t);
	show_io(out, "written", t->io.write_calls, t->io.write_bytes);
	if (t->io.write_calls >= 0)
		fprintf(out, "\n");
	show_io(out, "read", t->io.read_calls, t->io.read_bytes);
	if (t->io.read_calls >= 0) {
		count(out, &first, t->io.blocks_read, "blocks");
		count(out, &first, t->io.faults, "faults");
		fprintf(out, "\n");
	}
	show_times(out, t);
}
