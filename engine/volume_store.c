/* SPDX-License-Identifier: Apache-2.0 */
/* One store on disk (docs/store-format.md "files"): a directory with a superblock, a journal that
 * was written once with zeros, and image and slot headers of each volume. All has its space from
 * the start, so that a fold finds room. */
#include "volume.h"
#include "volume_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEGMENTS_LEAST = 16, SEGMENTS_MOST = 1024 };
#define SEGMENT_BYTES_LEAST (4 * MIB)
#define SEGMENT_BYTES_GOOD  (64 * MIB)

static const char *const file_names[] = {
	[STORE_SUPERBLOCK] = "superblock",
	[STORE_JOURNAL] = "journal",
	[STORE_IMAGE] = "image",
	[STORE_SLOTS] = "slots",
};

void volume_store_path(const char *directory, enum volume_store_file file, const char *volume,
		       char out[PATH_MAX])
{
	must((volume != NULL) == (file == STORE_IMAGE || file == STORE_SLOTS),
	     "images and slots belong to a volume");
	snprintf(out, PATH_MAX, "%s/%s%s%s", directory, file_names[file], volume ? "-" : "",
		 volume ? volume : "");
}

int volume_random(void *out, size_t bytes)
{
	return getentropy(out, bytes) ? -EIO : 0;
}

/* Segments of 64 MiB, so that much is reused at once; at least 16 of them where that leaves 4 MiB
 * for each, and never more than a superblock counts. Whole MiB. */
static void journal_cut(const struct config_group *group, uint64_t *segment_bytes,
			uint32_t *segment_count)
{
	uint64_t most = max_u64(2, group->journal_bytes / SEGMENT_BYTES_LEAST);
	uint64_t count = max_u64(group->journal_bytes / SEGMENT_BYTES_GOOD, SEGMENTS_LEAST);

	count = min_u64(min_u64(count, most), SEGMENTS_MOST);
	*segment_count = (uint32_t)count;
	*segment_bytes = align_down(group->journal_bytes / count, MIB);
}

/* What is measured is never opened. */
static void measured_result(struct store *store, int result, struct effects *fx)
{
	must(false, "a store that is only measured has no results");
}

static void measured_fold(struct store *store, struct effects *fx)
{
	must(false, "a store that is only measured does not fold");
}

static uint64_t store_memory_bytes(const struct config_group *group)
{
	struct store_config store = {.geometry = group->geometry,
				     .volume_count = (uint8_t)group->volume_count,
				     .batch_bytes_max = MIB,
				     .opened = measured_result,
				     .out = measured_result,
				     .folded = measured_fold};
	journal_cut(group, &store.segment_bytes, &store.segment_count);
	for (unsigned v = 0; v < group->volume_count; v++) {
		store.volume[v].size = group->volume[v].size;
		store.volume[v].block_bytes = group->volume[v].block_bytes;
	}
	return store_bytes(&store);
}

uint64_t volume_memory_bytes(const struct config_group *group, unsigned site)
{
	unsigned n = geometry_n(group->geometry);
	uint64_t shard = 0;
	for (unsigned v = 0; v < group->volume_count; v++)
		shard = max_u64(shard,
				shard_bytes_of(group->geometry, group->volume[v].block_bytes));
	uint64_t records = max_u64(group->window_bytes / (shard * n), WINDOW_RECORDS_MIN);
	uint64_t window = min_u64(records, WINDOW_RECORDS_MAX) * shard * n;
	return window + (site == group->vault ? n * store_memory_bytes(group) : 0);
}

static void store_group_new(const struct config_group *config, const struct volume_store *store,
			    struct store_group *group)
{
	*group = (struct store_group){
		.set = store->set,
		.geometry = config->geometry,
		.quorum = config->quorum,
		.volume_count = (uint8_t)config->volume_count,
	};
	snprintf(group->name, sizeof group->name, "%s", config->name);
	for (unsigned i = 0; i < geometry_n(config->geometry); i++)
		group->incarnation[i] = 1;
	store_group_made(group, store->index, store->incarnation);
	for (unsigned i = 0; i < config->volume_count; i++) {
		struct store_volume *volume = &group->volume[i];
		snprintf(volume->name, sizeof volume->name, "%s", config->volume[i].name);
		volume->size = config->volume[i].size;
		volume->block_bytes = config->volume[i].block_bytes;
	}
}

