/* SPDX-License-Identifier: Apache-2.0 */
/* One store: its memory, its life, and what is looked up and read in it. Appending, folding, the
 * image and recovery are in the files beside this one. */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

/* ---- memory ---- */

struct layout {
	uint8_t *base; /* NULL: only measured */
	size_t used;
};

static void *layout_take(struct layout *layout, uint64_t bytes, size_t alignment)
{
	layout->used = (size_t)align_up(layout->used, alignment);
	void *at = layout->base ? layout->base + layout->used : NULL;
	layout->used += (size_t)bytes;
	return at;
}

struct sizes {
	struct image_volume volume[VOLUMES_PER_GROUP_MAX];
	uint64_t block_count, page_count;
	uint32_t shard_bytes_min, shard_bytes_max;
	uint32_t records_max;
	uint32_t bucket_count;
};

static struct sizes sizes_of(const struct store_config *config)
{
	struct sizes sizes = {.shard_bytes_min = BLOCK_BYTES_MAX, .shard_bytes_max = PAGE_BYTES};

	for (unsigned i = 0; i < config->volume_count; i++) {
		struct image_volume *v = &sizes.volume[i];
		must(config->volume[i].size % config->volume[i].block_bytes == 0,
		     "a volume is whole blocks");
		v->block_count = config->volume[i].size / config->volume[i].block_bytes;
		v->page_count = div_up(v->block_count, SLOTS_PER_PAGE);
		v->block_base = sizes.block_count;
		v->page_base = sizes.page_count;
		v->shard_bytes = shard_bytes_of(config->geometry, config->volume[i].block_bytes);
		sizes.block_count += v->block_count;
		sizes.page_count += v->page_count;
		sizes.shard_bytes_min = (uint32_t)min_u64(sizes.shard_bytes_min, v->shard_bytes);
		sizes.shard_bytes_max = (uint32_t)max_u64(sizes.shard_bytes_max, v->shard_bytes);
	}
	/* As many records as the journal would hold if each were one smallest shard and nothing
	 * else. Kinds without a payload count as much; more than this is "no room". */
	uint64_t records = config->segment_bytes * config->segment_count / sizes.shard_bytes_min;
	sizes.records_max = (uint32_t)min_u64(records, ENTRY_NONE - 1);
	sizes.bucket_count = 1024;
	while (sizes.bucket_count < sizes.records_max && sizes.bucket_count < 1u << 31)
		sizes.bucket_count *= 2;
	return sizes;
}

static void config_check(const struct store_config *config, const struct sizes *sizes)
{
	must(config->volume_count >= 1 && config->volume_count <= VOLUMES_PER_GROUP_MAX,
	     "a group has volumes");
	must(config->index < geometry_n(config->geometry), "shard i belongs to store i");
	must(config->segment_count >= 2 && config->segment_count <= STORE_SEGMENTS_MAX,
	     "a journal has one segment to fill and one in reserve");
	must(config->segment_bytes % PAGE_BYTES == 0 &&
		     config->segment_bytes >= PAGE_BYTES + sizes->shard_bytes_max &&
		     config->segment_bytes / PAGE_BYTES <= UINT32_MAX,
	     "a segment takes the largest record");
	must(config->batch_bytes_max <= BATCH_TOTAL_BYTES_MAX, "a batch has a bound");
	must(config->opened && config->out && config->folded, "the vault hears what happens");
}

