/* SPDX-License-Identifier: Apache-2.0 */
/* The connection: its phases, its slots, and the two streams of bytes. What the bytes mean stands
 * in nbd_options.c and nbd_commands.c. */
#include "nbd.h"

#include "nbd_parse.h"

#include <errno.h>

static enum nbd_step step_end(struct nbd_connection *nbd)
{
	nbd->input_begin = nbd->input_end;
	return NBD_STEP_END;
}

static enum nbd_step (*const step_of_phase[NBD_PHASE_COUNT])(struct nbd_connection *) = {
	[NBD_PHASE_CLIENT_FLAGS] = nbd_step_client_flags,
	[NBD_PHASE_OPTION] = nbd_step_option,
	[NBD_PHASE_OPTION_SKIP] = nbd_step_option_skip,
	[NBD_PHASE_COMMAND] = nbd_step_command,
	[NBD_PHASE_PAYLOAD] = nbd_step_payload,
	[NBD_PHASE_PAYLOAD_SKIP] = nbd_step_payload_skip,
	[NBD_PHASE_LEAVING] = step_end,
	[NBD_PHASE_DEAD] = step_end,
};

/* Which phases may follow which: a bit per successor. */
#define TO(phase) (1u << NBD_PHASE_##phase)
static const uint16_t successors[NBD_PHASE_COUNT] = {
	[NBD_PHASE_CLIENT_FLAGS] = TO(OPTION) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_OPTION] = TO(OPTION_SKIP) | TO(COMMAND) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_OPTION_SKIP] = TO(OPTION) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_COMMAND] = TO(PAYLOAD) | TO(PAYLOAD_SKIP) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_PAYLOAD] = TO(COMMAND) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_PAYLOAD_SKIP] = TO(COMMAND) | TO(LEAVING) | TO(DEAD),
	[NBD_PHASE_LEAVING] = TO(DEAD),
	[NBD_PHASE_DEAD] = 0,
};
#undef TO

void nbd_enter(struct nbd_connection *nbd, enum nbd_phase phase)
{
	must(successors[nbd->phase] >> phase & 1, "phases follow each other by the table");
	nbd->phase = (uint8_t)phase;
}

enum nbd_step nbd_block(struct nbd_connection *nbd, enum nbd_blocked why)
{
	nbd->blocked = (uint8_t)why;
	return NBD_STEP_BLOCKED;
}

enum nbd_step nbd_bad_stream(struct nbd_connection *nbd)
{
	nbd->shared->counts.bad_streams++;
	nbd_enter(nbd, NBD_PHASE_LEAVING);
	return NBD_STEP_ON;
}

/* ---- slots ---- */

struct nbd_slot *nbd_slot_take(struct nbd_connection *nbd)
{
	struct nbd_slot *slot = nbd->free_slot;

	if (!slot)
		return NULL;
	must(slot->state == NBD_SLOT_FREE, "a free slot is free");
	nbd->free_slot = slot->next;
	slot->next = NULL;
	slot->state = NBD_SLOT_RECEIVING;
	slot->body_bytes = 0;
	return slot;
}

void nbd_slot_give(struct nbd_slot *slot)
{
	struct nbd_connection *nbd = slot->connection;

	must(slot->state != NBD_SLOT_FREE, "a slot is given back once");
	if (slot->memory)
		nbd_memory_give(&nbd->shared->memory, slot->memory, slot->memory_bytes);
	slot->memory = NULL;
	slot->state = NBD_SLOT_FREE;
	slot->next = nbd->free_slot;
	nbd->free_slot = slot;
}

void nbd_slot_queue_reply(struct nbd_slot *slot)
{
	struct nbd_connection *nbd = slot->connection;

	slot->state = NBD_SLOT_REPLYING;
	slot->next = NULL;
	if (nbd->reply_tail)
		nbd->reply_tail->next = slot;
	else
		nbd->reply_head = slot;
	nbd->reply_tail = slot;
}

static struct nbd_slot *reply_pop(struct nbd_connection *nbd)
{
	struct nbd_slot *slot = nbd->reply_head;

