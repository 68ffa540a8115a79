/* SPDX-License-Identifier: Apache-2.0 */
/* From client requests to block operations, each through its block's turn, its intent, its merge
 * and its local write. See primary.h for the order; window_commit is the point where an operation
 * gets its lsn. */
#include "primary.h"

#include <errno.h>

static void operation_push(struct operation_list *list, struct operation *operation)
{
	operation->next = NULL;
	if (list->tail)
		list->tail->next = operation;
	else
		list->head = operation;
	list->tail = operation;
}

static struct operation *operation_pop(struct operation_list *list)
{
	struct operation *operation = list->head;
	if (!operation)
		return NULL;
	list->head = operation->next;
	if (!list->head)
		list->tail = NULL;
	operation->next = NULL;
	return operation;
}

static uint32_t block_bytes_of(const struct primary *primary, uint8_t volume)
{
	return primary->config->volume[volume].block_bytes;
}

struct operation *operation_take(struct primary *primary)
{
	struct operation *operation = operation_pop(&primary->operation_free);
	if (!operation)
		return NULL;
	memset(operation, 0, sizeof *operation);
	operation->primary = primary;
	return operation;
}

uint8_t *scratch_take(struct primary *primary)
{
	return primary->scratch_free_count ? primary->scratch_free[--primary->scratch_free_count]
					   : NULL;
}

void scratch_give(struct primary *primary, uint8_t *scratch)
{
	must(primary->scratch_free_count < PRIMARY_SCRATCH_BLOCKS, "no scratch is given twice");
	primary->scratch_free[primary->scratch_free_count++] = scratch;
}

/* ---- a block's turn ---- */
static struct operation **block_bucket(struct primary *primary, uint8_t volume, uint64_t block)
{
	uint64_t hash = (block * VOLUMES_PER_GROUP_MAX + volume) * 0x9e3779b97f4a7c15ull;
	return &primary->bucket[hash >> 32 & (ARRAY_COUNT(primary->bucket) - 1)];
}

static struct operation *block_owner(struct primary *primary, const struct operation *operation)
{
	struct operation *owner = *block_bucket(primary, operation->volume, operation->block);
	while (owner && (owner->volume != operation->volume || owner->block != operation->block))
		owner = owner->chain;
	return owner;
}

static void block_own(struct primary *primary, struct operation *operation)
{
	struct operation **bucket = block_bucket(primary, operation->volume, operation->block);
	operation->chain = *bucket;
	*bucket = operation;
}

static void operation_begin(struct primary *, struct operation *, struct effects *);

/* The local write has ended: the next one of this block may begin. */
static void block_leave(struct primary *primary, struct operation *operation, struct effects *fx)
{
	struct operation **place = block_bucket(primary, operation->volume, operation->block);
	while (*place != operation)
		place = &(*place)->chain;
	*place = operation->chain;
	struct operation *next = operation->waiting_head;
	if (!next)
		return;
	next->waiting_head = next->next;
	next->waiting_tail = next->next ? operation->waiting_tail : NULL;
	operation->waiting_head = operation->waiting_tail = NULL;
	next->next = NULL;
	block_own(primary, next);
	operation_begin(primary, next, fx);
}

void operation_admit(struct primary *primary, struct operation *operation, struct effects *fx)
{
	struct operation *owner = block_owner(primary, operation);
	if (!owner) {
		block_own(primary, operation);
		operation_begin(primary, operation, fx);
		return;
	}
	operation->state = OPERATION_BLOCKED;
	operation->next = NULL;
	if (owner->waiting_tail)
		owner->waiting_tail->next = operation;
	else
		owner->waiting_head = operation;
	owner->waiting_tail = operation;
}

/* ---- answering ---- */
static void request_settle(struct primary *primary, struct request *request, struct effects *fx)
{
	must(request->pending > 0, "a request is answered once");
	if (--request->pending)
		return;
	primary->writes++;
	primary->write_bytes += request->length;
	request_list_push(&fx->replies, request);
}

void operation_answered(struct primary *primary, struct operation *operation, struct effects *fx)
{
	must(!operation->scratch, "scratch goes back with the local write");
	struct request *request = operation->request;
	operation->state = OPERATION_FREE;
	operation->request = NULL;
	operation_push(&primary->operation_free, operation);
	if (request)
		request_settle(primary, request, fx);
}

static void operation_failed(struct primary *primary, struct operation *operation,
			     struct effects *fx)
{
	if (operation->scratch)
		scratch_give(primary, operation->scratch);
	operation->scratch = NULL;
	if (operation->request)
		operation->request->result = -EIO;
	operation_answered(primary, operation, fx);
}

