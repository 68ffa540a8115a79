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
	uint32_t segment_count;
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
		if (!fake_disk_only_slow(&rig->disk) || fake_disk_random(&rig->disk) % 16 == 0)
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
	struct rig *rig = rig_new(seed, SEGMENT_BYTES, rates.segment_count);

	reopen(rig);
	for (unsigned life = 0; life < 6; life++) {
		uint64_t steps = fake_disk_random(&rig->disk) % rates.steps;
		rig->disk.slow_file = (int)(fake_disk_random(&rig->disk) % 8) - 1;
		for (uint64_t i = 0; i < steps; i++)
			crash_step(rig, rates);
		rig->disk.slow_file = -1;
		if (fake_disk_random(&rig->disk) % 3 == 0)
			rig_kill(rig);
		else
			rig_crash(rig);
		reopen(rig);
		if (store_damage_count(rig->store))
			fail_msg("seed %llu life %u: a crash alone counts as damage",
				 (unsigned long long)seed, life);
		rig_promise(rig);
		rig_check(rig, UINT64_MAX);
		rig_check(rig, fake_disk_random(&rig->disk) % (rig->lsn + 2));
		/* Now and then the next crash comes at once. */
		if (fake_disk_random(&rig->disk) % 3)
			refill(rig);
	}
	rig_check(rig, UINT64_MAX);
	assert_int_equal(rig->out, 0);
	assert_int_equal(rig->done_errors, 0);
	rig_free(rig);
}

static void test_crashes(void **state)
{
	static const struct crash_rates rates[] = {
		{60, 0, 6}, {120, 10, 6}, {400, 25, 6}, {300, 30, 3}, {400, 40, 2}};
	const char *one = getenv("STORE_SEED"), *many = getenv("STORE_SEEDS");
	uint64_t seeds = one ? strtoull(one, NULL, 0) : many ? strtoull(many, NULL, 0) : 400;

	for (uint64_t seed = one ? seeds : 1; seed <= seeds; seed++) {
		seed_now = seed;
		crash_life(seed, rates[seed % ARRAY_COUNT(rates)]);
	}
	seed_now = 0;
}

/* ---- damage ---- */

/* Where the n-th batch of segment 0 begins; each was written alone. */
static const struct disk_batch *batch_at(const struct rig *rig, unsigned number, uint64_t *offset)
{
	const uint8_t *journal = rig->disk.file[RIG_JOURNAL].cached;
	const struct disk_batch *batch = (const void *)journal;

	for (*offset = 0; number > 0; number--) {
		*offset += batch->header_bytes + batch->payload_bytes;
		batch = (const void *)(journal + *offset);
		assert_int_equal(batch->magic, BATCH_MAGIC);
	}
	return batch;
}

static void flip(struct rig *rig, unsigned file, uint64_t at)
{
	uint8_t byte = rig->disk.file[file].cached[at] ^ 0x40;

	fake_disk_poke(&rig->disk, file, at, &byte, 1);
}

/* Eight batches of two records (lsns 1-2, 3-4, ...) in segment 0, one by one, then one bit flips.
 * The synced mark in the last batch is 7: of batches 1 to 7 all was promised. */
static const struct flipping {
	int number;
	unsigned batch;	 /* counting from 0 */
	uint64_t offset; /* in it */
	uint64_t damage;
	lsn_t lost[2]; /* lsns not held */
} flippings[] = {
	{1, 2, 100, 1, {5, 6}},			   /* batch header */
	{2, 0, 0, 1, {1, 2}},			   /* the magic of the first */
	{3, 2, BATCH_HEADER_BYTES + 100, 1, {5}},  /* first record header */
	{4, 6, BATCH_HEADER_BYTES + 300, 1, {14}}, /* second record header */
	{5, 2, PAGE_BYTES + 5000, 0, {0}},	   /* a shard: found when it is read */
	{6, 7, 100, 0, {15, 16}},		   /* above the mark: torn */
	{7, 7, BATCH_HEADER_BYTES + 10, 0, {15}},  /* same */
	{8, 7, PAGE_BYTES + 5000, 0, {16}},	   /* same: shards above the mark are read */
	{9, 3, BATCH_HEADER_BYTES + 2000, 0, {0}}, /* padding between headers and shards */
};

