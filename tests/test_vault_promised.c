/* SPDX-License-Identifier: Apache-2.0 */
/* What was acknowledged is told by every batch and superblock that came later: a vault whose
 * damaged journals, or superblocks, hold less than that proves nothing, and takes no primary
 * (docs/semantics.md "promotion"). */
#include "vault_rig.h"

#include "core/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEGMENT = 256 * 1024 };

/* The last write was to the first volume: its shards rot, in the last batch of the journals. */
static void last_write_rots(struct rig *rig, uint32_t stores)
{
	uint32_t bytes = rig_shard_bytes(rig, 0);
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		if (stores >> i & 1)
			assert_int_equal(rig_damage(rig, i, rig->shard + i * bytes, bytes), 1);
}

static void segment_is_wiped(struct rig *rig, uint32_t stores)
{
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		if (stores >> i & 1)
			memset(rig_file(rig, rig->config.store[i].files.journal)->bytes + SEGMENT,
			       0, SEGMENT);
}

static void superblock_rots(struct rig *rig, uint32_t stores)
{
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++) {
		uint8_t *bytes = rig_file(rig, rig->config.store[i].files.superblock)->bytes;
		const struct disk_superblock *first = (const void *)bytes;
		const struct disk_superblock *second =
			(const void *)(bytes + STORE_SUPERBLOCK_BYTES);
		if (stores >> i & 1)
			bytes[(second->sequence > first->sequence) * STORE_SUPERBLOCK_BYTES + 99] ^=
				1;
	}
}

static void test_less_than_was_promised(void **state)
{
	static const struct {
		unsigned number;
		struct geometry geometry;
		uint8_t quorum;
		uint32_t damaged;
		bool starts;  /* once more before the damage */
		bool goes_on; /* in another span */
		void (*damage)(struct rig *, uint32_t stores);
	} rows[] = {
		{1, {4, 2}, 5, 0x07, true, false, last_write_rots},
		{2, {1, 1}, 2, 0x03, true, false, last_write_rots},
		{3, {4, 2}, 5, 0x07, false, false, segment_is_wiped},
		{4, {1, 1}, 2, 0x03, false, true, segment_is_wiped},
		{5, {1, 1}, 2, 0x03, false, true, superblock_rots},
		{6, {4, 2}, 5, 0x3f, false, true, superblock_rots},
	};
	for (unsigned row = 0; row < ARRAY_COUNT(rows); row++) {
		struct rig *rig = rig_ready(rows[row].geometry, rows[row].quorum, SEGMENT);
		uint32_t all = (1u << geometry_n(rig->geometry)) - 1;
		struct command command;
		unsigned count = 0;
		uint32_t batch = PAGE_BYTES + rig_shard_bytes(rig, 0);
		for (unsigned room = 5 * SEGMENT / 2 / batch; room; room--) {
			if (rows[row].goes_on && room == 10)
				rig_open_span(rig);
			rig_write(rig, 0, count++ % 40, RECORD_DATA, 0);
			rig_settle(rig);
		}
		assert_int_equal(rig->vault->meta.fold_point, 0);
		assert_int_equal(rig->vault->acknowledged_durable, rig->lsn);
		rig_stop(rig);
		if (rows[row].starts) {
			rig_start(rig, all);
			rig_settle(rig);
			rig_stop(rig);
		}
		rows[row].damage(rig, rows[row].damaged);
		rig_start(rig, all);
		if (rig->vault->proof.proven)
			fail_msg("row %u: proven up to lsn %llu of %llu", rows[row].number,
				 (unsigned long long)rig->vault->consistent,
				 (unsigned long long)rig->lsn);
		rig_choose_span(rig);
		struct wire_open open = {.span = rig->span};
		vault_open_received(rig->vault, &open, &rig->fx);
		rig_settle(rig);
		assert_false(rig->vault->span_accepted);
		assert_int_not_equal(rig_promote(rig, &command, false), 0);
		/* A batch does not know yet what becomes of itself. */
		assert_true(command.number[1] + 1 >= rig->lsn);
		assert_true(command.number[0] < command.number[1]);
		rig_free(rig);
	}
}

static int superblocks_stand(struct rig *rig, const struct io *io)
{
	bool superblock = false;
	for (unsigned i = 0; i < geometry_n(rig->geometry); i++)
		superblock |= io->file == rig->config.store[i].files.superblock;
	return superblock && io->kind != IO_READ && io->kind != IO_SYNC ? RIG_HANGS : 0;
}

/* What a start knows may be known to one store alone, until it is recorded on w of them. */
static void test_not_told_before_it_is_recorded(void **state)
{
	struct rig *rig = rig_ready((struct geometry){4, 2}, 5, SEGMENT);
	for (unsigned i = 0; i < 20; i++) {
		rig_write(rig, 0, i, RECORD_DATA, 0);
		rig_settle(rig);
	}
	rig_stop(rig);
	rig_begin(rig, 0x3f);
	rig->fate = superblocks_stand;
	for (unsigned i = 0; i < 200; i++)
		rig_turn(rig);
	const struct store *store = rig->vault->store[0].store;
	assert_int_equal(rig->vault->state, VAULT_READY);
	assert_int_equal(rig->vault->durable, rig->lsn);
	assert_int_equal(store_promised(store).lsn, rig->lsn - 1);
	rig->fate = NULL;
	rig_settle(rig);
	rig_open_span(rig);
	rig_write_some(rig, 2);
	assert_true(store_promised(store).lsn >= rig->lsn - 1);
	rig_free(rig);
}

/* With fewer than w stores nothing is durable; what was acknowledged is so still, and no span
 * leaves it out. */
static void test_span_below_the_promise(void **state)
{
	for (unsigned catches_up = 0; catches_up < 2; catches_up++) {
		struct rig *rig = rig_ready((struct geometry){4, 2}, 5, SEGMENT);
		for (unsigned i = 0; i < 40; i++)
			rig_write(rig, 0, i, RECORD_DATA, 0);
		rig_settle(rig);
		rig_stop(rig);
		rig_start(rig, 0x3f);
		rig_stop(rig);
		rig_start(rig, 0x0f);
		assert_true(rig->vault->proof.proven);
		rig->catch_up = catches_up;
		rig_choose_span(rig);
		struct wire_open open = {.span = rig->span};
		open.span.parent_last = catches_up ? rig->lsn - 1 : 10;
		for (unsigned i = 0; i < 3; i++) {
			vault_open_received(rig->vault, &open, &rig->fx);
			rig_settle(rig);
		}
		assert_false(rig->vault->span_accepted);
		open.span.parent_last = rig->lsn;
		for (unsigned i = 0; i < 3; i++) {
			vault_open_received(rig->vault, &open, &rig->fx);
			rig_settle(rig);
		}
		assert_true(rig->vault->span_accepted);
		rig_free(rig);
	}
}

/* A site that was promoted, and is started again, has lost nothing on the way. */
static void test_promoted_twice(void **state)
{
	struct rig *rig = rig_ready((struct geometry){4, 2}, 5, SEGMENT);
	struct command command;
	rig_write_some(rig, 20);
	rig_open_span(rig);
	lsn_t last = 0;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig_promote(rig, &command, false), 0);
		assert_int_equal(command.number[0], command.number[1]);
		assert_true(!last || last == command.number[0]);
		last = command.number[0];
		rig_stop(rig);
		rig_start(rig, 0x3f);
	}
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_less_than_was_promised),
		cmocka_unit_test(test_not_told_before_it_is_recorded),
		cmocka_unit_test(test_span_below_the_promise),
		cmocka_unit_test(test_promoted_twice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
