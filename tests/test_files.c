/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that lose their names: the core hears of each of them, once, however full its queue of
 * orders is when that is seen. The files and the ring are real, the lane is of glass. */
#include "engine.h"
#include "volume.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { STORES = 3 };

/* ---- a lane of glass ---- */
static unsigned room;
static struct command *told[STORES + 1];
static unsigned told_count;

bool lane_command(struct lane *lane, struct command *command)
{
	if (told_count == room)
		return false;
	assert_true(told_count < ARRAY_COUNT(told));
	told[told_count++] = command;
	return true;
}

ns_t engine_now(void)
{
	return NS_PER_S;
}

/* ---- stores of one volume ---- */
static struct config config;
static char directory[STORES][64];

static uint16_t file_of(struct engine *engine, unsigned index, enum volume_store_file kind,
			const char *volume)
{
	char path[PATH_MAX];
	bool buffered;
	volume_store_path(directory[index], kind, volume, path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	int file = disk_file_open(engine->disk, path, 0, &buffered);
	assert_true(file >= 0);
	return (uint16_t)file;
}

static void files_remove(unsigned index)
{
	for (unsigned kind = STORE_SUPERBLOCK; kind <= STORE_SLOTS; kind++) {
		char path[PATH_MAX];
		volume_store_path(directory[index], kind, kind >= STORE_IMAGE ? "vol0" : NULL,
				  path);
		unlink(path);
	}
	rmdir(directory[index]);
}

static struct engine *engine_of(const char *root)
{
	struct engine *engine = calloc(1, sizeof *engine);
	config.group_count = 1;
	config.group[0].volume_count = 1;
	config.group[0].name = "vol0";
	config.group[0].volume[0].name = "vol0";
	engine->config = &config;
	engine->disk = disk_new(8);
	assert_non_null(engine->disk);
	for (unsigned i = 0; i < STORES; i++) {
		struct engine_store *store = &engine->store[0][i];
		snprintf(directory[i], sizeof directory[i], "%s/%u", root, i);
		assert_int_equal(mkdir(directory[i], 0700), 0);
		config.group[0].store[0][i] = directory[i];
		store->files.superblock = file_of(engine, i, STORE_SUPERBLOCK, NULL);
		store->files.journal = file_of(engine, i, STORE_JOURNAL, NULL);
		store->files.image[0] = file_of(engine, i, STORE_IMAGE, "vol0");
		store->files.slots[0] = file_of(engine, i, STORE_SLOTS, "vol0");
		store->open = true;
	}
	return engine;
}

static void test_full_queue(void **state)
{
	char root[] = "/tmp/casemate-files-XXXXXX";
	assert_non_null(mkdtemp(root));
	struct engine *engine = engine_of(root);
	files_watch(engine);
	assert_int_equal(told_count, 0);
	files_remove(0);
	files_remove(2);
	files_watch(engine);
	assert_int_equal(told_count, 0);
	for (room = 1; room <= STORES; room++) {
		files_watch(engine);
		files_watch(engine);
		assert_int_equal(told_count, min_u64(room, 2));
	}
	assert_int_equal(told[0]->kind, COMMAND_STORE_LOST);
	assert_int_equal(told[0]->store, 0);
	assert_int_equal(told[1]->store, 2);
	files_remove(1);
	rmdir(root);
	disk_free(engine->disk);
	free(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_queue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
