/* SPDX-License-Identifier: Apache-2.0 */
/* The disks of a lane on real files: on the file system of the build directory (direct I/O that
 * insists on alignment) and on tmpfs (which insists on nothing and lacks some operations). */
#include "drive/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { FILE_BYTES = 4 << 20, PIPE_BYTES = 1 << 20, ENTRIES = 32 };

/* One per kind of file system. */
struct place {
	const char *directory;
	char path[256];
	struct disk *disk;
	int file;
	uint8_t *memory; /* FILE_BYTES, page aligned */
};

static struct place place[] = {{.directory = "."}, {.directory = "/dev/shm"}};
static int drained;

static ns_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (ns_t)t.tv_sec * NS_PER_S + (ns_t)t.tv_nsec;
}

static int setup(void **state)
{
	struct place *p = *state;
	bool buffered;
	snprintf(p->path, sizeof p->path, "%s/casemate-test-disk-%d", p->directory, getpid());
	int descriptor = open(p->path, O_CREAT | O_EXCL | O_RDWR, 0600);
	assert_true(descriptor >= 0);
	assert_int_equal(0, ftruncate(descriptor, FILE_BYTES));
	close(descriptor);
	p->disk = disk_new(ENTRIES);
	assert_non_null(p->disk);
	p->file = disk_file_open(p->disk, p->path, FILE_BYTES, &buffered);
	assert_true(p->file >= 0);
	p->memory =
		mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(p->memory != MAP_FAILED);
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	disk_free(p->disk);
	munmap(p->memory, FILE_BYTES);
	unlink(p->path);
	return 0;
}

/* Reaps until nothing is in flight; gives how many came, and the last one. */
static unsigned finish(struct place *p, struct completion *last)
{
	unsigned count = 0;
	ns_t until = now() + 20 * NS_PER_S;
	while (disk_in_flight(p->disk)) {
		struct completion completion[8];
		unsigned n = disk_reap(p->disk, completion, 8);
		if (n)
			*last = completion[n - 1];
		count += n;
		if (!n)
			disk_wait(p->disk, 100 * NS_PER_MS);
		assert_true(now() < until);
	}
	return count;
}

static int32_t run(struct place *p, struct io *io)
{
	struct io_list list = {0};
	struct completion last = {0};
	io_list_push(&list, io);
	disk_submit(p->disk, &list);
	assert_null(list.head);
	assert_int_equal(1, finish(p, &last));
	assert_ptr_equal(io, last.io);
	return last.result;
}

static int32_t transfer(struct place *p, enum io_kind kind, uint64_t offset, void *memory,
			uint64_t length)
{
	struct io io = {
		.kind = (uint8_t)kind,
		.file = (uint16_t)p->file,
		.offset = offset,
		.length = length,
		.single = {memory, length},
		.piece_count = 1,
	};
	io.piece = &io.single;
	return run(p, &io);
}

static int32_t range(struct place *p, enum io_kind kind, uint64_t offset, uint64_t length)
{
	struct io io = {.kind = (uint8_t)kind,
			.file = (uint16_t)p->file,
			.offset = offset,
			.length = length};
	return run(p, &io);
}

static void fill(uint8_t *memory, uint64_t length, unsigned seed)
{
	for (uint64_t i = 0; i < length; i++)
		memory[i] = (uint8_t)((i * 31 + (i >> 12) + seed) | 1);
}

static bool all_zero(const uint8_t *memory, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (memory[i])
			return false;
	return true;
}

