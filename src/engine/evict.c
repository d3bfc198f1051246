/* SPDX-License-Identifier: MIT */
/*
 * Evict: plan, stop, walk, then for each slice gather and write, arm, drop; then leave.  The order is
 * the safety argument (docs/architecture.md): a page is dropped only when it is stored whole, and
 * whoever touches it from then on is answered.  Nothing is allocated from stop to leave.
 */
#include "engine/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "procmem/seccomp.h"
#include "sys/sys.h"
#include "transfer/workers.h"

#define SLICE_PAGES 65536u           /* 256 MiB of 4 KiB pages */
#define GATHER_BYTES (1u << 20)      /* read from the target at a time */
#define GAP_PAGES 3u                 /* holes this small are linked rather than splitting a run */
#define ROBUST_MAX 2048
#define ADDRESS_MAX (1ull << 56)
#define KEEP_BYTES_MAX (16ull << 20)   /* more than the kernel lets arguments and environment have */
#define WORKERS 2u                   /* threads that encode */
#define MAP_COUNT_MARGIN 131072u     /* runs that layout changes may add: two for each mapping */

/* A stretch of pages to evict, inside one mapping. */
struct stretch {
	uint64_t start, end;
	uint32_t mapping;            /* number of its mapping: stretches of one may be joined */
	uint32_t pad;
};

/* A mapping from which something is evicted.  It is watched whole: were it watched in part, it would be
 * two mappings, and the target's next mremap across both would fail. */
struct mapping {
	struct firn_span span;
	bool watched;
};

struct job {
	struct firn_engine *en;
	const struct firn_evict_options *o;
	struct firn_report *report;
	struct firn_err *e;
	struct firn_target *t;
	struct firn_plan plan;
	struct firn_stop stop;
	struct firn_inject inject;
	struct firn_pagemap pagemap;
	struct firn_builder *builder;
	struct firn_pack_ref *pack;
	/* reserved in the plan */
	struct stretch *stretches;
	uint32_t nstretches, max_stretches;
	struct mapping *mappings;
	uint32_t nmappings, max_mappings;
	uint64_t *keep;              /* addresses of pages that stay */
	uint32_t nkeep, max_keep;
	uint32_t *places;            /* of every page, for the pack's index */
	struct firn_pack_run *runs;
	uint32_t nplaces, max_pages, nruns;
	char *buffer;                /* GATHER_BYTES */
	uint64_t *cookies;
	uint64_t total_pages, done_pages;
	uint64_t clock;
	uint64_t started;
	struct firn_workers *workers;
	struct firn_lane *lane;
	struct {
		const void *buf;
		size_t len;
		uint64_t offset;
	} write;                     /* the lane's, while it is under way */
	uint64_t write_ns;           /* in write calls; read when none is under way */
	uint64_t wait_ns;            /* of it, what gathering had to wait for */
	bool armed;                  /* a slice was dropped: the target depends on us */
	size_t stretches_bytes, places_bytes, runs_bytes;
};

static void lap(struct job *j, enum firn_phase phase)
{
	uint64_t now = firn_sys.clock_ns();

	j->t->image->ns[phase] += now - j->clock;
	j->clock = now;
}

static void *reserve(size_t bytes, size_t populate)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Pages the job will surely need are there before the target is stopped. */
	memset(p, 0, populate < bytes ? populate : bytes);
	return p;
}

/* --- Builder callbacks --------------------------------------------------------------------------- */

/* On the lane: the one write that is under way. */
static int write_out(void *arg)
{
	struct job *j = arg;
	uint64_t start = firn_sys.clock_ns();
	size_t done = 0, len = j->write.len;

	while (done < len) {
		long n = firn_sys.pwrite(j->pack->file.fd, (const char *)j->write.buf + done, len - done,
					 j->write.offset + done);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -EIO;
		done += (size_t)n;
		j->pack->file.m->write_calls++;
		j->pack->file.m->write_bytes += (uint64_t)n;
	}
	j->write_ns += firn_sys.clock_ns() - start;
	return 0;
}

