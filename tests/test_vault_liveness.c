/* SPDX-License-Identifier: Apache-2.0 */
/* A vault that goes on: while a store that was away is filled, when a record cannot be read for
 * one, and while a store is rebuilt, always with a primary that sends as much as it may. */
#include "vault_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024, READS_EVERY = 600 };
static const struct geometry four_two = {4, 2};

/* The least window, so that the journals take it twice as the configuration demands. */
static struct rig *rig_of(uint32_t present)
{
	struct rig *rig = rig_new(four_two, 5, SEGMENT);
	rig->config.window_bytes = 1;
	rig_start(rig, present);
	rig_open_span(rig);
	return rig;
}

/* One turn of a primary that always has something to send: small shards and large ones, and kinds
 * without any. */
static void load_turn(struct rig *rig)
{
	static const uint8_t kinds[] = {RECORD_DATA, RECORD_DATA, RECORD_DATA,	 RECORD_ZERO,
					RECORD_DATA, RECORD_DATA, RECORD_DISCARD};
	if (rig->lsn + 1 >= rig->vault->base + rig->vault->arriving_count) {
		rig_turn(rig);
		return;
	}
	uint64_t number = rig->lsn;
	uint8_t volume = number % 5 == 4;
	rig_write(rig, volume, number * 7 % (volume ? 20 : RIG_BLOCKS_MAX),
		  kinds[number % ARRAY_COUNT(kinds)], number % 3 ? 0 : 0x12);
}

/* So many more records become durable, or the vault stands still. */
static void load_goes_on(struct rig *rig, unsigned records, const char *when)
{
	lsn_t until = rig->lsn + records, durable = 0;
	for (unsigned standing = 0; rig->vault->acknowledged_durable < until; standing++) {
		if (standing == 20000)
			fail_msg("%s: durable stays at %llu, %llu on the way", when,
				 (unsigned long long)durable, (unsigned long long)rig->lsn);
		load_turn(rig);
		if (rig->vault->acknowledged_durable > durable)
			standing = 0;
		durable = rig->vault->acknowledged_durable;
	}
}

static void equal_without(struct rig *rig, uint32_t missing)
{
	struct command command;
	rig->fate = NULL;
	rig_settle(rig);
	rig_stop(rig);
	rig_start(rig, ALL & ~missing);
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(command.number[0], rig->lsn);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

/* Disks that write at once, and give what they are asked for now and then. */
static int reads_slowly(struct rig *rig, const struct io *io)
{
	bool reads = io->kind == IO_READ && rig->vault->state != VAULT_OPENING;
	return reads && rig->turns % READS_EVERY ? RIG_HANGS : 0;
}

/* ---- a store that comes back ---- */
static void test_refill_under_load(void **state)
{
	static const struct {
		unsigned number, missed;
		uint32_t away;
	} rows[] = {{1, 12, 0x20}, {2, 24, 0x20}, {3, 60, 0x20}, {4, 100, 0x20},
		    {5, 24, 0x01}, {6, 30, 0x21}, {7, 90, 0x14}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_of(ALL & ~rows[i].away);
		char when[32];
		snprintf(when, sizeof when, "row %u", rows[i].number);
		for (unsigned more = 0; more < rows[i].missed; more++)
			load_turn(rig);
		rig_settle(rig);
		assert_int_equal(rig->vault->meta.fold_point, 0);
		rig_stop(rig);
		rig->fate = reads_slowly;
		rig_start(rig, ALL);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		rig_open_span(rig);
		load_goes_on(rig, 1000, when);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		rig->fate = NULL;
		rig_settle(rig);
		for (unsigned s = 0; s < 6; s++)
			assert_int_equal(rig->vault->store[s].floor, rig->lsn);
		equal_without(rig, 0x0a);
	}
}

static void lose(struct rig *rig, uint8_t store)
{
	struct command command = {.kind = COMMAND_STORE_LOST, .store = store};
	assert_int_equal(rig_command(rig, &command), 0);
	rig_settle(rig);
}

/* The others may not fold while its image is copied: their journals fill up. */
static void test_rebuild_under_load(void **state)
{
	static const unsigned missed[] = {0, 40, 120};
	for (unsigned i = 0; i < ARRAY_COUNT(missed); i++) {
		struct rig *rig = rig_of(ALL);
		load_goes_on(rig, 300, "before");
		lose(rig, 2);
		load_goes_on(rig, missed[i], "without it");
		struct command command = {.kind = COMMAND_REBUILD,
					  .store = 2,
					  .incarnation = 2,
					  .files = rig_format_anew(rig, 2, 2)};
		rig->fate = reads_slowly;
		effects_init(&rig->fx, rig->now, 0);
		vault_command(rig->vault, &command, &rig->fx);
		bool answered = false;
		for (unsigned turn = 0; turn < 60000 && !answered; turn++) {
			load_turn(rig);
			answered = rig->fx.results == &command;
		}
		if (!answered || command.result)
			fail_msg("missed %u: answered %d, %d: %s", missed[i], answered,
				 command.result, command.text);
		rig->config.store[2].files = command.files;
		load_goes_on(rig, 300, "rebuilt");
		assert_int_equal(vault_in_service(rig->vault), ALL);
		equal_without(rig, 0x11);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refill_under_load),
		cmocka_unit_test(test_rebuild_under_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
