/* SPDX-License-Identifier: MIT */
#include "agent/live.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

static void log_errors(const struct firn_config_errors *e)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->list[i].line)
			firn_log("%s:%u: %s", e->list[i].file, e->list[i].line, e->list[i].message);
		else
			firn_log("%s: %s", e->list[i].file, e->list[i].message);
	}
	if (e->more)
		firn_log("and %zu more errors of the configuration", e->more);
}

static int load(const struct firn_live *l, struct firn_config **ret)
{
	struct firn_config_errors e;
	int err = firn_config_load(l->dir, ret, &e);

	if (err)
		log_errors(&e);
	else if (l->automatic >= 0)
		(*ret)->automatic = (enum firn_config_auto)l->automatic;
	firn_config_errors_clear(&e);
	return err;
}

int firn_live_begin(struct firn_live *l)
{
	int err = load(l, &l->config);

	if (err != -EINVAL)
		return err;
	firn_log("the configuration is not valid: what is built in counts, and the agent decides nothing by itself, until it is "
		 "corrected and read again (SIGHUP)");
	err = firn_config_load(NULL, &l->config, NULL);
	if (!err)
		l->config->automatic = FIRN_AUTO_NO;
	return err;
}

struct firn_config *firn_live_reload(struct firn_live *l)
{
	struct firn_config *fresh, *old = l->config;
	int err = load(l, &fresh);

	if (err) {
		firn_log("the configuration %s: the one from before stays in force",
			 err == -ENOMEM ? "cannot be read for want of memory" : "is not valid");
		return NULL;
	}
	if (strcmp(fresh->scope, old->scope) || fresh->buffer_bytes != old->buffer_bytes ||
	    fresh->wake_tick_ns != old->wake_tick_ns)
		firn_log("the configuration has another scope, buffer or wake-tick: these count from the next start on");
	l->config = fresh;
	firn_log("the configuration was read anew from %s, and is in force", l->dir);
	return old;
}
