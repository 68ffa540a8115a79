/* SPDX-License-Identifier: Apache-2.0 */
/* The superblock of a store: two copies written alternately, so that a torn write leaves the other
 * one (docs/store-format.md "superblock"). One write is in flight; those who ask meanwhile share
 * the next one. */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

static uint32_t superblock_crc(const struct disk_superblock *disk)
{
	return crc32c(disk, offsetof(struct disk_superblock, crc));
}

static void volumes_encode(const struct store_group *group, struct disk_superblock *disk)
{
	for (unsigned i = 0; i < group->volume_count; i++) {
		const struct store_volume *volume = &group->volume[i];
		struct disk_volume *out = &disk->volume[i];
		memcpy(out->name, volume->name, sizeof out->name);
		out->id = volume->id;
		out->size = volume->size;
		out->block_bytes = volume->block_bytes;
		memcpy(out->wrapped_key, volume->wrapped_key, sizeof out->wrapped_key);
		memcpy(out->key_check, volume->key_check, sizeof out->key_check);
	}
}

static void group_encode(const struct store_group *group, struct disk_superblock *disk)
{
	must(group->volume_count <= VOLUMES_PER_GROUP_MAX && group->spans.count <= SPANS_MAX,
	     "a group fits its superblock");
	disk->set = group->set;
	disk->k = group->geometry.k;
	disk->m = group->geometry.m;
	disk->quorum = group->quorum;
	disk->volume_count = group->volume_count;
	disk->fold_point = group->fold_point;
	disk->powered_ns = group->powered_ns;
	disk->assembly = group->assembly;
	disk->promised = group->promised;
	disk->generation = group->generation;
	disk->promoted = group->promoted;
	disk->out = group->out;
	memcpy(disk->name, group->name, sizeof disk->name);
	memcpy(disk->store_incarnation, group->incarnation, sizeof disk->store_incarnation);
	volumes_encode(group, disk);
	disk->span_count = group->spans.count;
	for (unsigned i = 0; i < group->spans.count; i++)
		span_encode(&group->spans.span[i], disk->span[i]);
}

static void superblock_finish(struct disk_superblock *disk)
{
	disk->magic = SUPERBLOCK_MAGIC;
	disk->version = FORMAT_VERSION;
	disk->length = sizeof *disk;
	disk->crc = superblock_crc(disk);
}

void store_group_made(struct store_group *group, uint8_t index, uint32_t incarnation)
{
	group->incarnation[index] = incarnation;
	if (incarnation > 1)
		group->out |= 1u << index;
}

void store_superblock_encode(const struct store_group *group, const struct uuid *store_id,
			     uint8_t index, uint32_t incarnation, uint64_t segment_bytes,
			     uint32_t segment_count, uint64_t sequence,
			     uint8_t out[STORE_SUPERBLOCK_BYTES])
{
	struct disk_superblock disk = {
		.sequence = sequence,
		.store = *store_id,
		.index = index,
		.incarnation = incarnation,
		.segment_count = segment_count,
		.segment_bytes = segment_bytes,
	};

	group_encode(group, &disk);
	superblock_finish(&disk);
	memcpy(out, &disk, sizeof disk);
}

static bool superblock_sane(const struct disk_superblock *disk)
{
	unsigned n = disk->k + disk->m;

	if (disk->k < 1 || disk->k > DATA_SHARDS_MAX || disk->m > PARITY_SHARDS_MAX ||
	    disk->index >= n || disk->quorum > n || disk->volume_count > VOLUMES_PER_GROUP_MAX ||
	    disk->span_count > SPANS_MAX || disk->segment_count > STORE_SEGMENTS_MAX ||
	    disk->length != sizeof *disk || disk->name[NAME_BYTES_MAX - 1])
		return false;
	for (unsigned i = 0; i < disk->volume_count; i++)
		if (disk->volume[i].name[NAME_BYTES_MAX - 1])
			return false;
	return true;
}

