/* SPDX-License-Identifier: MIT */
/*
 * Sees a seccomp filter come: the two libc functions through which one is installed are interposed and
 * forward to the kernel exactly as libc does.  From then on no unusual call is made, not even to ask.
 * A filter installed by a system call of the program's own is noticed by asking, before each helper.
 */
#include "malloc/fold/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "malloc/config.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"

#define EXPORT __attribute__((visibility("default")))

enum seen {
	SEEN_NOTHING,                   /* the library's constructor has not run yet */
	SEEN_NONE,                      /* none when we began */
	SEEN_FILTER,
};

static _Atomic int seen;
static _Atomic int installing;          /* attempts under way */

/*
 * The first look reads a file: a filter that a program is started under lets the dynamic linker do that, while
 * prctl may be worth death to it.  When the library is loaded, since it takes a descriptor for an instant, and
 * nobody may ever see one.
 */
__attribute__((constructor(102))) static void first_look(void)
{
	char text[4096];
	long fd, n = 0, mode = -1;

	/* Also where nothing folds: before waits, purges make calls that the program does not (wait.c). */
	if (firn_config.seccomp)
		return;
	fd = firn_os.call(SYS_openat, AT_FDCWD, (long)"/proc/self/status", O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd >= 0) {
		n = firn_os.call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
		firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	}
	if (n > 0) {
		text[n] = 0;
		mode = firn_helper_field(text, "Seccomp:", -1);
	}
	if (mode < 0)
		mode = firn_os.call(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0);
	/* -EINVAL: a kernel without seccomp. */
	atomic_store(&seen, mode == 0 || mode == -EINVAL ? SEEN_NONE : SEEN_FILTER);
}

bool firn_seccomp_known(void)
{
	return atomic_load_explicit(&seen, memory_order_relaxed) == SEEN_FILTER;
}

bool firn_seccomp_forbids(void)
{
	return !firn_config.seccomp && firn_seccomp_filtered();
}

bool firn_seccomp_filtered(void)
{
	int s = atomic_load_explicit(&seen, memory_order_relaxed);

	if (s == SEEN_FILTER || atomic_load(&installing))
		return true;
	if (s == SEEN_NOTHING && !firn_config.seccomp)
		return true;
	if (firn_os.call(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0) <= 0)
		return false;
	atomic_store(&seen, SEEN_FILTER);
	return true;
}

/* A system call that may install a filter.  No helper runs while it is made, and none after it. */
static long install(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;

	atomic_fetch_add(&installing, 1);
	firn_helper_bar();
	r = firn_os_call(nr, a, b, c, d, e, f);
	if (r >= 0)
		atomic_store(&seen, SEEN_FILTER);
	firn_helper_let();
	atomic_fetch_sub(&installing, 1);
	return r;
}

static long answer(long r)
{
	if ((unsigned long)r < (unsigned long)-4095)
		return r;
	errno = (int)-r;
	return -1;
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
		return (int)answer(install(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
	return (int)answer(firn_os_call(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
}

/* syscall() comes here for the two calls that may install a filter: see below. */
long firn_seccomp_syscall(long nr, long a, long b, long c, long d, long e, long f)
	__attribute__((visibility("hidden")));
long firn_seccomp_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	bool installs = nr == SYS_prctl ? a == PR_SET_SECCOMP :
		        a == SECCOMP_SET_MODE_STRICT || a == SECCOMP_SET_MODE_FILTER;

	return answer((installs ? install : firn_os_call)(nr, a, b, c, d, e, f));
}

long firn_seccomp_failed(long r) __attribute__((visibility("hidden")));
long firn_seccomp_failed(long r)
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
	"	je firn_seccomp_syscall7\n"
	"	cmpq $157, %rdi\n"              /* prctl */
	"	je firn_seccomp_syscall7\n"
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
	"	jmp firn_seccomp_failed\n"
	/* The seventh argument is where C expects it. */
	"firn_seccomp_syscall7:\n"
	"	jmp firn_seccomp_syscall\n"
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
	"1:	b firn_seccomp_failed\n"
	"2:	b firn_seccomp_syscall\n"
	"	.cfi_endproc\n"
	".size syscall, . - syscall\n");
#endif
