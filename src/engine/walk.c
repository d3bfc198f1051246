/* SPDX-License-Identifier: MIT */
/*
 * Walk: which pages of a stopped target go, and which stay because the kernel itself needs them.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "procmem/seccomp.h"
#include "sys/sys.h"

#define ROBUST_MAX 2048
#define ADDRESS_MAX (1ull << 56)
#define KEEP_BYTES_MAX (16ull << 20)   /* more than the kernel lets arguments and environment have */

/* Threads that an injected call would harm; a filter that would end the target, were we killed in the
 * middle of one. */
int firn_walk_check_threads(struct firn_eviction *j)
{
	static const long calls[] = {
		SYS_rt_sigreturn, SYS_mmap, SYS_munmap, SYS_prctl, SYS_socketpair, SYS_recvmsg, SYS_ioctl,
		SYS_fcntl, SYS_close, SYS_madvise,
#ifdef SYS_pause
		SYS_pause,
#else
		SYS_ppoll,
#endif
#ifdef SYS_process_madvise
		SYS_process_madvise,
#endif
		SYS_pwritev,            /* the last: of a direct pack only */
	};
	unsigned int ncalls = ARRAY_SIZE(calls) - (j->kind != FIRN_PACK_DIRECT);
	struct firn_regs regs;
	long nr = -1;
	int err = 0;

	for (unsigned int n = 0; !err && nr < 0 && n < j->stop.nthreads; n++) {
		pid_t tid = j->stop.threads[n].tid;
		int mode;

		if (firn_arch_get_regs(tid, &regs))
			continue;
		if (!firn_arch_regs_native(&regs))
			return firn_err_set(j->e, FIRN_EXIT_REFUSED, ENOEXEC, "word-size",
					    "process %d is not of this machine's word size: it cannot be frozen", j->t->pid);
		mode = firn_proc_seccomp(j->t->pid, tid);
		if (mode == 1)
			return firn_err_set(j->e, FIRN_EXIT_REFUSED, EPERM, "seccomp-strict",
					    "process %d is in seccomp strict mode: an injected call would end it", j->t->pid);
		if (mode)
			err = firn_seccomp_forbids(tid, calls, ncalls, firn_arch_pc(&regs),
						   (struct sock_filter *)(void *)j->buffer, &nr);
	}
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_REFUSED, -err, "seccomp-unknown",
				    "process %d has a seccomp filter that this kernel does not show: it cannot be frozen safely",
				    j->t->pid);
	if (nr >= 0)
		return firn_err_set(j->e, FIRN_EXIT_REFUSED, EPERM, "seccomp",
				    "process %d has a seccomp filter that forbids system call %ld: it cannot be frozen safely",
				    j->t->pid, nr);
	return 0;
}

static void keep_page(struct firn_eviction *j, uint64_t address)
{
	uint64_t page = firn_align_down(address, j->en->page_size);

	if (!address || (j->nkeep && j->keep[j->nkeep - 1] == page))
		return;
	if (j->nkeep == j->max_keep)
		j->keep_full = true;
	else
		j->keep[j->nkeep++] = page;
}

/* Pages that hold [@address, @address + @len).  The target chose the numbers: they may be nonsense. */
static void keep_bytes(struct firn_eviction *j, uint64_t address, uint64_t len)
{
	if (!address || address > ADDRESS_MAX || len > KEEP_BYTES_MAX)
		return;
	for (uint64_t a = firn_align_down(address, j->en->page_size); a < address + len; a += j->en->page_size)
		keep_page(j, a);
}

