/* SPDX-License-Identifier: MIT */
/*
 * The configuration: what is built in, the profile, DIR/firn.conf and DIR/firn.conf.d/ *.conf in the order of their
 * names; of a key that is set several times the last one counts.  firn.conf(5) tells the same to people.
 *
 * A configuration is read whole and not changed afterwards; any thread may read it.  Whoever keeps a pointer into it
 * (a rule, a text) keeps it only for as long as the configuration.
 */
#ifndef FIRN_AGENT_CONFIG_H
#define FIRN_AGENT_CONFIG_H

#include "base/types.h"
#include "policy/policy.h"
#include "policy/rules.h"

enum firn_config_auto {
	FIRN_AUTO_NO,                /* the agent does what it is asked for, and nothing else */
	FIRN_AUTO_DRY_RUN,           /* it decides, and says in its log what it would do */
	FIRN_AUTO_YES,
};

/* A share of something, or bytes. */
struct firn_config_amount {
	enum { FIRN_AMOUNT_AUTO, FIRN_AMOUNT_NONE, FIRN_AMOUNT_BYTES, FIRN_AMOUNT_SHARE } is;
	uint64_t bytes;
	uint32_t hundredths;         /* of a percent */
};

struct firn_config {
	/* [agent] */
	const char *profile;         /* "server", "desktop", "embedded" */
	enum firn_config_auto automatic;
	const char *scope;           /* "cgroup:PATH", "tree:PID", "user:NAME"; "" for all */
	bool stop_leaves;            /* SIGTERM ends the agent alone: what is out stays so, for the next agent */
	uint64_t look_ns;            /* between two looks at all processes */
	uint64_t wake_tick_ns;       /* a timer or timeout shorter than this does not wake what is frozen */
	const char *metrics_textfile;/* for node_exporter; "" for none */
	uint64_t metrics_ns;         /* between two of its versions */
	/* [policy] */
	struct firn_policy_config policy;
	/* [store] */
	struct firn_config_amount store_limit;   /* what all packs may take; a share is one of the file system */
	struct firn_config_amount store_free;    /* what is left free of the file system; a share likewise */
	struct firn_config_amount daily_budget;  /* bytes written a day; a share is one of the device */
	uint32_t budget_warn_hundredths;         /* warn when so much of it is used */
	uint64_t buffer_bytes;       /* of an eviction */
	/* [rule NAME], in the order in which they are asked */
	const struct firn_rule *rules;
	size_t nrules;
};

#define FIRN_CONFIG_ERRORS 100
/* What is wrong, in the order in which it was found. */
struct firn_config_error {
	const char *file;            /* path */
	uint32_t line;               /* 0: the file as a whole */
	const char *message;         /* what is wrong: what to do */
};
struct firn_config_errors {
	size_t n;                    /* at most FIRN_CONFIG_ERRORS */
	size_t more;                 /* that had no room */
	struct firn_config_error *list;
	void *memory;                /* what the texts lie in */
};

/*
 * Read the configuration below @dir (NULL: only what is built in).  No file at all is none, and no error.  Main thread, or any
 * that may wait for the disk.
 * Returns 0 with *@ret; -EINVAL where something in it is wrong, and @errors (may be NULL) says all of it; -ENOMEM.
 * The caller frees *@ret, and clears @errors in every case.
 */
int firn_config_load(const char *dir, struct firn_config **ret, struct firn_config_errors *errors);
void firn_config_free(struct firn_config *c);
void firn_config_errors_clear(struct firn_config_errors *e);

/* $FIRN_CONFIG_DIR, else /etc/firn. */
const char *firn_config_dir(void);

/* What all packs may take and how much more may be written to the store: of @used bytes by packs on a file system of @size bytes
 * with @free bytes left to us.  FIRN_NO_LIMIT cannot come out: the file system has an end. */
uint64_t firn_config_store_room(const struct firn_config *c, uint64_t size, uint64_t free, uint64_t used);

/*
 * The bytes that may be written a day to the device below @store_dir; FIRN_NO_LIMIT where there is no budget.  Where it is up to us,
 * 2 GiB on small flash and 5 % of the device elsewhere.  @why (may be NULL) says it in words: "5% of sda (512GiB)".
 */
#define FIRN_CONFIG_WHY 128
uint64_t firn_config_daily_budget(const struct firn_config *c, const char *store_dir, char why[FIRN_CONFIG_WHY]);

/* firnd --config-check and --config-show: print to standard output what is wrong, or what counts and where it comes from.
 * Return an enum firn_exit. */
int firn_config_check(const char *dir, bool json);
int firn_config_show(const char *dir, bool json);

#endif
