/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 over memory BIOs (RFC 8446). Two things are ours. The pre-shared key is mixed in outside
 * TLS, where OpenSSL cannot overlook that it differs. And after TLS each end sends, inside it, a
 * confirmation made from the exporter and the pre-shared key: a client holds exporter keys before
 * the server has judged its certificate, so no keys leave this file before the peer's confirmation
 * has come. */
#include "handshake.h"

#include "key_uri.h"
#include "secret.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

#include <errno.h>
#include <stdio.h>

enum { CONFIRMATION_BYTES = 32, EXPORTER_BYTES = 32, CERTIFICATE_LIST_BYTES_MAX = 32 * 1024 };

static const char exporter_label[] = "EXPORTER-casemate-v1";
static const char packet_label[] = "casemate packet v1";
static const char psk_label[] = "casemate psk check";

/* Initiator to responder, and back. */
enum direction { DIRECTION_FORTH = 1, DIRECTION_BACK = 2 };

struct handshake {
	const struct handshake_party *party;
	struct handshake_ids ids;
	SSL *tls;
	BIO *in, *out; /* the SSL object's */
	enum handshake_state state;
	bool tls_done;
	uint8_t expected[CONFIRMATION_BYTES]; /* from the peer */
	uint8_t received[CONFIRMATION_BYTES];
	unsigned received_bytes;
	struct session_keys keys;
	enum session_reason reason;
	char why[SESSION_WHY_BYTES];
};

/* ---- the party ---- */

static int judge(X509_STORE_CTX *store, void *owner)
{
	SSL *tls = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct handshake *handshake = SSL_get_app_data(tls);

	handshake->reason =
		handshake_judge(handshake->party, store, handshake->why, sizeof handshake->why);
	if (handshake->reason == SESSION_REASON_NONE)
		return 1;
	if (X509_STORE_CTX_get_error(store) == X509_V_OK)
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

/* One version, one suite, two groups, both ends with certificates; nothing is resumed. */
static bool context_restrict(SSL_CTX *context)
{
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_security_level(context, 2);
	SSL_CTX_set_max_cert_list(context, CERTIFICATE_LIST_BYTES_MAX);
	SSL_CTX_set_verify_depth(context, 4);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(context, judge, NULL);
	return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
	       SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) &&
	       SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") &&
	       SSL_CTX_set1_groups_list(context, "X25519:P-256") &&
	       SSL_CTX_set_num_tickets(context, 0) && SSL_CTX_set_max_early_data(context, 0) &&
	       SSL_CTX_set_recv_max_early_data(context, 0);
}

/* Whether our own certificate is one that the peer will accept as ours. */
static int own_certificate_check(struct handshake_party *party, const struct session_config *config,
				 char *why, size_t why_bytes)
{
	const X509 *certificate = SSL_CTX_get0_certificate(party->tls);
	uint8_t pin[CERTIFICATE_PIN_BYTES];
	char site[64];

	if (SSL_CTX_check_private_key(party->tls) != 1) {
		snprintf(why, why_bytes, "%s is not the key of %s", config->key_uri,
			 config->certificate_file);
		return -EINVAL;
	}
	if (!certificate_names_site(certificate, party->site)) {
		certificate_site_of(certificate, site, sizeof site);
		snprintf(why, why_bytes, "%s: the certificate is of site %s, not %s",
			 config->certificate_file, site, party->site);
		return -EINVAL;
	}
	certificate_pin_of(certificate, pin);
	certificate_pin_print(pin, &party->fingerprint);
	return 0;
}

static int credentials_load(struct handshake_party *party, const struct session_config *config,
			    char *why, size_t why_bytes)
{
	EVP_PKEY *key;
	int error;

	if (SSL_CTX_load_verify_file(party->tls, config->ca_file) != 1) {
		snprintf(why, why_bytes, "%s: no CA certificate that can be loaded",
			 config->ca_file);
		return -EINVAL;
	}
	if (SSL_CTX_use_certificate_chain_file(party->tls, config->certificate_file) != 1) {
		snprintf(why, why_bytes, "%s: no certificate that can be loaded",
			 config->certificate_file);
		return -EINVAL;
	}
	error = key_uri_load_private(config->key_uri, &key, why, why_bytes);
	if (error)
		return error;
	if (SSL_CTX_use_PrivateKey(party->tls, key) != 1) {
		snprintf(why, why_bytes, "%s is not the key of %s", config->key_uri,
			 config->certificate_file);
		error = -EINVAL;
	}
	EVP_PKEY_free(key);
	return error ? error : own_certificate_check(party, config, why, why_bytes);
}

