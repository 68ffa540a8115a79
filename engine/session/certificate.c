/* SPDX-License-Identifier: Apache-2.0 */
/* X.509 as casemate uses it: one authority of the operator's own, one certificate per site, names
 * in subject alternative names, trust by pinned public keys. */
#include "certificate.h"

#include "key_uri.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char site_scheme[] = "casemate:site:";
static const char pin_scheme[] = "SHA256:";

/* The clocks of two sites differ: a certificate is good from a day before it was made. */
static const long backdate_s = 24L * 3600;

/* ---- what a certificate is ---- */

void certificate_pin_of(const X509 *certificate, uint8_t pin[CERTIFICATE_PIN_BYTES])
{
	uint8_t *der = NULL;
	const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);

	must(length > 0, "a certificate that was parsed has a public key that can be written");
	must(EVP_Digest(der, (size_t)length, pin, NULL, EVP_sha256(), NULL),
	     "SHA-256 needs nothing but memory");
	OPENSSL_free(der);
}

void certificate_pin_print(const uint8_t pin[CERTIFICATE_PIN_BYTES],
			   struct certificate_fingerprint *out)
{
	uint8_t base64[4 * ((CERTIFICATE_PIN_BYTES + 2) / 3) + 1];
	const int length = EVP_EncodeBlock(base64, pin, CERTIFICATE_PIN_BYTES);

	must(length == 44 && base64[43] == '=', "32 bytes are 43 digits of base64 and one pad");
	snprintf(out->text, sizeof out->text, "%s%.43s", pin_scheme, (const char *)base64);
}

int certificate_pin_parse(const char *text, uint8_t pin[CERTIFICATE_PIN_BYTES])
{
	struct certificate_fingerprint again;
	uint8_t padded[45] = {0}, bytes[33];
	size_t length;

	if (strncmp(text, pin_scheme, sizeof pin_scheme - 1) != 0)
		return -EINVAL;
	text += sizeof pin_scheme - 1;
	length = strlen(text);
	if (length == 44 && text[43] == '=')
		length = 43;
	if (length != 43)
		return -EINVAL;
	memcpy(padded, text, length);
	padded[43] = '=';
	if (EVP_DecodeBlock(bytes, padded, 44) != 33)
		return -EINVAL;
	/* The decoder forgives spaces and loose bits; we take only what we would print. */
	certificate_pin_print(bytes, &again);
	if (strncmp(again.text + sizeof pin_scheme - 1, text, 43) != 0)
		return -EINVAL;
	memcpy(pin, bytes, CERTIFICATE_PIN_BYTES);
	return 0;
}

int certificate_fingerprint(const char *path, struct certificate_fingerprint *out)
{
	uint8_t pin[CERTIFICATE_PIN_BYTES];
	FILE *file = fopen(path, "re");
	X509 *certificate;

	if (!file)
		return -errno;
	certificate = PEM_read_X509(file, NULL, NULL, NULL);
	fclose(file);
	ERR_clear_error();
	if (!certificate)
		return -EINVAL;
	certificate_pin_of(certificate, pin);
	certificate_pin_print(pin, out);
	X509_free(certificate);
	return 0;
}

/* The text of a name, when it can be that of a site: DNS:SITE or URI:casemate:site:SITE. */
static bool name_site(const GENERAL_NAME *name, const char **site, size_t *length)
{
	const size_t scheme = sizeof site_scheme - 1;
	int type;
	const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);

	if (type != GEN_DNS && type != GEN_URI)
		return false;
	*site = (const char *)ASN1_STRING_get0_data(value);
	*length = (size_t)ASN1_STRING_length(value);
	if (type == GEN_DNS)
		return true;
	if (*length < scheme || memcmp(*site, site_scheme, scheme) != 0)
		return false;
	*site += scheme;
	*length -= scheme;
	return true;
}

bool certificate_names_site(const X509 *certificate, const char *site)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; names && !found && i < sk_GENERAL_NAME_num(names); i++) {
		const char *text;
		size_t length;

		found = name_site(sk_GENERAL_NAME_value(names, i), &text, &length) &&
			length == strlen(site) && memcmp(text, site, length) == 0;
	}
	GENERAL_NAMES_free(names);
	return found;
}

