/* SPDX-License-Identifier: MIT */
/*
 * Plan: may this process be evicted?  Everything that can be foreseen is refused here, with a reason,
 * before anything is touched.
 */
#include "engine/internal.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/sys.h"

static int refuse(struct firn_err *e, pid_t pid, const char *reason, const char *why)
{
	return firn_err_set(e, FIRN_EXIT_REFUSED, EINVAL, reason, "process %d %s", pid, why);
}

int firn_engine_may_trace(uid_t uid, gid_t gid, pid_t pid)
{
	struct firn_proc p;
	char path[64], buf[16];
	struct stat st;
	int err;

	err = firn_proc_read(pid, &p);
	if (err)
		return -ESRCH;
	if (uid == 0)
		return 0;
	for (int i = 0; i < 3; i++)
		if (p.uids[i] != uid || p.gids[i] != gid)
			return -EPERM;
	/* What /proc holds of a process that is not dumpable belongs to root, all but the directory. */
	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	if (stat(path, &st) || st.st_uid != uid)
		return -EPERM;
	/* Yama: only descendants, which a request by another process is not. */
	if (firn_sys_read_file("/proc/sys/kernel/yama/ptrace_scope", buf, sizeof(buf)) > 0 && buf[0] != '0')
		return -EPERM;
	return 0;
}

int firn_plan_refuse_uffd(pid_t pid, struct firn_err *e)
{
	return refuse(e, pid, "uffd", "uses userfaultfd itself: it cannot be frozen");
}

struct scan {
	pid_t pid;
	const char *found;
	bool uffd;
};

/* Descriptors whose kernel objects reach into the process's memory behind its page tables. */
static int look_at_fd(void *arg, long fd)
{
	static const char *const pinning[][2] = {
		{ "/dev/vfio", "a vfio device" },      { "/dev/nvidia", "a GPU" },
		{ "/dev/dri", "a GPU" },               { "/dev/kfd", "a GPU" },
		{ "/dev/infiniband", "an RDMA device" }, { "/dev/kvm", "virtual machines" },
		{ "anon_inode:[io_uring]", "io_uring" },
	};
	struct scan *s = arg;
	char path[64], link[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%ld", s->pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0)
		return 0;
	link[n] = 0;
	if (!strcmp(link, "anon_inode:[userfaultfd]"))
		s->uffd = true;
	for (size_t i = 0; i < ARRAY_SIZE(pinning); i++)
		if (!strncmp(link, pinning[i][0], strlen(pinning[i][0])))
			s->found = pinning[i][1];
	return 0;
}

struct partner {
	pid_t pid;
	pid_t found;
	bool unknown;                   /* this kernel cannot compare */
};

static int look_at_process(void *arg, long number)
{
	struct partner *p = arg;
	pid_t other = (pid_t)number;

	long r = other == p->pid ? 1 : syscall(SYS_kcmp, p->pid, other, KCMP_VM, 0, 0);

	if (r == 0)
		p->found = other;
	else if (r < 0 && errno == ENOSYS)
		p->unknown = true;
	return 0;
}

static bool is_our_program(pid_t pid)
{
	struct stat own, other;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return !stat("/proc/self/exe", &own) && !stat(path, &other) && own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

static bool is_ancestor(pid_t pid, pid_t of)
{
	for (int depth = 0; of > 1 && depth < 256; depth++) {
		if (of == pid)
			return true;
		if (firn_proc_parent(of, &of))
			return false;
	}
	return false;
}

/* By how much the kernel's count of a process's pages may be wrong: each processor keeps some to itself, and before Linux 6.2
 * each thread. */
static uint64_t count_error(unsigned int threads)
{
	uint64_t n = (uint64_t)sysconf(_SC_NPROCESSORS_CONF);

	return firn_max_u64(n * firn_max_u64(32, 2 * n), 64ull * threads);
}

/*
 * @exactly: count the pages that may go, for which the kernel walks all page tables.  If not, a bound is found, and
 * what only that walk tells is seen by the one that follows when the target is stopped (firn_walk).
 */
static int look_at_mappings(pid_t pid, bool exactly, struct firn_plan *plan, struct firn_err *e)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct firn_vmas v;
	struct firn_vma m;
	int r = firn_vmas_open(&v, pid, exactly), err = 0;

	if (r)
		return firn_err_set(e, FIRN_EXIT_FAILED, -r, "maps", "process %d: its mappings cannot be read: %s", pid,
				    strerror(-r));
	while (!err && (r = firn_vmas_next(&v, &m)) > 0) {
		plan->vmas++;
		if (m.uffd)
			err = firn_plan_refuse_uffd(pid, e);
		else if (m.aio)
			err = refuse(e, pid, "aio", "has asynchronous I/O set up (io_setup): the kernel may write to its memory");
		else if (m.why == FIRN_VMA_OK)
			plan->pages += (exactly ? m.anon_bytes : m.end - m.start) / page;
	}
	firn_vmas_close(&v);
	if (!exactly)
		plan->pages = firn_min_u64(plan->pages, plan->proc.rss_anon_bytes / page + count_error(plan->proc.threads));
	if (!err && r < 0)
		err = firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	return err;
}

int firn_plan_hazards(pid_t pid, struct firn_err *e)
{
	struct partner partner = { pid, 0, false };
	struct scan scan = { pid, NULL, false };
	struct firn_proc p;
	char path[64];

	if (firn_proc_read(pid, &p))
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	if (p.vm_pin_bytes)
		return refuse(e, pid, "pinned", "has memory pinned for devices (VmPin): it cannot be moved");
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	firn_sys_each_number(path, look_at_fd, &scan);
	if (scan.uffd)
		return firn_plan_refuse_uffd(pid, e);
	if (scan.found)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EINVAL, "device",
				    "process %d uses %s, which may reach into its memory: it cannot be frozen", pid, scan.found);
	firn_sys_each_number("/proc", look_at_process, &partner);
	if (partner.unknown)
		return firn_err_set(e, FIRN_EXIT_KERNEL, ENOSYS, "kcmp",
				    "this kernel cannot tell whether process %d shares its memory (CONFIG_KCMP): it cannot be frozen safely",
				    pid);
	if (partner.found)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EINVAL, "shared-memory-space",
				    "process %d shares its whole memory with process %d (vfork or CLONE_VM): wait until that ends",
				    pid, partner.found);
	return 0;
}

