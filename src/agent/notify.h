/* SPDX-License-Identifier: MIT */
/*
 * What a service manager is told, and what it hands over, by the protocols of sd_notify(3) and sd_listen_fds(3).
 * Where there is no manager, nothing is done.  Main thread.
 */
#ifndef FIRN_AGENT_NOTIFY_H
#define FIRN_AGENT_NOTIFY_H

#include "base/types.h"

/*
 * Take what the environment says and take it out of the environment, so that no child takes it for its own.  First of all; before
 * any descriptor is opened or closed.  @ret_first_free: descriptors from 3 up to it are the manager's; 3 where there are none.
 */
void firn_notify_begin(int *ret_first_free);

/* The listening socket that was handed over, or -1. */
int firn_notify_socket(void);

/* The key of packs that was kept for us, or -1.  The caller's from then on. */
int firn_notify_take_key(void);
/* Have the manager keep @fd, the key of packs, beyond this process, where the unit allows it (FileDescriptorStoreMax);
 * -1: it need not keep one any more. */
void firn_notify_keep_key(int fd);

/* Tell @state, "READY=1".  Never waits, never fails. */
void firn_notify(const char *state);
/* Reading its configuration anew; then READY=1 again. */
void firn_notify_reloading(void);

/* To be called at least once a second: tells the watchdog that we live; with @stopping also that we need more time. */
void firn_notify_alive(uint64_t now_ns, bool stopping);

#endif
