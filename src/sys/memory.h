/* SPDX-License-Identifier: MIT */
/*
 * Buffers that the device reads and writes by itself.
 */
#ifndef FIRN_SYS_MEMORY_H
#define FIRN_SYS_MEMORY_H

#include <stddef.h>

/*
 * Reserve @bytes, zeroed and present before it returns, left out of core dumps (other processes' memory lies in
 * them), and in huge pages where there are some and it fills them: a request of a device has so many
 * segments at most, and one of 4 KiB pages is as much smaller.  2 MiB aligned from that size on, page aligned
 * below.  Any thread.  Returns NULL where there is no memory.
 */
void *firn_memory_reserve(size_t bytes);

/* Give it back; @bytes as reserved.  NULL is allowed. */
void firn_memory_release(void *p, size_t bytes);

#endif
