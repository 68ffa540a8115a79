/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel for CPUs with AVX-512 and GFNI. To multiply by a constant is linear over GF(2), so it
 * is an 8x8 bit matrix, and gf2p8affineqb applies one to 64 bytes at once, in any field; 0x11d
 * here.
 *
 * The input is the larger side and is read once: all rows (at most 8) are summed in registers side
 * by side. Fewer rows leave registers for more bytes per turn, so that each matrix, once loaded,
 * serves up to four vectors: at most 16 sums + 8 matrices + 1 input of the 32 registers. */
#include "stripe_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET	  __attribute__((target("avx512f,avx512bw,gfni")))
#define FLATTENED TARGET __attribute__((always_inline)) static inline

enum { VECTOR_BYTES = 64, VECTORS_MAX = 4 };

static bool gfni_available(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("gfni");
}

/* Byte 7 - i of the matrix says which bits of x go into bit i of the product: bit j does when bit i
 * of coefficient * 2^j is set (Intel SDM, GF2P8AFFINEQB). */
static uint64_t matrix_of(uint8_t coefficient)
{
	uint64_t matrix = 0;

	for (unsigned j = 0; j < 8; j++) {
		uint64_t column = stripe_product(coefficient, (uint8_t)(1u << j));
		for (unsigned i = 0; i < 8; i++)
			matrix |= (column >> i & 1) << (8 * (7 - i) + j);
	}
	return matrix;
}

/* The matrices stand column by column, as the loop below reads them. */
static void gfni_prepare(struct stripe_code *code, const uint8_t *coefficient)
{
	uint64_t *table = (uint64_t *)code->table;

	for (unsigned j = 0; j < code->k; j++)
		for (unsigned i = 0; i < code->rows; i++)
			*table++ = matrix_of(coefficient[i * code->k + j]);
}

/* The matrix in all lanes of a register. It must not become a memory operand of gf2p8affineqb:
 * clang 14 encodes the displacement of its broadcast form unscaled, and the CPU reads elsewhere. */
FLATTENED __m512i matrix_load(const uint64_t *matrix)
{
	__m512i lanes = _mm512_set1_epi64((long long)*matrix);

	__asm__("" : "+v"(lanes));
	return lanes;
}

/* The bytes from..from + vectors * 64 of all rows, or with a mask the few at the end. rows and
 * vectors are constants where this is inlined, so all loops but the one over k are unrolled. */
struct gfni_turn {
	size_t from;
	__mmask64 mask;
};

FLATTENED void multiply_turn(const struct stripe_code *code, uint8_t *const in[],
			     uint8_t *const out[], struct gfni_turn turn, unsigned rows,
			     unsigned vectors)
{
	const uint64_t *matrix = (const uint64_t *)code->table;
	__m512i sum[CODE_ROWS_MAX][VECTORS_MAX];

#pragma GCC unroll 8
	for (unsigned i = 0; i < rows; i++)
#pragma GCC unroll 4
		for (unsigned v = 0; v < vectors; v++)
			sum[i][v] = _mm512_setzero_si512();
	for (unsigned j = 0; j < code->k; j++, matrix += rows) {
		const uint8_t *source = in[j] + turn.from;
#pragma GCC unroll 4
		for (unsigned v = 0; v < vectors; v++) {
			__m512i x = _mm512_maskz_loadu_epi8(turn.mask, source + v * VECTOR_BYTES);
#pragma GCC unroll 8
			for (unsigned i = 0; i < rows; i++) {
				__m512i a = matrix_load(matrix + i);
				__m512i product = _mm512_gf2p8affine_epi64_epi8(x, a, 0);
				sum[i][v] = _mm512_xor_si512(sum[i][v], product);
			}
		}
	}
#pragma GCC unroll 8
	for (unsigned i = 0; i < rows; i++)
#pragma GCC unroll 4
		for (unsigned v = 0; v < vectors; v++)
			_mm512_mask_storeu_epi8(out[i] + turn.from + v * VECTOR_BYTES, turn.mask,
						sum[i][v]);
}

FLATTENED void multiply_rows(const struct stripe_code *code, uint8_t *const in[],
			     uint8_t *const out[], size_t length, unsigned rows, unsigned vectors)
{
	struct gfni_turn turn = {.mask = ~0ull};

	for (; length - turn.from >= vectors * VECTOR_BYTES; turn.from += vectors * VECTOR_BYTES)
		multiply_turn(code, in, out, turn, rows, vectors);
	for (; length - turn.from >= VECTOR_BYTES; turn.from += VECTOR_BYTES)
		multiply_turn(code, in, out, turn, rows, 1);
	if (length == turn.from)
		return;
	turn.mask = ~0ull >> (VECTOR_BYTES - (length - turn.from));
	multiply_turn(code, in, out, turn, rows, 1);
}

TARGET static void gfni_multiply(const struct stripe_code *code, uint8_t *const in[],
				 uint8_t *const out[], size_t length)
{
	switch (code->rows) {
	case 1:
		multiply_rows(code, in, out, length, 1, 4);
		break;
	case 2:
		multiply_rows(code, in, out, length, 2, 4);
		break;
	case 3:
		multiply_rows(code, in, out, length, 3, 4);
		break;
	case 4:
		multiply_rows(code, in, out, length, 4, 4);
		break;
	case 5:
		multiply_rows(code, in, out, length, 5, 2);
		break;
	case 6:
		multiply_rows(code, in, out, length, 6, 2);
		break;
	case 7:
		multiply_rows(code, in, out, length, 7, 2);
		break;
	case 8:
		multiply_rows(code, in, out, length, 8, 2);
		break;
	default:
		must(false, "a code has 1 to 8 rows");
	}
}

#else /* not x86-64 */

static bool gfni_available(void)
{
	return false;
}

static void gfni_prepare(struct stripe_code *code, const uint8_t *coefficient)
{
	must(false, "this CPU has no GFNI");
}

static void gfni_multiply(const struct stripe_code *code, uint8_t *const in[], uint8_t *const out[],
			  size_t length)
{
	must(false, "this CPU has no GFNI");
}

#endif

const struct stripe_multiplier stripe_gfni = {
	.name = "gfni",
	.available = gfni_available,
	.prepare = gfni_prepare,
	.multiply = gfni_multiply,
};
