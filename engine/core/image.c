/* SPDX-License-Identifier: Apache-2.0 */
/* The images of a store: shards in place, and beside each image a file of slot headers that say
 * what the slots hold (docs/store-format.md "image"). Slot headers are all in memory, as the pages
 * they are on disk.
 *
 * A slot changes in this order: shard written, image synced, slot page written over the older of
 * its two copies, slots synced. image_commit is the second half, for many slots at once.
 */
#include "store_inner.h"

#include "crc.h"

#include <errno.h>

uint64_t store_image_file_bytes(uint64_t volume_size, struct geometry geometry)
{
	return volume_size / geometry.k;
}

static uint64_t slot_page_count(uint64_t volume_size, uint32_t block_bytes)
{
	return div_up(volume_size / block_bytes, SLOTS_PER_PAGE);
}

uint64_t store_slots_file_bytes(uint64_t volume_size, uint32_t block_bytes)
{
	return slot_page_count(volume_size, block_bytes) * 2 * PAGE_BYTES;
}

static uint32_t slot_page_crc(const struct disk_slot_page *page)
{
	uint32_t crc = crc32c(page, offsetof(struct disk_slot_page, crc));

	return crc32c_more(crc, page->slot, sizeof page->slot);
}

static uint32_t slot_page_header_crc(const struct disk_slot_page *page)
{
	return crc32c(page, offsetof(struct disk_slot_page, header_crc));
}

static void slot_page_finish(struct disk_slot_page *page)
{
	page->magic = SLOT_PAGE_MAGIC;
	page->version = FORMAT_VERSION;
	page->header_crc = slot_page_header_crc(page);
	page->crc = slot_page_crc(page);
}

void store_slots_format_page(uint64_t number, uint64_t volume_size, uint32_t block_bytes,
			     uint8_t out[PAGE_BYTES])
{
	struct disk_slot_page page = {.page = number / 2, .sequence = number % 2 ? 0 : 1};

	must(number < 2 * slot_page_count(volume_size, block_bytes), "the page is in the file");
	slot_page_finish(&page);
	memcpy(out, &page, sizeof page);
}

void image_init(struct store *s)
{
	struct image *image = &s->image;

	for (unsigned i = 0; i < COMMIT_PAGES_IN_FLIGHT_MAX; i++)
		image->commit.page[i].store = s;
	for (unsigned i = 0; i < VOLUMES_PER_GROUP_MAX; i++)
		image->commit.sync[i].store = s;
	memset(image->dirty, 0, (size_t)div_up(image->page_count, 64) * sizeof *image->dirty);
	memset(image->page_use, 0, (size_t)image->page_count * sizeof *image->page_use);
}

/* ---- at the start ---- */

static bool slot_page_ours(const struct store *s, uint8_t volume, uint64_t number, unsigned place,
			   const struct disk_slot_page *page)
{
	/* In the other place it was misdirected there: the next write would go over it. */
	if (page->magic != SLOT_PAGE_MAGIC || page->version != FORMAT_VERSION ||
	    page->page != number || page->sequence % 2 != !place)
		return false;
	/* A formatted page names no store: it holds nothing. */
	return uuid_is_zero(&page->store) ||
	       (uuid_equal(&page->store, &s->id) && page->volume_index == volume);
}

/* docs/store-format.md "slot page": which slots of the good copy the bad one may have known better.
 * A header is in one sector and has a sum of its own: a torn write leaves it whole, old or new.
 * With no header nothing is known, but for what a crash in a fold leaves: there the fold is done
 * again. */
static uint64_t slots_in_doubt(const struct disk_slot_page *good, const struct disk_slot_page *bad,
			       bool folding)
{
	if (!bad)
		return folding ? 0 : SLOTS_ALL;
	if (bad->sequence < good->sequence)
		return 0;
	return bad->sequence == good->sequence + 1 ? bad->changed : SLOTS_ALL;
}

/* They differ from what the disk has of them until the page is written. */
static void slots_distrust(struct disk_slot_page *page, uint64_t slots)
{
	page->changed = slots;
	for (unsigned i = 0; i < SLOTS_PER_PAGE; i++)
		if (slots >> i & 1)
			page->slot[i] = (struct disk_slot){.kind = SLOT_HOLE};
}