static void test_damage(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(flippings); i++) {
		const struct flipping *row = &flippings[i];
		struct rig *rig = rig_new(i, 2 * SEGMENT_BYTES, 3);
		uint64_t offset;
		reopen(rig);
		for (unsigned batch = 0; batch < 8; batch++) {
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, batch), 0);
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, 50 + batch), 0);
			rig_settle(rig);
		}
		assert_int_equal(batch_at(rig, 7, &offset)->synced, 7);
		rig_crash(rig);
		batch_at(rig, row->batch, &offset);
		flip(rig, RIG_JOURNAL, offset + row->offset);
		reopen(rig);
		if (store_damage_count(rig->store) != row->damage)
			fail_msg("row %d: damage %llu", row->number,
				 (unsigned long long)store_damage_count(rig->store));
		for (lsn_t lsn = 1; lsn <= 16; lsn++) {
			bool lost = lsn == row->lost[0] || lsn == row->lost[1];
			if (ranges_contains(store_held(rig->store), lsn) == lost)
				fail_msg("row %d: lsn %llu", row->number, (unsigned long long)lsn);
		}
		rig_free(rig);
	}
}

/* What one start left torn stays torn for the next ones: it never turns into damage. */
static void test_torn_stays_torn(void **state)
{
	struct rig *rig = rig_fresh(3);
	uint64_t offset;

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
		rig_settle(rig);
	}
	rig_crash(rig);
	batch_at(rig, 2, &offset);
	flip(rig, RIG_JOURNAL, offset + BATCH_HEADER_BYTES + 10);
	for (unsigned i = 0; i < 4; i++) {
		reopen(rig);
		assert_int_equal(store_damage_count(rig->store), 0);
		assert_false(ranges_contains(store_held(rig->store), 3));
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, 10 + i), 0);
		rig_settle(rig);
		rig_crash(rig);
	}
	rig_free(rig);
}

static void test_foreign_journal(void **state)
{
	struct rig *rig = rig_fresh(4), *other = rig_fresh(4);
	struct disk_batch batch;
	uint64_t offset;

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, i), 0);
		rig_settle(rig);
	}
	/* The same records in the journal of another store: same set, another id. */
	for (unsigned i = 0; i < 4; i++) {
		memcpy(&batch, batch_at(rig, i, &offset), sizeof batch);
		batch.store.bytes[0] ^= 1;
		batch.crc = crc32c(&batch, offsetof(struct disk_batch, crc));
		fake_disk_poke(&other->disk, RIG_JOURNAL, offset,
			       rig->disk.file[RIG_JOURNAL].cached + offset, 2 * PAGE_BYTES);
		fake_disk_poke(&other->disk, RIG_JOURNAL, offset, &batch, sizeof batch);
	}
	rig_crash(other);
	reopen(other);
	assert_int_equal(store_held(other->store)->count, 0);
	assert_int_equal(store_damage_count(other->store), 4);
	rig_free(other);
	rig_free(rig);
}

/* ---- room ---- */

static void test_room(void **state)
{
	struct rig *rig = rig_fresh(5);
	unsigned rounds = 0;

	/* Through the ring many times: full, folded, full again. */
	for (; rounds < 12; rounds++) {
		int err = 0;
		int before = rig->done_count;
		lsn_t lsn = rig->lsn;
		while (!err || err == -EAGAIN) {
			if (err)
				rig_settle(rig);
			err = rig_append(rig, RECORD_DATA, rig->lsn % 2, rig->lsn % 47);
		}
		assert_int_equal(err, -ENOSPC);
		/* All that was taken is written, and the reserve is still free. */
		rig_settle(rig);
		assert_int_equal(rig->done_count - before, rig->lsn - lsn);
		assert_int_equal(rig->done_errors, 0);
		assert_true(store_journal_bytes_total(rig->store) -
				    store_journal_bytes_used(rig->store) >=
			    SEGMENT_BYTES);
		assert_true(rig->lsn - lsn >= (SEGMENT_COUNT - 2) * 5);
		if (rounds % 3 == 2) {
			rig_crash(rig);
			reopen(rig);
			assert_int_equal(store_damage_count(rig->store), 0);
		}
		rig_fold(rig, rig->lsn);
		assert_int_equal(store_image_point(rig->store), rig->lsn);
		assert_int_equal(store_journal_bytes_used(rig->store), 0);
		rig_check(rig, UINT64_MAX);
	}
	assert_int_equal(rig->folded, rounds);
	rig_free(rig);
}

