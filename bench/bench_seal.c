/* SPDX-License-Identifier: Apache-2.0 */
/* The cipher's rows on each AEAD back end, and the roofline: nothing but the primitives that a
 * primary cannot do without, over the memory that it cannot do without. */
#include "core/aead.h"
#include "core/seal.h"
#include "core/stripe.h"

#include "bench_rows.h"

#include <stdlib.h>

enum { ROOFLINE_AAD_BYTES = 64 }; /* as many as a seal binds */

struct sealer {
	struct bench_memory memory;
	struct aead *aead;
	struct stripe *stripe;
	struct aead_key block_key, packet_key;
	struct seal_context context;
	uint64_t packet_number;
};

static void sealer_init(struct sealer *sealer, const struct bench_case *what)
{
	static const uint8_t block_key[KEY_BYTES] = {1}, packet_key[KEY_BYTES] = {2};

	memset(sealer, 0, sizeof *sealer);
	bench_memory_init(&sealer->memory, what->shape);
	sealer->aead = aead_new((enum aead_backend)what->choice, NULL);
	must(sealer->aead, "the back end was chosen among those available");
	sealer->stripe = stripe_init(bench_pages(stripe_bytes()), bench_geometry(what->shape),
				     stripe_kernel_best());
	aead_key_init(sealer->aead, &sealer->block_key, block_key);
	aead_key_init(sealer->aead, &sealer->packet_key, packet_key);
	sealer->context.block_bytes = what->shape->block_bytes;
	sealer->context.kind = RECORD_DATA;
}

static void sealer_fini(struct sealer *sealer)
{
	aead_key_fini(&sealer->block_key);
	aead_key_fini(&sealer->packet_key);
	aead_free(sealer->aead);
	free(sealer->stripe);
}

/* A block cut into k slices, which go to or come from the columns. */
static void pieces_fill(struct aead_piece piece[], const struct bench_shape *shape,
			const uint8_t *block, uint8_t *const column[])
{
	size_t shard_bytes = bench_shard_bytes(shape);

	for (unsigned i = 0; i < shape->k; i++)
		piece[i] = (struct aead_piece){block + i * shard_bytes, column[i], shard_bytes};
}

/* The payload is bound, the metadata before it are encrypted. */
static void authenticate(struct sealer *sealer, uint8_t *payload)
{
	uint8_t nonce[AEAD_NONCE_BYTES] = {0}, *metadata = payload - BENCH_HEAD_BYTES;
	struct aead_piece piece = {metadata, metadata, BENCH_METADATA_BYTES};

	put_u64(nonce, ++sealer->packet_number);
	aead_seal(sealer->aead, &sealer->packet_key, nonce, payload,
		  bench_shard_bytes(sealer->memory.shape), &piece, 1,
		  metadata + BENCH_METADATA_BYTES);
}

static void seal_body(struct bench_state *state, const struct bench_case *what)
{
	struct aead_piece piece[DATA_SHARDS_MAX];
	uint8_t *column[SHARDS_MAX], tag[TAG_BYTES];
	struct sealer sealer;

	sealer_init(&sealer, what);
	while (bench_keep_running(state)) {
		bench_memory_row(&sealer.memory, column);
		pieces_fill(piece, what->shape, bench_memory_block(&sealer.memory), column);
		sealer.context.identity.lsn++;
		seal_block(sealer.aead, &sealer.block_key, &sealer.context, piece, what->shape->k,
			   tag);
	}
	sealer_fini(&sealer);
}

/* One block, opened again and again from its columns into the places of a walk. */
static void open_body(struct bench_state *state, const struct bench_case *what)
{
	struct aead_piece piece[DATA_SHARDS_MAX];
	uint8_t *column[SHARDS_MAX], tag[TAG_BYTES];
	struct sealer sealer;

	sealer_init(&sealer, what);
	sealer.context.identity.lsn = 1;
	bench_memory_row(&sealer.memory, column);
	pieces_fill(piece, what->shape, bench_memory_block(&sealer.memory), column);
	seal_block(sealer.aead, &sealer.block_key, &sealer.context, piece, what->shape->k, tag);
	while (bench_keep_running(state)) {
		uint8_t *block = (uint8_t *)bench_memory_block(&sealer.memory);
		size_t shard_bytes = bench_shard_bytes(what->shape);
		for (unsigned i = 0; i < what->shape->k; i++)
			piece[i] = (struct aead_piece){column[i], block + i * shard_bytes,
						       shard_bytes};
		int result = seal_open(sealer.aead, &sealer.block_key, &sealer.context, piece,
				       what->shape->k, tag);
		must(result == 0, "what was sealed opens");
	}
	sealer_fini(&sealer);
}

static void authenticate_body(struct bench_state *state, const struct bench_case *what)
{
	uint8_t *column[SHARDS_MAX];
	struct sealer sealer;
	unsigned n = geometry_n(bench_geometry(what->shape));

	sealer_init(&sealer, what);
	bench_memory_row(&sealer.memory, column);
	while (bench_keep_running(state))
		for (unsigned i = 0; i < n; i++)
			authenticate(&sealer, column[i]);
	sealer_fini(&sealer);
}

static void roofline_body(struct bench_state *state, const struct bench_case *what)
{
	static const uint8_t associated[ROOFLINE_AAD_BYTES];
	uint8_t *column[SHARDS_MAX], tag[TAG_BYTES], nonce[AEAD_NONCE_BYTES] = {0};
	struct aead_piece piece[DATA_SHARDS_MAX];
	struct sealer sealer;
	unsigned k = what->shape->k, n = geometry_n(bench_geometry(what->shape));

	sealer_init(&sealer, what);
	while (bench_keep_running(state)) {
		bench_memory_row(&sealer.memory, column);
		pieces_fill(piece, what->shape, bench_memory_block(&sealer.memory), column);
		put_u64(nonce, ++sealer.context.identity.lsn);
		aead_seal(sealer.aead, &sealer.block_key, nonce, associated, sizeof associated,
			  piece, k, tag);
		stripe_encode(sealer.stripe, column, column + k, bench_shard_bytes(what->shape));
		for (unsigned i = 0; i < n; i++)
			authenticate(&sealer, column[i]);
	}
	sealer_fini(&sealer);
}

void bench_seal_add(void)
{
	static const struct {
		const char *row;
		void (*body)(struct bench_state *, const struct bench_case *);
	} rows[] = {
		{"seal", seal_body},
		{"open", open_body},
		{"authenticate", authenticate_body},
		{"roofline", roofline_body},
	};

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
