/* SPDX-License-Identifier: Apache-2.0 */
/* Appending to the journal of a store: items are gathered into batches, a batch is one synced write
 * inside one segment (docs/store-format.md "journal"). Segments are used in a ring; one is taken
 * again only when a durable superblock says that what it held is in the image.
 *
 * Room: an item that was accepted can always be written. It costs at most a header page and its
 * shard; the end of each segment may be lost to an item that does not fit; one free segment stays
 * in reserve, so that a restart, which begins a fresh one, always finds it.
 */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

static void append_push(struct append_list *list, struct store_append *item)
{
	item->next = NULL;
	if (list->head)
		list->tail->next = item;
	else
		list->head = item;
	list->tail = item;
}

static struct store_append *append_pop(struct append_list *list)
{
	struct store_append *item = list->head;

	if (item)
		list->head = item->next;
	return item;
}

static uint64_t item_cost(const struct store_append *item)
{
	return PAGE_BYTES + align_up(item->record.shard_bytes, PAGE_BYTES);
}

static bool journal_has_current(const struct store *s)
{
	return s->journal.current < s->config.segment_count;
}

static uint64_t journal_room(const struct store *s)
{
	const struct journal *journal = &s->journal;
	uint64_t lost = journal->item_bytes_max - PAGE_BYTES;
	uint64_t position = journal_has_current(s) ? journal->position : 0;
	uint32_t free = journal->free_count;
	uint64_t room = 0;

	if (!journal_has_current(s)) {
		if (free == 0)
			return 0;
		free--; /* the first one after a start may be the reserve */
	}
	if (s->config.segment_bytes > position + lost)
		room += s->config.segment_bytes - position - lost;
	if (free > 1)
		room += (free - 1) * (s->config.segment_bytes - lost);
	return room;
}

uint8_t record_volume(const struct store *s, const struct record *record)
{
	if (!kind_has_block(record->kind))
		return NO_VOLUME;
	for (uint8_t i = 0; i < s->config.volume_count; i++)
		if (uuid_equal(&s->asked.volume[i].id, &record->volume))
			return record->block < s->image.volume[i].block_count ? i : NO_VOLUME;
	return NO_VOLUME;
}

int store_append(struct store *s, struct store_append *item)
{
	struct journal *journal = &s->journal;
	const struct record *record = &item->record;
	uint8_t volume = record_volume(s, record);

	if (s->state != STORE_READY)
		return -EIO;
	if (kind_has_block(record->kind) && volume == NO_VOLUME)
		return -EINVAL;
	must(record->lsn > 0 && record->lsn < UINT64_MAX, "an lsn was drawn");
	must(record->shard == s->config.index, "shard i belongs to store i");
	must(record->shard_bytes == (record_kind_has_payload(record->kind)
					     ? s->image.volume[volume].shard_bytes
					     : 0),
	     "a shard has the size of its volume's shards");
	must(!record->shard_bytes || (uintptr_t)item->shard % PAGE_BYTES == 0,
	     "shards go to the disk from whole pages");
	if (journal->queued_cost + item_cost(item) > journal_room(s) ||
	    journal->written + journal->queued_count >= s->table.capacity)
		return -ENOSPC;
	append_push(&journal->queue, item);
	journal->queued_count++;
	journal->queued_bytes += record->shard_bytes;
	journal->queued_cost += item_cost(item);
	return 0;
}

unsigned store_appends_in_flight_max(uint32_t shard_bytes)
{
	/* One that is larger than a batch should be goes alone. */
	uint64_t in_batch = max_u64(BATCH_TOTAL_BYTES_MAX / shard_bytes, 1);

	return BATCHES_IN_FLIGHT_MAX * (unsigned)min_u64(in_batch, BATCH_RECORDS_MAX);
}

/* ---- segments ---- */

uint64_t journal_freeable_epoch(const struct store *s, uint32_t index)
{
	const struct segment *segment = &s->journal.segment[index];
	bool needed = segment->used || segment->writing || index == s->journal.current;

	return needed ? segment->freed : max_u64(segment->epoch, segment->freed);
}

void journal_leave_empty_segment(struct store *s)
{
	struct journal *journal = &s->journal;

	if (!journal_has_current(s) || journal->queue.head)
		return;
	const struct segment *segment = &journal->segment[journal->current];
	if (!segment->used && !segment->writing && journal->position > 0)
		journal->current = s->config.segment_count;
}

