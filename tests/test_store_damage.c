/* SPDX-License-Identifier: Apache-2.0 */
/* A store whose disk has lost what it held: whole segments of the journal, and copies of slot
 * pages. What is gone is told, and nothing is answered from what was there before it. */
#include "store_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- segments of the journal ---- */

static void segment_lost(struct rig *rig, unsigned segment, int content)
{
	static uint8_t bytes[SEGMENT_BYTES];

	memset(bytes, content, sizeof bytes);
	for (unsigned at = 0; content < 0 && at < sizeof bytes; at++)
		bytes[at] = (uint8_t)fake_disk_random(&rig->disk);
	fake_disk_poke(&rig->disk, RIG_JOURNAL, (uint64_t)segment * SEGMENT_BYTES, bytes,
		       sizeof bytes);
}

/* Each record in a batch of its own: five to a segment. */
static void fill(struct rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 1, rig->lsn % 47), 0);
		rig_settle(rig);
	}
}

static const struct gone {
	int number;
	unsigned folds; /* of ten records each, before */
	unsigned segment, count;
	int content; /* -1: random bytes */
	uint64_t damage;
} gones[] = {
	{1, 0, 0, 1, 0, 1},  {2, 0, 1, 1, 0, 1},  {3, 0, 1, 1, 0xff, 1},
	{4, 0, 2, 1, -1, 1}, {5, 0, 1, 2, 0, 1}, /* of the first of two nobody is left to tell */
	{6, 1, 2, 1, -1, 1}, {7, 1, 3, 1, 0, 1},  {8, 2, 5, 1, 0, 1},
	{9, 2, 0, 1, -1, 1}, {10, 2, 4, 1, 0, 1}, {11, 0, 4, 2, 0xff, 0}, /* these were free */
	{12, 2, 2, 2, 0, 0},
};

static void test_segment_gone(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(gones); i++) {
		const struct gone *row = &gones[i];
		struct rig *rig = rig_fresh(i);
		for (unsigned fold = 0; fold < row->folds; fold++) {
			fill(rig, 10);
			rig_fold(rig, rig->lsn);
		}
		lsn_t folded = rig->lsn;
		fill(rig, 18);
		rig_crash(rig);
		for (unsigned n = 0; n < row->count; n++)
			segment_lost(rig, row->segment + n, row->content);
		rig_reopen(rig);
		if (store_damage_count(rig->store) != row->damage ||
		    store_lost_records(rig->store) != (row->damage > 0))
			fail_msg("row %d: damage %llu", row->number,
				 (unsigned long long)store_damage_count(rig->store));
		/* Peers give it back, and then it is over. */
		for (lsn_t lsn = folded + 1; lsn <= rig->lsn; lsn++)
			if (!ranges_contains(store_held(rig->store), lsn))
				assert_int_equal(rig_append_lsn(rig, lsn), 0);
		rig_settle(rig);
		rig_fold(rig, rig->lsn);
		rig_crash(rig);
		rig_reopen(rig);
		if (store_damage_count(rig->store))
			fail_msg("row %d: damage after a fold", row->number);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

/* ---- copies of slot pages ---- */

struct repair {
	struct store_slot_write write;
	int told, result;
};

static void repaired(struct store_slot_write *write, int result, struct effects *fx)
{
	struct repair *repair = container_of(write, struct repair, write);

	repair->told++;
	repair->result = result;
}

/* The newest lsn of the block in volume 0; 0: never written. */
static lsn_t newest(const struct rig *rig, uint64_t block)
{
	lsn_t lsn = rig->lsn;

	while (lsn && (rig->record[lsn].volume != 0 || rig->record[lsn].block != block))
		lsn--;
	return lsn;
}

static void repair_begin(struct rig *rig, struct repair *repair, uint64_t block, uint8_t *shard)
{
	lsn_t lsn = newest(rig, block);

	*repair = (struct repair){
		.write = {.record = {.volume = rig->group.volume[0].id, .block = block},
			  .shard = shard,
			  .done = repaired}};
	if (lsn) {
		repair->write.record = rig_record_of(rig, lsn);
		rig_shard(shard, repair->write.record.shard_bytes, lsn);
	}
	store_write_slot(rig->store, &repair->write, &rig->fx);
}

/* As a scrub does, all at once. */
static void repair_holes(struct rig *rig)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[SLOTS_PER_PAGE * 2][RIG_SHARD_BYTES_MAX];
	static struct repair repair[SLOTS_PER_PAGE * 2];
	struct record record;
	bool begun[SLOTS_PER_PAGE * 2] = {false};

	for (uint64_t block = 0; block < ARRAY_COUNT(repair); block++) {
		if (store_find(rig->store, 0, block, UINT64_MAX, &record) != -EBADMSG)
			continue;
		begun[block] = true;
		repair_begin(rig, &repair[block], block, shard[block]);
	}
	rig_settle(rig);
	for (uint64_t block = 0; block < ARRAY_COUNT(repair); block++)
		if (begun[block]) {
			assert_int_equal(repair[block].told, 1);
			assert_int_equal(repair[block].result, 0);
		}
}