void image_take_page(struct store *s, uint8_t volume, uint64_t number,
		     const uint8_t pair[2 * PAGE_BYTES])
{
	const struct image_volume *v = &s->image.volume[volume];
	const struct disk_slot_page *copy = (const void *)pair, *best = NULL, *told = NULL;
	struct disk_slot_page *page = &s->image.page[v->page_base + number];
	bool folding = s->group.fold_point > s->image_point;
	unsigned bad = 0;

	memset(page, 0, sizeof *page);
	page->page = number;
	page->sequence = 1;
	for (unsigned i = 0; i < 2; i++) {
		bool ours = slot_page_ours(s, volume, number, i, &copy[i]);
		if (ours && copy[i].crc == slot_page_crc(&copy[i])) {
			if (!best || copy[i].sequence > best->sequence)
				best = &copy[i];
			continue;
		}
		bad++;
		if (ours && copy[i].header_crc == slot_page_header_crc(&copy[i])) {
			told = &copy[i];
			page->sequence = max_u64(page->sequence, told->sequence);
		}
	}
	if (bad == 2 || (bad == 1 && !folding))
		s->damage++;
	if (best)
		*page = *best;
	for (unsigned i = 0; i < SLOTS_PER_PAGE; i++)
		s->lsn_max = max_u64(s->lsn_max, page->slot[i].lsn);
	slots_distrust(page, bad == 2	? SLOTS_ALL
			     : bad == 1 ? slots_in_doubt(best, told, folding)
					: 0);
}

/* ---- slots in memory ---- */

struct disk_slot *image_slot(const struct store *s, uint8_t volume, uint64_t block)
{
	const struct image_volume *v = &s->image.volume[volume];

	must(volume < s->config.volume_count && block < v->block_count,
	     "the block is in the volume");
	return &s->image.page[v->page_base + block / SLOTS_PER_PAGE].slot[block % SLOTS_PER_PAGE];
}

static uint64_t page_of(const struct store *s, uint8_t volume, uint64_t block)
{
	return s->image.volume[volume].page_base + block / SLOTS_PER_PAGE;
}

void image_mark(struct store *s, uint8_t volume, uint64_t block)
{
	uint64_t page = page_of(s, volume, block);

	s->image.dirty[page / 64] |= 1ull << page % 64;
}

static bool page_marked(const struct store *s, uint8_t volume, uint64_t block)
{
	uint64_t page = page_of(s, volume, block);

	return s->image.dirty[page / 64] >> page % 64 & 1;
}

void image_slot_set(struct store *s, uint8_t volume, uint64_t block, const struct record *record,
		    uint8_t kind)
{
	struct disk_slot *slot = image_slot(s, volume, block);

	memset(slot, 0, sizeof *slot);
	image_mark(s, volume, block);
	s->image.page[page_of(s, volume, block)].changed |= 1ull << block % SLOTS_PER_PAGE;
	s->lsn_max = max_u64(s->lsn_max, record->lsn);
	slot->kind = kind;
	if (kind == SLOT_NEVER_WRITTEN)
		return;
	slot->lsn = record->lsn;
	slot->span = record->span;
	slot->identity_span = record->identity.span;
	slot->identity_lsn = record->identity.lsn;
	slot->identity_generation = record->identity.generation;
	slot->shard_crc = record->shard_crc;
	slot->block_crc = record->block_crc;
	memcpy(slot->tag, record->tag, TAG_BYTES);
	slot->wall_ns = record->wall_ns;
	slot->powered_ns = record->powered_ns;
}

/* ---- making them durable ---- */

static void commit_step(struct store *s, struct effects *fx);

static void page_dirty(struct store *s, const struct disk_slot_page *page)
{
	uint64_t index = (uint64_t)(page - s->image.page);

	s->image.dirty[index / 64] |= 1ull << index % 64;
}

/* Where the copy before is bad the page is written over it too, before anybody relies on the slots:
 * one good copy beside a bad one is not believed. */
static void page_written(struct store *s, struct disk_slot_page *page)
{
	if (page->changed == SLOTS_ALL) {
		page_dirty(s, page);
		s->image.commit.again = true;
	}
	page->changed = 0;
}

/* A page that found no room. Its next write goes over the same copy: the other is the good one. */
static void page_left(struct store *s, struct disk_slot_page *page, int err, struct effects *fx)
{
	page->sequence--;
	page_dirty(s, page);
	s->image.commit.left = true;
	store_room_note(s, err, fx);
}

/* A fold waits for room: the records are in the journal. For slots written from peers others wait,
 * so they are told; the page is tried again later. */
static void commit_done(struct io *io, int32_t result, struct effects *fx)
{
	struct store_io *own = container_of(io, struct store_io, io);
	struct store *s = own->store;
	int err = io_error(io, result);
	bool page_full = io->kind == IO_WRITE && is_no_room(err);

	if (page_full && s->fold.step == FOLD_COMMIT && store_room_wait(s, io, err, fx))
		return;
	own->busy = false;
	s->image.commit.pending--;
	if (page_full)
		page_left(s, io->single.iov_base, err, fx);
	else if (err)
		store_fail(s, err, fx);
	else if (io->kind == IO_WRITE)
		page_written(s, io->single.iov_base);
	if (s->state == STORE_READY)
		commit_step(s, fx);
}

