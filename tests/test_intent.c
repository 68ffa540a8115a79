/* SPDX-License-Identifier: Apache-2.0 */
/* The intent log against a disk in memory that stops at any write and tears its pages: whatever was
 * entered and not left is found again, by every recovery, at every write. */
#include "core/intent_page.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { REGION_BYTES = 65536, SECTOR_BYTES = 512, WRITERS_MAX = 40 };

/* ---- a disk, a log on it, and who uses them ---- */
struct bench {
	struct intent_config config;
	uint8_t *disk;
	uint64_t disk_bytes;
	void *memory;
	struct intent *intent;
	struct effects fx;
	ns_t now;
	int opened, failed;
	unsigned opened_count, failed_count, synced_count, writes;
	int fail_next; /* errno of the next write */
	uint64_t seed;
	/* Called while the operations of a turn are under way. */
	void (*meanwhile)(struct bench *);
	/* Called before each write reaches the disk. */
	void (*before_write)(struct bench *, const struct io *);
	/* What is inside, as the user of the log knows it. */
	struct {
		uint8_t volume;
		uint64_t offset, length;
	} inside[WRITERS_MAX];
	unsigned inside_count;
	unsigned recoveries;
};

static uint64_t random_below(struct bench *bench, uint64_t limit)
{
	bench->seed = bench->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (bench->seed >> 33) % limit;
}

static void told_opened(struct intent *intent, int result, struct effects *fx)
{
	struct bench *bench = intent_owner(intent);
	(void)fx;
	bench->opened = result;
	bench->opened_count++;
}
static void told_failed(struct intent *intent, int err, struct effects *fx)
{
	struct bench *bench = intent_owner(intent);
	(void)fx;
	bench->failed = err;
	bench->failed_count++;
}
static void told_synced(struct intent *intent, struct effects *fx)
{
	struct bench *bench = intent_owner(intent);
	(void)fx;
	bench->synced_count++;
}

static void bench_effects(struct bench *bench)
{
	struct effects *fx = &bench->fx;
	struct io *io;

	while ((io = io_list_pop(&fx->disk))) {
		int32_t result = (int32_t)io->length;
		assert_int_equal(io->piece_count, 1);
		assert_int_equal(io->offset % PAGE_BYTES, 0);
		assert_int_equal((uintptr_t)io->piece[0].iov_base % PAGE_BYTES, 0);
		assert_true(io->offset + io->length <= bench->disk_bytes);
		if (io->kind == IO_READ) {
			memcpy(io->piece[0].iov_base, bench->disk + io->offset, io->length);
		} else {
			assert_int_equal(io->kind, IO_WRITE_DURABLE);
			bench->writes++;
			if (bench->before_write)
				bench->before_write(bench, io);
			if (bench->fail_next)
				result = bench->fail_next;
			else
				memcpy(bench->disk + io->offset, io->piece[0].iov_base, io->length);
		}
		io->done(io, result, fx);
	}
}

static void bench_start(struct bench *bench)
{
	memset(bench->memory, 0xa5, intent_bytes(&bench->config));
	bench->intent = intent_init(bench->memory, &bench->config);
	bench->opened = 1;
	bench->opened_count = bench->failed_count = 0;
	effects_init(&bench->fx, bench->now, 0);
	intent_open(bench->intent, &bench->fx);
	bench_effects(bench);
	assert_int_equal(bench->opened_count, 1);
}

static void bench_turn(struct bench *bench)
{
	effects_init(&bench->fx, bench->now, 0);
	intent_turn(bench->intent, &bench->fx);
	if (bench->meanwhile)
		bench->meanwhile(bench);
	bench_effects(bench);
}

static const struct intent_identity identity = {
	.set = {{1, 2, 3}},
	.generation = 7,
	.volume_count = 2,
	.volume = {{.id = {{4}}, .size = 100, .block_bytes = 4096, .wrapped_key = {5}},
		   {.id = {{6}}, .size = 1ull << 40, .block_bytes = 65536, .key_check = {9}}},
};

