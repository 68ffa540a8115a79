/* SPDX-License-Identifier: Apache-2.0 */
/* The server: listeners, operations on the ring, exports, and the lane's side. All that happens is
 * noted by completions and answers, and acted upon once per turn. */
#include "nbd_server.h"

#include "nbd_client.h"
#include "nbd_listen.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	TICK_S = 2,
	USER_DATA_BIT = 1, /* what the ring knows us by */
};

/* ---- birth and death ---- */

static struct operation operation_of(void *owner, enum operation_kind kind)
{
	return (struct operation){.owner = owner, .kind = (uint8_t)kind};
}

/* What clients write passes here in the clear: through the payloads, and through the input of each
 * connection. Kept out of dumps and children. */
static void *plaintext_map(uint64_t bytes)
{
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	int failed = madvise(memory, bytes, MADV_DONTDUMP) | madvise(memory, bytes, MADV_DONTFORK);
	must(!failed, "any mapping can be kept out of dumps and children");
	return memory;
}

static uint64_t clients_bytes(const struct nbd_server *server)
{
	return align_up(server->client_count * sizeof *server->client, PAGE_BYTES);
}

static void clients_init(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->client_count; i++) {
		struct client *client = &server->client[i];
		client->server = server;
		client->descriptor = -1;
		client->receive = operation_of(client, OPERATION_RECEIVE);
		client->send = operation_of(client, OPERATION_SEND);
	}
}

/* Every page is there before the first client; large ones are a favour, not a need. */
static void payload_populate(void *memory, uint64_t bytes)
{
	madvise(memory, bytes, MADV_HUGEPAGE);
	if (madvise(memory, bytes, MADV_POPULATE_WRITE) != 0 && errno == EINVAL)
		memset(memory, 0, bytes); /* a kernel before 5.14 */
}

uint64_t nbd_server_memory_bytes(const struct nbd_server *server)
{
	return server->payload_bytes + clients_bytes(server);
}

struct nbd_server *nbd_server_new(const struct nbd_server_config *config)
{
	unsigned connections = config->connections ? config->connections : NBD_CONNECTIONS_DEFAULT;
	uint64_t bytes = config->payload_bytes ? config->payload_bytes : NBD_PAYLOAD_BYTES_DEFAULT;

	if (connections > NBD_CONNECTIONS_MAX || bytes < NBD_REQUEST_MEMORY_BYTES_MAX ||
	    bytes / NBD_UNIT_BYTES > NBD_UNITS_MAX) {
		errno = EINVAL;
		return NULL;
	}
	struct nbd_server *server = calloc(1, sizeof *server);
	if (!server)
		return NULL;
	server->ring = config->ring;
	server->client_count = connections;
	server->client = plaintext_map(clients_bytes(server));
	if (!server->client)
		goto no_clients;
	server->payload_bytes = align_up(bytes, NBD_UNIT_BYTES);
	server->payload = plaintext_map(server->payload_bytes);
	if (!server->payload)
		goto no_payload;
	payload_populate(server->payload, server->payload_bytes);
	nbd_memory_init(&server->shared.memory, server->payload, server->payload_bytes);
	server->tick = operation_of(server, OPERATION_TICK);
	server->tick_cancel = operation_of(server, OPERATION_CANCEL);
	server->tick_time.tv_sec = TICK_S;
	clients_init(server);
	return server;

no_payload:
	munmap(server->client, clients_bytes(server));
no_clients:
	free(server);
	errno = ENOMEM;
	return NULL;
}

static void listener_close(struct listener *listener)
{
	if (listener->parked >= 0)
		close(listener->parked);
	if (listener->descriptor >= 0)
		close(listener->descriptor);
	if (listener->path)
		unlink(listener->path);
	free(listener->path);
	listener->descriptor = listener->parked = -1;
	listener->path = NULL;
}

void nbd_server_free(struct nbd_server *server)
{
	if (!server)
		return;
	must(server->operations == 0, "the ring no longer uses our memory");
	must(server->open_count == 0, "core has answered every request");
	for (unsigned i = 0; i < server->listener_count; i++)
		listener_close(&server->listener[i]);
	munmap(server->payload, server->payload_bytes);
	munmap(server->client, clients_bytes(server));
	free(server);
}

/* ---- listeners ---- */

static void listener_add(struct nbd_server *server, int descriptor, char *path)
{
	struct listener *listener = &server->listener[server->listener_count++];

	*listener = (struct listener){.descriptor = descriptor, .parked = -1, .path = path};
	listener->accept = operation_of(listener, OPERATION_ACCEPT);
	listener->cancel = operation_of(listener, OPERATION_CANCEL);
}

int nbd_server_listen_unix(struct nbd_server *server, const char *path)
{
	if (server->listener_count == NBD_LISTENERS_MAX)
		return -EMFILE;
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	int descriptor = nbd_listen_unix(path);
	if (descriptor < 0) {
		free(copy);
		return descriptor;
	}
	listener_add(server, descriptor, copy);
	return 0;
}