/* The arrays beside the struct, in a fixed order; with no base only their sum is of use. */
static void store_place(struct store *s, const struct store_config *config,
			const struct sizes *sizes, struct layout *layout)
{
	struct table *table = &s->table;
	uint32_t records = sizes->records_max;

	table->entry = layout_take(layout, (uint64_t)records * sizeof *table->entry, 64);
	table->bucket =
		layout_take(layout, (uint64_t)sizes->bucket_count * sizeof *table->bucket, 64);
	table->order = layout_take(layout, (uint64_t)records * sizeof *table->order, 64);
	s->held.range = layout_take(layout, HELD_RANGES_MAX * sizeof *s->held.range, 64);
	s->journal.segment = layout_take(
		layout, (uint64_t)config->segment_count * sizeof *s->journal.segment, 64);
	s->journal.batch =
		layout_take(layout, BATCHES_IN_FLIGHT_MAX * sizeof *s->journal.batch, 64);
	s->fold.run = layout_take(layout, FOLD_RUNS_MAX * sizeof *s->fold.run, 64);
	s->image.block_head =
		layout_take(layout, sizes->block_count * sizeof *s->image.block_head, 64);
	s->image.page_use = layout_take(layout, sizes->page_count * sizeof *s->image.page_use, 64);
	s->image.dirty =
		layout_take(layout, div_up(sizes->page_count, 64) * sizeof *s->image.dirty, 64);
	s->image.page = layout_take(layout, sizes->page_count * sizeof *s->image.page, PAGE_BYTES);
	s->superblock.disk = layout_take(layout, sizeof *s->superblock.disk, PAGE_BYTES);
	s->scratch = layout_take(layout, SCRATCH_BYTES, PAGE_BYTES);
	uint8_t *header =
		layout_take(layout, BATCHES_IN_FLIGHT_MAX * BATCH_HEADER_BYTES_MAX, PAGE_BYTES);
	for (unsigned i = 0; header && i < BATCHES_IN_FLIGHT_MAX; i++)
		s->journal.batch[i].header = header + (size_t)i * BATCH_HEADER_BYTES_MAX;
}

size_t store_bytes(const struct store_config *config)
{
	struct sizes sizes = sizes_of(config);
	struct layout layout = {.base = NULL};
	struct store *only_measured = layout_take(&layout, sizeof(struct store), PAGE_BYTES);
	struct store measure;

	must(!only_measured, "nothing is placed without memory");
	config_check(config, &sizes);
	store_place(&measure, config, &sizes, &layout);
	return layout.used + PAGE_BYTES; /* the memory given may not be page aligned */
}

struct store *store_init(void *memory, const struct store_config *config)
{
	struct sizes sizes = sizes_of(config);
	struct layout layout = {
		.base = (uint8_t *)(uintptr_t)align_up((uintptr_t)memory, PAGE_BYTES)};
	struct store *s = layout_take(&layout, sizeof(struct store), PAGE_BYTES);

	config_check(config, &sizes);
	memset(s, 0, sizeof *s);
	s->config = *config;
	s->state = STORE_CLOSED;
	store_place(s, config, &sizes, &layout);
	s->table.capacity = sizes.records_max;
	s->table.bucket_mask = sizes.bucket_count - 1;
	s->journal.item_bytes_max = PAGE_BYTES + sizes.shard_bytes_max;
	s->journal.current = config->segment_count;
	memcpy(s->image.volume, sizes.volume, sizeof s->image.volume);
	s->image.block_count = sizes.block_count;
	s->image.page_count = sizes.page_count;
	for (unsigned i = 0; i < BATCHES_IN_FLIGHT_MAX; i++) {
		s->journal.batch[i].store = s;
		s->journal.batch[i].busy = false;
	}
	memset(s->journal.segment, 0, config->segment_count * sizeof *s->journal.segment);
	for (unsigned i = 0; i < config->segment_count; i++)
		s->journal.segment[i].head = s->journal.segment[i].tail = ENTRY_NONE;
	for (unsigned i = 0; i < FOLD_RUNS_MAX; i++) {
		s->fold.run[i].store = s;
		s->fold.run[i].busy = false;
		s->fold.run[i].buffer = s->scratch + (size_t)i * FOLD_RUN_BYTES;
	}
	ranges_init(&s->held, s->held.range, HELD_RANGES_MAX);
	image_init(s);
	table_init(s);
	return s;
}

/* ---- life ---- */

void io_prepare(struct io *io, const struct transfer *transfer,
		void (*done)(struct io *, int32_t, struct effects *))
{
	*io = (struct io){
		.done = done,
		.kind = transfer->kind,
		.file = transfer->file,
		.offset = transfer->offset,
		.length = transfer->length,
		.single = {transfer->memory, transfer->length},
		.piece_count = 1,
	};
	io->piece = &io->single;
}

