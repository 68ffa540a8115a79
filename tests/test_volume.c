/* SPDX-License-Identifier: Apache-2.0 */
/* What a store is made of on disk: its images have their space from the start, and where the file
 * system cannot hold it that is said, once. The directory is real, fallocate is of glass. */
#include "volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- a file system of glass ---- */
static int fallocate_err;
static unsigned held_count;
static uint64_t held_bytes[8];
static atomic_bool cancel;
static unsigned cancel_at; /* the so many-th file that is given space */

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	assert_int_equal(mode, 0);
	assert_int_equal(offset, 0);
	if (fallocate_err) {
		errno = fallocate_err;
		return -1;
	}
	assert_true(held_count < ARRAY_COUNT(held_bytes));
	held_bytes[held_count++] = (uint64_t)length;
	if (held_count == cancel_at)
		atomic_store(&cancel, true);
	return 0;
}

/* ---- a store of two volumes ---- */
static const struct config_group group = {
	.name = "group0",
	.geometry = {2, 1},
	.quorum = 2,
	.journal_bytes = 8 * MIB,
	.volume_count = 2,
	.volume = {{.name = "vol0", .size = 8 * MIB, .block_bytes = 65536},
		   {.name = "vol1", .size = 2 * MIB, .block_bytes = 8192}},
};

static unsigned entries(const char *path)
{
	unsigned count = 0;
	DIR *directory = opendir(path);
	for (struct dirent *entry; directory && (entry = readdir(directory));)
		count += entry->d_name[0] != '.';
	if (directory)
		closedir(directory);
	return count;
}

static void remove_all(const char *root)
{
	static const char *const names[] = {
		"superblock", "journal", "image-vol0", "slots-vol0", "image-vol1",
		"slots-vol1", ""};
	char path[PATH_MAX];
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
		snprintf(path, sizeof path, "%s/0/%s", root, names[i]);
		remove(path);
	}
	assert_int_equal(rmdir(root), 0);
}

static void test_space(void **state)
{
	static const struct {
		int number, err;
		int result;
		const char *says;
		unsigned files;
	} rows[] = {
		{1, 0, 0, "", 6},
		{2, EOPNOTSUPP, 0, "image-vol0", 6},
		{3, ENOSYS, 0, "image-vol0", 6},
		{4, ENOSPC, -ENOSPC, "image-vol0: No space left", 0},
		{5, EDQUOT, -EDQUOT, "image-vol0: Disk quota exceeded", 0},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char root[] = "/tmp/casemate-volume-XXXXXX", directory[64], why[256];
		assert_non_null(mkdtemp(root));
		snprintf(directory, sizeof directory, "%s/0", root);
		fallocate_err = rows[i].err;
		held_count = 0;
		int result = volume_store_format(&group,
						 &(struct volume_store){.directory = directory,
									.set = {{1}},
									.incarnation = 2},
						 why, sizeof why);
		if (result != rows[i].result || !strstr(why, rows[i].says) ||
		    entries(directory) != rows[i].files)
			fail_msg("row %d: %d \"%s\"", rows[i].number, result, why);
		assert_null(strstr(why, "vol1"));
		if (!rows[i].err) {
			assert_string_equal(why, "");
			assert_int_equal(held_count, 3);
			assert_int_equal(held_bytes[0], 4 * MIB);
			assert_int_equal(held_bytes[1], MIB);
			assert_int_equal(held_bytes[2], 8 * MIB);
		}
		remove_all(root);
	}
}

/* Wherever it is when it is told: it ceases, and nothing is left. */
/* A block device that has gone left its log with the site's state; it is not made anew as a file.
 */
static void test_lost_device(void **state)
{
	char root[] = "/tmp/casemate-volume-XXXXXX", device[PATH_MAX], log[PATH_MAX],
	     path[PATH_MAX];
	char why[VOLUME_WHY_BYTES];
	assert_non_null(mkdtemp(root));
	snprintf(device, sizeof device, "%s/device", root);
	snprintf(log, sizeof log, "%s/group0.intent", root);
	struct config *config = calloc(1, sizeof *config);
	config->site_count = 2;
	config->site[0].state = root;
	config->group_count = 1;
	config->group[0] = group;
	config->group[0].vault = 1;
	config->group[0].key = "file:/nowhere";
	config->group[0].volume[0].device[0] = config->group[0].volume[1].device[0] = device;

	volume_intent_path(config, &config->group[0], path);
	assert_memory_equal(path, device, strlen(device));
	assert_int_equal(close(open(log, O_CREAT | O_WRONLY, 0600)), 0);
	volume_intent_path(config, &config->group[0], path);
	assert_string_equal(path, log);
	assert_int_equal(volume_create(config, "vol0", &cancel, why, sizeof why), -EEXIST);
	assert_non_null(strstr(why, "group0.intent is there"));
	assert_int_not_equal(access(device, F_OK), 0);
	assert_int_equal(close(open(device, O_CREAT | O_WRONLY, 0600)), 0); /* a file now */
	volume_intent_path(config, &config->group[0], path);
	assert_memory_equal(path, device, strlen(device));
	free(config);
	remove(device);
	remove(log);
	assert_int_equal(rmdir(root), 0);
}

static void test_cancel(void **state)
{
	static const struct {
		int number;
		bool before; /* told before it begins */
		unsigned at;
		unsigned held; /* files that were given space */
	} rows[] = {
		{1, true, 0, 0},
		{2, false, 1, 1}, /* the image of vol0, then its slots */
		{3, false, 2, 2},
		{4, false, 3, 3}, /* the journal, before its zeros */
	};
	fallocate_err = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char root[] = "/tmp/casemate-volume-XXXXXX", directory[64], why[256];
		assert_non_null(mkdtemp(root));
		snprintf(directory, sizeof directory, "%s/0", root);
		held_count = 0;
		cancel_at = rows[i].at;
		atomic_store(&cancel, rows[i].before);
		int result = volume_store_format(&group,
						 &(struct volume_store){.directory = directory,
									.set = {{1}},
									.incarnation = 2,
									.cancel = &cancel},
						 why, sizeof why);
		if (result != -ECANCELED || held_count != rows[i].held || entries(directory))
			fail_msg("row %d: %d \"%s\", %u held", rows[i].number, result, why,
				 held_count);
		remove_all(root);
	}
	cancel_at = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_space),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_lost_device),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
