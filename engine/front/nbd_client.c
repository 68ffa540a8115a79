/* SPDX-License-Identifier: Apache-2.0 */
/* A client: its socket and its connection, from accept to close.
 *
 * Lifetimes: the memory of a client is used by the kernel while an operation is in flight, and by
 * core while it has a request. So a client that is to end is first cut off (shutdown of its
 * socket, which completes its operations), gives back its own memory when no operation is left,
 * and is free for another client when core has answered all.
 *
 * Nobody may hold what others need: on every tick the server looks for clients that stand still in
 * the middle of a message while others wait for memory or for a connection, and cuts them off. A
 * byte now and then is no progress: who holds memory that others wait for is to be through with it
 * within MESSAGE_TICKS, whatever its size up to the largest request's; per tick that is its due. It
 * may lag behind by PATIENCE_TICKS of it, so bursts count as much as a steady flow. What counts as
 * sent has left the socket, as far as the kernel says: its buffer empties long before it asks for
 * more. */
#include "nbd_client.h"

#include "nbd_listen.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	PATIENCE_TICKS = 5,
	MESSAGE_TICKS = 32,	  /* a message of 32 MiB: 1 MiB per tick */
	SEND_BYTES_MAX = 1 << 20, /* at a time: what is on its way is seen when it is through */
};

/* ---- operations ---- */

static void client_receive(struct client *client)
{
	unsigned count = nbd_receive_pieces(&client->nbd, client->receive_piece);
	struct io_uring_sqe *sqe = count ? nbd_sqe_take(client->server) : NULL;

	if (!sqe) {
		client->dirty |= count > 0;
		return;
	}
	client->receive_message =
		(struct msghdr){.msg_iov = client->receive_piece, .msg_iovlen = count};
	io_uring_prep_recvmsg(sqe, client->descriptor, &client->receive_message, 0);
	nbd_operation_start(client->server, &client->receive, sqe);
}

static unsigned send_pieces(struct client *client)
{
	unsigned count = nbd_send_pieces(&client->nbd, client->send_piece, SEND_PIECES_MAX);
	size_t room = SEND_BYTES_MAX;

	for (unsigned i = 0; i < count; i++) {
		struct iovec *piece = &client->send_piece[i];
		piece->iov_len = min_u64(piece->iov_len, room);
		room -= piece->iov_len;
		if (!room)
			return i + 1;
	}
	return count;
}

static void client_send(struct client *client)
{
	unsigned count = send_pieces(client);
	struct io_uring_sqe *sqe = count ? nbd_sqe_take(client->server) : NULL;

	if (!sqe) {
		client->dirty |= count > 0;
		return;
	}
	client->send_message = (struct msghdr){.msg_iov = client->send_piece, .msg_iovlen = count};
	io_uring_prep_sendmsg(sqe, client->descriptor, &client->send_message,
			      MSG_NOSIGNAL | MSG_WAITALL);
	nbd_operation_start(client->server, &client->send, sqe);
}

/* ---- clients ---- */

struct client *nbd_client_free_one(struct nbd_server *server)
{
	for (unsigned i = 0; i < server->client_count; i++)
		if (server->client[i].descriptor < 0)
			return &server->client[i];
	return NULL;
}

void nbd_client_open(struct client *client, int descriptor)
{
	nbd_socket_tune(descriptor);
	client->descriptor = descriptor;
	client->dirty = true;
	client->cut = client->moved = false;
	client->still_ticks = 0;
	client->moved_bytes = client->unsent_bytes = client->lag_bytes = 0;
	client->server->open_count++;
	client->server->accepted++;
	nbd_init(&client->nbd, &client->server->shared);
}

void nbd_client_cut(struct client *client)
{
	client->dirty = true;
	if (client->cut)
		return;
	client->cut = true;
	shutdown(client->descriptor, SHUT_RDWR);
}

static void waiting_leave(struct client *client)
{
	struct nbd_server *server = client->server;
	struct client **link = &server->waiting_head, *before = NULL;

	if (!client->waiting)
		return;
	for (; *link != client; link = &before->next_waiting)
		before = *link;
	*link = client->next_waiting;
	if (server->waiting_tail == client)
		server->waiting_tail = before;
	client->next_waiting = NULL;
	client->waiting = false;
	client->dirty = true;
	server->shared.memory.reserved_for =
		server->waiting_head ? &server->waiting_head->nbd : NULL;
}

/* First come, first served: the head of the list is offered all that is free; the others wait even
 * if less would do for them, or else a large request might wait for ever. Says whether anybody was
 * served. */
