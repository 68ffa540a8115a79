/* SPDX-License-Identifier: Apache-2.0 */
/* The files that a configuration names, and those that the daemon makes beside them: each is used
 * for one thing only at one site, and nothing lies within a store. Paths are compared as text, with
 * "." and ".." taken out: the file may be checked on another machine than the one it is for. */
#include "config_checking.h"

#include "core/base.h"

#include <stdlib.h>

enum {
	SOCKET_PATH_BYTES_MAX = 107, /* of sun_path, without the closing 0 */
	SITE_FILES_MAX = 7 + CONFIG_NBD_MAX,
	GROUP_FILES_MAX = 3 + VOLUMES_PER_GROUP_MAX + SHARDS_MAX,
	FILES_MAX = SITE_FILES_MAX + GROUPS_MAX * GROUP_FILES_MAX,
};

/* READ: never written, so it may be read for more than one thing. PLACE: others may lie within. */
enum file_kind { FILE_OWN, FILE_READ, FILE_PLACE };

struct file_use {
	char *path; /* owned; normal */
	enum file_kind kind;
	const char *made; /* what the daemon makes there, or NULL: what the file says itself */
	struct where place;
};
struct file_uses {
	const struct checking *checking;
	unsigned count;
	struct file_use use[FILES_MAX];
};

/* gives: an absolute path without "//", "." and "..", as far as its text tells. */
static char *path_normal(const char *path)
{
	char *normal = calloc(1, strlen(path) + 2);
	size_t used = 0;
	must(normal, "memory for a path");
	for (size_t length; *(path += strspn(path, "/")); path += length) {
		length = strcspn(path, "/");
		if (length == 1 && path[0] == '.')
			continue;
		if (length == 2 && path[0] == '.' && path[1] == '.') {
			while (used && normal[--used] != '/')
				;
			continue;
		}
		normal[used++] = '/';
		memcpy(normal + used, path, length);
		used += length;
	}
	normal[used] = 0;
	if (!used)
		normal[0] = '/';
	return normal;
}

