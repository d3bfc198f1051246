/* SPDX-License-Identifier: MIT */
#include "procmem/inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "procmem/proc.h"
#include "sys/sys.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#define SYSCALL_STOP (SIGTRAP | 0x80)
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* The journal must be in memory before the step it announces. */
static void set_phase(struct firn_inject_journal *j, enum firn_inject_phase phase)
{
	atomic_thread_fence(memory_order_seq_cst);
	__atomic_store_n(&j->phase, (uint32_t)phase, __ATOMIC_SEQ_CST);
}

/* By which thread the target's memory is reached: its main thread may have exited. */
static pid_t handle(const struct firn_stop *stop)
{
	return stop->threads[0].tid;
}

static int get_mask(pid_t tid, uint64_t *mask)
{
	return (int)firn_sys.ptrace(PTRACE_GETSIGMASK, tid, (void *)8, mask);
}

static int set_mask(pid_t tid, uint64_t mask)
{
	return (int)firn_sys.ptrace(PTRACE_SETSIGMASK, tid, (void *)8, &mask);
}

static int poke(pid_t tid, uint64_t address, const unsigned char *code, size_t len)
{
	for (size_t o = 0; o < len; o += 8) {
		uint64_t word;
		long r;

		memcpy(&word, code + o, 8);
		r = firn_sys.ptrace(PTRACE_POKEDATA, tid, (void *)(uintptr_t)(address + o),
				    (void *)(uintptr_t)word);
		if (r < 0)
			return (int)r;
	}
	return 0;
}

/* The last bytes of @vma, when they are zero, that is, not code. */
static bool cave_in(pid_t pid, const struct firn_vma *vma, uint64_t *ret)
{
	unsigned char tail[FIRN_CAVE_BYTES];
	uint64_t at = vma->end - FIRN_CAVE_BYTES;

	if (firn_proc_peek(pid, at, tail, sizeof(tail)))
		return false;
	for (size_t i = 0; i < sizeof(tail); i++)
		if (tail[i])
			return false;
	*ret = at;
	return true;
}

/* Where the code and the scratch mapping go. */
static int find_places(pid_t pid, uint64_t *cave, uint64_t *scratch)
{
	const uint64_t margin = 16 * FIRN_SCRATCH_BYTES;
	struct firn_vma vma;
	struct firn_vmas v;
	uint64_t last_end = 65536, candidate = 0;
	int r;

	*cave = *scratch = 0;
	r = firn_vmas_open(&v, pid, false);
	if (r)
		return r;
	while ((r = firn_vmas_next(&v, &vma)) > 0) {
		/* A hole that is wide on both sides; not below a stack, which grows into it. */
		if (!*scratch && !vma.grows_down && vma.start > last_end + 2 * margin + FIRN_SCRATCH_BYTES)
			*scratch = vma.start - margin;
		last_end = vma.end;
		if (vma.vdso && cave_in(pid, &vma, cave))
			continue;
		if (vma.exec_file && !candidate && !vma.vdso)
			cave_in(pid, &vma, &candidate);
	}
	firn_vmas_close(&v);
	if (r < 0)
		return r;
	if (!*cave)
		*cave = candidate;
	return *cave && *scratch ? 0 : -ENOSPC;
}

/* Continue @tid with @request until the stop that it leads to.  Stop signals that arrive meanwhile are
 * put off to the end. */
static int run_to(struct firn_inject *i, pid_t tid, int request, bool syscall_stop)
{
	for (int tries = 0; tries < 64; tries++) {
		long status;

		if (firn_sys.ptrace(request, tid, NULL, NULL) < 0)
			return -ESRCH;
		status = firn_stop_wait(tid, 0);
		if (status < 0)
			return -ESRCH;
		if (status >> 16 == PTRACE_EVENT_STOP) {
			if (WSTOPSIG(status) != SIGTRAP)
				i->stop->group_stop = true;
			if (!syscall_stop)
				return 0;
			continue;
		}
		if (WSTOPSIG(status) == SYSCALL_STOP) {
			if (syscall_stop)
				return 0;
			continue;
		}
		if (WSTOPSIG(status) == SIGSTOP)
			i->stop->stop_wanted = true;
		else
			return -ENOTRECOVERABLE;   /* a fault of our own code */
	}
	return -ENOTRECOVERABLE;
}

