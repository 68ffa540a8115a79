/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of virtual devices, as text. */
#include "device_argument.h"

#include <stdlib.h>

static bool copy(char *out, size_t out_bytes, const char *text, size_t length)
{
	if (length >= out_bytes)
		return false;
	memcpy(out, text, length);
	out[length] = '\0';
	return true;
}

bool device_argument(const char *arguments, const char *key, char *value, size_t value_bytes)
{
	size_t key_length = strlen(key);
	for (const char *at = arguments; at && *at;) {
		size_t length = strcspn(at, ",");
		if (length > key_length && at[key_length] == '=' && !memcmp(at, key, key_length))
			return copy(value, value_bytes, at + key_length + 1,
				    length - key_length - 1);
		at += length;
		at += *at == ',';
	}
	return false;
}

uint32_t device_argument_number(const char *arguments, const char *key, uint32_t otherwise)
{
	char text[16], *end;
	if (!device_argument(arguments, key, text, sizeof text))
		return otherwise;
	unsigned long value = strtoul(text, &end, 10);
	return end == text || *end || value > UINT32_MAX ? otherwise : (uint32_t)value;
}

bool device_name(const char *arguments, char *name, size_t name_bytes)
{
	return copy(name, name_bytes, arguments, strcspn(arguments, ","));
}
