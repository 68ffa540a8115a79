/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C at the speed of two units at once. A carry-less multiplier folds one part of a block
 * (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", Intel 2009) while
 * the crc32 instruction sums another in three streams, so that its latency is hidden. ISA-L uses
 * the one or the other.
 *
 * A block is 200 bytes for each turn: first all that is folded (128 bytes a turn), then the three
 * streams (24 bytes a turn each) one behind the other. All parts begin with a state of zero and are
 * moved to their place in the end by one multiplication each; so does the state that came in, and a
 * block need not wait for the one before. Bits are reflected: the lowest bit of the first byte has
 * the highest power. */
#include "crc_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2")))

enum {
	FOLDED_BYTES = 128, /* of a turn */
	STREAM_BYTES = 24,
	STREAMS = 3,
	TURN_BYTES = FOLDED_BYTES + STREAMS * STREAM_BYTES,
	LANES = 4, /* accumulators of 32 bytes */
};

bool crc_fold_available(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq") &&
	       __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.2");
}

/* Powers of x modulo the polynomial, reflected. To move a sum of 32 bits over b bytes takes
 * x^(8b - 33): the product of two reflected numbers is short of one power, and crc32 adds 32. */
struct block {
	unsigned turns;
	uint32_t whole, streams, two, one; /* over the block; 3, 2 and 1 streams */
};
static const struct block blocks[] = {
	{40, 0xe12e0a15, 0x465a4eee, 0xf48642e9, 0x3771e98f},
	{10, 0xa563905d, 0x8227bb8a, 0xb3e32c28, 0x299847d5},
};

/* To move 128 bits by d bits takes x^(d + 63) for the lower half, which has the higher powers, and
 * x^(d - 1) for the upper one; both stand in the upper half of 64 bits. */
static const uint32_t by_turn[2] = {0x6577b245, 0x7417153f}, by_lane[2] = {0x33ccbbbc, 0xa2158b34},
		      by_half[2] = {0x3743f7bd, 0x3171d430};

TARGET static inline __m256i factors(const uint32_t power[2])
{
	return _mm256_set_epi32((int)power[1], 0, (int)power[0], 0, (int)power[1], 0, (int)power[0],
				0);
}

TARGET static inline __m256i fold(__m256i lane, __m256i factor, __m256i next)
{
	__m256i lower = _mm256_clmulepi64_epi128(lane, factor, 0x00);
	__m256i upper = _mm256_clmulepi64_epi128(lane, factor, 0x11);
	return _mm256_xor_si256(_mm256_xor_si256(lower, upper), next);
}

TARGET static inline __m256i load(const uint8_t *bytes)
{
	return _mm256_loadu_si256((const __m256i *)(const void *)bytes);
}

/* The four lanes as the sum of the bytes that they stand for. */
TARGET static inline uint64_t lanes_sum(const __m256i lane[LANES])
{
	__m256i near = factors(by_lane);
	__m256i all = fold(fold(fold(lane[0], near, lane[1]), near, lane[2]), near, lane[3]);
	__m128i first = _mm256_castsi256_si128(all), last = _mm256_extracti128_si256(all, 1);
	__m128i half = _mm256_castsi256_si128(factors(by_half));
	last = _mm_xor_si128(last, _mm_clmulepi64_si128(first, half, 0x00));
	last = _mm_xor_si128(last, _mm_clmulepi64_si128(first, half, 0x11));
	uint64_t sum = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last));
	return _mm_crc32_u64(sum, (uint64_t)_mm_extract_epi64(last, 1));
}

TARGET static inline __m128i moved(uint64_t sum, uint32_t power)
{
	return _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)sum),
				    _mm_cvtsi32_si128((int)power), 0x00);
}

TARGET static uint32_t block_sum(const struct block *block, uint32_t state, const uint8_t *bytes)
{
	const uint8_t *folded = bytes, *stream = bytes + block->turns * (size_t)FOLDED_BYTES;
	size_t apart = block->turns * (size_t)STREAM_BYTES;
	__m256i lane[LANES], far = factors(by_turn);
	uint64_t a = 0, b = 0, c = 0;

	for (unsigned i = 0; i < LANES; i++)
		lane[i] = _mm256_setzero_si256();
	for (unsigned turn = 0; turn < block->turns; turn++) {
		for (unsigned i = 0; i < LANES; i++)
			lane[i] = fold(lane[i], far, load(folded + i * sizeof lane[i]));
		for (unsigned i = 0; i < STREAM_BYTES; i += 8) {
			a = _mm_crc32_u64(a, get_u64(stream + i));
			b = _mm_crc32_u64(b, get_u64(stream + apart + i));
			c = _mm_crc32_u64(c, get_u64(stream + 2 * apart + i));
		}
		folded += FOLDED_BYTES;
		stream += STREAM_BYTES;
	}
	__m128i sum = _mm_xor_si128(moved(lanes_sum(lane), block->streams), moved(a, block->two));
	sum = _mm_xor_si128(_mm_xor_si128(sum, moved(b, block->one)), moved(state, block->whole));
	return (uint32_t)(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(sum)) ^ c);
}

size_t crc_fold(uint32_t *state, const uint8_t *bytes, size_t length)
{
	size_t at = 0;

	for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
		size_t block_bytes = blocks[i].turns * (size_t)TURN_BYTES;
		for (; length - at >= block_bytes; at += block_bytes)
			*state = block_sum(&blocks[i], *state, bytes + at);
	}
	return at;
}

#else

bool crc_fold_available(void)
{
	return false;
}

size_t crc_fold(uint32_t *state, const uint8_t *bytes, size_t length)
{
	return 0;
}

#endif
