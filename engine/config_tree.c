/* SPDX-License-Identifier: Apache-2.0 */
/* From YAML text to a tree, by the events of libyaml. What the subset excludes is reported and
 * skipped, so that one reading finds as many mistakes as there are; only a syntax error ends it. */
#include "config_tree.h"

#include <stdlib.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	struct report *report;
	unsigned depth;
	bool broken; /* a syntax error was reported: nothing more can be read */
};

static struct report_place event_place(const yaml_event_t *event, const char *path)
{
	return (struct report_place){(unsigned)event->start_mark.line + 1,
				     (unsigned)event->start_mark.column + 1, path};
}

/* The end of the file is where an unclosed quote is noticed; where it began is what helps. */
static void reader_complain_syntax(struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	reader->broken = true;
	if (parser->error == YAML_READER_ERROR) {
		report_add(reader->report, (struct report_place){1, 1, NULL},
			   "not UTF-8 text: %s at byte %zu", parser->problem,
			   parser->problem_offset);
		return;
	}
	const char *problem = parser->problem ? parser->problem : "out of memory";
	bool at_end = strstr(problem, "end of stream") != NULL;
	const yaml_mark_t *mark =
		parser->context && at_end ? &parser->context_mark : &parser->problem_mark;
	report_add(
		reader->report,
		(struct report_place){(unsigned)mark->line + 1, (unsigned)mark->column + 1, NULL},
		"syntax: %s%s%s", parser->context ? parser->context : "",
		parser->context ? ", " : "", problem);
}

static bool reader_next(struct reader *reader, yaml_event_t *event)
{
	if (reader->broken)
		return false;
	if (yaml_parser_parse(&reader->parser, event))
		return true;
	reader_complain_syntax(reader);
	return false;
}

static struct tree *node_new(enum tree_kind kind, const yaml_event_t *event, struct tree *parent)
{
	struct tree *node = calloc(1, sizeof *node);
	if (!node)
		return NULL;
	node->kind = kind;
	node->parent = parent;
	node->line = (unsigned)event->start_mark.line + 1;
	node->column = (unsigned)event->start_mark.column + 1;
	return node;
}

void tree_free(struct tree *node)
{
	while (node) {
		struct tree *next = node->next;
		tree_free(node->child);
		free(node->text);
		free(node->key);
		free(node);
		node = next;
	}
}

static void node_append(struct tree *parent, struct tree *child)
{
	child->index = parent->count++;
	if (parent->last)
		parent->last->next = child;
	else
		parent->child = child;
	parent->last = child;
}

/* Anchors and tags: what makes a file mean more than it shows. */
static void reader_check_subset(struct reader *reader, const yaml_event_t *event)
{
	const void *anchor = NULL, *tag = NULL;
	if (event->type == YAML_SCALAR_EVENT) {
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
	} else if (event->type == YAML_MAPPING_START_EVENT) {
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
	}
	if (anchor)
		report_add(reader->report, event_place(event, NULL), "anchors (&) are not allowed");
	if (tag)
		report_add(reader->report, event_place(event, NULL), "tags (!) are not allowed");
}

static struct tree *read_value(struct reader *, const yaml_event_t *, struct tree *parent);

/* A NUL inside would hide the rest of the text from everything that reads it. */
static bool scalar_has_controls(const yaml_event_t *event)
{
	const unsigned char *text = event->data.scalar.value;
	for (size_t i = 0; i < event->data.scalar.length; i++)
		if (text[i] < ' ' || text[i] == 0x7f)
			return true;
	return false;
}

static struct tree *read_scalar(struct reader *reader, const yaml_event_t *event,
				struct tree *parent)
{
	struct tree *node = node_new(TREE_SCALAR, event, parent);
	const char *what = NULL;
	if (!node)
		return NULL;
	if (event->type == YAML_ALIAS_EVENT)
		what = "aliases (*) are not allowed";
	else if (event->data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
		 event->data.scalar.style == YAML_FOLDED_SCALAR_STYLE)
		what = "block scalars (| and >) are not allowed";
	else if (scalar_has_controls(event))
		what = "control characters are not allowed";
	else
		node->text = strdup((const char *)event->data.scalar.value);
	node->refused = !node->text;
	if (what)
		report_add(reader->report, event_place(event, NULL), "%s", what);
	return node;
}