/* From any ptrace stop to the event stop, where registers with restart semantics may be put back. */
static int to_event_stop(struct firn_inject *i, pid_t tid)
{
	firn_sys.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	return run_to(i, tid, PTRACE_CONT, false);
}

static int run_call(struct firn_inject *i, const struct firn_call *call, long *ret)
{
	struct firn_regs regs;
	int err;

	err = run_to(i, i->tid, PTRACE_SYSCALL, true);
	if (err)
		return err;
	firn_point(call->entry);
	err = run_to(i, i->tid, PTRACE_SYSCALL, true);
	if (err)
		return err;
	firn_point(call->exit);
	if (firn_arch_get_regs(i->tid, &regs))
		return -ESRCH;
	*ret = firn_arch_result(&regs);
	return 0;
}

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

/*
 * A thread that is led elsewhere loses its restartable sequence: the kernel forgets it without a word.
 * So it is put where the kernel would put it after a preemption, at the sequence's abort.
 */
static void abort_sequence(pid_t pid, pid_t tid, struct firn_regs *regs)
{
	struct {
		uint64_t pointer;
		uint32_t size, signature, flags, pad;
	} rseq = { 0 };
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} cs;
	uint64_t at = 0;

	if (firn_sys.ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, (void *)sizeof(rseq), &rseq) <= 0 || !rseq.pointer ||
	    firn_proc_peek(pid, rseq.pointer + 8, &at, sizeof(at)) || !at ||
	    firn_proc_peek(pid, at, &cs, sizeof(cs)))
		return;
	if (firn_arch_pc(regs) - cs.start < cs.length)
		firn_arch_set_pc(regs, cs.abort);
}

/* One call from the parking stub, and the thread back at its event stop with its own registers. */
static int parked_call(struct firn_inject *i, const struct firn_call *call, enum firn_inject_phase after,
		       long *ret)
{
	struct firn_inject_journal *j = i->j;
	struct firn_regs regs;
	int err;

	if (firn_arch_get_regs(i->tid, &j->regs) || get_mask(i->tid, &j->sigmask) < 0)
		return -ESRCH;
	abort_sequence(handle(i->stop), i->tid, &j->regs);
	j->tid = i->tid;
	set_phase(j, FIRN_INJECT_PARKED);
	regs = j->regs;
	firn_arch_prepare_call(&regs, j->cave + FIRN_CAVE_PARK, firn_arch_sp(&regs), call->nr, call->args);
	if (firn_arch_set_regs(i->tid, &regs))
		return -ESRCH;
	firn_point(FIRN_POINT_PARK_REGS);
	if (set_mask(i->tid, ~0ull) < 0)
		return -ESRCH;
	firn_point(FIRN_POINT_PARK_MASK);
	err = run_call(i, call, ret);
	if (!err)
		err = to_event_stop(i, i->tid);
	if (err)
		return err;
	if (set_mask(i->tid, j->sigmask) < 0)
		return -ESRCH;
	firn_point(FIRN_POINT_UNPARK_MASK);
	if (firn_arch_set_regs(i->tid, &j->regs))
		return -ESRCH;
	firn_point(FIRN_POINT_UNPARK_REGS);
	set_phase(j, after);
	return 0;
}

static int fill_cave(struct firn_inject *i)
{
	i->j->tid = i->tid;
	set_phase(i->j, FIRN_INJECT_CAVE);
	return poke(i->tid, i->j->cave, firn_arch_cave_code, FIRN_CAVE_BYTES);
}

static int empty_cave(struct firn_inject *i)
{
	static const unsigned char zero[FIRN_CAVE_BYTES];
	int err = poke(i->tid, i->j->cave, zero, FIRN_CAVE_BYTES);

	if (!err)
		set_phase(i->j, FIRN_INJECT_NONE);
	return err;
}

static int wedged(struct firn_inject *i, int err, struct firn_err *e)
{
	if (err == -ESRCH)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do",
				    i->stop->pid);
	return firn_err_set(e, FIRN_EXIT_LOST, ENOTRECOVERABLE, "wedged",
			    "process %d could not be put back after an injected call: it is left as it is, its pack is kept",
			    i->stop->pid);
}

