/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C. A sum is a polynomial over GF(2) modulo the Castagnoli polynomial, written with its
 * lowest power in the highest bit; appending n bytes multiplies it by x^(8n), and that is all that
 * combination needs. Initial value and final inversion cancel out in the combination, so finished
 * sums go in and finished sums come out. */
#include "crc.h"

#include "crc_kernel.h"

#include <isa-l/crc.h>

enum { CRC_PIECE_BYTES_MAX = 1 << 30 }; /* ISA-L counts in int */

#define CRC_POLYNOMIAL 0x82f63b78u
#define CRC_ONE	       (1u << 31) /* x^0 */
#define CRC_X_TO_8     (1u << 23) /* x^8: one byte appended */

uint32_t crc32c(const void *bytes, size_t length)
{
	return crc32c_more(0, bytes, length);
}

uint32_t crc32c_more(uint32_t crc_a, const void *bytes, size_t length)
{
	const uint8_t *next = bytes;
	uint32_t sum = ~crc_a;

	must(bytes || !length, "a sum is of bytes that exist");
	if (length >= CRC_FOLD_BYTES_MIN && crc_fold_available()) {
		size_t taken = crc_fold(&sum, next, length);
		next += taken;
		length -= taken;
	}
	while (length) {
		size_t piece = min_u64(length, CRC_PIECE_BYTES_MAX);
		/* ISA-L only reads; its prototype lacks the const. */
		sum = crc32_iscsi((unsigned char *)next, (int)piece, sum);
		next += piece;
		length -= piece;
	}
	return ~sum;
}

uint32_t crc32c_more_plain(uint32_t crc_a, const void *bytes, size_t length)
{
	const uint8_t *next = bytes;
	uint32_t sum = ~crc_a;

	for (; length; length--) {
		sum ^= *next++;
		for (int bit = 0; bit < 8; bit++)
			sum = sum >> 1 ^ (sum & 1 ? CRC_POLYNOMIAL : 0);
	}
	return ~sum;
}

static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (uint32_t power = CRC_ONE; power; power >>= 1) {
		if (a & power)
			product ^= b;
		b = b >> 1 ^ (b & 1 ? CRC_POLYNOMIAL : 0);
	}
	return product;
}

/* x^(8 * length), by squaring. */
static uint32_t shift_of(size_t length)
{
	uint32_t shift = CRC_ONE;

	for (uint32_t square = CRC_X_TO_8; length; length >>= 1) {
		if (length & 1)
			shift = multiply(shift, square);
		square = multiply(square, square);
	}
	return shift;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t length_b)
{
	return multiply(shift_of(length_b), crc_a) ^ crc_b;
}

void crc32c_shift_init(struct crc32c_shift *shift, size_t length_b)
{
	uint32_t factor = shift_of(length_b);

	for (unsigned bit = 0; bit < 32; bit++)
		shift->column[bit] = multiply(factor, 1u << bit);
}

uint32_t crc32c_shift_combine(const struct crc32c_shift *shift, uint32_t crc_a, uint32_t crc_b)
{
	uint32_t sum = crc_b;

	/* Without branches: the bits of a sum are random. */
	for (unsigned bit = 0; bit < 32; bit++)
		sum ^= shift->column[bit] & -(crc_a >> bit & 1);
	return sum;
}
