/* SPDX-License-Identifier: MIT */
/*
 * The configuration that a running agent goes by.  Main thread.
 */
#ifndef FIRN_AGENT_LIVE_H
#define FIRN_AGENT_LIVE_H

#include "agent/config.h"

struct firn_live {
	const char *dir;
	int automatic;               /* enum firn_config_auto, from the command line; -1: the configuration's */
	struct firn_config *config;  /* in force; owned */
};

/*
 * Read the configuration that an agent begins with.  Where it is not valid, each error goes to the log, and what is
 * built in counts, without decisions of the agent's own: an agent that did not start could not thaw what waits for it.
 * Returns 0, or -ENOMEM.
 */
int firn_live_begin(struct firn_live *l);

/*
 * Read it anew.  Where it is not valid, the one in force stays, and the log says so.  Returns the former one, which the
 * caller frees when nobody uses it any more; NULL where it stays.
 */
struct firn_config *firn_live_reload(struct firn_live *l);

#endif
