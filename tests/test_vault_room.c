/* SPDX-License-Identifier: Apache-2.0 */
/* Disks of stores that are full: nobody is out for it, the fold waits, and all goes on when there
 * is room. */
#include "vault_rig.h"

#include "core/format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024, WRITES_MAX = 2000 };
static const struct geometry four_two = {4, 2};

static unsigned stores_full(const struct rig *rig)
{
	struct group_status status = {0};
	unsigned count = 0;
	vault_status(rig->vault, &status);
	for (unsigned i = 0; i < RIG_STORES_MAX; i++)
		count += status.store[i].full;
	return count;
}

static void seconds_pass(struct rig *rig, unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		rig->now += NS_PER_S;
		rig_settle(rig);
	}
}

/* Equal stores fill up together. Nobody is out for it: the fold waits, then the records, and all
 * goes on when there is room. */
static void test_no_room(void **state)
{
	static const struct {
		int number;
		uint32_t stores;
		int err;
		bool restart;
	} rows[] = {
		{1, ALL, -ENOSPC, false},
		{2, ALL, -EDQUOT, false},
		{3, ALL, -ENOSPC, true},
		{4, 0x04, -ENOSPC, false},
	};
	for (unsigned row = 0; row < ARRAY_COUNT(rows); row++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		unsigned n = (unsigned)__builtin_popcount(rows[row].stores);
		struct command command;
		rig_write_some(rig, 60);
		rig_fill(rig, rows[row].stores, rows[row].err);
		for (unsigned i = 0; stores_full(rig) < n && i < WRITES_MAX; i++)
			rig_write(rig, 0, i % 48, RECORD_DATA, 0);
		rig_settle(rig);
		assert_int_equal(rig->vault->durable, rig->lsn);
		unsigned warnings = rig->warnings;
		assert_int_equal(stores_full(rig), n);
		assert_int_equal(warnings, n);
		if (rows[row].restart) {
			rig_stop(rig);
			rig_start(rig, ALL);
			rig_open_span(rig);
			assert_int_equal(stores_full(rig), n);
			warnings = rig->warnings;
			assert_int_equal(warnings, 2 * n);
		}
		for (unsigned i = 0; !rig->vault->room_wanted && i < WRITES_MAX; i++)
			rig_write(rig, 0, i % 48, RECORD_DATA, 0);
		lsn_t folding = rig->vault->meta.fold_point;
		seconds_pass(rig, 20);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		assert_int_equal(stores_full(rig), n);
		assert_true(rig->vault->durable < rig->lsn || n == 1);
		assert_int_equal(rig->vault->meta.fold_point, folding);
		rig_fill(rig, 0, 0);
		seconds_pass(rig, 2);
		assert_int_equal(rig->vault->durable, rig->lsn);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		assert_int_equal(stores_full(rig), 0);
		assert_int_equal(rig->warnings, warnings);
		assert_true(store_image_point(rig->vault->store[2].store) >= folding);
		rig_write_some(rig, 300); /* and folds on */
		assert_true(rig->vault->meta.fold_point > folding);
		rig_stop(rig);
		rig_start(rig, 0x3c);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

/* One that is full may still be lost: what it waits with comes back. */
static void test_no_room_and_lost(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_STORE_LOST, .store = 2};
	rig_fill(rig, 0x04, -ENOSPC);
	for (unsigned i = 0; stores_full(rig) == 0 && i < WRITES_MAX; i++)
		rig_write(rig, 0, i % 48, RECORD_DATA, 0);
	rig_settle(rig);
	lsn_t folding = rig->vault->meta.fold_point;
	assert_int_equal(rig_command(rig, &command), 0);
	rig_settle(rig);
	assert_int_equal(stores_full(rig), 0);
	assert_true(store_idle(rig->vault->store[2].store));
	assert_false(rig->vault->folding);
	assert_true(store_image_point(rig->vault->store[1].store) >= folding);
	rig_write_some(rig, 300);
	rig_free(rig);
}

/* What scrub would write into a full image stays as it is; nobody is out for it, and the fold is
 * not held. */
static void test_no_room_for_repair(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_SCRUB};
	rig_write(rig, 0, 47, RECORD_DATA, 0);
	uint32_t bytes = rig_shard_bytes(rig, 0);
	uint8_t shard[BLOCK_BYTES_MAX];
	memcpy(shard, rig->shard + 3 * bytes, bytes);
	rig_write_some(rig, 400); /* folded by then */
	assert_true(rig_damage(rig, 3, shard, bytes) >= 1);
	rig_fill(rig, 0x08, -ENOSPC);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 1);
	assert_int_equal(command.number[2], 0);
	rig_settle(rig);
	rig_fill(rig, 0, 0);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 1);
	assert_int_equal(command.number[2], 1);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 0);
	rig_free(rig);
}

/* The same where the image has room and the slot pages have not: the fold goes on meanwhile, the
 * header is written when there is room, and over the right copy of its page. */
static void test_no_room_for_a_slot(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_SCRUB};
	uint8_t shard[BLOCK_BYTES_MAX];
	rig_write(rig, 0, 47, RECORD_DATA, 0);
	uint32_t bytes = rig_shard_bytes(rig, 0);
	memcpy(shard, rig->shard + 3 * bytes, bytes);
	rig_write_some(rig, 400); /* folded by then */
	assert_true(rig_damage(rig, 3, shard, bytes) >= 1);
	struct rig_file *slots = rig_file(rig, rig->config.store[3].files.slots[0]);
	uint8_t *before = malloc(slots->length);
	memcpy(before, slots->bytes, slots->length);
	rig->full_slots = true;
	rig_fill(rig, 0x08, -ENOSPC);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 1);
	assert_int_equal(command.number[2], 0);
	seconds_pass(rig, 3);
	assert_int_equal(stores_full(rig), 1);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	assert_false(vault_fold_held(rig->vault));
	assert_memory_equal(slots->bytes, before, slots->length);
	/* A crash now leaves the header as it was. */
	rig_fill(rig, 0, 0);
	seconds_pass(rig, 3);
	assert_int_equal(stores_full(rig), 0);
	unsigned changed = 0;
	for (uint64_t at = 0; at < slots->length; at += PAGE_BYTES)
		changed += memcmp(slots->bytes + at, before + at, PAGE_BYTES) != 0;
	assert_int_equal(changed, 1);
	/* The copy of the pair that was the newer one is whole still. */
	for (uint64_t at = 0; at < slots->length; at += 2 * PAGE_BYTES) {
		const struct disk_slot_page *now = (const void *)(slots->bytes + at);
		const struct disk_slot_page *was = (const void *)(before + at);
		unsigned newer = was[1].sequence > was[0].sequence;
		assert_memory_equal(&now[newer], &was[newer], PAGE_BYTES);
	}
	free(before);
	rig_stop(rig);
	rig_start(rig, ALL);
	rig_open_span(rig);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 0);
	rig_write_some(rig, 300);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_no_room_and_lost),
		cmocka_unit_test(test_no_room_for_repair),
		cmocka_unit_test(test_no_room_for_a_slot),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
