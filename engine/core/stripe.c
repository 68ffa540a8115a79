/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of k data and m parity columns. This room chooses the matrix, and keeps the matrices of past
 * repairs; the kernels multiply. */
#include "stripe.h"
#include "stripe_kernel.h"

#include <errno.h>
#include <isa-l/erasure_code.h>

enum { REPAIRS_MAX = 32 };

/* A matrix that turns the columns used into the columns wanted. */
struct repair {
	uint32_t used; /* k bits; 0 is an empty place */
	uint32_t want;
	uint64_t turn; /* of the last use */
	struct stripe_code code;
};

struct stripe {
	const struct stripe_multiplier *kernel;
	struct geometry geometry;
	uint64_t turn;
	/* n rows of k coefficients: the unit matrix, then the Cauchy rows of the parity. */
	uint8_t matrix[SHARDS_MAX * DATA_SHARDS_MAX];
	struct stripe_code encode;
	struct repair repair[REPAIRS_MAX];
};

static const struct stripe_multiplier *const kernels[STRIPE_KERNEL_COUNT] = {
	[STRIPE_PLAIN] = &stripe_plain,
	[STRIPE_ISAL] = &stripe_isal,
	[STRIPE_GFNI] = &stripe_gfni,
};

bool stripe_kernel_available(enum stripe_kernel kernel)
{
	return kernel < STRIPE_KERNEL_COUNT && kernels[kernel]->available();
}

const char *stripe_kernel_name(enum stripe_kernel kernel)
{
	must(kernel < STRIPE_KERNEL_COUNT, "only a kernel has a name");
	return kernels[kernel]->name;
}

enum stripe_kernel stripe_kernel_best(void)
{
	return stripe_kernel_available(STRIPE_GFNI) ? STRIPE_GFNI : STRIPE_ISAL;
}

size_t stripe_bytes(void)
{
	return sizeof(struct stripe);
}

static void code_prepare(struct stripe *stripe, struct stripe_code *code,
			 const uint8_t *coefficient, unsigned rows)
{
	must(rows >= 1 && rows <= CODE_ROWS_MAX, "a code has 1 to 8 rows");
	code->rows = rows;
	code->k = stripe->geometry.k;
	stripe->kernel->prepare(code, coefficient);
}

struct stripe *stripe_init(void *memory, struct geometry geometry, enum stripe_kernel kernel)
{
	struct stripe *stripe = memory;
	unsigned k = geometry.k, n = geometry_n(geometry);

	must((uintptr_t)memory % _Alignof(struct stripe) == 0, "the kernels read aligned tables");
	must(k >= 1 && k <= DATA_SHARDS_MAX, "1 to 16 data columns");
	must(geometry.m <= PARITY_SHARDS_MAX, "0 to 8 parity columns");
	must(stripe_kernel_available(kernel), "the kernel was chosen among those available");

	memset(stripe, 0, sizeof *stripe);
	stripe->kernel = kernels[kernel];
	stripe->geometry = geometry;
	gf_gen_cauchy1_matrix(stripe->matrix, (int)n, (int)k);
	if (geometry.m)
		code_prepare(stripe, &stripe->encode, stripe->matrix + k * k, geometry.m);
	return stripe;
}

void stripe_encode(struct stripe *stripe, uint8_t *const data[], uint8_t *const parity[],
		   size_t length)
{
	if (!stripe->geometry.m || !length)
		return;
	must(stripe->encode.rows == stripe->geometry.m, "the code has a row per parity column");
	stripe->kernel->multiply(&stripe->encode, data, parity, length);
}

/* used = S * data and wanted = W * data, where S and W are rows of the matrix, so
 * wanted = W * inverse(S) * used. Every S of a Cauchy matrix has an inverse. */
static void repair_prepare(struct stripe *stripe, struct repair *repair)
{
	unsigned k = stripe->geometry.k, rows = 0;
	uint8_t square[DATA_SHARDS_MAX * DATA_SHARDS_MAX];
	uint8_t inverse[DATA_SHARDS_MAX * DATA_SHARDS_MAX];
	uint8_t coefficient[CODE_ROWS_MAX * DATA_SHARDS_MAX] = {0};
	uint8_t *next = square;

	for (uint32_t used = repair->used; used; used &= used - 1, next += k)
		memcpy(next, stripe->matrix + (unsigned)__builtin_ctz(used) * k, k);
	must(next == square + k * k, "k columns are used");
	must(gf_invert_matrix(square, inverse, (int)k) == 0, "any k rows are independent");

	for (uint32_t want = repair->want; want; want &= want - 1, rows++) {
		const uint8_t *row = stripe->matrix + (unsigned)__builtin_ctz(want) * k;
		for (unsigned i = 0; i < k; i++)
			for (unsigned j = 0; j < k; j++)
				coefficient[rows * k + j] ^= gf_mul(row[i], inverse[i * k + j]);
	}
	code_prepare(stripe, &repair->code, coefficient, rows);
}

/* gives: the matrix for these columns, from the cache or in the place that was idle longest. */
static const struct stripe_code *repair_take(struct stripe *stripe, uint32_t used, uint32_t want)
{
	struct repair *oldest = &stripe->repair[0];

	stripe->turn++;
	for (unsigned i = 0; i < REPAIRS_MAX; i++) {
		struct repair *repair = &stripe->repair[i];
		if (repair->used == used && repair->want == want) {
			repair->turn = stripe->turn;
			return &repair->code;
		}
		if (repair->turn < oldest->turn)
			oldest = repair;
	}
	oldest->used = used;
	oldest->want = want;
	oldest->turn = stripe->turn;
	repair_prepare(stripe, oldest);
	return &oldest->code;
}

int stripe_rebuild(struct stripe *stripe, uint8_t *const column[], uint32_t present, uint32_t want,
		   size_t length)
{
	uint8_t *in[DATA_SHARDS_MAX], *out[SHARDS_MAX];
	unsigned k = stripe->geometry.k, in_count = 0, out_count = 0;
	uint32_t used = 0;

	must((present & want) == 0, "a column is there or wanted, not both");
	must((present | want) >> geometry_n(stripe->geometry) == 0, "there are n columns");
	if ((unsigned)__builtin_popcount(present) < k)
		return -EIO;
	if (!want || !length)
		return 0;

	for (; in_count < k; present &= present - 1) {
		used |= present & -present;
		in[in_count++] = column[__builtin_ctz(present)];
	}
	for (uint32_t rest = want; rest; rest &= rest - 1)
		out[out_count++] = column[__builtin_ctz(rest)];
	must(out_count <= stripe->geometry.m, "while k are there, at most m are missing");
	stripe->kernel->multiply(repair_take(stripe, used, want), in, out, length);
	return 0;
}
