/* SPDX-License-Identifier: Apache-2.0 */
/* Spans: what may be opened, what counts after each opening, pruning, and the encoding against
 * every damaged byte. */
#include "core/span.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct span make(uint8_t id, uint8_t parent, uint32_t generation, lsn_t first,
			lsn_t parent_last)
{
	struct span span = {.generation = generation,
			    .kind = SPAN_IN_ORDER,
			    .first = first,
			    .parent_last = parent_last};

	span.id.bytes[0] = id;
	span.parent.bytes[0] = parent;
	return span;
}

static struct uuid id_of(uint8_t id)
{
	return (struct uuid){{id}};
}

/* Span 1 from lsn 1; span 2 from 100, to 80 of span 1; span 3 from 200, to 150 of span 2. */
static void three_spans(struct spans *spans)
{
	const struct span span[] = {make(1, 0, 1, 1, 0), make(2, 1, 1, 100, 80),
				    make(3, 2, 2, 200, 150)};

	spans_init(spans);
	assert_null(spans_newest(spans));
	for (size_t i = 0; i < ARRAY_COUNT(span); i++)
		assert_int_equal(spans_open(spans, &span[i]), 0);
}

static void test_open(void **state)
{
	(void)state;
	const struct row {
		int number;
		uint8_t id, parent;
		uint32_t generation;
		lsn_t first, parent_last;
		uint8_t kind;
		int expected;
	} rows[] = {
		{1, 4, 3, 2, 300, 250, SPAN_IN_ORDER, 0},
		{2, 4, 3, 3, 201, 200, SPAN_CATCH_UP, 0},
		{3, 4, 3, 2, 300, 120, SPAN_IN_ORDER, 0},	  /* goes back behind its parent */
		{4, 3, 2, 2, 200, 150, SPAN_IN_ORDER, -EALREADY}, /* the newest again */
		{5, 3, 2, 2, 200, 149, SPAN_IN_ORDER, -ESTALE},	  /* its id, another story */
		{6, 4, 3, 1, 300, 250, SPAN_IN_ORDER, -ESTALE},	  /* lower generation: the fence */
		{7, 4, 2, 2, 300, 250, SPAN_IN_ORDER, -ESTALE},	  /* not a child of the newest */
		{8, 4, 3, 2, 200, 150, SPAN_IN_ORDER, -ESTALE},	  /* not above the newest */
		{9, 4, 3, 2, 300, 300, SPAN_IN_ORDER, -ESTALE},	  /* not above what it names */
		{10, 1, 3, 2, 300, 250, SPAN_IN_ORDER, -ESTALE},  /* an older span's id */
		{11, 4, 3, 2, 300, 250, 0, -ESTALE},
		{12, 4, 3, 2, 300, 250, 3, -ESTALE},
		{13, 0, 3, 2, 300, 250, SPAN_IN_ORDER, -ESTALE},
		{14, 2, 1, 1, 100, 80, SPAN_IN_ORDER, -ESTALE}, /* an older span again */
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		struct span span =
			make(row->id, row->parent, row->generation, row->first, row->parent_last);
		struct spans spans, before;

		three_spans(&spans);
		before = spans;
		span.kind = row->kind;
		int result = spans_open(&spans, &span);
		if (result != row->expected)
			fail_msg("row %d: %d instead of %d", row->number, result, row->expected);
		if (result == 0)
			assert_int_equal(spans_newest(&spans)->id.bytes[0], row->id);
		else
			assert_memory_equal(&spans, &before, sizeof spans);
	}
}

static void test_open_full(void **state)
{
	(void)state;
	struct spans spans;

	spans_init(&spans);
	for (unsigned i = 1; i <= SPANS_MAX; i++) {
		struct span span = make((uint8_t)i, (uint8_t)(i - 1), 1, i * 10, i * 10 - 1);
		assert_int_equal(spans_open(&spans, &span), 0);
	}
	struct span more = make(SPANS_MAX + 1, SPANS_MAX, 1, 1000, 999);
	assert_int_equal(spans_open(&spans, &more), -ENOSPC);
	spans_prune(&spans, 19); /* the first ends at 19 */
	assert_int_equal(spans.count, SPANS_MAX - 1);
	assert_int_equal(spans_open(&spans, &more), 0);
}

