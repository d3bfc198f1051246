/* SPDX-License-Identifier: MIT */
/*
 * Carrying out groups.  Pages are held (closed to allocation) first, under their class's lock; from then on their
 * masks can only lose bits.  Then, in the helper and under the barrier: the masks are read, what lives is copied
 * to its place in one buffer, the buffer is written to the store, and each run is mapped onto it.  A run that
 * fails at any step stays what and where it was.
 *
 * Where the barrier lets all threads run, nobody waits for the helper: what it did is found by a later call.  A page
 * is then held no longer than its group takes, and the helper and what the kernel does when it goes are paid for
 * many groups.
 */
#include <errno.h>
#include <string.h>
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

#define SLICE_NS 750000u                /* aimed at, where other threads run on */
#define FIXED_NS 150000u                /* of it, for the helper and the store, until learnt: with the number of
					 * mappings grows what the kernel does when the helper and its userfaultfd go */
#define RUNS_MIN 32u
#define STOP_NS 6000000u                /* of a stop of all other threads, which comes rarely */
#define LONG_NS 10000000u               /* of a helper that nobody waits for */
#define LOOK_NS 1000000u                /* such a one looks so often whether it still may */
#define RESERVE 256u                    /* mappings that are left to the program at least */
#define ROOM 640u                       /* found out at once, beside the reserve */
#define ROOM_LONG 2100u                 /* where a slice may have more runs than that is enough for */
#define RUN_PAGES (1u << FIRN_PLAN_SHIFT_MAX)
#define MASK_WORDS 4u                   /* of a page, at most */

struct run {
	uint32_t page;                  /* of the plan */
	uint8_t shift, class;
	uint8_t live;                   /* bit i: page i of the run has objects */
	bool held, taken, done;         /* closed by us; under the barrier; mapped onto the frames */
	uint16_t bits;                  /* pages of its unit */
	uint16_t closed_before;
	uint16_t frame;                 /* of the store */
};

struct group {
	uint32_t head;
	uint16_t first, n;              /* runs */
	uint16_t frame;                 /* of the store */
	uint8_t shift;
	uint8_t filled;                 /* bit i: frame i holds bytes */
};

static struct {
	struct group groups[FIRN_SLICE_RUNS / 2];
	struct run runs[FIRN_SLICE_RUNS];
	unsigned int ngroups, nruns;
	uint32_t frames;                /* of the store */
	uint32_t first_frame;
	uint32_t next;                  /* firn_pass.at, when all groups are done */
	bool tried;                     /* the barrier was open */
	bool probes;                    /* the helper finds out what room there is */
	uint32_t room;                  /* that it found */
	enum firn_barrier_tier tier;
	uint64_t groups_ns, groups_cpu_ns;      /* what carrying out groups took */
	char buffer[RUN_PAGES * FIRN_PAGE_BYTES] __attribute__((aligned(4096)));
} slice;

static uint64_t run_ns = 20000;         /* what a run takes, and a slice besides, as learnt */
static uint64_t fixed_ns = FIXED_NS;

static struct firn_span *span_of(const struct run *r)
{
	return firn_span_of(firn_pass_unit(r->page));
}