static void keep_robust_list(struct firn_eviction *j, pid_t tid)
{
	uint64_t head = 0, len = 0, node[3];
	uint64_t at;

	if (syscall(SYS_get_robust_list, tid, &head, &len) || !head)
		return;
	if (firn_proc_peek(j->t->pid, head, node, sizeof(node)))
		return;
	keep_bytes(j, head, 24);
	if (node[2])
		keep_bytes(j, node[2] + node[1], 8);    /* the operation that is pending */
	at = node[0] & ~1ull;
	for (int n = 0; n < ROBUST_MAX && at && at != head; n++) {
		uint64_t next;

		keep_page(j, at);
		keep_bytes(j, at + node[1], 4);         /* the futex, which the kernel marks */
		if (firn_proc_peek(j->t->pid, at, &next, sizeof(next)))
			return;
		at = next & ~1ull;
	}
}

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
struct rseq_configuration {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

/* What the kernel itself reads or writes for a thread, at moments when a fault cannot be served. */
static int keep_thread(struct firn_eviction *j, pid_t tid)
{
	uint64_t result = j->t->image->inject.scratch;
	struct firn_call get_tid_address = {
		SYS_prctl, { PR_GET_TID_ADDRESS, result, 0, 0, 0, 0 },
		FIRN_POINT_PRCTL_ENTRY, FIRN_POINT_PRCTL_EXIT,
	};
	struct rseq_configuration rseq = { 0 };
	struct firn_regs regs;
	uint64_t address, tls;
	long r;
	int err;

	if (firn_arch_get_regs(tid, &regs))
		return 0;               /* it ended; its memory is a thread's no longer */
	keep_page(j, firn_arch_sp(&regs));
	keep_page(j, firn_arch_sp(&regs) - 1);
	keep_page(j, firn_arch_sp(&regs) - j->en->page_size);
	if (!firn_arch_tls(tid, &regs, &tls))
		keep_bytes(j, tls, 1024);
	keep_robust_list(j, tid);
	if (firn_sys.ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, (void *)sizeof(rseq), &rseq) > 0 && rseq.pointer) {
		uint64_t cs = 0;

		keep_bytes(j, rseq.pointer, rseq.size ? rseq.size : 32);
		if (!firn_proc_peek(j->t->pid, rseq.pointer + 8, &cs, sizeof(cs)) && cs)
			keep_bytes(j, cs, 32);
	}
	err = firn_inject_begin(&j->inject, tid);
	if (!err)
		err = firn_inject_call(&j->inject, &get_tid_address, &r);
	if (!err && r == 0)
		err = firn_inject_read(&j->inject, 0, &address, sizeof(address));
	if (!err && r == 0)
		keep_bytes(j, address, 4);
	if (!err)
		err = firn_inject_end(&j->inject);
	return err;
}

static void sift_down(uint64_t *k, uint32_t i, uint32_t n)
{
	while (2 * i + 1 < n) {
		uint32_t c = 2 * i + 1;
		uint64_t swap;

		if (c + 1 < n && k[c + 1] > k[c])
			c++;
		if (k[i] >= k[c])
			return;
		swap = k[i];
		k[i] = k[c];
		k[c] = swap;
		i = c;
	}
}

/* Heapsort: the library's qsort may allocate, and the target is stopped. */
static void sort_keep(struct firn_eviction *j)
{
	uint64_t *k = j->keep;

	for (uint32_t root = j->nkeep / 2; root-- > 0;)
		sift_down(k, root, j->nkeep);
	for (uint32_t end = j->nkeep; end-- > 1;) {
		uint64_t swap = k[0];

		k[0] = k[end];
		k[end] = swap;
		sift_down(k, 0, end);
	}
}

/* Asked for ascending addresses. */
static bool is_kept(struct firn_eviction *j, uint64_t address)
{
	while (j->next_keep < j->nkeep && j->keep[j->next_keep] < address)
		j->next_keep++;
	return j->next_keep < j->nkeep && j->keep[j->next_keep] == address;
}