static void test_counts(void **state)
{
	(void)state;
	const struct row {
		int number;
		uint8_t span;
		lsn_t lsn;
		bool counts, counts_after_rewind; /* to lsn 60 */
	} rows[] = {
		{1, 1, 0, false, false},   {2, 1, 1, true, true},      {3, 1, 60, true, true},
		{4, 1, 61, true, false},   {5, 1, 80, true, false},    {6, 1, 81, false, false},
		{7, 1, 100, false, false}, {8, 2, 99, false, false},   {9, 2, 100, true, false},
		{10, 2, 150, true, false}, {11, 2, 151, false, false}, {12, 3, 199, false, false},
		{13, 3, 200, true, false}, {14, 3, 299, true, false},  {15, 4, 300, false, true},
		{16, 5, 100, false, false}};
	struct spans spans, rewound;
	struct span back = make(4, 3, 3, 300, 60);

	three_spans(&spans);
	rewound = spans;
	assert_int_equal(spans_open(&rewound, &back), 0);
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct row *row = &rows[i];
		struct uuid id = id_of(row->span);
		if (spans_count_record(&spans, &id, row->lsn) != row->counts)
			fail_msg("row %d", row->number);
		if (spans_count_record(&rewound, &id, row->lsn) != row->counts_after_rewind)
			fail_msg("row %d after the rewind", row->number);
	}
}

/* spans_at, spans_last and spans_count_record tell one story. */
static void test_at(void **state)
{
	(void)state;
	struct spans spans;

	three_spans(&spans);
	assert_int_equal(spans_last(&spans, 0), 80);
	assert_int_equal(spans_last(&spans, 1), 150);
	assert_true(spans_last(&spans, 2) == UINT64_MAX);
	for (lsn_t lsn = 0; lsn < 250; lsn++) {
		const struct span *at = spans_at(&spans, lsn);
		unsigned owners = 0;
		for (unsigned i = 0; i < spans.count; i++)
			if (spans_count_record(&spans, &spans.span[i].id, lsn)) {
				owners++;
				assert_ptr_equal(at, &spans.span[i]);
			}
		assert_int_equal(owners, at != NULL);
	}
	struct uuid second = id_of(2), unknown = id_of(9);
	assert_ptr_equal(spans_find(&spans, &second), &spans.span[1]);
	assert_null(spans_find(&spans, &unknown));
}

/* In order up to 100; a catch-up that ended at 150; in order up to 220; a catch-up that was broken
 * off at 220, so void; one that is open. */