static struct tree *read_list(struct reader *reader, const yaml_event_t *start, struct tree *parent)
{
	struct tree *list = node_new(TREE_LIST, start, parent);
	yaml_event_t event;
	while (list && reader_next(reader, &event)) {
		bool end = event.type == YAML_SEQUENCE_END_EVENT;
		struct tree *item = end ? NULL : read_value(reader, &event, list);
		yaml_event_delete(&event);
		if (end)
			break;
		if (item)
			node_append(list, item);
	}
	return list;
}

static void read_pair(struct reader *reader, const yaml_event_t *key, struct tree *map)
{
	yaml_event_t event;
	if (!reader_next(reader, &event))
		return;
	struct tree *value = read_value(reader, &event, map);
	yaml_event_delete(&event);
	if (!value)
		return;
	value->key = strdup((const char *)key->data.scalar.value);
	value->key_line = (unsigned)key->start_mark.line + 1;
	value->key_column = (unsigned)key->start_mark.column + 1;
	if (value->key && map->count < TREE_KEYS_MAX) {
		node_append(map, value);
		return;
	}
	report_add(reader->report, event_place(key, NULL), "more than %u keys in a map",
		   TREE_KEYS_MAX);
	reader->broken = true;
	tree_free(value);
}

static struct tree *read_map(struct reader *reader, const yaml_event_t *start, struct tree *parent)
{
	struct tree *map = node_new(TREE_MAP, start, parent);
	yaml_event_t key;
	while (map && reader_next(reader, &key)) {
		bool end = key.type == YAML_MAPPING_END_EVENT;
		if (key.type == YAML_SCALAR_EVENT) {
			reader_check_subset(reader, &key);
			read_pair(reader, &key, map);
		} else if (!end) {
			report_add(reader->report, event_place(&key, NULL),
				   "a key must be a plain word");
			reader->broken = true;
		}
		yaml_event_delete(&key);
		if (end)
			break;
	}
	return map;
}

static struct tree *read_value(struct reader *reader, const yaml_event_t *event,
			       struct tree *parent)
{
	struct tree *node = NULL;
	reader_check_subset(reader, event);
	if (reader->depth == TREE_DEPTH_MAX) {
		report_add(reader->report, event_place(event, NULL), "nested deeper than %u",
			   TREE_DEPTH_MAX);
		reader->broken = true;
		return NULL;
	}
	reader->depth++;
	if (event->type == YAML_SCALAR_EVENT || event->type == YAML_ALIAS_EVENT)
		node = read_scalar(reader, event, parent);
	else if (event->type == YAML_MAPPING_START_EVENT)
		node = read_map(reader, event, parent);
	else if (event->type == YAML_SEQUENCE_START_EVENT)
		node = read_list(reader, event, parent);
	reader->depth--;
	return node;
}

/* The stream: exactly one document without directives. */
static struct tree *read_stream(struct reader *reader)
{
	struct tree *root = NULL;
	unsigned documents = 0;
	bool end = false;
	yaml_event_t event;
	while (!end && reader_next(reader, &event)) {
		end = event.type == YAML_STREAM_END_EVENT;
		if (event.type == YAML_DOCUMENT_START_EVENT) {
			if (event.data.document_start.version_directive ||
			    event.data.document_start.tag_directives.start !=
				    event.data.document_start.tag_directives.end)
				report_add(reader->report, event_place(&event, NULL),
					   "directives (%%) are not allowed");
			if (++documents > 1) {
				report_add(reader->report, event_place(&event, NULL),
					   "a second document; there may be only one");
				end = true;
			}
		} else if (event.type != YAML_STREAM_START_EVENT &&
			   event.type != YAML_DOCUMENT_END_EVENT && !end) {
			root = read_value(reader, &event, NULL);
		}
		yaml_event_delete(&event);
	}
	if (!documents && !reader->broken)
		report_add(reader->report, (struct report_place){1, 1, NULL}, "the file is empty");
	return root;
}

