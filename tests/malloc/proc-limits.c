/* SPDX-License-Identifier: MIT */
/*
 * Processes that are allowed less: limits, which the test sets before the program starts, locked memory, system
 * calls that are forbidden, other users.  All must work; what cannot be folded is not folded.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "m.h"

static void exercise(uint64_t seed)
{
	for (unsigned int i = 0; i < 6; i++) {
		struct m_objects o = m_sparse(20000, 1, 600, 6, seed + i);
		char *large = malloc(300000), *huge = calloc(1, 10 << 20);

		CHECK(large && huge);
		memset(large, 1, 300000);
		huge = realloc(huge, 12 << 20);
		CHECK(huge && m_zero(huge, 4096));
		m_fold();
		m_check_all(&o);
		m_rewrite(&o, seed * 5 + i);
		m_check_all(&o);
		m_free_all(&o);
		free(large);
		free(huge);
	}
}

static void *exercise_thread(void *arg)
{
	exercise((uintptr_t)arg);
	return NULL;
}

static void threads(void)
{
	pthread_t t[3];

	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, exercise_thread, (void *)i), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
}

/* How much can be had, in objects of argv[2] bytes: prints MB. */
static void usable(void)
{
	size_t n = strtoul(m_argv[2], NULL, 0), total = 0;
	void **list = NULL, **next;

	for (int round = 0; round < 2; round++) {
		total = 0;
		errno = 0;
		while ((next = malloc(n))) {
			memset(next, 1, n < 100 ? n : 100);
			*next = list;
			list = next;
			total += n;
		}
		CHECK_EQ(errno, ENOMEM);
		for (; list; list = next) {
			next = *list;
			free(list);
		}
		malloc_trim(0);
	}
	printf("%zu\n", total >> 20);
}

/* The same by growth of one object, which moves as it grows. */
static void usable_growing(void)
{
	size_t n = 1 << 16;
	char *p = malloc(n), *q;

	CHECK(p);
	while ((q = realloc(p, n + (1 << 20)))) {
		p = q;
		n += 1 << 20;
		p[n - 1] = 1;
	}
	CHECK_EQ(errno, ENOMEM);
	free(p);
	printf("%zu\n", n >> 20);
}

/* Small ones until there is no more, freed, and then a large one. */
static void usable_after(void)
{
	void **list = NULL, **next;
	size_t n;

	while ((next = malloc(100))) {
		*next = list;
		list = next;
	}
	for (; list; list = next) {
		next = *list;
		free(list);
	}
	malloc_trim(0);
	for (n = 256; n > 0; n--) {
		void *p = malloc(n << 20);

		if (p)
			break;
	}
	printf("%zu\n", n);
}

/* Works, whatever the limits are. */
static void works(void)
{
	struct m_objects o = m_folded(1);

	exercise(1);
	threads();
	m_check_all(&o);
	m_rewrite(&o, 7);
	m_fold();
	m_check_all(&o);
	m_free_all(&o);
}

static void on_sigxfsz(int s)
{
	static const char text[] = "SIGXFSZ came\n";

	(void)s;
	if (write(2, text, sizeof(text) - 1))
		_exit(1);
}

/* No file may grow: not a signal of it. */
static void no_file_size(void)
{
	struct rlimit r;

	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = 0;
	if (m_argc > 2)
		r.rlim_max = 0;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &r), 0);
	signal(SIGXFSZ, on_sigxfsz);
	works();
	/* And the limit is what it was. */
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &r), 0);
	CHECK_EQ(r.rlim_cur, 0);
}

static bool resident(const void *p)
{
	unsigned char v = 0;

	CHECK_EQ(mincore((void *)((uintptr_t)p & -4096ul), 4096, &v), 0);
	return v & 1;
}

