/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of ISA-L, which picks its own code for the CPU. The default where there is no GFNI. */
#include "stripe_kernel.h"

#include <isa-l/erasure_code.h>
#include <limits.h>

static bool isal_available(void)
{
	return true;
}

/* ISA-L's prototypes lack const throughout; neither call writes what is cast here. */
static void isal_prepare(struct stripe_code *code, const uint8_t *coefficient)
{
	ec_init_tables((int)code->k, (int)code->rows, (uint8_t *)coefficient, code->table);
}

static void isal_multiply(const struct stripe_code *code, uint8_t *const in[], uint8_t *const out[],
			  size_t length)
{
	must(length <= INT_MAX, "ISA-L counts bytes in int");
	ec_encode_data((int)length, (int)code->k, (int)code->rows, (uint8_t *)code->table,
		       (uint8_t **)in, (uint8_t **)out);
}

const struct stripe_multiplier stripe_isal = {
	.name = "isal",
	.available = isal_available,
	.prepare = isal_prepare,
	.multiply = isal_multiply,
};
