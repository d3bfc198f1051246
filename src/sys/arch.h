/* SPDX-License-Identifier: MIT */
/*
 * What differs between architectures: registers, the restart convention, the code that an injected
 * thread runs, and the signal frame that brings it back without us.  One .c file each.
 */
#ifndef FIRN_SYS_ARCH_H
#define FIRN_SYS_ARCH_H

#include <sys/types.h>

#include "base/types.h"

#if defined(__x86_64__)
#include <sys/user.h>
struct firn_regs {
	struct user_regs_struct u;
};
#define FIRN_ARCH_NAME "x86-64"
#define FIRN_ARCH_ID 62            /* ELF e_machine */
#elif defined(__aarch64__)
#include <asm/ptrace.h>
struct firn_regs {
	struct user_pt_regs u;
	int64_t syscall_nr;        /* NT_ARM_SYSTEM_CALL: -1 outside a call */
};
#define FIRN_ARCH_NAME "aarch64"
#define FIRN_ARCH_ID 183
#else
#error "Firn knows x86-64 and aarch64"
#endif

#define FIRN_ERESTARTSYS 512
#define FIRN_ERESTARTNOINTR 513
#define FIRN_ERESTARTNOHAND 514
#define FIRN_ERESTART_RESTARTBLOCK 516

#define FIRN_XSTATE_MAX 12288      /* bytes of vector state that a frame can hold */

/*
 * The injected code, FIRN_CAVE_BYTES of it.  At +0 the trampoline: one system call, then rt_sigreturn
 * to the frame that the stack pointer names.  At +FIRN_CAVE_PARK: one system call, then pause for ever.
 * In both, a tracer that dies leaves the thread in a defined place.
 */
#define FIRN_CAVE_BYTES 64
#define FIRN_CAVE_PARK 24
extern const unsigned char firn_arch_cave_code[FIRN_CAVE_BYTES];

/* Read and write the registers of stopped thread @tid.  Return 0, or -errno (-ESRCH: gone). */
int firn_arch_get_regs(pid_t tid, struct firn_regs *ret);
int firn_arch_set_regs(pid_t tid, const struct firn_regs *regs);

/* Is this a thread of our own word size? */
bool firn_arch_regs_native(const struct firn_regs *regs);
/* The system call the thread was stopped in, or -1.  At a stop before the signal is handled. */
long firn_arch_syscall_nr(const struct firn_regs *regs);
long firn_arch_syscall_arg0(const struct firn_regs *regs);
long firn_arch_result(const struct firn_regs *regs);
uint64_t firn_arch_pc(const struct firn_regs *regs);
uint64_t firn_arch_sp(const struct firn_regs *regs);
void firn_arch_set_pc(struct firn_regs *regs, uint64_t pc);
/* The address of thread-local storage. */
int firn_arch_tls(pid_t tid, const struct firn_regs *regs, uint64_t *ret);

/* Make a call that returned -EINTR because of our stop one that the kernel restarts unseen, or turns
 * back into EINTR after a real signal handler. */
void firn_arch_restart_unseen(struct firn_regs *regs);

/* Make @regs run `call(nr, args)` at @pc with stack @sp; nothing else of the thread's context changes. */
void firn_arch_prepare_call(struct firn_regs *regs, uint64_t pc, uint64_t sp, long nr, const uint64_t args[6]);

/*
 * Build in @buf (of @size bytes, which will lie at @address in the target, 64-byte aligned) the frame
 * that makes rt_sigreturn restore @regs, the vector state of stopped thread @tid, and @sigmask; a
 * system call in progress is begun anew.  @ret_sp is the stack pointer to call rt_sigreturn with.
 * Returns the bytes used, or -errno.
 */
long firn_arch_build_frame(pid_t tid, const struct firn_regs *regs, uint64_t sigmask, void *buf, size_t size,
			   uint64_t address, uint64_t *ret_sp);

#endif
