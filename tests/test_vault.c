/* SPDX-License-Identifier: Apache-2.0 */
/* A vault with real stores in memory: which version of a block counts and who has it, promotion and
 * its refusals, reads over every loss of up to m stores, damage, repair and refill. */
#include "vault_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ALL = 0x3f, SEGMENT = 256 * 1024 };
static const struct geometry four_two = {4, 2};

/* ---- which version counts ---- */
enum { OLD = 1000, NEW = 2000 };
static void slots_damage(struct rig *rig, uint32_t stores)
{
	for (unsigned i = 0; i < RIG_STORES_MAX; i++) {
		struct rig_file *slots = rig_file(rig, rig->config.store[i].files.slots[0]);
		for (uint64_t at = 64; stores >> i & 1 && at < slots->length; at += PAGE_BYTES)
			slots->bytes[at] ^= 1;
	}
}

static void test_find(void **state)
{
	static const struct {
		unsigned number;
		uint32_t old, new, damaged;
		uint8_t kind;
		lsn_t limit;
		uint32_t mask;
		int result;
		lsn_t lsn;
		uint32_t holders;
	} rows[] = {
		{1, 0, 0, 0, RECORD_DATA, NEW, ALL, -ENOENT, 0, 0},
		{2, 0x3f, 0, 0, RECORD_DATA, NEW, ALL, 0, OLD, 0x3f},
		{3, 0x3f, 0x0f, 0, RECORD_DATA, NEW, ALL, 0, NEW, 0x0f},
		/* a newer version with fewer than k holders hides the older one */
		{4, 0x3f, 0x07, 0, RECORD_DATA, NEW, ALL, -ENODATA, 0, 0},
		{5, 0x3f, 0x20, 0, RECORD_DATA, NEW, ALL, -ENODATA, 0, 0},
		{6, 0x3f, 0x07, 0, RECORD_DATA, NEW - 1, ALL, 0, OLD, 0x3f},
		{7, 0x3c, 0, 0, RECORD_DATA, NEW, ALL, 0, OLD, 0x3c},
		{8, 0x38, 0, 0, RECORD_DATA, NEW, ALL, -ENODATA, 0, 0},
		{9, 0x3f, 0, 0, RECORD_DATA, NEW, 0x1e, 0, OLD, 0x1e},
		{10, 0x3f, 0, 0, RECORD_DATA, NEW, 0x1c, -ENODATA, 0, 0},
		{11, 0, 0, 0, RECORD_DATA, NEW, 0, -ENODATA, 0, 0},
		/* without payload one holder is enough */
		{12, 0x3f, 0x20, 0, RECORD_ZERO, NEW, ALL, 0, NEW, 0x20},
		{13, 0x3f, 0x01, 0, RECORD_DISCARD, NEW, ALL, 0, NEW, 0x01},
		/* a damaged header is not "never written" */
		{14, 0, 0, 0x01, RECORD_DATA, NEW, ALL, -ENOENT, 0, 0},
		{15, 0, 0, 0x03, RECORD_DATA, NEW, ALL, -ENOENT, 0, 0},
		{16, 0, 0, 0x07, RECORD_DATA, NEW, ALL, -ENODATA, 0, 0},
		{17, 0, 0, 0x3f, RECORD_DATA, NEW, ALL, -ENODATA, 0, 0},
		{18, 0x3c, 0, 0x03, RECORD_DATA, NEW, ALL, 0, OLD, 0x3c},
		{19, 0, 0x20, 0x03, RECORD_ZERO, NEW, ALL, 0, NEW, 0x20},
		{20, 0, 0x20, 0x07, RECORD_ZERO, NEW, ALL, -ENODATA, 0, 0},
		{21, 0x3f, 0, 0x3f, RECORD_DATA, NEW, ALL, 0, OLD, 0x3f},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_new(four_two, 5, SEGMENT);
		slots_damage(rig, rows[i].damaged);
		rig_start(rig, ALL);
		rig_open_span(rig);
		rig_seal(rig, 0, 9, RECORD_DATA, 5, OLD);
		rig_append(rig, rows[i].old, -1);
		rig_seal(rig, 0, 9, rows[i].kind, 6, NEW);
		rig_append(rig, rows[i].new, -1);
		struct record record;
		uint32_t holders;
		int result = gather_find(rig->vault, 0, 9, rows[i].limit, rows[i].mask, &record,
					 &holders);
		bool as_told =
			result == rows[i].result &&
			(result || (record.lsn == rows[i].lsn && holders == rows[i].holders));
		if (!as_told)
			fail_msg("row %u: result %d, lsn %llu, holders %#x", rows[i].number, result,
				 result ? 0 : (unsigned long long)record.lsn, holders);
		rig_free(rig);
	}
}