	if (!slot)
		return NULL;
	nbd->reply_head = slot->next;
	if (!nbd->reply_head)
		nbd->reply_tail = NULL;
	nbd->reply_sent = 0;
	return slot;
}

/* ---- life ---- */

void nbd_init(struct nbd_connection *nbd, struct nbd_shared *shared)
{
	memset(nbd, 0, offsetof(struct nbd_connection, output));
	nbd->shared = shared;
	for (unsigned i = NBD_SLOTS; i-- > 0;) {
		nbd->slot[i].connection = nbd;
		nbd->slot[i].next = nbd->free_slot;
		nbd->free_slot = &nbd->slot[i];
	}
	nbd_greet(nbd);
}

void nbd_fini(struct nbd_connection *nbd)
{
	must(nbd->in_core == 0, "core has answered every request of a connection that ends");
	nbd_abandon(nbd);
}

uint64_t nbd_held_bytes(const struct nbd_connection *nbd)
{
	uint64_t bytes = nbd->current && nbd->current->memory ? nbd->current->memory_bytes : 0;

	for (const struct nbd_slot *slot = nbd->reply_head; slot; slot = slot->next)
		bytes += slot->memory ? slot->memory_bytes : 0;
	return bytes;
}

bool nbd_finished(const struct nbd_connection *nbd)
{
	return nbd->phase >= NBD_PHASE_LEAVING && nbd->in_core == 0 && !nbd->reply_head &&
	       nbd->output_begin == nbd->output_end;
}

void nbd_abandon(struct nbd_connection *nbd)
{
	if (nbd->phase == NBD_PHASE_DEAD)
		return;
	nbd_enter(nbd, NBD_PHASE_DEAD);
	nbd->blocked = NBD_FLOWING;
	nbd->output_begin = nbd->output_end;
	for (struct nbd_slot *slot; (slot = reply_pop(nbd));)
		nbd_slot_give(slot);
	if (nbd->current)
		nbd_slot_give(nbd->current);
	nbd->current = NULL;
}

/* ---- bytes in ---- */

static void parse(struct nbd_connection *nbd)
{
	enum nbd_step step;

	nbd->blocked = NBD_FLOWING;
	do
		step = step_of_phase[nbd->phase](nbd);
	while (step == NBD_STEP_ON);
	if (step == NBD_STEP_MORE && nbd->shutdown)
		nbd_enter(nbd, NBD_PHASE_LEAVING);
	if (step != NBD_STEP_MORE || nbd->input_begin == 0)
		return;
	memmove(nbd->input, nbd_input(nbd), nbd_input_bytes(nbd));
	nbd->input_end -= nbd->input_begin;
	nbd->input_begin = 0;
}

/* A stream of large writes is read as header, payload and next header, payload and next header: so
 * no payload byte passes through the input buffer. Otherwise as much as there is. */
unsigned nbd_receive_pieces(struct nbd_connection *nbd, struct iovec piece[2])
{
	unsigned count = 0;
	uint32_t room = NBD_INPUT_BYTES - nbd->input_end;

	if (nbd->blocked || nbd->phase >= NBD_PHASE_LEAVING)
		return 0;
	if (nbd->phase == NBD_PHASE_PAYLOAD) {
		struct request *request = &nbd->current->request;
		must(nbd_input_bytes(nbd) == 0, "buffered payload was copied before");
		piece[count++] = (struct iovec){.iov_base = request->data + nbd->payload_bytes,
						.iov_len = request->length - nbd->payload_bytes};
	}
	if (nbd->bulk && (nbd->phase == NBD_PHASE_PAYLOAD || nbd->phase == NBD_PHASE_COMMAND)) {
		must(nbd_input_bytes(nbd) < NBD_REQUEST_BYTES, "a whole header was parsed");
		room = NBD_REQUEST_BYTES - nbd_input_bytes(nbd);
	}
	must(room > 0, "the longest thing to parse fits the input buffer");
	piece[count++] = (struct iovec){.iov_base = nbd->input + nbd->input_end, .iov_len = room};
	return count;
}

