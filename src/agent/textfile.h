/* SPDX-License-Identifier: MIT */
/*
 * The metrics as a file that a node_exporter's textfile collector reads.
 *
 * A textfile belongs to one thread at a time.
 */
#ifndef FIRN_AGENT_TEXTFILE_H
#define FIRN_AGENT_TEXTFILE_H

#include "base/types.h"

#define FIRN_TEXTFILE_PATH 4096u

struct firn_textfile {
	char path[FIRN_TEXTFILE_PATH];  /* "": none */
	uint64_t every_ns, due_ns;
	int told;                       /* the errno that the log knows of; 0: none */
};

/* Where it is and how often it is written, from now on; @path "" for not at all.  One that was not written before, or
 * is elsewhere now, is due at once.  What was at another path stays. */
void firn_textfile_set(struct firn_textfile *t, const char *path, uint64_t every_ns);

/* How long until it is due, in ms; 0: it is; -1: there is none. */
int firn_textfile_wait_ms(const struct firn_textfile *t, uint64_t now_ns);

/*
 * Write @text there by one rename, mode 0644; NULL counts as a want of memory.  It is due again after every_ns.  Returns
 * 0, or -errno: the former version stays, and the log says so, but once for the same errno.
 */
int firn_textfile_write(struct firn_textfile *t, const char *text, uint64_t now_ns);

#endif
