/* SPDX-License-Identifier: Apache-2.0 */
/* Making certificates, and reading them back: modes, names, pins, and what is refused.
 */
#include "session/certificate.h"
#include "session/key_uri.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

static char dir[] = "/tmp/casemate-certificate-XXXXXX";
static char why[256];

static const char *in_dir(const char *name)
{
	static char path[4][PATH_MAX];
	static unsigned next;

	next = (next + 1) % ARRAY_COUNT(path);
	snprintf(path[next], PATH_MAX, "%s/%s", dir, name);
	return path[next];
}

static mode_t mode_of(const char *path)
{
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	return status.st_mode & 0777;
}

static X509 *load(const char *path)
{
	FILE *file = fopen(path, "r");
	X509 *certificate;

	assert_non_null(file);
	certificate = PEM_read_X509(file, NULL, NULL, NULL);
	fclose(file);
	assert_non_null(certificate);
	return certificate;
}

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int entry_remove(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
	return remove(path);
}

static int remove_dir(void **state)
{
	return nftw(dir, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_make(void **state)
{
	X509 *ca, *site;
	int days, seconds;

	assert_int_equal(certificate_make_site(dir, "vault", why, sizeof why), -ENOENT);
	assert_int_equal(certificate_make_ca(dir, why, sizeof why), 0);
	assert_int_equal(certificate_make_site(dir, "vault", why, sizeof why), 0);
	assert_int_equal(mode_of(in_dir("ca.key")), 0400);
	assert_int_equal(mode_of(in_dir("vault.key")), 0400);

	ca = load(in_dir("ca.pem"));
	site = load(in_dir("vault.pem"));
	assert_int_equal(X509_check_ca(ca), 1);
	assert_int_equal(X509_check_ca(site), 0);
	assert_int_equal(X509_verify(site, X509_get0_pubkey(ca)), 1);
	assert_int_equal(X509_check_purpose(site, X509_PURPOSE_SSL_SERVER, 0), 1);
	assert_int_equal(X509_check_purpose(site, X509_PURPOSE_SSL_CLIENT, 0), 1);
	assert_true(certificate_names_site(site, "vault"));
	assert_false(certificate_names_site(site, "vaul"));
	assert_false(certificate_names_site(site, "Vault"));
	assert_false(certificate_names_site(site, "*"));
	assert_false(certificate_names_site(site, ""));
	assert_false(certificate_names_site(ca, "casemate CA"));
	assert_true(ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(site)));
	assert_in_range(days, CERTIFICATE_SITE_DAYS - 1, CERTIFICATE_SITE_DAYS);
	assert_true(ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(ca)));
	assert_in_range(days, CERTIFICATE_CA_DAYS - 1, CERTIFICATE_CA_DAYS);
	X509_free(ca);
	X509_free(site);
}

static void test_never_overwrites(void **state)
{
	struct certificate_fingerprint before, after;

	assert_int_equal(certificate_fingerprint(in_dir("vault.pem"), &before), 0);
	assert_int_equal(certificate_make_ca(dir, why, sizeof why), -EEXIST);
	assert_non_null(strstr(why, "not overwritten"));
	assert_int_equal(certificate_make_site(dir, "vault", why, sizeof why), -EEXIST);
	/* Half of a pair is left alone too. */
	assert_int_equal(unlink(in_dir("vault.key")), 0);
	assert_int_equal(certificate_make_site(dir, "vault", why, sizeof why), -EEXIST);
	assert_int_not_equal(access(in_dir("vault.key"), F_OK), 0);
	assert_int_equal(certificate_fingerprint(in_dir("vault.pem"), &after), 0);
	assert_string_equal(before.text, after.text);
}

