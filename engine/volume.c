/* SPDX-License-Identifier: Apache-2.0 */
/* `volume create`: the files of a group at this site. The volume keys are born here, at the
 * primary; they leave this function only wrapped. */
#include "volume.h"
#include "volume_file.h"

#include "session/key_uri.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

const struct config_group *volume_group_find(const struct config *config, const char *name)
{
	for (unsigned g = 0; g < config->group_count; g++)
		if (!strcmp(config->group[g].name, name))
			return &config->group[g];
	for (unsigned g = 0; g < config->group_count; g++)
		for (unsigned v = 0; v < config->group[g].volume_count; v++)
			if (!strcmp(config->group[g].volume[v].name, name))
				return &config->group[g];
	return NULL;
}

static bool path_is_block_device(const char *path)
{
	struct stat now;

	return !stat(path, &now) && S_ISBLK(now.st_mode);
}

void volume_intent_path(const struct config *config, const struct config_group *group,
			char out[PATH_MAX])
{
	const char *device = group->volume[0].device[config->self];

	must(device, "the primary has devices");
	snprintf(out, PATH_MAX, "%s/%s.intent", config->site[config->self].state, group->name);
	/* A device that is not there was a block device if the log of one is. */
	if (!path_is_block_device(device) && (!access(device, F_OK) || access(out, F_OK)))
		snprintf(out, PATH_MAX, "%s.intent", device);
}

void volume_intent_config(const struct config_group *group, struct intent_config *config)
{
	*config = (struct intent_config){.volume_count = (uint8_t)group->volume_count,
					 .subject = group->name};
	for (unsigned i = 0; i < group->volume_count; i++) {
		const struct config_volume *volume = &group->volume[i];
		config->volume[i].size = volume->size;
		config->volume[i].region_bytes =
			intent_region_bytes(volume->size, volume->block_bytes);
	}
}

int64_t volume_device_bytes(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for a writer */
	struct stat now;
	uint64_t bytes = 0;

	if (fd < 0)
		return -errno;
	int err = fstat(fd, &now) ? -errno : 0;
	if (!err && S_ISBLK(now.st_mode))
		err = ioctl(fd, BLKGETSIZE64, &bytes) ? -errno : 0;
	else if (!err && S_ISREG(now.st_mode))
		bytes = (uint64_t)now.st_size;
	else if (!err)
		err = -EINVAL;
	close(fd);
	return err ? err : (int64_t)bytes;
}

static int device_make(struct making *making, const struct config_volume *volume, unsigned site)
{
	const char *path = volume->device[site];

	if (path_is_block_device(path)) {
		int64_t bytes = volume_device_bytes(path);
		if (bytes == (int64_t)volume->size)
			return 0;
		return making_fails(making, bytes < 0 ? (int)bytes : -EINVAL,
				    "%s has %lld bytes, but volume %s has %llu", path,
				    (long long)bytes, volume->name,
				    (unsigned long long)volume->size);
	}
	int err = directory_make_above(making, path);
	if (err)
		return err;
	return file_make(
		making,
		&(struct file_new){.path = path, .bytes = volume->size, .content = FILE_RESERVED});
}

static int identity_make(const struct config_group *group, const uint8_t kek[KEY_BYTES],
			 struct intent_identity *identity)
{
	uint8_t key[KEY_BYTES];
	int err = 0;

	*identity = (struct intent_identity){.generation = 1,
					     .volume_count = (uint8_t)group->volume_count};
	for (unsigned i = 0; !err && i < group->volume_count; i++) {
		err = volume_random(&identity->volume[i].id, sizeof identity->volume[i].id);
		if (!err)
			err = volume_random(key, sizeof key);
		if (err)
			break;
		identity->volume[i].size = group->volume[i].size;
		identity->volume[i].block_bytes = group->volume[i].block_bytes;
		keys_wrap(kek, key, identity->volume[i].wrapped_key);
		keys_check_value(key, identity->volume[i].key_check);
	}
	keys_wipe(key, sizeof key);
	return err;
}

