/* SPDX-License-Identifier: MIT */
/*
 * The data transfer engine: freeze, evict, thaw and recover as whole operations.
 *
 * Every operation runs on a thread of its caller's choice, which becomes the target's tracer for its
 * duration, and may be run for several targets at once.
 */
#ifndef FIRN_ENGINE_ENGINE_H
#define FIRN_ENGINE_ENGINE_H

#include <sys/types.h>

#include "base/err.h"
#include "link/link.h"
#include "pack/format.h"

enum firn_target_state {
	FIRN_TARGET_PLANNED = 0,
	FIRN_TARGET_STOPPING,
	FIRN_TARGET_FROZEN,
	FIRN_TARGET_EVICTED,
	FIRN_TARGET_THAWING,
	FIRN_TARGET_RESIDENT,
	FIRN_TARGET_WEDGED,          /* an undo failed: not touched any more, its pack is kept */
	FIRN_TARGET_HELD,            /* stopped with its group; nothing of it is evicted, it has no pack */
};

#define FIRN_TARGET_STATES (FIRN_TARGET_HELD + 1)

enum firn_phase {
	FIRN_PHASE_PLAN,
	FIRN_PHASE_STOP,
	FIRN_PHASE_WALK,
	FIRN_PHASE_GATHER,
	FIRN_PHASE_WRITE,
	FIRN_PHASE_ARM,
	FIRN_PHASE_DROP,
	FIRN_PHASE_LEAVE,
	FIRN_PHASE_TOTAL,
	FIRN_PHASE_RUN,              /* of a thaw: until the target ran */
	FIRN_PHASE_WHOLE,            /* of a thaw: until it was whole */
	FIRN_PHASES
};

/* Bytes of a group's name, as its selector is said: "--tree 1234". */
#define FIRN_GROUP_TEXT 272

/* What is frozen and thawed as one. */
struct firn_group {
	uint64_t id;
	char text[FIRN_GROUP_TEXT];
};

const char *firn_target_state_name(enum firn_target_state s);
const char *firn_phase_name(enum firn_phase p);

/* What woke a target. */
struct firn_woken {
	uint64_t at_ms;              /* realtime; 0: nothing has */
	char kind[16];               /* a short stable word, see firn(1) */
	int32_t fd;                  /* the target's descriptor; -1: none */
	int32_t number;              /* of the signal, or the PID of the child, the thread, the other of its group */
	char local[128], peer[128];  /* addresses, or a path; "": none */
};

/* How a frozen target is watched. */
struct firn_watching {
	uint64_t id;                 /* targets of one number are woken together; 0: not to be woken */
	bool on;                     /* its descriptors are looked at now */
	uint32_t descriptors;        /* copies that are */
	uint32_t left_out;           /* that should be, and cannot */
	uint32_t hidden;             /* threads that wait for what no descriptor shows */
	uint64_t due_ms;             /* realtime: when a timeout wakes it; 0: none */
};

/* All there is to know of a target, by value. */
struct firn_report {
	pid_t pid;                   /* 0: a forked child not yet identified */
	pid_t parent;                /* the target it was forked from while evicted, or 0 */
	uint64_t start_time;
	char comm[16];
	enum firn_target_state state;
	uint64_t since_ms;           /* realtime */
	struct firn_link_counts counts;
	uint64_t generation, pack_bytes, pack_raw_bytes, duplicates;
	uint64_t base_generation, base_bytes;   /* of the pack that it was made upon; 0: none */
	uint64_t reused_bytes;       /* of memory, whose contents are there */
	uint32_t blocks, cipher;
	bool in_ram;                 /* the pack is in memory, not in the store */
	uint32_t move_after_s;       /* and goes to the store after so long; FIRN_PACK_STAYS */
	enum firn_pack_kind kind;    /* 0: no pack yet */
	char pack_path[512];
	uint64_t write_calls, write_bytes, read_calls, read_bytes, blocks_read, faults, lost;
	uint64_t fault_p50_ns, fault_p99_ns, fault_max_ns;
	uint64_t memory_before, memory_after;
	uint64_t pages;              /* that this eviction took */
	uint64_t set_pages;          /* of the working set that its pack begins with; after a thaw, that the next will */
	uint64_t recorded_pages;     /* asked for since the eviction, as far as they are noted */
	struct firn_watching wake;
	struct firn_woken woken;     /* the last time, also where it is no target any more */
	uint64_t ns[FIRN_PHASES];    /* 0: did not happen */
	uint64_t group;              /* its group's id; 0: it is alone */
	char group_text[FIRN_GROUP_TEXT];
	struct firn_err err;         /* of the operation reported on; code 0: none */
};

