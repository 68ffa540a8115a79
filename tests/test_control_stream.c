/* SPDX-License-Identifier: Apache-2.0 */
/* The parts below the handshake, each alone: datagrams to bytes and back, the reliable stream under
 * every order of arrival, cookies and their age. */
#include "session/control_stream.h"
#include "session/control_wire.h"
#include "session/cookie.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>

/* ---- wire ---- */

static const uint8_t some_bytes[CONTROL_STREAM_BYTES_MAX] = {1, 2, 3};

static const struct wire_row {
	int number;
	struct control_message message;
	size_t length;
} wire_rows[] = {
	{1, {.type = CONTROL_HELLO, .sender = 7}, 1200},
	{2, {.type = CONTROL_HELLO, .sender = 7, .cookie = {9}}, 1200},
	{3, {.type = CONTROL_COOKIE, .receiver = 7, .cookie = {9}}, 68},
	{4,
	 {.type = CONTROL_STREAM, .receiver = 7, .sender = 8, .length = 1, .bytes = some_bytes},
	 45},
	{5,
	 {.type = CONTROL_STREAM,
	  .receiver = 7,
	  .sender = 8,
	  .offset = UINT32_MAX,
	  .length = CONTROL_STREAM_BYTES_MAX,
	  .bytes = some_bytes},
	 1200},
	{6, {.type = CONTROL_ACK, .receiver = 7, .sender = 8}, 44},
	{7,
	 {.type = CONTROL_ACK,
	  .receiver = 7,
	  .sender = 8,
	  .cumulative = 10,
	  .range_count = 2,
	  .range = {{11, 12}, {20, 30}}},
	 60},
	{8, {.type = CONTROL_CLOSE, .receiver = 7, .sender = 8, .reason = SESSION_REASON_PIN}, 40},
};

static void messages_equal(const struct control_message *a, const struct control_message *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->receiver, b->receiver);
	assert_int_equal(a->sender, b->sender);
	assert_memory_equal(a->cookie, b->cookie, sizeof a->cookie);
	assert_int_equal(a->offset, b->offset);
	assert_int_equal(a->length, b->length);
	if (a->length)
		assert_memory_equal(a->bytes, b->bytes, a->length);
	assert_int_equal(a->cumulative, b->cumulative);
	assert_int_equal(a->range_count, b->range_count);
	assert_memory_equal(a->range, b->range, sizeof a->range);
	assert_int_equal(a->reason, b->reason);
}

static void test_wire_round_trip(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(wire_rows); i++) {
		uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX];
		struct control_message again;
		const size_t length = control_encode(&wire_rows[i].message, bytes);

		if (length != wire_rows[i].length)
			fail_msg("row %d: %zu bytes", wire_rows[i].number, length);
		assert_int_equal(control_decode(bytes, length, &again), 0);
		messages_equal(&again, &wire_rows[i].message);
	}
}

/* Any bit turned, any byte cut off or added: refused. */
static void test_wire_damage(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(wire_rows); i++) {
		uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX + 1] = {0};
		struct control_message message;
		const size_t length = control_encode(&wire_rows[i].message, bytes);

		for (size_t bit = 0; bit<8 * length; bit += length> 100 ? 41 : 1) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_not_equal(control_decode(bytes, length, &message), 0);
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (size_t cut = 0; cut<length; cut += length> 100 ? 29 : 1)
			assert_int_equal(control_decode(bytes, cut, &message), -EBADMSG);
		assert_int_equal(control_decode(bytes, length + 1, &message), -EBADMSG);
		bytes[0] = 2;
		assert_int_equal(control_decode(bytes, length, &message), -EPROTONOSUPPORT);
	}
}

/* Datagrams with a good check and a bad inside. offset and value: what is put there. */
static const struct forgery_row {
	int number;
	unsigned wire_row; /* index above */
	size_t offset;
	uint16_t value;
} forgery_rows[] = {
	{1, 0, 1, CONTROL_STREAM}, /* a HELLO as a STREAM */
	{2, 0, 2, 1},		   /* a zero that is none */
	{3, 0, 4, 1},		   /* a HELLO to somebody */
	{4, 0, 12, 0},		   /* a HELLO of nobody */
	{5, 0, 1198, 1},	   /* padding that speaks */
	{6, 2, 12, 1},		   /* a COOKIE of somebody */
	{7, 3, 40, 2},		   /* a STREAM that is shorter than it says */
	{8, 3, 40, 0},		   /* an empty STREAM */
	{9, 3, 4, 0},		   /* a STREAM to nobody */
	{10, 6, 40, 3},		   /* an ACK with fewer ranges than it says */
	{11, 6, 40, 17},	   /* more than there may be */
	{12, 6, 36, 11},	   /* a range below what is cumulative */
	{13, 6, 44, 12},	   /* an empty range */
	{14, 6, 52, 12},	   /* ranges that touch */
	{15, 7, 36, 0},		   /* a CLOSE without a reason */
	{16, 7, 1, 6},		   /* types that there are not */
	{17, 7, 1, 0},
	{18, 7, 1, 16},
};

