/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that hangs, with as many operations in flight as there can be, beside one that is well:
 * the other goes on. The one that hangs is a file system of the test's own. */
#include "drive/disk.h"
#include "fuse_file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { ENTRIES = 128, HANGING = 2 * ENTRIES, FILE_BYTES = 1 << 20, ROUNDS = 20 };

static struct {
	char directory[64], path[80];
	struct fuse_file *fuse;
	struct disk *disk;
	uint16_t hung, well;
	uint8_t *memory;
	struct io hanging[HANGING], other[4];
	unsigned hanging_left;
} rig;

static ns_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (ns_t)t.tv_sec * NS_PER_S + (ns_t)t.tv_nsec;
}

static uint16_t opened(const char *path)
{
	bool buffered;
	int file = disk_file_open(rig.disk, path, FILE_BYTES, &buffered);
	if (file < 0)
		fail_msg("%s: %d", path, file);
	return (uint16_t)file;
}

static int setup(void **state)
{
	snprintf(rig.directory, sizeof rig.directory, "./casemate-test-hang-XXXXXX");
	if (!mkdtemp(rig.directory))
		return -1;
	snprintf(rig.path, sizeof rig.path, "%s.well", rig.directory);
	rig.fuse = fuse_file_new(rig.directory, FILE_BYTES);
	rig.memory = aligned_alloc(PAGE_BYTES, 2 * PAGE_BYTES);
	return rig.memory ? 0 : -1;
}

static int teardown(void **state)
{
	fuse_file_free(rig.fuse);
	rmdir(rig.directory);
	unlink(rig.path);
	free(rig.memory);
	return 0;
}

static void begin(void)
{
	char path[80];

	if (!rig.fuse) {
		print_message("no file system of our own: no /dev/fuse, or not root\n");
		skip();
	}
	int descriptor = open(rig.path, O_CREAT | O_EXCL | O_RDWR, 0600);
	assert_true(descriptor >= 0);
	assert_int_equal(ftruncate(descriptor, FILE_BYTES), 0);
	close(descriptor);
	rig.disk = disk_new(ENTRIES);
	assert_non_null(rig.disk);
	snprintf(path, sizeof path, "%s/file", rig.directory);
	rig.hung = opened(path);
	rig.well = opened(rig.path);
}

/* What completes in the meantime; the operation waited for, or NULL for those that hang. */
static bool completed(const struct io *wanted, ns_t within)
{
	ns_t until = now() + within;
	struct completion completion[16];
	bool seen = false;

	while (!seen && now() < until) {
		unsigned count = disk_reap(rig.disk, completion, ARRAY_COUNT(completion));
		for (unsigned i = 0; i < count; i++) {
			seen |= completion[i].io == wanted;
			rig.hanging_left -= completion[i].io != wanted;
			assert_true(completion[i].result >= 0);
		}
		seen |= !wanted && !rig.hanging_left;
		if (!count)
			disk_wait(rig.disk, 10 * NS_PER_MS);
	}
	return seen;
}

static void submit(struct io *io)
{
	struct io_list list = {0};
	io_list_push(&list, io);
	disk_submit(rig.disk, &list);
}

static void hang(const enum io_kind *kind, unsigned kinds)
{
	fuse_file_hang(rig.fuse);
	for (unsigned i = 0; i < HANGING; i++) {
		struct io *io = &rig.hanging[i];
		*io = (struct io){.kind = (uint8_t)kind[i % kinds], .file = rig.hung};
		if (io->kind != IO_SYNC) {
			io->length = PAGE_BYTES;
			io->single = (struct iovec){rig.memory, PAGE_BYTES};
			io->piece = &io->single;
			io->piece_count = 1;
		}
		submit(io);
	}
	rig.hanging_left = HANGING;
	/* All that the kernel wants to hand over is with the disk when nothing more comes. */
	ns_t until = now() + 10 * NS_PER_S;
	for (unsigned seen = 0, same = 0; same < 20 && now() < until;) {
		assert_false(completed(&rig.other[0], 10 * NS_PER_MS));
		same = fuse_file_hung(rig.fuse) == seen ? same + 1 : 0;
		seen = fuse_file_hung(rig.fuse);
	}
	print_message("%u of %u have come to the disk that hangs\n", fuse_file_hung(rig.fuse),
		      HANGING);
	assert_true(fuse_file_hung(rig.fuse) > 0);
}

/* Each kind that a store uses; a sync is handed to a worker on every file system. */
static void others_go_on(void)
{
	static const enum io_kind kind[] = {IO_WRITE, IO_SYNC, IO_READ, IO_WRITE_DURABLE};

	for (unsigned round = 0; round < ROUNDS; round++)
		for (unsigned i = 0; i < ARRAY_COUNT(kind); i++) {
			struct io *io = &rig.other[i];
			*io = (struct io){.kind = (uint8_t)kind[i], .file = rig.well};
			if (kind[i] != IO_SYNC) {
				io->length = PAGE_BYTES;
				io->single = (struct iovec){rig.memory + PAGE_BYTES, PAGE_BYTES};
				io->piece = &io->single;
				io->piece_count = 1;
			}
			submit(io);
			if (!completed(io, 10 * NS_PER_S))
				fail_msg("round %u, kind %d does not come back", round, kind[i]);
		}
}

static void end(void)
{
	assert_int_equal(rig.hanging_left, HANGING);
	fuse_file_go_on(rig.fuse);
	assert_true(completed(NULL, 30 * NS_PER_S));
	assert_int_equal(disk_in_flight(rig.disk), 0);
	disk_free(rig.disk);
	unlink(rig.path);
}

static void reads_that_hang_are_alone(void **state)
{
	static const enum io_kind kind[] = {IO_READ};
	begin();
	hang(kind, ARRAY_COUNT(kind));
	others_go_on();
	end();
}

static void syncs_that_hang_are_alone(void **state)
{
	static const enum io_kind kind[] = {IO_SYNC};
	begin();
	hang(kind, ARRAY_COUNT(kind));
	others_go_on();
	end();
}

static void all_that_hangs_is_alone(void **state)
{
	static const enum io_kind kind[] = {IO_READ, IO_WRITE, IO_SYNC, IO_WRITE_DURABLE};
	begin();
	hang(kind, ARRAY_COUNT(kind));
	others_go_on();
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_that_hang_are_alone),
		cmocka_unit_test(syncs_that_hang_are_alone),
		cmocka_unit_test(all_that_hangs_is_alone),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
