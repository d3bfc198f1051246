/* SPDX-License-Identifier: MIT */
/*
 * The allocator's OS boundary: raw system calls, which leave errno alone.  One table, whose entries tests
 * replace.  Every entry returns the kernel's answer: >= 0, or -errno.
 */
#ifndef FIRN_MALLOC_OS_H
#define FIRN_MALLOC_OS_H

#include <stddef.h>
#include <stdint.h>

struct firn_malloc_os {
	/* An address, or -errno cast to one: see firn_os_failed. */
	void *(*mmap)(void *address, size_t bytes, int prot, int flags, int fd, long offset);
	int (*munmap)(void *address, size_t bytes);
	int (*mprotect)(void *address, size_t bytes, int prot);
	int (*madvise)(void *address, size_t bytes, int advice);
	void *(*mremap)(void *old, size_t old_bytes, size_t new_bytes, int flags, void *address);
	long (*call)(long nr, long a, long b, long c, long d, long e, long f);  /* any other */
	uint64_t (*clock_ms)(void);     /* CLOCK_MONOTONIC_COARSE */
	uint64_t (*clock_ns)(void);     /* CLOCK_MONOTONIC */
};

extern struct firn_malloc_os firn_os;

static inline int firn_os_failed(const void *p)
{
	return (uintptr_t)p > (uintptr_t)-4096;
}

/* A raw system call of this architecture. */
long firn_os_call(long nr, long a, long b, long c, long d, long e, long f);

#endif