static int group_decode(const struct disk_superblock *disk, struct store_group *group)
{
	*group = (struct store_group){
		.set = disk->set,
		.geometry = {disk->k, disk->m},
		.quorum = disk->quorum,
		.volume_count = disk->volume_count,
		.assembly = disk->assembly,
		.promised = disk->promised,
		.generation = disk->generation,
		.fold_point = disk->fold_point,
		.promoted = disk->promoted,
		.powered_ns = disk->powered_ns,
		.out = disk->out,
	};
	memcpy(group->name, disk->name, sizeof group->name);
	memcpy(group->incarnation, disk->store_incarnation, sizeof group->incarnation);
	for (unsigned i = 0; i < disk->volume_count; i++) {
		const struct disk_volume *in = &disk->volume[i];
		struct store_volume *volume = &group->volume[i];
		memcpy(volume->name, in->name, sizeof volume->name);
		volume->id = in->id;
		volume->size = in->size;
		volume->block_bytes = in->block_bytes;
		memcpy(volume->wrapped_key, in->wrapped_key, sizeof volume->wrapped_key);
		memcpy(volume->key_check, in->key_check, sizeof volume->key_check);
	}
	group->spans.count = disk->span_count;
	for (unsigned i = 0; i < disk->span_count; i++)
		if (span_decode(&group->spans.span[i], disk->span[i]))
			return -EBADMSG;
	return 0;
}

/* docs/store-format.md "superblock": the length of a copy and the place of its CRC never change, so
 * that damage is told from a newer version. */