static void bench_init(struct bench *bench, uint64_t first_bytes, uint64_t second_bytes)
{
	memset(bench, 0, sizeof *bench);
	bench->config = (struct intent_config){
		.file = 3,
		.volume_count = 2,
		.volume = {{first_bytes, REGION_BYTES}, {second_bytes, 2 * REGION_BYTES}},
		.subject = "group",
		.opened = told_opened,
		.failed = told_failed,
		.synced = told_synced,
		.owner = bench,
	};
	bench->seed = 1;
	bench->now = 5 * NS_PER_S;
	bench->disk_bytes = intent_format(&bench->config, &identity, NULL);
	bench->disk = malloc(bench->disk_bytes);
	bench->memory = aligned_alloc(64, align_up(intent_bytes(&bench->config), 64));
	assert_non_null(bench->disk);
	assert_non_null(bench->memory);
	memset(bench->disk, 0xee, bench->disk_bytes);
	assert_int_equal(intent_format(&bench->config, &identity, bench->disk), bench->disk_bytes);
	bench_start(bench);
	assert_int_equal(bench->opened, 0);
}

static void bench_fini(struct bench *bench)
{
	free(bench->disk);
	free(bench->memory);
}

/* Whether the byte is in a region that the log lists. */
static bool listed(const struct intent *intent, uint8_t volume, uint64_t byte)
{
	uint64_t cursor = 0, offset, length;
	uint8_t owner;

	while (intent_next(intent, &cursor, &owner, &offset, &length))
		if (owner == volume && byte >= offset && byte - offset < length)
			return true;
	return false;
}

static unsigned listed_count(const struct intent *intent)
{
	uint64_t cursor = 0, offset, length;
	unsigned regions = 0;
	uint8_t owner;

	while (intent_next(intent, &cursor, &owner, &offset, &length))
		regions++;
	return regions;
}

/* Turns until the log lets the range in. */
static void enter_at_last(struct bench *bench, uint8_t volume, uint64_t offset, uint64_t length)
{
	for (unsigned turn = 0; turn < 8; turn++) {
		if (intent_enter(bench->intent, volume, offset, length))
			return;
		bench_turn(bench);
	}
	fail_msg("the log does not let the range in");
}

/* ---- crash at every write ---- */
static void check_found(struct bench *bench, struct intent *found)
{
	for (unsigned i = 0; i < bench->inside_count; i++)
		if (!listed(found, bench->inside[i].volume, bench->inside[i].offset) ||
		    !listed(found, bench->inside[i].volume,
			    bench->inside[i].offset + bench->inside[i].length - 1))
			fail_msg("write %u: what was entered is not found", bench->writes);
}

/* Starts a second log on the disk as it stands and compares. */
static void check_recovery(struct bench *bench)
{
	struct bench other = {
		.config = bench->config, .disk = bench->disk, .disk_bytes = bench->disk_bytes};

	other.config.owner = &other;
	other.memory = aligned_alloc(64, align_up(intent_bytes(&other.config), 64));
	assert_non_null(other.memory);
	bench_start(&other);
	if (other.opened != 0)
		fail_msg("write %u: recovery ends with %d", bench->writes, other.opened);
	check_found(bench, other.intent);
	free(other.memory);
	bench->recoveries++;
}

/* The disk stops during this write: some of its sectors arrive, others do not. */
static void tear_and_recover(struct bench *bench, const struct io *io)
{
	uint8_t *place = bench->disk + io->offset, *before = malloc(io->length);
	const uint8_t *bytes = io->piece[0].iov_base;

	assert_non_null(before);
	memcpy(before, place, io->length);
	for (unsigned kind = 0; kind < 3; kind++) {
		for (uint64_t at = 0; at < io->length; at += SECTOR_BYTES)
			if (kind == 0 || random_below(bench, 2))
				memcpy(place + at, bytes + at, SECTOR_BYTES);
		check_recovery(bench); /* kind 0: it arrived, and nobody was told */
		memcpy(place, before, io->length);
	}
	free(before);
}

