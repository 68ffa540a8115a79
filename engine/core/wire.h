/* SPDX-License-Identifier: Apache-2.0 */
/* The data plane's datagrams, byte by byte (docs/protocol.md "Datagrams"). One shape: a clear
 * header, an encrypted text, the tag, a payload that is only authenticated. All integers are little
 * endian. Every length is checked once, in wire.c. */
#ifndef CASEMATE_CORE_WIRE_H
#define CASEMATE_CORE_WIRE_H

#include "record.h"
#include "span.h"

/* clear header:
 *   0  u8  version = 1
 *   1  u8  type (enum wire_type)
 *   2  u8  key slot: the ratchet's generation modulo 256
 *   3  u8  path of the sender: part of the nonce
 *   4  u16 bytes of text
 *   6  u16 zero
 *   8  u64 session id of the receiver
 *  16  u64 packet number: the rest of the nonce
 *  24  text (encrypted; its first byte repeats the type), then the tag, then the payload
 * (associated data) All of the header is bound: the type by the text, slot and session by the key,
 * path and number by the nonce, the length by the tag's own length block. */
enum {
	WIRE_VERSION = 1,
	WIRE_TYPE_FIRST = 16, /* lower ones are the handshake's */
	WIRE_HEADER_BYTES = 24,
	WIRE_SHARD_TEXT_BYTES = 112,
	WIRE_TEXT_BYTES_MAX = 1232,
	WIRE_SHARD_OVERHEAD_BYTES = WIRE_HEADER_BYTES + WIRE_SHARD_TEXT_BYTES + TAG_BYTES,
	WIRE_CUT_UNIT_BYTES = 64, /* fragments of a shard are multiples of this, but the last */
	WIRE_NACKS_MAX = 64,
	WIRE_TAGS_MAX = 18,
};

enum wire_type {
	WIRE_SHARD = 16,   /* a run of bytes of one column of a sealed block */
	WIRE_ALIVE = 17,   /* keepalive, with times for the round trip */
	WIRE_HELLO = 18,   /* primary: this is my group */
	WIRE_STATE = 19,   /* vault: this is what I hold of it */
	WIRE_OPEN = 20,	   /* primary: open this span */
	WIRE_OPENED = 21,  /* vault: it is durable, or why not */
	WIRE_HEAD = 22,	   /* primary: lsns up to here were sent */
	WIRE_POINTS = 23,  /* vault: points, credit, what is missing */
	WIRE_COMPARE = 24, /* primary: tell me the tags of these blocks */
	WIRE_TAGS = 25,	   /* vault: here they are */
};

struct wire_header {
	uint8_t type, slot, path;
	uint16_t text_bytes;
	uint64_t session;
	uint64_t number;
};

void wire_header_encode(const struct wire_header *, uint8_t out[WIRE_HEADER_BYTES]);
/* 0 or -EBADMSG: too short, other version, unknown type, text longer than the datagram or than the
 * type allows. */
int wire_header_decode(struct wire_header *, const uint8_t *datagram, uint32_t length);

/* Text of a shard (bytes): type 0, kind 1, column 2, k 3, m 4, group 5, volume 6, zero 7,
 * generation 8, span 12, seal span 28, lsn 44, seal lsn 52, block 60, tag 68, block crc 84, offset
 * 88, cut (in units) 92, flags 94, wall clock 96, block bytes 104, zero 108. */
struct wire_shard {
	struct record record; /* volume id, shard bytes and crc are not on the wire */
	uint8_t group, volume;
	uint32_t offset;    /* of the payload in the column */
	uint32_t cut_bytes; /* all columns are cut at multiples of this */
};
void wire_shard_encode(const struct wire_shard *, uint8_t out[WIRE_SHARD_TEXT_BYTES]);
int wire_shard_decode(struct wire_shard *, const uint8_t *text, uint32_t length);

struct wire_alive {
	struct uuid instance; /* of the sender's core: changes when it restarts */
	ns_t sent_ns;	      /* sender's clock */
	ns_t echo_ns;	      /* the newest sent_ns seen from the peer, and how long ago that was */
	ns_t echo_age_ns;
	uint8_t bye; /* the sender stops */
};