void certificate_site_of(const X509 *certificate, char *site, size_t site_bytes)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	const char *text = NULL;
	size_t length = 0;

	must(site_bytes > 0, "there is room for the closing 0");
	for (int i = 0; names && !text && i < sk_GENERAL_NAME_num(names); i++)
		if (!name_site(sk_GENERAL_NAME_value(names, i), &text, &length))
			text = NULL;
	if (text)
		snprintf(site, site_bytes, "%.*s", (int)length, text);
	else if (X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, site,
					   (int)site_bytes) <= 0)
		snprintf(site, site_bytes, "(no name)");
	/* It goes to a log: a stranger's certificate prints no control characters there. */
	for (char *c = site; *c; c++)
		if (!isprint((unsigned char)*c))
			*c = '?';
	GENERAL_NAMES_free(names);
}

/* ---- making them ---- */

static int path_print(char path[PATH_MAX], const char *dir, const char *name, const char *suffix)
{
	if (snprintf(path, PATH_MAX, "%s/%s.%s", dir, name, suffix) < PATH_MAX)
		return 0;
	errno = ENAMETOOLONG;
	return -ENAMETOOLONG;
}

/* A new file or none: what could not be written whole and synced is taken away again. */
static int pem_write(const char *path, mode_t mode, EVP_PKEY *key, X509 *certificate)
{
	const int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
	bool written;

	if (descriptor < 0)
		return -errno;
	if (!file) {
		close(descriptor);
		unlink(path);
		return -ENOMEM;
	}
	written = key ? PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL)
		      : PEM_write_X509(file, certificate);
	written = written && fflush(file) == 0 && fsync(descriptor) == 0;
	fclose(file);
	if (!written)
		unlink(path);
	return written ? 0 : -EIO;
}

static bool extension_add(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool added;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	added = extension && X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
	return added;
}

static bool serial_draw(X509 *certificate)
{
	uint8_t bytes[16];
	BIGNUM *number;
	bool drawn;

	if (RAND_bytes(bytes, sizeof bytes) != 1)
		return false;
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
	number = BN_bin2bn(bytes, sizeof bytes, NULL);
	drawn = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	return drawn;
}

struct making {
	const char *name; /* common name */
	const char *site; /* NULL: an authority */
	EVP_PKEY *key;
	X509 *issuer; /* NULL: itself */
	EVP_PKEY *issuer_key;
};

static bool extensions_add(X509 *certificate, X509 *issuer, const char *site)
{
	char names[3 * NAME_BYTES_MAX + 64];

	if (!site)
		return extension_add(certificate, issuer, NID_basic_constraints,
				     "critical,CA:TRUE,pathlen:0") &&
		       extension_add(certificate, issuer, NID_key_usage,
				     "critical,keyCertSign,cRLSign") &&
		       extension_add(certificate, issuer, NID_subject_key_identifier, "hash");
	snprintf(names, sizeof names, "DNS:%s,URI:%s%s", site, site_scheme, site);
	return extension_add(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
	       extension_add(certificate, issuer, NID_key_usage, "critical,digitalSignature") &&
	       extension_add(certificate, issuer, NID_ext_key_usage, "serverAuth,clientAuth") &&
	       extension_add(certificate, issuer, NID_subject_alt_name, names) &&
	       extension_add(certificate, issuer, NID_subject_key_identifier, "hash") &&
	       extension_add(certificate, issuer, NID_authority_key_identifier, "keyid:always");
}

static X509 *certificate_build(const struct making *making)
{
	const long days = making->site ? CERTIFICATE_SITE_DAYS : CERTIFICATE_CA_DAYS;
	X509 *certificate = X509_new();
	X509 *issuer = making->issuer ? making->issuer : certificate;
	X509_NAME *subject = certificate ? X509_get_subject_name(certificate) : NULL;

	if (certificate && X509_set_version(certificate, X509_VERSION_3) &&
	    serial_draw(certificate) &&
	    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)making->name,
				       -1, -1, 0) &&
	    X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) &&
	    X509_gmtime_adj(X509_getm_notBefore(certificate), -backdate_s) &&
	    X509_gmtime_adj(X509_getm_notAfter(certificate), days * 24 * 3600) &&
	    X509_set_pubkey(certificate, making->key) &&
	    extensions_add(certificate, issuer, making->site) &&
	    X509_sign(certificate, making->issuer_key, EVP_sha256()))
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* Writes both files, the key first, or neither. */
static int pair_write(const struct making *making, const char *dir, const char *file)
{
	char certificate_path[PATH_MAX], key_path[PATH_MAX];
	X509 *certificate;
	int error = path_print(certificate_path, dir, file, "pem");

	if (!error)
		error = path_print(key_path, dir, file, "key");
	if (error)
		return error;
	if (access(certificate_path, F_OK) == 0)
		return -EEXIST;
	certificate = certificate_build(making);
	if (!certificate)
		return -EIO;
	error = pem_write(key_path, 0400, making->key, NULL);
	if (!error) {
		error = pem_write(certificate_path, 0444, NULL, certificate);
		if (error)
			unlink(key_path);
	}
	X509_free(certificate);
	return error;
}

