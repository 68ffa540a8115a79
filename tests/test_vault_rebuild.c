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

static int prepare(struct rig *rig, struct command *command, uint8_t store)
{
	*command = (struct command){.kind = COMMAND_REBUILD_PREPARE, .store = store};
	return rig_command(rig, command);
}

/* What the answer of a preparation asks for. */
static void format(struct rig *rig, struct command *command)
{
	assert_true(uuid_equal(&command->set, &rig->vault->meta.set));
	command->kind = COMMAND_REBUILD;
	command->files = rig_format_anew(rig, command->store, command->incarnation);
}

static int rebuild(struct rig *rig, struct command *command, uint8_t store)
{
	int result = prepare(rig, command, store);
	if (result)
		return result;
	format(rig, command);
	result = rig_command(rig, command);
	if (result == 0)
		rig->config.store[store].files = command->files;
	return result;
}

static void lose_now(struct rig *rig, uint8_t store)
{
	struct command command = {.kind = COMMAND_STORE_LOST, .store = store};
	assert_int_equal(rig_command(rig, &command), 0);
}

static void lose(struct rig *rig, uint8_t store)
{
	lose_now(rig, store);
	rig_settle(rig);
}

static void test_rebuild(void **state)
{
	for (unsigned serving = 0; serving < 2; serving++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command command;
		rig->shuffle = true;
		rig_write_some(rig, 400);
		assert_int_equal(rebuild(rig, &command, 4), -EEXIST);
		lose(rig, 4);
		rig_write_some(rig, 30); /* while it is out */
		lsn_t folded = rig->vault->meta.fold_point;
		assert_true(folded > 0);
		if (serving)
			assert_int_equal(rig_promote(rig, &command, false), 0);
		int result = rebuild(rig, &command, 4);
		if (result)
			fail_msg("%d: %s", result, command.text);
		assert_true(command.number[0] > 20 && command.number[1] > 20);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		assert_int_equal(rig->vault->meta.out, 0);
		assert_int_equal(rig->vault->meta.incarnation[4], 3);
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
	assert_int_equal(prepare(rig, &command, 0), 0);
	format(rig, &command);
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

/* What is on the disks, and all that the superblocks say. */
static uint64_t files_sum(const struct rig *rig)
{
	uint64_t sum = rig->vault->meta_version;
	for (unsigned i = 0; i < RIG_FILES / 2; i++)
		sum = sum * 31 + crc32c(rig->file[i].bytes, rig->file[i].length);
	return sum;
}

static void refused(struct rig *rig, uint8_t store, int result, const char *why)
{
	struct command command;
	uint64_t before = files_sum(rig);
	assert_int_equal(prepare(rig, &command, store), result);
	if (!strstr(command.text, why))
		fail_msg("\"%s\" does not say \"%s\"", command.text, why);
	assert_true(before == files_sum(rig));
}

static void test_refused_at_once(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	refused(rig, 6, -EINVAL, "no such store");
	refused(rig, 4, -EEXIST, "is in service");
	lose(rig, 4);
	lose(rig, 3);
	/* One at a time, from the preparation on. */
	assert_int_equal(prepare(rig, &command, 4), 0);
	refused(rig, 4, -EBUSY, "under way");
	refused(rig, 3, -EBUSY, "under way");
	format(rig, &command);
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, &command, &rig->fx);
	refused(rig, 4, -EBUSY, "under way");
	refused(rig, 3, -EBUSY, "under way");
	rig_settle(rig);
	assert_int_equal(command.result, 0);
	assert_int_equal(vault_in_service(rig->vault), 0x37);
	refused(rig, 4, -EEXIST, "is in service");
	rig->config.store[4].files = command.files;
	lose(rig, 0);
	lose(rig, 1);
	refused(rig, 0, -ENODATA, "fewer than k other stores");
	assert_int_equal(vault_in_service(rig->vault), 0x34);
	/* While its stores are read, and with too few of them. */
	rig_stop(rig);
	rig_begin(rig, 0x37);
	assert_int_equal(rig->vault->state, VAULT_OPENING);
	command = (struct command){.kind = COMMAND_REBUILD_PREPARE, .store = 2};
	vault_command(rig->vault, &command, &rig->fx);
	assert_int_equal(command.result, -EAGAIN);
	assert_non_null(strstr(command.text, "not ready"));
	rig_stop(rig);
	rig_start(rig, 0x37);
	assert_int_equal(rig->vault->state, VAULT_REFUSED);
	refused(rig, 3, -EAGAIN, "too few stores");
	refused(rig, 2, -EAGAIN, "too few stores");
	rig_free(rig);
}

/* The second order wants the first, and what was prepared: nothing else is opened. */
static void test_second_order(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command, other;
	rig_write_some(rig, 40);
	lose(rig, 4);
	lose(rig, 3);
	command = (struct command){.kind = COMMAND_REBUILD, .store = 4, .incarnation = 2};
	assert_int_equal(rig_command(rig, &command), -EINVAL);
	command.kind = COMMAND_REBUILD_CANCEL;
	assert_int_equal(rig_command(rig, &command), -EINVAL);
	assert_int_equal(prepare(rig, &command, 4), 0);
	other = command;
	other.kind = COMMAND_REBUILD;
	other.store = 3;
	assert_int_equal(rig_command(rig, &other), -EINVAL);
	other.store = 4;
	other.incarnation--;
	assert_int_equal(rig_command(rig, &other), -EINVAL);
	/* It could not be made: another try can, under another number. */
	uint32_t first = command.incarnation;
	command.kind = COMMAND_REBUILD_CANCEL;
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(rig_command(rig, &command), -EINVAL);
	/* Files of another store, then those of another try. */
	assert_int_equal(prepare(rig, &command, 4), 0);
	assert_true(command.incarnation > first);
	format(rig, &command);
	command.files = rig_format_anew(rig, 3, command.incarnation);
	assert_int_equal(rig_command(rig, &command), -EXDEV);
	assert_int_equal(prepare(rig, &command, 4), 0);
	format(rig, &command);
	command.files = rig_format_anew(rig, 4, first);
	assert_int_equal(rig_command(rig, &command), -EEXIST);
	assert_non_null(strstr(command.text, "not a new store"));
	assert_int_equal(rebuild(rig, &command, 4), 0);
	assert_int_equal(rebuild(rig, &command, 3), 0);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	rig_free(rig);
}

/* Whether the disks have something of the store in hand. */
static bool files_busy(const struct rig *rig, uint8_t store)
{
	bool busy = false;
	for (unsigned i = 0; i < rig->io_count; i++)
		busy |= rig_is_of(rig, rig->io[i]->file, store);
	for (unsigned i = 0; i < rig->hanging_count; i++)
		busy |= rig_is_of(rig, rig->hanging[i]->file, store);
	return busy;
}

/* The old files may be removed only when nothing of the core is on its way to them any more. */
static void test_old_operations_come_back(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	rig->stuck = rig->config.store[4].files.journal;
	for (unsigned block = 0; block < 4; block++)
		rig_write(rig, 0, block, RECORD_DATA, 0);
	lose_now(rig, 4);
	assert_true(files_busy(rig, 4));
	assert_int_equal(prepare(rig, &command, 4), -ETIMEDOUT);
	assert_non_null(strstr(command.text, "do not end"));
	assert_true(files_busy(rig, 4));
	refused(rig, 3, -EEXIST, "is in service");
	command = (struct command){.kind = COMMAND_REBUILD_PREPARE, .store = 4};
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, &command, &rig->fx);
	for (unsigned i = 0; i < 50; i++) {
		rig_turn(rig);
		assert_null(rig->fx.results);
	}
	rig->stuck = 0;
	for (unsigned i = 0; i < 50 && !rig->fx.results; i++)
		rig_turn(rig);
	assert_ptr_equal(rig->fx.results, &command);
	assert_int_equal(command.result, 0);
	assert_false(files_busy(rig, 4));
	format(rig, &command);
	assert_int_equal(rig_command(rig, &command), 0);
	rig_settle(rig);
	assert_int_equal(rig->vault->store[4].floor, rig->lsn);
	rig_free(rig);
}

