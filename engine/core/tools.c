/* SPDX-License-Identifier: Apache-2.0 */
/* Memory taken once at start, and identities drawn from a secret seed. */
#include "tools.h"

#include <stdlib.h>

#include "keys.h"

void *tools_memory(struct tools *tools, uint64_t bytes)
{
	bytes = align_up(max_u64(bytes, 1), PAGE_BYTES);
	void *memory = aligned_alloc(PAGE_BYTES, bytes);
	if (!memory)
		return NULL;
	memset(memory, 0, bytes);
	tools->memory_bytes += bytes;
	must(tools->chunk_count < ARRAY_COUNT(tools->chunk), "the pieces of memory are counted");
	tools->chunk[tools->chunk_count].bytes = bytes;
	tools->chunk[tools->chunk_count++].memory = memory;
	return memory;
}

void tools_memory_free(struct tools *tools)
{
	/* Merged blocks and opened ones are plaintext, and keys were here: nothing is left behind.
	 */
	while (tools->chunk_count) {
		tools->chunk_count--;
		keys_wipe(tools->chunk[tools->chunk_count].memory,
			  tools->chunk[tools->chunk_count].bytes);
		free(tools->chunk[tools->chunk_count].memory);
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