static void test_wire_forgery(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(forgery_rows); i++) {
		const struct forgery_row *row = &forgery_rows[i];
		uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX];
		struct control_message message;
		const size_t length = control_encode(&wire_rows[row->wire_row].message, bytes);

		if (row->offset == 1)
			bytes[1] = (uint8_t)row->value;
		else
			put_u16(bytes + row->offset, row->value);
		control_check(bytes, length, bytes + offsetof(struct control_header, check));
		if (control_decode(bytes, length, &message) != -EBADMSG)
			fail_msg("row %d was taken", row->number);
	}
}

/* ---- stream ---- */

static struct control_stream ends[2];
static uint64_t seed;

/* SplitMix64. */
static unsigned draw(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)(z >> 32);
}

/* Round by round, with datagrams lost, turned around and doubled. */
static void stream_carry(unsigned number, size_t total, unsigned loss_percent)
{
	static uint8_t said[CONTROL_STREAM_CAP], heard[CONTROL_STREAM_CAP];
	struct control_message ack = {0}, flight[CONTROL_STREAM_CHUNKS_MAX];
	size_t heard_bytes = 0;
	ns_t now = 0;

	seed = number;
	for (size_t i = 0; i < total; i++)
		said[i] = (uint8_t)draw();
	control_stream_init(&ends[0]);
	control_stream_init(&ends[1]);
	assert_int_equal(control_stream_write(&ends[0], said, total / 3), 0);
	assert_int_equal(control_stream_write(&ends[0], said + total / 3, total - total / 3), 0);
	while (!control_stream_flushed(&ends[0])) {
		unsigned count = 0;
		const uint8_t *bytes;
		size_t length;

		while (control_stream_send(&ends[0], &flight[count], now))
			count++;
		for (unsigned i = 0; i < 2 * count; i++) {
			const unsigned which = draw() % count;

			if (draw() % 100 >= loss_percent)
				control_stream_receive(&ends[1], &flight[which]);
		}
		while ((length = control_stream_read(&ends[1], &bytes))) {
			memcpy(heard + heard_bytes, bytes, length);
			heard_bytes += length;
		}
		control_stream_ack(&ends[1], &ack);
		if (draw() % 100 >= loss_percent)
			assert_true(control_stream_acked(&ends[0], &ack, now) >= 0);
		if (control_stream_flushed(&ends[0]))
			break;
		now = control_stream_deadline(&ends[0]);
		assert_true(now < 1000 * NS_PER_S);
		assert_true(control_stream_tick(&ends[0], now));
	}
	assert_int_equal(heard_bytes, total);
	assert_memory_equal(heard, said, total);
	assert_int_equal(control_stream_deadline(&ends[0]), NS_NEVER);
}

static void test_stream_carries(void **state)
{
	for (unsigned number = 1; number <= 60; number++)
		stream_carry(number, 1 + number * 1000u, number % 4 * 20);
	stream_carry(99, CONTROL_STREAM_CAP, 30);
}

static void test_stream_bounds(void **state)
{
	static const uint8_t bytes[CONTROL_STREAM_CAP + 1];
	struct control_message message = {.type = CONTROL_STREAM, .length = 2, .bytes = bytes};
	struct control_message ack = {.type = CONTROL_ACK, .cumulative = 11};
	struct control_stream *stream = &ends[0];

	control_stream_init(stream);
	assert_int_equal(control_stream_write(stream, bytes, sizeof bytes), -ENOSPC);
	assert_int_equal(control_stream_write(stream, bytes, 10), 0);
	assert_int_equal(control_stream_acked(stream, &ack, 0), -EBADMSG);
	ack.cumulative = 9; /* less than the chunk: nothing new */
	assert_int_equal(control_stream_acked(stream, &ack, 0), 0);
	ack.cumulative = 10;
	assert_int_equal(control_stream_acked(stream, &ack, 0), 1);
	assert_int_equal(control_stream_acked(stream, &ack, 0), 0);

	message.offset = CONTROL_STREAM_CAP - 1;
	assert_int_equal(control_stream_receive(stream, &message), -EMSGSIZE);
	message.offset = UINT32_MAX;
	assert_int_equal(control_stream_receive(stream, &message), -EMSGSIZE);
	for (unsigned i = 0; i < CONTROL_ACK_RANGES_MAX; i++) {
		message.offset = 10 + 4 * i;
		assert_int_equal(control_stream_receive(stream, &message), 0);
	}
	message.offset = 10 + 4 * CONTROL_ACK_RANGES_MAX;
	assert_int_equal(control_stream_receive(stream, &message), -ENOSPC);
	control_stream_ack(stream, &ack);
	assert_int_equal(ack.range_count, CONTROL_ACK_RANGES_MAX);
}

