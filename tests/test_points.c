/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the points, by brute force: every small geometry and quorum, every way in which its
 * stores can hold the first records, every set of stores lost. Each rule stands beside a simpler
 * one that must be seen to fail, so that the search itself is known to be able to find a fault. */
#include "core/points.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { STORES_MAX = 6, LSN_MAX = 3, HELD_SETS = 1 << LSN_MAX };

/* What each store of one case holds: bit l - 1 of a set is lsn l. Its floor is the dense start. */
struct world {
	struct quorum quorum;
	unsigned n;
	unsigned set[STORES_MAX];
	lsn_t floor[STORES_MAX];
	struct ranges held[STORES_MAX];
	struct range memory[STORES_MAX][LSN_MAX];
	const struct ranges *pointer[STORES_MAX];
};

static lsn_t dense_start(unsigned set)
{
	lsn_t lsn = 0;

	while (set >> lsn & 1)
		lsn++;
	return lsn;
}

static void world_set(struct world *world, unsigned store, unsigned set)
{
	world->set[store] = set;
	world->floor[store] = dense_start(set);
	ranges_init(&world->held[store], world->memory[store], LSN_MAX);
	for (lsn_t lsn = 1; lsn <= LSN_MAX; lsn++)
		if (set >> (lsn - 1) & 1)
			assert_int_equal(ranges_add(&world->held[store], lsn, lsn + 1), 0);
	world->pointer[store] = &world->held[store];
}

/* Stores are interchangeable: only sets in rising order need be tried. */
static bool world_next(struct world *world)
{
	for (unsigned store = world->n; store-- > 0;) {
		if (world->set[store] + 1 == HELD_SETS)
			continue;
		unsigned set = world->set[store] + 1;
		for (; store < world->n; store++)
			world_set(world, store, set);
		return true;
	}
	return false;
}

static void world_begin(struct world *world, struct quorum quorum)
{
	world->quorum = quorum;
	world->n = geometry_n(quorum.geometry);
	for (unsigned store = 0; store < world->n; store++)
		world_set(world, store, 0);
}

static unsigned count(uint32_t mask)
{
	return (unsigned)__builtin_popcount(mask);
}

/* The consistent point, told naively. */
static lsn_t consistent_plain(const struct world *world, uint32_t present, lsn_t base)
{
	for (lsn_t lsn = base + 1; lsn <= LSN_MAX; lsn++) {
		unsigned holders = 0;
		for (unsigned store = 0; store < world->n; store++)
			holders += (present >> store & 1) && (world->set[store] >> (lsn - 1) & 1);
		if (holders < world->quorum.geometry.k)
			return lsn - 1;
	}
	return max_u64(base, LSN_MAX);
}

typedef void (*visit_world)(struct world *, void *context);

static void for_all_quorums(unsigned n_max, void (*visit)(struct quorum, void *), void *context)
{
	for (uint8_t k = 1; k <= n_max; k++)
		for (uint8_t m = 0; k + m <= (int)n_max; m++)
			for (uint8_t w = k; w <= k + m; w++)
				visit((struct quorum){{k, m}, w}, context);
}

/* ---- (a) promotion ---- */
struct promotions {
	unsigned long cases, proven, refused, missing;
	unsigned long wrong_any_k;  /* promoted with any k stores: less than was acknowledged */
	unsigned long wrong_next_q; /* proof by the (q + 1)-th largest floor */
	unsigned long open_any_k;
};

static void promote_one(const struct world *world, uint32_t present, struct promotions *seen)
{
	struct quorum quorum = world->quorum;
	uint32_t all = (1u << world->n) - 1;
	/* Whatever was acknowledged at any time was at or below the durable point of now: floors
	 * only rise, and what else lies on the disks was never counted. */
	lsn_t acknowledged = points_durable(quorum, world->floor, all);
	lsn_t served = points_consistent(quorum, world->pointer, present, NULL, 0, UINT64_MAX);
	struct promotion promotion = points_promotion(quorum, world->floor, present, served);
	bool missing = served < acknowledged;

	assert_int_equal(served, consistent_plain(world, present, 0));
	assert_int_equal(promotion.present, count(present));
	assert_int_equal(promotion.consistent, served);
	assert_int_equal(promotion.enough_stores, count(present) >= points_open_min(quorum));
	if (missing && promotion.proven)
		fail_msg("%u+%u w=%u present=%x: acknowledged %llu, served %llu, called proven",
			 quorum.geometry.k, quorum.geometry.m, quorum.w, present,
			 (unsigned long long)acknowledged, (unsigned long long)served);
	if (promotion.acknowledged < acknowledged)
		fail_msg("the bound on what was acknowledged is too low");

	seen->cases++;
	seen->proven += promotion.proven;
	seen->refused += !promotion.proven;
	seen->missing += missing;
	if (count(present) >= quorum.geometry.k) {
		seen->open_any_k++;
		seen->wrong_any_k += missing;
	}
	int q = quorum.w - (int)(world->n - count(present));
	if (promotion.enough_stores &&
	    points_rank(world->floor, present, (unsigned)q + 1) <= served)
		seen->wrong_next_q += missing;
}