static void commit_sync(struct store *s, const uint16_t file[], uint32_t volumes,
			struct effects *fx)
{
	for (unsigned i = 0; i < s->config.volume_count; i++) {
		if (!(volumes & 1u << i))
			continue;
		struct store_io *sync = &s->image.commit.sync[i];
		sync->io = (struct io){.kind = IO_SYNC, .file = file[i], .done = commit_done};
		sync->busy = true;
		s->image.commit.pending++;
		effects_io(fx, &sync->io);
	}
}

/* The next marked page from the cursor on; page_count when there is none. */
static uint64_t dirty_next(struct store *s)
{
	uint64_t page = s->image.commit.cursor, count = s->image.page_count;

	while (page < count) {
		uint64_t word = s->image.dirty[page / 64] >> page % 64;
		if (word)
			return page + (unsigned)__builtin_ctzll(word);
		page = align_down(page, 64) + 64;
	}
	return count;
}

static uint8_t page_volume(const struct store *s, uint64_t page)
{
	uint8_t volume = 0;

	while (page >= s->image.volume[volume].page_base + s->image.volume[volume].page_count)
		volume++;
	return volume;
}

static void page_submit(struct store *s, struct store_io *own, uint64_t index, struct effects *fx)
{
	struct disk_slot_page *page = &s->image.page[index];
	uint8_t volume = page_volume(s, index);
	uint64_t number = index - s->image.volume[volume].page_base;

	if (s->fold.step == FOLD_COMMIT)
		fold_apply_page(s, volume, number);
	s->image.dirty[index / 64] &= ~(1ull << index % 64);
	page->sequence++;
	page->store = s->id;
	page->volume_index = volume;
	slot_page_finish(page);
	/* docs/store-format.md "slot page": odd sequences are the first copy of the pair. */
	const struct transfer transfer = {
		.kind = IO_WRITE,
		.file = s->config.files.slots[volume],
		.offset = (2 * number + (page->sequence % 2 ? 0 : 1)) * PAGE_BYTES,
		.memory = page,
		.length = PAGE_BYTES,
	};
	io_prepare(&own->io, &transfer, commit_done);
	own->busy = true;
	s->image.commit.pending++;
	s->image.commit.slots |= 1u << volume;
	effects_io(fx, &own->io);
}

static void pages_submit(struct store *s, struct effects *fx)
{
	for (unsigned i = 0; i < COMMIT_PAGES_IN_FLIGHT_MAX && !s->image.commit.left; i++) {
		struct store_io *own = &s->image.commit.page[i];
		if (own->busy)
			continue;
		s->image.commit.cursor = dirty_next(s);
		if (s->image.commit.cursor == s->image.page_count)
			return;
		page_submit(s, own, s->image.commit.cursor++, fx);
	}
}

/* All that waited has been written since. */
static void room_found(struct store *s, struct effects *fx)
{
	if (!s->room.wanted || s->image.commit.left)
		return;
	s->room.wanted = false;
	effects_note(fx, NOTE_INFO, s->config.subject, "there is room on its disk again", NULL);
}

static void commit_pages_begin(struct image *image)
{
	image->commit.step = COMMIT_PAGES;
	image->commit.slots = 0;
	image->commit.cursor = 0;
	image->commit.again = false;
}

static void commit_step(struct store *s, struct effects *fx)
{
	struct image *image = &s->image;

	switch (image->commit.step) {
	case COMMIT_IDLE:
		must(false, "nothing completes while nothing is committed");
		break;
	case COMMIT_IMAGES:
		if (image->commit.pending)
			return;
		commit_pages_begin(image);
		/* fall through */
	case COMMIT_PAGES:
		pages_submit(s, fx);
		if (image->commit.pending)
			return;
		image->commit.step = COMMIT_SLOTS;
		commit_sync(s, s->config.files.slots, image->commit.slots, fx);
		/* fall through */
	case COMMIT_SLOTS:
		if (image->commit.pending)
			return;
		if (image->commit.again) {
			commit_pages_begin(image);
			commit_step(s, fx);
			return;
		}
		image->commit.step = COMMIT_IDLE;
		room_found(s, fx);
		image->commit.finished(s, fx);
	}
}

void image_commit(struct store *s, void (*finished)(struct store *, struct effects *),
		  struct effects *fx)
{
	must(s->image.commit.step == COMMIT_IDLE, "one commit at a time");
	s->image.commit.step = COMMIT_IMAGES;
	s->image.commit.left = false;
	s->image.commit.finished = finished;
	/* What is written from here on belongs to the next commit: a sync covers what completed
	 * before it. */
	uint32_t images = s->image.commit.images;
	s->image.commit.images = 0;
	commit_sync(s, s->config.files.image, images, fx);
	commit_step(s, fx);
}

