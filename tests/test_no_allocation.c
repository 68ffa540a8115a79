/* SPDX-License-Identifier: Apache-2.0 */
/* The data path allocates nothing after start: two cores joined in memory take thousands of writes
 * and reads while every allocation of the process, the libraries' too, is counted. Keys are derived
 * when a session begins, a span opens and a key is ratcheted; that may allocate, and is kept out.
 */
#include "core_pair.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* volatile: the compiler knows that malloc reads neither */
static volatile bool counting;
static volatile unsigned long allocations;

#ifndef SANITIZED
/* The program's own names come first for all libraries of the process. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void count(void)
{
	allocations += counting;
}

void *malloc(size_t bytes)
{
	count();
	return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes)
{
	count();
	return __libc_calloc(number, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	count();
	return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
	count();
	return __libc_memalign(alignment, bytes);
}

void free(void *memory)
{
	allocations += counting && memory;
	__libc_free(memory);
}
#endif

enum { BLOCK_BYTES = 16 * 1024, BLOCKS = 256, WRITES = 4096, PER_STEP = 8 };

static struct request request[PER_STEP];
static uint8_t *data;

static unsigned answers_take(struct pair *pair)
{
	unsigned answers = 0;

	for (struct request *done; (done = request_list_pop(&pair->answered)); answers++)
		must(done->result == 0, "a sound pair answers well");
	return answers;
}

/* Every fourth is a part of a block, every eighth a zero, and each step ends with reads. */
static void requests_run(struct pair *pair, uint8_t kind, unsigned round)
{
	struct request *wanted[PER_STEP];

	for (unsigned i = 0; i < PER_STEP; i++) {
		uint64_t block = (round * PER_STEP + i) * 7 % BLOCKS;
		bool partial = kind == REQUEST_WRITE && i % 4 == 3;
		request[i] = (struct request){
			.kind = kind == REQUEST_WRITE && i % 8 == 5 ? REQUEST_ZERO : kind,
			.flags = REQUEST_NO_HOLE * (kind == REQUEST_WRITE && i % 8 == 5),
			.offset = block * BLOCK_BYTES + (partial ? PAGE_BYTES : 0),
			.length = partial ? PAGE_BYTES : BLOCK_BYTES,
			.data = data + PAGE_BYTES + (size_t)i * BLOCK_BYTES,
		};
		wanted[i] = &request[i];
	}
	pair_step(pair, PAIR_PRIMARY, UINT32_MAX, wanted, PER_STEP);
	pair_settle(pair, 300 * NS_PER_US);
	must(answers_take(pair) == PER_STEP, "all are answered once nothing waits");
}

static void status_take(struct pair *pair, unsigned site, struct core_status *status)
{
	struct command command = {.kind = COMMAND_STATUS, .status = status};
	struct command *commands[] = {&command};
	const struct events events = {.command = commands, .command_count = 1};

	effects_init(&pair->site[site].effects, ++pair->now, 0);
	core_step(pair->site[site].core, &events, &pair->site[site].effects);
	/* What else the step wanted is lost, as on a bad network: nothing is outstanding. */
}

static void counts_run(enum aead_backend backend, enum ack_mode ack)
{
	static struct core_status status;
	struct pair *pair = pair_new(&(struct pair_options){
		.geometry = {.k = 4, .m = 2},
		.block_bytes = BLOCK_BYTES,
		.blocks = BLOCKS,
		.window = 64,
		.aead = (uint8_t)backend,
		.ack = (uint8_t)ack,
	});

	requests_run(pair, REQUEST_WRITE, 0); /* the first of everything */
	requests_run(pair, REQUEST_READ, 0);
	allocations = 0;
	counting = true;
	for (unsigned round = 0; round < WRITES / PER_STEP; round++) {
		requests_run(pair, REQUEST_WRITE, round);
		requests_run(pair, REQUEST_READ, round);
	}
	counting = false;
	assert_int_equal(allocations, 0);
	status_take(pair, PAIR_VAULT, &status);
	assert_true(status.group[0].records_received >= WRITES);
	assert_true(status.group[0].fold > 0); /* the fold is part of it */
	pair_free(pair);
}

static void allocates_nothing_after_start(void **state)
{
	static const enum ack_mode modes[] = {ACK_RECEIVED, ACK_DURABLE};

#ifdef SANITIZED
	skip(); /* its allocator is the sanitizer's */
#endif
	counting = true;
	void *volatile kept = malloc(1); /* the counter counts */
	free(kept);
	counting = false;
	assert_int_equal(allocations, 2);
	counting = true;
	aead_free(aead_new(AEAD_OPENSSL, NULL)); /* two are ours: it counts the library's too */
	counting = false;
	assert_true(allocations > 4);
	for (enum aead_backend backend = 0; backend < AEAD_BACKEND_COUNT; backend++)
		for (unsigned i = 0; i < ARRAY_COUNT(modes); i++)
			if (aead_backend_available(backend))
				counts_run(backend, modes[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocates_nothing_after_start),
	};
	data = aligned_alloc(PAGE_BYTES, (PER_STEP + 2) * BLOCK_BYTES);
	must(data, "a test has memory");
	memset(data, 0x5a, (PER_STEP + 2) * BLOCK_BYTES);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
