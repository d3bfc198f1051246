/* SPDX-License-Identifier: MIT */
/*
 * What firn writes for people.  Nothing here checks for write errors: ferror() on the stream tells
 * in the end.
 */
#ifndef FIRN_CLI_PRINT_H
#define FIRN_CLI_PRINT_H

#include <stdio.h>

#include "base/types.h"
#include "firn/firn.h"

/* "412 MiB", "1.9 GiB", "512 B"; "-" where negative.  @buf of 16 bytes is enough. */
const char *firn_print_size(char *buf, size_t size, double bytes);

/* "0.8 ms", "41 ms", "0.41 s", "12.3 s", "140 s"; "-" where negative.  16 bytes are enough. */
const char *firn_print_ms(char *buf, size_t size, double ms);

/* How long ago, in one unit: "12 s", "3 min", "5 h", "2 d"; "-" where negative.  16 bytes are
 * enough. */
const char *firn_print_age(char *buf, size_t size, double seconds);

/*
 * @text without what could drive a terminal: a byte that is no printable character of the locale
 * becomes '?'. At most @columns wide.  Returns the width.
 */
int firn_print_escaped(char *buf, size_t size, const char *text, int columns);

/* One line on what was done (or would be, @dry_run) by @verb: "freeze", "evict", "thaw". */
void firn_print_done(FILE *out, const char *verb, bool dry_run, const struct firn_target *t);

/* "1234 redis-server", escaped.  @size of 96 is enough. */
const char *firn_print_target_name(char *buf, size_t size, const struct firn_target *t);

/* A line for each group that a result has targets of which did not fail: what it is named, how many. */
void firn_print_groups(FILE *out, const struct firn_result *result);

/* A table, at most 80 columns wide.  @now_ms: Unix time. */
void firn_print_list(FILE *out, const struct firn_result *result, int64_t now_ms, bool colour);

/* What firn_explain() says of all: a table, at most 80 columns wide, and a line on the host. */
void firn_print_units(FILE *out, const struct firn_result *result, bool colour);

/* All that is known of a target, several lines. */
void firn_print_show(FILE *out, const struct firn_target *t, int64_t now_ms);

#endif