/* ---- promotion ---- */
static void test_promote_refuses(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_PROMOTE};
	rig_write_some(rig, 60);

	memcpy(command.key, rig->key, sizeof rig->key);
	command.key[1][3] ^= 1;
	assert_int_equal(rig_command(rig, &command), -EKEYREJECTED);
	assert_non_null(strstr(command.text, "volume vol1 (nothing is damaged)"));
	assert_int_equal(command.key[0][0], 0);
	assert_false(rig->vault->fenced);

	rig->tools.link.linked = true;
	assert_int_equal(rig_promote(rig, &command, true), -EBUSY);
	assert_non_null(strstr(command.text, "systemctl stop casemated"));
	assert_int_equal(rig->vault->state, VAULT_READY);
	rig_write(rig, 0, 1, RECORD_DATA, 0); /* nothing was fenced */
	rig_settle(rig);
	assert_int_equal(rig->vault->durable, rig->lsn);

	rig->tools.link.peer_bye = true;
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(command.number[0], rig->lsn);
	assert_int_equal(command.number[2], 0);
	assert_int_equal(rig->vault->state, VAULT_SERVING);
	assert_int_equal(rig->vault->meta.promoted, 2);
	const struct span *newest = spans_newest(&rig->vault->meta.spans);
	assert_int_equal(newest->generation, 2);
	assert_int_equal(newest->parent_last, rig->lsn);
	assert_int_equal(newest->first, rig->lsn + 1);
	assert_int_equal(rig_compare(rig), 0);
	assert_int_equal(rig_promote(rig, &command, false), -EALREADY);
	assert_int_equal(rig_compare(rig), 0); /* the keys in use were not wiped */

	/* Restarted, it waits for the key, and then serves the same point and generation. */
	rig_stop(rig);
	rig_start(rig, 0x2f);
	assert_int_equal(rig->vault->state, VAULT_PROMOTING);
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(rig->vault->meta.promoted, 2);
	assert_int_equal(rig->vault->serve_point, rig->lsn);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

/* Stores 0-2 and 4-5 have one more record: it may have been acknowledged. */
static void test_promote_not_proven(void **state)
{
	static const struct {
		unsigned number;
		uint32_t present;
		int result;
		unsigned text_missing;
	} rows[] = {
		{1, 0x3f, 0, 0}, /* five have it: it is the consistent point */
		{2, 0x1f, 0, 0}, /* four still */
		{3, 0x0f, -ENODATA,
		 1} /* three: it cannot be served, and may have been acknowledged */
	};
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	rig_write_some(rig, 30);
	rig->vault->refill.pause_until = NS_NEVER; /* what is behind stays so until the restart */
	rig_seal(rig, 0, 0, RECORD_DATA, 77, rig->lsn + 1);
	rig_append(rig, 0x37, -1);
	rig_stop(rig);
	rig_save(rig);
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct command command;
		rig_load(rig);
		rig_start(rig, rows[i].present);
		int result = rig_promote(rig, &command, false);
		if (result != rows[i].result)
			fail_msg("row %u: %d, %s", rows[i].number, result, command.text);
		bool lost = rows[i].text_missing;
		assert_int_equal(command.number[0], rig->lsn + !lost);
		assert_int_equal(command.number[1], rig->lsn + 1);
		if (!lost) {
			rig_stop(rig);
			continue;
		}
		assert_non_null(strstr(command.text, "not proven"));
		assert_non_null(strstr(command.text, "bring stores 4,5 back"));
		assert_non_null(strstr(command.text, "--accept-loss"));
		assert_int_equal(rig->vault->state, VAULT_READY);
		assert_false(rig->vault->fenced);
		assert_true(rig_promote(rig, &command, true) == 0);
		assert_int_equal(rig_compare(rig), 0);
		rig_stop(rig);
	}
	rig_free(rig);
}

