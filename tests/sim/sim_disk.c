/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated disks. A write is in the cache when it completes and durable after a sync that was
 * submitted later (or at once when it asks for that). A power cut keeps any subset of what was not
 * yet durable, tears entries at 512 bytes, and loses the rest; a killed process leaves the cache as
 * it is, with any part of what was on its way. */
#include "world.h"

#include <errno.h>
#include <stdlib.h>

unsigned disk_file(struct site *site, const char *name, uint64_t size)
{
	must(site->file_count < FILES_MAX, "the simulated site has room for its files");
	struct file *file = &site->file[site->file_count];
	file->exists = true;
	snprintf(file->name, sizeof file->name, "%s", name);
	file->size = align_up(size, PAGE_BYTES);
	file->cached = calloc(1, file->size);
	file->durable = calloc(1, file->size);
	return site->file_count++;
}

static void file_apply(uint8_t *image, const struct unsynced *entry)
{
	if (entry->bytes)
		memcpy(image + entry->offset, entry->bytes, entry->length);
	else
		memset(image + entry->offset, 0, entry->length);
}

static void file_remember(struct file *file, struct unsynced entry)
{
	if (file->unsynced_count == file->unsynced_room) {
		file->unsynced_room = file->unsynced_room ? file->unsynced_room * 2 : 16;
		file->unsynced = realloc(file->unsynced, file->unsynced_room * sizeof entry);
	}
	file->unsynced[file->unsynced_count++] = entry;
}

static void gather(const struct io *io, uint8_t *to)
{
	for (unsigned i = 0; i < io->piece_count; i++) {
		must((uintptr_t)io->piece[i].iov_base % PAGE_BYTES == 0 &&
			     io->piece[i].iov_len % PAGE_BYTES == 0,
		     "direct I/O is aligned");
		memcpy(to, io->piece[i].iov_base, io->piece[i].iov_len);
		to += io->piece[i].iov_len;
	}
}

void disk_take(struct world *world, struct site *site, struct io *io)
{
	unsigned number = site->pending_next++ % PENDING_MAX;
	struct pending *pending = &site->pending[number];
	must(!pending->open, "the simulated disk has room");
	must(io->file < site->file_count, "an operation names an open file");
	must(io->offset % PAGE_BYTES == 0 && io->length % PAGE_BYTES == 0, "direct I/O is aligned");
	*pending = (struct pending){.io = io,
				    .file = io->file,
				    .kind = io->kind,
				    .offset = io->offset,
				    .length = io->length,
				    .open = true};
	struct file *file = &site->file[io->file];
	if (io->kind == IO_WRITE || io->kind == IO_WRITE_DURABLE) {
		must(io->offset + io->length <= file->size, "a write stays in its file");
		pending->bytes = malloc(io->length);
		gather(io, pending->bytes);
	}
	if (io->kind == IO_SYNC)
		pending->sync_covers = file->unsynced_count;
	ns_t delay = chance_between(&world->chance, world->options.disk_least,
				    world->options.disk_most) +
		     chance_below(&world->chance, file->slow + 1);
	world_event(world, max_u64(world->now, file->stalled) + delay, EVENT_DISK, site->index,
		    NULL, number);
}

/* ---- pages that cannot be read ---- */
void disk_spoil(struct file *file, uint64_t offset)
{
	if (!file->unreadable)
		file->unreadable = calloc(1, file->size / PAGE_BYTES);
	file->unreadable[offset / PAGE_BYTES] = 1;
}

static bool range_unreadable(const struct file *file, uint64_t offset, uint64_t length)
{
	uint64_t end = min_u64(offset + length, file->size);
	for (uint64_t at = offset; file->unreadable && at < end; at += PAGE_BYTES)
		if (file->unreadable[at / PAGE_BYTES])
			return true;
	return false;
}

/* A disk puts another page in the place of one that is written. */
static void range_written(struct file *file, uint64_t offset, uint64_t length)
{
	if (file->unreadable)
		memset(file->unreadable + offset / PAGE_BYTES, 0, length / PAGE_BYTES);
}

/* ---- rot: in the cache and on the disk alike ---- */
void disk_rot(struct file *file, uint64_t offset, uint8_t bits)
{
	file->cached[offset] ^= bits;
	file->durable[offset] ^= bits;
}

static void scatter(const struct io *io, const struct file *file)
{
	uint64_t at = io->offset;
	for (unsigned i = 0; i < io->piece_count; i++)
		for (uint64_t j = 0; j < io->piece[i].iov_len; j += PAGE_BYTES, at += PAGE_BYTES) {
			uint8_t *to = (uint8_t *)io->piece[i].iov_base + j;
			if (at < file->size)
				memcpy(to, file->cached + at, PAGE_BYTES);
			else
				memset(to, 0, PAGE_BYTES);
		}
}

static void file_sync(struct file *file, unsigned covers)
{
	covers = covers < file->unsynced_count ? covers : file->unsynced_count;
	if (!covers)
		return;
	for (unsigned i = 0; i < covers; i++) {
		file_apply(file->durable, &file->unsynced[i]);
		free(file->unsynced[i].bytes);
	}
	memmove(file->unsynced, file->unsynced + covers,
		(file->unsynced_count - covers) * sizeof *file->unsynced);
	file->unsynced_count -= covers;
}

