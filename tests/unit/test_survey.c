/* SPDX-License-Identifier: MIT */
/* Looks at real processes, by a clock of the test's own. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/survey.h"

#define MIB (1ull << 20)
#define SECOND 1000000000ull

struct child {
	pid_t pid;
	int ask, answer;
};

static void burn(unsigned int ms)
{
	struct timespec t;
	uint64_t end;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	end = (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec + ms * 1000000ull;
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while ((uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec < end);
}

/* A process with @bytes, that works, faults or naps when it is asked. */
static struct child start(size_t bytes)
{
	int ask[2], answer[2];
	struct child c;
	char order;

	assert_int_equal(pipe(ask), 0);
	assert_int_equal(pipe(answer), 0);
	c.pid = fork();
	if (!c.pid) {
		char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ask[1]);
		memset(memory, 1, bytes);
		order = 'r';
		do {
			if (order == 'b')
				burn(300);
			else if (order == 'f')
				for (int i = 0; i < 20; i++) {
					madvise(memory, MIB, MADV_DONTNEED);
					memset(memory, 1, MIB);
				}
			else if (order == 'n')
				for (int i = 0; i < 100; i++)
					nanosleep(&(struct timespec){ 0, 100000 }, NULL);
			else if (order == 'c')
				prctl(PR_SET_NAME, "another-name");
			if (write(answer[1], &order, 1) != 1)
				_exit(1);
		} while (read(ask[0], &order, 1) == 1);
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	c.ask = ask[1];
	c.answer = answer[0];
	assert_int_equal(read(c.answer, &order, 1), 1);
	return c;
}

static void ask(struct child *c, char order)
{
	assert_int_equal(write(c->ask, &order, 1), 1);
	assert_int_equal(read(c->answer, &order, 1), 1);
}

/* It has answered, and waits for the next order: what it did to get there does not count any more. */
static void settle(const struct child *c)
{
	char path[64], buf[512] = "";

	snprintf(path, sizeof(path), "/proc/%d/stat", c->pid);
	for (;;) {
		int fd = open(path, O_RDONLY);
		ssize_t n = read(fd, buf, sizeof(buf) - 1);

		close(fd);
		assert_true(n > 0);
		buf[n] = 0;
		if (strrchr(buf, ')')[2] == 'S')
			return;
		usleep(1000);
	}
}

