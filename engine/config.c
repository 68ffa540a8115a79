/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration: YAML to a tree, the tree by the schema into struct config, then the
 * checks of how it fits together. All mistakes of all three are told at once. */
#include "config.h"
#include "config_report.h"
#include "config_schema.h"
#include "config_tree.h"

#include <errno.h>
#include <stdlib.h>

struct loading {
	struct config *config;
	struct report *report;
};

static struct report_place value_place(const struct tree *node, char path[REPORT_PATH_BYTES])
{
	tree_path(node, NULL, path);
	return (struct report_place){node->line, node->column, path};
}

static void complain_value(struct loading *loading, struct tree *node, const char *what)
{
	char path[REPORT_PATH_BYTES];
	if (!node->refused)
		report_add(loading->report, value_place(node, path), "%s", what);
	node->refused = true;
}

/* A key that is not there is missed where its map begins. */
static void complain_missing(struct loading *loading, const struct tree *map, const char *key)
{
	char path[REPORT_PATH_BYTES];
	tree_path(map, key, path);
	report_add(loading->report, (struct report_place){map->line, map->column, path}, "missing");
}

static void complain_unknown(struct loading *loading, const struct tree *node,
			     const struct field_table *table)
{
	const char *keys[TREE_KEYS_MAX + 1], *near;
	char path[REPORT_PATH_BYTES];
	unsigned count = 0;
	for (unsigned i = 0; i < table->count; i++)
		if (*table->field[i].key && !tree_child(node->parent, table->field[i].key))
			keys[count++] = table->field[i].key;
	keys[count] = NULL;
	near = report_nearest(node->key, keys);
	tree_path(node, NULL, path);
	report_add(loading->report, (struct report_place){node->key_line, node->key_column, path},
		   near ? "unknown key; did you mean \"%s\"?" : "unknown key", near);
}

static void apply_map(struct loading *, struct tree *, const struct field_table *, void *base);

static void apply_scalar(struct loading *loading, struct tree *node, const struct field *field,
			 void *value)
{
	char why[FIELD_WHY_BYTES];
	if (node->kind != TREE_SCALAR)
		complain_value(loading, node, "must be one value");
	else if (node->text && !*node->text)
		complain_value(loading, node, "needs a value");
	else if (node->text && field_parse(field, node->text, loading->config, value, why))
		complain_value(loading, node, why);
}

static void apply_one(struct loading *loading, struct tree *node, const struct field *field,
		      void *value)
{
	if (field->table)
		apply_map(loading, node, field->table, value);
	else
		apply_scalar(loading, node, field, value);
}

/* A value or a list of values. count: of the list. */
static void apply_value(struct loading *loading, struct tree *node, const struct field *field,
			void *value, unsigned *count)
{
	char what[64];
	if (!field->list_max) {
		apply_one(loading, node, field, value);
		return;
	}
	if (node->kind != TREE_LIST) {
		complain_value(loading, node, "must be a list");
		return;
	}
	if (!node->count && !field->list_optional)
		complain_value(loading, node, "needs at least one");
	for (struct tree *item = node->child; item; item = item->next) {
		if (*count == field->list_max) {
			snprintf(what, sizeof what, "more than %u", field->list_max);
			complain_value(loading, item, what);
			return;
		}
		/* Counted first: what is in it may refer to what came before. */
		void *place = (char *)value + *count * (field->bytes / field->list_max);
		++*count;
		apply_one(loading, item, field, place);
	}
}

static void complain_no_site(struct loading *loading, const struct tree *node)
{
	char path[REPORT_PATH_BYTES];
	tree_path(node, NULL, path);
	report_add(loading->report, (struct report_place){node->key_line, node->key_column, path},
		   "no site has the name \"%.64s\"", node->key);
}

static void apply_preset(struct loading *loading, const struct field *field, void *base)
{
	char why[FIELD_WHY_BYTES];
	unsigned values = field->sites == SITES_COMMON ? CONFIG_SITES : 1;
	for (unsigned i = 0; i < values; i++)
		must(!field_parse(field, field->preset, loading->config,
				  (char *)base + field->offset + i * field->bytes, why),
		     "a preset is a valid value");
}

static void apply_sites(struct loading *loading, struct tree *node, const struct field *field,
			void *base)
{
	char *value = (char *)base + field->offset;
	unsigned *count = (unsigned *)(void *)((char *)base + field->count_offset);
	if (field->sites == SITES_COMMON && node->kind == TREE_SCALAR) {
		for (unsigned site = 0; site < CONFIG_SITES; site++)
			apply_value(loading, node, field, value + site * field->bytes, NULL);
		return;
	}
	if (node->kind != TREE_MAP) {
		complain_value(loading, node, "must be a map from site to value");
		return;
	}
	/* For the site that it does not name. */
	if (field->sites == SITES_COMMON && field->preset)
		apply_preset(loading, field, base);
	for (struct tree *child = node->child; child; child = child->next) {
		uint8_t site = config_site_index(loading->config, child->key);
		if (site == SITE_UNKNOWN)
			complain_no_site(loading, child);
		else if (tree_child(node, child->key) == child)
			apply_value(loading, child, field, value + site * field->bytes,
				    &count[field->list_max ? site : 0]);
	}
}