static int write_pack(void *ctx, const void *buf, size_t len, struct firn_poff offset)
{
	struct job *j = ctx;

	j->write.buf = buf;
	j->write.len = len;
	j->write.offset = offset.v;
	firn_lane_begin(j->lane, write_out, j);
	return 0;
}

static int await_write(void *ctx)
{
	struct job *j = ctx;
	uint64_t start = firn_sys.clock_ns();
	int err = firn_lane_wait(j->lane);

	j->wait_ns += firn_sys.clock_ns() - start;
	return err;
}

static void run_workers(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i, uint32_t worker), void *arg)
{
	struct job *j = ctx;

	firn_workers_run(j->workers, n, fn, arg);
}

/* A suspected duplicate: its original is still in the target, since its slice is. */
static int same_page(void *ctx, uint64_t original, const void *page)
{
	struct job *j = ctx;
	char *mine = j->buffer + GATHER_BYTES;

	if (firn_proc_peek(j->t->pid, original, mine, j->en->page_size))
		return 0;
	return !memcmp(mine, page, j->en->page_size);
}

/* Threads that an injected call would harm; a filter that would end the target, were we killed in the
 * middle of one. */
static int check_threads(struct job *j)
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
	};
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
			err = firn_seccomp_forbids(tid, calls, ARRAY_SIZE(calls), firn_arch_pc(&regs),
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

/* --- Walk ---------------------------------------------------------------------------------------- */

static void keep_page(struct job *j, uint64_t address)
{
	if (address && j->nkeep < j->max_keep)
		j->keep[j->nkeep++] = firn_align_down(address, j->en->page_size);
}

/* Pages that hold [@address, @address + @len).  The target chose the numbers: they may be nonsense. */
static void keep_bytes(struct job *j, uint64_t address, uint64_t len)
{
	if (!address || address > ADDRESS_MAX || len > KEEP_BYTES_MAX)
		return;
	for (uint64_t a = firn_align_down(address, j->en->page_size); a < address + len; a += j->en->page_size)
		keep_page(j, a);
}

static void keep_robust_list(struct job *j, pid_t tid)
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
static int keep_thread(struct job *j, pid_t tid)
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

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorting in place, without memory of its own. */
static void sort_keep(struct job *j)
{
	uint64_t *k = j->keep;
	uint32_t n = j->nkeep;

	for (uint32_t root = n / 2; root-- > 0;) {
		for (uint32_t i = root; 2 * i + 1 < n;) {
			uint32_t c = 2 * i + 1;
			uint64_t swap;

			if (c + 1 < n && k[c + 1] > k[c])
				c++;
			if (k[i] >= k[c])
				break;
			swap = k[i];
			k[i] = k[c];
			k[c] = swap;
			i = c;
		}
	}
	for (uint32_t end = n; end-- > 1;) {
		uint64_t swap = k[0];

		k[0] = k[end];
		k[end] = swap;
		for (uint32_t i = 0; 2 * i + 1 < end;) {
			uint32_t c = 2 * i + 1;

			if (c + 1 < end && k[c + 1] > k[c])
				c++;
			if (k[i] >= k[c])
				break;
			swap = k[i];
			k[i] = k[c];
			k[c] = swap;
			i = c;
		}
	}
}

static bool is_kept(const struct job *j, uint64_t address)
{
	return bsearch(&address, j->keep, j->nkeep, sizeof(*j->keep), compare_u64) != NULL;
}

/* Evict the page at @address of mapping @m too.  What the tables cannot take stays in memory. */
static void add_page(struct job *j, uint64_t address, struct firn_span m)
{
	struct mapping *at = j->nmappings ? &j->mappings[j->nmappings - 1] : NULL;
	struct stretch *last = j->nstretches ? &j->stretches[j->nstretches - 1] : NULL;
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

static int walk_mapping(struct job *j, struct firn_span m)
{
	uint64_t words[512], page = j->en->page_size;
	struct firn_span run;
	int r;

	for (uint64_t at = m.start; (r = firn_pagemap_next(&j->pagemap, m, at, &run)) > 0; at = run.end) {
		for (uint64_t a = run.start; a < run.end;) {
			size_t n = (size_t)firn_min_u64((run.end - a) / page, ARRAY_SIZE(words));

			r = firn_pagemap_read(&j->pagemap, a, words, n);
			if (r)
				return r;
			for (size_t k = 0; k < n; k++, a += page) {
				/* Shared with another process, or not there after all: not ours to evict. */
				if ((words[k] & (FIRN_PM_PRESENT | FIRN_PM_EXCLUSIVE)) !=
					    (FIRN_PM_PRESENT | FIRN_PM_EXCLUSIVE) ||
				    is_kept(j, a))
					continue;
				add_page(j, a, m);
			}
		}
	}
	return r;
}

static int walk(struct job *j)
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
	sort_keep(j);
	r = firn_vmas_open(&v, j->t->pid, true);
	if (r)
		return r;
	while (!err && (r = firn_vmas_next(&v, &m)) > 0) {
		struct firn_span span = { m.start, m.end };

		if (m.why == FIRN_VMA_OK && m.anon_bytes && m.start != j->t->image->inject.scratch)
			err = walk_mapping(j, span);
	}
	firn_vmas_close(&v);
	return err ? err : r;
}

/* --- One slice ----------------------------------------------------------------------------------- */

/* Stretches [first, last) of this slice, the last one cut at @cut. */
struct slice {
	uint32_t first, last;
	uint64_t pages;
};

static struct slice next_slice(struct job *j, uint32_t first)
{
	struct slice s = { first, first, 0 };

	while (s.last < j->nstretches && s.pages < SLICE_PAGES) {
		struct stretch *t = &j->stretches[s.last];
		uint64_t pages = (t->end - t->start) / j->en->page_size, room = SLICE_PAGES - s.pages;

		if (pages > room) {
			/* Cut it in two; the table has a place for the second half. */
			if (j->nstretches == j->max_stretches)
				break;
			memmove(t + 1, t, (j->nstretches - s.last) * sizeof(*t));
			j->nstretches++;
			t[0].end = t[1].start = t[0].start + room * j->en->page_size;
			pages = room;
		}
		s.pages += pages;
		s.last++;
	}
	return s;
}

static int read_target(struct job *j, uint64_t address, size_t len)
{
	return firn_proc_peek(j->t->pid, address, j->buffer, len);
}

static int gather(struct job *j, const struct slice *s)
{
	uint32_t page = j->en->page_size;

	for (uint32_t n = s->first; n < s->last; n++) {
		const struct stretch *t = &j->stretches[n];
		struct firn_pack_run *run = &j->runs[j->nruns++];

		run->start.v = t->start;
		run->npages = (uint32_t)((t->end - t->start) / page);
		run->first_place = j->nplaces;
		for (uint64_t a = t->start; a < t->end;) {
			size_t len = (size_t)firn_min_u64(t->end - a, GATHER_BYTES);
			uint32_t pages = (uint32_t)(len / page);
			int err = read_target(j, a, len);

			if (err)
				return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "read",
						    "process %d: memory at %#llx cannot be read (%s): left running, nothing evicted",
						    j->t->pid, (unsigned long long)a, strerror(-err));
			for (uint32_t k = 0; k < pages; k++)
				j->cookies[k] = a + (uint64_t)k * page;
			err = firn_builder_add_pages(j->builder, j->buffer, pages, j->cookies,
						     j->places + j->nplaces);
			if (err)
				return err;
			j->nplaces += pages;
			a += len;
			if (j->o->progress)
				j->o->progress(j->o->arg, "gather", j->done_pages + j->nplaces, j->total_pages);
		}
	}
	return 0;
}