/* After the whole tree is there, so that paths are complete. tree_child finds the first one. */
static void tree_check_duplicates(const struct tree *node, struct report *report)
{
	char path[REPORT_PATH_BYTES];
	for (const struct tree *child = node->child; child; child = child->next) {
		const struct tree *first = child->key ? tree_child(node, child->key) : child;
		if (first != child) {
			tree_path(child, NULL, path);
			report_add(report,
				   (struct report_place){child->key_line, child->key_column, path},
				   "given twice (first in line %u)", first->key_line);
		}
		tree_check_duplicates(child, report);
	}
}

static bool text_has_tabs(const char *text, size_t length, struct report *report)
{
	unsigned line = 1, column = 1, before = report->count;
	bool told = false;
	for (size_t i = 0; i < length; i++, column++) {
		if (text[i] == '\n') {
			line++;
			column = 0;
			told = false;
		} else if (text[i] == '\t' && !told) {
			told = true;
			report_add(report, (struct report_place){line, column, NULL},
				   "a tab; use spaces");
		}
	}
	return report->count > before;
}

struct tree *tree_read(const char *text, size_t length, struct report *report)
{
	struct reader reader = {.report = report};
	if (text_has_tabs(text, length, report))
		return NULL;
	if (!yaml_parser_initialize(&reader.parser)) {
		report_add(report, (struct report_place){1, 1, NULL}, "out of memory");
		return NULL;
	}
	yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
	struct tree *root = read_stream(&reader);
	yaml_parser_delete(&reader.parser);
	if (reader.broken) {
		tree_free(root);
		return NULL;
	}
	if (root)
		tree_check_duplicates(root, report);
	return root;
}

struct tree *tree_child(const struct tree *map, const char *key)
{
	for (struct tree *child = map->child; child; child = child->next)
		if (child->key && strcmp(child->key, key) == 0)
			return child;
	return NULL;
}

void tree_path(const struct tree *node, const char *key, char path[REPORT_PATH_BYTES])
{
	const struct tree *chain[TREE_DEPTH_MAX + 1];
	unsigned depth = 0;
	size_t used = 0;
	for (; node->parent && depth < TREE_DEPTH_MAX; node = node->parent)
		chain[depth++] = node;
	path[0] = 0;
	while (depth && used < REPORT_PATH_BYTES) {
		const struct tree *step = chain[--depth];
		if (step->parent->kind == TREE_LIST)
			used += (size_t)snprintf(path + used, REPORT_PATH_BYTES - used, "[%u]",
						 step->index);
		else
			used += (size_t)snprintf(path + used, REPORT_PATH_BYTES - used, "%s%s",
						 used ? "." : "", step->key ? step->key : "?");
	}
	if (key && used < REPORT_PATH_BYTES)
		snprintf(path + used, REPORT_PATH_BYTES - used, "%s%s", used ? "." : "", key);
}

static const struct tree *list_item(const struct tree *list, unsigned index)
{
	for (const struct tree *item = list->child; item; item = item->next)
		if (item->index == index)
			return item;
	return NULL;
}

const struct tree *tree_nearest_node(const struct tree *root, const char *path)
{
	const struct tree *node = root;
	char key[REPORT_PATH_BYTES];
	while (*path) {
		const struct tree *next = NULL;
		size_t length = strcspn(path, ".[");
		if (*path == '[') {
			next = list_item(node, (unsigned)strtoul(path + 1, NULL, 10));
			path += strcspn(path, "]") + 1;
		} else {
			snprintf(key, sizeof key, "%.*s", (int)length, path);
			next = tree_child(node, key);
			path += length;
		}
		if (!next)
			break;
		node = next;
		path += *path == '.';
	}
	return node;
}
