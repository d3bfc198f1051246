/* SPDX-License-Identifier: MIT */
/*
 * What the agent did since it began, counted: operations, refusals by their reason, bytes, and times as histograms.
 * Told as JSON, or as OpenMetrics text.
 *
 * Any thread may note; whoever tells brings the gauges of the moment.
 */
#ifndef FIRN_AGENT_METRICS_H
#define FIRN_AGENT_METRICS_H

#include <json-c/json.h>
#include <pthread.h>

#include "engine/engine.h"

enum firn_metrics_verb {
	FIRN_METRICS_FREEZE,
	FIRN_METRICS_EVICT,
	FIRN_METRICS_THAW,
	FIRN_METRICS_VERBS
};

/* Who wanted it. */
enum firn_metrics_cause {
	FIRN_METRICS_REQUEST,           /* a user */
	FIRN_METRICS_RECLAIM,           /* a user's need of memory */
	FIRN_METRICS_POLICY,            /* the agent itself */
	FIRN_METRICS_WAKE,              /* something for the target to do */
	FIRN_METRICS_CAUSES
};

const char *firn_metrics_cause_name(enum firn_metrics_cause c);

#define FIRN_METRICS_BUCKETS 14u
#define FIRN_METRICS_REASONS 96u

struct firn_metrics_histogram {
	uint64_t counts[FIRN_METRICS_BUCKETS + 1];      /* the last: above every bound */
	double sum;
};

struct firn_metrics {
	pthread_mutex_t lock;
	uint64_t since_ms;              /* Unix time */
	uint64_t done[FIRN_METRICS_VERBS][FIRN_METRICS_CAUSES], failed[FIRN_METRICS_VERBS][FIRN_METRICS_CAUSES];
	struct {
		char word[32];
		uint64_t count;
	} reasons[FIRN_METRICS_REASONS];
	unsigned int nreasons;
	uint64_t evicted_bytes, freed_bytes, written_bytes, read_bytes, faults, lost_pages;
	struct firn_metrics_histogram evict_s, run_s, whole_s, evict_bytes;
};

/* What holds at the moment of telling; what is not known is left out. */
struct firn_metrics_now {
	unsigned int targets[FIRN_TARGET_STATES];
	uint64_t out_bytes, store_bytes, ram_bytes;
	uint64_t faults;                /* of the targets that are there */
	uint64_t memory_total, memory_available;
	bool psi;
	double some_avg10, full_avg10;  /* percent */
	bool budget;                    /* there is one: bytes for the store, of this day */
	uint64_t budget_bytes, budget_used_bytes;
};

void firn_metrics_init(struct firn_metrics *m);

/* An operation came to its end, as @r tells; page size 4096 bytes or what the host has. */
void firn_metrics_note(struct firn_metrics *m, enum firn_metrics_verb verb, enum firn_metrics_cause cause,
		       const struct firn_report *r);

/* All of it.  The caller owns what is returned; NULL where memory lacks. */
struct json_object *firn_metrics_json(struct firn_metrics *m, const struct firn_metrics_now *now);

/*
 * OpenMetrics text.  @classic: the older format that a node_exporter's textfile collector reads.  The caller frees
 * what is returned; NULL where memory lacks.
 */
char *firn_metrics_text(struct firn_metrics *m, const struct firn_metrics_now *now, bool classic);

#endif
