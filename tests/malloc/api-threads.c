/* SPDX-License-Identifier: MIT */
/* Threads: whose memory is freed by whom, in which order they end, and signals that come in between. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "m.h"

#define THREADS 8

static void run(void *(*f)(void *), unsigned int n)
{
	pthread_t t[64];

	for (uintptr_t i = 0; i < n; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, f, (void *)i), 0);
	for (unsigned int i = 0; i < n; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
}

/* Slots through which objects go from hand to hand. */
#define HANDS 4096
static struct m_object *_Atomic hands[HANDS];

static struct m_object *new_object(size_t n, uint64_t seed)
{
	struct m_object *o = malloc(sizeof(*o));

	CHECK(o);
	*o = (struct m_object){ .p = malloc(n), .bytes = (uint32_t)n, .seed = seed };
	CHECK(o->p);
	m_fill(o->p, n, seed);
	return o;
}

static void drop_object(struct m_object *o)
{
	if (!o)
		return;
	CHECK_FILL(o->p, o->bytes, o->seed);
	free(o->p);
	free(o);
}

static void *hand_on(void *arg)
{
	uint64_t rng = (uintptr_t)arg + 1;

	for (int i = 0; i < 60000; i++) {
		size_t n = i % 4000 == 0 ? 300000 : i % 50 == 0 ? m_below(&rng, 20000) : m_below(&rng, 500);

		drop_object(atomic_exchange(&hands[m_below(&rng, HANDS)], new_object(n + 1, rng)));
	}
	return NULL;
}

static void empty_hands(void)
{
	for (int i = 0; i < HANDS; i++)
		drop_object(atomic_exchange(&hands[i], NULL));
}

/* Nearly every object is freed by another thread than allocated it. */
static void remote(void)
{
	run(hand_on, THREADS);
	empty_hands();
}

/* Threads that end while others free what they allocated, again and again. */
static void *short_lived(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 77 + 5;

	for (int i = 0; i < 300; i++)
		drop_object(atomic_exchange(&hands[m_below(&rng, HANDS)], new_object(1 + m_below(&rng, 600), rng)));
	return NULL;
}

static void *starter(void *arg)
{
	for (uintptr_t i = 0; i < 150; i++) {
		pthread_t t;

		CHECK_EQ(pthread_create(&t, NULL, short_lived, (void *)((uintptr_t)arg * 1000 + i)), 0);
		if (i % 3)
			CHECK_EQ(pthread_join(t, NULL), 0);
		else
			CHECK_EQ(pthread_detach(t), 0);
	}
	return NULL;
}

static void exit_while_freed(void)
{
	run(starter, 4);
	empty_hands();
}

/* What ended threads cached is for others: many threads need no more memory than one. */
static size_t heap_size(void)
{
	size_t size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%zu %zu", &size, &pages) == 2);
	fclose(f);
	return pages * 4096;
}

static void *use_some(void *arg)
{
	void *p[200];

	(void)arg;
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++) {
			p[i] = malloc((size_t)i * 20 + 1);
			memset(p[i], 1, (size_t)i * 20 + 1);
		}
		for (int i = 0; i < 200; i++)
			free(p[i]);
	}
	return NULL;
}

static void many_threads(void)
{
	size_t before, after;

	for (int i = 0; i < 50; i++)
		run(use_some, 4);
	before = heap_size();
	for (int i = 0; i < 200; i++)
		run(use_some, 4);
	after = heap_size();
	if (after > before + (24 << 20))
		FAIL("%zu MB after 200 threads, %zu MB after 1000", before >> 20, after >> 20);
}

/* Destructors of thread-specific data run when much of a thread is gone; they free, allocate, and come again. */
static pthread_key_t keys[6];
static atomic_int destroyed;

static void destroy(void *value)
{
	struct m_object *o = value;
	uint64_t seed = o->seed;

	for (int k = 0; k < 300; k++)
		drop_object(new_object((size_t)k * 7 % 3000 + 1, seed));
	drop_object(o);
	atomic_fetch_add(&destroyed, 1);
	/* Again, until the C library has had enough: seeds count down. */
	if (seed % 10 > 0)
		CHECK_EQ(pthread_setspecific(keys[seed / 10 % 6], new_object(100 + seed, seed - 1)), 0);
}

