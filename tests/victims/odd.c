/* SPDX-License-Identifier: MIT */
/*
 * What once went wrong, each in its smallest form.  Five mappings apart from each other, and by option:
 * --low (a page at the lowest address), --tid-address (a clear_child_tid that is nonsense), --worker-filter
 * NAME (a seccomp filter in one thread only), --crowd N (threads that wait for "burst"), --ranges N (for
 * "race" and "follow"), --leader (the main thread does not read the commands and can end).
 */
#include "victim.h"

#include <limits.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>

#define MAPS 5
#define PAGES 64ul              /* of each mapping, with room for as many behind it */
#define LOW 0x10000ul
#define CROWD_MAX 2000
#define CROWD_PAGES 2ul         /* for each thread */
#define A_PAGES 2ul             /* what is moved, */
#define B_PAGES 8ul             /* and what makes room: its first page has contents */

/* In shared memory: looking here needs nobody's help. */
struct common {
	atomic_int go, done, left;
};

static struct common *common;
static char *maps[MAPS];
static uint64_t first_of_map[MAPS];
static unsigned long crowd, ranges;
static uint64_t first_of_crowd;
static char *arena;
static struct v_page *page_a, *page_b;
static pid_t sibling[2];
static int sibling_pipe[2][2];
static int leader_pipe[2];

static const char *value(const char *name)
{
	for (int i = 1; i + 1 < v_argc; i++) {
		if (!strcmp(v_argv[i], name))
			return v_argv[i + 1];
	}
	return NULL;
}

static int wait_for(atomic_int *what, int least, long ms)
{
	for (; ms > 0 && atomic_load(what) < least; ms--)
		v_sleep_ms(1);
	return atomic_load(what) >= least ? 0 : -1;
}

/* Siblings: the first has closed all that it inherited. */

static void __attribute__((noreturn)) held_child(int hold, bool closes)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(hold, 0) < 0)
		_exit(3);
	if (closes)
		close_range(3, ~0u, 0);
	else
		for (int k = 0; k < 2; k++)
			close(sibling_pipe[k][1]);
	atomic_fetch_add(&common->left, 1);
	if (read(0, &c, 1) != 1)
		_exit(4);
	atomic_store(&v_bad_pages, 0);
	if (c == 'v')
		v_check_random(77, v_t->n);
	_exit(atomic_load(&v_bad_pages) ? 1 : 0);
}

static int cmd_siblings(char *args)
{
	(void)args;
	atomic_store(&common->left, 0);
	for (int k = 0; k < 2; k++) {
		if (pipe2(sibling_pipe[k], O_CLOEXEC))
			return v_say("pipe: %s", strerror(errno));
	}
	for (int k = 0; k < 2; k++) {
		sibling[k] = fork();
		if (sibling[k] < 0)
			return v_say("fork: %s", strerror(errno));
		if (!sibling[k])
			held_child(sibling_pipe[k][0], k == 0);
		if (wait_for(&common->left, k + 1, 10000))
			return v_say("a child does not come");
	}
	v_say("%d %d", sibling[0], sibling[1]);
	return 0;
}

/* "end N": a sibling ends without a look; "check N": after a look at everything. */
static int let_end(unsigned long k, char how)
{
	int status;

	if (k > 1 || write(sibling_pipe[k][1], &how, 1) != 1)
		return v_say("sibling %lu: %s", k, strerror(errno));
	if (waitpid(sibling[k], &status, 0) != sibling[k] || status)
		return v_say("sibling %lu: status %#x", k, status);
	return 0;
}

static int cmd_end(char *args)
{
	return let_end(v_count(args, 0), 'e');
}

static int cmd_check(char *args)
{
	return let_end(v_count(args, 0), 'v');
}

