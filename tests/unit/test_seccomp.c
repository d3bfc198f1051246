/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include "procmem/seccomp.h"

#define NR offsetof(struct seccomp_data, nr)
#define ARCH offsetof(struct seccomp_data, arch)

static uint32_t run(const struct sock_filter *f, unsigned int n, uint32_t nr)
{
	return firn_seccomp_run(f, n, AUDIT_ARCH_X86_64, 0x1000, nr);
}

static void test_allow_list(void **state)
{
	const struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARCH),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 400, 0, 2),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
	};

	(void)state;
	assert_int_equal(run(f, ARRAY_SIZE(f), SYS_mmap), SECCOMP_RET_ALLOW);
	assert_int_equal(run(f, ARRAY_SIZE(f), 440), SECCOMP_RET_ERRNO | 1);
	assert_int_equal(run(f, ARRAY_SIZE(f), 15), SECCOMP_RET_KILL_THREAD);
	assert_int_equal(firn_seccomp_run(f, ARRAY_SIZE(f), AUDIT_ARCH_I386, 0, SYS_mmap), SECCOMP_RET_KILL_PROCESS);
}

static void test_arithmetic_and_memory(void **state)
{
	const struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NR),
		BPF_STMT(BPF_ST, 3),
		BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_MEM, 3),
		BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),         /* 4 nr */
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 1),         /* 2 nr */
		BPF_STMT(BPF_RET | BPF_A, 0),
	};

	(void)state;
	assert_int_equal(run(f, ARRAY_SIZE(f), 21), 42);
}

static void test_malformed_kills(void **state)
{
	const struct sock_filter beyond[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4096), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	const struct sock_filter jump[] = { BPF_STMT(BPF_JMP | BPF_JA, 1000), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	const struct sock_filter endless[] = { BPF_STMT(BPF_LD | BPF_IMM, 1) };
	unsigned int seed = 11;

	(void)state;
	assert_int_equal(run(beyond, 2, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(run(jump, 2, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(run(endless, 1, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(run(endless, 0, 0), SECCOMP_RET_KILL_PROCESS);
	/* Any program at all ends, inside its bounds. */
	for (int k = 0; k < 20000; k++) {
		struct sock_filter f[12];

		for (size_t i = 0; i < ARRAY_SIZE(f); i++)
			f[i] = (struct sock_filter){ (uint16_t)rand_r(&seed), (uint8_t)rand_r(&seed), (uint8_t)rand_r(&seed),
						     (uint32_t)rand_r(&seed) % 80 };
		run(f, ARRAY_SIZE(f), 9);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allow_list),
		cmocka_unit_test(test_arithmetic_and_memory),
		cmocka_unit_test(test_malformed_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
