/* SPDX-License-Identifier: MIT */
/*
 * A sandboxed process: nobody, no new privileges, and a filter.  By default one as services have it: calls
 * outside a normal set fail with EPERM, and some kill.  --strict kills at any call outside a short list;
 * --no-pwritev makes pwritev one of these; --no-sigreturn is --strict and leaves rt_sigreturn out of it.
 */
#include "victim.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#define ALLOW(nr)                                              \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1),       \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

#define KILL(nr)                                               \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1),       \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static void install(struct sock_filter *filter, unsigned short n)
{
	struct sock_fprog prog = { n, filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		v_die("seccomp: %s", strerror(errno));
}

static void confine_strictly(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_futex),
		ALLOW(SYS_clock_nanosleep), ALLOW(SYS_restart_syscall),
		ALLOW(v_option("--no-sigreturn") ? SYS_exit : SYS_rt_sigreturn),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};

	install(filter, sizeof(filter) / sizeof(*filter));
}

static void confine(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_futex),
		ALLOW(SYS_clock_nanosleep), ALLOW(SYS_restart_syscall), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_mmap),
		ALLOW(SYS_munmap), ALLOW(SYS_mprotect), ALLOW(SYS_madvise), ALLOW(SYS_mremap), ALLOW(SYS_brk),
		ALLOW(SYS_close), ALLOW(SYS_fcntl), ALLOW(SYS_ioctl), ALLOW(SYS_prctl), ALLOW(SYS_socketpair),
		ALLOW(SYS_recvmsg), ALLOW(SYS_sendmsg), ALLOW(SYS_ppoll), ALLOW(SYS_rt_sigprocmask),
		KILL(SYS_ptrace), KILL(SYS_execve), KILL(SYS_userfaultfd), KILL(SYS_process_vm_readv), KILL(SYS_mount),
		KILL(SYS_socket), KILL(v_option("--no-pwritev") ? SYS_pwritev : SYS_socket),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};

	install(filter, sizeof(filter) / sizeof(*filter));
}

static void *sleeper(void *arg)
{
	for (;;)
		v_sleep_ms(200);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t th;

	v_start(argc, argv, 32, 0);
	v_add_range(v_map(v_mib * 256, PROT_READ | PROT_WRITE, 0), v_mib * 256);
	if (!v_user_nobody && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
		v_die("becoming nobody: %s", strerror(errno));
	if (pthread_create(&th, NULL, sleeper, NULL))
		v_die("pthread_create");
	/* Both threads: the filter is inherited only by later ones. */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (v_option("--strict") || v_option("--no-sigreturn"))
		confine_strictly();
	else
		confine();
	v_ready();
	return v_loop(NULL);
}