void journal_freed(struct store *s, const uint64_t freed_epoch[])
{
	struct journal *journal = &s->journal;

	for (unsigned i = 0; i < s->config.segment_count; i++) {
		struct segment *segment = &journal->segment[i];
		bool was_free = segment_free(segment);
		must(freed_epoch[i] >= segment->freed, "what is free stays free");
		segment->freed = freed_epoch[i];
		if (was_free || !segment_free(segment))
			continue;
		must(!segment->used && !segment->writing, "a needed segment is not freed");
		journal->free_count++;
		journal->written -= segment->written;
		segment->written = 0;
	}
}

static bool segment_take(struct store *s)
{
	struct journal *journal = &s->journal;
	uint32_t count = s->config.segment_count;
	uint32_t from = journal_has_current(s) ? journal->current + 1 : journal->epoch % count;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = (from + i) % count;
		struct segment *segment = &journal->segment[index];
		if (!segment_free(segment))
			continue;
		must(!segment->used && !segment->writing, "a free segment is empty");
		segment->epoch = ++journal->epoch;
		must(!segment_free(segment), "a new epoch is above what was freed");
		journal->free_count--;
		journal->current = index;
		journal->position = 0;
		journal->current_first = journal->sequence + 1;
		return true;
	}
	return false;
}

/* ---- batches ---- */

static void batch_header_fill(struct store *s, struct batch *batch, struct disk_batch *header)
{
	const struct journal *journal = &s->journal;

	*header = (struct disk_batch){
		.magic = BATCH_MAGIC,
		.version = FORMAT_VERSION,
		.incarnation = s->incarnation,
		.set = s->group.set,
		.store = s->id,
		.segment = batch->segment,
		.record_count = header->record_count,
		.epoch = journal->segment[batch->segment].epoch,
		.offset = journal->position,
		.sequence = batch->sequence,
		.first_sequence = journal->current_first,
		.start_sequence = journal->start_sequence,
		.synced = journal->synced,
		.powered_ns = header->powered_ns,
		.header_bytes = header->header_bytes,
		.payload_bytes = header->payload_bytes,
		.promised = s->promise.lsn,
		.promised_generation = s->promise.generation,
	};
	header->crc = crc32c(header, offsetof(struct disk_batch, crc));
}

static void record_encode(const struct record *record, const struct place *place, unsigned number,
			  struct disk_record *out)
{
	*out = (struct disk_record){
		.sequence = place->sequence,
		.lsn = record->lsn,
		.span = record->span,
		.identity_span = record->identity.span,
		.identity_lsn = record->identity.lsn,
		.identity_generation = record->identity.generation,
		.kind = record->kind,
		.shard = record->shard,
		.k = record->geometry.k,
		.m = record->geometry.m,
		.volume = record->volume,
		.block = record->block,
		.block_bytes = record->block_bytes,
		.shard_bytes = record->shard_bytes,
		.shard_crc = record->shard_crc,
		.block_crc = record->block_crc,
		.wall_ns = record->wall_ns,
		.powered_ns = record->powered_ns,
		.payload_page = place->payload_page,
		.number = (uint16_t)number,
		.volume_index = place->volume,
	};
	memcpy(out->tag, record->tag, TAG_BYTES);
	out->crc = crc32c(out, offsetof(struct disk_record, crc));
}

/* How many of the queued items make the next batch in room bytes; at least one whenever it fits. */
static unsigned batch_measure(const struct store *s, uint64_t room, uint32_t *payload_bytes)
{
	uint64_t payload = 0;
	unsigned count = 0;

	for (const struct store_append *item = s->journal.queue.head; item; item = item->next) {
		uint64_t more = payload + item->record.shard_bytes;
		uint64_t total = batch_header_bytes(count + 1) + more;
		if (count == BATCH_RECORDS_MAX || total > room ||
		    (count > 0 && total > s->config.batch_bytes_max))
			break;
		payload = more;
		count++;
	}
	*payload_bytes = (uint32_t)payload;
	return count;
}

