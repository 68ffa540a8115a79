/* SPDX-License-Identifier: Apache-2.0 */
/* The sum against published vectors, against its twin, and its combination against the sum itself.
 */
#include "core/crc.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static uint8_t bytes[70000];

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_random(uint64_t seed)
{
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(random_next(&seed) >> 24);
}

/* RFC 3720 B.4 gives its sums byte by byte, lowest first. */
static void test_vectors(void **state)
{
	static const uint8_t read_pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
		0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
		0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0,
	};
	static uint8_t zeros[32], ones[32], rising[32], falling[32];
	static const struct {
		const void *bytes;
		size_t length;
		uint32_t sum;
	} row[] = {
		/* 0 */ {"", 0, 0x00000000},
		/* 1 */ {"123456789", 9, 0xe3069283},
		/* 2 */ {zeros, 32, 0x8a9136aa},
		/* 3 */ {ones, 32, 0x62a8ab43},
		/* 4 */ {rising, 32, 0x46dd794e},
		/* 5 */ {falling, 32, 0x113fdb5c},
		/* 6 */ {read_pdu, 48, 0xd9963a56},
		/* 7 */ {"a", 1, 0xc1d04330},
	};

	for (unsigned i = 0; i < 32; i++) {
		ones[i] = 0xff;
		rising[i] = (uint8_t)i;
		falling[i] = (uint8_t)(31 - i);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		uint32_t fast = crc32c(row[i].bytes, row[i].length);
		uint32_t plain = crc32c_more_plain(0, row[i].bytes, row[i].length);
		if (fast != row[i].sum || plain != row[i].sum)
			fail_msg("row %u: %08x, plain %08x, expected %08x", i, fast, plain,
				 row[i].sum);
	}
}

static void test_twins_agree(void **state)
{
	fill_random(1);
	for (size_t length = 0; length < 700; length++)
		for (size_t offset = 0; offset < 9; offset++)
			assert_int_equal(crc32c_more(0x12345678, bytes + offset, length),
					 crc32c_more_plain(0x12345678, bytes + offset, length));
	assert_int_equal(crc32c(bytes, sizeof bytes), crc32c_more_plain(0, bytes, sizeof bytes));
	/* Around the blocks of the kernel for long runs. */
	static const size_t longer[] = {1999, 2000,  2001,  4000,  7999,  8000, 8001,
					9999, 10000, 12000, 16000, 16192, 65536};
	for (unsigned i = 0; i < ARRAY_COUNT(longer); i++)
		for (size_t offset = 0; offset < 40; offset += 3)
			assert_int_equal(crc32c_more(0x9abcdef0, bytes + offset, longer[i]),
					 crc32c_more_plain(0x9abcdef0, bytes + offset, longer[i]));
}

static void test_parts_make_the_whole(void **state)
{
	uint64_t seed = 7;

	for (unsigned round = 0; round < 200; round++) {
		fill_random(round + 1);
		size_t whole = random_next(&seed) % (round % 2 ? 100 : sizeof bytes);
		size_t a = random_next(&seed) % (whole + 1), b = whole - a;
		uint32_t sum = crc32c(bytes, whole), sum_a = crc32c(bytes, a);
		uint32_t sum_b = crc32c(bytes + a, b);
		struct crc32c_shift shift;

		assert_int_equal(crc32c_more(sum_a, bytes + a, b), sum);
		assert_int_equal(crc32c_combine(sum_a, sum_b, b), sum);
		crc32c_shift_init(&shift, b);
		assert_int_equal(crc32c_shift_combine(&shift, sum_a, sum_b), sum);
	}
}

/* The sum of a block from those of its eight shards, as the vault does it. */
static void test_shards_make_the_block(void **state)
{
	struct crc32c_shift shift;
	uint32_t sum = 0;

	fill_random(3);
	crc32c_shift_init(&shift, 8192);
	for (size_t i = 0; i < 8; i++)
		sum = crc32c_shift_combine(&shift, sum, crc32c(bytes + i * 8192, 8192));
	assert_int_equal(sum, crc32c(bytes, 65536));
}

/* Appending 2^40 zero bytes is cheap, and the same in one step as in two. */
static void test_far_shift(void **state)
{
	uint32_t sum = crc32c("123456789", 9);
	uint32_t once = crc32c_combine(sum, 0, 1ull << 40);
	uint32_t half = crc32c_combine(sum, 0, 1ull << 39);

	assert_int_equal(crc32c_combine(half, 0, 1ull << 39), once);
	assert_int_equal(crc32c_combine(sum, 0, 0), sum);
	assert_int_not_equal(once, sum);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_twins_agree),
		cmocka_unit_test(test_parts_make_the_whole),
		cmocka_unit_test(test_shards_make_the_block),
		cmocka_unit_test(test_far_shift),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