/* One mapping does not go to the child, which moves another and looks at all it has. */
static int cmd_dontfork(char *args)
{
	size_t bytes = PAGES * V_PAGE;
	int status;
	pid_t pid;

	(void)args;
	if (madvise(maps[2], bytes, MADV_DONTFORK))
		return v_say("madvise: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		char *to = mremap(maps[1], bytes, 4 * bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
				  (void *)0x200000000000ul);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (to == MAP_FAILED)
			_exit(3);
		/* And one that goes, since that is an event too. */
		if (munmap(maps[4], bytes))
			_exit(4);
		for (uint64_t i = 0; i < v_t->n; i++) {
			struct v_page p = v_t->page[i];
			uint64_t m = (i - first_of_map[0]) / PAGES;

			if (i < first_of_map[0] || m == 2 || m == 4)
				continue;
			if (m == 1)
				p.addr += (uintptr_t)to - (uintptr_t)maps[1];
			v_check(&p);
		}
		for (size_t i = PAGES; i < 4 * PAGES; i++) {
			struct v_page p = { .addr = (uintptr_t)to + i * V_PAGE, .patch_at = V_WORDS };

			v_check(&p);
		}
		_exit(atomic_load(&v_bad_pages) ? 1 : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return v_say("child: status %#x", pid < 0 ? -1 : status);
	return madvise(maps[2], bytes, MADV_DOFORK) ? v_say("madvise: %s", strerror(errno)) : 0;
}

/* Children in quick succession, that all look at everything. */
static int cmd_forks(char *args)
{
	uint64_t n = v_count(args, 40), salt = v_rand();
	int status, bad = 0;
	pid_t pid[64];

	if (n > 64)
		n = 64;
	for (uint64_t i = 0; i < n; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			return v_say("fork: %s", strerror(errno));
		if (!pid[i])
			v_child_verify(salt + i, 0);
	}
	for (uint64_t i = 0; i < n; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i] || status)
			bad = status ? status : -1;
	}
	return bad ? v_say("a child: status %#x", bad) : 0;
}

/* A mapping grows in place, its middle goes, and what it grew by stands alone: here, or moved. */
static int cmd_grow_cut(char *args)
{
	size_t old = PAGES * V_PAGE, cut = 8 * V_PAGE;
	bool move = args && !strcmp(args, "move");
	char *m = maps[move ? 3 : 0], *tail = m + old + cut;
	size_t left = old - cut;

	if (munmap(m + old, old) || mremap(m, old, 2 * old, 0) != m)
		return v_say("mremap in place: %s", strerror(errno));
	if (munmap(m + old - cut, 2 * cut))
		return v_say("munmap: %s", strerror(errno));
	for (uint64_t i = PAGES - 8; i < PAGES; i++)
		v_t->page[first_of_map[move ? 3 : 0] + i].kind = V_GONE;
	if (move) {
		tail = mremap(tail, left, left, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x210000000000ul);
		if (tail == MAP_FAILED)
			return v_say("mremap of the tail: %s", strerror(errno));
	}
	for (size_t i = 0; i < left / V_PAGE; i++) {
		struct v_page p = { .addr = (uintptr_t)tail + i * V_PAGE, .patch_at = V_WORDS };

		v_check(&p);
	}
	return v_result(left / V_PAGE);
}

