/* SPDX-License-Identifier: Apache-2.0 */
/* Two links without a network between them: what one lets out is handed to the other, or not. */
#include "core/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CELLS = 256, DATAGRAM_BYTES = 1472 };

struct end {
	struct link link;
	struct cells cells;
	struct packet_cell descriptor[CELLS];
	struct effects fx;
	uint8_t *memory;
	struct aead *aead;
};
static struct end ends[2];

static void end_init(struct end *end, uint8_t name)
{
	struct core_config config = {.path_count = 1};
	config.path[0].datagram_bytes_max = DATAGRAM_BYTES;
	memset(end, 0, sizeof *end);
	end->aead = aead_new(AEAD_OPENSSL, NULL);
	end->memory = aligned_alloc(PAGE_BYTES, cells_memory_bytes(CELLS, DATAGRAM_BYTES));
	cells_init(&end->cells, end->descriptor, CELLS, end->memory, DATAGRAM_BYTES);
	link_init(&end->link, end->aead, &end->cells, &config);
	end->link.instance.bytes[0] = name;
}

static void end_fini(struct end *end)
{
	link_fini(&end->link);
	aead_free(end->aead);
	free(end->memory);
}

/* New keys for both, as a handshake gives them. */
static void ends_meet(uint8_t number, ns_t now)
{
	struct session_keys keys[2] = {
		{.id_in = number, .id_out = number + 100u, .initiator = true},
		{.id_in = number + 100u, .id_out = number}};
	for (unsigned i = 0; i < 2; i++) {
		memset(keys[i].secret_in, number + (int)i, SESSION_SECRET_BYTES);
		memset(keys[i].secret_out, number + !i, SESSION_SECRET_BYTES);
		link_new_session(&ends[i].link, &keys[i], now);
	}
}

/* One turn; what leaves goes to the other end, unless its way is cut. */
static void end_turn(unsigned from, bool cut, ns_t now)
{
	struct end *end = &ends[from];
	effects_init(&end->fx, now, now);
	link_turn(&end->link, &end->fx);
	for (struct cell *cell; (cell = cell_list_pop(&end->fx.packets));) {
		uint8_t bytes[DATAGRAM_BYTES];
		struct packet packet = {.datagram = bytes, .length = cell->length};
		struct opened opened;
		memcpy(bytes, cell->datagram, cell->length);
		cell->in_port = 0;
		cells_settle(&end->cells, packet_cell_of(cell));
		if (!cut)
			link_open(&ends[!from].link, &packet, &opened, now);
	}
}

static int setup(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		end_init(&ends[i], (uint8_t)(i + 1));
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		end_fini(&ends[i]);
	return 0;
}

/* docs/protocol.md "Ratchet": a way that was cut in one direction alone, for longer than the peer
 * could follow, is whole again without a new session. */
static void test_one_way_cut(void **state)
{
	static const unsigned cut_s[] = {1, 61, 121, 200, 1000};
	for (unsigned row = 0; row < ARRAY_COUNT(cut_s); row++) {
		ns_t now = NS_PER_S;
		teardown(state);
		setup(state);
		ends_meet(1, now);
		for (unsigned s = 0; s < 2 * cut_s[row] + 10; s++, now += NS_PER_S / 2)
			for (unsigned from = 0; from < 2; from++)
				end_turn(from, from == 0 && s >= 5 && s < 2 * cut_s[row] + 5, now);
		assert_true(ends[0].link.linked);
		if (!ends[1].link.linked || ends[1].link.rx_unknown_session)
			fail_msg("row %u: not heard again after %u s", row, cut_s[row]);
	}
}

static void test_ratchet_goes_on(void **state)
{
	ns_t now = NS_PER_S;
	ends_meet(1, now);
	for (unsigned s = 0; s < 2 * 600; s++, now += NS_PER_S / 2)
		for (unsigned from = 0; from < 2; from++)
			end_turn(from, false, now);
	for (unsigned i = 0; i < 2; i++) {
		assert_in_range(ends[i].link.session[0].generation_out, 8, 10);
		assert_int_equal(ends[i].link.rx_unknown_session, 0);
		assert_int_equal(ends[i].link.path[0].stats.rx_bad, 0);
	}
}

/* One turn of the first end; gives the first datagram that leaves, and its length. */
static uint32_t datagram_taken(uint8_t out[DATAGRAM_BYTES], ns_t now)
{
	struct effects fx;
	effects_init(&fx, now, now);
	link_turn(&ends[0].link, &fx);
	struct cell *cell = cell_list_pop(&fx.packets);
	assert_non_null(cell);
	memcpy(out, cell->datagram, cell->length);
	return cell->length;
}

