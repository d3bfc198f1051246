/* SPDX-License-Identifier: MIT */
/*
 * What the engine's files share; not for others.
 */
#ifndef FIRN_ENGINE_INTERNAL_H
#define FIRN_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"
#include "pack/builder.h"
#include "pager/pager.h"
#include "procmem/inject.h"
#include "procmem/proc.h"
#include "procmem/stop.h"
#include "transfer/armed.h"
#include "transfer/packfile.h"

#define FIRN_IMAGE_MAGIC 0x6567616d696e7266ull   /* "frnimage" */
#define FIRN_IMAGE_VERSION 7u
#define FIRN_SET_BLOCKS_MAX (2u * FIRN_WORKSET_MAX / FIRN_BLOCK_PAGES)   /* of base and pack */
#define FIRN_HUGE_MAX 128u             /* neighbors are one; more are left to khugepaged */

#define FIRN_WAKE_TIMERS 64u          /* timerfds that wake; the others tick */

/* What a successor must know to wake it. */
struct firn_wake_memory {
	uint64_t id;                    /* see firn_engine_wake_id; 0: not to be woken */
	uint64_t stopped_ms;            /* realtime: timeouts count from here */
	uint64_t ticked;                /* signals of timers that came soon after, and mean nothing */
	uint32_t ntimers;
	int32_t timers[FIRN_WAKE_TIMERS];
};

/* A target's shared memory: all that a successor needs.  The link memory follows, page aligned. */
struct firn_image {
	uint64_t magic;
	uint32_t version;
	uint32_t page_size;
	uint64_t link_at, link_bytes;
	int32_t pid;
	int32_t parent;
	uint64_t start_time;
	uint64_t serial;                /* order of birth */
	char comm[16];
	uint32_t state;                 /* enum firn_target_state */
	uint32_t was_stopped;           /* by a signal, before we came: stays so after the thaw */
	uint64_t held;                  /* who holds its userfaultfd for us: see firn_image_hold */
	int32_t target_uffd;            /* number in the target, or -1 */
	uint64_t generation;            /* of its pack; 0: none yet */
	uint64_t since_ms;
	uint64_t pages;
	uint64_t memory_before, memory_after;
	uint64_t ns[FIRN_PHASES];
	uint64_t parent_serial, fork_seq;   /* of a child: the event that made it */
	struct firn_mask_journal mask;
	struct firn_inject_journal inject;
	uint64_t group;                 /* 0: none */
	uint32_t group_kept;            /* all of it was frozen */
	char group_text[FIRN_GROUP_TEXT];
	/* The first set_base blocks of the pack's base and the first set_blocks of its own, which are numbered from
	 * set_first, hold the working set. */
	uint32_t set_base, set_first, set_blocks, pad;
	uint64_t set_held[FIRN_SET_BLOCKS_MAX / 64];    /* a bit for each that this thaw holds back */
	struct firn_workset set;
	uint32_t nhuge, pad_huge;
	struct firn_range huge[FIRN_HUGE_MAX];  /* in huge pages when it was evicted */
	struct firn_wake_memory wake;
	struct firn_armed_memory armed;
};

/* A pack and those that live on it. */
struct firn_pack_ref {
	struct firn_packfile file;
	size_t memory_bytes;
	unsigned int users;             /* under the registry's lock */
	bool buffered;                  /* the store cannot do O_DIRECT: what is written must be synced */
	char path[512];                 /* in the store */
	char ram_path[512];             /* in memory; which of the two is the pack: firn_pack_path */
	uint64_t ram_reserve;           /* bytes that it leaves free there */
	uint64_t tried_ns;              /* when it could not be moved to the store; 0: not tried */
	char memory_path[512];
	struct firn_pack_ref *base;     /* whose user it is; NULL: it holds everything */
};

/* A pack whose process was thawed: see kept.c. */
struct firn_kept {
	struct firn_kept *next;
	struct firn_pack_ref *pack;     /* whose user it is */
	pid_t pid;
	uint64_t start_time;
	char path[512];                 /* its record in the private directory */
};

/* What a pack is made as. */
struct firn_pack_shape {
	enum firn_pack_kind kind;
	uint32_t max_blocks, max_fills;
	enum firn_cipher cipher;
	bool in_ram;
	uint32_t move_after_s;          /* FIRN_PACK_STAYS */
	struct firn_pack_ref *base;     /* or NULL; where the pack is made, it is the pack's from then on */
};

