/* SPDX-License-Identifier: Apache-2.0 */
/* The effective configuration as JSON and as the YAML file that would give it, and the commented
 * example: a small configuration shown with the schema's own sentences. */
#include "config.h"
#include "config_schema.h"

#include <errno.h>

/* ---- to JSON, by the schema ---- */

static json_t *map_json(const struct config *, const struct field_table *, const void *base);

static json_t *one_json(const struct config *config, const struct field *field, const void *value)
{
	return field->table ? map_json(config, field->table, value)
			    : field_json(field, config, value);
}

static json_t *value_json(const struct config *config, const struct field *field, const void *value,
			  unsigned count)
{
	if (!field->list_max)
		return one_json(config, field, value);
	json_t *list = json_array();
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(
			list, one_json(config, field,
				       (const char *)value + i * (field->bytes / field->list_max)));
	return list;
}

static unsigned count_at(const struct field *field, const void *base, unsigned site)
{
	const char *place = (const char *)base + field->count_offset + site * sizeof(unsigned);
	unsigned count = 0;
	if (field->list_max)
		memcpy(&count, place, sizeof count);
	return count;
}

/* A map from site to value, without the sites that have none; NULL when no site has one. */
static json_t *sites_json(const struct config *config, const struct field *field, const void *base)
{
	json_t *map = json_object();
	for (unsigned site = 0; site < config->site_count; site++) {
		const char *value = (const char *)base + field->offset + site * field->bytes;
		unsigned count = count_at(field, base, site);
		if (field->list_max && !count)
			continue;
		json_t *item = value_json(config, field, value, count);
		if (item)
			json_object_set_new(map, config->site[site].name, item);
	}
	if (json_object_size(map))
		return map;
	json_decref(map);
	return NULL;
}

static json_t *map_json(const struct config *config, const struct field_table *table,
			const void *base)
{
	json_t *map = json_object();
	for (unsigned i = 0; i < table->count; i++) {
		const struct field *field = &table->field[i];
		const void *value = (const char *)base + field->offset;
		json_t *item;
		if (field->sites != SITES_NO)
			item = sites_json(config, field, base);
		else
			item = value_json(config, field, value, count_at(field, base, 0));
		if (item && field->sites == SITES_AS_KEYS) {
			json_object_update(map, item);
			json_decref(item);
		} else if (item) {
			json_object_set_new(map, field->key, item);
		}
	}
	return map;
}

json_t *config_json(const struct config *config)
{
	return map_json(config, &config_schema, config);
}

/* ---- to YAML, by the JSON ---- */

struct printer {
	FILE *out;
	bool comments;
	const struct config *config;
};

static void print_indent(const struct printer *printer, unsigned depth)
{
	fprintf(printer->out, "%*s", (int)depth * 2, "");
}

enum { COMMENT_COLUMNS = 88, COMMENT_BYTES_MAX = 320 };

static void print_comment(const struct printer *printer, const struct field *field, unsigned depth)
{
	char text[COMMENT_BYTES_MAX];
	int length = snprintf(text, sizeof text, "%s%s%s%s", field->help,
			      field->preset ? " (default: " : "",
			      field->preset ? field->preset : "", field->preset ? ")" : "");
	must(length > 0 && length < COMMENT_BYTES_MAX, "every sentence of the schema fits");
	for (char *line = text; *line;) {
		size_t taken = strlen(line), room = COMMENT_COLUMNS - depth * 2;
		for (taken = taken > room ? room : taken; line[taken] && line[taken] != ' ';)
			taken--;
		print_indent(printer, depth);
		fprintf(printer->out, "# %.*s\n", (int)taken, line);
		line += taken + (line[taken] == ' ');
	}
}

/* Plain where no reader could take it for anything else. */
static bool text_is_plain(const char *text)
{
	const char *letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/";
	return *text && strchr(letters, *text) &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/"
			    "._+-") == strlen(text);
}

