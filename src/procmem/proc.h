/* SPDX-License-Identifier: MIT */
/*
 * Find and inspect a process through /proc.  Reads only; allocates nothing.
 */
#ifndef FIRN_PROCMEM_PROC_H
#define FIRN_PROCMEM_PROC_H

#include <sys/types.h>

#include "base/types.h"
#include "sys/sys.h"

struct firn_proc {
	pid_t pid;
	pid_t ppid;
	pid_t tgid;
	pid_t tracer;
	char comm[16];
	char state;                  /* as in /proc/PID/stat: R S D T t Z X I */
	bool kernel_thread;
	bool shadow_stack;
	unsigned int threads;
	uint64_t start_time;         /* clock ticks after boot: with the pid, the process's identity */
	uint64_t args[4];            /* arg_start, arg_end, env_start, env_end */
	uint32_t uids[3];            /* real, effective, saved */
	uint32_t gids[3];
	uint64_t vm_pin_bytes;
	uint64_t rss_anon_bytes;
};

/* Fill @ret for @pid.  Returns 0, -ESRCH (no such process), or -errno. */
int firn_proc_read(pid_t pid, struct firn_proc *ret);

/* A thread of @pid that has not exited: a main thread that has no longer shows the process's memory and
 * descriptors in /proc.  @pid where there is none. */
pid_t firn_proc_live_thread(pid_t pid);

/* The seccomp mode of thread @tid: 0 none, 1 strict, 2 filter.  -ESRCH where it cannot be read. */
int firn_proc_seccomp(pid_t pid, pid_t tid);

/* What /proc/PID/stat has, and no more: state, parent, start time, threads, whether it is a kernel thread.  Cheaper than
 * all.  Returns 0, or -ESRCH. */
int firn_proc_identity(pid_t pid, struct firn_proc *ret);
/* The start time alone, the parent alone.  Return 0, or -ESRCH. */
int firn_proc_start_time(pid_t pid, uint64_t *ret);
int firn_proc_parent(pid_t pid, pid_t *ret);

enum firn_vma_why {
	FIRN_VMA_OK = 0,             /* private anonymous memory that may be evicted */
	FIRN_VMA_NOT_ANON,
	FIRN_VMA_SHARED,
	FIRN_VMA_FLAG,               /* a VmFlag outside the allow-list */
};

struct firn_vma {
	uint64_t start, end;         /* bytes */
	uint64_t anon_bytes;         /* resident anonymous, where the source is smaps */
	uint64_t huge_bytes;         /* of them in transparent huge pages */
	enum firn_vma_why why;
	bool uffd;                   /* a userfaultfd is registered on it */
	bool wipe_on_fork, dont_fork;
	bool exec_file;              /* r-xp of a file, or the vdso */
	bool vdso;
	bool aio;
	bool grows_down;
	bool readable;               /* by the target itself */
	char name[64];
};

struct firn_vmas {
	struct firn_lines lines;
	bool smaps;
	struct firn_vma next;
	bool have_next;
};

/*
 * Walk the mappings of @pid.  With @flags, /proc/PID/smaps is read (slower: it walks the pages) and
 * VmFlags are judged against the allow-list; without, only start, end, name and kind are known.
 * Returns 0, or -errno.
 */
int firn_vmas_open(struct firn_vmas *v, pid_t pid, bool flags);
/* Returns 1 with *@ret filled, 0 at the end, or -errno. */
int firn_vmas_next(struct firn_vmas *v, struct firn_vma *ret);
void firn_vmas_close(struct firn_vmas *v);

/* Present in a run of pages. */
#define FIRN_PM_PRESENT (1ull << 63)
#define FIRN_PM_SWAPPED (1ull << 62)
#define FIRN_PM_FILE (1ull << 61)
#define FIRN_PM_EXCLUSIVE (1ull << 56)

struct firn_pagemap {
	int fd;
	bool scan;                   /* PAGEMAP_SCAN works here */
};

/* Returns 0, or -errno.  The caller closes. */
int firn_pagemap_open(struct firn_pagemap *pm, pid_t pid);
void firn_pagemap_close(struct firn_pagemap *pm);
/*
 * The next run of present, not file-backed pages of @span at or after @from.
 * Returns 1 with *@ret, 0 where there is none, or -errno.
 */
int firn_pagemap_next(struct firn_pagemap *pm, struct firn_range span, uint64_t from, struct firn_range *ret);
/* The same of huge pages.  -EOPNOTSUPP before Linux 6.7. */
int firn_pagemap_next_huge(struct firn_pagemap *pm, struct firn_range span, uint64_t from, struct firn_range *ret);
/* Pagemap words of @n pages from @address.  Returns 0, or -errno. */
int firn_pagemap_read(struct firn_pagemap *pm, uint64_t address, uint64_t *words, size_t n);

/* Read @len bytes at @address of the target, also where PROT_NONE forbids it to the target itself
 * (/proc/PID/mem then; needs a ptrace-stopped target).  Returns 0, or -errno. */
int firn_proc_peek(pid_t pid, uint64_t address, void *buf, size_t len);

#endif
