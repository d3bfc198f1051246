/* SPDX-License-Identifier: MIT */
/*
 * The log sink.  Library code returns errors; the few places that act on their own (pager, agent)
 * say what they did, one line a failure: what, which pid, errno, and the consequence.
 */
#ifndef FIRN_BASE_LOG_H
#define FIRN_BASE_LOG_H

#include "base/types.h"

/* Write one line to standard error, with a time stamp, by one write(2).  Any thread; does not allocate; lines are cut
 * at 511 bytes. */
void firn_log(const char *fmt, ...) FIRN_PRINTF(1, 2);

#endif
