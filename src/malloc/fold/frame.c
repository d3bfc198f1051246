/* SPDX-License-Identifier: MIT */
/*
 * Stores and the counts of their frames.  Owns the tables, the windows, and the sentinel, by which one sees
 * whether a forked process still maps our frames.  Counts change without a lock; stores come and go under
 * the pass lock.  May use nothing of libc.
 */
#include "malloc/fold/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "malloc/class.h"
#include "malloc/fold/barrier.h"
#include "malloc/fold/helper.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x8u
#endif

#define FRAMES (1u << 22)               /* 16 GiB of them */
#define CHUNK 64u                       /* frames are given to stores by so many */
#define STORES 16384u
#define FILLED 0x8000u                  /* in a count: the frame holds bytes */
#define CHOSEN 0x4000u                  /* ... and was needed by nobody before the sentinel was looked at */
#define SENTINEL_PAGES 3u               /* the first and the last are looked at */
#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_EXCLUSIVE ((uint64_t)1 << 56)

struct store {
	char *window;                   /* NULL: inherited by a fork */
	uint32_t first, npages;         /* frames; npages 0: no store */
	_Atomic uint32_t mapped;        /* virtual pages whose mapping is of this store */
	_Atomic uint32_t idle;          /* frames that hold bytes and that nobody needs */
};

static _Atomic uint16_t *counts;        /* by frame */
static uint8_t *shifts;                 /* by frame */
static uint32_t *notes;                 /* by frame */
static uint16_t *owners;                /* by chunk: the store + 1 */
static struct store *stores;
static uint32_t nstores;                /* the highest in use + 1 */
static uint32_t next_chunk;
static _Atomic uint32_t untidy;
static char *sentinel;
static bool sentinel_locked;

int firn_frames_open(void)
{
	size_t bytes = FRAMES * (sizeof(*counts) + sizeof(*notes) + sizeof(*shifts)) + FRAMES / CHUNK * sizeof(*owners) +
		       STORES * sizeof(*stores);
	char *m;

	if (counts)
		return 0;
	m = firn_os.mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (firn_os_failed(m))
		return -ENOMEM;
	/* One page of a table is in use where one frame is. */
	firn_os.madvise(m, bytes, MADV_NOHUGEPAGE);
	stores = (struct store *)(void *)m;
	m += STORES * sizeof(*stores);
	notes = (uint32_t *)(void *)m;
	m += FRAMES * sizeof(*notes);
	owners = (uint16_t *)(void *)m;
	m += FRAMES / CHUNK * sizeof(*owners);
	counts = (_Atomic uint16_t *)(void *)m;
	m += FRAMES * sizeof(*counts);
	shifts = (uint8_t *)m;
	return 0;
}

static struct store *store_of(uint32_t frame)
{
	return &stores[owners[frame / CHUNK] - 1];
}

/* Two pages that are written once, never read, and cannot be swapped out: while a forked process has its copy
 * of our mappings, they are not ours alone.  Two, since one may be under migration. */
