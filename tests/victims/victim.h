/* SPDX-License-Identifier: MIT */
/*
 * What every victim shares: pages with known contents, the truth about them, and the command loop.
 *
 * A victim prints "ready ..." when its memory stands, then reads commands from standard input, one a
 * line, and answers each with one line, "ok ..." or "bad ...".  Every word of a page depends on the
 * seed, the page and the position, so a wrong, stale, shifted or zero page is found.  The truth table
 * lies in shared memory, which Firn never takes: memory that came back empty cannot agree with itself.
 */
#ifndef FIRN_TESTS_VICTIM_H
#define FIRN_TESTS_VICTIM_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define V_PAGE 4096ul
#define V_WORDS (V_PAGE / 8)

enum v_kind {
	V_ZERO,         /* all zero */
	V_FILL,         /* one word repeated */
	V_DUP,          /* one of 64 contents */
	V_RANDOM,       /* does not compress */
	V_HALF,         /* compresses to about a half */
	V_TEXT,         /* compresses well */
	V_GONE,         /* not mapped: not looked at */
	V_EITHER,       /* after MADV_FREE: the old contents (kind in @old) or zeros */
};

enum v_flag {
	V_NOACCESS = 1, /* PROT_NONE now: opened for the look and closed again */
	V_READONLY = 2,
};

struct v_page {
	uint64_t addr;
	uint64_t id;
	uint64_t patch;         /* this word stands at @patch_at; patch_at = V_WORDS: none */
	uint16_t patch_at;
	uint8_t kind, old, flags;
};

struct v_truth {
	uint64_t seed, rng;
	uint64_t n, capacity;
	uint64_t next_id;
	struct v_page page[];
};

struct v_command {
	const char *name;
	/* Returns 0, or -1 with v_say()d text. */
	int (*run)(char *args);
};

static struct v_truth *v_t;
static char v_text[512];
static atomic_int v_bad_pages;
static char v_user_nobody;
static unsigned long v_mib;
static int v_argc;
static char **v_argv;

static inline int __attribute__((format(printf, 1, 2))) v_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v_text, sizeof(v_text), fmt, ap);
	va_end(ap);
	return -1;
}

static inline void __attribute__((format(printf, 1, 2), noreturn)) v_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vdprintf(2, fmt, ap);
	va_end(ap);
	dprintf(2, "\n");
	_exit(99);
}

static inline uint64_t v_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t v_rand(void)
{
	return v_mix(v_t->rng += 0x9e3779b97f4a7c15ull);
}

static inline double v_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void v_sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

/* Word @i of a page of @kind with @id. */
static inline uint64_t v_word(uint64_t seed, unsigned int kind, uint64_t id, unsigned int i)
{
	switch (kind) {
	case V_FILL:
		return v_mix(seed + id % 97 + 1);
	case V_DUP:
		return v_mix(v_mix(seed + 1000 + id % 64) + i);
	case V_RANDOM:
		return v_mix(v_mix(seed ^ id * 0x9e3779b97f4a7c15ull) + i);
	case V_HALF:
		if (i & 1)
			return v_mix(v_mix(seed ^ id * 0x9e3779b97f4a7c15ull) + i);
		return (id << 16) + (i >> 5);
	case V_TEXT:
		return 0x6e72696600000000ull + ((id & 0xffff) << 16) + (i >> 4);
	default:
		return 0;
	}
}

static inline void v_fill(const struct v_page *p, volatile uint64_t *w)
{
	for (unsigned int i = 0; i < V_WORDS; i++)
		w[i] = v_word(v_t->seed, p->kind, p->id, i);
	if (p->patch_at < V_WORDS)
		w[p->patch_at] = p->patch;
}

static inline void v_write(struct v_page *p)
{
	v_fill(p, (volatile uint64_t *)(uintptr_t)p->addr);
}

/* -1 where @w is what @p says, else the first wrong word. */
static inline int v_differs(const struct v_page *p, unsigned int kind, const volatile uint64_t *w)
{
	for (unsigned int i = 0; i < V_WORDS; i++) {
		uint64_t want = i == p->patch_at ? p->patch : v_word(v_t->seed, kind, p->id, i);

		if (w[i] != want)
			return (int)i;
	}
	return -1;
}

