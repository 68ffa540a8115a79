/* SPDX-License-Identifier: Apache-2.0 */
/* Transmission: commands become requests for core, and core's answers become replies. A command
 * that breaks a rule is answered with an error and changes nothing; its payload is read and thrown
 * away. */
#include "nbd_parse.h"

#include <errno.h>

struct command_header {
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

/* What we know of a command: an absent row is a command that does not exist here. */
struct command_rule {
	bool known;
	uint8_t kind;	       /* enum request_kind */
	uint16_t flags;	       /* those it may carry, besides FUA, which all may */
	bool changes;	       /* refused on a read-only export */
	bool has_payload_size; /* bounded by NBD_PAYLOAD_BYTES_MAX, needs memory for it */
	uint8_t beyond;	       /* enum nbd_error for a range beyond the end */
};

static const struct command_rule command_rule[NBD_COMMAND_COUNT] = {
	[NBD_COMMAND_READ] = {true, REQUEST_READ, NBD_FLAG_DF, false, true, NBD_EINVAL},
	[NBD_COMMAND_WRITE] = {true, REQUEST_WRITE, 0, true, true, NBD_ENOSPC},
	[NBD_COMMAND_FLUSH] = {true, REQUEST_FLUSH, 0, false, false, NBD_EINVAL},
	[NBD_COMMAND_TRIM] = {true, REQUEST_DISCARD, 0, true, false, NBD_EINVAL},
	[NBD_COMMAND_CACHE] = {true, REQUEST_CACHE, 0, false, false, NBD_EINVAL},
	[NBD_COMMAND_WRITE_ZEROES] = {true, REQUEST_ZERO, NBD_FLAG_NO_HOLE | NBD_FLAG_FAST_ZERO,
				      true, false, NBD_ENOSPC},
	[NBD_COMMAND_BLOCK_STATUS] = {true, REQUEST_STATUS, NBD_FLAG_REQ_ONE, false, false,
				      NBD_EINVAL},
};

/* ---- replies ---- */

static enum nbd_error error_of(int32_t result)
{
	switch (result) {
	case 0:
		return NBD_SUCCESS;
	case -EPERM:
	case -EACCES:
	case -EROFS:
		return NBD_EPERM;
	case -ENOMEM:
		return NBD_ENOMEM;
	case -EINVAL:
		return NBD_EINVAL;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return NBD_ENOSPC;
	case -EOVERFLOW:
		return NBD_EOVERFLOW;
	case -EOPNOTSUPP:
		return NBD_ENOTSUP;
	case -ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}
_Static_assert(EOPNOTSUPP == ENOTSUP, "one row for both names");

static void reply_simple(struct nbd_slot *slot, enum nbd_error error)
{
	put_be32(slot->header, NBD_SIMPLE_REPLY_MAGIC);
	put_be32(slot->header + 4, error);
	put_be64(slot->header + 8, slot->cookie);
	slot->header_bytes = NBD_SIMPLE_REPLY_BYTES;
}

/* The head of the only chunk of a structured reply; gives the place behind it. fixed: bytes of the
 * chunk that stand in the slot's header, before the body. */
static uint8_t *reply_chunk(struct nbd_slot *slot, enum nbd_chunk type, uint32_t fixed)
{
	uint8_t *p = slot->header;

	must(NBD_CHUNK_HEADER_BYTES + fixed <= NBD_REPLY_HEADER_BYTES, "the head fits the slot");
	put_be32(p, NBD_STRUCTURED_REPLY_MAGIC);
	put_be16(p + 4, NBD_CHUNK_DONE);
	put_be16(p + 6, (uint16_t)type);
	put_be64(p + 8, slot->cookie);
	put_be32(p + 16, fixed + slot->body_bytes);
	slot->header_bytes = (uint8_t)(NBD_CHUNK_HEADER_BYTES + fixed);
	return p + NBD_CHUNK_HEADER_BYTES;
}

static void reply_data(struct nbd_slot *slot)
{
	slot->body = slot->request.data;
	slot->body_bytes = slot->request.length;
	if (!slot->connection->structured)
		reply_simple(slot, NBD_SUCCESS);
	else if (slot->body_bytes > 0)
		put_be64(reply_chunk(slot, NBD_CHUNK_OFFSET_DATA, NBD_CHUNK_OFFSET_BYTES),
			 slot->request.offset);
	else
		reply_chunk(slot, NBD_CHUNK_NONE, 0);
}

/* Descriptors take the place of the extents. They cover no more than was asked for. */
static void reply_status(struct nbd_slot *slot)
{
	struct request *request = &slot->request;
	uint64_t rest = request->length;
	uint32_t count = 0;

	for (; count < request->extent_count && rest > 0; count++) {
		struct extent extent = request->extent[count];
		must(extent.length > 0, "no extent is empty");
		uint32_t length = (uint32_t)min_u64(extent.length, rest);
		uint8_t *p = slot->memory + (size_t)count * NBD_DESCRIPTOR_BYTES;
		put_be32(p, length);
		put_be32(p + 4, extent.flags);
		rest -= length;
	}
	must(count > 0, "a status names at least one extent");
	slot->body = slot->memory;
	slot->body_bytes = count * NBD_DESCRIPTOR_BYTES;
	put_be32(reply_chunk(slot, NBD_CHUNK_BLOCK_STATUS, NBD_CHUNK_CONTEXT_BYTES),
		 NBD_CONTEXT_ID);
}
_Static_assert(sizeof(struct extent) == NBD_DESCRIPTOR_BYTES, "an extent becomes a descriptor");

static void reply_error(struct nbd_slot *slot, enum nbd_error error)
{
	bool chunked =
		slot->command == NBD_COMMAND_READ || slot->command == NBD_COMMAND_BLOCK_STATUS;

	slot->body_bytes = 0;
	if (!chunked || !slot->connection->structured) {
		reply_simple(slot, error);
		return;
	}
	uint8_t *p = reply_chunk(slot, NBD_CHUNK_ERROR, NBD_CHUNK_ERROR_BYTES);
	put_be32(p, error);
	put_be16(p + 4, 0); /* no message */
}

void nbd_reply_build(struct nbd_slot *slot, int32_t result)
{
	if (result < 0)
		reply_error(slot, error_of(result));
	else if (slot->command == NBD_COMMAND_READ)
		reply_data(slot);
	else if (slot->command == NBD_COMMAND_BLOCK_STATUS)
		reply_status(slot);
	else
		reply_simple(slot, NBD_SUCCESS);
}

/* ---- commands ---- */

static enum nbd_error range_check(const struct command_rule *rule, uint64_t size,
				  const struct command_header *header)
{
	if (header->offset > size || header->length > size - header->offset)
		return (enum nbd_error)rule->beyond;
	return NBD_SUCCESS;
}

static enum nbd_error command_check(const struct nbd_connection *nbd,
				    const struct command_header *header)
{
	const struct nbd_export *export = &nbd->shared->export[nbd->export];
	const struct command_rule *rule = &command_rule[header->command % NBD_COMMAND_COUNT];
	bool status = header->command == NBD_COMMAND_BLOCK_STATUS;

	if (nbd->shutdown || !export->ready)
		return NBD_ESHUTDOWN;
	if (header->command >= NBD_COMMAND_COUNT || !rule->known)
		return NBD_EINVAL;
	if (header->flags & ~(rule->flags | NBD_FLAG_FUA))
		return NBD_EINVAL;
	if ((header->flags & NBD_FLAG_DF) && !nbd->structured)
		return NBD_EINVAL;
	if (rule->changes && export->read_only)
		return NBD_EPERM;
	if (header->command == NBD_COMMAND_FLUSH && (header->offset || header->length))
		return NBD_EINVAL;
	if (status && (!nbd->context || header->length == 0))
		return NBD_EINVAL;
	if (rule->has_payload_size && header->length > NBD_PAYLOAD_BYTES_MAX)
		return NBD_EINVAL;
	return range_check(rule, export->size, header);
}

/* What needs no work of core: an empty range, or a flush where nothing can have been written. */
static bool command_is_idle(const struct nbd_connection *nbd, const struct command_header *header)
{
	if (header->command == NBD_COMMAND_FLUSH)
		return nbd->shared->export[nbd->export].read_only;
	return header->length == 0;
}

static uint8_t request_flags(const struct command_header *header)
{
	bool fua = (header->flags & NBD_FLAG_FUA) && command_rule[header->command].changes;

	/* NBD_FLAG_FAST_ZERO asks for nothing more: zeroes are never slower than a write. */
	return (uint8_t)((fua ? REQUEST_FUA : 0) |
			 (header->flags & NBD_FLAG_NO_HOLE ? REQUEST_NO_HOLE : 0));
}

static uint64_t memory_needed(const struct command_header *header)
{
	uint64_t in_page = header->offset % PAGE_BYTES;

	if (header->command == NBD_COMMAND_BLOCK_STATUS)
		return NBD_STATUS_EXTENTS_MAX * sizeof(struct extent);
	if (!command_rule[header->command].has_payload_size)
		return 0;
	return PAGE_BYTES + align_up(in_page + header->length, PAGE_BYTES) + PAGE_BYTES;
}

/* Memory and request of a command that passed all checks. False: no memory now. */
static bool request_prepare(struct nbd_slot *slot, const struct command_header *header)
{
	struct nbd_connection *nbd = slot->connection;

	slot->memory_bytes = memory_needed(header);
	if (slot->memory_bytes > 0) {
		slot->memory = nbd_memory_take(&nbd->shared->memory, slot->memory_bytes, nbd);
		if (!slot->memory)
			return false;
	}
	slot->request = (struct request){.kind = command_rule[header->command].kind,
					 .flags = request_flags(header),
					 .export = nbd->export,
					 .offset = header->offset,
					 .length = header->length,
					 .front = slot};
	if (command_rule[header->command].has_payload_size)
		slot->request.data = slot->memory + PAGE_BYTES + header->offset % PAGE_BYTES;
	if (header->command == NBD_COMMAND_BLOCK_STATUS) {
		bool one = header->flags & NBD_FLAG_REQ_ONE;
		slot->request.extent = (struct extent *)(void *)slot->memory;
		slot->request.extent_count = one ? 1 : NBD_STATUS_EXTENTS_MAX;
	}
	return true;
}

static void request_submit(struct nbd_slot *slot)
{
	struct nbd_shared *shared = slot->connection->shared;

	slot->state = NBD_SLOT_IN_CORE;
	slot->connection->in_core++;
	shared->counts.requests++;
	if (slot->command == NBD_COMMAND_READ)
		shared->counts.read_bytes += slot->request.length;
	if (slot->command == NBD_COMMAND_WRITE)
		shared->counts.write_bytes += slot->request.length;
	request_list_push(&shared->ready, &slot->request);
}

static void slot_finish(struct nbd_slot *slot, enum nbd_error error)
{
	if (error)
		reply_error(slot, error);
	else
		nbd_reply_build(slot, 0);
	nbd_slot_queue_reply(slot);
}

/* A command that core does not see. What follows it on the stream must still be read. */
static enum nbd_step command_answer(struct nbd_slot *slot, const struct command_header *header,
				    enum nbd_error error)
{
	struct nbd_connection *nbd = slot->connection;