/* Locked memory is resident and stays so: it is not folded, nor given back. */
static void lock_all(void)
{
	struct m_objects before = m_sparse(60000, 16, 440, 8, 3), after;
	int flags = MCL_CURRENT | MCL_FUTURE;

	if (m_argc > 2)
		flags = atoi(m_argv[2]);
	CHECK_EQ(mlockall(flags), 0);
	after = m_sparse(60000, 16, 440, 8, 4);
	m_fold();
	for (size_t i = 0; i < before.n; i += 10)
		CHECK(!(flags & MCL_CURRENT) || resident(before.at[i].p));
	if (flags & MCL_FUTURE)
		for (size_t i = 0; i < after.n; i += 10)
			CHECK(resident(after.at[i].p));
	m_check_all(&before);
	m_check_all(&after);
	exercise(3);
	threads();
	m_check_all(&before);
	m_free_all(&before);
	m_free_all(&after);
	CHECK_EQ(munlockall(), 0);
	exercise(4);
}

/* The same after pages were folded. */
static void lock_folded(void)
{
	struct m_objects o = m_folded(5);

	CHECK_EQ(mlockall(MCL_CURRENT | MCL_FUTURE), 0);
	m_check_all(&o);
	m_fold();
	m_rewrite(&o, 3);
	m_check_all(&o);
	exercise(5);
	m_check_all(&o);
	m_free_all(&o);
	exercise(6);
}

/*
 * seccomp ACTION HOW: the calls that folding needs are forbidden, by errno EPERM or by death; the filter comes by
 * prctl, by the system call, or was there before the program began.  @when: before or after pages were folded.
 */
#define FORBID(nr) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, action)

static void install(struct sock_filter *f, size_t n, bool by_syscall, bool all_threads)
{
	struct sock_fprog prog = { (unsigned short)n, f };

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (by_syscall)
		CHECK_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, all_threads ? SECCOMP_FILTER_FLAG_TSYNC : 0, &prog), 0);
	else
		CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), 0);
}

static void forbid(uint32_t action, bool by_syscall, bool all_threads)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		FORBID(SYS_memfd_create),
		FORBID(SYS_ptrace),
		FORBID(SYS_userfaultfd),
#ifdef SYS_fork
		FORBID(SYS_fork),
		FORBID(SYS_vfork),
#endif
		FORBID(SYS_process_vm_readv),
		FORBID(SYS_fallocate),
		FORBID(SYS_ftruncate),
		FORBID(SYS_close_range),
		FORBID(SYS_unshare),
		/* clone without CLONE_THREAD: no process, by clone or clone3 (whose flags are out of reach). */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	install(f, sizeof(f) / sizeof(*f), by_syscall, all_threads);
}

static atomic_bool stop;

static void *alongside(void *arg)
{
	while (!atomic_load(&stop))
		exercise((uintptr_t)arg);
	return NULL;
}

static void seccomp(void)
{
	bool kill, by_syscall, many;
	struct m_objects o;
	pthread_t t[2];

	CHECK(m_argc > 3);
	kill = strcmp(m_argv[2], "kill") == 0;
	by_syscall = strcmp(m_argv[3], "syscall") == 0;
	many = strcmp(m_argv[3], "threads") == 0;
	if (strcmp(m_argv[3], "exec") == 0) {
		char *argv[] = { m_argv[0], (char *)(uintptr_t)"works", NULL };

		forbid(kill ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM, false, false);
		execv("/proc/self/exe", argv);
		FAIL("execv");
	}
	o = m_folded(9);
	for (uintptr_t i = 0; i < 2 && many; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, alongside, (void *)i), 0);
	forbid(kill ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM, by_syscall || many, many);
	m_fold();
	m_check_all(&o);
	m_rewrite(&o, 4);
	exercise(2);
	threads();
	m_check_all(&o);
	m_free_all(&o);
	exercise(3);
	atomic_store(&stop, true);
	for (int i = 0; i < 2 && many; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
}

static void *in_sandbox(void *arg)
{
	forbid(SECCOMP_RET_KILL_PROCESS, false, false);
	exercise((uintptr_t)arg);
	return NULL;
}