static inline bool v_check_at(const struct v_page *p, const volatile uint64_t *w)
{
	struct v_page none = { .patch_at = V_WORDS };
	unsigned int kind = p->kind == V_EITHER ? p->old : p->kind;
	int i = v_differs(p, kind, w);
	uint64_t got, again;
	bool zero;
	int bad;

	if (i < 0)
		return true;
	zero = v_differs(&none, V_ZERO, w) < 0;
	if (p->kind == V_EITHER && zero)
		return true;
	got = w[i];
	again = w[i];
	bad = atomic_fetch_add(&v_bad_pages, 1);
	if (bad < 40) {
		char line[sizeof(v_text)];

		snprintf(line, sizeof(line),
			 "page %" PRIu64 " of %" PRIu64 " at %#" PRIx64 " kind %u flags %u word %d: got %#" PRIx64
			 " (again %#" PRIx64 "), want %#" PRIx64 "%s", (uint64_t)(p - v_t->page), v_t->n, p->addr,
			 p->kind, p->flags, i, got, again,
			 i == p->patch_at ? p->patch : v_word(v_t->seed, kind, p->id, (unsigned int)i),
			 zero ? "; the page is all zero" : "");
		dprintf(2, "pid %d: %s\n", getpid(), line);
		if (bad == 0)
			memcpy(v_text, line, sizeof(v_text));
	}
	return false;
}

static inline bool v_check(const struct v_page *p)
{
	static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
	void *a = (void *)(uintptr_t)p->addr;
	bool ok;

	if (p->kind == V_GONE)
		return true;
	if (!(p->flags & V_NOACCESS))
		return v_check_at(p, a);
	/* Two threads at one page would close it under each other. */
	pthread_mutex_lock(&opening);
	if (mprotect(a, V_PAGE, PROT_READ)) {
		atomic_fetch_add(&v_bad_pages, 1);
		v_say("mprotect at %p: %s", a, strerror(errno));
		pthread_mutex_unlock(&opening);
		return false;
	}
	ok = v_check_at(p, a);
	if (mprotect(a, V_PAGE, PROT_NONE))
		v_die("mprotect back at %p: %s", a, strerror(errno));
	pthread_mutex_unlock(&opening);
	return ok;
}

static inline void v_truth_open(uint64_t seed, uint64_t capacity)
{
	size_t bytes = sizeof(*v_t) + capacity * sizeof(struct v_page);

	v_t = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v_t == MAP_FAILED)
		v_die("truth: %s", strerror(errno));
	v_t->seed = seed;
	v_t->rng = seed;
	v_t->capacity = capacity;
}

/* Know the page at @addr, with contents of @kind, written now. */
static inline struct v_page *v_add(void *addr, enum v_kind kind)
{
	struct v_page *p = &v_t->page[v_t->n];

	if (v_t->n == v_t->capacity)
		v_die("the truth table is full");
	v_t->n++;
	*p = (struct v_page){ .addr = (uintptr_t)addr, .id = ++v_t->next_id, .kind = (uint8_t)kind,
			      .patch_at = V_WORDS };
	v_write(p);
	return p;
}

/* The mix of contents: half of the bytes compress away or are elided. */
static inline enum v_kind v_any_kind(void)
{
	unsigned int r = (unsigned int)(v_rand() % 100);

	return r < 12 ? V_ZERO : r < 20 ? V_FILL : r < 32 ? V_DUP : r < 60 ? V_RANDOM : r < 90 ? V_HALF : V_TEXT;
}

static inline void v_add_range(void *addr, size_t pages)
{
	char *a = addr;

	for (size_t i = 0; i < pages; i++)
		v_add(a + i * V_PAGE, v_any_kind());
}

static inline void *v_map(size_t pages, int prot, int more)
{
	void *a = mmap(NULL, pages * V_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | more, -1, 0);

	if (a == MAP_FAILED)
		v_die("mmap of %zu pages: %s", pages, strerror(errno));
	return a;
}

/* A stride that visits all of @n in an order that looks random. */
static inline uint64_t v_stride(uint64_t n)
{
	static const uint64_t primes[] = { 1000003, 998244353, 15485863, 32452843 };

	for (unsigned int i = 0; i < 4; i++) {
		if (n % primes[i])
			return primes[i] % n ? primes[i] % n : 1;
	}
	return 1;
}