static void *with_keys(void *arg)
{
	for (uint64_t k = 0; k < 6; k++)
		CHECK_EQ(pthread_setspecific(keys[k], new_object(50 + k * 100, k * 10 + 2)), 0);
	for (uint64_t i = 0; i < 2000; i++)
		drop_object(new_object(i % 900 + 1, i));
	/* One that never allocated but here; one that ends in the middle of things. */
	if ((uintptr_t)arg & 1)
		pthread_exit(NULL);
	return NULL;
}

static void destructors(void)
{
	/* Created before and after the allocator's own, whatever that is. */
	for (int k = 0; k < 6; k++)
		CHECK_EQ(pthread_key_create(&keys[k], destroy), 0);
	for (int i = 0; i < 10; i++)
		run(with_keys, 6);
	CHECK_EQ(atomic_load(&destroyed), 10 * 6 * 6 * 3);
}

static void *free_last(void *arg)
{
	CHECK_EQ(pthread_setspecific(keys[0], arg), 0);
	return NULL;
}

/* A thread whose only word to the allocator is the free in its destructor. */
static void destructor_only(void)
{
	CHECK_EQ(pthread_key_create(&keys[0], free), 0);
	for (int i = 0; i < 300; i++) {
		pthread_t t;
		char *p = malloc((size_t)i * 10 + 1);

		CHECK_EQ(pthread_create(&t, NULL, free_last, p), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
	}
}

__attribute__((noreturn))
static void *until_cancelled(void *arg)
{
	uint64_t rng = (uintptr_t)arg;
	void *p[64] = { NULL };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	for (;;) {
		size_t i = m_below(&rng, 64);

		free(p[i]);
		p[i] = malloc(m_below(&rng, 2000));
		if (i == 0) {
			for (int k = 0; k < 64; k++) {
				free(p[k]);
				p[k] = NULL;
			}
			pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
			pthread_testcancel();
			pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		}
	}
}

static void cancel(void)
{
	for (int round = 0; round < 40; round++) {
		pthread_t t[4];

		for (uintptr_t i = 0; i < 4; i++)
			CHECK_EQ(pthread_create(&t[i], NULL, until_cancelled, (void *)i), 0);
		for (int i = 0; i < 4; i++)
			CHECK_EQ(pthread_cancel(t[i]), 0);
		for (int i = 0; i < 4; i++) {
			void *result;

			CHECK_EQ(pthread_join(t[i], &result), 0);
			CHECK(result == PTHREAD_CANCELED);
		}
	}
}

/* The main thread ends first, while others go on; the process ends well with the last of them. */
static void *after_main(void *arg)
{
	while (syscall(SYS_tgkill, getpid(), getpid(), 0) == 0) {
		char state = 0;
		FILE *f = fopen("/proc/self/stat", "r");

		CHECK(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1);
		fclose(f);
		if (state == 'Z')
			break;
		sched_yield();
	}
	hand_on(arg);
	if (m_firn())
		m_fold();
	empty_hands();
	exit(0);
}

static void main_ends(void)
{
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, after_main, NULL), 0);
	pthread_exit(NULL);
}

/*
 * Signals.  A handler that was let in at a moment of the program's choosing may do all that the program may; one
 * that interrupts the allocator may free.  (The C library's allocator deadlocks there, so the control does not.)
 */
#define POOL 20000
static char *_Atomic pool[POOL];
static atomic_int pooled, freed_in_handler, in_handler_wrong;

static void handler_frees(int s)
{
	int saved = errno, i = atomic_fetch_sub(&pooled, 1) - 1;

	(void)s;
	if (i < 0) {
		atomic_store(&pooled, 0);
		return;
	}
	char *p = atomic_exchange(&pool[i], NULL);

	if (p) {
		size_t n = 20 + (size_t)i % 700;

		if (m_differs(p, n, (uint64_t)i) != n)
			atomic_fetch_add(&in_handler_wrong, 1);
		free(p);
		atomic_fetch_add(&freed_in_handler, 1);
	}
	errno = saved;
}

static void handler_balanced(int s)
{
	static _Atomic uint64_t count;
	uint64_t i = atomic_fetch_add(&count, 1);
	int saved = errno;
	size_t n = i % 40 == 0 ? 70000 : 1 + i * 37 % 1500;
	char *p = malloc(n);

	(void)s;
	/* NULL is an answer here: memory for such moments is short. */
	if (p) {
		m_fill(p, n, i);
		p = realloc(p, n);
		if (p && m_differs(p, n, i) != n)
			atomic_fetch_add(&in_handler_wrong, 1);
		free(p);
	}
	errno = saved;
}

