/* SPDX-License-Identifier: Apache-2.0 */
/* A strict subset of YAML as a tree that knows its places: maps, lists and scalars in block or flow
 * style. No anchors, aliases, tags, directives, block scalars, second documents, duplicate keys or
 * tabs. All scalars are text; what they mean is the schema's affair. */
#ifndef CASEMATE_CONFIG_TREE_H
#define CASEMATE_CONFIG_TREE_H

#include "config_report.h"

enum tree_kind { TREE_SCALAR, TREE_MAP, TREE_LIST };
enum { TREE_DEPTH_MAX = 16, TREE_KEYS_MAX = 64 };

struct tree {
	enum tree_kind kind;
	unsigned line, column; /* from 1 */
	char *text;	       /* scalar */
	bool refused;	       /* what is wrong with its value was told already */
	char *key;	       /* in a map: its key, and where that stands */
	unsigned key_line, key_column;
	unsigned index; /* in a list */
	unsigned count; /* children */
	struct tree *parent, *child, *last, *next;
};

/* gives: the tree, or NULL when there is none to go on with (then something was reported). A tree
 * may come back though complaints were added. */
struct tree *tree_read(const char *text, size_t length, struct report *);
void tree_free(struct tree *);

struct tree *tree_child(const struct tree *map, const char *key); /* NULL: none */
/* "groups[0].window", of the node, or with one more key of a child that may be missing. */
void tree_path(const struct tree *, const char *key, char path[REPORT_PATH_BYTES]);
/* The deepest node on the path that exists: the place to complain about it. */
const struct tree *tree_nearest_node(const struct tree *root, const char *path);

#endif