/* Look at @count pages from a random one, in a random order.  Returns 0, or -1. */
static inline int v_check_random(uint64_t salt, uint64_t count)
{
	uint64_t n = v_t->n, step, at;
	int before = atomic_load(&v_bad_pages);

	if (!n)
		return 0;
	step = v_stride(n);
	at = v_mix(salt) % n;
	for (uint64_t i = 0; i < count && i < n; i++) {
		v_check(&v_t->page[at]);
		at = (at + step) % n;
	}
	return atomic_load(&v_bad_pages) == before ? 0 : -1;
}

static inline int v_result(uint64_t looked)
{
	int bad = atomic_exchange(&v_bad_pages, 0);
	char first[sizeof(v_text)];

	if (!bad) {
		v_say("%" PRIu64 " pages", looked);
		return 0;
	}
	memcpy(first, v_text, sizeof(first));
	return v_say("%d pages of %" PRIu64 ", first: %s", bad, looked, first);
}

static inline uint64_t v_count(const char *args, uint64_t otherwise)
{
	return args && *args ? strtoull(args, NULL, 0) : otherwise;
}

static inline int v_cmd_verify(char *args)
{
	(void)args;
	for (uint64_t i = 0; i < v_t->n; i++)
		v_check(&v_t->page[i]);
	return v_result(v_t->n);
}

static inline int v_cmd_touch_order(char *args)
{
	uint64_t n = v_count(args, v_t->n);

	for (uint64_t i = 0; i < n && i < v_t->n; i++)
		v_check(&v_t->page[i]);
	return v_result(n);
}

static inline int v_cmd_touch_random(char *args)
{
	uint64_t n = v_count(args, v_t->n);

	v_check_random(v_rand(), n);
	return v_result(n);
}

/* Change pages: a word here, a whole page there, and know it. */
static inline int v_cmd_mutate(char *args)
{
	uint64_t n = v_count(args, v_t->n / 8);

	for (uint64_t i = 0; i < n && v_t->n; i++) {
		struct v_page *p = &v_t->page[v_rand() % v_t->n];
		volatile uint64_t *w = (volatile uint64_t *)(uintptr_t)p->addr;

		if (p->flags || p->kind == V_GONE || p->kind == V_EITHER)
			continue;
		if (v_rand() & 1) {
			/* One word, written before it is read: a write fault on a page that is away. */
			if (p->patch_at < V_WORDS)
				w[p->patch_at] = v_word(v_t->seed, p->kind, p->id, p->patch_at);
			p->patch_at = (uint16_t)(v_rand() % V_WORDS);
			p->patch = v_rand();
			w[p->patch_at] = p->patch;
		} else {
			p->id = ++v_t->next_id;
			p->kind = (uint8_t)v_any_kind();
			p->patch_at = V_WORDS;
			v_write(p);
		}
	}
	v_say("%" PRIu64 " changes", n);
	return 0;
}

/* Let the kernel read and write pages that may be away: write() and read() through a pipe. */
static inline int v_cmd_kernel(char *args)
{
	uint64_t n = v_count(args, 200);
	uint64_t *bounce;
	int fd[2];

	if (pipe(fd))
		return v_say("pipe: %s", strerror(errno));
	bounce = mmap(NULL, V_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bounce == MAP_FAILED)
		v_die("bounce: %s", strerror(errno));
	for (uint64_t i = 0; i < n && v_t->n; i++) {
		struct v_page *p = &v_t->page[v_rand() % v_t->n];
		void *a = (void *)(uintptr_t)p->addr;
		ssize_t got;

		if (p->flags & V_NOACCESS || p->kind == V_GONE || p->kind == V_EITHER)
			continue;
		if (p->flags & V_READONLY || v_rand() & 1) {
			got = write(fd[1], a, V_PAGE);
			if (got != (ssize_t)V_PAGE)
				return v_say("write from %p: %zd %s", a, got, got < 0 ? strerror(errno) : "");
			if (read(fd[0], bounce, V_PAGE) != (ssize_t)V_PAGE)
				return v_say("read back: %s", strerror(errno));
			v_check_at(p, bounce);
		} else {
			v_fill(p, bounce);
			if (write(fd[1], bounce, V_PAGE) != (ssize_t)V_PAGE)
				return v_say("write: %s", strerror(errno));
			/* In two parts: the first fault of the page is the kernel's, on a part of it. */
			got = read(fd[0], a, 1000);
			if (got == 1000)
				got += read(fd[0], (char *)a + 1000, V_PAGE - 1000);
			if (got != (ssize_t)V_PAGE)
				return v_say("read to %p: %zd %s", a, got, strerror(errno));
			v_check(p);
		}
	}
	munmap(bounce, V_PAGE);
	close(fd[0]);
	close(fd[1]);
	return v_result(n);
}

