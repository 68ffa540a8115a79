/* SPDX-License-Identifier: Apache-2.0 */
/* The sums of the shards of a block and, from them, that of the block. */
#include "core/crc.h"
#include "core/crc_kernel.h"

#include "bench_rows.h"

#include <stdlib.h>

static void crc_body(struct bench_state *state, const struct bench_case *what)
{
	uint8_t *block = bench_pages(what->shape->block_bytes);
	uint32_t shard_bytes = bench_shard_bytes(what->shape);
	struct crc32c_shift shift;
	volatile uint32_t kept;

	crc32c_shift_init(&shift, shard_bytes);
	while (bench_keep_running(state)) {
		uint32_t sum = 0;
		for (unsigned i = 0; i < what->shape->k; i++) {
			uint32_t shard = crc32c(block + i * shard_bytes, shard_bytes);
			sum = crc32c_shift_combine(&shift, sum, shard);
		}
		kept = sum;
	}
	(void)kept;
	free(block);
}

void bench_crc_add(void)
{
	for (unsigned s = 0; s < BENCH_SHAPE_COUNT; s++)
		bench_add(&(struct bench_case){
			.row = "crc",
			.variant = crc_fold_available() ? "fold" : "isal",
			.shape = &bench_shapes[s],
			.body = crc_body,
		});
}
