/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of stripe share: each multiplies a matrix of constants with columns of bytes.
 * Coding and rebuilding are the same multiplication with another matrix. Inner header of stripe. */
#ifndef CASEMATE_CORE_STRIPE_KERNEL_H
#define CASEMATE_CORE_STRIPE_KERNEL_H

#include "base.h"

enum {
	/* At most m columns are ever missing while k are there, so 8 rows serve rebuilding too. */
	CODE_ROWS_MAX = PARITY_SHARDS_MAX,
	/* ISA-L needs 32 bytes per coefficient, GFNI 8. */
	CODE_COEFFICIENT_BYTES = 32,
};

/* A matrix of rows x k coefficients in the form that one kernel reads. */
struct stripe_code {
	unsigned rows;
	unsigned k;
	_Alignas(64) uint8_t table[CODE_ROWS_MAX * DATA_SHARDS_MAX * CODE_COEFFICIENT_BYTES];
};

struct stripe_multiplier {
	const char *name;
	bool (*available)(void);
	/* Fills code->table from rows x k coefficients, row by row; rows and k are set. */
	void (*prepare)(struct stripe_code *code, const uint8_t *coefficient);
	/* out[i][b] = sum over j of coefficient[i][j] * in[j][b], for each b below length. rows,
	 * k and length are above 0; in and out do not overlap. */
	void (*multiply)(const struct stripe_code *code, uint8_t *const in[], uint8_t *const out[],
			 size_t length);
};

extern const struct stripe_multiplier stripe_plain, stripe_isal, stripe_gfni;

/* Product in GF(2^8), polynomial 0x11d. */
uint8_t stripe_product(uint8_t a, uint8_t b);

#endif
