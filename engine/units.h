/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities as people write them: a whole number and a unit, both mandatory ("64KiB", "10ms",
 * "25Gbit/s"). What is parsed can be formatted back to the same quantity. */
#ifndef CASEMATE_UNITS_H
#define CASEMATE_UNITS_H

#include "core/base.h"

enum units {
	UNITS_SIZE,	/* bytes:            B KiB MiB GiB TiB */
	UNITS_DURATION, /* nanoseconds:      ns us ms s min h */
	UNITS_RATE,	/* bytes per second: kbit/s Mbit/s Gbit/s */
};
enum { UNITS_TEXT_BYTES = 32 };

/* 0, or -EINVAL with the reason in why (static text or formatted into it). */
int units_parse(enum units, const char *text, uint64_t *value, char *why, size_t why_bytes);
/* In the largest unit that divides the value. */
void units_format(enum units, uint64_t value, char text[UNITS_TEXT_BYTES]);

/* A whole decimal number without sign, prefix or leading zeros; *end is the first byte after it.
 * 0, -EINVAL when there is none, -ERANGE when it exceeds 64 bits. */
int units_number(const char *text, uint64_t *value, const char **end);

#endif
