/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes for tests: from hex, at random with a seed that can be told, and compared with a name.
 * Include it after cmocka.h. */
#ifndef CASEMATE_TESTS_BYTES_H
#define CASEMATE_TESTS_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of a hex string; returns how many. */
static inline size_t bytes_from_hex(const char *hex, uint8_t *out, size_t room)
{
	size_t length = strlen(hex) / 2;
	assert_true(strlen(hex) % 2 == 0 && length <= room);
	for (size_t i = 0; i < length; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
		char *end;
		out[i] = (uint8_t)strtoul(digits, &end, 16);
		assert_true(*end == 0);
	}
	return length;
}

/* xorshift64*: enough for test data, the same on every machine. */
static inline uint64_t bytes_next(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * 0x2545f4914f6cdd1dull;
}

static inline void bytes_random(uint64_t *seed, void *out, size_t length)
{
	uint8_t *p = out;
	for (size_t i = 0; i < length; i++)
		p[i] = (uint8_t)(bytes_next(seed) >> 56);
}

static inline int bytes_are_zero(const void *memory, size_t length)
{
	const uint8_t *p = memory;
	for (size_t i = 0; i < length; i++)
		if (p[i])
			return 0;
	return 1;
}

#endif
