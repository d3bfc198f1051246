/* SPDX-License-Identifier: MIT */
/* Other processes: forked by every way there is, from a process of one thread and of many, of a folded heap. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>

#include "m.h"

extern char **environ;

static pid_t by_syscall(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

/* Seen by nobody who stands in front of the C library. */
static pid_t by_instruction(void)
{
#if defined(__x86_64__)
	long r;
	register long r10 __asm__("r10") = 0, r8 __asm__("r8") = 0;

	__asm__ volatile("syscall" : "=a"(r) : "a"(SYS_clone), "D"(SIGCHLD), "S"(0), "d"(0), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return (pid_t)r;
#else
	return by_syscall();
#endif
}

static pid_t by_fork(void)
{
	return fork();
}

static pid_t (*const ways[])(void) = { by_fork, _Fork, by_syscall, by_instruction };
#define WAYS 4

static void say(int fd)
{
	CHECK_EQ(write(fd, "x", 1), 1);
}

static void hear(int fd)
{
	char c;

	CHECK_EQ(read(fd, &c, 1), 1);
}

struct talk {
	int to[2], from[2];
};

static struct talk talk_open(void)
{
	struct talk t;

	CHECK_EQ(pipe(t.to), 0);
	CHECK_EQ(pipe(t.from), 0);
	return t;
}

static void talk_close(struct talk *t)
{
	close(t->to[0]);
	close(t->to[1]);
	close(t->from[0]);
	close(t->from[1]);
}

/* Much allocated and freed again, of all sizes. */
static void exercise(unsigned int rounds, uint64_t seed)
{
	for (unsigned int i = 0; i < rounds; i++) {
		struct m_objects o = m_sparse(4000, 1, 900, 4, seed + i);

		if (i % 4 == 0)
			m_fold();
		m_check_all(&o);
		m_free_all(&o);
		munmap(o.at, (4000 / 4 * 2 + 64) * sizeof(*o.at));
	}
}

/* Both write everything: neither sees the other. */
static void both_write(void)
{
	for (int way = 0; way < WAYS; way++) {
		struct m_objects o = m_folded((uint64_t)way);
		struct talk t = talk_open();
		pid_t pid = ways[way]();

		CHECK(pid >= 0);
		if (pid == 0) {
			m_check_all(&o);
			say(t.from[1]);
			m_rewrite(&o, 1000000);
			say(t.from[1]);
			hear(t.to[0]);
			m_check_all(&o);
			exercise(4, 9);
			m_fold();
			m_check_all(&o);
			m_free_all(&o);
			exercise(4, 10);
			_exit(0);
		}
		hear(t.from[0]);
		m_rewrite(&o, 2000000);
		hear(t.from[0]);
		m_check_all(&o);
		say(t.to[1]);
		exercise(4, 11);
		m_fold();
		m_check_all(&o);
		m_reap(pid);
		m_check_all(&o);
		m_free_all(&o);
		talk_close(&t);
	}
}

/* One frees all, folds and gives back: the other, who has touched nothing yet, still has everything. */
static void frames_stay(bool child_frees)
{
	for (int way = 0; way < WAYS; way++) {
		struct m_objects o = m_folded((uint64_t)way + 10);
		struct talk t = talk_open();
		pid_t pid = ways[way]();

		CHECK(pid >= 0);
		if ((pid == 0) == child_frees) {
			for (size_t i = 0; i < o.n; i++)
				if (i % 100)
					free(o.at[i].p);
			m_fold();
			malloc_trim(0);
			for (size_t i = 0; i < o.n; i += 100) {
				CHECK_FILL(o.at[i].p, o.at[i].bytes, o.at[i].seed);
				free(o.at[i].p);
			}
			m_fold();
			exercise(6, 3);
			m_fold();
			say(pid ? t.to[1] : t.from[1]);
		} else {
			hear(pid ? t.from[0] : t.to[0]);
			m_check_all(&o);
			exercise(6, 4);
			m_check_all(&o);
			m_fold();
			m_check_all(&o);
			m_rewrite(&o, 55);
			m_check_all(&o);
			m_free_all(&o);
		}
		if (pid == 0)
			_exit(0);
		m_reap(pid);
		exercise(2, 5);
		talk_close(&t);
	}
}

static void parent_frees(void)
{
	frames_stay(false);
}

static void child_frees(void)
{
	frames_stay(true);
}

static void nest(struct m_objects *o, int depth)
{
	pid_t pid;

	if (!depth)
		return;
	pid = ways[depth % WAYS]();
	CHECK(pid >= 0);
	if (pid == 0) {
		m_check_all(o);
		for (size_t i = (size_t)depth; i < o->n; i += 7) {
			o->at[i].seed = (uint64_t)depth * 77 + i;
			m_fill(o->at[i].p, o->at[i].bytes, o->at[i].seed);
		}
		m_fold();
		m_check_all(o);
		nest(o, depth - 1);
		m_check_all(o);
		m_free_all(o);
		_exit(0);
	}
	/* Meanwhile. */
	for (size_t i = 0; i < o->n; i += 5) {
		o->at[i].seed = (uint64_t)depth * 99 + i;
		m_fill(o->at[i].p, o->at[i].bytes, o->at[i].seed);
	}
	m_fold();
	m_check_all(o);
	m_reap(pid);
	m_check_all(o);
}

static void nested(void)
{
	struct m_objects o = m_folded(21);

	nest(&o, 6);
	m_check_all(&o);
	m_free_all(&o);
}

/* Threads that use the allocator while others fork. */
static atomic_bool stop;
static atomic_ulong rounds_done;

static void *busy(void *arg)
{
	uint64_t rng = (uintptr_t)arg;
	struct m_object o[200] = { { NULL, 0, 0 } };

	while (!atomic_load(&stop)) {
		for (int i = 0; i < 2000; i++) {
			struct m_object *x = &o[m_below(&rng, 200)];

			if (x->p) {
				CHECK_FILL(x->p, x->bytes, x->seed);
				free(x->p);
			}
			x->bytes = (uint32_t)(1 + (i % 500 ? m_below(&rng, 800) : m_below(&rng, 100000)));
			x->seed = rng;
			x->p = malloc(x->bytes);
			CHECK(x->p);
			m_fill(x->p, x->bytes, x->seed);
		}
		atomic_fetch_add(&rounds_done, 1);
	}
	for (int i = 0; i < 200; i++)
		free(o[i].p);
	return NULL;
}

static void *busy_folding(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		m_fold();
		sched_yield();
	}
	return NULL;
}