static void superblock_fill(const void *context, uint64_t offset, uint8_t *out, uint64_t length)
{
	must(offset == 0 && length == 2 * STORE_SUPERBLOCK_BYTES, "both copies are one piece");
	memcpy(out, context, length);
}

static int superblock_make(struct making *making, const struct config_group *config,
			   const struct volume_store *store)
{
	uint8_t *copies = calloc(2, STORE_SUPERBLOCK_BYTES);
	struct store_group *group = calloc(1, sizeof *group);
	char path[PATH_MAX];
	uint64_t segment_bytes;
	uint32_t segment_count;
	struct uuid id;
	int err = copies && group ? volume_random(&id, sizeof id) : -ENOMEM;

	if (!err) {
		store_group_new(config, store, group);
		journal_cut(config, &segment_bytes, &segment_count);
		for (unsigned i = 0; i < 2; i++)
			store_superblock_encode(group, &id, store->index, store->incarnation,
						segment_bytes, segment_count, i + 1,
						copies + i * STORE_SUPERBLOCK_BYTES);
		volume_store_path(store->directory, STORE_SUPERBLOCK, NULL, path);
		err = file_make(making, &(struct file_new){.path = path,
							   .bytes = 2 * STORE_SUPERBLOCK_BYTES,
							   .content = FILE_FILLED,
							   .fill = superblock_fill,
							   .context = copies});
	}
	free(group);
	free(copies);
	return err;
}

static int journal_make(struct making *making, const struct config_group *config,
			const struct volume_store *store)
{
	char path[PATH_MAX];
	uint64_t segment_bytes;
	uint32_t segment_count;

	journal_cut(config, &segment_bytes, &segment_count);
	volume_store_path(store->directory, STORE_JOURNAL, NULL, path);
	return file_make(making, &(struct file_new){.path = path,
						    .bytes = segment_bytes * segment_count,
						    .content = FILE_ZEROED});
}

static void slots_fill(const void *context, uint64_t offset, uint8_t *out, uint64_t length)
{
	const struct config_volume *volume = context;

	for (uint64_t at = 0; at < length; at += PAGE_BYTES)
		store_slots_format_page((offset + at) / PAGE_BYTES, volume->size,
					volume->block_bytes, out + at);
}

static int images_make(struct making *making, const struct config_group *config,
		       const struct volume_store *store)
{
	char path[PATH_MAX];
	int err = 0;

	for (unsigned i = 0; !err && i < config->volume_count; i++) {
		const struct config_volume *volume = &config->volume[i];
		volume_store_path(store->directory, STORE_IMAGE, volume->name, path);
		err = file_make(making, &(struct file_new){.path = path,
							   .bytes = store_image_file_bytes(
								   volume->size, config->geometry),
							   .content = FILE_RESERVED});
		if (err)
			break;
		volume_store_path(store->directory, STORE_SLOTS, volume->name, path);
		err = file_make(making,
				&(struct file_new){.path = path,
						   .bytes = store_slots_file_bytes(
							   volume->size, volume->block_bytes),
						   .content = FILE_FILLED,
						   .fill = slots_fill,
						   .context = volume});
	}
	return err;
}

/* The superblock comes last: a directory without one is no store. */
int store_make(struct making *making, const struct config_group *config,
	       const struct volume_store *store)
{
	int err = directory_make(making, store->directory);

	if (!err)
		err = images_make(making, config, store);
	if (!err)
		err = journal_make(making, config, store);
	if (!err)
		err = directory_sync(store->directory);
	if (!err)
		err = superblock_make(making, config, store);
	if (!err)
		err = directory_sync(store->directory);
	return err ? making_fails(making, err, "cannot make store %s: %s", store->directory,
				  strerror(-err))
		   : 0;
}

static int superblock_copy_read(const uint8_t *copy, struct volume_store_head *head,
				uint64_t *sequence)
{
	return store_superblock_decode(copy, &head->group, &head->id, &head->index,
				       &head->incarnation, &head->segment_bytes,
				       &head->segment_count, sequence);
}

