/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L, long runs by a kernel of our own where the
 * CPU has what it needs, with a plain-C twin, and the combination of two sums, so that the sum of a
 * block follows from those of its shards without another pass. */
#ifndef CASEMATE_CORE_CRC_H
#define CASEMATE_CORE_CRC_H

#include "base.h"

/* The finished sum of the bytes (initial value and final inversion inside). */
uint32_t crc32c(const void *bytes, size_t length);
/* The finished sum of a || b, given that of a, and the bytes of b. */
uint32_t crc32c_more(uint32_t crc_a, const void *bytes, size_t length);
/* The finished sum of a || b, given both finished sums and the length of b. O(log length). */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t length_b);

/* The operator "append length_b bytes", worked out once for shards of one size. */
struct crc32c_shift {
	uint32_t column[32];
};
void crc32c_shift_init(struct crc32c_shift *, size_t length_b);
uint32_t crc32c_shift_combine(const struct crc32c_shift *, uint32_t crc_a, uint32_t crc_b);

/* The plain-C twin, same result; for tests. */
uint32_t crc32c_more_plain(uint32_t crc_a, const void *bytes, size_t length);

#endif