struct firn_target {
	struct firn_target *next;
	struct firn_image *image;
	size_t image_bytes;
	char image_path[512];
	pid_t pid;
	int pidfd;                      /* -1 while unknown */
	bool busy;                      /* an operation runs on it */
	bool served;                    /* known to the pager */
	struct firn_armed armed;
	struct firn_pack_ref *pack;
	struct firn_watch *watch;       /* NULL: its descriptors are not looked at; whoever took the target changes it */
	bool wake_ready;                /* the freeze that it belongs to is over */
};

struct firn_engine {
	struct firn_engine_config config;
	uint32_t page_size;
	int uffd_device;
	uint64_t uffd_features;
	struct firn_pager *pager;
	pthread_mutex_t lock;           /* the registry; never held while waiting for a target */
	pthread_cond_t changed;
	struct firn_target *targets;
	struct firn_kept *kept;         /* the newest first */
	uint64_t serial;
	bool moving;                    /* the mover's thread is there */
	uint64_t swept_ns;              /* when the sets of ended processes were looked for; the main thread's */
	bool keep_packs;                /* a link state could not be read: its pack is not known */
	uint64_t wake_id;               /* the last that was given out */
	void (*on_wake)(void *arg, uint64_t id, const char *line);
	void *wake_arg;
	pthread_t wake_thread;
	bool wake_open, wake_ending;
	pthread_cond_t wake_said;
	struct firn_wake_note *wake_notes, **wake_last;
	pthread_mutex_t builder_lock;   /* one gather at a time: its buffers are the agent's largest */
};

/* --- image.c: files in the private directory and the store --- */

/* Make the image of @pid.  Returns 0, or -errno with *@e. */
int firn_image_create(struct firn_engine *en, struct firn_target *t, const struct firn_proc *proc,
		      const struct firn_link_shape *shape, struct firn_err *e);
/* Note that the keeper (config.keeper) has descriptor @uffd in its table; -1: nobody has one. */
void firn_image_hold(struct firn_engine *en, struct firn_image *image, int uffd);
/* Which keeper has it, under which number.  False: none. */
bool firn_image_held(const struct firn_image *image, pid_t *ret_keeper, int *ret_uffd);
/* Map an image that a former agent left.  -EBADMSG: not one. */
int firn_image_open(struct firn_engine *en, struct firn_target *t, const char *path);
void firn_image_unmap(struct firn_target *t);
/* Make the pack file and its tables.  Returns 0, or -errno with *@e. */
int firn_pack_ref_create(struct firn_engine *en, struct firn_pack_ref **ret, const struct firn_pack_shape *shape,
			 struct firn_err *e);
/* Where it was moved when the former agent died, one whole file counts and the other is deleted. */
int firn_pack_ref_open(struct firn_engine *en, struct firn_pack_ref **ret, uint64_t generation);
/* The pack's file, wherever it is. */
const char *firn_pack_path(const struct firn_pack_ref *p);
/* Make the file in the store, or open it: O_DIRECT where that can be.  Returns its descriptor, or -errno. */
int firn_pack_file_open(const char *path, bool create, bool *ret_buffered);
/* The last user deletes the pack and gives its space back.  Registry locked. */
void firn_pack_unref(struct firn_pack_ref *p);
/* Delete packs and tables that no target lives on. */
void firn_image_sweep(struct firn_engine *en);
/* Is the store usable?  Returns 0, or -errno with *@e. */
int firn_store_check(const char *dir, struct firn_err *e);

/* --- kept.c: packs that outlive their thaw.  None is called with the registry locked --- */

/*
 * @t is whole, and about to be forgotten: keep its pack for its next eviction, where it is one to be compared with, or
 * the pack that it was made upon.  Others may have to go: the share of the store is kept to.
 */
void firn_kept_keep(struct firn_engine *en, struct firn_target *t);
/* Give up the oldest on which nobody lives, its space at once.  False: there is none. */
bool firn_kept_give_way(struct firn_engine *en);
/* Give up those of processes that have ended, and what is beyond the share. */
void firn_kept_sweep(struct firn_engine *en);
/* Take over what a former agent kept.  After the images were opened, before any of them is forgotten. */
void firn_kept_recover(struct firn_engine *en);
/* Give up all; nobody else is there any more. */
void firn_kept_close(struct firn_engine *en);

