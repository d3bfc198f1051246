/* SPDX-License-Identifier: MIT */
#include "malloc/os.h"

#include <sys/syscall.h>
#include <time.h>

long firn_os_call(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
#else
#error "this architecture has no raw system call here yet"
#endif
}

static void *map(void *address, size_t bytes, int prot, int flags, int fd, long offset)
{
	return (void *)firn_os_call(SYS_mmap, (long)address, (long)bytes, prot, flags, fd, offset);
}

static int unmap(void *address, size_t bytes)
{
	return (int)firn_os_call(SYS_munmap, (long)address, (long)bytes, 0, 0, 0, 0);
}

static int protect(void *address, size_t bytes, int prot)
{
	return (int)firn_os_call(SYS_mprotect, (long)address, (long)bytes, prot, 0, 0, 0);
}

static int advise(void *address, size_t bytes, int advice)
{
	return (int)firn_os_call(SYS_madvise, (long)address, (long)bytes, advice, 0, 0, 0);
}

static void *remap(void *old, size_t old_bytes, size_t new_bytes, int flags, void *address)
{
	return (void *)firn_os_call(SYS_mremap, (long)old, (long)old_bytes, (long)new_bytes, flags, (long)address, 0);
}

static uint64_t coarse_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t precise_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct firn_malloc_os firn_os = {
	.mmap = map,
	.munmap = unmap,
	.mprotect = protect,
	.madvise = advise,
	.mremap = remap,
	.call = firn_os_call,
	.clock_ms = coarse_ms,
	.clock_ns = precise_ns,
};
