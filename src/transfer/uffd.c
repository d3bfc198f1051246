/* SPDX-License-Identifier: MIT */
#include "transfer/uffd.h"

#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "sys/sys.h"

int firn_uffd_open_device(uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API };
	FIRN_FD device = (int)firn_sys.open(FIRN_UFFD_DEVICE, O_RDWR, 0);
	FIRN_FD probe = -1;

	if (device < 0)
		return device;
	probe = (int)firn_sys.ioctl(device, USERFAULTFD_IOC_NEW, (void *)(uintptr_t)(O_CLOEXEC | O_NONBLOCK));
	if (probe < 0)
		return probe;
	if (firn_sys.ioctl(probe, UFFDIO_API, &api) < 0)
		return -EOPNOTSUPP;
	if ((api.features & FIRN_UFFD_FEATURES) != FIRN_UFFD_FEATURES)
		return -EOPNOTSUPP;
	*ret_features = api.features;
	return firn_fd_steal(&device);
}
