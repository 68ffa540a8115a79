/* SPDX-License-Identifier: Apache-2.0 */
/* The history and the image of one store: spans that void, limits, folding, holes and their repair,
 * and a store that is rebuilt. */
#include "store_rig.h"

#include "core/format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- history ---- */

static void test_voided_tail(void **state)
{
	struct rig *rig = rig_fresh(11);
	struct record record;
	struct span second = {.id = {"span number two."},
			      .generation = 2,
			      .kind = SPAN_IN_ORDER,
			      .first = 21,
			      .parent_last = 12};

	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i % 5), 0);
	rig_settle(rig);
	assert_int_equal(rig_floor(rig), 20);
	second.parent = rig->group.spans.span[0].id;
	assert_int_equal(spans_open(&rig->group.spans, &second), 0);
	rig_write_group(rig);
	rig_settle(rig);
	store_use_spans(rig->store, &rig->group.spans);
	assert_int_equal(rig_floor(rig), 12);
	assert_int_equal(store_find_lsn(rig->store, 13, &record), -ENOENT);
	assert_int_equal(store_lsn_max(rig->store), 20);
	rig_check(rig, UINT64_MAX);
	/* A second record with a voided lsn's number, of the span that counts, is another record.
	 */
	rig->lsn = 20;
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i % 3), 0);
	rig_settle(rig);
	rig_check(rig, UINT64_MAX);
	rig_crash(rig);
	/* The superblock has the spans: recovery goes by them. */
	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	rig_check(rig, UINT64_MAX);
	uint64_t cursor = 0;
	unsigned seen = 0, counted = 0;
	for (bool counts; store_next(rig->store, &cursor, &record, &counts) == 0; seen++)
		counted += counts;
	assert_int_equal(seen, 26);
	assert_int_equal(counted, 18);
	/* Voided ones leave with the fold. */
	rig_fold(rig, 26);
	rig_check(rig, UINT64_MAX);
	assert_int_equal(store_journal_bytes_used(rig->store), 0);
	rig_crash(rig);
	rig_reopen(rig);
	rig_check(rig, UINT64_MAX);
	assert_int_equal(store_held(rig->store)->count, 0);
	rig_free(rig);
}

/* What was seen is not forgotten, though it was void and its segment is free. */
static void test_void_max(void **state)
{
	struct rig *rig = rig_fresh(17);
	struct span second = {.id = {"span number two."},
			      .parent = rig->group.spans.span[0].id,
			      .generation = 2,
			      .kind = SPAN_IN_ORDER,
			      .first = 21,
			      .parent_last = 12};

	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i % 5), 0);
	rig_settle(rig);
	assert_int_equal(spans_open(&rig->group.spans, &second), 0);
	store_use_spans(rig->store, &rig->group.spans);
	rig_fold(rig, 12);
	assert_int_equal(store_journal_bytes_used(rig->store), 0);
	rig_crash(rig);
	rig_reopen(rig);
	assert_int_equal(store_lsn_max(rig->store), 20);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

static void test_limits(void **state)
{
	struct rig *rig = rig_fresh(12);
	struct record record;

	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, 3), 0);
	rig_settle(rig);
	assert_int_equal(store_find(rig->store, 0, 3, 0, &record), -ENOENT);
	rig_fold(rig, 4);
	assert_int_equal(store_find(rig->store, 0, 3, 3, &record), -ESTALE);
	for (lsn_t limit = 4; limit <= 9; limit++) {
		assert_int_equal(store_find(rig->store, 0, 3, limit, &record), 0);
		assert_int_equal(record.lsn, min_u64(limit, 8));
	}
	assert_int_equal(store_find(rig->store, 0, 4, 3, &record), -ENOENT);
	/* A record that was folded is found, and read, in its new place; an older one is stale. */
	const uint8_t *shard;
	struct record four = rig_record_of(rig, 4), three = rig_record_of(rig, 3);
	assert_int_equal(rig_read(rig, &four, &shard), 0);
	assert_int_equal(rig_read(rig, &three, &shard), -ESTALE);
	/* The fold point of a fold that a crash broke off: the image may be ahead of its headers.
	 */
	rig->group.fold_point = 6;
	rig_write_group(rig);
	rig_settle(rig);
	assert_int_equal(store_find(rig->store, 0, 3, 4, &record), -ESTALE);
	assert_int_equal(store_find(rig->store, 0, 3, 5, &record), 0);
	rig_free(rig);
}