void nbd_received(struct nbd_connection *nbd, size_t bytes)
{
	if (nbd->phase >= NBD_PHASE_LEAVING)
		return;
	must(!nbd->blocked, "a blocked connection wants no bytes");
	if (nbd->phase == NBD_PHASE_PAYLOAD) {
		uint32_t rest = nbd->current->request.length - nbd->payload_bytes;
		uint32_t direct = (uint32_t)min_u64(bytes, rest);
		nbd->payload_bytes += direct;
		bytes -= direct;
	}
	must(bytes <= NBD_INPUT_BYTES - nbd->input_end, "no more arrived than was wanted");
	nbd->input_end += (uint32_t)bytes;
	parse(nbd);
}

void nbd_received_end(struct nbd_connection *nbd)
{
	if (nbd->phase < NBD_PHASE_LEAVING)
		nbd_enter(nbd, NBD_PHASE_LEAVING);
}

void nbd_resume(struct nbd_connection *nbd)
{
	if (nbd->blocked)
		parse(nbd);
}

void nbd_shutdown(struct nbd_connection *nbd)
{
	if (nbd->phase >= NBD_PHASE_LEAVING)
		return;
	nbd->shutdown = true;
	if (nbd->blocked)
		parse(nbd);
	else
		nbd_enter(nbd, NBD_PHASE_LEAVING);
}

/* ---- bytes out ---- */

unsigned nbd_send_pieces(const struct nbd_connection *nbd, struct iovec *piece, unsigned max)
{
	unsigned count = 0;
	uint64_t sent = nbd->reply_sent;

	must(max >= 3, "room for options' replies and one command's");
	if (nbd->output_begin < nbd->output_end)
		piece[count++] =
			(struct iovec){.iov_base = (void *)(nbd->output + nbd->output_begin),
				       .iov_len = nbd->output_end - nbd->output_begin};
	for (struct nbd_slot *slot = nbd->reply_head; slot && count + 2 <= max; slot = slot->next) {
		if (sent < slot->header_bytes)
			piece[count++] = (struct iovec){.iov_base = slot->header + sent,
							.iov_len = slot->header_bytes - sent};
		sent -= min_u64(sent, slot->header_bytes);
		if (slot->body_bytes)
			piece[count++] = (struct iovec){.iov_base = (void *)(slot->body + sent),
							.iov_len = slot->body_bytes - sent};
		sent = 0;
	}
	return count;
}

void nbd_sent(struct nbd_connection *nbd, size_t bytes)
{
	uint32_t options = (uint32_t)min_u64(bytes, nbd->output_end - nbd->output_begin);

	if (nbd->phase == NBD_PHASE_DEAD)
		return;
	nbd->output_begin += options;
	nbd->reply_sent += bytes - options;
	for (struct nbd_slot *slot; (slot = nbd->reply_head);) {
		uint64_t whole = (uint64_t)slot->header_bytes + slot->body_bytes;
		if (nbd->reply_sent < whole)
			break;
		uint64_t further = nbd->reply_sent - whole;
		nbd_slot_give(reply_pop(nbd));
		nbd->reply_sent = further;
	}
	must(nbd->reply_head || nbd->reply_sent == 0, "no more was sent than there was");
	if (nbd->blocked == NBD_WANTS_SLOT || nbd->blocked == NBD_WANTS_OUTPUT)
		parse(nbd);
}

void nbd_answer(struct request *request)
{
	struct nbd_slot *slot = container_of(request, struct nbd_slot, request);
	struct nbd_connection *nbd = slot->connection;

	must(slot->state == NBD_SLOT_IN_CORE, "core answers a request once");
	must(nbd->in_core > 0, "core answers what it has");
	must(request->result <= 0, "a result is 0 or a negative errno");
	nbd->in_core--;
	if (nbd->phase == NBD_PHASE_DEAD) {
		nbd_slot_give(slot);
		return;
	}
	nbd_reply_build(slot, request->result);
	nbd_slot_queue_reply(slot);
}

void nbd_withdraw(struct nbd_shared *shared, unsigned export)
{
	struct request_list all = shared->ready;

	shared->ready = (struct request_list){0};
	for (struct request *request; (request = request_list_pop(&all));) {
		if (request->export != export) {
			request_list_push(&shared->ready, request);
			continue;
		}
		request->result = -ESHUTDOWN;
		nbd_answer(request);
	}
}