static int names_check(const struct session_config *config, char *why, size_t why_bytes)
{
	if (!config->pin_count) {
		snprintf(why, why_bytes, "site %s is not pinned (pin it with sites[].pins)",
			 config->peer);
		return -EINVAL;
	}
	if (strlen(config->site) >= NAME_BYTES_MAX || strlen(config->peer) >= NAME_BYTES_MAX ||
	    strcmp(config->site, config->peer) == 0) {
		snprintf(why, why_bytes, "sites %s and %s: two different names of up to %d bytes",
			 config->site, config->peer, NAME_BYTES_MAX - 1);
		return -EINVAL;
	}
	return 0;
}

int handshake_party_init(struct handshake_party *party, const struct session_config *config,
			 char *why, size_t why_bytes)
{
	int error = names_check(config, why, why_bytes);

	must(config->pin_count <= SESSION_PINS_MAX, "a peer has its current pin and the next");
	if (error)
		return error;
	memset(party, 0, sizeof *party);
	snprintf(party->site, sizeof party->site, "%s", config->site);
	snprintf(party->peer, sizeof party->peer, "%s", config->peer);
	party->initiator = config->initiator;
	party->pin_count = config->pin_count;
	memcpy(party->pin, config->pin, sizeof party->pin);
	if (config->psk) {
		party->has_psk = true;
		memcpy(party->psk, config->psk, sizeof party->psk);
	}
	ERR_clear_error();
	party->tls = SSL_CTX_new(config->initiator ? TLS_client_method() : TLS_server_method());
	if (!party->tls || !context_restrict(party->tls)) {
		snprintf(why, why_bytes, "OpenSSL refuses TLS 1.3 with AES-256-GCM");
		error = -EPROTONOSUPPORT;
	}
	if (!error)
		error = credentials_load(party, config, why, why_bytes);
	ERR_clear_error();
	if (error)
		handshake_party_fini(party);
	return error;
}

void handshake_party_fini(struct handshake_party *party)
{
	SSL_CTX_free(party->tls);
	OPENSSL_cleanse(party, sizeof *party);
}

/* ---- keys ---- */

/* Both names and both ids, initiator first: what every secret is bound to. */
struct binding {
	uint8_t bytes[2 * (1 + NAME_BYTES_MAX) + 2 * 8];
	size_t length;
};

static void binding_add(struct binding *binding, const void *bytes, size_t length)
{
	must(length <= sizeof binding->bytes - binding->length, "names are bounded");
	memcpy(binding->bytes + binding->length, bytes, length);
	binding->length += length;
}

static void binding_init(struct binding *binding, const struct handshake *handshake)
{
	const struct handshake_party *party = handshake->party;
	const char *name[2] = {party->site, party->peer};
	const uint64_t id[2] = {handshake->ids.own, handshake->ids.peer};
	const unsigned first = party->initiator ? 0 : 1;
	uint8_t number[8];

	binding->length = 0;
	for (unsigned i = 0; i < 2; i++) {
		const char *text = name[first ^ i];

		put_u8(number, (uint8_t)strlen(text));
		binding_add(binding, number, 1);
		binding_add(binding, text, strlen(text));
	}
	for (unsigned i = 0; i < 2; i++) {
		put_u64(number, id[first ^ i]);
		binding_add(binding, number, sizeof number);
	}
}

/* HKDF(salt = pre-shared key or zeros, ikm = exporter, info = label, direction, binding). */
struct derivation {
	const struct handshake *handshake;
	const struct binding *binding;
	const uint8_t *exporter;
};

