/* SPDX-License-Identifier: Apache-2.0 */
/* Who is the peer? Three questions, all of which must be answered well: does our own authority
 * vouch for the certificate today, does it name the site that we expect, and is its key one that we
 * were told to expect. The words are for the operator who has to mend it. */
#include "handshake.h"

#include <stdio.h>
#include <time.h>

static void date_print(const ASN1_TIME *when, char *text, size_t text_bytes)
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(when, &tm) || !strftime(text, text_bytes, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(text, text_bytes, "an unreadable date");
}

static enum session_reason chain_reason(X509_STORE_CTX *store, char *why, size_t why_bytes)
{
	const int error = X509_STORE_CTX_get_error(store);
	const X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	const char *whose =
		X509_STORE_CTX_get_error_depth(store) > 0 ? "CA certificate" : "peer certificate";
	char date[64] = "an unknown date";

	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		if (certificate)
			date_print(X509_get0_notAfter(certificate), date, sizeof date);
		snprintf(why, why_bytes, "%s expired on %s", whose, date);
		return SESSION_REASON_EXPIRED;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		if (certificate)
			date_print(X509_get0_notBefore(certificate), date, sizeof date);
		snprintf(why, why_bytes, "%s is not valid before %s", whose, date);
		return SESSION_REASON_EXPIRED;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		snprintf(why, why_bytes, "peer certificate is not signed by our CA");
		return SESSION_REASON_AUTHORITY;
	default:
		snprintf(why, why_bytes, "peer certificate refused: %s",
			 X509_verify_cert_error_string(error));
		return SESSION_REASON_CERTIFICATE;
	}
}

static bool pinned(const struct handshake_party *party, const uint8_t pin[CERTIFICATE_PIN_BYTES])
{
	for (unsigned i = 0; i < party->pin_count; i++)
		if (keys_equal(party->pin[i], pin, CERTIFICATE_PIN_BYTES))
			return true;
	return false;
}

enum session_reason handshake_judge(const struct handshake_party *party, X509_STORE_CTX *store,
				    char *why, size_t why_bytes)
{
	struct certificate_fingerprint fingerprint;
	uint8_t pin[CERTIFICATE_PIN_BYTES];
	const X509 *certificate;

	if (X509_verify_cert(store) != 1)
		return chain_reason(store, why, why_bytes);
	certificate = X509_STORE_CTX_get0_cert(store);
	must(certificate, "a chain that verified has a leaf");
	if (!certificate_names_site(certificate, party->peer)) {
		char site[64];

		certificate_site_of(certificate, site, sizeof site);
		snprintf(why, why_bytes, "peer presents site %s, expected %s", site, party->peer);
		return SESSION_REASON_SITE;
	}
	certificate_pin_of(certificate, pin);
	if (!pinned(party, pin)) {
		certificate_pin_print(pin, &fingerprint);
		snprintf(why, why_bytes,
			 "peer certificate is not pinned: %s (pin it with sites[].pins)",
			 fingerprint.text);
		return SESSION_REASON_PIN;
	}
	return SESSION_REASON_NONE;
}