struct wire_volume {
	char name[NAME_BYTES_MAX];
	struct uuid id;
	uint64_t size;
	uint32_t block_bytes;
	uint8_t wrapped_key[40];
	uint8_t key_check[16];
};
struct wire_hello {
	uint8_t group; /* index in the sender's configuration: names the group from here on */
	char name[NAME_BYTES_MAX];
	struct uuid instance;
	uint32_t greeting; /* number, of this instance */
	struct uuid set;   /* zero: never paired */
	struct geometry geometry;
	uint8_t quorum;
	uint32_t generation;
	uint8_t volume_count;
	struct wire_volume volume[VOLUMES_PER_GROUP_MAX];
};

/* result: 0; -ENOENT no such group here; -EINVAL other geometry or volumes; -ESTALE the vault has a
 * higher generation; -EEXIST the stores belong to another set; -EAGAIN not ready yet. */
struct wire_state {
	uint8_t group;
	int32_t result;
	struct uuid instance; /* of the primary, and the number of its greeting: as in its hello */
	uint32_t greeting;
	struct uuid set;
	uint32_t generation;
	uint8_t has_span;
	struct span span; /* newest */
	lsn_t durable, consistent, highest;
};

struct wire_open {
	uint8_t group;
	struct span span;
};
struct wire_opened {
	uint8_t group;
	int32_t result;
	struct uuid span;
};
struct wire_head {
	uint8_t group;
	struct uuid span;
	lsn_t last;
};

/* One lsn that needs more: columns (mask), of fragments first .. first + count - 1. */
struct wire_nack {
	lsn_t lsn;
	uint32_t columns;
	uint16_t fragment, count;
};
struct wire_points {
	uint8_t group;
	struct uuid span;
	lsn_t received, durable, consistent;
	lsn_t credit; /* the highest lsn that the vault has room for */
	uint8_t nack_count;
	struct wire_nack nack[WIRE_NACKS_MAX];
};

struct wire_compare {
	uint8_t group, volume;
	uint32_t ask; /* number of the question, repeated in the answer */
	uint64_t block;
	uint32_t count;
};
/* kind 0: never written */
struct wire_tag {
	uint8_t kind;
	struct seal_identity identity;
	uint8_t tag[TAG_BYTES];
};
struct wire_tags {
	uint8_t group, volume;
	uint32_t ask;
	uint64_t block;
	uint8_t count; /* from block on; fewer than asked means: ask again from there */
	int32_t result;
	struct wire_tag tag[WIRE_TAGS_MAX];
};

/* Encoders give the bytes of text; decoders give 0 or -EBADMSG. out has WIRE_TEXT_BYTES_MAX. */
uint32_t wire_alive_encode(const struct wire_alive *, uint8_t *out);
int wire_alive_decode(struct wire_alive *, const uint8_t *text, uint32_t length);
uint32_t wire_hello_encode(const struct wire_hello *, uint8_t *out);
int wire_hello_decode(struct wire_hello *, const uint8_t *text, uint32_t length);
uint32_t wire_state_encode(const struct wire_state *, uint8_t *out);
int wire_state_decode(struct wire_state *, const uint8_t *text, uint32_t length);
uint32_t wire_open_encode(const struct wire_open *, uint8_t *out);
int wire_open_decode(struct wire_open *, const uint8_t *text, uint32_t length);
uint32_t wire_opened_encode(const struct wire_opened *, uint8_t *out);
int wire_opened_decode(struct wire_opened *, const uint8_t *text, uint32_t length);
uint32_t wire_head_encode(const struct wire_head *, uint8_t *out);
int wire_head_decode(struct wire_head *, const uint8_t *text, uint32_t length);
uint32_t wire_points_encode(const struct wire_points *, uint8_t *out);
int wire_points_decode(struct wire_points *, const uint8_t *text, uint32_t length);
uint32_t wire_compare_encode(const struct wire_compare *, uint8_t *out);
int wire_compare_decode(struct wire_compare *, const uint8_t *text, uint32_t length);
uint32_t wire_tags_encode(const struct wire_tags *, uint8_t *out);
int wire_tags_decode(struct wire_tags *, const uint8_t *text, uint32_t length);

#endif
