/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a store: everything is synced first, then the superblock, the whole journal and the slot
 * headers are read, in pieces of bounded size (docs/store-format.md "recovery").
 *
 * What the scan may find, and what it means:
 *   a batch or record that does not check, at or below the synced mark: damage, counted; its lsn is
 *   not held, all else is kept and the scan goes on;
 *   the same above the mark: torn, never promised; the lsn is not held;
 *   a batch of an older epoch in a segment that was begun anew, or one that the superblock calls
 *   free: it was folded, and counts no more;
 *   a batch of another store or incarnation: not ours.
 * Marks are judged per start of the store: what was torn before one start stays torn, though later
 * batches are synced above it.
 */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

/* ---- reading a piece into the scratch; pages that cannot be read are zeros there ---- */

static void piece_page(struct store *s, struct effects *fx);

static void piece_done(struct io *io, int32_t result, struct effects *fx)
{
	struct store *s = container_of(io, struct store, recovery.io);
	struct recovery *r = &s->recovery;
	int err = io_error(io, result);

	r->reading = false;
	if (s->state != STORE_OPENING)
		return;
	if (r->by_page) {
		if (err)
			memset(io->single.iov_base, 0, PAGE_BYTES);
		r->page++;
	} else if (err) {
		r->by_page = true;
		r->page = 0;
	} else {
		r->then(s, fx);
		return;
	}
	piece_page(s, fx);
}

static void piece_page(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;
	struct transfer one = r->wanted;

	if (r->page * PAGE_BYTES == r->wanted.length) {
		r->then(s, fx);
		return;
	}
	one.offset += r->page * PAGE_BYTES;
	one.memory = (uint8_t *)one.memory + r->page * PAGE_BYTES;
	one.length = PAGE_BYTES;
	io_prepare(&r->io, &one, piece_done);
	r->reading = true;
	effects_io(fx, &r->io);
}

struct piece {
	uint16_t file;
	uint64_t offset, length;
};

static void piece_read(struct store *s, struct piece piece,
		       void (*then)(struct store *, struct effects *), struct effects *fx)
{
	struct recovery *r = &s->recovery;

	must(piece.length > 0 && piece.length <= SCRATCH_BYTES, "recovery reads bounded pieces");
	r->by_page = false;
	r->then = then;
	r->wanted = (struct transfer){IO_READ, piece.file, piece.offset, s->scratch, piece.length};
	io_prepare(&r->io, &r->wanted, piece_done);
	r->reading = true;
	effects_io(fx, &r->io);
}

/* ---- slot headers ---- */

static void slots_read(struct store *s, struct effects *fx);

static void slots_taken(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;
	enum { PAIR_BYTES = 2 * PAGE_BYTES };

	for (uint64_t at = 0; at < r->wanted.length; at += PAIR_BYTES)
		image_take_page(s, r->volume, (r->position + at) / PAIR_BYTES, s->scratch + at);
	r->position += r->wanted.length;
	slots_read(s, fx);
}

static void slots_read(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;

	while (r->volume < s->config.volume_count) {
		uint64_t bytes = s->image.volume[r->volume].page_count * 2 * PAGE_BYTES;
		if (r->position < bytes) {
			struct piece piece = {s->config.files.slots[r->volume], r->position,
					      min_u64(SCRATCH_BYTES, bytes - r->position)};
			piece_read(s, piece, slots_taken, fx);
			return;
		}
		r->volume++;
		r->position = 0;
	}
	recovery_end(s, 0, fx);
}

/* ---- what the scan amounts to ---- */

/* A segment's batches are numbered without a gap from its first one on; what is missing at or below
 * the mark was damaged. */
static uint64_t segment_damage(const struct store *s, const struct segment *segment)
{
	uint64_t mark = segment->scan.mark, last = segment->scan.last_sequence;
	uint64_t damage = segment->scan.bad, seen = segment->scan.seen;

	for (unsigned i = 0; i < s->config.segment_count; i++) {
		const struct segment *next = &s->journal.segment[i];
		if (!segment_free(next) && next->epoch == segment->epoch + 1 &&
		    next->scan.start_sequence == segment->scan.start_sequence)
			last = max_u64(last, next->scan.first_sequence - 1);
	}
	for (unsigned i = 0; i < SEEN_MAX; i++) {
		if (segment->scan.last[i].sequence > mark)
			seen--;
		else
			damage += segment->scan.last[i].bad;
	}
	last = min_u64(last, mark);
	if (last >= segment->scan.first_sequence) {
		uint64_t expected = last - segment->scan.first_sequence + 1;
		damage += expected > seen ? expected - seen : 0;
	}
	return damage;
}