void store_open(struct store *s, struct effects *fx)
{
	must(s->state == STORE_CLOSED, "a store is opened once");
	s->state = STORE_OPENING;
	recovery_start(s, fx);
}

void store_open_give_up(struct store *s, int err, struct effects *fx)
{
	recovery_end(s, err, fx);
}

void store_abandon(struct store *s)
{
	if (s->state == STORE_OUT)
		return;
	s->state = STORE_OUT;
	s->err = -ENODEV;
}

/* DESIGN "promises": a failed sync is never retried; nor is a failed write: what the disk holds is
 * unknown from here on. */
void store_fail(struct store *s, int err, struct effects *fx)
{
	if (s->state == STORE_OUT)
		return;
	must(s->state == STORE_READY, "only a store that is open writes");
	s->state = STORE_OUT;
	s->err = err;
	effects_note(fx, NOTE_ERROR, s->config.subject,
		     "a write or sync failed (errno %llu): the store is out",
		     NOTE_NUMBERS((unsigned long long)-err));
	journal_fail(s, err, fx);
	superblock_fail(s, err, fx);
	image_fail(s, err, fx);
	s->config.out(s, err, fx);
}

/* ---- no room ---- */

static const ns_t room_again_ns = NS_PER_S;

void store_room_note(struct store *s, int err, struct effects *fx)
{
	if (!s->room.wanted)
		effects_note(fx, NOTE_WARNING, s->config.subject,
			     "no room on its disk (errno %llu): the fold waits for it, and writes "
			     "will once the journals are full",
			     NOTE_NUMBERS((unsigned long long)-err));
	s->room.wanted = true;
	s->room.again_at = fx->now + room_again_ns;
}

/* docs/semantics.md "no room": unlike a failed sync this leaves nothing unknown. Equal stores fill
 * up together: if each went out for it, all would, with all their data whole. */
bool store_room_wait(struct store *s, struct io *io, int err, struct effects *fx)
{
	if (!is_no_room(err) || s->state != STORE_READY)
		return false;
	store_room_note(s, err, fx);
	io_list_push(&s->room.waiting, io);
	return true;
}

bool store_wants_room(const struct store *s)
{
	return s->state == STORE_READY && s->room.wanted;
}

static void room_turn(struct store *s, struct effects *fx)
{
	if (fx->now < s->room.again_at)
		return;
	for (struct io *io; (io = io_list_pop(&s->room.waiting));)
		effects_io(fx, io);
}

static void room_fail(struct store *s, struct effects *fx)
{
	for (struct io *io; (io = io_list_pop(&s->room.waiting));)
		io->done(io, -EIO, fx);
}

/* ---- turn ---- */

void store_defer(struct store *s, struct io *io)
{
	io_list_push(&s->deferred, io);
}

void store_turn(struct store *s, struct effects *fx)
{
	struct io_list deferred = s->deferred;

	s->deferred = (struct io_list){0};
	for (struct io *io; (io = io_list_pop(&deferred));)
		io->done(io, 0, fx);
	if (s->state != STORE_READY) {
		int err = s->err ? s->err : -EIO;
		journal_fail(s, err, fx);
		superblock_fail(s, err, fx);
		image_fail(s, err, fx);
		room_fail(s, fx);
		return;
	}
	room_turn(s, fx);
	journal_purge(s);
	/* What found no room among the held: the holes that took it have been filled meanwhile. */
	if (s->journal.held_lossy && s->held.count <= HELD_RANGES_MAX / 2)
		table_recount(s);
	image_turn(s, fx);
	fold_turn(s, fx);
	journal_turn(s, fx);
}

bool store_wants_turn(const struct store *s)
{
	if (s->deferred.head || s->superblock.waiting.head || s->image.queue.head)
		return true;
	bool copies = s->fold.step == FOLD_COPY && !s->room.waiting.head;
	return s->state == STORE_READY &&
	       (s->journal.purging || s->fold.step == FOLD_WAIT || copies);
}