static void make_sentinel(void)
{
	char *p = firn_os.mmap(NULL, SENTINEL_PAGES * FIRN_PAGE_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (firn_os_failed(p))
		return;
	firn_os.madvise(p, SENTINEL_PAGES * FIRN_PAGE_BYTES, MADV_NOHUGEPAGE);
	firn_os.madvise(p, SENTINEL_PAGES * FIRN_PAGE_BYTES, MADV_UNMERGEABLE);
	for (unsigned int i = 0; i < SENTINEL_PAGES; i += SENTINEL_PAGES - 1)
		*(volatile char *)(p + i * FIRN_PAGE_BYTES) = 1;
	sentinel = p;
	sentinel_locked = !firn_os.call(SYS_mlock, (long)p, FIRN_PAGE_BYTES, 0, 0, 0, 0) &&
			  !firn_os.call(SYS_mlock, (long)(p + (SENTINEL_PAGES - 1) * FIRN_PAGE_BYTES), FIRN_PAGE_BYTES,
					0, 0, 0, 0);
	firn_barrier_locked_kb = sentinel_locked ? 2 * FIRN_PAGE_BYTES / 1024 : 0;
}

bool firn_frames_exclusive(void)
{
	bool ours = true;
	long fd;

	if (!sentinel_locked)
		return false;
	fd = firn_os.call(SYS_openat, AT_FDCWD, (long)"/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return false;
	for (unsigned int i = 0; i < SENTINEL_PAGES; i += SENTINEL_PAGES - 1) {
		uint64_t entry = 0;
		long at = (long)(((uintptr_t)sentinel + i * FIRN_PAGE_BYTES) / FIRN_PAGE_BYTES * sizeof(entry));

		if (firn_os.call(SYS_pread64, fd, (long)&entry, sizeof(entry), at, 0, 0) != sizeof(entry) ||
		    !(entry & PAGEMAP_PRESENT) || !(entry & PAGEMAP_EXCLUSIVE))
			ours = false;
	}
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return ours;
}

/* The file size limit is the process's, and a helper that is waited for is one of its own. */
static bool may_write(uint64_t bytes)
{
	struct rlimit r;

	if (firn_os.call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&r, 0, 0) < 0)
		return false;
	if (r.rlim_cur >= bytes || !firn_helper.caller)
		return r.rlim_cur >= bytes;
	r.rlim_cur = r.rlim_max;
	return r.rlim_max >= bytes && !firn_os.call(SYS_prlimit64, 0, RLIMIT_FSIZE, (long)&r, 0, 0, 0);
}

/* @n chunks in a row that no store has; FIRN_FRAME_NONE: none left. */
static uint32_t take_chunks(uint32_t n)
{
	uint32_t found = 0;

	for (uint32_t tried = 0; tried < FRAMES / CHUNK + n; tried++) {
		if (next_chunk >= FRAMES / CHUNK)
			next_chunk = found = 0;
		found = owners[next_chunk] ? 0 : found + 1;
		next_chunk++;
		if (found == n)
			return next_chunk - n;
	}
	return FIRN_FRAME_NONE;
}

static long memory_file(void)
{
	long fd = firn_os.call(SYS_memfd_create, (long)"firn-malloc", MFD_CLOEXEC | MFD_NOEXEC_SEAL, 0, 0, 0, 0);

	if (fd == -EINVAL)
		fd = firn_os.call(SYS_memfd_create, (long)"firn-malloc", MFD_CLOEXEC, 0, 0, 0, 0);
	return fd;
}

uint32_t firn_store_open(uint32_t npages, uint32_t *ret_first, int *ret_fd, int *ret_error)
{
	size_t bytes = (size_t)npages * FIRN_PAGE_BYTES;
	uint32_t i, chunk, chunks = (npages + CHUNK - 1) / CHUNK;
	struct store *s;
	char *window;
	long fd;

	*ret_error = -ENOMEM;
	if (!sentinel)
		make_sentinel();
	if (!sentinel || !npages || npages > FIRN_STORE_PAGES_MAX)
		return FIRN_STORE_NONE;
	for (i = 0; i < nstores && stores[i].npages; i++)
		;
	if (i == STORES)
		return FIRN_STORE_NONE;
	*ret_error = -EFBIG;
	if (!may_write(bytes))
		return FIRN_STORE_NONE;
	fd = memory_file();
	if (fd < 0) {
		*ret_error = (int)fd;
		return FIRN_STORE_NONE;
	}
	*ret_error = (int)firn_os.call(SYS_ftruncate, fd, (long)bytes, 0, 0, 0, 0);
	if (*ret_error)
		goto close;
	window = firn_os.mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, (int)fd, 0);
	if (firn_os_failed(window)) {
		*ret_error = -ENOMEM;
		goto close;
	}
	*ret_error = firn_os.madvise(window, bytes, MADV_DONTFORK);
	if (*ret_error)
		goto unmap;
	firn_os.madvise(window, bytes, MADV_DONTDUMP);
	*ret_error = -ENOMEM;
	chunk = take_chunks(chunks);
	if (chunk == FIRN_FRAME_NONE)
		goto unmap;
	s = &stores[i];
	s->window = window;
	s->first = chunk * CHUNK;
	s->npages = npages;
	atomic_store(&s->mapped, 0);
	atomic_store(&s->idle, 0);
	for (uint32_t k = 0; k < chunks; k++)
		owners[chunk + k] = (uint16_t)(i + 1);
	if (i == nstores)
		nstores++;
	atomic_fetch_add(&untidy, 1);   /* nothing maps it yet: if that stays so, it goes */
	*ret_first = s->first;
	*ret_fd = (int)fd;
	*ret_error = 0;
	return i;
unmap:
	firn_os.munmap(window, bytes);
close:
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return FIRN_STORE_NONE;
}

void firn_frame_map(uint32_t frame, unsigned int shift, bool needs)
{
	shifts[frame] = (uint8_t)shift;
	atomic_fetch_add(&store_of(frame)->mapped, 1);
	if (!needs)
		return;
	if (atomic_fetch_add(&counts[frame], 1)) {
		firn_count(&firn_counters.saved_pages, 1);
		return;
	}
	atomic_fetch_or(&counts[frame], FILLED);
	firn_count(&firn_counters.frames, 1);
}