static void test_whole(void **state)
{
	(void)state;
	static const struct row {
		int number;
		lsn_t lsn, whole;
	} rows[] = {{1, 0, 0},	    {2, 99, 99},    {3, 100, 100},  {4, 104, 100}, {5, 110, 100},
		    {6, 149, 100},  {7, 150, 150},  {8, 155, 155},  {9, 220, 220}, {10, 230, 220},
		    {11, 245, 220}, {12, 299, 220}, {13, 300, 220}, {14, 999, 220}};
	static const struct {
		lsn_t first, parent_last;
		uint8_t kind;
	} table[] = {{1, 0, SPAN_IN_ORDER},
		     {110, 100, SPAN_CATCH_UP},
		     {160, 150, SPAN_IN_ORDER},
		     {240, 220, SPAN_CATCH_UP},
		     {300, 220, SPAN_CATCH_UP}};
	struct spans spans;
	spans_init(&spans);
	assert_true(spans_whole(&spans, 77) == 77);
	for (unsigned i = 0; i < ARRAY_COUNT(table); i++) {
		struct span span =
			make((uint8_t)(i + 1), (uint8_t)i, 2, table[i].first, table[i].parent_last);
		span.kind = table[i].kind;
		assert_int_equal(spans_open(&spans, &span), 0);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		if (spans_whole(&spans, rows[i].lsn) != rows[i].whole ||
		    spans_foldable(&spans, rows[i].lsn) != rows[i].whole)
			fail_msg("row %d", rows[i].number);
	/* An initial copy: there is no consistent point at all. */
	spans_init(&spans);
	struct span copy = make(1, 0, 1, 1, 0);
	copy.kind = SPAN_CATCH_UP;
	assert_int_equal(spans_open(&spans, &copy), 0);
	assert_true(spans_whole(&spans, 50) == 0);
	assert_true(spans_foldable(&spans, 50) == 50);
}

static void test_prune(void **state)
{
	(void)state;
	const struct row {
		int number;
		lsn_t fold_point;
		unsigned left;
	} rows[] = {{1, 0, 3},	 {2, 79, 3},  {3, 80, 2},	 {4, 149, 2},
		    {5, 150, 1}, {6, 200, 1}, {7, UINT64_MAX, 1}};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct spans spans;
		three_spans(&spans);
		spans_prune(&spans, rows[i].fold_point);
		if (spans.count != rows[i].left)
			fail_msg("row %d: %u spans left", rows[i].number, spans.count);
		assert_int_equal(spans_newest(&spans)->id.bytes[0], 3);
	}
	struct spans none;
	spans_init(&none);
	spans_prune(&none, 5);
	assert_int_equal(none.count, 0);
}

static void test_compare(void **state)
{
	(void)state;
	struct spans spans, older, none;
	struct span fork = make(9, 3, 2, 300, 250), fenced = make(8, 3, 3, 250, 220);

	three_spans(&spans);
	older = spans;
	spans_init(&none);
	assert_int_equal(spans_compare(&none, &none), 0);
	assert_true(spans_compare(&none, &spans) < 0);
	assert_true(spans_compare(&spans, &none) > 0);
	assert_int_equal(spans_compare(&spans, &older), 0);
	assert_int_equal(spans_open(&spans, &fork), 0);
	assert_true(spans_compare(&spans, &older) > 0);
	assert_int_equal(spans_open(&older, &fenced), 0);
	assert_true(spans_compare(&spans, &older) < 0);
}

static void test_encoding(void **state)
{
	(void)state;
	uint8_t bytes[SPAN_ENCODED_BYTES], again[SPAN_ENCODED_BYTES];
	struct span span = make(7, 6, 0x01020304, 0x1112131415161718, 0x1112131415161717), read;
	unsigned refused = 0;

	span.kind = SPAN_CATCH_UP;
	span_encode(&span, bytes);
	assert_int_equal(span_decode(&read, bytes), 0);
	span_encode(&read, again);
	assert_memory_equal(bytes, again, sizeof bytes);
	assert_int_equal(read.first, span.first);
	assert_int_equal(read.parent_last, span.parent_last);
	assert_int_equal(read.generation, span.generation);
	assert_int_equal(read.kind, SPAN_CATCH_UP);

	/* No byte is without a meaning: each change is refused or read back as it was written. */
	for (unsigned i = 0; i < sizeof bytes; i++) {
		uint8_t damaged[SPAN_ENCODED_BYTES];
		memcpy(damaged, bytes, sizeof damaged);
		damaged[i] ^= 0x80;
		if (span_decode(&read, damaged) == -EBADMSG) {
			refused++;
			continue;
		}
		span_encode(&read, again);
		assert_memory_equal(damaged, again, sizeof damaged);
	}
	assert_int_equal(refused, 1 /* kind */ + 11 /* reserved */ + 8 /* parent_last */);
	memset(bytes, 0, sizeof bytes);
	assert_int_equal(span_decode(&read, bytes), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),	cmocka_unit_test(test_open_full),
		cmocka_unit_test(test_counts),	cmocka_unit_test(test_at),
		cmocka_unit_test(test_whole),	cmocka_unit_test(test_prune),
		cmocka_unit_test(test_compare), cmocka_unit_test(test_encoding),
	};
	return cmocka_run_group_tests_name("span", tests, NULL, NULL);
}