static void enter_random(struct bench *bench)
{
	uint8_t volume = (uint8_t)random_below(bench, 2);
	uint64_t size = bench->config.volume[volume].size;
	uint64_t offset = random_below(bench, size / PAGE_BYTES) * PAGE_BYTES;
	uint64_t length = min_u64(size - offset, (1 + random_below(bench, 40)) * PAGE_BYTES);

	if (bench->inside_count == WRITERS_MAX ||
	    !intent_enter(bench->intent, volume, offset, length))
		return;
	bench->inside[bench->inside_count].volume = volume;
	bench->inside[bench->inside_count].offset = offset;
	bench->inside[bench->inside_count++].length = length;
}

static void leave_random(struct bench *bench)
{
	if (bench->inside_count == 0)
		return;
	unsigned at = (unsigned)random_below(bench, bench->inside_count);

	intent_leave(bench->intent, bench->inside[at].volume, bench->inside[at].offset,
		     bench->inside[at].length);
	bench->inside[at] = bench->inside[--bench->inside_count];
}

static void come_and_go(struct bench *bench)
{
	for (uint64_t i = random_below(bench, 4); i > 0; i--)
		enter_random(bench);
	for (uint64_t i = random_below(bench, 4); i > 0; i--)
		leave_random(bench);
}

static void live(struct bench *bench, unsigned steps)
{
	bench->meanwhile = come_and_go;
	for (unsigned step = 0; step < steps; step++) {
		come_and_go(bench);
		bench->now += random_below(bench, 10) ? NS_PER_MS : 2 * NS_PER_S;
		bench_turn(bench);
	}
}

static void test_crash_at_every_write(void **state)
{
	(void)state;
	const struct row {
		int number;
		uint64_t first_bytes, second_bytes;
		unsigned steps;
	} rows[] = {
		{1, 40 * REGION_BYTES, 25 * REGION_BYTES + PAGE_BYTES, 1200},
		{2, 3000ull * REGION_BYTES, 2ull * 40000 * REGION_BYTES, 500}, /* 2 page snapshot */
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct bench bench;
		bench_init(&bench, rows[i].first_bytes, rows[i].second_bytes);
		bench.before_write = tear_and_recover;
		live(&bench, rows[i].steps);
		print_message("row %d: %u writes, %u recoveries\n", rows[i].number, bench.writes,
			      bench.recoveries);
		assert_true(bench.writes > INTENT_CHANGES_PAGES);
		bench_fini(&bench);
	}
}

/* Life after a crash: the log goes on from a torn disk, again and again. */
static jmp_buf power_cut;
static unsigned cut_at;

static void cut_power(struct bench *bench, const struct io *io)
{
	if (bench->writes < cut_at)
		return;
	for (uint64_t at = 0; at < io->length; at += SECTOR_BYTES)
		if (random_below(bench, 2))
			memcpy(bench->disk + io->offset + at, (uint8_t *)io->piece[0].iov_base + at,
			       SECTOR_BYTES);
	longjmp(power_cut, 1);
}

static void test_many_lives(void **state)
{
	(void)state;
	static struct bench bench;
	static unsigned life;

	bench_init(&bench, 64 * REGION_BYTES, 64 * REGION_BYTES);
	bench.before_write = cut_power;
	for (life = 0; life < 150; life++) {
		cut_at = bench.writes + 1 + (unsigned)random_below(&bench, 400);
		if (setjmp(power_cut) == 0)
			live(&bench, 600);
		bench_start(&bench);
		if (bench.opened != 0)
			fail_msg("life %u: recovery ends with %d", life, bench.opened);
		check_found(&bench, bench.intent);
		bench.inside_count = 0; /* the comparison */
		intent_settle(bench.intent);
	}
	bench_fini(&bench);
}

