/* SPDX-License-Identifier: Apache-2.0 */
/* Folding: of each block the newest record that counts up to the fold point goes from the journal
 * to the image (docs/store-format.md "fold").
 *
 * The order that makes a crash harmless at any point: shards written to the image; image synced;
 * slot pages written; slots synced; image point moved; superblock written with it and with the
 * segments that are free now. Until the last step every record is still in the journal, and folding
 * it again gives the same image.
 */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

uint32_t fold_target(const struct store *s, uint8_t volume, uint64_t block, lsn_t point)
{
	uint32_t index = s->image.block_head[s->image.volume[volume].block_base + block];
	const struct entry *entry = NULL;

	for (; index != ENTRY_NONE; index = entry->block_next) {
		entry = &s->table.entry[index];
		if (entry->record.lsn <= s->image_point)
			return ENTRY_NONE;
		if (entry->counts && entry->record.lsn <= point)
			break;
	}
	if (index == ENTRY_NONE)
		return ENTRY_NONE;
	const struct disk_slot *slot = image_slot(s, volume, block);
	if (slot->lsn > entry->record.lsn ||
	    (slot->lsn == entry->record.lsn && slot->kind != SLOT_HOLE))
		return ENTRY_NONE;
	return index;
}

void fold_apply_page(struct store *s, uint8_t volume, uint64_t page)
{
	const struct image_volume *v = &s->image.volume[volume];
	uint64_t block = page * SLOTS_PER_PAGE, end = block + image_slots_in_page(v, page);

	for (; block < end; block++) {
		uint32_t index = s->image.block_head[v->block_base + block];
		while (index != ENTRY_NONE && !s->table.entry[index].folded)
			index = s->table.entry[index].block_next;
		if (index == ENTRY_NONE)
			continue;
		const struct entry *entry = &s->table.entry[index];
		if (entry->record.lsn >= image_slot(s, volume, block)->lsn)
			image_slot_set(s, volume, block, &entry->record,
				       entry->bad ? SLOT_HOLE : entry->record.kind);
	}
}

/* ---- runs: neighbours in the image, brought there by one write ---- */

static struct fold_run *run_idle(struct store *s)
{
	for (unsigned i = 0; i < FOLD_RUNS_MAX; i++)
		if (!s->fold.run[i].busy)
			return &s->fold.run[i];
	return NULL;
}

static void run_written(struct io *io, int32_t result, struct effects *fx)
{
	struct fold_run *run = container_of(io, struct fold_run, write);
	int err = io_error(io, result);

	if (store_room_wait(run->store, io, err, fx))
		return;
	run->busy = false;
	run->store->fold.busy--;
	run->store->image.commit.images |= 1u << run->volume;
	if (err)
		store_fail(run->store, err, fx);
}

static void run_write(struct fold_run *run, struct effects *fx)
{
	struct store *s = run->store;
	uint64_t shard_bytes = s->image.volume[run->volume].shard_bytes;
	const struct transfer transfer = {
		.kind = IO_WRITE,
		.file = s->config.files.image[run->volume],
		.offset = run->block * shard_bytes,
		.memory = run->buffer,
		.length = run->count * shard_bytes,
	};

	io_prepare(&run->write, &transfer, run_written);
	effects_io(fx, &run->write);
}

/* A shard that does not check becomes a hole in the image: the place is kept, peers repair it. */
static void run_check(struct fold_run *run)
{
	struct store *s = run->store;

	for (unsigned i = 0; i < run->count; i++) {
		struct entry *entry = &s->table.entry[run->entry[i]];
		uint32_t shard_bytes = entry->record.shard_bytes;
		const uint8_t *shard = run->buffer + (size_t)i * shard_bytes;
		bool was_bad = entry->bad;
		entry->bad = crc32c(shard, shard_bytes) != entry->record.shard_crc;
		if (entry->bad && !was_bad)
			s->damage++;
	}
}

static void run_read(struct io *io, int32_t result, struct effects *fx)
{
	struct fold_read *read = container_of(io, struct fold_read, io);
	struct fold_run *run = read->run;
	struct store *s = run->store;

	/* What cannot be read does not check either. */
	if (io_error(io, result))
		memset(io->single.iov_base, 0xff, io->length);
	if (--run->reads_left)
		return;
	if (s->state != STORE_READY) {
		run->busy = false;
		s->fold.busy--;
		return;
	}
	run_check(run);
	run_write(run, fx);
}

static void run_read_submit(struct fold_run *run, struct fold_read *read, struct effects *fx)
{
	struct store *s = run->store;
	const struct entry *entry = &s->table.entry[run->entry[read->first]];
	uint64_t shard_bytes = entry->record.shard_bytes;
	const struct transfer transfer = {
		.kind = IO_READ,
		.file = s->config.files.journal,
		.offset = entry->segment * s->config.segment_bytes +
			  entry->payload_page * (uint64_t)PAGE_BYTES,
		.memory = run->buffer + read->first * shard_bytes,
		.length = read->count * shard_bytes,
	};

	read->run = run;
	io_prepare(&read->io, &transfer, run_read);
	effects_io(fx, &read->io);
}