/* ---- the local write ---- */
static void operation_local_done(struct primary *primary, struct operation *operation,
				 struct effects *fx)
{
	if (operation->scratch)
		scratch_give(primary, operation->scratch);
	operation->scratch = NULL;
	operation->state = OPERATION_ANSWERABLE;
	block_leave(primary, operation, fx);
	window_local_done(primary, operation->lsn);
	/* sync: flush - a plain write is answered as a disk with a write cache does. */
	bool plain = operation->request && !(operation->request->flags & REQUEST_FUA);
	if (primary->config->sync_flush && plain) {
		window_slot(primary, operation->lsn)->operation = NULL;
		operation_answered(primary, operation, fx);
	}
}

static void local_write_done(struct io *io, int32_t result, struct effects *fx)
{
	struct operation *operation = container_of(io, struct operation, io);
	struct primary *primary = operation->primary;
	if (result < 0)
		primary_stop(primary, "a write to the device failed", result, fx);
	if (primary->state == PRIMARY_STOPPED) {
		operation_failed(primary, operation, fx);
		return;
	}
	if (operation->needs_sync)
		operation_push(&primary->device[operation->volume].wanted, operation);
	else
		operation_local_done(primary, operation, fx);
}

static void local_write_range(struct primary *primary, struct operation *operation)
{
	uint32_t block_bytes = block_bytes_of(primary, operation->volume);
	uint64_t first = 0, end = block_bytes;
	const uint8_t *from = operation->source;
	if (operation->scratch) {
		first = align_down(operation->first, PAGE_BYTES);
		end = align_up(operation->first + operation->length, PAGE_BYTES);
		from = operation->scratch + first;
	}
	struct io *io = &operation->io;
	io->kind = primary->config->sync_flush ? IO_WRITE : IO_WRITE_DURABLE;
	io->offset = operation->block * block_bytes + first;
	io->length = end - first;
	io->single = (struct iovec){.iov_base = (void *)(uintptr_t)from, .iov_len = io->length};
	io->piece = &io->single;
	io->piece_count = 1;
}

static void local_write(struct primary *primary, struct operation *operation, struct effects *fx)
{
	struct io *io = &operation->io;
	uint32_t block_bytes = block_bytes_of(primary, operation->volume);
	memset(io, 0, sizeof *io);
	io->done = local_write_done;
	io->file = primary->config->volume[operation->volume].device;
	if (record_kind_has_payload(operation->kind)) {
		local_write_range(primary, operation);
	} else {
		io->kind = operation->kind == RECORD_ZERO ? IO_ZERO : IO_DISCARD;
		io->offset = operation->block * block_bytes;
		io->length = block_bytes;
		operation->needs_sync = !primary->config->sync_flush;
	}
	operation->state = OPERATION_WRITING;
	effects_io(fx, io);
}

static void device_synced(struct io *io, int32_t result, struct effects *fx)
{
	struct device *device = container_of(io, struct device, sync);
	struct primary *primary = device->primary;
	device->syncing = false;
	if (result < 0)
		primary_stop(primary, "a sync of the device failed", result, fx);
	for (struct operation *operation; (operation = operation_pop(&device->covered));)
		if (primary->state == PRIMARY_STOPPED)
			operation_failed(primary, operation, fx);
		else
			operation_local_done(primary, operation, fx);
	if (primary->state == PRIMARY_STOPPED)
		return;
	device->synced = max_u64(device->synced, device->sync_covers);
	lsn_t least = UINT64_MAX;
	for (unsigned i = 0; i < primary->config->volume_count; i++)
		least = min_u64(least, primary->device[i].synced);
	primary->device_synced = max_u64(primary->device_synced, least);
}

void device_sync_turn(struct primary *primary, struct effects *fx)
{
	for (unsigned i = 0; i < primary->config->volume_count; i++) {
		struct device *device = &primary->device[i];
		if (device->syncing || (!device->wanted.head && !device->asked))
			continue;
		device->covered = device->wanted;
		device->wanted = (struct operation_list){0};
		device->sync_covers = primary->local_point;
		device->syncing = true;
		device->asked = false;
		device->asked_at = fx->now;
		device->primary = primary;
		device->sync = (struct io){.kind = IO_SYNC,
					   .file = primary->config->volume[i].device,
					   .done = device_synced};
		effects_io(fx, &device->sync);
	}
}

