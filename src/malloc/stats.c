/* SPDX-License-Identifier: MIT */
/* Counters, the walk over the heap, and the ways to print both.  Prints by write(2), but for malloc_info. */
#include "malloc/stats.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "malloc/api.h"
#include "malloc/config.h"
#include "malloc/large.h"

struct firn_malloc_counters firn_counters;

static unsigned int used_slots(struct firn_span *s, unsigned int c)
{
	const struct firn_class *k = &firn_classes[c];
	unsigned int words = k->page_slots ? k->page_words * FIRN_UNIT_PAGES : k->page_words, n = 0;

	for (unsigned int w = 0; w < words; w++)
		n += (unsigned int)__builtin_popcountll(atomic_load_explicit(&s->mask[w], memory_order_relaxed));
	return n;
}

static void look_at_span(struct firn_usage *u, struct firn_span *s, unsigned int c)
{
	unsigned int used = used_slots(s, c);

	u->spans++;
	u->small += (uint64_t)used * firn_classes[c].size;
	if (used < firn_classes[c].slots)
		u->class_free[c] += firn_classes[c].slots - used;
	/* What maps a frame counts by the frame. */
	u->touched += (unsigned int)__builtin_popcount(s->touched & (uint16_t)~s->closed) * FIRN_PAGE_BYTES;
}

/* Free units from @unit on that are one run, or at least look like one. */
static uint32_t free_run(struct firn_usage *u, uint32_t unit, uint32_t units)
{
	const struct firn_span *s = firn_span_of(unit);
	uint32_t n = s->units;

	/* It may be joined or cut at this very moment. */
	if (!n || n > units - unit)
		n = 1;
	u->free_runs++;
	u->free_bytes += (uint64_t)n * FIRN_UNIT_BYTES;
	if (s->resident)
		u->free_resident += (uint64_t)n * FIRN_UNIT_BYTES;
	return n;
}

/* No lock: somebody may ask in a signal handler, or in a child made by a raw clone() whose parent's other threads
 * held them.  Metadata stays mapped, so that what is read is stale at worst. */
__attribute__((no_sanitize("thread"))) void firn_stats_walk(struct firn_usage *u)
{
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE), n;

	memset(u, 0, sizeof(*u));
	for (uint32_t unit = 0; unit < units; unit += n) {
		unsigned int kind = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_ACQUIRE);
		unsigned int c = kind & ~FIRN_KIND_SLOW;

		n = 1;
		if (kind == FIRN_KIND_NONE) {
			n = free_run(u, unit, units);
		} else if (kind == FIRN_KIND_LARGE) {
			u->large++;
			u->large_bytes += firn_span_of(unit)->bytes;
		} else if (c != FIRN_CLASS_NONE && c < FIRN_CLASSES) {
			look_at_span(u, firn_span_of(unit), c);
		}
	}
	for (unsigned int c = 1; c < FIRN_CLASSES; c++)
		u->free_bytes += u->class_free[c] * firn_classes[c].size;
	u->huge_bytes = firn_huge_bytes();
	u->huge = firn_huge_count();
	u->heap = (uint64_t)units * FIRN_UNIT_BYTES;
	u->allocated = u->small + u->large_bytes + u->huge_bytes;
	u->mapped = u->heap + u->huge_bytes;
	u->touched += u->large_bytes + u->huge_bytes + u->free_resident +
		      firn_counted(&firn_counters.frames) * FIRN_PAGE_BYTES;
}

static const char *tier_name(unsigned int tier)
{
	static const char *const names[] = {
		[FIRN_BARRIER_AUTO] = "not tried", [FIRN_BARRIER_NONE] = "none",     [FIRN_BARRIER_WP] = "write-protect",
		[FIRN_BARRIER_TRACER] = "tracer",  [FIRN_BARRIER_OFF] = "impossible",
	};

	return tier <= FIRN_BARRIER_OFF ? names[tier] : "?";
}

/* The p-th permille of the pauses, in microseconds: no more than it says, and half of it at least. */
static unsigned long pause_us(unsigned int permille)
{
	uint64_t total = 0, below = 0;

	for (unsigned int i = 0; i < FIRN_PAUSES; i++)
		total += firn_counted(&firn_counters.pauses[i]);
	for (unsigned int i = 0; i < FIRN_PAUSES; i++) {
		below += firn_counted(&firn_counters.pauses[i]);
		if (total && below * 1000 >= total * permille)
			return (unsigned long)(((uint64_t)2 << i) / 1000);
	}
	return 0;
}

static unsigned long counted(const _Atomic uint64_t *counter)
{
	return (unsigned long)firn_counted(counter);
}

void firn_stats_print(void)
{
	const struct firn_malloc_counters *k = &firn_counters;
	const char *why = atomic_load_explicit(&k->why, memory_order_relaxed);
	const char *name = program_invocation_short_name;
	unsigned int pid = (unsigned int)getpid();
	struct firn_usage u;

	firn_stats_walk(&u);
	firn_say("%s[%u]: %lu KiB allocated (%lu small, %lu large, %lu huge), %lu KiB touched, %lu KiB mapped", name, pid,
		 u.allocated >> 10, u.small >> 10, u.large_bytes >> 10, u.huge_bytes >> 10, u.touched >> 10, u.mapped >> 10);
	firn_say("%s[%u]: %lu pages folded onto %lu frames, %lu KiB saved, %lu mappings added", name, pid,
		 counted(&k->folded_pages), counted(&k->frames), counted(&k->saved_pages) << 2, counted(&k->vmas));
	firn_say("%s[%u]: %lu passes, %lu folds (%lu failed), %lu pages unfolded by writes, %lu released, %lu purged", name,
		 pid, counted(&k->passes), counted(&k->folds), counted(&k->failed_folds), counted(&k->unfolds_by_write),
		 counted(&k->released_pages), counted(&k->purged_pages));
	firn_say("%s[%u]: folding took %lu us; pauses p50 %lu us, p99 %lu us, longest %lu us; %lu stops", name, pid,
		 counted(&k->fold_ns) / 1000, pause_us(500), pause_us(990), counted(&k->longest_pause_ns) / 1000,
		 counted(&k->stops));
	firn_say("%s[%u]: barrier: %s%s%s", name, pid, tier_name(atomic_load_explicit(&k->barrier, memory_order_relaxed)),
		 why ? "; " : "", why ? why : "");
}

