/* SPDX-License-Identifier: Apache-2.0 */
/* First fit over a bitmap: a few thousand bits, looked at a word at a time where words are full or
 * empty. */
#include "nbd_memory.h"

void nbd_memory_init(struct nbd_memory *memory, void *base, uint64_t bytes)
{
	uint64_t unit_count = bytes / NBD_UNIT_BYTES;

	must(((uintptr_t)base & (PAGE_BYTES - 1)) == 0, "payload memory is page aligned");
	must(unit_count > 0 && unit_count <= NBD_UNITS_MAX, "payload memory fits the bitmap");
	memset(memory, 0, sizeof *memory);
	memory->base = base;
	memory->unit_count = (uint32_t)unit_count;
	memory->free_count = (uint32_t)unit_count;
}

static bool unit_taken(const struct nbd_memory *memory, uint32_t unit)
{
	return memory->taken[unit / 64] >> (unit % 64) & 1;
}

static void units_flip(struct nbd_memory *memory, uint32_t first, uint32_t count)
{
	for (uint32_t unit = first; unit < first + count; unit++)
		memory->taken[unit / 64] ^= 1ull << (unit % 64);
}

/* The first unit at or after this one that is free, or unit_count. */
static uint32_t next_free(const struct nbd_memory *memory, uint32_t unit)
{
	while (unit < memory->unit_count) {
		uint64_t free_bits = ~memory->taken[unit / 64] >> (unit % 64);
		if (free_bits)
			return (uint32_t)min_u64(unit + (uint32_t)__builtin_ctzll(free_bits),
						 memory->unit_count);
		unit = (unit / 64 + 1) * 64;
	}
	return memory->unit_count;
}

/* How many units from this one on are free, counted no further than wanted. */
static uint32_t run_length(const struct nbd_memory *memory, uint32_t unit, uint32_t wanted)
{
	uint32_t end = unit;

	while (end < memory->unit_count && end - unit < wanted) {
		uint64_t taken_bits = memory->taken[end / 64] >> (end % 64);
		if (taken_bits) {
			end += (uint32_t)__builtin_ctzll(taken_bits);
			break;
		}
		end = (end / 64 + 1) * 64;
	}
	return (uint32_t)min_u64(min_u64(end, memory->unit_count) - unit, wanted);
}

uint8_t *nbd_memory_take(struct nbd_memory *memory, uint64_t bytes, const void *asker)
{
	uint32_t wanted = (uint32_t)div_up(bytes, NBD_UNIT_BYTES);

	must(wanted > 0 && wanted <= memory->unit_count, "the largest request fits the memory");
	if ((memory->reserved_for && memory->reserved_for != asker) || wanted > memory->free_count)
		return NULL;
	memory->lowest_free = next_free(memory, memory->lowest_free);
	for (uint32_t unit = memory->lowest_free; unit < memory->unit_count;) {
		uint32_t run = run_length(memory, unit, wanted);
		if (run == wanted) {
			units_flip(memory, unit, wanted);
			memory->free_count -= wanted;
			return memory->base + (uint64_t)unit * NBD_UNIT_BYTES;
		}
		unit = next_free(memory, unit + run);
	}
	return NULL;
}

void nbd_memory_give(struct nbd_memory *memory, uint8_t *run, uint64_t bytes)
{
	uint64_t at = (uint64_t)(run - memory->base);
	uint32_t first = (uint32_t)(at / NBD_UNIT_BYTES);
	uint32_t count = (uint32_t)div_up(bytes, NBD_UNIT_BYTES);

	must(at % NBD_UNIT_BYTES == 0 && first + count <= memory->unit_count,
	     "memory comes back as it was given");
	for (uint32_t unit = first; unit < first + count; unit++)
		must(unit_taken(memory, unit), "memory comes back once");
	units_flip(memory, first, count);
	memory->free_count += count;
	memory->lowest_free = (uint32_t)min_u64(memory->lowest_free, first);
}
