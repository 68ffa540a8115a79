/* SPDX-License-Identifier: Apache-2.0 */
/* Every byte of a handshake datagram (docs/protocol.md "Handshake"), with one encoder and one
 * decoder: all lengths are checked here, once. Types 16 and above belong to the data plane. */
#ifndef CASEMATE_SESSION_CONTROL_WIRE_H
#define CASEMATE_SESSION_CONTROL_WIRE_H

#include "core/base.h"
#include "core/ranges.h"

enum {
	CONTROL_VERSION = 1,
	CONTROL_DATAGRAM_BYTES_MAX = 1200, /* of UDP payload; a HELLO has exactly this length */
	CONTROL_CHECK_BYTES = 16,
	CONTROL_COOKIE_BYTES = 32,
	CONTROL_ACK_RANGES_MAX = 16,
};

enum control_type {
	CONTROL_HELLO = 1, /* client: may I speak? here is your cookie, if I have one */
	CONTROL_COOKIE,	   /* server: say it again with this cookie; nothing is kept */
	CONTROL_STREAM,	   /* bytes of the TLS stream at an offset */
	CONTROL_ACK,	   /* what has arrived of the peer's stream */
	CONTROL_CLOSE,	   /* this handshake is over, and why */
	CONTROL_TYPE_LIMIT = 16
};

/* Why a handshake ended: on the wire in CLOSE, and in events. Numbers are for ever. */
enum session_reason {
	SESSION_REASON_NONE,
	SESSION_REASON_TIMEOUT,	    /* the peer did not answer in time */
	SESSION_REASON_UNKNOWN,	    /* no such handshake here (restarted, or given up) */
	SESSION_REASON_VERSION,	    /* the other end does not speak TLS 1.3 */
	SESSION_REASON_SUITE,	    /* no common cipher suite or group */
	SESSION_REASON_AUTHORITY,   /* certificate not signed by our CA */
	SESSION_REASON_EXPIRED,	    /* certificate expired, or not valid yet */
	SESSION_REASON_SITE,	    /* certificate of another site */
	SESSION_REASON_PIN,	    /* certificate's key is not pinned */
	SESSION_REASON_CERTIFICATE, /* anything else about the certificate, or none presented */
	SESSION_REASON_PSK,	    /* pre-shared keys differ */
	SESSION_REASON_TLS,	    /* the TLS stream made no sense */
	SESSION_REASON_LOCAL,	    /* the end that closes has a trouble of its own */
	SESSION_REASON_COUNT
};

/* On the wire, little endian, in this order. */
struct control_header {
	uint8_t version;
	uint8_t type;
	uint16_t zero;
	uint64_t receiver; /* session id drawn by the receiver; 0 in HELLO */
	uint64_t sender;   /* session id drawn by the sender; 0 in COOKIE */
	uint8_t check[CONTROL_CHECK_BYTES];
} __attribute__((packed));

struct control_stream_body {
	uint32_t offset;
	uint16_t length;
	uint16_t zero; /* then length bytes */
} __attribute__((packed));

struct control_ack_body {
	uint32_t cumulative; /* every byte below it has arrived */
	uint16_t range_count;
	uint16_t zero; /* then range_count of the next */
} __attribute__((packed));

struct control_ack_range {
	uint32_t first;
	uint32_t end;
} __attribute__((packed));

struct control_close_body {
	uint16_t reason;
	uint16_t zero;
} __attribute__((packed));

enum {
	CONTROL_HEADER_BYTES = 36,
	CONTROL_STREAM_BYTES_MAX =
		CONTROL_DATAGRAM_BYTES_MAX - CONTROL_HEADER_BYTES - 8, /* in one datagram */
};

_Static_assert(sizeof(struct control_header) == CONTROL_HEADER_BYTES, "wire layout");
_Static_assert(sizeof(struct control_stream_body) == 8, "wire layout");
_Static_assert(sizeof(struct control_ack_body) == 8, "wire layout");
_Static_assert(sizeof(struct control_ack_range) == 8, "wire layout");
_Static_assert(sizeof(struct control_close_body) == 4, "wire layout");

/* A datagram taken apart. Only the fields of its type mean something. */
struct control_message {
	uint8_t type;
	uint64_t receiver;
	uint64_t sender;
	uint8_t cookie[CONTROL_COOKIE_BYTES]; /* HELLO: all zero when there is none; COOKIE */
	uint32_t offset;		      /* STREAM */
	uint16_t length;
	const uint8_t *bytes; /* borrows: from the datagram */
	uint32_t cumulative;  /* ACK */
	uint16_t range_count;
	struct range range[CONTROL_ACK_RANGES_MAX]; /* ascending, disjoint, above cumulative */
	uint16_t reason;			    /* CLOSE: enum session_reason, or unknown */
};

/* The length written. */
size_t control_encode(const struct control_message *, uint8_t out[CONTROL_DATAGRAM_BYTES_MAX]);
/* 0, -EPROTONOSUPPORT (another version), or -EBADMSG (anything else that is wrong). */
int control_decode(const uint8_t *datagram, size_t length, struct control_message *);
/* The first half of SHA-256 over "casemate control v1" and the datagram with check zeroed: damage
 * in flight is dropped here and never reaches TLS. It proves no origin; TLS does. */
void control_check(const uint8_t *datagram, size_t length, uint8_t check[CONTROL_CHECK_BYTES]);

#endif
