/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD connection under strain: broken and dying clients, back-pressure, payload memory, and
 * random streams against a RAM disk that answers in any order. */
#include "nbd_rig.h"

/* ---- the unkind ---- */

static void bad_magic_ends_after_the_answers(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 d0 w0 w3 q1 q0 d0");
	assert_int_equal(rig->nbd.phase, NBD_PHASE_LEAVING);
	assert_int_equal(rig->shared.counts.bad_streams, 1);
	assert_false(nbd_finished(&rig->nbd));
	nbd_answer(rig_take(rig));
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 1, 0);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void disconnect_waits_for_the_answers(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 Q w0 w2 q2 q0 d0");
	assert_false(nbd_finished(&rig->nbd));
	assert_int_equal(nbd_receive_pieces(&rig->nbd, (struct iovec[2]){0}), 0);
	nbd_answer(rig_take(rig));
	assert_false(nbd_finished(&rig->nbd));
	rig_send(rig, SIZE_MAX);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void oversized_write_is_drained(void **state)
{
	struct rig *rig = rig_new();
	size_t length = (32 << 20) + 1;
	uint8_t *payload = calloc(1, length);

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w1 q1 q0 d0x2000001");
	assert_int_equal(rig_feed(rig, payload, length, 60000), length);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_WRITE, 1, NBD_EINVAL);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	rig_say(rig, "Q w0 w3 q2 q0 d0");
	nbd_answer(rig_take(rig));
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 2, 0);
	free(payload);
	rig_free(rig);
}

static size_t wanted(struct rig *rig)
{
	struct iovec piece[2] = {0};
	nbd_receive_pieces(&rig->nbd, piece);
	return piece[0].iov_len + piece[1].iov_len;
}

/* Small writes come with what follows; large ones into their place, between reads and flushes too,
 * until none has come for a while. */
static void large_writes_are_received_into_their_place(void **state)
{
	struct rig *rig = rig_new();
	uint8_t *payload = calloc(1, NBD_BULK_BYTES);

	rig_go(rig, "vol0", true);
	assert_true(wanted(rig) > NBD_BULK_BYTES);
	rig_say(rig, "Q w0 w1 q1 q0 d0x8000");
	assert_int_equal(rig_feed(rig, payload, NBD_BULK_BYTES, SIZE_MAX), NBD_BULK_BYTES);
	nbd_answer(rig_take(rig));
	for (unsigned i = 0; i < NBD_BULK_COMMANDS; i++) {
		assert_int_equal(wanted(rig), 28);
		rig_say(rig, "Q w0 w3 q2 q0 d0");
		nbd_answer(rig_take(rig));
		rig_send(rig, SIZE_MAX);
	}
	assert_true(wanted(rig) > NBD_BULK_BYTES);
	free(payload);
	rig_free(rig);
}

static void client_that_dies_mid_write(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w0 q1 q0 d65536 Q w0 w0 q2 q0 d4096 Q w0 w1 q3 q0 d8192 'half");
	struct request *first = rig_take(rig), *second = rig_take(rig);
	assert_null(rig_take(rig));
	nbd_answer(first);
	nbd_abandon(&rig->nbd);
	assert_int_equal(nbd_in_core(&rig->nbd), 1);
	memset(second->data, 1, second->length); /* still core's */
	nbd_answer(second);
	assert_int_equal(rig->shared.memory.free_count, rig->shared.memory.unit_count);
	rig_send(rig, SIZE_MAX);
	assert_int_equal(rig->said_bytes, 0);
	rig_free(rig);
}

static void shutdown_answers_what_was_read(void **state)
{
	struct rig *rig = rig_new();

	rig_go(rig, "vol0", true);
	rig_say(rig, "Q w0 w3 q1 q0 d0 Q w0 w3 q2 q0 d0");
	struct request *taken = rig_take(rig);
	rig->shared.export[0].ready = false;
	nbd_withdraw(&rig->shared, 0);
	nbd_shutdown(&rig->nbd);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 2, NBD_ESHUTDOWN);
	assert_false(nbd_finished(&rig->nbd));
	nbd_answer(taken);
	rig_send(rig, SIZE_MAX);
	expect_reply(rig, NBD_COMMAND_FLUSH, 1, 0);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

/* ---- back-pressure ---- */

