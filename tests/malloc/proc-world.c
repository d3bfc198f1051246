/* SPDX-License-Identifier: MIT */
/*
 * What else a program does and looks at: its descriptors, children, threads, signals, libraries; what runs before
 * main and after it; what stands in its core dump.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "m.h"

static atomic_bool stop;

static void exercise(uint64_t seed)
{
	for (unsigned int i = 0; i < 4; i++) {
		struct m_objects o = m_sparse(20000, 1, 600, 6, seed + i);

		m_fold();
		m_check_all(&o);
		m_rewrite(&o, seed * 5 + i);
		m_check_all(&o);
		m_free_all(&o);
	}
}

static void *exercise_until(void *arg)
{
	while (!atomic_load(&stop))
		exercise((uintptr_t)arg);
	return NULL;
}

static void alongside(void (*f)(void))
{
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, exercise_until, NULL), 0);
	f();
	atomic_store(&stop, true);
	CHECK_EQ(pthread_join(t, NULL), 0);
}

/* Entries of a directory of /proc, without what the look itself opens. */
static int entries(const char *path)
{
	int n = 0;
	DIR *d = opendir(path);

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* No descriptor or child is seen at any moment, and one thread more for some moments; no signal comes. */
static atomic_int signals;

static void count_signal(int s)
{
	(void)s;
	atomic_fetch_add(&signals, 1);
}

static int descriptors, tasks, lowest;

static void look_around(void)
{
	for (int i = 0; i < 1500; i++) {
		int status, fd;
		pid_t pid;

		CHECK_EQ(entries("/proc/self/fd"), descriptors);
		CHECK(entries("/proc/self/task") <= tasks + 1 + m_firn());
		errno = 0;
		pid = waitpid(-1, &status, WNOHANG);
		if (pid != -1 || errno != ECHILD)
			FAIL("waitpid says %d, errno %d", pid, errno);
		errno = 0;
		CHECK(wait3(&status, WNOHANG, NULL) == -1 && errno == ECHILD);
		/* The lowest number that is free is what a program gets. */
		fd = open("/dev/null", O_RDONLY);
		CHECK_EQ(fd, lowest);
		close(fd);
	}
}

static void nothing_seen(void)
{
	descriptors = entries("/proc/self/fd");
	tasks = entries("/proc/self/task");
	lowest = open("/dev/null", O_RDONLY);
	close(lowest);
	for (int s = 1; s < 32; s++)
		if (s != SIGKILL && s != SIGSTOP && s != SIGSEGV && s != SIGBUS && s != SIGABRT && s != SIGALRM)
			signal(s, count_signal);
	struct m_objects o = m_folded(1);

	CHECK_EQ(entries("/proc/self/fd"), descriptors);
	alongside(look_around);
	for (int i = 0; entries("/proc/self/task") != tasks; i++) {
		CHECK(i < 10000);
		usleep(100);
	}
	m_check_all(&o);
	CHECK_EQ(entries("/proc/self/fd"), descriptors);
	CHECK_EQ(atomic_load(&signals), 0);
	m_free_all(&o);
}

/* Another thread closes every descriptor there is, again and again, and uses the numbers for its own. */
static void close_all(void)
{
	char path[] = "/dev/shm/firn-malloc-test-XXXXXX", text[4096], back[4096];
	int own = mkstemp(path);

	CHECK(own >= 0);
	unlink(path);
	CHECK_EQ(dup2(own, 1), 1);
	for (int i = 0; i < 3000; i++) {
		if (i % 2) {
			for (int fd = 3; fd < 64; fd++)
				close(fd);
		} else {
			close_range(3, ~0u, 0);
		}
		for (int k = 0; k < 4; k++)
			CHECK_EQ(dup(1), 3 + k);
		memset(text, i, sizeof(text));
		CHECK_EQ(pwrite(3 + i % 4, text, sizeof(text), i % 16 * 4096), 4096);
		CHECK_EQ(pread(1, back, sizeof(back), i % 16 * 4096), 4096);
		CHECK_EQ(memcmp(text, back, 4096), 0);
	}
	struct stat st;

	/* Nothing of the allocator's was written into it, nor was it cut. */
	CHECK_EQ(fstat(1, &st), 0);
	CHECK_EQ(st.st_size, 16 * 4096);
}

static void closes(void)
{
	struct m_objects o = m_folded(2);

	alongside(close_all);
	m_check_all(&o);
	m_rewrite(&o, 3);
	m_fold();
	m_check_all(&o);
	m_free_all(&o);
}

static void open_and_close(void)
{
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 20; k++)
			CHECK_EQ(dup(0), 2 + k);
		for (int k = 0; k < 20; k++)
			CHECK_EQ(close(2 + k), 0);
	}
}