/* What the old store knows may be all that proves the rest: it is not given up before the others
 * do without it. For a moment, under load, they may not. */
static void test_not_proven(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	struct rig_file *journal = rig_file(rig, rig->config.store[5].files.journal);
	rig_write_some(rig, 40);
	uint8_t *before = malloc(journal->length);
	memcpy(before, journal->bytes, journal->length);
	rig->stuck = rig->config.store[5].files.journal;
	rig_write(rig, 0, 7, RECORD_DATA, 0);
	for (unsigned i = 0; rig->vault->acknowledged_durable < rig->lsn; i++) {
		assert_true(i < 1000);
		rig_turn(rig);
	}
	rig_stop(rig);
	rig->stuck = 0;
	memcpy(journal->bytes, before, journal->length); /* it was not synced */
	free(before);
	rig_start(rig, 0x3c);
	assert_int_equal(vault_in_service(rig->vault), 0x3c);
	refused(rig, 0, -EAGAIN, "not proven");
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	assert_int_equal(rig->vault->consistent, rig->lsn);

	rig_stop(rig);
	rig_start(rig, 0x3c);
	rig_open_span(rig);
	rig->stuck = rig->config.store[5].files.journal;
	rig_write(rig, 0, 8, RECORD_DATA, 0);
	for (unsigned i = 0; i < 50; i++)
		rig_turn(rig);
	command = (struct command){.kind = COMMAND_REBUILD_PREPARE, .store = 0};
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, &command, &rig->fx);
	for (unsigned i = 0; i < 50; i++) {
		rig_turn(rig);
		assert_null(rig->fx.results);
	}
	assert_int_equal(rig->vault->meta.out, 0);
	rig->stuck = 0;
	for (unsigned i = 0; i < 50 && !rig->fx.results; i++)
		rig_turn(rig);
	assert_ptr_equal(rig->fx.results, &command);
	assert_int_equal(command.result, 0);
	format(rig, &command);
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(vault_in_service(rig->vault), 0x3d);
	rig_free(rig);
}

