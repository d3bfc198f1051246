/* SPDX-License-Identifier: MIT */
#include "malloc/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "malloc/config.h"
#include "malloc/fold/fold.h"
#include "malloc/heap.h"
#include "malloc/large.h"
#include "malloc/os.h"

#define CACHE_BYTES (160u << 10)        /* address space of one; touched as far as it is used */
#define FIRST_CAP 16u
#define EARLY_FREES 64u                 /* of a thread that has no cache yet */
#define RESERVE_BYTES (64u << 10)

struct firn_cache firn_cache_closed;
__thread struct firn_thread firn_thread __attribute__((tls_model("initial-exec"))) = { &firn_cache_closed, false, false, 0 };
_Atomic uint32_t firn_cache_epoch;

static struct firn_lock lock;           /* of the list below */
static struct firn_cache *waiting;
static pthread_key_t key;

static char reserve[RESERVE_BYTES] __attribute__((aligned(64)));
static _Atomic size_t reserve_used;
static _Atomic(void *) later;           /* frees that wait, linked through their first word */

void *firn_reserve_alloc(size_t n, size_t align)
{
	size_t at, used = atomic_load(&reserve_used);

	if (align < FIRN_ALIGN)
		align = FIRN_ALIGN;
	do {
		/* Its length lies in front of it. */
		at = ((used + FIRN_ALIGN + align - 1) & ~(align - 1));
		if (n > RESERVE_BYTES || align > 4096 || at + n > RESERVE_BYTES)
			return NULL;
	} while (!atomic_compare_exchange_weak(&reserve_used, &used, at + n));
	memcpy(reserve + at - sizeof(size_t), &n, sizeof(n));
	return reserve + at;
}

bool firn_reserve_has(const void *p)
{
	return (uintptr_t)p - (uintptr_t)reserve < RESERVE_BYTES;
}

size_t firn_reserve_usable(const void *p)
{
	size_t n;

	memcpy(&n, (const char *)p - sizeof(n), sizeof(n));
	return n;
}

void firn_reserve_free_later(void *p)
{
	void *head = atomic_load(&later);

	do
		memcpy(p, &head, sizeof(head));
	while (!atomic_compare_exchange_weak(&later, &head, p));
}

/* The slots of frees that had to wait go straight to their masks; what is larger stays. */
static void free_waiting(void)
{
	void *p = atomic_exchange(&later, NULL), *next;

	for (; p; p = next) {
		unsigned int c = __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED) & ~FIRN_KIND_SLOW;

		memcpy(&next, p, sizeof(next));
		firn_span_flush(c, &p, 1);
	}
}

static struct firn_cache *new_cache(void)
{
	struct firn_cache *cache;

	firn_lock_take(&lock);
	cache = waiting;
	if (cache)
		waiting = cache->next;
	firn_lock_drop(&lock);
	if (!cache) {
		cache = firn_os.mmap(NULL, CACHE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				     -1, 0);
		if (firn_os_failed(cache))
			return NULL;
		cache->room = (char *)(cache + 1);
		cache->room_end = (char *)cache + CACHE_BYTES;
	}
	cache->epoch = atomic_load(&firn_cache_epoch);
	return cache;
}

static void flush_bin(struct firn_cache *cache, unsigned int c, unsigned int n)
{
	struct firn_cache_bin *b = &cache->bins[c];

	firn_span_flush(c, b->slots, n);
	b->n -= n;
	memmove(b->slots, b->slots + n, b->n * sizeof(*b->slots));
}

/* Half of a full bin: the oldest, as the newest are still in the processor's cache. */
static void make_room(struct firn_cache *cache, unsigned int c)
{
	struct firn_cache_bin *b = &cache->bins[c];
	unsigned int n = (b->n + 1) / 2;

	if (!firn_depot_put(c, b->slots, n))
		firn_span_flush(c, b->slots, n);
	b->n -= n;
	memmove(b->slots, b->slots + n, b->n * sizeof(*b->slots));
}

static void flush_all(struct firn_cache *cache, bool unused_only)
{
	for (unsigned int c = 1; c < FIRN_CLASSES; c++) {
		if (cache->bins[c].n && !(unused_only && cache->used[c]))
			flush_bin(cache, c, cache->bins[c].n);
		cache->used[c] = 0;
	}
}

/* The thread ends: what it cached is for others. */
static void thread_ends(void *arg)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *cache;

	(void)arg;
	if (t->cache == &firn_cache_closed)
		return;
	cache = firn_thread_enter(t);
	t->dying = true;
	flush_all(cache, false);
	firn_lock_take(&lock);
	cache->next = waiting;
	waiting = cache;
	firn_lock_drop(&lock);
	firn_thread_leave(t, &firn_cache_closed);
}

int firn_cache_open(void)
{
	return -pthread_key_create(&key, thread_ends);
}

void firn_cache_lock(void)
{
	firn_lock_take(&lock);
}

void firn_cache_unlock(bool child)
{
	if (child)
		firn_lock_reset(&lock);
	else
		firn_lock_drop(&lock);
}

