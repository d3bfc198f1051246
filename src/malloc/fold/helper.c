/* SPDX-License-Identifier: MIT */
/*
 * The helper: a process that shares our memory and nothing else, whose calling thread sleeps as after vfork; or,
 * where nobody is to wait, a thread with descriptors of its own, which ends with the program and leaves no child to
 * be waited for.  Either shares its caller's thread-local storage, and so uses none.  Owns the helper's stack, which
 * stays; knows nothing of folding.
 */
#include "malloc/fold/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "malloc/fold/arch.h"
#include "malloc/fold/barrier.h"
#include "malloc/fold/seccomp.h"
#include "malloc/os.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define UNSHARE_FIRST 2                 /* CLOSE_RANGE_UNSHARE */

#define GUARD_BYTES 4096u
#define STACK_BYTES 65536u
#define WAIT_ROUNDS 100
#define WAIT_NS 1000000                 /* a round of waiting for a helper that runs */

struct run {
	int (*fn)(void *);
	void *arg;
	int result;
};

struct firn_helper firn_helper;

static char *stack;                     /* lowest address; the first page is the guard.  Under the pass lock */
static _Atomic uint32_t running;        /* the process whose helper is waited for; 0: none */
static _Atomic uint32_t bars;

static struct {                         /* the helper that nobody waits for */
	_Atomic uint32_t there;         /* the kernel clears it, and wakes */
	_Atomic long process, thread;   /* whose; its number */
	struct run run;
} begun;

static long process(void)
{
	return firn_os.call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* The descriptors are shared so far: none is copied, and so nothing is flushed or unlocked by closing it. */
static void helper_main(void *arg)
{
	struct run *run = arg;
	long r = firn_os.call(SYS_close_range, 0, ~0u, UNSHARE_FIRST, 0, 0, 0);

	run->result = r < 0 ? (int)r : run->fn(run->arg);
}

static char *map_stack(void)
{
	char *p;

	if (stack)
		return stack;
	p = firn_os.mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (firn_os_failed(p))
		return NULL;
	/* Without its guard, where mappings have run out, the stack would still do. */
	firn_os.mprotect(p, GUARD_BYTES, PROT_NONE);
	return stack = p;
}

/*
 * The kernel lets a process unshare its memory only where there is nothing to do: one thread, and nobody
 * outside the process uses this memory either.  Only before the helper is there.
 */
static int alone(void)
{
	long r = firn_os.call(SYS_unshare, CLONE_VM, 0, 0, 0, 0, 0);

	return r == 0 ? 1 : r == -EINVAL ? 0 : (int)r;
}

int firn_helper_run(int (*fn)(void *arg), void *arg)
{
	/* CLONE_UNTRACED: a debugger that follows children would stop this one, and our thread with it. */
	const unsigned long flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_UNTRACED;
	struct run run = { fn, arg, -ECHILD };
	uint64_t all = ~(uint64_t)0, before;
	int err = -EPERM;
	long child;

	if (firn_seccomp_known() && !firn_config.seccomp)
		return -EPERM;
	if (!map_stack())
		return -ENOMEM;
	/* The child inherits this: what ^C sends to the process group ends the program, not its helper. */
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, sizeof(all), 0, 0);
	firn_helper.program = (pid_t)process();
	firn_helper.caller = (pid_t)firn_os.call(SYS_gettid, 0, 0, 0, 0, 0, 0);
	/* Who installs a filter waits from here on; so even asking for one comes after it. */
	atomic_store(&running, (uint32_t)firn_helper.program);
	if (atomic_load(&bars) || firn_seccomp_forbids())
		goto out;
	firn_helper.alone = alone();
	child = firn_arch_helper(flags, stack + GUARD_BYTES + STACK_BYTES, helper_main, &run, NULL);
	/* It has no exit signal, so that the program's own waits do not see it; one with __WALL may reap it. */
	if (child > 0)
		while (firn_os.call(SYS_wait4, child, 0, __WCLONE, 0, 0, 0) == -EINTR)
			;
	err = child < 0 ? (int)child : run.result;
out:
	atomic_store(&running, 0);
	if (atomic_load(&bars))
		firn_os.call(SYS_futex, (long)&running, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof(before), 0, 0);
	return err;
}

