/* SPDX-License-Identifier: MIT */
/*
 * Which barrier: looked at anew by every helper, since threads, tracers and pinned memory come and go.  Owns the
 * time of the last stop; leaves no trace in the process once it is closed.
 *
 * What a run of pages costs, in microseconds (2 shared cores, Linux 6.18, 4,000 runs, 32 to a userfaultfd):
 *
 *                                        1 page   8 pages   another thread runs: 1 page   8 pages
 *   mmap alone                               11        14                           17        23
 *   register, protect, mmap, wake            17        18                           24        38
 *   the same, 64 KiB registered at once      23        25                           44        60
 *   all registered at once, unregistered     17        30                           38        74
 *
 * Registering just the run makes the mapping that mmap would have had to split off anyway, and mmap is cheaper by
 * nearly that much.  Closing the userfaultfd walks all mappings of the process: 10 us, and 30 us a thousand.
 */
#include "malloc/fold/barrier.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "malloc/class.h"
#include "malloc/fold/helper.h"
#include "malloc/fold/seccomp.h"
#include "malloc/fold/tracer.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define STATUS_BYTES 8192
#define FAILURES_MAX 6                  /* stops that fail are tried up to 2^this times less often */

/* Of the tracer tier; under the pass lock. */
static uint64_t next_stop_ms;
static unsigned int failures;
static bool tracing;                    /* it was the tier of the last attempt */

unsigned int firn_barrier_locked_kb;

static int refuse(struct firn_barrier *b, int err, const char *why)
{
	b->why = why;
	return err;
}

static bool allowed(enum firn_barrier_tier tier)
{
	return firn_config.barrier == FIRN_BARRIER_AUTO || firn_config.barrier == tier;
}

/* /proc must number processes as we do: it may be mounted for another namespace. */
static bool proc_is_ours(void)
{
	char link[16], own[24];
	long n = firn_os.call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self", (long)link, sizeof(link) - 1, 0, 0);

	if (n <= 0)
		return false;
	link[n] = 0;
	firn_helper_put_number(own, (unsigned long)firn_os.call(SYS_getpid, 0, 0, 0, 0, 0, 0));
	for (const char *a = link, *c = own;; a++, c++) {
		if (*a != *c)
			return false;
		if (!*a)
			return true;
	}
}

/* What forbids any folding, in any tier.  *@ret_threads: of the process. */
static int look(struct firn_barrier *b, long *ret_threads)
{
	char path[32], status[STATUS_BYTES], *p;
	long n, pinned, locked;

	if (!proc_is_ours())
		return refuse(b, -EPERM, "no /proc");
	p = firn_helper_put_number(firn_helper_put(path, "/proc/"), (unsigned long)firn_helper.program);
	firn_helper_put(p, "/status");
	n = firn_helper_read(path, status, sizeof(status));
	if (n <= 0)
		return refuse(b, -EPERM, "no /proc");
	pinned = firn_helper_field(status, "VmPin:", -1);
	locked = firn_helper_field(status, "VmLck:", -1);
	*ret_threads = firn_helper_field(status, "Threads:", -1);
	if (pinned < 0 || locked < 0)
		return refuse(b, -EPERM, "/proc does not tell what memory is pinned");
	if (pinned > 0)
		return refuse(b, -EAGAIN, "memory is pinned for a device or for io_uring");
	if (locked > (long)firn_barrier_locked_kb)
		return refuse(b, -EPERM, "memory is locked");
	if (firn_helper_field(status, "TracerPid:", 0) > 0)
		return refuse(b, -EAGAIN, "a debugger traces this process");
	return 0;
}

static long uffd_call(struct firn_barrier *b, unsigned long request, void *arg)
{
	return firn_os.call(SYS_ioctl, b->uffd, (long)request, (long)arg, 0, 0, 0);
}

/* A userfaultfd that also stops the kernel's own writes, which takes CAP_SYS_PTRACE, a system setting, or a
 * /dev/userfaultfd that was lent to us. */