int nbd_server_listen_tcp(struct nbd_server *server, const char *host, uint16_t port)
{
	int descriptor[NBD_LISTENERS_MAX];
	unsigned room = NBD_LISTENERS_MAX - server->listener_count;
	int count = room ? nbd_listen_tcp(host, port, descriptor, room) : -EMFILE;

	for (int i = 0; i < count; i++)
		listener_add(server, descriptor[i], NULL);
	return count < 0 ? count : 0;
}

/* ---- operations ---- */

/* NULL when the ring has no room now: the next turn tries again. */
struct io_uring_sqe *nbd_sqe_take(struct nbd_server *server)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(server->ring);

	if (sqe)
		return sqe;
	io_uring_submit(server->ring);
	return io_uring_get_sqe(server->ring);
}

static uint64_t user_data_of(const struct operation *operation)
{
	return (uint64_t)(uintptr_t)operation | USER_DATA_BIT;
}

void nbd_operation_start(struct nbd_server *server, struct operation *operation,
			 struct io_uring_sqe *sqe)
{
	must(!operation->in_flight, "an operation is started once at a time");
	operation->in_flight = true;
	server->operations++;
	io_uring_sqe_set_data64(sqe, user_data_of(operation));
}

static void operation_cancel(struct nbd_server *server, struct operation *cancel,
			     const struct operation *target, bool *cancelled)
{
	struct io_uring_sqe *sqe = *cancelled || !target->in_flight ? NULL : nbd_sqe_take(server);

	if (!sqe)
		return;
	if (target->kind == OPERATION_TICK)
		io_uring_prep_timeout_remove(sqe, user_data_of(target), 0);
	else
		io_uring_prep_cancel64(sqe, user_data_of(target), 0);
	nbd_operation_start(server, cancel, sqe);
	*cancelled = true;
}

/* ---- completions ---- */

static void accept_completed(struct nbd_server *server, struct listener *listener, int32_t result)
{
	struct client *client = nbd_client_free_one(server);

	if (result < 0)
		listener->resting = !nbd_result_is_passing(result) && result != -ECONNABORTED;
	else if (server->stopping)
		close(result);
	else if (client)
		nbd_client_open(client, result);
	else
		listener->parked = result;
}

static void tick_completed(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->listener_count; i++)
		server->listener[i].resting = false;
	for (unsigned i = 0; i < server->client_count; i++)
		nbd_client_tick(&server->client[i]);
}

void nbd_server_completed(struct nbd_server *server, uint64_t user_data, int32_t result,
			  uint32_t flags)
{
	struct operation *operation = (struct operation *)(uintptr_t)(user_data ^ USER_DATA_BIT);

	must(user_data & USER_DATA_BIT, "the completion is ours");
	must(operation->in_flight && server->operations > 0, "what completes was started");
	operation->in_flight = false;
	server->operations--;
	switch ((enum operation_kind)operation->kind) {
	case OPERATION_ACCEPT:
		accept_completed(server, operation->owner, result);
		break;
	case OPERATION_RECEIVE:
		nbd_client_received(operation->owner, result);
		break;
	case OPERATION_SEND:
		nbd_client_sent(operation->owner, result);
		break;
	case OPERATION_TICK:
		tick_completed(server);
		break;
	case OPERATION_CANCEL:
		break;
	}
}

/* ---- the lane's side ---- */

unsigned nbd_server_take_requests(struct nbd_server *server, struct request **request, unsigned max)
{
	unsigned count = 0;

	while (count < max && (request[count] = request_list_pop(&server->shared.ready)))
		count++;
	return count;
}

static struct client *client_of(const struct request *request)
{
	struct nbd_connection *nbd = ((const struct nbd_slot *)request->front)->connection;

	return container_of(nbd, struct client, nbd);
}

void nbd_server_answer(struct nbd_server *server, struct request *request)
{
	struct client *client = client_of(request);

	must(client->server == server, "an answer comes to the server that asked");
	client->dirty = true;
	nbd_answer(request);
}

/* Says whether it let a parked client in. */
static bool listener_turn(struct nbd_server *server, struct listener *listener)
{
	struct client *client = nbd_client_free_one(server);
	struct io_uring_sqe *sqe;

	if (!client || listener->accept.in_flight || listener->resting)
		return false;
	if (listener->parked >= 0) {
		nbd_client_open(client, listener->parked);
		listener->parked = -1;
		return true;
	}
	sqe = nbd_sqe_take(server);
	if (!sqe)
		return false;
	io_uring_prep_accept(sqe, listener->descriptor, NULL, NULL, SOCK_CLOEXEC);
	nbd_operation_start(server, &listener->accept, sqe);
	return false;
}

