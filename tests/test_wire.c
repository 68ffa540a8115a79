/* SPDX-License-Identifier: Apache-2.0 */
/* Every datagram of the data plane against docs/protocol.md "Datagrams": first the examples of
 * wire_examples.h, to the byte; then lies: other lengths, values beyond their bounds, and texts
 * that were changed at random. */
#include "core/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bytes.h"
#include "child.h"
#include "wire_examples.h"

enum { MUTATIONS = 200000, DATAGRAM_BYTES_MAX = 1472 };

static uint32_t encode(enum wire_type type, const union message *m, uint8_t *out)
{
	switch (type) {
	case WIRE_SHARD:
		wire_shard_encode(&m->shard, out);
		return WIRE_SHARD_TEXT_BYTES;
	case WIRE_ALIVE:
		return wire_alive_encode(&m->alive, out);
	case WIRE_HELLO:
		return wire_hello_encode(&m->hello, out);
	case WIRE_STATE:
		return wire_state_encode(&m->state, out);
	case WIRE_OPEN:
		return wire_open_encode(&m->open, out);
	case WIRE_OPENED:
		return wire_opened_encode(&m->opened, out);
	case WIRE_HEAD:
		return wire_head_encode(&m->head, out);
	case WIRE_POINTS:
		return wire_points_encode(&m->points, out);
	case WIRE_COMPARE:
		return wire_compare_encode(&m->compare, out);
	case WIRE_TAGS:
		return wire_tags_encode(&m->tags, out);
	}
	fail();
	return 0;
}

static int decode(enum wire_type type, union message *m, const uint8_t *text, uint32_t length)
{
	switch (type) {
	case WIRE_SHARD:
		return wire_shard_decode(&m->shard, text, length);
	case WIRE_ALIVE:
		return wire_alive_decode(&m->alive, text, length);
	case WIRE_HELLO:
		return wire_hello_decode(&m->hello, text, length);
	case WIRE_STATE:
		return wire_state_decode(&m->state, text, length);
	case WIRE_OPEN:
		return wire_open_decode(&m->open, text, length);
	case WIRE_OPENED:
		return wire_opened_decode(&m->opened, text, length);
	case WIRE_HEAD:
		return wire_head_decode(&m->head, text, length);
	case WIRE_POINTS:
		return wire_points_decode(&m->points, text, length);
	case WIRE_COMPARE:
		return wire_compare_decode(&m->compare, text, length);
	case WIRE_TAGS:
		return wire_tags_decode(&m->tags, text, length);
	}
	fail();
	return 0;
}

static const struct layout *layout_of(enum wire_type type)
{
	return &layouts[type - WIRE_SHARD];
}

/* The bytes that the document gives for the example; gives their number. */
static uint32_t text_of(const struct layout *layout, uint8_t *out)
{
	uint32_t at = 0;
	for (const struct field *f = layout->field; f->bytes; f++) {
		if (f->at != at)
			fail_msg("%s: the fields have a gap at %u", layout->name, at);
		for (unsigned i = 0; i < f->bytes; i++) {
			bool integer = f->bytes <= 8;
			uint64_t value = integer    ? f->value >> (8 * i)
					 : f->value ? f->value + i
						    : 0;
			out[at + i] = (uint8_t)value;
		}
		if (f->bytes == 32) {
			memset(out + at, 0, 32);
			memcpy(out + at, names[f->value], strlen(names[f->value]));
		}
		at += f->bytes;
	}
	return at;
}

/* The example with another number of elements; they repeat the last one. */
static uint32_t text_counted(const struct layout *layout, unsigned count, uint8_t *out)
{
	uint8_t example[WIRE_TEXT_BYTES_MAX];
	uint32_t length = text_of(layout, example), at = layout->count_at;
	uint32_t behind = layout->least - at - 1, has = example[at] * layout->each;
	const uint8_t *tail = example + length - behind;
	memcpy(out, example, at + 1);
	out[at] = (uint8_t)count;
	for (unsigned i = 0; i < count; i++)
		memcpy(out + at + 1 + i * layout->each, tail - has + i * layout->each % has,
		       layout->each);
	memcpy(out + at + 1 + count * layout->each, tail, behind);
	return layout->least + count * layout->each;
}

