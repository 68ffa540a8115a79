/* SPDX-License-Identifier: Apache-2.0 */
/* Coding and rebuilding on each kernel. The columns are in cache, as the cipher has just written
 * them there; rebuilding loses as many data columns as there are parity columns. */
#include "core/stripe.h"

#include "bench_rows.h"

#include <stdlib.h>

struct coded_row {
	struct stripe *stripe;
	uint8_t *memory;
	uint8_t *column[SHARDS_MAX];
};

static void coded_row_init(struct coded_row *row, const struct bench_case *what)
{
	struct geometry geometry = bench_geometry(what->shape);
	uint32_t shard_bytes = bench_shard_bytes(what->shape);

	row->stripe = stripe_init(bench_pages(stripe_bytes()), geometry,
				  (enum stripe_kernel)what->choice);
	row->memory = bench_pages((size_t)geometry_n(geometry) * BENCH_PACKET_BYTES);
	for (unsigned i = 0; i < geometry_n(geometry); i++)
		row->column[i] = row->memory + i * BENCH_PACKET_BYTES + BENCH_HEAD_BYTES;
	stripe_encode(row->stripe, row->column, row->column + geometry.k, shard_bytes);
}

static void coded_row_fini(struct coded_row *row)
{
	free(row->memory);
	free(row->stripe);
}

static void encode_body(struct bench_state *state, const struct bench_case *what)
{
	struct coded_row row;
	uint32_t shard_bytes = bench_shard_bytes(what->shape);

	coded_row_init(&row, what);
	while (bench_keep_running(state))
		stripe_encode(row.stripe, row.column, row.column + what->shape->k, shard_bytes);
	coded_row_fini(&row);
}

static void decode_body(struct bench_state *state, const struct bench_case *what)
{
	struct coded_row row;
	struct geometry geometry = bench_geometry(what->shape);
	uint32_t shard_bytes = bench_shard_bytes(what->shape);
	uint32_t lost = (1u << min_u64(geometry.m, geometry.k)) - 1;
	uint32_t present = ((1u << geometry_n(geometry)) - 1) & ~lost;

	coded_row_init(&row, what);
	while (bench_keep_running(state)) {
		int result = stripe_rebuild(row.stripe, row.column, present, lost, shard_bytes);
		must(result == 0, "enough columns are there");
	}
	coded_row_fini(&row);
}

void bench_stripe_add(void)
{
	static const struct {
		const char *row;
		void (*body)(struct bench_state *, const struct bench_case *);
	} rows[] = {{"encode", encode_body}, {"decode", decode_body}};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		for (enum stripe_kernel kernel = 0; kernel < STRIPE_KERNEL_COUNT; kernel++)
			for (unsigned s = 0; s < BENCH_SHAPE_COUNT; s++)
				if (stripe_kernel_available(kernel))
					bench_add(&(struct bench_case){
						.row = rows[i].row,
						.variant = stripe_kernel_name(kernel),
						.choice = (int)kernel,
						.shape = &bench_shapes[s],
						.body = rows[i].body,
					});
}
