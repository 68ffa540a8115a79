/* SPDX-License-Identifier: Apache-2.0 */
/* One store on a disk in memory: formats, appending, crashes at any moment, recovery, damage,
 * folding, and what happens when the disk fails. */
#include "store_rig.h"

#include "core/crc.h"
#include "core/format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEGMENT_BYTES = 65536, SEGMENT_COUNT = 6 };

static struct rig *rig_fresh(uint64_t seed)
{
	struct rig *rig = rig_new(seed, SEGMENT_BYTES, SEGMENT_COUNT);

	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	return rig;
}

static void reopen(struct rig *rig)
{
	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	store_use_spans(rig->store, &rig->group.spans);
}

/* ---- formats ---- */

static void test_superblock(void **state)
{
	struct rig *rig = rig_new(1, SEGMENT_BYTES, SEGMENT_COUNT);
	uint8_t copy[STORE_SUPERBLOCK_BYTES];
	struct store_group read;
	struct uuid id, store = {"some store id..."};
	uint8_t index;
	uint32_t incarnation, segment_count;
	uint64_t segment_bytes, sequence;

	rig->group.fold_point = 77;
	rig->group.out = 5;
	rig->group.incarnation[2] = 9;
	rig->group.promoted = 3;
	memset(rig->group.volume[1].wrapped_key, 0x5a, 40);
	memset(rig->group.volume[1].key_check, 0xa5, 16);
	store_superblock_encode(&rig->group, &store, 2, 4, 65536, 9, 123, copy);
	assert_int_equal(store_superblock_decode(copy, &read, &id, &index, &incarnation,
						 &segment_bytes, &segment_count, &sequence),
			 0);
	assert_memory_equal(&read, &rig->group, sizeof read);
	assert_memory_equal(&id, &store, sizeof id);
	assert_int_equal(index, 2);
	assert_int_equal(incarnation, 4);
	assert_int_equal(segment_bytes, 65536);
	assert_int_equal(segment_count, 9);
	assert_int_equal(sequence, 123);
	/* Every byte counts. */
	for (unsigned at = 0; at < STORE_SUPERBLOCK_BYTES; at++) {
		copy[at] ^= 0x10;
		assert_int_equal(
			store_superblock_decode(copy, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
			at < 8 ? -ENOENT : -EBADMSG);
		copy[at] ^= 0x10;
	}
	struct disk_superblock newer;
	memcpy(&newer, copy, sizeof newer);
	newer.version = FORMAT_VERSION + 1;
	newer.crc = crc32c(&newer, offsetof(struct disk_superblock, crc));
	memcpy(copy, &newer, sizeof newer);
	assert_int_equal(store_superblock_decode(copy, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
			 -EPROTONOSUPPORT);
	rig_free(rig);
}

static const struct opening {
	int number;
	bool flip[2]; /* which copy is damaged */
	bool erase;   /* zeros instead */
	uint8_t index;
	uint64_t size; /* of volume 0 */
	int expected;
} openings[] = {
	{1, {false, false}, false, 1, 96 * 8192, 0},
	{2, {true, false}, false, 1, 96 * 8192, 0},
	{3, {false, true}, false, 1, 96 * 8192, 0},
	{4, {true, true}, false, 1, 96 * 8192, -EBADMSG},
	{5, {true, true}, true, 1, 96 * 8192, -ENOENT},
	{6, {true, false}, true, 1, 96 * 8192, 0},
	{7, {false, false}, false, 0, 96 * 8192, -EXDEV},
	{8, {false, false}, false, 1, 95 * 8192, -EXDEV},
};

static void test_opening(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(openings); i++) {
		const struct opening *row = &openings[i];
		struct rig *rig = rig_new(i, SEGMENT_BYTES, SEGMENT_COUNT);
		static const uint8_t zeros[STORE_SUPERBLOCK_BYTES];
		for (unsigned copy = 0; copy < 2; copy++)
			if (row->flip[copy])
				fake_disk_poke(&rig->disk, RIG_SUPERBLOCK,
					       copy * STORE_SUPERBLOCK_BYTES +
						       (row->erase ? 0 : 500),
					       row->erase ? zeros : (const uint8_t *)"\xff\xff",
					       row->erase ? STORE_SUPERBLOCK_BYTES : 2);
		rig->config.index = row->index;
		rig->config.volume[0].size = row->size;
		rig_open(rig);
		if (rig->opened_result != row->expected)
			fail_msg("row %d: opened(%d)", row->number, rig->opened_result);
		assert_int_equal(store_state_of(rig->store),
				 row->expected ? STORE_OUT : STORE_READY);
		if (row->expected == -EXDEV)
			assert_string_equal(store_group_of(rig->store)->name, "group");
		rig_free(rig);
	}
}

/* ---- appending and finding ---- */

static void test_append_and_find(void **state)
{
	struct rig *rig = rig_fresh(2);
	struct record record;

	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, i % 2, i % 3), 0);
	assert_int_equal(rig_append(rig, RECORD_ZERO, 0, 0), 0);
	assert_int_equal(rig_append(rig, RECORD_DISCARD, 1, 1), 0);
	assert_int_equal(rig_append(rig, RECORD_MARK, 0, 0), 0);
	assert_int_equal(rig_append(rig, RECORD_VOID, 0, 0), 0);
	assert_int_equal(rig_floor(rig), 0);
	rig_settle(rig);
	assert_int_equal(rig->done_count, 16);
	assert_int_equal(rig_floor(rig), 16);
	assert_int_equal(store_lsn_max(rig->store), 16);
	assert_int_equal(store_find_lsn(rig->store, 15, &record), 0);
	assert_int_equal(record.kind, RECORD_MARK);
	assert_int_equal(store_find_lsn(rig->store, 17, &record), -ENOENT);
	for (lsn_t limit = 0; limit <= 17; limit++)
		rig_check(rig, limit);
	uint64_t cursor = 0;
	bool counts;
	for (lsn_t lsn = 1; lsn <= 16; lsn++) {
		assert_int_equal(store_next(rig->store, &cursor, &record, &counts), 0);
		assert_int_equal(record.lsn, lsn);
		assert_true(counts);
	}
	assert_int_equal(store_next(rig->store, &cursor, &record, &counts), -ENOENT);
	rig_crash(rig);
	reopen(rig);
	assert_int_equal(rig_floor(rig), 16);
	assert_int_equal(store_damage_count(rig->store), 0);
	for (lsn_t limit = 0; limit <= 17; limit++)
		rig_check(rig, limit);
	rig_free(rig);
}

