/* SPDX-License-Identifier: MIT */
#include "procmem/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define PF_KTHREAD 0x00200000u

/* PAGEMAP_SCAN (Linux 6.7): declared here because Debian 12's headers are older. */
#define PAGE_IS_FILE (1ull << 2)
#define PAGE_IS_PRESENT (1ull << 3)
#define PAGE_IS_PFNZERO (1ull << 5)
#define PAGE_IS_HUGE (1ull << 6)
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_IOCTL 0xc0606610ul   /* _IOWR('f', 16, struct pm_scan_arg) */

static int parse_stat(pid_t pid, struct firn_proc *p)
{
	char path[64], buf[2048], *s, *save;
	unsigned long long f[53] = { 0 };
	int n = 3;
	long len;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	len = firn_sys_read_file(path, buf, sizeof(buf));
	if (len <= 0)
		return -ESRCH;
	s = strrchr(buf, ')');
	if (!s || s[1] != ' ')
		return -EBADMSG;
	p->state = s[2];
	for (s = strtok_r(s + 3, " \n", &save); s && n < 52; s = strtok_r(NULL, " \n", &save))
		f[++n] = strtoull(s, NULL, 10);
	if (n < 52)
		return -EBADMSG;
	p->ppid = (pid_t)f[4];
	p->kernel_thread = f[9] & PF_KTHREAD;
	p->threads = (unsigned int)f[20];
	p->start_time = f[22];
	for (int i = 0; i < 4; i++)
		p->args[i] = f[48 + i];
	return 0;
}

int firn_proc_identity(pid_t pid, struct firn_proc *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	return parse_stat(pid, ret) ? -ESRCH : 0;
}

int firn_proc_start_time(pid_t pid, uint64_t *ret)
{
	struct firn_proc p;
	int err = parse_stat(pid, &p);

	if (err)
		return -ESRCH;
	*ret = p.start_time;
	return 0;
}

int firn_proc_parent(pid_t pid, pid_t *ret)
{
	struct firn_proc p;

	if (parse_stat(pid, &p))
		return -ESRCH;
	*ret = p.ppid;
	return 0;
}

static void three(const char *s, uint32_t out[3])
{
	unsigned int a = 0, b = 0, c = 0;

	if (sscanf(s, "%u %u %u", &a, &b, &c) == 3) {
		out[0] = a;
		out[1] = b;
		out[2] = c;
	}
}

int firn_proc_read(pid_t pid, struct firn_proc *ret)
{
	struct firn_lines l;
	char path[64], *line;
	int err;

	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	err = parse_stat(pid, ret);
	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (firn_lines_open(&l, path))
		return -ESRCH;
	while ((err = firn_lines_next(&l, &line)) > 0) {
		char *colon = strchr(line, ':');
		const char *v;

		if (!colon)
			continue;
		*colon = 0;
		v = colon + 1;
		if (!strcmp(line, "Name"))
			snprintf(ret->comm, sizeof(ret->comm), "%s", v + strspn(v, "\t "));
		else if (!strcmp(line, "Tgid"))
			ret->tgid = atoi(v);
		else if (!strcmp(line, "TracerPid"))
			ret->tracer = atoi(v);
		else if (!strcmp(line, "Uid"))
			three(v, ret->uids);
		else if (!strcmp(line, "Gid"))
			three(v, ret->gids);
		else if (!strcmp(line, "VmPin"))
			ret->vm_pin_bytes = strtoull(v, NULL, 10) * 1024;
		else if (!strcmp(line, "RssAnon"))
			ret->rss_anon_bytes = strtoull(v, NULL, 10) * 1024;
		else if (!strcmp(line, "x86_Thread_features"))
			ret->shadow_stack = strstr(v, "shstk") != NULL;
	}
	firn_lines_close(&l);
	return err < 0 ? -ESRCH : 0;
}

static int first_live(void *arg, long number)
{
	struct firn_proc p;

	if (parse_stat((pid_t)number, &p) || p.state == 'Z' || p.state == 'X')
		return 0;
	*(pid_t *)arg = (pid_t)number;
	return 1;
}

