/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges: a table of adds and removes with the expected set, the bound of the memory, and a long
 * seeded comparison with a plain bitmap. */
#include "core/ranges.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { TEXT_BYTES = 256, STEPS_MAX = 8, MAP_BITS = 96 };

static const char *ranges_text(const struct ranges *ranges, char text[TEXT_BYTES])
{
	size_t used = 0;

	text[0] = 0;
	for (unsigned i = 0; i < ranges->count; i++)
		used += (size_t)snprintf(text + used, TEXT_BYTES - used, "%s%llu-%llu",
					 i ? " " : "", (unsigned long long)ranges->range[i].first,
					 (unsigned long long)ranges->range[i].end);
	return text;
}

struct step {
	char verb; /* + add, - remove */
	uint64_t first, end;
	int result;
};

static const struct row {
	int number;
	unsigned capacity;
	struct step step[STEPS_MAX];
	const char *expected;
} rows[] = {
	{1, 4, {{'+', 5, 9, 0}}, "5-9"},
	{2, 4, {{'+', 5, 5, 0}}, ""},
	{3, 4, {{'+', 5, 9, 0}, {'+', 9, 12, 0}}, "5-12"},
	{4, 4, {{'+', 5, 9, 0}, {'+', 2, 5, 0}}, "2-9"},
	{5, 4, {{'+', 5, 9, 0}, {'+', 1, 3, 0}, {'+', 11, 13, 0}}, "1-3 5-9 11-13"},
	{6, 4, {{'+', 1, 3, 0}, {'+', 5, 7, 0}, {'+', 9, 11, 0}, {'+', 2, 10, 0}}, "1-11"},
	{7, 4, {{'+', 1, 3, 0}, {'+', 5, 7, 0}, {'+', 3, 5, 0}}, "1-7"},
	{8, 2, {{'+', 1, 2, 0}, {'+', 3, 4, 0}, {'+', 5, 6, -ENOSPC}}, "1-2 3-4"},
	{9, 2, {{'+', 1, 2, 0}, {'+', 3, 4, 0}, {'+', 4, 6, 0}}, "1-2 3-6"},
	{10, 2, {{'+', 1, 2, 0}, {'+', 3, 4, 0}, {'+', 2, 3, 0}, {'+', 9, 10, 0}}, "1-4 9-10"},
	{11, 4, {{'+', 1, 9, 0}, {'-', 3, 5, 0}}, "1-3 5-9"},
	{12, 1, {{'+', 1, 9, 0}, {'-', 3, 5, -ENOSPC}}, "1-9"},
	{13, 1, {{'+', 1, 9, 0}, {'-', 1, 5, 0}}, "5-9"},
	{14, 1, {{'+', 1, 9, 0}, {'-', 5, 20, 0}}, "1-5"},
	{15, 1, {{'+', 5, 9, 0}, {'-', 1, 20, 0}}, ""},
	{16, 1, {{'+', 5, 9, 0}, {'-', 9, 20, 0}}, "5-9"},
	{17, 1, {{'+', 5, 9, 0}, {'-', 1, 5, 0}}, "5-9"},
	{18, 1, {{'+', 5, 9, 0}, {'-', 7, 7, 0}}, "5-9"},
	{19, 4, {{'+', 1, 3, 0}, {'+', 5, 7, 0}, {'+', 9, 11, 0}, {'-', 2, 10, 0}}, "1-2 10-11"},
	{20, 3, {{'+', 1, 3, 0}, {'+', 5, 7, 0}, {'+', 9, 11, 0}, {'-', 3, 9, 0}}, "1-3 9-11"},
	{21, 2, {{'+', 0, UINT64_MAX, 0}, {'-', 7, 8, 0}}, "0-7 8-18446744073709551615"},
	{22, 0, {{'+', 1, 2, -ENOSPC}, {'-', 1, 2, 0}}, ""},
};

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		struct range memory[STEPS_MAX];
		struct ranges ranges;
		char text[TEXT_BYTES];

		ranges_init(&ranges, memory, row->capacity);
		for (const struct step *step = row->step; step->verb; step++) {
			int result = step->verb == '+'
					     ? ranges_add(&ranges, step->first, step->end)
					     : ranges_remove(&ranges, step->first, step->end);
			if (result != step->result)
				fail_msg("row %d: %d instead of %d", row->number, result,
					 step->result);
		}
		if (strcmp(ranges_text(&ranges, text), row->expected) != 0)
			fail_msg("row %d: \"%s\" instead of \"%s\"", row->number, text,
				 row->expected);
	}
}