	nbd_input_consume(nbd, NBD_REQUEST_BYTES);
	slot->request.length = 0;
	if (error)
		nbd->shared->counts.refused++;
	if (header->command != NBD_COMMAND_WRITE || header->length == 0) {
		slot_finish(slot, error);
		return NBD_STEP_ON;
	}
	nbd->current = slot;
	nbd->skip_error = error;
	nbd->skip_bytes = header->length;
	nbd_enter(nbd, NBD_PHASE_PAYLOAD_SKIP);
	return NBD_STEP_ON;
}

static enum nbd_step command_begin(struct nbd_slot *slot, const struct command_header *header)
{
	struct nbd_connection *nbd = slot->connection;

	if (!request_prepare(slot, header)) {
		nbd_slot_give(slot);
		return nbd_block(nbd, NBD_WANTS_MEMORY);
	}
	nbd_input_consume(nbd, NBD_REQUEST_BYTES);
	if (header->command != NBD_COMMAND_WRITE) {
		request_submit(slot);
		return NBD_STEP_ON;
	}
	nbd->current = slot;
	nbd->payload_bytes = 0;
	nbd_enter(nbd, NBD_PHASE_PAYLOAD);
	return NBD_STEP_ON;
}

/* After a large write the next one is received into its place, which takes one receive for the
 * header alone. Copying a small one costs less than that receive. */
static void bulk_expect(struct nbd_connection *nbd, const struct command_header *header)
{
	if (header->command == NBD_COMMAND_WRITE)
		nbd->bulk = header->length >= NBD_BULK_BYTES ? NBD_BULK_COMMANDS : 0;
	else if (nbd->bulk)
		nbd->bulk--;
}

enum nbd_step nbd_step_command(struct nbd_connection *nbd)
{
	const uint8_t *p = nbd_input(nbd);
	struct nbd_slot *slot;

