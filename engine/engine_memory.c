/* SPDX-License-Identifier: Apache-2.0 */
/* The core's memory in service: keys in locked pages; the rest may be swapped, since it is large,
 * but plaintext passes there: neither goes into a dump or a child. */
#include "engine.h"

#include "session/secret.h"

#include <sys/mman.h>

static void *bulk_take(uint64_t bytes)
{
	/* Every page is there before the first request. */
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	int failed = madvise(memory, bytes, MADV_DONTDUMP) | madvise(memory, bytes, MADV_DONTFORK);
	must(!failed, "any mapping can be kept out of dumps and children");
	return memory;
}

static void bulk_give(void *memory, uint64_t bytes)
{
	int failed = munmap(memory, bytes);
	must(!failed, "what was mapped unmaps");
}

static void *engine_take(enum memory_kind kind, uint64_t bytes)
{
	return kind == MEMORY_KEYS ? secret_take(bytes) : bulk_take(bytes);
}

static void engine_give(enum memory_kind kind, void *memory, uint64_t bytes)
{
	if (kind == MEMORY_KEYS)
		secret_give(memory, bytes);
	else
		bulk_give(memory, bytes);
}

const struct memory engine_memory = {.take = engine_take, .give = engine_give};