static void what_is_written_is_read(void **state)
{
	static const struct {
		enum io_kind kind;
		uint64_t offset, length;
	} row[] = {
		/* 0 */ {IO_WRITE, 0, 4096},
		/* 1 */ {IO_WRITE, 4096, 1 << 20},
		/* 2 */ {IO_WRITE_DURABLE, 8192, 65536},
		/* 3 */ {IO_WRITE_DURABLE, FILE_BYTES - 4096, 4096},
		/* 4 */ {IO_WRITE, 0, FILE_BYTES / 2},
	};
	struct place *p = *state;
	uint8_t *back = p->memory + FILE_BYTES / 2;
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		print_message("row %u\n", i);
		fill(p->memory, row[i].length, i);
		assert_int_equal(row[i].length,
				 transfer(p, row[i].kind, row[i].offset, p->memory, row[i].length));
		assert_int_equal(0, range(p, IO_SYNC, 0, 0));
		memset(back, 0, row[i].length);
		assert_int_equal(row[i].length,
				 transfer(p, IO_READ, row[i].offset, back, row[i].length));
		assert_memory_equal(p->memory, back, row[i].length);
	}
}

static void pieces_are_gathered_however_many(void **state)
{
	enum { PIECES = 700, TOTAL = 2 * PIECES }; /* more than one operation takes: 1024 */
	struct place *p = *state;
	struct iovec piece[PIECES];
	uint64_t sizes = (uint64_t)PIECES * PAGE_BYTES;
	assert_true(sizes <= FILE_BYTES);
	fill(p->memory, sizes, 9);
	/* Last piece first, so that file order and memory order differ. */
	for (unsigned i = 0; i < PIECES; i++)
		piece[i] = (struct iovec){p->memory + (PIECES - 1 - i) * (uint64_t)PAGE_BYTES,
					  PAGE_BYTES};
	struct io io = {.kind = IO_WRITE,
			.file = (uint16_t)p->file,
			.length = sizes,
			.piece = piece,
			.piece_count = PIECES};
	assert_int_equal(sizes, run(p, &io));
	uint8_t *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	for (unsigned i = 0; i < PIECES; i += 41) {
		assert_int_equal(PAGE_BYTES,
				 transfer(p, IO_READ, i * (uint64_t)PAGE_BYTES, page, PAGE_BYTES));
		assert_memory_equal(piece[i].iov_base, page, PAGE_BYTES);
	}
	free(page);

	/* 1,300 pieces that share memory: two operations. */
	struct iovec *many = calloc(TOTAL, sizeof *many);
	for (unsigned i = 0; i < TOTAL; i++)
		many[i] = (struct iovec){p->memory + (i % 3) * (uint64_t)PAGE_BYTES, PAGE_BYTES};
	struct io large = {.kind = IO_WRITE_DURABLE,
			   .file = (uint16_t)p->file,
			   .length = (uint64_t)TOTAL * PAGE_BYTES,
			   .piece = many,
			   .piece_count = TOTAL};
	assert_int_equal(large.length, run(p, &large));
	uint8_t *last = p->memory + FILE_BYTES - PAGE_BYTES;
	assert_int_equal(PAGE_BYTES, transfer(p, IO_READ, (TOTAL - 1) * (uint64_t)PAGE_BYTES, last,
					      PAGE_BYTES));
	assert_memory_equal(many[TOTAL - 1].iov_base, last, PAGE_BYTES);
	free(many);
}

static void *drain(void *memory)
{
	for (size_t taken = 0; taken < PIPE_BYTES;) {
		ssize_t got = read(drained, (uint8_t *)memory + taken, PAGE_BYTES);
		if (got <= 0)
			break;
		taken += (size_t)got;
	}
	return NULL;
}

/* A pipe takes a part of what is written, in the middle of a piece, until it is read. */
static void a_short_write_is_finished(void **state)
{
	struct place *p = *state;
	uint8_t *back = p->memory + FILE_BYTES / 2;
	int own = p->file;
	char path[300];
	bool buffered;
	pthread_t thread;
	struct disk_counters counters;
	snprintf(path, sizeof path, "%s-pipe", p->path);
	assert_int_equal(0, mkfifo(path, 0600));
	drained = open(path, O_RDWR | O_CLOEXEC);
	p->file = disk_file_open(p->disk, path, 0, &buffered);
	unlink(path);
	assert_true(drained >= 0 && p->file >= 0);
	fill(p->memory, PIPE_BYTES, 4);
	assert_int_equal(0, pthread_create(&thread, NULL, drain, back));
	assert_int_equal(PIPE_BYTES, transfer(p, IO_WRITE, 0, p->memory, PIPE_BYTES));
	pthread_join(thread, NULL);
	close(drained);
	disk_counters(p->disk, &counters);
	assert_true(counters.cut_short > 0);
	assert_memory_equal(p->memory, back, PIPE_BYTES);
	disk_file_close(p->disk, (uint16_t)p->file);
	p->file = own;
}

