/* SPDX-License-Identifier: MIT */
/* What differs between architectures: making the helper, and the registers of a stopped thread.  A file each. */
#ifndef FIRN_MALLOC_FOLD_ARCH_H
#define FIRN_MALLOC_FOLD_ARCH_H

#include <stdbool.h>
#include <sys/types.h>

/* clone(@flags) onto @stack (its top, 16-byte aligned); the child calls fn(arg) and exits, alone.  CLONE_VM children
 * share our thread-local storage.  With CLONE_CHILD_CLEARTID the kernel clears *@tid and wakes who waits for that
 * when the child has ended.  Returns the child's number or -errno. */
long firn_arch_helper(unsigned long flags, void *stack, void (*fn)(void *arg), void *arg, void *tid);

/* A call that can be restarted unseen can be on this architecture. */
extern const bool firn_arch_can_restart;

/* Thread @tid, stopped before it handles a signal: did its system call return -EINTR?  Then which call it is
 * and its first argument. */
bool firn_arch_interrupted(pid_t tid, long *ret_nr, long *ret_arg0);

/* That call is begun anew when the thread goes on; it returns -EINTR after all where a signal has a handler. */
void firn_arch_restart(pid_t tid);

#endif