static void test_questions(void **state)
{
	(void)state;
	struct range memory[2];
	struct ranges ranges;

	ranges_init(&ranges, memory, 2);
	assert_null(ranges_next(&ranges, 0));
	assert_int_equal(ranges_first_gap(&ranges, 7), 7);
	assert_int_equal(ranges_add(&ranges, 2, 5), 0);
	assert_int_equal(ranges_add(&ranges, 8, 9), 0);
	assert_false(ranges_contains(&ranges, 1));
	assert_true(ranges_contains(&ranges, 2));
	assert_true(ranges_contains(&ranges, 4));
	assert_false(ranges_contains(&ranges, 5));
	assert_true(ranges_contains_all(&ranges, 2, 5));
	assert_false(ranges_contains_all(&ranges, 2, 6));
	assert_false(ranges_contains_all(&ranges, 4, 9));
	assert_true(ranges_contains_all(&ranges, 6, 6));
	assert_int_equal(ranges_count(&ranges, 0, 100), 4);
	assert_int_equal(ranges_count(&ranges, 3, 3), 0);
	assert_int_equal(ranges_count(&ranges, 5, 8), 0);
	assert_int_equal(ranges_first_gap(&ranges, 3), 5);
	assert_int_equal(ranges_first_gap(&ranges, 5), 5);
	assert_ptr_equal(ranges_next(&ranges, 4), &memory[0]);
	assert_ptr_equal(ranges_next(&ranges, 5), &memory[1]);
	assert_null(ranges_next(&ranges, 9));
	ranges_clear(&ranges);
	assert_int_equal(ranges.count, 0);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return *seed >> 33;
}

static void check_against_map(const struct ranges *ranges, const bool map[MAP_BITS + 1],
			      unsigned round)
{
	for (unsigned i = 0; i < ranges->count; i++)
		if (ranges->range[i].first >= ranges->range[i].end ||
		    (i && ranges->range[i - 1].end >= ranges->range[i].first))
			fail_msg("round %u: range %u is empty, unsorted or touches", round, i);
	for (unsigned bit = 0; bit < MAP_BITS; bit++) {
		unsigned gap = bit;
		const uint64_t end = min_u64(bit + 7, MAP_BITS);
		uint64_t count = 0;
		for (uint64_t i = bit; i < end; i++)
			count += map[i];
		if (ranges_count(ranges, bit, end) != count)
			fail_msg("round %u: count from %u", round, bit);
		if (ranges_contains(ranges, bit) != map[bit])
			fail_msg("round %u: number %u", round, bit);
		while (map[gap])
			gap++;
		if (ranges_first_gap(ranges, bit) != gap)
			fail_msg("round %u: gap after %u", round, bit);
	}
}

static void test_against_map(void **state)
{
	(void)state;
	struct range memory[12];
	struct ranges ranges;
	bool map[MAP_BITS + 1] = {false};
	uint64_t seed = 1;
	unsigned refused = 0;

	ranges_init(&ranges, memory, ARRAY_COUNT(memory));
	for (unsigned round = 0; round < 20000; round++) {
		uint64_t first = next_random(&seed) % MAP_BITS;
		uint64_t end = min_u64(MAP_BITS, first + next_random(&seed) % 9);
		bool add = next_random(&seed) & 1;
		int result =
			add ? ranges_add(&ranges, first, end) : ranges_remove(&ranges, first, end);
		refused += result != 0;
		if (result && ranges.count != ranges.capacity)
			fail_msg("round %u: refused with room left", round);
		for (uint64_t i = first; result == 0 && i < end; i++)
			map[i] = add;
		check_against_map(&ranges, map, round);
	}
	assert_in_range(refused, 1, 19999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_against_map),
	};
	return cmocka_run_group_tests_name("ranges", tests, NULL, NULL);
}