/* Last of all: what runs at exit may still allocate and free. */
__attribute__((destructor(101))) static void at_exit(void)
{
	if (firn_config.stats)
		firn_stats_print();
}

FIRN_PUBLIC void FIRN_NAME(malloc_stats)(void)
{
	int saved = errno;

	firn_stats_print();
	errno = saved;
}

FIRN_PUBLIC struct mallinfo2 FIRN_NAME(mallinfo2)(void)
{
	struct mallinfo2 m;
	struct firn_usage u;

	firn_stats_walk(&u);
	memset(&m, 0, sizeof(m));
	m.arena = u.heap;
	m.ordblks = u.free_runs;
	for (unsigned int c = 1; c < FIRN_CLASSES; c++)
		m.smblks += u.class_free[c];
	m.hblks = u.huge;
	m.hblkhd = u.huge_bytes;
	m.uordblks = u.small + u.large_bytes;
	m.fordblks = u.heap - (m.uordblks < u.heap ? m.uordblks : u.heap);
	m.fsmblks = u.free_bytes < m.fordblks ? u.free_bytes : m.fordblks;
	m.keepcost = u.free_resident;
	return m;
}

static int cut(size_t n)
{
	return n > INT32_MAX ? INT32_MAX : (int)n;
}

/* Numbers that do not fit stay at the largest that does, where glibc's wrap around. */
FIRN_PUBLIC struct mallinfo FIRN_NAME(mallinfo)(void)
{
	struct mallinfo2 m = FIRN_NAME(mallinfo2)();

	return (struct mallinfo){
		.arena = cut(m.arena),
		.ordblks = cut(m.ordblks),
		.smblks = cut(m.smblks),
		.hblks = cut(m.hblks),
		.hblkhd = cut(m.hblkhd),
		.fsmblks = cut(m.fsmblks),
		.uordblks = cut(m.uordblks),
		.fordblks = cut(m.fordblks),
		.keepcost = cut(m.keepcost),
	};
}

static void put(FILE *f, const char *before, uint64_t n)
{
	char digits[24];
	int i = sizeof(digits) - 1;

	digits[i] = '\0';
	do
		digits[--i] = (char)('0' + n % 10);
	while (n /= 10);
	fputs(before, f);
	fputs(digits + i, f);
}

static void put_totals(FILE *f, const struct firn_usage *u)
{
	uint64_t count = u->free_runs;

	for (unsigned int c = 1; c < FIRN_CLASSES; c++)
		count += u->class_free[c];
	fputs("<total type=\"fast\" count=\"0\" size=\"0\"/>\n", f);
	put(f, "<total type=\"rest\" count=\"", count);
	put(f, "\" size=\"", u->free_bytes);
	fputs("\"/>\n", f);
}

static void put_system(FILE *f, uint64_t bytes)
{
	put(f, "<system type=\"current\" size=\"", bytes);
	put(f, "\"/>\n<system type=\"max\" size=\"", bytes);
	put(f, "\"/>\n<aspace type=\"total\" size=\"", bytes);
	put(f, "\"/>\n<aspace type=\"mprotect\" size=\"", bytes);
	fputs("\"/>\n", f);
}

/* glibc's form, with an element <firn> of our own.  The caller's stream may allocate its buffer: no lock is
 * held here. */
FIRN_PUBLIC int FIRN_NAME(malloc_info)(int options, FILE *f)
{
	const struct firn_malloc_counters *k = &firn_counters;
	struct firn_usage u;

	if (options)
		return EINVAL;
	firn_stats_walk(&u);
	fputs("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n", f);
	for (unsigned int c = 1; c < FIRN_CLASSES; c++) {
		if (!u.class_free[c])
			continue;
		put(f, "<size from=\"", firn_classes[c].size);
		put(f, "\" to=\"", firn_classes[c].size);
		put(f, "\" total=\"", u.class_free[c] * firn_classes[c].size);
		put(f, "\" count=\"", u.class_free[c]);
		fputs("\"/>\n", f);
	}
	fputs("</sizes>\n", f);
	put_totals(f, &u);
	put_system(f, u.heap);
	fputs("</heap>\n", f);
	put_totals(f, &u);
	put(f, "<total type=\"mmap\" count=\"", u.huge);
	put(f, "\" size=\"", u.huge_bytes);
	fputs("\"/>\n", f);
	put_system(f, u.heap + u.huge_bytes);
	put(f, "<firn allocated=\"", u.allocated);
	put(f, "\" touched=\"", u.touched);
	put(f, "\" folded_pages=\"", counted(&k->folded_pages));
	put(f, "\" frames=\"", counted(&k->frames));
	put(f, "\" saved=\"", counted(&k->saved_pages) * FIRN_PAGE_BYTES);
	put(f, "\" vmas=\"", counted(&k->vmas));
	put(f, "\" passes=\"", counted(&k->passes));
	fputs("\"/>\n</malloc>\n", f);
	return 0;
}