/* ---- clearing ---- */
static void test_cleared_when_idle(void **state)
{
	(void)state;
	struct bench bench;

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES + PAGE_BYTES);
	assert_true(intent_deadline(bench.intent) == NS_NEVER);
	assert_false(intent_enter(bench.intent, 0, REGION_BYTES - 4096, 8192));
	assert_int_equal(listed_count(bench.intent), 0);
	enter_at_last(&bench, 0, REGION_BYTES - 4096, 8192);
	enter_at_last(&bench, 1, 8 * REGION_BYTES, PAGE_BYTES);
	assert_int_equal(intent_open_bytes(bench.intent), 2 * REGION_BYTES + PAGE_BYTES);

	/* Nothing is cleared while someone is inside, whatever the time. */
	for (unsigned i = 0; i < 5; i++, bench.now += NS_PER_S)
		bench_turn(&bench);
	assert_int_equal(listed_count(bench.intent), 3);
	intent_leave(bench.intent, 0, REGION_BYTES - 4096, 8192);
	assert_int_equal(listed_count(bench.intent), 3);
	unsigned writes = bench.writes;
	for (unsigned i = 0; i < 5; i++) {
		bench.now = max_u64(bench.now, intent_deadline(bench.intent));
		bench_turn(&bench);
	}
	assert_int_equal(bench.writes, writes + 1);
	assert_int_equal(listed_count(bench.intent), 1);
	bench_start(&bench);
	assert_int_equal(bench.opened, 0);
	assert_int_equal(listed_count(bench.intent), 1);
	assert_true(listed(bench.intent, 1, 8 * REGION_BYTES));
	bench_fini(&bench);
}

static void test_hot_region_costs_one_write(void **state)
{
	(void)state;
	struct bench bench;

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
	enter_at_last(&bench, 0, 0, 4096);
	unsigned writes = bench.writes;
	for (unsigned i = 0; i < 100; i++, bench.now += NS_PER_S / 3) {
		assert_true(intent_enter(bench.intent, 0, 8192, 4096));
		intent_leave(bench.intent, 0, 8192, 4096);
		bench_turn(&bench);
	}
	assert_int_equal(bench.writes, writes);
	bench_fini(&bench);
}

static void test_pins_stay(void **state)
{
	(void)state;
	struct bench bench;

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
	enter_at_last(&bench, 0, 0, 4096);
	intent_pin(bench.intent, 0, 0, 4096);
	intent_leave(bench.intent, 0, 0, 4096);
	intent_pin(bench.intent, 1, 0, 4096); /* not open before: listed at once, durable soon */
	assert_int_equal(listed_count(bench.intent), 2);
	for (unsigned i = 0; i < 6; i++, bench.now += NS_PER_S)
		bench_turn(&bench);
	for (unsigned life = 0; life < 3; life++) {
		assert_int_equal(listed_count(bench.intent), 2);
		bench_start(&bench);
		for (unsigned i = 0; i < 6; i++, bench.now += NS_PER_S)
			bench_turn(&bench);
	}
	intent_settle(bench.intent);
	for (unsigned i = 0; i < 6; i++, bench.now += NS_PER_S)
		bench_turn(&bench);
	assert_int_equal(listed_count(bench.intent), 0);
	bench_start(&bench);
	assert_int_equal(listed_count(bench.intent), 0);
	bench_fini(&bench);
}

/* ---- damage and failure ---- */
static void test_damage(void **state)
{
	(void)state;
	struct bench bench;
	unsigned regions = 8 + 4, damaged = 0, silent = 0;

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
	for (unsigned i = 0; i < 6; i++)
		enter_at_last(&bench, 0, (uint64_t)i * REGION_BYTES, 4096);
	/* The life above is in the second half: a snapshot and six pages. */
	struct intent_shape shape;
	intent_shape_init(&shape, &bench.config);
	for (unsigned page = 0; page <= 6; page++) {
		uint8_t *byte = bench.disk + intent_page_offset(&shape, 1, page) + 40;
		*byte ^= 1;
		bench_start(&bench);
		if (bench.opened == -EBADMSG) {
			damaged++;
			assert_int_equal(listed_count(bench.intent), regions);
		} else {
			silent++; /* as good as torn */
			assert_int_equal(page, 6);
			assert_int_equal(listed_count(bench.intent), 5);
		}
		*byte ^= 1;
	}
	assert_int_equal(damaged, 6);
	assert_int_equal(silent, 1);

	/* A damaged log becomes a good one that says all: nobody enters before that. */
	memset(bench.disk + intent_page_offset(&shape, 1, 2), 0, PAGE_BYTES);
	bench_start(&bench);
	assert_int_equal(bench.opened, -EBADMSG);
	assert_false(intent_enter(bench.intent, 0, 0, 4096));
	bench_turn(&bench);
	assert_true(intent_enter(bench.intent, 0, 0, 4096));
	bench_start(&bench);
	assert_int_equal(bench.opened, 0);
	assert_int_equal(listed_count(bench.intent), regions);
	bench_fini(&bench);
}