static void test_promote_lost(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 60);
	rig_stop(rig);
	rig_save(rig);

	/* m + 1 stores are gone at the start: refused, with the list of what is lost. */
	rig_start(rig, 0x0d);
	assert_int_equal(rig->vault->state, VAULT_REFUSED);
	assert_int_equal(rig_promote(rig, &command, false), -ENODEV);
	assert_non_null(strstr(command.text, "missing: 1,4,5"));
	assert_non_null(strstr(command.text, "blocks lost: vol0 block"));
	assert_true(command.number[3] > 20);
	assert_int_equal(rig->vault->state, VAULT_REFUSED);

	/* They go while the vault runs. */
	rig_stop(rig);
	rig_load(rig);
	rig_start(rig, ALL);
	for (uint8_t i = 0; i < 3; i++) {
		command = (struct command){.kind = COMMAND_STORE_LOST, .store = i};
		assert_int_equal(rig_command(rig, &command), 0);
	}
	assert_int_equal(rig_promote(rig, &command, false), -ENODATA);
	assert_non_null(strstr(command.text, "bring stores 0,1,2 back"));
	assert_non_null(strstr(command.text, "blocks lost: vol0 block"));
	assert_null(strstr(command.text, "--accept-loss"));
	assert_int_equal(rig_promote(rig, &command, true), -ENODATA); /* zeros are not served */
	assert_int_equal(rig->vault->state, VAULT_READY);
	rig_free(rig);
}

/* Headers in the journals of three stores are damaged: what they named was acknowledged. */
static void test_promote_damage(void **state)
{
	static const struct {
		unsigned number;
		uint32_t damaged;
		int result;
	} rows[] = {{1, 0x01, 0}, {2, 0x24, 0}, {3, 0x0e, -ENODATA}, {4, 0x3f, -ENODATA}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command command;
		rig_write_some(rig, 9);
		rig_write(rig, 0, 30, RECORD_DATA, 0);
		rig_settle(rig);
		uint32_t bytes = rig_shard_bytes(rig, 0);
		for (unsigned s = 0; s < 6; s++)
			if (rows[i].damaged >> s & 1)
				rig_damage_header(rig, s, rig->shard + s * bytes, bytes);
		for (unsigned more = 0; more < 3; more++) {
			rig_write(rig, 0, 31, RECORD_DATA, 0);
			rig_settle(rig);
		}
		rig_stop(rig);
		rig_start(rig, ALL);
		int result = rig_promote(rig, &command, false);
		if (result != rows[i].result)
			fail_msg("row %u: %d, %s", rows[i].number, result, command.text);
		if (result == 0)
			assert_int_equal(rig_compare(rig), 0);
		else
			assert_int_equal(command.number[1], rig->lsn);
		rig_free(rig);
	}
}

/* ---- reading, over every loss of up to m stores ---- */
static void read_pieces(struct rig *rig)
{
	static const struct {
		uint8_t volume;
		uint64_t offset;
		uint32_t length;
	} rows[] = {{0, 0, 1},
		    {0, 16383, 2},
		    {0, 4095, 16386},
		    {1, 5000, 100000},
		    {1, 32768 * 3, 32768},
		    {0, 1, 48 * 16384 - 2},
		    {0, 0, 48 * 16384},
		    {1, 32768 * 19 + 1, 32767}};
	static uint8_t want[48 * 16384], data[48 * 16384 + PAGE_BYTES];
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		uint8_t volume = rows[i].volume;
		uint32_t bytes = rig_block_bytes(rig, volume);
		for (uint64_t at = 0; at < rig->config.volume[volume].size; at += bytes)
			rig_plain(rig->seed[volume][at / bytes], want + at, bytes);
		memset(data, 0xee, sizeof data);
		assert_int_equal(rig_read(rig, volume, rows[i].offset, rows[i].length, data + 64),
				 0);
		if (memcmp(data + 64, want + rows[i].offset, rows[i].length) != 0)
			fail_msg("row %u differs", i);
		assert_int_equal(data[63], 0xee);
		assert_int_equal(data[64 + rows[i].length], 0xee);
	}
}