/* 200 ms, doubled up to 1.6 s, and back to 200 ms when something arrives. */
static void test_stream_timer(void **state)
{
	static const ns_t expected_ms[] = {200, 400, 800, 1600, 1600, 1600};
	struct control_message message, ack = {.type = CONTROL_ACK, .cumulative = 1};
	struct control_stream *stream = &ends[0];
	ns_t now = 5;

	control_stream_init(stream);
	assert_int_equal(control_stream_write(stream, (const uint8_t *)"a", 1), 0);
	assert_int_equal(control_stream_write(stream, (const uint8_t *)"b", 1), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(expected_ms); i++) {
		assert_true(control_stream_send(stream, &message, now));
		assert_true(control_stream_send(stream, &message, now));
		assert_false(control_stream_send(stream, &message, now));
		assert_int_equal(control_stream_deadline(stream), now + expected_ms[i] * NS_PER_MS);
		now += expected_ms[i] * NS_PER_MS;
		assert_false(control_stream_tick(stream, now - 1));
		assert_true(control_stream_tick(stream, now));
	}
	assert_int_equal(control_stream_acked(stream, &ack, now), 1);
	assert_true(control_stream_send(stream, &message, now));
	assert_int_equal(message.offset, 1);
	assert_int_equal(control_stream_deadline(stream), now + 200 * NS_PER_MS);
}

/* ---- cookies ---- */

static void test_cookie(void **state)
{
	static const struct cookie_row {
		int number;
		struct cookie_holder holder;
		uint64_t made_s, shown_s;
		bool good;
	} rows[] = {
		{1, {1, 2, 0}, 1000, 1000, true},  {2, {1, 2, 0}, 1000, 1060, true},
		{3, {1, 2, 0}, 1000, 1061, false}, {4, {9, 2, 0}, 1000, 1000, false},
		{5, {1, 9, 0}, 1000, 1000, false}, {6, {1, 2, 1}, 1000, 1000, false},
		{7, {1, 2, 0}, 1000, 999, false}, /* made in the future: another boot */
		{8, {1, 2, 0}, 1085, 1145, true}, /* across the change of the secret */
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct cookie_holder holder = {1, 2, 0};
		struct cookie_jar jar, other;
		uint8_t cookie[CONTROL_COOKIE_BYTES], stale[CONTROL_COOKIE_BYTES];

		cookie_jar_init(&jar);
		cookie_jar_init(&other);
		cookie_make(&jar, &holder, 1000 * NS_PER_S, stale);
		cookie_make(&jar, &holder, rows[i].made_s * NS_PER_S, cookie);
		if (cookie_good(&jar, &rows[i].holder, rows[i].shown_s * NS_PER_S, cookie) !=
		    rows[i].good)
			fail_msg("row %d", rows[i].number);
		assert_false(cookie_good(&other, &holder, rows[i].made_s * NS_PER_S, cookie));
		cookie[31] ^= 1;
		assert_false(cookie_good(&jar, &holder, rows[i].made_s * NS_PER_S, cookie));
		/* With its time made young again it is no cookie any more. */
		put_u32(stale, 1100);
		assert_false(cookie_good(&jar, &holder, 1100 * NS_PER_S, stale));
		cookie_jar_fini(&jar);
		cookie_jar_fini(&other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire_round_trip), cmocka_unit_test(test_wire_damage),
		cmocka_unit_test(test_wire_forgery),	cmocka_unit_test(test_stream_carries),
		cmocka_unit_test(test_stream_bounds),	cmocka_unit_test(test_stream_timer),
		cmocka_unit_test(test_cookie),
	};

	return cmocka_run_group_tests_name("control_stream", tests, NULL, NULL);
}