/* Decodes a copy behind which nothing is, so that ASan sees who reads on. */
static int decode_exact(enum wire_type type, union message *m, const uint8_t *text, uint32_t length)
{
	uint8_t *exact = malloc(length ? length : 1);
	memcpy(exact, text, length);
	memset(m, 0xa5, sizeof *m); /* what a decoder leaves out, shows */
	int result = decode(type, m, exact, length);
	free(exact);
	return result;
}

static void bytes_equal(const char *name, const uint8_t *expected, const uint8_t *bytes,
			uint32_t length)
{
	for (uint32_t at = 0; at < length; at++)
		if (expected[at] != bytes[at])
			fail_msg("%s: byte %u is %#x instead of %#x", name, at, bytes[at],
				 expected[at]);
}

/* What is written is what the document says; and what is read from that is written again so: since
 * each field of the example has a value of its own, all of them were read into their places. */
static void texts_are_as_documented(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(layouts); i++) {
		const struct layout *layout = &layouts[i];
		uint8_t expected[WIRE_TEXT_BYTES_MAX], text[WIRE_TEXT_BYTES_MAX];
		union message read;
		uint32_t length = text_of(layout, expected);
		memset(text, 0x5a, sizeof text);
		assert_int_equal(length, encode(layout->type, layout->example, text));
		bytes_equal(layout->name, expected, text, length);
		assert_int_equal(0, decode_exact(layout->type, &read, expected, length));
		memset(text, 0x5a, sizeof text);
		assert_int_equal(length, encode(layout->type, &read, text));
		bytes_equal(layout->name, expected, text, length);
	}
}

/* The cut travels in units, and what does not travel is not left to chance. */
static void shards_are_read_whole(void **state)
{
	uint8_t text[WIRE_TEXT_BYTES_MAX];
	union message read;
	uint32_t length = text_of(layout_of(WIRE_SHARD), text);
	assert_int_equal(0, decode_exact(WIRE_SHARD, &read, text, length));
	assert_int_equal(0xc1c2 * 64, read.shard.cut_bytes);
	assert_true(uuid_is_zero(&read.shard.record.volume));
	assert_int_equal(0, read.shard.record.shard_bytes);
	assert_int_equal(0, read.shard.record.shard_crc);
	assert_int_equal(0, read.shard.record.powered_ns);
}

static void other_lengths_and_types_are_refused(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(layouts); i++) {
		const struct layout *layout = &layouts[i];
		uint8_t text[WIRE_TEXT_BYTES_MAX + 1] = {0};
		union message read;
		uint32_t right = text_of(layout, text);
		for (uint32_t length = 0; length <= sizeof text; length++) {
			int expected = length == right ? 0 : -EBADMSG;
			if (decode_exact(layout->type, &read, text, length) != expected)
				fail_msg("%s: %u bytes instead of %u", layout->name, length, right);
		}
		for (unsigned type = 0; type < 256; type++) {
			int expected = type == layout->type ? 0 : -EBADMSG;
			text[0] = (uint8_t)type;
			assert_int_equal(expected, decode_exact(layout->type, &read, text, right));
		}
	}
}

/* Each count up to its bound, with all the bytes that it promises; and beyond, likewise: so it is
 * the bound that refuses. */
static void counts_have_their_bounds(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(layouts); i++) {
		const struct layout *layout = &layouts[i];
		uint8_t text[256 * 128], again[WIRE_TEXT_BYTES_MAX];
		union message read;
		if (!layout->each)
			continue;
		for (unsigned count = 0; count < 256; count++) {
			uint32_t length = text_counted(layout, count, text);
			int expected = count <= layout->count_max ? 0 : -EBADMSG;
			if (decode_exact(layout->type, &read, text, length) != expected)
				fail_msg("%s: count %u", layout->name, count);
			if (expected == 0) {
				assert_int_equal(length, encode(layout->type, &read, again));
				bytes_equal(layout->name, text, again, length);
				assert_in_range(length, layout->least, layout->most);
			}
			if (count == layout->count_max)
				assert_int_equal(layout->most, length);
		}
	}
}

/* Sets the count of a message that has one. */
static void count_set(enum wire_type type, union message *m, unsigned count)
{
	if (type == WIRE_HELLO)
		m->hello.volume_count = (uint8_t)count;
	else if (type == WIRE_POINTS)
		m->points.nack_count = (uint8_t)count;
	else
		m->tags.count = (uint8_t)count;
}

static enum wire_type counted_type;
static unsigned counted;

