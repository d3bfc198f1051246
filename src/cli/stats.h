/* SPDX-License-Identifier: MIT */
/*
 * firn stats, for people.
 */
#ifndef FIRN_CLI_STATS_H
#define FIRN_CLI_STATS_H

#include <stdio.h>

#include "base/types.h"

/* @text: what firn_stats() gives for "openmetrics"; what it does not tell is a dash, or left out.  @now_ms: Unix time. */
void firn_print_stats(FILE *out, const char *text, int64_t now_ms);

#endif
