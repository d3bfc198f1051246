/* SPDX-License-Identifier: MIT */
/*
 * Sizes, durations, percentages and whole numbers, as people write them.  What is nearly right is refused.
 * Pure, any thread; allocates nothing.
 *
 * All parse functions take the whole text: no blanks around or within it, no sign but where said.  They return 0;
 * -EINVAL where it is not what is wanted; -ERANGE where it is, but too large.  *@ret is set on success only.
 */
#ifndef FIRN_BASE_SIZE_H
#define FIRN_BASE_SIZE_H

#include "base/types.h"

/* Enough for whatever the print functions make, with its NUL. */
#define FIRN_SIZE_TEXT 32

/*
 * Bytes: 4096, 64K, 2G, 2GiB, 1.5G, upper or lower case; K, M, G, T, P and E are powers of 1024, with or without
 * "iB".  "GB" is refused, since half of the world means powers of 1000 by it.  A fraction needs a unit, and is
 * rounded down to a byte.
 */
int firn_size_parse(const char *text, uint64_t *ret_bytes);

/* Nanoseconds: 500ms, 90s, 5min, 2h, 1.5h, 7d; also us, ns, m and w.  Without a unit only 0. */
int firn_duration_parse(const char *text, uint64_t *ret_ns);

/* 5%, 12.5%: hundredths of a percent, 100% is 10,000; at most 1,000,000%.  At most two digits after the point. */
int firn_percent_parse(const char *text, uint32_t *ret_hundredths);

/* A whole number from @min to @max, which may begin with '-'.  -ERANGE outside. */
int firn_number_parse(const char *text, int64_t min, int64_t max, int64_t *ret);

/* The same value in words that the functions above take: 1536MiB, 90s, 12.5%.  Return @buf. */
const char *firn_size_print(char buf[FIRN_SIZE_TEXT], uint64_t bytes);
const char *firn_duration_print(char buf[FIRN_SIZE_TEXT], uint64_t ns);
const char *firn_percent_print(char buf[FIRN_SIZE_TEXT], uint32_t hundredths);

#endif
