/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD server of one lane: sockets on the lane's io_uring, a fixed number of connections, one
 * bounded pool of payload memory. Everything is allocated by nbd_server_new.
 *
 * A turn of the lane: hand it its completions, take requests, give back answers, then
 * nbd_server_turn, which prepares operations; whoever owns the ring submits them afterwards. */
#ifndef CASEMATE_FRONT_NBD_SERVER_H
#define CASEMATE_FRONT_NBD_SERVER_H

#include "nbd.h"

struct io_uring;
struct nbd_server;

enum {
	NBD_CONNECTIONS_DEFAULT = 16,
	NBD_CONNECTIONS_MAX = 1024,
	NBD_LISTENERS_MAX = 8,
};
#define NBD_PAYLOAD_BYTES_DEFAULT (128 * MIB)

struct nbd_server_config {
	struct io_uring *ring;	/* borrowed for life; 2 operations per connection are in flight */
	unsigned connections;	/* 0: default; further clients wait in the backlog */
	uint64_t payload_bytes; /* 0: default; at least NBD_REQUEST_MEMORY_BYTES_MAX */
};

/* gives, or NULL with errno (-EINVAL: a figure out of its bounds). */
struct nbd_server *nbd_server_new(const struct nbd_server_config *);
/* Only when nbd_server_stopped. Before the first turn is fine too. */
void nbd_server_free(struct nbd_server *);

/* 0 or a negative errno, as nbd_listen.h. By the control thread before the lane runs, or by the
 * lane; clients are let in from the next turn on. */
int nbd_server_listen_unix(struct nbd_server *, const char *path);
int nbd_server_listen_tcp(struct nbd_server *, const char *host, uint16_t port);

/* index counts as struct request's export. Any change to an export that was ready ends its
 * connections with ESHUTDOWN; the same again costs nothing. */
void nbd_server_set_export(struct nbd_server *, unsigned index, const struct nbd_export *);

/* A completion whose user data has bit 0 set. */
void nbd_server_completed(struct nbd_server *, uint64_t user_data, int32_t result, uint32_t flags);
/* The oldest complete requests: now the lane's, until it answers them, in any order. */
unsigned nbd_server_take_requests(struct nbd_server *, struct request **, unsigned max);
void nbd_server_answer(struct nbd_server *, struct request *);
/* Prepares what is to be done on the ring. Once per turn, before the ring is submitted. */
void nbd_server_turn(struct nbd_server *);

/* No new clients or requests; what the lane has taken is still answered, then all is closed. */
void nbd_server_stop(struct nbd_server *);
/* After nbd_server_stop: nothing is open and the ring holds no operation of ours. */
bool nbd_server_stopped(const struct nbd_server *);

/* The memory that requests' data lies in, for whoever wants to register it. */
struct iovec nbd_server_payload_memory(const struct nbd_server *);

/* All that it takes, at start. */
uint64_t nbd_server_memory_bytes(const struct nbd_server *);

struct nbd_server_figures {
	unsigned connections, waiting; /* waiting: for payload memory */
	uint64_t accepted, stalled;    /* stalled: closed because they held what others needed */
	uint64_t requests, refused, bad_streams;
	uint64_t read_bytes, write_bytes;
	uint64_t payload_used, payload_total;
};
struct nbd_server_figures nbd_server_figures(const struct nbd_server *);

#endif