/* As daemons begin: fork, a session, fork again, close everything. */
static void becomes_daemon(void)
{
	struct m_objects o = m_folded(3);
	int report[2];
	pid_t pid;
	char c = 'x';

	CHECK_EQ(pipe(report), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(setsid() > 0);
		pid = fork();
		CHECK(pid >= 0);
		if (pid)
			_exit(0);
		CHECK_EQ(chdir("/"), 0);
		CHECK_EQ(dup2(report[1], 200), 200);
		for (int fd = 3; fd < 1024; fd++)
			if (fd != 200)
				close(fd);
		for (int fd = 0; fd < 3; fd++)
			close(fd);
		CHECK_EQ(open("/dev/null", O_RDWR), 0);
		CHECK_EQ(dup(0), 1);
		m_check_all(&o);
		m_rewrite(&o, 8);
		m_fold();
		alongside(open_and_close);
		m_check_all(&o);
		m_free_all(&o);
		CHECK_EQ(write(200, "d", 1), 1);
		_exit(0);
	}
	m_reap(pid);
	close(report[1]);
	m_check_all(&o);
	CHECK_EQ(read(report[0], &c, 1), 1);
	CHECK_EQ(c, 'd');
	m_free_all(&o);
}

/* Children of the program's own are reaped by it alone, and by any way of waiting. */
static void reaps(void)
{
	struct m_objects o = m_folded(4);
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, exercise_until, NULL), 0);
	for (int i = 0; i < 60; i++) {
		int status;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0)
			_exit(7);
		CHECK_EQ(i % 2 ? wait(&status) : waitpid(-1, &status, 0), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
		errno = 0;
		CHECK(wait(&status) == -1 && errno == ECHILD);
	}
	atomic_store(&stop, true);
	CHECK_EQ(pthread_join(t, NULL), 0);
	m_check_all(&o);
	m_free_all(&o);
}

/* Before main: an allocator must work before anything of the program's own does. */
static char *early, *early_large;

__attribute__((constructor(102)))
static void before_main(void)
{
	early = malloc(333);
	early_large = calloc(1, 123456);
	CHECK(early && early_large && m_zero(early_large, 123456));
	m_fill(early, 333, 1);
	m_fill(early_large, 123456, 2);
	for (int i = 0; i < 3000; i++)
		free(malloc((size_t)i));
	m_fold();
}

static struct m_objects at_end;

static void second_at_exit(void)
{
	m_check_all(&at_end);
	m_free_all(&at_end);
	CHECK_FILL(early, 333, 1);
	free(early);
	early_large = realloc(early_large, 500);
	CHECK_FILL(early_large, 500, 2);
	free(early_large);
	exercise(5);
	CHECK_EQ(write(1, "ended\n", 6), 6);
}

static void first_at_exit(void)
{
	m_check_all(&at_end);
	for (size_t i = 0; i < at_end.n / 2; i++) {
		free(at_end.at[i].p);
		at_end.at[i].p = malloc(at_end.at[i].bytes);
		m_fill(at_end.at[i].p, at_end.at[i].bytes, at_end.at[i].seed);
	}
	CHECK_EQ(atexit(second_at_exit), 0);
}

static void *last_thread(void *arg)
{
	(void)arg;
	exercise(3);
	exit(0);
}

/* argv[2] "thread": exit is called by another thread. */
static void ends(void)
{
	pthread_t t;

	CHECK_FILL(early, 333, 1);
	CHECK_FILL(early_large, 123456, 2);
	at_end = m_folded(5);
	CHECK_EQ(atexit(first_at_exit), 0);
	if (m_argc > 2) {
		CHECK_EQ(pthread_create(&t, NULL, last_thread, NULL), 0);
		for (;;)
			exercise(2);
	}
}

/* Libraries come and go; argv[2] is the path of one. */
static void *uses_library(void *arg)
{
	char *(*give)(size_t) = (__typeof__(give))arg;

	for (size_t i = 0; i < 200; i++) {
		char *p = give(i * 7 + 1);

		CHECK(p && p[i] == 7);
		free(p);
	}
	return NULL;
}

