/* SPDX-License-Identifier: Apache-2.0 */
/* AES-256-GCM (NIST SP 800-38D) with two back ends behind one header: OpenSSL (reference, always
 * there) and libipsec-mb (fast, where found). Both give the same bytes. No call allocates after
 * aead_new. */
#ifndef CASEMATE_CORE_AEAD_H
#define CASEMATE_CORE_AEAD_H

#include "base.h"
#include "memory.h"

enum aead_backend { AEAD_OPENSSL, AEAD_IPSECMB, AEAD_BACKEND_COUNT };
enum { AEAD_NONCE_BYTES = 12, AEAD_KEY_STATE_BYTES = 1024 };

bool aead_backend_available(enum aead_backend);
const char *aead_backend_name(enum aead_backend);
enum aead_backend aead_backend_best(void);

/* The working state of one lane (its back end, one OpenSSL context, ipsec-mb manager). */
struct aead;
/* gives: a new state, in key memory of that source (NULL: the C library), or NULL with errno. The
 * only calls that may allocate or free. */
struct aead *aead_new(enum aead_backend, const struct memory *);
void aead_free(struct aead *);
enum aead_backend aead_backend_of(const struct aead *);

/* An expanded key. Copyable by value, and good for every state of the same back end; wipe with
 * aead_key_fini. The mark names the back end: a key that was never made, or was wiped, seals
 * nothing. */
struct aead_key {
	_Alignas(64) uint8_t state[AEAD_KEY_STATE_BYTES];
	uint32_t mark;
};
void aead_key_init(struct aead *, struct aead_key *, const uint8_t key[KEY_BYTES]);
void aead_key_fini(struct aead_key *);

/* A piece of text: input and output of the same length, which may be the same place. */
struct aead_piece {
	const uint8_t *in;
	uint8_t *out;
	size_t length;
};

/* Seals the pieces in order as one text. Pieces but the last are multiples of 16 bytes. aad may be
 * empty. */
void aead_seal(struct aead *, const struct aead_key *, const uint8_t nonce[AEAD_NONCE_BYTES],
	       const void *aad, size_t aad_length, const struct aead_piece *, unsigned piece_count,
	       uint8_t tag[TAG_BYTES]);
/* 0, or -EBADMSG when the tag is wrong; the outputs are then wiped. */
int aead_open(struct aead *, const struct aead_key *, const uint8_t nonce[AEAD_NONCE_BYTES],
	      const void *aad, size_t aad_length, const struct aead_piece *, unsigned piece_count,
	      const uint8_t tag[TAG_BYTES]);

#endif