/* Room for more slots, up to what the class may have.  False where the bin stays as it is. */
static bool widen(struct firn_cache *cache, unsigned int c)
{
	struct firn_cache_bin *b = &cache->bins[c];
	uint32_t max = firn_classes[c].cache_max, cap = b->cap ? b->cap * 4 : FIRST_CAP;
	size_t bytes;
	void **slots;

	if (cap > max)
		cap = max;
	if (cap <= b->cap)
		return false;
	bytes = (cap + 1) * sizeof(*slots);
	if (bytes > (size_t)(cache->room_end - cache->room))
		return false;
	slots = (void **)(void *)cache->room + 1;
	cache->room += bytes;
	if (b->n)
		memcpy(slots, b->slots, b->n * sizeof(*slots));
	b->slots = slots;
	b->cap = cap;
	return true;
}

/* Own what is about to be used: the thread's cache, made at need.  NULL: do without. */
static struct firn_cache *own(struct firn_thread *t, struct firn_cache *cache)
{
	if (cache != &firn_cache_closed || t->dying)
		return t->dying ? NULL : cache;
	cache = new_cache();
	if (cache && pthread_setspecific(key, cache)) {
		/* It would not be given back at the thread's end. */
		firn_lock_take(&lock);
		cache->next = waiting;
		waiting = cache;
		firn_lock_drop(&lock);
		cache = NULL;
	}
	return cache;
}

static void look_around(struct firn_cache *cache)
{
	uint32_t epoch = atomic_load_explicit(&firn_cache_epoch, memory_order_relaxed);

	if (atomic_load_explicit(&later, memory_order_relaxed))
		free_waiting();
	if (!cache || cache->epoch == epoch)
		return;
	cache->epoch = epoch;
	flush_all(cache, true);
}

static void reverse(void **slots, unsigned int n)
{
	for (unsigned int i = 0; i + 1 < n; i++) {
		void *p = slots[i];

		slots[i] = slots[--n];
		slots[n] = p;
	}
}

void *firn_cache_alloc(unsigned int c)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *before, *cache;
	int saved = errno;
	void *p = NULL;

	if (t->busy) {
		p = firn_reserve_alloc(firn_classes[c].size, FIRN_ALIGN);
		if (!p)
			errno = ENOMEM;
		return p;
	}
	before = firn_thread_enter(t);
	cache = own(t, before);
	look_around(cache);
	if (cache) {
		struct firn_cache_bin *b = &cache->bins[c];
		bool first = !b->cap && t->early;
		unsigned int want;

		/* Often here: more at a time. */
		if (!b->cap || cache->used[c] > 2)
			widen(cache, c);
		if (cache->used[c] < UINT8_MAX)
			cache->used[c]++;
		want = b->cap > 1 ? b->cap / 2 : 1;
		if (b->cap && !b->n)
			b->n = firn_span_refill(c, b->slots, want, b->cap);
		/* Those at the border to another thread's last, then: among them may be what was freed early. */
		if (first && b->n)
			reverse(b->slots, b->n);
		if (b->n)
			p = b->slots[--b->n];
	}
	if (!p && !firn_span_refill(c, &p, 1, 1)) {
		bool zero;

		/* The heap is hemmed in, or memory is out: perhaps there is room elsewhere. */
		p = firn_large_alloc(firn_classes[c].size, firn_classes[c].size & -firn_classes[c].size, &zero);
	}
	firn_thread_leave(t, cache ? cache : &firn_cache_closed);
	if (cache)
		firn_fold_tick(false);
	errno = p ? saved : ENOMEM;
	return p;
}

void firn_cache_free(unsigned int c, void *p)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *before, *cache;
	int saved = errno;

	if (t->busy) {
		firn_reserve_free_later(p);
		return;
	}
	before = firn_thread_enter(t);
	/* What a thread frees before it allocates was another one's, which may well use the rest of its cache line:
	 * it is not kept for this one.  One that goes on so gets a cache for the sake of speed. */
	if (before == &firn_cache_closed && t->early < EARLY_FREES) {
		t->early++;
		cache = NULL;
	} else {
		cache = own(t, before);
	}
	look_around(cache);
	if (!cache || __atomic_load_n(&firn_heap.kinds[firn_unit_of(p)], __ATOMIC_RELAXED) >= FIRN_KIND_SLOW) {
		firn_span_flush(c, &p, 1);
	} else {
		struct firn_cache_bin *b = &cache->bins[c];

		if (b->n == b->cap && (!b->cap || cache->used[c] > 2))
			widen(cache, c);
		if (cache->used[c] < UINT8_MAX)
			cache->used[c]++;
		if (b->n == b->cap && b->n)
			make_room(cache, c);
		if (b->n < b->cap)
			b->slots[b->n++] = p;
		else
			firn_span_flush(c, &p, 1);
	}
	firn_thread_leave(t, cache ? cache : &firn_cache_closed);
	if (cache)
		firn_fold_tick(false);
	errno = saved;
}

void firn_cache_flush(void)
{
	struct firn_thread *t = &firn_thread;
	struct firn_cache *cache;

	if (t->busy || t->cache == &firn_cache_closed)
		return;
	cache = firn_thread_enter(t);
	look_around(cache);
	flush_all(cache, false);
	firn_depot_drain();
	firn_thread_leave(t, cache);
}
