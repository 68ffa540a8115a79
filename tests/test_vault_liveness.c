/* SPDX-License-Identifier: Apache-2.0 */
/* A vault that goes on: while a store that was away is filled, when a record cannot be read for
 * one, and while a store is rebuilt, always with a primary that sends as much as it may. */
#include "vault_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024, READS_EVERY = 600, NOT_YET = 1 };
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

static void load_until_answered(struct rig *rig, const struct command *command)
{
	for (unsigned turns = 0; command->result == NOT_YET; turns++) {
		assert_true(turns < 80000);
		load_turn(rig);
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

/* Prepared, and the files made; to be given. */
static struct command rebuild_order(struct rig *rig, uint8_t store)
{
	struct command command = {.kind = COMMAND_REBUILD_PREPARE, .store = store};
	assert_int_equal(rig_command(rig, &command), 0);
	command.kind = COMMAND_REBUILD;
	command.files = rig_format_anew(rig, store, command.incarnation);
	return command;
}

static bool reads_image(const struct rig *rig, const struct io *io)
{
	bool image = false;
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		for (unsigned volume = 0; volume < RIG_VOLUMES; volume++)
			image |= io->file == rig->config.store[i].files.image[volume];
	return image && io->kind == IO_READ;
}

static int images_read_slowly(struct rig *rig, const struct io *io)
{
	return reads_image(rig, io) ? reads_slowly(rig, io) : 0;
}

/* What was read is older by the time it can be written. */
static int images_read_in_folds(struct rig *rig, const struct io *io)
{
	return reads_image(rig, io) && !rig->vault->folding ? RIG_HANGS : 0;
}

/* All fold on while an image is copied: more is written than the journals hold. */
static void test_folds_beside_a_rebuild(void **state)
{
	static int (*const fates[])(struct rig *, const struct io *) = {images_read_slowly,
									images_read_in_folds};
	for (unsigned i = 0; i < ARRAY_COUNT(fates); i++) {
		struct rig *rig = rig_of(ALL);
		load_goes_on(rig, 400, "before");
		lose(rig, 2);
		load_goes_on(rig, 100, "without it");
		struct command command = rebuild_order(rig, 2);
		rig->fate = fates[i];
		command.result = NOT_YET;
		effects_init(&rig->fx, rig->now, 0);
		vault_command(rig->vault, &command, &rig->fx);
		lsn_t from = rig->vault->meta.fold_point;
		load_until_answered(rig, &command);
		if (command.result)
			fail_msg("%s", command.text);
		assert_true(command.number[0] > 0 && command.number[0] < RIG_BLOCKS_MAX + 20);
		assert_true(rig->vault->meta.fold_point > from + (i ? 0 : 500));
		rig->config.store[2].files = command.files;
		equal_without(rig, 0x11);
	}
}

static void test_rebuild_under_load(void **state)
{
	static const unsigned missed[] = {0, 40, 120};
	for (unsigned i = 0; i < ARRAY_COUNT(missed); i++) {
		struct rig *rig = rig_of(ALL);
		load_goes_on(rig, 300, "before");
		lose(rig, 2);
		load_goes_on(rig, missed[i], "without it");
		struct command command = rebuild_order(rig, 2);
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

static void ignored(struct store_append *append, int result, struct effects *fx) {}

/* Puts records that are far ahead into the journal, as crashes could leave it, until it has room
 * for no more than so many others. */
static void fill_journal(struct rig *rig, unsigned store, uint64_t room)
{
	static struct store_append append[1024];
	struct store *full = rig->vault->store[store].store;
	rig_seal(rig, 0, 1, RECORD_DATA, 7, rig->lsn + 10000);
	/* Each settled by itself, so that batches do not share their headers. */
	for (unsigned count = 0; store_journal_room(full) > room; count++) {
		append[count] = (struct store_append){.record = rig->record, .done = ignored};
		append[count].record.shard = (uint8_t)store;
		append[count].record.lsn += count;
		append[count].shard = rig->shard + store * rig_shard_bytes(rig, 0);
		assert_int_equal(store_append(full, &append[count]), 0);
		rig_settle(rig);
	}
}

/* One of the others has less room: what is whole on enough stores to be read stays in memory for
 * it, and only a fold could give it room. */
static void test_rebuild_beside_a_full_store(void **state)
{
	static const unsigned rooms[] = {0, 2, 8, 20};
	for (unsigned i = 0; i < ARRAY_COUNT(rooms); i++) {
		struct rig *rig = rig_of(ALL);
		char when[32];
		snprintf(when, sizeof when, "room for %u", rooms[i]);
		load_goes_on(rig, 300, "before");
		lose(rig, 2);
		load_goes_on(rig, 40, "without it");
		struct command command = rebuild_order(rig, 2);
		rig->config.store[2].files = command.files;
		fill_journal(rig, 4, rooms[i]);
		command.result = NOT_YET;
		rig->fate = reads_slowly;
		effects_init(&rig->fx, rig->now, 0);
		vault_command(rig->vault, &command, &rig->fx);
		load_until_answered(rig, &command);
		if (command.result)
			fail_msg("%s: %d %s", when, command.result, command.text);
		load_goes_on(rig, 1000, when);
		/* What is in its journal no fold takes out: where that leaves too little it is out.
		 */
		assert_int_equal(vault_in_service(rig->vault) | 0x10, ALL);
		equal_without(rig, 0x11);
	}
}

/* A promotion that gave up what waited for room: all that can be read is brought to a new store. */
static void test_rebuild_after_a_loss(void **state)
{
	struct rig *rig = rig_of(ALL);
	struct command command;
	load_goes_on(rig, 100, "before");
	lose(rig, 2);
	fill_journal(rig, 4, 0);
	for (unsigned turns = 0; turns < 5000; turns++)
		load_turn(rig);
	lsn_t complete = rig->vault->complete;
	assert_true(complete > rig->vault->base);
	assert_int_equal(rig_promote(rig, &command, false), -ETIMEDOUT);
	assert_int_equal(rig_promote(rig, &command, true), 0);
	assert_int_equal(command.number[0], complete);
	command = rebuild_order(rig, 2);
	rig->config.store[2].files = command.files;
	if (rig_command(rig, &command))
		fail_msg("%s", command.text);
	assert_true(rig->vault->store[2].floor >= complete);
	lose(rig, 1);
	for (uint64_t block = 0; block < RIG_BLOCKS_MAX; block++) {
		static uint8_t data[BLOCK_BYTES_MAX];
		uint32_t bytes = rig_block_bytes(rig, 0);
		assert_int_equal(rig_read(rig, 0, block * bytes, bytes, data), 0);
	}
	rig_free(rig);
}

/* How many others have a superblock that says so. */
static unsigned recorded_out(struct rig *rig, unsigned store)
{
	unsigned count = 0;
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++) {
		bool out = false;
		const struct rig_file *file = rig_file(rig, rig->config.store[i].files.superblock);
		for (unsigned copy = 0; copy < 2; copy++) {
			static struct store_group group;
			const uint8_t *at = file->bytes + copy * STORE_SUPERBLOCK_BYTES;
			out |= store_superblock_decode(at, &group, NULL, NULL, NULL, NULL, NULL,
						       NULL) == 0 &&
			       group.out >> store & 1;
		}
		count += out && i != store;
	}
	return count;
}

/* ---- what a store cannot be given ---- */
/* Fewer than k of the shards of one record can be read, long after it became durable: those that
 * lack it would hold the fold for ever. */
static void test_unreadable_under_load(void **state)
{
	static const struct {
		unsigned number;
		uint8_t quorum;
		uint32_t away, damaged, out;
	} rows[] = {{1, 5, 0x20, 0x03, 0x20}, {2, 4, 0x30, 0x04, 0x30}, {3, 6, 0x20, 0x03, 0}};
	static uint8_t shards[RIG_STORES_MAX * BLOCK_BYTES_MAX];
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_new(four_two, rows[i].quorum, SEGMENT);
		rig->config.window_bytes = 1;
		rig_start(rig, ALL & ~rows[i].away);
		rig_open_span(rig);
		for (unsigned more = 0; more < 60; more++)
			load_turn(rig);
		rig_write(rig, 0, 45, RECORD_DATA, 0);
		lsn_t lsn = rig->lsn;
		uint32_t bytes = rig_shard_bytes(rig, 0);
		memcpy(shards, rig->shard, (size_t)RIG_STORES_MAX * bytes);
		load_turn(rig);
		rig_settle(rig);
		rig_stop(rig);
		rig->fate = reads_slowly;
		rig_start(rig, ALL);
		for (unsigned s = 0; s < RIG_STORES_MAX; s++)
			if (rows[i].damaged >> s & 1)
				assert_int_equal(rig_damage(rig, s, shards + s * bytes, bytes), 1);
		rig_open_span(rig);
		if (!rows[i].out) {
			for (unsigned turns = 0; turns < 30000; turns++)
				load_turn(rig);
			assert_int_equal(rig->vault->store[5].floor, lsn - 1);
			assert_non_null(strstr(rig->last_note, "too few other stores"));
			assert_int_equal(vault_in_service(rig->vault), ALL);
			rig_free(rig);
			continue;
		}
		load_goes_on(rig, 600, "a record is lost");
		assert_int_equal(vault_in_service(rig->vault), ALL & ~rows[i].out);
		for (unsigned s = 0; s < RIG_STORES_MAX; s++)
			if (rows[i].out >> s & 1)
				assert_true(recorded_out(rig, s) >= rows[i].quorum);
		equal_without(rig, rows[i].out);
	}
}

/* A journal full of what comes after what it lacks, as crashes could leave it. */
static void test_no_room_for_what_is_lacking(void **state)
{
	struct rig *rig = rig_of(ALL);
	fill_journal(rig, 4, 0);
	load_goes_on(rig, 600, "no room");
	assert_int_equal(vault_in_service(rig->vault), 0x2f);
	assert_true(recorded_out(rig, 4) >= 5);
	equal_without(rig, 0x10);
}

/* ---- disks that do not answer ---- */
enum { ANY = 0, IN_JOURNAL, IN_SUPERBLOCK, IN_IMAGE, IN_SLOTS, READING };
static struct {
	uint32_t stores;
	unsigned where;
	bool begun, ended;
	int late;	 /* what comes of it in the end */
	unsigned spares; /* places for shards before it began */
} hang;

static bool hangs_there(const struct rig *rig, const struct io *io, unsigned store)
{
	const struct store_files *files = &rig->config.store[store].files;
	bool image = io->file == files->image[0] || io->file == files->image[1];
	bool slots = io->file == files->slots[0] || io->file == files->slots[1];
	const bool there[] = {[ANY] = true,
			      [IN_JOURNAL] = io->file == files->journal,
			      [IN_SUPERBLOCK] = io->file == files->superblock,
			      [IN_IMAGE] = image,
			      [IN_SLOTS] = slots,
			      [READING] = io->kind == IO_READ};
	return rig_is_of(rig, io->file, store) && there[hang.where];
}

static int hanging(struct rig *rig, const struct io *io)
{
	for (unsigned i = 0; hang.begun && i < geometry_n(rig->geometry); i++)
		if (hang.stores >> i & 1 && hangs_there(rig, io, i))
			return hang.ended ? hang.late : RIG_HANGS;
	return 0;
}

/* Under load until they are out. Nothing is acknowledged without them that is not recorded. */
static void load_until_out(struct rig *rig, uint32_t stores)
{
	lsn_t before = rig->vault->acknowledged_durable;
	for (unsigned turns = 0; vault_in_service(rig->vault) & stores; turns++) {
		if (turns == 60000)
			fail_msg("still in service: %#x", vault_in_service(rig->vault) & stores);
		before = rig->vault->acknowledged_durable;
		load_turn(rig);
	}
	for (unsigned turns = 0; rig->vault->acknowledged_durable <= before; turns++) {
		assert_true(turns < 1000);
		load_turn(rig);
	}
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		if (stores >> i & 1)
			assert_true(recorded_out(rig, i) >= rig->config.quorum);
}

static struct rig *rig_with_hang(struct geometry geometry, uint8_t quorum, uint32_t stores,
				 unsigned where)
{
	struct rig *rig = rig_new(geometry, quorum, SEGMENT);
	hang.stores = stores;
	hang.where = where;
	hang.begun = hang.ended = false;
	hang.late = 0;
	rig->config.window_bytes = 1;
	rig->fate = hanging;
	rig_start(rig, (1u << geometry_n(geometry)) - 1);
	rig_open_span(rig);
	load_goes_on(rig, 200, "before");
	hang.begun = true;
	hang.spares = rig->vault->spare.count;
	return rig;
}

/* The disk comes back after a while, well or not: its store stays out, and can be rebuilt. */
static void comes_back(struct rig *rig, unsigned store)
{
	struct command command;
	hang.ended = true;
	load_goes_on(rig, 100, "come back");
	assert_int_equal(rig->hanging_count, 0);
	assert_int_equal(rig->vault->spare.count, hang.spares);
	assert_false(rig->vault->store[store].in_service);
	hang.begun = false;
	rig_settle(rig);
	command = rebuild_order(rig, (uint8_t)store);
	if (rig_command(rig, &command) != 0)
		fail_msg("rebuild: %s", command.text);
	rig->config.store[store].files = command.files;
	load_goes_on(rig, 100, "rebuilt");
	assert_true(rig->vault->store[store].in_service);
}

static void test_hang(void **state)
{
	static const struct {
		unsigned number, where;
		int late;
	} rows[] = {{1, ANY, 0},	   {2, ANY, -EIO},	  {3, IN_JOURNAL, 0},
		    {4, IN_JOURNAL, -EIO}, {5, IN_SUPERBLOCK, 0}, {6, IN_IMAGE, 0},
		    {7, IN_SLOTS, -EIO},   {8, READING, 0}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_with_hang(four_two, 5, 1u << 2, rows[i].where);
		char when[32];
		snprintf(when, sizeof when, "row %u", rows[i].number);
		ns_t since = rig->now;
		load_until_out(rig, 1u << 2);
		assert_true(rig->now - since > 10 * NS_PER_S);
		load_goes_on(rig, 500, when);
		hang.late = rows[i].late;
		comes_back(rig, 2);
		equal_without(rig, 0x09);
	}
}

/* As many as acknowledgements do not need; another one fails for good, with writes that hang. */
static void test_hang_of_more(void **state)
{
	struct rig *rig = rig_with_hang(four_two, 4, 0x12, ANY);
	load_until_out(rig, 0x12);
	load_goes_on(rig, 500, "without two");
	comes_back(rig, 4);
	comes_back(rig, 1);
	equal_without(rig, 0x24);

	rig = rig_with_hang(four_two, 5, 0x08, IN_JOURNAL);
	load_turn(rig);
	lose(rig, 3);
	load_goes_on(rig, 500, "lost with writes under way");
	comes_back(rig, 3);
	equal_without(rig, 0x03);
}

/* Nobody is out when too few would be left, or when all stood still together. */
static void test_hang_of_too_many(void **state)
{
	static const struct {
		unsigned number;
		struct geometry geometry;
		uint8_t quorum;
		uint32_t stores;
	} rows[] = {{1, {4, 2}, 5, 0x21},
		    {2, {4, 2}, 5, ALL},
		    {3, {4, 2}, 6, 0x01},
		    {4, {1, 1}, 2, 0x02}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig =
			rig_with_hang(rows[i].geometry, rows[i].quorum, rows[i].stores, ANY);
		uint32_t all = (1u << geometry_n(rows[i].geometry)) - 1;
		for (unsigned turns = 0; turns < 20000; turns++)
			load_turn(rig);
		lsn_t durable = rig->vault->acknowledged_durable;
		assert_true(durable < rig->lsn);
		assert_int_equal(vault_in_service(rig->vault), all);
		assert_non_null(strstr(rig->last_note, "too few other stores"));
		hang.ended = true;
		load_goes_on(rig, 300, "all answer again");
		assert_int_equal(vault_in_service(rig->vault), all);
		rig_free(rig);
	}
	/* The lane itself stood still. */
	struct rig *rig = rig_with_hang(four_two, 5, 0x02, ANY);
	load_turn(rig);
	rig->now += 60 * NS_PER_S;
	load_turn(rig);
	hang.ended = true;
	load_goes_on(rig, 300, "awake");
	assert_int_equal(vault_in_service(rig->vault), ALL);
	rig_free(rig);
}

/* Reads of a promoted vault, a scrub and a rebuild go on without the disk, too. */
static void test_hang_of_reads(void **state)
{
	struct command command;
	struct rig *rig = rig_with_hang(four_two, 5, 0x01, READING);
	hang.begun = false;
	assert_int_equal(rig_promote(rig, &command, false), 0);
	hang.begun = true;
	assert_int_equal(rig_compare(rig), 0);
	assert_int_equal(vault_in_service(rig->vault), 0x3e);
	assert_int_equal(rig_compare(rig), 0);
	hang.ended = true;
	rig_settle(rig);
	assert_int_equal(rig->hanging_count, 0);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);

	rig = rig_with_hang(four_two, 5, 0x10, READING);
	command = (struct command){.kind = COMMAND_SCRUB};
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(vault_in_service(rig->vault), 0x2f);
	load_goes_on(rig, 500, "scrubbed");
	comes_back(rig, 4);
	equal_without(rig, 0x03);
}

/* The disk of a store that is being rebuilt: the others fold on, and may be rebuilt themselves. */
static void test_hang_of_a_rebuild(void **state)
{
	static const struct {
		unsigned number, where;
		bool opening;
	} rows[] = {{1, ANY, false},	  {2, IN_JOURNAL, false}, {3, IN_SUPERBLOCK, false},
		    {4, IN_IMAGE, false}, {5, ANY, true},	  {6, IN_SUPERBLOCK, true},
		    {7, READING, true}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_with_hang(four_two, 4, 0x08, rows[i].where);
		struct command command, other;
		hang.begun = false;
		lose(rig, 3);
		command = rebuild_order(rig, 3);
		command.result = NOT_YET;
		rig->config.store[3].files = command.files;
		hang.begun = rows[i].opening;
		effects_init(&rig->fx, rig->now, 0);
		vault_command(rig->vault, &command, &rig->fx);
		while (!rows[i].opening && !rig->vault->store[3].rebuilding)
			load_turn(rig);
		hang.begun = true;
		load_until_answered(rig, &command);
		assert_true(command.result < 0);
		assert_true(rig->hanging_count > 0);
		load_goes_on(rig, 1500, "a rebuild hangs");
		assert_int_equal(vault_in_service(rig->vault), 0x37);
		other = (struct command){.kind = COMMAND_REBUILD_PREPARE, .store = 3};
		assert_int_equal(rig_command(rig, &other), -ETIMEDOUT);
		lose(rig, 1);
		other = rebuild_order(rig, 1);
		assert_int_equal(rig_command(rig, &other), 0);
		rig->config.store[1].files = other.files;
		assert_int_equal(vault_in_service(rig->vault), 0x37);
		comes_back(rig, 3);
		equal_without(rig, 0x30);
	}
}

/* A disk that does not answer at the start. */
static void test_hang_of_a_start(void **state)
{
	static const struct {
		unsigned number, where;
		uint32_t stores;
		bool starts;
	} rows[] = {{1, READING, 0x04, true},
		    {2, ANY, 0x21, true},
		    {3, IN_JOURNAL, 0x10, true},
		    {4, ANY, 0x07, false}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_with_hang(four_two, 4, rows[i].stores, rows[i].where);
		hang.begun = false;
		rig_settle(rig);
		rig_stop(rig);
		hang.begun = true;
		ns_t since = rig->now;
		rig_begin(rig, ALL);
		for (unsigned turns = 0; turns < 70000; turns++)
			rig_turn(rig);
		if (rows[i].starts) {
			assert_int_equal(rig->vault->state, VAULT_READY);
			assert_int_equal(vault_in_service(rig->vault), ALL & ~rows[i].stores);
			rig_open_span(rig);
			load_goes_on(rig, 300, "started without");
		} else {
			assert_int_equal(rig->vault->state, VAULT_OPENING);
			assert_non_null(strstr(rig->last_note, "too few other stores"));
			assert_true(rig->now - since > 60 * NS_PER_S);
		}
		hang.ended = true;
		rig_settle(rig);
		assert_int_equal(rig->hanging_count, 0);
		assert_int_equal(vault_in_service(rig->vault),
				 rows[i].starts ? ALL & ~rows[i].stores : ALL);
		hang.begun = false;
		if (!rows[i].starts)
			rig_open_span(rig);
		rig_stop(rig);
		rig_start(rig, ALL);
		assert_true(rig->vault->proof.proven);
		equal_without(rig, 0);
	}
}

/* ---- a catch-up that does not fit ---- */
/* All that the journals take of one; nothing of it counts. */
static void catch_up_too_much(struct rig *rig)
{
	rig->catch_up = true;
	rig_open_span(rig);
	lsn_t first = rig->lsn, base = 0;
	for (unsigned standing = 0; standing < 3000; standing++) {
		load_turn(rig);
		if (rig->vault->base > base)
			standing = 0;
		base = rig->vault->base;
	}
	assert_true(rig->lsn - first > 100 && rig->vault->unfinished > 0);
}

static bool stalled(struct rig *rig)
{
	static struct group_status status;
	vault_status(rig->vault, &status);
	return strcmp(status.state, "stalled") == 0;
}

/* It says so once, the old point stays, and another primary is greeted all the same. */
static void test_catch_up_too_large(void **state)
{
	struct rig *rig = rig_of(ALL);
	load_goes_on(rig, 40, "before");
	rig_settle(rig);
	lsn_t point = rig->lsn;
	assert_int_equal(rig->vault->consistent, point);
	for (unsigned primaries = 0; primaries < 3; primaries++) {
		rig->last_note[0] = 0;
		catch_up_too_much(rig);
		assert_non_null(strstr(rig->last_note, "does not fit the journals of 2 MiB"));
		assert_true(stalled(rig));
		rig->last_note[0] = 0;
		for (unsigned turns = 0; turns < 5000; turns++)
			load_turn(rig);
		assert_int_equal(rig->last_note[0], 0);
		assert_int_equal(rig->vault->consistent, point);
	}
	rig->catch_up = false;
	rig_open_span(rig);
	assert_false(stalled(rig));
	for (uint8_t volume = 0; volume < RIG_VOLUMES; volume++)
		for (uint64_t block = 0; block < (volume ? 20 : RIG_BLOCKS_MAX); block++) {
			rig_write(rig, volume, block, RECORD_DATA, 0);
			rig_settle(rig);
		}
	load_goes_on(rig, 500, "after it");
	equal_without(rig, 0x21);
}

/* One that takes a while is no such thing. */
static void test_catch_up_that_fits(void **state)
{
	struct rig *rig = rig_of(ALL);
	load_goes_on(rig, 300, "before");
	rig_settle(rig);
	lsn_t point = rig->lsn;
	rig->last_note[0] = 0;
	rig->catch_up = true;
	rig->fate = reads_slowly;
	rig_open_span(rig);
	for (unsigned block = 0; block < 40; block++) {
		rig_write(rig, 0, block, RECORD_DATA, 0);
		for (unsigned turns = 0; turns < 200; turns++)
			rig_turn(rig);
	}
	assert_null(strstr(rig->last_note, "does not fit"));
	assert_false(stalled(rig));
	assert_int_equal(rig->vault->durable, rig->lsn);
	assert_int_equal(rig->vault->consistent, point);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_catch_up_too_large),
		cmocka_unit_test(test_catch_up_that_fits),
		cmocka_unit_test(test_hang),
		cmocka_unit_test(test_hang_of_more),
		cmocka_unit_test(test_hang_of_too_many),
		cmocka_unit_test(test_hang_of_reads),
		cmocka_unit_test(test_hang_of_a_rebuild),
		cmocka_unit_test(test_hang_of_a_start),
		cmocka_unit_test(test_unreadable_under_load),
		cmocka_unit_test(test_no_room_for_what_is_lacking),
		cmocka_unit_test(test_refill_under_load),
		cmocka_unit_test(test_rebuild_under_load),
		cmocka_unit_test(test_folds_beside_a_rebuild),
		cmocka_unit_test(test_rebuild_beside_a_full_store),
		cmocka_unit_test(test_rebuild_after_a_loss),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
