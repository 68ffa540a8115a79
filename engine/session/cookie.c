/* SPDX-License-Identifier: Apache-2.0 */
/* A cookie is 4 bytes of time in seconds and 28 bytes of HMAC-SHA-256. Two secrets are good at any
 * time, so that a rotation refuses no cookie that is still young. */
#include "cookie.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum { COOKIE_TIME_BYTES = 4, COOKIE_MAC_BYTES = CONTROL_COOKIE_BYTES - COOKIE_TIME_BYTES };

static void secret_draw(uint8_t secret[COOKIE_SECRET_BYTES])
{
	must(RAND_priv_bytes(secret, COOKIE_SECRET_BYTES) == 1, "the system has randomness");
}

void cookie_jar_init(struct cookie_jar *jar)
{
	secret_draw(jar->secret[0]);
	secret_draw(jar->secret[1]);
	jar->rotate_at = 0; /* the first use draws again, and sets it */
}

void cookie_jar_fini(struct cookie_jar *jar)
{
	OPENSSL_cleanse(jar, sizeof *jar);
}

static void jar_rotate(struct cookie_jar *jar, ns_t now)
{
	if (now < jar->rotate_at)
		return;
	memcpy(jar->secret[1], jar->secret[0], COOKIE_SECRET_BYTES);
	secret_draw(jar->secret[0]);
	jar->rotate_at = now + COOKIE_ROTATE_S * NS_PER_S;
}

static void cookie_fill(const uint8_t secret[COOKIE_SECRET_BYTES],
			const struct cookie_holder *holder, uint32_t made_s,
			uint8_t cookie[CONTROL_COOKIE_BYTES])
{
	uint8_t text[COOKIE_TIME_BYTES + 8 + 8 + 4], mac[EVP_MAX_MD_SIZE];

	put_u32(text, made_s);
	put_u64(text + 4, holder->client);
	put_u64(text + 12, holder->address);
	put_u32(text + 20, holder->path);
	must(HMAC(EVP_sha256(), secret, COOKIE_SECRET_BYTES, text, sizeof text, mac, NULL) != NULL,
	     "HMAC needs nothing but memory");
	memcpy(cookie, text, COOKIE_TIME_BYTES);
	memcpy(cookie + COOKIE_TIME_BYTES, mac, COOKIE_MAC_BYTES);
	OPENSSL_cleanse(mac, sizeof mac);
}

void cookie_make(struct cookie_jar *jar, const struct cookie_holder *holder, ns_t now,
		 uint8_t cookie[CONTROL_COOKIE_BYTES])
{
	jar_rotate(jar, now);
	cookie_fill(jar->secret[0], holder, (uint32_t)(now / NS_PER_S), cookie);
}

bool cookie_good(struct cookie_jar *jar, const struct cookie_holder *holder, ns_t now,
		 const uint8_t cookie[CONTROL_COOKIE_BYTES])
{
	const uint32_t made_s = get_u32(cookie);
	const uint32_t age_s = (uint32_t)(now / NS_PER_S) - made_s;
	bool good = false;

	jar_rotate(jar, now);
	if (age_s > COOKIE_LIFE_S)
		return false;
	for (unsigned i = 0; i < ARRAY_COUNT(jar->secret); i++) {
		uint8_t expected[CONTROL_COOKIE_BYTES];

		cookie_fill(jar->secret[i], holder, made_s, expected);
		good |= CRYPTO_memcmp(expected, cookie, sizeof expected) == 0;
		OPENSSL_cleanse(expected, sizeof expected);
	}
	return good;
}
