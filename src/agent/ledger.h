/* SPDX-License-Identifier: MIT */
/*
 * What was written to the store, for whom, and what may still be written today: policy/budget.h with clocks and a file
 * of its own, which outlives the agent and the boot.
 *
 * A ledger belongs to one thread at a time.
 */
#ifndef FIRN_AGENT_LEDGER_H
#define FIRN_AGENT_LEDGER_H

#include <sys/types.h>

#include "policy/budget.h"

struct firn_ledger_line {
	pid_t pid;
	uint64_t start_time;
	char comm[16];
	struct firn_wear wear;
};

struct firn_ledger {
	char path[512];
	struct firn_budget_config config;
	struct firn_budget budget;
	uint64_t boot;
	struct firn_ledger_line *lines;
	size_t n, size;
};

/* Open the ledger in @dir; one that is not there, or is damaged, begins anew: a damaged one is logged.  There is no
 * budget before firn_ledger_configure().  Returns 0, or -ENAMETOOLONG. */
int firn_ledger_open(struct firn_ledger *l, const char *dir);
void firn_ledger_close(struct firn_ledger *l);
void firn_ledger_configure(struct firn_ledger *l, const struct firn_budget_config *config);

/* Bytes were written for a target: note it, in the file too, and log it when the budget runs low. */
void firn_ledger_note(struct firn_ledger *l, pid_t pid, uint64_t start_time, const char *comm, uint64_t bytes);

/* What may still be written today; FIRN_NO_LIMIT. */
uint64_t firn_ledger_left(struct firn_ledger *l);
/* What was written today; ever. */
uint64_t firn_ledger_today(struct firn_ledger *l);
uint64_t firn_ledger_total(const struct firn_ledger *l);
/* What was written today for one process. */
uint64_t firn_ledger_written(const struct firn_ledger *l, pid_t pid, uint64_t start_time);

#endif
