/* SPDX-License-Identifier: Apache-2.0 */
/* The whole steps: a primary's core and a vault's, joined in memory, each timed alone. A round is
 * as many writes as the window holds. The primary's step begins with the vault's points of the
 * round before and ends with sealed datagrams and local writes in its effects; the vault's begins
 * with those datagrams and ends with its points, every shard in a journal and the fold under way.
 * Disks take no time: what they would do is done while the clock stands. */
#include "../tests/core_pair.h"

#include "bench_rows.h"

#include <stdlib.h>

enum {
	STEP_REQUEST_BYTES = 256 * 1024, /* of clients per step of the primary */
	STEP_REQUESTS_MAX = 32,		 /* as a lane takes */
	STEP_PACKETS = 32,
	STEPS_PER_DISK = 8, /* of the vault, before its disks answer */
	/* Of a round: with what the vault touches, packet memory comes round after as many bytes as
	 * the roofline's. */
	ROUND_PACKETS = 512,
};

struct walker {
	struct bench_memory memory;
	struct pair *pair;
	struct request *request;
	unsigned count; /* of requests, and of writes in a round */
	unsigned open;	/* not yet answered */
	uint64_t block;
};

static unsigned window_of(const struct bench_shape *shape)
{
	unsigned window = 32;

	while (window * geometry_n(bench_geometry(shape)) < ROUND_PACKETS)
		window *= 2;
	return window;
}

/* One pair per case for the whole run: making it costs more than measuring it. */
static struct pair *pair_of(const struct bench_case *what)
{
	static struct pair *pairs[AEAD_BACKEND_COUNT][BENCH_SHAPE_COUNT];
	struct pair **pair = &pairs[what->choice][what->shape - bench_shapes];

	if (!*pair)
		*pair = pair_new(&(struct pair_options){
			.geometry = bench_geometry(what->shape),
			.block_bytes = what->shape->block_bytes,
			.blocks = window_of(what->shape),
			.window = window_of(what->shape),
			.aead = (uint8_t)what->choice,
			.ack = ACK_RECEIVED,
			.forgetful = true,
		});
	return *pair;
}

static void walker_init(struct walker *walker, const struct bench_case *what)
{
	*walker = (struct walker){.pair = pair_of(what), .count = window_of(what->shape) - 2};
	bench_memory_init(&walker->memory, what->shape);
	walker->request = calloc(walker->count, sizeof *walker->request);
	must(walker->request, "the meter has memory");
}

static unsigned requests_fill(struct walker *walker, struct request *wanted[], unsigned first)
{
	uint32_t block_bytes = walker->memory.shape->block_bytes;
	unsigned most = STEP_REQUEST_BYTES / block_bytes, count = 0;

	for (; first + count < walker->count && count < most && count < STEP_REQUESTS_MAX;
	     count++) {
		struct request *request = &walker->request[first + count];
		uint64_t block = walker->block++ % walker->pair->options.blocks;
		*request = (struct request){
			.kind = REQUEST_WRITE,
			.offset = block * block_bytes,
			.length = block_bytes,
			.data = (uint8_t *)bench_memory_block(&walker->memory),
		};
		wanted[count] = request;
	}
	return count;
}

/* Hears of what came back, then takes one window of writes. */
static void primary_round(struct walker *walker)
{
	struct pair *pair = walker->pair;
	unsigned taken = 0;

	pair_step(pair, PAIR_PRIMARY, UINT32_MAX, NULL, 0);
	while (request_list_pop(&pair->answered))
		walker->open--;
	must(!walker->open, "the round before was received");
	while (taken < walker->count) {
		struct request *wanted[STEP_REQUESTS_MAX];
		unsigned count = requests_fill(walker, wanted, taken);
		pair_step(pair, PAIR_PRIMARY, UINT32_MAX, wanted, count);
		pair_disk(pair, PAIR_PRIMARY);
		taken += count;
	}
	walker->open = taken;
}

/* Clock: the meter's state when the vault is timed, NULL when the primary is. */
static void vault_round(struct walker *walker, struct bench_state *clock)
{
	struct pair *pair = walker->pair;

	while (pair_waits(pair, PAIR_VAULT)) {
		if (clock)
			bench_resume(clock);
		for (unsigned i = 0; i < STEPS_PER_DISK; i++)
			pair_step(pair, PAIR_VAULT, STEP_PACKETS, NULL, 0);
		if (clock)
			bench_pause(clock);
		pair_disk(pair, PAIR_VAULT);
	}
}

/* The points of the whole round are said once their interval is over. */
static void round_end(struct walker *walker)
{
	walker->pair->now += NS_PER_MS;
	pair_step(walker->pair, PAIR_VAULT, 0, NULL, 0);
	vault_round(walker, NULL);
}

static void walker_fini(struct walker *walker)
{
	pair_settle(walker->pair, NS_PER_MS);
	while (request_list_pop(&walker->pair->answered))
		walker->open--;
	must(!walker->open, "every write was answered");
	free(walker->request);
}

static void primary_body(struct bench_state *state, const struct bench_case *what)
{
	struct walker walker;

	walker_init(&walker, what);
	while (bench_keep_running(state)) {
		primary_round(&walker);
		bench_pause(state);
		vault_round(&walker, NULL);
		round_end(&walker);
		bench_resume(state);
	}
	bench_set_bytes(state, (uint64_t)walker.count * what->shape->block_bytes);
	walker_fini(&walker);
}

static void vault_body(struct bench_state *state, const struct bench_case *what)
{
	struct walker walker;

	walker_init(&walker, what);
	while (bench_keep_running(state)) {
		bench_pause(state);
		primary_round(&walker);
		vault_round(&walker, state);
		round_end(&walker);
		bench_resume(state);
	}
	bench_set_bytes(state, (uint64_t)walker.count * what->shape->block_bytes);
	walker_fini(&walker);
}

void bench_steps_add(void)
{
	static const struct {
		const char *row;
		void (*body)(struct bench_state *, const struct bench_case *);
	} rows[] = {{"primary step", primary_body}, {"vault step", vault_body}};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		for (enum aead_backend backend = 0; backend < AEAD_BACKEND_COUNT; backend++)
			for (unsigned s = 0; s < BENCH_SHAPE_COUNT; s++)
				if (aead_backend_available(backend))
					bench_add(&(struct bench_case){
						.row = rows[i].row,
						.variant = aead_backend_name(backend),
						.choice = (int)backend,
						.shape = &bench_shapes[s],
						.body = rows[i].body,
					});
}
