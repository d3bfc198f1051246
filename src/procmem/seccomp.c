/* SPDX-License-Identifier: MIT */
#include "procmem/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "sys/sys.h"

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif
#if defined(__x86_64__)
#define NATIVE_AUDIT_ARCH AUDIT_ARCH_X86_64
#else
#define NATIVE_AUDIT_ARCH AUDIT_ARCH_AARCH64
#endif

uint32_t firn_seccomp_run(const struct sock_filter *prog, unsigned int n, uint32_t arch, uint64_t ip, uint32_t nr)
{
	struct seccomp_data data = { .nr = (int)nr, .arch = arch, .instruction_pointer = ip };
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = { 0 };

	for (unsigned int pc = 0; pc < n; pc++) {
		const struct sock_filter *i = &prog[pc];
		uint32_t k = i->k, operand = BPF_SRC(i->code) == BPF_X ? x : k;
		bool jump;

		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
			if (BPF_MODE(i->code) == BPF_ABS) {
				if (k > sizeof(data) - 4 || k % 4)
					return SECCOMP_RET_KILL_PROCESS;
				memcpy(&a, (char *)&data + k, 4);
			} else if (BPF_MODE(i->code) == BPF_IMM) {
				a = k;
			} else if (BPF_MODE(i->code) == BPF_MEM && k < BPF_MEMWORDS) {
				a = mem[k];
			} else if (BPF_MODE(i->code) == BPF_LEN) {
				a = sizeof(data);
			} else {
				return SECCOMP_RET_KILL_PROCESS;
			}
			break;
		case BPF_LDX:
			if (BPF_MODE(i->code) == BPF_IMM)
				x = k;
			else if (BPF_MODE(i->code) == BPF_MEM && k < BPF_MEMWORDS)
				x = mem[k];
			else if (BPF_MODE(i->code) == BPF_LEN)
				x = sizeof(data);
			else
				return SECCOMP_RET_KILL_PROCESS;
			break;
		case BPF_ST:
		case BPF_STX:
			if (k >= BPF_MEMWORDS)
				return SECCOMP_RET_KILL_PROCESS;
			mem[k] = BPF_CLASS(i->code) == BPF_ST ? a : x;
			break;
		case BPF_ALU:
			switch (BPF_OP(i->code)) {
			case BPF_ADD: a += operand; break;
			case BPF_SUB: a -= operand; break;
			case BPF_MUL: a *= operand; break;
			case BPF_DIV: a = operand ? a / operand : 0; break;
			case BPF_AND: a &= operand; break;
			case BPF_OR: a |= operand; break;
			case BPF_XOR: a ^= operand; break;
			case BPF_LSH: a = operand < 32 ? a << operand : 0; break;
			case BPF_RSH: a = operand < 32 ? a >> operand : 0; break;
			case BPF_NEG: a = -a; break;
			default: return SECCOMP_RET_KILL_PROCESS;
			}
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA) {
				if (k >= n - pc)
					return SECCOMP_RET_KILL_PROCESS;
				pc += k;
				break;
			}
			switch (BPF_OP(i->code)) {
			case BPF_JEQ: jump = a == operand; break;
			case BPF_JGT: jump = a > operand; break;
			case BPF_JGE: jump = a >= operand; break;
			case BPF_JSET: jump = a & operand; break;
			default: return SECCOMP_RET_KILL_PROCESS;
			}
			pc += jump ? i->jt : i->jf;
			break;
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? a : k;
		case BPF_MISC:
			if (BPF_MISCOP(i->code) == BPF_TAX)
				x = a;
			else
				a = x;
			break;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

static bool ends_it(uint32_t action, long nr)
{
	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_KILL_PROCESS:
	case SECCOMP_RET_KILL_THREAD:
	case SECCOMP_RET_TRAP:
		return true;
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
		return false;
	}
	/* An error, or another tracer's say: harmless, but for the call that brings the thread back. */
	return nr == SYS_rt_sigreturn;
}

int firn_seccomp_forbids(pid_t tid, const long *nrs, unsigned int n, uint64_t ip, struct sock_filter *buf,
			 long *ret_nr)
{
	*ret_nr = -1;
	for (unsigned long index = 0;; index++) {
		long insns = firn_sys.ptrace(PTRACE_SECCOMP_GET_FILTER, tid, (void *)index, NULL);

		if (insns == -ENOENT)
			return 0;
		/* Filters that are not classic BPF are not shown. */
		if (insns < 0 || insns > FIRN_SECCOMP_MAX_INSNS)
			return insns == -EINVAL && index == 0 ? 0 : -EOPNOTSUPP;
		insns = firn_sys.ptrace(PTRACE_SECCOMP_GET_FILTER, tid, (void *)index, buf);
		if (insns < 0)
			return -EOPNOTSUPP;
		for (unsigned int k = 0; k < n; k++) {
			uint32_t action = firn_seccomp_run(buf, (unsigned int)insns, NATIVE_AUDIT_ARCH, ip,
							   (uint32_t)nrs[k]);

			if (ends_it(action, nrs[k])) {
				*ret_nr = nrs[k];
				return 0;
			}
		}
	}
}