static void test_serve_losses(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	unsigned patterns = 0;
	rig->shuffle = true;
	rig_write_some(rig, 400); /* enough that a part is folded */
	assert_true(rig->vault->meta.fold_point > 0);
	assert_true(rig->vault->meta.fold_point < rig->lsn);
	rig_stop(rig);
	rig_save(rig);
	for (uint32_t lost = 0; lost < 64; lost++) {
		if (__builtin_popcount(lost) > 2)
			continue;
		rig_load(rig);
		rig_start(rig, ALL & ~lost);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(command.number[0], rig->lsn);
		assert_int_equal(rig_compare(rig), 0);
		assert_int_equal(rig->vault->decoded > 0, (lost & 0x0f) != 0);
		if (__builtin_popcount(lost) == 2 && patterns++ % 5 == 0)
			read_pieces(rig);
		rig_stop(rig);
	}
	rig_free(rig);
}

static void test_serve_kinds(void **state)
{
	static const struct {
		uint8_t kind;
		int result;
	} rows[] = {{REQUEST_WRITE, -EROFS}, {REQUEST_ZERO, -EROFS}, {REQUEST_DISCARD, -EROFS},
		    {REQUEST_FLUSH, 0},	     {REQUEST_CACHE, 0},     {REQUEST_STATUS, 0}};
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	uint8_t data[16];
	rig_write_some(rig, 10);
	assert_int_equal(rig_read(rig, 0, 0, 16, data), -EIO); /* not promoted */
	assert_int_equal(rig_promote(rig, &command, false), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct extent extent = {0};
		struct request request = {.kind = rows[i].kind,
					  .export = RIG_EXPORT_FIRST,
					  .length = 4096,
					  .extent = &extent,
					  .extent_count = 1};
		effects_init(&rig->fx, rig->now, 0);
		vault_request(rig->vault, &request, &rig->fx);
		assert_ptr_equal(request_list_pop(&rig->fx.replies), &request);
		assert_int_equal(request.result, rows[i].result);
		if (rows[i].kind == REQUEST_STATUS)
			assert_int_equal(extent.length, 4096);
	}
	rig_free(rig);
}

/* ---- shards that are bad, or lie ---- */
static void test_bad_shards(void **state)
{
	static const struct {
		unsigned number;
		uint32_t damaged; /* their shard does not sum up */
		int liar;	  /* its sum is right, its bytes are not */
		unsigned unequal;
	} rows[] = {{1, 0, -1, 0},    {2, 0x01, -1, 0}, {3, 0x0c, -1, 0}, {4, 0x30, -1, 0},
		    {5, 0x13, -1, 1}, {6, 0, 0, 0},	{7, 0, 3, 0},	  {8, 0, 5, 0},
		    {9, 0x10, 1, 0},  {10, 0x20, 4, 0}, {11, 0x30, 1, 1}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_ready(four_two, 5, SEGMENT);
		struct command command;
		rig_write_some(rig, 5);
		rig_seal(rig, 1, 12, RECORD_DATA, 99, ++rig->lsn);
		rig_append(rig, ALL, rows[i].liar);
		rig->seed[1][12] = 99;
		uint32_t bytes = rig_shard_bytes(rig, 1);
		for (unsigned s = 0; s < 6; s++)
			if (rows[i].damaged >> s & 1)
				assert_int_equal(rig_damage(rig, s, rig->shard + s * bytes, bytes),
						 1);
		/* One more, so that this is below the synced mark: damage, not a torn write. */
		rig_seal(rig, 0, 3, RECORD_ZERO, 0, ++rig->lsn);
		rig_append(rig, ALL, -1);
		rig->seed[0][3] = 0;
		rig_stop(rig);
		rig_start(rig, ALL);
		assert_int_equal(rig_promote(rig, &command, false), 0);
		unsigned unequal = rig_compare(rig);
		if (unequal != rows[i].unequal)
			fail_msg("row %u: %u blocks unequal", rows[i].number, unequal);
		uint8_t *data = calloc(1, 32768);
		int result = rig_read(rig, 1, 12 * 32768, 32768, data);
		if (result != (rows[i].unequal ? -EIO : 0))
			fail_msg("row %u: %d", rows[i].number, result);
		free(data);
		rig_free(rig);
	}
}

