/* SPDX-License-Identifier: Apache-2.0 */
/* The core's memory by kind: what the engine gives is locked and kept out of dumps, and no key of a
 * pair at work lies anywhere but in memory that was asked for as such. */
#include "core_pair.h"

#include "core/keys.h"
#include "engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bytes.h"
#include "page_flags.h"

static void test_pages_of_the_engine(void **unused)
{
	static const struct {
		enum memory_kind kind;
		bool locked;
	} row[] = {{MEMORY_BULK, false}, {MEMORY_KEYS, true}};
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		char flags[512];
		uint8_t *memory = memory_take(&engine_memory, row[i].kind, 3 * PAGE_BYTES + 1);
		assert_non_null(memory);
		assert_true(bytes_are_zero(memory, 4 * PAGE_BYTES));
		assert_true(page_has(memory, PAGE_NOT_DUMPED));
		assert_true(page_has(memory + 3 * PAGE_BYTES, PAGE_NOT_DUMPED));
		assert_true(page_has(memory, PAGE_NOT_IN_CHILD));
		if (LOCKS_ARE_REAL)
			assert_int_equal(page_has(memory, PAGE_LOCKED), row[i].locked);
		memory_give(&engine_memory, row[i].kind, memory, 3 * PAGE_BYTES + 1);
		page_flags(memory, flags);
		assert_string_equal(flags, "");
	}
	memory_give(&engine_memory, MEMORY_KEYS, NULL, 1);
}

/* ---- a source that remembers ---- */

enum { TAKEN_MAX = 256 };
static struct taken {
	uint8_t *memory;
	uint64_t bytes;
	enum memory_kind kind;
} taken[TAKEN_MAX];
static unsigned taken_count;

static void *remember_take(enum memory_kind kind, uint64_t bytes)
{
	must(taken_count < TAKEN_MAX && bytes % PAGE_BYTES == 0, "a core asks for some pages");
	uint8_t *memory = aligned_alloc(PAGE_BYTES, bytes);
	must(memory, "a test has memory");
	memset(memory, 0, bytes);
	taken[taken_count++] = (struct taken){memory, bytes, kind};
	return memory;
}

static void remember_give(enum memory_kind kind, void *memory, uint64_t bytes)
{
	for (unsigned i = 0; i < taken_count; i++) {
		if (taken[i].memory != memory)
			continue;
		must(taken[i].kind == kind && taken[i].bytes == bytes, "it comes back as it went");
		must(bytes_are_zero(memory, bytes), "it comes back wiped");
		taken[i] = taken[--taken_count];
		free(memory);
		return;
	}
	must(false, "what comes back was taken");
}

static const struct memory remembering = {remember_take, remember_give};

static unsigned found(enum memory_kind kind, const uint8_t key[KEY_BYTES])
{
	unsigned count = 0;
	for (unsigned i = 0; i < taken_count; i++)
		if (taken[i].kind == kind)
			count += memmem(taken[i].memory, taken[i].bytes, key, KEY_BYTES) != NULL;
	return count;
}

static void write_one(struct pair *pair)
{
	static uint8_t data[2 * PAGE_BYTES + 16384];
	struct request request = {
		.kind = REQUEST_WRITE, .length = 16384, .data = data + PAGE_BYTES};
	struct request *wanted[] = {&request};
	memset(data, 0x5a, sizeof data);
	pair_step(pair, PAIR_PRIMARY, UINT32_MAX, wanted, 1);
	pair_settle(pair, NS_PER_MS);
	assert_ptr_equal(request_list_pop(&pair->answered), &request);
	assert_int_equal(request.result, 0);
}

static void keys_looked_for(enum aead_backend backend)
{
	uint8_t secret[2][SESSION_SECRET_BYTES], key[4][KEY_BYTES];
	static struct core_status status;
	struct pair *pair = pair_new(&(struct pair_options){
		.geometry = {.k = 2, .m = 1},
		.block_bytes = 16384,
		.blocks = 64,
		.window = 32,
		.aead = (uint8_t)backend,
		.ack = ACK_DURABLE,
		.memory = &remembering,
	});
	write_one(pair);
	pair_status(pair, PAIR_PRIMARY, &status);
	memcpy(key[0], pair_volume_key, KEY_BYTES);
	keys_span_subkey(pair_volume_key, &status.group[0].span.id, key[1]);
	for (unsigned i = 0; i < 2; i++) {
		memset(secret[i], 1 + (int)i, SESSION_SECRET_BYTES); /* as core_pair.c gives them */
		keys_packet_key(secret[i], 0, key[2 + i]);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(key); i++) {
		assert_true(found(MEMORY_KEYS, key[i]) > 0);
		assert_int_equal(found(MEMORY_BULK, key[i]), 0);
	}
	pair_free(pair);
	assert_int_equal(taken_count, 0);
}

static void test_keys_lie_in_key_memory(void **unused)
{
	for (enum aead_backend backend = 0; backend < AEAD_BACKEND_COUNT; backend++)
		if (aead_backend_available(backend))
			keys_looked_for(backend);
}

/* ---- a source that gives out ---- */

static unsigned left;

static void *short_take(enum memory_kind kind, uint64_t bytes)
{
	if (left--)
		return remember_take(kind, bytes);
	left = 0;
	errno = kind == MEMORY_KEYS ? EPERM : ENOMEM;
	return NULL;
}

/* Whichever piece is missing: no core, the source's own errno, and the rest given back. */
static void test_refused_memory(void **unused)
{
	static const struct memory giving_out = {short_take, remember_give};
	static uint8_t packets[4 * MIB] __attribute__((aligned(PAGE_BYTES)));
	struct core *core = NULL;
	for (unsigned pieces = 0; !core; pieces++) {
		struct core_config config = {.aead = AEAD_OPENSSL, .memory = &giving_out};
		assert_true(pieces < 64);
		config.path_count = 1;
		config.path[0].datagram_bytes_max = 1500;
		must(core_packet_memory_bytes(&config) <= sizeof packets, "the test has memory");
		left = pieces;
		errno = 0;
		core = core_new(&config, packets);
		if (core)
			break;
		assert_true(errno == EPERM || errno == ENOMEM);
		assert_int_equal(taken_count, 0);
	}
	core_free(core);
	assert_int_equal(taken_count, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_of_the_engine),
		cmocka_unit_test(test_keys_lie_in_key_memory),
		cmocka_unit_test(test_refused_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
