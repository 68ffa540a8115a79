/* SPDX-License-Identifier: Apache-2.0 */
/* One handshake in flight: leave to speak (cookies), the control stream, TLS on it, timers, and the
 * last words. It knows nothing of the other handshakes; session.c keeps them. */
#ifndef CASEMATE_SESSION_CONNECTION_H
#define CASEMATE_SESSION_CONNECTION_H

#include "control_stream.h"
#include "handshake.h"

enum {
	CONNECTION_LINGER_S = 10,	   /* after the end: late datagrams are still answered */
	CONNECTION_COOKIE_ANSWERS_MAX = 8, /* HELLOs sent at once on a COOKIE; then by the timer */
	CONNECTION_RESTARTS_MAX = 3,	   /* when the peer says that it knows nothing of us */
	CONNECTION_CLOSES_MAX = 4,	   /* how often we say unasked that it is over */
};

enum connection_state {
	CONNECTION_HELLO,   /* client: asks for leave to speak */
	CONNECTION_TALKING, /* TLS, and the confirmations in it */
	CONNECTION_DONE,    /* the keys are there; only answers late datagrams */
	CONNECTION_FAILED,  /* only tells the peer why */
	CONNECTION_GONE,    /* nothing left to do */
};

struct connection {
	enum connection_state state;
	const struct handshake_party *party; /* borrows, outlives the connection */
	int64_t unix_s;			     /* for the dates of certificates; 0: ask the system */
	struct handshake_ids ids;	     /* peer is 0 in CONNECTION_HELLO */
	unsigned path, path_count;	     /* path: the last heard, or the next to try */
	ns_t give_up_at;
	ns_t progress_at; /* when the peer last told something new */
	bool told;	  /* the session has told of the end */

	struct handshake *handshake; /* only while CONNECTION_TALKING */
	struct session_keys keys;    /* CONNECTION_DONE, until told */
	int reason;		     /* CONNECTION_FAILED or GONE */
	bool by_peer;
	char why[SESSION_WHY_BYTES];

	struct {
		uint8_t cookie[PATHS_MAX][CONTROL_COOKIE_BYTES];
		ns_t send_at; /* the timer */
		ns_t rto;
		unsigned answers;
		unsigned restarts;
	} hello;
	struct {
		bool due;
		ns_t send_at;
		ns_t rto;
		unsigned count;
	} close;
	struct control_stream stream;
};

/* gives: a connection, or NULL (memory). */
struct connection *connection_ask(const struct handshake_party *, unsigned path_count, ns_t now);
/* For a client that has shown a good cookie: tell it of its HELLO then. */
struct connection *connection_accept(const struct handshake_party *, unsigned path_count,
				     uint64_t client, ns_t now);
void connection_free(struct connection *); /* wipes */

/* The date for certificates, before anything is received. */
void connection_set_date(struct connection *, int64_t unix_s);
/* COOKIE at the client. */
void connection_cookie(struct connection *, const struct control_message *, unsigned path,
		       ns_t now);
/* A HELLO with a good cookie at the server: the first, or again because our answer was lost. */
void connection_hello(struct connection *, unsigned path);
/* STREAM, ACK or CLOSE for us. */
void connection_receive(struct connection *, const struct control_message *, unsigned path,
			ns_t now);
/* Whether it is to send: message and path. Also fires what is due. */
bool connection_send(struct connection *, struct control_message *, unsigned *path, ns_t now);
ns_t connection_deadline(const struct connection *);
bool connection_in_flight(const struct connection *);

#endif