/* ---- scrub ---- */
static void test_scrub(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_SCRUB};
	const uint64_t folded = 41; /* written first and not again */
	rig_write(rig, 0, folded, RECORD_DATA, 0);
	lsn_t folded_lsn = rig->lsn;
	rig_write_some(rig, 400);
	uint32_t small = rig_shard_bytes(rig, 0);
	rig_write(rig, 0, 44, RECORD_DATA, 0);
	unsigned journal = 0;
	rig_settle(rig);
	journal += rig_damage(rig, 2, rig->shard + 2 * small, small);
	journal += rig_damage(rig, 5, rig->shard + 5 * small, small);
	assert_int_equal(journal, 2);
	/* A slot of the image, and a whole page of slot headers: known after a restart. */
	assert_true(rig->vault->meta.fold_point >= folded_lsn);
	rig_file(rig, rig->config.store[1].files.image[0])->bytes[folded * small + 9] ^= 1;
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 3);
	assert_int_equal(command.number[2], 3);
	assert_int_equal(command.number[3], 0);
	rig_settle(rig);
	rig_stop(rig);
	slots_damage(rig, 0x08);
	rig_start(rig, ALL);
	command = (struct command){.kind = COMMAND_SCRUB};
	assert_int_equal(rig_command(rig, &command), 0);
	assert_true(command.number[1] > 5 && command.number[1] == command.number[2]);
	rig_stop(rig);
	rig_start(rig, ALL);
	command = (struct command){.kind = COMMAND_SCRUB};
	assert_int_equal(rig_command(rig, &command), 0);
	assert_int_equal(command.number[1], 0);
	/* What was repaired is right: it serves where others are gone. */
	rig_stop(rig);
	rig_start(rig, 0x2e);
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

static void test_scrub_lost(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command = {.kind = COMMAND_SCRUB};
	rig_write_some(rig, 10);
	uint32_t bytes = rig_shard_bytes(rig, 0);
	for (uint64_t block = 41; block < 43; block++) {
		rig_write(rig, 0, block, RECORD_DATA, 0);
		rig_settle(rig);
		for (unsigned s = 1; s < 4; s++)
			assert_int_equal(rig_damage(rig, s, rig->shard + s * bytes, bytes), 1);
	}
	assert_int_equal(rig_command(rig, &command), -ENODATA);
	assert_string_equal(command.text, "lost: vol0 41, vol0 42");
	assert_int_equal(command.number[1], 6);
	assert_int_equal(command.number[2], 0);
	assert_int_equal(command.number[3], 2);
	rig_free(rig);
}

/* ---- stores that are behind ---- */
static void test_refill(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 40);
	rig->vault->refill.pause_until = NS_NEVER; /* what is behind stays so until the restart */
	/* Store 3 misses the newest records, store 0 one in the middle. */
	lsn_t first = rig->lsn + 1;
	for (unsigned i = 0; i < 50; i++) {
		uint8_t kind = i % 10 == 9 ? RECORD_ZERO : RECORD_DATA;
		rig_seal(rig, 0, i % 48, kind, 1000 + i, ++rig->lsn);
		rig->seed[0][i % 48] = kind == RECORD_ZERO ? 0 : 1000 + i;
		rig_append(rig, i == 20 ? 0x36 : 0x37, -1);
	}
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_true(rig->vault->state == VAULT_READY);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(rig->vault->store[i].floor, rig->lsn);
	assert_int_equal(rig->vault->refill.filled, 51);
	assert_int_equal(rig->vault->durable, rig->lsn);
	assert_true(first < rig->lsn);
	rig_stop(rig);
	rig_start(rig, 0x1e); /* what was filled in is right */
	assert_int_equal(rig_promote(rig, &command, false), 0);
	assert_int_equal(command.number[0], rig->lsn);
	assert_int_equal(rig_compare(rig), 0);
	rig_free(rig);
}

/* A shard that lies among those that it would be computed from: it is told by the block's own sum,
 * and what is filled in is right. With no other shard to go by nothing is filled in. */