/* Cut short after so many turns. false: it was over before. */
static bool rebuild_cut(struct rig *rig, struct command *command, unsigned turns)
{
	if (prepare(rig, command, 4))
		fail_msg("%s", command->text);
	format(rig, command);
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, command, &rig->fx);
	for (unsigned i = 0; i < turns; i++) {
		rig_turn(rig);
		if (rig->fx.results)
			return false;
	}
	return true;
}

/* A daemon that ends between the two orders leaves a store that is out, though its files may still
 * be there: those of before, or those of an earlier try. */
static void test_prepared_only(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	rig_stop(rig);
	rig_start(rig, 0x2f);
	assert_int_equal(prepare(rig, &command, 4), 0);
	uint32_t first = command.incarnation;
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), 0x2f);
	assert_true(rebuild_cut(rig, &command, 5));
	rig->config.store[4].files = command.files;
	rig_stop(rig);
	rig_start(rig, 0x2f);
	assert_int_equal(prepare(rig, &command, 4), 0);
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), 0x2f);
	assert_int_equal(rebuild(rig, &command, 4), 0);
	assert_true(command.incarnation > first + 2);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	rig_free(rig);
}

/* All that is left is a store that was made and never filled. It knows nothing, and says so. */
static void test_alone_and_never_filled(void **state)
{
	struct rig *rig = rig_ready((struct geometry){1, 2}, 3, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	rig_stop(rig);
	rig_start(rig, 0x5);
	assert_int_equal(prepare(rig, &command, 1), 0);
	format(rig, &command);
	rig->config.store[1].files = command.files;
	rig_stop(rig);
	rig_start(rig, 0x2);
	assert_int_equal(vault_in_service(rig->vault), 0);
	assert_int_not_equal(rig_promote(rig, &command, false), 0);
	rig_stop(rig);
	rig_start(rig, 0x7);
	assert_int_equal(vault_in_service(rig->vault), 0x5);
	assert_int_equal(rebuild(rig, &command, 1), 0);
	assert_int_equal(vault_in_service(rig->vault), 0x7);
	rig_free(rig);
}

/* After every turn of a rebuild the vault may end: the store is out then, or in service with all
 * that it needs; and what an earlier try made never comes back once a later one has succeeded. */
static void test_cut_short(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	struct store_files old = rig->config.store[4].files;
	unsigned in_service = 0, out = 0;
	rig_write_some(rig, 120);
	lose(rig, 4);
	rig_write_some(rig, 30);
	rig_stop(rig);
	rig_save(rig);
	bool cut = true;
	for (unsigned turns = 1; cut; turns++) {
		rig_load(rig);
		rig->config.store[4].files = old;
		rig_start(rig, 0x2f);
		cut = rebuild_cut(rig, &command, turns);
		rig_stop(rig);
		rig->config.store[4].files = command.files;
		rig_start(rig, ALL);
		bool in = rig->vault->store[4].in_service;
		in ? in_service++ : out++;
		assert_true(in || rig->vault->meta.out >> 4 & 1);
		assert_true(in || cut); /* what was told is so */
		if (in) {
			assert_true(rig->vault->store[4].floor >= rig->vault->durable);
			rig_stop(rig);
			rig_start(rig, 0x3a);
			assert_int_equal(rig_promote(rig, &command, false), 0);
			assert_int_equal(command.number[0], rig->lsn);
			assert_int_equal(rig_compare(rig), 0);
		}
		rig_stop(rig);
	}
	assert_true(in_service > 1 && out > 20);
	rig_free(rig);
}

/* Told as rebuilt once w others have recorded it: one that has not yet does not take it back. */
static void test_slow_superblock(void **state)
{
	struct rig *rig = rig_ready(four_two, 4, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	lose(rig, 4);
	rig->stuck = rig->config.store[1].files.superblock;
	assert_int_equal(rebuild(rig, &command, 4), 0);
	rig_write(rig, 0, 0, RECORD_DATA, 0);
	rig_stop(rig);
	rig->stuck = 0;
	rig_start(rig, ALL);
	assert_int_equal(vault_in_service(rig->vault), ALL);
	rig_free(rig);
}

/* What the newer copy of its superblock says of itself. */
static bool says_in_service(struct rig *rig, const struct store_files *files, uint8_t store)
{
	const uint8_t *copy = rig_file(rig, files->superblock)->bytes;
	static struct store_group group[2];
	uint64_t sequence[2];
	uint32_t incarnation;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(store_superblock_decode(copy + i * STORE_SUPERBLOCK_BYTES,
							 &group[i], NULL, NULL, &incarnation, NULL,
							 NULL, &sequence[i]),
				 0);
	const struct store_group *newer = &group[sequence[1] > sequence[0]];
	return newer->incarnation[store] == incarnation && !(newer->out >> store & 1) &&
	       newer->spans.count;
}

/* A try that fails when its own superblock says already that it is in service; the disk that it was
 * made on comes back later. */
static void test_earlier_try(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	struct rig_file kept[RIG_FILES_PER_STORE];
	rig_write_some(rig, 40);
	lose(rig, 4);
	assert_true(rebuild_cut(rig, &command, 1));
	while (!says_in_service(rig, &command.files, 4)) {
		rig_turn(rig);
		assert_null(rig->fx.results);
	}
	lose_now(rig, 4);
	for (unsigned i = 0; i < RIG_FILES_PER_STORE; i++) {
		const struct rig_file *file =
			rig_file(rig, (uint16_t)(command.files.superblock + i));
		kept[i] = (struct rig_file){malloc(file->length), file->length};
		memcpy(kept[i].bytes, file->bytes, file->length);
	}
	rig_settle(rig);
	assert_int_equal(command.result, -ENOENT);
	for (unsigned again = 0; again < 2; again++) {
		if (again)
			assert_int_equal(rebuild(rig, &command, 4), 0);
		rig_write_some(rig, 30);
		rig_stop(rig);
		rig->config.store[4].files = command.files;
		for (unsigned i = 0; i < RIG_FILES_PER_STORE; i++)
			memcpy(rig_file(rig, (uint16_t)(command.files.superblock + i))->bytes,
			       kept[i].bytes, kept[i].length);
		rig_start(rig, ALL);
		assert_int_equal(vault_in_service(rig->vault), 0x2f);
		rig_open_span(rig);
	}
	for (unsigned i = 0; i < RIG_FILES_PER_STORE; i++)
		free(kept[i].bytes);
	rig_free(rig);
}

/* A full disk ends a rebuild, not the folds of all others; another one can follow. */
static void test_no_room(void **state)
{
	for (unsigned slots = 0; slots < 2; slots++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command command;
		rig_write_some(rig, 400);
		lose(rig, 4);
		rig->full_slots = slots;
		rig_fill(rig, 1u << 4, -EDQUOT);
		assert_int_equal(rebuild(rig, &command, 4), -ENOSPC);
		assert_non_null(strstr(command.text, "no room on its disk"));
		rig_settle(rig);
		lsn_t folded = rig->vault->meta.fold_point;
		rig_write_some(rig, 400);
		assert_true(rig->vault->meta.fold_point > folded);
		rig_fill(rig, 0, 0);
		assert_int_equal(rebuild(rig, &command, 4), 0);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		rig_free(rig);
	}
}

/* It waits for the end of a fold, which may wait for a disk that is full, but not for ever. */
static void test_fold_that_does_not_end(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 60);
	lose(rig, 4);
	rig_fill(rig, 1u << 3, -ENOSPC);
	for (unsigned i = 0; !store_wants_room(rig->vault->store[3].store); i++)
		rig_write(rig, 0, i % 48, RECORD_DATA, 0);
	assert_int_equal(rebuild(rig, &command, 4), -EAGAIN);
	assert_non_null(strstr(command.text, "a fold does not end"));
	rig_fill(rig, 0, 0);
	rig_settle(rig);
	assert_int_equal(rebuild(rig, &command, 4), 0);
	assert_int_equal(vault_in_service(rig->vault), ALL);
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
		assert_int_equal(rebuild(rig, &command, 5), 0);
		assert_int_equal(vault_in_service(rig->vault), ALL);
		rig_stop(rig);
		rig_start(rig, 0x3c);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_free(rig);
	}
}

