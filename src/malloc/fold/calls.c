/* SPDX-License-Identifier: MIT */
/*
 * System calls of the program that concern the helper: one may install a seccomp filter, or wants a process of one
 * thread.  The libc functions that make them are interposed and forward to the kernel exactly as libc does.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "malloc/fold/helper.h"
#include "malloc/fold/seccomp.h"
#include "malloc/os.h"

#define EXPORT __attribute__((visibility("default")))

static long answer(long r)
{
	if ((unsigned long)r < (unsigned long)-4095)
		return r;
	errno = (int)-r;
	return -1;
}

/* Calls that want to find one thread in the process: no helper is there while one is made. */
static long call_alone(long nr, long a, long b)
{
	long r;

	firn_helper_bar();
	r = firn_os_call(nr, a, b, 0, 0, 0, 0);
	firn_helper_let();
	return r;
}

EXPORT int unshare(int flags)
{
	return (int)answer(call_alone(SYS_unshare, flags, 0));
}

EXPORT int setns(int fd, int type)
{
	return (int)answer(call_alone(SYS_setns, fd, type));
}

EXPORT int prctl(int option, ...)
{
	long arg[4];
	va_list ap;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	if (option == PR_SET_SECCOMP)
		return (int)answer(firn_seccomp_install(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
	return (int)answer(firn_os_call(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
}

/* syscall() comes here for the calls that are more than calls: see below. */
long firn_call(long nr, long a, long b, long c, long d, long e, long f) __attribute__((visibility("hidden")));
long firn_call(long nr, long a, long b, long c, long d, long e, long f)
{
	if (nr == SYS_unshare || nr == SYS_setns)
		return answer(call_alone(nr, a, b));
	if (nr == SYS_prctl ? a == PR_SET_SECCOMP : a == SECCOMP_SET_MODE_STRICT || a == SECCOMP_SET_MODE_FILTER)
		return answer(firn_seccomp_install(nr, a, b, c, d, e, f));
	return answer(firn_os_call(nr, a, b, c, d, e, f));
}

long firn_call_failed(long r) __attribute__((visibility("hidden")));
long firn_call_failed(long r)
{
	return answer(r);
}

/* syscall(): in assembly as libc's own is, since it may be a clone, whose child returns on another stack. */
#if defined(__x86_64__)
__asm__(
	".text\n"
	".globl syscall\n"
	".type syscall, @function\n"
	"syscall:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	cmpq $317, %rdi\n"              /* seccomp */
	"	je firn_syscall7\n"
	"	cmpq $157, %rdi\n"              /* prctl */
	"	je firn_syscall7\n"
	"	cmpq $272, %rdi\n"              /* unshare */
	"	je firn_syscall7\n"
	"	cmpq $308, %rdi\n"              /* setns */
	"	je firn_syscall7\n"
	"	movq %rdi, %rax\n"
	"	movq %rsi, %rdi\n"
	"	movq %rdx, %rsi\n"
	"	movq %rcx, %rdx\n"
	"	movq %r8, %r10\n"
	"	movq %r9, %r8\n"
	"	movq 8(%rsp), %r9\n"
	"	syscall\n"
	"	cmpq $-4095, %rax\n"
	"	jae 1f\n"
	"	ret\n"
	"1:	movq %rax, %rdi\n"
	"	jmp firn_call_failed\n"
	/* The seventh argument is where C expects it. */
	"firn_syscall7:\n"
	"	jmp firn_call\n"
	"	.cfi_endproc\n"
	".size syscall, . - syscall\n");
#elif defined(__aarch64__)
__asm__(
	".text\n"
	".globl syscall\n"
	".type syscall, %function\n"
	"syscall:\n"
	"	.cfi_startproc\n"
	"	hint #34\n"                     /* bti c */
	"	cmp x0, #277\n"                 /* seccomp */
	"	b.eq 2f\n"
	"	cmp x0, #167\n"                 /* prctl */
	"	b.eq 2f\n"
	"	cmp x0, #97\n"                  /* unshare */
	"	b.eq 2f\n"
	"	cmp x0, #268\n"                 /* setns */
	"	b.eq 2f\n"
	"	mov x8, x0\n"
	"	mov x0, x1\n"
	"	mov x1, x2\n"
	"	mov x2, x3\n"
	"	mov x3, x4\n"
	"	mov x4, x5\n"
	"	mov x5, x6\n"
	"	mov x6, x7\n"
	"	svc #0\n"
	"	cmn x0, #4095\n"
	"	b.cs 1f\n"
	"	ret\n"
	"1:	b firn_call_failed\n"
	"2:	b firn_call\n"
	"	.cfi_endproc\n"
	".size syscall, . - syscall\n");
#endif
