/* SPDX-License-Identifier: MIT */
/*
 * libfirn: freeze and thaw the memory of live processes, by way of the agent firnd.
 *
 *	struct firn_client *client;
 *	struct firn_result *result;
 *	struct firn_error error;
 *	struct firn_selector target = { .what = FIRN_SELECT_PID, .pid = 1234 };
 *
 *	if (firn_connect(&client, FIRN_CONNECT_START, &error) ||
 *	    firn_freeze(client, &target, 1, 0, &result, &error))
 *		errx(error.code, "%s", error.message);
 *	printf("%s\n", firn_result_json(result));
 *	firn_result_free(result);
 *	firn_close(client);
 *
 * Every call waits for the agent's answer, and ends with FIRN_NO_AGENT when the agent dies
 *meanwhile.  A client belongs to one thread at a time; several clients may be used by several
 *threads.  Functions that return int return FIRN_OK, or another enum firn_code that also stands in
 *@error with a line of text; @error may be NULL everywhere.  After a failure, what would have been
 *returned is NULL.
 */
#ifndef FIRN_FIRN_H
#define FIRN_FIRN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FIRN_API __attribute__((visibility("default")))

/* What came of a call; the same numbers are the exit codes of firn(1). */
enum firn_code {
	FIRN_OK = 0,
	FIRN_FAILED = 1,    /* failed; the target is whole */
	FIRN_USAGE = 2,     /* the call makes no sense */
	FIRN_NOT_FOUND = 3, /* no such target */
	FIRN_REFUSED = 4,   /* the target cannot, or must not, be frozen */
	FIRN_NOT_PERMITTED = 5,
	FIRN_NO_AGENT = 6,     /* none runs, or it went away */
	FIRN_STORE = 7,        /* full, missing, not writable, or a pack is damaged */
	FIRN_KERNEL = 8,       /* the kernel lacks something */
	FIRN_LOST = 9,         /* pages are lost, or the target is wedged */
	FIRN_SOME_FAILED = 10, /* of several targets, at least one */
};

struct firn_error {
	int code;          /* enum firn_code */
	char reason[32];   /* a short stable word: "no-agent", "traced", ... */
	char message[512]; /* one line: what is wrong, and what to do */
};

enum firn_select {
	FIRN_SELECT_PID,  /* one process; the others are groups, frozen and thawed as one */
	FIRN_SELECT_TREE, /* a process and its descendants */
	FIRN_SELECT_CGROUP, /* a cgroup and those below it: its path in its hierarchy, or its directory */
	FIRN_SELECT_UNIT, /* a systemd unit */
	FIRN_SELECT_NAME, /* processes by name, or by that of their program: a pattern as of a shell */
	FIRN_SELECT_CONTAINER, /* a container: its id, or at least 4 digits that no other's begins with */
};

struct firn_selector {
	enum firn_select what;
	pid_t pid;        /* of the first two, */
	const char *name; /* of the others; used during the call */
};

/* A number that the agent did not tell is FIRN_UNKNOWN, a string NULL, a time or a ratio
 * negative. */
#define FIRN_UNKNOWN (-1)

