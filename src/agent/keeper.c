/* SPDX-License-Identifier: MIT */
#include "agent/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "engine/engine.h"
#include "procmem/proc.h"
#include "sys/sys.h"

#define PAGE 4096
#define SETTLE_TRIES 5000            /* milliseconds */

pid_t firn_pid_file_read(const char *dir, const char *name)
{
	char path[600], buf[96];
	unsigned long long start;
	struct firn_proc proc;
	int pid;

	if (firn_path_join(path, sizeof(path), dir, name) || firn_sys_read_file(path, buf, sizeof(buf)) <= 0 ||
	    sscanf(buf, "%d %llu", &pid, &start) != 2 || firn_proc_read(pid, &proc) || proc.start_time != start)
		return 0;
	/* One that has ended and was not waited for yet is as good as gone. */
	return proc.state == 'Z' || proc.state == 'X' ? 0 : pid;
}

static int write_file(const char *dir, const char *name, const char *text)
{
	char path[600], temp[600];
	FIRN_FD fd = -1;

	if (firn_path_join(path, sizeof(path), dir, name) ||
	    snprintf(temp, sizeof(temp), "%s.new", path) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || rename(temp, path))
		return errno ? -errno : -EIO;
	return 0;
}

int firn_pid_file_write(const char *dir, const char *name, pid_t pid)
{
	char text[64];
	uint64_t start;
	int err = firn_proc_start_time(pid, &start);

	if (err)
		return err;
	snprintf(text, sizeof(text), "%d %llu\n", pid, (unsigned long long)start);
	return write_file(dir, name, text);
}

/* Map the key of @fd, which is taken on success. */
static int map_key(struct firn_keeper *k, int *fd)
{
	struct stat st;
	void *p;

	/* One of another size is none; beyond its end, looking would be our end. */
	if (fstat(*fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size != PAGE)
		return -EBADMSG;
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	if (((struct firn_key_page *)p)->magic != FIRN_KEY_MAGIC) {
		munmap(p, PAGE);
		return -EBADMSG;
	}
	k->key = p;
	k->key_fd = firn_fd_steal(fd);
	return 0;
}

/* The old keeper's key.  Its file's third number is the key's descriptor in its table. */
static int adopt_key(struct firn_keeper *k, const char *dir)
{
	char path[600], buf[96];
	FIRN_FD pidfd = -1;
	FIRN_FD fd = -1;
	int number;

	if (firn_path_join(path, sizeof(path), dir, FIRN_KEEPER_PID_NAME) ||
	    firn_sys_read_file(path, buf, sizeof(buf)) <= 0 || sscanf(buf, "%*d %*u %d", &number) != 1)
		return -ENOENT;
	pidfd = (int)firn_sys.pidfd_open(k->old, 0);
	if (pidfd < 0)
		return pidfd;
	fd = (int)firn_sys.pidfd_getfd(pidfd, number);
	if (fd < 0)
		return fd;
	return map_key(k, &fd);
}

static int make_key(struct firn_keeper *k)
{
	FIRN_FD fd = memfd_create("firn-key", MFD_CLOEXEC);
	struct firn_key_page *key;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, PAGE))
		return -errno;
	key = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (key == MAP_FAILED)
		return -errno;
	/* Never in swap, never in a core dump; the keeper locks it too. */
	mlock(key, PAGE);
	madvise(key, PAGE, MADV_DONTDUMP);
	if (getrandom(key->key, sizeof(key->key), 0) != sizeof(key->key)) {
		munmap(key, PAGE);
		return -EIO;
	}
	key->generation = 0;
	key->magic = FIRN_KEY_MAGIC;
	k->key = key;
	k->key_fd = firn_fd_steal(&fd);
	return 0;
}

/* Every signal is blocked, and stays so. */
_Noreturn static void keep(const struct firn_keeper *k, pid_t agent)
{
	sigset_t all, settle;

	sigfillset(&all);
	/* Until everything is taken over, the old keeper is the one that counts: this one ends with its agent. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != agent)
		_exit(0);               /* it ended before we could ask for that */
	prctl(PR_SET_NAME, FIRN_KEEPER_COMM);
	prctl(PR_SET_DUMPABLE, 0);
	setsid();
	mlock(k->key, PAGE);
	sigemptyset(&settle);
	sigaddset(&settle, SIGUSR1);
	while (sigwaitinfo(&settle, NULL) < 0)
		;
	prctl(PR_SET_PDEATHSIG, 0);
	__atomic_store_n(&k->key->settled, (int32_t)syscall(SYS_getpid), __ATOMIC_SEQ_CST);
	for (;;)
		sigsuspend(&all);
}

