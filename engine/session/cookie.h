/* SPDX-License-Identifier: Apache-2.0 */
/* Stateless cookies: a stranger must show that it receives at the address it claims before anything
 * is kept for it (after DTLS 1.3, RFC 9147 section 5.1). A cookie is the second it was made
 * in and an HMAC over that second, the path, the address and the client's session id. */
#ifndef CASEMATE_SESSION_COOKIE_H
#define CASEMATE_SESSION_COOKIE_H

#include "control_wire.h"

enum {
	COOKIE_SECRET_BYTES = 32,
	COOKIE_LIFE_S = 60,   /* a cookie is good for that long */
	COOKIE_ROTATE_S = 90, /* a new secret that often; the one before it stays good */
};

struct cookie_jar {
	uint8_t secret[2][COOKIE_SECRET_BYTES]; /* current, previous */
	ns_t rotate_at;
};

/* What a cookie is bound to. */
struct cookie_holder {
	uint64_t client; /* session id in its HELLO */
	uint64_t address;
	unsigned path;
};

void cookie_jar_init(struct cookie_jar *);
void cookie_jar_fini(struct cookie_jar *); /* wipes */
void cookie_make(struct cookie_jar *, const struct cookie_holder *, ns_t now,
		 uint8_t cookie[CONTROL_COOKIE_BYTES]);
bool cookie_good(struct cookie_jar *, const struct cookie_holder *, ns_t now,
		 const uint8_t cookie[CONTROL_COOKIE_BYTES]);

#endif