static void derive(const struct derivation *from, const char *label, enum direction direction,
		   uint8_t out[32])
{
	uint8_t info[32 + 1 + sizeof from->binding->bytes];
	const size_t label_length = strlen(label);

	must(label_length < 32, "labels are short");
	memcpy(info, label, label_length);
	info[label_length] = (uint8_t)direction;
	memcpy(info + label_length + 1, from->binding->bytes, from->binding->length);
	keys_derive(from->handshake->party->psk, KEY_BYTES, from->exporter, EXPORTER_BYTES, info,
		    label_length + 1 + from->binding->length, out, 32);
}

static enum handshake_state fail(struct handshake *handshake, enum session_reason reason,
				 const char *why)
{
	handshake->state = HANDSHAKE_FAILED;
	handshake->reason = reason;
	if (why != handshake->why)
		snprintf(handshake->why, sizeof handshake->why, "%s", why);
	return handshake->state;
}

/* TLS is done: draw the keys from it, and tell the peer that we have. */
static enum handshake_state confirm(struct handshake *handshake)
{
	const bool initiator = handshake->party->initiator;
	const enum direction out = initiator ? DIRECTION_FORTH : DIRECTION_BACK;
	const enum direction in = initiator ? DIRECTION_BACK : DIRECTION_FORTH;
	uint8_t exporter[EXPORTER_BYTES], ours[CONFIRMATION_BYTES];
	struct binding binding;
	const struct derivation from = {
		.handshake = handshake, .binding = &binding, .exporter = exporter};
	bool sent;

	binding_init(&binding, handshake);
	if (SSL_export_keying_material(handshake->tls, exporter, sizeof exporter, exporter_label,
				       sizeof exporter_label - 1, binding.bytes, binding.length,
				       1) != 1)
		return fail(handshake, SESSION_REASON_LOCAL, "TLS gives no exporter secret");
	derive(&from, packet_label, in, handshake->keys.secret_in);
	derive(&from, packet_label, out, handshake->keys.secret_out);
	derive(&from, psk_label, in, handshake->expected);
	derive(&from, psk_label, out, ours);
	handshake->keys.id_in = handshake->ids.own;
	handshake->keys.id_out = handshake->ids.peer;
	handshake->keys.initiator = initiator;
	sent = SSL_write(handshake->tls, ours, sizeof ours) == sizeof ours;
	OPENSSL_cleanse(exporter, sizeof exporter);
	OPENSSL_cleanse(ours, sizeof ours);
	handshake->tls_done = true;
	return sent ? handshake->state
		    : fail(handshake, SESSION_REASON_LOCAL, "TLS takes no confirmation");
}

/* ---- the conversation ---- */

static enum session_reason error_reason(unsigned long error)
{
	switch (ERR_GET_REASON(error)) {
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_UNKNOWN_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return SESSION_REASON_VERSION;
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SHARED_GROUPS:
	case SSL_R_WRONG_CIPHER_RETURNED:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
		return SESSION_REASON_SUITE;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return SESSION_REASON_CERTIFICATE;
	}
	return SESSION_REASON_TLS;
}

/* Why OpenSSL gave up, in our words where we have some. */
static enum handshake_state tls_fail(struct handshake *handshake)
{
	const unsigned long error = ERR_peek_error();
	const char *text = ERR_reason_error_string(error);
	const enum session_reason reason = error_reason(error);
	char why[SESSION_WHY_BYTES];

	if (handshake->reason != SESSION_REASON_NONE) /* the judge has spoken */
		return fail(handshake, handshake->reason, handshake->why);
	if (reason == SESSION_REASON_VERSION)
		return fail(handshake, reason, "peer does not speak TLS 1.3");
	if (reason == SESSION_REASON_SUITE)
		return fail(handshake, reason,
			    "no common suite (we speak TLS_AES_256_GCM_SHA384, X25519 or P-256)");
	if (reason == SESSION_REASON_CERTIFICATE)
		return fail(handshake, reason, "peer presents no certificate");
	snprintf(why, sizeof why, "TLS: %s", text ? text : "the peer ended it");
	return fail(handshake, SESSION_REASON_TLS, why);
}