/* A segment in which nothing is good is missed by the next one. Inside a start sequences and epochs
 * are dense, so what came before the first batch of a segment was in the segment of the epoch
 * before. When it was durable that one is there, or freed: no epoch is freed, or taken again, that
 * no superblock names. */
static bool segment_before_is_gone(const struct store *s, const struct segment *segment)
{
	uint64_t before = segment->epoch - 1;

	if (segment->scan.first_sequence == segment->scan.start_sequence ||
	    segment->scan.first_sequence - 1 > segment->scan.mark)
		return false;
	for (unsigned i = 0; i < s->config.segment_count; i++) {
		const struct segment *other = &s->journal.segment[i];
		if (other->epoch == before || other->freed >= before)
			return false;
	}
	return true;
}

static void scan_judge(struct store *s)
{
	struct journal *journal = &s->journal;
	uint64_t damage = s->recovery.foreign;

	journal->free_count = 0;
	journal->written = 0;
	for (unsigned i = 0; i < s->config.segment_count; i++) {
		struct segment *segment = &journal->segment[i];
		if (segment_free(segment)) {
			journal->free_count++;
			segment->written = 0;
			continue;
		}
		journal->written += segment->written;
		damage += segment_damage(s, segment) + segment_before_is_gone(s, segment);
	}
	s->damage += damage;
	s->records_lost += damage;
	journal->current = s->config.segment_count;
	journal->start_sequence = journal->sequence + 1;
	journal->synced = journal->sequence;
}

/* ---- the shards of batches above the mark: torn, or there? ---- */

static void verify_next(struct store *s, struct effects *fx);

static void verify_read(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;
	uint32_t index = r->entry;
	const struct record *record = &s->table.entry[index].record;

	r->entry = s->table.entry[index].segment_next;
	if (crc32c(s->scratch, record->shard_bytes) != record->shard_crc)
		table_remove(s, index);
	verify_next(s, fx);
}

static void verify_next(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;

	for (;;) {
		while (r->entry == ENTRY_NONE) {
			if (++r->segment >= s->config.segment_count) {
				scan_judge(s);
				slots_read(s, fx);
				return;
			}
			r->entry = s->journal.segment[r->segment].head;
		}
		const struct entry *entry = &s->table.entry[r->entry];
		if (entry->record.shard_bytes &&
		    entry->sequence > s->journal.segment[r->segment].scan.mark) {
			struct piece piece = {s->config.files.journal,
					      r->segment * s->config.segment_bytes +
						      entry->payload_page * (uint64_t)PAGE_BYTES,
					      entry->record.shard_bytes};
			piece_read(s, piece, verify_read, fx);
			return;
		}
		r->entry = entry->segment_next;
	}
}

static void verify_start(struct store *s, struct effects *fx)
{
	struct journal *journal = &s->journal;
	uint32_t count = s->config.segment_count;

	for (unsigned i = 0; i < count; i++) {
		uint64_t mark = 0, start = journal->segment[i].scan.start_sequence;
		for (unsigned j = 0; j < count; j++)
			if (journal->segment[j].scan.start_sequence == start)
				mark = max_u64(mark, journal->segment[j].scan.synced);
		journal->segment[i].scan.mark = mark;
	}
	s->recovery.position = 0;
	s->recovery.segment = 0;
	s->recovery.entry = journal->segment[0].head;
	verify_next(s, fx);
}

/* ---- the scan ---- */

static bool record_good(const struct store *s, const struct disk_batch *batch,
			const struct disk_record *disk, unsigned number)
{
	uint64_t first_page = (batch->offset + batch->header_bytes) / PAGE_BYTES;
	uint64_t end_page = first_page + batch->payload_bytes / PAGE_BYTES;
	uint32_t shard_bytes = 0;

	if (disk->crc != crc32c(disk, offsetof(struct disk_record, crc)) ||
	    disk->sequence != batch->sequence || disk->number != number || disk->lsn == 0 ||
	    disk->lsn == UINT64_MAX || disk->shard != s->config.index ||
	    disk->k != s->config.geometry.k || disk->m != s->config.geometry.m)
		return false;
	if (kind_has_block(disk->kind)) {
		if (disk->volume_index >= s->config.volume_count ||
		    disk->block >= s->image.volume[disk->volume_index].block_count)
			return false;
		if (record_kind_has_payload(disk->kind))
			shard_bytes = s->image.volume[disk->volume_index].shard_bytes;
	}
	return disk->shard_bytes == shard_bytes && disk->payload_page >= first_page &&
	       disk->payload_page + (uint64_t)shard_bytes / PAGE_BYTES <= end_page;
}

