/* SPDX-License-Identifier: MIT */
/*
 * firnd --check: does this host's kernel and store have what is needed, and what follows where not.
 */
#ifndef FIRN_AGENT_CHECK_H
#define FIRN_AGENT_CHECK_H

#include "base/types.h"

/* Print the findings; @json: as one JSON object.  Returns an enum firn_exit. */
int firn_check(const char *runtime_dir, const char *state_dir, bool json);

#endif
