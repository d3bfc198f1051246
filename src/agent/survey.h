/* SPDX-License-Identifier: MIT */
/*
 * What the processes of this host (or of the agent's scope) hold and do, look after look: memory, and for how long
 * each has been idle.  It reads /proc only, decides nothing, and knows neither rules nor packs.
 *
 * A survey belongs to one thread at a time.
 */
#ifndef FIRN_AGENT_SURVEY_H
#define FIRN_AGENT_SURVEY_H

#include <stddef.h>
#include <sys/types.h>

#include "base/types.h"

/* A process, as the last look found it. */
struct firn_seen {
	pid_t pid, ppid;
	uint64_t start_time;            /* with the pid, its identity */
	uid_t uid;                      /* real */
	char comm[16];
	char state;                     /* as in /proc/PID/stat */
	bool kernel_thread, traced, login_shell;
	bool realtime;                  /* its main thread; of one that is not small, any */
	bool oom_avoid, oom_omit;       /* what its cgroup asks of systemd-oomd: ManagedOOMPreference */
	int oom_score_adj;
	unsigned int threads;
	uint64_t private_bytes;         /* resident anonymous memory */
	uint64_t shared_bytes;          /* resident file and shared memory */
	uint64_t swap_bytes;

	uint64_t idle_since_ns;         /* monotonic; when it last was busy; a guess from its first look */
	uint64_t cpu_ns, faults;        /* since it began */
	uint32_t cpu_permille;          /* of one processor, in the last window */
	uint32_t faults_per_s;
	uint32_t wakeups_per_minute;    /* of all its threads; known from the second window on */
	bool windowed;                  /* the three above are known */

	/* Read when it is first seen, and again when its name changes.  "" where they cannot be read. */
	char *exe, *cmdline, *cgroup;

	/* The survey's own. */
	bool here;
	uint64_t window_ns, window_cpu_ns, window_faults, window_wakeups;
};

struct firn_survey {
	struct firn_seen *seen;         /* by ascending pid */
	size_t n, size;
	unsigned int window_ms;         /* activity is judged over so long at least */
	unsigned int busy_permille;     /* of a processor: from there on it is not idle; */
	unsigned int busy_faults;       /* as from so many faults a second on */
	uint64_t small_bytes;           /* of smaller processes wake-ups are not counted */
};

/* Memory of the host, bytes; PSI in hundredths of a percent. */
struct firn_memory {
	uint64_t total, available;
	bool psi;                       /* the two below are known */
	uint32_t some_avg10, full_avg10;
};

void firn_survey_init(struct firn_survey *s);
/* Free what it holds. */
void firn_survey_done(struct firn_survey *s);

/*
 * Look at all processes for which @within(@arg, pid) says yes (NULL: all), at @now_ns on the monotonic clock.  Those
 * that ended are forgotten; pointers into s->seen are valid until the next look.
 * Returns 0, -ENOMEM (the former look stands, in part), or -errno where /proc cannot be read.
 */
int firn_survey_look(struct firn_survey *s, uint64_t now_ns, bool (*within)(void *arg, pid_t pid), void *arg);

/* Look at @pid alone, and forget all others.  Returns 0, also where there is no such process; or -ENOMEM. */
int firn_survey_look_at(struct firn_survey *s, uint64_t now_ns, pid_t pid);

/* The process of that number in the last look, or NULL. */
struct firn_seen *firn_survey_find(struct firn_survey *s, pid_t pid);

/* How long ago a process of this boot began. */
uint64_t firn_survey_age_ns(const struct firn_seen *p);

/*
 * Memory and its pressure.  @cgroup: directory of a memory cgroup (v1 or v2) that bounds what is available, or NULL
 * for the host alone.  Where it has no limit, the host's figures stand; its own pressure counts where the kernel tells
 * it.  Returns 0, or -errno where /proc/meminfo cannot be read.
 */
int firn_memory_read(const char *cgroup, struct firn_memory *ret);

#endif
