/* SPDX-License-Identifier: Apache-2.0 */
/* One NBD connection as a state machine without I/O: bytes are received where it says, requests
 * come out on a list, answers go in, and bytes to send come out as pieces of memory. Sockets are
 * nbd_server.h's.
 *
 * A command holds a slot from its header until the last byte of its reply was sent. No slot, no
 * payload memory or no room for a reply to an option: then the connection is blocked and wants no
 * bytes, and that is the whole back-pressure. */
#ifndef CASEMATE_FRONT_NBD_H
#define CASEMATE_FRONT_NBD_H

#include "core/io.h"
#include "nbd_memory.h"
#include "nbd_protocol.h"

enum {
	NBD_EXPORTS_MAX = 64,
	NBD_SLOTS = 64, /* commands of one connection between header and end of reply */
	NBD_INPUT_BYTES = 64 * 1024,
	NBD_OUTPUT_BYTES = 8192,      /* replies to options */
	NBD_BULK_BYTES = 32 * 1024,   /* such writes are received into their place */
	NBD_BULK_COMMANDS = 16,	      /* other commands after one, until no more is expected */
	NBD_REPLY_HEADER_BYTES = 32,  /* the longest head of a reply */
	NBD_STATUS_EXTENTS_MAX = 512, /* per answer */
	/* a request of the largest payload, unaligned, with a page before and after */
	NBD_REQUEST_MEMORY_BYTES_MAX = NBD_PAYLOAD_BYTES_MAX + 3 * PAGE_BYTES,
};

struct nbd_export {
	char name[NAME_BYTES_MAX];
	uint64_t size;
	bool read_only;
	bool ready; /* offered to clients */
};

/* What the connections of one lane share. */
struct nbd_shared {
	struct nbd_export export[NBD_EXPORTS_MAX];
	unsigned export_count;
	struct nbd_memory memory;
	struct request_list ready; /* complete requests, in order of arrival; the lane takes them */
	struct {
		uint64_t requests, refused; /* refused: answered with an error by the front */
		uint64_t read_bytes, write_bytes;
		uint64_t bad_streams; /* connections ended for what cannot be parsed */
	} counts;
};

struct nbd_connection;

enum nbd_slot_state { NBD_SLOT_FREE, NBD_SLOT_RECEIVING, NBD_SLOT_IN_CORE, NBD_SLOT_REPLYING };

struct nbd_slot {
	struct request request;
	struct nbd_connection *connection;
	struct nbd_slot *next; /* free ones, or replies */
	uint64_t cookie;
	uint8_t *memory; /* payload memory, or NULL */
	uint64_t memory_bytes;
	uint16_t command; /* as received */
	uint8_t state;	  /* enum nbd_slot_state */
	uint8_t header_bytes;
	uint8_t header[NBD_REPLY_HEADER_BYTES];
	const uint8_t *body; /* after the header; in the slot's memory */
	uint32_t body_bytes;
};

enum nbd_phase {
	NBD_PHASE_CLIENT_FLAGS, /* after our greeting */
	NBD_PHASE_OPTION,
	NBD_PHASE_OPTION_SKIP, /* data of an option that is too long */
	NBD_PHASE_COMMAND,
	NBD_PHASE_PAYLOAD,	/* of a write, into its memory */
	NBD_PHASE_PAYLOAD_SKIP, /* of a write that is refused */
	NBD_PHASE_LEAVING,	/* nothing is read; answers still go out, then the end */
	NBD_PHASE_DEAD,		/* the peer is gone; only core's answers are awaited */
	NBD_PHASE_COUNT
};

enum nbd_blocked { NBD_FLOWING, NBD_WANTS_SLOT, NBD_WANTS_MEMORY, NBD_WANTS_OUTPUT };

struct nbd_connection {
	struct nbd_shared *shared;
	uint8_t phase;	 /* enum nbd_phase; changed by nbd_enter only */
	uint8_t blocked; /* enum nbd_blocked */
	bool fixed_newstyle, no_zeroes, structured;
	bool shutdown;	 /* every further command is answered ESHUTDOWN */
	uint8_t bulk;	 /* commands for which a large write is expected: headers come alone */
	bool context;	 /* base:allocation was chosen, for context_export */
	uint16_t export; /* from NBD_PHASE_COMMAND on */
	uint16_t context_export;
	uint32_t skipped_option;
	uint64_t skip_bytes;	  /* of option data or payload still to be thrown away */
	uint32_t payload_bytes;	  /* of the current write, received so far */
	uint32_t skip_error;	  /* enum nbd_error for the write that is skipped */
	struct nbd_slot *current; /* the write whose payload comes */
	uint32_t in_core;	  /* requests on the ready list or with core */
	struct nbd_slot *free_slot;
	struct nbd_slot *reply_head, *reply_tail; /* to send, whole replies in order */
	uint64_t reply_sent;			  /* bytes of the first one */
	uint32_t input_begin, input_end;
	uint32_t output_begin, output_end;
	struct nbd_slot slot[NBD_SLOTS];
	uint8_t output[NBD_OUTPUT_BYTES];
	uint8_t input[NBD_INPUT_BYTES];
};

/* Begins a connection, with our greeting in the output. borrows shared for life. */
void nbd_init(struct nbd_connection *, struct nbd_shared *);
/* Gives back what it holds. Only when nbd_in_core is 0, and as nbd_abandon. */
void nbd_fini(struct nbd_connection *);

/* Where the next bytes of the stream belong: up to two pieces, 0 when none are wanted. They hold
 * until nbd_received. */
unsigned nbd_receive_pieces(struct nbd_connection *, struct iovec piece[2]);
void nbd_received(struct nbd_connection *, size_t bytes);
/* No byte will follow: what is complete is answered, then it ends. */
void nbd_received_end(struct nbd_connection *);

/* What to send next, whole replies one after the other; 0 when nothing. They hold until nbd_sent,
 * which takes the number of bytes that went out. */
unsigned nbd_send_pieces(const struct nbd_connection *, struct iovec *piece, unsigned max);
void nbd_sent(struct nbd_connection *, size_t bytes);

/* takes back a request that core has answered. */
void nbd_answer(struct request *);
/* Goes on parsing where memory was missing. */
void nbd_resume(struct nbd_connection *);
/* The export goes away: what core has is answered, the rest gets ESHUTDOWN, then it ends. */
void nbd_shutdown(struct nbd_connection *);
/* The peer is gone: gives back all but what core has. Only when nobody sends or receives any more.
 */
void nbd_abandon(struct nbd_connection *);

static inline unsigned nbd_in_core(const struct nbd_connection *nbd)
{
	return nbd->in_core;
}
/* Payload memory that waits for the peer: of the write that comes, and of replies to send. */
uint64_t nbd_held_bytes(const struct nbd_connection *);
/* All was said: close the socket. */
bool nbd_finished(const struct nbd_connection *);
/* Takes requests of this export from the ready list and answers them ESHUTDOWN. */
void nbd_withdraw(struct nbd_shared *, unsigned export);

#endif