static void record_take(struct store *s, const struct disk_batch *batch,
			const struct disk_record *disk)
{
	struct record record = {
		.span = disk->span,
		.lsn = disk->lsn,
		.identity = {disk->identity_span, disk->identity_lsn, disk->identity_generation},
		.volume = disk->volume,
		.block = disk->block,
		.kind = disk->kind,
		.shard = disk->shard,
		.geometry = {disk->k, disk->m},
		.block_bytes = disk->block_bytes,
		.shard_bytes = disk->shard_bytes,
		.shard_crc = disk->shard_crc,
		.block_crc = disk->block_crc,
		.wall_ns = disk->wall_ns,
		.powered_ns = disk->powered_ns,
	};
	const struct place place = {batch->sequence, batch->segment, disk->payload_page,
				    disk->volume_index};

	memcpy(record.tag, disk->tag, TAG_BYTES);
	s->lsn_max = max_u64(s->lsn_max, record.lsn);
	if (record.lsn <= s->image_point)
		return;
	if (s->table.free != ENTRY_NONE) {
		table_insert(s, &record, &place);
		return;
	}
	s->damage++; /* more than was ever accepted */
	s->records_lost++;
}

/* The segment holds a newer epoch than what was taken from it so far. */
static void segment_begin(struct store *s, struct segment *segment, const struct disk_batch *batch)
{
	while (segment->head != ENTRY_NONE)
		table_remove(s, segment->head);
	segment->epoch = batch->epoch;
	segment->written = 0;
	memset(&segment->scan, 0, sizeof segment->scan);
	segment->scan.first_sequence = batch->first_sequence;
	segment->scan.start_sequence = batch->start_sequence;
}

static void segment_saw(struct segment *segment, const struct disk_batch *batch)
{
	segment->scan.bad += segment->scan.last[0].bad;
	memmove(&segment->scan.last[0], &segment->scan.last[1],
		(SEEN_MAX - 1) * sizeof segment->scan.last[0]);
	segment->scan.last[SEEN_MAX - 1].sequence = batch->sequence;
	segment->scan.last[SEEN_MAX - 1].bad = 0;
	segment->scan.last_sequence = batch->sequence;
	segment->scan.synced = max_u64(segment->scan.synced, batch->synced);
	segment->scan.covered = batch->offset + batch->header_bytes + batch->payload_bytes;
	segment->scan.seen++;
	segment->written += batch->record_count;
}

static void batch_take(struct store *s, const struct disk_batch *batch)
{
	const struct disk_record *disk = (const void *)(batch + 1);
	struct journal *journal = &s->journal;
	struct segment *segment = &journal->segment[batch->segment];

	journal->sequence = max_u64(journal->sequence, batch->sequence);
	journal->epoch = max_u64(journal->epoch, batch->epoch);
	store_promise(s, (struct promise){batch->promised_generation, batch->promised});
	if (batch->epoch <= segment->freed || batch->epoch < segment->epoch)
		return;
	if (batch->epoch > segment->epoch)
		segment_begin(s, segment, batch);
	else if (batch->offset < segment->scan.covered ||
		 batch->sequence <= segment->scan.last_sequence)
		return;
	segment_saw(segment, batch);
	for (unsigned i = 0; i < batch->record_count; i++) {
		if (record_good(s, batch, &disk[i], i))
			record_take(s, batch, &disk[i]);
		else
			segment->scan.last[SEEN_MAX - 1].bad++;
	}
}

enum verdict { BATCH_NONE, BATCH_FOREIGN, BATCH_OURS };

static enum verdict batch_judge(const struct store *s, const struct disk_batch *batch,
				uint64_t offset)
{
	if (batch->magic != BATCH_MAGIC || batch->version != FORMAT_VERSION ||
	    batch->crc != crc32c(batch, offsetof(struct disk_batch, crc)))
		return BATCH_NONE;
	if (!uuid_equal(&batch->store, &s->id) || !uuid_equal(&batch->set, &s->group.set))
		return BATCH_FOREIGN;
	if (batch->incarnation != s->incarnation)
		return BATCH_NONE;
	/* A good header in another place than it names was misdirected: damage where it is missing.
	 */
	if (batch->segment != s->recovery.segment || batch->offset != offset)
		return BATCH_FOREIGN;
	if (batch->record_count == 0 || batch->record_count > BATCH_RECORDS_MAX ||
	    batch->header_bytes != batch_header_bytes(batch->record_count) ||
	    batch->payload_bytes % PAGE_BYTES || batch->sequence < batch->first_sequence ||
	    batch->first_sequence < batch->start_sequence || batch->sequence <= batch->synced ||
	    (uint64_t)batch->header_bytes + batch->payload_bytes > s->config.segment_bytes - offset)
		return BATCH_NONE;
	return BATCH_OURS;
}

