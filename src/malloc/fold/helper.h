/* SPDX-License-Identifier: MIT */
/* The helper, for what runs in it.  firn_helper_run itself is declared in fold/barrier.h. */
#ifndef FIRN_MALLOC_FOLD_HELPER_H
#define FIRN_MALLOC_FOLD_HELPER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Who runs the helper.  Written before it starts; valid in it. */
struct firn_helper {
	pid_t program;                  /* the process */
	pid_t caller;                   /* its thread that waits for the helper; 0: none does */
	int alone;                      /* has one thread and shares its memory with nobody: 1, 0, or -errno: unknown */
	_Atomic bool hurry;             /* somebody waits for a helper that nobody was to wait for */
};

extern struct firn_helper firn_helper;

/*
 * Run fn(arg) in a helper that the caller does not wait for: a thread of the process that libc does not know, with
 * a descriptor table of its own and all signals blocked.  fn does as one of firn_helper_run does, and changes none of
 * what threads share beside memory: limits, working directory.  It should end soon when firn_helper.hurry is set.
 * Thread: any that holds the pass lock.  Returns 0; -EBUSY: the process may have one thread only;
 * -ENOSYS: never in this build, which sanitizers watch; another -errno where none could be made.
 */
int firn_helper_begin(int (*fn)(void *arg), void *arg);

/* Has it ended?  True where none was begun, and in a forked child.  Thread: any. */
bool firn_helper_ended(void);

/* Hurry it, and wait until it has ended.  Thread: any. */
void firn_helper_wait(void);

/* What fn returned, after it ended.  Thread: any that holds the pass lock. */
int firn_helper_result(void);

/*
 * In the helper: read what fits of file @path, ended with a 0.  @size > 1.  Returns bytes, or -errno; raises
 * the helper's own limit of descriptors where that is what is in the way and the helper is waited for.
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
 * What follows concerns every thread, or wants there to be one only: no helper is begun from here on until
 * firn_helper_let, and none is there when this returns.  Never waits long.  Thread: any.
 */
void firn_helper_bar(void);
void firn_helper_let(void);

#endif
