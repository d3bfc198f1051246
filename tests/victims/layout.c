/* SPDX-License-Identifier: MIT */
/*
 * Changes its own address space at random while its memory is away, and holds every page against a model:
 * mremap (in place, moved, swapped three ways, DONTUNMAP), partial munmap, DONTNEED, FREE, mprotect, brk.
 * Other threads fault all the while.  A call that works without Firn must work with it.
 */
#include "victim.h"

#include <malloc.h>

#define MAPS 24
#define CAP 1024                        /* pages a mapping may grow to */
#define LOT (64ull << 20)               /* address space each place has */
#define BASE 0x100000000000ull
#define PLACES 4096
#define BRK_CAP 2048
#define FIXED 4096                      /* pages that never change, for the other threads */

struct map {
	char *addr;
	size_t pages;
	int prot;
	struct v_page *page;            /* CAP entries of the truth */
};

static struct map *maps;                /* in shared memory, as the truth is */
static struct v_page *brk_page;
static char *brk_base;
static size_t brk_pages;
static unsigned int next_place;
static uint64_t first_fixed;
static atomic_int touchers_stop;
static pthread_t toucher[2];

/* Nothing but @a and @b lies in these @pages, and all of them in the part that is ours alone. */
static bool is_free(const char *at, size_t pages, const struct map *a, const struct map *b)
{
	if ((uintptr_t)at < BASE || (uintptr_t)at + pages * V_PAGE > BASE + PLACES * LOT)
		return false;
	for (const struct map *m = maps; m < maps + MAPS; m++) {
		if (m != a && m != b && m->addr && at < m->addr + m->pages * V_PAGE && m->addr < at + pages * V_PAGE)
			return false;
	}
	return true;
}

static char *place(void)
{
	for (;;) {
		char *at = (char *)(uintptr_t)(BASE + LOT * (next_place++ % PLACES) + V_PAGE * (v_rand() % 64));

		if (is_free(at, CAP, NULL, NULL))
			return at;
	}
}

static void gone(struct v_page *p)
{
	p->kind = V_GONE;
}

static void zero(struct v_page *p, char *addr)
{
	p->addr = (uintptr_t)addr;
	p->kind = V_ZERO;
	p->flags = 0;
	p->patch_at = V_WORDS;
}

static void moved(struct map *m, char *addr)
{
	m->addr = addr;
	for (size_t i = 0; i < m->pages; i++)
		m->page[i].addr = (uintptr_t)addr + i * V_PAGE;
}

static void fresh(struct v_page *p)
{
	p->id = ++v_t->next_id;
	p->kind = (uint8_t)v_any_kind();
	p->patch_at = V_WORDS;
	v_write(p);
}