bool nbd_waiting_serve(struct nbd_server *server)
{
	bool served = false;

	for (struct client *client; (client = server->waiting_head); served = true) {
		if (client->nbd.blocked == NBD_WANTS_MEMORY)
			nbd_resume(&client->nbd);
		if (client->nbd.blocked == NBD_WANTS_MEMORY)
			break;
		waiting_leave(client);
	}
	return served;
}

static void waiting_join(struct client *client)
{
	struct nbd_server *server = client->server;

	if (client->waiting || client->nbd.blocked != NBD_WANTS_MEMORY)
		return;
	client->waiting = true;
	if (server->waiting_tail)
		server->waiting_tail->next_waiting = client;
	else
		server->waiting_head = client;
	server->waiting_tail = client;
	server->shared.memory.reserved_for = &server->waiting_head->nbd;
}

static void client_close(struct client *client)
{
	must(!client->waiting, "who left the connection left the list");
	nbd_fini(&client->nbd);
	close(client->descriptor);
	client->descriptor = -1;
	client->server->open_count--;
}

void nbd_client_turn(struct client *client)
{
	bool busy = client->receive.in_flight || client->send.in_flight;

	client->dirty = false;
	if (!client->cut && nbd_finished(&client->nbd))
		nbd_client_cut(client);
	if (client->cut) {
		waiting_leave(client);
		client->dirty = false;
		if (busy)
			return;
		nbd_abandon(&client->nbd);
		if (nbd_in_core(&client->nbd) == 0)
			client_close(client);
		return;
	}
	waiting_join(client);
	if (!client->send.in_flight)
		client_send(client);
	if (!client->receive.in_flight)
		client_receive(client);
}

/* ---- completions ---- */

void nbd_client_received(struct client *client, int32_t result)
{
	client->dirty = client->moved = true;
	if (client->cut || nbd_result_is_passing(result))
		return;
	client->moved_bytes += result > 0 ? (unsigned)result : 0;
	if (result > 0)
		nbd_received(&client->nbd, (size_t)result);
	else if (result == 0)
		nbd_received_end(&client->nbd);
	else
		nbd_client_cut(client);
}

void nbd_client_sent(struct client *client, int32_t result)
{
	client->dirty = client->moved = true;
	if (client->cut || nbd_result_is_passing(result))
		return;
	client->moved_bytes += result > 0 ? (unsigned)result : 0;
	if (result > 0)
		nbd_sent(&client->nbd, (size_t)result);
	else
		nbd_client_cut(client);
}

/* ---- ticks ---- */

static bool is_mid_message(const struct client *client)
{
	return client->nbd.current || client->send.in_flight;
}

/* Bytes since the last look that the peer sent, or took. */
static uint64_t progress_take(struct client *client)
{
	int unsent = 0;
	uint64_t moved = client->moved_bytes + client->unsent_bytes;

	if (ioctl(client->descriptor, SIOCOUTQ, &unsent) < 0)
		unsent = 0;
	client->unsent_bytes = (unsigned)unsent;
	client->moved_bytes = 0;
	return moved - min_u64(moved, client->unsent_bytes);
}

/* Says whether it lags too far behind. Nobody is measured for the time when nobody waited. */
static bool lags(struct client *client, uint64_t progress)
{
	uint64_t held = min_u64(nbd_held_bytes(&client->nbd), NBD_PAYLOAD_BYTES_MAX);
	uint64_t due = div_up(held, MESSAGE_TICKS);

	if (!client->server->waiting_head || !is_mid_message(client)) {
		client->lag_bytes = 0;
		return false;
	}
	client->lag_bytes += due;
	client->lag_bytes -= min_u64(client->lag_bytes, progress);
	return due > 0 && client->lag_bytes >= PATIENCE_TICKS * due;
}

/* Who stands still in the middle of a message holds memory; who says nothing holds a connection. */
static bool is_in_the_way(const struct client *client)
{
	const struct nbd_server *server = client->server;
	const struct nbd_connection *nbd = &client->nbd;
	bool greeting = nbd->phase < NBD_PHASE_COMMAND;

	if (client->still_ticks < PATIENCE_TICKS)
		return false;
	if (server->stopping || nbd->phase == NBD_PHASE_LEAVING)
		return nbd_in_core(nbd) == 0 || is_mid_message(client);
	return (is_mid_message(client) && server->waiting_head) ||
	       (greeting && server->open_count == server->client_count);
}

void nbd_client_tick(struct client *client)
{
	if (client->descriptor < 0 || client->cut)
		return;
	uint64_t progress = progress_take(client);
	if (client->moved || progress)
		client->still_ticks = 0;
	else if (client->still_ticks < UINT8_MAX)
		client->still_ticks++;
	client->moved = false;
	if (!lags(client, progress) && !is_in_the_way(client))
		return;
	client->server->stalled++;
	nbd_client_cut(client);
}
