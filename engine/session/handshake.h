/* SPDX-License-Identifier: Apache-2.0 */
/* One TLS 1.3 conversation without any I/O: bytes of the control stream in, bytes out, and at the
 * end the keys or the reason why not. A party is who we are and whom we expect, for all of them. */
#ifndef CASEMATE_SESSION_HANDSHAKE_H
#define CASEMATE_SESSION_HANDSHAKE_H

#include "session.h"

#include <openssl/ssl.h>

struct handshake_party {
	SSL_CTX *tls;
	char site[NAME_BYTES_MAX];
	char peer[NAME_BYTES_MAX];
	bool initiator;
	bool has_psk;
	uint8_t psk[KEY_BYTES]; /* all zero without one */
	unsigned pin_count;
	uint8_t pin[SESSION_PINS_MAX][CERTIFICATE_PIN_BYTES];
	struct certificate_fingerprint fingerprint; /* of our own certificate */
};

/* 0 or a negative errno, with the reason in why; then there is nothing to undo. */
int handshake_party_init(struct handshake_party *, const struct session_config *, char *why,
			 size_t why_bytes);
void handshake_party_fini(struct handshake_party *); /* wipes */

enum handshake_state {
	HANDSHAKE_TALKING,
	HANDSHAKE_DONE, /* both ends have proven themselves to each other and hold the same PSK */
	HANDSHAKE_FAILED
};

struct handshake_ids {
	uint64_t own;
	uint64_t peer;
};

struct handshake;
/* gives: a conversation, or NULL (memory). The party outlives it. unix_s: the date for
 * certificates; 0 asks the system. The initiator's first words are there at once. */
struct handshake *handshake_new(const struct handshake_party *, struct handshake_ids,
				int64_t unix_s);
void handshake_free(struct handshake *); /* wipes */
enum handshake_state handshake_feed(struct handshake *, const uint8_t *bytes, size_t length);
/* Takes up to room bytes for the peer; 0 when there are none. */
size_t handshake_take(struct handshake *, uint8_t *bytes, size_t room);
/* Once it is done. The caller wipes them. */
void handshake_keys(const struct handshake *, struct session_keys *);
/* Once it has failed. */
enum session_reason handshake_reason(const struct handshake *);
const char *handshake_why(const struct handshake *);

/* Judges the peer's certificate: signed by our CA, in its dates, of the expected site, pinned.
 * A reason that is not SESSION_REASON_NONE comes with words. */
enum session_reason handshake_judge(const struct handshake_party *, X509_STORE_CTX *, char *why,
				    size_t why_bytes);

#endif
