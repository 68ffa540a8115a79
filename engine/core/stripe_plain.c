/* SPDX-License-Identifier: Apache-2.0 */
/* The reference kernel: one byte at a time, by the definition of the field. Every other kernel must
 * give the same bytes. */
#include "stripe_kernel.h"

enum { FIELD_REDUCTION = 0x1d }; /* x^8 = x^4 + x^3 + x^2 + 1 */

uint8_t stripe_product(uint8_t a, uint8_t b)
{
	uint8_t product = 0;

	for (; b; b >>= 1) {
		if (b & 1)
			product ^= a;
		a = (uint8_t)(a << 1 ^ (a & 0x80 ? FIELD_REDUCTION : 0));
	}
	return product;
}

static bool plain_available(void)
{
	return true;
}

/* Per coefficient: its products with the 16 low nibbles, then with the 16 high ones. */
static void plain_prepare(struct stripe_code *code, const uint8_t *coefficient)
{
	uint8_t *next = code->table;

	for (unsigned i = 0; i < code->rows * code->k; i++) {
		for (unsigned low = 0; low < 16; low++)
			*next++ = stripe_product(coefficient[i], (uint8_t)low);
		for (unsigned high = 0; high < 16; high++)
			*next++ = stripe_product(coefficient[i], (uint8_t)(high << 4));
	}
}

static void multiply_row(const uint8_t *table, unsigned k, uint8_t *const in[], uint8_t *out,
			 size_t length)
{
	for (size_t b = 0; b < length; b++) {
		uint8_t sum = 0;
		for (unsigned j = 0; j < k; j++) {
			const uint8_t *products = table + j * CODE_COEFFICIENT_BYTES;
			sum ^= products[in[j][b] & 15] ^ products[16 + (in[j][b] >> 4)];
		}
		out[b] = sum;
	}
}

static void plain_multiply(const struct stripe_code *code, uint8_t *const in[],
			   uint8_t *const out[], size_t length)
{
	size_t row_bytes = (size_t)code->k * CODE_COEFFICIENT_BYTES;

	for (unsigned i = 0; i < code->rows; i++)
		multiply_row(code->table + i * row_bytes, code->k, in, out[i], length);
}

const struct stripe_multiplier stripe_plain = {
	.name = "plain",
	.available = plain_available,
	.prepare = plain_prepare,
	.multiply = plain_multiply,
};