static void file_supersede(struct file *file, const struct unsynced *newer)
{
	for (unsigned i = 0; i < file->unsynced_count; i++) {
		struct unsynced *older = &file->unsynced[i];
		uint64_t first = max_u64(older->offset, newer->offset);
		uint64_t end =
			min_u64(older->offset + older->length, newer->offset + newer->length);
		if (first >= end)
			continue;
		if (!older->bytes)
			older->bytes = calloc(1, older->length);
		memcpy(older->bytes + (first - older->offset),
		       newer->bytes + (first - newer->offset), end - first);
	}
}

/* As kernels do: what a failed sync did not write is clean from then on. It is read from the cache
 * until the power goes, and no later sync writes it. */
static void file_forget(struct file *file, const struct pending *pending)
{
	struct unsynced entry = {
		.offset = pending->offset, .length = pending->length, .bytes = pending->bytes};
	for (unsigned i = 0; i < file->unsynced_count; i++)
		free(file->unsynced[i].bytes);
	file->unsynced_count = 0;
	file->differs = true;
	if (pending->kind == IO_WRITE || pending->kind == IO_WRITE_DURABLE)
		file_apply(file->cached, &entry);
	file->failed = false;
}

static int32_t read_apply(struct world *world, const struct pending *pending, struct file *file)
{
	if (range_unreadable(file, pending->offset, pending->length)) {
		world->unread++;
		return -EIO;
	}
	scatter(pending->io, file);
	if (!world->quiet && pending->length && file->misread &&
	    chance_permille(&world->chance, file->misread)) {
		const struct iovec *piece =
			&pending->io->piece[chance_below(&world->chance, pending->io->piece_count)];
		uint64_t bit = chance_below(&world->chance, piece->iov_len * 8);
		((uint8_t *)piece->iov_base)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		world->unread++;
	}
	return (int32_t)pending->length;
}

/* Where a write really goes; false: nowhere. */
static bool write_goes(struct world *world, const struct file *file, struct unsynced *entry)
{
	if (world->quiet)
		return true;
	if (file->lost_writes && chance_permille(&world->chance, file->lost_writes)) {
		world->strayed++;
		return false;
	}
	if (file->misdirected && chance_permille(&world->chance, file->misdirected)) {
		uint64_t places = (file->size - entry->length) / PAGE_BYTES + 1;
		entry->offset = chance_below(&world->chance, places) * PAGE_BYTES;
		world->strayed++;
	}
	return true;
}

static int32_t write_apply(struct world *world, struct pending *pending, struct file *file)
{
	struct unsynced entry = {
		.offset = pending->offset, .length = pending->length, .bytes = pending->bytes};
	if (!write_goes(world, file, &entry))
		return (int32_t)pending->length;
	bool durable = pending->kind == IO_WRITE_DURABLE && !file->lies;
	/* Its own bytes only: what other writes left in the cache stays there, but none of it may
	 * come later than these. */
	if (durable)
		file_supersede(file, &entry);
	range_written(file, entry.offset, entry.length);
	file_apply(file->cached, &entry);
	if (durable) {
		world->hardened++;
		file_apply(file->durable, &entry);
	} else {
		file_remember(file, entry);
		pending->bytes = NULL;
	}
	return (int32_t)pending->length;
}

static int32_t pending_apply(struct world *world, struct pending *pending, struct file *file)
{
	struct unsynced entry = {
		.offset = pending->offset, .length = pending->length, .bytes = pending->bytes};
	if (file->failed && pending->kind != IO_READ) {
		if (file->forgets)
			file_forget(file, pending);
		return -EIO;
	}
	if (file->lies && pending->kind == IO_SYNC)
		return 0;
	switch (pending->kind) {
	case IO_READ:
		return read_apply(world, pending, file);
	case IO_WRITE:
	case IO_WRITE_DURABLE:
		return write_apply(world, pending, file);
	case IO_SYNC:
		world->hardened += pending->sync_covers > 0;
		file_sync(file, pending->sync_covers);
		return 0;
	default:
		range_written(file, entry.offset, entry.length);
		file_apply(file->cached, &entry);
		file_remember(file, entry);
		return 0;
	}
}

void disk_complete(struct world *world, struct site *site, uint32_t number)
{
	struct pending *pending = &site->pending[number];
	must(pending->open, "an operation completes once");
	struct file *file = &site->file[pending->file];
	bool writes = pending->kind != IO_READ;
	if (file->fail_after && writes && --file->fail_after == 0)
		file->failed = true;
	/* Syncs that are in flight count entries from the front: one that completes takes them from
	 * the others. */
	unsigned before = file->unsynced_count;
	int32_t result = pending_apply(world, pending, file);
	if (pending->kind == IO_SYNC && result == 0) {
		unsigned taken = before - file->unsynced_count;
		for (unsigned i = site->pending_oldest; i != site->pending_next; i++) {
			struct pending *other = &site->pending[i % PENDING_MAX];
			if (other->open && other != pending && other->kind == IO_SYNC &&
			    other->file == pending->file)
				other->sync_covers -=
					other->sync_covers < taken ? other->sync_covers : taken;
		}
	}
	free(pending->bytes);
	pending->bytes = NULL;
	pending->open = false;
	while (site->pending_oldest != site->pending_next &&
	       !site->pending[site->pending_oldest % PENDING_MAX].open)
		site->pending_oldest++;
	must(site->completion_count < ARRAY_COUNT(site->completion),
	     "completions are taken in time");
	site->completion[site->completion_count++] =
		(struct completion){.io = pending->io, .result = result};
}

