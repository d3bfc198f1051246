/* SPDX-License-Identifier: MIT */
/*
 * Idle is judged by processor time and faults over a window of some seconds: the clock ticks of /proc/PID/stat are
 * too coarse for less, and a server that only ticks must not count as busy.  Network traffic is not looked at: what
 * it makes a process do shows as processor time.
 */
#include "agent/survey.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "sys/sys.h"

#define PF_KTHREAD 0x00200000u
#define WINDOW_MS 4000u
#define BUSY_PERMILLE 10u
#define BUSY_FAULTS 50u
#define SMALL_BYTES (1u << 20)
#define TEXT_BYTES 1024u
/* Of more threads, the first so many are asked for their wake-ups. */
#define THREADS_ASKED 64u
#define GUESS_NS (3600ull * 1000000000u)

void firn_survey_init(struct firn_survey *s)
{
	*s = (struct firn_survey){
		.window_ms = WINDOW_MS,
		.busy_permille = BUSY_PERMILLE,
		.busy_faults = BUSY_FAULTS,
		.small_bytes = SMALL_BYTES,
	};
}

static void forget(struct firn_seen *p)
{
	free(p->exe);
	free(p->cmdline);
	free(p->cgroup);
	p->exe = p->cmdline = p->cgroup = NULL;
}

void firn_survey_done(struct firn_survey *s)
{
	for (size_t i = 0; i < s->n; i++)
		forget(&s->seen[i]);
	free(s->seen);
	s->seen = NULL;
	s->n = s->size = 0;
}

struct firn_seen *firn_survey_find(struct firn_survey *s, pid_t pid)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->seen[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->n && s->seen[low].pid == pid ? &s->seen[low] : NULL;
}

/* What one read of /proc/PID/stat tells. */
struct stat_line {
	char comm[16], state;
	pid_t ppid, session;
	bool kernel_thread, realtime;
	int tty;
	unsigned int threads;
	uint64_t start_time, cpu_ns, faults, rss_bytes;
};

static int read_stat(pid_t pid, struct stat_line *ret)
{
	uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	unsigned long long f[42] = { 0 };
	char path[64], buf[2048], *open, *close, *s, *save;
	int n = 3;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return -ESRCH;
	open = strchr(buf, '(');
	close = strrchr(buf, ')');
	if (!open || !close || close[1] != ' ')
		return -EBADMSG;
	*close = 0;
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->comm, sizeof(ret->comm), "%s", open + 1);
	ret->state = close[2];
	/* Field 7, the terminal, may be -1, as may priorities; they wrap and are taken back as they are. */
	for (s = strtok_r(close + 3, " \n", &save); s && n < 41; s = strtok_r(NULL, " \n", &save))
		f[++n] = strtoull(s, NULL, 10);
	if (n < 41)
		return -EBADMSG;
	ret->ppid = (pid_t)f[4];
	ret->session = (pid_t)f[6];
	ret->tty = (int)f[7];
	ret->kernel_thread = f[9] & PF_KTHREAD;
	ret->faults = f[10] + f[12];
	ret->cpu_ns = (f[14] + f[15]) * tick_ns;
	ret->threads = (unsigned int)f[20];
	ret->start_time = f[22];
	ret->rss_bytes = f[24] * (uint64_t)sysconf(_SC_PAGESIZE);
	ret->realtime = f[40] > 0;      /* rt_priority: not 0 for SCHED_FIFO and SCHED_RR */
	return 0;
}

static uint64_t kib(const char *text)
{
	return strtoull(text, NULL, 10) * 1024;
}

/* The lines of /proc/PID/status that count. */
static void read_status(struct firn_seen *p)
{
	struct firn_lines l;
	char path[64], *line;

	snprintf(path, sizeof(path), "/proc/%d/status", p->pid);
	p->private_bytes = p->shared_bytes = p->swap_bytes = 0;
	p->traced = false;
	if (firn_lines_open(&l, path))
		return;
	while (firn_lines_next(&l, &line) > 0) {
		char *value = strchr(line, ':');

		if (!value)
			continue;
		*value++ = 0;
		if (!strcmp(line, "Uid"))
			p->uid = (uid_t)strtoul(value, NULL, 10);
		else if (!strcmp(line, "TracerPid"))
			p->traced = strtoul(value, NULL, 10) != 0;
		else if (!strcmp(line, "RssAnon"))
			p->private_bytes = kib(value);
		else if (!strcmp(line, "RssFile") || !strcmp(line, "RssShmem"))
			p->shared_bytes += kib(value);
		else if (!strcmp(line, "VmSwap"))
			p->swap_bytes = kib(value);
	}
	firn_lines_close(&l);
}

