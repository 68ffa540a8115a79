/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that cells live in: hugepages of DPDK, which devices can read from directly, or
 * ordinary pages where there are none. */
#ifndef CASEMATE_DRIVE_PORT_MEMORY_H
#define CASEMATE_DRIVE_PORT_MEMORY_H

#include "core/base.h"

/* gives zeroed, page-aligned memory, or NULL with errno. After eal_start, if that is called at all.
 */
void *packet_memory_new(uint64_t bytes);
/* takes; bytes as given to packet_memory_new. */
void packet_memory_free(void *memory, uint64_t bytes);

/* The address by which a device reads these bytes; UINT64_MAX when it cannot as one piece. */
uint64_t packet_memory_device_address(const void *bytes, uint32_t length);

#endif
