/* SPDX-License-Identifier: Apache-2.0 */
/* Payload memory of all connections: one region, cut into units, given out in contiguous runs,
 * lowest address first (so that a quiet server stays in the cache). Bounded: who finds none waits
 * its turn. */
#ifndef CASEMATE_FRONT_NBD_MEMORY_H
#define CASEMATE_FRONT_NBD_MEMORY_H

#include "core/base.h"

enum {
	NBD_UNIT_BYTES = 16 * 1024,
	NBD_UNITS_MAX = 65536, /* 1 GiB */
};

struct nbd_memory {
	uint8_t *base; /* page aligned, the caller's for life */
	uint32_t unit_count;
	uint32_t free_count;
	uint32_t lowest_free;	  /* no unit below it is free */
	const void *reserved_for; /* the one that waits longest: nobody else is served before it */
	uint64_t taken[NBD_UNITS_MAX / 64];
};

void nbd_memory_init(struct nbd_memory *, void *base, uint64_t bytes);
/* NULL when there is no run of that length now, or another one waits. */
uint8_t *nbd_memory_take(struct nbd_memory *, uint64_t bytes, const void *asker);
void nbd_memory_give(struct nbd_memory *, uint8_t *memory, uint64_t bytes);

#endif