static inline void *v_thread_check(void *arg)
{
	v_check_random((uintptr_t)arg, v_t->n);
	return NULL;
}

/* All pages by @args threads at once, each in its own order. */
static inline int v_cmd_threads(char *args)
{
	uint64_t n = v_count(args, 4);
	pthread_t th[64];

	if (n > 64)
		n = 64;
	for (uint64_t i = 0; i < n; i++) {
		if (pthread_create(&th[i], NULL, v_thread_check, (void *)(uintptr_t)v_rand()))
			v_die("pthread_create");
	}
	for (uint64_t i = 0; i < n; i++)
		pthread_join(th[i], NULL);
	return v_result(v_t->n);
}

/* In a child: die with the parent, look at everything, exit 0 or 1. */
static inline void __attribute__((noreturn)) v_child_verify(uint64_t salt, int depth)
{
	int status;
	pid_t pid = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&v_bad_pages, 0);
	if (depth > 0) {
		v_check_random(salt, v_t->n / 3);
		pid = fork();
		if (pid == 0)
			v_child_verify(salt + 1, depth - 1);
	}
	v_check_random(salt + 7, v_t->n);
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status)) {
		dprintf(2, "pid %d: grandchild status %#x\n", getpid(), status);
		_exit(1);
	}
	_exit(atomic_load(&v_bad_pages) ? 1 : 0);
}

/* Fork while pages are away; child, grandchild and parent all look at everything. */
static inline int v_cmd_fork(char *args)
{
	uint64_t n = v_count(args, 1);
	uint64_t salt = v_rand();
	pid_t pid[16];
	int status, bad = 0;

	if (n > 16)
		n = 16;
	for (uint64_t i = 0; i < n; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			return v_say("fork: %s", strerror(errno));
		if (pid[i] == 0)
			v_child_verify(salt + i * 100, i == 0);
	}
	v_check_random(salt + 50, v_t->n);
	for (uint64_t i = 0; i < n; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i] || status) {
			dprintf(2, "child %d: status %#x\n", pid[i], status);
			bad = status ? status : -1;
		}
	}
	if (bad) {
		atomic_store(&v_bad_pages, 0);
		return v_say("a child: status %#x", bad);
	}
	return v_result(v_t->n * (n + 1));
}

static sigjmp_buf v_bus_jump;

static inline void v_bus_handler(int sig)
{
	(void)sig;
	siglongjmp(v_bus_jump, 1);
}

/* As verify; pages that give SIGBUS are counted, not bad.  "ok P pages B bus". */
static inline int v_cmd_verify_bus(char *args)
{
	struct sigaction sa = { .sa_handler = v_bus_handler }, old;
	volatile uint64_t bus = 0, i;

	(void)args;
	sigaction(SIGBUS, &sa, &old);
	for (i = 0; i < v_t->n; i++) {
		if (sigsetjmp(v_bus_jump, 1)) {
			bus++;
			continue;
		}
		v_check(&v_t->page[i]);
	}
	sigaction(SIGBUS, &old, NULL);
	if (atomic_load(&v_bad_pages))
		return v_result(v_t->n);
	v_say("%" PRIu64 " pages %" PRIu64 " bus", v_t->n, bus);
	return 0;
}

/* Lose a page on purpose: the next look must find it.  Tests the tests. */
static inline int v_cmd_spoil(char *args)
{
	for (uint64_t i = 0; i < v_t->n; i++) {
		struct v_page *p = &v_t->page[(i * 7919 + 13) % v_t->n];
		volatile uint64_t *w = (volatile uint64_t *)(uintptr_t)p->addr;

		if (p->kind == V_ZERO || p->kind >= V_GONE || p->flags)
			continue;
		if (args && !strcmp(args, "word"))
			w[511] ^= 1;
		else if (madvise((void *)(uintptr_t)p->addr, V_PAGE, MADV_DONTNEED))
			return v_say("madvise: %s", strerror(errno));
		return 0;
	}
	return v_say("nothing to spoil");
}

