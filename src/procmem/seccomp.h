/* SPDX-License-Identifier: MIT */
/*
 * Would a target's own seccomp filter end it?  While we trace it, its filters are suspended; a tracer
 * that is killed takes that with it, and the injected call that is under way then meets the filter.
 */
#ifndef FIRN_PROCMEM_SECCOMP_H
#define FIRN_PROCMEM_SECCOMP_H

#include <linux/filter.h>
#include <sys/types.h>

#include "base/types.h"

#define FIRN_SECCOMP_MAX_INSNS 4096

/*
 * What the filter @prog of @n instructions says to call @nr with arguments of zero.  Interprets classic
 * BPF as the kernel's seccomp does.  Returns the action word, or SECCOMP_RET_KILL_PROCESS for a
 * program that is not well formed.  Pure.
 */
uint32_t firn_seccomp_run(const struct sock_filter *prog, unsigned int n, uint32_t arch, uint64_t ip, uint32_t nr);

/*
 * Does any filter of stopped thread @tid (traced by this thread) keep it from one of the @n calls in
 * @nrs by ending or signalling it, or from rt_sigreturn in any way?  @buf: room for
 * FIRN_SECCOMP_MAX_INSNS instructions.
 * Returns 0 and the call in *@ret_nr (-1: none); -EOPNOTSUPP: this kernel does not show filters.
 */
int firn_seccomp_forbids(pid_t tid, const long *nrs, unsigned int n, uint64_t ip, struct sock_filter *buf,
			 long *ret_nr);

#endif
