/* SPDX-License-Identifier: MIT */
/*
 * What the path of a cgroup says: systemd's unit, a container's id.  Pure; any thread; allocates nothing.
 */
#ifndef FIRN_POLICY_CGROUP_H
#define FIRN_POLICY_CGROUP_H

#include "base/types.h"

/*
 * The unit of the system's systemd that @path lies in: the first part of it that ends in .service or .scope.  "" where
 * there is none, or where @size bytes do not hold it.  Returns @buf.
 */
const char *firn_cgroup_unit(const char *path, char *buf, size_t size);

/* The unit of a user's systemd: the first such part below user@UID.service.  "" as above. */
const char *firn_cgroup_user_unit(const char *path, char *buf, size_t size);

/*
 * The id of the innermost container that @path lies in, as Docker, containerd, CRI-O, Podman and Kubernetes name its cgroup: 64
 * hexadecimal digits, alone or as in docker-ID.scope.  Or the name that LXC (lxc.payload.NAME) and systemd-nspawn
 * (systemd-nspawn@NAME.service, machine-NAME.scope) give.  "" where there is none.  Returns @buf.
 */
const char *firn_cgroup_container(const char *path, char *buf, size_t size);

#endif
