/* SPDX-License-Identifier: Apache-2.0 */
/* What the groups of one lane share: the link, the cells, the cipher, the source of identities, and
 * the memory that was allocated at start. */
#ifndef CASEMATE_CORE_TOOLS_H
#define CASEMATE_CORE_TOOLS_H

#include "core.h"
#include "link.h"
#include "seal.h"

struct tools {
	const struct memory *memory;
	struct aead *aead;
	struct seal_cache seals;
	struct cells cells;
	struct link link;
	enum stripe_kernel kernel;
	uint8_t entropy[64]; /* secret seed of identities */
	uint64_t entropy_drawn;
	uint64_t memory_bytes;
	struct {
		void *memory;
		uint64_t bytes;
		enum memory_kind kind;
	} chunk[1024]; /* all that was allocated, to be wiped and freed at the end */
	unsigned chunk_count;
};

/* Zeroed, page aligned, for the life of the core; only while it is being made. NULL when memory is
 * out. */
void *tools_memory(struct tools *, uint64_t bytes);
void *tools_key_memory(struct tools *, uint64_t bytes); /* for what holds keys */
void tools_memory_free(struct tools *);			/* all of it */
/* A fresh random identity. */
struct uuid tools_uuid(struct tools *);

#endif