/* ---- slots written from peers ---- */

static struct store_slot_write *slot_write_of(struct io *io)
{
	return container_of(io, struct store_slot_write, io);
}

static void slot_write_answer(struct store_slot_write *write, int result, struct effects *fx)
{
	must(write->store->image.slot_writes > 0, "an answer is given once");
	write->store->image.slot_writes--;
	write->done(write, result, fx);
}

static void slot_shard_written(struct io *io, int32_t result, struct effects *fx)
{
	struct store_slot_write *write = slot_write_of(io);
	struct store *s = write->store;
	int err = io_error(io, result);

	io->since = 0;
	s->image.commit.images |= 1u << write->internal[0];
	if (is_no_room(err))
		err = -ENOSPC; /* for the caller to judge: a slot has no copy in the journal */
	else if (err)
		store_fail(s, err, fx);
	if (err || s->state != STORE_READY)
		slot_write_answer(write, err ? err : -EIO, fx);
	else
		io_list_push(&s->image.written, io);
}

static void slot_write_begin(struct store *s, struct store_slot_write *write, struct effects *fx)
{
	uint8_t volume = (uint8_t)write->internal[0];
	uint32_t shard_bytes = s->image.volume[volume].shard_bytes;
	const struct transfer transfer = {
		.kind = IO_WRITE,
		.file = s->config.files.image[volume],
		.offset = write->record.block * shard_bytes,
		.memory = (void *)(uintptr_t)write->shard,
		.length = shard_bytes,
	};

	if (!record_kind_has_payload(write->record.kind)) {
		io_list_push(&s->image.written, &write->io);
		return;
	}
	io_prepare(&write->io, &transfer, slot_shard_written);
	effects_io(fx, &write->io);
}

void store_write_slot(struct store *s, struct store_slot_write *write, struct effects *fx)
{
	uint8_t volume = NO_VOLUME;

	/* kind 0 says "never written": what peers know of a block whose header was lost here. */
	for (uint8_t i = 0; i < s->config.volume_count && volume == NO_VOLUME; i++)
		if (uuid_equal(&s->asked.volume[i].id, &write->record.volume))
			volume = i;
	must(volume != NO_VOLUME && write->record.block < s->image.volume[volume].block_count,
	     "a slot is of a block of the group");
	must(write->record.kind == SLOT_NEVER_WRITTEN || kind_has_block(write->record.kind),
	     "only blocks have slots");
	must(write->record.kind != RECORD_DATA || (uintptr_t)write->shard % PAGE_BYTES == 0,
	     "shards go to the disk from whole pages");
	write->store = s;
	write->internal[0] = volume;
	s->image.slot_writes++;
	s->image.queued++;
	io_list_push(&s->image.queue, &write->io);
}

static void slots_committed(struct store *s, struct effects *fx)
{
	struct io_list told = s->image.committing;

	s->image.committing = (struct io_list){0};
	for (struct io *io; (io = io_list_pop(&told));) {
		struct store_slot_write *write = slot_write_of(io);
		bool left = page_marked(s, (uint8_t)write->internal[0], write->record.block);
		slot_write_answer(write, left ? -ENOSPC : 0, fx);
	}
}

void image_turn(struct store *s, struct effects *fx)
{
	struct image *image = &s->image;

	if (s->fold.step > FOLD_WAIT)
		return;
	for (; s->fold.step == FOLD_IDLE && image->queue.head; image->queued--)
		slot_write_begin(s, slot_write_of(io_list_pop(&image->queue)), fx);
	bool again = image->commit.left && s->fold.step == FOLD_IDLE && fx->now >= s->room.again_at;
	if (image->commit.step != COMMIT_IDLE || !(image->written.head || again))
		return;
	/* What has gathered while the last ones were synced shares the next two syncs. */
	for (struct io *io; (io = io_list_pop(&image->written));) {
		struct store_slot_write *write = slot_write_of(io);
		image_slot_set(s, (uint8_t)write->internal[0], write->record.block, &write->record,
			       write->record.kind);
		io_list_push(&image->committing, io);
	}
	image_commit(s, slots_committed, fx);
}

void image_fail(struct store *s, int err, struct effects *fx)
{
	struct io_list *const lists[] = {&s->image.queue, &s->image.written, &s->image.committing};

	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++) {
		struct io_list told = *lists[i];
		*lists[i] = (struct io_list){0};
		if (i == 0)
			s->image.queued = 0;
		for (struct io *io; (io = io_list_pop(&told));)
			slot_write_answer(slot_write_of(io), err, fx);
	}
}