int volume_store_read(const char *directory, struct volume_store_head *head)
{
	uint8_t *copies = malloc(2 * STORE_SUPERBLOCK_BYTES);
	char path[PATH_MAX];
	uint64_t sequence[2] = {0, 0};

	volume_store_path(directory, STORE_SUPERBLOCK, NULL, path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 || !copies ? -1 : pread(fd, copies, 2 * STORE_SUPERBLOCK_BYTES, 0);
	int err = !copies ? -ENOMEM : got < 0 ? -errno : 0;
	if (!err && got < 2 * STORE_SUPERBLOCK_BYTES)
		err = -ENOENT;
	if (!err) {
		int first = superblock_copy_read(copies, head, &sequence[0]);
		int second =
			superblock_copy_read(copies + STORE_SUPERBLOCK_BYTES, head, &sequence[1]);
		/* What was decoded last stays, so the newer one is decoded again. */
		if (!first && (second || sequence[0] > sequence[1]))
			second = superblock_copy_read(copies, head, &sequence[0]);
		err = first && second ? first : 0;
	}
	if (fd >= 0)
		close(fd);
	free(copies);
	return err;
}

static bool volume_is_made(const struct store_volume *made, const struct config_volume *volume)
{
	return strcmp(made->name, volume->name) == 0 && made->size == volume->size &&
	       made->block_bytes == volume->block_bytes;
}

static int group_judge(const struct config_group *config, const struct store_group *made, char *why,
		       size_t why_bytes)
{
	if (made->geometry.k != config->geometry.k || made->geometry.m != config->geometry.m) {
		snprintf(why, why_bytes, "was made for %u+%u, but the configuration says %u+%u",
			 made->geometry.k, made->geometry.m, config->geometry.k,
			 config->geometry.m);
		return -EINVAL;
	}
	if (made->volume_count != config->volume_count) {
		snprintf(why, why_bytes, "was made for %u volumes, but the configuration has %u",
			 made->volume_count, config->volume_count);
		return -EINVAL;
	}
	for (unsigned i = 0; i < config->volume_count; i++) {
		const struct store_volume *is = &made->volume[i];
		const struct config_volume *says = &config->volume[i];
		if (volume_is_made(is, says))
			continue;
		snprintf(why, why_bytes,
			 "was made for %s with %llu bytes in blocks of %u, but the configuration "
			 "says %s with %llu in blocks of %u",
			 is->name, (unsigned long long)is->size, is->block_bytes, says->name,
			 (unsigned long long)says->size, says->block_bytes);
		return -EINVAL;
	}
	return 0;
}

int volume_store_judge(const struct config_group *config, const char *directory, char *why,
		       size_t why_bytes)
{
	struct volume_store_head *head = malloc(sizeof *head);
	char differs[VOLUME_WHY_BYTES];
	int err = head ? volume_store_read(directory, head) : -ENOMEM;

	/* What cannot be read is told by those who open it. */
	err = err ? 0 : group_judge(config, &head->group, differs, sizeof differs);
	if (err)
		snprintf(why, why_bytes, "%s %s", directory, differs);
	free(head);
	return err;
}

static void store_files_remove(const struct config_group *config, const char *directory)
{
	char path[PATH_MAX];

	for (unsigned file = STORE_SUPERBLOCK; file <= STORE_JOURNAL; file++) {
		volume_store_path(directory, file, NULL, path);
		unlink(path);
	}
	for (unsigned i = 0; i < config->volume_count; i++)
		for (unsigned file = STORE_IMAGE; file <= STORE_SLOTS; file++) {
			volume_store_path(directory, file, config->volume[i].name, path);
			unlink(path);
		}
}

int volume_store_format(const struct config_group *config, const struct volume_store *store,
			char *why, size_t why_bytes)
{
	struct volume_store_head *head = malloc(sizeof *head);
	struct making making;
	int err = head ? volume_store_read(store->directory, head) : -ENOMEM;

	making_init(&making, why, why_bytes);
	making.cancel = store->cancel;
	if (!err && !uuid_equal(&head->group.set, &store->set))
		err = making_fails(&making, -EEXIST,
				   "%s holds a good store of another set (group %s); empty the "
				   "directory if it is not needed",
				   store->directory, head->group.name);
	else if (!err && head->index != store->index)
		err = making_fails(&making, -EEXIST,
				   "%s holds store %u of this set, and not %u; the paths in the "
				   "configuration are swapped",
				   store->directory, head->index, store->index);
	else if (err != -ENOMEM)
		err = 0;
	free(head);
	if (err)
		return making_fails(&making, err, "%s", strerror(-err));
	store_files_remove(config, store->directory);
	err = store_make(&making, config, store);
	if (err)
		making_undo(&making);
	else
		making_keep(&making);
	return err;
}
