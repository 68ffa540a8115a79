/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting packet memory into cells, and the free list of them. */
#include "cells.h"

/* The payload of a shard datagram begins on a cache line. */
enum {
	CELL_LEAD_BYTES = CELL_HEADROOM_BYTES + WIRE_SHARD_OVERHEAD_BYTES,
	CELL_PAYLOAD_AT = (CELL_LEAD_BYTES + 63) / 64 * 64,
	CELL_DATAGRAM_AT = CELL_PAYLOAD_AT - WIRE_SHARD_OVERHEAD_BYTES,
};
_Static_assert((int)CELL_DATAGRAM_AT >= (int)CELL_HEADROOM_BYTES, "the port's headroom is whole");

static uint64_t cell_stride(uint32_t datagram_bytes_max)
{
	return align_up(CELL_DATAGRAM_AT + (uint64_t)datagram_bytes_max, 64);
}

uint64_t cells_memory_bytes(unsigned count, uint32_t datagram_bytes_max)
{
	return align_up(count * cell_stride(datagram_bytes_max), PAGE_BYTES);
}

void cells_init(struct cells *cells, struct packet_cell *descriptors, unsigned count,
		uint8_t *memory, uint32_t datagram_bytes_max)
{
	*cells = (struct cells){.cell = descriptors, .count = count};
	uint64_t stride = cell_stride(datagram_bytes_max);
	for (unsigned i = count; i-- > 0;) {
		struct packet_cell *cell = &descriptors[i];
		*cell = (struct packet_cell){.payload = memory + i * stride + CELL_PAYLOAD_AT};
		cell->cell.datagram = memory + i * stride + CELL_DATAGRAM_AT;
		cell->next_free = cells->free;
		cells->free = cell;
	}
	cells->free_count = count;
}

struct packet_cell *cells_take(struct cells *cells)
{
	struct packet_cell *cell = cells->free;
	if (!cell)
		return NULL;
	cells->free = cell->next_free;
	cells->free_count--;
	cell->next_free = NULL;
	must(!packet_cell_busy(cell) && !cell->held, "a free cell is nobody's");
	cell->held = 1;
	return cell;
}

static void cells_free_if_idle(struct cells *cells, struct packet_cell *cell)
{
	if (cell->held || packet_cell_busy(cell))
		return;
	must(cells->free_count < cells->count, "no cell is given twice");
	cell->next_free = cells->free;
	cells->free = cell;
	cells->free_count++;
}

void cells_give(struct cells *cells, struct packet_cell *cell)
{
	must(cell->held, "only a held cell is given back");
	cell->held = 0;
	cells_free_if_idle(cells, cell);
}

void cells_settle(struct cells *cells, struct packet_cell *cell)
{
	must(!packet_cell_busy(cell), "a settled cell is in no queue");
	cells_free_if_idle(cells, cell);
}
