/* SPDX-License-Identifier: MIT */
/* The helper process, for what runs in it.  firn_helper_run itself is declared in fold/barrier.h. */
#ifndef FIRN_MALLOC_FOLD_HELPER_H
#define FIRN_MALLOC_FOLD_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Who runs the helper.  Written before it starts; valid in it. */
struct firn_helper {
	pid_t program;                  /* the process */
	pid_t caller;                   /* its thread that waits for the helper */
	int alone;                      /* has one thread and shares its memory with nobody: 1, 0, or -errno: unknown */
};

extern struct firn_helper firn_helper;

/*
 * In the helper: read what fits of file @path, ended with a 0.  @size > 1.  Returns bytes, or -errno; raises
 * the helper's own limit of descriptors where that is what is in the way.
 */
long firn_helper_read(const char *path, char *buf, size_t size);

/* In the helper: open, which raises the limit in the same way.  Returns a descriptor of the helper's or -errno. */
int firn_helper_open(const char *path, int flags);

/* Write @text, or number @n, at @at, and a 0.  Return where that 0 is.  The caller knows that there is room. */
char *firn_helper_put(char *at, const char *text);
char *firn_helper_put_number(char *at, unsigned long n);

/* The number behind @key, which begins a line of @text; @missing where there is none. */
long firn_helper_field(const char *text, const char *key, long missing);

/*
 * A filter is about to be installed: no helper is begun from here on until firn_helper_let, and none runs when
 * this returns.  Never waits long.  Thread: any.
 */
void firn_helper_bar(void);
void firn_helper_let(void);

#endif