/* A return of OpenSSL that is no success: wait for more bytes, or give up. */
static enum handshake_state tls_trouble(struct handshake *handshake, int returned)
{
	if (SSL_get_error(handshake->tls, returned) == SSL_ERROR_WANT_READ)
		return handshake->state;
	return tls_fail(handshake);
}

static enum handshake_state confirmation_read(struct handshake *handshake)
{
	while (handshake->received_bytes < CONFIRMATION_BYTES) {
		const int got =
			SSL_read(handshake->tls, handshake->received + handshake->received_bytes,
				 (int)(CONFIRMATION_BYTES - handshake->received_bytes));

		if (got <= 0)
			return tls_trouble(handshake, got);
		handshake->received_bytes += (unsigned)got;
	}
	if (!keys_equal(handshake->received, handshake->expected, CONFIRMATION_BYTES))
		return fail(handshake, SESSION_REASON_PSK,
			    "pre-shared key differs from the peer's");
	return handshake->state = HANDSHAKE_DONE;
}

static enum handshake_state advance(struct handshake *handshake)
{
	ERR_clear_error();
	if (!handshake->tls_done) {
		const int returned = SSL_do_handshake(handshake->tls);

		if (returned != 1)
			return tls_trouble(handshake, returned);
		if (confirm(handshake) == HANDSHAKE_FAILED)
			return HANDSHAKE_FAILED;
	}
	return confirmation_read(handshake);
}

struct handshake *handshake_new(const struct handshake_party *party, struct handshake_ids ids,
				int64_t unix_s)
{
	struct handshake *handshake = secret_take(sizeof *handshake);

	if (!handshake)
		return NULL;
	must(ids.own && ids.peer, "both ends have drawn their ids");
	handshake->party = party;
	handshake->ids = ids;
	handshake->tls = SSL_new(party->tls);
	handshake->in = BIO_new(BIO_s_mem());
	handshake->out = BIO_new(BIO_s_mem());
	if (!handshake->tls || !handshake->in || !handshake->out) {
		BIO_free(handshake->in);
		BIO_free(handshake->out);
		SSL_free(handshake->tls);
		secret_give(handshake, sizeof *handshake);
		return NULL;
	}
	SSL_set_bio(handshake->tls, handshake->in, handshake->out);
	SSL_set_app_data(handshake->tls, handshake);
	if (unix_s)
		X509_VERIFY_PARAM_set_time(SSL_get0_param(handshake->tls), (time_t)unix_s);
	if (party->initiator)
		SSL_set_connect_state(handshake->tls);
	else
		SSL_set_accept_state(handshake->tls);
	advance(handshake);
	return handshake;
}

void handshake_free(struct handshake *handshake)
{
	if (!handshake)
		return;
	SSL_free(handshake->tls);
	secret_give(handshake, sizeof *handshake);
	ERR_clear_error();
}

enum handshake_state handshake_feed(struct handshake *handshake, const uint8_t *bytes,
				    size_t length)
{
	if (handshake->state != HANDSHAKE_TALKING)
		return handshake->state;
	if (length && BIO_write(handshake->in, bytes, (int)length) != (int)length)
		return fail(handshake, SESSION_REASON_LOCAL, "out of memory");
	return advance(handshake);
}

size_t handshake_take(struct handshake *handshake, uint8_t *bytes, size_t room)
{
	const int taken = BIO_read(handshake->out, bytes, (int)room);

	return taken > 0 ? (size_t)taken : 0;
}

void handshake_keys(const struct handshake *handshake, struct session_keys *keys)
{
	must(handshake->state == HANDSHAKE_DONE, "keys count only once the peer has confirmed");
	*keys = handshake->keys;
}

enum session_reason handshake_reason(const struct handshake *handshake)
{
	must(handshake->state == HANDSHAKE_FAILED, "only a failure has a reason");
	must(handshake->reason != SESSION_REASON_NONE, "every failure has a reason");
	return handshake->reason;
}

const char *handshake_why(const struct handshake *handshake)
{
	return handshake->why;
}
