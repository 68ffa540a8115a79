/* SPDX-License-Identifier: Apache-2.0 */
/* One scalar of the configuration: from its text to the C member, and back to what `config show`
 * prints. Text that names no secret but may be one is never repeated in a reason. */
#include "config_schema.h"
#include "config_report.h"
#include "units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

struct config_text {
	struct config_text *next;
	char text[];
};

const char *config_text_keep(struct config *config, const char *text)
{
	size_t length = strlen(text);
	struct config_text *kept = malloc(sizeof *kept + length + 1);
	if (!kept)
		return NULL;
	memcpy(kept->text, text, length + 1);
	kept->next = config->texts;
	config->texts = kept;
	return kept->text;
}

void config_free(struct config *config)
{
	while (config && config->texts) {
		struct config_text *next = config->texts->next;
		free(config->texts);
		config->texts = next;
	}
	free(config);
}

uint8_t config_site_index(const struct config *config, const char *name)
{
	for (unsigned i = 0; i < config->site_count; i++)
		if (config->site[i].name && strcmp(config->site[i].name, name) == 0)
			return (uint8_t)i;
	return SITE_UNKNOWN;
}

__attribute__((format(printf, 2, 3))) static int refuse(char why[FIELD_WHY_BYTES],
							const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why, FIELD_WHY_BYTES, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

static uint64_t integer_get(const void *value, size_t bytes)
{
	uint64_t number = 0; /* little endian, see base.h */
	memcpy(&number, value, bytes);
	return number;
}

static int number_parse(const struct field *field, const char *text, void *value,
			char why[FIELD_WHY_BYTES])
{
	uint64_t number = 0;
	const char *end = "";
	if (field->type == FIELD_CPU && strcmp(text, "any") == 0) {
		number = CONFIG_CPU_ANY;
	} else if (field->type == FIELD_COUNT || field->type == FIELD_CPU) {
		if (units_number(text, &number, &end) || *end)
			return refuse(why, "\"%.64s\" is not a whole number", text);
		if (number < field->least || number > field->most)
			return refuse(why, "%.32s is not within %llu to %llu", text,
				      (unsigned long long)field->least,
				      (unsigned long long)field->most);
	} else if (field->type == FIELD_SIZE) {
		char least[UNITS_TEXT_BYTES], most[UNITS_TEXT_BYTES];
		if (units_parse(UNITS_SIZE, text, &number, why, FIELD_WHY_BYTES))
			return -EINVAL;
		units_format(UNITS_SIZE, field->least, least);
		units_format(UNITS_SIZE, field->most, most);
		if (number < field->least || number > field->most)
			return refuse(why, "%.32s is not within %s to %s", text, least, most);
	} else if (strcmp(text, "auto") == 0) {
		return refuse(why,
			      "auto comes with a later release; give a rate, or none for no limit");
	} else if (strcmp(text, "none") != 0) {
		if (units_parse(UNITS_RATE, text, &number, why, FIELD_WHY_BYTES))
			return -EINVAL;
		if (!number)
			return refuse(why, "a rate of 0 carries nothing; none means no limit");
	}
	memcpy(value, &number, field->bytes);
	return 0;
}

static int choice_parse(const struct field *field, const char *text, void *value,
			char why[FIELD_WHY_BYTES])
{
	const char *words[8];
	unsigned count = 0;
	char list[128] = "";
	for (const struct field_choice *c = field->choice; c->word; c++) {
		uint8_t index = (uint8_t)(c - field->choice);
		if (strcmp(c->word, text) == 0 && c->later)
			return refuse(why, "%s comes with a later release; %s", text, c->later);
		if (strcmp(c->word, text) == 0) {
			memcpy(value, &index, sizeof index);
			return 0;
		}
		if (c->later)
			continue;
		must(count + 1 < ARRAY_COUNT(words), "a choice has fewer words than this");
		words[count++] = c->word;
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "",
			 c->word);
	}
	words[count] = NULL;
	const char *near = report_nearest(text, words);
	if (near)
		return refuse(why, "\"%.64s\" is not one of %s; did you mean \"%s\"?", text, list,
			      near);
	return refuse(why, "\"%.64s\" is not one of %s", text, list);
}

