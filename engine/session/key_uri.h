/* SPDX-License-Identifier: Apache-2.0 */
/* Keys named by URI, so that no secret stands in a configuration, an argument or a log:
 *   file:/absolute/path   a file that only its owner, who runs us, can read
 *   credential:NAME       a file of that name in $CREDENTIALS_DIRECTORY (systemd)
 * Every function gives 0 or a negative errno, and then one sentence in why that says what is wrong
 * and, where there is one, the way out. The sentence never holds a byte of the key. */
#ifndef CASEMATE_SESSION_KEY_URI_H
#define CASEMATE_SESSION_KEY_URI_H

#include "core/base.h"

enum { PSK_BYTES = 32, KEY_FINGERPRINT_BYTES = 45 /* base64 of SHA-256, and a 0 */ };

/* The key-encryption key: HKDF-SHA-256(ikm = the private X25519 key, info = "casemate kek v1"), of
 * a plain (not encrypted) PKCS#8 PEM. -EPROTONOSUPPORT: unknown scheme; -EACCES: readable by
 * others, or not ours; -EBADMSG: not such a key; or what the system said. kek is wiped then. */
int key_uri_load(const char *uri, uint8_t kek[KEY_BYTES], char *why, size_t why_bytes);

/* gives: the private key of a certificate, of whatever kind, to be freed with EVP_PKEY_free. Errors
 * as above; key is NULL then. */
struct evp_pkey_st;
int key_uri_load_private(const char *uri, struct evp_pkey_st **key, char *why, size_t why_bytes);

/* A pre-shared key of a pair of sites: 64 hex digits, white space around them allowed. */
int key_uri_load_psk(const char *uri, uint8_t psk[PSK_BYTES], char *why, size_t why_bytes);

/* Makes a new X25519 key at path, mode 0400, synced; never overwrites (-EEXIST). The fingerprint
 * is that of the public key (SHA-256 of its SubjectPublicKeyInfo) and no secret. */
int key_generate(const char *path, char fingerprint[KEY_FINGERPRINT_BYTES], char *why,
		 size_t why_bytes);

#endif