static pthread_t crew[3];

static void crew_start(bool fold)
{
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&crew[i], NULL, i == 2 && fold ? busy_folding : busy, (void *)i), 0);
}

static void crew_stop(void)
{
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(crew[i], NULL), 0);
}

static void *in_child(void *arg)
{
	exercise(3, (uintptr_t)arg);
	return NULL;
}

static void of_threads(void)
{
	struct m_objects o = m_folded(31);

	crew_start(true);
	for (int i = 0; i < 8; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			pthread_t t[3];

			m_check_all(&o);
			m_rewrite(&o, 5);
			exercise(2, 6);
			for (uintptr_t k = 0; k < 3; k++)
				CHECK_EQ(pthread_create(&t[k], NULL, in_child, (void *)k), 0);
			for (int k = 0; k < 3; k++)
				CHECK_EQ(pthread_join(t[k], NULL), 0);
			m_fold();
			m_check_all(&o);
			m_free_all(&o);
			_exit(0);
		}
		m_rewrite(&o, (uint64_t)i * 1000000);
		m_check_all(&o);
		m_reap(pid);
		m_check_all(&o);
	}
	crew_stop();
	m_check_all(&o);
	m_free_all(&o);
}

/* Several threads fork at once. */
static void *forks(void *arg)
{
	struct m_objects o = m_sparse(3000, 16, 400, 3, (uintptr_t)arg);

	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			m_check_all(&o);
			exercise(1, 1);
			m_free_all(&o);
			_exit(0);
		}
		m_reap(pid);
		m_check_all(&o);
	}
	m_free_all(&o);
	return NULL;
}

static void many_forks(void)
{
	pthread_t t[4];

	crew_start(true);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, forks, (void *)i), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	crew_stop();
}

/* A child of _Fork in a process of many threads may do little: it looks. */
static void look_only(void)
{
	struct m_objects o = m_folded(41);

	crew_start(true);
	for (int i = 0; i < 12; i++) {
		pid_t pid = ways[1 + i % 3]();

		CHECK(pid >= 0);
		if (pid == 0) {
			for (int k = 0; k < 3; k++)
				m_check_all(&o);
			_exit(0);
		}
		m_rewrite(&o, (uint64_t)i * 7777);
		m_reap(pid);
		m_check_all(&o);
	}
	crew_stop();
	m_free_all(&o);
}