/* A fold of a store that has not heard of the point records it first. */
static void test_fold_records_point(void **state)
{
	struct rig *rig = rig_fresh(13);

	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
	rig_settle(rig);
	store_fold(rig->store, 5, &rig->fx);
	assert_true(store_folding(rig->store));
	rig_settle(rig);
	assert_int_equal(rig->folded, 1);
	assert_int_equal(store_image_point(rig->store), 5);
	assert_int_equal(store_group_of(rig->store)->fold_point, 5);
	/* To where it is already: told all the same. */
	store_fold(rig->store, 5, &rig->fx);
	rig_settle(rig);
	assert_int_equal(rig->folded, 2);
	rig_free(rig);
}

/* A record at or below the point that comes while the fold is under way is folded too. */
static void test_fold_late_record(void **state)
{
	for (unsigned completions = 0; completions < 40; completions++) {
		struct rig *rig = rig_fresh(completions);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
		/* Drawn, but not here yet; of a block with an older version and of one without. */
		rig->lsn++;
		rig->record[9] = (struct rig_record){.kind = RECORD_DATA, .block = 2};
		rig_settle(rig);
		store_fold(rig->store, 9, &rig->fx);
		for (unsigned i = 0; i < completions; i++) {
			rig_turn(rig);
			fake_disk_complete(&rig->disk, &rig->fx);
		}
		if (store_image_point(rig->store) < 9)
			assert_int_equal(rig_append_lsn(rig, 9), 0);
		rig_turn(rig);
		bool in_time = store_image_point(rig->store) < 9;
		rig_settle(rig);
		if (in_time && rig->record[9].done && rig->folded == 1) {
			struct record record;
			assert_int_equal(store_find(rig->store, 0, 2, 9, &record), 0);
			if (record.lsn != 9 && record.lsn != 3)
				fail_msg("completions %u: lsn %llu", completions,
					 (unsigned long long)record.lsn);
			const uint8_t *shard;
			assert_int_equal(rig_read(rig, &record, &shard), 0);
			if (completions < 4)
				assert_int_equal(record.lsn, 9);
		}
		rig_free(rig);
	}
}

/* ---- whose is it? ---- */

static void test_incarnation(void **state)
{
	struct rig *rig = rig_fresh(18);
	uint8_t copy[STORE_SUPERBLOCK_BYTES];

	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
	rig_settle(rig);
	const struct uuid id = *store_id(rig->store);
	rig_crash(rig);
	store_superblock_encode(&rig->group, &id, 1, 8, SEGMENT_BYTES, SEGMENT_COUNT, 99, copy);
	fake_disk_poke(&rig->disk, RIG_SUPERBLOCK, 0, copy, sizeof copy);
	rig_open(rig);
	assert_int_equal(rig->opened_result, 0);
	assert_int_equal(store_incarnation(rig->store), 8);
	assert_int_equal(store_held(rig->store)->count, 0);
	assert_int_equal(store_damage_count(rig->store), 0);
	rig_free(rig);
}

static void test_swapped_slots(void **state)
{
	struct rig *rig = rig_fresh(19);
	struct record record;

	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(rig_append(rig, RECORD_ZERO, i % 2, i), 0);
	rig_settle(rig);
	rig_fold(rig, 10);
	rig_crash(rig);
	fake_disk_poke(&rig->disk, RIG_SLOTS, 0, rig->disk.file[RIG_SLOTS + 1].cached,
		       2 * PAGE_BYTES);
	rig_reopen(rig);
	/* The other volume's page does not pass. The formatted copy of it does and holds nothing,
	 * and is not believed: there was something else beside it. */
	assert_int_equal(store_damage_count(rig->store), 1);
	assert_int_equal(store_find(rig->store, 0, 1, 10, &record), -EBADMSG);
	assert_int_equal(store_find(rig->store, 1, 1, 10, &record), 0);
	rig_free(rig);
}

