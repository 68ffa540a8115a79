/* SPDX-License-Identifier: Apache-2.0 */
/* What two ends agree on over a bad net, what strangers cannot do, and what stays in memory. */
#include "session_world.h"

/* ---- what is agreed ---- */

static bool both_have_keys(const struct world *world, unsigned count)
{
	return world->keys_count[CLIENT] >= count && world->keys_count[SERVER] >= count;
}

static void run_until_keys(struct world *world, unsigned count)
{
	unsigned turns = 0;

	session_start(world->end[CLIENT], world->now);
	while (!both_have_keys(world, count)) {
		if (world->failed_count[CLIENT] || ++turns > 20000 || !turn(world))
			fail_msg("no keys: %s", world->failed[CLIENT].why);
	}
}

static void keys_agree(const struct world *world)
{
	const struct session_keys *client = &world->keys[CLIENT], *server = &world->keys[SERVER];

	assert_memory_equal(client->secret_in, server->secret_out, SESSION_SECRET_BYTES);
	assert_memory_equal(client->secret_out, server->secret_in, SESSION_SECRET_BYTES);
	assert_memory_not_equal(client->secret_in, client->secret_out, SESSION_SECRET_BYTES);
	assert_int_equal(client->id_in, server->id_out);
	assert_int_equal(client->id_out, server->id_in);
	assert_int_not_equal(client->id_in, client->id_out);
	assert_true(client->initiator);
	assert_false(server->initiator);
}

static void test_completes(void **state)
{
	static const struct {
		int number;
		unsigned loss, twice, damage, seeds;
		unsigned psk;
	} rows[] = {
		{1, 0, 0, 0, 20, 0},   {2, 0, 0, 0, 5, 7},    {3, 10, 10, 0, 20, 7},
		{4, 20, 20, 5, 20, 0}, {5, 30, 10, 0, 40, 7}, {6, 30, 50, 10, 20, 0},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct flaw flaw = {.psk = rows[i].psk};
		const clock_t cpu = clock();
		ns_t worst = 0;

		for (unsigned seed = 1; seed <= rows[i].seeds; seed++) {
			struct world *world = world_new(&flaw, &flaw, seed);
			const ns_t begun = world->now;

			world->loss = rows[i].loss;
			world->twice = rows[i].twice;
			world->damage = rows[i].damage;
			run_until_keys(world, 1);
			worst = max_u64(worst, world->now - begun);
			keys_agree(world);
			run_until_quiet(world);
			assert_int_equal(world->keys_count[CLIENT], 1);
			assert_int_equal(world->keys_count[SERVER], 1);
			assert_int_equal(world->failed_count[CLIENT], 0);
			assert_int_equal(world->failed_count[SERVER], 0);
			assert_int_equal(session_deadline(world->end[CLIENT]), NS_NEVER);
			world_free(world);
		}
		print_message("row %d: loss %u %%: slowest %.2f s (virtual); %.2f ms CPU each, "
			      "both ends, with their set-up\n",
			      rows[i].number, rows[i].loss, (double)worst / NS_PER_S,
			      (double)(clock() - cpu) * 1e3 / CLOCKS_PER_SEC / rows[i].seeds);
	}
}

/* A new handshake gives new keys, and one that fails takes none away. */
static void test_again(void **state)
{
	struct world *world = world_new(&no_flaw, &no_flaw, 1);
	struct session_keys first;

	run_until_keys(world, 1);
	first = world->keys[CLIENT];
	run_until_keys(world, 2);
	keys_agree(world);
	assert_memory_not_equal(first.secret_in, world->keys[CLIENT].secret_in,
				SESSION_SECRET_BYTES);
	assert_int_not_equal(first.id_in, world->keys[CLIENT].id_in);
	run_until_quiet(world);

	world->mute[SERVER] = true;
	session_start(world->end[CLIENT], world->now);
	session_start(world->end[CLIENT], world->now); /* one at a time */
	run_until_quiet(world);
	assert_int_equal(world->keys_count[CLIENT], 2);
	assert_int_equal(world->keys_count[SERVER], 2);
	assert_int_equal(world->failed_count[CLIENT], 1);
	world_free(world);
}