static void encode_counted(void)
{
	static uint8_t out[WIRE_TEXT_BYTES_MAX];
	static union message m;
	count_set(counted_type, &m, counted);
	encode(counted_type, &m, out);
}

/* More than a format has room for, we do not say: not even where the text itself would have it. */
static void we_say_no_more_than_the_bounds(void **state)
{
	static const struct {
		enum wire_type type;
		unsigned most;
	} rows[] = {
		{WIRE_HELLO, VOLUMES_PER_GROUP_MAX},
		{WIRE_POINTS, WIRE_NACKS_MAX},
		{WIRE_TAGS, WIRE_TAGS_MAX},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		counted_type = rows[i].type;
		for (counted = rows[i].most - 1; counted <= rows[i].most + 1; counted++)
			if (child_stops(encode_counted) != (counted > rows[i].most))
				fail_msg("row %u: a count of %u", i, counted);
	}
}

/* One change to the example, and whether it is still taken. */
static const struct lie {
	int number;
	enum wire_type type;
	uint16_t at, bytes;
	uint64_t value;
	bool taken;
	const char *what;
} lies[] = {
	{1, WIRE_SHARD, 1, 1, 0, false, "kind 0"},
	{2, WIRE_SHARD, 1, 1, 1, true, "data"},
	{3, WIRE_SHARD, 1, 1, 6, true, "end"},
	{4, WIRE_SHARD, 1, 1, 7, false, "kind 7"},
	{5, WIRE_SHARD, 1, 1, 255, false, "kind 255"},
	{6, WIRE_SHARD, 2, 1, 21, true, "column n - 1"},
	{7, WIRE_SHARD, 2, 1, 22, false, "column n"},
	{8, WIRE_SHARD, 2, 1, 255, false, "column 255"},
	{9, WIRE_SHARD, 2, 3, 0x000100, true, "k 1, m 0, column 0"},
	{10, WIRE_SHARD, 2, 3, 0x000101, false, "k 1, m 0, column 1"},
	{11, WIRE_SHARD, 2, 3, 0x081017, true, "k 16, m 8, column 23"},
	{12, WIRE_SHARD, 2, 3, 0x081018, false, "k 16, m 8, column 24"},
	{13, WIRE_SHARD, 2, 2, 0x0000, false, "k 0"},
	{14, WIRE_SHARD, 3, 1, 17, false, "k 17"},
	{15, WIRE_SHARD, 3, 1, 255, false, "k 255"},
	{16, WIRE_SHARD, 4, 1, 8, true, "m 8"},
	{17, WIRE_SHARD, 4, 1, 9, false, "m 9"},
	{18, WIRE_SHARD, 4, 1, 255, false, "m 255"},
	{19, WIRE_SHARD, 5, 1, 7, true, "group 7"},
	{20, WIRE_SHARD, 5, 1, 8, false, "group 8"},
	{21, WIRE_SHARD, 6, 1, 7, true, "volume 7"},
	{22, WIRE_SHARD, 6, 1, 8, false, "volume 8"},
	{23, WIRE_SHARD, 7, 1, 1, true, "zero, not looked at"},
	{24, WIRE_SHARD, 44, 8, 0, false, "lsn 0"},
	{25, WIRE_SHARD, 44, 8, UINT64_MAX, true, "the last lsn"},
	{26, WIRE_SHARD, 92, 2, 0xffff, true, "the largest cut"},
	{27, WIRE_SHARD, 94, 2, 0xffff, true, "flags, not looked at"},
	{28, WIRE_SHARD, 108, 4, 0xffffffff, true, "zeros, not looked at"},
	{30, WIRE_ALIVE, 41, 1, 0, true, "goes on"},
	{31, WIRE_ALIVE, 41, 1, 2, false, "stops twice"},
	{32, WIRE_ALIVE, 41, 1, 255, false, "stops 255 times"},
	{39, WIRE_HELLO, 2, 1, 0, false, "a name behind its end"},
	{40, WIRE_HELLO, 2, 32, 0, true, "no name"},
	{41, WIRE_HELLO, 109, 1, 'x', false, "a name of 32 letters"},
	{42, WIRE_HELLO, 194 + 31, 1, 0, true, "a name that ends"},
	{43, WIRE_HELLO, 2 + 8, 1, 'x', false, "a letter behind the end of a name"},
	{44, WIRE_HELLO, 2 + 31, 1, 'x', false, "and in its last byte"},
	{45, WIRE_HELLO, 194 + 31, 1, 1, false, "the same of a volume"},
	{46, WIRE_HELLO, 194 + 1, 1, 'x', true, "a letter more"},
	{50, WIRE_STATE, 46, 1, 0, false, "no span, but its bytes"},
	{51, WIRE_STATE, 47, 16, 0, false, "span without id"},
	{52, WIRE_STATE, 47 + 52, 1, 0, false, "span of kind 0"},
	{53, WIRE_STATE, 46, 1, 2, false, "two spans"},
	{54, WIRE_STATE, 46, 1, 255, false, "255 spans"},
	{60, WIRE_OPEN, 2, 16, 0, false, "span without id"},
	{61, WIRE_OPEN, 18, 16, 0, true, "the first has no parent"},
	{62, WIRE_OPEN, 34, 8, 0x7192939495969798, false, "first is the parent's last"},
	{63, WIRE_OPEN, 34, 8, 0x7192939495969799, true, "first is one above"},
	{64, WIRE_OPEN, 34, 16, 0, false, "first and last are 0"},
	{65, WIRE_OPEN, 54, 1, 0, false, "kind 0"},
	{66, WIRE_OPEN, 54, 1, 1, true, "in order"},
	{67, WIRE_OPEN, 54, 1, 3, false, "kind 3"},
	{68, WIRE_OPEN, 55, 1, 1, false, "the first of 11 zeros"},
	{69, WIRE_OPEN, 65, 1, 1, false, "the last of them"},
	{70, WIRE_POINTS, 50, 1, 1, false, "one nack of two"},
	{71, WIRE_POINTS, 50, 1, 3, false, "three nacks of two"},
	{72, WIRE_TAGS, 19, 1, 1, false, "one tag of two"},
	{73, WIRE_TAGS, 19, 1, 3, false, "three tags of two"},
	{74, WIRE_HELLO, 77, 1, 1, false, "one volume of two"},
	{75, WIRE_HELLO, 77, 1, 3, false, "three volumes of two"},
};