/* ---- merging a partial write ---- */
static void merge_read_done(struct io *io, int32_t result, struct effects *fx)
{
	struct operation *operation = container_of(io, struct operation, io);
	struct primary *primary = operation->primary;
	if (result < 0)
		primary_stop(primary, "a read of the device failed", result, fx);
	if (primary->state == PRIMARY_STOPPED) {
		operation_failed(primary, operation, fx);
		return;
	}
	if (operation->source)
		memcpy(operation->scratch + operation->first, operation->source, operation->length);
	else
		memset(operation->scratch + operation->first, 0, operation->length);
	operation->state = OPERATION_READY;
	operation_push(&primary->ready, operation);
}

static void merge_read(struct primary *primary, struct operation *operation, struct effects *fx)
{
	uint32_t block_bytes = block_bytes_of(primary, operation->volume);
	operation->state = OPERATION_READING;
	operation->io = (struct io){.kind = IO_READ,
				    .file = primary->config->volume[operation->volume].device,
				    .done = merge_read_done,
				    .offset = operation->block * block_bytes,
				    .length = block_bytes,
				    .piece_count = 1};
	operation->io.single = (struct iovec){operation->scratch, block_bytes};
	operation->io.piece = &operation->io.single;
	effects_io(fx, &operation->io);
}

/* True when the operation has moved on; false when it waits for its intent or for scratch. */
static bool operation_try(struct primary *primary, struct operation *operation, struct effects *fx)
{
	uint32_t block_bytes = block_bytes_of(primary, operation->volume);
	bool partial = operation->request && operation->length < block_bytes;
	/* docs/semantics.md "intents": durable before the write goes to the device or the NIC. */
	if (!operation->entered)
		operation->entered = intent_enter(primary->intent, operation->volume,
						  operation->block * block_bytes, block_bytes);
	if (!operation->entered)
		return false;
	if (partial && !operation->scratch)
		operation->scratch = scratch_take(primary);
	if (partial && !operation->scratch)
		return false;
	if (partial) {
		merge_read(primary, operation, fx);
	} else {
		operation->state = OPERATION_READY;
		operation_push(&primary->ready, operation);
	}
	return true;
}

static void operation_begin(struct primary *primary, struct operation *operation,
			    struct effects *fx)
{
	operation->state = OPERATION_INTENDED;
	if (primary->intended.head || !operation_try(primary, operation, fx))
		operation_push(&primary->intended, operation);
}

/* ---- requests ---- */
static uint8_t request_record_kind(const struct request *request, bool whole)
{
	if (request->kind == REQUEST_WRITE || !whole)
		return RECORD_DATA;
	return request->flags & REQUEST_NO_HOLE ? RECORD_ZERO : RECORD_DISCARD;
}

/* Makes the next block operation of the request; false when there is none to be had. */
static bool request_expand(struct primary *primary, struct request *request, struct effects *fx)
{
	struct operation *operation = operation_take(primary);
	if (!operation)
		return false;
	uint8_t volume = (uint8_t)(request->export - primary->export_first);
	uint32_t block_bytes = block_bytes_of(primary, volume);
	uint64_t at = request->offset + request->progress;
	operation->volume = volume;
	operation->block = at / block_bytes;
	operation->first = (uint32_t)(at % block_bytes);
	operation->length = (uint32_t)min_u64(block_bytes - operation->first,
					      request->length - request->progress);
	operation->request = request;
	operation->kind = request_record_kind(request, operation->length == block_bytes);
	if (request->kind == REQUEST_WRITE)
		operation->source = request->data + request->progress;
	request->progress += operation->length;
	request->pending++;
	operation_admit(primary, operation, fx);
	return true;
}

static void requests_expand(struct primary *primary, struct effects *fx)
{
	while (primary->admitted.head) {
		struct request *request = primary->admitted.head;
		while (request->progress < request->length)
			if (!request_expand(primary, request, fx))
				return;
		request_list_pop(&primary->admitted);
		primary->admitted_count--;
		request_settle(primary, request, fx);
	}
}

/* In sync: flush plain writes are answered before the mode is met; a flush waits for the mode
 * itself, as it is met now. */
void requests_flushed(struct primary *primary, struct effects *fx)
{
	while (primary->state == PRIMARY_REPLICATING && primary->flushing.head &&
	       primary->flushing.head->lsn <= window_mode_point(primary)) {
		primary->flushes++;
		request_list_push(&fx->replies, request_list_pop(&primary->flushing));
	}
}

/* ---- reads ---- */
static void read_done(struct io *io, int32_t result, struct effects *fx)
{
	struct reading *reading = container_of(io, struct reading, io);
	struct primary *primary = reading->primary;
	struct request *request = reading->request;
	request->result = result < 0 ? -EIO : 0;
	primary->reads++;
	primary->read_bytes += request->length;
	reading->next = primary->reading_free;
	primary->reading_free = reading;
	request_list_push(&fx->replies, request);
}

