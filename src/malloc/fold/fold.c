/* SPDX-License-Identifier: MIT */
/*
 * A pass, from stage to stage: looks for written pages, scans the window, searches where enough may be gained,
 * carries out what was found where enough will be.  Owns the window's cursor and the budget of mappings.
 */
#include "malloc/fold/fold.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "malloc/config.h"
#include "malloc/fold/barrier.h"
#include "malloc/fold/frame.h"
#include "malloc/fold/helper.h"
#include "malloc/fold/pass.h"
#include "malloc/os.h"
#include "malloc/stats.h"

#define STEP_NS 300000u                 /* of a slice that only computes */
#define LEAST_GAIN_PAGES 256u           /* 1 MiB */
#define GAIN_PERCENT 5u                 /* of what the window holds */
#define DENSE_PERCENT 60u               /* how full frames are guessed to get */
#define WINDOWS 2048u
#define POSTPONE_MAX 4u                 /* passes */
#define TIDY_MAX 1000u                  /* slices */
#define AGAIN_MS 50u
#define BEGUN_MS 1u                     /* what was begun is looked after so often */
#define AGAIN_MAX 40u                   /* times */
#define DEFAULT_MAX_MAP_COUNT 65530u
#define CORE_FILTER_SHARED_FILE 4u      /* MMF_DUMP_MAPPED_PRIVATE: private mappings of files */

struct firn_pass firn_pass;

static struct {
	uint32_t vmas;                  /* as counted, and added to since */
	uint8_t skip;                   /* searches to leave out, since the last ones gave nothing */
	uint8_t fruitless;
	uint8_t postponed;
	uint8_t look;                   /* passes until written pages are looked for again */
	uint8_t look_every;
} windows[WINDOWS];

static uint32_t cursor;                 /* of windows */
static uint32_t max_vmas;               /* that folds may add; 0: not known yet */
static uint32_t allowed_vmas;           /* of them, as far as the kernel allowed them of late */
static uint32_t again;
static bool prepared;
static uint32_t class_bytes[FIRN_FOLDABLE_LAST + 1];

