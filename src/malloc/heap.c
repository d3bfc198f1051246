/* SPDX-License-Identifier: MIT */
/*
 * The heap's address range and its free runs.  Two sets of lists: runs that may be resident, and runs that
 * are known to be zero; runs of one kind are joined with their neighbours, and are purged from the first set
 * into the second.
 */
#include "malloc/heap.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "malloc/os.h"
#include "malloc/stats.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define MAX_HEAP_BYTES ((uint64_t)512 << 30)
#define MIN_HEAP_BYTES ((uint64_t)8 << 20)
#define SEGMENT_BYTES ((uint64_t)1 << 30)
#define STEP_UNITS 64u                  /* 4 MiB */
#define LIMITED_STEP_UNITS 16u          /* where address space is limited */
#define STEP_MAX_UNITS 1024u
#define PURGE_UNITS 256u                /* 16 MiB */
#define METADATA_STEP ((size_t)65536)
#define EXACT 64u                       /* runs below this length have a list each */
#define LISTS (EXACT + 24u)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
#define RW (PROT_READ | PROT_WRITE)

enum { CLEAN, RESIDENT };

struct firn_heap firn_heap;

static uint32_t lists[2][LISTS];
static uint64_t filled[2][2];           /* one bit a list */
static size_t mapped_metadata;          /* bytes below base */
static uint32_t mapped_kinds;           /* bytes of kinds that are accessible */
static uint32_t resident_units;

/* Some look without the lock. */
static void set_kinds(uint32_t first, uint32_t n, uint8_t kind)
{
	for (uint32_t u = first; u < first + n; u++)
		__atomic_store_n(&firn_heap.kinds[u], kind, __ATOMIC_RELAXED);
}

static bool is_free(uint32_t unit)
{
	return __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) == FIRN_KIND_NONE;
}

static uint32_t list_of(uint32_t units)
{
	return units < EXACT ? units : EXACT + 25u - (uint32_t)__builtin_clz(units);
}

static void insert(uint32_t first, uint32_t units, bool resident, uint64_t stamp)
{
	struct firn_span *s = firn_span_of(first), *last = firn_span_of(first + units - 1);
	uint32_t l = list_of(units), *head = &lists[resident][l];

	s->units = last->units = units;
	s->resident = last->resident = resident;
	s->stamp_ms = stamp;
	s->list = l;
	s->prev = FIRN_NO_UNIT;
	s->next = *head;
	if (*head != FIRN_NO_UNIT)
		firn_span_of(*head)->prev = first;
	*head = first;
	__atomic_store_n(&filled[resident][l / 64], filled[resident][l / 64] | (uint64_t)1 << l % 64, __ATOMIC_RELAXED);
	if (resident)
		__atomic_store_n(&resident_units, resident_units + units, __ATOMIC_RELAXED);
}

static void take_out(uint32_t first)
{
	struct firn_span *s = firn_span_of(first);
	uint32_t *head = &lists[s->resident][s->list];
	uint64_t *word = &filled[s->resident][s->list / 64];

	if (s->prev != FIRN_NO_UNIT)
		firn_span_of(s->prev)->next = s->next;
	else
		*head = s->next;
	if (s->next != FIRN_NO_UNIT)
		firn_span_of(s->next)->prev = s->prev;
	if (*head == FIRN_NO_UNIT)
		__atomic_store_n(word, *word & ~((uint64_t)1 << s->list % 64), __ATOMIC_RELAXED);
	if (s->resident)
		__atomic_store_n(&resident_units, resident_units - s->units, __ATOMIC_RELAXED);
}

/* The shortest run of the set that has @n units, or FIRN_NO_UNIT. */
static uint32_t find(int set, uint32_t n)
{
	for (uint32_t l = list_of(n); l < LISTS; l++) {
		uint64_t later = filled[set][l / 64] >> l % 64;

		if (!later) {
			if (l >= 64)
				break;
			l = 63;
			continue;
		}
		l += (uint32_t)__builtin_ctzll(later);
		for (uint32_t u = lists[set][l]; u != FIRN_NO_UNIT; u = firn_span_of(u)->next)
			if (firn_span_of(u)->units >= n)
				return u;
	}
	return FIRN_NO_UNIT;
}