int firn_plan_make(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o, bool exactly,
		   struct firn_plan *ret, struct firn_err *e)
{
	struct firn_proc *p = &ret->proc;
	int err;

	memset(ret, 0, sizeof(*ret));
	err = firn_proc_read(pid, p);
	if (err)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "no-such-process",
				    "there is no process %d: look up the pid, e.g. with pgrep", pid);
	if (p->tgid != pid)
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "thread",
				    "%d is a thread: give its process %d", pid, p->tgid);
	if (pid == 1)
		return refuse(e, pid, "init", "is init: it is never frozen");
	if (p->kernel_thread)
		return refuse(e, pid, "kernel-thread", "is a kernel thread: it has no memory of its own");
	if (pid == getpid())
		return refuse(e, pid, "agent", "is the agent itself: it is never frozen");
	if (pid == en->config.keeper)
		return refuse(e, pid, "keeper", "is the agent's keeper: it is never frozen");
	/* That of another runtime directory, too: its targets wait for it. */
	if (is_our_program(pid))
		return refuse(e, pid, "agent", "is an agent, or a keeper: it is never frozen");
	if (p->state == 'Z' || p->state == 'X')
		return refuse(e, pid, "zombie", "is a zombie: it has no memory left, its parent has to wait for it");
	if (p->tracer)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EBUSY, "traced",
				    "process %d is traced by process %d: end the debugger or tracer first", pid, p->tracer);
	if (o->client && is_ancestor(pid, o->client))
		return refuse(e, pid, "own-shell", "runs this very command: freeze it from another terminal");
	if (p->shadow_stack)
		return refuse(e, pid, "shadow-stack", "uses a shadow stack: this version cannot inject into it");
	err = firn_plan_hazards(pid, e);
	if (err)
		return err;
	err = look_at_mappings(pid, exactly, ret, e);
	if (err)
		return err;
	if (!ret->pages)
		return refuse(e, pid, "nothing", "has no private memory that could be evicted");
	return 0;
}
