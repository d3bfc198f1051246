/* SPDX-License-Identifier: MIT */
/*
 * Packs in memory: is there room for one, and the mover, which takes those that are due to the store.
 *
 * A pack is moved whole, byte for byte: what may go to the store was encrypted from its begin.  First the copy is
 * whole, then the tables say that it is the pack, then dup3 puts its descriptor in the other's place, then the other
 * is deleted.  At each instant the file that the tables name is whole, and readers do not notice.
 */
#include "engine/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "sys/sys.h"

#define RESERVE_PART 16u                        /* of the file system, that packs leave to others */
#define IN_FLIGHT_BYTES (512u << 20)            /* gathered and not dropped yet: two slices */
#define SHORT_PART 10u                          /* of the memory: where less is available, it is short */
#define PIECE_BYTES (8u << 20)
#define AGAIN_NS (60ull * 1000000000u)          /* after a move that failed */
#define THREAD_STACK (256u << 10)

/* A line of /proc/meminfo in bytes; 0: it cannot be read. */
static uint64_t meminfo(const char *name)
{
	char buf[512], *at;

	if (firn_sys_read_file("/proc/meminfo", buf, sizeof(buf)) <= 0)
		return 0;
	at = strstr(buf, name);
	return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

/* What of the file system may still be taken; UINT64_MAX: it has no limit. */
static uint64_t room(const struct statfs *fs)
{
	uint64_t reserve = fs->f_blocks / RESERVE_PART;

	if (!fs->f_blocks)
		return UINT64_MAX;
	return fs->f_bavail > reserve ? (fs->f_bavail - reserve) * (uint64_t)fs->f_bsize : 0;
}

int firn_ram_check(struct firn_engine *en, pid_t pid, uint64_t pages, struct firn_err *e)
{
	uint64_t bytes = pages * en->page_size, available = meminfo("MemAvailable:");
	const char *dir = en->config.private_dir;
	struct statfs fs;

	if (statfs(dir, &fs))
		return firn_err_set(e, FIRN_EXIT_STORE, errno, "ram-missing", "%s is not there: %s", dir, strerror(errno));
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
		return firn_err_set(e, FIRN_EXIT_STORE, EINVAL, "ram-not-memory",
				    "%s is not on tmpfs: set FIRN_RUNTIME_DIR to a directory there, or use --place=store", dir);
	/* Half of it, mostly, or less; what is more is found out while it is written, and nothing happens then. */
	if (room(&fs) < bytes / 2)
		return firn_err_set(e, FIRN_EXIT_STORE, ENOSPC, "ram-full",
				    "process %d: %llu MiB are free in %s for the pack of %llu MiB: use --place=store, or a larger tmpfs",
				    pid, (unsigned long long)(room(&fs) >> 20), dir, (unsigned long long)(bytes >> 20));
	if (available < firn_min_u64(bytes, IN_FLIGHT_BYTES))
		return firn_err_set(e, FIRN_EXIT_STORE, ENOSPC, "ram-full",
				    "process %d: %llu MiB of memory are available, too few to keep its pack there: use --place=store", pid,
				    (unsigned long long)(available >> 20));
	return 0;
}

int firn_ram_room(const struct firn_pack_ref *p, uint64_t bytes)
{
	struct statfs fs;
	uint64_t left;

	if (fstatfs(p->file.fd, &fs))
		return -ENOSPC;
	left = room(&fs);
	return left == UINT64_MAX || left >= bytes + p->ram_reserve ? 0 : -ENOSPC;
}

enum firn_cipher firn_ram_cipher(const struct firn_engine *en)
{
	char buf[512], *line;

	/* A line for each area, below the head. */
	if (firn_sys_read_file("/proc/swaps", buf, sizeof(buf)) > 0) {
		line = strchr(buf, '\n');
		if (!line || line[1])
			return en->config.cipher;
	}
	return FIRN_CIPHER_OFF;
}

uint64_t firn_engine_ram_bytes(struct firn_engine *en)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&en->lock);
	for (struct firn_target *t = en->targets; t; t = t->next) {
		struct firn_target *before = en->targets;

		if (!t->pack || !t->pack->file.m->in_ram)
			continue;
		while (before->pack != t->pack)
			before = before->next;
		if (before == t)        /* the first of those that live on it */
			bytes += t->pack->file.m->bytes;
	}
	pthread_mutex_unlock(&en->lock);
	return bytes;
}

/* --- The mover ----------------------------------------------------------------------------------- */

/* Is somebody away who lives on the pack?  Registry locked. */
static bool needed(const struct firn_engine *en, const struct firn_pack_ref *p)
{
	for (const struct firn_target *t = en->targets; t; t = t->next)
		if (t->pack == p && (t->image->state == FIRN_TARGET_FROZEN || t->image->state == FIRN_TARGET_EVICTED))
			return true;
	return false;
}

static bool memory_is_short(void)
{
	uint64_t total = meminfo("MemTotal:");

	return total && meminfo("MemAvailable:") < total / SHORT_PART;
}

/* A pack that is to be moved: one whose time has come, or with @any the first.  Registry locked. */
static struct firn_pack_ref *find(const struct firn_engine *en, bool any)
{
	struct timespec ts;
	uint64_t now_ms, now_ns = firn_sys.clock_ns();

