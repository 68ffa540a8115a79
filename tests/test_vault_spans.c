/* SPDX-License-Identifier: Apache-2.0 */
/* The vault's table of spans over a long life: it never fills up, and nothing that a fold has yet
 * to bring to the image is forgotten with its span. */
#include "vault_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024 };
static const struct geometry four_two = {4, 2};

static void blocks_written(struct rig *rig, unsigned count)
{
	for (unsigned block = 0; block < count; block++)
		rig_write(rig, 0, block, RECORD_DATA, 0);
	rig_settle(rig);
}

/* A primary that is started again and again while little is written: each time a new span. */
static void test_many_spans(void **state)
{
	static const bool restarts[] = {false, true};
	for (unsigned row = 0; row < ARRAY_COUNT(restarts); row++) {
		struct rig *rig = rig_new(four_two, 5, 4 * SEGMENT);
		struct command command;
		rig_start(rig, ALL);
		for (unsigned i = 0; i < 3 * SPANS_MAX; i++) {
			rig_open_span(rig);
			rig_write(rig, 0, i % 40, RECORD_DATA, 0);
			rig_settle(rig);
			if (!restarts[row] || i % 16 != 3)
				continue;
			rig_stop(rig);
			rig_start(rig, ALL);
		}
		assert_int_equal(rig->vault->durable, rig->lsn);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

/* Takes the reads of a fold out of what the disks tell next; puts them back when asked to. */
static void fold_hold(struct rig *rig, struct io *held[], unsigned *held_count)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < rig->io_count; i++)
		if (rig->io[i]->kind == IO_READ)
			held[(*held_count)++] = rig->io[i];
		else
			rig->io[kept++] = rig->io[i];
	rig->io_count = kept;
}