static int open_uffd(struct firn_barrier *b)
{
	static const uint64_t features[] = {
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED,
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	long fd = firn_os.call(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0, 0);

	if (fd < 0) {
		int dev = firn_helper_open("/dev/userfaultfd", O_RDWR);

		if (dev < 0)
			return refuse(b, -EPERM, "userfaultfd is not permitted");
		fd = firn_os.call(SYS_ioctl, dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK, 0, 0, 0);
		firn_os.call(SYS_close, dev, 0, 0, 0, 0, 0);
		if (fd < 0)
			return refuse(b, -EPERM, "userfaultfd is not permitted");
	}
	b->uffd = (int)fd;
	for (unsigned int i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		struct uffdio_api api = { .api = UFFD_API, .features = features[i] };

		if (uffd_call(b, UFFDIO_API, &api) == 0) {
			b->wp_unpopulated = features[i] & UFFD_FEATURE_WP_UNPOPULATED;
			return 0;
		}
	}
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	b->uffd = -1;
	return refuse(b, -EPERM, "this kernel's userfaultfd cannot write-protect private and file mappings");
}

static int stop_threads(struct firn_barrier *b)
{
	uint64_t now = firn_os.clock_ns() / 1000000;
	const char *why = b->why;
	int err;

	if (now < next_stop_ms)
		return refuse(b, -EAGAIN, "the threads were stopped a short while ago");
	err = firn_tracer_stop(b);
	if (err) {
		failures += failures < FAILURES_MAX;
	} else {
		failures = 0;
		b->why = why;
		firn_count(&firn_counters.stops, 1);
	}
	next_stop_ms = now + ((uint64_t)firn_config.stop_ms << failures);
	return err;
}

static int choose(struct firn_barrier *b)
{
	long threads;
	int err;

	if (firn_seccomp_forbids())
		return refuse(b, -EPERM, "a seccomp filter");
	err = look(b, &threads);
	if (err)
		return err;
	/* Threads alone do not tell of a process that shares our memory: only where the kernel may not be asked. */
	if (allowed(FIRN_BARRIER_NONE) &&
	    (firn_helper.alone > 0 || (firn_helper.alone < 0 && threads == 1))) {
		b->tier = FIRN_BARRIER_NONE;
		return 0;
	}
	err = refuse(b, -EAGAIN, "the tier asked for is for a single thread");
	if (allowed(FIRN_BARRIER_WP)) {
		err = open_uffd(b);
		if (!err) {
			b->why = NULL;
			b->tier = FIRN_BARRIER_WP;
			return 0;
		}
	}
	if (!firn_helper.caller)
		return -EBUSY;
	if (allowed(FIRN_BARRIER_TRACER)) {
		if (firn_seccomp_filtered())
			return refuse(b, -EPERM, "a seccomp filter");
		tracing = true;
		err = stop_threads(b);
		if (!err)
			b->tier = FIRN_BARRIER_TRACER;
	}
	return err;
}

int firn_barrier_open(struct firn_barrier *b)
{
	int err;

	b->tier = FIRN_BARRIER_OFF;
	b->uffd = -1;
	b->wp_unpopulated = false;
	b->why = NULL;
	b->stopped = 0;
	tracing = false;
	err = choose(b);
	if (err == -EBUSY)
		return err;
	atomic_store_explicit(&firn_counters.barrier, (uint32_t)b->tier, memory_order_relaxed);
	atomic_store_explicit(&firn_counters.why, b->why, memory_order_relaxed);
	return err;
}

int firn_barrier_look(struct firn_barrier *b)
{
	long threads;

	return look(b, &threads);
}

uint64_t firn_barrier_wait_ms(void)
{
	uint64_t now;

	if (!tracing)
		return 0;
	now = firn_os.clock_ns() / 1000000;
	return now < next_stop_ms ? next_stop_ms - now : 0;
}

int firn_barrier_hold(struct firn_barrier *b, void *address, size_t pages)
{
	struct uffdio_range range = { (uintptr_t)address, pages * FIRN_PAGE_BYTES };
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .range = range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	long r;

	if (b->tier != FIRN_BARRIER_WP)
		return 0;
	/* Where the kernel cannot protect what is not there, a write to a hole would be missed. */
	if (!b->wp_unpopulated) {
		r = firn_os.madvise(address, range.len, MADV_POPULATE_READ);
		if (r < 0)
			return (int)r;
	}
	r = uffd_call(b, UFFDIO_REGISTER, &reg);
	if (r < 0)
		return (int)r;
	while ((r = uffd_call(b, UFFDIO_WRITEPROTECT, &wp)) == -EAGAIN)
		;
	if (r < 0)
		firn_barrier_release(b, address, pages, false);
	return (int)r;
}

void firn_barrier_release(struct firn_barrier *b, void *address, size_t pages, bool remapped)
{
	struct uffdio_range range = { (uintptr_t)address, pages * FIRN_PAGE_BYTES };

	if (b->tier != FIRN_BARRIER_WP)
		return;
	if (!remapped) {
		struct uffdio_range copy = range;

		uffd_call(b, UFFDIO_UNREGISTER, &copy);
	}
	/* Only now: a writer that is woken looks again at what is mapped there. */
	uffd_call(b, UFFDIO_WAKE, &range);
}

void firn_barrier_close(struct firn_barrier *b)
{
	if (b->uffd >= 0)
		firn_os.call(SYS_close, b->uffd, 0, 0, 0, 0, 0);
	b->uffd = -1;
	if (b->tier == FIRN_BARRIER_TRACER) {
		firn_tracer_go(b);
		firn_count_pause(firn_os.clock_ns() - b->since_ns);
	}
	b->tier = FIRN_BARRIER_OFF;
}
