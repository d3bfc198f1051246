/* SPDX-License-Identifier: MIT */
/*
 * A thread's cache: for each class an array of slots that are free to use, whose bits in the masks are set.
 * The fast path is one load and one store on it; everything else goes through here.
 */
#ifndef FIRN_MALLOC_CACHE_H
#define FIRN_MALLOC_CACHE_H

#include <stdatomic.h>

#include "malloc/class.h"

struct firn_cache_bin {
	void **slots;                   /* slots[-1] may be read */
	uint32_t n;                     /* in use */
	uint32_t cap;                   /* room; 0 where the slow path is to be taken */
};

struct firn_cache {
	struct firn_cache_bin bins[FIRN_CLASSES];
	struct firn_cache *next;        /* of those that wait for a thread */
	char *room;                     /* for arrays of slots: the next byte, and the end */
	char *room_end;
	uint32_t epoch;
	uint8_t used[FIRN_CLASSES];     /* the bin met the slow path since the epoch began */
};

struct firn_thread {
	struct firn_cache *cache;       /* firn_cache_closed: none, or in the slow path */
	bool busy;                      /* in the slow path: a signal handler that allocates finds this */
	bool dying;                     /* its cache is gone: it does without */
	uint8_t early;                  /* frees before it allocated anything */
};

extern struct firn_cache firn_cache_closed;
extern __thread struct firn_thread firn_thread __attribute__((tls_model("initial-exec")));

/*
 * Keep signal handlers of the calling thread @t out of the allocator: from enter to leave they find it busy, and its
 * cache closed.  Not to be nested: who finds t->busy goes another way (the reserve, below).  Enter returns the cache
 * that the thread has; leave opens that one, or another.  It is read when no handler can come in between any more:
 * one that came before may have opened it.
 */
static inline struct firn_cache *firn_thread_enter(struct firn_thread *t)
{
	struct firn_cache *cache;

	t->busy = true;
	atomic_signal_fence(memory_order_seq_cst);
	cache = t->cache;
	t->cache = &firn_cache_closed;
	atomic_signal_fence(memory_order_seq_cst);
	return cache;
}

static inline void firn_thread_leave(struct firn_thread *t, struct firn_cache *cache)
{
	atomic_signal_fence(memory_order_seq_cst);
	t->cache = cache;
	atomic_signal_fence(memory_order_seq_cst);
	t->busy = false;
}

/* Passes of the folder: a thread gives back what it cached before, when it comes by. */
extern _Atomic uint32_t firn_cache_epoch;

/* The slow paths.  Thread: the one whose cache it is.  errno is kept, but for ENOMEM where NULL is returned. */
void *firn_cache_alloc(unsigned int c);
void firn_cache_free(unsigned int c, void *p);

/* Give all that the calling thread has cached back to the masks. */
void firn_cache_flush(void);

/* Once, before any thread has a cache. */
int firn_cache_open(void);

/* fork: before, and after in parent and child. */
void firn_cache_lock(void);
void firn_cache_unlock(bool child);

/* A signal handler came while its thread was in the slow path: memory from a small reserve that is never
 * used again, and frees that wait. */
void *firn_reserve_alloc(size_t n, size_t align);
bool firn_reserve_has(const void *p);
size_t firn_reserve_usable(const void *p);
void firn_reserve_free_later(void *p);

#endif