	clock_gettime(CLOCK_REALTIME, &ts);
	now_ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	for (const struct firn_target *t = en->targets; t; t = t->next) {
		struct firn_pack_ref *p = t->pack;

		if (!p || !p->file.m->in_ram || p->file.m->move_after_s == FIRN_PACK_STAYS || t->busy ||
		    (t->image->state != FIRN_TARGET_FROZEN && t->image->state != FIRN_TARGET_EVICTED) ||
		    (p->tried_ns && now_ns - p->tried_ns < AGAIN_NS))
			continue;
		if (any || now_ms >= t->image->since_ms + p->file.m->move_after_s * 1000ull)
			return p;
	}
	return NULL;
}

/* The next @len bytes, padded with zeros to what the store writes at once.  Returns the bytes, 0 at the end. */
static long read_piece(int fd, char *buf, uint64_t offset)
{
	size_t done = 0, padded;

	while (done < PIECE_BYTES) {
		long n = firn_sys.pread(fd, buf + done, PIECE_BYTES - done, offset + done);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (!n)
			break;
		done += (size_t)n;
	}
	padded = (size_t)firn_align_up(done, FIRN_PACK_ALIGN);
	memset(buf + done, 0, padded - done);
	return (long)padded;
}

static int write_piece(struct firn_pack_ref *p, int fd, const char *buf, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		long n = firn_sys.pwrite(fd, buf + done, len - done, offset + done);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n ? (int)n : -EIO;
		done += (size_t)n;
		/* Wear is counted, whatever becomes of the copy. */
		p->file.m->write_calls++;
		p->file.m->write_bytes += (uint64_t)n;
	}
	return 0;
}

/* Copy the pack to @fd.  Returns 0; -ECANCELED it is not needed any more; another errno. */
static int copy(struct firn_engine *en, struct firn_pack_ref *p, int fd, char *buf)
{
	uint64_t offset = 0;
	bool wanted = true;
	long n;

	while (wanted && (n = read_piece(p->file.fd, buf, offset)) != 0) {
		int err = n < 0 ? (int)n : write_piece(p, fd, buf, (size_t)n, offset);

		if (err)
			return err;
		offset += (uint64_t)n;
		firn_point(FIRN_POINT_MOVE_PIECE);
		pthread_mutex_lock(&en->lock);
		wanted = needed(en, p);
		pthread_mutex_unlock(&en->lock);
	}
	return wanted ? 0 : -ECANCELED;
}

/* The copy in the store, open as @fd, is the pack from here on.  Returns as copy(). */
static int change_over(struct firn_engine *en, struct firn_pack_ref *p, int fd)
{
	int err = 0;

	pthread_mutex_lock(&en->lock);
	if (!needed(en, p)) {
		err = -ECANCELED;
	} else {
		__atomic_store_n(&p->file.m->in_ram, 0, __ATOMIC_SEQ_CST);
		firn_point(FIRN_POINT_MOVE_SAID);
		if (dup3(fd, p->file.fd, O_CLOEXEC) < 0) {
			err = -errno;
			__atomic_store_n(&p->file.m->in_ram, 1, __ATOMIC_SEQ_CST);
		}
	}
	pthread_mutex_unlock(&en->lock);
	return err;
}

static int move(struct firn_engine *en, struct firn_pack_ref *p)
{
	char *buf = mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FIRN_FD fd = -1;
	bool buffered;
	int err;

	if (buf == MAP_FAILED)
		return -ENOMEM;
	firn_sys.unlink(p->path);
	fd = firn_pack_file_open(p->path, true, &buffered);
	err = fd < 0 ? fd : copy(en, p, fd, buf);
	/* Through the page cache, writing can fail later: not after the change. */
	if (!err && buffered && fdatasync(fd))
		err = -errno;
	firn_point(FIRN_POINT_MOVE_COPIED);
	if (!err)
		err = change_over(en, p, fd);
	firn_point(FIRN_POINT_MOVE_CHANGED);
	firn_sys.unlink(err ? p->path : p->ram_path);
	explicit_bzero(buf, PIECE_BYTES);
	munmap(buf, PIECE_BYTES);
	return err;
}

static void *move_all(void *arg)
{
	struct firn_engine *en = arg;
	struct firn_pack_ref *p;

	for (;;) {
		struct firn_err e = { 0 };
		bool is_short = memory_is_short();
		int err;

		pthread_mutex_lock(&en->lock);
		p = find(en, is_short);
		if (!p)
			break;
		p->users++;
		pthread_mutex_unlock(&en->lock);
		err = firn_store_check(en->config.store_dir, &e);
		if (!err)
			err = move(en, p);
		if (err && err != -ECANCELED) {
			firn_log("pack %s cannot be moved to the store (%s): it stays in memory, and is tried again", p->ram_path,
				 e.code ? e.message : strerror(-err));
			p->tried_ns = firn_sys.clock_ns();
		}
		pthread_mutex_lock(&en->lock);
		firn_pack_unref(p);
		pthread_mutex_unlock(&en->lock);
	}
	en->moving = false;
	pthread_cond_broadcast(&en->changed);
	pthread_mutex_unlock(&en->lock);
	return NULL;
}

void firn_engine_move_packs(struct firn_engine *en)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool any, is_short;

	pthread_mutex_lock(&en->lock);
	any = !en->moving && find(en, true);
	pthread_mutex_unlock(&en->lock);
	if (!any)
		return;
	is_short = memory_is_short();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&en->lock);
	/* Where no thread can be had, at the next call. */
	if (find(en, is_short))
		en->moving = !pthread_create(&thread, &attr, move_all, en);
	pthread_mutex_unlock(&en->lock);
	pthread_attr_destroy(&attr);
}