static void values_have_their_bounds(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		const struct lie *lie = &lies[i];
		uint8_t text[WIRE_TEXT_BYTES_MAX];
		union message read;
		uint32_t length = text_of(layout_of(lie->type), text);
		for (unsigned b = 0; b < lie->bytes; b++)
			text[lie->at + b] = (uint8_t)(b < 8 ? lie->value >> (8 * b) : 0);
		int expected = lie->taken ? 0 : -EBADMSG;
		if (decode_exact(lie->type, &read, text, length) != expected)
			fail_msg("row %d: %s", lie->number, lie->what);
	}
}

/* ---- changed at random ---- */
/* A good text of one of all sizes, then up to four bytes of it, its count or its length changed.
 * Gives the length; the room may be exceeded by none of it. */
static uint32_t text_mutated(const struct layout *layout, uint64_t *seed, uint8_t *text)
{
	static const uint8_t edge[] = {0, 1, 2, 3, 7, 8, 9, 16, 17, 18, 19, 24, 64, 65, 127, 255};
	uint64_t draw = bytes_next(seed);
	uint32_t length =
		layout->each && draw % 2
			? text_counted(layout, (unsigned)(draw / 2 % (layout->count_max + 1)), text)
			: text_of(layout, text);
	for (unsigned changes = (unsigned)(draw >> 60) % 5; changes > 0; changes--) {
		uint64_t change = bytes_next(seed);
		uint32_t at = (uint32_t)(change % (change & 1 << 30 ? length : layout->least));
		text[at] = change & 1ull << 31 ? (uint8_t)(change >> 56)
					       : edge[(change >> 56) % ARRAY_COUNT(edge)];
	}
	if (draw >> 32 & 15)
		return length;
	bytes_random(seed, text + length, WIRE_TEXT_BYTES_MAX - length);
	return (uint32_t)(bytes_next(seed) % (WIRE_TEXT_BYTES_MAX + 1));
}

/* Bytes of a shard that are not looked at (docs/protocol.md "SHARD") come back as zeros. */
static void zeros_restore(enum wire_type type, uint8_t *text)
{
	if (type != WIRE_SHARD)
		return;
	text[7] = 0;
	memset(text + 94, 0, 2);
	memset(text + 108, 0, 4);
}