static uint32_t link_of_place(uint32_t place)
{
	switch (firn_place_kind(place)) {
	case FIRN_PLACE_ZERO:
		return firn_link_make(FIRN_PAGE_ZERO, 0);
	case FIRN_PLACE_FILL:
		return firn_link_make(FIRN_PAGE_FILL, firn_place_value(place));
	case FIRN_PLACE_SLOT:
		return firn_link_make(FIRN_PAGE_EVICTED, firn_place_value(place));
	default:
		return firn_link_make(FIRN_PAGE_LOST, 0);
	}
}

/* Enter the slice's pages into the link table, small holes between them included. */
static int link_slice(struct job *j, const struct slice *s, uint32_t first_place)
{
	struct firn_link *l = &j->t->armed.link;
	uint32_t page = j->en->page_size, place = first_place;

	for (uint32_t n = s->first; n < s->last;) {
		uint64_t start = j->stretches[n].start, end = j->stretches[n].end;
		uint32_t m = n + 1, first, *slots;
		int err;

		while (m < s->last && j->stretches[m].mapping == j->stretches[n].mapping &&
		       j->stretches[m].start - end <= GAP_PAGES * page)
			end = j->stretches[m++].end;
		err = firn_link_add_run(l, start, (uint32_t)((end - start) / page), &first);
		if (err)
			return err;
		slots = firn_link_slots(l, first);
		for (; n < m; n++) {
			for (uint64_t a = j->stretches[n].start; a < j->stretches[n].end; a += page)
				slots[(a - start) / page] = link_of_place(j->places[place++]);
			if (n + 1 < m)
				for (uint64_t a = j->stretches[n].end; a < j->stretches[n + 1].start; a += page)
					slots[(a - start) / page] = firn_link_make(FIRN_PAGE_HOLE, 0);
		}
	}
	return 0;
}

