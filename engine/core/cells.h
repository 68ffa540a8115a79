/* SPDX-License-Identifier: Apache-2.0 */
/* The lane's packet memory, cut into cells of one size: each holds one datagram with the port's
 * headroom in front, its shard payload on a cache line. A cell is either free, or held by who took
 * it (a record of the window, a queue); the port may be reading it meanwhile. */
#ifndef CASEMATE_CORE_CELLS_H
#define CASEMATE_CORE_CELLS_H

#include "io.h"
#include "wire.h"

struct packet_cell {
	struct cell cell; /* first: what crosses the seam */
	uint8_t *payload; /* where a shard's payload goes */
	uint32_t payload_bytes;
	uint16_t text_bytes; /* in clear until the cell leaves its queue */
	uint8_t queued;	     /* link: waits for its pace */
	uint8_t held;	     /* a record keeps it for resending */
	struct packet_cell *next_free;
};

struct cells {
	struct packet_cell *cell;
	struct packet_cell *free;
	unsigned count, free_count;
};

/* Bytes of packet memory for count cells of datagrams up to datagram_bytes_max. */
uint64_t cells_memory_bytes(unsigned count, uint32_t datagram_bytes_max);
/* descriptors: count of them, zeroed; memory: page aligned. Both borrowed for life. */
void cells_init(struct cells *, struct packet_cell *descriptors, unsigned count, uint8_t *memory,
		uint32_t datagram_bytes_max);
/* gives: a cell, or NULL when all are out. */
struct packet_cell *cells_take(struct cells *);
/* The holder is done with it; it is free once neither the port nor a queue has it. */
void cells_give(struct cells *, struct packet_cell *);
/* The port has given it back, or the queue dropped it. */
void cells_settle(struct cells *, struct packet_cell *);

static inline struct packet_cell *packet_cell_of(struct cell *cell)
{
	return container_of(cell, struct packet_cell, cell);
}
static inline bool packet_cell_busy(const struct packet_cell *cell)
{
	return cell->cell.in_port || cell->queued;
}

#endif
