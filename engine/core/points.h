/* SPDX-License-Identifier: Apache-2.0 */
/* The points of a group, from the floors of its stores (docs/semantics.md "points"). Small and
 * pure; proven by brute force over all small (k, m, w, losses) in tests/test_points.c. */
#ifndef CASEMATE_CORE_POINTS_H
#define CASEMATE_CORE_POINTS_H

#include "base.h"
#include "ranges.h"

struct quorum {
	struct geometry geometry;
	uint8_t w; /* k <= w <= n */
};

/* n - 1, and n when k = 1. */
uint8_t quorum_default(struct geometry);
bool quorum_valid(struct quorum);

/* The rank-th largest (1 = largest) of the floors of the stores in mask; 0 when there are fewer. */
lsn_t points_rank(const lsn_t floor[], uint32_t mask, unsigned rank);
/* The w-th largest floor of the stores in service. */
lsn_t points_durable(struct quorum, const lsn_t floor[], uint32_t in_service);
/* The bound on the fold point by floors: the f-th largest floor, f = min(stores in service, max(w,
 * k + 1)). 0 with none in service. */
lsn_t points_fold(struct quorum, const lsn_t floor[], uint32_t in_service);

/* The largest lsn L >= base such that each lsn in (base, L] is held by at least k of the stores in
 * mask. held[i]: lsns that store i holds, records that count only; gaps: lsns that no span drew
 * (held by definition), or NULL. limit: upper bound of the search. */
lsn_t points_consistent(struct quorum, const struct ranges *const held[], uint32_t mask,
			const struct ranges *gaps, lsn_t base, lsn_t limit);

/* The least number of stores present to open a set: max(k, n - w + 1). */
unsigned points_open_min(struct quorum);

/* The proof at promotion: with s stores present, C their consistent point and q = w - (n - s): if q
 * >= 1 and the q-th largest floor <= C, nothing acknowledged is missing. */
struct promotion {
	unsigned present;   /* s */
	lsn_t consistent;   /* C: what would be served */
	lsn_t acknowledged; /* the highest lsn that may have been acknowledged, as far as these
			       stores can tell: the q-th largest floor; UINT64_MAX when q < 1 */
	bool enough_stores; /* s >= points_open_min */
	bool proven;	    /* nothing acknowledged is missing */
};
struct promotion points_promotion(struct quorum, const lsn_t floor[], uint32_t present,
				  lsn_t consistent);

#endif