static void with_vfork(void)
{
	struct m_objects o = m_folded(51);

	crew_start(true);
	for (volatile int i = 0; i < 50; i++) {
		pid_t pid = vfork();

		CHECK(pid >= 0);
		if (pid == 0) {
			static char *const argv[] = { (char *)(uintptr_t)"true", NULL };

			/* Not allowed, and often done. */
			free(malloc(300));
			if (i % 3 == 0)
				_exit(0);
			execve("/bin/true", argv, environ);
			_exit(127);
		}
		m_reap(pid);
	}
	crew_stop();
	m_check_all(&o);
	exercise(3, 1);
	m_free_all(&o);
}

/* What starts programs. */
static void spawns(void)
{
	struct m_objects o = m_folded(61);
	char *argv[] = { (char *)(uintptr_t)"sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)"exit 0", NULL };

	crew_start(true);
	for (int i = 0; i < 12; i++) {
		posix_spawn_file_actions_t a;
		char line[64];
		pid_t pid;
		FILE *f;

		posix_spawn_file_actions_init(&a);
		CHECK_EQ(posix_spawn_file_actions_addopen(&a, 5, "/dev/null", 0, 0), 0);
		CHECK_EQ(posix_spawnp(&pid, "sh", &a, NULL, argv, environ), 0);
		m_reap(pid);
		posix_spawn_file_actions_destroy(&a);
		CHECK_EQ(system("exit 0"), 0);
		f = popen("echo line", "r");
		CHECK(f && fgets(line, sizeof(line), f) && strcmp(line, "line\n") == 0);
		CHECK_EQ(pclose(f), 0);
	}
	crew_stop();
	m_check_all(&o);
	m_free_all(&o);
}

/* A process that shares our memory, and is no thread of ours, writes into the heap. */
static struct m_objects shared;
static volatile int turn;
static _Atomic uint64_t *counters[256];

static int writes_forever(void *arg)
{
	uint64_t n = 0;

	(void)arg;
	/* Not in the heap's own code: it has its parent's thread-local memory. */
	while (turn == 0) {
		for (int i = 0; i < 256; i++)
			atomic_fetch_add(counters[i], 1);
		n++;
	}
	for (int i = 0; i < 256; i++)
		if (atomic_load(counters[i]) != n)
			return 3;
	return 0;
}

static int allocates(void *arg)
{
	(void)arg;
	exercise(3, 8);
	m_check_all(&shared);
	m_rewrite(&shared, 5);
	return 0;
}

static void with_clone_vm(void)
{
	char *stack = m_map(1 << 20);
	int status;
	pid_t pid;

	shared = m_sparse(120000, 16, 440, 16, 71);
	for (int i = 0; i < 256; i++) {
		counters[i] = (_Atomic uint64_t *)(uintptr_t)shared.at[i * 16].p;
		atomic_store(counters[i], 0);
	}
	pid = clone(writes_forever, stack + (1 << 20), CLONE_VM | SIGCHLD, NULL);
	CHECK(pid > 0);
	for (int i = 0; i < 6; i++) {
		struct m_objects o = m_sparse(20000, 16, 440, 16, (uint64_t)i);

		m_fold();
		m_check_all(&o);
		m_free_all(&o);
	}
	turn = 1;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (status)
		FAIL("writes were lost: %#x", (unsigned int)status);
	for (int i = 0; i < 256; i++)
		m_fill(shared.at[i * 16].p, shared.at[i * 16].bytes, shared.at[i * 16].seed);
	m_check_all(&shared);
	/* With its parent waiting it may do all that its parent may. */
	for (int i = 0; i < 10; i++) {
		pid = clone(allocates, stack + (1 << 20), CLONE_VM | (i % 2 ? CLONE_VFORK : 0) | SIGCHLD, NULL);
		m_reap(pid);
		m_check_all(&shared);
		m_fold();
		m_check_all(&shared);
	}
	m_free_all(&shared);
}

static const struct m_case cases[] = {
	{ "both-write", both_write },
	{ "parent-frees", parent_frees },
	{ "child-frees", child_frees },
	{ "nested", nested },
	{ "of-threads", of_threads },
	{ "many-forks", many_forks },
	{ "look-only", look_only },
	{ "vfork", with_vfork },
	{ "spawns", spawns },
	{ "clone-vm", with_clone_vm },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