static void on_alarm(void (*f)(int))
{
	struct sigaction sa = { .sa_handler = f, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 100 }, { 0, 100 } };

	CHECK_EQ(sigaction(SIGALRM, &sa, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void fill_pool(void)
{
	for (int i = 0; i < POOL; i++) {
		char *p = malloc(20 + (size_t)i % 700);

		CHECK(p);
		m_fill(p, 20 + (size_t)i % 700, (uint64_t)i);
		atomic_store(&pool[i], p);
	}
	atomic_store(&pooled, POOL);
}

static void busy(int rounds, bool fold)
{
	enum { N = 3000 };
	struct m_object *o = m_map(N * sizeof(*o));
	uint64_t rng = 11;

	for (int i = 0; i < rounds; i++) {
		size_t k = m_below(&rng, N);

		if (o[k].p) {
			CHECK_FILL(o[k].p, o[k].bytes, o[k].seed);
			free(o[k].p);
		}
		o[k].bytes = (uint32_t)(1 + (i % 3000 == 0 ? 90000 : m_below(&rng, 1200)));
		o[k].seed = rng;
		o[k].p = malloc(o[k].bytes);
		CHECK(o[k].p);
		m_fill(o[k].p, o[k].bytes, o[k].seed);
		if (fold && i % 20000 == 0)
			m_fold();
	}
	for (int i = 0; i < N; i++)
		free(o[i].p);
	munmap(o, N * sizeof(*o));
}

static void signal_frees(void)
{
	fill_pool();
	if (m_firn()) {
		on_alarm(handler_frees);
		for (int i = 0; i < 100 && atomic_load(&freed_in_handler) < 3000; i++)
			busy(30000, i % 8 == 7);
	} else {
		signal(SIGALRM, handler_frees);
		while (atomic_load(&freed_in_handler) < POOL)
			raise(SIGALRM);
	}
	signal(SIGALRM, SIG_IGN);
	CHECK(atomic_load(&freed_in_handler) > 0);
	CHECK_EQ(atomic_load(&in_handler_wrong), 0);
	busy(100000, true);
}

static void signal_balanced(void)
{
	if (m_firn()) {
		on_alarm(handler_balanced);
		for (int i = 0; i < 12; i++)
			busy(30000, i % 8 == 7);
	} else {
		signal(SIGALRM, handler_balanced);
		for (int i = 0; i < 5000; i++)
			raise(SIGALRM);
	}
	signal(SIGALRM, SIG_IGN);
	CHECK_EQ(atomic_load(&in_handler_wrong), 0);
	busy(100000, true);
}

static void *busy_thread(void *arg)
{
	(void)arg;
	busy(150000, false);
	return NULL;
}

/* Signals to all threads, each with its own allocations, while one folds. */
static void signal_threads(void)
{
	fill_pool();
	if (m_firn())
		on_alarm(handler_frees);
	run(busy_thread, 4);
	signal(SIGALRM, SIG_IGN);
	CHECK_EQ(atomic_load(&in_handler_wrong), 0);
	busy(50000, true);
}

/* A handler on an alternate stack, in a thread with the smallest stack there is. */
static void *small_stack(void *arg)
{
	(void)arg;
	for (int i = 0; i < 300; i++) {
		void *p = malloc((size_t)i * 333 + 1);

		memset(p, 1, (size_t)i * 333 + 1);
		p = realloc(p, (size_t)i * 30 + 1);
		free(p);
		if (i % 100 == 0)
			m_fold();
	}
	return NULL;
}

static void small_stacks(void)
{
	struct m_objects o = m_folded(5);
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	CHECK_EQ(pthread_attr_setstacksize(&a, 16384), 0);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(pthread_create(&t, &a, small_stack, NULL), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
	}
	m_check_all(&o);
	m_free_all(&o);
}

static const struct m_case cases[] = {
	{ "remote", remote },
	{ "exit-while-freed", exit_while_freed },
	{ "many-threads", many_threads },
	{ "destructors", destructors },
	{ "destructor-only", destructor_only },
	{ "cancel", cancel },
	{ "main-ends", main_ends },
	{ "signal-frees", signal_frees },
	{ "signal-balanced", signal_balanced },
	{ "signal-threads", signal_threads },
	{ "small-stacks", small_stacks },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