static int map_new(struct map *m)
{
	m->pages = 1 + v_rand() % 256;
	m->prot = PROT_READ | PROT_WRITE;
	m->addr = mmap(place(), m->pages * V_PAGE, m->prot,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (m->addr == MAP_FAILED)
		return v_say("mmap: %s", strerror(errno));
	for (size_t i = 0; i < CAP; i++)
		gone(&m->page[i]);
	for (size_t i = 0; i < m->pages; i++) {
		zero(&m->page[i], m->addr + i * V_PAGE);
		if (v_rand() % 8)
			fresh(&m->page[i]);
	}
	return 0;
}

static int set_prot(struct map *m, int prot)
{
	if (mprotect(m->addr, m->pages * V_PAGE, prot))
		return v_say("mprotect of %zu pages at %p to %d: %s", m->pages, (void *)m->addr, prot, strerror(errno));
	m->prot = prot;
	for (size_t i = 0; i < m->pages; i++)
		m->page[i].flags = prot == PROT_NONE ? V_NOACCESS : prot == PROT_READ ? V_READONLY : 0;
	return 0;
}

static int grow(struct map *m, bool may_move)
{
	size_t more = 1 + v_rand() % 64;
	char *a;

	if (m->pages + more > CAP)
		return 0;
	/* In place where there is room; where the kernel says so otherwise, as realloc() does. */
	may_move = may_move || !is_free(m->addr, m->pages + more, m, NULL);
	a = mremap(m->addr, m->pages * V_PAGE, (m->pages + more) * V_PAGE, may_move ? MREMAP_MAYMOVE : 0);
	if (a == MAP_FAILED)
		return v_say("mremap growing %zu pages at %p by %zu: %s", m->pages, (void *)m->addr, more,
			     strerror(errno));
	for (size_t i = m->pages; i < m->pages + more; i++) {
		zero(&m->page[i], a + i * V_PAGE);
		m->page[i].flags = m->page[0].flags;
	}
	moved(m, a);
	m->pages += more;
	return 0;
}

static int shrink(struct map *m)
{
	size_t fewer = v_rand() % m->pages;

	if (!fewer)
		return 0;
	if (mremap(m->addr, m->pages * V_PAGE, (m->pages - fewer) * V_PAGE, 0) == MAP_FAILED)
		return v_say("mremap shrinking: %s", strerror(errno));
	for (size_t i = m->pages - fewer; i < m->pages; i++)
		gone(&m->page[i]);
	m->pages -= fewer;
	return 0;
}

static int move_to(struct map *m, char *to)
{
	char *a = mremap(m->addr, m->pages * V_PAGE, m->pages * V_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (a != to)
		return v_say("mremap moving %zu pages from %p to %p: %s", m->pages, (void *)m->addr, (void *)to,
			     strerror(errno));
	moved(m, to);
	return 0;
}

/* a and b change places through a third. */
static int swap(struct map *a, struct map *b)
{
	char *at_a = a->addr, *at_b = b->addr;

	size_t apart = (size_t)(at_a < at_b ? at_b - at_a : at_a - at_b) / V_PAGE;

	if (apart < a->pages || apart < b->pages || !is_free(at_a, b->pages, a, b) || !is_free(at_b, a->pages, a, b))
		return 0;
	if (move_to(a, place()) || move_to(b, at_a) || move_to(a, at_b))
		return -1;
	return 0;
}

/* Move the pages and keep the mapping: the old place reads zero.  @b becomes the old place. */
static int dontunmap(struct map *a, struct map *b)
{
	char *old = a->addr, *to = place(), *got;

	if (munmap(b->addr, b->pages * V_PAGE))
		return v_say("munmap: %s", strerror(errno));
	for (size_t i = 0; i < CAP; i++)
		gone(&b->page[i]);
	got = mremap(a->addr, a->pages * V_PAGE, a->pages * V_PAGE,
		     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
	if (got != to)
		return v_say("mremap DONTUNMAP: %s", strerror(errno));
	moved(a, to);
	b->addr = old;
	b->pages = a->pages;
	b->prot = a->prot;
	for (size_t i = 0; i < b->pages; i++) {
		zero(&b->page[i], old + i * V_PAGE);
		b->page[i].flags = a->page[i].flags;
	}
	return 0;
}

/* Unmap the middle of @a: its tail becomes @b, whose own mapping goes. */
static int punch(struct map *a, struct map *b)
{
	size_t from = 1 + v_rand() % (a->pages / 2), n = 1 + v_rand() % (a->pages / 4);

	if (munmap(b->addr, b->pages * V_PAGE) || munmap(a->addr + from * V_PAGE, n * V_PAGE))
		return v_say("munmap: %s", strerror(errno));
	for (size_t i = 0; i < CAP; i++)
		gone(&b->page[i]);
	b->addr = a->addr + (from + n) * V_PAGE;
	b->pages = a->pages - from - n;
	b->prot = a->prot;
	for (size_t i = 0; i < b->pages; i++)
		b->page[i] = a->page[from + n + i];
	for (size_t i = from; i < a->pages; i++)
		gone(&a->page[i]);
	a->pages = from;
	return 0;
}

static int advise(struct map *m, int advice)
{
	size_t from = v_rand() % m->pages, n = 1 + v_rand() % (m->pages - from);

	if (madvise(m->addr + from * V_PAGE, n * V_PAGE, advice))
		return v_say("madvise %d: %s", advice, strerror(errno));
	for (size_t i = from; i < from + n; i++) {
		struct v_page *p = &m->page[i];

		if (advice == MADV_DONTNEED) {
			p->kind = V_ZERO;
			p->patch_at = V_WORDS;
		} else if (p->kind != V_EITHER) {
			p->old = p->kind;
			p->kind = V_EITHER;
		}
	}
	return 0;
}

/* A look at one page of a closed mapping would split it, and mremap fails across two. */
static int open_all(void)
{
	for (struct map *m = maps; m < maps + MAPS; m++) {
		if (m->prot == PROT_NONE && set_prot(m, PROT_READ | PROT_WRITE))
			return -1;
	}
	return 0;
}

static int look_or_write(struct map *m)
{
	if (m->prot == PROT_NONE)
		return 0;
	for (int k = 0; k < 8; k++) {
		struct v_page *p = &m->page[v_rand() % m->pages];

		if (p->flags || v_rand() & 1)
			v_check(p);
		else
			fresh(p);
	}
	return atomic_load(&v_bad_pages) ? -1 : 0;
}

/* Dropped, touched at once: the old contents must not come back. */
static int drop_and_touch(struct map *m)
{
	for (int k = 0; k < 16; k++) {
		struct v_page *p = &m->page[v_rand() % m->pages];

		if (p->flags)
			return 0;
		if (madvise((void *)(uintptr_t)p->addr, V_PAGE, MADV_DONTNEED))
			return v_say("madvise: %s", strerror(errno));
		p->kind = V_ZERO;
		p->patch_at = V_WORDS;
		if (k & 1)
			v_check(p);
		else
			fresh(p);
	}
	return atomic_load(&v_bad_pages) ? -1 : 0;
}

static int brk_to(size_t pages)
{
	if (brk(brk_base + pages * V_PAGE))
		return v_say("brk: %s", strerror(errno));
	for (size_t i = pages; i < brk_pages; i++)
		gone(&brk_page[i]);
	for (size_t i = brk_pages; i < pages; i++) {
		zero(&brk_page[i], brk_base + i * V_PAGE);
		if (v_rand() & 1)
			fresh(&brk_page[i]);
	}
	brk_pages = pages;
	return 0;
}

static int step(void)
{
	struct map *a = &maps[v_rand() % MAPS], *b = &maps[v_rand() % MAPS];
	unsigned int what = (unsigned int)(v_rand() % 16);

	switch (what) {
	case 0:
		return grow(a, false);
	case 1:
		return grow(a, true);
	case 2:
		return shrink(a);
	case 3:
		return move_to(a, place());
	case 4:
		return a == b ? 0 : swap(a, b);
	case 5:
		return a == b ? 0 : dontunmap(a, b);
	case 6:
		return a == b || a->pages < 16 ? 0 : punch(a, b);
	case 7:
	case 8:
		return advise(a, MADV_DONTNEED);
	case 9:
		return advise(a, MADV_FREE);
	case 10:
		return set_prot(a, PROT_NONE);
	case 11:
		return set_prot(a, PROT_READ);
	case 12:
		return set_prot(a, PROT_READ | PROT_WRITE);
	case 13:
		return brk_to(v_rand() % BRK_CAP);
	case 14:
		if (v_rand() % 4 == 0) {
			if (munmap(a->addr, a->pages * V_PAGE))
				return v_say("munmap: %s", strerror(errno));
			return map_new(a);
		}
		return drop_and_touch(a);
	default:
		return look_or_write(a);
	}
}

static void *touch(void *arg)
{
	uint64_t rng = (uintptr_t)arg;

	while (!atomic_load(&touchers_stop)) {
		rng = v_mix(rng + 1);
		v_check(&v_t->page[first_fixed + rng % FIXED]);
		if (rng % 64 == 0)
			v_sleep_ms(1);
	}
	return NULL;
}

/* @args random changes. */
static int cmd_layout(char *args)
{
	uint64_t n = v_count(args, 300);
	int ret = 0;

	atomic_store(&touchers_stop, 0);
	for (int i = 0; i < 2; i++) {
		if (pthread_create(&toucher[i], NULL, touch, (void *)(uintptr_t)v_rand()))
			v_die("pthread_create");
	}
	for (uint64_t i = 0; i < n && !ret; i++)
		ret = step();
	atomic_store(&touchers_stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(toucher[i], NULL);
	if (atomic_load(&v_bad_pages))
		return v_result(n);
	if (!ret)
		v_say("%" PRIu64 " changes", n);
	return ret;
}

static int cmd_touch_random(char *args)
{
	return open_all() ? -1 : v_cmd_touch_random(args);
}

static int cmd_touch_order(char *args)
{
	return open_all() ? -1 : v_cmd_touch_order(args);
}

static int cmd_verify(char *args)
{
	return open_all() ? -1 : v_cmd_verify(args);
}

static int cmd_fork(char *args)
{
	return open_all() ? -1 : v_cmd_fork(args);
}

static int cmd_threads(char *args)
{
	return open_all() ? -1 : v_cmd_threads(args);
}

/* Change, then look at everything. */
static int cmd_all(char *args)
{
	return cmd_layout(args) ? -1 : cmd_touch_random(NULL);
}

/* A mapping grows and is not touched there; then its middle goes, and the grown tail stands alone. */
static int cmd_grow_split(char *args)
{
	struct map *m = &maps[v_count(args, 0) % MAPS];
	size_t old = m->pages, more = 64;
	char *a;

	if (m->prot != (PROT_READ | PROT_WRITE) || old + more > CAP || !is_free(m->addr, old + more, m, NULL))
		return v_say("choose another mapping");
	a = mremap(m->addr, old * V_PAGE, (old + more) * V_PAGE, 0);
	if (a != m->addr || munmap(a + (old - 1) * V_PAGE, 9 * V_PAGE))
		return v_say("mremap, munmap: %s", strerror(errno));
	gone(&m->page[old - 1]);
	for (size_t i = old + 8; i < old + more; i++) {
		struct v_page p = { .addr = (uintptr_t)a + i * V_PAGE, .patch_at = V_WORDS };

		v_check(&p);
	}
	if (munmap(a + (old + 8) * V_PAGE, (more - 8) * V_PAGE))
		return v_say("munmap: %s", strerror(errno));
	m->pages = old - 1;
	return m->pages ? v_result(more - 8) : map_new(m);
}

/* Part of a mapping gets another protection, and a page next to the cut is touched first. */
static int cmd_protect_part(char *args)
{
	for (struct map *m = maps; m < maps + MAPS; m++) {
		if (m->prot != (PROT_READ | PROT_WRITE) || m->pages < 8)
			continue;
		if (mprotect(m->addr + 3 * V_PAGE, V_PAGE, PROT_READ))
			return v_say("mprotect: %s", strerror(errno));
		v_check(&m->page[2]);
		v_check(&m->page[3]);
		v_check(&m->page[4]);
		if (set_prot(m, PROT_READ | PROT_WRITE))
			return -1;
	}
	(void)args;
	return v_result(3 * MAPS);
}

static struct v_page *reserve(size_t n)
{
	struct v_page *p = &v_t->page[v_t->n];

	for (size_t i = 0; i < n; i++)
		p[i] = (struct v_page){ .kind = V_GONE, .patch_at = V_WORDS };
	v_t->n += n;
	return p;
}

static const struct v_command commands[] = {
	{ "layout", cmd_layout },
	{ "layout-touch", cmd_all },
	{ "grow-split", cmd_grow_split },
	{ "protect-part", cmd_protect_part },
	{ "touch-random", cmd_touch_random },
	{ "touch-order", cmd_touch_order },
	{ "verify", cmd_verify },
	{ "fork", cmd_fork },
	{ "threads", cmd_threads },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	v_start(argc, argv, 0, 65536);
	maps = mmap(NULL, MAPS * sizeof(*maps), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (maps == MAP_FAILED)
		v_die("maps");
	for (int i = 0; i < MAPS; i++) {
		maps[i].page = reserve(CAP);
		if (map_new(&maps[i]))
			v_die("%s", v_text);
	}
	/* malloc takes its share of the heap first and never asks again: what follows it is ours. */
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	free(malloc(100000));
	brk_page = reserve(BRK_CAP);
	brk_base = (char *)(((uintptr_t)sbrk(0) + V_PAGE - 1) & ~(V_PAGE - 1));
	if (brk(brk_base) || brk_to(BRK_CAP / 2))
		v_die("brk: %s", v_text);
	first_fixed = v_t->n;
	v_add_range(v_map(FIXED, PROT_READ | PROT_WRITE, 0), FIXED);
	v_ready();
	return v_loop(commands);
}
