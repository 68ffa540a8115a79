/* SPDX-License-Identifier: Apache-2.0 */
/* The link to the one peer: sessions and their ratchet, packet numbers, opening and sealing of
 * datagrams, paths with their pace and liveness (docs/protocol.md "Sessions", "Packets", "Paths").
 *
 * Sessions: the newest one that the peer has spoken in is used for sending; the one before stays
 * for receiving, so that a new handshake loses no packet. The initiator sends in a new session at
 * once (the responder has shown in the handshake that it has the keys); the responder only after
 * the initiator's first authenticated datagram. Ratchet: the sender moves its own direction on
 * every 60 s or 2^26 packets, but never before the peer has shown that it followed the step before;
 * the receiver always has the next key ready and follows the first datagram that opens with it; the
 * previous key stays until the next move. */
#ifndef CASEMATE_CORE_LINK_H
#define CASEMATE_CORE_LINK_H

#include "aead.h"
#include "cells.h"
#include "core.h"
#include "effects.h"
#include "path.h"
#include "session_keys.h"

enum { LINK_SESSIONS = 2, LINK_KEY_SLOTS = 3 };

struct link_key_in {
	struct aead_key key;
	bool valid;
};
struct link_session {
	bool valid, confirmed; /* confirmed: the peer has used it */
	bool initiator;
	uint64_t id_in, id_out;
	ns_t since;
	/* out */
	uint8_t secret_out[SESSION_SECRET_BYTES];
	struct aead_key key_out;
	uint32_t generation_out;
	ns_t ratcheted;
	uint64_t packets_out; /* since the last ratchet */
	uint64_t number_out[PATHS_MAX];
	/* in: previous, current, next */
	uint8_t secret_next[SESSION_SECRET_BYTES]; /* of the generation after current + 1 */
	struct aead_key key_in[LINK_KEY_SLOTS];
	bool key_in_valid[LINK_KEY_SLOTS];
	uint32_t generation_in;
	struct replay replay[PATHS_MAX];
};

struct link_path {
	struct pace pace;
	struct round_trip trip;
	struct cell_list urgent, bulk; /* sealed, waiting for the pace */
	uint64_t queued_bytes;
	ns_t heard, said;		 /* last datagram opened, last keepalive sent */
	ns_t peer_sent_ns, peer_sent_at; /* to echo */
	bool alive;
	bool told_down; /* the log has it that it is down, though the link is up */
	struct path_status stats;
};

struct link {
	struct aead *aead;
	struct cells *cells;
	uint16_t lane;
	uint8_t path_count;
	uint32_t datagram_bytes_max; /* the least of all paths */
	struct uuid instance, peer_instance;
	ns_t echoed_ns; /* newest of our keepalives that the peer has opened */
	bool linked;	/* heard from the peer lately */
	ns_t linked_since;
	bool peer_bye;
	struct link_session session[LINK_SESSIONS]; /* [0] the newest */
	struct link_path path[PATHS_MAX];
	unsigned path_next;
	uint64_t rx_unknown_session, rx_malformed, rekeys, forged;
};

/* A datagram that opened: everything points into the packet. */
struct opened {
	uint8_t type, path;
	bool late; /* of an older session: perhaps of a peer that has restarted since */
	const uint8_t *text;
	uint32_t text_bytes;
	const uint8_t *payload;
	uint32_t payload_bytes;
};

void link_init(struct link *, struct aead *, struct cells *, const struct core_config *);
void link_fini(struct link *);
/* The largest payload of a shard datagram; a multiple of WIRE_CUT_UNIT_BYTES. */
uint32_t link_payload_bytes_max(const struct link *);

void link_new_session(struct link *, const struct session_keys *, ns_t now);
bool link_wants_session(const struct link *, ns_t now);
bool link_can_send(const struct link *);

/* 0, -EBADMSG (malformed or forged; counted), -ENOKEY (unknown session), -EALREADY (replayed).
 * WIRE_ALIVE is taken here: -EAGAIN. */
int link_open(struct link *, struct packet *, struct opened *, ns_t now);

/* Seals a message into a cell of its own and queues it. Lost silently when there is no session or
 * no cell: every message is repeated by its sender. */
void link_send_message(struct link *, const uint8_t *text, uint32_t text_bytes, ns_t now);
/* Seals a shard in the cell's place (payload is there) and queues it on the path. The cell stays
 * the caller's. */
void link_send_shard(struct link *, struct packet_cell *, const struct wire_shard *, unsigned path);
/* The path for column i of a record: spread so that no path has more than its share. */
unsigned link_path_for(const struct link *, lsn_t, unsigned column);

/* Seals and sends what the pace lets out now: while it is still in the cache. */
void link_drain(struct link *, struct effects *);
/* Keepalives, liveness, ratchet, and what the pace lets out. */
void link_turn(struct link *, struct effects *);
ns_t link_deadline(const struct link *, ns_t now);
ns_t link_round_trip_ns(const struct link *);
ns_t link_timeout_ns(const struct link *);
/* Tells the peer that we stop. */
void link_bye(struct link *, ns_t now);

#endif
