/* SPDX-License-Identifier: Apache-2.0 */
/* A primary and a vault together, where one of them dies or a datagram is late: what has been told
 * to a client must stay true. */
#include "core_pair.h"

#include "core/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BLOCK_BYTES = 16384 };
static uint8_t data[8 * BLOCK_BYTES];
static bool silent, shards_are_lost;
static struct {
	uint8_t datagram[PAIR_DATAGRAM_BYTES_MAX];
	uint32_t length;
	bool wanted;
} late; /* a STATE on its way */

static bool arrives(struct pair *pair, unsigned from, const struct cell *cell)
{
	uint8_t type = cell->datagram[1];
	if (late.wanted && from == PAIR_VAULT && type == WIRE_STATE) {
		memcpy(late.datagram, cell->datagram, cell->length);
		late.length = cell->length;
		late.wanted = false;
		return false;
	}
	return !silent && !(shards_are_lost && type == WIRE_SHARD);
}

static struct pair *pair_of(uint8_t ack, bool sync_flush)
{
	silent = shards_are_lost = false;
	late.wanted = false;
	struct pair *pair = pair_new(&(struct pair_options){.geometry = {4, 2},
							    .block_bytes = BLOCK_BYTES,
							    .blocks = 256,
							    .window = 64,
							    .ack = ack,
							    .sync_flush = sync_flush});
	pair->arrives = arrives;
	return pair;
}

/* Steps once with it, then turns both for a second: whether it was answered. */
static bool asked(struct pair *pair, struct request *request)
{
	struct request *const wanted = request;
	pair_step(pair, PAIR_PRIMARY, UINT32_MAX, &wanted, 1);
	pair_run(pair, NS_PER_S);
	return request_list_pop(&pair->answered) == request;
}

static bool primary_is(struct pair *pair, const char *state)
{
	static struct core_status status;
	pair_status(pair, PAIR_PRIMARY, &status);
	return strcmp(status.group[0].state, state) == 0;
}

/* docs/protocol.md "Restarts": what a former life of the vault had received, it has no more. */
static void test_received_is_of_one_life(void **state)
{
	struct pair *pair = pair_of(ACK_RECEIVED, true);
	struct request write = {.kind = REQUEST_WRITE, .length = sizeof data, .data = data};
	struct request flush = {.kind = REQUEST_FLUSH};
	pair->site[PAIR_VAULT].disk_stands = true; /* nothing is stored any more */
	assert_true(asked(pair, &write));
	shards_are_lost = true;
	pair->site[PAIR_VAULT].disk_stands = false;
	pair_restart(pair, PAIR_VAULT);
	pair_run(pair, 2 * NS_PER_S);
	assert_true(primary_is(pair, "replicating"));
	assert_false(asked(pair, &flush));
	shards_are_lost = false;
	pair_run(pair, 2 * NS_PER_S);
	assert_ptr_equal(request_list_pop(&pair->answered), &flush);
	assert_int_equal(flush.result, 0);
	pair_free(pair);
}

static void link_is_silent_for_a_while(struct pair *pair)
{
	silent = true;
	pair_run(pair, 3 * NS_PER_S);
	silent = false;
}

/* The answer to an earlier greeting names points that were passed long ago: not a vault that has
 * gone back. */
static void test_late_state(void **state)
{
	struct pair *pair = pair_of(ACK_DURABLE, false);
	struct request write = {.kind = REQUEST_WRITE, .length = BLOCK_BYTES, .data = data};
	link_is_silent_for_a_while(pair);
	late.wanted = true;
	pair_run(pair, NS_PER_S);
	assert_false(late.wanted);
	assert_true(primary_is(pair, "replicating"));
	assert_true(asked(pair, &write));
	link_is_silent_for_a_while(pair);
	while (!primary_is(pair, "waiting")) {
		pair->now += NS_PER_MS;
		pair_step(pair, PAIR_VAULT, UINT32_MAX, NULL, 0);
		pair_step(pair, PAIR_PRIMARY, UINT32_MAX, NULL, 0);
	}
	pair_deliver(pair, PAIR_PRIMARY, late.datagram, late.length);
	pair_run(pair, 2 * NS_PER_S);
	assert_true(primary_is(pair, "replicating"));
	write.result = 1;
	assert_true(asked(pair, &write));
	assert_int_equal(write.result, 0);
	pair_free(pair);
}

/* Both copies of a store's superblock say what a vault would have recorded there. */
static void superblock_says(struct pair *pair, unsigned store, uint32_t out, uint32_t rebuilt)
{
	static struct store_group group;
	struct pair_site *site = &pair->site[PAIR_VAULT];
	const struct core_group *config = &site->config.group[0];
	uint8_t *copy = site->file[config->store[store].files.superblock].bytes;
	uint32_t incarnation, segment_count;
	uint64_t segment_bytes, sequence, newest = 0;
	struct uuid id;
	uint8_t index;
	for (unsigned i = 0; i < 2; i++) {
		static struct store_group read;
		if (store_superblock_decode(copy + i * STORE_SUPERBLOCK_BYTES, &read, &id, &index,
					    &incarnation, &segment_bytes, &segment_count,
					    &sequence) == 0 &&
		    sequence > newest) {
			newest = sequence;
			group = read;
		}
	}
	assert_true(newest > 0);
	group.out = out;
	if (rebuilt < SHARDS_MAX)
		group.incarnation[rebuilt] = 2;
	for (unsigned i = 0; i < 2; i++)
		store_superblock_encode(&group, &id, index, store == rebuilt ? 2 : 1, segment_bytes,
					segment_count, newest + i,
					copy + i * STORE_SUPERBLOCK_BYTES);
}

/* Store 5 was out and is rebuilt; then store 4 failed a sync. Store 0 was slow and knows neither:
 * as many marks as its peers have, but an older one. */
static void test_a_rebuild_is_not_forgotten(void **state)
{
	static struct core_status status;
	struct pair *pair = pair_of(ACK_DURABLE, false);
	for (unsigned i = 0; i < 6; i++)
		superblock_says(pair, i, i ? 1u << 4 : 1u << 5, i ? 5 : SHARDS_MAX);
	pair_restart(pair, PAIR_VAULT);
	pair_run(pair, NS_PER_S);
	pair_status(pair, PAIR_VAULT, &status);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(status.group[0].store[i].in_service, i != 4);
	pair_free(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_received_is_of_one_life),
		cmocka_unit_test(test_late_state),
		cmocka_unit_test(test_a_rebuild_is_not_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