/* Moves the items from the queue into the batch and lays them out. */
static void batch_fill(struct store *s, struct batch *batch, struct disk_batch *header)
{
	struct journal *journal = &s->journal;
	struct disk_record *record = (void *)(batch->header + BATCH_HEADER_BYTES);
	uint64_t page = (journal->position + header->header_bytes) / PAGE_BYTES;

	memset(batch->header + BATCH_HEADER_BYTES, 0, header->header_bytes - BATCH_HEADER_BYTES);
	batch->piece[0] = (struct iovec){batch->header, header->header_bytes};
	batch->io.piece_count = 1;
	for (unsigned i = 0; i < header->record_count; i++) {
		struct store_append *item = append_pop(&journal->queue);
		struct place *place = &batch->place[i];
		*place = (struct place){batch->sequence, batch->segment, (uint32_t)page,
					record_volume(s, &item->record)};
		record_encode(&item->record, place, i, &record[i]);
		header->powered_ns = max_u64(header->powered_ns, item->record.powered_ns);
		journal->queued_cost -= item_cost(item);
		if (item->record.shard_bytes)
			batch->piece[batch->io.piece_count++] = (struct iovec){
				(void *)(uintptr_t)item->shard, item->record.shard_bytes};
		page += item->record.shard_bytes / PAGE_BYTES;
		append_push(&batch->items, item);
	}
	journal->queued_count -= header->record_count;
	journal->queued_bytes -= header->payload_bytes;
}

static void batch_done(struct io *io, int32_t result, struct effects *fx);

static void batch_submit(struct store *s, unsigned count, uint32_t payload_bytes,
			 struct effects *fx)
{
	struct journal *journal = &s->journal;
	struct batch *batch = &journal->batch[(journal->sequence + 1) % BATCHES_IN_FLIGHT_MAX];
	struct disk_batch *header = (void *)batch->header;

	must(!batch->busy, "a batch is used by one write at a time");
	batch->busy = true;
	batch->sequence = ++journal->sequence;
	batch->segment = journal->current;
	batch->items = (struct append_list){0};
	*header = (struct disk_batch){.record_count = count,
				      .header_bytes = batch_header_bytes(count),
				      .payload_bytes = payload_bytes};
	batch_fill(s, batch, header);
	batch_header_fill(s, batch, header);
	batch->io.kind = IO_WRITE_DURABLE;
	batch->io.file = s->config.files.journal;
	batch->io.offset = journal->current * s->config.segment_bytes + journal->position;
	batch->io.length = (uint64_t)header->header_bytes + payload_bytes;
	batch->io.piece = batch->piece;
	batch->io.done = batch_done;
	journal->position += batch->io.length;
	must(journal->position <= s->config.segment_bytes, "a batch does not cross a segment");
	journal->segment[batch->segment].writing++;
	journal->segment[batch->segment].written += count;
	journal->written += count;
	journal->in_flight++;
	effects_io(fx, &batch->io);
}

/* docs/store-format.md "synced mark": up to it all batches are durable, without a gap. */
static void journal_move_synced(struct journal *journal)
{
	while (journal->synced < journal->sequence) {
		const struct batch *next =
			&journal->batch[(journal->synced + 1) % BATCHES_IN_FLIGHT_MAX];
		if (next->busy && next->sequence == journal->synced + 1)
			break;
		journal->synced++;
	}
}

/* A record counts as held from here on: its write has completed, and was a durable one. */
static void record_held(struct store *s, const struct record *record, const struct place *place)
{
	lsn_t lsn = record->lsn;

	s->lsn_max = max_u64(s->lsn_max, lsn);
	if (lsn <= s->image_point)
		return;
	const struct entry *entry = &s->table.entry[table_insert(s, record, place)];
	if (!entry->counts)
		return;
	if (s->fold.step != FOLD_IDLE && lsn <= s->fold.point)
		s->fold.late = true;
	if (ranges_add(&s->held, lsn, lsn + 1))
		s->journal.held_lossy = true;
}

static void batch_done(struct io *io, int32_t result, struct effects *fx)
{
	struct batch *batch = container_of(io, struct batch, io);
	struct store *s = batch->store;
	struct append_list items = batch->items;
	int err = io_error(io, result);

	must(batch->busy, "a batch completes once");
	batch->busy = false;
	s->journal.in_flight--;
	s->journal.segment[batch->segment].writing--;
	if (err)
		store_fail(s, err, fx);
	if (s->state != STORE_READY)
		err = err ? err : -EIO;
	if (!err) {
		unsigned number = 0;
		for (struct store_append *item = items.head; item; item = item->next)
			record_held(s, &item->record, &batch->place[number++]);
		journal_move_synced(&s->journal);
	}
	for (struct store_append *item; (item = append_pop(&items));)
		item->done(item, err, fx);
}