struct wakeups {
	pid_t pid;
	unsigned int asked;
	bool realtime;
	uint64_t sum;
};

static int add_wakeups(void *arg, long tid)
{
	struct wakeups *w = arg;
	char path[64], buf[4096], *at;

	int policy;

	if (w->asked++ == THREADS_ASKED)
		return 1;
	policy = sched_getscheduler((pid_t)tid);
	if (policy == SCHED_FIFO || policy == SCHED_RR || policy == SCHED_DEADLINE)
		w->realtime = true;
	snprintf(path, sizeof(path), "/proc/%d/task/%ld/status", w->pid, tid);
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0)
		return 0;
	at = strstr(buf, "\nvoluntary_ctxt_switches:");
	if (at)
		w->sum += strtoull(strchr(at, ':') + 1, NULL, 10);
	return 0;
}

/* Look at the threads of a process that is not small.  Returns how often they woke since they began. */
static uint64_t count_wakeups(const struct firn_survey *s, struct firn_seen *p)
{
	struct wakeups w = { .pid = p->pid };
	char path[64];

	if (p->private_bytes < s->small_bytes)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task", p->pid);
	firn_sys_each_number(path, add_wakeups, &w);
	p->realtime |= w.realtime;
	return w.sum;
}

static char *read_text(pid_t pid, const char *name)
{
	char path[64], buf[TEXT_BYTES];
	long n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = firn_sys_read_file(path, buf, sizeof(buf));
	/* Arguments end with NUL each. */
	for (long i = 0; i < n - 1; i++)
		if (!buf[i])
			buf[i] = ' ';
	return strdup(n > 0 ? buf : "");
}

static char *read_exe(pid_t pid)
{
	char path[64], buf[TEXT_BYTES];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, buf, sizeof(buf) - 1);
	buf[n > 0 ? n : 0] = 0;
	return strdup(buf);
}

/* The cgroup that tells most of a process: of the unified hierarchy where it is in one, else systemd's own, else
 * memory's. */
static char *read_cgroup(pid_t pid)
{
	char path[64], *line, *best = NULL;
	struct firn_lines l;
	int rank = 0;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	if (!firn_lines_open(&l, path)) {
		while (firn_lines_next(&l, &line) > 0) {
			char *names = strchr(line, ':'), *at = names ? strchr(names + 1, ':') : NULL;
			int r;

			if (!at)
				continue;
			*at++ = 0;
			names++;
			r = strstr(names, "name=systemd") ? 3 : !*names ? 2 : strstr(names, "memory") ? 1 : 0;
			/* The root of a hierarchy that is not used says nothing. */
			if (r && at[1])
				r += 4;
			if (r > rank) {
				free(best);
				best = strdup(at);
				rank = r;
			}
		}
		firn_lines_close(&l);
	}
	return best ? best : strdup("");
}

static int read_score(pid_t pid)
{
	char path[64], buf[32];

	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	return firn_sys_read_file(path, buf, sizeof(buf)) > 0 ? atoi(buf) : 0;
}

/* systemd writes the preference into attributes of the cgroup's directory. */
static bool asks(const char *cgroup, const char *attribute)
{
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd" };
	char path[TEXT_BYTES + 64], value[8];

	if (!cgroup[0] || !cgroup[1])
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(roots); i++) {
		snprintf(path, sizeof(path), "%s%s", roots[i], cgroup);
		if (getxattr(path, attribute, value, sizeof(value)) > 0 && value[0] == '1')
			return true;
	}
	return false;
}

static int read_names(struct firn_seen *p)
{
	forget(p);
	p->exe = read_exe(p->pid);
	p->cmdline = read_text(p->pid, "cmdline");
	p->cgroup = read_cgroup(p->pid);
	if (!p->exe || !p->cmdline || !p->cgroup)
		return -ENOMEM;
	p->oom_avoid = asks(p->cgroup, "user.oomd_avoid") || asks(p->cgroup, "trusted.oomd_avoid");
	p->oom_omit = asks(p->cgroup, "user.oomd_omit") || asks(p->cgroup, "trusted.oomd_omit");
	return 0;
}

