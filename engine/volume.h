/* SPDX-License-Identifier: Apache-2.0 */
/* Makes what a group needs at this site before it is first served: device, intent log and keys at
 * its primary, stores at its vault. Nothing that is there already is ever overwritten. */
#ifndef CASEMATE_VOLUME_H
#define CASEMATE_VOLUME_H

#include "config.h"
#include "core/intent.h"

#include <limits.h>
#include <stdatomic.h>

enum { VOLUME_WHY_BYTES = 512 };

/* name: a group, or a volume of it (the whole group is made). 0, with a remark in why or ""; or a
 * negative errno, with one sentence in why; what was made until then is taken back. -ENOENT: no
 * such name. -ECANCELED: cancel was set meanwhile, by a signal or a thread. */
int volume_create(const struct config *, const char *name, const atomic_bool *cancel, char *why,
		  size_t why_bytes);

/* The group of this name, or that has a volume of this name; NULL. */
const struct config_group *volume_group_find(const struct config *, const char *name);
/* Where the intent log of a group is: beside its first device, or, where that is a block device,
 * in the state directory. */
void volume_intent_path(const struct config *, const struct config_group *, char out[PATH_MAX]);
void volume_intent_config(const struct config_group *, struct intent_config *);
/* Bytes of a device or file; negative errno. */
int64_t volume_device_bytes(const char *path);

/* What the core takes at start for a group at this site: its window and, at the vault, the tables
 * of its stores, as they would be made. */
uint64_t volume_memory_bytes(const struct config_group *, unsigned site);

/* ---- stores ---- */
struct volume_store {
	const char *directory;
	uint8_t index;
	struct uuid set;
	uint32_t incarnation;
	const atomic_bool *cancel; /* NULL, or: once it is set, making it fails with -ECANCELED */
};
/* What the superblock of a store says. */
struct volume_store_head {
	struct store_group group;
	struct uuid id;
	uint8_t index;
	uint32_t incarnation;
	uint64_t segment_bytes;
	uint32_t segment_count;
};

enum volume_store_file { STORE_SUPERBLOCK, STORE_JOURNAL, STORE_IMAGE, STORE_SLOTS };
/* volume: for images and slots; else NULL. */
void volume_store_path(const char *directory, enum volume_store_file, const char *volume,
		       char out[PATH_MAX]);
/* 0, -ENOENT (no store there), -EBADMSG (damaged), -EPROTONOSUPPORT, or what the system said. */
int volume_store_read(const char *directory, struct volume_store_head *);
/* Whether the store in this directory, if one can be read there, was made for what the
 * configuration says of the group: 0, or -EINVAL with what differs in why. */
int volume_store_judge(const struct config_group *, const char *directory, char *why,
		       size_t why_bytes);
/* Makes one store anew; files of an earlier one are removed first. Refuses (-EEXIST) a directory
 * that holds a good store of another set. For what comes after a loss: nothing is copied here. 0,
 * with a remark in why or "". */
int volume_store_format(const struct config_group *, const struct volume_store *, char *why,
			size_t why_bytes);

/* ---- between the files of this room ---- */
struct making;
int store_make(struct making *, const struct config_group *, const struct volume_store *);
/* 0, or -EIO when the system gives no randomness. */
int volume_random(void *out, size_t bytes);

#endif