/*
 * Watch the mappings of the slice, neighbours by one call.  The link table knows of it first, so that a
 * fault in a hole finds an answer.
 */
static int arm(struct job *j, const struct slice *s)
{
	uint32_t first = j->stretches[s->first].mapping, last = j->stretches[s->last - 1].mapping;
	struct firn_armed *a = &j->t->armed;
	int err = 0;

	if (j->mappings[first].watched)
		first++;                /* the slice before began it */
	for (int pass = 0; pass < 2 && !err; pass++) {
		for (uint32_t n = first; n <= last && !err;) {
			struct firn_span span = j->mappings[n].span;

			j->mappings[n++].watched = true;
			while (n <= last && j->mappings[n].span.start == span.end) {
				span.end = j->mappings[n].span.end;
				j->mappings[n++].watched = true;
			}
			err = pass ? firn_armed_register(a, span) : firn_link_add_watched(&a->link, span);
		}
		if (!pass && !err)
			firn_link_publish(&a->link);
	}
	return err;
}

static int drop(struct job *j, const struct slice *s)
{
	struct firn_span spans[64];
	uint32_t k = 0;
	int err;

	err = firn_inject_begin(&j->inject, j->stop.threads[0].tid);
	for (uint32_t n = s->first; !err && n < s->last; n++) {
		spans[k].start = j->stretches[n].start;
		spans[k++].end = j->stretches[n].end;
		if (k == ARRAY_SIZE(spans) || n + 1 == s->last) {
			err = firn_armed_drop(&j->t->armed, &j->inject, spans, k);
			k = 0;
		}
	}
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		return err;
	if (err)
		firn_log("process %d: dropping its pages failed (%s): they stay in memory as well, nothing is lost",
			 j->t->pid, strerror(-err));
	return firn_inject_end(&j->inject);
}

static int store_failed(struct job *j, int err)
{
	if (err == -ENOSPC || err == -EDQUOT)
		return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-full",
				    "store %s is full: process %d runs on, nothing is lost; free space there",
				    j->en->config.store_dir, j->t->pid);
	return firn_err_set(j->e, FIRN_EXIT_STORE, -err, "store-write",
			    "store %s: writing failed (%s): process %d runs on, nothing is lost", j->en->config.store_dir,
			    strerror(-err), j->t->pid);
}

