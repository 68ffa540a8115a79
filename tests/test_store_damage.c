/* SPDX-License-Identifier: Apache-2.0 */
/* A store whose disk has lost what it held: what is gone is told. */
#include "store_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- segments of the journal ---- */

static void segment_lost(struct rig *rig, unsigned segment, int content)
{
	static uint8_t bytes[SEGMENT_BYTES];

	memset(bytes, content, sizeof bytes);
	for (unsigned at = 0; content < 0 && at < sizeof bytes; at++)
		bytes[at] = (uint8_t)fake_disk_random(&rig->disk);
	fake_disk_poke(&rig->disk, RIG_JOURNAL, (uint64_t)segment * SEGMENT_BYTES, bytes,
		       sizeof bytes);
}

/* Each record in a batch of its own: five to a segment. */
static void fill(struct rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(rig_append(rig, RECORD_DATA, 1, rig->lsn % 47), 0);
		rig_settle(rig);
	}
}

static const struct gone {
	int number;
	unsigned folds; /* of ten records each, before */
	unsigned segment, count;
	int content; /* -1: random bytes */
	uint64_t damage;
} gones[] = {
	{1, 0, 0, 1, 0, 1},  {2, 0, 1, 1, 0, 1},  {3, 0, 1, 1, 0xff, 1},
	{4, 0, 2, 1, -1, 1}, {5, 0, 1, 2, 0, 1}, /* of the first of two nobody is left to tell */
	{6, 1, 2, 1, -1, 1}, {7, 1, 3, 1, 0, 1},  {8, 2, 5, 1, 0, 1},
	{9, 2, 0, 1, -1, 1}, {10, 2, 4, 1, 0, 1}, {11, 0, 4, 2, 0xff, 0}, /* these were free */
	{12, 2, 2, 2, 0, 0},
};

static void test_segment_gone(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(gones); i++) {
		const struct gone *row = &gones[i];
		struct rig *rig = rig_fresh(i);
		for (unsigned fold = 0; fold < row->folds; fold++) {
			fill(rig, 10);
			rig_fold(rig, rig->lsn);
		}
		lsn_t folded = rig->lsn;
		fill(rig, 18);
		rig_crash(rig);
		for (unsigned n = 0; n < row->count; n++)
			segment_lost(rig, row->segment + n, row->content);
		rig_reopen(rig);
		if (store_damage_count(rig->store) != row->damage ||
		    store_lost_records(rig->store) != (row->damage > 0))
			fail_msg("row %d: damage %llu", row->number,
				 (unsigned long long)store_damage_count(rig->store));
		/* Peers give it back, and then it is over. */
		for (lsn_t lsn = folded + 1; lsn <= rig->lsn; lsn++)
			if (!ranges_contains(store_held(rig->store), lsn))
				assert_int_equal(rig_append_lsn(rig, lsn), 0);
		rig_settle(rig);
		rig_fold(rig, rig->lsn);
		rig_crash(rig);
		rig_reopen(rig);
		if (store_damage_count(rig->store))
			fail_msg("row %d: damage after a fold", row->number);
		rig_check(rig, UINT64_MAX);
		rig_free(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segment_gone),
	};

	return cmocka_run_group_tests_name("store_damage", tests, NULL, NULL);
}
