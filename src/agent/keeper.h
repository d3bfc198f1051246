/* SPDX-License-Identifier: MIT */
/*
 * The keeper: a process that shares the agent's descriptor table, sleeps, and outlives it.  While it
 * lives, no userfaultfd of a target is closed by the agent's death, and the key of the packs is not
 * forgotten.
 */
#ifndef FIRN_AGENT_KEEPER_H
#define FIRN_AGENT_KEEPER_H

#include <sys/types.h>

#include "base/err.h"

#define FIRN_KEY_MAGIC 0x79656b6e72696600ull

/* One page of shared, locked memory. */
struct firn_key_page {
	uint64_t magic;
	uint64_t generation;         /* of the newest pack made under this key */
	uint8_t key[32];
	int32_t settled;             /* the newest keeper that no longer dies with its agent */
	int32_t retiring;            /* a keeper that was replaced and may still be there */
};

struct firn_keeper {
	pid_t pid;
	int key_fd;
	struct firn_key_page *key;
	pid_t old;                   /* a former agent's, still alive; 0: none */
	pid_t unnamed;               /* one more, that its agent came not to name; 0: none */
};

/*
 * Take the key from the keeper that a former agent left in @runtime_dir; or, where none lives, from @stored, a
 * descriptor of one that somebody else kept (-1: nobody did; it is closed); or make a new one.  Then start a
 * keeper of our own.  Before any other thread starts.  Returns 0, or -errno with *@e.
 */
int firn_keeper_start(struct firn_keeper *k, const char *runtime_dir, int stored, struct firn_err *e);

/* Everything is taken over: note the new keeper in @runtime_dir and end the old one. */
int firn_keeper_settle(struct firn_keeper *k, const char *runtime_dir);

/* Is it still there?  If not, start another in its place (then true is returned, and k->pid is new).  The
 * caller has the engine note it and settles.  Main thread. */
bool firn_keeper_replace(struct firn_keeper *k);

/* Nothing is frozen any more: end it. */
void firn_keeper_end(struct firn_keeper *k, const char *runtime_dir);

/* The process that file @name of @dir names, if it still runs, else 0. */
pid_t firn_pid_file_read(const char *dir, const char *name);
/* Write "PID STARTTIME".  Returns 0, or -errno. */
int firn_pid_file_write(const char *dir, const char *name, pid_t pid);

#endif
