/* SPDX-License-Identifier: MIT */
/*
 * aarch64: compiled, not yet run on hardware.  See docs/architecture.md for what is known to differ:
 * the kernel prepares a restart before it reports the stop, and hides the first argument.
 */
#if defined(__aarch64__)

#include "sys/arch.h"

#include <asm/sigcontext.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/ucontext.h>
#include <sys/uio.h>

#include "sys/sys.h"

#define W(x) (x) & 0xff, (x) >> 8 & 0xff, (x) >> 16 & 0xff, (x) >> 24 & 0xff

const unsigned char firn_arch_cave_code[FIRN_CAVE_BYTES] = {
	/* trampoline */
	W(0xd4000001u),                 /* svc #0 */
	W(0xd2801168u),                 /* mov x8, #139 (rt_sigreturn) */
	W(0xd4000001u),                 /* svc #0 */
	W(0xd4200000u),                 /* brk #0 */
	[FIRN_CAVE_PARK] =
	W(0xd4000001u),                 /* svc #0 */
	W(0xd2800000u),                 /* 1: mov x0, #0 */
	W(0xd2800001u),                 /* mov x1, #0 */
	W(0xd2800002u),                 /* mov x2, #0 */
	W(0xd2800003u),                 /* mov x3, #0 */
	W(0xd2800928u),                 /* mov x8, #73 (ppoll: sleeps for ever) */
	W(0xd4000001u),                 /* svc #0 */
	W(0x17fffffau),                 /* b 1b */
};

int firn_arch_get_regs(pid_t tid, struct firn_regs *ret)
{
	struct iovec iov = { &ret->u, sizeof(ret->u) };
	int nr = -1;
	long err = firn_sys.ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &iov);

	if (err < 0)
		return (int)err;
	iov.iov_base = &nr;
	iov.iov_len = sizeof(nr);
	err = firn_sys.ptrace(PTRACE_GETREGSET, tid, (void *)NT_ARM_SYSTEM_CALL, &iov);
	ret->syscall_nr = nr;
	return err < 0 ? (int)err : 0;
}

int firn_arch_set_regs(pid_t tid, const struct firn_regs *regs)
{
	struct iovec iov = { (void *)&regs->u, sizeof(regs->u) };
	int nr = (int)regs->syscall_nr;
	long err = firn_sys.ptrace(PTRACE_SETREGSET, tid, (void *)NT_PRSTATUS, &iov);

	if (err < 0)
		return (int)err;
	iov.iov_base = &nr;
	iov.iov_len = sizeof(nr);
	err = firn_sys.ptrace(PTRACE_SETREGSET, tid, (void *)NT_ARM_SYSTEM_CALL, &iov);
	return err < 0 ? (int)err : 0;
}

bool firn_arch_regs_native(const struct firn_regs *regs)
{
	return !(regs->u.pstate & 0x10);   /* PSR_MODE32_BIT */
}

long firn_arch_syscall_nr(const struct firn_regs *regs)
{
	return (long)regs->syscall_nr;
}

long firn_arch_syscall_arg0(const struct firn_regs *regs)
{
	return (long)regs->u.regs[0];
}

long firn_arch_result(const struct firn_regs *regs)
{
	return (long)regs->u.regs[0];
}

uint64_t firn_arch_pc(const struct firn_regs *regs)
{
	return regs->u.pc;
}

uint64_t firn_arch_sp(const struct firn_regs *regs)
{
	return regs->u.sp;
}

void firn_arch_set_pc(struct firn_regs *regs, uint64_t pc)
{
	regs->u.pc = pc;
}

int firn_arch_tls(pid_t tid, const struct firn_regs *regs, uint64_t *ret)
{
	struct iovec iov = { ret, sizeof(*ret) };
	long err = firn_sys.ptrace(PTRACE_GETREGSET, tid, (void *)NT_ARM_TLS, &iov);

	(void)regs;
	return err < 0 ? (int)err : 0;
}

void firn_arch_restart_unseen(struct firn_regs *regs)
{
	regs->u.regs[0] = (uint64_t)-FIRN_ERESTARTNOHAND;
}

void firn_arch_prepare_call(struct firn_regs *regs, uint64_t pc, uint64_t sp, long nr, const uint64_t args[6])
{
	regs->u.pc = pc;
	regs->u.sp = sp;
	regs->u.regs[8] = (uint64_t)nr;
	regs->syscall_nr = -1;
	for (int i = 0; i < 6; i++)
		regs->u.regs[i] = args[i];
}

long firn_arch_build_frame(pid_t tid, const struct firn_regs *regs, uint64_t sigmask, void *buf, size_t size,
			   uint64_t address, uint64_t *ret_sp)
{
	struct {
		siginfo_t info;
		ucontext_t uc;
	} *frame = buf;
	struct fpsimd_context *fp;
	struct user_fpsimd_state v;
	struct iovec iov = { &v, sizeof(v) };
	long err;

	if (size < sizeof(*frame))
		return -ENOSPC;
	err = firn_sys.ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRFPREG, &iov);
	if (err < 0)
		return err;
	memset(frame, 0, sizeof(*frame));
	memcpy(frame->uc.uc_mcontext.regs, regs->u.regs, sizeof(regs->u.regs));
	frame->uc.uc_mcontext.sp = regs->u.sp;
	frame->uc.uc_mcontext.pc = regs->u.pc;
	frame->uc.uc_mcontext.pstate = regs->u.pstate;
	fp = (void *)frame->uc.uc_mcontext.__reserved;
	fp->head.magic = FPSIMD_MAGIC;
	fp->head.size = sizeof(*fp);
	fp->fpsr = v.fpsr;
	fp->fpcr = v.fpcr;
	memcpy(fp->vregs, v.vregs, sizeof(v.vregs));
	memcpy(&frame->uc.uc_sigmask, &sigmask, sizeof(sigmask));
	*ret_sp = address;
	return (long)sizeof(*frame);
}

#endif