static inline int v_cmd_pid(char *args)
{
	(void)args;
	v_say("%d", getpid());
	return 0;
}

static const struct v_command v_commands[] = {
	{ "verify", v_cmd_verify },
	{ "touch-order", v_cmd_touch_order },
	{ "touch-random", v_cmd_touch_random },
	{ "mutate", v_cmd_mutate },
	{ "kernel", v_cmd_kernel },
	{ "threads", v_cmd_threads },
	{ "fork", v_cmd_fork },
	{ "verify-bus", v_cmd_verify_bus },
	{ "spoil", v_cmd_spoil },
	{ "pid", v_cmd_pid },
	{ NULL, NULL },
};

static inline void v_answer(int bad)
{
	char line[600];
	int n = snprintf(line, sizeof(line), "%s %s\n", bad ? "bad" : "ok", v_text);

	if (n > (int)sizeof(line) - 1) {
		n = (int)sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (write(1, line, (size_t)n) != n)
		_exit(98);
}

static inline int v_run(const struct v_command *c, const char *name, char *args, bool *found)
{
	for (; c && c->name; c++) {
		if (!strcmp(c->name, name)) {
			*found = true;
			v_text[0] = 0;
			return c->run(args);
		}
	}
	return 0;
}

/* Answer commands until "quit" (exits 0), or until one of @more returns a value above 0, which is
 * returned without an answer.  An interrupted read is an answer too: "bad". */
static inline int v_loop(const struct v_command *more)
{
	static char buf[512];
	static size_t have;

	for (;;) {
		char *nl, *args, line[512];
		bool found = false;
		ssize_t n;
		int ret;

		while (!(nl = memchr(buf, '\n', have))) {
			n = read(0, buf + have, sizeof(buf) - have);
			if (n == 0)
				_exit(0);
			if (n < 0) {
				v_say("reading commands: %s", strerror(errno));
				v_answer(1);
				_exit(97);
			}
			have += (size_t)n;
		}
		memcpy(line, buf, (size_t)(nl - buf));
		line[nl - buf] = 0;
		have -= (size_t)(nl + 1 - buf);
		memmove(buf, nl + 1, have);
		args = strchr(line, ' ');
		if (args)
			*args++ = 0;
		if (!strcmp(line, "quit")) {
			v_say("bye");
			v_answer(0);
			_exit(0);
		}
		ret = v_run(more, line, args, &found);
		if (!found)
			ret = v_run(v_commands, line, args, &found);
		if (!found)
			ret = v_say("no such command: %s", line);
		if (ret > 0)
			return ret;
		v_answer(ret);
	}
}

/* Options: --mib N, --seed N, --nobody (drop to uid 65534 in place).  Others are left to the victim. */
static inline void v_start(int argc, char **argv, unsigned long mib, uint64_t capacity)
{
	uint64_t seed = 0;

	v_argc = argc;
	v_argv = argv;
	v_mib = mib;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--mib") && i + 1 < argc)
			v_mib = strtoul(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--nobody"))
			v_user_nobody = 1;
	}
	if (!seed)
		seed = v_mix((uint64_t)getpid() ^ (uint64_t)(v_now() * 1e6)) | 1;
	if (v_user_nobody && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
		v_die("becoming nobody: %s", strerror(errno));
	dprintf(2, "%s: pid %d seed %" PRIu64 "\n", argv[0], getpid(), seed);
	v_truth_open(seed, capacity ? capacity : v_mib * 256 + 4096);
}

static inline bool v_option(const char *name)
{
	for (int i = 1; i < v_argc; i++) {
		if (!strcmp(v_argv[i], name))
			return true;
	}
	return false;
}

static inline void v_ready(void)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "ready %" PRIu64 " pages seed %" PRIu64 "\n", v_t->n, v_t->seed);

	if (write(1, line, (size_t)n) != n)
		_exit(98);
}

#endif