/* One target in a result.  The library makes it and may add members at its end. */
struct firn_target {
	const char *id; /* "PID-STARTTIME" */
	pid_t pid;
	const char *comm;  /* its name as the target itself chose it: escape before printing */
	const char *state; /* planned stopping frozen evicted thawing resident wedged held */
	const char *kind;  /* of the pack: copied direct */
	int64_t since_ms;  /* when it entered the state, Unix time in ms */
	/* Pages by their state now; total is what the eviction took. */
	struct {
		int64_t total, evicted, zero, filled, resident, removed, lost;
	} pages;
	/* raw: the bytes that were stored, before compression; duplicates: pages. */
	struct {
		const char *path, *cipher, *codec;
		int64_t bytes, blocks, raw, duplicates, generation;
	} pack;
	struct {
		int64_t write_calls, write_bytes, read_calls, read_bytes, blocks_read, faults;
	} io;
	/* The target's resident private anonymous memory, bytes. */
	struct {
		int64_t before, after;
	} memory;
	double ratio; /* evicted bytes / stored bytes */
	/* run, whole: of a thaw, until the target ran, and until all of it was back. */
	struct {
		double plan, stop, walk, gather, write, arm, drop, leave, total, run, whole;
	} ms;
	/* What went wrong with this target; code is FIRN_OK where nothing did. */
	struct {
		int code;
		const char *reason, *message;
	} error;
	const char *place; /* of the pack: store ram */
	/* Of firn_explain(): what the agent's policy says of it now. */
	struct {
		int64_t uid, priority;
		int64_t place;          /* in the queue of those that would give memory, from 1; 0: not in it */
		int64_t gain, cost;     /* bytes of memory it would give (or take, coming back), and that are written for it */
		int64_t private_bytes, shared_bytes, out_bytes, written_today;
		int64_t idle_ms, awake_ms, cpu_permille, faults_per_s, wakeups_per_minute;
		const char *rule;       /* that gives the priority */
		const char *action;     /* none evict freeze thaw */
		const char *reason, *text; /* a short stable word; a sentence */
		const char *refused;    /* why the engine would not take it, or NULL */
	} policy;
	/* What it was frozen with; NULL and FIRN_UNKNOWN where it was alone. */
	struct {
		int64_t id;
		const char *selector; /* "--tree 1234" */
	} group;
	/* Is it to be woken on use, and watched now; by how many copies of its descriptors; those that could not be had;
	 * what it waits for and no descriptor shows; when a timeout of its own wakes it, Unix time in ms. */
	struct {
		int on_use, watching;
		int64_t descriptors, left_out, hidden, due_ms;
	} wake;
	/* What woke it last; by is NULL where nothing did: connection data datagram end error room event timer file
	 * process child signal timeout continued group. */
	struct {
		const char *by, *local, *peer;
		int64_t at_ms, fd, number;
	} woken;
	/* Bytes of the target whose contents were in an earlier pack already, and of that pack's file; -1: none. */
	int64_t reused_bytes, base_bytes;
};

/* How far a call is. */
struct firn_progress {
	double elapsed_ms;   /* since the call was sent */
	pid_t pid;           /* the target it is at; 0: not known */
	const char *phase;   /* "gather", ...; NULL: not known */
	int64_t done, total; /* of the phase; total 0: not known */
};

struct firn_client;
struct firn_result;

/* The library's version, "0.1.0". */
FIRN_API const char *firn_version(void);

/*
 * Where firnd is: beside the running program, in ../sbin or ../libexec/firn from there, or in
 * $PATH.  FIRN_OK; FIRN_NO_AGENT where there is none or its path does not fit.
 */
FIRN_API int firn_find_agent(char *path, size_t size, struct firn_error *error);

/* For firn_connect(): start an agent where none runs.  Needs root, and no thread that reaps every
 * child. */
#define FIRN_CONNECT_START 1u

/*
 * Connect to the agent of $FIRN_RUNTIME_DIR (default /run/firn).  FIRN_NO_AGENT: reason "no-agent"
 * where none runs, "agent-died" where one died and targets may wait for the next, "no-firnd" where
 * one was to be started and is not installed; else the code that firnd itself gave.
 */
FIRN_API int firn_connect(struct firn_client **ret, unsigned int flags, struct firn_error *error);

/* Disconnect; NULL is fine.  What the agent was asked to do goes on.  Results stay valid. */
FIRN_API void firn_close(struct firn_client *client);

/* The PID of the agent at the other end. */
FIRN_API pid_t firn_agent_pid(const struct firn_client *client);

/* Call @fn(@arg, ...) about every 100 ms while a call waits, and when the agent reports progress;
 * NULL ends it.  @fn must not use the client. */
FIRN_API void firn_on_progress(struct firn_client *client,
			       void (*fn)(void *arg, const struct firn_progress *progress),
			       void *arg);

#define FIRN_DRY_RUN 1u /* say what would happen, change nothing */
#define FIRN_ALL 2u     /* thaw: every target; then no selector is given */
#define FIRN_IN_RAM 4u  /* freeze, evict: keep the packs in memory, compressed, not in the store */
#define FIRN_MOVE 8u    /* with FIRN_IN_RAM: until they are moved there, see firn_move_after() */
#define FIRN_COPIED 16u /* freeze, evict: the kind of pack; without, the agent's choice */
#define FIRN_DIRECT 32u /* the target writes its own pages: almost no memory needed, not encrypted */
#define FIRN_FORCE 64u  /* freeze, evict: also what the never-list names, but for what is never frozen at all */
#define FIRN_WAKE 128u  /* freeze: thaw a target when there is something for it to do */

/*
 * Freeze: stop the targets and write their memory to the store.  Evict: the same, but they may run
 * on, and page in what they touch.  Thaw: bring all memory back and let them run.
 *
 * FIRN_OK means that the agent answered for each target; each may still have failed: see
 * firn_result_code().  The caller frees *@ret.
 */
FIRN_API int firn_freeze(struct firn_client *client, const struct firn_selector *targets,
			 size_t count, unsigned int flags, struct firn_result **ret,
			 struct firn_error *error);