static void room_made(struct store_superblock_write *write, int result, struct effects *fx)
{
	write->store->superblock.freeing = false;
}

/* No segment or no place in the table is free, but some segments are no longer needed: a superblock
 * that says so frees them. */
static void journal_ask_for_room(struct store *s, struct effects *fx)
{
	if (s->superblock.freeing)
		return;
	for (uint32_t i = 0; i < s->config.segment_count; i++) {
		if (journal_freeable_epoch(s, i) == s->journal.segment[i].freed)
			continue;
		s->superblock.freeing = true;
		s->superblock.for_room.done = room_made;
		superblock_ask(s, &s->superblock.for_room, fx);
		return;
	}
}

void journal_turn(struct store *s, struct effects *fx)
{
	struct journal *journal = &s->journal;

	if (journal->free_count <= 1 || journal->written * 4 > s->table.capacity * 3ull) {
		journal_leave_empty_segment(s);
		journal_ask_for_room(s, fx);
	}
	/* A batch leaves when it is full or when none is in flight: under load batches grow, alone
	 * a write waits for nobody. */
	while (journal->queue.head && journal->in_flight < BATCHES_IN_FLIGHT_MAX &&
	       !journal->batch[(journal->sequence + 1) % BATCHES_IN_FLIGHT_MAX].busy &&
	       (journal->in_flight == 0 || journal->queued_count >= BATCH_RECORDS_MAX ||
		journal->queued_bytes >= s->config.batch_bytes_max)) {
		uint32_t payload_bytes;
		uint64_t room =
			journal_has_current(s) ? s->config.segment_bytes - journal->position : 0;
		unsigned count = batch_measure(s, room, &payload_bytes);
		if (count == 0) {
			must(segment_take(s), "room for what was accepted");
			continue;
		}
		batch_submit(s, count, payload_bytes, fx);
	}
}

void journal_fail(struct store *s, int err, struct effects *fx)
{
	struct append_list queue = s->journal.queue;

	s->journal.queue = (struct append_list){0};
	s->journal.queued_count = 0;
	s->journal.queued_bytes = 0;
	s->journal.queued_cost = 0;
	for (struct store_append *item; (item = append_pop(&queue));)
		item->done(item, err, fx);
}

uint64_t store_journal_room(const struct store *s)
{
	const struct journal *journal = &s->journal;
	uint64_t bytes = journal_room(s), entries = journal->written + journal->queued_count;

	if (bytes <= journal->queued_cost || entries >= s->table.capacity)
		return 0;
	return min_u64((bytes - journal->queued_cost) / journal->item_bytes_max,
		       s->table.capacity - entries);
}

uint64_t store_journal_bytes_total(const struct store *s)
{
	return s->config.segment_bytes * s->config.segment_count;
}

uint64_t store_journal_bytes_used(const struct store *s)
{
	uint64_t taken = s->config.segment_count - s->journal.free_count;

	/* After open, while nothing was appended, no segment is current. */
	if (!journal_has_current(s))
		return taken * s->config.segment_bytes;
	return (taken - 1) * s->config.segment_bytes + s->journal.position;
}

bool store_journal_half_full(const struct store *s)
{
	return store_journal_bytes_used(s) * 2 > store_journal_bytes_total(s) ||
	       s->journal.written * 2 > s->table.capacity;
}

/* ---- leaving the table ---- */

void journal_purge_start(struct store *s, bool void_too)
{
	struct journal *journal = &s->journal;

	journal->purge_void = void_too || (journal->purging && journal->purge_void);
	journal->purging = true;
	journal->purge_segment = 0;
	journal->purge_entry = ENTRY_NONE;
}

bool journal_purge(struct store *s)
{
	struct journal *journal = &s->journal;

	if (!journal->purging)
		return true;
	for (unsigned looked = 0; looked < ENTRIES_PER_TURN; looked++) {
		while (journal->purge_entry == ENTRY_NONE) {
			if (journal->purge_segment == s->config.segment_count) {
				journal->purging = false;
				if (journal->held_lossy)
					table_recount(s);
				return true;
			}
			journal->purge_entry = journal->segment[journal->purge_segment++].head;
		}
		uint32_t index = journal->purge_entry;
		const struct entry *entry = &s->table.entry[index];
		journal->purge_entry = entry->segment_next;
		if (entry->record.lsn <= s->image_point || (journal->purge_void && !entry->counts))
			table_remove(s, index);
	}
	return false;
}