pid_t firn_proc_live_thread(pid_t pid)
{
	pid_t live = pid;
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d/task", pid);
	firn_sys_each_number(dir, first_live, &live);
	return live;
}

int firn_proc_seccomp(pid_t pid, pid_t tid)
{
	char path[64], buf[4096], *p;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return -ESRCH;
	p = strstr(buf, "\nSeccomp:");
	return p ? atoi(p + 9) : 0;
}

/* VmFlags that an evictable mapping may have; any other keeps it out. */
static bool flag_allowed(const char *f)
{
	static const char allowed[] = "rd wr ex mr mw me ac nr sd hg nh dd wf dc ";
	char key[4] = { f[0], f[1], ' ', 0 };

	return strstr(allowed, key) != NULL;
}

static void judge_flags(struct firn_vma *v, char *flags)
{
	char *save;

	for (char *f = strtok_r(flags, " ", &save); f; f = strtok_r(NULL, " ", &save)) {
		if (!strcmp(f, "um") || !strcmp(f, "uw"))
			v->uffd = true;
		if (!strcmp(f, "wf"))
			v->wipe_on_fork = true;
		if (!strcmp(f, "dc"))
			v->dont_fork = true;
		if (!strcmp(f, "gd"))
			v->grows_down = true;
		if (!flag_allowed(f) && v->why == FIRN_VMA_OK)
			v->why = FIRN_VMA_FLAG;
	}
}

static bool parse_header(const char *line, struct firn_vma *v)
{
	unsigned long long start, end, offset, inode;
	unsigned int major, minor;
	char perms[5];
	int at = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, perms, &offset, &major, &minor,
		   &inode, &at) < 7)
		return false;
	memset(v, 0, sizeof(*v));
	v->start = start;
	v->end = end;
	snprintf(v->name, sizeof(v->name), "%s", at ? line + at : "");
	v->vdso = !strcmp(v->name, "[vdso]");
	v->aio = strstr(v->name, "[aio]") != NULL;
	v->grows_down = !strcmp(v->name, "[stack]");
	v->readable = perms[0] == 'r';
	v->exec_file = perms[2] == 'x' && perms[3] == 'p' && (inode || v->vdso);
	if (perms[3] != 'p')
		v->why = FIRN_VMA_SHARED;
	else if (inode || v->aio ||
		 (v->name[0] && strcmp(v->name, "[heap]") && strcmp(v->name, "[stack]") &&
		  strncmp(v->name, "[anon:", 6)))
		v->why = FIRN_VMA_NOT_ANON;
	else if (v->grows_down)
		v->why = FIRN_VMA_FLAG;
	return true;
}

int firn_vmas_open(struct firn_vmas *v, pid_t pid, bool flags)
{
	char path[64];

	v->smaps = flags;
	v->have_next = false;
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, flags ? "smaps" : "maps");
	return firn_lines_open(&v->lines, path);
}

int firn_vmas_next(struct firn_vmas *v, struct firn_vma *ret)
{
	bool have = v->have_next;
	char *line;
	int r;

	if (have)
		*ret = v->next;
	v->have_next = false;
	while ((r = firn_lines_next(&v->lines, &line)) > 0) {
		struct firn_vma header;

		if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) {
			if (!parse_header(line, &header))
				return -EBADMSG;
			if (!v->smaps) {
				*ret = header;
				return 1;
			}
			if (have) {
				v->next = header;
				v->have_next = true;
				return 1;
			}
			*ret = header;
			have = true;
		} else if (have && !strncmp(line, "Anonymous:", 10)) {
			ret->anon_bytes = strtoull(line + 10, NULL, 10) * 1024;
		} else if (have && !strncmp(line, "AnonHugePages:", 14)) {
			ret->huge_bytes = strtoull(line + 14, NULL, 10) * 1024;
		} else if (have && !strncmp(line, "VmFlags:", 8)) {
			judge_flags(ret, line + 8);
		}
	}
	if (r < 0)
		return r;
	return have ? 1 : 0;
}

void firn_vmas_close(struct firn_vmas *v)
{
	firn_lines_close(&v->lines);
}