uint64_t firn_cpu_ns(int clock)
{
	struct timespec t = { 0, 0 };

	firn_os.call(SYS_clock_gettime, clock, (long)&t, 0, 0, 0, 0);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct {
	int (*fn)(void *arg);
	void *arg;
	uint64_t ns;
	bool begun;                     /* nobody waits for the helper, and nobody asked yet what came of it */
} errand;

static int run_errand(void *arg)
{
	int r = errand.fn(errand.arg);

	(void)arg;
	errand.ns = firn_cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	return r;
}

static int begin_errand(void)
{
	static bool never;
	int err = never || firn_pass.force ? -ENOSYS : firn_helper_begin(run_errand, NULL);

	never = never || (err == -ENOSYS && !firn_pass.force);
	errand.begun = !err;
	return err ? -EBUSY : -EINPROGRESS;
}

int firn_pass_helper(int (*fn)(void *arg), void *arg, bool wait)
{
	int r;

	if (errand.begun) {
		if (!firn_helper_ended())
			return -EINPROGRESS;
		errand.begun = false;
		r = firn_helper_result();
	} else {
		errand.fn = fn;
		errand.arg = arg;
		errand.ns = 0;
		r = wait ? firn_helper_run(run_errand, NULL) : begin_errand();
		if (r == -EINPROGRESS)
			return r;
	}
	firn_pass.helper_ns += errand.ns;
	return r;
}

bool firn_pass_begun(void)
{
	return errand.begun;
}

void firn_pass_finish(void)
{
	firn_helper_wait();
	if (errand.begun && firn_pass.stage == FIRN_PASS_CARRY)
		firn_carry();
}

/* In the helper, once: the limit of mappings; and that core dumps hold what is folded. */
static int prepare(void *arg)
{
	char text[32];
	uint32_t n = 0;

	(void)arg;
	if (firn_helper_read("/proc/sys/vm/max_map_count", text, sizeof(text)) > 0)
		for (const char *t = text; *t >= '0' && *t <= '9'; t++)
			n = n * 10 + (uint32_t)(*t - '0');
	if (!n)
		n = DEFAULT_MAX_MAP_COUNT;
	allowed_vmas = max_vmas = (uint32_t)((uint64_t)n * firn_config.vma_percent / 100);
	if (firn_config.core && firn_helper_read("/proc/self/coredump_filter", text, sizeof(text)) > 0) {
		uint32_t filter = 0;
		int fd;

		for (const char *t = text; *t && *t != '\n'; t++)
			filter = filter * 16 + (uint32_t)(*t <= '9' ? *t - '0' : (*t | 32) - 'a' + 10);
		/* The filter is the memory's, which we share. */
		fd = firn_helper_open("/proc/self/coredump_filter", O_WRONLY);
		if (fd >= 0) {
			char *end = firn_helper_put(text, "0x"), *at = end;

			filter |= CORE_FILTER_SHARED_FILE;
			for (int shift = 28; shift >= 0; shift -= 4)
				*at++ = "0123456789abcdef"[filter >> shift & 15];
			firn_os.call(SYS_write, fd, (long)text, at - text, 0, 0, 0);
			firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
		}
	}
	return 0;
}

static uint32_t window(void)
{
	return firn_pass.first / FIRN_WINDOW_UNITS % WINDOWS;
}

/* From the classes' counts alone: may a search be worth it? */
static bool promising(void)
{
	uint64_t held = 0, used = 0, saved = firn_counted(&firn_counters.saved_pages) * FIRN_PAGE_BYTES, least;

	for (unsigned int c = 1; c <= FIRN_FOLDABLE_LAST; c++) {
		int64_t slots = atomic_load_explicit(&firn_bins[c].used, memory_order_relaxed);

		held += (uint64_t)__atomic_load_n(&firn_bins[c].nspans, __ATOMIC_RELAXED) * FIRN_UNIT_BYTES;
		used += slots > 0 ? (uint64_t)slots * firn_classes[c].size : 0;
	}
	least = held / 100 * GAIN_PERCENT;
	if (least < LEAST_GAIN_PAGES * FIRN_PAGE_BYTES)
		least = LEAST_GAIN_PAGES * FIRN_PAGE_BYTES;
	return held > used + saved + least;
}

static uint64_t least_gain_pages(void)
{
	uint64_t pages = firn_pass.touched_pages * GAIN_PERCENT / 100;

	return pages > LEAST_GAIN_PAGES ? pages : LEAST_GAIN_PAGES;
}

static bool open_plan(void)
{
	struct firn_plan *p = &firn_pass.plan;
	uint32_t npages = firn_pass.units * FIRN_UNIT_PAGES;
	uint64_t used = firn_counted(&firn_counters.vmas);

	if (!prepared) {
		if (firn_frames_open() || firn_pass_helper(prepare, NULL, true))
			return false;
		prepared = true;
	}
	/* The program may have fewer mappings of its own by now. */
	allowed_vmas += max_vmas / 64;
	if (allowed_vmas > max_vmas)
		allowed_vmas = max_vmas;
	if (used >= allowed_vmas)
		return false;
	firn_pass.bytes = firn_plan_bytes(npages, firn_config.region_bytes);
	firn_pass.memory = firn_os.mmap(NULL, firn_pass.bytes, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (firn_os_failed(firn_pass.memory)) {
		firn_pass.memory = NULL;
		return false;
	}
	firn_os.madvise(firn_pass.memory, firn_pass.bytes, MADV_DONTFORK);
	firn_plan_open(p, firn_pass.memory, npages, firn_config.region_bytes);
	for (unsigned int c = 1; c <= FIRN_FOLDABLE_LAST; c++)
		class_bytes[c] = firn_classes[c].size;
	p->class_bytes = class_bytes;
	p->nclasses = FIRN_FOLDABLE_LAST + 1;
	p->vma_budget = allowed_vmas;
	p->vmas_before = (uint32_t)used;
	return true;
}

static void to_stage(enum firn_pass_stage stage)
{
	firn_pass.stage = stage;
	firn_pass.at = 0;
}

void firn_pass_begin(bool force)
{
	uint32_t units = __atomic_load_n(&firn_heap.units, __ATOMIC_ACQUIRE), w;
	bool folds = firn_counted(&firn_counters.folded_pages) != 0;

	if ((uint64_t)cursor * FIRN_WINDOW_UNITS >= units)
		cursor = 0;
	firn_pass = (struct firn_pass) {
		.force = force,
		.unfolds = firn_counted(&firn_counters.unfolds_by_write),
		.first = cursor * FIRN_WINDOW_UNITS,
		.units = units - cursor * FIRN_WINDOW_UNITS,
	};
	cursor++;
	again = 0;
	if (firn_pass.units > FIRN_WINDOW_UNITS)
		firn_pass.units = FIRN_WINDOW_UNITS;
	w = window();
	firn_pass.search = force || promising();
	if (firn_pass.search && windows[w].skip && !force) {
		windows[w].skip--;
		firn_pass.search = false;
	}
	if (!firn_pass.units || (!firn_pass.search && !folds && !firn_frames_untidy() && !promising()))
		return;
	if (firn_pass.search)
		firn_pass.search = open_plan();
	to_stage(FIRN_PASS_SCAN);
	if (folds && prepared) {
		if (force || !windows[w].look) {
			windows[w].look = windows[w].look_every;
			to_stage(FIRN_PASS_LOOK);
		} else {
			windows[w].look--;
		}
	}
}

void firn_pass_end(void)
{
	if (firn_pass.memory)
		firn_os.munmap(firn_pass.memory, firn_pass.bytes);
	firn_pass.memory = NULL;
	firn_pass.stage = FIRN_PASS_NONE;
	errand.begun = false;
}

static void looked(void)
{
	uint64_t found = firn_counted(&firn_counters.unfolds_by_write) - firn_pass.unfolds;
	uint8_t *every = &windows[window()].look_every;

	/* Seldom where little is found. */
	if (found * 256 > firn_counted(&firn_counters.folded_pages))
		*every = 1;
	else if (*every < 15)
		*every = (uint8_t)(*every * 2 + 1);
}

static void scanned(void)
{
	uint32_t w = window();
	uint64_t needed;

	firn_uncount(&firn_counters.vmas, windows[w].vmas);
	windows[w].vmas = firn_pass.vmas;
	firn_count(&firn_counters.vmas, firn_pass.vmas);
	if (!firn_pass.search) {
		to_stage(FIRN_PASS_TIDY);
		return;
	}
	firn_scan_check_heads();
	needed = firn_pass.live_bytes * 100 / DENSE_PERCENT / FIRN_PAGE_BYTES;
	if (firn_pass.live_pages < needed + (firn_pass.force ? 1 : least_gain_pages())) {
		to_stage(FIRN_PASS_TIDY);
		return;
	}
	/* Where much is not quiet yet, there will be more to choose from soon. */
	if (!firn_pass.force && firn_pass.young_pages * 4 > firn_pass.live_pages && windows[w].postponed < POSTPONE_MAX) {
		windows[w].postponed++;
		to_stage(FIRN_PASS_TIDY);
		return;
	}
	windows[w].postponed = 0;
	firn_count(&firn_counters.passes, 1);
	firn_plan_start(&firn_pass.plan);
	to_stage(FIRN_PASS_SEARCH);
}

static void searched(void)
{
	uint32_t w = window();

	if (!firn_pass.plan.saved_pages || (!firn_pass.force && firn_pass.plan.saved_pages < least_gain_pages())) {
		if (windows[w].fruitless < 5)
			windows[w].fruitless++;
		windows[w].skip = (uint8_t)(1u << windows[w].fruitless);
		to_stage(FIRN_PASS_TIDY);
		return;
	}
	windows[w].fruitless = 0;
	windows[w].vmas += firn_pass.plan.vmas;
	firn_count(&firn_counters.vmas, firn_pass.plan.vmas);
	to_stage(FIRN_PASS_CARRY);
}

/* Until the time is over: the stage's function for each unit.  Returns whether all are done. */
static bool units(void (*fn)(uint32_t unit), uint64_t until)
{
	bool released = false;

	while (firn_pass.at < firn_pass.units) {
		fn(firn_pass.first + firn_pass.at++);
		if (firn_pass.nrelease) {
			firn_scan_release();
			released = true;
		}
		if ((released || firn_pass.at % 8 == 0) && firn_os.clock_ns() > until)
			break;
	}
	return firn_pass.at >= firn_pass.units;
}

static int ask_exclusive(void *arg)
{
	*(bool *)arg = firn_frames_exclusive();
	return 0;
}

static void tidy(uint32_t *ret_wait_ms)
{
	static bool exclusive;
	bool more = false;

	if (firn_frames_untidy() && !firn_pass.asked) {
		int err;

		if (!errand.begun) {
			exclusive = false;
			firn_frames_choose();
		}
		err = firn_pass_helper(ask_exclusive, &exclusive, false);
		if (err == -EBUSY)
			err = firn_pass_helper(ask_exclusive, &exclusive, true);
		if (err == -EINPROGRESS) {
			*ret_wait_ms = BEGUN_MS;
			return;
		}
		firn_pass.asked = true;
	}
	if (firn_pass.asked)
		firn_pass.given_back += firn_frames_tidy(exclusive, firn_os.clock_ns() + STEP_NS, &more) * FIRN_PAGE_BYTES;
	/* Not for ever: others make it untidy again meanwhile. */
	if (!more || firn_pass.at++ >= TIDY_MAX)
		firn_pass_end();
}

static void carry(uint32_t *ret_wait_ms)
{
	uint64_t before = firn_counted(&firn_counters.saved_pages);
	int err = firn_carry();

	if (err == -EINPROGRESS) {
		*ret_wait_ms = BEGUN_MS;
		return;
	}
	if (firn_counted(&firn_counters.saved_pages) > before)
		firn_pass.given_back += (firn_counted(&firn_counters.saved_pages) - before) * FIRN_PAGE_BYTES;
	if (firn_pass.full && allowed_vmas > firn_counted(&firn_counters.vmas) / 4 * 3)
		allowed_vmas = (uint32_t)(firn_counted(&firn_counters.vmas) / 4 * 3);
	if (err == -EAGAIN && again++ < AGAIN_MAX) {
		*ret_wait_ms = AGAIN_MS;
		if (firn_barrier_wait_ms() > AGAIN_MS)
			*ret_wait_ms = (uint32_t)firn_barrier_wait_ms();
		return;
	}
	if (!err)
		again = 0;
	/* Between two stops nothing is to be tried. */
	if (!err && firn_pass.at < firn_pass.plan.npages)
		*ret_wait_ms = (uint32_t)firn_barrier_wait_ms();
	if (err && err != -EAGAIN)
		windows[window()].skip = UINT8_MAX;
	if (err || firn_pass.full || firn_pass.at >= firn_pass.plan.npages)
		to_stage(FIRN_PASS_TIDY);
}

bool firn_pass_slice(uint32_t *ret_wait_ms)
{
	uint64_t begun = firn_os.clock_ns(), until = begun + STEP_NS, ns, cpu = firn_cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	int err;

	*ret_wait_ms = 0;
	firn_pass.helper_ns = 0;
	switch (firn_pass.stage) {
	case FIRN_PASS_NONE:
		return false;
	case FIRN_PASS_LOOK:
		err = firn_scan_look();
		if (err == -EINPROGRESS) {
			*ret_wait_ms = BEGUN_MS;
		} else if (err || firn_pass.at >= firn_pass.units) {
			looked();
			to_stage(FIRN_PASS_SCAN);
		}
		break;
	case FIRN_PASS_SCAN:
		if (!units(firn_scan_unit, until))
			break;
		if (firn_pass.search && firn_counted(&firn_counters.folded_pages))
			to_stage(FIRN_PASS_HEADS);
		else
			scanned();
		break;
	case FIRN_PASS_HEADS:
		if (units(firn_scan_heads, until))
			to_stage(FIRN_PASS_MEMBERS);
		break;
	case FIRN_PASS_MEMBERS:
		if (units(firn_scan_members, until))
			scanned();
		break;
	case FIRN_PASS_SEARCH:
		while (firn_plan_step(&firn_pass.plan, 64))
			if (firn_os.clock_ns() > until)
				break;
		if (firn_pass.plan.search.level < 0)
			searched();
		break;
	case FIRN_PASS_CARRY:
		carry(ret_wait_ms);
		break;
	case FIRN_PASS_TIDY:
		tidy(ret_wait_ms);
		break;
	}
	/* What a slice costs is processor time; how long it may be felt is not. */
	ns = firn_cpu_ns(CLOCK_THREAD_CPUTIME_ID) - cpu + firn_pass.helper_ns;
	firn_pass.spent_ns += ns;
	firn_count(&firn_counters.fold_ns, ns);
	firn_count_pause(firn_os.clock_ns() - begun);
	return firn_pass.stage != FIRN_PASS_NONE;
}
