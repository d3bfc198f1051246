/* SPDX-License-Identifier: MIT */
/*
 * The lines of an INI file.  Knows no section and no key; allocates nothing, prints nothing.
 *
 *	# or ; begins a comment, as the first character of a line that is not blank.  There are no others: a value may
 *	hold both.
 *	[section]
 *	key = value
 *
 * Blanks around names and values do not count.  A line that is none of these, is longer than FIRN_INI_LINE, or has
 * control characters, is told as wrong; none is cut, and nothing is passed over.
 */
#ifndef FIRN_AGENT_INI_H
#define FIRN_AGENT_INI_H

#include "base/types.h"

#define FIRN_INI_LINE 4096u

struct firn_ini_calls {
	void (*section)(void *arg, uint32_t line, const char *name);
	/* Of the section last told, or of none yet. */
	void (*key)(void *arg, uint32_t line, const char *key, const char *value);
	void (*bad)(void *arg, uint32_t line, const char *message);
};

/* Read @text, which is @len bytes and is written to.  What is told is valid during the call. */
void firn_ini_read(char *text, size_t len, const struct firn_ini_calls *calls, void *arg);

#endif