struct firn_engine;

struct firn_engine_config {
	const char *private_dir;     /* link states and journals; memory, not a disk */
	const char *store_dir;       /* packs */
	const uint8_t *key;          /* 32 bytes, for as long as the engine lives */
	enum firn_cipher cipher;
	enum firn_pack_kind kind;    /* of packs where a request does not say */
	unsigned int keep_percent;   /* of the store's free space, that packs kept after a thaw may take; 0: none is */
	uint64_t *generation;        /* counts packs under this key; shared memory that outlives the agent */
	pid_t keeper;                /* refused as a target */
	uint64_t buffer_bytes;       /* of an eviction, at most; 0: the builder's */
	uint64_t wake_tick_ns;       /* timers and timeouts shorter than this do not wake; 0: FIRN_WAKE_TICK_NS */
};

#define FIRN_WAKE_TICK_NS (10ull * 1000000000u)

/*
 * Make an engine: probe the kernel, check the store, start the pagers.
 * Returns 0; -EOPNOTSUPP/-ENOENT kernel (FIRN_EXIT_KERNEL); -EROFS, -EACCES, -ENOENT, -EINVAL store
 * (FIRN_EXIT_STORE), each with *@e filled.
 */
int firn_engine_open(struct firn_engine **ret, const struct firn_engine_config *config, struct firn_err *e);
/* Nothing is evicted any more.  */
void firn_engine_close(struct firn_engine *en);

/* The name of the process that shares the agent's descriptors and outlives it. */
#define FIRN_KEEPER_COMM "firn-keeper"

/*
 * Take over what a former agent left in the private directory; the keeper that still holds its
 * descriptors is alive until this returns.  Targets that ended are forgotten; packs that belong to
 * nobody are deleted.  Before any other operation.  *@ret_whole: false where something could not be taken
 * over, so that the old keeper must stay.  Returns how many targets live on, or -ENOMEM.
 */
int firn_engine_recover(struct firn_engine *en, bool *ret_whole);

/* Another keeper shares our descriptors now: note it with every target.  Main thread. */
void firn_engine_set_keeper(struct firn_engine *en, pid_t keeper);

