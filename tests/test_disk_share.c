/* SPDX-License-Identifier: Apache-2.0 */
/* How disks share a ring: alone each has all of it, together each its part, and the one that never
 * finishes anything keeps nobody from his. */
#include "drive/disk_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { SLOTS = 12, OPERATIONS = 64 };

static struct disk_share share;
static struct io io[OPERATIONS];
static unsigned io_count;

static int setup(void **state)
{
	disk_share_init(&share, SLOTS);
	io_count = 0;
	return 0;
}

static void wait_many(unsigned number, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		io[io_count] = (struct io){.file = (uint16_t)number};
		disk_share_wait(&share, number, &io[io_count++]);
	}
}

/* How many of each share may go now. */
static unsigned go(unsigned gone[], unsigned shares)
{
	unsigned count = 0;
	for (unsigned i = 0; i < shares; i++)
		gone[i] = 0;
	while (disk_share_ready(&share)) {
		const struct io *next = disk_share_next(&share);
		assert_non_null(next);
		gone[next->file]++;
		count++;
	}
	assert_null(disk_share_next(&share));
	return count;
}

static void one_disk_has_all(void **state)
{
	unsigned gone[1];
	assert_int_equal(disk_share_open(&share, 77), 0);
	assert_int_equal(disk_share_open(&share, 77), 0);
	wait_many(0, 20);
	assert_int_equal(go(gone, 1), SLOTS);
	disk_share_done(&share, 0);
	assert_int_equal(go(gone, 1), 1);
}

static void each_has_its_part(void **state)
{
	unsigned gone[3];
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(disk_share_open(&share, 100 + i), i);
	wait_many(1, 20); /* hangs */
	assert_int_equal(go(gone, 3), SLOTS / 3);
	for (unsigned round = 0; round < 4; round++) {
		wait_many(0, 4);
		wait_many(2, 4);
		assert_int_equal(go(gone, 3), 2 * SLOTS / 3);
		assert_int_equal(gone[1], 0);
		for (unsigned i = 0; i < SLOTS / 3; i++) {
			disk_share_done(&share, 0);
			disk_share_done(&share, 2);
		}
	}
	disk_share_done(&share, 1);
	assert_int_equal(go(gone, 3), 1);
	assert_int_equal(gone[1], 1);
}

/* The oldest of each, one disk after the other. */
static void disks_take_turns(void **state)
{
	disk_share_open(&share, 5);
	disk_share_open(&share, 6);
	wait_many(0, 3);
	wait_many(1, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(disk_share_next(&share), &io[i]);
		assert_ptr_equal(disk_share_next(&share), &io[3 + i]);
	}
}

static void who_has_gone_leaves_his_part(void **state)
{
	unsigned gone[2];
	disk_share_open(&share, 5);
	disk_share_open(&share, 6);
	disk_share_open(&share, 6);
	disk_share_close(&share, 1);
	wait_many(0, SLOTS);
	assert_int_equal(go(gone, 2), SLOTS / 2);
	disk_share_close(&share, 1);
	assert_int_equal(go(gone, 2), SLOTS / 2);
	assert_int_equal(disk_share_open(&share, 9), 1);
}

static void more_disks_than_shares(void **state)
{
	unsigned gone[DISK_SHARES_MAX];
	for (unsigned i = 0; i < DISK_SHARES_MAX + 8; i++)
		assert_int_equal(disk_share_open(&share, 1000 + i),
				 min_u64(i, DISK_SHARES_MAX - 1));
	/* More than slots: each has one all the same. */
	for (unsigned i = 0; i < DISK_SHARES_MAX; i += 4)
		wait_many(i, 2);
	assert_int_equal(go(gone, DISK_SHARES_MAX), DISK_SHARES_MAX / 4);
	for (unsigned i = 0; i < 9; i++)
		disk_share_close(&share, DISK_SHARES_MAX - 1);
	assert_int_equal(disk_share_open(&share, 1), DISK_SHARES_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(one_disk_has_all, setup),
		cmocka_unit_test_setup(each_has_its_part, setup),
		cmocka_unit_test_setup(disks_take_turns, setup),
		cmocka_unit_test_setup(who_has_gone_leaves_his_part, setup),
		cmocka_unit_test_setup(more_disks_than_shares, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
