/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that are made anew from their peers: while the vault takes records and while it serves,
 * whatever is refused, and whatever comes in between. */
#include "vault_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024 };
static const struct geometry four_two = {4, 2};

static int rebuild(struct rig *rig, struct command *command, uint8_t store, uint32_t incarnation)
{
	*command = (struct command){.kind = COMMAND_REBUILD,
				    .store = store,
				    .incarnation = incarnation,
				    .files = rig_format_anew(rig, store, incarnation)};
	int result = rig_command(rig, command);
	if (result == 0)
		rig->config.store[store].files = command->files;
	return result;
}

static void lose(struct rig *rig, uint8_t store)
{
	struct command command = {.kind = COMMAND_STORE_LOST, .store = store};
	assert_int_equal(rig_command(rig, &command), 0);
	rig_settle(rig);
}

static void test_rebuild(void **state)
{
	for (unsigned serving = 0; serving < 2; serving++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command command;
		rig->shuffle = true;
		rig_write_some(rig, 400);
		assert_int_equal(rebuild(rig, &command, 4, 2), -EEXIST);
		lose(rig, 4);
		rig_write_some(rig, 30); /* while it is out */
		lsn_t folded = rig->vault->meta.fold_point;
		assert_true(folded > 0);
		if (serving)
			assert_int_equal(rig_promote(rig, &command, false), 0);
		int result = rebuild(rig, &command, 4, 2);
		if (result)
			fail_msg("%d: %s", result, command.text);
		assert_true(command.number[0] > 20 && command.number[1] > 20);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		assert_int_equal(rig->vault->meta.out, 0);
		assert_int_equal(rig->vault->meta.incarnation[4], 2);
		if (!serving)
			rig_write_some(rig, 20);
		rig_settle(rig);
		assert_true(rig->vault->store[4].floor >= rig->lsn);
		command = (struct command){.kind = COMMAND_SCRUB};
		assert_int_equal(rig_command(rig, &command), 0);
		assert_int_equal(command.number[1], 0);
		rig_stop(rig);
		rig_start(rig, 0x3a); /* without 0 and 2: the new one is needed */
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(command.number[0], rig->lsn);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

static void test_rebuild_live(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 300);
	lose(rig, 0);
	command = (struct command){.kind = COMMAND_REBUILD,
				   .store = 0,
				   .incarnation = 9,
				   .files = rig_format_anew(rig, 0, 9)};
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, &command, &rig->fx);
	bool answered = false;
	for (unsigned i = 0; i < 3000 && !answered; i++) {
		if (i < 60)
			rig_write(rig, 0, i % 48, RECORD_DATA, 0);
		else
			rig_turn(rig);
		answered = rig->fx.results == &command;
	}
	assert_true(answered);
	assert_int_equal(command.result, 0);
	rig->config.store[0].files = command.files;
	rig_settle(rig);
	assert_int_equal(rig->vault->store[0].floor, rig->lsn);
	rig_stop(rig);
	rig_start(rig, 0x27);
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

static void test_rebuild_refuses(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	lose(rig, 4);
	command = (struct command){.kind = COMMAND_REBUILD, .store = 6};
	assert_int_equal(rig_command(rig, &command), -EINVAL);
	assert_int_equal(rebuild(rig, &command, 4, 1), -EEXIST); /* the old incarnation */
	assert_non_null(strstr(command.text, "not a new store"));
	/* Files of another store; then a block that cannot be read. */
	command = (struct command){.kind = COMMAND_REBUILD,
				   .store = 4,
				   .incarnation = 2,
				   .files = rig_format_anew(rig, 3, 2)};
	assert_int_equal(rig_command(rig, &command), -EXDEV);
	assert_int_equal(rebuild(rig, &command, 4, 2), 0);
	lose(rig, 0);
	lose(rig, 1);
	lose(rig, 2);
	assert_int_equal(rebuild(rig, &command, 0, 2), -ENODATA);
	assert_non_null(strstr(command.text, "fewer than k other stores"));
	assert_int_equal(vault_in_service(rig->vault), 0x38);
	rig_free(rig);
}

/* A store that was away while its peers folded has no journal to catch up with: with the first span
 * still known, and with it forgotten. */
static void test_behind(void **state)
{
	for (unsigned forgotten = 0; forgotten < 2; forgotten++) {
		struct rig *rig = rig_new(four_two, 5, SEGMENT);
		struct command command;
		rig_start(rig, forgotten ? ALL : 0x1f);
		rig_open_span(rig);
		if (forgotten) {
			rig_write_some(rig, 20);
			rig_stop(rig);
			rig_start(rig, 0x1f);
			rig_open_span(rig);
		}
		rig_write_some(rig, 500);
		assert_true(rig->vault->meta.fold_point > 20);
		assert_int_equal(rig->vault->meta.spans.count, 1);
		rig_stop(rig);
		rig_start(rig, ALL);
		assert_int_equal(vault_in_service(rig->vault), 0x1f);
		assert_int_equal(rebuild(rig, &command, 5, 2), 0);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		rig_stop(rig);
		rig_start(rig, 0x3c);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rebuild),
		cmocka_unit_test(test_rebuild_live),
		cmocka_unit_test(test_rebuild_refuses),
		cmocka_unit_test(test_behind),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