static void beyond_the_end_there_are_zeros(void **state)
{
	static const struct {
		uint64_t size, offset, length;
	} row[] = {
		/* 0 */ {FILE_BYTES, FILE_BYTES, 8192},
		/* 1 */ {FILE_BYTES, FILE_BYTES - 4096, 65536},
		/* 2: an end off the page */ {5000, 0, 16384},
		/* 3 */ {5000, 4096, 4096},
		/* 4 */ {100, 0, 4096},
		/* 5 */ {0, 0, 4096},
		/* 6: pieces */ {12288 + 700, 0, 32768},
	};
	struct place *p = *state;
	int descriptor = disk_file_descriptor(p->disk, (uint16_t)p->file);
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		print_message("row %u\n", i);
		fill(p->memory, FILE_BYTES, i);
		assert_int_equal(0, ftruncate(descriptor, FILE_BYTES));
		assert_int_equal(FILE_BYTES, transfer(p, IO_WRITE, 0, p->memory, FILE_BYTES));
		assert_int_equal(0, ftruncate(descriptor, (off_t)row[i].size));
		uint8_t *back = p->memory;
		memset(back, 0x55, row[i].length + 1);
		struct iovec piece[2] = {{back, row[i].length / 2},
					 {back + row[i].length / 2, row[i].length / 2}};
		struct io io = {.kind = IO_READ,
				.file = (uint16_t)p->file,
				.offset = row[i].offset,
				.length = row[i].length,
				.piece = piece,
				.piece_count = i == 6 ? 2 : 1};
		if (i < 6)
			piece[0].iov_len = row[i].length;
		assert_int_equal(row[i].length, run(p, &io));
		uint64_t there = row[i].size > row[i].offset ? row[i].size - row[i].offset : 0;
		there = min_u64(there, row[i].length);
		for (uint64_t b = 0; b < there; b++)
			assert_int_equal((uint8_t)(((b + row[i].offset) * 31 +
						    ((b + row[i].offset) >> 12) + i) |
						   1),
					 back[b]);
		assert_true(all_zero(back + there, row[i].length - there));
		assert_int_equal(0x55, back[row[i].length]);
	}
}

static void discarded_and_zeroed_ranges_read_as_zeros(void **state)
{
	static const enum io_kind kind[] = {IO_DISCARD, IO_ZERO};
	struct place *p = *state;
	int descriptor = disk_file_descriptor(p->disk, (uint16_t)p->file);
	for (unsigned i = 0; i < ARRAY_COUNT(kind); i++) {
		struct stat before, after;
		fill(p->memory, FILE_BYTES, i);
		assert_int_equal(FILE_BYTES,
				 transfer(p, IO_WRITE_DURABLE, 0, p->memory, FILE_BYTES));
		assert_int_equal(0, fstat(descriptor, &before));
		/* More than one buffer of zeros, where they have to be written. */
		assert_int_equal(0, range(p, kind[i], 8192, 5 << 19));
		assert_int_equal(0, range(p, IO_SYNC, 0, 0));
		assert_int_equal(0, fstat(descriptor, &after));
		assert_int_equal(before.st_size, after.st_size);
		if (kind[i] == IO_DISCARD)
			assert_true(after.st_blocks < before.st_blocks);
		else
			assert_int_equal(before.st_blocks, after.st_blocks);
		uint8_t first = p->memory[0], end = p->memory[8192 + (5 << 19)];
		assert_int_equal(FILE_BYTES, transfer(p, IO_READ, 0, p->memory, FILE_BYTES));
		assert_int_equal(first, p->memory[0]);
		assert_true(all_zero(p->memory + 8192, 5 << 19));
		assert_int_equal(end, p->memory[8192 + (5 << 19)]);
	}
}

