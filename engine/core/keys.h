/* SPDX-License-Identifier: Apache-2.0 */
/* The key tree (docs/protocol.md "keys", docs/store-format.md "keys"), all by HKDF-SHA-256 (RFC
 * 5869): key-encryption key (from a URI, outside core) wraps the volume key (AES key wrap, RFC
 * 3394); volume key -> key check value; volume key + span id -> subkey that seals blocks; session
 * secret -> packet key per direction and lane, ratcheted. Every secret is wiped by the one who made
 * it. */
#ifndef CASEMATE_CORE_KEYS_H
#define CASEMATE_CORE_KEYS_H

#include "base.h"

enum {
	KEY_CHECK_BYTES = 16,
	WRAPPED_KEY_BYTES = KEY_BYTES + 8, /* RFC 3394 */
	SESSION_SECRET_BYTES = 32,
	KEYS_INFO_BYTES_MAX = 512, /* of a salt, and of an info */
};

/* HKDF-SHA-256, extract and expand in one. salt and info may be empty and are at most
 * KEYS_INFO_BYTES_MAX long; okm_length <= 255 * 32. okm must not overlap the others. */
void keys_derive(const void *salt, size_t salt_length, const void *ikm, size_t ikm_length,
		 const void *info, size_t info_length, uint8_t *okm, size_t okm_length);

/* HKDF(volume key, "casemate key check v1"): tells a wrong key from damage. Not secret. */
void keys_check_value(const uint8_t volume_key[KEY_BYTES], uint8_t check[KEY_CHECK_BYTES]);
/* Subkey = HKDF(salt = span id, ikm = volume key, info = "casemate seal v1"). */
void keys_span_subkey(const uint8_t volume_key[KEY_BYTES], const struct uuid *span,
		      uint8_t subkey[KEY_BYTES]);

/* RFC 3394. unwrap: 0, or -EKEYREJECTED when the wrapping key is not the right one (or the wrapped
 * key is damaged: the two look alike); key is then wiped. */
void keys_wrap(const uint8_t wrapping_key[KEY_BYTES], const uint8_t key[KEY_BYTES],
	       uint8_t wrapped[WRAPPED_KEY_BYTES]);
int keys_unwrap(const uint8_t wrapping_key[KEY_BYTES], const uint8_t wrapped[WRAPPED_KEY_BYTES],
		uint8_t key[KEY_BYTES]);

/* Packet keys. secret: what the handshake gave, one for each direction (already bound to the
 * roles). Generation g of the ratchet: secret_g+1 = HKDF(ikm = secret_g, info = "casemate ratchet
 * v1"); key = HKDF(ikm = secret_g, info = "casemate packet v1" || lane, u16). Salts are empty. */
void keys_packet_key(const uint8_t secret[SESSION_SECRET_BYTES], uint16_t lane,
		     uint8_t key[KEY_BYTES]);
void keys_ratchet(uint8_t secret[SESSION_SECRET_BYTES]); /* in place: the old one is gone */

/* Compares in constant time. */
bool keys_equal(const void *a, const void *b, size_t length);
void keys_wipe(void *secret, size_t length);

#endif