static void print_scalar(const struct printer *printer, const json_t *value)
{
	if (json_is_integer(value))
		fprintf(printer->out, "%lld\n", (long long)json_integer_value(value));
	else if (text_is_plain(json_string_value(value)))
		fprintf(printer->out, "%s\n", json_string_value(value));
	else {
		/* JSON strings are YAML's double-quoted scalars. */
		json_dumpf(value, printer->out, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
		fputc('\n', printer->out);
	}
}

static void print_map(const struct printer *, const json_t *, const struct field_table *,
		      unsigned depth, bool dash);

/* The first key of a list's item stands behind its dash. */
static void print_key(const struct printer *printer, const char *key, unsigned depth, bool dash)
{
	print_indent(printer, dash ? depth - 1 : depth);
	fprintf(printer->out, "%s%s:", dash ? "- " : "", key);
}

static void print_list(const struct printer *printer, const json_t *list, const struct field *field,
		       unsigned depth)
{
	struct printer once = *printer;
	size_t index;
	json_t *item;
	json_array_foreach(list, index, item)
	{
		if (json_is_object(item)) {
			print_map(&once, item, field->table, depth + 1, true);
		} else {
			print_indent(printer, depth);
			fputs("- ", printer->out);
			print_scalar(printer, item);
		}
		once.comments = false; /* each key is explained once */
	}
}

/* After "key:". */
static void print_value(const struct printer *printer, const json_t *value,
			const struct field *field, unsigned depth)
{
	const char *site;
	json_t *item;
	if (json_is_array(value) && !json_array_size(value)) {
		fputs(" []\n", printer->out);
	} else if (json_is_array(value)) {
		fputc('\n', printer->out);
		print_list(printer, value, field, depth + 1);
	} else if (!json_is_object(value)) {
		fputc(' ', printer->out);
		print_scalar(printer, value);
	} else if (field->table) {
		fputc('\n', printer->out);
		print_map(printer, value, field->table, depth + 1, false);
	} else {
		fputc('\n', printer->out);
		json_object_foreach((json_t *)value, site, item)
		{
			print_key(printer, site, depth + 1, false);
			print_value(printer, item, field, depth + 1);
		}
	}
}

static void print_ends(const struct printer *printer, const json_t *map, const struct field *field,
		       unsigned depth, bool dash)
{
	struct printer once = *printer;
	for (unsigned site = 0; site < printer->config->site_count; site++) {
		const char *name = printer->config->site[site].name;
		print_key(printer, name, depth, dash && site == 0);
		print_value(&once, json_object_get(map, name), field, depth);
		once.comments = false;
	}
}

/* In the order of the table, whatever the order of the JSON. */
static void print_map(const struct printer *printer, const json_t *map,
		      const struct field_table *table, unsigned depth, bool dash)
{
	for (unsigned i = 0; i < table->count; i++) {
		const struct field *field = &table->field[i];
		const json_t *value = json_object_get(map, field->key);
		bool as_keys = field->sites == SITES_AS_KEYS;
		bool sample = !value && !as_keys && printer->comments && field->sample;
		if (!value && !as_keys && !sample)
			continue;
		if (printer->comments)
			print_comment(printer, field, dash ? depth - 1 : depth);
		if (sample) {
			print_indent(printer, depth);
			fprintf(printer->out, "# %s: %s\n", field->key, field->sample);
			continue;
		}
		if (as_keys) {
			print_ends(printer, map, field, depth, dash);
		} else {
			print_key(printer, field->key, depth, dash);
			print_value(printer, value, field, depth);
		}
		dash = false;
	}
}

int config_show(const struct config *config, bool comments, FILE *out)
{
	struct printer printer = {out, comments, config};
	json_t *json = config_json(config);
	if (!json)
		return -ENOMEM;
	print_map(&printer, json, &config_schema, 0, false);
	json_decref(json);
	return 0;
}

/* ---- the example ---- */

static const char example_text[] =
	"version: 1\n"
	"node: a\n"
	"sites:\n"
	"  - {name: a, certificate: /etc/casemate/a.pem, key: \"file:/etc/casemate/a.key\",\n"
	"     ca: /etc/casemate/ca.pem,\n"
	"     pins: "
	"[\"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"],\n"
	"     control: /run/casemate/casemate.sock,\n"
	"     nbd: [\"unix:/run/casemate/nbd.sock\", \"tcp:127.0.0.1:10809\"],\n"
	"     state: /var/lib/casemate}\n"
	"  - {name: b, certificate: /etc/casemate/b.pem, key: \"file:/etc/casemate/b.key\",\n"
	"     ca: /etc/casemate/ca.pem,\n"
	"     pins: "
	"[\"SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA\"],\n"
	"     control: /run/casemate/casemate.sock,\n"
	"     nbd: [\"unix:/run/casemate/nbd.sock\"], state: /var/lib/casemate}\n"
	"link:\n"
	"  paths:\n"
	"    - a: {device: \"0000:3b:00.0\", address: 10.77.0.1/24}\n"
	"      b: {device: \"0000:3b:00.0\", address: 10.77.0.2/24}\n"
	"      mtu: 9000\n"
	"      rate: 10Gbit/s\n"
	"    - a: {device: \"0000:3b:00.1\", address: 10.78.1.1/24, gateway: 10.78.1.254}\n"
	"      b: {device: \"0000:3b:00.1\", address: 10.78.2.1/24, gateway: 10.78.2.254}\n"
	"      mtu: 9000\n"
	"      rate: 10Gbit/s\n"
	"groups:\n"
	"  - name: vol0\n"
	"    primary: a\n"
	"    vault: b\n"
	"    key: \"file:/etc/casemate/vol0.key\"\n"
	"    volumes:\n"
	"      - {name: vol0, size: 100GiB, device: {a: /srv/casemate/vol0.device}}\n"
	"    stores:\n"
	"      b: [/srv/casemate/0, /srv/casemate/1, /srv/casemate/2, /srv/casemate/3,\n"
	"          /srv/casemate/4, /srv/casemate/5]\n";

int config_example(FILE *out)
{
	struct config *config;
	struct config_source source = {"example", example_text, sizeof example_text - 1};
	if (config_parse(&config, &source, NULL, stderr))
		return -ENOMEM;
	fputs("# Configuration of casemate: one file, the same at both sites. Quantities need a "
	      "unit;\n# secrets are named by URI (\"file:/path\", \"credential:name\"), never "
	      "written here.\n# Check it by: casemate config check FILE\n\n",
	      out);
	int err = config_show(config, true, out);
	config_free(config);
	return err;
}