static void promote_all(struct quorum quorum, void *context)
{
	struct promotions *seen = context;
	struct world world;
	unsigned long proven_before = seen->proven;

	world_begin(&world, quorum);
	do
		for (uint32_t present = 0; present < 1u << world.n; present++)
			promote_one(&world, present, seen);
	while (world_next(&world));
	assert_true(seen->proven > proven_before);
}

static void test_promotion(void **state)
{
	(void)state;
	struct promotions seen = {0};

	for_all_quorums(5, promote_all, &seen);
	print_message("promotion: %lu cases, %lu proven, %lu missing something; any k stores "
		      "would serve less than acknowledged in %lu of %lu, q + 1 in %lu\n",
		      seen.cases, seen.proven, seen.missing, seen.wrong_any_k, seen.open_any_k,
		      seen.wrong_next_q);
	assert_true(seen.proven && seen.refused && seen.missing);
	assert_true(seen.wrong_any_k > 0);
	assert_true(seen.wrong_next_q > 0);
}

/* The proof is not only safe but as sharp as these stores allow: where enough stores are present
 * and it refuses, some way to fill the absent stores makes the missing lsn an acknowledged one. */
static void sharp_all(struct quorum quorum, void *context)
{
	unsigned long *refused = context;
	struct world world, filled;

	world_begin(&world, quorum);
	do
		for (uint32_t present = 0; present < 1u << world.n; present++) {
			lsn_t served = points_consistent(quorum, world.pointer, present, NULL, 0,
							 UINT64_MAX);
			struct promotion promotion =
				points_promotion(quorum, world.floor, present, served);
			if (promotion.proven || !promotion.enough_stores)
				continue;
			filled = world;
			for (unsigned store = 0; store < world.n; store++)
				if (!(present >> store & 1))
					filled.floor[store] = LSN_MAX;
			assert_true(points_durable(quorum, filled.floor, (1u << world.n) - 1) >
				    served);
			++*refused;
		}
	while (world_next(&world));
}

static void test_promotion_is_sharp(void **state)
{
	(void)state;
	unsigned long refused = 0;

	for_all_quorums(4, sharp_all, &refused);
	assert_true(refused > 0);
}

/* ---- (b) durable: any w - k stores may go ---- */
struct durables {
	unsigned long cases, wrong_next_loss, wrong_next_rank;
};

static void durable_all(struct quorum quorum, void *context)
{
	struct durables *seen = context;
	unsigned margin = quorum.w - quorum.geometry.k;
	struct world world;

	world_begin(&world, quorum);
	uint32_t all = (1u << world.n) - 1;
	do {
		lsn_t durable = points_durable(quorum, world.floor, all);
		lsn_t early = quorum.w > 1 ? points_rank(world.floor, all, quorum.w - 1) : 0;
		for (uint32_t lost = 0; lost <= all; lost++) {
			if (count(lost) > margin + 1)
				continue;
			lsn_t decodable = consistent_plain(&world, all & ~lost, 0);
			if (count(lost) <= margin) {
				seen->cases++;
				assert_true(decodable >= durable);
				seen->wrong_next_rank += decodable < early;
			} else {
				seen->wrong_next_loss += decodable < durable;
			}
		}
	} while (world_next(&world));
}

static void test_durable(void **state)
{
	(void)state;
	struct durables seen = {0};

	for_all_quorums(STORES_MAX, durable_all, &seen);
	print_message("durable: %lu cases; one loss more breaks %lu, a quorum of w - 1 %lu\n",
		      seen.cases, seen.wrong_next_loss, seen.wrong_next_rank);
	assert_true(seen.wrong_next_loss > 0);
	assert_true(seen.wrong_next_rank > 0);
}

/* ---- (c) fold ---- */
/* One block with versions 0 (in every image), 1 and 2. A store with floor L has versions 1 ... L in
 * its journal. Each store that reached the fold point has folded or, at a crash, not yet; those
 * behind it fold nothing past their own floor. One step is enough: the next one begins when all
 * stores in service are at this one, with that version in the part of version 0. */
enum { VERSIONS = 3 };

struct fold_rule {
	const char *name;
	lsn_t (*point)(struct quorum, const lsn_t floor[], uint32_t in_service);
	unsigned long cases, lost, geometries, geometries_lost;
};

