/* SPDX-License-Identifier: MIT */
/*
 * Forks while its memory is away: children that look at everything, that write, that outlive the eviction,
 * that exit at once, that exec from vfork; a range wiped at fork and one that a child does not have.
 */
#include "victim.h"

#include <sched.h>

#define SPECIAL 2048ul          /* pages of each special range */

static char *wiped, *absent;
static uint64_t first_wiped, first_absent;
static int hold_pipe[2] = { -1, -1 }, child_pipe[2] = { -1, -1 };
static pid_t held[8];
static int nheld;

static int child_special(void)
{
	static const volatile uint64_t *w;
	unsigned char vec[1];

	for (uint64_t i = 0; i < SPECIAL; i++) {
		w = (volatile uint64_t *)(wiped + (i * 769 % SPECIAL) * V_PAGE);
		for (unsigned int k = 0; k < V_WORDS; k++) {
			if (w[k]) {
				dprintf(2, "child %d: a wiped page holds %#" PRIx64 "\n", getpid(), w[k]);
				return 1;
			}
		}
	}
	for (uint64_t i = 0; i < SPECIAL; i += 61) {
		if (mincore(absent + i * V_PAGE, V_PAGE, vec) == 0 || errno != ENOMEM) {
			dprintf(2, "child %d: a DONTFORK page is mapped\n", getpid());
			return 1;
		}
	}
	return 0;
}

/* In a child: everything but the special ranges as the truth says, those as promised.  Exits. */
static void __attribute__((noreturn)) child(uint64_t salt, bool write_too, int depth)
{
	uint64_t step, at, n = first_wiped;
	int status, bad = 0;
	pid_t pid = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&v_bad_pages, 0);
	step = v_stride(n);
	at = v_mix(salt) % n;
	for (uint64_t i = 0; i < n; i++, at = (at + step) % n) {
		if (i == (write_too ? 0 : n / 4) && depth) {
			pid = fork();
			if (pid == 0)
				child(salt + 1, write_too, depth - 1);
		}
		if (write_too && i & 1)
			/* Its own copy, never the parent's.  Not checked again: the truth is shared. */
			memset((void *)(uintptr_t)v_t->page[at].addr, (int)i, V_PAGE);
		else
			v_check(&v_t->page[at]);
	}
	bad |= atomic_load(&v_bad_pages) != 0;
	bad |= child_special();
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status)) {
		dprintf(2, "child %d: grandchild status %#x\n", getpid(), status);
		bad = 1;
	}
	_exit(bad);
}

static int family(uint64_t children, bool write_too, int depth)
{
	pid_t pid[16];
	uint64_t salt = v_rand();
	int status, bad = 0;

	for (uint64_t i = 0; i < children; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			return v_say("fork: %s", strerror(errno));
		if (pid[i] == 0)
			child(salt + i * 1000, write_too, depth);
	}
	v_check_random(salt + 5, v_t->n);
	for (uint64_t i = 0; i < children; i++) {
		if (waitpid(pid[i], &status, 0) != pid[i])
			return v_say("waitpid: %s", strerror(errno));
		if (status)
			bad = status;
	}
	if (bad) {
		atomic_store(&v_bad_pages, 0);
		return v_say("a child: status %#x", bad);
	}
	return v_result(v_t->n);
}

static int cmd_fork(char *args)
{
	uint64_t n = v_count(args, 1);

	return family(n > 16 ? 16 : n, false, 1);
}

static int cmd_fork_write(char *args)
{
	(void)args;
	return family(2, true, 1);
}

static int cmd_fork_exit(char *args)
{
	uint64_t n = v_count(args, 20);
	int status;

	for (uint64_t i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(7);
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
			return v_say("child status %#x", status);
	}
	return 0;
}

static int cmd_vfork_exec(char *args)
{
	volatile uint64_t left = v_count(args, 5);
	int status;

	for (; left; left--) {
		pid_t pid = vfork();

		if (pid == 0) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(9);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			return v_say("vfork+exec status %#x", status);
	}
	return 0;
}

/* fork() and exec, as a shell does. */
static int cmd_fork_exec(char *args)
{
	int status;
	pid_t pid = fork();

	(void)args;
	if (pid == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(9);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return v_say("fork+exec status %#x", status);
	return 0;
}

/* Children that wait until "release" before they look at anything. */
static int cmd_hold(char *args)
{
	uint64_t n = v_count(args, 2), salt = v_rand();
	char c;

	if (nheld)
		return v_say("some are held already");
	if (pipe2(hold_pipe, O_CLOEXEC) || pipe2(child_pipe, O_CLOEXEC))
		return v_say("pipe: %s", strerror(errno));
	for (uint64_t i = 0; i < n && i < 8; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return v_say("fork: %s", strerror(errno));
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(hold_pipe[1]);
			if (write(child_pipe[1], "r", 1) != 1 || read(hold_pipe[0], &c, 1) != 0)
				_exit(3);
			child(salt + i, false, i == 0);
		}
		held[nheld++] = pid;
		if (read(child_pipe[0], &c, 1) != 1)
			return v_say("child: %s", strerror(errno));
	}
	v_say("%d", held[0]);
	return 0;
}

static int cmd_release(char *args)
{
	int status, bad = 0;

	(void)args;
	close(hold_pipe[1]);
	for (int i = 0; i < nheld; i++) {
		if (waitpid(held[i], &status, 0) != held[i])
			return v_say("waitpid: %s", strerror(errno));
		if (status)
			bad = status;
	}
	close(hold_pipe[0]);
	close(child_pipe[0]);
	close(child_pipe[1]);
	nheld = 0;
	return bad ? v_say("a held child: status %#x", bad) : 0;
}

/* All of the ways, one after another. */
static int cmd_all(char *args)
{
	(void)args;
	if (cmd_fork_exit("2") || cmd_vfork_exec("2") || cmd_fork_exec(NULL) || cmd_hold("2"))
		return -1;
	if (family(3, false, 1) || family(1, true, 0) || cmd_release(NULL))
		return -1;
	return v_cmd_verify(NULL);
}

static const struct v_command commands[] = {
	{ "fork", cmd_fork },
	{ "fork-write", cmd_fork_write },
	{ "fork-exit", cmd_fork_exit },
	{ "vfork-exec", cmd_vfork_exec },
	{ "fork-exec", cmd_fork_exec },
	{ "hold", cmd_hold },
	{ "release", cmd_release },
	{ "touch-random", cmd_all },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	v_start(argc, argv, 64, 0);
	v_add_range(v_map(v_mib * 256, PROT_READ | PROT_WRITE, 0), v_mib * 256);
	wiped = v_map(SPECIAL, PROT_READ | PROT_WRITE, 0);
	first_wiped = v_t->n;
	v_add_range(wiped, SPECIAL);
	absent = v_map(SPECIAL, PROT_READ | PROT_WRITE, 0);
	first_absent = v_t->n;
	v_add_range(absent, SPECIAL);
	if (madvise(wiped, SPECIAL * V_PAGE, MADV_WIPEONFORK) || madvise(absent, SPECIAL * V_PAGE, MADV_DONTFORK))
		v_die("madvise: %s", strerror(errno));
	v_ready();
	return v_loop(commands);
}
