/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a private certificate authority and the certificates of sites (for `casemate cert init`),
 * and says what a certificate is: its fingerprint, as pins name it, and its site. */
#ifndef CASEMATE_SESSION_CERTIFICATE_H
#define CASEMATE_SESSION_CERTIFICATE_H

#include "core/base.h"

#include <openssl/x509.h>

enum {
	CERTIFICATE_PIN_BYTES = 32,	    /* SHA-256 of the SubjectPublicKeyInfo */
	CERTIFICATE_FINGERPRINT_BYTES = 52, /* "SHA256:", 43 digits of base64, closing 0, spare */
	CERTIFICATE_CA_DAYS = 3650,
	CERTIFICATE_SITE_DAYS = 730,
};

struct certificate_fingerprint {
	char text[CERTIFICATE_FINGERPRINT_BYTES];
};

/* dir/ca.pem and dir/ca.key (0400): EC P-256, ten years. Overwrites nothing: -EEXIST. 0 or a
 * negative errno, with the reason in why. */
int certificate_make_ca(const char *dir, char *why, size_t why_bytes);
/* Whether a site may have this name: 0, or -EINVAL with the reason in why. */
int certificate_judge_name(const char *site, char *why, size_t why_bytes);
/* dir/SITE.pem and dir/SITE.key (0400), signed by dir/ca.key: EC P-256, two years, for both ends of
 * TLS; subject alternative names DNS:SITE and URI:casemate:site:SITE. Overwrites nothing. */
int certificate_make_site(const char *dir, const char *site, char *why, size_t why_bytes);
/* Of the first certificate in a PEM file. 0, -ENOENT, -EINVAL. */
int certificate_fingerprint(const char *path, struct certificate_fingerprint *);

/* "SHA256:" and base64, with or without its padding. 0 or -EINVAL. */
int certificate_pin_parse(const char *text, uint8_t pin[CERTIFICATE_PIN_BYTES]);
void certificate_pin_print(const uint8_t pin[CERTIFICATE_PIN_BYTES],
			   struct certificate_fingerprint *);
void certificate_pin_of(const X509 *, uint8_t pin[CERTIFICATE_PIN_BYTES]);

/* Whether one of the names is the site's, letter by letter; no wildcards. */
bool certificate_names_site(const X509 *, const char *site);
/* A site that it names, or its common name, or "(no name)"; printable. */
void certificate_site_of(const X509 *, char *site, size_t site_bytes);

#endif
