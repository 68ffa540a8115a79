/* SPDX-License-Identifier: Apache-2.0 */
/* A small reliable stream of bytes in each direction over datagrams that may be lost, doubled or
 * reordered, after the CRYPTO frames of QUIC (RFC 9000 section 7.5). One handshake carries at most
 * CONTROL_STREAM_CAP bytes each way: that bound is also the cap on reassembly. */
#ifndef CASEMATE_SESSION_CONTROL_STREAM_H
#define CASEMATE_SESSION_CONTROL_STREAM_H

#include "control_wire.h"

enum {
	CONTROL_STREAM_CAP = 64 * 1024,
	CONTROL_STREAM_CHUNKS_MAX = 128,
	CONTROL_STREAM_RTO_MIN_MS = 200,
	CONTROL_STREAM_RTO_MAX_MS = 1600,
};

struct control_chunk {
	uint32_t offset;
	uint16_t length;
	bool acked;
	bool due; /* to be sent, for the first time or again */
};

struct control_stream {
	/* out: chunks keep their bounds, so that an acknowledgement covers all or nothing of one */
	uint32_t out_end;
	unsigned chunk_count;
	struct control_chunk chunk[CONTROL_STREAM_CHUNKS_MAX];
	ns_t rto;
	ns_t resend_at; /* NS_NEVER while nothing is in flight */

	/* in */
	uint32_t in_read; /* bytes below it were taken by the reader */
	struct ranges held;
	struct range held_memory[CONTROL_ACK_RANGES_MAX];
	bool ack_due;

	uint8_t out[CONTROL_STREAM_CAP];
	uint8_t in[CONTROL_STREAM_CAP];
};

void control_stream_init(struct control_stream *);
void control_stream_fini(struct control_stream *); /* wipes */

/* 0, or -ENOSPC when the handshake says more than any handshake may. */
int control_stream_write(struct control_stream *, const uint8_t *bytes, size_t length);
/* Whether there is a chunk to send now; it is then in message (type and its fields). */
bool control_stream_send(struct control_stream *, struct control_message *, ns_t now);
/* Fires the retransmission timer when its time has come. True when it fired: take another path. */
bool control_stream_tick(struct control_stream *, ns_t now);
/* Whether everything written has arrived. */
bool control_stream_flushed(const struct control_stream *);
/* Everything written counts as arrived: the peer has shown so by other means. */
void control_stream_flush(struct control_stream *);
ns_t control_stream_deadline(const struct control_stream *);

/* A STREAM. 0; -EMSGSIZE beyond the cap; -ENOSPC too many holes (it will be sent again). */
int control_stream_receive(struct control_stream *, const struct control_message *);
/* The bytes that come next, in order, and how many (0: none); they count as read. */
size_t control_stream_read(struct control_stream *, const uint8_t **bytes);

/* An ACK. 1 when it told something new, 0 when not, -EBADMSG when it names bytes never sent. */
int control_stream_acked(struct control_stream *, const struct control_message *, ns_t now);
/* What we hold of the peer's stream, as an ACK. */
void control_stream_ack(struct control_stream *, struct control_message *);

#endif
