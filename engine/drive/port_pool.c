/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of packet buffers. A buffer that a driver may keep is counted for each place where it may:
 * a pool with less than all that stops the device for good, as what would give buffers back needs
 * one first. */
#include "port_pool.h"

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memzone.h>

#include <stdio.h>

enum {
	BURSTS = 4 * 32, /* in our hands */
	CACHE = 128,	 /* of a pool; a cache holds up to one and a half of it */
	SPARE = BURSTS + CACHE * 3 / 2,
	ROOM_SMALL = RTE_MBUF_DEFAULT_BUF_SIZE,
	ROOM_LARGE = 9600 + RTE_PKTMBUF_HEADROOM,
};

static void memory_is_free(struct rte_mempool_memhdr *header, void *opaque)
{
	rte_memzone_free(opaque);
}

/* The memory of a pool whose buffers fill a page each: one piece that begins with a page. */
static int pages_fill(struct rte_mempool *pool, const char *name)
{
	uint64_t bytes = (uint64_t)pool->size * PAGE_BYTES;
	const struct rte_memzone *zone =
		rte_memzone_reserve_aligned(name, bytes, pool->socket_id, 0, PAGE_BYTES);
	if (!zone)
		return -rte_errno;
	int filled = rte_mempool_populate_iova(pool, zone->addr, RTE_BAD_IOVA, bytes,
					       memory_is_free, (void *)(uintptr_t)zone);
	if (filled < 0)
		rte_memzone_free(zone);
	must(filled < 0 || (uint32_t)filled == pool->size, "as many buffers as pages");
	return filled < 0 ? filled : 0;
}

/* net_af_xdp takes the memory of the pool for its own (UMEM) and works out how much that is from
 * the number and the size of the buffers. It is right only where there are no gaps between them;
 * DPDK leaves some where a buffer would cross a page, most of all without hugepages, and the kernel
 * then refuses every buffer beyond the end without a word. */
static struct rte_mempool *pool_of_pages(const char *name, unsigned count, int socket)
{
	const unsigned flags = RTE_MEMPOOL_F_NO_SPREAD; /* nothing between them for the channels */
	struct rte_mempool_objsz sizes;
	rte_mempool_calc_obj_size(sizeof(struct rte_mbuf), flags, &sizes);
	uint32_t element = PAGE_BYTES - sizes.header_size - sizes.trailer_size;
	struct rte_mempool *pool =
		rte_mempool_create_empty(name, count, element, CACHE,
					 sizeof(struct rte_pktmbuf_pool_private), socket, flags);
	if (!pool)
		return NULL;
	must(pool->header_size + pool->elt_size + pool->trailer_size == PAGE_BYTES,
	     "a buffer fills its page");
	struct rte_pktmbuf_pool_private private = {
		.mbuf_data_room_size = (uint16_t)(element - sizeof(struct rte_mbuf)),
	};
	int result = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (result == 0) {
		rte_pktmbuf_pool_init(pool, &private);
		result = pages_fill(pool, name);
	}
	if (result < 0) {
		rte_mempool_free(pool);
		rte_errno = -result;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

int port_pools_new(struct port_pools *pools, uint16_t ethdev,
		   const struct port_capability *capability, uint16_t rx_descriptors,
		   uint16_t tx_descriptors)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	bool large = capability->receive_bytes_max > ROOM_SMALL - RTE_PKTMBUF_HEADROOM;
	int socket = rte_eth_dev_socket_id(ethdev);
	unsigned rx_count = rx_descriptors + capability->buffers_kept + SPARE;
	if (!capability->external_buffer)
		rx_count += tx_descriptors;

	snprintf(name, sizeof name, "casemate-rx-%u", ethdev);
	pools->rx = capability->buffers_are_pages
			    ? pool_of_pages(name, rx_count, socket)
			    : rte_pktmbuf_pool_create(name, rx_count, CACHE, 0,
						      large ? ROOM_LARGE : ROOM_SMALL, socket);
	if (!pools->rx)
		return -rte_errno;
	if (!capability->external_buffer)
		return 0;
	snprintf(name, sizeof name, "casemate-tx-%u", ethdev);
	pools->tx = rte_pktmbuf_pool_create(name, tx_descriptors + SPARE, CACHE, 0, 0, socket);
	return pools->tx ? 0 : -rte_errno;
}

void port_pools_free(struct port_pools *pools)
{
	rte_mempool_free(pools->rx);
	rte_mempool_free(pools->tx);
}