/* One thread of several is under a filter of its own. */
static void seccomp_one(void)
{
	struct m_objects o = m_folded(10);
	pthread_t t[3];

	for (uintptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, i == 1 ? in_sandbox : exercise_thread, (void *)i), 0);
	exercise(9);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	m_check_all(&o);
	m_free_all(&o);
}

/* Strict: read, write, exit.  mmap would be death; memory that is there serves. */
static void seccomp_strict(void)
{
	struct m_objects o = m_folded(11);

	m_check_all(&o);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), 0);
	m_check_all(&o);
	for (int i = 0; i < 20; i++)
		if (!m_hide(&o))
			break;
	syscall(SYS_exit, 0);
}

/* Another user, not dumpable: nobody may trace it, not even its own helper. */
static void other_user(void)
{
	struct m_objects o = m_folded(12);
	pthread_t t;

	if (m_argc > 2 && strcmp(m_argv[2], "dumpable") == 0)
		CHECK_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
	else
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	CHECK_EQ(pthread_create(&t, NULL, alongside, NULL), 0);
	m_fold();
	m_check_all(&o);
	m_rewrite(&o, 4);
	exercise(2);
	threads();
	m_check_all(&o);
	m_free_all(&o);
	atomic_store(&stop, true);
	CHECK_EQ(pthread_join(t, NULL), 0);
}

/*
 * Nobody may trace: a filter says so, or (with an argument) the system does.  While there is one thread it folds; then
 * it could not stop the others, and does not.
 */
static void no_tracing(void)
{
	const uint32_t action = SECCOMP_RET_ERRNO | EPERM;
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		FORBID(SYS_ptrace),
		FORBID(SYS_process_vm_writev),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct firn_malloc_stats s;
	struct m_objects o, more;
	uint64_t folds;
	pthread_t t;

	if (m_argc < 3)
		install(f, sizeof(f) / sizeof(*f), false, false);
	o = m_folded(13);
	CHECK_EQ(pthread_create(&t, NULL, alongside, NULL), 0);
	folds = m_now().folds;
	more = m_sparse(60000, 16, 440, 8, 14);
	m_fold();
	s = m_now();
	if (m_firn()) {
		CHECK_EQ(s.folds, folds);
		CHECK_EQ(s.barrier, FIRN_MALLOC_BARRIER_OFF);
		CHECK(s.why && *s.why);
	}
	m_check_all(&o);
	m_check_all(&more);
	m_rewrite(&o, 4);
	exercise(2);
	m_check_all(&o);
	m_check_all(&more);
	atomic_store(&stop, true);
	CHECK_EQ(pthread_join(t, NULL), 0);
	m_free_all(&o);
	m_free_all(&more);
}

/* No further process or thread may be made. */
static void no_processes(void)
{
	struct rlimit r = { 1, 1 };

	if (m_argc > 2 && atoi(m_argv[2]))
		CHECK_EQ(setresuid((uid_t)atoi(m_argv[2]), (uid_t)atoi(m_argv[2]), (uid_t)atoi(m_argv[2])), 0);
	CHECK_EQ(setrlimit(RLIMIT_NPROC, &r), 0);
	struct m_objects o = m_sparse(60000, 16, 440, 8, 3);

	m_fold();
	m_check_all(&o);
	exercise(3);
	m_check_all(&o);
	m_free_all(&o);
}

/* No further descriptor. */
static void no_descriptors(void)
{
	struct rlimit r = { 3, 3 };

	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &r), 0);
	works();
	r.rlim_cur = 0;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &r), 0);
	exercise(4);
}

static const struct m_case cases[] = {
	{ "usable", usable },
	{ "usable-growing", usable_growing },
	{ "usable-after", usable_after },
	{ "works", works },
	{ "no-file-size", no_file_size },
	{ "lock-all", lock_all },
	{ "lock-folded", lock_folded },
	{ "seccomp", seccomp },
	{ "seccomp-one", seccomp_one },
	{ "seccomp-strict", seccomp_strict },
	{ "other-user", other_user },
	{ "no-tracing", no_tracing },
	{ "no-processes", no_processes },
	{ "no-descriptors", no_descriptors },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