static lsn_t fold_house(struct quorum quorum, const lsn_t floor[], uint32_t in_service)
{
	return points_fold(quorum, floor, in_service);
}
/* "Fold what is decodable." */
static lsn_t fold_naive(struct quorum quorum, const lsn_t floor[], uint32_t in_service)
{
	return points_rank(floor, in_service, quorum.geometry.k);
}

/* The newest version that k of the stores in mask still have; -1 when there is none. */
static int version_decodable(struct quorum quorum, const lsn_t floor[], uint32_t folded, lsn_t fold,
			     uint32_t mask)
{
	for (int version = VERSIONS - 1; version >= 0; version--) {
		unsigned holders = 0;
		for (unsigned store = 0; store < geometry_n(quorum.geometry); store++) {
			bool has = floor[store] >= (lsn_t)version;
			bool overwritten = (folded >> store & 1) && (lsn_t)version < fold;
			holders += (mask >> store & 1) && has && !overwritten;
		}
		if (holders >= quorum.geometry.k)
			return version;
	}
	return -1;
}

/* Whether this set of present stores is one that the promises speak of: at most w - k stores gone
 * (one, when w = k and more than k are in service), or a set that may be opened and proves by its
 * floors that nothing acknowledged is missing. A store that is out never comes back as present. */
static bool fold_speaks_of(struct quorum quorum, const lsn_t floor[], uint32_t in_service,
			   uint32_t present)
{
	unsigned n = geometry_n(quorum.geometry), gone = n - count(present);
	unsigned margin = quorum.w - quorum.geometry.k;
	if (margin == 0 && count(in_service) > quorum.geometry.k)
		margin = 1 + n - count(in_service);

	int newest = version_decodable(quorum, floor, 0, 0, present);
	lsn_t consistent = newest < 0 ? 0 : (lsn_t)newest;
	return gone <= margin || points_promotion(quorum, floor, present, consistent).proven;
}

static void fold_one(struct quorum quorum, const lsn_t floor[], uint32_t in_service,
		     struct fold_rule *rule)
{
	unsigned n = geometry_n(quorum.geometry);
	lsn_t fold = rule->point(quorum, floor, in_service);
	uint32_t reached = 0;

	for (unsigned store = 0; store < n; store++)
		if ((in_service >> store & 1) && floor[store] >= fold)
			reached |= 1u << store;
	for (uint32_t folded = reached;; folded = (folded - 1) & reached) {
		for (uint32_t present = in_service; present; present = (present - 1) & in_service) {
			if (!fold_speaks_of(quorum, floor, in_service, present))
				continue;
			rule->cases++;
			rule->lost += version_decodable(quorum, floor, folded, fold, present) < 0;
		}
		if (!folded)
			break;
	}
}

static void fold_all(struct quorum quorum, void *context)
{
	struct fold_rule *rule = context;
	unsigned n = geometry_n(quorum.geometry);
	unsigned long lost = rule->lost, floors = 1;

	for (unsigned store = 0; store < n; store++)
		floors *= VERSIONS;
	for (unsigned long code = 0; code < floors; code++) {
		lsn_t floor[SHARDS_MAX] = {0};
		unsigned long rest = code;
		for (unsigned store = 0; store < n; store++, rest /= VERSIONS)
			floor[store] = rest % VERSIONS;
		for (uint32_t in_service = 1; in_service < 1u << n; in_service++)
			if (count(in_service) >= quorum.geometry.k)
				fold_one(quorum, floor, in_service, rule);
	}
	rule->geometries++;
	rule->geometries_lost += rule->lost > lost;
}

static void test_fold(void **state)
{
	(void)state;
	struct fold_rule house = {"f-th largest floor", fold_house, 0, 0, 0, 0};
	struct fold_rule naive = {"what is decodable", fold_naive, 0, 0, 0, 0};

	for_all_quorums(5, fold_all, &house);
	for_all_quorums(5, fold_all, &naive);
	print_message("fold \"%s\": %lu of %lu cases lost\n", house.name, house.lost, house.cases);
	print_message("fold \"%s\": %lu of %lu cases lost, in %lu of %lu geometries\n", naive.name,
		      naive.lost, naive.cases, naive.geometries_lost, naive.geometries);
	assert_true(house.cases > 0);
	assert_int_equal(house.lost, 0);
	assert_true(naive.lost > 0);
}

/* The shortest counterexample, spelt out: 2+1, w = 3. Two stores have the new version and fold it,
 * the third still has the old one; with one of the two lost, neither version has k shards. */
static void test_fold_counterexample(void **state)
{
	(void)state;
	struct quorum quorum = {{2, 1}, 3};
	lsn_t floor[SHARDS_MAX] = {1, 1, 0};

	assert_int_equal(fold_naive(quorum, floor, 7), 1);
	assert_int_equal(version_decodable(quorum, floor, 3, 1, 5), -1);
	assert_int_equal(points_fold(quorum, floor, 7), 0);
	assert_int_equal(version_decodable(quorum, floor, 3, 0, 5), 0);
}