/* ---- holes, and their repair ---- */

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

static void repair_begin(struct rig *rig, struct repair *repair, lsn_t lsn, uint8_t *shard)
{
	*repair = (struct repair){
		.write = {.record = rig_record_of(rig, lsn), .shard = shard, .done = repaired}};
	rig_shard(shard, repair->write.record.shard_bytes, lsn);
	store_write_slot(rig->store, &repair->write, &rig->fx);
}

static void test_hole_and_repair(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[RIG_SHARD_BYTES_MAX];
	struct rig *rig = rig_fresh(14);
	struct record record;
	struct repair repair;
	const uint8_t *read;
	uint64_t offset;

	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
		rig_settle(rig);
	}
	rig_batch_at(rig, 3, &offset);
	rig_flip(rig, RIG_JOURNAL, offset + PAGE_BYTES + 77);
	record = rig_record_of(rig, 4);
	assert_int_equal(rig_read(rig, &record, &read), -EBADMSG);
	assert_int_equal(store_damage_count(rig->store), 1);
	rig_fold(rig, 6);
	assert_int_equal(store_damage_count(rig->store), 1);
	assert_int_equal(store_image_point(rig->store), 6);
	assert_int_equal(store_find(rig->store, 0, 3, 6, &record), -EBADMSG);
	assert_int_equal(store_find(rig->store, 0, 2, 6, &record), 0);
	rig_crash(rig);
	rig_reopen(rig);
	assert_int_equal(store_find(rig->store, 0, 3, 6, &record), -EBADMSG);
	repair_begin(rig, &repair, 4, shard);
	assert_int_equal(repair.told, 0);
	rig_settle(rig);
	assert_int_equal(repair.told, 1);
	assert_int_equal(repair.result, 0);
	rig_check(rig, UINT64_MAX);
	rig_crash(rig);
	rig_reopen(rig);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* The space that an image was made with stays its own: what was discarded, by a fold or on a peer's
 * word, can be written again on a disk that is full. */
static void test_discards_keep_space(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[RIG_SHARD_BYTES_MAX];
	struct rig *rig = rig_fresh(18);
	struct repair repair;

	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
	for (unsigned i = 3; i < 9; i++)
		assert_int_equal(rig_append(rig, RECORD_DISCARD, 0, i), 0);
	rig_settle(rig);
	rig_fold(rig, rig->lsn);
	repair_begin(rig, &repair, 15, shard);
	rig_settle(rig);
	assert_int_equal(repair.result, 0);
	assert_int_equal(rig->disk.count[IO_DISCARD], 0);
	rig_check(rig, UINT64_MAX);
	rig_crash(rig);
	rig_reopen(rig);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* Where the journal has the shard of this lsn: the one place that names it. */
static uint64_t shard_place(const struct rig *rig, lsn_t lsn, uint32_t *segment)
{
	const uint8_t *journal = rig->disk.file[RIG_JOURNAL].cached;

	for (uint64_t at = 0; at < SEGMENT_COUNT * SEGMENT_BYTES; at += PAGE_BYTES) {
		const struct disk_batch *batch = (const void *)(journal + at);
		const struct disk_record *record = (const void *)(batch + 1);
		if (batch->magic != BATCH_MAGIC || record->lsn != lsn)
			continue;
		*segment = batch->segment;
		return at + batch->header_bytes;
	}
	fail_msg("lsn %llu is not in the journal", (unsigned long long)lsn);
	return 0;
}

/* A record whose shard was damaged is appended again. After a restart that one counts, wherever in
 * the ring of segments it is. */
static void test_appended_again(void **state)
{
	struct rig *rig = rig_fresh(15);
	const uint8_t *read;
	uint32_t segment;

	for (unsigned i = 0; i < 52; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
		rig_settle(rig);
		if (i == 36)
			rig_fold(rig, 24);
	}
	struct record again = rig_record_of(rig, 46);
	rig_flip(rig, RIG_JOURNAL, shard_place(rig, 46, &segment) + 77);
	assert_int_equal(segment, 5);
	shard_place(rig, 52, &segment);
	assert_int_equal(segment, 0);
	assert_int_equal(rig_read(rig, &again, &read), -EBADMSG);
	assert_int_equal(rig_append_lsn(rig, 46), 0);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, &again, &read), 0);
	rig_crash(rig);
	rig_reopen(rig);
	assert_int_equal(rig_read(rig, &again, &read), 0);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* No room for shards, then for slot pages: the same operations are tried again until there is. A
 * sync that fails says more than that: it is never tried again. */