static void reads_start(struct primary *primary, struct effects *fx)
{
	while (primary->reads_waiting.head && primary->reading_free) {
		struct request *request = request_list_pop(&primary->reads_waiting);
		struct reading *reading = primary->reading_free;
		primary->reading_free = reading->next;
		reading->primary = primary;
		reading->request = request;
		uint64_t lead = request->offset % PAGE_BYTES;
		unsigned volume = request->export - primary->export_first;
		reading->io = (struct io){.kind = IO_READ,
					  .file = primary->config->volume[volume].device,
					  .done = read_done,
					  .offset = request->offset - lead,
					  .length = align_up(lead + request->length, PAGE_BYTES),
					  .piece_count = 1};
		reading->io.single = (struct iovec){request->data - lead, reading->io.length};
		reading->io.piece = &reading->io.single;
		effects_io(fx, &reading->io);
	}
}

void primary_request(struct primary *primary, struct request *request, struct effects *fx)
{
	request->result = 0;
	request->arrived = fx->now;
	request->pending = 1;
	request->progress = 0;
	if (primary->state == PRIMARY_STOPPED) {
		request->result = -EIO;
		request_list_push(&fx->replies, request);
		return;
	}
	switch (request->kind) {
	case REQUEST_READ:
		request_list_push(&primary->reads_waiting, request);
		break;
	case REQUEST_WRITE:
	case REQUEST_ZERO:
	case REQUEST_DISCARD:
		request_list_push(&primary->admitted, request);
		primary->admitted_count++;
		break;
	case REQUEST_FLUSH:
		request->lsn = primary->lsn_next - 1;
		request_list_push(&primary->flushing, request);
		break;
	case REQUEST_STATUS:
		if (request->extent_count) {
			request->extent[0] = (struct extent){.length = request->length};
			request->extent_count = 1;
		}
		request_list_push(&fx->replies, request);
		break;
	default:
		request_list_push(&fx->replies, request);
	}
}

/* After the group has stopped: nothing waits for ever. What is with the disk answers when it comes
 * back. */
void write_fail_all(struct primary *primary, struct effects *fx)
{
	struct request_list *lists[] = {&primary->admitted, &primary->flushing,
					&primary->reads_waiting};
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++)
		for (struct request *request; (request = request_list_pop(lists[i]));) {
			request->result = -EIO;
			if (i > 0 || !--request->pending)
				request_list_push(&fx->replies, request);
		}
	primary->admitted_count = 0;
	primary->intended = primary->ready = (struct operation_list){0};
	memset(primary->bucket, 0, sizeof primary->bucket);
	for (unsigned i = 0; i < primary->config->volume_count; i++) {
		struct operation *operation;
		while ((operation = operation_pop(&primary->device[i].wanted)))
			operation->state = OPERATION_ANSWERABLE;
	}
	for (unsigned i = 0; i < PRIMARY_OPERATIONS; i++) {
		struct operation *operation = &primary->operation[i];
		bool at_disk = operation->state == OPERATION_READING ||
			       operation->state == OPERATION_WRITING;
		if (operation->state != OPERATION_FREE && !at_disk)
			operation_failed(primary, operation, fx);
	}
}

/* In order of arrival; the first that still waits holds the rest. */
static void operations_begin(struct primary *primary, struct effects *fx)
{
	struct operation_list waiting = primary->intended;
	primary->intended = (struct operation_list){0};
	while (waiting.head) {
		struct operation *operation = operation_pop(&waiting);
		if (operation_try(primary, operation, fx))
			continue;
		/* It goes back to the front, with all behind it. */
		operation->next = waiting.head;
		primary->intended.head = operation;
		primary->intended.tail = waiting.tail ? waiting.tail : operation;
		return;
	}
}

static void operations_commit(struct primary *primary, struct effects *fx)
{
	while (primary->ready.head && window_has_room(primary)) {
		struct operation *operation = operation_pop(&primary->ready);
		window_commit(primary, operation, fx);
		if (operation->request)
			local_write(primary, operation, fx);
		else
			operation_local_done(primary, operation, fx);
	}
}

void write_turn(struct primary *primary, struct effects *fx)
{
	if (primary->state == PRIMARY_STOPPED)
		return;
	reads_start(primary, fx);
	operations_begin(primary, fx);
	if (primary->state == PRIMARY_REPLICATING)
		requests_expand(primary, fx);
	operations_commit(primary, fx);
	device_sync_turn(primary, fx);
}
