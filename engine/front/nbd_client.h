/* SPDX-License-Identifier: Apache-2.0 */
/* What the two files of the server share: its parts, its operations on the ring, and the verbs of a
 * client. */
#ifndef CASEMATE_FRONT_NBD_CLIENT_H
#define CASEMATE_FRONT_NBD_CLIENT_H

#include "nbd_server.h"

#include <errno.h>
#include <liburing.h>

enum { SEND_PIECES_MAX = 64 };

enum operation_kind {
	OPERATION_ACCEPT,
	OPERATION_RECEIVE,
	OPERATION_SEND,
	OPERATION_TICK,
	OPERATION_CANCEL
};

struct operation {
	void *owner; /* listener, client or server, by kind */
	uint8_t kind;
	bool in_flight;
};

struct listener {
	int descriptor; /* -1: closed */
	int parked;	/* a client that came when no connection was free, or -1 */
	bool resting;	/* accept failed: not before the next tick */
	bool cancelled;
	struct operation accept, cancel;
	char *path; /* of a Unix socket, to be removed in the end */
};

struct client {
	struct nbd_server *server;
	int descriptor; /* -1: free */
	bool dirty;	/* something happened since its last turn */
	bool cut;	/* its socket was shut down: only completions and answers are awaited */
	bool waiting;	/* is on the server's list */
	bool moved;	/* bytes went in or out since the last tick */
	uint8_t still_ticks;
	uint64_t moved_bytes;  /* received, or taken by the kernel, since the last tick */
	uint64_t unsent_bytes; /* in the kernel at the last tick */
	uint64_t lag_bytes;    /* behind what is due, while others wait */
	struct client *next_waiting;
	struct operation receive, send;
	struct msghdr receive_message, send_message;
	struct iovec receive_piece[2], send_piece[SEND_PIECES_MAX];
	struct nbd_connection nbd;
};

struct nbd_server {
	struct io_uring *ring;
	bool stopping;
	unsigned operations; /* in flight */
	unsigned open_count; /* clients */
	unsigned client_count;
	struct client *client;
	struct client *waiting_head, *waiting_tail; /* for memory, the longest first */
	struct listener listener[NBD_LISTENERS_MAX];
	unsigned listener_count;
	struct operation tick, tick_cancel;
	bool tick_cancelled;
	struct __kernel_timespec tick_time;
	uint64_t accepted, stalled;
	void *payload;
	uint64_t payload_bytes;
	struct nbd_shared shared;
};

/* nbd_server.c: NULL when the ring has no room now; the next turn tries again. */
struct io_uring_sqe *nbd_sqe_take(struct nbd_server *);
void nbd_operation_start(struct nbd_server *, struct operation *, struct io_uring_sqe *);
/* Whether a result says only: again. */
static inline bool nbd_result_is_passing(int32_t result)
{
	return result == -EINTR || result == -EAGAIN;
}

/* nbd_client.c */
struct client *nbd_client_free_one(struct nbd_server *);
/* takes the descriptor. */
void nbd_client_open(struct client *, int descriptor);
/* Ends both directions: operations in flight complete soon, and no other is started. */
void nbd_client_cut(struct client *);
void nbd_client_received(struct client *, int32_t result);
void nbd_client_sent(struct client *, int32_t result);
/* Starts what is to be sent and received, or closes what is over. */
void nbd_client_turn(struct client *);
/* Looks at its progress since the last tick; cuts off who is in the way of others. */
void nbd_client_tick(struct client *);
/* Serves who waits for memory, the longest first. Says whether anybody was served. */
bool nbd_waiting_serve(struct nbd_server *);

#endif
