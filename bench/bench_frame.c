/* SPDX-License-Identifier: Apache-2.0 */
/* Framing: the headers of a block's datagrams written, and each datagram sealed in its cell, as the
 * link does it. */
#include "core/link.h"

#include "bench_rows.h"

#include <stdlib.h>

struct framer {
	struct core_config config;
	struct aead *aead;
	struct cells cells;
	struct packet_cell *descriptors;
	uint8_t *memory;
	struct link link;
	struct effects effects;
	struct wire_shard shard;
};

static struct framer *framer_new(const struct bench_case *what)
{
	struct framer *framer = calloc(1, sizeof *framer);
	must(framer, "the meter has memory");
	framer->config.path_count = 1;
	framer->config.path[0].datagram_bytes_max =
		BENCH_FRAGMENT_BYTES_MAX + WIRE_SHARD_OVERHEAD_BYTES;
	framer->aead = aead_new((enum aead_backend)what->choice, NULL);
	must(framer->aead, "the back end was chosen among those available");
	uint32_t datagram = framer->config.path[0].datagram_bytes_max;
	framer->descriptors = calloc(BENCH_PACKET_COUNT, sizeof *framer->descriptors);
	framer->memory = bench_pages(cells_memory_bytes(BENCH_PACKET_COUNT, datagram));
	cells_init(&framer->cells, framer->descriptors, BENCH_PACKET_COUNT, framer->memory,
		   datagram);
	link_init(&framer->link, framer->aead, &framer->cells, &framer->config);
	const struct session_keys keys = {.id_in = 1, .id_out = 2, .initiator = true};
	link_new_session(&framer->link, &keys, NS_PER_S);
	framer->shard.record.kind = RECORD_DATA;
	framer->shard.record.geometry = bench_geometry(what->shape);
	framer->shard.record.block_bytes = what->shape->block_bytes;
	framer->shard.cut_bytes = bench_shard_bytes(what->shape);
	return framer;
}

static void framer_free(struct framer *framer)
{
	link_fini(&framer->link);
	aead_free(framer->aead);
	free(framer->descriptors);
	free(framer->memory);
	free(framer);
}

/* The port takes all and gives it back at once. */
static void framer_drain(struct framer *framer)
{
	effects_init(&framer->effects, NS_PER_S, 0);
	link_turn(&framer->link, &framer->effects);
	for (struct cell *cell; (cell = cell_list_pop(&framer->effects.packets));) {
		cell->in_port = 0;
		cells_settle(&framer->cells, packet_cell_of(cell));
	}
}

static void frame_body(struct bench_state *state, const struct bench_case *what)
{
	struct framer *framer = framer_new(what);
	unsigned n = geometry_n(bench_geometry(what->shape));

	while (bench_keep_running(state)) {
		struct packet_cell *cell[SHARDS_MAX];
		framer->shard.record.lsn++;
		for (unsigned i = 0; i < n; i++) {
			cell[i] = cells_take(&framer->cells);
			cell[i]->payload_bytes = bench_shard_bytes(what->shape);
			framer->shard.record.shard = (uint8_t)i;
			link_send_shard(&framer->link, cell[i], &framer->shard, 0);
		}
		framer_drain(framer);
		for (unsigned i = 0; i < n; i++)
			cells_give(&framer->cells, cell[i]);
	}
	framer_free(framer);
}

void bench_frame_add(void)
{
	for (enum aead_backend backend = 0; backend < AEAD_BACKEND_COUNT; backend++)
		for (unsigned s = 0; s < BENCH_SHAPE_COUNT; s++)
			if (aead_backend_available(backend))
				bench_add(&(struct bench_case){
					.row = "frame",
					.variant = aead_backend_name(backend),
					.choice = (int)backend,
					.shape = &bench_shapes[s],
					.body = frame_body,
				});
}