static int say(int error, char *why, size_t why_bytes, const char *dir, const char *file)
{
	if (error == -EEXIST)
		snprintf(why, why_bytes,
			 "%s/%s.pem or .key exists; it is not overwritten (move it away first)",
			 dir, file);
	else if (error)
		snprintf(why, why_bytes, "%s/%s.pem and .key: %s", dir, file, strerror(-error));
	ERR_clear_error();
	return error;
}

int certificate_make_ca(const char *dir, char *why, size_t why_bytes)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	struct making making = {.name = "casemate CA", .key = key, .issuer_key = key};
	const int error = key ? pair_write(&making, dir, "ca") : -ENOMEM;

	EVP_PKEY_free(key);
	return say(error, why, why_bytes, dir, "ca");
}

/* A site's name becomes a file name and a DNS name: letters, digits, and dashes inside. */
static bool site_name_good(const char *site)
{
	const size_t length = strlen(site);

	if (length == 0 || length >= NAME_BYTES_MAX || strcmp(site, "ca") == 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		const bool inside = i > 0 && i + 1 < length;

		if (!isalnum((unsigned char)site[i]) && !(inside && strchr("-._", site[i])))
			return false;
	}
	return true;
}

int certificate_judge_name(const char *site, char *why, size_t why_bytes)
{
	if (site_name_good(site))
		return 0;
	snprintf(why, why_bytes,
		 "site \"%s\": a name has up to %d letters, digits, - . or _ inside, and is not "
		 "\"ca\"",
		 site, NAME_BYTES_MAX - 1);
	return -EINVAL;
}

static int ca_load(const char *dir, struct making *making, char *why, size_t why_bytes)
{
	char path[PATH_MAX], whole[PATH_MAX], uri[PATH_MAX + 8];
	FILE *file;
	int error;

	if (path_print(path, dir, "ca", "key") || !realpath(path, whole)) {
		error = -errno;
		snprintf(why, why_bytes, "%s/ca.key: %s", dir, strerror(errno));
		return error;
	}
	snprintf(uri, sizeof uri, "file:%s", whole);
	error = key_uri_load_private(uri, &making->issuer_key, why, why_bytes);
	if (error)
		return error;
	error = path_print(path, dir, "ca", "pem");
	file = error ? NULL : fopen(path, "re");
	making->issuer = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
	if (file)
		fclose(file);
	if (!making->issuer || X509_check_private_key(making->issuer, making->issuer_key) != 1) {
		snprintf(why, why_bytes, "%s/ca.pem: not the certificate of ca.key", dir);
		return -EINVAL;
	}
	return 0;
}

int certificate_make_site(const char *dir, const char *site, char *why, size_t why_bytes)
{
	struct making making = {.name = site, .site = site};
	int error = certificate_judge_name(site, why, why_bytes);

	if (!error)
		error = ca_load(dir, &making, why, why_bytes);
	if (!error) {
		making.key = EVP_EC_gen("P-256");
		error = making.key ? pair_write(&making, dir, site) : -ENOMEM;
		error = say(error, why, why_bytes, dir, site);
	}
	EVP_PKEY_free(making.key);
	EVP_PKEY_free(making.issuer_key);
	X509_free(making.issuer);
	ERR_clear_error();
	return error;
}