static void mutated_texts_of(const struct layout *layout, uint64_t first_seed)
{
	uint64_t seed = first_seed;
	/* Each text ends where the memory does, so that ASan sees who reads on. */
	uint8_t *memory = malloc(WIRE_TEXT_BYTES_MAX), text[WIRE_TEXT_BYTES_MAX];
	unsigned taken = 0;
	for (unsigned round = 0; round < MUTATIONS; round++) {
		union message read;
		uint8_t again[WIRE_TEXT_BYTES_MAX];
		uint32_t length = text_mutated(layout, &seed, text);
		uint8_t *exact = memory + WIRE_TEXT_BYTES_MAX - length;
		memcpy(exact, text, length);
		memset(&read, 0xa5, sizeof read);
		int result = decode(layout->type, &read, exact, length);
		if (result != 0 && result != -EBADMSG)
			fail_msg("%s: %d", layout->name, result);
		if (result < 0)
			continue;
		taken++;
		zeros_restore(layout->type, text);
		if (encode(layout->type, &read, again) != length ||
		    memcmp(text, again, length) != 0)
			fail_msg("%s: seed %#llx, round %u: written again it differs", layout->name,
				 (unsigned long long)first_seed, round);
	}
	free(memory);
	assert_in_range(taken, MUTATIONS / 20, MUTATIONS - MUTATIONS / 20);
}

static void mutated_texts_are_refused_or_come_back(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(layouts); i++)
		mutated_texts_of(&layouts[i], 0x5eed0100 + i);
}

/* ---- the clear header ---- */
static const struct wire_header header = {.type = WIRE_SHARD,
					  .slot = 0xf7,
					  .path = 6,
					  .text_bytes = 112,
					  .session = 0x1112131415161718,
					  .number = 0x2122232425262728};
static const uint8_t header_bytes[24] = {
	1,    16,   0xf7, 6,	112,  0,    0,	  0,	/* version, type, slot, path, text, zero */
	0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* session */
	0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, /* packet number */
};

static int header_decode_exact(struct wire_header *read, const uint8_t *in, uint32_t length)
{
	uint8_t *exact = calloc(1, length ? length : 1);
	memcpy(exact, in, min_u64(length, sizeof header_bytes));
	memset(read, 0xa5, sizeof *read);
	int result = wire_header_decode(read, exact, length);
	free(exact);
	return result;
}

static void header_is_as_documented(void **state)
{
	uint8_t bytes[24];
	struct wire_header read;
	memset(bytes, 0x5a, sizeof bytes);
	wire_header_encode(&header, bytes);
	bytes_equal("header", header_bytes, bytes, sizeof bytes);
	assert_int_equal(0, header_decode_exact(&read, header_bytes, 24 + 112 + 16 + 1024));
	assert_int_equal(16, read.type);
	assert_int_equal(0xf7, read.slot);
	assert_int_equal(6, read.path);
	assert_int_equal(112, read.text_bytes);
	assert_int_equal(0x1112131415161718, read.session);
	assert_int_equal(0x2122232425262728, read.number);
}