static int superblock_check(const struct disk_superblock *disk)
{
	if (disk->magic != SUPERBLOCK_MAGIC)
		return -ENOENT;
	if (disk->crc != superblock_crc(disk))
		return -EBADMSG;
	if (disk->version != FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	return superblock_sane(disk) ? 0 : -EBADMSG;
}

int store_superblock_decode(const uint8_t in[STORE_SUPERBLOCK_BYTES], struct store_group *group,
			    struct uuid *store_id, uint8_t *index, uint32_t *incarnation,
			    uint64_t *segment_bytes, uint32_t *segment_count, uint64_t *sequence)
{
	struct disk_superblock disk;
	struct store_group read;

	memcpy(&disk, in, sizeof disk);
	int err = superblock_check(&disk);
	if (!err)
		err = group_decode(&disk, &read);
	if (err)
		return err;
	if (group)
		*group = read;
	if (store_id)
		*store_id = disk.store;
	if (index)
		*index = disk.index;
	if (incarnation)
		*incarnation = disk.incarnation;
	if (segment_bytes)
		*segment_bytes = disk.segment_bytes;
	if (segment_count)
		*segment_count = disk.segment_count;
	if (sequence)
		*sequence = disk.sequence;
	return 0;
}

/* ---- at the start ---- */

static bool superblock_is_ours(const struct store *s, const struct disk_superblock *disk)
{
	const struct store_config *config = &s->config;

	if (disk->index != config->index || disk->k != config->geometry.k ||
	    disk->m != config->geometry.m || disk->segment_bytes != config->segment_bytes ||
	    disk->segment_count != config->segment_count ||
	    disk->volume_count != config->volume_count)
		return false;
	for (unsigned i = 0; i < config->volume_count; i++)
		if (disk->volume[i].size != config->volume[i].size ||
		    disk->volume[i].block_bytes != config->volume[i].block_bytes)
			return false;
	return true;
}

int superblock_load(struct store *s)
{
	const struct disk_superblock *copy = (const void *)s->scratch, *best = NULL;
	int result = -ENOENT;

	for (unsigned i = 0; i < 2; i++) {
		int err = superblock_check(&copy[i]);
		if (!err && (!best || copy[i].sequence > best->sequence))
			best = &copy[i];
		/* Of two bad copies the one that says more: damage, then version, then nothing. */
		if (err == -EBADMSG || (err && result == -ENOENT))
			result = err;
	}
	if (!best)
		return result;
	if (group_decode(best, &s->group))
		return -EBADMSG;
	s->id = best->store;
	s->incarnation = best->incarnation;
	if (!superblock_is_ours(s, best))
		return -EXDEV;
	s->superblock.sequence = best->sequence;
	s->superblock.place = best == &copy[0];
	s->asked = s->group;
	s->spans = s->group.spans;
	s->image_point = best->image_point;
	s->lsn_max = max_u64(best->lsn_max, best->image_point);
	s->journal.sequence = best->batch_sequence;
	s->journal.epoch = best->segment_epoch;
	for (unsigned i = 0; i < s->config.segment_count; i++)
		s->journal.segment[i].freed = best->freed_epoch[i];
	return 0;
}

/* ---- writing ---- */

static void superblock_encode(struct store *s, struct disk_superblock *disk)
{
	*disk = (struct disk_superblock){
		.sequence = s->superblock.sequence,
		.store = s->id,
		.index = s->config.index,
		.incarnation = s->incarnation,
		.segment_count = s->config.segment_count,
		.segment_bytes = s->config.segment_bytes,
		.image_point = s->image_point,
		.lsn_max = s->lsn_max,
		.batch_sequence = s->journal.sequence,
		.segment_epoch = s->journal.epoch,
	};
	for (unsigned i = 0; i < s->config.segment_count; i++)
		disk->freed_epoch[i] = journal_freeable_epoch(s, i);
	group_encode(&s->riding, disk);
	superblock_finish(disk);
}

static void waiters_tell(struct superblock_list *list, int result, struct effects *fx)
{
	struct store_superblock_write *waiter = list->head;

	*list = (struct superblock_list){0};
	while (waiter) {
		struct store_superblock_write *next = waiter->next;
		waiter->next = NULL;
		waiter->done(waiter, result, fx);
		waiter = next;
	}
}

static void superblock_submit(struct store *s, struct effects *fx);

static void superblock_done(struct io *io, int32_t result, struct effects *fx)
{
	struct store *s = container_of(io, struct store, superblock.io);
	int err = io_error(io, result);

	s->superblock.busy = false;
	if (err)
		store_fail(s, err, fx);
	if (s->state != STORE_READY) {
		waiters_tell(&s->superblock.riding, err ? err : -EIO, fx);
		return;
	}
	s->group = s->riding;
	journal_freed(s, s->superblock.disk->freed_epoch);
	struct superblock_list told = s->superblock.riding;
	s->superblock.riding = (struct superblock_list){0};
	if (s->superblock.waiting.head)
		superblock_submit(s, fx);
	waiters_tell(&told, 0, fx);
}

static void superblock_submit(struct store *s, struct effects *fx)
{
	must(!s->superblock.busy, "one superblock write is in flight");
	journal_leave_empty_segment(s);
	s->superblock.busy = true;
	s->superblock.sequence++;
	s->superblock.riding = s->superblock.waiting;
	s->superblock.waiting = (struct superblock_list){0};
	s->riding = s->asked;
	superblock_encode(s, s->superblock.disk);
	const struct transfer transfer = {
		.kind = IO_WRITE_DURABLE,
		.file = s->config.files.superblock,
		.offset = s->superblock.place * (uint64_t)STORE_SUPERBLOCK_BYTES,
		.memory = s->superblock.disk,
		.length = STORE_SUPERBLOCK_BYTES,
	};
	io_prepare(&s->superblock.io, &transfer, superblock_done);
	s->superblock.place ^= 1;
	effects_io(fx, &s->superblock.io);
}

void superblock_ask(struct store *s, struct store_superblock_write *waiter, struct effects *fx)
{
	struct superblock_list *list = &s->superblock.waiting;

	waiter->store = s;
	waiter->next = NULL;
	if (list->tail && list->head)
		list->tail->next = waiter;
	else
		list->head = waiter;
	list->tail = waiter;
	if (s->state == STORE_READY && !s->superblock.busy)
		superblock_submit(s, fx);
}

void store_write_group(struct store *s, struct store_superblock_write *write, struct effects *fx)
{
	must(write->group->geometry.k == s->config.geometry.k &&
		     write->group->geometry.m == s->config.geometry.m &&
		     write->group->volume_count == s->config.volume_count,
	     "a group keeps its shape");
	/* A store that is not ready keeps what it knows; the waiter is told at the end of the turn.
	 */
	if (s->state == STORE_READY)
		s->asked = *write->group;
	superblock_ask(s, write, fx);
}

void superblock_fail(struct store *s, int err, struct effects *fx)
{
	waiters_tell(&s->superblock.waiting, err, fx);
}
