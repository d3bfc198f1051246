/* SPDX-License-Identifier: MIT */
#include "agent/check.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/paths.h"
#include "sys/arch.h"
#include "sys/sys.h"
#include "transfer/uffd.h"

enum verdict { GOOD, SLOWER, MISSING };

struct findings {
	struct json_object *list;       /* NULL: print as we go */
	int code;
};

static void find(struct findings *f, const char *what, enum verdict v, int code, const char *says)
{
	static const char *const words[] = { "ok", "without", "missing" };

	if (v == MISSING && !f->code)
		f->code = code;
	if (f->list) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "name", json_object_new_string(what));
		json_object_object_add(o, "verdict", json_object_new_string(words[v]));
		json_object_object_add(o, "says", json_object_new_string(says));
		json_object_array_add(f->list, o);
	} else {
		printf("%-8s %-16s %s\n", words[v], what, says);
	}
}

static void check_uffd(struct findings *f)
{
	uint64_t features = 0;
	FIRN_FD device = firn_uffd_open_device(&features);

	if (device == -EOPNOTSUPP) {
		find(f, "userfaultfd", MISSING, FIRN_EXIT_KERNEL, "a layout event is missing: Linux 6.1 or newer is needed");
		return;
	}
	if (device < 0) {
		char says[128];

		snprintf(says, sizeof(says), FIRN_UFFD_DEVICE " cannot be opened (%s): %s", strerror(-device),
			 device == -EACCES ? "run this as root" : "Linux 6.1 or newer with CONFIG_USERFAULTFD is needed");
		find(f, "userfaultfd", MISSING, device == -EACCES ? FIRN_EXIT_NOT_PERMITTED : FIRN_EXIT_KERNEL, says);
		return;
	}
	find(f, "userfaultfd", GOOD, 0, "with fork, remap, remove and unmap events");
	if (features & FIRN_UFFD_FEATURE_POISON)
		find(f, "poison", GOOD, 0, "a page that cannot be read back gives SIGBUS");
	else
		find(f, "poison", SLOWER, 0, "before Linux 6.6: whoever touches a page that cannot be read back waits");
}

static void check_calls(struct findings *f)
{
	char buf[64];
	long fd;

	fd = firn_sys.pidfd_open(getpid(), 0);
	if (fd < 0) {
		find(f, "pidfd", MISSING, FIRN_EXIT_KERNEL, "Linux 5.6 or newer is needed");
	} else {
		FIRN_FD pidfd = (int)fd;
		long r = firn_sys.pidfd_getfd(pidfd, 0);

		if (r >= 0)
			close((int)r);
		find(f, "pidfd", r == -ENOSYS ? MISSING : GOOD, FIRN_EXIT_KERNEL,
		     r == -ENOSYS ? "Linux 5.6 or newer is needed" : "descriptors can be taken over");
	}
	if (firn_sys_read_file("/proc/sys/kernel/yama/ptrace_scope", buf, sizeof(buf)) > 0 && buf[0] == '3')
		find(f, "ptrace", MISSING, FIRN_EXIT_KERNEL, "Yama forbids it to everybody (ptrace_scope 3)");
	else
		find(f, "ptrace", geteuid() ? MISSING : GOOD, FIRN_EXIT_NOT_PERMITTED,
		     geteuid() ? "the agent must run as root" : "any process but init may be traced");
}

static void check_runtime(struct findings *f, const char *dir)
{
	struct statfs fs;
	char parent[512], says[640], *slash;

	snprintf(parent, sizeof(parent), "%s", dir);
	while (statfs(parent, &fs) && (slash = strrchr(parent, '/')) && slash != parent)
		*slash = 0;
	if (fs.f_type == TMPFS_MAGIC) {
		snprintf(says, sizeof(says), "%s is in memory", dir);
		find(f, "runtime dir", GOOD, 0, says);
	} else {
		snprintf(says, sizeof(says), "%s is on a disk: link states are written to it now and then; a tmpfs is better", dir);
		find(f, "runtime dir", SLOWER, 0, says);
	}
}

static void check_store(struct findings *f, const char *state_dir)
{
	struct statvfs v;
	struct statfs fs;
	char dir[512], says[700], *slash;

	if (firn_path_join(dir, sizeof(dir), state_dir, FIRN_STORE_DIR))
		return;
	while (statfs(dir, &fs) && (slash = strrchr(dir, '/')) && slash != dir)
		*slash = 0;
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) {
		snprintf(says, sizeof(says), "%s is on tmpfs, which is memory itself: set FIRN_STATE_DIR to a directory on a disk", dir);
		find(f, "store", MISSING, FIRN_EXIT_STORE, says);
		return;
	}
	if (statvfs(dir, &v) || (v.f_flag & ST_RDONLY) || access(dir, W_OK)) {
		snprintf(says, sizeof(says), "%s is not writable: make it so, or set FIRN_STATE_DIR", dir);
		find(f, "store", MISSING, FIRN_EXIT_STORE, says);
		return;
	}
	snprintf(says, sizeof(says), "%s, %.1f GiB free", dir, (double)v.f_bavail * (double)v.f_frsize / (1u << 30));
	find(f, "store", GOOD, 0, says);
	/* O_DIRECT, tried on a file without a name. */
	{
		FIRN_FD fd = open(dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

		find(f, "direct I/O", fd >= 0 || errno == EOPNOTSUPP || errno == EISDIR ? GOOD : SLOWER, 0,
		     fd >= 0 ? "packs bypass the page cache" : "not here: packs go through the page cache");
	}
}

int firn_check(const char *runtime_dir, const char *state_dir, bool json)
{
	struct findings f = { json ? json_object_new_array() : NULL, 0 };
	struct utsname u;
	char says[256];

	uname(&u);
	snprintf(says, sizeof(says), "Linux %.64s on %s, %ld-byte pages", u.release, FIRN_ARCH_NAME, sysconf(_SC_PAGESIZE));
	find(&f, "kernel", GOOD, 0, says);
	check_uffd(&f);
	check_calls(&f);
	check_runtime(&f, runtime_dir);
	check_store(&f, state_dir);
	if (json) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "ready", json_object_new_boolean(!f.code));
		json_object_object_add(o, "findings", f.list);
		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
		json_object_put(o);
	} else {
		printf("%s\n", f.code ? "not ready: see what is missing above" : "ready");
	}
	return fflush(stdout) ? FIRN_EXIT_FAILED : f.code;
}