static void test_cpu(void **state)
{
	enum { ROUNDS = 50 };
	struct world *world = world_new(&no_flaw, &no_flaw, 1);
	clock_t cpu = 0;

	for (unsigned i = 1; i <= ROUNDS; i++) {
		const clock_t begun = clock();

		run_until_keys(world, i);
		cpu += clock() - begun;
		world->now += 20 * NS_PER_S;
		run_until_quiet(world);
	}
	print_message("a handshake costs %.2f ms of CPU, both ends together\n",
		      (double)cpu * 1e3 / CLOCKS_PER_SEC / ROUNDS);
	world_free(world);
}

/* One of two paths is dead from the beginning, or dies at any later moment. */
static void test_dead_path(void **state)
{
	for (unsigned moment = 0; moment < 12; moment++)
		for (unsigned dead = 0; dead < 2; dead++) {
			struct world *world = world_new(&no_flaw, &no_flaw, moment + 1);

			session_start(world->end[CLIENT], world->now);
			for (unsigned i = 0; i < moment; i++)
				turn(world);
			world->dead_path = 1u << dead;
			memset(world->flight, 0, sizeof world->flight);
			run_until_keys(world, 1);
			keys_agree(world);
			world_free(world);
		}
}

/* ---- what strangers cannot do ---- */

/* Each datagram is preceded by broken copies of itself and by old ones of another handshake. */
static void test_forgeries_change_nothing(void **state)
{
	struct world *old = world_new(&no_flaw, &no_flaw, 1);
	struct world *world = world_new(&no_flaw, &no_flaw, 2);
	unsigned before[2];

	run_until_keys(old, 1);
	session_start(world->end[CLIENT], world->now);
	while (!both_have_keys(world, 1)) {
		for (unsigned i = 0; i < FLIGHTS_MAX; i++) {
			struct flight *flight = &world->flight[i];
			struct session_datagram forged = flight->datagram;

			if (!flight->used)
				continue;
			forged.bytes[draw(world) % forged.length] ^= 1u << draw(world) % 8;
			end_hears(world, flight->to, &forged);
			forged = flight->datagram;
			forged.length = (uint16_t)(draw(world) % forged.length);
			end_hears(world, flight->to, &forged);
		}
		for (unsigned i = 0; i < 2; i++) {
			const struct flight *replay =
				&old->captured[draw(world) % old->captured_count];

			end_hears(world, replay->to, &replay->datagram);
		}
		assert_true(turn(world));
		assert_int_equal(world->failed_count[CLIENT], 0);
	}
	keys_agree(world);
	assert_true(session_stats(world->end[SERVER])->malformed > 10);
	assert_true(session_stats(world->end[SERVER])->unknown > 10);
	run_until_quiet(world);

	/* And the whole conversation again, when it is over: in the cookie's life and after. */
	before[CLIENT] = (unsigned)session_stats(world->end[CLIENT])->objects;
	before[SERVER] = (unsigned)session_stats(world->end[SERVER])->objects;
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < world->captured_count; i++)
			end_hears(world, world->captured[i].to, &world->captured[i].datagram);
		run_until_quiet(world);
		world->now += 20 * NS_PER_S;
	}
	assert_int_equal(session_stats(world->end[CLIENT])->objects, before[CLIENT]);
	assert_int_equal(session_stats(world->end[SERVER])->objects, before[SERVER]);
	assert_true(session_stats(world->end[SERVER])->replayed > 0);
	assert_int_equal(world->keys_count[CLIENT], 1);
	assert_int_equal(world->keys_count[SERVER], 1);
	assert_int_equal(world->failed_count[SERVER], 0);
	world_free(old);
	world_free(world);
}

static void hello_say(struct world *world, uint64_t client, const uint8_t *cookie, uint64_t address)
{
	struct control_message message = {.type = CONTROL_HELLO, .sender = client};
	uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX];
	struct session_arrival arrival = {.bytes = bytes, .address = address};

	if (cookie)
		memcpy(message.cookie, cookie, CONTROL_COOKIE_BYTES);
	arrival.length = control_encode(&message, bytes);
	session_receive(world->end[SERVER], &arrival, world->now);
}