static int site_parse(const char *text, const struct config *config, void *value,
		      char why[FIELD_WHY_BYTES])
{
	const char *names[CONFIG_SITES + 1] = {NULL};
	uint8_t index = config_site_index(config, text);
	memcpy(value, &index, sizeof index);
	if (index != SITE_UNKNOWN)
		return 0;
	for (unsigned i = 0, count = 0; i < config->site_count; i++)
		if (config->site[i].name)
			names[count++] = config->site[i].name;
	const char *near = report_nearest(text, names);
	if (near)
		return refuse(why, "no site has the name \"%.64s\"; did you mean \"%s\"?", text,
			      near);
	return refuse(why, "no site has the name \"%.64s\"", text);
}

static bool name_valid(const char *text)
{
	const char *letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t length = strlen(text);
	for (size_t i = 0; i < length; i++)
		if (!strchr(letters, text[i]) && (i == 0 || !strchr("-_.", text[i])))
			return false;
	return length > 0 && length < NAME_BYTES_MAX;
}

/* SHA-256 as "SHA256:" and base64, of which the padding may be left out. */
static bool pin_valid(const char *text)
{
	size_t length = strlen(text), digits;
	if (strncmp(text, "SHA256:", 7) != 0)
		return false;
	digits = strspn(text + 7,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
	return digits == 43 && (length == 50 || strcmp(text + 50, "=") == 0);
}

static bool uri_valid(const char *text)
{
	if (strncmp(text, "file:", 5) == 0)
		return text[5] == '/';
	return strncmp(text, "credential:", 11) == 0 && text[11] && !strchr(text + 11, '/');
}

static int text_parse(const struct field *field, const char *text, struct config *config,
		      const char **value, char why[FIELD_WHY_BYTES])
{
	if (field->type == FIELD_NAME && !name_valid(text))
		return refuse(
			why,
			"\"%.64s\" is not a name: up to %u letters, digits, - _ . and a letter "
			"or digit first",
			text, NAME_BYTES_MAX - 1);
	if (field->type == FIELD_PATH && *text != '/')
		return refuse(why, "\"%.64s\" is not an absolute path", text);
	if (field->type == FIELD_PIN && !pin_valid(text))
		return refuse(why, "not a fingerprint as casemate cert init prints it "
				   "(SHA256:...)");
	if (field->type == FIELD_URI && !uri_valid(text))
		return refuse(why, "a secret is named, never written here: \"file:/path\" or "
				   "\"credential:name\"");
	*value = config_text_keep(config, text);
	return *value ? 0 : refuse(why, "out of memory");
}

static int ip_parse(const char *text, uint32_t *ip, char why[FIELD_WHY_BYTES])
{
	struct in_addr address;
	if (inet_pton(AF_INET, text, &address) != 1)
		return refuse(why, "\"%.64s\" is not an IPv4 address", text);
	uint32_t number = ntohl(address.s_addr);
	if (number >> 24 == 0 || number >> 24 == 127 || number >> 28 >= 14)
		return refuse(why, "%s cannot be the address of a port", text);
	*ip = number;
	return 0;
}

static int address_parse(const char *text, struct config_address *address,
			 char why[FIELD_WHY_BYTES])
{
	char ip[32];
	const char *slash = strchr(text, '/'), *end;
	uint64_t length = 0;
	if (!slash || slash - text >= (ptrdiff_t)sizeof ip ||
	    units_number(slash + 1, &length, &end) || *end || length < 1 || length > 31)
		return refuse(why,
			      "\"%.64s\" is not an address with a prefix, such as 10.77.0.1/24",
			      text);
	snprintf(ip, sizeof ip, "%.*s", (int)(slash - text), text);
	uint32_t number = 0, host_mask = 0xffffffffu >> length;
	if (ip_parse(ip, &number, why))
		return -EINVAL;
	uint32_t host = number & host_mask;
	if (length < 31 && (host == 0 || host == host_mask))
		return refuse(why, "%s is the address of the network, not of a port in it", text);
	*address = (struct config_address){number, (uint8_t)length};
	return 0;
}

static int listen_parse(const char *text, struct config *config, struct config_listen *listen,
			char why[FIELD_WHY_BYTES])
{
	struct in_addr address;
	char ip[32];
	uint64_t port = 0;
	const char *end;
	if (strncmp(text, "unix:/", 6) == 0) {
		if (strlen(text + 5) > 107)
			return refuse(why, "the path of a socket has at most 107 bytes");
		listen->unix_path = config_text_keep(config, text + 5);
		return listen->unix_path ? 0 : refuse(why, "out of memory");
	}
	const char *colon = strrchr(text, ':');
	if (strncmp(text, "tcp:", 4) != 0 || colon < text + 4)
		return refuse(why, "\"%.64s\" is neither unix:/path nor tcp:address:port", text);
	snprintf(ip, sizeof ip, "%.*s", (int)(colon - text - 4), text + 4);
	if (inet_pton(AF_INET, ip, &address) != 1 || units_number(colon + 1, &port, &end) || *end ||
	    port < 1 || port > 65535)
		return refuse(why, "\"%.64s\" is not tcp:address:port with an IPv4 address", text);
	listen->ip = ntohl(address.s_addr);
	listen->port = (uint16_t)port;
	return 0;
}

int field_parse(const struct field *field, const char *text, struct config *config, void *value,
		char why[FIELD_WHY_BYTES])
{
	switch (field->type) {
	case FIELD_COUNT:
	case FIELD_CPU:
	case FIELD_SIZE:
	case FIELD_RATE:
		return number_parse(field, text, value, why);
	case FIELD_CHOICE:
		return choice_parse(field, text, value, why);
	case FIELD_SITE:
		return site_parse(text, config, value, why);
	case FIELD_IP:
		return ip_parse(text, value, why);
	case FIELD_ADDRESS:
		return address_parse(text, value, why);
	case FIELD_LISTEN:
		return listen_parse(text, config, value, why);
	case FIELD_NAME:
	case FIELD_TEXT:
	case FIELD_PATH:
	case FIELD_URI:
	case FIELD_PIN:
		return text_parse(field, text, config, value, why);
	case FIELD_MAP:
		break;
	}
	must(false, "a map is no scalar");
	return -EINVAL;
}

static json_t *ip_json(uint32_t ip, const char *before, const char *after)
{
	return json_sprintf("%s%u.%u.%u.%u%s", before, ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
			    ip & 255, after);
}

json_t *field_json(const struct field *field, const struct config *config, const void *value)
{
	char quantity[UNITS_TEXT_BYTES];
	const struct config_address *address = value;
	const struct config_listen *listen = value;
	const char *text;
	uint32_t ip;
	switch (field->type) {
	case FIELD_CPU:
		if (integer_get(value, field->bytes) == CONFIG_CPU_ANY)
			return json_string("any");
		return json_integer((json_int_t)integer_get(value, field->bytes));
	case FIELD_COUNT:
		return json_integer((json_int_t)integer_get(value, field->bytes));
	case FIELD_SIZE:
		units_format(UNITS_SIZE, integer_get(value, field->bytes), quantity);
		return json_string(quantity);
	case FIELD_RATE:
		units_format(UNITS_RATE, integer_get(value, field->bytes), quantity);
		return json_string(integer_get(value, field->bytes) ? quantity : "none");
	case FIELD_CHOICE:
		return json_string(field->choice[integer_get(value, 1)].word);
	case FIELD_SITE:
		return json_string(config->site[*(const uint8_t *)value].name);
	case FIELD_IP:
		memcpy(&ip, value, sizeof ip);
		return ip ? ip_json(ip, "", "") : NULL;
	case FIELD_ADDRESS:
		snprintf(quantity, sizeof quantity, "/%u", address->prefix_length);
		return ip_json(address->ip, "", quantity);
	case FIELD_LISTEN:
		snprintf(quantity, sizeof quantity, ":%u", listen->port);
		return listen->unix_path ? json_sprintf("unix:%s", listen->unix_path)
					 : ip_json(listen->ip, "tcp:", quantity);
	case FIELD_NAME:
	case FIELD_TEXT:
	case FIELD_PATH:
	case FIELD_URI:
	case FIELD_PIN:
		memcpy(&text, value, sizeof text);
		return text ? json_string(text) : NULL;
	case FIELD_MAP:
		break;
	}
	must(false, "a map is no scalar");
	return NULL;
}
