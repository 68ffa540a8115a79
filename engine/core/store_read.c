/* SPDX-License-Identifier: Apache-2.0 */
/* Looking up and reading what a store holds: the journal first, then the image. */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

static uint32_t block_newest(const struct store *s, uint8_t volume, uint64_t block)
{
	must(volume < s->config.volume_count && block < s->image.volume[volume].block_count,
	     "the block is in the volume");
	return s->image.block_head[s->image.volume[volume].block_base + block];
}

/* Up to here the image may already be newer than its slot headers say: a fold writes shards before
 * headers, and one that a crash broke off is known by the recorded fold point. */
static lsn_t image_writing(const struct store *s)
{
	return max_u64(s->group.fold_point, s->fold.step == FOLD_IDLE ? 0 : s->fold.point);
}

/* Whether the block has a record above the limit that a fold brings, or may have brought, to its
 * place in the image. */
static bool block_overtaken(const struct store *s, uint8_t volume, uint64_t block)
{
	uint32_t index = block_newest(s, volume, block);

	for (; index != ENTRY_NONE; index = s->table.entry[index].block_next) {
		const struct entry *entry = &s->table.entry[index];
		if (entry->record.lsn <= s->image_point)
			return false;
		if (entry->counts && entry->record.lsn <= image_writing(s))
			return true;
	}
	return false;
}

static void slot_record(const struct store *s, uint8_t volume, uint64_t block,
			struct record *record)
{
	const struct disk_slot *slot = image_slot(s, volume, block);

	*record = (struct record){
		.span = slot->span,
		.lsn = slot->lsn,
		.identity = {slot->identity_span, slot->identity_lsn, slot->identity_generation},
		.volume = s->asked.volume[volume].id,
		.block = block,
		.kind = slot->kind,
		.shard = s->config.index,
		.geometry = s->config.geometry,
		.block_bytes = s->config.volume[volume].block_bytes,
		.shard_crc = slot->shard_crc,
		.block_crc = slot->block_crc,
		.wall_ns = slot->wall_ns,
		.powered_ns = slot->powered_ns,
	};
	if (record_kind_has_payload(slot->kind))
		record->shard_bytes = s->image.volume[volume].shard_bytes;
	memcpy(record->tag, slot->tag, TAG_BYTES);
}

int store_find(const struct store *s, uint8_t volume, uint64_t block, lsn_t limit,
	       struct record *record)
{
	uint32_t index = block_newest(s, volume, block);

	for (; index != ENTRY_NONE; index = s->table.entry[index].block_next) {
		const struct entry *entry = &s->table.entry[index];
		if (entry->record.lsn <= s->image_point)
			break;
		if (!entry->counts || entry->record.lsn > limit)
			continue;
		*record = entry->record;
		return 0;
	}
	const struct disk_slot *slot = image_slot(s, volume, block);
	if (block_overtaken(s, volume, block))
		return -ESTALE;
	if (slot->kind == SLOT_HOLE)
		return -EBADMSG;
	if (slot->lsn > limit)
		return -ESTALE;
	if (slot->kind == SLOT_NEVER_WRITTEN)
		return -ENOENT;
	slot_record(s, volume, block, record);
	return 0;
}

int store_find_lsn(const struct store *s, lsn_t lsn, struct record *record)
{
	uint32_t index = lsn > s->image_point ? table_find(s, NULL, lsn) : ENTRY_NONE;

	if (index == ENTRY_NONE)
		return -ENOENT;
	*record = s->table.entry[index].record;
	return 0;
}

