/* SPDX-License-Identifier: Apache-2.0 */
/* The pools of packet buffers that a port needs, made for what its driver does with them. */
#ifndef CASEMATE_DRIVE_PORT_POOL_H
#define CASEMATE_DRIVE_PORT_POOL_H

#include "port_capability.h"

struct rte_mempool;
struct port_pools {
	struct rte_mempool *rx; /* whole frames: received, copied, or our own answers */
	struct rte_mempool *tx; /* no room of their own: they point into cells; NULL: none needed */
};

/* gives; 0 or a negative errno. */
int port_pools_new(struct port_pools *, uint16_t ethdev, const struct port_capability *,
		   uint16_t rx_descriptors, uint16_t tx_descriptors);
/* After the device was closed: it has them no longer. */
void port_pools_free(struct port_pools *);

#endif