/* Page 0 of volume 0: as formatted; blocks 0 to 5 folded to its second copy; blocks 3 to 8 to its
 * first. Page 1 is as formatted. */
static void two_folds(struct rig *rig)
{
	for (unsigned fold = 0; fold < 2; fold++) {
		for (unsigned n = 0; n < 6; n++)
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, 3 * fold + n), 0);
		rig_settle(rig);
		rig_fold(rig, rig->lsn);
	}
}

enum { NOWHERE = -1, SEQUENCE = 8, STORE = 24, CHANGED = 48, SLOT_0 = 100, SLOT_41 = 4090 };
static const struct slot_damage {
	int number;
	unsigned page;
	int flip[2]; /* where in each copy */
	uint64_t damage;
	uint64_t holes_from, holes_to; /* blocks; all others answer */
} slot_damages[] = {
	{1, 0, {NOWHERE, NOWHERE}, 0, 0, 0},
	/* The older copy, and that is told by its header. */
	{2, 0, {NOWHERE, SLOT_0}, 1, 0, 0},
	{3, 0, {NOWHERE, SLOT_41}, 1, 0, 0},
	/* It is not told. */
	{4, 0, {NOWHERE, SEQUENCE}, 1, 0, 42},
	{5, 0, {NOWHERE, STORE}, 1, 0, 42},
	/* The newer copy: what it has changed is not known. */
	{6, 0, {SLOT_0, NOWHERE}, 1, 3, 9},
	{7, 0, {SLOT_41, NOWHERE}, 1, 3, 9},
	{8, 0, {SEQUENCE, NOWHERE}, 1, 0, 42},
	{9, 0, {CHANGED, NOWHERE}, 1, 0, 42},
	{10, 0, {SLOT_0, SLOT_0}, 1, 0, 42},
	{11, 0, {SEQUENCE, SEQUENCE}, 1, 0, 42},
	{12, 0, {SLOT_0, SEQUENCE}, 1, 0, 42},
	/* As formatted: both copies say the same. */
	{13, 1, {SLOT_0, NOWHERE}, 1, 0, 0},
	{14, 1, {NOWHERE, SLOT_0}, 1, 0, 0},
	{15, 1, {SEQUENCE, NOWHERE}, 1, 42, 84},
	{16, 1, {NOWHERE, SEQUENCE}, 1, 42, 84},
};

static void expect_slots(const struct rig *rig, const struct slot_damage *row)
{
	for (uint64_t block = 0; block < 96; block++) {
		struct record record;
		lsn_t lsn = newest(rig, block);
		int expected = block >= row->holes_from && block < row->holes_to ? -EBADMSG
			       : lsn						 ? 0
										 : -ENOENT;
		int result = store_find(rig->store, 0, block, UINT64_MAX, &record);
		if (result != expected || (!result && record.lsn != lsn))
			fail_msg("row %d: block %llu: %d", row->number, (unsigned long long)block,
				 result);
	}
}