/* Type, bytes of text, length of the datagram, and one more byte that is changed; at 24: none. */
static void header_lies_are_told_from_truth(void **state)
{
	static const struct {
		int number;
		uint8_t type;
		uint16_t text_bytes;
		uint32_t length;
		uint8_t at, value;
		bool taken;
		const char *what;
	} rows[] = {
		{1, 16, 112, 152, 24, 0, true, "shard without payload"},
		{2, 16, 112, 1472, 24, 0, true, "shard with payload"},
		{3, 16, 112, 151, 24, 0, false, "cut in the tag"},
		{4, 16, 112, 41, 24, 0, false, "cut in the text"},
		{5, 16, 1, 41, 24, 0, true, "the shortest of all"},
		{6, 16, 1, 40, 24, 0, false, "no room for a text"},
		{7, 16, 0, 41, 24, 0, false, "no text, but a payload"},
		{8, 16, 0, 40, 24, 0, false, "no text"},
		{9, 16, 1, 39, 24, 0, false, "cut in the tag of nothing"},
		{10, 16, 1, 24, 24, 0, false, "the header alone"},
		{11, 16, 1, 23, 24, 0, false, "cut in the header"},
		{12, 16, 1, 1, 24, 0, false, "the version alone"},
		{13, 16, 1, 0, 24, 0, false, "nothing at all"},
		{14, 18, 1232, 1272, 24, 0, true, "the longest text"},
		{15, 18, 1233, 1273, 24, 0, false, "a text too long"},
		{16, 16, 65535, 65575, 24, 0, false, "a text far too long"},
		{17, 17, 42, 82, 24, 0, true, "type 17"},
		{18, 17, 42, 83, 24, 0, false, "a payload where none belongs"},
		{19, 25, 20, 60, 24, 0, true, "type 25"},
		{20, 25, 20, 61, 24, 0, false, "a payload where none belongs"},
		{21, 26, 20, 60, 24, 0, false, "type 26"},
		{22, 15, 20, 60, 24, 0, false, "a type of the handshake"},
		{23, 255, 20, 60, 24, 0, false, "type 255"},
		{24, 17, 42, 82, 0, 0, false, "version 0"},
		{25, 17, 42, 82, 0, 2, false, "version 2"},
		{26, 17, 42, 82, 3, 7, true, "path 7"},
		{27, 17, 42, 82, 3, 8, false, "path 8"},
		{28, 17, 42, 82, 3, 255, false, "path 255"},
		{29, 17, 42, 82, 6, 1, false, "not zero at 6"},
		{30, 17, 42, 82, 7, 128, false, "not zero at 7"},
		{31, 17, 42, 82, 2, 0, true, "any slot"},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		uint8_t bytes[25];
		struct wire_header read;
		memcpy(bytes, header_bytes, sizeof header_bytes);
		bytes[1] = rows[i].type;
		bytes[4] = (uint8_t)rows[i].text_bytes;
		bytes[5] = (uint8_t)(rows[i].text_bytes >> 8);
		bytes[rows[i].at] = rows[i].value;
		int expected = rows[i].taken ? 0 : -EBADMSG;
		if (header_decode_exact(&read, bytes, rows[i].length) != expected)
			fail_msg("row %d: %s", rows[i].number, rows[i].what);
	}
}

/* What is taken names a text and a tag that are there. */
static void mutated_headers_are_refused_or_come_back(void **state)
{
	const uint64_t first_seed = 0x5eed0200;
	uint64_t seed = first_seed;
	uint8_t *memory = calloc(1, DATAGRAM_BYTES_MAX);
	unsigned taken = 0;
	for (unsigned round = 0; round < MUTATIONS; round++) {
		struct wire_header read;
		uint8_t bytes[24], again[24];
		uint64_t draw = bytes_next(&seed);
		uint32_t length = (uint32_t)(draw % 4 ? 152 : draw / 4 % DATAGRAM_BYTES_MAX);
		uint8_t *exact = memory + DATAGRAM_BYTES_MAX - length;
		memcpy(bytes, header_bytes, sizeof bytes);
		for (unsigned changes = (unsigned)(draw >> 60) % 4; changes > 0; changes--) {
			uint64_t change = bytes_next(&seed);
			bytes[change % 24] ^= (uint8_t)(1 << (change >> 32) % 8);
		}
		memcpy(exact, bytes, min_u64(length, sizeof bytes));
		if (wire_header_decode(&read, exact, length) < 0)
			continue;
		taken++;
		wire_header_encode(&read, again);
		if (memcmp(bytes, again, sizeof again) != 0 || read.path > 7 || read.type < 16 ||
		    read.type > 25 || read.text_bytes < 1 || read.text_bytes > 1232 ||
		    24u + read.text_bytes + 16 > length ||
		    (read.type != 16 && 24u + read.text_bytes + 16 != length))
			fail_msg("seed %#llx, round %u", (unsigned long long)first_seed, round);
	}
	free(memory);
	assert_in_range(taken, MUTATIONS / 20, MUTATIONS - MUTATIONS / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_as_documented),
		cmocka_unit_test(shards_are_read_whole),
		cmocka_unit_test(other_lengths_and_types_are_refused),
		cmocka_unit_test(counts_have_their_bounds),
		cmocka_unit_test(we_say_no_more_than_the_bounds),
		cmocka_unit_test(values_have_their_bounds),
		cmocka_unit_test(mutated_texts_are_refused_or_come_back),
		cmocka_unit_test(header_is_as_documented),
		cmocka_unit_test(header_lies_are_told_from_truth),
		cmocka_unit_test(mutated_headers_are_refused_or_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
