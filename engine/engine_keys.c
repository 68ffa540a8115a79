/* SPDX-License-Identifier: Apache-2.0 */
/* Volume keys at start and at promotion: the key that a URI names unwraps them, and the key check
 * value tells the wrong key from damage. They go to the core and are wiped here. */
#include "engine.h"
#include "log.h"
#include "volume.h"

#include "session/key_uri.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* 0, or -EKEYREJECTED: not the key that wrapped it; -EBADMSG: unwrapped to something else. */
static int key_open(const uint8_t kek[KEY_BYTES], const uint8_t wrapped[WRAPPED_KEY_BYTES],
		    const uint8_t check[KEY_CHECK_BYTES], uint8_t key[KEY_BYTES])
{
	uint8_t made[KEY_CHECK_BYTES];
	int err = keys_unwrap(kek, wrapped, key);

	if (err)
		return err;
	keys_check_value(key, made);
	if (keys_equal(made, check, sizeof made))
		return 0;
	keys_wipe(key, KEY_BYTES);
	return -EBADMSG;
}

/* ---- at the primary: from the head of the intent log ---- */

static int identity_read(const char *path, struct intent_identity *identity)
{
	uint8_t header[2 * INTENT_HEADER_BYTES];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : pread(fd, header, sizeof header, 0);
	int err = got < 0 ? -errno : got < (ssize_t)sizeof header ? -ENOENT : 0;

	if (fd >= 0)
		close(fd);
	if (err)
		return err;
	err = intent_identity_decode(header, identity);
	return err ? intent_identity_decode(header + INTENT_HEADER_BYTES, identity) : 0;
}

static int identity_judge(const struct config_group *config, const struct intent_identity *identity)
{
	if (identity->volume_count != config->volume_count) {
		log_line(NOTE_ERROR, config->name,
			 "was made with %u volumes, but the configuration has %u",
			 identity->volume_count, config->volume_count);
		return -EINVAL;
	}
	for (unsigned v = 0; v < config->volume_count; v++) {
		const struct config_volume *volume = &config->volume[v];
		if (identity->volume[v].size == volume->size &&
		    identity->volume[v].block_bytes == volume->block_bytes)
			continue;
		log_line(NOTE_ERROR, volume->name,
			 "was made with %llu bytes in blocks of %u, but the configuration says "
			 "%llu in blocks of %u",
			 (unsigned long long)identity->volume[v].size,
			 identity->volume[v].block_bytes, (unsigned long long)volume->size,
			 volume->block_bytes);
		return -EINVAL;
	}
	return 0;
}

static int keys_unwrap_all(const struct config_group *config, const uint8_t kek[KEY_BYTES],
			   const struct intent_identity *identity, struct core_group *group)
{
	for (unsigned v = 0; v < config->volume_count; v++) {
		int err = key_open(kek, identity->volume[v].wrapped_key,
				   identity->volume[v].key_check, group->volume[v].key);
		if (!err)
			continue;
		log_line(NOTE_ERROR, config->volume[v].name,
			 err == -EKEYREJECTED ? "%s is the wrong key: it does not open this volume"
					      : "its wrapped key is damaged (%s is the right key)",
			 config->key);
		return err;
	}
	return 0;
}

int keys_load(struct engine *engine, unsigned g, struct core_group *group)
{
	const struct config_group *config = &engine->config->group[g];
	struct intent_identity identity;
	uint8_t kek[KEY_BYTES];
	char path[PATH_MAX], why[ENGINE_WHY_BYTES];

	volume_intent_path(engine->config, config, path);
	int err = identity_read(path, &identity);
	if (err) {
		log_line(NOTE_ERROR, config->name,
			 "%s is no intent log of ours: %s; bring it back, or promote the vault",
			 path,
			 err == -EBADMSG  ? "damaged"
			 : err == -ENOENT ? "it does not begin as one"
					  : strerror(-err));
		return err;
	}
	err = identity_judge(config, &identity);
	if (err)
		return err;
	err = key_uri_load(config->key, kek, why, sizeof why);
	if (err)
		log_line(NOTE_ERROR, config->name, "%s", why);
	else
		err = keys_unwrap_all(config, kek, &identity, group);
	keys_wipe(kek, sizeof kek);
	return err;
}

/* ---- at a promotion: from the superblock of any store ---- */

static bool head_has_keys(const struct volume_store_head *head, const struct config_group *config)
{
	if (strcmp(head->group.name, config->name) != 0 ||
	    head->group.volume_count != config->volume_count)
		return false;
	for (unsigned v = 0; v < config->volume_count; v++)
		if (uuid_is_zero(&head->group.volume[v].id))
			return false;
	return true;
}

static int stores_head(struct engine *engine, unsigned g, struct volume_store_head *head)
{
	const struct config_group *config = &engine->config->group[g];

	for (unsigned i = 0; i < config->store_count[engine->self]; i++) {
		const struct engine_store *store = &engine->store[g][i];
		if (store->open && !store->lost &&
		    !volume_store_read(config->store[engine->self][i], head) &&
		    head_has_keys(head, config))
			return 0;
	}
	return -ENODATA;
}

static int head_unwrap(const struct volume_store_head *head, const uint8_t kek[KEY_BYTES],
		       const char *uri, uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES],
		       char why[ENGINE_WHY_BYTES])
{
	for (unsigned v = 0; v < head->group.volume_count; v++) {
		const struct store_volume *volume = &head->group.volume[v];
		int err = key_open(kek, volume->wrapped_key, volume->key_check, key[v]);
		if (!err)
			continue;
		snprintf(why, ENGINE_WHY_BYTES,
			 err == -EKEYREJECTED
				 ? "%s is the wrong key: it does not open volume %s; nothing was "
				   "changed"
				 : "%s opens volume %s to something else: its wrapped key is "
				   "damaged; nothing was changed",
			 uri, volume->name);
		return err;
	}
	return 0;
}

int keys_of_stores(struct engine *engine, unsigned g, const char *uri,
		   uint8_t key[VOLUMES_PER_GROUP_MAX][KEY_BYTES], char why[ENGINE_WHY_BYTES])
{
	struct volume_store_head *head = malloc(sizeof *head);
	uint8_t kek[KEY_BYTES];
	int err = head ? stores_head(engine, g, head) : -ENOMEM;

	if (err) {
		snprintf(why, ENGINE_WHY_BYTES,
			 "no store of this group has ever been told its volume keys: its primary "
			 "has not been here yet");
	} else {
		err = key_uri_load(uri, kek, why, ENGINE_WHY_BYTES);
		if (!err)
			err = head_unwrap(head, kek, uri, key, why);
		keys_wipe(kek, sizeof kek);
	}
	free(head);
	return err;
}