static void scan_read(struct store *s, struct effects *fx);

/* A segment that was taken has a good batch within the first few, because only so many are in
 * flight at once. Where there is none, and the first page is not a damaged one either (it is zero,
 * or a batch that was freed), nothing more is in the segment: it need not be read to its end. */
static bool segment_looks_free(const struct store *s)
{
	const struct recovery *r = &s->recovery;
	const struct segment *segment = &s->journal.segment[r->segment];

	return r->first_page_idle && segment_free(segment) &&
	       r->position >= BATCHES_IN_FLIGHT_MAX * (uint64_t)BATCH_TOTAL_BYTES_MAX;
}

static bool page_idle(const struct store *s, const uint8_t *page)
{
	const struct disk_batch *batch = (const void *)page;

	if (batch_judge(s, batch, 0) == BATCH_OURS)
		return batch->epoch <= s->journal.segment[s->recovery.segment].freed;
	for (unsigned at = 0; at < PAGE_BYTES; at += 8)
		if (get_u64(page + at))
			return false;
	return true;
}

static void scan_taken(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;
	uint64_t at = 0;

	if (r->position == 0)
		r->first_page_idle = page_idle(s, s->scratch);
	for (; at < r->wanted.length; at += PAGE_BYTES) {
		const struct disk_batch *batch = (const void *)(s->scratch + at);
		enum verdict verdict = batch_judge(s, batch, r->position + at);
		if (verdict == BATCH_FOREIGN)
			r->foreign++;
		if (verdict != BATCH_OURS)
			continue;
		/* Its header goes on behind this piece: begin the next piece with it. */
		if (at + batch->header_bytes > r->wanted.length)
			break;
		batch_take(s, batch);
	}
	must(at > 0, "a piece holds the longest header");
	r->position += at;
	if (segment_looks_free(s))
		r->position = s->config.segment_bytes;
	if (r->position == s->config.segment_bytes) {
		r->position = 0;
		r->segment++;
	}
	scan_read(s, fx);
}

static void scan_read(struct store *s, struct effects *fx)
{
	struct recovery *r = &s->recovery;

	if (r->segment == s->config.segment_count) {
		verify_start(s, fx);
		return;
	}
	struct piece piece = {s->config.files.journal,
			      r->segment * s->config.segment_bytes + r->position,
			      min_u64(SCRATCH_BYTES, s->config.segment_bytes - r->position)};
	piece_read(s, piece, scan_taken, fx);
}

/* ---- the start ---- */

static void superblock_taken(struct store *s, struct effects *fx)
{
	int err = superblock_load(s);

	if (err) {
		recovery_end(s, err, fx);
		return;
	}
	scan_read(s, fx);
}

/* DESIGN "the disks": after a start everything is synced before floors are computed: what the page
 * cache shows may not be on the disk yet. */
static void synced(struct io *io, int32_t result, struct effects *fx)
{
	struct store_io *own = container_of(io, struct store_io, io);
	struct store *s = own->store;
	struct recovery *r = &s->recovery;
	int err = io_error(io, result);

	own->busy = false;
	if (s->state != STORE_OPENING)
		return;
	r->err = r->err ? r->err : err;
	if (--r->pending)
		return;
	if (r->err) {
		recovery_end(s, r->err, fx);
		return;
	}
	struct piece both = {s->config.files.superblock, 0, 2 * STORE_SUPERBLOCK_BYTES};
	piece_read(s, both, superblock_taken, fx);
}

static void sync_submit(struct store *s, uint16_t file, struct effects *fx)
{
	struct store_io *sync = &s->recovery.sync[s->recovery.pending++];

	sync->store = s;
	sync->busy = true;
	sync->io = (struct io){.kind = IO_SYNC, .file = file, .done = synced};
	effects_io(fx, &sync->io);
}

void recovery_start(struct store *s, struct effects *fx)
{
	s->recovery = (struct recovery){0};
	sync_submit(s, s->config.files.superblock, fx);
	sync_submit(s, s->config.files.journal, fx);
	for (unsigned i = 0; i < s->config.volume_count; i++) {
		sync_submit(s, s->config.files.image[i], fx);
		sync_submit(s, s->config.files.slots[i], fx);
	}
}

void recovery_end(struct store *s, int result, struct effects *fx)
{
	must(s->state == STORE_OPENING, "recovery ends once");
	if (result) {
		s->state = STORE_OUT;
		s->err = result;
	} else {
		table_recount(s);
		s->state = STORE_READY;
		if (s->damage)
			effects_note(fx, NOTE_WARNING, s->config.subject,
				     "opened with damage in %llu places", NOTE_NUMBERS(s->damage));
	}
	s->config.opened(s, result, fx);
}
