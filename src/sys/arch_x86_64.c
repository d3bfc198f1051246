/* SPDX-License-Identifier: MIT */
#if defined(__x86_64__)

#include "sys/arch.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <signal.h>
#include <sys/ucontext.h>
#include <sys/uio.h>

#include "sys/sys.h"

#define UC_FP_XSTATE 0x1u
#define UC_SIGCONTEXT_SS 0x2u
#define UC_STRICT_RESTORE_SS 0x4u
#define SW_BYTES_OFFSET 464u       /* of the fxsave area: what the kernel leaves to software */
#define XSTATE_BV_OFFSET 512u
#define XFEATURE_TILEDATA (1ull << 18)  /* enlarged on request; default frames have no room for it */

const unsigned char firn_arch_cave_code[FIRN_CAVE_BYTES] = {
	/* trampoline */
	0x0f, 0x05,                         /* syscall */
	0xb8, 0x0f, 0x00, 0x00, 0x00,       /* mov $__NR_rt_sigreturn, %eax */
	0x0f, 0x05,                         /* syscall */
	0x0f, 0x0b,                         /* ud2 */
	[FIRN_CAVE_PARK] =
	0x0f, 0x05,                         /* syscall */
	0xb8, 0x22, 0x00, 0x00, 0x00,       /* 1: mov $__NR_pause, %eax */
	0x0f, 0x05,                         /* syscall */
	0xeb, 0xf7,                         /* jmp 1b */
};

int firn_arch_get_regs(pid_t tid, struct firn_regs *ret)
{
	return (int)firn_sys.ptrace(PTRACE_GETREGS, tid, NULL, &ret->u);
}

int firn_arch_set_regs(pid_t tid, const struct firn_regs *regs)
{
	return (int)firn_sys.ptrace(PTRACE_SETREGS, tid, NULL, (void *)&regs->u);
}

bool firn_arch_regs_native(const struct firn_regs *regs)
{
	return regs->u.cs == 0x33;
}

long firn_arch_syscall_nr(const struct firn_regs *regs)
{
	return (long)regs->u.orig_rax;
}

long firn_arch_syscall_arg0(const struct firn_regs *regs)
{
	return (long)regs->u.rdi;
}

long firn_arch_result(const struct firn_regs *regs)
{
	return (long)regs->u.rax;
}

uint64_t firn_arch_pc(const struct firn_regs *regs)
{
	return regs->u.rip;
}

uint64_t firn_arch_sp(const struct firn_regs *regs)
{
	return regs->u.rsp;
}

void firn_arch_set_pc(struct firn_regs *regs, uint64_t pc)
{
	regs->u.rip = pc;
}

int firn_arch_tls(pid_t tid, const struct firn_regs *regs, uint64_t *ret)
{
	(void)tid;
	*ret = regs->u.fs_base;
	return 0;
}

void firn_arch_restart_unseen(struct firn_regs *regs)
{
	regs->u.rax = (unsigned long)-FIRN_ERESTARTNOHAND;
}

void firn_arch_prepare_call(struct firn_regs *regs, uint64_t pc, uint64_t sp, long nr, const uint64_t args[6])
{
	regs->u.rip = pc;
	regs->u.rsp = sp;
	regs->u.rax = (unsigned long)nr;
	regs->u.orig_rax = (unsigned long)-1;  /* no restart logic for our own call */
	regs->u.rdi = args[0];
	regs->u.rsi = args[1];
	regs->u.rdx = args[2];
	regs->u.r10 = args[3];
	regs->u.r8 = args[4];
	regs->u.r9 = args[5];
}

/* The context that a thread without a tracer goes on from: an interrupted call is made again. */
static void rewind_call(struct user_regs_struct *r)
{
	if ((long)r->orig_rax < 0)
		return;
	switch (-(long)r->rax) {
	case FIRN_ERESTARTSYS:
	case FIRN_ERESTARTNOINTR:
	case FIRN_ERESTARTNOHAND:
	case FIRN_ERESTART_RESTARTBLOCK:
		r->rax = r->orig_rax;
		r->rip -= 2;
	}
}

