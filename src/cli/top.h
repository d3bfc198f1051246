/* SPDX-License-Identifier: MIT */
/*
 * firn top: a live table of processes, what they would give, and keys to freeze and thaw them.
 */
#ifndef FIRN_CLI_TOP_H
#define FIRN_CLI_TOP_H

#include "cli/args.h"

/* How wide the table is at least; it grows with the screen. */
#define FIRN_TOP_COLUMNS 78

/* The head of the table, and one line of it, each without a newline and at most @columns wide.  @buf of 4 bytes a column
 * is enough. */
void firn_top_head(char *buf, size_t size, int columns);
void firn_top_line(char *buf, size_t size, int columns, const struct firn_target *t);

enum firn_top_order {
	FIRN_TOP_QUEUE,     /* as they would give memory: the agent's */
	FIRN_TOP_PRIVATE,   /* the largest first */
	FIRN_TOP_IDLE,      /* the longest idle first */
	FIRN_TOP_PRIORITY,  /* the least first */
	FIRN_TOP_PID,
	FIRN_TOP_ORDERS
};

/* Sort @targets, pointers into a result. */
void firn_top_sort(const struct firn_target **targets, size_t n, enum firn_top_order order);

/* Run until q; returns the exit status.  Needs a terminal. */
int firn_do_top(const struct firn_args *a);

#endif