/* --- ram.c: packs in memory --- */

/*
 * Is there room in memory for the pack of @pages, and for what it takes until they are dropped?  In the plan.
 * Returns 0; -ENOSPC and -EINVAL (the private directory is not in memory) with *@e.
 */
int firn_ram_check(struct firn_engine *en, pid_t pid, uint64_t pages, struct firn_err *e);
/* The cipher of a pack that never leaves memory: none, but where the host could write memory to swap. */
enum firn_cipher firn_ram_cipher(const struct firn_engine *en);
/* May @bytes more be written to pack @p, which is in memory, and leave what others need?  0, or -ENOSPC. */
int firn_ram_room(const struct firn_pack_ref *p, uint64_t bytes);

/* --- target.c: the registry --- */

struct firn_target *firn_target_new(void);
/* Unmap, close and free; not in the registry any more. */
void firn_target_free(struct firn_engine *en, struct firn_target *t);
/* Put in front; registry locked by the callee. */
void firn_target_insert(struct firn_engine *en, struct firn_target *t);
/* Find by pid and make it the caller's alone, waiting for another operation.  NULL: no such target. */
struct firn_target *firn_target_take(struct firn_engine *en, pid_t pid, uint64_t serial);
void firn_target_release(struct firn_engine *en, struct firn_target *t);
/* Take it out of pager and registry, delete image and (as last user) pack, free it.  It was taken. */
void firn_target_forget(struct firn_engine *en, struct firn_target *t);
void firn_target_fill_report(const struct firn_target *t, struct firn_report *ret);
void firn_target_set_state(struct firn_target *t, enum firn_target_state s);
/* Has its address space ended, by exit or exec? */
bool firn_target_ended(struct firn_target *t);

/* --- plan.c --- */

struct firn_plan {
	struct firn_proc proc;
	uint64_t pages;                 /* that may be evicted, at most */
	uint32_t vmas;
};

/*
 * May @pid be evicted?  Reads only.  @exactly: ret->pages is what may go now; if not, which is quicker, a bound of that.
 * Returns 0, or -errno with *@e.
 */
int firn_plan_make(struct firn_engine *en, pid_t pid, const struct firn_evict_options *o, bool exactly,
		   struct firn_plan *ret, struct firn_err *e);
/* Set *@e for a process that uses userfaultfd itself; returns -errno. */
int firn_plan_refuse_uffd(pid_t pid, struct firn_err *e);

/* What reaches into the memory of @pid behind its page tables, or shares it: looked for in the plan, and
 * again once it is stopped.  Returns 0, or -errno with *@e. */
int firn_plan_hazards(pid_t pid, struct firn_err *e);

/* --- descriptors.c: the userfaultfd's way into the target and out --- */

/*
 * Open a userfaultfd in the target; our copy is the result.  Injection is open, none begun.  @pack: -1, or a
 * descriptor of ours that the target is given too, under number *@ret_pack; firn_pack_leave takes it away.
 */
int firn_uffd_enter(struct firn_engine *en, struct firn_target *t, struct firn_inject *i, int pack, int *ret_pack,
		    struct firn_err *e);
/* Close descriptor @fd of the pack there.  Injection as above. */
int firn_pack_leave(struct firn_inject *i, int fd);
/* Close it there.  Injection as above. */
int firn_uffd_leave(struct firn_target *t, struct firn_inject *i);
/* Close what a dead agent left half way: our sockets and userfaultfds, but @keep; the pack. */
int firn_uffd_sweep(struct firn_target *t, struct firn_inject *i, int keep);
/* Is descriptor @fd of @pid a userfaultfd? */
bool firn_uffd_is_one(pid_t pid, int fd);

/* --- child.c --- */

extern const struct firn_pager_ops firn_engine_pager_ops;
void firn_child_set_engine(struct firn_engine *en);
/* Find the process of a child that has no pid yet.  Registry locked. */
void firn_child_identify(struct firn_engine *en, struct firn_target *t);

/* --- workset.c: the working set --- */

/* What is known of the target's from its last thaw, into its image; recording begins.  In the plan. */
void firn_engine_workset_load(struct firn_engine *en, struct firn_target *t);
/* Bring in what of it is missing, but what is held back, by one read.  Before the target runs, or while it does;
 * what fails is left to faults and to the stream. */
