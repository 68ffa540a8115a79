/* SPDX-License-Identifier: Apache-2.0 */
/* The file of the intent log, byte by byte: two equal header pages with the identity, then two
 * halves. A half is a snapshot (a bit per region) and after it pages of changes, each written once
 * and in order; sequence numbers rise by one along a half and never come back. */
#ifndef CASEMATE_CORE_INTENT_PAGE_H
#define CASEMATE_CORE_INTENT_PAGE_H

#include "intent.h"

enum {
	INTENT_HEADER_PAGES = 2,
	INTENT_CHANGES_PAGES = 256, /* of one half, after its snapshot */
	INTENT_PAYLOAD_BYTES = PAGE_BYTES - 32,
	INTENT_REGIONS_PER_PAGE = INTENT_PAYLOAD_BYTES * 8,
	INTENT_CHANGES_PER_PAGE = INTENT_PAYLOAD_BYTES / 4,
};

/* What follows from the sizes of the volumes. */
struct intent_shape {
	uint32_t first[VOLUMES_PER_GROUP_MAX + 1]; /* region number where each volume begins */
	uint32_t regions;
	uint32_t snapshot_pages;
	uint32_t half_pages;
	uint32_t crc; /* over the sizes: a log of other sizes is not ours */
};

void intent_shape_init(struct intent_shape *, const struct intent_config *);
uint64_t intent_page_offset(const struct intent_shape *, unsigned half, unsigned page);

void intent_identity_encode(const struct intent_identity *, uint8_t header[INTENT_HEADER_BYTES]);

/* Page number `page` of a snapshot; bits: one per region, as words. */
void intent_snapshot_encode(const struct intent_shape *, const uint64_t *bits, unsigned page,
			    uint64_t sequence, uint8_t out[PAGE_BYTES]);
/* Writes the page's share into bits; the page is valid. */
void intent_snapshot_decode(const struct intent_shape *, const uint8_t in[PAGE_BYTES],
			    unsigned page, uint64_t *bits);

/* A page of changes in the making: begin, add, end. */
void intent_changes_begin(uint8_t out[PAGE_BYTES]);
/* false when the page is full. */
bool intent_changes_add(uint8_t out[PAGE_BYTES], uint32_t region, bool open);
void intent_changes_end(const struct intent_shape *, uint64_t sequence, uint8_t out[PAGE_BYTES]);
unsigned intent_changes_count(const uint8_t in[PAGE_BYTES]);
/* The change number index; gives whether it opens the region. */
bool intent_changes_get(const uint8_t in[PAGE_BYTES], unsigned index, uint32_t *region);

/* The sequence number of a page that is valid at this place in a half; 0 when it is not. */
uint64_t intent_page_check(const struct intent_shape *, const uint8_t in[PAGE_BYTES],
			   unsigned page);

#endif