/* Evict the page at @address of mapping @m too.  What the tables cannot take stays in memory. */
static void add_page(struct firn_eviction *j, uint64_t address, struct firn_range m)
{
	struct firn_mapping *at = j->nmappings ? &j->mappings[j->nmappings - 1] : NULL;
	struct firn_stretch *last = j->nstretches ? &j->stretches[j->nstretches - 1] : NULL;
	uint32_t page = j->en->page_size;

	if (j->total_pages == j->max_pages || j->nstretches == j->max_stretches)
		return;                 /* it grew since the plan */
	if (!at || at->span.start != m.start) {
		if (j->nmappings == j->max_mappings)
			return;
		j->mappings[j->nmappings++].span = m;
	}
	if (last && last->end == address && last->mapping == j->nmappings - 1) {
		last->end += page;
	} else {
		last = &j->stretches[j->nstretches++];
		last->start = address;
		last->end = address + page;
		last->mapping = j->nmappings - 1;
	}
	j->total_pages++;
}

/* The pages of @run, which lies in mapping @m. */
static int walk_run(struct firn_eviction *j, struct firn_range m, struct firn_range run)
{
	const uint64_t wanted = FIRN_PM_PRESENT | FIRN_PM_EXCLUSIVE;
	uint64_t *words = (uint64_t *)(void *)j->buffer, page = j->en->page_size;

	for (uint64_t a = run.start; a < run.end;) {
		size_t n = (size_t)firn_min_u64((run.end - a) / page, FIRN_SCRATCH_PAGES * page / sizeof(*words));
		int r = firn_pagemap_read(&j->pagemap, a, words, n);

		if (r)
			return r;
		for (size_t k = 0; k < n; k++, a += page) {
			/* Shared with another process, or not there after all: not ours to evict. */
			if ((words[k] & (wanted | FIRN_PM_FILE)) == wanted && !is_kept(j, a))
				add_page(j, a, m);
		}
	}
	return 0;
}

/* @resident: bytes of the mapping. */
static int walk_mapping(struct firn_eviction *j, struct firn_range m, uint64_t resident)
{
	struct firn_range run;
	int r;

	/* Where most pages are there, looking for holes first costs more than it saves. */
	if (resident >= (m.end - m.start) / 2)
		return walk_run(j, m, m);
	for (uint64_t at = m.start; (r = firn_pagemap_next(&j->pagemap, m, at, &run)) > 0; at = run.end) {
		r = walk_run(j, m, run);
		if (r)
			return r;
	}
	return r;
}

int firn_walk(struct firn_eviction *j)
{
	struct firn_vmas v;
	struct firn_vma m;
	int r, err = 0;

	for (unsigned int n = 0; n < j->stop.nthreads; n++) {
		err = keep_thread(j, j->stop.threads[n].tid);
		if (err)
			return err;
	}
	keep_bytes(j, j->plan.proc.args[0], j->plan.proc.args[1] - j->plan.proc.args[0]);
	keep_bytes(j, j->plan.proc.args[2], j->plan.proc.args[3] - j->plan.proc.args[2]);
	keep_bytes(j, j->t->image->inject.scratch, FIRN_SCRATCH_BYTES);
	if (j->keep_full)
		return firn_err_set(j->e, FIRN_EXIT_REFUSED, E2BIG, "too-many-kept",
				    "process %d has too many pages that the kernel itself may need (locks held by its threads): it cannot be frozen",
				    j->t->pid);
	sort_keep(j);
	r = firn_vmas_open(&v, j->t->pid, true);
	if (r)
		return r;
	while (!err && (r = firn_vmas_next(&v, &m)) > 0) {
		struct firn_range span = { m.start, m.end };

		if (m.uffd)
			err = firn_plan_refuse_uffd(j->t->pid, j->e);
		if (err)
			break;
		/* What the target itself may not read it cannot write to the store either. */
		if (j->kind == FIRN_PACK_DIRECT && !m.readable)
			continue;
		if (m.why == FIRN_VMA_OK && m.anon_bytes && m.start != j->t->image->inject.scratch)
			err = walk_mapping(j, span, m.anon_bytes);
		if (!err && m.why == FIRN_VMA_OK && m.huge_bytes)
			err = firn_huge_note(j, span);
	}
	firn_vmas_close(&v);
	return err ? err : r;
}