static void test_slot_copies(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(slot_damages); i++) {
		const struct slot_damage *row = &slot_damages[i];
		struct rig *rig = rig_fresh(i);
		two_folds(rig);
		rig_crash(rig);
		for (unsigned copy = 0; copy < 2; copy++)
			if (row->flip[copy] != NOWHERE)
				rig_flip(rig, RIG_SLOTS,
					 (2 * row->page + copy) * PAGE_BYTES +
						 (uint64_t)row->flip[copy]);
		/* It says the same at every start. */
		for (unsigned start = 0; start < 2; start++) {
			rig_reopen(rig);
			assert_int_equal(store_damage_count(rig->store), row->damage);
			assert_false(store_lost_records(rig->store));
			assert_int_equal(rig_floor(rig), rig->lsn);
			expect_slots(rig, row);
			rig_crash(rig);
		}
		rig_reopen(rig);
		repair_holes(rig);
		rig_check(rig, UINT64_MAX);
		rig_crash(rig);
		rig_reopen(rig);
		if (row->holes_to && store_damage_count(rig->store))
			fail_msg("row %d: damage after the repair", row->number);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

/* What is written over two bad copies is newer than both said that they were. */
static void test_sequence_goes_on(void **state)
{
	struct rig *rig = rig_fresh(42);
	const struct disk_slot_page *copy = (const void *)rig->disk.file[RIG_SLOTS].cached;

	two_folds(rig);
	rig_crash(rig);
	assert_int_equal(copy[0].sequence, 3);
	assert_int_equal(copy[1].sequence, 2);
	rig_flip(rig, RIG_SLOTS, SLOT_0);
	rig_flip(rig, RIG_SLOTS, PAGE_BYTES + SLOT_0);
	rig_reopen(rig);
	repair_holes(rig);
	assert_true(copy[0].sequence > 3);
	assert_true(copy[1].sequence > 3);
	rig_free(rig);
}

/* The store was damaged, a scrub mends it, and the newer copy is damaged again: what the scrub has
 * not reached yet is a hole still. */
static void test_repair_in_part(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[RIG_SHARD_BYTES_MAX];
	static const struct slot_damage left = {.number = 1, .holes_from = 3, .holes_to = 9};
	struct rig *rig = rig_fresh(40);
	struct repair repair;

	two_folds(rig);
	rig_crash(rig);
	rig_flip(rig, RIG_SLOTS, SLOT_0);
	rig_reopen(rig);
	repair_begin(rig, &repair, 4, shard);
	rig_settle(rig);
	assert_int_equal(repair.result, 0);
	rig_crash(rig);
	rig_flip(rig, RIG_SLOTS, SLOT_41);
	rig_reopen(rig);
	expect_slots(rig, &left);
	repair_holes(rig);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* A fold begins and is broken off before the page is written: what was not believed still is not.
 */
static void test_doubt_in_a_fold(void **state)
{
	static const struct slot_damage left = {.number = 1, .holes_from = 3, .holes_to = 9};
	struct rig *rig = rig_fresh(41);

	two_folds(rig);
	rig_crash(rig);
	rig_flip(rig, RIG_SLOTS, SLOT_0);
	rig_reopen(rig);
	assert_int_equal(rig_append(rig, RECORD_DATA, 1, 0), 0);
	rig_settle(rig);
	rig->group.fold_point = rig->lsn;
	rig_write_group(rig);
	rig_settle(rig);
	rig_crash(rig);
	rig_reopen(rig);
	assert_true(store_group_of(rig->store)->fold_point > store_image_point(rig->store));
	expect_slots(rig, &left);
	repair_holes(rig);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* Both copies were bad. What is folded to the page since is there at the next start, and so when
 * power goes at any moment of the fold. */
static void test_fold_over_holes(void **state)
{
	for (unsigned seed = 1; seed <= 100; seed++) {
		struct rig *rig = rig_fresh(seed);
		struct record record;
		two_folds(rig);
		rig_crash(rig);
		rig_flip(rig, RIG_SLOTS, SEQUENCE);
		rig_flip(rig, RIG_SLOTS, PAGE_BYTES + SEQUENCE);
		rig_reopen(rig);
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, 7), 0);
		rig_settle(rig);
		rig->group.fold_point = rig->lsn;
		rig_write_group(rig);
		rig_settle(rig);
		store_fold(rig->store, rig->lsn, &rig->fx);
		for (unsigned steps = seed % 20; steps; steps--) {
			rig_turn(rig);
			fake_disk_complete(&rig->disk, &rig->fx);
		}
		rig_crash(rig);
		rig_reopen(rig);
		assert_int_equal(store_find(rig->store, 0, 7, UINT64_MAX, &record), 0);
		assert_int_equal(record.lsn, rig->lsn);
		assert_int_equal(store_find(rig->store, 0, 4, UINT64_MAX, &record), -EBADMSG);
		rig_free(rig);
	}
}

/* Power goes while slots are mended, outside of any fold: nothing else is taken from the page. */
static void test_crash_in_repair(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[2][RIG_SHARD_BYTES_MAX];
	unsigned torn = 0;

	for (unsigned seed = 1; seed <= 200; seed++) {
		struct rig *rig = rig_fresh(seed);
		struct repair repair[2];
		struct record record;
		two_folds(rig);
		for (unsigned n = 0; n < 2; n++)
			repair_begin(rig, &repair[n], 1 + 3 * n, shard[n]);
		for (uint64_t steps = fake_disk_random(&rig->disk) % 8; steps; steps--) {
			rig_turn(rig);
			fake_disk_complete(&rig->disk, &rig->fx);
		}
		rig_turn(rig);
		rig_crash(rig);
		rig_reopen(rig);
		torn += store_damage_count(rig->store) > 0;
		for (uint64_t block = 0; block < 42; block++) {
			lsn_t lsn = newest(rig, block);
			int result = store_find(rig->store, 0, block, UINT64_MAX, &record);
			bool hole = result == -EBADMSG && (block == 1 || block == 4);
			if (!hole && result != (lsn ? 0 : -ENOENT))
				fail_msg("seed %u: block %llu: %d", seed, (unsigned long long)block,
					 result);
			if (!result)
				assert_int_equal(record.lsn, lsn);
		}
		repair_holes(rig);
		rig_check(rig, UINT64_MAX);
		rig_crash(rig);
		rig_reopen(rig);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
	assert_true(torn > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segment_gone),	 cmocka_unit_test(test_slot_copies),
		cmocka_unit_test(test_sequence_goes_on), cmocka_unit_test(test_repair_in_part),
		cmocka_unit_test(test_doubt_in_a_fold),	 cmocka_unit_test(test_fold_over_holes),
		cmocka_unit_test(test_crash_in_repair),
	};

	return cmocka_run_group_tests_name("store_damage", tests, NULL, NULL);
}