static bool peers_hold, writes_hold, images_hold;
static int held(struct rig *rig, const struct io *io)
{
	bool old = io->file < RIG_FILES / 2, reads = io->kind == IO_READ && old;
	unsigned part = io->file % RIG_FILES_PER_STORE;
	if (writes_hold && io->kind == IO_WRITE_DURABLE &&
	    io->file == rig->config.store[3].files.journal)
		return RIG_HANGS;
	if (images_hold && reads && part >= 2 && part < 4)
		return rig->turns % 9000 ? RIG_HANGS : 0;
	return peers_hold && reads && part < 2 ? RIG_HANGS : 0;
}

static void begin_held(struct rig *rig, struct command *command)
{
	assert_int_equal(prepare(rig, command, 4), 0);
	format(rig, command);
	command->result = 1;
	rig->fate = held;
	peers_hold = true;
	writes_hold = images_hold = false;
	effects_init(&rig->fx, rig->now, 0);
	vault_command(rig->vault, command, &rig->fx);
	while (!rebuild_fills(rig->vault, 4))
		rig_turn(rig);
}

/* It goes into service while records above its goal are still lacking, and others are on their way
 * from memory to another store. */
static void test_into_service_behind(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, 4 * SEGMENT);
	struct command command;
	lose(rig, 4);
	for (unsigned i = 0; i < 300; i++)
		rig_write(rig, 0, i % 48, RECORD_DATA, 0);
	rig_settle(rig);
	begin_held(rig, &command);
	lsn_t goal = rig->vault->rebuild.goal;
	for (uint64_t i = 0, gaps = 0; gaps < 80; i++) {
		const struct ranges *has = store_held(rig->vault->store[4].store);
		assert_true(i < 2000);
		rig_write(rig, 0, i % 48, RECORD_DATA, 0);
		if (rig->lsn > goal + 20)
			gaps = rig->lsn - 20 - goal -
			       ranges_count(has, goal + 1, rig->lsn - 20 + 1);
	}
	writes_hold = true;
	for (unsigned i = 0; i < 20; i++)
		rig_write(rig, 0, i % 48, RECORD_DATA, 0);
	peers_hold = false;
	for (unsigned i = 0; i < 2000; i++)
		rig_turn(rig);
	assert_int_equal(command.result, 0);
	assert_true(rig->vault->store[4].in_service);
	rig->fate = NULL;
	rig_settle(rig);
	assert_int_equal(rig->vault->store[4].floor, rig->lsn);
	rig_free(rig);
}

