/* SPDX-License-Identifier: MIT */
/*
 * What the agent remembers of processes from one look to the next: priorities that were set, who was taken by whose
 * decision, and how returns went.  Kept in a file on tmpfs, so that a successor knows it too; forgotten when the
 * process ends.
 *
 * A book belongs to one thread at a time.
 */
#ifndef FIRN_AGENT_BOOK_H
#define FIRN_AGENT_BOOK_H

#include <sys/types.h>

#include "base/types.h"

#define FIRN_BOOK_WHY 160

struct firn_entry {
	pid_t pid;
	uint64_t start_time;
	bool has_priority;              /* set by request; else the rules say */
	bool tree;                      /* for its descendants too, as far as they have none of their own */
	uint8_t priority;
	bool out;                       /* the agent knew it evicted or frozen at the last look */
	bool by_agent;                  /* by the agent's own decision, or for a need */
	uint32_t quick_returns;
	uint64_t out_ns;                /* since when; monotonic, of this boot; 0: not known */
	uint64_t back_ns;               /* when it came back; 0: never was out */
	uint64_t stored_bytes;          /* what its last pack took; 0: not known */
	/* Not kept in the file. */
	bool here;
	uint64_t faults, faults_ns;     /* of its report at the last look */
	uint32_t refaults_per_s;
	uint64_t refused_until_ns;      /* the engine said no; not asked again before */
	char refused_why[FIRN_BOOK_WHY];
};

struct firn_book {
	struct firn_entry *entries;     /* by ascending pid */
	size_t n, size;
	bool changed;                   /* what is kept differs from the file */
	char path[512];
};

/* Open the book in @dir, with what an earlier agent wrote there; an unreadable one counts as empty.
 * Returns 0, -ENAMETOOLONG, or -ENOMEM. */
int firn_book_open(struct firn_book *b, const char *dir);
void firn_book_close(struct firn_book *b);

/* The entry of a process, or NULL. */
struct firn_entry *firn_book_find(struct firn_book *b, pid_t pid, uint64_t start_time);
/* The same, made where there is none; an entry of another process of that number is replaced.  NULL: no memory.
 * Pointers into the book are valid until the next one is made. */
struct firn_entry *firn_book_make(struct firn_book *b, pid_t pid, uint64_t start_time);

/* Forget whoever is not @here, and set all of them not here. */
void firn_book_sweep(struct firn_book *b);

/* Write it where it was changed, by one rename.  Returns 0, or -errno: it stays changed. */
int firn_book_save(struct firn_book *b);

#endif