static void begin_window(struct firn_seen *p, uint64_t now_ns, uint64_t wakeups)
{
	p->window_ns = now_ns;
	p->window_cpu_ns = p->cpu_ns;
	p->window_faults = p->faults;
	p->window_wakeups = wakeups;
}

static void judge(const struct firn_survey *s, struct firn_seen *p, uint64_t now_ns)
{
	uint64_t took = now_ns - p->window_ns, wakeups, cpu = p->cpu_ns - p->window_cpu_ns,
		 faults = p->faults - p->window_faults;

	/* Busy shows at once; idle, at the end of a window. */
	if (cpu * 1000 > (uint64_t)s->busy_permille * s->window_ms * 1000000u)
		p->idle_since_ns = now_ns;
	if (took < (uint64_t)s->window_ms * 1000000u)
		return;
	wakeups = count_wakeups(s, p);
	p->cpu_permille = (uint32_t)(cpu * 1000 / took);
	p->faults_per_s = (uint32_t)(faults * 1000000000u / took);
	/* Threads that ended took their counts along. */
	p->wakeups_per_minute = wakeups > p->window_wakeups ?
				(uint32_t)((wakeups - p->window_wakeups) * 60000000000ull / took) : 0;
	p->windowed = true;
	if (p->cpu_permille > s->busy_permille || p->faults_per_s > s->busy_faults)
		p->idle_since_ns = now_ns;
	begin_window(p, now_ns, wakeups);
}

/*
 * Of one that is seen for the first time nothing is known but what it did since it began: who was hardly ever busy is
 * taken to be idle, for an hour at most.
 */
static uint64_t guess_idle_since(const struct firn_survey *s, const struct firn_seen *p, uint64_t now_ns)
{
	uint64_t age = firn_survey_age_ns(p);

	if (p->cpu_ns * 1000 > age * s->busy_permille)
		return now_ns;
	return now_ns - firn_min_u64(firn_min_u64(age, GUESS_NS), now_ns);
}

uint64_t firn_survey_age_ns(const struct firn_seen *p)
{
	uint64_t began = p->start_time * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK)), now;
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return now > began ? now - began : 0;
}

struct look {
	struct firn_survey *s;
	uint64_t now_ns;
	bool (*within)(void *arg, pid_t pid);
	void *arg;
	size_t known;                   /* of the former look, sorted */
	int err;
};

static struct firn_seen *place_for(struct look *l, pid_t pid)
{
	struct firn_survey *s = l->s;
	size_t all = s->n;
	struct firn_seen *p;

	s->n = l->known;
	p = firn_survey_find(s, pid);
	s->n = all;
	if (p)
		return p;
	if (s->n == s->size) {
		size_t size = s->size ? s->size * 2 : 256;
		struct firn_seen *grown = realloc(s->seen, size * sizeof(*grown));

		if (!grown)
			return NULL;
		s->seen = grown;
		s->size = size;
	}
	p = &s->seen[s->n++];
	memset(p, 0, sizeof(*p));
	p->pid = pid;
	return p;
}

static int look_at(void *arg, long number)
{
	struct look *l = arg;
	struct firn_seen *p;
	struct stat_line st;
	pid_t pid = (pid_t)number;
	bool fresh;

	if (l->within && !l->within(l->arg, pid))
		return 0;
	if (read_stat(pid, &st))
		return 0;
	p = place_for(l, pid);
	if (!p) {
		l->err = -ENOMEM;
		return l->err;
	}
	fresh = p->start_time != st.start_time || !p->exe;
	if (fresh) {
		forget(p);
		*p = (struct firn_seen){ .pid = pid, .start_time = st.start_time };
	}
	p->here = true;
	p->ppid = st.ppid;
	p->state = st.state;
	p->kernel_thread = st.kernel_thread;
	p->realtime = st.realtime;
	p->login_shell = st.session == pid && st.tty > 0;
	p->threads = st.threads;
	p->cpu_ns = st.cpu_ns;
	p->faults = st.faults;
	if (fresh || strcmp(p->comm, st.comm)) {
		memcpy(p->comm, st.comm, sizeof(p->comm));
		l->err = read_names(p);
		if (l->err)
			return l->err;
	}
	if (p->kernel_thread)
		return 0;
	read_status(p);
	p->oom_score_adj = read_score(pid);
	if (fresh) {
		p->idle_since_ns = guess_idle_since(l->s, p, l->now_ns);
		begin_window(p, l->now_ns, count_wakeups(l->s, p));
	} else {
		judge(l->s, p, l->now_ns);
	}
	return 0;
}