static bool lies_within(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	if (length == 1) /* the root */
		return path[1] != 0;
	return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* The later of two uses is complained about. */
static bool files_clash(const struct checking *checking, const struct file_use *earlier,
			const struct file_use *later)
{
	char mine[REPORT_PATH_BYTES + 48], other[REPORT_PATH_BYTES + 48];
	if (earlier->kind == FILE_READ && later->kind == FILE_READ)
		return false;
	/* Either place of an intent log is kept; names and devices that are equal are told alone.
	 */
	if (earlier->made && later->made)
		return false;
	snprintf(mine, sizeof mine, "%s%s%s\"%.128s\"", later->made ? "its " : "",
		 later->made ? later->made : "", later->made ? " " : "", later->path);
	snprintf(other, sizeof other, "%s%s%s%s", earlier->made ? "the " : "",
		 earlier->made ? earlier->made : "", earlier->made ? " of " : "",
		 earlier->place.path);
	if (strcmp(earlier->path, later->path) == 0)
		complain(checking, later->place, "%s is used for %s already", mine, other);
	else if (earlier->kind != FILE_PLACE && lies_within(later->path, earlier->path))
		complain(checking, later->place, "%s lies within %s (\"%.128s\")", mine, other,
			 earlier->path);
	else if (later->kind != FILE_PLACE && lies_within(earlier->path, later->path))
		complain(checking, later->place, "%s has %s within it (\"%.128s\")", mine, other,
			 earlier->path);
	else
		return false;
	return true;
}

/* Takes the path of the use. */
static void use_add(struct file_uses *uses, struct file_use use)
{
	for (unsigned i = 0; i < uses->count; i++)
		if (files_clash(uses->checking, &uses->use[i], &use)) {
			free(use.path);
			return;
		}
	must(uses->count < FILES_MAX, "the table has room for every file of a site");
	uses->use[uses->count++] = use;
}

static void files_add(struct file_uses *uses, enum file_kind kind, const char *file,
		      struct where place)
{
	if (file)
		use_add(uses, (struct file_use){path_normal(file), kind, NULL, place});
}

static void keys_add(struct file_uses *uses, const char *uri, struct where place)
{
	if (uri && strncmp(uri, "file:", 5) == 0)
		files_add(uses, FILE_READ, uri + 5, place);
}

/* made: what is at base, with the tail behind it. */
static void made_add(struct file_uses *uses, const char *made, const char *const path[3],
		     struct where place)
{
	size_t bytes = strlen(path[0]) + strlen(path[1]) + strlen(path[2]) + 1;
	char *whole = calloc(1, bytes);
	must(whole, "memory for a path");
	snprintf(whole, bytes, "%s%s%s", path[0], path[1], path[2]);
	use_add(uses, (struct file_use){path_normal(whole), FILE_OWN, made, place});
	free(whole);
}

static void socket_add(struct file_uses *uses, const char *path, struct where place)
{
	if (path && strlen(path) > SOCKET_PATH_BYTES_MAX)
		complain(uses->checking, place, "the path of a socket has at most %d bytes",
			 SOCKET_PATH_BYTES_MAX);
	files_add(uses, FILE_OWN, path, place);
}

/* A key that a socket or a store takes the place of is the loss of all: what is only read comes
 * first, so that the complaint stands at what would have been written. */
static void site_files(struct file_uses *uses, unsigned s)
{
	const struct config *config = uses->checking->config;
	const struct config_site *site = &config->site[s];
	files_add(uses, FILE_READ, site->certificate, where("sites[%u].certificate", s));
	keys_add(uses, site->key, where("sites[%u].key", s));
	files_add(uses, FILE_READ, site->ca, where("sites[%u].ca", s));
	keys_add(uses, config->psk, where("link.psk"));
	for (unsigned g = 0; g < config->group_count; g++)
		keys_add(uses, config->group[g].key, where("groups[%u].key", g));
	files_add(uses, FILE_PLACE, site->state, where("sites[%u].state", s));
	if (site->state)
		made_add(uses, "lock", (const char *[3]){site->state, "/lock", ""},
			 where("sites[%u].state", s));
	socket_add(uses, site->control, where("sites[%u].control", s));
	for (unsigned i = 0; i < site->nbd_count; i++)
		files_add(uses, FILE_OWN, site->nbd[i].unix_path, where("sites[%u].nbd[%u]", s, i));
}

/* The intent log lies beside the first device, or, where that is a block device, with the state
 * (volume_intent_path): either place is kept for it. */
static void intent_add(struct file_uses *uses, unsigned s, unsigned g)
{
	const struct config_site *site = &uses->checking->config->site[s];
	const struct config_group *group = &uses->checking->config->group[g];
	const char *device = group->volume[0].device[s];
	if (!device)
		return;
	made_add(uses, "intent log", (const char *[3]){device, ".intent", ""},
		 where("groups[%u].volumes[0].device.%s", g, site->name));
	if (site->state && group->name) {
		char tail[NAME_BYTES_MAX + 8];
		snprintf(tail, sizeof tail, "%s.intent", group->name);
		made_add(uses, "intent log", (const char *[3]){site->state, "/", tail},
			 where("groups[%u].name", g));
	}
}

static void group_files(struct file_uses *uses, unsigned s, unsigned g)
{
	const struct config *config = uses->checking->config;
	const struct config_group *group = &config->group[g];
	const char *name = config->site[s].name;
	for (unsigned v = 0; v < group->volume_count; v++) {
		files_add(uses, FILE_OWN, group->volume[v].device[s],
			  where("groups[%u].volumes[%u].device.%s", g, v, name));
		if (v == 0)
			intent_add(uses, s, g);
	}
	for (unsigned i = 0; i < group->store_count[s]; i++)
		files_add(uses, FILE_OWN, group->store[s][i],
			  where("groups[%u].stores.%s[%u]", g, name, i));
}

void check_files(const struct checking *checking, unsigned site)
{
	struct file_uses uses = {.checking = checking};
	site_files(&uses, site);
	for (unsigned g = 0; g < checking->config->group_count; g++)
		group_files(&uses, site, g);
	for (unsigned i = 0; i < uses.count; i++)
		free(uses.use[i].path);
}
