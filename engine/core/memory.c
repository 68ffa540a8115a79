/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the core by kind, from whatever source; the only file of the core that asks the C
 * library for any. */
#include "memory.h"

#include <stdlib.h>

#include "keys.h"

static uint64_t pages_of(uint64_t bytes)
{
	return align_up(max_u64(bytes, 1), PAGE_BYTES);
}

static void *ordinary_take(enum memory_kind kind, uint64_t bytes)
{
	void *memory = aligned_alloc(PAGE_BYTES, bytes);
	if (memory)
		memset(memory, 0, bytes);
	return memory;
}

static void ordinary_give(enum memory_kind kind, void *memory, uint64_t bytes)
{
	free(memory);
}

static const struct memory ordinary = {.take = ordinary_take, .give = ordinary_give};

void *memory_take(const struct memory *source, enum memory_kind kind, uint64_t bytes)
{
	void *memory = (source ? source : &ordinary)->take(kind, pages_of(bytes));
	must((uintptr_t)memory % PAGE_BYTES == 0, "a source gives whole pages");
	return memory;
}

void memory_give(const struct memory *source, enum memory_kind kind, void *memory, uint64_t bytes)
{
	if (!memory)
		return;
	keys_wipe(memory, pages_of(bytes));
	(source ? source : &ordinary)->give(kind, memory, pages_of(bytes));
}