/* A promotion while a fold brings the last of an older span, slowly. */
static void test_promote_in_fold(void **state)
{
	struct rig *rig = rig_new(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_PROMOTE};
	static struct io *held[RIG_IO_MAX];
	unsigned held_count = 0;
	rig_start(rig, ALL);
	rig_open_span(rig);
	for (unsigned block = 1; block < 48; block += 2) /* no neighbours: many short runs */
		rig_write(rig, 0, block, RECORD_DATA, 0);
	rig_settle(rig);
	rig_open_span(rig);
	while (!rig->vault->fold_version)
		rig_write(rig, 0, 0, RECORD_DATA, 0);
	memcpy(command.key, rig->key, sizeof rig->key);
	vault_command(rig->vault, &command, &rig->fx);
	for (unsigned i = 0; i < 40; i++) {
		rig_turn(rig);
		fold_hold(rig, held, &held_count);
	}
	assert_int_equal(rig->vault->state, VAULT_SERVING);
	assert_true(held_count > 0 && rig->vault->fold_version);
	memcpy(rig->io + rig->io_count, held, held_count * sizeof held[0]);
	rig->io_count += held_count;
	rig_settle(rig);
	assert_false(rig->vault->fold_version);
	assert_int_equal(rig_compare(rig), 0);
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

/* Catch-ups that never end leave records that are void; they do not fill the journals. */
static void test_void_records(void **state)
{
	struct rig *rig = rig_new(four_two, 5, SEGMENT);
	rig_start(rig, ALL);
	rig_open_span(rig);
	blocks_written(rig, 40);
	rig->catch_up = true;
	for (unsigned i = 0; i < 60; i++) {
		rig_open_span(rig);
		for (unsigned block = 0; block < 20; block++)
			rig_write(rig, 0, block, RECORD_DATA, 0);
		rig_settle(rig);
		if (rig->vault->durable != rig->lsn)
			fail_msg("catch-up %u: no room", i);
		assert_int_equal(rig->vault->consistent, 40);
		if (i % 7 != 3)
			continue;
		rig_stop(rig);
		rig_start(rig, ALL);
	}
	rig_free(rig);
}

/* Records of a catch-up that has ended: 40, then the catch-up, then some more in order. */
static lsn_t catch_up_ended(struct rig *rig)
{
	rig_open_span(rig);
	blocks_written(rig, 40);
	rig->catch_up = true;
	rig_open_span(rig);
	blocks_written(rig, 30);
	assert_int_equal(rig->vault->consistent, 40);
	rig_end_catch_up(rig);
	assert_int_equal(rig->vault->consistent, rig->lsn);
	lsn_t end = rig->lsn;
	rig_write(rig, 0, 40, RECORD_DATA, 0);
	rig_settle(rig);
	return end;
}

/* What a store lacks is read for it now and then only. */
static int reads_slowly(struct rig *rig, const struct io *io)
{
	bool reads = io->kind == IO_READ && rig->vault->state != VAULT_OPENING;
	return reads && rig->turns % 200 ? RIG_HANGS : 0;
}

/* A store that was away goes through the catch-up while all others have it: the fold waits for it
 * at the start of that, and goes on at its end. */
static void test_fold_past_catch_up(void **state)
{
	struct rig *rig = rig_new(four_two, 5, SEGMENT);
	unsigned inside = 0;
	rig->config.window_bytes = 1;
	rig_start(rig, ALL & ~0x20);
	lsn_t end = catch_up_ended(rig);
	rig_stop(rig);
	rig->fate = reads_slowly;
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	assert_true(rig->vault->meta.fold_point <= 40);
	rig_open_span(rig);
	for (unsigned i = 0; rig->vault->meta.fold_point < end; i++) {
		const struct vault *vault = rig->vault;
		lsn_t point = vault->meta.fold_point, floor = vault->store[5].floor;
		assert_true(i < 100000);
		if (rig->lsn + 1 < vault->base + vault->arriving_count)
			rig_write(rig, 0, i % 48, RECORD_DATA, 0);
		else
			rig_turn(rig);
		inside += floor > 40 && floor < end;
		assert_true(point <= 40 || point >= end);
	}
	assert_true(inside > 0);
	rig_free(rig);
}

/* Its records are lost on too many: what is left is the point before it, not a part of it. */
static void test_promote_with_half_a_catch_up(void **state)
{
	struct rig *rig = rig_new(four_two, 5, 4 * SEGMENT);
	struct command command;
	rig_start(rig, ALL);
	rig_open_span(rig);
	blocks_written(rig, 40);
	rig->catch_up = true;
	rig_open_span(rig);
	static uint8_t shards[RIG_STORES_MAX * BLOCK_BYTES_MAX];
	uint32_t bytes = rig_shard_bytes(rig, 0);
	for (unsigned block = 0; block < 30; block++) {
		rig_write(rig, 0, block, RECORD_DATA, 0);
		rig_settle(rig); /* in a batch of its own */
		if (block == 15)
			memcpy(shards, rig->shard, (size_t)RIG_STORES_MAX * bytes);
	}
	rig_end_catch_up(rig);
	rig_write(rig, 0, 40, RECORD_DATA, 0);
	rig_settle(rig);
	rig_stop(rig);
	for (unsigned store = 0; store < 3; store++)
		rig_damage_header(rig, store, shards + store * bytes, bytes);
	rig_start(rig, ALL);
	assert_int_equal(rig->vault->consistent, 40);
	assert_int_equal(rig_promote(rig, &command, false), -ENODATA);
	assert_int_equal(command.number[0], 40);
	assert_int_equal(rig_promote(rig, &command, true), 0);
	assert_int_equal(command.number[0], 40);
	rig_free(rig);
}

/* The first copy of a device with more in it than the journals hold: what cuts it short, and what
 * is left then. */
enum { UNCUT, VAULT_AGAIN, PRIMARY_AGAIN, BOTH_AGAIN, STORE_AWAY, CUTS };

static void copy_some(struct rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count;) {
		if (rig->lsn + 1 >= rig->vault->base + rig->vault->arriving_count) {
			rig_turn(rig);
			continue;
		}
		rig_write(rig, 0, i % 48, RECORD_DATA, i % 5 == 3 ? 0x12 : 0);
		i++;
	}
}

