/* SPDX-License-Identifier: Apache-2.0 */
/* Where the core's memory comes from. To lock pages and to keep them out of dumps takes system
 * calls, and the core makes none: whoever makes a core names the source. All of it is taken at
 * start. */
#ifndef CASEMATE_CORE_MEMORY_H
#define CASEMATE_CORE_MEMORY_H

#include "base.h"

enum memory_kind {
	MEMORY_BULK, /* tables, and the plaintext of clients on its way */
	MEMORY_KEYS, /* keys, expanded ones too, and what they are derived from */
};

/* Both are told whole pages, and the same kind and size for the same memory. */
struct memory {
	/* gives: zeroed and page aligned, or NULL with errno */
	void *(*take)(enum memory_kind, uint64_t bytes);
	void (*give)(enum memory_kind, void *, uint64_t bytes); /* takes back, wiped */
};

/* From this source; NULL is the C library, for tests and meters. */
void *memory_take(const struct memory *, enum memory_kind, uint64_t bytes);
/* Wipes it first. NULL is nothing. */
void memory_give(const struct memory *, enum memory_kind, void *, uint64_t bytes);

#endif