/* Close the pages of a run.  Others may be closed already, by being folded. */
static bool hold(struct run *r)
{
	uint32_t unit = firn_pass_unit(r->page);
	unsigned int c = __atomic_load_n(&firn_heap.kinds[unit], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;
	struct firn_span *s = firn_span_of(unit);

	if (!firn_class_foldable(c))
		return false;
	r->class = (uint8_t)c;
	r->bits = (uint16_t)(((1u << (1u << r->shift)) - 1) << r->page % FIRN_UNIT_PAGES);
	firn_lock_take(&firn_bins[c].lock);
	if (s->class == c && !((s->never | s->busy) & r->bits)) {
		r->held = true;
		r->closed_before = s->closed & r->bits;
		s->closed |= r->bits;
		s->busy |= r->bits;
		firn_fold_reopened(s, unit, c);
	}
	firn_lock_drop(&firn_bins[c].lock);
	return r->held;
}

/* The pages have got new frames, or they are as they were. */
static void settle(const struct run *r, const struct group *g)
{
	uint32_t unit = firn_pass_unit(r->page);
	unsigned int at = r->page % FIRN_UNIT_PAGES;
	struct firn_span *s = firn_span_of(unit);

	firn_lock_take(&firn_bins[r->class].lock);
	for (unsigned int i = 0; r->done && i < 1u << r->shift; i++) {
		uint16_t bit = (uint16_t)(1u << (at + i));
		uint32_t frame = slice.first_frame + r->frame + i;

		if (s->folded & bit)
			firn_frame_drop(s->frame[at + i]);
		if ((r->closed_before | s->copied) & bit)
			firn_frame_unmap(s->frame[at + i]);
		if (!(r->closed_before & bit))
			firn_count(&firn_counters.folded_pages, 1);
		s->frame[at + i] = frame;
		firn_frame_map(frame, g->shift, r->live >> i & 1);
		if (r->live >> i & 1)
			s->folded |= bit;
		else
			s->folded &= (uint16_t)~bit;
	}
	if (r->done)
		s->copied &= (uint16_t)~r->bits;
	else
		s->closed &= (uint16_t)~(r->bits & ~r->closed_before);
	s->busy &= (uint16_t)~r->bits;
	firn_fold_reopened(s, unit, r->class);
	firn_lock_drop(&firn_bins[r->class].lock);
}

static void read_mask(const struct run *r, unsigned int i, uint64_t *ret)
{
	const struct firn_class *k = &firn_classes[r->class];
	unsigned int page = r->page % FIRN_UNIT_PAGES + i, region = firn_pass.plan.region_bytes;
	struct firn_span *s = span_of(r);

	memset(ret, 0, MASK_WORDS * sizeof(*ret));
	for (unsigned int w = 0; w < k->page_words; w++) {
		uint64_t bits = atomic_load_explicit(&s->mask[page * k->page_words + w], memory_order_acquire);

		for (; bits; bits &= bits - 1) {
			unsigned int first = (w * 64 + (unsigned int)__builtin_ctzll(bits)) * k->size;

			for (unsigned int b = first / region; b <= (first + k->size - 1) / region; b++)
				ret[b / 64] |= (uint64_t)1 << b % 64;
		}
	}
}

/* What lives goes to the same offsets of the run of frames: region by region, as the masks have it. */
static void copy(const struct run *r, unsigned int i, const uint64_t *mask, unsigned int to)
{
	unsigned int region = firn_pass.plan.region_bytes, n = firn_pass.plan.regions;
	const char *from = firn_pass_address(r->page) + i * FIRN_PAGE_BYTES;
	char *page = slice.buffer + (size_t)to * FIRN_PAGE_BYTES;

	for (unsigned int b = 0, e; b < n; b = e) {
		if (!(mask[b / 64] >> b % 64)) {
			e = (b / 64 + 1) * 64;
			continue;
		}
		b += (unsigned int)__builtin_ctzll(mask[b / 64] >> b % 64);
		for (e = b; e < n && mask[e / 64] >> e % 64 & 1; e++)
			;
		memcpy(page + b * region, from + b * region, (e - b) * region);
	}
}

/* Take a run under the barrier, and its objects into the buffer, unless others have their places. */
static bool take(struct firn_barrier *b, const struct group *g, struct run *r, uint64_t *all)
{
	unsigned int npages = 1u << r->shift, to = r->frame - g->frame;
	uint64_t masks[RUN_PAGES][MASK_WORDS], meet = 0;

	if (firn_barrier_hold(b, firn_pass_address(r->page), npages))
		return false;
	for (unsigned int i = 0; i < npages; i++) {
		uint64_t any = 0;

		read_mask(r, i, masks[i]);
		for (unsigned int w = 0; w < MASK_WORDS; w++) {
			meet |= masks[i][w] & all[(to + i) * MASK_WORDS + w];
			any |= masks[i][w];
		}
		r->live |= (uint8_t)(any ? 1u << i : 0);
	}
	if (meet || !r->live) {
		firn_barrier_release(b, firn_pass_address(r->page), npages, false);
		return false;
	}
	for (unsigned int i = 0; i < npages; i++) {
		for (unsigned int w = 0; w < MASK_WORDS; w++)
			all[(to + i) * MASK_WORDS + w] |= masks[i][w];
		if (r->live >> i & 1)
			copy(r, i, masks[i], to + i);
	}
	return true;
}

/* Write the frames that hold bytes.  Others stay holes of the store. */
static bool store(const struct group *g, int fd)
{
	for (unsigned int i = 0, n; i < 1u << g->shift; i += n + 1) {
		long bytes;

		for (n = 0; i + n < 1u << g->shift && g->filled >> (i + n) & 1; n++)
			;
		bytes = (long)(n * FIRN_PAGE_BYTES);
		if (n && firn_os.call(SYS_pwrite64, fd, (long)(slice.buffer + i * FIRN_PAGE_BYTES), bytes,
				      (long)((g->frame + i) * FIRN_PAGE_BYTES), 0, 0) != bytes)
			return false;
	}
	return true;
}

static void carry_group(struct firn_barrier *b, struct group *g, int fd)
{
	uint64_t all[RUN_PAGES * MASK_WORDS] = { 0 };
	unsigned int runs = 0, pages = 0;
	bool ok;

	memset(slice.buffer, 0, FIRN_PAGE_BYTES << g->shift);
	g->filled = 0;
	for (struct run *r = &slice.runs[g->first]; r < &slice.runs[g->first + g->n]; r++) {
		r->taken = r->held && take(b, g, r, all);
		if (!r->taken)
			continue;
		runs++;
		pages += (unsigned int)__builtin_popcount(r->live);
		g->filled |= (uint8_t)(r->live << (r->frame - g->frame));
	}
	/* What it was to give may be gone by now. */
	ok = runs > 1 && pages > (unsigned int)__builtin_popcount(g->filled) && store(g, fd);
	for (struct run *r = &slice.runs[g->first]; r < &slice.runs[g->first + g->n]; r++) {
		char *address = firn_pass_address(r->page);
		size_t npages = (size_t)1 << r->shift;

		if (!r->taken)
			continue;
		if (ok) {
			void *p;

			/* Were the helper ended here: a page that is not mapped is as one that was written since. */
			r->done = true;
			p = firn_os.mmap(address, npages * FIRN_PAGE_BYTES, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
					       (long)(r->frame * FIRN_PAGE_BYTES));

			r->done = !firn_os_failed(p);
			if (!r->done && (intptr_t)p == -ENOMEM)
				firn_pass.full = true;
		}
		firn_barrier_release(b, address, npages, r->done);
	}
}

/* Groups from @group on are left for another time. */
static void leave_from(unsigned int group)
{
	slice.next = slice.groups[group].head;
	slice.ngroups = group;
}

static void carry_groups(struct firn_barrier *b, int fd)
{
	uint64_t begun = firn_os.clock_ns(), now = begun, looked = begun;

	for (unsigned int i = 0; i < slice.ngroups && !firn_pass.full; i++) {
		uint64_t before = now;

		if ((slice.tier == FIRN_BARRIER_TRACER && now - begun > STOP_NS) ||
		    (!firn_helper.caller && atomic_load(&firn_helper.hurry))) {
			leave_from(i);
			break;
		}
		if (!firn_helper.caller && now - looked > LOOK_NS) {
			if (firn_barrier_look(b)) {
				leave_from(i);
				break;
			}
			looked = now;
		}
		carry_group(b, &slice.groups[i], fd);
		now = firn_os.clock_ns();
		if (!firn_helper.caller)
			firn_count_pause(now - before);
	}
	slice.groups_ns = now - begun;
}

static int carry_in_helper(void *arg)
{
	struct firn_barrier b;
	uint64_t cpu;
	int fd, err;

	(void)arg;
	err = firn_barrier_open(&b);
	if (err)
		return err;
	slice.tier = b.tier;
	if (firn_store_open(slice.frames, &slice.first_frame, &fd, &err) == FIRN_STORE_NONE) {
		firn_barrier_close(&b);
		/* One that is waited for may raise limits. */
		if (!firn_helper.caller)
			return -EBUSY;
		firn_counters.why = err == -EFBIG ? "the limit of file sizes" : "no memory file could be made";
		return err == -ENOMEM ? -EAGAIN : -EPERM;
	}
	slice.tried = true;
	cpu = firn_cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	carry_groups(&b, fd);
	slice.groups_cpu_ns = firn_cpu_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	firn_barrier_close(&b);
	firn_os.call(SYS_close, fd, 0, 0, 0, 0, 0);
	return 0;
}

/* Add the group of @head.  False: no room for it in this slice. */
static bool add_group(uint32_t head)
{
	const struct firn_plan *p = &firn_pass.plan;
	struct group *g = &slice.groups[slice.ngroups];
	unsigned int npages = 1u << p->shift[head];
	uint32_t frame = (slice.frames + npages - 1) & ~(npages - 1);

	if (slice.ngroups == sizeof(slice.groups) / sizeof(slice.groups[0]) ||
	    slice.nruns + p->runs[head] > FIRN_SLICE_RUNS || frame + npages > FIRN_STORE_PAGES_MAX)
		return false;
	*g = (struct group) {
		.head = head, .first = (uint16_t)slice.nruns, .frame = (uint16_t)frame, .shift = p->shift[head],
	};
	for (uint32_t m = head; m != FIRN_PLAN_NONE; m = p->next[m], g->n++)
		slice.runs[slice.nruns++] = (struct run) {
			.page = m, .shift = p->shift[m], .frame = (uint16_t)(frame + p->target[m] - head),
		};
	slice.frames = frame + npages;
	slice.ngroups++;
	return true;
}

/* In the helper: may so many mappings be added?  Nothing tells but to add them. */
static int probe(void *arg)
{
	uint32_t n = slice.room + RESERVE;
	char *p = firn_os.mmap(NULL, n * FIRN_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int err = 0;

	(void)arg;
	if (firn_os_failed(p))
		return -ENOMEM;
	for (uint32_t i = 1; i < n && !err; i += 2) {
		err = firn_os.mprotect(p + i * FIRN_PAGE_BYTES, FIRN_PAGE_BYTES, PROT_READ);
		if (!err && !firn_helper.caller && atomic_load(&firn_helper.hurry))
			err = -EAGAIN;
	}
	firn_os.munmap(p, n * FIRN_PAGE_BYTES);
	return err;
}

/* Nothing but WP lets all threads run; AUTO: not known yet. */
static bool nobody_waits(void)
{
	return (slice.tier == FIRN_BARRIER_WP || slice.tier == FIRN_BARRIER_AUTO) && !firn_pass.force;
}

static uint32_t runs_max(void)
{
	uint64_t most = FIRN_SLICE_RUNS;

	if (nobody_waits())
		most = LONG_NS / run_ns;
	else if (firn_config.barrier != FIRN_BARRIER_TRACER && slice.tier != FIRN_BARRIER_TRACER)
		most = fixed_ns < SLICE_NS ? (SLICE_NS - fixed_ns) / run_ns : 0;
	return most < RUNS_MIN ? RUNS_MIN : most > FIRN_SLICE_RUNS ? FIRN_SLICE_RUNS : (uint32_t)most;
}

/* Groups for one slice, from firn_pass.at on. */
static void choose(void)
{
	const struct firn_plan *p = &firn_pass.plan;
	uint32_t page = firn_pass.at, most = runs_max();

	slice.ngroups = slice.nruns = 0;
	slice.frames = 0;
	for (; page < p->npages; page++) {
		if (p->state[page] != FIRN_PLAN_HEAD || p->shift[page] == UINT8_MAX ||
		    !(p->flags[page] & FIRN_PLAN_CHANGED))
			continue;
		if ((slice.ngroups && slice.nruns + p->runs[page] > most) || !add_group(page))
			break;
	}
	slice.next = page;
}

/* On a busy machine clocks run on while we do not: what was quick counts more than what was slow. */
static void learn_run(uint64_t ns, unsigned int runs)
{
	if (runs)
		run_ns = (run_ns * 7 + ns / runs) / 8;
	if (run_ns < 3000)
		run_ns = 3000;
}

static void learn_fixed(uint64_t ns)
{
	uint64_t rest = ns > slice.groups_ns ? ns - slice.groups_ns : 0;

	if (rest < fixed_ns)
		fixed_ns = rest;
	else
		fixed_ns += fixed_ns / 64 < rest - fixed_ns ? fixed_ns / 64 : rest - fixed_ns;
}

/* What came of the helper, which returned @err. */
static int probed(int err)
{
	if (err == -ENOMEM)
		firn_pass.full = true;
	else if (err)
		return err;
	firn_pass.room = err ? 0 : slice.room;
	return 0;
}

static int carried(int err)
{
	unsigned int done = 0, tried = 0, group = 0;

	for (unsigned int i = 0; i < slice.nruns; i++) {
		struct run *r = &slice.runs[i];

		while (i >= slice.groups[group].first + slice.groups[group].n)
			group++;
		if (r->held)
			settle(r, &slice.groups[group]);
		done += r->done;
		tried += slice.tried && group < slice.ngroups;
	}
	firn_count(&firn_counters.failed_folds, tried - done);
	learn_run(slice.groups_cpu_ns, tried);
	if (err)
		return err;
	firn_pass.at = slice.next;
	firn_count(&firn_counters.folds, done);
	return 0;
}

static int in_helper(void)
{
	int err = firn_pass_helper(slice.probes ? probe : carry_in_helper, NULL, !nobody_waits());

	if (err == -EINPROGRESS)
		return err;
	/* The next one is waited for. */
	if (err == -EBUSY) {
		slice.tier = FIRN_BARRIER_OFF;
		err = -EAGAIN;
	}
	return slice.probes ? probed(err) : carried(err);
}

int firn_carry(void)
{
	uint64_t begun = firn_os.clock_ns();
	int err;

	if (firn_pass_begun())
		return in_helper();
	choose();
	if (!slice.ngroups) {
		firn_pass.at = slice.next;
		return 0;
	}
	slice.probes = firn_pass.room < 2 * slice.nruns + 1;
	slice.tried = false;
	slice.groups_cpu_ns = 0;
	if (slice.probes) {
		slice.room = runs_max() > ROOM / 2 - 1 ? ROOM_LONG : ROOM;
		return in_helper();
	}
	firn_pass.room -= 2 * slice.nruns + 1;
	for (unsigned int i = 0; i < slice.nruns; i++)
		hold(&slice.runs[i]);
	err = in_helper();
	if (!err)
		learn_fixed(firn_os.clock_ns() - begun);
	return err;
}