static void test_initial_copy(void **state)
{
	for (unsigned cut = UNCUT; cut < CUTS; cut++) {
		struct rig *rig = rig_new(four_two, 5, SEGMENT);
		struct command command;
		rig->config.window_bytes = 1;
		rig->catch_up = true;
		rig_start(rig, cut == STORE_AWAY ? 0x3e : ALL);
		rig_open_span(rig);
		copy_some(rig, 700);
		assert_int_equal(rig->vault->consistent, 0);
		assert_true(rig->vault->meta.fold_point > 300);
		if (cut && cut != PRIMARY_AGAIN) {
			rig_stop(rig);
			rig_start(rig, ALL);
			assert_int_equal(rig->vault->consistent, 0);
			assert_true(rig->vault->proof.proven);
		}
		/* Nothing of it counts: it is not served, and nothing that came before. */
		assert_int_equal(rig_promote(rig, &command, false), -ENODATA);
		assert_int_equal(command.number[0], 0);
		assert_int_equal(command.number[3], 48);
		lsn_t folded = rig->vault->meta.fold_point;
		if (cut == VAULT_AGAIN || cut == STORE_AWAY)
			rig_resume_span(rig);
		else if (cut)
			rig_open_span(rig);
		assert_true(vault_initial_copy(rig->vault));
		copy_some(rig, 700);
		assert_true(rig->vault->meta.fold_point > folded);
		rig_settle(rig);
		rig_end_catch_up(rig);
		assert_int_equal(rig->vault->consistent, rig->lsn);
		copy_some(rig, 200);
		rig_settle(rig);
		assert_int_equal(rig->vault->durable, rig->lsn);
		rig_stop(rig);
		rig_start(rig, 0x3c);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(command.number[0], rig->lsn);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

static int superblocks_stand(struct rig *rig, const struct io *io)
{
	return rig_is_of(rig, io->file, 0) || io->kind != IO_WRITE_DURABLE ||
			       io->offset % STORE_SUPERBLOCK_BYTES ||
			       io->length != STORE_SUPERBLOCK_BYTES
		       ? 0
		       : RIG_HANGS;
}

/* Store 0 alone has records of a primary that is gone. While the span that voids them is recorded
 * they count as little as after it. */
static void test_scrub_while_a_span_is_recorded(void **state)
{
	for (unsigned promotes = 0; promotes < 2; promotes++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command scrub = {.kind = COMMAND_SCRUB}, promote = {.kind = COMMAND_PROMOTE};
		rig_write_some(rig, 60);
		lsn_t point = rig->lsn;
		for (unsigned block = 0; block < 20; block++) {
			rig_seal(rig, 0, block, RECORD_DATA, 9, ++rig->lsn);
			rig_append(rig, 0x01, -1);
		}
		rig_stop(rig);
		rig_start(rig, ALL);
		assert_int_equal(rig->vault->consistent, point);
		rig_choose_span(rig);
		struct wire_open open = {.span = rig->span};
		rig->fate = superblocks_stand;
		if (promotes) {
			memcpy(promote.key, rig->key, sizeof rig->key);
			vault_command(rig->vault, &promote, &rig->fx);
		} else {
			vault_open_received(rig->vault, &open, &rig->fx);
		}
		for (unsigned i = 0; i < 100; i++)
			rig_turn(rig);
		assert_int_equal(rig->vault->state, VAULT_READY);
		assert_int_equal(spans_newest(&rig->vault->meta.spans)->parent_last, point);
		assert_int_equal(rig_command(rig, &scrub), 0);
		assert_int_equal(scrub.number[3], 0);
		assert_int_equal(scrub.number[1], 0);
		assert_int_equal(rig->vault->consistent, point);
		rig->fate = NULL;
		rig_settle(rig);
		rig_free(rig);
	}
}

/* Superblocks as they are now, and back to them but for one store: a write that reached no other
 * before the lights went out. */
static struct rig_file superblock_kept[RIG_STORES_MAX];

static void superblocks_keep(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_STORES_MAX; i++) {
		struct rig_file *file = rig_file(rig, rig->config.store[i].files.superblock);
		superblock_kept[i] = (struct rig_file){malloc(file->length), file->length};
		memcpy(superblock_kept[i].bytes, file->bytes, file->length);
	}
}

static void superblocks_back(struct rig *rig, unsigned but)
{
	for (unsigned i = 0; i < RIG_STORES_MAX; i++) {
		struct rig_file *file = rig_file(rig, rig->config.store[i].files.superblock);
		if (i != but)
			memcpy(file->bytes, superblock_kept[i].bytes, file->length);
		free(superblock_kept[i].bytes);
	}
}

/* A span, or the generation of a promotion, that reached one superblock only. That store is away
 * while others acknowledge in a history without it, and then comes back: it knows less. */
static void test_recorded_on_one_store(void **state)
{
	static const struct {
		unsigned number, alone;
		bool promotes, first_is_later;
	} rows[] = {{1, 0, false, false}, {2, 5, false, true}, {3, 5, true, false}};
	for (unsigned row = 0; row < ARRAY_COUNT(rows); row++) {
		struct rig *rig = rig_ready(four_two, 5, 4 * SEGMENT);
		unsigned alone = rows[row].alone;
		struct command command;
		rig_write_some(rig, 40);
		lsn_t before = rig->lsn;
		struct wire_head head = {.span = rig->span.id, .last = rig->lsn + 30};
		if (rows[row].first_is_later)
			vault_head_received(rig->vault, &head, &rig->fx);
		rig_settle(rig);
		rig_choose_span(rig);
		struct wire_open open = {.span = rig->span};
		superblocks_keep(rig);
		if (rows[row].promotes) {
			assert_int_equal(rig_promote(rig, &command, false), 0);
		} else {
			vault_open_received(rig->vault, &open, &rig->fx);
			rig_turn(rig);
		}
		rig_stop(rig);
		superblocks_back(rig, alone);
		rig->lsn = before;
		rig_start(rig, ALL & ~(1u << alone));
		rig_choose_span(rig);
		rig->span.id.bytes[7] = 0x77; /* drawn at random */
		open.span = rig->span;
		for (unsigned i = 0; i < 2; i++) {
			vault_open_received(rig->vault, &open, &rig->fx);
			rig_settle(rig);
		}
		assert_true(rig->vault->span_accepted);
		rig_write_some(rig, 60);
		assert_int_equal(rig->vault->acknowledged_durable, rig->lsn);
		rig_stop(rig);
		rig_start(rig, ALL);
		if (rig->vault->consistent != rig->lsn)
			fail_msg("row %u: consistent %llu of %llu", rows[row].number,
				 (unsigned long long)rig->vault->consistent,
				 (unsigned long long)rig->lsn);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(command.number[0], rig->lsn);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

/* One store alone knows that another was given up for a rebuild; it was away when that one came
 * back and helped to acknowledge. */
static void test_given_up_on_one_store(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, 4 * SEGMENT);
	struct command command = {.kind = COMMAND_REBUILD_PREPARE, .store = 4};
	rig_write_some(rig, 40);
	rig_stop(rig);
	rig_start(rig, 0x2f);
	superblocks_keep(rig);
	assert_int_equal(rig_command(rig, &command), 0);
	rig_stop(rig);
	superblocks_back(rig, 0);
	rig_start(rig, 0x3e);
	assert_int_equal(vault_in_service(rig->vault), 0x3e);
	rig_resume_span(rig);
	rig_write_some(rig, 60);
	assert_int_equal(rig->vault->acknowledged_durable, rig->lsn);
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	rig_settle(rig);
	rig_stop(rig);
	rig_start(rig, 0x1e); /* those that acknowledged, but for one */
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

/* What a store missed of an initial copy that was broken off is void, but in its peers' images. */
static void test_away_in_an_initial_copy(void **state)
{
	struct rig *rig = rig_new(four_two, 5, SEGMENT);
	rig->config.window_bytes = 1;
	rig->catch_up = true;
	rig_start(rig, 0x1f);
	rig_open_span(rig);
	copy_some(rig, 700);
	assert_true(rig->vault->meta.fold_point > 300);
	rig_settle(rig);
	rig_open_span(rig);
	assert_true(vault_initial_copy(rig->vault));
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), 0x1f);
	rig_free(rig);
}

/* One message cannot use up the lsns of a group. */
static void test_far_ahead(void **state)
{
	static const lsn_t firsts[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 62, 1ull << 41};
	for (unsigned row = 0; row < ARRAY_COUNT(firsts); row++) {
		struct rig *rig = rig_new(four_two, 5, SEGMENT);
		rig_start(rig, ALL);
		rig_open_span(rig);
		rig_write(rig, 0, 1, RECORD_DATA, 0);
		rig_settle(rig);
		struct wire_open open = {.span = rig->span};
		open.span.id.bytes[5] = 9;
		open.span.parent = rig->span.id;
		open.span.parent_last = rig->vault->consistent;
		open.span.first = firsts[row];
		for (unsigned i = 0; i < 2; i++) {
			vault_open_received(rig->vault, &open, &rig->fx);
			rig_settle(rig);
		}
		if (rig->vault->highest > rig->lsn || rig->vault->meta.spans.count != 1)
			fail_msg("row %u: was taken", row);
		rig_write(rig, 0, 1, RECORD_DATA, 0);
		rig_settle(rig);
		assert_int_equal(rig->vault->durable, rig->lsn);
		rig_free(rig);
	}
}

static int superblocks_hang(struct rig *rig, const struct io *io)
{
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		if (io->file == rig->config.store[i].files.superblock)
			return RIG_HANGS;
	return 0;
}

static unsigned slots_taken(const struct vault *vault)
{
	unsigned count = 0;
	for (unsigned i = 0; i < vault->arriving_count; i++)
		count += vault->arriving[i].phase != PHASE_FREE;
	return count;
}

/* One span ends, and the next begins as far above it as may be: what was drawn up to there is on
 * the stores, and the ring goes there in one turn, not lsn by lsn. */
static void test_a_gap_is_passed_at_once(void **state)
{
	static const lsn_t gaps[] = {0, 1, 7, 1000, 1ull << 20, 1ull << 40};
	for (unsigned row = 0; row < ARRAY_COUNT(gaps); row++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct vault *vault = rig->vault;
		struct command command;
		rig_write_some(rig, 20);
		struct wire_open open = {.span = rig->span};
		open.span.id.bytes[5] = 9;
		open.span.parent = rig->span.id;
		open.span.parent_last = rig->lsn;
		rig_write(rig, 0, 1, RECORD_DATA, 0x0f); /* too few columns: it never counts */
		assert_int_equal(slots_taken(vault), 1);
		open.span.first = vault->highest + gaps[row] + (gaps[row] < 1ull << 40);
		rig->fate = superblocks_hang;
		vault_open_received(vault, &open, &rig->fx);
		for (unsigned i = 0; i < 8; i++)
			rig_turn(rig);
		assert_int_equal(vault->meta.spans.count, 2);
		assert_false(vault->span_accepted);
		rig->fate = NULL;
		rig_settle(rig);
		assert_true(vault->span_accepted);
		if (vault->complete != open.span.first - 1 || vault->base != vault->complete ||
		    vault->head != vault->base || vault->received != vault->base)
			fail_msg("row %u: the ring ends at %llu", row,
				 (unsigned long long)vault->base);
		assert_int_equal(slots_taken(vault), 0);
		rig->span = open.span;
		rig->lsn = open.span.first - 1;
		rig_write(rig, 0, 1, RECORD_DATA, 0);
		rig_write_some(rig, vault->arriving_count + 3); /* every slot, and again */
		rig_stop(rig);
		rig_start(rig, ALL);
		assert_int_equal(rig->vault->consistent, rig->lsn);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_spans),
		cmocka_unit_test(test_promote_in_fold),
		cmocka_unit_test(test_void_records),
		cmocka_unit_test(test_fold_past_catch_up),
		cmocka_unit_test(test_promote_with_half_a_catch_up),
		cmocka_unit_test(test_initial_copy),
		cmocka_unit_test(test_scrub_while_a_span_is_recorded),
		cmocka_unit_test(test_recorded_on_one_store),
		cmocka_unit_test(test_given_up_on_one_store),
		cmocka_unit_test(test_away_in_an_initial_copy),
		cmocka_unit_test(test_far_ahead),
		cmocka_unit_test(test_a_gap_is_passed_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