static void test_site_names(void **state)
{
	static const struct {
		int number;
		const char *name;
		int result;
	} rows[] = {
		{1, "", -EINVAL},	 {2, "ca", -EINVAL},
		{3, "../etc", -EINVAL},	 {4, "a,DNS:b", -EINVAL},
		{5, "a b", -EINVAL},	 {6, "-a", -EINVAL},
		{7, "a.", -EINVAL},	 {8, "01234567890123456789012345678901", -EINVAL},
		{9, "betzdorf-2.lu", 0}, {10, "0123456789012345678901234567890", 0},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		if (certificate_make_site(dir, rows[i].name, why, sizeof why) != rows[i].result)
			fail_msg("row %d: %s", rows[i].number, why);
}

static void test_pins(void **state)
{
	uint8_t pin[CERTIFICATE_PIN_BYTES], again[CERTIFICATE_PIN_BYTES];
	struct certificate_fingerprint text;
	char spoiled[80];

	assert_int_equal(certificate_fingerprint(in_dir("ca.pem"), &text), 0);
	assert_int_equal(strlen(text.text), 7 + 43);
	assert_int_equal(certificate_pin_parse(text.text, pin), 0);
	snprintf(spoiled, sizeof spoiled, "%s=", text.text);
	assert_int_equal(certificate_pin_parse(spoiled, again), 0);
	assert_memory_equal(pin, again, sizeof pin);
	snprintf(spoiled, sizeof spoiled, "%s==", text.text);
	assert_int_equal(certificate_pin_parse(spoiled, again), -EINVAL);
	snprintf(spoiled, sizeof spoiled, "%.49s", text.text);
	assert_int_equal(certificate_pin_parse(spoiled, again), -EINVAL);
	snprintf(spoiled, sizeof spoiled, "SHA1%s", text.text + 6);
	assert_int_equal(certificate_pin_parse(spoiled, again), -EINVAL);
	snprintf(spoiled, sizeof spoiled, "%s", text.text);
	spoiled[20] = ' ';
	assert_int_equal(certificate_pin_parse(spoiled, again), -EINVAL);
	assert_int_equal(certificate_pin_parse("", again), -EINVAL);
	assert_int_equal(certificate_fingerprint(in_dir("nowhere.pem"), &text), -ENOENT);
	assert_int_equal(certificate_fingerprint(in_dir("ca.key"), &text), -EINVAL);
}

/* The pin is what `openssl x509 -pubkey | openssl pkey -pubin -outform DER | sha256` says. */
static void test_pin_is_of_the_public_key(void **state)
{
	uint8_t pin[CERTIFICATE_PIN_BYTES], digest[32], *der = NULL;
	X509 *certificate = load(in_dir("ca.pem"));
	const int length = i2d_PUBKEY(X509_get0_pubkey(certificate), &der);

	assert_true(length > 0);
	assert_true(EVP_Digest(der, (size_t)length, digest, NULL, EVP_sha256(), NULL));
	certificate_pin_of(certificate, pin);
	assert_memory_equal(pin, digest, sizeof pin);
	OPENSSL_free(der);
	X509_free(certificate);
}

static int private_load(const char *name)
{
	char uri[PATH_MAX + 8];
	EVP_PKEY *key;
	int result;

	snprintf(uri, sizeof uri, "file:%s", in_dir(name));
	result = key_uri_load_private(uri, &key, why, sizeof why);
	assert_int_equal(result == 0, key != NULL);
	EVP_PKEY_free(key);
	return result;
}

static void test_private_keys(void **state)
{
	assert_int_equal(private_load("ca.key"), 0);
	assert_int_equal(private_load("ca.pem"), -EACCES);
	assert_int_equal(chmod(in_dir("ca.pem"), 0400), 0);
	assert_int_equal(private_load("ca.pem"), -EBADMSG);
	assert_int_equal(private_load("absent"), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make),
		cmocka_unit_test(test_never_overwrites),
		cmocka_unit_test(test_site_names),
		cmocka_unit_test(test_pins),
		cmocka_unit_test(test_pin_is_of_the_public_key),
		cmocka_unit_test(test_private_keys),
	};

	return cmocka_run_group_tests_name("certificate", tests, make_dir, remove_dir);
}