int firn_pagemap_open(struct firn_pagemap *pm, pid_t pid)
{
	char path[64];
	long fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = firn_sys.open(path, O_RDONLY, 0);
	pm->fd = (int)fd;
	pm->scan = true;
	return fd < 0 ? (int)fd : 0;
}

void firn_pagemap_close(struct firn_pagemap *pm)
{
	if (pm->fd >= 0)
		close(pm->fd);
	pm->fd = -1;
}

int firn_pagemap_read(struct firn_pagemap *pm, uint64_t address, uint64_t *words, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), done = 0;

	while (done < n * 8) {
		long r = firn_sys.pread(pm->fd, (char *)words + done, n * 8 - done, address / page * 8 + done);

		if (r <= 0)
			return r ? (int)r : -EIO;
		done += (size_t)r;
	}
	return 0;
}

static bool candidate(uint64_t word)
{
	return (word & FIRN_PM_PRESENT) && !(word & FIRN_PM_FILE);
}

/* Kernels before 6.7: read the words, a hole costs as much as a page. */
static int next_by_reading(struct firn_pagemap *pm, struct firn_range span, uint64_t from, struct firn_range *ret)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), words[512];
	bool open = false;

	for (uint64_t a = from; a < span.end;) {
		size_t n = (size_t)firn_min_u64((span.end - a) / page, 512);
		int err = firn_pagemap_read(pm, a, words, n);

		if (err)
			return err;
		for (size_t i = 0; i < n; i++, a += page) {
			if (candidate(words[i]) == open)
				continue;
			if (open) {
				ret->end = a;
				return 1;
			}
			ret->start = a;
			open = true;
		}
	}
	ret->end = span.end;
	return open;
}

/* The next range from @from on whose pages have all categories of @mask, those of @inverted as their opposite.  Returns
 * 1, 0 there is none, -EOPNOTSUPP the kernel does not scan (or not for these), another errno. */
static int next_by_scan(struct firn_pagemap *pm, struct firn_range span, uint64_t from, uint64_t mask, uint64_t inverted,
			struct firn_range *ret)
{
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = from,
		.end = span.end,
		.vec = (uint64_t)(uintptr_t)&region,
		.vec_len = 1,
		.category_inverted = inverted,
		.category_mask = mask,
		.return_mask = mask & ~inverted,
	};
	long r = from < span.end ? firn_sys.ioctl(pm->fd, PAGEMAP_SCAN_IOCTL, &arg) : 0;

	if (r <= 0)
		return r == -ENOTTY || r == -EINVAL ? -EOPNOTSUPP : (int)r;
	ret->start = region.start;
	ret->end = region.end;
	return 1;
}

int firn_pagemap_next(struct firn_pagemap *pm, struct firn_range span, uint64_t from, struct firn_range *ret)
{
	const uint64_t not = PAGE_IS_FILE | PAGE_IS_PFNZERO;
	int r = pm->scan ? next_by_scan(pm, span, from, PAGE_IS_PRESENT | not, not, ret) : -EOPNOTSUPP;

	if (r != -EOPNOTSUPP)
		return r;
	pm->scan = false;
	return from < span.end ? next_by_reading(pm, span, from, ret) : 0;
}

int firn_pagemap_next_huge(struct firn_pagemap *pm, struct firn_range span, uint64_t from, struct firn_range *ret)
{
	return next_by_scan(pm, span, from, PAGE_IS_HUGE, 0, ret);
}

int firn_proc_peek(pid_t pid, uint64_t address, void *buf, size_t len)
{
	struct iovec local = { buf, len }, remote = { (void *)(uintptr_t)address, len };
	long n = firn_sys.process_vm_readv(pid, &local, 1, &remote, 1);
	char path[64];
	long fd;

	if (n == (long)len)
		return 0;
	if (n == -ESRCH || n == -EPERM)
		return (int)n;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = firn_sys.open(path, O_RDONLY, 0);
	if (fd < 0)
		return (int)fd;
	n = firn_sys.pread((int)fd, buf, len, address);
	close((int)fd);
	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : -EFAULT;
}