/* docs/operations.md "the device": decided when it is opened, by what it has then. */
static void what_was_reserved_stays_so(void **state)
{
	static const struct {
		off_t reserve;
		bool reserved;
	} row[] = {
		/* 0: thin */ {0, false},
		/* 1: in part */ {FILE_BYTES / 2, false},
		/* 2 */ {FILE_BYTES, true},
	};
	struct place *p = *state;
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		struct stat before, after;
		bool buffered;
		print_message("row %u\n", i);
		int descriptor = disk_file_descriptor(p->disk, (uint16_t)p->file);
		assert_int_equal(0, ftruncate(descriptor, 0));
		assert_int_equal(0, ftruncate(descriptor, FILE_BYTES));
		if (row[i].reserve)
			assert_int_equal(0, fallocate(descriptor, 0, 0, row[i].reserve));
		disk_file_close(p->disk, (uint16_t)p->file);
		p->file = disk_file_open(p->disk, p->path, FILE_BYTES, &buffered);
		assert_true(p->file >= 0);
		assert_int_equal(row[i].reserved,
				 disk_file_is_reserved(p->disk, (uint16_t)p->file));

		descriptor = disk_file_descriptor(p->disk, (uint16_t)p->file);
		fill(p->memory, FILE_BYTES, i);
		assert_int_equal(FILE_BYTES,
				 transfer(p, IO_WRITE_DURABLE, 0, p->memory, FILE_BYTES));
		assert_int_equal(0, fstat(descriptor, &before));
		assert_int_equal(0, range(p, IO_DISCARD, 0, FILE_BYTES));
		assert_int_equal(0, range(p, IO_SYNC, 0, 0));
		assert_int_equal(0, fstat(descriptor, &after));
		assert_int_equal(FILE_BYTES, after.st_size);
		if (row[i].reserved)
			assert_true(after.st_blocks * 512 >= FILE_BYTES);
		else
			assert_true(after.st_blocks < before.st_blocks / 2);
		assert_int_equal(FILE_BYTES, transfer(p, IO_READ, 0, p->memory, FILE_BYTES));
		assert_true(all_zero(p->memory, FILE_BYTES));
	}
}

static void one_process_at_a_time(void **state)
{
	struct place *p = *state;
	bool buffered;
	struct disk *other = disk_new(4);
	assert_int_equal(-EBUSY, disk_file_open(other, p->path, 0, &buffered));
	assert_int_equal(-ENOENT, disk_file_open(other, "no/such/file", 0, &buffered));
	disk_file_close(p->disk, (uint16_t)p->file);
	assert_int_equal(-ENODATA, disk_file_open(other, p->path, FILE_BYTES + 1, &buffered));
	int file = disk_file_open(other, p->path, FILE_BYTES, &buffered);
	assert_int_equal(0, file);
	assert_int_equal(-EBUSY, disk_file_open(p->disk, p->path, 0, &buffered));
	disk_free(other);
	p->file = disk_file_open(p->disk, p->path, 0, &buffered);
	assert_true(p->file >= 0);
	assert_int_equal(4096, transfer(p, IO_WRITE, 0, p->memory, 4096));
}

/* The lane opens files too, after the ring has started. */
static void a_file_opened_late_works(void **state)
{
	struct place *p = *state;
	bool buffered;
	assert_int_equal(4096, transfer(p, IO_WRITE, 0, p->memory, 4096));
	disk_file_close(p->disk, (uint16_t)p->file);
	p->file = disk_file_open(p->disk, p->path, 0, &buffered);
	assert_true(p->file >= 0);
	assert_int_equal(4096, transfer(p, IO_READ, 0, p->memory, 4096));
}