/* The two ends of a path stand beside its other keys, each under the name of a site. */
static void apply_site_keys(struct loading *loading, struct tree *map, const struct field *field,
			    void *base)
{
	for (unsigned site = 0; site < loading->config->site_count; site++) {
		const char *name = loading->config->site[site].name;
		struct tree *child = name ? tree_child(map, name) : NULL;
		if (child)
			apply_one(loading, child, field,
				  (char *)base + field->offset + site * field->bytes);
		else if (name)
			complain_missing(loading, map, name);
	}
}

static void apply_field(struct loading *loading, struct tree *map, const struct field *field,
			void *base)
{
	char *value = (char *)base + field->offset;
	struct tree *node = map ? tree_child(map, field->key) : NULL;
	if (field->type == FIELD_SITE)
		*(uint8_t *)value = SITE_UNKNOWN;
	if (field->sites == SITES_AS_KEYS)
		apply_site_keys(loading, map, field, base);
	else if (!node && field->preset)
		apply_preset(loading, field, base);
	else if (!node && field->table && field->optional)
		apply_map(loading, NULL, field->table, value); /* presets of all that is in it */
	else if (!node && !field->optional && !field->list_optional)
		complain_missing(loading, map, field->key);
	else if (node && field->sites != SITES_NO)
		apply_sites(loading, node, field, base);
	else if (node)
		apply_value(loading, node, field, value,
			    (unsigned *)(void *)((char *)base + field->count_offset));
}

static bool key_known(const struct loading *loading, const struct field_table *table,
		      const char *key)
{
	for (unsigned i = 0; i < table->count; i++) {
		if (strcmp(table->field[i].key, key) == 0)
			return true;
		if (table->field[i].sites == SITES_AS_KEYS &&
		    config_site_index(loading->config, key) != SITE_UNKNOWN)
			return true;
	}
	return false;
}

static void apply_map(struct loading *loading, struct tree *node, const struct field_table *table,
		      void *base)
{
	if (node && node->kind != TREE_MAP) {
		complain_value(loading, node, "must be a map of keys and values");
		return;
	}
	for (struct tree *child = node ? node->child : NULL; child; child = child->next)
		if (!key_known(loading, table, child->key))
			complain_unknown(loading, child, table);
	for (unsigned i = 0; i < table->count; i++)
		apply_field(loading, node, &table->field[i], base);
}

/* Which site this host is: by the caller, else by the file. */
static void node_resolve(struct loading *loading, const struct tree *root, const char *node)
{
	struct config *config = loading->config;
	struct report_place place = {1, 1, "node"};
	bool any = node && !*node;
	if (node && *node) {
		config->node = config_text_keep(config, node);
	} else if (tree_child(root, "node")) {
		place.line = tree_child(root, "node")->line;
		place.column = tree_child(root, "node")->column;
	}
	if (!config->node) {
		/* A bad name was told already. */
		if (!any && !tree_child(root, "node"))
			report_add(loading->report, place,
				   "missing; name this site here or by --node");
		return;
	}
	uint8_t self = config_site_index(config, config->node);
	if (self == SITE_UNKNOWN)
		report_add(loading->report, place, "no site has the name \"%.64s\"", config->node);
	else
		config->self = self;
}

int config_parse(struct config **config, const struct config_source *source, const char *node,
		 FILE *errors)
{
	*config = NULL;
	struct report *report = calloc(1, sizeof *report);
	struct loading loading = {calloc(1, sizeof(struct config)), report};
	struct tree *root = NULL;
	if (!report || !loading.config) {
		free(report);
		free(loading.config);
		return -ENOMEM;
	}
	report->file = source->file;
	root = tree_read(source->text, source->length, report);
	if (root) {
		apply_map(&loading, root, &config_schema, loading.config);
		if (root->kind == TREE_MAP) {
			node_resolve(&loading, root, node);
			config_check(loading.config, root, report);
		}
	}
	must(root || report->count, "a file that cannot be read is complained about");
	int err = report->count ? -EINVAL : 0;
	if (err && errors)
		report_write(report, errors);
	tree_free(root);
	free(report);
	if (err)
		config_free(loading.config);
	else
		*config = loading.config;
	return err;
}

/* gives: the whole file in memory. */
static int file_read(FILE *file, char **text, size_t *length)
{
	*text = malloc(CONFIG_FILE_BYTES_MAX + 1);
	if (!*text)
		return -ENOMEM;
	*length = fread(*text, 1, CONFIG_FILE_BYTES_MAX + 1, file);
	if (ferror(file))
		return errno ? -errno : -EIO;
	return *length > CONFIG_FILE_BYTES_MAX ? -EFBIG : 0;
}

int config_load(struct config **config, const char *file, const char *node, FILE *errors)
{
	char *text = NULL;
	size_t length = 0;
	*config = NULL;
	FILE *in = fopen(file, "re");
	int err = in ? file_read(in, &text, &length) : -errno;
	if (in)
		fclose(in);
	if (err && errors)
		fprintf(errors, "%s: %s\n", file,
			err == -EFBIG ? "larger than 1 MiB" : strerror(-err));
	if (!err)
		err = config_parse(config, &(struct config_source){file, text, length}, node,
				   errors);
	free(text);
	return err;
}