static void test_no_room(void **state)
{
	static const struct {
		int number, kind, file;
		int32_t result;
		bool stays;
	} rows[] = {
		{1, IO_WRITE, RIG_IMAGE, -ENOSPC, true},
		{2, IO_WRITE, RIG_IMAGE, -EDQUOT, true},
		{3, IO_WRITE, RIG_SLOTS, -ENOSPC, true},
		{4, IO_WRITE, RIG_IMAGE, -EIO, false},
		{5, IO_SYNC, RIG_IMAGE, -ENOSPC, false},
		{6, IO_SYNC, RIG_SLOTS, -EDQUOT, false},
		{7, IO_WRITE_DURABLE, RIG_SUPERBLOCK, -ENOSPC, false},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_fresh(21);
		for (unsigned n = 0; n < 30; n++) {
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, (n * 7) % 96), 0);
			rig_settle(rig);
		}
		rig->group.fold_point = 30;
		rig_write_group(rig);
		rig_settle(rig);
		rig->disk.fault = (struct fake_fault){.kind = rows[i].kind,
						      .result = rows[i].result,
						      .times = 3,
						      .file = rows[i].file};
		store_fold(rig->store, 30, &rig->fx);
		rig_settle(rig);
		assert_int_equal(rig->out, !rows[i].stays);
		assert_int_equal(store_wants_room(rig->store), rows[i].stays);
		assert_int_equal(rig->folded, 0);
		for (unsigned second = 0; second < 5; second++) {
			rig->fx.now += NS_PER_S;
			rig_settle(rig);
		}
		assert_int_equal(rig->folded, rows[i].stays);
		assert_false(store_wants_room(rig->store));
		assert_true(rows[i].stays || store_idle(rig->store));
		if (rows[i].stays)
			rig_check(rig, UINT64_MAX);
		rig->disk.fault.times = 0;
		rig_crash(rig);
		rig_reopen(rig);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

static const struct slot_damage {
	int number;
	bool flip[2]; /* copies of page 0 of volume 0 */
	uint64_t damage;
	int expected; /* find */
} slot_damages[] = {
	{1, {false, false}, 0, 0},
	{2, {true, false}, 1, 0}, /* the copy of before the fold */
	{3, {true, true}, 1, -EBADMSG},
};