static bool map_at(uintptr_t address, size_t bytes)
{
	void *p = firn_os.mmap((void *)address, bytes, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);

	if (firn_os_failed(p))
		return false;
	if ((uintptr_t)p == address)
		return true;
	firn_os.munmap(p, bytes);       /* a kernel that takes the address for a hint */
	return false;
}

/* The heap gets @n more units.  Units without metadata are never used. */
static bool map_more(uint32_t n)
{
	struct firn_heap *h = &firn_heap;
	uint32_t to = h->units + n;

	if (to > h->max_units || to < n)
		return false;
	if (to > mapped_kinds) {
		size_t bytes = ((to - mapped_kinds) + FIRN_PAGE_BYTES - 1) & ~(FIRN_PAGE_BYTES - 1);

		bytes = (bytes + 65535) & ~(size_t)65535;
		if (firn_os.mprotect(h->kinds + mapped_kinds, bytes, RW))
			return false;
		mapped_kinds += (uint32_t)bytes;
	}
	if ((size_t)to * sizeof(struct firn_span) > mapped_metadata) {
		size_t bytes = (size_t)to * sizeof(struct firn_span) - mapped_metadata;

		bytes = (bytes + METADATA_STEP - 1) & ~(METADATA_STEP - 1);
		if (!map_at(h->base - mapped_metadata - bytes, bytes))
			return false;
		mapped_metadata += bytes;
	}
	if (!map_at(h->base + (size_t)h->units * FIRN_UNIT_BYTES, (size_t)n * FIRN_UNIT_BYTES))
		return false;
	if (h->nohuge)
		firn_os.madvise((void *)(h->base + (size_t)h->units * FIRN_UNIT_BYTES), (size_t)n * FIRN_UNIT_BYTES,
				MADV_NOHUGEPAGE);
	return true;
}

static void give(uint32_t first, uint32_t n, bool resident, uint64_t stamp)
{
	struct firn_heap *h = &firn_heap;
	uint32_t end = first + n;

	set_kinds(first, n, FIRN_KIND_NONE);
	if (first && is_free(first - 1) && firn_span_of(first - 1)->resident == resident) {
		uint32_t before = firn_span_of(first - 1)->units;

		first -= before;
		n += before;
		take_out(first);
	}
	if (end < h->units && is_free(end) && firn_span_of(end)->resident == resident) {
		n += firn_span_of(end)->units;
		take_out(end);
	}
	insert(first, n, resident, stamp);
}

static bool grow(uint32_t n)
{
	struct firn_heap *h = &firn_heap;
	uint32_t step = h->limited ? LIMITED_STEP_UNITS : STEP_UNITS, first = h->units;

	if (!h->limited && step < h->units / 8)
		step = h->units / 8 < STEP_MAX_UNITS ? h->units / 8 : STEP_MAX_UNITS;
	if (step > h->max_units - h->units)
		step = h->max_units - h->units;
	if (step < n)
		step = n;
	if (!map_more(step)) {
		step = n;
		if (!map_more(step))
			return false;
	}
	__atomic_store_n(&h->units, first + step, __ATOMIC_RELEASE);
	__atomic_store_n(&h->limit_bytes, (uintptr_t)(first + step) << FIRN_UNIT_SHIFT, __ATOMIC_RELEASE);
	give(first, step, false, 0);
	return true;
}

