/* SPDX-License-Identifier: Apache-2.0 */
/* Erasure coding: a row of k data columns gives m parity columns, and any k of the n give all back.
 * Systematic Cauchy matrix over GF(2^8), polynomial 0x11d (ISA-L gf_gen_cauchy1_matrix; Blomer et
 * al., "An XOR-Based Erasure-Resilient Coding Scheme", ICSI TR-95-048, 1995). Coding is bytewise,
 * so any byte range of all columns is a codeword of its own: a lost packet is repaired by the
 * packets beside it. */
#ifndef CASEMATE_CORE_STRIPE_H
#define CASEMATE_CORE_STRIPE_H

#include "base.h"

enum stripe_kernel {
	STRIPE_PLAIN, /* plain C, the reference */
	STRIPE_ISAL,  /* ISA-L's choice for this CPU */
	STRIPE_GFNI,  /* AVX-512 + GFNI; only where the CPU has both */
	STRIPE_KERNEL_COUNT
};

bool stripe_kernel_available(enum stripe_kernel);
const char *stripe_kernel_name(enum stripe_kernel);
enum stripe_kernel stripe_kernel_best(void);

/* One per lane and geometry; about 100 KiB; holds the coding tables and the cache of decode tables
 * (one per erasure mask, least recently used goes first). */
struct stripe;
size_t stripe_bytes(void);
/* memory: stripe_bytes(), 64-byte aligned, the caller's for life. 1 <= k <= 16, 0 <= m <= 8
 * (asserted). */
struct stripe *stripe_init(void *memory, struct geometry, enum stripe_kernel);

/* data: k pointers, parity: m pointers, each to length bytes, any alignment, no overlap. */
void stripe_encode(struct stripe *, uint8_t *const data[], uint8_t *const parity[], size_t length);

/* column: n pointers. present: bit i set when column[i] holds its bytes. want: bit i set for each
 * absent column to be written into column[i]; want and present are disjoint. Reads the first k
 * present columns. 0, or -EIO when fewer than k columns are present (nothing is written then). */
int stripe_rebuild(struct stripe *, uint8_t *const column[], uint32_t present, uint32_t want,
		   size_t length);

#endif
