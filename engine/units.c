/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities: one table per kind, from the smallest unit to the largest. */
#include "units.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {{"B", 1},     {"KiB", KIB},	    {"MiB", MIB},
					 {"GiB", GIB}, {"TiB", 1024 * GIB}, {NULL, 0}};
static const struct unit duration_units[] = {
	{"ns", 1},	 {"us", NS_PER_US},	 {"ms", NS_PER_MS},
	{"s", NS_PER_S}, {"min", 60 * NS_PER_S}, {"h", 3600 * NS_PER_S},
	{NULL, 0}};
/* A rate counts decimal bits, as networks do; 8 kbit/s are 1,000 bytes per second. */
static const struct unit rate_units[] = {
	{"kbit/s", 125}, {"Mbit/s", 125000}, {"Gbit/s", 125000000}, {NULL, 0}};

static const struct {
	const struct unit *unit;
	const char *list, *example;
} kinds[] = {
	[UNITS_SIZE] = {size_units, "B, KiB, MiB, GiB, TiB", "64KiB"},
	[UNITS_DURATION] = {duration_units, "ns, us, ms, s, min, h", "10ms"},
	[UNITS_RATE] = {rate_units, "kbit/s, Mbit/s, Gbit/s", "25Gbit/s"},
};

int units_number(const char *text, uint64_t *value, const char **end)
{
	const char *p = text;
	uint64_t sum = 0;
	while (*p >= '0' && *p <= '9') {
		if (__builtin_mul_overflow(sum, 10, &sum) ||
		    __builtin_add_overflow(sum, (uint64_t)(*p - '0'), &sum))
			return -ERANGE;
		p++;
	}
	if (p == text || (*text == '0' && p - text > 1))
		return -EINVAL;
	*value = sum;
	*end = p;
	return 0;
}

/* The unit that was probably meant by "KB", "Kib", "gbit/s" or "G". */
static const char *unit_near(const struct unit *unit, const char *name)
{
	for (const struct unit *u = unit; u->name; u++)
		if (strcasecmp(u->name, name) == 0)
			return u->name;
	for (const struct unit *u = unit; u->name; u++)
		if (*name && u != unit && strncasecmp(u->name, name, 1) == 0)
			return u->name;
	return NULL;
}

int units_parse(enum units kind, const char *text, uint64_t *value, char *why, size_t why_bytes)
{
	const char *name;
	uint64_t number;
	int err = units_number(text, &number, &name);
	if (err == -ERANGE) {
		snprintf(why, why_bytes, "\"%s\" is too large", text);
		return -EINVAL;
	}
	if (err) {
		snprintf(why, why_bytes, "\"%s\" is not a whole number with a unit, such as %s",
			 text, kinds[kind].example);
		return -EINVAL;
	}
	for (const struct unit *u = kinds[kind].unit; u->name; u++) {
		if (strcmp(u->name, name) != 0)
			continue;
		if (!__builtin_mul_overflow(number, u->factor, value))
			return 0;
		snprintf(why, why_bytes, "\"%s\" is too large", text);
		return -EINVAL;
	}
	const char *near = unit_near(kinds[kind].unit, name);
	if (!*name)
		snprintf(why, why_bytes, "\"%s\" lacks a unit (%s)", text, kinds[kind].list);
	else if (near)
		snprintf(why, why_bytes, "unknown unit \"%s\"; did you mean \"%s\"?", name, near);
	else
		snprintf(why, why_bytes, "unknown unit \"%s\" (%s)", name, kinds[kind].list);
	return -EINVAL;
}

void units_format(enum units kind, uint64_t value, char text[UNITS_TEXT_BYTES])
{
	const struct unit *best = kinds[kind].unit;
	for (const struct unit *u = best; u->name && value; u++)
		if (value % u->factor == 0)
			best = u;
	snprintf(text, UNITS_TEXT_BYTES, "%llu%s", (unsigned long long)(value / best->factor),
		 best->name);
}
