/* SPDX-License-Identifier: Apache-2.0 */
/* The key tree: every key but the random ones at its root is derived here, and nowhere else. All
 * of it is rare (a start, a span, a ratchet), so libcrypto may allocate meanwhile. */
#include "keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <errno.h>

enum { HASH_BYTES = 32 };

static void hmac_sha256(const uint8_t key[HASH_BYTES], const void *text, size_t length,
			uint8_t out[HASH_BYTES])
{
	unsigned out_length = 0;
	const uint8_t *done = HMAC(EVP_sha256(), key, HASH_BYTES, text, length, out, &out_length);
	must(done && out_length == HASH_BYTES, "libcrypto has HMAC-SHA-256 and memory for it");
}

/* RFC 5869 section 2.2. HMAC itself hashes a salt that is longer than a block; one that is shorter
 * than a hash is padded with zeros, as HMAC would. */
static void hkdf_extract(const void *salt, size_t salt_length, const void *ikm, size_t ikm_length,
			 uint8_t prk[HASH_BYTES])
{
	static const uint8_t empty[HASH_BYTES];
	unsigned length = 0;
	if (!salt_length) {
		salt = empty;
		salt_length = sizeof empty;
	}
	const uint8_t *done = HMAC(EVP_sha256(), salt, (int)salt_length, ikm_length ? ikm : empty,
				   ikm_length, prk, &length);
	must(done && length == HASH_BYTES, "libcrypto has HMAC-SHA-256 and memory for it");
}

/* RFC 5869 section 2.3: T(i) = HMAC(PRK, T(i-1) || info || i). */
static void hkdf_expand(const uint8_t prk[HASH_BYTES], const void *info, size_t info_length,
			uint8_t *okm, size_t okm_length)
{
	uint8_t text[HASH_BYTES + KEYS_INFO_BYTES_MAX + 1];
	uint8_t block[HASH_BYTES];
	size_t previous = 0;
	uint8_t turn = 0;
	for (size_t done = 0; done < okm_length; done += HASH_BYTES) {
		memcpy(text, block, previous);
		if (info_length)
			memcpy(text + previous, info, info_length);
		text[previous + info_length] = ++turn;
		hmac_sha256(prk, text, previous + info_length + 1, block);
		memcpy(okm + done, block, min_u64(HASH_BYTES, okm_length - done));
		previous = HASH_BYTES;
	}
	keys_wipe(text, sizeof text);
	keys_wipe(block, sizeof block);
}

void keys_derive(const void *salt, size_t salt_length, const void *ikm, size_t ikm_length,
		 const void *info, size_t info_length, uint8_t *okm, size_t okm_length)
{
	must(okm_length <= 255 * HASH_BYTES, "RFC 5869: at most 255 hashes of output");
	must(info_length <= KEYS_INFO_BYTES_MAX, "info is a label and a few names");
	must(salt_length <= KEYS_INFO_BYTES_MAX, "a salt is an identity or a key");
	uint8_t prk[HASH_BYTES];
	hkdf_extract(salt, salt_length, ikm, ikm_length, prk);
	hkdf_expand(prk, info, info_length, okm, okm_length);
	keys_wipe(prk, sizeof prk);
}

static void derive_labelled(const uint8_t key[KEY_BYTES], const char *label, uint8_t *okm,
			    size_t okm_length)
{
	keys_derive(NULL, 0, key, KEY_BYTES, label, strlen(label), okm, okm_length);
}

void keys_check_value(const uint8_t volume_key[KEY_BYTES], uint8_t check[KEY_CHECK_BYTES])
{
	derive_labelled(volume_key, "casemate key check v1", check, KEY_CHECK_BYTES);
}

void keys_span_subkey(const uint8_t volume_key[KEY_BYTES], const struct uuid *span,
		      uint8_t subkey[KEY_BYTES])
{
	static const char label[] = "casemate seal v1";
	keys_derive(span->bytes, UUID_BYTES, volume_key, KEY_BYTES, label, sizeof label - 1, subkey,
		    KEY_BYTES);
}

void keys_packet_key(const uint8_t secret[SESSION_SECRET_BYTES], uint16_t lane,
		     uint8_t key[KEY_BYTES])
{
	static const char label[] = "casemate packet v1";
	uint8_t info[sizeof label - 1 + sizeof lane];
	memcpy(info, label, sizeof label - 1);
	put_u16(info + sizeof label - 1, lane);
	keys_derive(NULL, 0, secret, SESSION_SECRET_BYTES, info, sizeof info, key, KEY_BYTES);
}

_Static_assert((int)SESSION_SECRET_BYTES == (int)KEY_BYTES, "a session secret is as long as a key");

void keys_ratchet(uint8_t secret[SESSION_SECRET_BYTES])
{
	uint8_t next[SESSION_SECRET_BYTES];
	derive_labelled(secret, "casemate ratchet v1", next, sizeof next);
	memcpy(secret, next, sizeof next);
	keys_wipe(next, sizeof next);
}

/* RFC 3394 with its default initial value. The length out, or 0 when the check inside failed. */
static size_t key_wrap_run(const uint8_t wrapping_key[KEY_BYTES], bool wrap, const uint8_t *in,
			   uint8_t *out)
{
	size_t in_length = wrap ? KEY_BYTES : WRAPPED_KEY_BYTES;
	int length = 0;
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	must(context, "libcrypto has memory for a context");
	EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
	int ok = EVP_CipherInit_ex(context, EVP_aes_256_wrap(), NULL, wrapping_key, NULL, wrap);
	must(ok == 1, "libcrypto has AES key wrap");
	ok = EVP_CipherUpdate(context, out, &length, in, (int)in_length);
	EVP_CIPHER_CTX_free(context);
	return ok == 1 && length > 0 ? (size_t)length : 0;
}

void keys_wrap(const uint8_t wrapping_key[KEY_BYTES], const uint8_t key[KEY_BYTES],
	       uint8_t wrapped[WRAPPED_KEY_BYTES])
{
	size_t length = key_wrap_run(wrapping_key, true, key, wrapped);
	must(length == WRAPPED_KEY_BYTES, "a key wraps into its length and 8 bytes");
}

int keys_unwrap(const uint8_t wrapping_key[KEY_BYTES], const uint8_t wrapped[WRAPPED_KEY_BYTES],
		uint8_t key[KEY_BYTES])
{
	uint8_t text[WRAPPED_KEY_BYTES]; /* libcrypto works in all of the input's length */
	size_t length = key_wrap_run(wrapping_key, false, wrapped, text);
	if (length == KEY_BYTES)
		memcpy(key, text, KEY_BYTES);
	else
		keys_wipe(key, KEY_BYTES);
	keys_wipe(text, sizeof text);
	return length == KEY_BYTES ? 0 : -EKEYREJECTED;
}

bool keys_equal(const void *a, const void *b, size_t length)
{
	return CRYPTO_memcmp(a, b, length) == 0;
}

void keys_wipe(void *secret, size_t length)
{
	if (length)
		OPENSSL_cleanse(secret, length);
}
