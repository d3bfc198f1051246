/* SPDX-License-Identifier: MIT */
/* The switches FIRN_MALLOC_*, read once, and messages. */
#ifndef FIRN_MALLOC_CONFIG_H
#define FIRN_MALLOC_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum firn_barrier_tier {
	FIRN_BARRIER_AUTO,
	FIRN_BARRIER_NONE,              /* one thread, nobody else shares the memory: nothing to hold off */
	FIRN_BARRIER_WP,                /* userfaultfd write-protection */
	FIRN_BARRIER_TRACER,            /* the other threads are stopped */
	FIRN_BARRIER_OFF,               /* no folding possible */
};

struct firn_malloc_config {
	bool fold;                      /* FIRN_MALLOC_FOLD=0|1 (1) */
	enum firn_barrier_tier barrier; /* FIRN_MALLOC_BARRIER=auto|none|wp|tracer: the only one that may be used */
	uint32_t period_ms;             /* FIRN_MALLOC_PERIOD_MS (500): between two passes */
	uint32_t age;                   /* FIRN_MALLOC_AGE (2): periods a page is quiet before it is folded */
	uint32_t decay_ms;              /* FIRN_MALLOC_DECAY_MS (200): empty pages go back after this */
	uint32_t region_bytes;          /* FIRN_MALLOC_REGION (16): a power of two, 16 .. 2048 */
	uint32_t vma_percent;           /* FIRN_MALLOC_VMA_PERCENT (25): of vm.max_map_count that folds may use */
	uint32_t cpu_percent;           /* FIRN_MALLOC_CPU_PERCENT (2): of a processor that passes may use over a minute */
	uint32_t stop_ms;               /* FIRN_MALLOC_STOP_MS (1000): between two stops of the tracer tier */
	bool core;                      /* FIRN_MALLOC_CORE=0|1 (1): folded pages in core dumps (coredump_filter bit 2) */
	bool seccomp;                   /* FIRN_MALLOC_SECCOMP=0|1 (0): fold also under a seccomp filter */
	bool stats;                     /* FIRN_MALLOC_STATS=1: statistics to standard error at exit */
	bool background;                /* FIRN_MALLOC_BACKGROUND=1: a thread that folds and purges when the program does not */
};

extern struct firn_malloc_config firn_config;

/* From the environment; a bad value is named in one line on standard error and ignored.  Once. */
void firn_config_read(char **environment);

/* One line "firn-malloc: ..." by write(2) to standard error.  %s %u %lu %p %x only; allocates nothing, keeps errno. */
void firn_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, then abort(). */
void firn_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