/* The keeper's process, from whichever thread.  Returns its pid, or -errno. */
static long spawn(const struct firn_keeper *k)
{
	pid_t agent = getpid();
	sigset_t all, old;
	char path[64];
	long pid;
	int fd;

	/* Blocked before it exists: the word to settle may come before its first instruction. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		keep(k, agent);
	if (pid < 0)
		pid = -errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return pid;
	/* Its end would be the targets' loss: last to be chosen when memory runs out. */
	snprintf(path, sizeof(path), "/proc/%ld/oom_score_adj", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "-1000", 5) < 0)
			errno = 0;      /* not permitted here; the agent says so of itself */
		close(fd);
	}
	return pid;
}

/* End keeper @pid, if it still is one. */
static void end_keeper(pid_t pid)
{
	char path[64], comm[32];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (pid && firn_sys_read_file(path, comm, sizeof(comm)) > 0 && !strcmp(comm, FIRN_KEEPER_COMM "\n"))
		firn_sys.kill(pid, SIGKILL);
}

int firn_keeper_start(struct firn_keeper *k, const char *dir, int stored, struct firn_err *e)
{
	FIRN_FD kept = stored;
	long pid;
	int err;

	memset(k, 0, sizeof(*k));
	k->key_fd = -1;
	k->old = firn_pid_file_read(dir, FIRN_KEEPER_PID_NAME);
	if (k->old) {
		err = adopt_key(k, dir);
	} else if (kept >= 0 && !map_key(k, &kept)) {
		k->key->settled = 0;            /* that keeper is gone; its number may be our own one's */
		err = 0;
	} else {
		err = make_key(k);
	}
	if (err && k->old)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "key",
				    "the key of the packs cannot be taken from keeper %d (%s): nothing was touched", k->old,
				    strerror(-err));
	if (err)
		return firn_err_set(e, FIRN_EXIT_FAILED, -err, "key", "a key for the packs cannot be made: %s", strerror(-err));
	mlock(k->key, PAGE);
	/* One that an agent replaced, and died before it could end it. */
	if (k->key->retiring != k->old)
		end_keeper(k->key->retiring);
	k->key->retiring = 0;
	/* One that had settled when its agent died, before any file named it.  Recovery may need what it holds. */
	if (k->old && k->key->settled != k->old)
		k->unnamed = k->key->settled;
	pid = spawn(k);
	if (pid < 0)
		return firn_err_set(e, FIRN_EXIT_FAILED, (int)-pid, "keeper", "the keeper cannot be started: %s",
				    strerror((int)-pid));
	k->pid = (pid_t)pid;
	return 0;
}

bool firn_keeper_replace(struct firn_keeper *k)
{
	long pid;

	if (waitpid(k->pid, NULL, WNOHANG) == 0)
		return false;
	pid = spawn(k);
	if (pid < 0)
		return false;           /* at the next tick, again */
	k->pid = (pid_t)pid;
	return true;
}

int firn_keeper_settle(struct firn_keeper *k, const char *dir)
{
	char text[96];
	uint64_t start;
	int err;

	err = firn_proc_start_time(k->pid, &start);
	if (err)
		return err;
	/* From here on it outlives us; the old one may end only then. */
	for (int tries = 0; __atomic_load_n(&k->key->settled, __ATOMIC_SEQ_CST) != k->pid; tries++) {
		if (tries == SETTLE_TRIES || firn_sys.kill(k->pid, SIGUSR1))
			return -ETIMEDOUT;
		firn_sys.sleep_ns(1000000);
	}
	k->key->retiring = k->old;
	snprintf(text, sizeof(text), "%d %llu %d\n", k->pid, (unsigned long long)start, k->key_fd);
	/* One file, replaced at once: keeper and key belong together. */
	err = write_file(dir, FIRN_KEEPER_PID_NAME, text);
	if (!err && k->old) {
		end_keeper(k->old);
		end_keeper(k->unnamed);
		k->old = k->unnamed = 0;
		k->key->retiring = 0;
	}
	return err;
}

void firn_keeper_end(struct firn_keeper *k, const char *dir)
{
	char path[600];

	if (!firn_path_join(path, sizeof(path), dir, FIRN_KEEPER_PID_NAME))
		firn_sys.unlink(path);
	firn_sys.kill(k->pid, SIGKILL);
	waitpid(k->pid, NULL, 0);
	explicit_bzero(k->key, PAGE);
	munmap(k->key, PAGE);
	firn_fd_close(&k->key_fd);
}