static void libraries(void)
{
	struct m_objects o = m_folded(6);

	CHECK(m_argc > 2);
	for (int i = 0; i < 60; i++) {
		void *l = dlopen(m_argv[2], RTLD_NOW | (i % 2 ? RTLD_LOCAL : RTLD_GLOBAL));
		char *(*give)(size_t), *p;
		pthread_t t;

		if (!l)
			FAIL("%s", dlerror());
		give = (__typeof__(give))dlsym(l, "life_give");
		CHECK(give);
		p = give(5000);
		CHECK_EQ(pthread_create(&t, NULL, uses_library, (void *)give), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
		if (i % 20 == 0)
			m_fold();
		CHECK_EQ(dlclose(l), 0);
		CHECK(p[4999] == 7);
		free(p);
		CHECK(!dlopen("/nowhere/at/all.so", RTLD_NOW));
		dlerror();
	}
	m_check_all(&o);
	m_free_all(&o);
}

/* A process that is about to dump core: the table says what its memory holds. */
static void dumps_core(void)
{
	struct m_objects o = m_folded(7);
	struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };
	FILE *f;

	/* Some were written since, some freed; the last look at the rest is the dump's. */
	for (size_t i = 0; i < o.n; i += 50) {
		o.at[i].seed = i;
		m_fill(o.at[i].p, o.at[i].bytes, i);
	}
	CHECK_EQ(setrlimit(RLIMIT_CORE, &r), 0);
	f = fopen("table", "w");
	CHECK(f);
	for (size_t i = 0; i < o.n; i++) {
		fprintf(f, "%lx ", (unsigned long)o.at[i].p);
		for (uint32_t k = 0; k < o.at[i].bytes; k++)
			fprintf(f, "%02x", (unsigned char)o.at[i].p[k]);
		fputc('\n', f);
	}
	CHECK_EQ(fclose(f), 0);
	f = fopen("/proc/self/coredump_filter", "r");
	unsigned int filter = 0;

	CHECK(f && fscanf(f, "%x", &filter) == 1);
	fclose(f);
	printf("filter %x folded %lu pid %d\n", filter, (unsigned long)m_now().folded_pages, getpid());
	fflush(stdout);
	if (m_argc > 2)         /* until the test has looked, by other means */
		pause();
	abort();
}

/* For strace and the like: a program of several threads that works, folds, forks, and says when. */
static void steady(void)
{
	struct m_objects o = m_folded(8);
	pthread_t t[2];
	int rounds = m_argc > 2 ? atoi(m_argv[2]) : 3;

	for (uintptr_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, exercise_until, (void *)i), 0);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < rounds; i++) {
		pid_t pid;

		exercise((uint64_t)i);
		m_check_all(&o);
		m_rewrite(&o, (uint64_t)i + 5);
		pid = fork();
		if (pid == 0) {
			m_check_all(&o);
			_exit(0);
		}
		m_reap(pid);
		m_check_all(&o);
		poll(NULL, 0, 20);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	m_check_all(&o);
	m_free_all(&o);
	puts("done");
}

/* Blocked system calls of other threads are not disturbed: no EINTR, and none ends early. */
static int pipes[2];
static atomic_int waiting;

static void *blocks(void *arg)
{
	char c = 0;
	struct pollfd p = { pipes[0], POLLIN, 0 };
	struct epoll_event e = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	sigset_t none;

	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, pipes[0], &e), 0);
	sigemptyset(&none);
	atomic_fetch_add(&waiting, 1);
	switch ((uintptr_t)arg) {
	case 0:
		CHECK_EQ(poll(&p, 1, -1), 1);
		break;
	case 1:
		CHECK_EQ(epoll_wait(ep, &e, 1, -1), 1);
		break;
	case 2:
		CHECK_EQ(epoll_pwait(ep, &e, 1, -1, &none), 1);
		break;
	default:
		CHECK_EQ(ppoll(&p, 1, NULL, NULL), 1);
	}
	CHECK_EQ(read(pipes[0], &c, 1), 1);
	close(ep);
	return NULL;
}

static void blocked(void)
{
	pthread_t t[4];

	CHECK_EQ(pipe(pipes), 0);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, blocks, (void *)i), 0);
	while (atomic_load(&waiting) < 4)
		sched_yield();
	struct m_objects o = m_folded(9);

	exercise(3);
	m_check_all(&o);
	CHECK_EQ(write(pipes[1], "abcd", 4), 4);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	m_free_all(&o);
}

static const struct m_case cases[] = {
	{ "nothing-seen", nothing_seen },
	{ "closes", closes },
	{ "daemon", becomes_daemon },
	{ "reaps", reaps },
	{ "ends", ends },
	{ "libraries", libraries },
	{ "core", dumps_core },
	{ "steady", steady },
	{ "blocked", blocked },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return m_main(cases, argc, argv);
}
