/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of the NBD stream, written as words, for the tests of the front. One word is a magic, a
 * number of a given width, text, or zeroes. */
#ifndef CASEMATE_TESTS_NBD_SCRIPT_H
#define CASEMATE_TESTS_NBD_SCRIPT_H

#include "front/nbd_protocol.h"

#include <stdlib.h>

/* O R Q S C: magic of an option, its reply, a request, a simple reply, a chunk.
 * w d q: 16, 32, 64 bits. e: 32 bits with bit 31 set (an error reply). z: so many zero bytes.
 * 'text: the text itself, "_" for a blank. A missing "*" is the caller's: see script_matches. */
static inline size_t script_word(const char *word, size_t length, uint8_t *out)
{
	uint64_t number = strtoull(word + 1, NULL, 0);

	switch (word[0]) {
	case 'O':
		put_be64(out, NBD_OPTION_MAGIC);
		return 8;
	case 'R':
		put_be64(out, NBD_OPTION_REPLY_MAGIC);
		return 8;
	case 'Q':
		put_be32(out, NBD_REQUEST_MAGIC);
		return 4;
	case 'S':
		put_be32(out, NBD_SIMPLE_REPLY_MAGIC);
		return 4;
	case 'C':
		put_be32(out, NBD_STRUCTURED_REPLY_MAGIC);
		return 4;
	case 'w':
		put_be16(out, (uint16_t)number);
		return 2;
	case 'd':
		put_be32(out, (uint32_t)number);
		return 4;
	case 'e':
		put_be32(out, (uint32_t)number | 0x80000000u);
		return 4;
	case 'q':
		put_be64(out, number);
		return 8;
	case 'z':
		memset(out, 0, number);
		return number;
	case '\'':
		for (size_t i = 1; i < length; i++)
			out[i - 1] = word[i] == '_' ? ' ' : (uint8_t)word[i];
		return length - 1;
	default:
		abort();
	}
}

static inline size_t script_bytes(const char *script, uint8_t *out)
{
	size_t count = 0;

	for (const char *p = script + strspn(script, " "); *p; p += strspn(p, " ")) {
		size_t length = strcspn(p, " ");
		count += script_word(p, length, out + count);
		p += length;
	}
	return count;
}

/* Whether the bytes are exactly those of the script, where "*" stands for a 32-bit length and a
 * text of that length. */
static inline bool script_matches(const char *script, const uint8_t *bytes, size_t length)
{
	size_t at = 0;
	uint8_t expected[8192];

	for (const char *p = script + strspn(script, " "); *p; p += strspn(p, " ")) {
		size_t word = strcspn(p, " ");
		if (*p == '*') {
			if (length - at < 4 || get_be32(bytes + at) == 0 ||
			    length - at - 4 < get_be32(bytes + at))
				return false;
			at += 4 + get_be32(bytes + at);
		} else {
			size_t count = script_word(p, word, expected);
			if (length - at < count || memcmp(bytes + at, expected, count) != 0)
				return false;
			at += count;
		}
		p += word;
	}
	return at == length;
}

#endif