void firn_frame_drop(uint32_t frame)
{
	uint16_t before = atomic_fetch_sub(&counts[frame], 1);

	if (before > (FILLED | 1)) {
		firn_uncount(&firn_counters.saved_pages, 1);
		return;
	}
	atomic_fetch_add(&store_of(frame)->idle, 1);
	atomic_fetch_add(&untidy, 1);
}

void firn_frame_unmap(uint32_t frame)
{
	if (atomic_fetch_sub(&store_of(frame)->mapped, 1) == 1)
		atomic_fetch_add(&untidy, 1);
}

unsigned int firn_frame_count(uint32_t frame)
{
	return atomic_load(&counts[frame]) & (CHOSEN - 1u);
}

uint32_t firn_frame_run(uint32_t frame, unsigned int *ret_shift)
{
	*ret_shift = shifts[frame];
	return frame & ~((1u << shifts[frame]) - 1);
}

uint32_t *firn_frame_note(uint32_t first)
{
	return &notes[first];
}

bool firn_frames_untidy(void)
{
	return atomic_load_explicit(&untidy, memory_order_relaxed);
}

/* Returns pages given back. */
static size_t remove_store(struct store *s)
{
	size_t pages = 0;

	if (s->window)
		firn_os.munmap(s->window, (size_t)s->npages * FIRN_PAGE_BYTES);
	for (uint32_t f = s->first; f < s->first + s->npages; f++) {
		pages += (atomic_load(&counts[f]) & FILLED) != 0;
		atomic_store(&counts[f], 0);
	}
	firn_uncount(&firn_counters.frames, pages);
	for (uint32_t k = 0; k < (s->npages + CHUNK - 1) / CHUNK; k++)
		owners[s->first / CHUNK + k] = 0;
	s->npages = 0;
	s->window = NULL;
	return pages;
}

void firn_frames_choose(void)
{
	if (!firn_frames_untidy())
		return;
	for (uint32_t i = 0; i < nstores; i++) {
		struct store *s = &stores[i];

		if (!s->npages || !s->window || !atomic_load(&s->idle))
			continue;
		for (uint32_t f = s->first; f < s->first + s->npages; f++)
			if (atomic_load(&counts[f]) == FILLED)
				atomic_store(&counts[f], FILLED | CHOSEN);
	}
}

/* The chosen frames of a store: no folded page maps them to read them, no forked process maps them. */
static size_t punch(struct store *s, uint64_t until_ns)
{
	size_t pages = 0;

	for (uint32_t i = 0, n; i < s->npages; i += n + 1) {
		for (n = 0; i + n < s->npages && atomic_load(&counts[s->first + i + n]) == (FILLED | CHOSEN); n++)
			;
		if (!n || firn_os.madvise(s->window + (size_t)i * FIRN_PAGE_BYTES, (size_t)n * FIRN_PAGE_BYTES,
					  MADV_REMOVE))
			continue;
		for (uint32_t k = 0; k < n; k++)
			atomic_store(&counts[s->first + i + k], 0);
		atomic_fetch_sub(&s->idle, n);
		firn_uncount(&firn_counters.frames, n);
		pages += n;
		if (firn_os.clock_ns() > until_ns)
			break;
	}
	return pages;
}

size_t firn_frames_tidy(bool exclusive, uint64_t until_ns, bool *ret_more)
{
	uint32_t before = atomic_load(&untidy);
	size_t pages = 0;
	bool left = false;

	*ret_more = false;
	if (!before)
		return 0;
	for (uint32_t i = 0; i < nstores; i++) {
		struct store *s = &stores[i];

		if (!s->npages)
			continue;
		if (!atomic_load(&s->mapped))
			pages += remove_store(s);
		else if (!atomic_load(&s->idle))
			continue;
		else if (exclusive && s->window)
			pages += punch(s, until_ns);
		else if (s->window)
			left = true;
		/* A store may have been left in the middle. */
		if (firn_os.clock_ns() > until_ns) {
			*ret_more = true;
			return pages;
		}
	}
	while (nstores && !stores[nstores - 1].npages)
		nstores--;
	/* What came meanwhile is left for the next time, as is what a forked process holds. */
	atomic_fetch_sub(&untidy, left ? before - 1 : before);
	return pages;
}

void firn_frames_forked(void)
{
	/* The parent's sentinel stays mapped: it says to the parent that this process is there. */
	sentinel = NULL;
	sentinel_locked = false;
	firn_barrier_locked_kb = 0;
	for (uint32_t i = 0; i < nstores; i++)
		stores[i].window = NULL;
}