/* Sanitizers keep a thread's state in thread-local storage. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
static const bool may_share_tls = false;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
static const bool may_share_tls = false;
#else
static const bool may_share_tls = true;
#endif
#else
static const bool may_share_tls = true;
#endif

int firn_helper_begin(int (*fn)(void *arg), void *arg)
{
	const unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				    CLONE_UNTRACED | CLONE_CHILD_CLEARTID;
	uint64_t all = ~(uint64_t)0, before;
	long child = -EPERM;

	if (!may_share_tls)
		return -ENOSYS;
	if (firn_seccomp_known() && !firn_config.seccomp)
		return -EPERM;
	if (!map_stack())
		return -ENOMEM;
	/* Who bars helpers waits from here on. */
	atomic_store(&begun.process, process());
	atomic_store(&begun.thread, 0);
	atomic_store(&begun.there, 1);
	if (atomic_load(&bars) || firn_seccomp_forbids())
		goto out;
	child = -EBUSY;
	if (alone())
		goto out;
	firn_helper.program = (pid_t)atomic_load(&begun.process);
	firn_helper.caller = 0;
	firn_helper.alone = 0;
	atomic_store(&firn_helper.hurry, false);
	begun.run = (struct run){ fn, arg, -ECHILD };
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, sizeof(all), 0, 0);
	child = firn_arch_helper(flags, stack + GUARD_BYTES + STACK_BYTES, helper_main, &begun.run, &begun.there);
	firn_os.call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof(before), 0, 0);
	/* It may have ended by now. */
	if (child > 0)
		atomic_store(&begun.thread, child);
out:
	if (child < 0)
		atomic_store(&begun.there, 0);
	return child < 0 ? (int)child : 0;
}

bool firn_helper_ended(void)
{
	/* A forked child finds the mark of a helper that its parent had. */
	return !atomic_load(&begun.there) || atomic_load(&begun.process) != process();
}

int firn_helper_result(void)
{
	return begun.run.result;
}

void firn_helper_wait(void)
{
	struct timespec t = { 0, WAIT_NS };

	while (!firn_helper_ended()) {
		atomic_store(&firn_helper.hurry, true);
		firn_os.call(SYS_futex, (long)&begun.there, FUTEX_WAIT, 1, (long)&t, 0, 0);
	}
}

void firn_helper_bar(void)
{
	struct timespec t = { 0, WAIT_NS };
	uint32_t who;

	atomic_fetch_add(&bars, 1);
	for (int i = 0; i < WAIT_ROUNDS && (who = atomic_load(&running)) != 0; i++) {
		if (who != (uint32_t)process())
			break;
		firn_os.call(SYS_futex, (long)&running, FUTEX_WAIT_PRIVATE, who, (long)&t, 0, 0);
	}
	firn_helper_wait();
	/* It has left our memory; now it leaves the process. */
	for (int i = 0; i < WAIT_ROUNDS && atomic_load(&begun.thread) && atomic_load(&begun.process) == process(); i++) {
		if (firn_os.call(SYS_tgkill, atomic_load(&begun.process), atomic_load(&begun.thread), 0, 0, 0, 0) < 0)
			break;
		firn_os.call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&t, 0, 0, 0);
	}
	atomic_store(&begun.thread, 0);
}

void firn_helper_let(void)
{
	atomic_fetch_sub(&bars, 1);
}

int firn_helper_open(const char *path, int flags)
{
	struct rlimit limit;
	long fd = firn_os.call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);

	if (fd != -EMFILE || !firn_helper.caller ||
	    firn_os.call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit, 0, 0) < 0)
		return (int)fd;
	limit.rlim_cur = limit.rlim_max;
	firn_os.call(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&limit, 0, 0, 0);
	return (int)firn_os.call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

long firn_helper_read(const char *path, char *buf, size_t size)
{
	int fd = firn_helper_open(path, O_RDONLY);
	size_t n = 0;
	long r;

	if (fd < 0)
		return fd;
	do {
		r = firn_os.call(SYS_read, fd, (long)(buf + n), (long)(size - 1 - n), 0, 0, 0);
		n += r > 0 ? (size_t)r : 0;
	} while (r > 0 && n < size - 1);
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	buf[n] = 0;
	return r < 0 ? r : (long)n;
}

char *firn_helper_put(char *at, const char *text)
{
	size_t n = strlen(text);

	memcpy(at, text, n + 1);
	return at + n;
}

char *firn_helper_put_number(char *at, unsigned long n)
{
	char digits[24];
	size_t d = sizeof(digits);

	digits[--d] = 0;
	do
		digits[--d] = (char)('0' + n % 10);
	while (n /= 10);
	return firn_helper_put(at, digits + d);
}

long firn_helper_field(const char *text, const char *key, long missing)
{
	size_t len = strlen(key);

	while (text && strncmp(text, key, len)) {
		text = strchr(text, '\n');
		text += text != NULL;
	}
	if (!text)
		return missing;
	text += len;
	while (*text == ' ' || *text == '\t')
		text++;
	if (*text < '0' || *text > '9')
		return missing;
	long n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + (*text++ - '0');
	return n;
}
