/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the table by file, and the memory that their bodies work on. */
#ifndef CASEMATE_BENCH_ROWS_H
#define CASEMATE_BENCH_ROWS_H

#include "core/wire.h"

#include "bench.h"

void bench_seal_add(void);
void bench_stripe_add(void);
void bench_crc_add(void);
void bench_frame_add(void);
void bench_steps_add(void);

enum {
	/* Client data come from memory, not from a cache: more blocks than any cache here holds. */
	BENCH_SOURCE_BYTES = 64 * 1024 * 1024,
	/* Packets stay until acknowledged, so their memory is walked too. */
	BENCH_PACKET_COUNT = 1024,
	BENCH_FRAGMENT_BYTES_MAX = 8832,	      /* payload of a jumbo packet */
	BENCH_METADATA_BYTES = WIRE_SHARD_TEXT_BYTES, /* what a packet encrypts */
	BENCH_HEAD_BYTES = 256,			      /* room before the payload */
	BENCH_PACKET_BYTES = 9216,
};

/* Source blocks and packets, each walked round and round. */
struct bench_memory {
	const struct bench_shape *shape;
	uint8_t *source;
	uint8_t *packet;
	uint64_t block_turn;
	uint64_t packet_turn;
};

/* All cases work on the same memory, made and filled at the first call. The shape's shards fit one
 * packet. */
void bench_memory_init(struct bench_memory *, const struct bench_shape *);
const uint8_t *bench_memory_block(struct bench_memory *);
/* The payloads of the next n packets: one row, a shard in each. BENCH_HEAD_BYTES before each are
 * free for the packet's head. */
void bench_memory_row(struct bench_memory *, uint8_t *column[SHARDS_MAX]);

static inline struct geometry bench_geometry(const struct bench_shape *shape)
{
	return (struct geometry){.k = shape->k, .m = shape->m};
}

static inline uint32_t bench_shard_bytes(const struct bench_shape *shape)
{
	return shape->block_bytes / shape->k;
}

/* Memory of whole pages with random bytes, in huge pages where the kernel has them for us, as the
 * ports' memory is. */
void *bench_pages(size_t bytes);

#endif