int firn_inject_open(struct firn_inject *i, struct firn_stop *stop, struct firn_inject_journal *j,
		     struct firn_err *e)
{
	struct firn_call mmap_call = {
		SYS_mmap,
		{ 0, FIRN_SCRATCH_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, (uint64_t)-1, 0 },
		FIRN_POINT_MMAP_ENTRY, FIRN_POINT_MMAP_EXIT,
	};
	long r;
	int err;

	i->stop = stop;
	i->j = j;
	i->called = false;
	i->tid = stop->threads[0].tid;
	err = find_places(handle(stop), &j->cave, &j->scratch);
	if (err)
		return firn_err_set(e, FIRN_EXIT_REFUSED, -err, "no-cave",
				    "process %d has no room for the injected code: it cannot be frozen", stop->pid);
	err = fill_cave(i);
	firn_point(FIRN_POINT_CAVE);
	if (err) {
		empty_cave(i);
		return firn_err_set(e, FIRN_EXIT_REFUSED, -err, "poke",
				    "process %d: its code cannot be written by ptrace (%s): it cannot be frozen",
				    stop->pid, strerror(-err));
	}
	mmap_call.args[0] = j->scratch;
	j->closing = 0;
	err = parked_call(i, &mmap_call, FIRN_INJECT_SCRATCH, &r);
	if (err)
		return wedged(i, err, e);
	if (r != (long)j->scratch) {
		int back;

		set_phase(j, FIRN_INJECT_CAVE);
		back = empty_cave(i);
		if (back)
			return wedged(i, back, e);
		return firn_err_set(e, FIRN_EXIT_REFUSED, r < 0 ? (int)-r : EEXIST, "no-scratch",
				    "process %d cannot map 64 KiB more (its address space or mapping limit): raise the limit",
				    stop->pid);
	}
	firn_point(FIRN_POINT_SCRATCH);
	return 0;
}

int firn_inject_write(struct firn_inject *i, uint32_t offset, const void *buf, size_t len)
{
	struct iovec local = { (void *)buf, len };
	struct iovec remote = { (void *)(uintptr_t)(i->j->scratch + offset), len };
	long n = firn_sys.process_vm_writev(handle(i->stop), &local, 1, &remote, 1);

	return n == (long)len ? 0 : n < 0 ? (int)n : -EFAULT;
}

int firn_inject_read(struct firn_inject *i, uint32_t offset, void *buf, size_t len)
{
	struct iovec local = { buf, len };
	struct iovec remote = { (void *)(uintptr_t)(i->j->scratch + offset), len };
	long n = firn_sys.process_vm_readv(handle(i->stop), &local, 1, &remote, 1);

	return n == (long)len ? 0 : n < 0 ? (int)n : -EFAULT;
}

int firn_inject_begin(struct firn_inject *i, pid_t tid)
{
	long used;

	if (firn_arch_get_regs(tid, &i->saved) || get_mask(tid, &i->saved_mask) < 0)
		return -ESRCH;
	abort_sequence(handle(i->stop), tid, &i->saved);
	used = firn_arch_build_frame(tid, &i->saved, i->saved_mask, i->frame, sizeof(i->frame),
				     i->j->scratch + FIRN_SCRATCH_FRAME, &i->frame_sp);
	if (used < 0)
		return (int)used;
	i->tid = tid;
	i->called = false;
	i->j->tid = tid;
	return firn_inject_write(i, FIRN_SCRATCH_FRAME, i->frame, (size_t)used);
}

int firn_inject_call(struct firn_inject *i, const struct firn_call *call, long *ret)
{
	struct firn_regs regs = i->saved;

	firn_arch_prepare_call(&regs, i->j->cave, i->frame_sp, call->nr, call->args);
	if (firn_arch_set_regs(i->tid, &regs))
		return -ESRCH;
	if (!i->called) {
		firn_point(FIRN_POINT_CALL_REGS);
		/* After the registers: a thread left with every signal blocked would stay so, were it not
		 * already on its way through the frame, which holds its own mask. */
		if (set_mask(i->tid, ~0ull) < 0)
			return -ESRCH;
		firn_point(FIRN_POINT_CALL_MASK);
		i->called = true;
	}
	return run_call(i, call, ret);
}

