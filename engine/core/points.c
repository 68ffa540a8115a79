/* SPDX-License-Identifier: Apache-2.0 */
/* All points follow from floors by rank: w stores whose floors reach an lsn hold every record up to
 * it, and a set of stores that is large enough to be opened shares a store with every such w. */
#include "points.h"

uint8_t quorum_default(struct geometry geometry)
{
	unsigned n = geometry_n(geometry);

	if (geometry.k == 1 || geometry.m == 0)
		return (uint8_t)n;
	return (uint8_t)(n - 1);
}

bool quorum_valid(struct quorum quorum)
{
	struct geometry geometry = quorum.geometry;

	return geometry.k >= 1 && geometry.k <= DATA_SHARDS_MAX &&
	       geometry.m <= PARITY_SHARDS_MAX && quorum.w >= geometry.k &&
	       quorum.w <= geometry_n(geometry);
}

static unsigned stores_count(uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

static void quorum_check(struct quorum quorum, uint32_t mask)
{
	must(quorum_valid(quorum), "k <= w <= n");
	must(mask >> geometry_n(quorum.geometry) == 0, "no store has an index of n or above");
}

lsn_t points_rank(const lsn_t floor[], uint32_t mask, unsigned rank)
{
	must(rank >= 1, "the largest has rank 1");
	must(mask >> SHARDS_MAX == 0, "no store has an index of n or above");
	lsn_t best[SHARDS_MAX]; /* those in mask, largest first */
	unsigned count = 0;

	for (unsigned store = 0; store < SHARDS_MAX; store++) {
		if (!(mask & 1u << store))
			continue;
		unsigned at = count++;
		for (; at > 0 && best[at - 1] < floor[store]; at--)
			best[at] = best[at - 1];
		best[at] = floor[store];
	}
	return rank <= count ? best[rank - 1] : 0;
}

lsn_t points_durable(struct quorum quorum, const lsn_t floor[], uint32_t in_service)
{
	quorum_check(quorum, in_service);
	return points_rank(floor, in_service, quorum.w);
}

/* DESIGN "fold": F <= the f-th largest floor, f = min(stores in service, max(w, k + 1)). A fold
 * takes the old version away store by store; with f new ones there, the loss of any w - k of them
 * (of one, when w = k) leaves k. */
lsn_t points_fold(struct quorum quorum, const lsn_t floor[], uint32_t in_service)
{
	quorum_check(quorum, in_service);
	unsigned serving = stores_count(in_service);
	unsigned rank = (unsigned)max_u64(quorum.w, quorum.geometry.k + 1u);

	if (serving == 0)
		return 0;
	return points_rank(floor, in_service, (unsigned)min_u64(serving, rank));
}

/* How many stores in mask hold lsn. *end: where the count may change next. */
static unsigned points_holders(const struct ranges *const held[], uint32_t mask, lsn_t lsn,
			       lsn_t *end)
{
	unsigned holders = 0;

	for (unsigned store = 0; store < SHARDS_MAX; store++) {
		if (!(mask & 1u << store))
			continue;
		const struct range *range = ranges_next(held[store], lsn);
		if (!range)
			continue;
		bool holds = range->first <= lsn;
		holders += holds;
		*end = min_u64(*end, holds ? range->end : range->first);
	}
	return holders;
}

lsn_t points_consistent(struct quorum quorum, const struct ranges *const held[], uint32_t mask,
			const struct ranges *gaps, lsn_t base, lsn_t limit)
{
	quorum_check(quorum, mask);
	lsn_t lsn = base; /* everything up to here is consistent */

	while (lsn < limit) {
		lsn_t end = limit == UINT64_MAX ? limit : limit + 1;
		const struct range *gap = gaps ? ranges_next(gaps, lsn + 1) : NULL;
		if (gap && gap->first <= lsn + 1)
			end = min_u64(end, gap->end);
		else if (points_holders(held, mask, lsn + 1, &end) < quorum.geometry.k)
			break;
		else if (gap)
			end = min_u64(end, gap->first);
		must(end > lsn + 1, "each step goes on by at least one lsn");
		lsn = end - 1;
		if (end == UINT64_MAX)
			break;
	}
	return lsn;
}

unsigned points_open_min(struct quorum quorum)
{
	must(quorum_valid(quorum), "k <= w <= n");
	unsigned shares_with_quorums = geometry_n(quorum.geometry) - quorum.w + 1;

	return (unsigned)max_u64(quorum.geometry.k, shares_with_quorums);
}

/* DESIGN "promises": with s stores present, C their consistent point and q = w - (n - s): if q >= 1
 * and the q-th largest floor <= C, nothing acknowledged is missing. For an acknowledged lsn w
 * floors had reached it; at most n - s of those stores are absent, so at least q present ones reach
 * it. */
struct promotion points_promotion(struct quorum quorum, const lsn_t floor[], uint32_t present,
				  lsn_t consistent)
{
	quorum_check(quorum, present);
	unsigned stores = stores_count(present);
	unsigned absent = geometry_n(quorum.geometry) - stores;
	struct promotion promotion = {
		.present = stores,
		.consistent = consistent,
		.acknowledged = UINT64_MAX,
		.enough_stores = stores >= points_open_min(quorum),
	};

	if (quorum.w > absent)
		promotion.acknowledged = points_rank(floor, present, quorum.w - absent);
	promotion.proven = promotion.enough_stores && promotion.acknowledged <= consistent;
	return promotion;
}