static int write_slice(struct job *j, bool last)
{
	struct firn_pack_target target = {
		.pid = j->t->pid,
		.start_time = j->t->image->start_time,
		.runs = j->nruns,
	};
	struct firn_builder_index index = {
		.targets = &target, .ntargets = 1,
		.runs = j->runs, .nruns = j->nruns,
		.places = j->places, .nplaces = j->nplaces,
	};
	struct firn_pack_memory *m = j->pack->file.m;
	struct firn_builder_stats stats;
	int err;

	memcpy(target.comm, j->t->image->comm, sizeof(target.comm));
	err = last ? firn_builder_finish(j->builder, &index, &m->bytes) : firn_builder_end_slice(j->builder);
	/* Through the page cache, writing can fail later: not after the drop. */
	if (!err && j->pack->buffered && fdatasync(j->pack->file.fd))
		err = -errno;
	if (err)
		return store_failed(j, err);
	firn_builder_get_stats(j->builder, &stats);
	m->fills = stats.fills;
	m->duplicates = stats.duplicate_pages;
	m->raw_bytes = stats.pages * j->en->page_size;
	__atomic_store_n(&m->blocks, stats.blocks, __ATOMIC_RELEASE);
	if (!last)
		m->bytes = stats.write_bytes;
	return 0;
}

static int evict_slice(struct job *j, const struct slice *s, bool last)
{
	struct firn_link *l = &j->t->armed.link;
	uint32_t first_place = j->nplaces;
	uint64_t write_ns = j->write_ns, wait_ns = j->wait_ns;
	int err;

	err = gather(j, s);
	if (err)
		return j->e->code ? err : store_failed(j, err);
	firn_point(FIRN_POINT_GATHERED);
	err = write_slice(j, last);
	if (err)
		return err;
	firn_point(FIRN_POINT_WRITTEN);
	lap(j, FIRN_PHASE_GATHER);
	/* Writing overlaps gathering: what had to be waited for is not gathering. */
	j->t->image->ns[FIRN_PHASE_GATHER] -= j->wait_ns - wait_ns;
	j->t->image->ns[FIRN_PHASE_WRITE] += j->write_ns - write_ns;

	err = arm(j, s);
	if (!err)
		err = link_slice(j, s, first_place);
	if (err) {
		firn_link_unpublish(l);
		return firn_err_set(j->e, FIRN_EXIT_REFUSED, -err, "arm",
				    "process %d: its memory cannot be watched (%s): left running, nothing evicted", j->t->pid,
				    strerror(-err));
	}
	firn_link_publish(l);
	firn_point(FIRN_POINT_ARMED);
	lap(j, FIRN_PHASE_ARM);

	j->armed = true;
	err = drop(j, s);
	firn_point(FIRN_POINT_DROPPED);
	lap(j, FIRN_PHASE_DROP);
	j->done_pages += s->pages;
	j->t->image->pages += s->pages;
	if (err)
		return firn_err_set(j->e, err == -ESRCH ? FIRN_EXIT_NOT_FOUND : FIRN_EXIT_LOST, -err,
				    err == -ESRCH ? "gone" : "wedged",
				    err == -ESRCH ? "process %d ended meanwhile: nothing to do" :
						    "process %d could not be put back after dropping: it is left as it is, its pack is kept",
				    j->t->pid);
	return 0;
}

/* --- The whole ----------------------------------------------------------------------------------- */

static int reserve_all(struct job *j)
{
	uint64_t pages = j->plan.pages + j->plan.pages / 16 + 1024;
	size_t page = j->en->page_size;

	j->max_pages = (uint32_t)firn_min_u64(pages, FIRN_LINK_PLACE_MAX);
	j->max_stretches = j->max_pages + 64;
	j->stretches_bytes = j->max_stretches * sizeof(*j->stretches);
	j->places_bytes = j->max_pages * sizeof(*j->places);
	j->runs_bytes = j->max_stretches * sizeof(*j->runs);
	j->max_mappings = j->plan.vmas + 64;
	j->max_keep = j->plan.proc.threads * 32 * 2 + 16384;
	/* Stretches are mostly long: a tenth of the worst case is made ready, the rest may be had. */
	j->stretches = reserve(j->stretches_bytes, j->stretches_bytes / 10);
	j->runs = reserve(j->runs_bytes, j->runs_bytes / 10);
	j->places = reserve(j->places_bytes, j->places_bytes);
	j->mappings = reserve(j->max_mappings * sizeof(*j->mappings), j->max_mappings * sizeof(*j->mappings));
	j->keep = reserve(j->max_keep * sizeof(*j->keep), j->max_keep * sizeof(*j->keep));
	j->buffer = reserve(GATHER_BYTES + page, GATHER_BYTES + page);
	j->cookies = reserve(GATHER_BYTES / page * 8, GATHER_BYTES / page * 8);
	if (!j->stretches || !j->runs || !j->places || !j->mappings || !j->keep || !j->buffer || !j->cookies)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, ENOMEM, "no-memory",
				    "no memory for the tables of process %d: left running", j->plan.proc.pid);
	return 0;
}

