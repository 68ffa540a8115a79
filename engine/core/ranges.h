/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded, sorted set of half-open ranges of 64-bit numbers: which lsns a store holds, which
 * a receiver has, which packets were seen. The memory is the caller's; nothing is allocated. */
#ifndef CASEMATE_CORE_RANGES_H
#define CASEMATE_CORE_RANGES_H

#include "base.h"

struct range {
	uint64_t first; /* in the set */
	uint64_t end;	/* first number that is not */
};

struct ranges {
	struct range *range; /* sorted, disjoint, not touching; borrowed from the caller for life */
	unsigned count;
	unsigned capacity;
};

void ranges_init(struct ranges *, struct range *memory, unsigned capacity);
/* 0, or -ENOSPC when one more separate range does not fit; the set is then unchanged. */
int ranges_add(struct ranges *, uint64_t first, uint64_t end);
/* 0, or -ENOSPC as above (removing from the middle makes one more range). */
int ranges_remove(struct ranges *, uint64_t first, uint64_t end);
bool ranges_contains(const struct ranges *, uint64_t number);
bool ranges_contains_all(const struct ranges *, uint64_t first, uint64_t end);
/* How many of first to end - 1 are in the set. */
uint64_t ranges_count(const struct ranges *, uint64_t first, uint64_t end);
/* The first number >= from that is not in the set. */
uint64_t ranges_first_gap(const struct ranges *, uint64_t from);
/* The first range that ends above from; NULL when there is none. */
const struct range *ranges_next(const struct ranges *, uint64_t from);
void ranges_clear(struct ranges *);

#endif