static void errors_are_told(void **state)
{
	struct place *p = *state;
	bool buffered = false;
	int own = p->file;

	/* A device that is always full. */
	p->file = disk_file_open(p->disk, "/dev/full", 0, &buffered);
	assert_true(p->file >= 0);
	assert_true(buffered);
	assert_int_equal(-ENOSPC, transfer(p, IO_WRITE, 0, p->memory, 4096));
	assert_int_equal(-ENOSPC, transfer(p, IO_WRITE_DURABLE, 0, p->memory, 8192));
	assert_int_equal(-EINVAL, range(p, IO_SYNC, 0, 0));
	disk_file_close(p->disk, (uint16_t)p->file);

	/* A descriptor that may only read takes the place of the file. */
	p->file = own;
	disk_file_close(p->disk, (uint16_t)own);
	int sealed = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", sealed);
	assert_int_equal(0, ftruncate(sealed, 65536));
	p->file = disk_file_open(p->disk, path, 65536, &buffered);
	assert_true(p->file >= 0);
	assert_int_equal(0, fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE));
	assert_int_equal(-EPERM, transfer(p, IO_WRITE, 0, p->memory, 4096));
	assert_int_equal(-EPERM, range(p, IO_DISCARD, 0, 4096));
	assert_int_equal(4096, transfer(p, IO_READ, 0, p->memory, 4096));
	struct disk_counters counters;
	disk_counters(p->disk, &counters);
	assert_int_equal(5, counters.failed);
	close(sealed);
}

/* Two and a half times more than the ring holds. */
static void what_the_ring_cannot_hold_waits(void **state)
{
	enum { COUNT = ENTRIES * 5 / 2 };
	struct place *p = *state;
	static struct io io[COUNT];
	struct io_list list = {0};
	bool seen[COUNT] = {false};
	fill(p->memory, FILE_BYTES, 3);
	for (unsigned i = 0; i < COUNT; i++) {
		io[i] = (struct io){.kind = i % 3 ? IO_WRITE : IO_WRITE_DURABLE,
				    .file = (uint16_t)p->file,
				    .offset = i * 8192ull,
				    .length = 8192,
				    .single = {p->memory + i * 8192ull, 8192},
				    .piece_count = 1};
		io[i].piece = &io[i].single;
		io_list_push(&list, &io[i]);
	}
	disk_submit(p->disk, &list);
	assert_int_equal(COUNT, disk_in_flight(p->disk));
	unsigned count = 0;
	while (count < COUNT) {
		struct completion completion[5];
		unsigned n = disk_reap(p->disk, completion, 5);
		for (unsigned i = 0; i < n; i++) {
			size_t index = (size_t)(completion[i].io - io);
			assert_false(seen[index]);
			seen[index] = true;
			assert_int_equal(8192, completion[i].result);
		}
		count += n;
		if (!n)
			disk_wait(p->disk, NS_PER_S);
	}
	assert_int_equal(0, disk_in_flight(p->disk));
	uint8_t *back = aligned_alloc(PAGE_BYTES, COUNT * 8192);
	assert_int_equal(COUNT * 8192, transfer(p, IO_READ, 0, back, COUNT * 8192));
	assert_memory_equal(p->memory, back, COUNT * 8192);
	free(back);
}

static void registered_memory_is_used(void **state)
{
	struct place *p = *state;
	struct disk_counters counters;
	int result = disk_register_memory(p->disk, p->memory, FILE_BYTES);
	if (result == -ENOMEM)
		skip();
	assert_int_equal(0, result);
	fill(p->memory, 65536, 1);
	assert_int_equal(65536, transfer(p, IO_WRITE_DURABLE, 0, p->memory, 65536));
	assert_int_equal(65536, transfer(p, IO_READ, 0, p->memory + 65536, 65536));
	assert_memory_equal(p->memory, p->memory + 65536, 65536);
	/* Half inside, half outside cannot be. */
	uint8_t *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
	assert_int_equal(4096, transfer(p, IO_READ, 0, page, 4096));
	assert_memory_equal(p->memory, page, PAGE_BYTES);
	free(page);
	disk_counters(p->disk, &counters);
	assert_int_equal(2, counters.fixed);
}

