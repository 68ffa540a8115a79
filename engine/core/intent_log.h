/* SPDX-License-Identifier: Apache-2.0 */
/* The state of an intent log, shared by its two rooms: recovery (intent_recover.c) and life
 * (intent.c). Nobody else includes this. */
#ifndef CASEMATE_CORE_INTENT_LOG_H
#define CASEMATE_CORE_INTENT_LOG_H

#include "intent_page.h"

enum intent_state { INTENT_CLOSED, INTENT_OPENING, INTENT_OPEN, INTENT_FAILED };
enum intent_writing { INTENT_IDLE, INTENT_HEADER, INTENT_SNAPSHOT, INTENT_CHANGES };
enum { INTENT_READ_PAGES = 16 };

struct intent {
	struct intent_config config;
	struct intent_shape shape;
	struct intent_identity identity;
	uint8_t state;	 /* enum intent_state */
	uint8_t writing; /* enum intent_writing: one write at a time */

	/* One bit per region. open: its intent is durable, and no change that closes it was
	 * written. queued: wanted open. pinned: stays. used: entered or left since the last sweep.
	 * stale: open, may be closed with the next page. */
	uint64_t *open, *queued, *pinned, *used, *stale;
	uint32_t *writers; /* writes inside, per region */
	uint32_t open_count, queued_count, stale_count;
	ns_t sweep_at;
	bool stale_waits; /* stale regions have waited for a page of others long enough */

	unsigned half;	   /* the one that the log is in */
	unsigned page;	   /* its next free page; half_pages when it must be left */
	uint64_t sequence; /* of the next page */
	bool distrusted;   /* what lies on the disk does not tell what is open: write it first */
	uint8_t header_copies_due;

	uint8_t *buffer; /* page aligned; of the read or write in flight */
	struct io io;

	/* Recovery: where it reads, and the sequence number of each valid page, 0 otherwise. */
	struct {
		uint64_t *sequence[2];
		unsigned half, page, end; /* pages [page, end) of half are to be read */
		bool applying;
	} recovery;
};

static inline uint32_t intent_words(const struct intent *intent)
{
	return (uint32_t)div_up(intent->shape.regions, 64);
}
static inline bool intent_bit(const uint64_t *bits, uint32_t region)
{
	return bits[region / 64] >> (region % 64) & 1;
}
static inline void intent_bit_set(uint64_t *bits, uint32_t region)
{
	bits[region / 64] |= 1ull << (region % 64);
}
static inline void intent_bit_clear(uint64_t *bits, uint32_t region)
{
	bits[region / 64] &= ~(1ull << (region % 64));
}

/* Ends the log's life after a failed read or write. */
void intent_fail(struct intent *, int err, struct effects *);

#endif
