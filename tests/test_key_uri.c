/* SPDX-License-Identifier: Apache-2.0 */
/* Keys from files: what loads, what is refused and in which words, in a directory of our own. */
#include "session/key_uri.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bytes.h"

static char directory[64];
static char why[512];

static int directory_make(void **unused)
{
	snprintf(directory, sizeof directory, "/tmp/casemate-test-key-uri-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int entry_remove(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
	return remove(path);
}

static int directory_remove(void **unused)
{
	return nftw(directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* "DIRECTORY/name", and as a URI; each in its own memory until the next call. */
static const char *path_of(const char *name)
{
	static char path[128];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

static const char *uri_of(const char *name)
{
	static char uri[160];
	snprintf(uri, sizeof uri, "file:%s/%s", directory, name);
	return uri;
}

static void file_put(const char *name, const void *text, size_t length, mode_t mode)
{
	unlink(path_of(name));
	int descriptor = open(path_of(name), O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(descriptor >= 0);
	assert_int_equal(write(descriptor, text, length), length);
	assert_int_equal(fchmod(descriptor, mode), 0);
	close(descriptor);
}

static size_t file_get(const char *name, void *text, size_t room)
{
	FILE *file = fopen(path_of(name), "r");
	assert_non_null(file);
	size_t length = fread(text, 1, room, file);
	fclose(file);
	return length;
}

/* The key-encryption key by another road: PEM_read, raw bytes, and libcrypto's own HKDF. */
static void kek_expect(const char *name, uint8_t kek[KEY_BYTES])
{
	uint8_t raw[KEY_BYTES];
	size_t length = sizeof raw;
	char label[] = "casemate kek v1", digest[] = "SHA256";
	FILE *file = fopen(path_of(name), "r");
	EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	fclose(file);
	assert_non_null(key);
	assert_int_equal(EVP_PKEY_get_raw_private_key(key, raw, &length), 1);
	EVP_PKEY_free(key);
	EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *context = EVP_KDF_CTX_new(hkdf);
	OSSL_PARAM parameters[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, raw, sizeof raw),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, label, sizeof label - 1),
		OSSL_PARAM_construct_end(),
	};
	assert_int_equal(EVP_KDF_derive(context, kek, KEY_BYTES, parameters), 1);
	EVP_KDF_CTX_free(context);
	EVP_KDF_free(hkdf);
}

static void test_generate_and_load(void **unused)
{
	char print[2][KEY_FINGERPRINT_BYTES], text[1024], again[1024];
	uint8_t kek[KEY_BYTES], expected[KEY_BYTES];
	struct stat status;
	assert_int_equal(key_generate(path_of("kek.pem"), print[0], why, sizeof why), 0);
	assert_int_equal(strlen(print[0]), KEY_FINGERPRINT_BYTES - 1);
	assert_int_equal(stat(path_of("kek.pem"), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0400);
	assert_int_equal(key_uri_load(uri_of("kek.pem"), kek, why, sizeof why), 0);
	kek_expect("kek.pem", expected);
	assert_memory_equal(kek, expected, KEY_BYTES);

	size_t length = file_get("kek.pem", text, sizeof text);
	assert_int_equal(key_generate(path_of("kek.pem"), print[1], why, sizeof why), -EEXIST);
	assert_non_null(strstr(why, "not overwritten"));
	assert_int_equal(file_get("kek.pem", again, sizeof again), length);
	assert_memory_equal(text, again, length);

	assert_int_equal(key_generate(path_of("other.pem"), print[1], why, sizeof why), 0);
	assert_string_not_equal(print[0], print[1]);
	assert_int_equal(key_uri_load(uri_of("other.pem"), kek, why, sizeof why), 0);
	assert_memory_not_equal(kek, expected, KEY_BYTES);
}

static void test_fingerprint_is_that_of_the_public_key(void **unused)
{
	char print[KEY_FINGERPRINT_BYTES], expected[KEY_FINGERPRINT_BYTES];
	/* RFC 8410: a SubjectPublicKeyInfo of X25519 is these 12 bytes and the key. */
	uint8_t spki[44] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00};
	uint8_t digest[32];
	size_t length = 32;
	assert_int_equal(key_generate(path_of("print.pem"), print, why, sizeof why), 0);
	FILE *file = fopen(path_of("print.pem"), "r");
	EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	fclose(file);
	assert_int_equal(EVP_PKEY_get_raw_public_key(key, spki + 12, &length), 1);
	EVP_PKEY_free(key);
	EVP_Digest(spki, sizeof spki, digest, NULL, EVP_sha256(), NULL);
	EVP_EncodeBlock((uint8_t *)expected, digest, sizeof digest);
	assert_string_equal(print, expected);
}

static void test_generate_fails_cleanly(void **unused)
{
	char print[KEY_FINGERPRINT_BYTES];
	assert_int_equal(key_generate(path_of("no/such.pem"), print, why, sizeof why), -ENOENT);
	assert_non_null(strstr(why, "no/such.pem"));
	assert_int_equal(key_generate(directory, print, why, sizeof why), -EEXIST);
}

/* Loads, expects this refusal, and that nothing of a key is left. */
static void refused(const char *uri, int result, const char *words)
{
	uint8_t kek[KEY_BYTES];
	memset(kek, 0xee, sizeof kek);
	memset(why, 0, sizeof why);
	assert_int_equal(key_uri_load(uri, kek, why, sizeof why), result);
	if (!strstr(why, words))
		fail_msg("%s: \"%s\" does not say \"%s\"", uri, why, words);
	assert_true(bytes_are_zero(kek, sizeof kek));
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_bad_uris(void **unused)
{
	static const struct {
		const char *uri;
		int result;
		const char *words;
	} rows[] = {
		/* 1 */ {"", -EPROTONOSUPPORT, "use file:/path or credential:NAME"},
		/* 2 */ {"/etc/key.pem", -EPROTONOSUPPORT, "use file:/path"},
		/* 3 */ {"pkcs11:token=x", -EPROTONOSUPPORT, "pkcs11:token=x: not a key URI"},
		/* 4 */ {"file:key.pem", -EINVAL, "absolute path"},
		/* 5 */ {"file:", -EINVAL, "absolute path"},
		/* 6 */ {"file://host/key.pem", -EINVAL, "absolute path"},
		/* 7 */ {"file:/nowhere/key.pem", -ENOENT, "/nowhere/key.pem: No such file"},
		/* 8 */ {"credential:", -EINVAL, "plain name"},
		/* 9 */ {"credential:../key", -EINVAL, "plain name"},
		/* 10 */ {"credential:a/b", -EINVAL, "plain name"},
		/* 11 */ {"credential:key", -ENOENT, "CREDENTIALS_DIRECTORY is not set"},
	};
	unsetenv("CREDENTIALS_DIRECTORY");
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		refused(rows[i].uri, rows[i].result, rows[i].words);
	char *path = calloc(1, PATH_MAX + 100);
	memset(path, 'x', PATH_MAX + 50);
	memcpy(path, "file:/", 6);
	refused(path, -ENAMETOOLONG, "too long");
	free(path);
}

static void test_permissions(void **unused)
{
	static const struct {
		mode_t mode;
		bool taken;
	} rows[] = {
		/* 1 */ {0400, true},
		/* 2 */ {0600, true},
		/* 3 */ {0644, false},
		/* 4 */ {0440, false},
		/* 5 */ {0404, false},
		/* 6 */ {0620, false},
		/* 7 */ {0602, false},
		/* 8 */ {0777, false},
	};
	char print[KEY_FINGERPRINT_BYTES], expected[512];
	uint8_t kek[KEY_BYTES];
	assert_int_equal(key_generate(path_of("mode.pem"), print, why, sizeof why), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		assert_int_equal(chmod(path_of("mode.pem"), rows[i].mode), 0);
		snprintf(expected, sizeof expected,
			 "key file %s is readable by others (mode %04o): chmod 0400 %s",
			 path_of("mode.pem"), (unsigned)rows[i].mode, path_of("mode.pem"));
		if (!rows[i].taken)
			refused(uri_of("mode.pem"), -EACCES, expected);
		else
			assert_int_equal(key_uri_load(uri_of("mode.pem"), kek, why, sizeof why), 0);
	}
	chmod(path_of("mode.pem"), 0400);
	/* a link is judged by what it leads to */
	assert_int_equal(symlink("mode.pem", path_of("link.pem")), 0);
	assert_int_equal(key_uri_load(uri_of("link.pem"), kek, why, sizeof why), 0);
}

static void test_other_owner(void **unused)
{
	char print[KEY_FINGERPRINT_BYTES];
	if (geteuid() != 0)
		skip();
	assert_int_equal(key_generate(path_of("owner.pem"), print, why, sizeof why), 0);
	if (chown(path_of("owner.pem"), 12345, (gid_t)-1))
		skip();
	refused(uri_of("owner.pem"), -EACCES,
		"belongs to user 12345 and we run as user 0: chown 0");
}

static void key_put(const char *name, const char *type, const EVP_CIPHER *cipher)
{
	char *text, password[] = "secret";
	EVP_PKEY *key = strcmp(type, "EC") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, type, "P-256")
						: EVP_PKEY_Q_keygen(NULL, NULL, type);
	BIO *pem = BIO_new(BIO_s_mem());
	assert_non_null(key);
	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(pem, key, cipher, cipher ? password : NULL,
						       cipher ? 6 : 0, NULL, NULL),
			 1);
	long length = BIO_get_mem_data(pem, &text);
	file_put(name, text, (size_t)length, 0400);
	BIO_free(pem);
	EVP_PKEY_free(key);
}

static void test_contents(void **unused)
{
	static uint8_t large[64 * 1024];
	uint8_t kek[KEY_BYTES];
	char text[1024];
	key_put("x25519", "X25519", NULL);
	assert_int_equal(key_uri_load(uri_of("x25519"), kek, why, sizeof why), 0);
	key_put("ed25519", "ED25519", NULL);
	refused(uri_of("ed25519"), -EBADMSG, "not X25519");
	key_put("ec", "EC", NULL);
	refused(uri_of("ec"), -EBADMSG, "not X25519");
	key_put("encrypted", "X25519", EVP_aes_256_cbc());
	refused(uri_of("encrypted"), -EBADMSG, "no private key in plain PEM");
	file_put("empty", "", 0, 0400);
	refused(uri_of("empty"), -EBADMSG, "no private key");
	file_put("text", "not a key\n", 10, 0400);
	refused(uri_of("text"), -EBADMSG, "no private key");
	file_put("large", large, sizeof large, 0400);
	refused(uri_of("large"), -EBADMSG, "too large");
	file_put("zeros", large, 4096, 0400);
	refused(uri_of("zeros"), -EBADMSG, "no private key");
	/* every truncation is refused; the last line's newline may go */
	size_t length = file_get("x25519", text, sizeof text);
	for (size_t i = 0; i + 2 < length; i++) {
		file_put("cut", text, i, 0400);
		refused(uri_of("cut"), -EBADMSG, "no private key");
	}
}

static void test_not_a_file(void **unused)
{
	refused(uri_of(""), -EINVAL, "not a regular file");
	assert_int_equal(mkfifo(path_of("fifo"), 0400), 0);
	refused(uri_of("fifo"), -EINVAL, "not a regular file"); /* and does not wait */
}

static void test_credential(void **unused)
{
	char print[KEY_FINGERPRINT_BYTES];
	uint8_t kek[KEY_BYTES], expected[KEY_BYTES];
	assert_int_equal(key_generate(path_of("vault-key"), print, why, sizeof why), 0);
	setenv("CREDENTIALS_DIRECTORY", directory, 1);
	kek_expect("vault-key", expected);
	assert_int_equal(key_uri_load("credential:vault-key", kek, why, sizeof why), 0);
	assert_memory_equal(kek, expected, KEY_BYTES);
	/* as systemd leaves it when it gives access by an ACL */
	chmod(path_of("vault-key"), 0440);
	assert_int_equal(key_uri_load("credential:vault-key", kek, why, sizeof why), 0);
	chmod(path_of("vault-key"), 0444);
	refused("credential:vault-key", -EACCES, "readable by others (mode 0444)");
	refused("credential:absent", -ENOENT, "absent: No such file");
	unsetenv("CREDENTIALS_DIRECTORY");
}

static void test_psk(void **unused)
{
	static const char digits[] =
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eFf";
	static const struct {
		const char *before, *after;
		size_t digits;
		int result;
	} rows[] = {
		/* 1 */ {"", "", 64, 0},
		/* 2 */ {"", "\n", 64, 0},
		/* 3 */ {" \n", "\r\n\n", 64, 0},
		/* 4: too short */ {"", "", 63, -EBADMSG},
		/* 5: too long */ {"0", "", 64, -EBADMSG},
		/* 6: not a digit */ {"g", "", 63, -EBADMSG},
		/* 7: nothing */ {"", "\n", 0, -EBADMSG},
		/* 8: space inside */ {"0 ", "", 63, -EBADMSG},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		char text[128];
		uint8_t psk[PSK_BYTES];
		int length = snprintf(text, sizeof text, "%s%.*s%s", rows[i].before,
				      (int)rows[i].digits, digits, rows[i].after);
		file_put("psk", text, (size_t)length, 0400);
		memset(psk, 0xee, sizeof psk);
		print_message("row %u\n", i + 1);
		assert_int_equal(key_uri_load_psk(uri_of("psk"), psk, why, sizeof why),
				 rows[i].result);
		if (rows[i].result) {
			assert_non_null(strstr(why, "does not hold 64 hex digits"));
			assert_null(strstr(why, "0001"));
			assert_true(bytes_are_zero(psk, sizeof psk));
			continue;
		}
		for (unsigned at = 0; at < 31; at++)
			assert_int_equal(psk[at], at);
		assert_int_equal(psk[31], 0xff);
	}
	uint8_t psk[PSK_BYTES];
	file_put("psk", digits, 64, 0644);
	assert_int_equal(key_uri_load_psk(uri_of("psk"), psk, why, sizeof why), -EACCES);
	assert_non_null(strstr(why, "readable by others (mode 0644): chmod 0400"));
}

static void test_why_may_be_small_or_absent(void **unused)
{
	uint8_t kek[KEY_BYTES];
	char small[8];
	memset(small, 'x', sizeof small);
	assert_int_equal(key_uri_load("file:/nowhere", kek, small, 4), -ENOENT);
	assert_string_equal(small, "key");
	assert_int_equal(small[4], 'x');
	assert_int_equal(key_uri_load("file:/nowhere", kek, NULL, 0), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generate_and_load),
		cmocka_unit_test(test_fingerprint_is_that_of_the_public_key),
		cmocka_unit_test(test_generate_fails_cleanly),
		cmocka_unit_test(test_bad_uris),
		cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_other_owner),
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_not_a_file),
		cmocka_unit_test(test_credential),
		cmocka_unit_test(test_psk),
		cmocka_unit_test(test_why_may_be_small_or_absent),
	};
	return cmocka_run_group_tests(tests, directory_make, directory_remove);
}