static void end(struct child *c)
{
	close(c->ask);
	close(c->answer);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

static bool mine(void *arg, pid_t pid)
{
	struct child *c = arg;

	return pid == c->pid;
}

static void test_memory_and_names(void **state)
{
	struct child c = start(8 * MIB);
	struct firn_survey s;
	struct firn_seen *p;

	(void)state;
	firn_survey_init(&s);
	assert_int_equal(firn_survey_look(&s, SECOND, mine, &c), 0);
	assert_int_equal(s.n, 1);
	p = firn_survey_find(&s, c.pid);
	assert_non_null(p);
	assert_int_equal(p->ppid, getpid());
	assert_int_equal(p->uid, getuid());
	assert_true(p->private_bytes >= 8 * MIB && p->private_bytes < 16 * MIB);
	assert_true(p->shared_bytes > 0);
	assert_non_null(strstr(p->exe, "test_survey"));
	assert_non_null(strstr(p->cmdline, "test_survey"));
	assert_false(p->kernel_thread);
	assert_false(p->windowed);
	assert_null(firn_survey_find(&s, c.pid + 1));
	ask(&c, 'c');
	assert_int_equal(firn_survey_look(&s, 2 * SECOND, mine, &c), 0);
	assert_string_equal(firn_survey_find(&s, c.pid)->comm, "another-name");
	end(&c);
	assert_int_equal(firn_survey_look(&s, 3 * SECOND, mine, &c), 0);
	assert_int_equal(s.n, 0);
	firn_survey_done(&s);
}

static void test_idle(void **state)
{
	struct child c = start(4 * MIB);
	struct firn_survey s;
	struct firn_seen *p;
	uint64_t t = 10000 * SECOND, first;

	(void)state;
	settle(&c);
	firn_survey_init(&s);
	firn_survey_look(&s, t, mine, &c);
	/* Not for longer than it has been there. */
	first = firn_survey_find(&s, c.pid)->idle_since_ns;
	assert_true(first <= t && first > t - 600 * SECOND);
	for (int i = 0; i < 5; i++)
		firn_survey_look(&s, t += 4 * SECOND, mine, &c);
	p = firn_survey_find(&s, c.pid);
	assert_int_equal(p->idle_since_ns, first);
	assert_true(p->windowed);
	assert_int_equal(p->wakeups_per_minute, 0);

	/* Processor time shows before the window is over. */
	ask(&c, 'b');
	firn_survey_look(&s, t += SECOND, mine, &c);
	assert_int_equal(firn_survey_find(&s, c.pid)->idle_since_ns, t);
	firn_survey_look(&s, t += 3 * SECOND, mine, &c);
	assert_in_range(firn_survey_find(&s, c.pid)->cpu_permille, 50, 200);

	/* So do faults. */
	firn_survey_look(&s, t += 4 * SECOND, mine, &c);
	ask(&c, 'f');
	firn_survey_look(&s, t += 4 * SECOND, mine, &c);
	p = firn_survey_find(&s, c.pid);
	assert_true(p->faults_per_s > 1000);
	assert_int_equal(p->idle_since_ns, t);

	/* One that only ticks stays idle, and its ticks are counted. */
	firn_survey_look(&s, t += 4 * SECOND, mine, &c);
	settle(&c);
	ask(&c, 'n');
	settle(&c);
	firn_survey_look(&s, t += 60 * SECOND, mine, &c);
	p = firn_survey_find(&s, c.pid);
	assert_in_range(p->wakeups_per_minute, 100, 120);
	assert_true(p->idle_since_ns < t - 60 * SECOND);
	end(&c);
	firn_survey_done(&s);
}

/* A pid that is another process now begins anew. */
static void test_other_process_same_pid(void **state)
{
	struct child c = start(MIB);
	struct firn_survey s;
	struct firn_seen *p;

	(void)state;
	firn_survey_init(&s);
	firn_survey_look(&s, SECOND, mine, &c);
	p = firn_survey_find(&s, c.pid);
	p->start_time++;
	p->faults_per_s = 12345;
	p->idle_since_ns = 0;
	firn_survey_look(&s, 9000 * SECOND, mine, &c);
	p = firn_survey_find(&s, c.pid);
	assert_true(p->idle_since_ns > 8000 * SECOND);
	assert_int_equal(p->faults_per_s, 0);
	end(&c);
	firn_survey_done(&s);
}

static void test_all(void **state)
{
	struct firn_survey s;

	(void)state;
	firn_survey_init(&s);
	assert_int_equal(firn_survey_look(&s, SECOND, NULL, NULL), 0);
	assert_int_equal(firn_survey_look(&s, 2 * SECOND, NULL, NULL), 0);
	assert_true(s.n > 2);
	for (size_t i = 1; i < s.n; i++)
		assert_true(s.seen[i - 1].pid < s.seen[i].pid);
	assert_non_null(firn_survey_find(&s, getpid()));
	firn_survey_done(&s);
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void drop(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
}

/* Files as both versions of memory cgroups have them. */
static void test_memory_of_cgroup(void **state)
{
	char dir[] = "/tmp/firn-survey-XXXXXX";
	struct firn_memory host, m;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(firn_memory_read(NULL, &host), 0);
	assert_true(host.total > host.available && host.available > 0);

	put(dir, "memory.max", "max\n");
	put(dir, "memory.current", "123\n");
	assert_int_equal(firn_memory_read(dir, &m), 0);
	assert_int_equal(m.total, host.total);
	put(dir, "memory.max", "10485760\n");
	put(dir, "memory.current", "8388608\n");
	put(dir, "memory.stat", "anon 5\ninactive_file 1048576\n");
	put(dir, "memory.pressure", "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\n"
				    "full avg10=1.05 avg60=0.00 avg300=0.00 total=1\n");
	assert_int_equal(firn_memory_read(dir, &m), 0);
	assert_int_equal(m.total, 10 * MIB);
	assert_int_equal(m.available, 3 * MIB);
	assert_true(m.psi);
	assert_int_equal(m.some_avg10, 1234);
	assert_int_equal(m.full_avg10, 105);
	drop(dir, "memory.max");
	drop(dir, "memory.current");
	drop(dir, "memory.pressure");

	put(dir, "memory.limit_in_bytes", "9223372036854771712\n");
	assert_int_equal(firn_memory_read(dir, &m), 0);
	assert_int_equal(m.total, host.total);
	put(dir, "memory.limit_in_bytes", "10485760\n");
	put(dir, "memory.usage_in_bytes", "10485760\n");
	put(dir, "memory.stat", "inactive_file 7\ntotal_inactive_file 2097152\n");
	assert_int_equal(firn_memory_read(dir, &m), 0);
	assert_int_equal(m.available, 2 * MIB);
	drop(dir, "memory.limit_in_bytes");
	drop(dir, "memory.usage_in_bytes");
	drop(dir, "memory.stat");
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_and_names),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_other_process_same_pid),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_memory_of_cgroup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