struct firn_evict_options {
	bool freeze;                 /* leave it stopped */
	uint64_t wake;               /* with freeze: wake it on use; a number of firn_engine_wake_id(), else 0 */
	bool dry_run;                /* plan only */
	enum firn_pack_kind kind;    /* 0: the engine's */
	pid_t client;                /* neither it nor an ancestor of it is touched */
	uid_t uid;                   /* who asks: looked at again when the target is stopped */
	gid_t gid;
	bool ram;                    /* keep the pack in memory, not in the store; */
	bool move;                   /* with ram: until it is moved there, */
	uint32_t after_s;            /* after so many seconds; or to begin with, where there is no room in memory */
	const struct firn_group *group;      /* evict a member that is held (firn_engine_hold); NULL: no group */
	uint64_t began_ns;           /* thaw: since when its times count, where it was let run before; 0: now */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

/*
 * Evict @pid, and with options->freeze leave it stopped.  On failure the target is whole and runs as
 * before; *@ret holds the error.  Returns 0, or -errno.
 */
int firn_engine_evict(struct firn_engine *en, pid_t pid, const struct firn_evict_options *options,
		      struct firn_report *ret);

/*
 * Groups (engine/hold.c).  In their order: a number for the group; hold of every member; evict of each, with
 * options->freeze and options->group, which also holds what of it has nothing to evict; then group_keep, or run of each.
 * Where a step fails, run of each, then thaw of what was evicted: all is as before.
 */
uint64_t firn_engine_group_new(struct firn_engine *en);
/*
 * Stop @pid as a member of options->group and leave it stopped; nothing is evicted.  All that an eviction would refuse
 * before it takes memory is refused here; a member without private memory is not.  With options->dry_run only the plan.
 * Returns 0, or -errno with the error in *@ret: then it runs as before.
 */
int firn_engine_hold(struct firn_engine *en, pid_t pid, const struct firn_evict_options *options, struct firn_report *ret);
/* From here on a successor leaves the group stopped. */
void firn_engine_group_keep(struct firn_engine *en, uint64_t id);
/* Let a held or frozen member run: a held one is forgotten, a frozen one is evicted from here on.  One that was stopped
 * before its group stays so.  Returns 0, or -errno with the error in *@ret. */
int firn_engine_run(struct firn_engine *en, pid_t pid, struct firn_report *ret);
/* Bring in the working set of a frozen target, which stays stopped. */
void firn_engine_bring(struct firn_engine *en, pid_t pid);

/* Let @pid run and bring everything back; nothing of ours remains.  @ret as above.  Returns 0 or -errno;
 * pages that were lost are reported by FIRN_EXIT_LOST and stay poisoned. */
int firn_engine_thaw(struct firn_engine *en, pid_t pid, const struct firn_evict_options *options,
		     struct firn_report *ret);

/* The pids of all targets (0 for children not yet identified, once each by @fn's @id).  @fn is called
 * with the registry locked: it only takes notes. */
void firn_engine_each(struct firn_engine *en, void (*fn)(void *arg, const struct firn_report *r), void *arg);
/* The keeper of the moment.  Any thread. */
pid_t firn_engine_keeper(struct firn_engine *en);
/* One target's report.  Returns 0, or -ENOENT. */
int firn_engine_show(struct firn_engine *en, pid_t pid, struct firn_report *ret);
/* The same of a process that is no target any more, since it was woken: ret->woken says what did it. */
int firn_engine_show_woken(struct firn_engine *en, pid_t pid, struct firn_report *ret);

/* Forget targets that have ended (or run another program now).  Cheap; call when idle.  Returns how many
 * targets are left. */
unsigned int firn_engine_reap(struct firn_engine *en);

/*
 * Move the packs that are due from memory to the store, one after the other, on a thread of the engine's own:
 * those of which somebody said so, after their time or when memory is short.  Cheap where none is; call when idle.
 */
void firn_engine_move_packs(struct firn_engine *en);
/* How many packs are kept of processes that run, and the bytes of their files. */
unsigned int firn_engine_kept(struct firn_engine *en, uint64_t *ret_bytes);
/* Delete the oldest of them that nobody needs.  False: there is none.  Any thread. */
bool firn_engine_give_way(struct firn_engine *en);
/* Bytes that packs take in memory. */
uint64_t firn_engine_ram_bytes(struct firn_engine *en);

/*
 * Wake on use.  Targets that were frozen with one number are woken together: one for each target, or one for
 * all of a group.
 */
uint64_t firn_engine_wake_id(struct firn_engine *en);
/*
 * All that is to be frozen under @id is: watch it from here on.  0: whatever is frozen and to be woken and not watched
 * yet, those of a freeze under way excepted: after recovery, and when idle.  Waits for operations on the targets.
 */
void firn_engine_watch(struct firn_engine *en, uint64_t id);
/*
 * Whom to tell that there is something to do for the targets of @id, from a thread of the engine's that holds nothing: to
 * thaw them.  @line: what happened, for the log.  Once; before, nothing is watched.  Returns 0, or -errno: nothing ever is.
 */
int firn_engine_on_wake(struct firn_engine *en, void (*fn)(void *arg, uint64_t id, const char *line), void *arg);
/* Tell nobody any more: afterwards @fn is not called. */
void firn_engine_wake_end(struct firn_engine *en);
/* The pids of frozen targets of @id, at most @max.  Returns how many there are. */
unsigned int firn_engine_wake_members(struct firn_engine *en, uint64_t id, pid_t *pids, unsigned int max);

/* May a user with @uid (and @gid) ptrace @pid?  Root may.  Returns 0, -ESRCH, or -EPERM. */
int firn_engine_may_trace(uid_t uid, gid_t gid, pid_t pid);

/* Thaw children that have no pid: see firn_engine_thaw; @id is their number in the registry. */
int firn_engine_thaw_all(struct firn_engine *en, const struct firn_evict_options *options,
			 void (*fn)(void *arg, const struct firn_report *r), void *arg);

#endif
