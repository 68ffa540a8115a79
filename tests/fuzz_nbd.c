/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as what an NBD client says, cut into pieces by the first bytes of the input, with
 * answers given in between, at once or late. The rules asserted in the front are the checks, and
 * all memory must come back. */
#include "front/nbd.h"

#include <stdlib.h>

enum { MEMORY_BYTES = 36 << 20, SENT_PIECES = 8, HELD_MAX = NBD_SLOTS };

static uint8_t memory[MEMORY_BYTES] __attribute__((aligned(4096)));
static struct nbd_shared shared;
static struct nbd_connection nbd;

struct held {
	struct request *request[HELD_MAX];
	unsigned count;
};

static void take(struct held *held)
{
	for (struct request *request; (request = request_list_pop(&shared.ready));) {
		const struct nbd_export *export = &shared.export[request->export];
		must(request->offset <= export->size &&
			     request->length <= export->size - request->offset,
		     "core sees requests inside the export");
		must(!export->read_only ||
			     (request->kind != REQUEST_WRITE && request->kind != REQUEST_ZERO &&
			      request->kind != REQUEST_DISCARD),
		     "core sees no change of a read-only export");
		must(held->count < HELD_MAX, "slots bound what is in flight");
		held->request[held->count++] = request;
	}
}

static void answer(struct held *held, unsigned control)
{
	for (unsigned n = control % 8; n > 0 && held->count > 0; n--) {
		struct request *request = held->request[control % held->count];
		held->request[control % held->count] = held->request[held->count - 1];
		held->count--;
		request->result = control & 16 ? -5 : 0;
		if (request->kind == REQUEST_STATUS) {
			request->extent[0] = (struct extent){1 + control, control & 3};
			request->extent_count = 1;
		}
		nbd_answer(request);
	}
}

/* At most so many bytes; a reply of 32 MiB need not be looked at. */
static bool send_some(size_t bytes)
{
	struct iovec piece[SENT_PIECES];
	unsigned count = nbd_send_pieces(&nbd, piece, SENT_PIECES);
	size_t sent = 0;

	for (unsigned i = 0; i < count && sent < bytes; i++)
		sent += min_u64(piece[i].iov_len, bytes - sent);
	if (sent > 0)
		nbd_sent(&nbd, sent);
	return sent > 0;
}

static size_t receive_some(const uint8_t *bytes, size_t length)
{
	struct iovec piece[2];
	unsigned count = length ? nbd_receive_pieces(&nbd, piece) : 0;
	size_t given = 0;

	for (unsigned i = 0; i < count && given < length; i++) {
		size_t part = min_u64(piece[i].iov_len, length - given);
		memcpy(piece[i].iov_base, bytes + given, part);
		given += part;
	}
	if (given > 0)
		nbd_received(&nbd, given);
	return given;
}

static void start(void)
{
	memset(&shared, 0, sizeof shared);
	nbd_memory_init(&shared.memory, memory, sizeof memory);
	shared.export[0] = (struct nbd_export){"a", 1 << 20, false, true};
	shared.export[1] = (struct nbd_export){"b", 1ull << 40, true, true};
	shared.export[2] = (struct nbd_export){"c", 4096, false, false};
	shared.export_count = 3;
	nbd_init(&nbd, &shared);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct held held = {.count = 0};
	size_t controls = min_u64(size, 16), at = controls;
	unsigned turn = 0, idle = 0;

	start();
	while (idle < 3 && controls > 0) {
		unsigned control = bytes[turn++ % controls];
		size_t some = control < 200 ? 65536 : control - 199;
		size_t fed = receive_some(bytes + at, min_u64(size - at, some));
		at += fed;
		take(&held);
		answer(&held, control);
		bool sent = send_some(control & 32 ? 7 : SIZE_MAX);
		nbd_resume(&nbd);
		if (control == 255 && turn > 20)
			nbd_shutdown(&nbd);
		idle = fed || sent ? 0 : idle + 1;
	}
	take(&held);
	nbd_abandon(&nbd);
	while (held.count > 0)
		answer(&held, 7);
	nbd_fini(&nbd);
	must(shared.memory.free_count == shared.memory.unit_count, "all memory came back");
	return 0;
}