/* ---- the crash test ---- */

struct crash_rates {
	unsigned steps, fold_percent;
};

static void crash_step(struct rig *rig, struct crash_rates rates)
{
	uint64_t dice = fake_disk_random(&rig->disk) % 100;
	static const uint8_t kinds[8] = {RECORD_DATA, RECORD_DATA, RECORD_DATA,	   RECORD_DATA,
					 RECORD_DATA, RECORD_ZERO, RECORD_DISCARD, RECORD_MARK};

	if (dice < 40 && rig->lsn + 1 < RIG_LSNS_MAX) {
		uint64_t pick = fake_disk_random(&rig->disk);
		uint8_t volume = pick >> 8 & 1;
		rig_append(rig, kinds[pick & 7], volume,
			   (pick >> 16) % (volume ? 50 : 96) % (pick >> 40 & 1 ? 7 : 96));
	} else if (dice < 40 + rates.fold_percent) {
		bool recorded = rig->acked.fold_point > store_image_point(rig->store) &&
				store_group_of(rig->store)->fold_point == rig->acked.fold_point;
		if (recorded && !store_folding(rig->store) &&
		    rig_floor(rig) >= rig->acked.fold_point) {
			store_fold(rig->store, rig->acked.fold_point, &rig->fx);
		} else if (!recorded && !rig->group_writing && !store_folding(rig->store) &&
			   rig_floor(rig) > rig->group.fold_point) {
			rig->group.fold_point = rig_floor(rig) - dice % 3;
			rig_write_group(rig);
		}
	} else if (dice < 55 && !rig->group_writing) {
		rig->group.powered_ns++;
		rig_write_group(rig);
	}
	if (fake_disk_random(&rig->disk) % 3 == 0)
		rig_turn(rig);
	for (uint64_t i = fake_disk_random(&rig->disk) % 3; i > 0; i--)
		fake_disk_complete(&rig->disk, &rig->fx);
}

/* What the crash tore is sent again, as a primary does. */
static void refill(struct rig *rig)
{
	for (lsn_t lsn = store_image_point(rig->store) + 1; lsn <= rig->lsn; lsn++) {
		if (ranges_contains(store_held(rig->store), lsn))
			continue;
		int err;
		while ((err = rig_append_lsn(rig, lsn)) == -EAGAIN)
			rig_settle(rig);
		if (err == -ENOSPC)
			break;
		assert_int_equal(err, 0);
	}
	rig_settle(rig);
}

static uint64_t seed_now; /* 0: none under way */

static int tell_seed(void **state)
{
	if (seed_now)
		print_message("replay: STORE_SEED=%llu build/tests/test_store\n",
			      (unsigned long long)seed_now);
	seed_now = 0;
	return 0;
}

static void crash_life(uint64_t seed, struct crash_rates rates)
{
	struct rig *rig = rig_fresh(seed);

	for (unsigned life = 0; life < 6; life++) {
		uint64_t steps = fake_disk_random(&rig->disk) % rates.steps;
		for (uint64_t i = 0; i < steps; i++)
			crash_step(rig, rates);
		rig_crash(rig);
		reopen(rig);
		if (store_damage_count(rig->store))
			fail_msg("seed %llu life %u: a crash alone counts as damage",
				 (unsigned long long)seed, life);
		rig_check(rig, UINT64_MAX);
		rig_check(rig, fake_disk_random(&rig->disk) % (rig->lsn + 2));
		refill(rig);
	}
	rig_check(rig, UINT64_MAX);
	assert_int_equal(rig->out, 0);
	assert_int_equal(rig->done_errors, 0);
	rig_free(rig);
}

static void test_crashes(void **state)
{
	static const struct crash_rates rates[] = {{60, 0}, {120, 10}, {400, 25}};
	const char *one = getenv("STORE_SEED");

	for (uint64_t seed = 1; seed <= 300; seed++) {
		if (one && strtoull(one, NULL, 0) != seed)
			continue;
		seed_now = seed;
		crash_life(seed, rates[seed % ARRAY_COUNT(rates)]);
	}
	seed_now = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_append_and_find),
		cmocka_unit_test_teardown(test_crashes, tell_seed),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