static void tick_turn(struct nbd_server *server)
{
	struct io_uring_sqe *sqe = server->tick.in_flight ? NULL : nbd_sqe_take(server);

	if (!sqe)
		return;
	io_uring_prep_timeout(sqe, &server->tick_time, 0, 0);
	nbd_operation_start(server, &server->tick, sqe);
}

/* The tick goes on until the last client has gone: it is what ends those that stand still. */
static void stopping_turn(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->listener_count; i++) {
		struct listener *listener = &server->listener[i];
		operation_cancel(server, &listener->cancel, &listener->accept,
				 &listener->cancelled);
		if (!listener->accept.in_flight && !listener->cancel.in_flight)
			listener_close(listener);
	}
	if (server->open_count > 0)
		tick_turn(server);
	else
		operation_cancel(server, &server->tick_cancel, &server->tick,
				 &server->tick_cancelled);
}

static bool listeners_turn(struct nbd_server *server)
{
	bool entered = false;

	for (unsigned i = 0; i < server->listener_count; i++)
		entered |= listener_turn(server, &server->listener[i]);
	return entered;
}

/* At rest nobody is connected, and no client's memory is touched. */
static void clients_turn(struct nbd_server *server)
{
	unsigned left = server->open_count;

	for (struct client *client = server->client; left > 0; client++) {
		if (client->descriptor < 0)
			continue;
		left--;
		if (client->dirty)
			nbd_client_turn(client);
	}
}

/* Who goes gives memory and a connection to those who wait; they have their turn at once, for the
 * lane may sleep after this. */
void nbd_server_turn(struct nbd_server *server)
{
	bool more;

	do {
		clients_turn(server);
		more = nbd_waiting_serve(server);
		if (!server->stopping)
			more |= listeners_turn(server);
	} while (more);
	if (server->stopping)
		stopping_turn(server);
	else
		tick_turn(server);
}

/* ---- exports, and the end ---- */

static bool export_same(const struct nbd_export *a, const struct nbd_export *b)
{
	return strcmp(a->name, b->name) == 0 && a->size == b->size &&
	       a->read_only == b->read_only && a->ready == b->ready;
}

static bool serves_export(const struct client *client, unsigned index)
{
	return client->descriptor >= 0 && client->nbd.phase >= NBD_PHASE_COMMAND &&
	       client->nbd.export == index;
}

void nbd_server_set_export(struct nbd_server *server, unsigned index,
			   const struct nbd_export *export)
{
	struct nbd_shared *shared = &server->shared;

	must(index < NBD_EXPORTS_MAX, "an export has a place in the table");
	must(memchr(export->name, 0, sizeof export->name), "a name is closed by 0");
	if (index >= shared->export_count)
		shared->export_count = index + 1;
	if (export_same(&shared->export[index], export))
		return;
	bool was_ready = shared->export[index].ready;
	shared->export[index] = *export;
	if (!was_ready)
		return;
	nbd_withdraw(shared, index);
	for (unsigned i = 0; i < server->client_count; i++)
		if (serves_export(&server->client[i], index)) {
			nbd_shutdown(&server->client[i].nbd);
			server->client[i].dirty = true;
		}
}

void nbd_server_stop(struct nbd_server *server)
{
	if (server->stopping)
		return;
	server->stopping = true;
	for (unsigned i = 0; i < server->shared.export_count; i++)
		nbd_withdraw(&server->shared, i);
	for (unsigned i = 0; i < server->client_count; i++)
		if (server->client[i].descriptor >= 0) {
			nbd_shutdown(&server->client[i].nbd);
			server->client[i].dirty = true;
		}
}

bool nbd_server_stopped(const struct nbd_server *server)
{
	return server->stopping && server->open_count == 0 && server->operations == 0;
}

struct iovec nbd_server_payload_memory(const struct nbd_server *server)
{
	return (struct iovec){.iov_base = server->payload, .iov_len = server->payload_bytes};
}

struct nbd_server_figures nbd_server_figures(const struct nbd_server *server)
{
	const struct nbd_shared *shared = &server->shared;
	const struct nbd_memory *memory = &shared->memory;
	struct nbd_server_figures figures = {
		.connections = server->open_count,
		.accepted = server->accepted,
		.stalled = server->stalled,
		.requests = shared->counts.requests,
		.refused = shared->counts.refused,
		.bad_streams = shared->counts.bad_streams,
		.read_bytes = shared->counts.read_bytes,
		.write_bytes = shared->counts.write_bytes,
		.payload_used =
			(uint64_t)(memory->unit_count - memory->free_count) * NBD_UNIT_BYTES,
		.payload_total = (uint64_t)memory->unit_count * NBD_UNIT_BYTES,
	};

	for (const struct client *client = server->waiting_head; client;
	     client = client->next_waiting)
		figures.waiting++;
	return figures;
}