static void slots_bound_what_is_in_flight(void **state)
{
	struct rig *rig = rig_new();
	uint8_t in[28 * 100];
	size_t length = 0;

	rig_go(rig, "vol0", true);
	for (unsigned i = 0; i < 100; i++)
		length += script_bytes("Q w0 w3 q1 q0 d0", in + length);
	assert_int_equal(rig_feed(rig, in, length, length), length); /* buffered, not parsed */
	assert_int_equal(nbd_in_core(&rig->nbd), NBD_SLOTS);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_SLOT);
	for (unsigned answered = 0; answered < 100; answered++) {
		nbd_answer(rig_take(rig));
		rig_send(rig, SIZE_MAX);
	}
	assert_int_equal(rig->said_bytes, 1600);
	assert_int_equal(rig->nbd.blocked, NBD_FLOWING);
	/* and shut down while blocked: what was buffered is answered too */
	rig_feed(rig, in, length, length);
	nbd_shutdown(&rig->nbd);
	for (unsigned answered = 0; answered < NBD_SLOTS; answered++) {
		nbd_answer(rig_take(rig));
		rig_send(rig, SIZE_MAX);
	}
	assert_int_equal(rig->said_bytes, 3200);
	unsigned refused = 0;
	for (size_t at = 1600; at < 3200; at += 16)
		refused += get_be32(rig->said + at + 4) == NBD_ESHUTDOWN;
	assert_int_equal(refused, 100 - NBD_SLOTS);
	assert_true(nbd_finished(&rig->nbd));
	rig_free(rig);
}

static void memory_makes_requests_wait(void **state)
{
	struct rig *rig = rig_new();
	struct rig *other = rig_new();

	rig_go(rig, "vol1", true);
	rig_say(rig, "Q w0 w0 q1 q1 d0x2000000 Q w0 w0 q2 q0 d0x2000000");
	struct request *first = rig_take(rig);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_MEMORY);
	assert_null(rig_take(rig));
	/* who waits longest is served first, though less would fit */
	nbd_fini(&other->nbd);
	rig->shared.memory.reserved_for = &rig->nbd;
	assert_null(nbd_memory_take(&rig->shared.memory, 1, &other->nbd));
	rig->shared.memory.reserved_for = NULL;
	nbd_resume(&rig->nbd);
	assert_int_equal(rig->nbd.blocked, NBD_WANTS_MEMORY);
	first->result = -EIO; /* spares the capture 32 MiB */
	nbd_answer(first);
	rig_send(rig, SIZE_MAX);
	nbd_resume(&rig->nbd);
	assert_int_equal(rig->nbd.blocked, NBD_FLOWING);
	struct request *second = rig_take(rig);
	second->result = -EIO;
	nbd_answer(second);
	rig_connect(other);
	rig_free(other);
	rig_free(rig);
}

static void memory_against_a_plain_model(void **state)
{
	enum { UNITS = 200, HELD_MAX = 64 };
	static uint8_t region[NBD_UNIT_BYTES * UNITS] __attribute__((aligned(4096)));
	static struct nbd_memory memory;
	uint8_t owner[UNITS] = {0};
	struct {
		uint8_t *at;
		uint64_t bytes;
	} held[HELD_MAX] = {0};
	unsigned seed = 7;

	nbd_memory_init(&memory, region, sizeof region);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned i = (unsigned)rand_r(&seed) % HELD_MAX;
		uint64_t first = (uint64_t)(held[i].at - region) / NBD_UNIT_BYTES;
		if (held[i].at) {
			nbd_memory_give(&memory, held[i].at, held[i].bytes);
			memset(owner + first, 0, div_up(held[i].bytes, NBD_UNIT_BYTES));
			held[i].at = NULL;
			continue;
		}
		held[i].bytes = 1 + (uint64_t)rand_r(&seed) % (NBD_UNIT_BYTES * 20);
		held[i].at = nbd_memory_take(&memory, held[i].bytes, NULL);
		unsigned count = (unsigned)div_up(held[i].bytes, NBD_UNIT_BYTES), run = 0, at = 0;
		while (at < UNITS && run < count)
			run = owner[at++] ? 0 : run + 1;
		if (run < count) {
			assert_null(held[i].at);
			continue;
		}
		assert_ptr_equal(held[i].at, region + (uint64_t)(at - count) * NBD_UNIT_BYTES);
		memset(owner + at - count, 1, count);
	}
}

/* ---- a random stream against a RAM disk that answers in any order ---- */

enum { STREAM_COMMANDS = 400, STREAM_BYTES_MAX = 70000 };

struct expected_reply {
	uint16_t command;
	uint32_t length;
	uint8_t *data; /* of a read */
	bool seen;
};

static void ram_do(uint8_t *disk, struct request *request)
{
	uint8_t *at = disk + request->offset;

	if (request->kind == REQUEST_READ)
		memcpy(request->data, at, request->length);
	else if (request->kind == REQUEST_WRITE)
		memcpy(at, request->data, request->length);
	else if (request->kind == REQUEST_ZERO || request->kind == REQUEST_DISCARD)
		memset(at, 0, request->length);
}

