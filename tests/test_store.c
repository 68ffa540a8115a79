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

/* ---- formats ---- */

static void volumes_are_equal(const struct store_volume *a, const struct store_volume *b)
{
	assert_memory_equal(a->name, b->name, sizeof a->name);
	assert_true(uuid_equal(&a->id, &b->id));
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->block_bytes, b->block_bytes);
	assert_memory_equal(a->wrapped_key, b->wrapped_key, sizeof a->wrapped_key);
	assert_memory_equal(a->key_check, b->key_check, sizeof a->key_check);
}

static void spans_are_equal(const struct span *a, const struct span *b)
{
	assert_true(uuid_equal(&a->id, &b->id));
	assert_int_equal(a->generation, b->generation);
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->first, b->first);
	assert_true(uuid_equal(&a->parent, &b->parent));
	assert_int_equal(a->parent_last, b->parent_last);
}

/* Field by field: what is between them is nobody's. */
static void groups_are_equal(const struct store_group *a, const struct store_group *b)
{
	assert_memory_equal(a->name, b->name, sizeof a->name);
	assert_true(uuid_equal(&a->set, &b->set));
	assert_int_equal(a->geometry.k, b->geometry.k);
	assert_int_equal(a->geometry.m, b->geometry.m);
	assert_int_equal(a->quorum, b->quorum);
	assert_int_equal(a->volume_count, b->volume_count);
	for (unsigned i = 0; i < VOLUMES_PER_GROUP_MAX; i++)
		volumes_are_equal(&a->volume[i], &b->volume[i]);
	assert_int_equal(a->generation, b->generation);
	assert_int_equal(a->fold_point, b->fold_point);
	assert_int_equal(a->promoted, b->promoted);
	assert_int_equal(a->powered_ns, b->powered_ns);
	assert_memory_equal(a->incarnation, b->incarnation, sizeof a->incarnation);
	assert_int_equal(a->out, b->out);
	assert_int_equal(a->spans.count, b->spans.count);
	for (unsigned i = 0; i < SPANS_MAX; i++)
		spans_are_equal(&a->spans.span[i], &b->spans.span[i]);
}

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
	groups_are_equal(&read, &rig->group);
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
	rig_reopen(rig);
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

	rig_reopen(rig);
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
		rig_reopen(rig);
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
		rig_reopen(rig);
		for (unsigned batch = 0; batch < 8; batch++) {
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, batch), 0);
			assert_int_equal(rig_append(rig, RECORD_DATA, 0, 50 + batch), 0);
			rig_settle(rig);
		}
		assert_int_equal(rig_batch_at(rig, 7, &offset)->synced, 7);
		rig_crash(rig);
		rig_batch_at(rig, row->batch, &offset);
		rig_flip(rig, RIG_JOURNAL, offset + row->offset);
		rig_reopen(rig);
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
	rig_batch_at(rig, 2, &offset);
	rig_flip(rig, RIG_JOURNAL, offset + BATCH_HEADER_BYTES + 10);
	for (unsigned i = 0; i < 4; i++) {
		rig_reopen(rig);
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
		memcpy(&batch, rig_batch_at(rig, i, &offset), sizeof batch);
		batch.store.bytes[0] ^= 1;
		batch.crc = crc32c(&batch, offsetof(struct disk_batch, crc));
		fake_disk_poke(&other->disk, RIG_JOURNAL, offset,
			       rig->disk.file[RIG_JOURNAL].cached + offset, 2 * PAGE_BYTES);
		fake_disk_poke(&other->disk, RIG_JOURNAL, offset, &batch, sizeof batch);
	}
	rig_crash(other);
	rig_reopen(other);
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
			rig_reopen(rig);
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
	rig_reopen(rig);
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
	rig_reopen(rig);
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

	rig_reopen(rig);
	uint64_t reads = rig->disk.count[IO_READ];
	assert_true(reads < 4 * 4 + 4);
	for (unsigned i = 0; i < 100; i++)
		while (rig_append(rig, RECORD_DATA, 1, i % 50) == -EAGAIN)
			rig_settle(rig);
	rig_settle(rig);
	rig_crash(rig);
	uint64_t offset;
	rig_batch_at(rig, 0, &offset);
	static const uint8_t zeros[PAGE_BYTES];
	fake_disk_poke(&rig->disk, RIG_JOURNAL, 0, zeros, sizeof zeros);
	rig_reopen(rig);
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
		rig_reopen(rig);
		while (rig->lsn < 800)
			if (rig_append(rig, RECORD_DATA, 1, rig->lsn % 50) == -EAGAIN)
				rig_settle(rig);
		rig_settle(rig);
		rig_crash(rig);
		memset(content, rows[i].content, sizeof content);
		fake_disk_poke(&rig->disk, RIG_JOURNAL, 0, content, rows[i].bytes);
		rig_reopen(rig);
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
		rig_reopen(rig);
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
	rig_reopen(rig);
	assert_int_equal(store_group_of(rig->store)->powered_ns, 104);
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
		cmocka_unit_test(test_room_alone),
		cmocka_unit_test(test_room_waits),
		cmocka_unit_test(test_long_damage),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