static void unmap(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

static void release_all(struct job *j)
{
	size_t page = j->en->page_size;

	unmap(j->stretches, j->stretches_bytes);
	unmap(j->runs, j->runs_bytes);
	unmap(j->places, j->places_bytes);
	unmap(j->mappings, j->max_mappings * sizeof(*j->mappings));
	unmap(j->keep, j->max_keep * sizeof(*j->keep));
	if (j->buffer)
		explicit_bzero(j->buffer, GATHER_BYTES + page);
	unmap(j->buffer, GATHER_BYTES + page);
	unmap(j->cookies, GATHER_BYTES / page * 8);
}

static int open_pack(struct job *j)
{
	struct firn_builder_config config = {
		.page_size = j->en->page_size,
		.cipher = j->en->config.cipher,
		.key = j->en->config.cipher == FIRN_CIPHER_OFF ? NULL : j->en->config.key,
		.workers = WORKERS,
		.ops = { .write = write_pack, .wait = await_write, .run = run_workers, .same = same_page },
		.ctx = j,
	};
	struct firn_builder_pack pack = { .pid = j->t->pid, .start_time = j->t->image->start_time };
	struct timespec ts;
	char boot[64];
	int err;

	/* A block for every sixteen pages, and a partial one for each slice. */
	err = firn_pack_ref_create(j->en, &j->pack,
				   j->max_pages / FIRN_BLOCK_PAGES + j->max_pages / SLICE_PAGES + 16,
				   FIRN_FILLS_MAX / 16, j->e);
	if (err)
		return err;
	err = firn_workers_open(&j->workers, WORKERS);
	if (!err)
		err = firn_lane_open(&j->lane);
	if (!err)
		err = firn_builder_open(&j->builder, &config);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory for a pack's buffers (%s)",
				    strerror(-err));
	clock_gettime(CLOCK_REALTIME, &ts);
	pack.generation = j->pack->file.m->generation;
	pack.created_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	memcpy(pack.comm, j->t->image->comm, sizeof(pack.comm));
	pack.blocks = j->pack->file.blocks;
	pack.blocks_cap = j->pack->file.m->max_blocks;
	pack.fills = j->pack->file.fills;
	pack.fills_cap = j->pack->file.m->max_fills;
	if (firn_sys_read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) > 0) {
		unsigned int n = 0, byte;

		for (char *p = boot; *p && n < 16; p += *p == '-' ? 1 : 2)
			if (*p != '-' && sscanf(p, "%2x", &byte) == 1)
				pack.boot_id[n++] = (uint8_t)byte;
	}
	err = firn_builder_begin(j->builder, &pack);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "builder", "a pack cannot be begun (%s)", strerror(-err));
	return 0;
}