/* A record that it cannot be given, or a disk that is full, does not hold the folds of all while
 * its image is copied. */
static void test_given_up_while_copied(void **state)
{
	static uint8_t shards[RIG_STORES_MAX * BLOCK_BYTES_MAX];
	for (unsigned full = 0; full < 2; full++) {
		struct rig *rig = rig_ready(four_two, 5, 4 * SEGMENT);
		struct command command;
		uint32_t bytes = rig_shard_bytes(rig, 0);
		for (unsigned i = 0; !rig->vault->meta.fold_point; i++)
			rig_write(rig, i % 2, i / 2 % (i % 2 ? 20 : 48), RECORD_DATA, 0);
		rig_settle(rig);
		lose(rig, 4);
		for (unsigned i = 0; i < 300; i++)
			rig_write(rig, 0, i % 4, RECORD_DATA, 0);
		rig_settle(rig);
		begin_held(rig, &command);
		images_hold = true;
		for (bool lacking = false; !lacking;) {
			rig_write(rig, 0, rig->lsn % 4, RECORD_DATA, 0);
			memcpy(shards, rig->shard, (size_t)RIG_STORES_MAX * bytes);
			for (unsigned i = 0; i < 5; i++)
				rig_turn(rig);
			lacking =
				!ranges_contains(store_held(rig->vault->store[4].store), rig->lsn);
		}
		for (unsigned i = 0; i < 2 && !full; i++)
			assert_int_equal(rig_damage(rig, i, shards + i * bytes, bytes), 1);
		rig->full_err = -ENOSPC;
		rig->full = full ? 1u << 4 : 0;
		peers_hold = false;
		ns_t since = rig->now;
		while (command.result == 1) {
			assert_true(rig->now - since < 100 * NS_PER_S);
			if (rig->lsn + 1 < rig->vault->base + rig->vault->arriving_count)
				rig_write(rig, 0, rig->lsn % 4, RECORD_DATA, 0);
			else
				rig_turn(rig);
		}
		assert_int_equal(command.result, full ? -ENOSPC : -ENODATA);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rebuild),
		cmocka_unit_test(test_rebuild_live),
		cmocka_unit_test(test_refused_at_once),
		cmocka_unit_test(test_second_order),
		cmocka_unit_test(test_old_operations_come_back),
		cmocka_unit_test(test_not_proven),
		cmocka_unit_test(test_prepared_only),
		cmocka_unit_test(test_alone_and_never_filled),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_slow_superblock),
		cmocka_unit_test(test_earlier_try),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_fold_that_does_not_end),
		cmocka_unit_test(test_behind),
		cmocka_unit_test(test_into_service_behind),
		cmocka_unit_test(test_given_up_while_copied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