int firn_inject_end(struct firn_inject *i)
{
	int err;

	if (!i->called)
		return 0;
	err = to_event_stop(i, i->tid);
	if (err)
		return err;
	if (set_mask(i->tid, i->saved_mask) < 0)
		return -ESRCH;
	firn_point(FIRN_POINT_END_MASK);
	if (firn_arch_set_regs(i->tid, &i->saved))
		return -ESRCH;
	firn_point(FIRN_POINT_END_REGS);
	i->called = false;
	return 0;
}

int firn_inject_close(struct firn_inject *i)
{
	struct firn_call munmap_call = {
		SYS_munmap, { i->j->scratch, FIRN_SCRATCH_BYTES, 0, 0, 0, 0 },
		FIRN_POINT_MUNMAP_ENTRY, FIRN_POINT_MUNMAP_EXIT,
	};
	long r;
	int err = firn_inject_end(i);

	if (err)
		return err;
	i->j->closing = 1;
	err = parked_call(i, &munmap_call, FIRN_INJECT_CAVE, &r);
	if (err)
		return err;
	return empty_cave(i);
}

/* Let threads that are on their way through the trampoline finish it. */
static int leave_trampoline(struct firn_inject *i, struct firn_err *e)
{
	for (int tries = 0; tries < 1000; tries++) {
		struct firn_stop *stop = i->stop;
		bool inside = false;
		int err;

		for (unsigned int n = 0; n < stop->nthreads; n++) {
			struct firn_regs regs;

			if (!firn_arch_get_regs(stop->threads[n].tid, &regs) &&
			    firn_arch_pc(&regs) - i->j->cave < FIRN_CAVE_PARK)
				inside = true;
		}
		if (!inside)
			return 0;
		firn_stop_resume(stop, false);
		firn_sys.sleep_ns(1000000);
		err = firn_stop_all(stop, e);
		if (err)
			return err;
	}
	return -ENOTRECOVERABLE;
}

static struct firn_thread *find_thread(struct firn_stop *stop, pid_t tid)
{
	for (unsigned int n = 0; n < stop->nthreads; n++)
		if (stop->threads[n].tid == tid)
			return &stop->threads[n];
	return NULL;
}

static bool mapped(pid_t pid, uint64_t start, uint64_t len)
{
	struct firn_vma vma;
	struct firn_vmas v;
	bool found = false;

	if (firn_vmas_open(&v, pid, false))
		return false;
	while (!found && firn_vmas_next(&v, &vma) > 0)
		found = vma.start == start && vma.end == start + len;
	firn_vmas_close(&v);
	return found;
}

int firn_inject_take_over(struct firn_inject *i, struct firn_stop *stop, struct firn_inject_journal *j,
			  struct firn_err *e)
{
	struct firn_thread *t;
	struct firn_regs regs;
	int err = 0;

	i->stop = stop;
	i->j = j;
	i->called = false;
	if (j->phase == FIRN_INJECT_SCRATCH) {
		err = leave_trampoline(i, e);
		if (err)
			return wedged(i, err, e);
	}
	i->tid = stop->threads[0].tid;
	if (j->phase == FIRN_INJECT_PARKED) {
		/* The thread is in the stub, or it never got there, or it has already left. */
		t = find_thread(stop, j->tid);
		if (t && !firn_arch_get_regs(t->tid, &regs)) {
			uint64_t pc = firn_arch_pc(&regs) - (j->cave + FIRN_CAVE_PARK);

			if (pc < FIRN_CAVE_BYTES - FIRN_CAVE_PARK) {
				set_mask(t->tid, j->sigmask);
				if (firn_arch_set_regs(t->tid, &j->regs))
					return wedged(i, -ESRCH, e);
			}
		}
		set_phase(j, mapped(handle(stop), j->scratch, FIRN_SCRATCH_BYTES) ? FIRN_INJECT_SCRATCH :
										 FIRN_INJECT_CAVE);
	}
	if (j->phase == FIRN_INJECT_SCRATCH && mapped(handle(stop), j->scratch, FIRN_SCRATCH_BYTES))
		return 1;
	if (j->phase != FIRN_INJECT_NONE)
		err = empty_cave(i);
	return err ? wedged(i, err, e) : 0;
}