static void image_of_file(const void *context, uint64_t offset, uint8_t *out, uint64_t length)
{
	memcpy(out, (const uint8_t *)context + offset, length);
}

/* What an existing block device holds is not known to the vault: a log without pages counts as one
 * in which every region is intended, so that all of it is compared and sent. */
static bool content_unknown(const struct config_group *group, unsigned site)
{
	for (unsigned i = 0; i < group->volume_count; i++)
		if (path_is_block_device(group->volume[i].device[site]))
			return true;
	return false;
}

static int intent_make(struct making *making, const struct config *config,
		       const struct config_group *group, const struct intent_identity *identity)
{
	struct intent_config shape;
	char path[PATH_MAX];

	volume_intent_path(config, group, path);
	volume_intent_config(group, &shape);
	uint64_t bytes = intent_format(&shape, identity, NULL);
	uint8_t *image = calloc(1, bytes);
	if (!image)
		return making_fails(making, -ENOMEM, "no memory for the intent log");
	intent_format(&shape, identity, image);
	if (content_unknown(group, config->self))
		memset(image + 2 * INTENT_HEADER_BYTES, 0, bytes - 2 * INTENT_HEADER_BYTES);
	int err = directory_make_above(making, path);
	if (!err)
		err = file_make(making, &(struct file_new){.path = path,
							   .bytes = bytes,
							   .content = FILE_FILLED,
							   .fill = image_of_file,
							   .context = image});
	free(image);
	return err;
}

static int primary_make(struct making *making, const struct config *config,
			const struct config_group *group)
{
	struct intent_identity identity;
	uint8_t kek[KEY_BYTES];
	char why[VOLUME_WHY_BYTES], intent[PATH_MAX];

	volume_intent_path(config, group, intent);
	if (!access(intent, F_OK))
		return making_fails(making, -EEXIST,
				    "%s is there: this volume was made before; nothing was made",
				    intent);
	int err = key_uri_load(group->key, kek, why, sizeof why);
	if (err)
		return making_fails(making, err, "%s", why);
	err = identity_make(group, kek, &identity);
	keys_wipe(kek, sizeof kek);
	for (unsigned i = 0; !err && i < group->volume_count; i++)
		err = device_make(making, &group->volume[i], config->self);
	if (!err)
		err = intent_make(making, config, group, &identity);
	keys_wipe(&identity, sizeof identity);
	return err;
}

static int stores_make(struct making *making, const struct config_group *group, unsigned site)
{
	struct uuid set;
	int err = volume_random(&set, sizeof set);

	for (unsigned i = 0; !err && i < group->store_count[site]; i++)
		err = store_make(making, group,
				 &(struct volume_store){.directory = group->store[site][i],
							.index = (uint8_t)i,
							.set = set,
							.incarnation = 1});
	return err;
}

/* The names of the files stand in directories that may have been there before. */
static int names_sync(struct making *making)
{
	char above[PATH_MAX];
	int err = 0;

	for (unsigned i = 0; !err && i < making->count; i++) {
		snprintf(above, sizeof above, "%s", making->path[i]);
		char *slash = strrchr(above, '/');
		if (!slash)
			continue;
		slash[slash == above] = 0;
		err = directory_sync(above);
	}
	return err;
}

int volume_create(const struct config *config, const char *name, const atomic_bool *cancel,
		  char *why, size_t why_bytes)
{
	const struct config_group *group = volume_group_find(config, name);
	struct making making;
	int err = 0;

	making_init(&making, why, why_bytes);
	making.cancel = cancel;
	if (!group)
		return making_fails(&making, -ENOENT,
				    "no group or volume is named %s in the configuration", name);
	if (group->primary == config->self)
		err = primary_make(&making, config, group);
	if (!err && group->store_count[config->self])
		err = stores_make(&making, group, config->self);
	if (!err)
		err = names_sync(&making);
	if (err) {
		making_fails(&making, err, "%s", strerror(-err));
		making_undo(&making);
	} else {
		making_keep(&making);
	}
	return err;
}