/* A segment is taken again only when the superblock that frees it is durable. */
static void test_room_waits(void **state)
{
	struct rig *rig = rig_fresh(21);
	uint64_t superblocks = 0;

	rig->disk.in_order = true;
	while (rig_append(rig, RECORD_DATA, 1, rig->lsn % 47) == 0)
		rig_settle(rig);
	rig->group.fold_point = rig->lsn;
	rig_write_group(rig);
	rig_settle(rig);
	superblocks = rig->disk.count[IO_WRITE_DURABLE];
	store_fold(rig->store, rig->lsn, &rig->fx);
	lsn_t before = rig->lsn;
	do {
		rig_turn(rig);
		while (rig_append(rig, RECORD_DATA, 1, 1) == 0)
			;
		assert_true(fake_disk_complete(&rig->disk, &rig->fx));
	} while (rig->disk.count[IO_WRITE_DURABLE] == superblocks);
	/* Five to a segment: the reserve takes no more. */
	assert_true(rig->lsn - before <= 5);
	assert_int_equal(rig->folded, 1);
	assert_int_equal(rig_append(rig, RECORD_DATA, 1, 1), 0);
	rig_settle(rig);
	rig_free(rig);
}

/* The tightest case: each record in a batch of its own, so that nothing is saved on headers. */
static void test_room_alone(void **state)
{
	struct rig *rig = rig_fresh(20);

	while (rig_append(rig, RECORD_DATA, 1, rig->lsn % 47) == 0)
		rig_settle(rig);
	/* 12 KiB each: five to a segment, and 4 KiB lost. One segment is in reserve; of the rest
	 * each gives up the room of a shard that might not fit. */
	assert_int_equal(rig->lsn, (SEGMENT_COUNT - 1) * 5 - 1);
	assert_int_equal(store_journal_bytes_used(rig->store),
			 (SEGMENT_COUNT - 2) * SEGMENT_BYTES + 4 * 12288);
	rig_crash(rig);
	/* Full, and started again: the reserve takes what was torn. */
	reopen(rig);
	assert_int_equal(rig_append(rig, RECORD_DATA, 1, 1), 0);
	rig_settle(rig);
	rig_fold(rig, rig->lsn);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

/* Records without payload are bounded by the table, not by bytes. */
static void test_room_for_records(void **state)
{
	struct rig *rig = rig_fresh(6);
	int err = 0;

	while (!err || err == -EAGAIN) {
		if (err)
			rig_settle(rig);
		err = rig_append(rig, RECORD_DISCARD, 0, rig->lsn % 96);
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(rig->lsn, SEGMENT_BYTES * SEGMENT_COUNT / PAGE_BYTES);
	rig_settle(rig);
	rig_crash(rig);
	reopen(rig);
	assert_int_equal(rig_floor(rig), rig->lsn);
	rig_fold(rig, rig->lsn);
	rig_check(rig, UINT64_MAX);
	assert_int_equal(rig_append(rig, RECORD_DATA, 0, 1), 0);
	rig_settle(rig);
	rig_free(rig);
}

/* The first good batch may be behind torn ones; free segments are not read to their end. */
static void test_long_segments(void **state)
{
	struct rig *rig = rig_new(7, 16 * MIB, 4);

	reopen(rig);
	uint64_t reads = rig->disk.count[IO_READ];
	assert_true(reads < 4 * 4 + 4);
	for (unsigned i = 0; i < 100; i++)
		while (rig_append(rig, RECORD_DATA, 1, i % 50) == -EAGAIN)
			rig_settle(rig);
	rig_settle(rig);
	rig_crash(rig);
	uint64_t offset;
	batch_at(rig, 0, &offset);
	static const uint8_t zeros[PAGE_BYTES];
	fake_disk_poke(&rig->disk, RIG_JOURNAL, 0, zeros, sizeof zeros);
	reopen(rig);
	assert_true(store_held(rig->store)->count >= 1);
	assert_true(ranges_contains(store_held(rig->store), 100));
	assert_int_equal(store_damage_count(rig->store), 1);
	rig_free(rig);
}

/* The first megabytes of a segment are lost: with garbage in their place the rest is still found;
 * with zeros too, as long as it may be what a crash has left. */
static void test_long_damage(void **state)
{
	static const struct {
		int number;
		uint8_t content;
		uint64_t bytes;
	} rows[] = {{1, 0xff, 5 * MIB}, {2, 0, 3 * MIB}, {3, 0, 64 * KIB}};
	static uint8_t content[5 * MIB];

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_new(i, 16 * MIB, 3);
		reopen(rig);
		while (rig->lsn < 800)
			if (rig_append(rig, RECORD_DATA, 1, rig->lsn % 50) == -EAGAIN)
				rig_settle(rig);
		rig_settle(rig);
		rig_crash(rig);
		memset(content, rows[i].content, sizeof content);
		fake_disk_poke(&rig->disk, RIG_JOURNAL, 0, content, rows[i].bytes);
		reopen(rig);
		lsn_t lost = rows[i].bytes / (PAGE_BYTES / 4 + 8192) + 64;
		for (lsn_t lsn = lost; lsn <= 800; lsn++)
			if (!ranges_contains(store_held(rig->store), lsn))
				fail_msg("row %d: lsn %llu", rows[i].number,
					 (unsigned long long)lsn);
		assert_true(store_damage_count(rig->store) > 0);
		rig_free(rig);
	}
}

/* ---- the disk fails ---- */

static const struct failing {
	int number;
	struct fake_fault fault;
	int expected; /* told to out() */
} failings[] = {
	{1, {IO_WRITE_DURABLE, 0, -EIO, 1, RIG_JOURNAL}, -EIO},
	{2, {IO_WRITE_DURABLE, 2, -EIO, 1, RIG_JOURNAL}, -EIO},
	{3, {IO_WRITE_DURABLE, 1, -ENOSPC, 9, RIG_JOURNAL}, -ENOSPC},
	{4, {IO_WRITE_DURABLE, 0, 4096, 1, RIG_JOURNAL}, -EIO}, /* short */
	{5, {IO_WRITE_DURABLE, 0, -EROFS, 1, RIG_SUPERBLOCK}, -EROFS},
	{6, {IO_WRITE, 0, -EIO, 1, RIG_IMAGE}, -EIO},
	{7, {IO_SYNC, 0, -EIO, 1, RIG_IMAGE}, -EIO},
	{8, {IO_WRITE, 0, -EIO, 1, RIG_SLOTS}, -EIO},
	{9, {IO_SYNC, 0, -EIO, 1, RIG_SLOTS}, -EIO},
	{10, {IO_WRITE_DURABLE, 1, -EIO, 1, RIG_SUPERBLOCK}, -EIO}, /* at the end of the fold */
};

static void test_failing(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(failings); i++) {
		const struct failing *row = &failings[i];
		struct rig *rig = rig_fresh(i);
		rig->disk.fault = row->fault;
		rig->disk.in_order = true;
		for (unsigned n = 0; n < 20; n++) {
			rig_append(rig, RECORD_DATA, 0, n);
			if (n % 4 == 0)
				rig_turn(rig);
		}
		rig_settle(rig);
		rig->group.fold_point = rig_floor(rig);
		rig_write_group(rig);
		rig_settle(rig);
		store_fold(rig->store, rig->group.fold_point, &rig->fx);
		rig_settle(rig);
		if (rig->out != 1 || rig->out_err != row->expected)
			fail_msg("row %d: out told %d times, %d", row->number, rig->out,
				 rig->out_err);
		assert_int_equal(store_state_of(rig->store), STORE_OUT);
		assert_false(rig->group_writing);
		assert_int_equal(rig->folded, 0);
		for (unsigned n = 0; n < RIG_ITEMS_MAX; n++)
			assert_false(rig->item[n].busy);
		/* Nothing more is tried, and nothing more is taken. */
		uint64_t writes = rig->disk.count[IO_WRITE_DURABLE],
			 syncs = rig->disk.count[IO_SYNC];
		assert_int_equal(rig_append(rig, RECORD_DATA, 0, 1), -EIO);
		rig_write_group(rig);
		rig_settle(rig);
		assert_false(rig->group_writing);
		assert_int_equal(rig->disk.count[IO_WRITE_DURABLE], writes);
		assert_int_equal(rig->disk.count[IO_SYNC], syncs);
		/* What was told durable is there at the next start. */
		rig_crash(rig);
		reopen(rig);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

static void test_failed_opening(void **state)
{
	struct rig *rig = rig_new(8, SEGMENT_BYTES, SEGMENT_COUNT);

	rig->disk.fault = (struct fake_fault){IO_SYNC, 0, -EIO, 1, RIG_JOURNAL};
	rig_open(rig);
	assert_int_equal(rig->opened_result, -EIO);
	assert_int_equal(rig->out, 0);
	assert_int_equal(store_state_of(rig->store), STORE_OUT);
	assert_int_equal(rig->disk.count[IO_READ], 0);
	rig_free(rig);
}

static void test_abandon(void **state)
{
	struct rig *rig = rig_fresh(9);

	assert_int_equal(rig_append(rig, RECORD_DATA, 0, 1), 0);
	rig_turn(rig);
	assert_int_equal(rig_append(rig, RECORD_DATA, 0, 2), 0);
	store_abandon(rig->store);
	rig_write_group(rig);
	rig_settle(rig);
	assert_int_equal(rig->done_errors, 2);
	assert_false(rig->group_writing);
	assert_int_equal(rig->out, 0);
	assert_int_equal(rig->disk.count[IO_WRITE_DURABLE], 1);
	rig_free(rig);
}

static int told;

static void count_told(struct store_superblock_write *write, int result, struct effects *fx)
{
	assert_int_equal(result, 0);
	assert_true(store_group_of(write->store)->powered_ns >= 100);
	told++;
}

/* Many ask while one write is in flight: one more write tells them all. */
static void test_superblock_shared(void **state)
{
	struct rig *rig = rig_fresh(10);
	struct store_superblock_write write[5];
	struct store_group group = rig->group;

	told = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(write); i++) {
		group.powered_ns = 100 + i;
		write[i] = (struct store_superblock_write){.group = &group, .done = count_told};
		store_write_group(rig->store, &write[i], &rig->fx);
	}
	assert_int_equal(told, 0);
	rig_settle(rig);
	assert_int_equal(told, 5);
	assert_int_equal(rig->disk.count[IO_WRITE_DURABLE], 2);
	rig_crash(rig);
	reopen(rig);
	assert_int_equal(store_group_of(rig->store)->powered_ns, 104);
	rig_free(rig);
}

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
	reopen(rig);
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
	reopen(rig);
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
	reopen(rig);
	/* The other volume's page does not pass; the formatted copy of it holds nothing, and is
	 * told as damage. */
	assert_int_equal(store_damage_count(rig->store), 1);
	assert_int_equal(store_find(rig->store, 0, 1, 10, &record), -ENOENT);
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
	batch_at(rig, 3, &offset);
	flip(rig, RIG_JOURNAL, offset + PAGE_BYTES + 77);
	record = rig_record_of(rig, 4);
	assert_int_equal(rig_read(rig, &record, &read), -EBADMSG);
	assert_int_equal(store_damage_count(rig->store), 1);
	rig_fold(rig, 6);
	assert_int_equal(store_damage_count(rig->store), 1);
	assert_int_equal(store_image_point(rig->store), 6);
	assert_int_equal(store_find(rig->store, 0, 3, 6, &record), -EBADMSG);
	assert_int_equal(store_find(rig->store, 0, 2, 6, &record), 0);
	rig_crash(rig);
	reopen(rig);
	assert_int_equal(store_find(rig->store, 0, 3, 6, &record), -EBADMSG);
	repair_begin(rig, &repair, 4, shard);
	assert_int_equal(repair.told, 0);
	rig_settle(rig);
	assert_int_equal(repair.told, 1);
	assert_int_equal(repair.result, 0);
	rig_check(rig, UINT64_MAX);
	rig_crash(rig);
	reopen(rig);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
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
				flip(rig, RIG_SLOTS, copy * PAGE_BYTES + 1000);
		reopen(rig);
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
			reopen(rig);
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
	reopen(rig);
	assert_int_equal(store_image_point(rig->store), 20);
	assert_int_equal(rig_floor(rig), 25);
	rig_check(rig, UINT64_MAX);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock),
		cmocka_unit_test(test_opening),
		cmocka_unit_test(test_append_and_find),
		cmocka_unit_test_teardown(test_crashes, tell_seed),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_torn_stays_torn),
		cmocka_unit_test(test_foreign_journal),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_room_for_records),
		cmocka_unit_test(test_long_segments),
		cmocka_unit_test(test_failing),
		cmocka_unit_test(test_failed_opening),
		cmocka_unit_test(test_abandon),
		cmocka_unit_test(test_superblock_shared),
		cmocka_unit_test(test_voided_tail),
		cmocka_unit_test(test_void_max),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_fold_late_record),
		cmocka_unit_test(test_incarnation),
		cmocka_unit_test(test_swapped_slots),
		cmocka_unit_test(test_room_alone),
		cmocka_unit_test(test_room_waits),
		cmocka_unit_test(test_long_damage),
		cmocka_unit_test(test_fold_records_point),
		cmocka_unit_test(test_hole_and_repair),
		cmocka_unit_test(test_slot_damage),
		cmocka_unit_test(test_rebuild),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