/* What a peer said before it was started anew is not heard after it has spoken again. */
static void test_former_life(void **state)
{
	ns_t now = NS_PER_S;
	uint8_t late[DATAGRAM_BYTES];
	ends_meet(1, now);
	for (unsigned turn = 0; turn < 4; turn++, now += NS_PER_MS * 200)
		end_turn(turn % 2, false, now);
	struct packet packet = {.datagram = late, .length = datagram_taken(late, now)};
	end_fini(&ends[0]);
	end_init(&ends[0], 9);
	ends_meet(50, now);
	for (unsigned turn = 0; turn < 4; turn++, now += NS_PER_MS * 200)
		end_turn(turn % 2, false, now);
	assert_int_equal(ends[1].link.peer_instance.bytes[0], 9);
	struct opened opened;
	assert_int_equal(link_open(&ends[1].link, &packet, &opened, now), -ENOKEY);
}

/* docs/protocol.md "Replay": a number is marked only after the tag was found right, so who forges
 * one keeps out no datagram; and what came once does not come again. */
static void test_forged_and_replayed(void **state)
{
	ns_t now = NS_PER_S;
	uint8_t sent[DATAGRAM_BYTES], bytes[DATAGRAM_BYTES];
	struct packet packet = {.datagram = bytes};
	struct opened opened;
	ends_meet(1, now);
	packet.length = datagram_taken(sent, now);
	for (uint32_t at = 16; at < packet.length; at++) {
		memcpy(bytes, sent, packet.length);
		bytes[at] ^= 1;
		assert_int_equal(link_open(&ends[1].link, &packet, &opened, now), -EBADMSG);
	}
	assert_int_equal(ends[1].link.path[0].stats.rx_bad, packet.length - 16);
	memcpy(bytes, sent, packet.length);
	assert_int_equal(link_open(&ends[1].link, &packet, &opened, now), -EAGAIN);
	memcpy(bytes, sent, packet.length);
	assert_int_equal(link_open(&ends[1].link, &packet, &opened, now), -EALREADY);
	assert_int_equal(ends[1].link.path[0].stats.rx_replayed, 1);
}

/* Whichever paths live, no one of them carries more shards of a block than its share: with a path
 * for every m shards none carries more than m, and a cut path costs nothing. */
static void test_shards_are_spread(void **state)
{
	struct link *link = &ends[0].link;
	for (link->path_count = 1; link->path_count <= PATHS_MAX; link->path_count++)
		for (unsigned living = 0; living < 1u << link->path_count; living++)
			for (unsigned n = 1; n <= SHARDS_MAX; n++) {
				unsigned carried[PATHS_MAX] = {0};
				unsigned count = (unsigned)__builtin_popcount(living);
				for (unsigned i = 0; i < link->path_count; i++)
					link->path[i].alive = living >> i & 1;
				for (unsigned column = 0; column < n; column++)
					carried[link_path_for(link, living + n, column)]++;
				for (unsigned i = 0; i < link->path_count; i++) {
					bool used = !count || living >> i & 1;
					unsigned share = count ? count : link->path_count;
					assert_true(carried[i] <= used * div_up(n, share));
				}
			}
	link->path_count = 1;
}

/* docs/protocol.md "Pacing": however much waits, no more leaves than the rate and one burst allow,
 * and no less than the rate when turns come as the link asks for them. */
static void test_paced(void **state)
{
	enum { RATE = 50 * 1000 * 1000, IN_20_MS = RATE / 50, BURST = RATE / 500 };
	struct link *link = &ends[0].link;
	const struct wire_shard shard = {.record.geometry = {.k = 1}};
	ns_t now = NS_PER_S, end = now + 20 * NS_PER_MS;
	ends_meet(1, now);
	pace_init(&link->path[0].pace, RATE, now);
	while (now < end) {
		struct packet_cell *cell;
		while ((cell = cells_take(&ends[0].cells))) {
			cell->payload_bytes = 1000;
			link_send_shard(link, cell, &shard, 0);
			cell->held = 0;
		}
		end_turn(0, true, now);
		now = max_u64(link_deadline(link, now), now + 1);
	}
	assert_in_range(link->path[0].stats.tx_bytes, IN_20_MS, IN_20_MS + BURST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_way_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ratchet_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_former_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forged_and_replayed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shards_are_spread, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paced, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