/* The server's next answer; its type, or 0. */
static int answer_take(struct world *world, struct control_message *message)
{
	struct session_datagram datagram;

	if (!session_send(world->end[SERVER], &datagram, world->now))
		return 0;
	assert_true(datagram.length < CONTROL_DATAGRAM_BYTES_MAX / 2);
	assert_int_equal(control_decode(datagram.bytes, datagram.length, message), 0);
	return message->type;
}

static void test_flood(void **state)
{
	struct world *world = world_new(&no_flaw, &no_flaw, 3);
	const struct session_stats *stats = session_stats(world->end[SERVER]);
	struct control_message answer;
	unsigned answers = 0;

	for (unsigned i = 0; i < 5000; i++) {
		uint8_t cookie[CONTROL_COOKIE_BYTES];

		for (unsigned j = 0; j < sizeof cookie; j++)
			cookie[j] = (uint8_t)draw(world);
		hello_say(world, draw(world) | 1, i % 2 ? cookie : NULL, draw(world));
	}
	while (answer_take(world, &answer))
		answers++;
	assert_int_equal(stats->objects, 0);
	assert_in_range(answers, 1, 16);
	run_until_keys(world, 1);
	world_free(world);
}

static void nonsense_say(struct world *world, uint64_t client, uint64_t server)
{
	const struct control_message message = {.type = CONTROL_STREAM,
						.receiver = server,
						.sender = client,
						.length = 8,
						.bytes = (const uint8_t *)"GET / HT"};
	uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX];
	struct session_arrival arrival = {.bytes = bytes, .address = client};

	arrival.length = control_encode(&message, bytes);
	session_receive(world->end[SERVER], &arrival, world->now);
}

/* Strangers that do receive at their addresses: few at once, and few per second, even when each
 * makes room for the next by failing at once. */
static void test_flood_with_cookies(void **state)
{
	for (unsigned nonsense = 0; nonsense < 2; nonsense++) {
		struct world *world = world_new(&no_flaw, &no_flaw, 4);
		const struct session_stats *stats = session_stats(world->end[SERVER]);
		const ns_t begun = world->now;
		struct control_message answer;
		uint64_t bound;
		int type;

		for (uint64_t client = 1; client <= 2000; client++) {
			hello_say(world, client, NULL, client);
			while (answer_take(world, &answer) != CONTROL_COOKIE)
				;
			hello_say(world, client, answer.cookie, client);
			while ((type = answer_take(world, &answer)))
				if (nonsense && type == CONTROL_ACK && answer.receiver == client)
					nonsense_say(world, client, answer.sender);
			world->now += 10 * NS_PER_MS;
		}
		bound = SESSION_BURST + (world->now - begun) / NS_PER_S * SESSION_RATE_PER_S;
		assert_in_range(stats->objects, nonsense ? bound - 4 : SESSION_HANDSHAKES_MAX,
				bound);
		assert_true(stats->busy > 1000);
		assert_int_equal(stats->failed > 0, nonsense);
		world->now += 6 * NS_PER_S;
		world->failed_count[SERVER] = 0;
		run_until_keys(world, 1);
		keys_agree(world);
		world_free(world);
	}
}

static void test_cookie_bounds(void **state)
{
	static const struct {
		int number;
		uint64_t client, address, later_s;
		int type;
	} rows[] = {
		{1, 5, 9, 0, CONTROL_ACK},     {2, 5, 9, 59, CONTROL_ACK},
		{3, 5, 9, 61, CONTROL_COOKIE}, {4, 6, 9, 0, CONTROL_COOKIE},
		{5, 5, 8, 0, CONTROL_COOKIE},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct world *world = world_new(&no_flaw, &no_flaw, 1);
		struct control_message answer;

		hello_say(world, 5, NULL, 9);
		assert_int_equal(answer_take(world, &answer), CONTROL_COOKIE);
		world->now += rows[i].later_s * NS_PER_S;
		hello_say(world, rows[i].client, answer.cookie, rows[i].address);
		if (answer_take(world, &answer) != rows[i].type)
			fail_msg("row %d", rows[i].number);
		assert_int_equal(session_stats(world->end[SERVER])->objects,
				 rows[i].type == CONTROL_ACK);
		world_free(world);
	}
}

