/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake: two sites prove who they are by TLS 1.3 and get the keys of their packets
 * (docs/protocol.md "Handshake"). Datagrams come in and go out, time is an argument; there is no
 * socket and no clock in here. It allocates and holds its thread for a millisecond or two per
 * handshake: it belongs on the control thread, never on a lane. */
#ifndef CASEMATE_SESSION_SESSION_H
#define CASEMATE_SESSION_SESSION_H

#include "certificate.h"
#include "control_wire.h"

#include "core/session_keys.h"

enum {
	SESSION_PINS_MAX = 2,	    /* current and next */
	SESSION_HANDSHAKES_MAX = 4, /* in flight at once */
	SESSION_RATE_PER_S = 4,	    /* TLS objects made for strangers */
	SESSION_BURST = 8,
	SESSION_TIMEOUT_S = 30, /* for one handshake as a whole */
	SESSION_WHY_BYTES = 256,
};

struct session_config {
	const char *site; /* our name, as our certificate says it */
	const char *peer; /* the one that the peer's must say */
	const char *ca_file;
	const char *certificate_file;
	const char *key_uri; /* file:/absolute/path or credential:NAME */
	uint8_t pin[SESSION_PINS_MAX][CERTIFICATE_PIN_BYTES]; /* of the peer's keys */
	unsigned pin_count;				      /* 1 or 2 */
	const uint8_t *psk; /* KEY_BYTES, borrowed for session_new; NULL for none */
	unsigned path_count;
	bool initiator; /* the primary: TLS client */
};

enum session_event_kind { SESSION_KEYS, SESSION_FAILED };

struct session_event {
	uint8_t kind;
	struct session_keys keys; /* SESSION_KEYS: the caller wipes them */
	/* SESSION_FAILED. Keys that were given before stay as good as they were. */
	int error;	/* -EKEYREJECTED (PSK), -EKEYEXPIRED, -EACCES (who they are),
			   -EPROTONOSUPPORT, -ETIMEDOUT, -ECONNRESET, -EPROTO */
	uint8_t reason; /* enum session_reason */
	bool by_peer;	/* the peer refused us, and says so without proof */
	char why[SESSION_WHY_BYTES];
};

struct session_datagram {
	uint8_t bytes[CONTROL_DATAGRAM_BYTES_MAX];
	uint16_t length;
	uint8_t path;
};

struct session_stats {
	uint64_t established, failed;
	uint64_t objects;	  /* TLS objects made: nothing else costs memory or a signature */
	uint64_t cookies_sent;	  /* answers to a HELLO without a good cookie */
	uint64_t busy;		  /* HELLOs with a good cookie over the budget */
	uint64_t replayed;	  /* HELLOs of a handshake that is over */
	uint64_t malformed;	  /* not a datagram of ours, or damaged */
	uint64_t version;	  /* of another version of the protocol */
	uint64_t unknown;	  /* for no handshake in flight */
	uint64_t replies_dropped; /* answers to strangers that found no room */
};

struct session;
/* gives: a session without a handshake, or NULL with errno and the reason in why. */
struct session *session_new(const struct session_config *, char *why, size_t why_bytes);
void session_free(struct session *); /* wipes */

/* The initiator begins a handshake; nothing when one is in flight. */
void session_start(struct session *, ns_t now);
/* A datagram of types 1 to 15 came in on a path from an address (any number that stands for it). */
struct session_arrival {
	const uint8_t *bytes; /* borrows */
	size_t length;
	uint64_t address;
	unsigned path;
};
void session_receive(struct session *, const struct session_arrival *, ns_t now);
/* What is to be sent now; call it until it says false. It also fires what is due. */
bool session_send(struct session *, struct session_datagram *, ns_t now);
/* When to call session_send again though nothing came in. */
ns_t session_deadline(const struct session *);
/* Whether there was an event: the caller takes it. Call it until it says false. */
bool session_poll(struct session *, struct session_event *);

/* Tells what time it is in the world (seconds since 1970), for the dates of certificates. Without
 * it the system's clock is asked. */
void session_wall_clock(struct session *, int64_t unix_s, ns_t now);
/* Whether a handshake is in flight. */
bool session_busy(const struct session *);
const struct session_stats *session_stats(const struct session *);
/* Of our own certificate, as the peer must pin it. */
const char *session_fingerprint(const struct session *);
/* For tests: the TLS context, to make a peer of it that is not one of ours. */
struct ssl_ctx_st *session_tls(struct session *);
const char *session_reason_name(enum session_reason);

#endif