	if (nbd_input_bytes(nbd) < NBD_REQUEST_BYTES)
		return NBD_STEP_MORE;
	if (get_be32(p) != NBD_REQUEST_MAGIC)
		return nbd_bad_stream(nbd);
	struct command_header header = {.flags = get_be16(p + 4),
					.command = get_be16(p + 6),
					.cookie = get_be64(p + 8),
					.offset = get_be64(p + 16),
					.length = get_be32(p + 24)};
	if (header.command == NBD_COMMAND_DISCONNECT) {
		nbd_enter(nbd, NBD_PHASE_LEAVING);
		return NBD_STEP_ON;
	}
	slot = nbd_slot_take(nbd);
	if (!slot)
		return nbd_block(nbd, NBD_WANTS_SLOT);
	slot->cookie = header.cookie;
	slot->command = header.command;
	bulk_expect(nbd, &header);
	enum nbd_error error = command_check(nbd, &header);
	if (error || command_is_idle(nbd, &header))
		return command_answer(slot, &header, error);
	return command_begin(slot, &header);
}

/* ---- payloads ---- */

/* What lies in the input buffer is copied; the rest is received into its place. */
enum nbd_step nbd_step_payload(struct nbd_connection *nbd)
{
	struct nbd_slot *slot = nbd->current;
	uint32_t rest = slot->request.length - nbd->payload_bytes;
	uint32_t bytes = (uint32_t)min_u64(nbd_input_bytes(nbd), rest);

	memcpy(slot->request.data + nbd->payload_bytes, nbd_input(nbd), bytes);
	nbd_input_consume(nbd, bytes);
	nbd->payload_bytes += bytes;
	if (nbd->payload_bytes < slot->request.length)
		return NBD_STEP_MORE;
	nbd->current = NULL;
	nbd_enter(nbd, NBD_PHASE_COMMAND);
	request_submit(slot);
	return NBD_STEP_ON;
}

enum nbd_step nbd_step_payload_skip(struct nbd_connection *nbd)
{
	uint32_t bytes = (uint32_t)min_u64(nbd_input_bytes(nbd), nbd->skip_bytes);
	struct nbd_slot *slot = nbd->current;

	nbd_input_consume(nbd, bytes);
	nbd->skip_bytes -= bytes;
	if (nbd->skip_bytes > 0)
		return NBD_STEP_MORE;
	nbd->current = NULL;
	nbd_enter(nbd, NBD_PHASE_COMMAND);
	slot_finish(slot, (enum nbd_error)nbd->skip_error);
	return NBD_STEP_ON;
}
