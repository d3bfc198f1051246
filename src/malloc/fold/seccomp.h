/* SPDX-License-Identifier: MIT */
/*
 * Is this process under a seccomp filter?  Such a filter may kill for a call that only the folder makes, so by
 * default there is no folding under one (firn_config.seccomp).
 */
#ifndef FIRN_MALLOC_FOLD_SECCOMP_H
#define FIRN_MALLOC_FOLD_SECCOMP_H

#include <stdbool.h>

/* Is it?  May make a system call to find out, so only within firn_helper_run: no filter is installed meanwhile.
 * True once: true for ever. */
bool firn_seccomp_filtered(void);

/* May it not fold because of that? */
bool firn_seccomp_forbids(void);

/* Make a system call that may install a filter.  No helper is there while it is made, and none after it.
 * Returns the kernel's answer.  Thread: any. */
long firn_seccomp_install(long nr, long a, long b, long c, long d, long e, long f);

/* Is a filter known of?  Makes no system call.  Thread: any. */
bool firn_seccomp_known(void);

#endif