void firn_engine_workset_bring(struct firn_engine *en, struct firn_target *t);
/* Is @block one that is held back, to see whether it is asked for?  The stream brings it last. */
bool firn_engine_workset_held(const struct firn_image *image, uint32_t block);
/* The target is whole: learn what it asked for, and keep it for its next eviction. */
void firn_engine_workset_keep(struct firn_engine *en, struct firn_target *t);
/* Forget the sets of processes that have ended.  One system call or a few for each set. */
void firn_engine_workset_sweep(struct firn_engine *en);
/* Delete the files PID-STARTTIME@suffix of the private directory whose process has ended.  Any thread. */
void firn_sweep_ended(struct firn_engine *en, const char *suffix);

/* --- huge.c --- */

/*
 * Make huge pages again of what was in huge pages when @t was evicted and came back to the same place.  @t is whole,
 * nothing is watched any more, its link table is still there; its threads may run, each of them waits for a huge
 * page's copy at most.  Takes a second at most.  Without effect where the kernel refuses (before 6.1, no huge page
 * free, THP off) and for a child without pidfd.
 */
void firn_huge_restore(struct firn_target *t);

/* --- hold.c: groups --- */

void firn_engine_set_group(struct firn_image *image, const struct firn_group *group);
/* Let a held target run, and forget it; it is taken.  Where it cannot be let run it stays held and is released. */
int firn_hold_end(struct firn_engine *en, struct firn_target *t, struct firn_report *ret);
/* Of the @n targets that were taken over, by birth, let those run whose group was not frozen whole.  What is forgotten is
 * NULL then.  Returns how many those are. */
int firn_groups_settle(struct firn_engine *en, struct firn_target **targets, int n);

/* --- wake.c, watch.c: see engine.h --- */

/* The target was stopped just now, to be frozen: note what of its timers is more than a tick. */
void firn_wake_note(struct firn_engine *en, struct firn_target *t, uint64_t id);
/*
 * Watch the frozen target, on a thread with a descriptor table of its own: what it copies from the target is closed
 * when it ends, and when the agent is killed, whoever shares the agent's own table.  The target is taken.
 * Returns 0, or -errno: it is not watched.
 */
int firn_watch_begin(struct firn_engine *en, struct firn_target *t);
/* End that; afterwards no copy is open.  Nothing where it is not watched.  The target is taken. */
void firn_watch_end(struct firn_target *t);
/* Does it go on?  False: there is none, it could not be done, or what it did led to nothing for a while. */
bool firn_watch_goes_on(const struct firn_target *t);
void firn_watch_fill(const struct firn_target *t, struct firn_watching *ret);

#define FIRN_WAKE_PASSED 32u

/* What is kept of a process's last wake, beside the images, as long as it lives. */
struct firn_wake_record {
	uint64_t magic;
	struct firn_woken woken;
	/* Descriptors that woke it by what was there before, and that it left as they were. */
	uint32_t npassed, pad;
	struct firn_wake_passed {
		int32_t fd;
		uint32_t bytes;
		uint64_t ino;
	} passed[FIRN_WAKE_PASSED];
};

/* Returns 0, or -errno; *@ret is zero then. */
int firn_wake_record_load(struct firn_engine *en, pid_t pid, uint64_t start_time, struct firn_wake_record *ret);
int firn_wake_record_save(struct firn_engine *en, pid_t pid, uint64_t start_time, const struct firn_wake_record *r);
/* Delete those of processes that have ended. */
void firn_wake_sweep(struct firn_engine *en);

/* --- thaw.c --- */

/* A frozen or held target runs again, unless it was stopped before we came.  Returns 0, -ESRCH, or -errno with *@e. */
int firn_target_let_run(struct firn_target *t, struct firn_err *e);

/* Bring back everything and leave no trace; the target is taken, and freed where that succeeds. */
int firn_thaw_target(struct firn_engine *en, struct firn_target *t, const struct firn_evict_options *o,
		     struct firn_report *ret);
/* With every thread stopped, injection open and nothing missing: take watch, descriptor and code away. */
int firn_disarm(struct firn_target *t, struct firn_inject *i, struct firn_err *e);

#endif
