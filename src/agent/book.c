/* SPDX-License-Identifier: MIT */
#include "agent/book.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"

#define NAME "book"
#define HEADER "firn-book 1\n"
#define LINE "%d %" PRIu64 " %d %d %u %d %d %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64

static size_t place(const struct firn_book *b, pid_t pid)
{
	size_t low = 0, high = b->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (b->entries[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct firn_entry *firn_book_find(struct firn_book *b, pid_t pid, uint64_t start_time)
{
	size_t i = place(b, pid);

	return i < b->n && b->entries[i].pid == pid && b->entries[i].start_time == start_time ? &b->entries[i] : NULL;
}

struct firn_entry *firn_book_make(struct firn_book *b, pid_t pid, uint64_t start_time)
{
	size_t i = place(b, pid);
	struct firn_entry *e;

	if (i == b->n || b->entries[i].pid != pid) {
		if (b->n == b->size) {
			size_t size = b->size ? b->size * 2 : 64;
			struct firn_entry *grown = realloc(b->entries, size * sizeof(*grown));

			if (!grown)
				return NULL;
			b->entries = grown;
			b->size = size;
		}
		memmove(&b->entries[i + 1], &b->entries[i], (b->n - i) * sizeof(*b->entries));
		b->n++;
		b->entries[i].start_time = ~start_time;
	}
	e = &b->entries[i];
	if (e->start_time != start_time)
		*e = (struct firn_entry){ .pid = pid, .start_time = start_time };
	return e;
}

void firn_book_sweep(struct firn_book *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->n; i++) {
		if (!b->entries[i].here) {
			b->changed = true;
			continue;
		}
		b->entries[kept] = b->entries[i];
		b->entries[kept++].here = false;
	}
	b->n = kept;
}

static void load(struct firn_book *b)
{
	FILE *f = fopen(b->path, "re");
	struct firn_entry e = { 0 }, *made;
	char line[256];
	int has, tree, out, by_agent;
	unsigned int priority;

	if (!f)
		return;
	if (fgets(line, sizeof(line), f) && !strcmp(line, HEADER)) {
		while (fgets(line, sizeof(line), f)) {
			if (sscanf(line, "%d %" SCNu64 " %d %d %u %d %d %" SCNu32 " %" SCNu64 " %" SCNu64 " %" SCNu64,
				   &e.pid, &e.start_time, &has, &tree, &priority, &out, &by_agent, &e.quick_returns,
				   &e.out_ns, &e.back_ns, &e.stored_bytes) != 11 ||
			    e.pid <= 0 || priority > 100)
				break;
			made = firn_book_make(b, e.pid, e.start_time);
			if (!made)
				break;
			e.has_priority = has;
			e.tree = tree;
			e.priority = (uint8_t)priority;
			e.out = out;
			e.by_agent = by_agent;
			*made = e;
		}
	}
	fclose(f);
}

int firn_book_open(struct firn_book *b, const char *dir)
{
	memset(b, 0, sizeof(*b));
	if (firn_path_join(b->path, sizeof(b->path) - 4, dir, NAME))
		return -ENAMETOOLONG;
	load(b);
	return 0;
}

void firn_book_close(struct firn_book *b)
{
	free(b->entries);
	b->entries = NULL;
	b->n = b->size = 0;
}

int firn_book_save(struct firn_book *b)
{
	char next[sizeof(b->path)];
	bool failed;
	FILE *f;

	if (!b->changed)
		return 0;
	if (!b->n) {
		if (unlink(b->path) && errno != ENOENT)
			return -errno;
		b->changed = false;
		return 0;
	}
	snprintf(next, sizeof(next), "%.*s.new", (int)sizeof(next) - 5, b->path);
	f = fopen(next, "we");
	if (!f)
		return -errno;
	fchmod(fileno(f), 0600);
	fputs(HEADER, f);
	for (size_t i = 0; i < b->n; i++) {
		const struct firn_entry *e = &b->entries[i];

		fprintf(f, LINE "\n", e->pid, e->start_time, e->has_priority, e->tree, e->priority, e->out, e->by_agent,
			e->quick_returns, e->out_ns, e->back_ns, e->stored_bytes);
	}
	failed = ferror(f);
	if (fclose(f) || failed)
		return -EIO;
	if (rename(next, b->path))
		return -errno;
	b->changed = false;
	return 0;
}