/* Shards that also lie side by side in the journal are read at once. */
static void run_read_all(struct fold_run *run, struct effects *fx)
{
	struct store *s = run->store;
	struct fold_read *read = NULL;

	run->read_count = 0;
	for (unsigned i = 0; i < run->count; i++) {
		const struct entry *entry = &s->table.entry[run->entry[i]];
		const struct entry *before = i ? &s->table.entry[run->entry[i - 1]] : NULL;
		if (before && before->segment == entry->segment &&
		    before->payload_page + before->record.shard_bytes / PAGE_BYTES ==
			    entry->payload_page) {
			read->count++;
			continue;
		}
		read = &run->read[run->read_count++];
		read->first = i;
		read->count = 1;
	}
	run->reads_left = run->read_count;
	for (unsigned i = 0; i < run->read_count; i++)
		run_read_submit(run, &run->read[i], fx);
}

/* Gathers neighbours with a shard from the cursor on. */
static void run_gather(struct store *s, struct fold_run *run, uint32_t first)
{
	struct fold *fold = &s->fold;
	const struct image_volume *v = &s->image.volume[fold->volume];
	unsigned most = FOLD_RUN_BYTES / v->shard_bytes;

	run->volume = fold->volume;
	run->block = fold->block;
	run->count = 0;
	for (uint32_t index = first; index != ENTRY_NONE;) {
		s->table.entry[index].folded = true;
		image_mark(s, fold->volume, fold->block);
		run->entry[run->count++] = index;
		fold->block++;
		if (run->count == most || fold->block == v->block_count)
			break;
		index = fold_target(s, fold->volume, fold->block, fold->point);
		if (index != ENTRY_NONE && s->table.entry[index].record.kind != RECORD_DATA)
			break;
	}
}

/* One step of the cursor. false: no run is idle. */
static bool fold_copy_next(struct store *s, struct effects *fx)
{
	struct fold *fold = &s->fold;
	const struct image_volume *v = &s->image.volume[fold->volume];

	if (fold->block == v->block_count) {
		fold->volume++;
		fold->block = 0;
		return true;
	}
	if (fold->block % SLOTS_PER_PAGE == 0 &&
	    s->image.page_use[v->page_base + fold->block / SLOTS_PER_PAGE] == 0) {
		fold->block = min_u64(fold->block + SLOTS_PER_PAGE, v->block_count);
		return true;
	}
	uint32_t index = fold_target(s, fold->volume, fold->block, fold->point);
	if (index == ENTRY_NONE) {
		fold->block++;
		return true;
	}
	struct entry *entry = &s->table.entry[index];
	/* What reads as zeros says so in its header; the place keeps its space. */
	if (entry->record.kind != RECORD_DATA) {
		entry->folded = true;
		image_mark(s, fold->volume, fold->block++);
		return true;
	}
	struct fold_run *run = run_idle(s);
	if (!run)
		return false;
	run->busy = true;
	fold->busy++;
	run_gather(s, run, index);
	run_read_all(run, fx);
	return true;
}

static void fold_copy_begin(struct store *s)
{
	s->fold.step = FOLD_COPY;
	s->fold.volume = 0;
	s->fold.block = 0;
	s->fold.late = false;
}

/* ---- the steps ---- */

static void fold_committed(struct store *s, struct effects *fx)
{
	struct fold *fold = &s->fold;

	if (fold->late) {
		fold_copy_begin(s);
		return;
	}
	s->image_point = fold->point;
	must(ranges_remove(&s->held, 0, fold->point + 1) == 0,
	     "the front comes off without a split");
	journal_purge_start(s, true);
	fold->step = FOLD_PURGE;
}

static void fold_recorded(struct store_superblock_write *write, int result, struct effects *fx)
{
	struct store *s = write->store;

	if (result)
		return;
	s->fold.step = FOLD_IDLE;
	s->config.folded(s, fx);
}

static void fold_point_recorded(struct store_superblock_write *write, int result,
				struct effects *fx)
{
	if (!result)
		write->store->fold.step = FOLD_WAIT;
}

/* DESIGN "fold": F is recorded before the first slot changes. The caller has done so, unless a
 * crash came between this store and its peers. */
static void fold_record_point(struct store *s, struct effects *fx)
{
	struct fold *fold = &s->fold;

	if (s->group.fold_point >= fold->point)
		return;
	s->asked.fold_point = max_u64(s->asked.fold_point, fold->point);
	fold->step = FOLD_RECORD;
	fold->superblock.done = fold_point_recorded;
	superblock_ask(s, &fold->superblock, fx);
}

void fold_turn(struct store *s, struct effects *fx)
{
	struct fold *fold = &s->fold;

	if (fold->step == FOLD_WAIT && s->image.slot_writes == s->image.queued &&
	    s->image.commit.step == COMMIT_IDLE)
		fold_copy_begin(s);
	if (fold->step == FOLD_COPY) {
		for (unsigned i = 0; i < ENTRIES_PER_TURN; i++)
			if (fold->volume == s->config.volume_count || !fold_copy_next(s, fx))
				break;
		if (fold->volume < s->config.volume_count || fold->busy)
			return;
		fold->step = FOLD_COMMIT;
		image_commit(s, fold_committed, fx);
	}
	if (fold->step == FOLD_PURGE && !s->journal.purging) {
		fold->step = FOLD_SUPERBLOCK;
		fold->superblock.done = fold_recorded;
		superblock_ask(s, &fold->superblock, fx);
	}
}

void store_fold(struct store *s, lsn_t fold_point, struct effects *fx)
{
	must(s->fold.step == FOLD_IDLE, "one fold at a time");
	if (s->state != STORE_READY)
		return;
	s->fold.point = max_u64(fold_point, s->image_point);
	s->fold.step = FOLD_WAIT;
	fold_record_point(s, fx);
}

bool store_folding(const struct store *s)
{
	return s->state == STORE_READY && s->fold.step != FOLD_IDLE;
}