uint32_t firn_heap_alloc(uint32_t n, bool *ret_clean)
{
	struct firn_heap *h = &firn_heap;
	uint32_t first, units;
	bool resident;

	firn_lock_take(&h->lock);
	first = find(RESIDENT, n);
	if (first == FIRN_NO_UNIT)
		first = find(CLEAN, n);
	if (first == FIRN_NO_UNIT && grow(n))
		first = find(CLEAN, n);
	if (first == FIRN_NO_UNIT)
		goto out;
	units = firn_span_of(first)->units;
	resident = firn_span_of(first)->resident;
	take_out(first);
	if (units > n)
		insert(first + n, units - n, resident, firn_span_of(first)->stamp_ms);
	/* Not free any more, whatever it is going to be: nobody may join it. */
	set_kinds(first, n, FIRN_KIND_TAIL);
	*ret_clean = !resident;
out:
	firn_lock_drop(&h->lock);
	return first;
}

void firn_heap_free(uint32_t first, uint32_t n, bool resident)
{
	uint64_t now = resident ? firn_os.clock_ms() : 0;

	firn_lock_take(&firn_heap.lock);
	give(first, n, resident, now);
	firn_lock_drop(&firn_heap.lock);
}

bool firn_heap_extend(uint32_t first, uint32_t n, uint32_t more)
{
	struct firn_heap *h = &firn_heap;
	uint32_t end = first + n, units = 0;
	bool ok = false;

	firn_lock_take(&h->lock);
	if (end == h->units && !grow(more))
		goto out;
	if (end >= h->units || !is_free(end))
		goto out;
	units = firn_span_of(end)->units;
	if (units < more)
		goto out;
	take_out(end);
	if (units > more)
		insert(end + more, units - more, firn_span_of(end)->resident, firn_span_of(end)->stamp_ms);
	set_kinds(end, more, FIRN_KIND_TAIL);
	ok = true;
out:
	firn_lock_drop(&h->lock);
	return ok;
}

size_t firn_heap_purge(uint64_t before_ms)
{
	/* A pause of a millisecond, no more; the rest is for the next time. */
	uint32_t left = before_ms == UINT64_MAX ? UINT32_MAX : PURGE_UNITS;
	size_t pages = 0;
	bool kept;

	if (!__atomic_load_n(&resident_units, __ATOMIC_RELAXED))
		return 0;
	for (uint32_t l = 1; l < LISTS && left; l++) {
		uint32_t next;

		if (!(__atomic_load_n(&filled[RESIDENT][l / 64], __ATOMIC_RELAXED) >> l % 64 & 1))
			continue;
		firn_lock_take(&firn_heap.lock);
		for (uint32_t u = lists[RESIDENT][l]; u != FIRN_NO_UNIT; u = next) {
			struct firn_span *s = firn_span_of(u);
			uint32_t n = s->units;

			next = s->next;
			if (s->stamp_ms > before_ms)
				continue;
			take_out(u);
			if (n > left) {
				insert(u + left, n - left, true, s->stamp_ms);
				n = left;
			}
			left -= n;
			/* Ours while the kernel works on it: the lock is not held that long. */
			set_kinds(u, n, FIRN_KIND_TAIL);
			firn_lock_drop(&firn_heap.lock);
			kept = firn_os.madvise(firn_unit_address(u), (size_t)n * FIRN_UNIT_BYTES, MADV_DONTNEED);
			firn_lock_take(&firn_heap.lock);
			if (kept) {
				/* Locked in memory: it is not zero, and the rest will not go either. */
				give(u, n, true, firn_os.clock_ms());
				left = 0;
				break;
			}
			pages += n * FIRN_UNIT_PAGES;
			give(u, n, false, 0);
			next = left ? lists[RESIDENT][l] : FIRN_NO_UNIT;
		}
		firn_lock_drop(&firn_heap.lock);
	}
	if (pages)
		firn_count(&firn_counters.purged_pages, pages);
	return pages;
}

int firn_heap_remake(void *address, size_t pages)
{
	void *p = firn_os.mmap(address, pages * FIRN_PAGE_BYTES, RW, ANON | MAP_FIXED, -1, 0);

	if (firn_os_failed(p))
		return (int)(intptr_t)p;
	if (firn_heap.nohuge)
		firn_os.madvise(address, pages * FIRN_PAGE_BYTES, MADV_NOHUGEPAGE);
	return 0;
}