static void test_slot_damage(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[RIG_SHARD_BYTES_MAX];

	for (unsigned i = 0; i < ARRAY_COUNT(slot_damages); i++) {
		const struct slot_damage *row = &slot_damages[i];
		struct rig *rig = rig_fresh(15);
		struct record record;
		for (unsigned n = 0; n < 6; n++)
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, n), 0);
		rig_settle(rig);
		rig_fold(rig, 6);
		rig_crash(rig);
		for (unsigned copy = 0; copy < 2; copy++)
			if (row->flip[copy])
				rig_flip(rig, RIG_SLOTS, copy * PAGE_BYTES + 1000);
		rig_reopen(rig);
		assert_int_equal(store_damage_count(rig->store), row->damage);
		for (unsigned n = 0; n < 6; n++)
			assert_int_equal(store_find(rig->store, 0, n, 6, &record), row->expected);
		assert_int_equal(store_find(rig->store, 0, SLOTS_PER_PAGE, 6, &record), -ENOENT);
		if (row->expected) {
			/* Peers say what each block was; never written is an answer too. */
			struct repair repair[SLOTS_PER_PAGE];
			uint8_t *shards = aligned_alloc(PAGE_BYTES, 6 * RIG_SHARD_BYTES_MAX);
			for (unsigned n = 0; n < SLOTS_PER_PAGE; n++) {
				if (n < 6) {
					repair_begin(rig, &repair[n], n + 1,
						     shards + (size_t)n * RIG_SHARD_BYTES_MAX);
					continue;
				}
				repair[n] = (struct repair){
					.write = {.record = {.volume = rig->group.volume[0].id,
							     .block = n},
						  .shard = shard,
						  .done = repaired}};
				store_write_slot(rig->store, &repair[n].write, &rig->fx);
			}
			rig_settle(rig);
			for (unsigned n = 0; n < SLOTS_PER_PAGE; n++)
				assert_int_equal(repair[n].told, 1);
			free(shards);
			rig_crash(rig);
			rig_reopen(rig);
		}
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

/* A store that joins: new records at once, the image from peers, then the point is set. */
static void test_rebuild(void **state)
{
	static _Alignas(PAGE_BYTES) uint8_t shard[20][RIG_SHARD_BYTES_MAX];
	struct rig *rig = rig_fresh(16);
	struct repair repair[20];

	for (lsn_t lsn = 1; lsn <= 20; lsn++)
		rig->record[lsn] =
			(struct rig_record){.kind = RECORD_DATA, .block = lsn, .appended = true};
	rig->lsn = 20;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, 3 * i), 0);
	for (unsigned i = 0; i < 20; i++) {
		repair_begin(rig, &repair[i], i + 1, shard[i]);
		rig_turn(rig);
		fake_disk_complete(&rig->disk, &rig->fx);
	}
	rig_settle(rig);
	assert_int_equal(store_image_point(rig->store), 0);
	store_set_image_point(rig->store, 20);
	assert_int_equal(rig_floor(rig), 25);
	rig_write_group(rig);
	rig_settle(rig);
	rig_check(rig, UINT64_MAX);
	rig_crash(rig);
	rig_reopen(rig);
	assert_int_equal(store_image_point(rig->store), 20);
	assert_int_equal(rig_floor(rig), 25);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* More holes between the lsns than the set of what is held has room for: once they are filled,
 * nothing is missing. */
static void test_many_holes(void **state)
{
	enum { LSNS = 11000 };
	struct rig *rig = rig_new(5, 4 * MIB, 12);
	rig_open(rig);
	for (unsigned turn = 0; turn < 2; turn++)
		for (lsn_t lsn = 2 - turn; lsn <= LSNS; lsn += 2) {
			rig->record[lsn] =
				(struct rig_record){.kind = RECORD_ZERO, .block = lsn % 90};
			while (rig_append_lsn(rig, lsn) == -EAGAIN)
				rig_settle(rig);
		}
	rig->lsn = LSNS;
	rig_settle(rig);
	assert_int_equal(rig_floor(rig), LSNS);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_voided_tail),	 cmocka_unit_test(test_void_max),
		cmocka_unit_test(test_limits),		 cmocka_unit_test(test_fold_records_point),
		cmocka_unit_test(test_fold_late_record), cmocka_unit_test(test_incarnation),
		cmocka_unit_test(test_swapped_slots),	 cmocka_unit_test(test_hole_and_repair),
		cmocka_unit_test(test_slot_damage),	 cmocka_unit_test(test_rebuild),
		cmocka_unit_test(test_many_holes),	 cmocka_unit_test(test_discards_keep_space),
		cmocka_unit_test(test_appended_again),	 cmocka_unit_test(test_no_room),
	};

	return cmocka_run_group_tests_name("store_fold", tests, NULL, NULL);
}
