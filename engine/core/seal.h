/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing one block version, once, at the primary: AES-256-GCM with the subkey of its span. The
 * nonce is the lsn (seal identity), no lane keeps a counter of its own. Associated data binds
 * format, volume, block, identity, generation, kind and length, so that a stale, moved or
 * relabelled ciphertext does not open. */
#ifndef CASEMATE_CORE_SEAL_H
#define CASEMATE_CORE_SEAL_H

#include "aead.h"
#include "base.h"

/* Kinds of records; the same numbers on the wire, on disk and in the associated data. */
enum record_kind {
	RECORD_DATA = 1,
	RECORD_ZERO = 2,    /* reads as zeros, keeps its place allocated */
	RECORD_DISCARD = 3, /* reads as zeros; the device need hold no space for it */
	RECORD_MARK = 4,    /* a named point of the group; text of up to 64 bytes in clear */
	RECORD_VOID = 5,    /* an lsn that was drawn and means nothing */
	RECORD_END = 6,	    /* the last record of a catch-up span: all before it is whole */
};

static inline bool record_kind_has_payload(enum record_kind kind)
{
	return kind == RECORD_DATA;
}

/* Whom a seal belongs to. For all but copies span and lsn are also the record's place. */
struct seal_identity {
	struct uuid span; /* the salt of the subkey */
	lsn_t lsn;	  /* the nonce */
	uint32_t generation;
};

struct seal_context {
	struct seal_identity identity;
	struct uuid volume;
	uint64_t block;
	uint32_t block_bytes;
	uint8_t kind; /* enum record_kind */
};

/* Seals block_bytes (kind data) or nothing (other kinds: pieces may be 0, the text is empty) into
 * the pieces and gives the tag. subkey is that of context->identity.span. */
void seal_block(struct aead *, const struct aead_key *subkey, const struct seal_context *,
		const struct aead_piece *, unsigned piece_count, uint8_t tag[TAG_BYTES]);
/* 0 or -EBADMSG (outputs wiped). */
int seal_open(struct aead *, const struct aead_key *subkey, const struct seal_context *,
	      const struct aead_piece *, unsigned piece_count, const uint8_t tag[TAG_BYTES]);
/* Whether this plaintext, sealed under this identity, has this tag. Constant time in the answer;
 * scratch is wiped; nothing but the answer leaves. plaintext: block_bytes (data), else NULL.
 * scratch: block_bytes of the lane, or none without payload. */
bool seal_matches(struct aead *, const struct aead_key *subkey, const struct seal_context *,
		  const uint8_t *plaintext, const uint8_t tag[TAG_BYTES], uint8_t *scratch);

/* Subkeys by (volume, span), a few kept expanded; the least recently used goes first, wiped. A
 * volume has one key for life: with another key for the same index, start a new cache. */
enum { SEAL_CACHE_COUNT = 8 };
struct seal_cache {
	struct aead *aead;
	struct seal_cache_entry {
		struct uuid span;
		uint64_t used;	/* turn of the last use; 0 is an empty place */
		uint8_t volume; /* index in the group */
		struct aead_key subkey;
	} entry[SEAL_CACHE_COUNT];
	uint64_t turn;
};
void seal_cache_init(struct seal_cache *, struct aead *);
void seal_cache_fini(struct seal_cache *);
/* gives: the expanded subkey, good until the next call. */
const struct aead_key *seal_cache_take(struct seal_cache *, uint8_t volume,
				       const uint8_t volume_key[KEY_BYTES],
				       const struct uuid *span);

#endif