/* A log of other sizes, or none at all, says nothing about these volumes. */
static void test_other_sizes(void **state)
{
	(void)state;
	struct bench bench;

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
	bench.config.volume[0].region_bytes /= 2;
	free(bench.memory);
	bench.memory = aligned_alloc(64, align_up(intent_bytes(&bench.config), 64));
	bench_start(&bench);
	assert_int_equal(bench.opened, -EBADMSG);
	assert_int_equal(listed_count(bench.intent), 16 + 4);
	memset(bench.disk, 0, bench.disk_bytes);
	bench_start(&bench);
	assert_int_equal(bench.opened, -ENOENT);
	assert_false(intent_enter(bench.intent, 0, 0, 4096));
	bench_turn(&bench);
	assert_int_equal(bench.writes, 0);
	bench_fini(&bench);
}

static void test_write_fails(void **state)
{
	(void)state;
	const int errors[] = {-EIO, -ENOSPC};

	for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
		struct bench bench;
		bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
		enter_at_last(&bench, 0, 0, 4096);
		bench.fail_next = errors[i];
		assert_false(intent_enter(bench.intent, 1, 0, 4096));
		bench_turn(&bench);
		assert_int_equal(bench.failed, errors[i]);
		bench.fail_next = 0;
		for (unsigned turn = 0; turn < 4; turn++, bench.now += NS_PER_S) {
			bench_turn(&bench);
			assert_false(intent_enter(bench.intent, 1, 0, 4096));
			assert_false(intent_enter(bench.intent, 0, 0, 4096));
		}
		assert_int_equal(bench.failed_count, 1);
		bench_fini(&bench);
	}
}

/* ---- identity ---- */
static void test_identity(void **state)
{
	(void)state;
	struct bench bench;
	struct intent_identity next = identity, read;
	uint8_t encoded[INTENT_HEADER_BYTES];

	bench_init(&bench, 8 * REGION_BYTES, 8 * REGION_BYTES);
	assert_int_equal(intent_identity_decode(bench.disk, &read), 0);
	intent_identity_encode(&read, encoded);
	assert_memory_equal(encoded, bench.disk, sizeof encoded);
	assert_int_equal(intent_identity_of(bench.intent)->generation, 7);
	assert_int_equal(intent_identity_of(bench.intent)->volume[1].size, 1ull << 40);

	next.generation = 8;
	intent_set_identity(bench.intent, &next);
	assert_false(intent_identity_durable(bench.intent));
	bench_turn(&bench); /* the first copy; the second is still the old one */
	assert_false(intent_identity_durable(bench.intent));
	bench_start(&bench);
	assert_int_equal(intent_identity_of(bench.intent)->generation, 8);
	bench_turn(&bench);
	bench_turn(&bench);
	assert_true(intent_identity_durable(bench.intent));
	bench.disk[100] ^= 1;
	assert_int_equal(intent_identity_decode(bench.disk, &read), -EBADMSG);
	bench_start(&bench);
	assert_int_equal(bench.opened, 0);
	assert_int_equal(intent_identity_of(bench.intent)->generation, 8);
	bench.disk[INTENT_HEADER_BYTES + 100] ^= 1;
	bench_start(&bench);
	assert_int_equal(bench.opened, -ENOENT);
	memset(bench.disk, 0, 8);
	assert_int_equal(intent_identity_decode(bench.disk, &read), -ENOENT);
	bench_fini(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_at_every_write),
		cmocka_unit_test(test_many_lives),
		cmocka_unit_test(test_cleared_when_idle),
		cmocka_unit_test(test_hot_region_costs_one_write),
		cmocka_unit_test(test_pins_stay),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_other_sizes),
		cmocka_unit_test(test_write_fails),
		cmocka_unit_test(test_identity),
	};
	return cmocka_run_group_tests_name("intent", tests, NULL, NULL);
}