static enum fate draw_fate(struct world *world, enum fate mood)
{
	return mood == FATE_EACH ? (enum fate)chance_below(&world->chance, FATE_EACH) : mood;
}

static enum fate draw_mood(struct world *world)
{
	if (world->fate != FATE_DRAWN)
		return world->fate;
	return chance_permille(&world->chance, 500)
		       ? FATE_EACH
		       : (enum fate)chance_below(&world->chance, FATE_PART);
}

/* One entry of those that were on their way: whole, in part, or not at all. */
static void crash_entry(struct world *world, struct file *file, const struct unsynced *entry,
			enum fate mood)
{
	enum fate fate = draw_fate(world, mood);
	if (fate == FATE_LOST || file->failed)
		return;
	if (fate == FATE_WHOLE) {
		file_apply(file->durable, entry);
		return;
	}
	for (uint64_t at = 0; at < entry->length; at += SECTOR_BYTES) {
		struct unsynced sector = {.offset = entry->offset + at,
					  .length = SECTOR_BYTES,
					  .bytes = entry->bytes ? entry->bytes + at : NULL};
		if (chance_permille(&world->chance, 500))
			file_apply(file->durable, &sector);
	}
}

/* The process is gone, the machine is not: of what was on its way any part is in the cache. */
static void kill_entry(struct world *world, struct file *file, const struct unsynced *entry,
		       enum fate mood)
{
	enum fate fate = draw_fate(world, mood);
	if (fate == FATE_LOST || file->failed)
		return;
	for (uint64_t at = 0; at < entry->length; at += PAGE_BYTES) {
		struct unsynced page = {.offset = entry->offset + at, .length = PAGE_BYTES};
		if (fate == FATE_PART && chance_permille(&world->chance, 500))
			continue;
		if (entry->bytes) {
			page.bytes = malloc(PAGE_BYTES);
			memcpy(page.bytes, entry->bytes + at, PAGE_BYTES);
		}
		file_apply(file->cached, &page);
		file_remember(file, page);
	}
}

static void disk_kill(struct world *world, struct site *site)
{
	enum fate mood = draw_mood(world);
	for (unsigned i = site->pending_oldest; i != site->pending_next; i++) {
		struct pending *pending = &site->pending[i % PENDING_MAX];
		if (!pending->open)
			continue;
		struct unsynced entry = {.offset = pending->offset,
					 .length = pending->length,
					 .bytes = pending->bytes};
		if (pending->kind != IO_READ && pending->kind != IO_SYNC)
			kill_entry(world, &site->file[pending->file], &entry, mood);
		free(pending->bytes);
		*pending = (struct pending){0};
	}
}

/* What was cached is gone: what is read from here on is what is durable. */
static void cache_drop(struct file *file, const struct unsynced *entry)
{
	memcpy(file->cached + entry->offset, file->durable + entry->offset, entry->length);
}

static void power_cut_file(struct world *world, struct file *file, enum fate mood)
{
	for (unsigned i = 0; i < file->unsynced_count; i++)
		crash_entry(world, file, &file->unsynced[i], mood);
	for (unsigned i = 0; i < file->unsynced_count; i++) {
		cache_drop(file, &file->unsynced[i]);
		free(file->unsynced[i].bytes);
	}
	file->unsynced_count = 0;
	if (file->differs)
		memcpy(file->cached, file->durable, file->size);
	file->differs = false;
}

void disk_crash(struct world *world, struct site *site, enum crash kind)
{
	for (unsigned i = 0; i < site->file_count; i++)
		if (site->file[i].hung) {
			site->file[i].hung = false;
			site->file[i].stalled = 0;
		}
	if (kind == CRASH_PROCESS) {
		disk_kill(world, site);
		return;
	}
	enum fate mood = draw_mood(world);
	for (unsigned i = 0; i < site->file_count; i++)
		power_cut_file(world, &site->file[i], mood);
	for (unsigned i = site->pending_oldest; i != site->pending_next; i++) {
		struct pending *pending = &site->pending[i % PENDING_MAX];
		if (!pending->open)
			continue;
		struct unsynced entry = {.offset = pending->offset,
					 .length = pending->length,
					 .bytes = pending->bytes};
		struct file *file = &site->file[pending->file];
		if (pending->kind != IO_READ && pending->kind != IO_SYNC) {
			crash_entry(world, file, &entry, mood);
			cache_drop(file, &entry);
		}
		free(pending->bytes);
		*pending = (struct pending){0};
	}
}