/* The size of the standard-format area that holds features @xcr0. */
static size_t xstate_size(uint64_t xcr0)
{
	size_t size = 576;

	for (unsigned int i = 2; i < 63; i++) {
		unsigned int a, b, c, d;

		if (!(xcr0 & 1ull << i))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		if (a && a + b > size)
			size = a + b;
	}
	return size;
}

long firn_arch_build_frame(pid_t tid, const struct firn_regs *regs, uint64_t sigmask, void *buf, size_t size,
			   uint64_t address, uint64_t *ret_sp)
{
	struct user_regs_struct r = regs->u;
	unsigned char *base = buf;
	struct {
		uint64_t pretcode;
		ucontext_t uc;
	} *frame;
	struct {
		uint32_t magic1, extended_size;
		uint64_t xfeatures;
		uint32_t xstate_size, padding[7];
	} sw;
	size_t fp_at = firn_align_up(sizeof(*frame), 64), xsize;
	unsigned char *fp = base + fp_at;
	uint64_t xcr0, xstate_bv;
	uint32_t magic2 = FP_XSTATE_MAGIC2;
	struct iovec iov;
	greg_t *g;
	long err;

	if (size < fp_at + 1024)
		return -ENOSPC;
	memset(base, 0, fp_at);
	iov.iov_base = fp;
	iov.iov_len = size - fp_at - 8;         /* a multiple of 8, and room for the last word */
	err = firn_sys.ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)NT_X86_XSTATE, &iov);
	if (err < 0)
		return err;
	if (iov.iov_len < 576)
		return -EINVAL;
	memcpy(&xcr0, fp + SW_BYTES_OFFSET, sizeof(xcr0));
	memcpy(&xstate_bv, fp + XSTATE_BV_OFFSET, sizeof(xstate_bv));
	if (!(xstate_bv & XFEATURE_TILEDATA))
		xcr0 &= ~XFEATURE_TILEDATA;
	xsize = xstate_size(xcr0);
	if (xsize > iov.iov_len)
		return -EINVAL;

	memset(&sw, 0, sizeof(sw));
	sw.magic1 = FP_XSTATE_MAGIC1;
	sw.extended_size = (uint32_t)(xsize + sizeof(magic2));
	sw.xfeatures = xcr0;
	sw.xstate_size = (uint32_t)xsize;
	memcpy(fp + SW_BYTES_OFFSET, &sw, sizeof(sw));
	memcpy(fp + xsize, &magic2, sizeof(magic2));

	rewind_call(&r);
	frame = (void *)base;
	frame->uc.uc_flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	g = frame->uc.uc_mcontext.gregs;
	g[REG_R8] = (greg_t)r.r8;
	g[REG_R9] = (greg_t)r.r9;
	g[REG_R10] = (greg_t)r.r10;
	g[REG_R11] = (greg_t)r.r11;
	g[REG_R12] = (greg_t)r.r12;
	g[REG_R13] = (greg_t)r.r13;
	g[REG_R14] = (greg_t)r.r14;
	g[REG_R15] = (greg_t)r.r15;
	g[REG_RDI] = (greg_t)r.rdi;
	g[REG_RSI] = (greg_t)r.rsi;
	g[REG_RBP] = (greg_t)r.rbp;
	g[REG_RBX] = (greg_t)r.rbx;
	g[REG_RDX] = (greg_t)r.rdx;
	g[REG_RAX] = (greg_t)r.rax;
	g[REG_RCX] = (greg_t)r.rcx;
	g[REG_RSP] = (greg_t)r.rsp;
	g[REG_RIP] = (greg_t)r.rip;
	g[REG_EFL] = (greg_t)r.eflags;
	g[REG_CSGSFS] = (greg_t)(r.cs & 0xffff) | (greg_t)(r.gs & 0xffff) << 16 |
			(greg_t)(r.fs & 0xffff) << 32 | (greg_t)(r.ss & 0xffff) << 48;
	frame->uc.uc_mcontext.fpregs = (fpregset_t)(uintptr_t)(address + fp_at);
	memcpy(&frame->uc.uc_sigmask, &sigmask, sizeof(sigmask));
	*ret_sp = address + sizeof(frame->pretcode);
	return (long)(fp_at + xsize + sizeof(magic2));
}

#endif
