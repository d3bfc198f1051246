/* SPDX-License-Identifier: MIT */
/*
 * The userfaultfd interface as the running kernel may have it.  Debian 12's headers stop at Linux 6.1;
 * what came later is declared here and probed at run time.
 */
#ifndef FIRN_TRANSFER_UFFD_H
#define FIRN_TRANSFER_UFFD_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "base/types.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#define FIRN_UFFD_DEVICE "/dev/userfaultfd"
#define FIRN_UFFD_FEATURE_POISON (1ull << 14)
#define FIRN_UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct firn_uffdio_poison)

struct firn_uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};

/* All four layout events, and which thread faults. */
#define FIRN_UFFD_FEATURES                                                                          \
	((uint64_t)(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
		    UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_THREAD_ID))

/*
 * Open /dev/userfaultfd and ask what this kernel offers.
 * Returns the device's descriptor (the caller closes) and its features in *@ret_features;
 * -ENOENT/-EACCES no device; -EOPNOTSUPP a layout event is missing.
 */
int firn_uffd_open_device(uint64_t *ret_features);

#endif
