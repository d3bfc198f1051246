/* SPDX-License-Identifier: MIT */
/*
 * The slices of a direct pack: the target writes its own pages to the store, by injected pwritev calls whose
 * vectors point at them.  Nothing is copied on the way, and no memory but a few tables' is used for it.
 */
#include "engine/eviction.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "sys/sys.h"

#define VECTORS (FIRN_SCRATCH_DATA / sizeof(struct iovec))  /* as many as the kernel takes */

/* A store that cannot be written past the page cache would copy every page into it. */
static int check_store(struct firn_engine *en, struct firn_err *e)
{
	char path[600];
	long fd = firn_path_join(path, sizeof(path), en->config.store_dir, ".check");

	if (!fd)
		fd = firn_sys.open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	firn_sys.unlink(path);
	if (fd >= 0) {
		close((int)fd);
		return 0;
	}
	return firn_err_set(e, FIRN_EXIT_STORE, (int)-fd, "store-not-direct",
			    "store %s cannot be written directly (O_DIRECT: %s): use --kind=copied", en->config.store_dir,
			    strerror((int)-fd));
}

/* The largest file that @pid may write.  By /proc: prlimit asks for a privilege that reading does not.  Returns 0, or
 * -ESRCH. */
static int file_size_limit(pid_t pid, uint64_t *ret)
{
	static const char name[] = "Max file size";
	char path[64], buf[4096], *line;
	unsigned long long n;

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return -ESRCH;
	line = strstr(buf, name);
	*ret = line && sscanf(line + sizeof(name), "%llu", &n) == 1 ? n : UINT64_MAX;   /* "unlimited" */
	return 0;
}

int firn_direct_plan(struct firn_engine *en, pid_t pid, uint64_t pages, struct firn_err *e)
{
	uint64_t limit;

	if (file_size_limit(pid, &limit))
		return firn_err_set(e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d has ended: nothing to do", pid);
	if (limit < FIRN_PACK_ALIGN + pages * en->page_size)
		return firn_err_set(e, FIRN_EXIT_REFUSED, EFBIG, "file-size-limit",
				    "process %d may not write a file so large itself (RLIMIT_FSIZE): raise it, or use --kind=copied",
				    pid);
	return check_store(en, e);
}

int firn_direct_open_pack(struct firn_eviction *j)
{
	struct firn_pack_shape shape = {
		.kind = FIRN_PACK_DIRECT,
		.max_blocks = (uint32_t)firn_direct_blocks_max(j->max_pages, j->max_slices),
		.cipher = FIRN_CIPHER_OFF,
		.move_after_s = FIRN_PACK_STAYS,
	};
	struct firn_builder_pack pack;
	int err;

	err = firn_pack_ref_create(j->en, &j->pack, &shape, j->e);
	if (err)
		return err;
	/* What the target gets cannot be read from. */
	j->pack_fd = (int)firn_sys.open(j->pack->path, O_WRONLY | O_DIRECT, 0);
	if (j->pack_fd < 0)
		return firn_slice_store_failed(j, j->pack_fd);
	err = firn_direct_open(&j->direct, j->en->page_size, firn_slice_write, j);
	if (err)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, -err, "no-memory", "no memory for a pack's buffers (%s)",
				    strerror(-err));
	firn_slice_describe(j, &pack);
	err = firn_direct_begin(j->direct, &pack);
	return err ? firn_slice_store_failed(j, err) : 0;
}

void firn_direct_close_pack(struct firn_eviction *j)
{
	firn_direct_close(j->direct);
	j->direct = NULL;
	firn_fd_close(&j->pack_fd);
}

/* Let the target write what is left of @n vectors at @offset.  *@ret: bytes, or a negative errno. */
static int call_pwritev(struct firn_eviction *j, const struct iovec *iov, uint32_t n, uint64_t offset, long *ret)
{
	struct firn_call call = {
		SYS_pwritev, { (uint64_t)j->pack_there, j->inject.j->scratch, n, offset, 0, 0 },
		FIRN_POINT_PWRITEV_ENTRY, FIRN_POINT_PWRITEV_EXIT,
	};
	int err = firn_inject_write(&j->inject, 0, iov, n * sizeof(*iov));

	return err ? err : firn_inject_call(&j->inject, &call, ret);
}

