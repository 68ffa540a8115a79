/* SPDX-License-Identifier: Apache-2.0 */
/* Memory taken once at start, and identities drawn from a secret seed. */
#include "tools.h"

#include "keys.h"

static void *chunk_take(struct tools *tools, enum memory_kind kind, uint64_t bytes)
{
	must(tools->chunk_count < ARRAY_COUNT(tools->chunk), "the pieces of memory are counted");
	bytes = align_up(max_u64(bytes, 1), PAGE_BYTES);
	void *memory = memory_take(tools->memory, kind, bytes);
	if (!memory)
		return NULL;
	tools->memory_bytes += bytes;
	tools->chunk[tools->chunk_count].bytes = bytes;
	tools->chunk[tools->chunk_count].kind = kind;
	tools->chunk[tools->chunk_count++].memory = memory;
	return memory;
}

void *tools_memory(struct tools *tools, uint64_t bytes)
{
	return chunk_take(tools, MEMORY_BULK, bytes);
}

void *tools_key_memory(struct tools *tools, uint64_t bytes)
{
	return chunk_take(tools, MEMORY_KEYS, bytes);
}

void tools_memory_free(struct tools *tools)
{
	/* Merged blocks and opened ones are plaintext, and keys were here: nothing is left behind.
	 */
	while (tools->chunk_count) {
		tools->chunk_count--;
		memory_give(tools->memory, tools->chunk[tools->chunk_count].kind,
			    tools->chunk[tools->chunk_count].memory,
			    tools->chunk[tools->chunk_count].bytes);
	}
}

struct uuid tools_uuid(struct tools *tools)
{
	struct uuid uuid;
	uint64_t drawn = ++tools->entropy_drawn;
	keys_derive(&drawn, sizeof drawn, tools->entropy, sizeof tools->entropy,
		    "casemate identity", 17, uuid.bytes, UUID_BYTES);
	return uuid;
}