/* ---- the small verbs ---- */
static void test_small(void **state)
{
	(void)state;
	const struct row {
		int number;
		uint8_t k, m, w;
		bool valid;
		unsigned standard, open_min;
	} rows[] = {{1, 1, 0, 1, true, 1, 1},	   {2, 1, 1, 1, true, 2, 2},
		    {3, 1, 1, 2, true, 2, 1},	   {4, 1, 2, 2, true, 3, 2},
		    {5, 2, 1, 2, true, 2, 2},	   {6, 4, 2, 5, true, 5, 4},
		    {7, 4, 2, 4, true, 5, 4},	   {8, 8, 4, 11, true, 11, 8},
		    {9, 2, 4, 2, true, 5, 5},	   {10, 2, 0, 2, true, 2, 2},
		    {11, 16, 8, 23, true, 23, 16}, {12, 4, 2, 3, false, 5, 0},
		    {13, 4, 2, 7, false, 5, 0},	   {14, 0, 2, 1, false, 1, 0},
		    {15, 17, 1, 17, false, 17, 0}, {16, 1, 9, 5, false, 10, 0}};
	lsn_t floor[SHARDS_MAX] = {7, 3, 9, 9, 1};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		struct quorum quorum = {{row->k, row->m}, row->w};
		if (quorum_valid(quorum) != row->valid ||
		    quorum_default(quorum.geometry) != row->standard ||
		    (row->valid && points_open_min(quorum) != row->open_min))
			fail_msg("row %d", row->number);
	}
	assert_int_equal(points_rank(floor, 0x1f, 1), 9);
	assert_int_equal(points_rank(floor, 0x1f, 3), 7);
	assert_int_equal(points_rank(floor, 0x1f, 5), 1);
	assert_int_equal(points_rank(floor, 0x1f, 6), 0);
	assert_int_equal(points_rank(floor, 0x13, 1), 7);
	assert_int_equal(points_rank(floor, 0, 1), 0);
	assert_int_equal(points_fold((struct quorum){{2, 3}, 4}, floor, 0), 0);
	assert_int_equal(points_fold((struct quorum){{2, 3}, 4}, floor, 0x0c), 9);
	assert_int_equal(points_fold((struct quorum){{2, 3}, 4}, floor, 0x1f), 3);
	assert_int_equal(points_fold((struct quorum){{2, 3}, 2}, floor, 0x1f), 7);
	assert_int_equal(points_durable((struct quorum){{2, 3}, 4}, floor, 0x0c), 0);
}

static void test_consistent(void **state)
{
	(void)state;
	struct quorum quorum = {{2, 1}, 3};
	struct range memory[3][2] = {{{1, 50}, {60, 100}}, {{1, 40}, {70, 80}}, {{30, 90}}};
	struct ranges held[3] = {{memory[0], 2, 2}, {memory[1], 2, 2}, {memory[2], 1, 2}};
	const struct ranges *pointer[] = {&held[0], &held[1], &held[2]};
	struct range gap_memory[] = {{50, 60}, {90, 95}};
	struct ranges gaps = {gap_memory, 2, 2};
	const struct row {
		int number;
		uint32_t mask;
		bool gaps;
		lsn_t base, limit, expected;
	} rows[] = {
		{1, 7, false, 0, UINT64_MAX, 49}, /* 50 is on store 2 alone */
		{2, 7, true, 0, UINT64_MAX, 94},  /* then 95 is on store 0 alone */
		{3, 7, true, 0, 45, 45},	  {4, 7, true, 0, 55, 55},
		{5, 3, false, 0, UINT64_MAX, 39}, {6, 3, true, 69, UINT64_MAX, 79},
		{7, 7, true, 94, UINT64_MAX, 94}, {8, 7, true, 200, UINT64_MAX, 200},
		{9, 7, true, 200, 100, 200},	  {10, 1, true, 0, UINT64_MAX, 0},
		{11, 0, true, 0, UINT64_MAX, 0},  {12, 0, true, 49, UINT64_MAX, 59},
		{13, 7, true, 0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		lsn_t lsn = points_consistent(quorum, pointer, row->mask, row->gaps ? &gaps : NULL,
					      row->base, row->limit);
		if (lsn != row->expected)
			fail_msg("row %d: %llu instead of %llu", row->number,
				 (unsigned long long)lsn, (unsigned long long)row->expected);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_consistent),
		cmocka_unit_test(test_promotion),
		cmocka_unit_test(test_promotion_is_sharp),
		cmocka_unit_test(test_durable),
		cmocka_unit_test(test_fold),
		cmocka_unit_test(test_fold_counterexample),
	};
	return cmocka_run_group_tests_name("points", tests, NULL, NULL);
}