static void test_refill_liar(void **state)
{
	static const struct {
		unsigned number;
		uint32_t holders;
		int liar;
		bool filled;
	} rows[] = {{1, 0x1f, -1, true}, {2, 0x1f, 1, true},  {3, 0x1f, 4, true},
		    {4, 0x0f, -1, true}, {5, 0x0f, 2, false}, {6, 0x17, 4, false}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct rig *rig = rig_ready(four_two, 4, SEGMENT);
		rig_write_some(rig, 20);
		rig->vault->refill.pause_until = NS_NEVER; /* until the restart */
		rig_seal(rig, 0, 5, RECORD_DATA, 1, ++rig->lsn);
		rig_append(rig, rows[i].holders, rows[i].liar);
		uint32_t bytes = rig->record.shard_bytes;
		uint32_t sum = crc32c(rig->shard + 5 * bytes, bytes);
		rig_seal(rig, 0, 6, RECORD_ZERO, 0, ++rig->lsn);
		rig_append(rig, ALL, -1);
		rig_stop(rig);
		rig_start(rig, ALL);
		struct record record;
		lsn_t lsn = rig->lsn - 1;
		int found = store_find_lsn(rig->vault->store[5].store, lsn, &record);
		if (found != (rows[i].filled ? 0 : -ENOENT))
			fail_msg("row %u: %d", rows[i].number, found);
		if (!found && record.shard_crc != sum)
			fail_msg("row %u: what is filled in is wrong", rows[i].number);
		rig_free(rig);
	}
}

/* docs/protocol.md "Points, loss and resending": a record of which the shards do not add up to the
 * block is not stored, and not called received; it is taken when it comes as it should. */
static void test_receive_sum(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	rig_write_some(rig, 5);
	lsn_t lsn = ++rig->lsn;
	rig_seal(rig, 0, 9, RECORD_DATA, 77, lsn);
	uint32_t bytes = rig->record.shard_bytes;
	for (unsigned again = 0; again < 2; again++) {
		struct wire_shard shard = {.record = rig->record, .cut_bytes = bytes};
		rig->shard[3 * bytes + 17] ^= again ? 0 : 0x20;
		for (unsigned i = 0; i < 4; i++) {
			shard.record.shard = (uint8_t)i;
			vault_shard_received(rig->vault, &shard, rig->shard + i * bytes, bytes,
					     &rig->fx);
		}
		rig->shard[3 * bytes + 17] ^= again ? 0 : 0x20;
		rig_settle(rig);
		struct record record;
		assert_int_equal(rig->vault->crc_failed, 1);
		assert_int_equal(rig->vault->received, again ? lsn : lsn - 1);
		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(store_find_lsn(rig->vault->store[i].store, lsn, &record),
					 again ? 0 : -ENOENT);
	}
	rig_free(rig);
}

static void test_refill_unreadable(void **state)
{
	struct rig *rig = rig_ready(four_two, 5, SEGMENT);
	rig_write_some(rig, 20);
	uint32_t bytes = rig_shard_bytes(rig, 0);
	rig->vault->refill.pause_until = NS_NEVER; /* what is behind stays so until the restart */
	rig_seal(rig, 0, 5, RECORD_DATA, 1, ++rig->lsn);
	rig_append(rig, 0x1f, -1);
	for (unsigned s = 0; s < 2; s++)
		assert_int_equal(rig_damage(rig, s, rig->shard + s * bytes, bytes), 1);
	rig_seal(rig, 0, 6, RECORD_DATA, 2, ++rig->lsn);
	rig_append(rig, 0x1f, -1);
	rig_stop(rig);
	rig_start(rig, ALL);
	assert_true(rig->vault->refill.unreadable >= 1);
	assert_int_equal(rig->vault->store[5].floor, rig->lsn - 2);
	rig_write(rig, 0, 7, RECORD_DATA, 0); /* refused: no span is open */
	rig->now += 6 * NS_PER_S;
	rig_settle(rig);
	assert_true(rig->vault->refill.filled == 1); /* the other one was */
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_promote_refuses),
		cmocka_unit_test(test_promote_not_proven),
		cmocka_unit_test(test_promote_lost),
		cmocka_unit_test(test_promote_damage),
		cmocka_unit_test(test_serve_losses),
		cmocka_unit_test(test_serve_kinds),
		cmocka_unit_test(test_bad_shards),
		cmocka_unit_test(test_scrub),
		cmocka_unit_test(test_scrub_lost),
		cmocka_unit_test(test_refill),
		cmocka_unit_test(test_refill_liar),
		cmocka_unit_test(test_receive_sum),
		cmocka_unit_test(test_refill_unreadable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