/* One command at the end of the stream, done at once to the model. */
static size_t stream_command(uint8_t *out, struct expected_reply *expected, uint8_t *model,
			     uint64_t cookie, unsigned *seed)
{
	static const uint16_t commands[] = {0, 0, 1, 1, 1, 3, 4, 6};
	uint16_t command = commands[(unsigned)rand_r(seed) % ARRAY_COUNT(commands)];
	uint32_t length =
		1 + (uint32_t)rand_r(seed) % (rand_r(seed) % 4 ? 300u : (unsigned)STREAM_BYTES_MAX);
	uint64_t offset = (uint64_t)rand_r(seed) % (VOLUME_BYTES - length);
	uint8_t *at = model + offset;

	if (command == NBD_COMMAND_FLUSH)
		offset = length = 0;
	put_be32(out, NBD_REQUEST_MAGIC);
	put_be32(out + 4, command);
	put_be64(out + 8, cookie);
	put_be64(out + 16, offset);
	put_be32(out + 24, length);
	*expected = (struct expected_reply){.command = command, .length = length};
	if (command == NBD_COMMAND_READ) {
		expected->data = malloc(length);
		memcpy(expected->data, at, length);
	} else if (command == NBD_COMMAND_WRITE) {
		for (uint32_t i = 0; i < length; i++)
			out[28 + i] = at[i] = (uint8_t)rand_r(seed);
		return 28 + length;
	} else if (command != NBD_COMMAND_FLUSH) {
		memset(at, 0, length);
	}
	return 28;
}

/* Reads what was said so far; gives the number of whole replies. */
static unsigned stream_check(struct rig *rig, struct expected_reply *expected)
{
	size_t at = 0;
	unsigned count = 0;

	while (rig->said_bytes - at >= 16) {
		const uint8_t *p = rig->said + at;
		struct expected_reply *reply = &expected[get_be64(p + 8)];
		bool read = reply->command == NBD_COMMAND_READ;
		size_t whole = read ? 28 + reply->length : 16;
		if (rig->said_bytes - at < whole)
			break;
		assert_false(reply->seen);
		reply->seen = true;
		assert_int_equal(get_be32(p),
				 read ? NBD_STRUCTURED_REPLY_MAGIC : NBD_SIMPLE_REPLY_MAGIC);
		if (read)
			assert_memory_equal(p + 28, reply->data, reply->length);
		free(reply->data);
		at += whole;
		count++;
	}
	memmove(rig->said, rig->said + at, rig->said_bytes - at);
	rig->said_bytes -= at;
	return count;
}

static void random_stream(unsigned seed)
{
	struct rig *rig = rig_new();
	static struct expected_reply expected[STREAM_COMMANDS];
	static uint8_t disk[VOLUME_BYTES], model[VOLUME_BYTES];
	uint8_t *stream = malloc((size_t)STREAM_COMMANDS * (STREAM_BYTES_MAX + 28));
	struct request *pending[NBD_SLOTS];
	unsigned pending_count = 0, replies = 0, idle = 0;
	size_t length = 0, at = 0;

	memset(disk, 0, sizeof disk);
	memset(model, 0, sizeof model);
	rig_go(rig, "vol0", true);
	for (unsigned i = 0; i < STREAM_COMMANDS; i++)
		length += stream_command(stream + length, &expected[i], model, i, &seed);
	while (replies < STREAM_COMMANDS) {
		size_t some = 1 + (size_t)rand_r(&seed) % 100000;
		size_t fed = rig_feed(rig, stream + at, min_u64(length - at, some),
				      1 + (size_t)rand_r(&seed) % 40000);
		at += fed;
		for (struct request *request; (request = rig_take(rig));) {
			ram_do(disk, request);
			pending[pending_count++] = request;
		}
		for (unsigned n = (unsigned)rand_r(&seed) % 80; n > 0 && pending_count > 0; n--) {
			unsigned i = (unsigned)rand_r(&seed) % pending_count;
			nbd_answer(pending[i]);
			pending[i] = pending[--pending_count];
		}
		rig_send(rig, 1 + (size_t)rand_r(&seed) % 5000);
		nbd_resume(&rig->nbd);
		unsigned more = stream_check(rig, expected);
		replies += more;
		idle = more || fed ? 0 : idle + 1;
		if (idle > 100)
			fail_msg("seed %u: stuck after %u replies", seed, replies);
	}
	assert_int_equal(rig->said_bytes, 0);
	assert_memory_equal(disk, model, VOLUME_BYTES);
	free(stream);
	rig_free(rig);
}

static void random_streams(void **state)
{
	for (unsigned seed = 1; seed <= 10; seed++)
		random_stream(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_magic_ends_after_the_answers),
		cmocka_unit_test(disconnect_waits_for_the_answers),
		cmocka_unit_test(oversized_write_is_drained),
		cmocka_unit_test(large_writes_are_received_into_their_place),
		cmocka_unit_test(client_that_dies_mid_write),
		cmocka_unit_test(shutdown_answers_what_was_read),
		cmocka_unit_test(slots_bound_what_is_in_flight),
		cmocka_unit_test(memory_makes_requests_wait),
		cmocka_unit_test(memory_against_a_plain_model),
		cmocka_unit_test(random_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