static bool recovery_idle(const struct recovery *r)
{
	bool busy = r->reading;

	for (unsigned i = 0; i < ARRAY_COUNT(r->sync); i++)
		busy |= r->sync[i].busy;
	return !busy;
}

bool store_idle(const struct store *s)
{
	return s->state != STORE_READY && s->state != STORE_OPENING && !s->deferred.head &&
	       !s->journal.in_flight && !s->journal.queue.head && !s->superblock.busy &&
	       !s->superblock.waiting.head && !s->image.commit.pending && !s->image.slot_writes &&
	       !s->fold.busy && recovery_idle(&s->recovery);
}

static void older(ns_t *oldest, const struct io *io, bool busy)
{
	if (busy)
		*oldest = min_u64(*oldest, io->since);
}

ns_t store_oldest(const struct store *s)
{
	ns_t oldest = NS_NEVER;

	older(&oldest, &s->recovery.io, s->recovery.reading);
	for (unsigned i = 0; i < ARRAY_COUNT(s->recovery.sync); i++)
		older(&oldest, &s->recovery.sync[i].io, s->recovery.sync[i].busy);
	older(&oldest, &s->superblock.io, s->superblock.busy);
	for (unsigned i = 0; i < BATCHES_IN_FLIGHT_MAX; i++)
		older(&oldest, &s->journal.batch[i].io, s->journal.batch[i].busy);
	for (unsigned i = 0; i < VOLUMES_PER_GROUP_MAX; i++)
		older(&oldest, &s->image.commit.sync[i].io, s->image.commit.sync[i].busy);
	for (unsigned i = 0; i < COMMIT_PAGES_IN_FLIGHT_MAX; i++)
		older(&oldest, &s->image.commit.page[i].io, s->image.commit.page[i].busy);
	/* The reads of a run begin together. */
	for (unsigned i = 0; i < FOLD_RUNS_MAX; i++) {
		const struct fold_run *run = &s->fold.run[i];
		older(&oldest, run->reads_left ? &run->read[0].io : &run->write, run->busy);
	}
	return oldest;
}

const struct store_config *store_config_of(const struct store *s)
{
	return &s->config;
}

enum store_state store_state_of(const struct store *s)
{
	return s->state;
}

const struct uuid *store_id(const struct store *s)
{
	return &s->id;
}

uint32_t store_incarnation(const struct store *s)
{
	return s->incarnation;
}

const struct store_group *store_group_of(const struct store *s)
{
	return &s->group;
}

const struct ranges *store_held(const struct store *s)
{
	return &s->held;
}

lsn_t store_image_point(const struct store *s)
{
	return s->image_point;
}

lsn_t store_lsn_max(const struct store *s)
{
	return s->lsn_max;
}

void store_promise(struct store *s, struct promise promise)
{
	if (promise.generation < s->promise.generation ||
	    (promise.generation == s->promise.generation && promise.lsn < s->promise.lsn))
		return;
	s->promise = promise;
}

struct promise store_promised(const struct store *s)
{
	return s->promise;
}

uint64_t store_damage_count(const struct store *s)
{
	return s->damage;
}

bool store_lost_records(const struct store *s)
{
	return s->records_lost > 0;
}

void store_use_spans(struct store *s, const struct spans *spans)
{
	s->spans = *spans;
	for (uint32_t i = 0, seen = 0; i < s->table.capacity && seen < s->table.count; i++) {
		const struct entry *entry = &s->table.entry[i];
		if (!entry->live)
			continue;
		seen++;
		if (entry->counts !=
		    spans_count_record(spans, &entry->record.span, entry->record.lsn)) {
			table_recount(s);
			return;
		}
	}
}

void store_set_image_point(struct store *s, lsn_t lsn)
{
	must(s->fold.step == FOLD_IDLE, "a rebuild ends while nothing folds");
	if (s->state != STORE_READY || lsn <= s->image_point)
		return;
	s->image_point = lsn;
	s->lsn_max = max_u64(s->lsn_max, lsn);
	must(ranges_remove(&s->held, 0, lsn + 1) == 0, "the front comes off without a split");
	journal_purge_start(s, false);
}
