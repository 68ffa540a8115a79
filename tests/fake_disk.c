/* SPDX-License-Identifier: Apache-2.0 */
/* The disk in memory. Each file has a log of the writes that are not settled, in the order of their
 * completion; a write in it is durable when it was asked to be, or when a sync that was submitted
 * after its completion has completed. */
#include "fake_disk.h"

#include <stdio.h>
#include <stdlib.h>

struct fake_write {
	struct fake_write *next;
	uint64_t offset, length, completed;
	bool durable;
	uint8_t data[];
};

uint64_t fake_disk_random(struct fake_disk *disk)
{
	/* splitmix64 */
	uint64_t z = disk->random += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

void fake_disk_init(struct fake_disk *disk, uint64_t seed)
{
	memset(disk, 0, sizeof *disk);
	disk->random = seed;
	disk->fault.kind = -1;
	disk->fault.file = -1;
	disk->slow_file = -1;
}

static void log_free(struct fake_file *file)
{
	while (file->log) {
		struct fake_write *next = file->log->next;
		free(file->log);
		file->log = next;
	}
}

static void pending_free(struct fake_disk *disk)
{
	for (unsigned i = 0; i < disk->pending_count; i++)
		free(disk->pending[i].data);
	disk->pending_count = 0;
}

void fake_disk_fini(struct fake_disk *disk)
{
	pending_free(disk);
	for (unsigned i = 0; i < FAKE_FILES_MAX; i++) {
		log_free(&disk->file[i]);
		free(disk->file[i].cached);
		free(disk->file[i].durable);
		disk->file[i] = (struct fake_file){0};
	}
}

void fake_disk_file(struct fake_disk *disk, unsigned number, uint64_t bytes)
{
	struct fake_file *file = &disk->file[number];

	must(number < FAKE_FILES_MAX && !file->cached, "a file is made once");
	file->bytes = bytes;
	file->cached = calloc(1, bytes);
	file->durable = calloc(1, bytes);
	must(file->cached && file->durable, "a test has memory");
}

static bool io_writes(const struct io *io)
{
	return io->kind != IO_READ && io->kind != IO_SYNC;
}

static uint8_t *io_gather(const struct io *io)
{
	uint8_t *data = calloc(1, io->length ? io->length : 1);
	uint64_t at = 0;

	must(data, "a test has memory");
	if (io->kind != IO_WRITE && io->kind != IO_WRITE_DURABLE)
		return data; /* discard and zero read as zeros */
	for (unsigned i = 0; i < io->piece_count; i++) {
		must((uintptr_t)io->piece[i].iov_base % PAGE_BYTES == 0 &&
			     io->piece[i].iov_len % PAGE_BYTES == 0,
		     "direct writes are aligned");
		memcpy(data + at, io->piece[i].iov_base, io->piece[i].iov_len);
		at += io->piece[i].iov_len;
	}
	must(at == io->length, "the pieces make the length");
	return data;
}

void fake_disk_submit(struct fake_disk *disk, struct effects *fx)
{
	for (struct io *io; (io = io_list_pop(&fx->disk));) {
		const struct fake_file *file = &disk->file[io->file];
		must(disk->pending_count < FAKE_PENDING_MAX, "the ring has room");
		must(file->cached, "the file is open");
		must(io->kind == IO_SYNC ||
			     (io->offset % PAGE_BYTES == 0 && io->length % PAGE_BYTES == 0 &&
			      io->length > 0 && io->offset + io->length <= file->bytes),
		     "operations are whole pages inside the file");
		disk->pending[disk->pending_count++] = (struct fake_pending){
			io, io_writes(io) ? io_gather(io) : NULL, ++disk->clock};
	}
}

static struct fake_write *log_add(struct fake_file *file, const struct fake_pending *pending,
				  uint64_t now)
{
	struct fake_write *write = malloc(sizeof *write + pending->io->length);
	struct fake_write **link = &file->log;

	must(write, "a test has memory");
	*write = (struct fake_write){.offset = pending->io->offset,
				     .length = pending->io->length,
				     .completed = now,
				     .durable = pending->io->kind == IO_WRITE_DURABLE};
	memcpy(write->data, pending->data, write->length);
	while (*link)
		link = &(*link)->next;
	*link = write;
	return write;
}

/* Durable writes at the front of the log need no log any more. */
static void log_settle(struct fake_file *file)
{
	while (file->log && file->log->durable) {
		struct fake_write *write = file->log;
		memcpy(file->durable + write->offset, write->data, write->length);
		file->log = write->next;
		free(write);
	}
}

static void execute_sync(struct fake_file *file, uint64_t submitted)
{
	for (struct fake_write *write = file->log; write; write = write->next)
		if (write->completed < submitted)
			write->durable = true;
}

static void execute_read(const struct fake_file *file, const struct io *io)
{
	uint64_t at = io->offset;

	for (unsigned i = 0; i < io->piece_count; i++) {
		memcpy(io->piece[i].iov_base, file->cached + at, io->piece[i].iov_len);
		at += io->piece[i].iov_len;
	}
}

static bool fault_hits(struct fake_disk *disk, const struct io *io)
{
	struct fake_fault *fault = &disk->fault;

	if (fault->times == 0 || fault->kind != io->kind ||
	    (fault->file >= 0 && fault->file != io->file))
		return false;
	if (fault->after > 0) {
		fault->after--;
		return false;
	}
	fault->times--;
	return true;
}

static unsigned pending_pick(struct fake_disk *disk)
{
	unsigned pick = 0;

	if (disk->in_order)
		return 0;
	for (unsigned tries = 0; tries < 8; tries++) {
		pick = (unsigned)(fake_disk_random(disk) % disk->pending_count);
		if (disk->pending[pick].io->file != disk->slow_file)
			break;
	}
	return pick;
}

bool fake_disk_only_slow(const struct fake_disk *disk)
{
	for (unsigned i = 0; i < disk->pending_count; i++)
		if (disk->pending[i].io->file != disk->slow_file)
			return false;
	return disk->pending_count > 0;
}

bool fake_disk_complete(struct fake_disk *disk, struct effects *fx)
{
	if (disk->pending_count == 0)
		return false;
	unsigned pick = pending_pick(disk);
	struct fake_pending pending = disk->pending[pick];
	struct io *io = pending.io;
	struct fake_file *file = &disk->file[io->file];
	bool transfer = io->kind != IO_SYNC && io->kind != IO_DISCARD && io->kind != IO_ZERO;
	int32_t result = transfer ? (int32_t)io->length : 0;

	memmove(&disk->pending[pick], &disk->pending[pick + 1],
		(--disk->pending_count - pick) * sizeof disk->pending[0]);
	disk->clock++;
	disk->count[io->kind]++;
	if (pending.data) {
		uint8_t *now = io_gather(io);
		must(memcmp(now, pending.data, io->length) == 0,
		     "memory is left alone while it is written");
		free(now);
	}
	if (fault_hits(disk, io)) {
		result = disk->fault.result;
	} else if (io->kind == IO_READ) {
		execute_read(file, io);
	} else if (io->kind == IO_SYNC) {
		execute_sync(file, pending.submitted);
	} else {
		memcpy(file->cached + io->offset, pending.data, io->length);
		log_add(file, &pending, disk->clock);
	}
	log_settle(file);
	free(pending.data);
	io->done(io, result, fx);
	return true;
}

/* Sector by sector: all, none, or any subset of them. */
static void write_tear(struct fake_disk *disk, uint8_t *to, const uint8_t *data, uint64_t length)
{
	uint64_t mode = fake_disk_random(disk) % 4;

	if (mode == 0)
		return;
	for (uint64_t at = 0; at < length; at += FAKE_SECTOR_BYTES)
		if (mode == 1 || fake_disk_random(disk) & 1)
			memcpy(to + at, data + at, FAKE_SECTOR_BYTES);
}

void fake_disk_crash(struct fake_disk *disk)
{
	for (unsigned i = 0; i < FAKE_FILES_MAX; i++) {
		struct fake_file *file = &disk->file[i];
		for (struct fake_write *write = file->log; write; write = write->next) {
			if (write->durable)
				memcpy(file->durable + write->offset, write->data, write->length);
			else
				write_tear(disk, file->durable + write->offset, write->data,
					   write->length);
		}
		log_free(file);
	}
	for (unsigned i = 0; i < disk->pending_count; i++) {
		const struct fake_pending *pending = &disk->pending[i];
		if (pending->data)
			write_tear(disk,
				   disk->file[pending->io->file].durable + pending->io->offset,
				   pending->data, pending->io->length);
	}
	pending_free(disk);
	for (unsigned i = 0; i < FAKE_FILES_MAX; i++)
		if (disk->file[i].cached)
			memcpy(disk->file[i].cached, disk->file[i].durable, disk->file[i].bytes);
}

void fake_disk_kill(struct fake_disk *disk)
{
	for (unsigned i = 0; i < disk->pending_count; i++) {
		struct fake_pending *pending = &disk->pending[i];
		struct fake_file *file = &disk->file[pending->io->file];
		if (!pending->data)
			continue;
		/* Through the cache, as a write of what the cache then shows. */
		write_tear(disk, file->cached + pending->io->offset, pending->data,
			   pending->io->length);
		memcpy(pending->data, file->cached + pending->io->offset, pending->io->length);
		log_add(file, pending, ++disk->clock)->durable = false;
	}
	pending_free(disk);
}

void fake_disk_settle(struct fake_disk *disk)
{
	pending_free(disk);
	for (unsigned i = 0; i < FAKE_FILES_MAX; i++) {
		log_free(&disk->file[i]);
		if (disk->file[i].cached)
			memcpy(disk->file[i].durable, disk->file[i].cached, disk->file[i].bytes);
	}
}

void fake_disk_poke(struct fake_disk *disk, unsigned file, uint64_t offset, const void *bytes,
		    uint64_t length)
{
	must(offset + length <= disk->file[file].bytes, "inside the file");
	memcpy(disk->file[file].cached + offset, bytes, length);
	memcpy(disk->file[file].durable + offset, bytes, length);
}
