/* SPDX-License-Identifier: MIT */
/*
 * Where the agent's files live.
 */
#ifndef FIRN_BASE_PATHS_H
#define FIRN_BASE_PATHS_H

#include <stddef.h>

#define FIRN_SOCKET_NAME "firn.sock"
#define FIRN_AGENT_PID_NAME "agent.pid"
#define FIRN_KEEPER_PID_NAME "keeper.pid"
#define FIRN_PRIVATE_DIR "private"
#define FIRN_STORE_DIR "store"
#define FIRN_LOG_NAME "agent.log"

/*
 * The runtime directory: $FIRN_RUNTIME_DIR; else /run/firn where /run is on tmpfs; else
 * /dev/shm/firn.  It must outlive an agent and not outlive the boot, and it is written to while
 * targets wait: hence memory, not a disk.  Returns 0, or -ENAMETOOLONG.
 */
int firn_runtime_dir(char *buf, size_t size);

/* The state directory: $FIRN_STATE_DIR, else /var/lib/firn.  Returns 0, or -ENAMETOOLONG. */
int firn_state_dir(char *buf, size_t size);

/* @dir/@name into @buf.  Returns 0, or -ENAMETOOLONG. */
int firn_path_join(char *buf, size_t size, const char *dir, const char *name);

#endif
