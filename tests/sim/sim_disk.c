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
	if (pending->kind == IO_WRITE || pending->kind == IO_WRITE_DURABLE)
		file_apply(file->cached, &entry);
	file->failed = false;
}

static int32_t pending_apply(struct pending *pending, struct file *file)
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
		scatter(pending->io, file);
		return (int32_t)pending->length;
	case IO_WRITE:
		file_apply(file->cached, &entry);
		file_remember(file, entry);
		pending->bytes = NULL;
		return (int32_t)pending->length;
	case IO_WRITE_DURABLE:
		if (file->lies) {
			file_apply(file->cached, &entry);
			file_remember(file, entry);
			pending->bytes = NULL;
			return (int32_t)pending->length;
		}
		/* Its own bytes only: what other writes left in the cache stays there, but none of
		 * it may come later than these. */
		file_supersede(file, &entry);
		file_apply(file->cached, &entry);
		file_apply(file->durable, &entry);
		return (int32_t)pending->length;
	case IO_SYNC:
		file_sync(file, pending->sync_covers);
		return 0;
	default:
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
	int32_t result = pending_apply(pending, file);
	if (pending->kind == IO_SYNC && result == 0) {
		unsigned taken = before - file->unsynced_count;
		for (unsigned i = 0; i < PENDING_MAX; i++) {
			struct pending *other = &site->pending[i];
			if (other->open && other != pending && other->kind == IO_SYNC &&
			    other->file == pending->file)
				other->sync_covers -=
					other->sync_covers < taken ? other->sync_covers : taken;
		}
	}
	free(pending->bytes);
	pending->bytes = NULL;
	pending->open = false;
	must(site->completion_count < ARRAY_COUNT(site->completion),
	     "completions are taken in time");
	site->completion[site->completion_count++] =
		(struct completion){.io = pending->io, .result = result};
}

/* What becomes of what was on its way: of all of it, or of each by itself. */
enum fate { FATE_LOST, FATE_WHOLE, FATE_PART, FATE_EACH };

static enum fate draw_fate(struct world *world, enum fate mood)
{
	return mood == FATE_EACH ? (enum fate)chance_below(&world->chance, FATE_EACH) : mood;
}

static enum fate draw_mood(struct world *world)
{
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
	for (unsigned i = 0; i < PENDING_MAX; i++) {
		struct pending *pending = &site->pending[i];
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
	for (unsigned i = 0; i < site->file_count; i++) {
		struct file *file = &site->file[i];
		for (unsigned j = 0; j < file->unsynced_count; j++) {
			crash_entry(world, file, &file->unsynced[j], mood);
			free(file->unsynced[j].bytes);
		}
		file->unsynced_count = 0;
	}
	for (unsigned i = 0; i < PENDING_MAX; i++) {
		struct pending *pending = &site->pending[i];
		if (!pending->open)
			continue;
		struct unsynced entry = {.offset = pending->offset,
					 .length = pending->length,
					 .bytes = pending->bytes};
		if (pending->kind != IO_READ && pending->kind != IO_SYNC)
			crash_entry(world, &site->file[pending->file], &entry, mood);
		free(pending->bytes);
		*pending = (struct pending){0};
	}
	for (unsigned i = 0; i < site->file_count; i++)
		memcpy(site->file[i].cached, site->file[i].durable, site->file[i].size);
}
