/* SPDX-License-Identifier: Apache-2.0 */
/* Lists keys for the search of secrets.sh, one "NAME HEX" a line, by the product's own code.
 *
 *   key_list volume NAME URI STORE   the wrapping key NAME, its key-encryption key, and the volume
 *                                    keys and subkeys of all spans that the store's superblock
 * tells key_list wrapping NAME URI       the wrapping key and its key-encryption key alone key_list
 * private NAME URI        the private scalar of a certificate's key key_list psk NAME URI
 *
 * What begins with "public-" is no secret: it is where it should be found. */
#include "core/keys.h"
#include "session/key_uri.h"
#include "volume.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCALAR_BYTES_MAX = 66 };

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("key_list: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

static void say(const char *name, const void *key, size_t length)
{
	printf("%s ", name);
	for (size_t i = 0; i < length; i++)
		printf("%02x", ((const uint8_t *)key)[i]);
	putchar('\n');
}

/* Of X25519 its bytes, of an EC key the number, the first byte first. */
static void say_private(const char *name, const char *uri)
{
	char why[512];
	uint8_t scalar[SCALAR_BYTES_MAX];
	size_t length = sizeof scalar;
	EVP_PKEY *key;
	BIGNUM *number = NULL;
	if (key_uri_load_private(uri, &key, why, sizeof why))
		give_up("%s", why);
	if (EVP_PKEY_is_a(key, "EC")) {
		length = (size_t)(EVP_PKEY_get_bits(key) + 7) / 8;
		if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &number) != 1 ||
		    BN_bn2binpad(number, scalar, (int)length) != (int)length)
			give_up("%s: no scalar", uri);
	} else if (EVP_PKEY_get_raw_private_key(key, scalar, &length) != 1) {
		give_up("%s: no raw key", uri);
	}
	say(name, scalar, length);
	BN_free(number);
	EVP_PKEY_free(key);
}

static void say_kek(const char *name, const char *uri, uint8_t kek[KEY_BYTES])
{
	char why[512], line[64];
	if (key_uri_load(uri, kek, why, sizeof why))
		give_up("%s", why);
	say_private(name, uri);
	snprintf(line, sizeof line, "%s-kek", name);
	say(line, kek, KEY_BYTES);
}

static void say_volume(const struct store_group *group, unsigned index,
		       const uint8_t kek[KEY_BYTES])
{
	const struct store_volume *volume = &group->volume[index];
	uint8_t key[KEY_BYTES], check[KEY_CHECK_BYTES];
	char line[128];
	if (keys_unwrap(kek, volume->wrapped_key, key))
		give_up("volume %s was wrapped by another key", volume->name);
	keys_check_value(key, check);
	if (!keys_equal(check, volume->key_check, sizeof check))
		give_up("volume %s: its key check value is of another key", volume->name);
	snprintf(line, sizeof line, "volume-key-%s", volume->name);
	say(line, key, sizeof key);
	snprintf(line, sizeof line, "public-wrapped-key-%s", volume->name);
	say(line, volume->wrapped_key, sizeof volume->wrapped_key);
	if (!group->spans.count)
		give_up("no span was opened");
	for (unsigned i = 0; i < group->spans.count; i++) {
		uint8_t subkey[KEY_BYTES];
		const struct uuid *span = &group->spans.span[i].id;
		keys_span_subkey(key, span, subkey);
		snprintf(line, sizeof line, "subkey-%s-%02x%02x%02x%02x", volume->name,
			 span->bytes[0], span->bytes[1], span->bytes[2], span->bytes[3]);
		say(line, subkey, sizeof subkey);
	}
}

static void say_psk(const char *name, const char *uri)
{
	char why[512];
	uint8_t psk[PSK_BYTES];
	if (key_uri_load_psk(uri, psk, why, sizeof why))
		give_up("%s", why);
	say(name, psk, sizeof psk);
}

int main(int argc, char **argv)
{
	static struct volume_store_head head;
	uint8_t kek[KEY_BYTES];
	const char *what = argc > 1 ? argv[1] : "";
	if (argc == 5 && !strcmp(what, "volume")) {
		if (volume_store_read(argv[4], &head))
			give_up("%s is no store", argv[4]);
		say_kek(argv[2], argv[3], kek);
		for (unsigned i = 0; i < head.group.volume_count; i++)
			say_volume(&head.group, i, kek);
	} else if (argc == 4 && !strcmp(what, "wrapping")) {
		say_kek(argv[2], argv[3], kek);
	} else if (argc == 4 && !strcmp(what, "private")) {
		say_private(argv[2], argv[3]);
	} else if (argc == 4 && !strcmp(what, "psk")) {
		say_psk(argv[2], argv[3]);
	} else {
		give_up("see the top of its source");
	}
	return EXIT_SUCCESS;
}