FIRN_API int firn_evict(struct firn_client *client, const struct firn_selector *targets,
			size_t count, unsigned int flags, struct firn_result **ret,
			struct firn_error *error);
FIRN_API int firn_thaw(struct firn_client *client, const struct firn_selector *targets,
		       size_t count, unsigned int flags, struct firn_result **ret,
		       struct firn_error *error);

/* Packs of FIRN_MOVE go from memory to the store @seconds after the eviction, or earlier when memory is short;
 * 300 where this is not called, at most a year.  For the calls that follow. */
FIRN_API void firn_move_after(struct firn_client *client, unsigned int seconds);

/* All targets the agent holds; one of them (FIRN_NOT_FOUND where it does not hold it).  The caller
 * frees *@ret. */
FIRN_API int firn_list(struct firn_client *client, struct firn_result **ret,
		       struct firn_error *error);
FIRN_API int firn_show(struct firn_client *client, pid_t pid, struct firn_result **ret,
		       struct firn_error *error);

/*
 * What the agent would do now and why: of the targets, or with @count 0 of all that the caller may act on, those
 * first that would give memory first.  See policy in struct firn_target.  The summary holds total, available,
 * wanted, low, high (bytes), and text and pressure (words).  The caller frees *@ret.
 */
FIRN_API int firn_explain(struct firn_client *client, const struct firn_selector *targets, size_t count,
			  struct firn_result **ret, struct firn_error *error);

/*
 * Evict targets of a priority below @priority (negative: the agent's default) until @bytes of memory are available;
 * @timeout_ms 0: however long it takes.  @flags: FIRN_DRY_RUN.  FIRN_OK; or FIRN_FAILED where it could not be done:
 * then too *@ret, where it is not NULL, says which target gave what.  The summary holds wanted, before, after, freed,
 * written (bytes).  The caller frees *@ret.
 */
FIRN_API int firn_reclaim(struct firn_client *client, uint64_t bytes, int priority, unsigned int timeout_ms,
			  unsigned int flags, struct firn_result **ret, struct firn_error *error);

/* Set the priority, 0 to 100, of processes, of a tree for the descendants too, for as long as they live; with
 * FIRN_DRY_RUN only see whether it may be.  The caller
 * frees *@ret. */
FIRN_API int firn_set_priority(struct firn_client *client, const struct firn_selector *targets, size_t count,
			       int priority, unsigned int flags, struct firn_result **ret, struct firn_error *error);

/* Before a program becomes another one by exec: a priority (negative: none) for it and its descendants, a cgroup of its
 * own where the host has them, and @bytes (0: none) of memory, as by firn_reclaim(). */
FIRN_API int firn_prepare_run(struct firn_client *client, int priority, uint64_t bytes, unsigned int timeout_ms,
			      unsigned int flags, struct firn_result **ret, struct firn_error *error);

/* The agent's counters as text, "json" or "openmetrics".  The caller frees *@ret by free(). */
FIRN_API int firn_stats(struct firn_client *client, const char *format, char **ret, struct firn_error *error);

/* Call @event(@arg, ...) with each event of the agent as a line of JSON, until it returns 0; the client is to be closed
 * then.  Needs root. */
FIRN_API int firn_monitor(struct firn_client *client, int (*event)(void *arg, const char *json), void *arg,
			  struct firn_error *error);

/* Thaw everything, then the agent ends. */
FIRN_API int firn_stop(struct firn_client *client, struct firn_error *error);

/* How many targets a result has; the @i-th of them, NULL beyond the last.  They live as long as the
 * result. */
FIRN_API size_t firn_result_count(const struct firn_result *result);
FIRN_API const struct firn_target *firn_result_target(const struct firn_result *result, size_t i);

/* FIRN_OK where no target failed; the code of the failure where there is one target,
 * FIRN_SOME_FAILED where there are several. */
FIRN_API int firn_result_code(const struct firn_result *result);

/* What the summary of an answer says under @key: a number, or FIRN_UNKNOWN; a word, or NULL, that lives as long as the
 * result. */
FIRN_API int64_t firn_result_number(const struct firn_result *result, const char *key);
FIRN_API const char *firn_result_text(const struct firn_result *result, const char *key);

/* The agent's answer as JSON text on one line, {"targets":[...]}; lives as long as the result. */
FIRN_API const char *firn_result_json(const struct firn_result *result);

/* NULL is fine. */
FIRN_API void firn_result_free(struct firn_result *result);

#ifdef __cplusplus
}
#endif

#endif
