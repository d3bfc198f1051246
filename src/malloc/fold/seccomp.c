/* SPDX-License-Identifier: MIT */
/*
 * Is there a seccomp filter?  One that is installed through libc is seen to come (calls.c); from then on no unusual
 * call is made, not even to ask.  One installed by a system call of the program's own is noticed by asking, before
 * each helper.
 */
#include "malloc/fold/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "malloc/config.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"

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

long firn_seccomp_install(long nr, long a, long b, long c, long d, long e, long f)
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
