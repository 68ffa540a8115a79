/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel against an encoder written here from the definition of the code, and every way to
 * lose columns against the columns themselves. */
#include "core/stripe.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { GUARD_BYTES = 64, GUARD = 0xa5, COLUMN_BYTES_MAX = 512, PITCH = 1024 };

/* n columns, each between guards, at any alignment. */
struct row {
	struct geometry geometry;
	size_t length;
	uint8_t *column[SHARDS_MAX];
	uint8_t memory[SHARDS_MAX][PITCH];
};

static struct stripe *stripe_of[STRIPE_KERNEL_COUNT];

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static struct stripe *stripe_new(struct geometry geometry, enum stripe_kernel kernel)
{
	static void *memory[STRIPE_KERNEL_COUNT];

	if (!memory[kernel])
		memory[kernel] = aligned_alloc(64, align_up(stripe_bytes(), 64));
	assert_non_null(memory[kernel]);
	return stripe_of[kernel] = stripe_init(memory[kernel], geometry, kernel);
}

/* Data are random; parity columns hold guards until they are coded. */
static void row_init(struct row *row, struct geometry geometry, size_t length, uint64_t seed)
{
	assert_true(length <= COLUMN_BYTES_MAX);
	memset(row->memory, GUARD, sizeof row->memory);
	row->geometry = geometry;
	row->length = length;
	for (unsigned i = 0; i < geometry_n(geometry); i++) {
		row->column[i] = row->memory[i] + GUARD_BYTES + random_next(&seed) % 64;
		for (size_t b = 0; i < geometry.k && b < length; b++)
			row->column[i][b] = (uint8_t)(random_next(&seed) >> 24);
	}
}

/* Whether nothing but the columns was written. */
static bool row_guarded(const struct row *row)
{
	for (unsigned i = 0; i < geometry_n(row->geometry); i++) {
		size_t start = (size_t)(row->column[i] - row->memory[i]);
		for (size_t b = 0; b < PITCH; b++)
			if ((b < start || b >= start + row->length) && row->memory[i][b] != GUARD)
				return false;
	}
	return true;
}

static bool row_equal(const struct row *a, const struct row *b)
{
	for (unsigned i = 0; i < geometry_n(a->geometry); i++)
		if (memcmp(a->column[i], b->column[i], a->length))
			return false;
	return true;
}

static void row_copy(struct row *to, const struct row *from)
{
	*to = *from;
	for (unsigned i = 0; i < geometry_n(from->geometry); i++)
		to->column[i] = to->memory[i] + (from->column[i] - from->memory[i]);
}

static void row_forget(struct row *row, uint32_t lost)
{
	for (; lost; lost &= lost - 1)
		memset(row->column[__builtin_ctz(lost)], GUARD, row->length);
}

/* The field by shift and subtract, the inverse by search: slow and obvious. */
static uint8_t product_by_definition(unsigned a, unsigned b)
{
	unsigned wide = 0;

	for (unsigned bit = 0; bit < 8; bit++)
		wide ^= (b >> bit & 1) * (a << bit);
	for (unsigned bit = 15; bit >= 8; bit--)
		wide ^= (wide >> bit & 1) * (0x11du << (bit - 8));
	return (uint8_t)wide;
}

static uint8_t inverse_by_search(unsigned a)
{
	unsigned inverse = 1;

	while (product_by_definition(a, inverse) != 1)
		inverse++;
	return (uint8_t)inverse;
}

/* Parity column i is the sum of data column j over (i xor j), i counted from k. */
static void row_encode_by_definition(struct row *row)
{
	for (unsigned i = row->geometry.k; i < geometry_n(row->geometry); i++) {
		memset(row->column[i], 0, row->length);
		for (unsigned j = 0; j < row->geometry.k; j++) {
			uint8_t coefficient = inverse_by_search(i ^ j);
			for (size_t b = 0; b < row->length; b++)
				row->column[i][b] ^=
					product_by_definition(coefficient, row->column[j][b]);
		}
	}
}

static void row_encode(struct stripe *stripe, struct row *row)
{
	stripe_encode(stripe, row->column, row->column + row->geometry.k, row->length);
}

static const struct geometry all_geometries[] = {
	/* 0 */ {1, 0},	  /* 1 */ {4, 0},  /* 2 */ {1, 1},   /* 3 */ {1, 2},
	/* 4 */ {1, 8},	  /* 5 */ {2, 1},  /* 6 */ {3, 3},   /* 7 */ {4, 2},
	/* 8 */ {8, 2},	  /* 9 */ {8, 3},  /* 10 */ {8, 4},  /* 11 */ {5, 5},
	/* 12 */ {6, 6},  /* 13 */ {7, 7}, /* 14 */ {16, 1}, /* 15 */ {16, 4},
	/* 16 */ {16, 8},
};