/* The vectors, whole, at *@offset, which goes on.  Returns 0, or as firn_inject_call, or *@ret_store: the store's errno. */
static int write_vectors(struct firn_eviction *j, struct iovec *iov, uint32_t n, uint64_t *offset, int *ret_store)
{
	struct firn_pack_memory *m = j->pack->file.m;

	while (n) {
		long r;
		int err = call_pwritev(j, iov, n, *offset, &r);

		if (err)
			return err;
		if (r <= 0 || r % FIRN_PACK_ALIGN) {
			*ret_store = r < 0 ? (int)r : -EIO;
			return 0;
		}
		m->write_calls++;
		m->write_bytes += (uint64_t)r;
		j->read_bytes += (uint64_t)r;
		*offset += (uint64_t)r;
		for (; n && (size_t)r >= iov->iov_len; n--)
			r -= (long)(iov++)->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
		if (j->o->progress)
			j->o->progress(j->o->arg, "write", firn_min_u64(j->read_bytes / j->en->page_size, j->total_pages),
				       j->total_pages);
	}
	return 0;
}

/* The pages of a slice, by as few calls as their stretches allow. */
static int write_slice(struct firn_eviction *j, const struct firn_slice *s, uint64_t offset, int *ret_store)
{
	struct iovec iov[VECTORS];
	uint32_t k = 0;
	int err, back;

	err = firn_inject_begin(&j->inject, j->stop.threads[0].tid);
	if (err)
		return err;
	for (uint32_t n = s->first; !err && !*ret_store && n < s->last; n++) {
		struct firn_range at = { j->stretches[n].start, j->stretches[n].end };

		if (k && (uint64_t)(uintptr_t)iov[k - 1].iov_base + iov[k - 1].iov_len == at.start) {
			iov[k - 1].iov_len += at.end - at.start;
		} else {
			iov[k].iov_base = (void *)(uintptr_t)at.start;
			iov[k++].iov_len = at.end - at.start;
		}
		/* One may still be joined to the last. */
		if (n + 1 == s->last || (k == VECTORS && j->stretches[n + 1].start != at.end)) {
			err = write_vectors(j, iov, k, &offset, ret_store);
			k = 0;
		}
	}
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		return err;
	back = firn_inject_end(&j->inject);
	return back ? back : err;
}

static int finish_pack(struct firn_eviction *j)
{
	struct firn_pack_target target;
	struct firn_builder_index index = firn_slice_index(j, &target);

	return firn_direct_finish(j->direct, &index, &j->pack_bytes);
}

static int failed(struct firn_eviction *j, int err)
{
	if (err == -ESRCH)
		return firn_err_set(j->e, FIRN_EXIT_NOT_FOUND, ESRCH, "gone", "process %d ended meanwhile: nothing to do",
				    j->t->pid);
	return firn_err_set(j->e, FIRN_EXIT_LOST, -err, "wedged",
			    "process %d could not be put back after an injected call: it is left as it is, its pack is kept",
			    j->t->pid);
}

/* Store slice @n, and let the pack's tables say so. */
static int store_slice(struct firn_eviction *j, uint32_t n)
{
	struct firn_pack_memory *m = j->pack->file.m;
	const struct firn_slice *s = &j->slices[n];
	struct firn_poff at;
	int err, store = 0;

	err = firn_direct_add(j->direct, j->runs + s->first, s->last - s->first, j->places, &at);
	if (err)
		return firn_slice_store_failed(j, err);
	firn_point(FIRN_POINT_GATHERED);
	err = write_slice(j, s, at.v, &store);
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		return failed(j, err);
	if (!err)
		err = store;
	if (err == -EFAULT)
		return firn_err_set(j->e, FIRN_EXIT_FAILED, EFAULT, "read",
				    "process %d has memory that it cannot write to the store itself: left running, use --kind=copied",
				    j->t->pid);
	if (!err && n + 1 == j->nslices)
		err = finish_pack(j);
	if (err)
		return firn_slice_store_failed(j, err);
	m->raw_bytes += s->pages * j->en->page_size;
	m->bytes = n + 1 == j->nslices ? j->pack_bytes : firn_direct_end(j->direct).v;
	__atomic_store_n(&m->blocks, firn_direct_blocks(j->direct), __ATOMIC_RELEASE);
	firn_point(FIRN_POINT_WRITTEN);
	firn_eviction_lap(j, FIRN_PHASE_WRITE);
	return 0;
}

int firn_direct_evict(struct firn_eviction *j)
{
	int err = 0, back;

	firn_slices_cut(j, false);
	for (uint32_t n = 0; !err && n < j->nslices; n++) {
		err = store_slice(j, n);
		if (!err)
			err = firn_slice_take(j, &j->slices[n]);
	}
	if (err == -ESRCH || err == -ENOTRECOVERABLE)
		return err;
	back = firn_pack_leave(&j->inject, j->pack_there);
	return back ? failed(j, back) : err;
}
