/* SPDX-License-Identifier: MIT */
/*
 * What every verb of firn says: its errors, one line each, and how far it is.
 */
#ifndef FIRN_CLI_SAY_H
#define FIRN_CLI_SAY_H

#include "cli/args.h"

/* To standard error, one line. */
void firn_complain(const char *fmt, ...) FIRN_PRINTF(1, 2);
/* The same with @prefix; @text is the agent's and may hold a name that a process chose. */
void firn_complain_text(const char *prefix, const char *text);
/* One target's trouble. */
void firn_complain_target(const struct firn_target *t);

/* A request that failed as a whole: said, as JSON too where that is wanted.  Returns its code. */
int firn_fail(const struct firn_args *a, const struct firn_error *e);

/* The line that says how far a call is, on a terminal, when it takes long. */
struct firn_progress_line {
	const char *verb;
	bool shown;
};

/* Have @line shown for the calls of @client, where there is a terminal; and no more. */
void firn_progress_begin(struct firn_client *client, struct firn_progress_line *line);
void firn_progress_end(struct firn_progress_line *line);

bool firn_is_terminal(int fd);
bool firn_want_colour(void);
/* Unix time. */
int64_t firn_now_ms(void);

#endif