/* A kernel that this CPU lacks is skipped here, and said; the tests after these pass it over. */
static void kernel_obeys_the_definition(enum stripe_kernel kernel)
{
	static struct row expected, got;

	if (!stripe_kernel_available(kernel)) {
		print_message("skipped: kernel %s: this CPU lacks what it needs\n",
			      stripe_kernel_name(kernel));
		skip();
	}
	for (unsigned i = 0; i < ARRAY_COUNT(all_geometries); i++) {
		struct stripe *stripe = stripe_new(all_geometries[i], kernel);
		row_init(&got, all_geometries[i], 333, i + 1);
		row_copy(&expected, &got);
		row_encode(stripe, &got);
		row_encode_by_definition(&expected);
		if (!row_equal(&expected, &got) || !row_guarded(&got))
			fail_msg("row %u, kernel %s", i, stripe_kernel_name(kernel));
	}
}

static void test_plain_obeys_the_definition(void **state)
{
	kernel_obeys_the_definition(STRIPE_PLAIN);
}

static void test_isal_obeys_the_definition(void **state)
{
	kernel_obeys_the_definition(STRIPE_ISAL);
}

static void test_gfni_obeys_the_definition(void **state)
{
	kernel_obeys_the_definition(STRIPE_GFNI);
}

/* Lengths around every boundary of a vector, and long ones, at any alignment. */
static void test_kernels_agree_at_any_length(void **state)
{
	static struct row plain, got;

	for (unsigned i = 0; i < ARRAY_COUNT(all_geometries); i++) {
		for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++)
			if (stripe_kernel_available(kernel))
				stripe_new(all_geometries[i], kernel);
		for (size_t length = 0; length <= COLUMN_BYTES_MAX;
		     length += length < 200 ? 1 : 39) {
			row_init(&plain, all_geometries[i], length, 1000 * i + length + 1);
			row_copy(&got, &plain);
			row_encode(stripe_of[STRIPE_PLAIN], &plain);
			for (enum stripe_kernel kernel = 1; kernel < STRIPE_KERNEL_COUNT;
			     kernel++) {
				if (!stripe_kernel_available(kernel))
					continue;
				row_encode(stripe_of[kernel], &got);
				if (!row_equal(&plain, &got) || !row_guarded(&got))
					fail_msg("row %u, kernel %s, %zu bytes", i,
						 stripe_kernel_name(kernel), length);
				row_forget(&got, ~0u << got.geometry.k &
							 ((1u << geometry_n(got.geometry)) - 1));
			}
		}
	}
}

/* Columns that end right before, and then begin right after, memory that must not be touched. */
static void test_nothing_beyond_is_read(void **state)
{
	enum { MAP_BYTES = 3 * PAGE_BYTES, COLUMNS = 12 };
	uint8_t *map[COLUMNS], *column[COLUMNS];

	for (unsigned i = 0; i < COLUMNS; i++) {
		map[i] = mmap(NULL, MAP_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(map[i], MAP_FAILED);
		assert_int_equal(mprotect(map[i] + PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE),
				 0);
	}
	for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++) {
		if (!stripe_kernel_available(kernel))
			continue;
		struct stripe *stripe = stripe_new((struct geometry){8, 4}, kernel);
		for (size_t length = 1; length < 600; length += 7) {
			for (unsigned i = 0; i < COLUMNS; i++)
				column[i] = map[i] + 2 * PAGE_BYTES - length;
			stripe_encode(stripe, column, column + 8, length);
			assert_int_equal(stripe_rebuild(stripe, column, 0xff0, 0x00f, length), 0);
			for (unsigned i = 0; i < COLUMNS; i++)
				column[i] = map[i] + PAGE_BYTES;
			stripe_encode(stripe, column, column + 8, length);
			assert_int_equal(stripe_rebuild(stripe, column, 0xff0, 0x00f, length), 0);
		}
	}
	for (unsigned i = 0; i < COLUMNS; i++)
		munmap(map[i], MAP_BYTES);
}

/* One pattern: what was lost comes back, or nothing is written. */
static void check_pattern(struct stripe *stripe, const struct row *whole, uint32_t lost)
{
	static struct row got, before;
	uint32_t all = (1u << geometry_n(whole->geometry)) - 1;
	bool enough = __builtin_popcount(lost) <= whole->geometry.m;

	row_copy(&got, whole);
	row_forget(&got, lost);
	row_copy(&before, &got);
	int result = stripe_rebuild(stripe, got.column, all & ~lost, lost, got.length);
	if (result != (enough ? 0 : -EIO) || !row_equal(&got, enough ? whole : &before) ||
	    !row_guarded(&got))
		fail_msg("%u+%u, lost %#x: result %d", whole->geometry.k, whole->geometry.m, lost,
			 result);
}