/* cursor: the segment, and one more than the index of the entry given last. */
int store_next(const struct store *s, uint64_t *cursor, struct record *record, bool *counts)
{
	uint32_t segment = (uint32_t)(*cursor >> 32), last = (uint32_t)*cursor;
	uint32_t next = ENTRY_NONE;

	if (segment >= s->config.segment_count)
		return -ENOENT;
	if (last == 0) {
		next = s->journal.segment[segment].head;
	} else if (last <= s->table.capacity) {
		const struct entry *entry = &s->table.entry[last - 1];
		if (entry->live && entry->segment == segment)
			next = entry->segment_next;
	}
	while (next == ENTRY_NONE) {
		if (++segment >= s->config.segment_count)
			return -ENOENT;
		next = s->journal.segment[segment].head;
	}
	const struct entry *entry = &s->table.entry[next];
	*record = entry->record;
	*counts = entry->counts && entry->record.lsn > s->image_point;
	*cursor = (uint64_t)segment << 32 | (next + 1);
	return 0;
}

/* ---- reading ---- */

enum { READ_NOWHERE, READ_JOURNAL, READ_IMAGE };
struct location {
	unsigned where;
	uint32_t entry;
	uint16_t file;
	uint64_t offset;
	uint64_t version; /* changes when the place is used for something else */
};

static struct location record_locate(const struct store *s, const struct record *record)
{
	uint8_t volume = record_volume(s, record);
	uint32_t index = table_find(s, &record->span, record->lsn);

	if (volume == NO_VOLUME)
		return (struct location){READ_NOWHERE};
	if (index != ENTRY_NONE && s->table.entry[index].volume == volume &&
	    s->table.entry[index].record.block == record->block) {
		const struct entry *entry = &s->table.entry[index];
		return (struct location){READ_JOURNAL, index, s->config.files.journal,
					 entry->segment * s->config.segment_bytes +
						 entry->payload_page * (uint64_t)PAGE_BYTES,
					 entry->sequence};
	}
	const struct disk_slot *slot = image_slot(s, volume, record->block);
	if (slot->kind != record->kind || slot->lsn != record->lsn ||
	    !uuid_equal(&slot->span, &record->span) || block_overtaken(s, volume, record->block))
		return (struct location){READ_NOWHERE};
	return (struct location){READ_IMAGE, ENTRY_NONE, s->config.files.image[volume],
				 record->block * s->image.volume[volume].shard_bytes, record->lsn};
}

static void read_answer(struct io *io, int32_t result, struct effects *fx)
{
	struct store_read *read = container_of(io, struct store_read, io);

	read->done(read, (int)(int64_t)read->internal[1], fx);
}

static void read_done(struct io *io, int32_t result, struct effects *fx)
{
	struct store_read *read = container_of(io, struct store_read, io);
	struct store *s = read->store;
	int err = io_error(io, result);

	if (!err && crc32c(read->buffer, read->record.shard_bytes) == read->record.shard_crc) {
		read->done(read, 0, fx);
		return;
	}
	/* Is it damage, or was the place used for something else meanwhile? */
	struct location now = record_locate(s, &read->record);
	if (now.where == READ_NOWHERE || now.offset != read->internal[0] ||
	    now.version != read->internal[1] || now.file != io->file) {
		read->done(read, -ESTALE, fx);
		return;
	}
	if (now.where == READ_JOURNAL)
		s->table.entry[now.entry].bad = true;
	s->damage++;
	read->done(read, err ? -EIO : -EBADMSG, fx);
}

void store_read(struct store *s, struct store_read *read, struct effects *fx)
{
	struct location at = record_locate(s, &read->record);
	int result = s->state != STORE_READY	 ? -EIO
		     : !read->record.shard_bytes ? 0
		     : at.where == READ_NOWHERE	 ? -ESTALE
						 : 1;

	read->store = s;
	if (result <= 0) {
		read->io = (struct io){.done = read_answer};
		read->internal[1] = (uint64_t)(int64_t)result;
		store_defer(s, &read->io);
		return;
	}
	const struct transfer transfer = {
		.kind = IO_READ,
		.file = at.file,
		.offset = at.offset,
		.memory = read->buffer,
		.length = read->record.shard_bytes,
	};
	read->internal[0] = at.offset;
	read->internal[1] = at.version;
	io_prepare(&read->io, &transfer, read_done);
	effects_io(fx, &read->io);
}