/* Stop to leave.  The target is in the registry, busy, and its image exists. */
static int take(struct job *j)
{
	struct firn_image *image = j->t->image;
	uint64_t start_time;
	uint32_t done = 0;
	int err;

	firn_target_set_state(j->t, FIRN_TARGET_STOPPING);
	j->clock = firn_sys.clock_ns();
	err = firn_stop_all(&j->stop, j->e);
	if (err)
		return err;
	lap(j, FIRN_PHASE_STOP);
	image->was_stopped = j->stop.group_stop;
	firn_point(FIRN_POINT_STOPPED);
	err = firn_proc_start_time(j->t->pid, &start_time);
	if (err || start_time != image->start_time) {
		firn_stop_resume(&j->stop, false);
		return firn_err_set(j->e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do",
				    j->t->pid);
	}
	/* It may have become another user's since the request was looked at. */
	if (firn_engine_may_trace(j->o->uid, j->o->gid, j->t->pid) == -EPERM)
		err = firn_err_set(j->e, FIRN_EXIT_NOT_PERMITTED, EPERM, "not-permitted",
				   "process %d is not yours: run firn as root, or as the process's user", j->t->pid);
	if (!err)
		err = firn_plan_hazards(j->t->pid, j->e);
	if (!err)
		err = check_threads(j);
	if (!err)
		err = firn_inject_open(&j->inject, &j->stop, &image->inject, j->e);
	if (err == -ENOTRECOVERABLE)
		goto out;
	if (err) {
		firn_stop_resume(&j->stop, false);
		return err;
	}
	err = walk(j);
	if (err == -ENOTRECOVERABLE && !j->e->code)
		firn_err_set(j->e, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
			     "process %d could not be put back after an injected call: it is left as it is", j->t->pid);
	else if (err && !j->e->code)
		firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "walk", "process %d: its memory cannot be walked (%s): left running",
			     j->t->pid, strerror(-err));
	if (!err && !j->total_pages)
		err = firn_err_set(j->e, FIRN_EXIT_REFUSED, EINVAL, "nothing",
				   "process %d has no private memory that could be evicted", j->t->pid);
	firn_point(FIRN_POINT_WALKED);
	lap(j, FIRN_PHASE_WALK);
	if (!err)
		err = firn_uffd_enter(j->en, j->t, &j->inject, j->e);
	if (!err) {
		err = firn_pager_add(j->en->pager, &j->t->armed);
		j->t->served = !err;
		if (err)
			firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "pager", "too many targets: thaw some first");
	}
	firn_point(FIRN_POINT_UFFD_OPEN);
	while (!err && done < j->nstretches) {
		struct slice s = next_slice(j, done);

		done = s.last;
		err = evict_slice(j, &s, done == j->nstretches);
	}
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		goto out;
	firn_point(FIRN_POINT_LEAVING);
	j->clock = firn_sys.clock_ns();
	if (err && !j->armed) {
		struct firn_err undo = { 0 };
		int back = firn_disarm(j->t, &j->inject, &undo);

		if (back) {
			*j->e = undo;
			err = back;
			goto out;
		}
	} else {
		int back = firn_inject_close(&j->inject);

		if (back) {
			err = firn_err_set(j->e, FIRN_EXIT_LOST, -back, "wedged",
					   "process %d could not be put back: it is left as it is, its pack is kept", j->t->pid);
			goto out;
		}
	}
	if (!err)
		firn_target_set_state(j->t, j->o->freeze ? FIRN_TARGET_FROZEN : FIRN_TARGET_EVICTED);
	else if (j->armed)
		firn_target_set_state(j->t, FIRN_TARGET_EVICTED);
	firn_stop_resume(&j->stop, !err && j->o->freeze);
	firn_point(FIRN_POINT_LEFT);
	lap(j, FIRN_PHASE_LEAVE);
	return err;
out:
	if (err == -ENOTRECOVERABLE)
		firn_target_set_state(j->t, FIRN_TARGET_WEDGED);
	firn_stop_resume(&j->stop, false);
	return err;
}

static int run(struct job *j)
{
	struct firn_link_shape shape;
	int err;

	err = reserve_all(j);
	if (err)
		return err;
	shape.page_size = j->en->page_size;
	shape.max_links = j->max_pages + j->max_pages * GAP_PAGES;
	shape.max_runs = j->max_stretches + MAP_COUNT_MARGIN;
	err = firn_image_create(j->en, j->t, &j->plan.proc, &shape, j->e);
	if (err)
		return err;
	j->t->image->memory_before = j->plan.proc.rss_anon_bytes;
	/* The links that will be filled are in memory before the target is stopped. */
	madvise((void *)firn_align_down((uintptr_t)j->t->armed.link.links, j->en->page_size),
		firn_align_up(j->max_pages * 4ull, j->en->page_size), 23 /* MADV_POPULATE_WRITE */);
	err = firn_stop_open(&j->stop, j->t->pid, j->plan.proc.threads);
	if (!err)
		err = firn_pagemap_open(&j->pagemap, j->t->pid);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "process %d cannot be prepared (%s)", j->t->pid,
				    strerror(-err));
	err = open_pack(j);
	if (err)
		return err;
	j->t->pack = j->pack;
	j->t->armed.pack = &j->pack->file;
	j->t->image->generation = j->pack->file.m->generation;
	firn_target_insert(j->en, j->t);
	firn_point(FIRN_POINT_PLAN_DONE);
	lap(j, FIRN_PHASE_PLAN);
	return take(j);
}