/* A mapping moves, shrinks, and grows in place at once: what it grew by is zero, not what lay there. */
static int cmd_shrink_grow(char *args)
{
	size_t old = PAGES * V_PAGE;
	char *to = (char *)0x230000000000ul;
	struct v_page *p = &v_t->page[first_of_map[3]];

	(void)args;
	if (mremap(maps[3], old, old, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to || mremap(to, old, old / 2, 0) != to ||
	    mremap(to, old / 2, old, 0) != to)
		return v_say("mremap: %s", strerror(errno));
	for (size_t i = 0; i < PAGES; i++) {
		p[i].addr = (uintptr_t)to + i * V_PAGE;
		if (i >= PAGES / 2)
			p[i].kind = V_ZERO;
		v_check(&p[i]);
	}
	return v_result(PAGES);
}

/* A mapping grows in place and is not touched there. */
static int cmd_grow(char *args)
{
	size_t old = PAGES * V_PAGE;

	(void)args;
	if (munmap(maps[0] + old, old) || mremap(maps[0], old, 2 * old, 0) != maps[0])
		return v_say("mremap in place: %s", strerror(errno));
	return 0;
}

/* After "grow", a look at it all, here or moved: mremap takes one mapping only. */
static int cmd_look_grown(char *args)
{
	size_t bytes = 2 * PAGES * V_PAGE;
	bool move = args && !strcmp(args, "move");
	char *to = move ? (char *)0x240000000000ul : maps[0];

	if (move && mremap(maps[0], bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return v_say("mremap: %s", strerror(errno));
	for (size_t i = 0; i < 2 * PAGES; i++) {
		struct v_page grown = { .addr = (uintptr_t)to + i * V_PAGE, .patch_at = V_WORDS };

		if (i < PAGES)
			v_t->page[first_of_map[0] + i].addr = grown.addr;
		v_check(i < PAGES ? &v_t->page[first_of_map[0] + i] : &grown);
	}
	return v_result(2 * PAGES);
}

/* The crowd: all fault at once, while another thread changes the layout. */

static void *one_of_crowd(void *arg)
{
	uint64_t at = first_of_crowd + CROWD_PAGES * (uintptr_t)arg;

	atomic_fetch_add(&common->left, 1);
	while (!atomic_load(&common->go))
		syscall(SYS_futex, &common->go, FUTEX_WAIT, 0, NULL, NULL, 0);
	for (uint64_t i = 0; i < CROWD_PAGES; i++)
		v_check(&v_t->page[at + i]);
	atomic_fetch_add(&common->done, 1);
	return NULL;
}

static void start_crowd(void)
{
	pthread_attr_t attr;
	pthread_t th;

	first_of_crowd = v_t->n;
	v_add_range(v_map(crowd * CROWD_PAGES, PROT_READ | PROT_WRITE, 0), crowd * CROWD_PAGES);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (unsigned long i = 0; i < crowd; i++) {
		if (pthread_create(&th, &attr, one_of_crowd, (void *)i))
			v_die("pthread_create %lu", i);
	}
	if (wait_for(&common->left, (int)crowd, 20000))
		v_die("only %d threads", atomic_load(&common->left));
}

static int cmd_burst(char *args)
{
	size_t bytes = PAGES * V_PAGE;
	char *at = maps[1];

	(void)args;
	atomic_store(&common->go, 1);
	syscall(SYS_futex, &common->go, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	/* Away and back, while they fault; and page by page, from the end, one goes. */
	for (int k = 0; k < 40; k++) {
		char *to = k % 2 ? maps[1] : (char *)0x220000000000ul;

		if (mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			return v_say("mremap: %s", strerror(errno));
		at = to;
		if (munmap(maps[4] + (PAGES - 1 - (size_t)k) * V_PAGE, V_PAGE))
			return v_say("munmap: %s", strerror(errno));
		v_t->page[first_of_map[4] + PAGES - 1 - (size_t)k].kind = V_GONE;
	}
	if (wait_for(&common->done, (int)crowd, 20000))
		return v_say("%d threads of %lu came through", atomic_load(&common->done), crowd);
	return v_result(crowd * CROWD_PAGES);
}

/* Two threads: one makes holes, the other grows ranges, which the kernel moves into them. */

static void add_ranges(void)
{
	size_t each = (A_PAGES + B_PAGES) * V_PAGE;

	arena = v_map(ranges * (A_PAGES + B_PAGES), PROT_READ | PROT_WRITE, MAP_NORESERVE);
	if (madvise(arena, ranges * each, MADV_NOHUGEPAGE))
		v_die("madvise: %s", strerror(errno));
	page_a = &v_t->page[v_t->n];
	for (size_t i = 0; i < ranges; i++)
		v_add_range(arena + i * each, A_PAGES);
	page_b = &v_t->page[v_t->n];
	for (size_t i = 0; i < ranges; i++)
		v_add(arena + i * each + A_PAGES * V_PAGE, V_RANDOM);
}

/* Which range is the @i-th: from the top, where the kernel looks first. */
static size_t range_at(size_t i)
{
	return ranges - 1 - i;
}

static void *unmaps(void *arg)
{
	for (size_t k = 0; k < ranges; k++) {
		size_t i = range_at(k);

		if (munmap(arena + (i * (A_PAGES + B_PAGES) + A_PAGES) * V_PAGE, B_PAGES * V_PAGE))
			v_die("munmap: %s", strerror(errno));
		page_b[i].kind = V_GONE;
		atomic_store(&common->go, (int)k + 1);
	}
	return arg;
}

static int cmd_race(char *args)
{
	size_t holes = 0;
	pthread_t th;

	(void)args;
	if (!ranges)
		return v_say("--ranges is missing");
	atomic_store(&common->go, 0);
	if (pthread_create(&th, NULL, unmaps, NULL))
		v_die("pthread_create");
	for (size_t k = 0; k < ranges; k++) {
		size_t i = range_at((k ^ 64) < ranges ? k ^ 64 : k);
		struct v_page *p = page_a + i * A_PAGES;
		char *old = (char *)(uintptr_t)p->addr, *a;

		/* Not ahead by much: there are to be holes. */
		while (atomic_load(&common->go) < (int)k)
			sched_yield();
		a = mremap(old, A_PAGES * V_PAGE, 2 * A_PAGES * V_PAGE, MREMAP_MAYMOVE);
		if (a == MAP_FAILED)
			return v_say("mremap %zu: %s", k, strerror(errno));
		for (size_t n = 0; n < A_PAGES; n++)
			p[n].addr = (uintptr_t)a + n * V_PAGE;
		holes += a != old && a > arena;
	}
	pthread_join(th, NULL);
	for (size_t i = 0; i < ranges; i++) {
		for (size_t n = A_PAGES; n < 2 * A_PAGES; n++) {
			struct v_page p = { .addr = page_a[i * A_PAGES].addr + n * V_PAGE, .patch_at = V_WORDS };

			v_check(&p);
		}
	}
	if (v_cmd_verify(NULL))
		return -1;
	v_say("%zu of %lu into holes", holes, ranges);
	return 0;
}

/*
 * One thread moves a range away, another moves a page to where it was as soon as it is gone.  The first is
 * told of both a move and an unmap, and the second's move comes in between.
 */

static void *moves_away(void *arg)
{
	for (size_t i = 0; i < ranges; i++) {
		char *to = (char *)0x230000000000ul + i * 4 * A_PAGES * V_PAGE;
		struct v_page *p = page_a + i * A_PAGES;
		size_t bytes = A_PAGES * V_PAGE;

		if (mremap((void *)(uintptr_t)p->addr, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			v_die("mremap: %s", strerror(errno));
		for (size_t n = 0; n < A_PAGES; n++)
			p[n].addr = (uintptr_t)to + n * V_PAGE;
	}
	return arg;
}

static int cmd_follow(char *args)
{
	pthread_t th;

	(void)args;
	if (pthread_create(&th, NULL, moves_away, NULL))
		v_die("pthread_create");
	for (size_t i = 0; i < ranges; i++) {
		char *from = (char *)(uintptr_t)page_b[i].addr, *to = from - A_PAGES * V_PAGE;
		unsigned char vec[A_PAGES];

		while (!mincore(to, A_PAGES * V_PAGE, vec))
			;
		if (mremap(from, V_PAGE, V_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			return v_say("mremap %zu: %s", i, strerror(errno));
		page_b[i].addr = (uintptr_t)to;
	}
	pthread_join(th, NULL);
	return v_cmd_verify(NULL);
}

/* The main thread ends; this one, which reads the commands, goes on. */
static int cmd_leave(char *args)
{
	char path[64], text[512], *state;

	(void)args;
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	if (write(leader_pipe[1], "x", 1) != 1)
		return v_say("pipe: %s", strerror(errno));
	for (int ms = 0; ms < 10000; ms++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = read(fd, text, sizeof(text) - 1);

		close(fd);
		text[n > 0 ? n : 0] = 0;
		state = strrchr(text, ')');
		if (state && state[1] && state[2] == 'Z') {
			v_say("%d", gettid());
			return 0;
		}
		v_sleep_ms(1);
	}
	return v_say("the main thread does not end");
}

static const struct v_command commands[] = {
	{ "siblings", cmd_siblings },
	{ "end", cmd_end },
	{ "check", cmd_check },
	{ "dontfork", cmd_dontfork },
	{ "forks", cmd_forks },
	{ "grow-cut", cmd_grow_cut },
	{ "shrink-grow", cmd_shrink_grow },
	{ "grow", cmd_grow },
	{ "look-grown", cmd_look_grown },
	{ "burst", cmd_burst },
	{ "race", cmd_race },
	{ "follow", cmd_follow },
	{ "leave", cmd_leave },
	{ NULL, NULL },
};

static void *read_commands(void *arg)
{
	v_loop(commands);
	return arg;
}

/* A filter that one thread has and the others do not. */

#define ALLOW(nr)                                              \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1),       \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void confine(const char *kills)
{
	unsigned int forbidden = !strcmp(kills, "prctl") ? SYS_prctl : !strcmp(kills, "fcntl") ? SYS_fcntl : SYS_execve;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_exit), ALLOW(SYS_exit_group), ALLOW(SYS_futex),
		ALLOW(SYS_clock_nanosleep), ALLOW(SYS_restart_syscall), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_mmap),
		ALLOW(SYS_munmap), ALLOW(SYS_mprotect), ALLOW(SYS_madvise), ALLOW(SYS_mremap), ALLOW(SYS_brk),
		ALLOW(SYS_close), ALLOW(SYS_fcntl), ALLOW(SYS_ioctl), ALLOW(SYS_prctl), ALLOW(SYS_socketpair),
		ALLOW(SYS_recvmsg), ALLOW(SYS_sendmsg), ALLOW(SYS_ppoll), ALLOW(SYS_rt_sigprocmask),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog prog = { sizeof(filter) / sizeof(*filter), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		v_die("seccomp: %s", strerror(errno));
}

static void *worker(void *arg)
{
	int fd[2];
	char c;

	if (pipe(fd))
		v_die("pipe: %s", strerror(errno));
	confine(arg);
	atomic_fetch_add(&common->left, 1);
	/* A call that is the same one after it was interrupted. */
	if (read(fd[0], &c, 1) != 1)
		v_die("read: %s", strerror(errno));
	return NULL;
}

static void start_worker(const char *kills)
{
	pthread_t th;

	if (pthread_create(&th, NULL, worker, (void *)(uintptr_t)kills) || wait_for(&common->left, 1, 10000))
		v_die("no worker");
}

int main(int argc, char **argv)
{
	pthread_t th;
	char c;

	v_start(argc, argv, 0, 65536);
	common = mmap(NULL, V_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (common == MAP_FAILED)
		v_die("mmap: %s", strerror(errno));
	crowd = value("--crowd") ? strtoul(value("--crowd"), NULL, 0) : 0;
	ranges = value("--ranges") ? strtoul(value("--ranges"), NULL, 0) : 0;
	if (crowd > CROWD_MAX)
		v_die("--crowd: at most %d", CROWD_MAX);
	if (v_option("--low")) {
		if (mmap((void *)LOW, V_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			 -1, 0) != (void *)LOW)
			v_die("mmap at %#lx: %s", LOW, strerror(errno));
		v_add((void *)LOW, V_RANDOM);
	}
	for (int m = 0; m < MAPS; m++) {
		maps[m] = v_map(2 * PAGES + 1, PROT_NONE, MAP_NORESERVE);
		if (mprotect(maps[m], PAGES * V_PAGE, PROT_READ | PROT_WRITE))
			v_die("mprotect: %s", strerror(errno));
		first_of_map[m] = v_t->n;
		v_add_range(maps[m], PAGES);
	}
	if (ranges)
		add_ranges();
	if (crowd)
		start_crowd();
	if (value("--worker-filter"))
		start_worker(value("--worker-filter"));
	if (v_option("--tid-address"))
		syscall(SYS_set_tid_address, -8l);
	if (!v_option("--leader")) {
		v_ready();
		return v_loop(commands);
	}
	if (pipe2(leader_pipe, O_CLOEXEC))
		v_die("pipe: %s", strerror(errno));
	v_ready();
	if (pthread_create(&th, NULL, read_commands, NULL) || read(leader_pipe[0], &c, 1) != 1)
		v_die("leader: %s", strerror(errno));
	pthread_exit(NULL);
}