static int by_pid(const void *a, const void *b)
{
	const struct firn_seen *p = a, *q = b;

	return p->pid < q->pid ? -1 : p->pid > q->pid;
}

static void begin_look(struct firn_survey *s)
{
	for (size_t i = 0; i < s->n; i++)
		s->seen[i].here = false;
}

static void end_look(struct firn_survey *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (s->seen[i].here)
			s->seen[kept++] = s->seen[i];
		else
			forget(&s->seen[i]);
	}
	s->n = kept;
	if (s->n)
		qsort(s->seen, s->n, sizeof(*s->seen), by_pid);
}

int firn_survey_look(struct firn_survey *s, uint64_t now_ns, bool (*within)(void *arg, pid_t pid), void *arg)
{
	struct look l = { s, now_ns, within, arg, s->n, 0 };
	int err;

	begin_look(s);
	err = firn_sys_each_number("/proc", look_at, &l);
	end_look(s);
	return err;
}

int firn_survey_look_at(struct firn_survey *s, uint64_t now_ns, pid_t pid)
{
	struct look l = { s, now_ns, NULL, NULL, s->n, 0 };

	begin_look(s);
	look_at(&l, pid);
	end_look(s);
	return l.err;
}

/* "some avg10=1.23 avg60=..." -> 123. */
static uint32_t avg10(const char *text, const char *what)
{
	const char *at = strstr(text, what);
	unsigned int whole, part;

	if (!at || sscanf(at + strlen(what), " avg10=%u.%2u", &whole, &part) != 2)
		return 0;
	return whole * 100 + part;
}

static uint64_t number_in(const char *dir, const char *name, uint64_t otherwise)
{
	char path[512], buf[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	/* v2 says "max" where there is no limit. */
	if (firn_sys_read_file(path, buf, sizeof(buf)) <= 0 || buf[0] < '0' || buf[0] > '9')
		return otherwise;
	return strtoull(buf, NULL, 10);
}

static uint64_t stat_in(const char *dir, const char *key)
{
	char path[512], *line;
	size_t len = strlen(key);
	struct firn_lines l;
	uint64_t value = 0;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	if (firn_lines_open(&l, path))
		return 0;
	while (firn_lines_next(&l, &line) > 0)
		if (!strncmp(line, key, len) && line[len] == ' ')
			value = strtoull(line + len, NULL, 10);
	firn_lines_close(&l);
	return value;
}

/* What a memory cgroup leaves: up to its limit, and what of its use is cache that goes when it is needed. */
static void bound(const char *dir, struct firn_memory *m)
{
	uint64_t limit = number_in(dir, "memory.max", UINT64_MAX), used, cache;
	bool v2 = limit != UINT64_MAX || number_in(dir, "memory.current", UINT64_MAX) != UINT64_MAX;
	uint64_t left;

	if (!v2)
		limit = number_in(dir, "memory.limit_in_bytes", UINT64_MAX);
	if (limit >= m->total)
		return;
	used = number_in(dir, v2 ? "memory.current" : "memory.usage_in_bytes", 0);
	cache = stat_in(dir, v2 ? "inactive_file" : "total_inactive_file");
	used -= cache < used ? cache : used;
	left = used < limit ? limit - used : 0;
	m->total = limit;
	if (left < m->available)
		m->available = left;
}

int firn_memory_read(const char *cgroup, struct firn_memory *ret)
{
	char buf[4096], path[512], *at;
	long n;

	memset(ret, 0, sizeof(*ret));
	n = firn_sys_read_file("/proc/meminfo", buf, sizeof(buf));
	if (n <= 0)
		return n ? (int)n : -EIO;
	at = strstr(buf, "MemTotal:");
	ret->total = at ? kib(at + 9) : 0;
	at = strstr(buf, "MemAvailable:");
	if (!ret->total || !at)
		return -EBADMSG;
	ret->available = kib(at + 13);
	n = -ENOENT;
	if (cgroup) {
		bound(cgroup, ret);
		snprintf(path, sizeof(path), "%s/memory.pressure", cgroup);
		n = firn_sys_read_file(path, buf, sizeof(buf));
	}
	if (n <= 0)
		n = firn_sys_read_file("/proc/pressure/memory", buf, sizeof(buf));
	if (n > 0) {
		ret->psi = true;
		ret->some_avg10 = avg10(buf, "some");
		ret->full_avg10 = avg10(buf, "full");
	}
	return 0;
}