static void finish(struct job *j, int err)
{
	struct firn_engine *en = j->en;
	struct firn_target *t = j->t;
	struct firn_proc proc;

	firn_builder_close(j->builder);
	firn_lane_close(j->lane);
	firn_workers_close(j->workers);
	firn_pagemap_close(&j->pagemap);
	firn_stop_close(&j->stop);
	release_all(j);
	if (!t->image) {
		firn_target_free(en, t);
		return;
	}
	t->image->ns[FIRN_PHASE_TOTAL] = firn_sys.clock_ns() - j->started;
	if (!firn_proc_read(t->pid, &proc))
		t->image->memory_after = proc.rss_anon_bytes;
	firn_target_fill_report(t, j->report);
	if (!t->pack) {
		/* Not in the registry yet. */
		if (j->pack)
			firn_pack_unref(j->pack);
		firn_sys.unlink(t->image_path);
		firn_target_free(en, t);
	} else if (!err || t->image->state == FIRN_TARGET_WEDGED) {
		firn_target_release(en, t);
	} else if (err == -ESRCH || !j->armed) {
		firn_target_forget(en, t);
	} else {
		/* A later slice failed: what earlier ones took comes back, so that nothing changed. */
		struct firn_report thawed;
		struct firn_err cause = j->report->err;

		memset(&thawed, 0, sizeof(thawed));
		firn_thaw_target(en, t, j->o, &thawed);
		j->report->err = cause;
		j->report->state = thawed.state;
	}
}

int firn_engine_evict(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o,
		      struct firn_report *ret)
{
	struct job *j;
	struct firn_target *known;
	int err;

	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	j = calloc(1, sizeof(*j));
	if (!j)
		return firn_err_set(&ret->err, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
	j->en = en;
	j->o = o;
	j->report = ret;
	j->e = &ret->err;
	j->pagemap.fd = -1;
	j->started = j->clock = firn_sys.clock_ns();
	ret->err.pid = pid;

	pthread_mutex_lock(&en->builder_lock);
	known = firn_target_take(en, pid, 0);
	if (known) {
		enum firn_target_state s = (enum firn_target_state)known->image->state;

		firn_target_fill_report(known, ret);
		firn_target_release(en, known);
		err = firn_err_set(&ret->err, FIRN_EXIT_REFUSED, EALREADY, "already",
				   "process %d is already %s: thaw it first, or leave it so", pid,
				   firn_target_state_name(s));
		goto out;
	}
	err = firn_store_check(en->config.store_dir, &ret->err);
	if (!err)
		err = firn_plan_make(en, pid, o, &j->plan, &ret->err);
	if (err || o->dry_run) {
		memcpy(ret->comm, j->plan.proc.comm, sizeof(ret->comm));
		ret->start_time = j->plan.proc.start_time;
		ret->memory_before = j->plan.proc.rss_anon_bytes;
		ret->pages = j->plan.pages;
		goto out;
	}
	j->t = firn_target_new();
	if (!j->t) {
		err = firn_err_set(&ret->err, FIRN_EXIT_FAILED, ENOMEM, "no-memory", "no memory to begin");
		goto out;
	}
	j->t->pid = pid;
	j->t->busy = true;
	j->t->pidfd = (int)firn_sys.pidfd_open(pid, 0);
	if (j->t->pidfd < 0)
		err = firn_err_set(&ret->err, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	else
		err = run(j);
	finish(j, err);
out:
	pthread_mutex_unlock(&en->builder_lock);
	free(j);
	return err;
}
