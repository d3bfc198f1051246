/* SPDX-License-Identifier: MIT */
#if defined(__x86_64__)

#include "malloc/fold/arch.h"

#include <errno.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "malloc/os.h"

#define ERESTARTNOHAND 514
#define USER_CS 0x33                    /* 64-bit code */

const bool firn_arch_can_restart = true;

/* The child begins with the parent's registers, but for the stack and the answer: fn and arg wait in r9 and r8. */
__asm__(
	".text\n"
	".hidden firn_arch_helper\n"
	".globl firn_arch_helper\n"
	".type firn_arch_helper, @function\n"
	"firn_arch_helper:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	movq %r8, %r10\n"              /* to be cleared */
	"	movq %rdx, %r9\n"
	"	movq %rcx, %r8\n"
	"	xorl %edx, %edx\n"
	"	movl $56, %eax\n"               /* clone */
	"	syscall\n"
	"	testl %eax, %eax\n"
	"	jz 1f\n"
	"	ret\n"
	"1:	.cfi_undefined rip\n"
	"	xorl %ebp, %ebp\n"
	"	movq %r8, %rdi\n"
	"	call *%r9\n"
	"	xorl %edi, %edi\n"
	"	movl $60, %eax\n"               /* exit: of this thread alone */
	"	syscall\n"
	"	hlt\n"
	"	.cfi_endproc\n"
	".size firn_arch_helper, . - firn_arch_helper\n");

bool firn_arch_interrupted(pid_t tid, long *ret_nr, long *ret_arg0)
{
	struct user_regs_struct r;

	if (firn_os.call(SYS_ptrace, PTRACE_GETREGS, tid, 0, (long)&r, 0, 0) < 0)
		return false;
	*ret_nr = (long)r.orig_rax;
	*ret_arg0 = (long)r.rdi;
	return r.cs == USER_CS && (long)r.orig_rax >= 0 && (long)r.rax == -EINTR;
}

void firn_arch_restart(pid_t tid)
{
	firn_os.call(SYS_ptrace, PTRACE_POKEUSER, tid, offsetof(struct user, regs.rax), -ERESTARTNOHAND, 0, 0);
}

#endif