/* The server restarts at every possible moment of the handshake. */
static void test_server_restarts(void **state)
{
	for (unsigned moment = 1; moment < 12; moment++) {
		struct world *world = world_new(&no_flaw, &no_flaw, moment);

		session_start(world->end[CLIENT], world->now);
		for (unsigned i = 0; i < moment && !world->keys_count[CLIENT]; i++)
			assert_true(turn(world));
		session_free(world->end[SERVER]);
		world->end[SERVER] = end_new(false, &no_flaw);
		if (world->keys_count[CLIENT]) {
			world_free(world);
			break;
		}
		world->keys_count[SERVER] = 0;
		run_until_keys(world, 1);
		keys_agree(world);
		world_free(world);
	}
}

/* The client restarts: a new handshake at any time, beside the one that stands still. */
static void test_client_restarts(void **state)
{
	for (unsigned moment = 1; moment < 12; moment++) {
		struct world *world = world_new(&no_flaw, &no_flaw, moment);

		session_start(world->end[CLIENT], world->now);
		for (unsigned i = 0; i < moment; i++)
			turn(world);
		session_free(world->end[CLIENT]);
		world->end[CLIENT] = end_new(true, &no_flaw);
		world->keys_count[CLIENT] = 0;
		run_until_keys(world, 1);
		keys_agree(world);
		world_free(world);
	}
}

/* ---- what stays in memory ---- */

/* The address sanitizer has a heap of its own elsewhere, and keeps what was freed. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* gcc's word for it */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
static const bool own_heap = true;
#else
static const bool own_heap = false;
#endif

/* Whether any memory of ours (heap, stack, pages of secrets) holds the bytes whose complement is
 * given (so that the needle is not found). */
static bool memory_holds(const uint8_t complement[32])
{
	unsigned long first = 0, end = 0, inode = 0;
	char line[512], mode[5];
	FILE *maps = fopen("/proc/self/maps", "r");
	bool found = false;

	assert_non_null(maps);
	while (fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &first, &end, mode, &inode) != 4 ||
		    strncmp(mode, "rw", 2) != 0 || inode)
			continue;
		for (const volatile uint8_t *at = (const volatile uint8_t *)first;
		     at + 32 <= (const volatile uint8_t *)end && !found; at++) {
			unsigned i = 0;

			while (i < 32 && (at[i] ^ complement[i]) == 0xff)
				i++;
			found = i == 32;
		}
	}
	fclose(maps);
	return found;
}

static void complement_take(uint8_t out[32], const uint8_t in[32])
{
	for (unsigned i = 0; i < 32; i++)
		out[i] = (uint8_t)~in[i];
}

static void test_secrets_are_wiped(void **state)
{
	if (own_heap)
		skip();
	const struct flaw flaw = {.psk = 0xa7};
	struct world *world = world_new(&flaw, &flaw, 1);
	uint8_t psk[32], in[32], out[32];

	memset(psk, (uint8_t)~0xa7, sizeof psk);
	run_until_keys(world, 1);
	complement_take(in, world->keys[CLIENT].secret_in);
	complement_take(out, world->keys[CLIENT].secret_out);
	/* The search finds what is there: */
	assert_true(memory_holds(psk));
	assert_true(memory_holds(in));
	/* Polled keys are the caller's alone, even while the connection lingers: */
	OPENSSL_cleanse(world->keys, sizeof world->keys);
	assert_false(memory_holds(in));
	assert_false(memory_holds(out));
	world_free(world);
	assert_false(memory_holds(psk));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_completes),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_cpu),
		cmocka_unit_test(test_dead_path),
		cmocka_unit_test(test_forgeries_change_nothing),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_flood_with_cookies),
		cmocka_unit_test(test_cookie_bounds),
		cmocka_unit_test(test_server_restarts),
		cmocka_unit_test(test_client_restarts),
		cmocka_unit_test(test_secrets_are_wiped),
	};

	return cmocka_run_group_tests_name("session", tests, make_sites, remove_sites);
}
