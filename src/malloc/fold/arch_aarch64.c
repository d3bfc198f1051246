/* SPDX-License-Identifier: MIT */
/* aarch64: compiled, not yet run on hardware. */
#if defined(__aarch64__)

#include "malloc/fold/arch.h"

/*
 * This kernel prepares a restart before it reports the stop and forgets the first argument, which the result
 * has overwritten: an -EINTR of ours could not be hidden.
 */
const bool firn_arch_can_restart = false;

__asm__(
	".text\n"
	".hidden firn_arch_helper\n"
	".globl firn_arch_helper\n"
	".type firn_arch_helper, %function\n"
	"firn_arch_helper:\n"
	"	.cfi_startproc\n"
	"	hint #34\n"                     /* bti c */
	"	mov x9, x2\n"
	"	mov x10, x3\n"
	"	mov x2, #0\n"
	"	mov x3, #0\n"
	"	mov x8, #220\n"                 /* clone */
	"	svc #0\n"
	"	cbz x0, 1f\n"
	"	ret\n"
	"1:	.cfi_undefined x30\n"
	"	mov x29, #0\n"
	"	mov x30, #0\n"
	"	mov x0, x10\n"
	"	blr x9\n"
	"	mov x0, #0\n"
	"	mov x8, #93\n"                  /* exit: of this thread alone */
	"	svc #0\n"
	"	brk #0\n"
	"	.cfi_endproc\n"
	".size firn_arch_helper, . - firn_arch_helper\n");

bool firn_arch_interrupted(pid_t tid, long *ret_nr, long *ret_arg0)
{
	(void)tid;
	*ret_nr = *ret_arg0 = -1;
	return false;
}

void firn_arch_restart(pid_t tid)
{
	(void)tid;
}

#endif