static void check_every_pattern(struct geometry geometry, unsigned lost_max)
{
	static struct row whole;

	for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++) {
		if (!stripe_kernel_available(kernel))
			continue;
		struct stripe *stripe = stripe_new(geometry, kernel);
		row_init(&whole, geometry, 101, geometry.k * 100u + geometry.m);
		row_encode(stripe, &whole);
		for (uint32_t lost = 0; lost < 1u << geometry_n(geometry); lost++)
			if ((unsigned)__builtin_popcount(lost) <= lost_max)
				check_pattern(stripe, &whole, lost);
	}
}

static void test_every_pattern(void **state)
{
	static const struct {
		struct geometry geometry;
		unsigned lost_max;
	} row[] = {
		/* 0 */ {{1, 0}, 1},  /* 1 */ {{4, 0}, 4},  /* 2 */ {{1, 1}, 2},
		/* 3 */ {{1, 2}, 3},  /* 4 */ {{2, 1}, 3},  /* 5 */ {{4, 2}, 6},
		/* 6 */ {{8, 2}, 10}, /* 7 */ {{8, 3}, 11}, /* 8 */ {{8, 4}, 12},
		/* 9 */ {{16, 4}, 4},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(row); i++)
		check_every_pattern(row[i].geometry, row[i].lost_max);
}

static void test_sampled_patterns_of_16_and_8(void **state)
{
	static struct row whole;
	uint64_t seed = 11;

	for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++) {
		if (!stripe_kernel_available(kernel))
			continue;
		struct stripe *stripe = stripe_new((struct geometry){16, 8}, kernel);
		row_init(&whole, (struct geometry){16, 8}, 77, 5);
		row_encode(stripe, &whole);
		for (unsigned i = 0; i < 3000; i++) {
			uint32_t lost = 0;
			for (unsigned drawn = 0; drawn < 6 + i % 4; drawn++)
				lost |= 1u << random_next(&seed) % 24;
			check_pattern(stripe, &whole, lost);
		}
	}
}

/* Some absent columns may stay absent, and some masks come again after the cache has turned. */
static void test_wanting_a_part(void **state)
{
	static struct row whole, got;
	uint64_t seed = 3;

	for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++) {
		if (!stripe_kernel_available(kernel))
			continue;
		struct stripe *stripe = stripe_new((struct geometry){8, 4}, kernel);
		row_init(&whole, (struct geometry){8, 4}, 200, 9);
		row_encode(stripe, &whole);
		for (unsigned i = 0; i < 2000; i++) {
			uint32_t lost = 0;
			for (unsigned drawn = 0; drawn < 4; drawn++)
				lost |= 1u << random_next(&seed) % (i % 3 ? 12 : 5);
			uint32_t want = lost & (uint32_t)random_next(&seed);
			row_copy(&got, &whole);
			row_forget(&got, lost);
			assert_int_equal(
				stripe_rebuild(stripe, got.column, 0xfff & ~lost, want, 200), 0);
			assert_true(row_guarded(&got));
			for (unsigned c = 0; c < 12; c++) {
				bool there = !(lost >> c & 1) || (want >> c & 1);
				if (there != !memcmp(got.column[c], whole.column[c], 200))
					fail_msg("lost %#x, want %#x, column %u", lost, want, c);
			}
		}
	}
}

/* Coding is bytewise: the same range of all columns is a row of its own. */
static void test_a_range_is_a_row(void **state)
{
	static struct row whole, got;
	uint8_t *column[SHARDS_MAX];
	struct stripe *stripe = stripe_new((struct geometry){8, 2}, stripe_kernel_best());

	row_init(&whole, (struct geometry){8, 2}, 500, 21);
	row_encode(stripe, &whole);
	row_copy(&got, &whole);
	for (unsigned i = 0; i < 10; i++)
		column[i] = got.column[i] + 111;
	memset(column[0], GUARD, 150);
	memset(column[9], GUARD, 150);
	assert_int_equal(stripe_rebuild(stripe, column, 0x1fe, 0x201, 150), 0);
	assert_true(row_equal(&got, &whole));
}

static void test_kernels_have_names(void **state)
{
	assert_string_equal(stripe_kernel_name(STRIPE_PLAIN), "plain");
	assert_string_equal(stripe_kernel_name(STRIPE_ISAL), "isal");
	assert_string_equal(stripe_kernel_name(STRIPE_GFNI), "gfni");
	assert_true(stripe_kernel_available(stripe_kernel_best()));
	assert_false(stripe_kernel_available(STRIPE_KERNEL_COUNT));
	assert_true(stripe_bytes() < 192 * KIB);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_obeys_the_definition),
		cmocka_unit_test(test_isal_obeys_the_definition),
		cmocka_unit_test(test_gfni_obeys_the_definition),
		cmocka_unit_test(test_kernels_agree_at_any_length),
		cmocka_unit_test(test_nothing_beyond_is_read),
		cmocka_unit_test(test_every_pattern),
		cmocka_unit_test(test_sampled_patterns_of_16_and_8),
		cmocka_unit_test(test_wanting_a_part),
		cmocka_unit_test(test_a_range_is_a_row),
		cmocka_unit_test(test_kernels_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