static void *wake_soon(void *disk)
{
	usleep(30000);
	disk_wake(disk);
	return NULL;
}

static void a_wait_ends_by_time_or_by_waking(void **state)
{
	struct place *p = *state;
	for (unsigned round = 0; round < 3; round++) {
		pthread_t thread;
		struct completion none;
		assert_int_equal(0, pthread_create(&thread, NULL, wake_soon, p->disk));
		ns_t start = now();
		disk_wait(p->disk, 10 * NS_PER_S);
		assert_true(now() - start < 5 * NS_PER_S);
		assert_int_equal(0, disk_reap(p->disk, &none, 1));
		pthread_join(thread, NULL);
	}
	ns_t start = now();
	disk_wait(p->disk, 20 * NS_PER_MS);
	assert_true(now() - start >= 19 * NS_PER_MS);
	assert_true(now() - start < 5 * NS_PER_S);
	/* A wake-up that came before the wait is not lost. */
	disk_wake(p->disk);
	start = now();
	disk_wait(p->disk, 10 * NS_PER_S);
	assert_true(now() - start < 5 * NS_PER_S);
}

struct guest {
	uint64_t user_data;
	int32_t result;
	unsigned count;
};

static void guest_completed(void *context, uint64_t user_data, int32_t result, uint32_t flags)
{
	struct guest *guest = context;
	guest->user_data = user_data;
	guest->result = result;
	guest->count++;
}

static void guests_get_their_own_completions(void **state)
{
	struct place *p = *state;
	struct guest guest = {0};
	struct completion completion;
	int end[2];
	char byte = 0;
	assert_int_equal(0, pipe(end));
	disk_set_foreign(p->disk, guest_completed, &guest);
	struct io_uring_sqe *sqe = io_uring_get_sqe(disk_ring(p->disk));
	io_uring_prep_read(sqe, end[0], &byte, 1, 0);
	sqe->user_data = 0x1235;
	disk_submit(p->disk, &(struct io_list){0});
	assert_int_equal(0, disk_reap(p->disk, &completion, 1));
	assert_int_equal(1, write(end[1], "x", 1));
	for (unsigned i = 0; i < 100 && !guest.count; i++) {
		disk_wait(p->disk, 100 * NS_PER_MS);
		assert_int_equal(0, disk_reap(p->disk, &completion, 1));
	}
	assert_int_equal(1, guest.count);
	assert_int_equal(0x1235, guest.user_data);
	assert_int_equal(1, guest.result);
	assert_int_equal('x', byte);
	assert_int_equal(0, disk_in_flight(p->disk));
	close(end[0]);
	close(end[1]);
}

#define EVERYWHERE(test)                                                                           \
	{#test " (file system)", test, setup, teardown, &place[0]},                                \
	{                                                                                          \
#test " (tmpfs)", test, setup, teardown, &place[1]                                 \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EVERYWHERE(what_is_written_is_read),
		EVERYWHERE(pieces_are_gathered_however_many),
		EVERYWHERE(a_short_write_is_finished),
		EVERYWHERE(beyond_the_end_there_are_zeros),
		EVERYWHERE(discarded_and_zeroed_ranges_read_as_zeros),
		EVERYWHERE(what_was_reserved_stays_so),
		EVERYWHERE(one_process_at_a_time),
		EVERYWHERE(a_file_opened_late_works),
		EVERYWHERE(errors_are_told),
		EVERYWHERE(what_the_ring_cannot_hold_waits),
		EVERYWHERE(registered_memory_is_used),
		EVERYWHERE(a_wait_ends_by_time_or_by_waking),
		EVERYWHERE(guests_get_their_own_completions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
