/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes, and memory walked as in service: a figure for data that never leave the first cache says
 * little about a primary. */
#include "bench_rows.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

const struct bench_shape bench_shapes[BENCH_SHAPE_COUNT] = {
	{"4 KiB 1+1", 4 * 1024, 1, 1},	 {"16 KiB 4+2", 16 * 1024, 4, 2},
	{"32 KiB 8+2", 32 * 1024, 8, 2}, {"64 KiB 8+2", 64 * 1024, 8, 2},
	{"64 KiB 8+4", 64 * 1024, 8, 4},
};

void *bench_pages(size_t bytes)
{
	size_t unit = bytes < HUGE_PAGE_BYTES ? PAGE_BYTES : HUGE_PAGE_BYTES;
	uint8_t *memory = aligned_alloc(unit, align_up(bytes, unit));
	uint64_t word = 88172645463325252ull;

	must(memory, "the meter has memory");
	if (unit == HUGE_PAGE_BYTES)
		(void)madvise(memory, align_up(bytes, unit), MADV_HUGEPAGE);
	for (size_t i = 0; i + 8 <= align_up(bytes, PAGE_BYTES); i += 8) {
		word ^= word << 13;
		word ^= word >> 7;
		word ^= word << 17;
		put_u64(memory + i, word);
	}
	return memory;
}

void bench_memory_init(struct bench_memory *memory, const struct bench_shape *shape)
{
	static uint8_t *source, *packet;

	must(bench_shard_bytes(shape) <= BENCH_FRAGMENT_BYTES_MAX, "a shard fits one packet");
	if (!source) {
		source = bench_pages(BENCH_SOURCE_BYTES);
		packet = bench_pages((size_t)BENCH_PACKET_COUNT * BENCH_PACKET_BYTES);
	}
	*memory = (struct bench_memory){.shape = shape, .source = source, .packet = packet};
}

const uint8_t *bench_memory_block(struct bench_memory *memory)
{
	uint64_t count = BENCH_SOURCE_BYTES / memory->shape->block_bytes;

	return memory->source + memory->block_turn++ % count * memory->shape->block_bytes;
}

void bench_memory_row(struct bench_memory *memory, uint8_t *column[SHARDS_MAX])
{
	for (unsigned i = 0; i < geometry_n(bench_geometry(memory->shape)); i++) {
		uint64_t place = memory->packet_turn++ % BENCH_PACKET_COUNT;
		column[i] = memory->packet + place * BENCH_PACKET_BYTES + BENCH_HEAD_BYTES;
	}
}