/* Would the system use huge pages unasked?  One page in use would then hold 2 MiB. */
static bool huge_always(void)
{
	char text[64];
	long fd = firn_os.call(SYS_openat, AT_FDCWD, (long)"/sys/kernel/mm/transparent_hugepage/enabled",
			       O_RDONLY | O_CLOEXEC, 0, 0, 0);
	long n;

	if (fd < 0)
		return false;
	n = firn_os.call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return n > 8 && !memcmp(text, "[always]", 8);
}

/* A range of @bytes that nobody uses, with @below bytes in front that nobody uses either. */
static uintptr_t choose_base(uint64_t bytes, uint64_t below)
{
	void *p;

#if !defined(__SANITIZE_THREAD__) && UINTPTR_MAX > UINT32_MAX
	const void *seed = (const void *)getauxval(AT_RANDOM);
	uint64_t random = 0;

	if (seed)
		memcpy(&random, seed, sizeof(random));
	/* Far from where the kernel puts mappings by itself, somewhere within 16 TiB. */
	for (int i = 0; i < 8; i++, random = random * 6364136223846793005u + 1442695040888963407u) {
		uintptr_t at = 0x200000000000u + (random >> 50) * SEGMENT_BYTES;

		p = firn_os.mmap((void *)(at - below), bytes + below, PROT_NONE, ANON | MAP_FIXED_NOREPLACE, -1, 0);
		if (firn_os_failed(p))
			continue;
		firn_os.munmap(p, bytes + below);
		if ((uintptr_t)p == at - below)
			return at;
	}
#endif
	p = firn_os.mmap(NULL, bytes + below + FIRN_UNIT_BYTES, PROT_NONE, ANON, -1, 0);
	if (firn_os_failed(p))
		return 0;
	firn_os.munmap(p, bytes + below + FIRN_UNIT_BYTES);
	return ((uintptr_t)p + below + FIRN_UNIT_BYTES - 1) & ~(FIRN_UNIT_BYTES - 1);
}

int firn_heap_open(void)
{
	struct firn_heap *h = &firn_heap;
	uint64_t bytes = MAX_HEAP_BYTES;
	struct rlimit r;
	void *p;

	for (int set = 0; set < 2; set++)
		for (uint32_t l = 0; l < LISTS; l++)
			lists[set][l] = FIRN_NO_UNIT;
	if (!firn_os.call(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&r, 0, 0) && r.rlim_cur < bytes) {
		h->limited = true;
		bytes = (r.rlim_cur + FIRN_UNIT_BYTES - 1) & ~(uint64_t)(FIRN_UNIT_BYTES - 1);
		if (bytes < MIN_HEAP_BYTES)
			bytes = MIN_HEAP_BYTES;
	}
	/* This one counts what is mapped, not what is in use, too. */
	if (!firn_os.call(SYS_prlimit64, 0, RLIMIT_DATA, 0, (long)&r, 0, 0) && r.rlim_cur < bytes)
		h->limited = true;
	for (h->base = 0; bytes >= MIN_HEAP_BYTES; bytes /= 2) {
		/* A quarter of it is looked for at least: under a limit on address space not all is free. */
		uint64_t below = bytes / FIRN_UNIT_BYTES * sizeof(struct firn_span);

		below = (below + METADATA_STEP - 1) & ~(METADATA_STEP - 1);
		h->base = choose_base(h->limited ? bytes / 4 : bytes, below);
		if (h->base)
			break;
	}
	if (!h->base)
		return -ENOMEM;
	h->max_units = (uint32_t)(bytes / FIRN_UNIT_BYTES);
	p = firn_os.mmap(NULL, (h->max_units + 65535) & ~(size_t)65535, PROT_NONE, ANON, -1, 0);
	if (firn_os_failed(p))
		return -ENOMEM;
	h->kinds = p;
	h->nohuge = huge_always();
	return 0;
}
