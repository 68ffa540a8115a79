/* SPDX-License-Identifier: Apache-2.0 */
/* The reference back end: AES-256-GCM by OpenSSL's EVP. An expanded key is the raw key here, since
 * EVP keeps key schedules only inside a context: the one context remembers what it has loaded and
 * is keyed again only when another key comes. */
#include "aead_backend.h"

#include "keys.h"

#include <openssl/evp.h>

#include <errno.h>

struct aead_with_openssl {
	struct aead aead;
	EVP_CIPHER_CTX *context;
	bool loaded;
	uint8_t loaded_key[KEY_BYTES];
};

static struct aead_with_openssl *self_of(struct aead *aead)
{
	return container_of(aead, struct aead_with_openssl, aead);
}

static bool openssl_available(void)
{
	return true;
}

static struct aead *openssl_new(const struct memory *memory)
{
	struct aead_with_openssl *self = memory_take(memory, MEMORY_KEYS, sizeof *self);
	if (!self)
		return NULL;
	self->context = EVP_CIPHER_CTX_new();
	if (!self->context)
		goto free_self;
	if (EVP_EncryptInit_ex(self->context, EVP_aes_256_gcm(), NULL, NULL, NULL) != 1)
		goto free_context;
	return &self->aead;

free_context:
	EVP_CIPHER_CTX_free(self->context);
free_self:
	memory_give(memory, MEMORY_KEYS, self, sizeof *self);
	errno = ENOMEM;
	return NULL;
}

static void openssl_free(struct aead *aead)
{
	struct aead_with_openssl *self = self_of(aead);
	EVP_CIPHER_CTX_free(self->context);
	memory_give(aead->memory, MEMORY_KEYS, self, sizeof *self);
}

static void openssl_key_init(struct aead *aead, struct aead_key *expanded,
			     const uint8_t key[KEY_BYTES])
{
	memset(expanded->state, 0, sizeof expanded->state);
	memcpy(expanded->state, key, KEY_BYTES);
}

/* Direction, key and nonce. GCM runs the cipher forwards both ways, so a loaded key serves both. */
static void context_start(struct aead_with_openssl *self, const struct aead_key *key,
			  const uint8_t *nonce, bool seal)
{
	bool same = self->loaded && keys_equal(self->loaded_key, key->state, KEY_BYTES);
	int ok =
		EVP_CipherInit_ex(self->context, NULL, NULL, same ? NULL : key->state, nonce, seal);
	must(ok == 1, "a context with its cipher takes any key and nonce");
	memcpy(self->loaded_key, key->state, KEY_BYTES);
	self->loaded = true;
}

static void context_feed(struct aead_with_openssl *self, const struct aead_text *text)
{
	int done = 0;
	int ok = 1;
	if (text->aad_length)
		ok = EVP_CipherUpdate(self->context, NULL, &done, text->aad, (int)text->aad_length);
	must(ok == 1, "associated data within bounds is taken");
	for (unsigned i = 0; i < text->piece_count; i++) {
		const struct aead_piece *piece = &text->piece[i];
		if (!piece->length)
			continue;
		ok = EVP_CipherUpdate(self->context, piece->out, &done, piece->in,
				      (int)piece->length);
		must(ok == 1 && (size_t)done == piece->length, "a piece within bounds is taken");
	}
}

static void openssl_seal(struct aead *aead, const struct aead_key *key,
			 const struct aead_text *text, uint8_t tag[TAG_BYTES])
{
	struct aead_with_openssl *self = self_of(aead);
	context_start(self, key, text->nonce, true);
	context_feed(self, text);
	uint8_t none[16];
	int done = 0;
	int ok = EVP_EncryptFinal_ex(self->context, none, &done);
	must(ok == 1 && done == 0, "counter mode leaves nothing for the end");
	ok = EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, tag);
	must(ok == 1, "a finished text has its tag");
}

static bool openssl_open(struct aead *aead, const struct aead_key *key,
			 const struct aead_text *text, const uint8_t tag[TAG_BYTES])
{
	struct aead_with_openssl *self = self_of(aead);
	context_start(self, key, text->nonce, false);
	context_feed(self, text);
	uint8_t expected[TAG_BYTES];
	memcpy(expected, tag, TAG_BYTES);
	int ok = EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, expected);
	must(ok == 1, "a tag of full length is taken");
	uint8_t none[16];
	int done = 0;
	/* libcrypto compares by CRYPTO_memcmp and adds nothing to its error queue for a bad tag. */
	return EVP_DecryptFinal_ex(self->context, none, &done) == 1;
}

const struct aead_methods aead_openssl = {
	.name = "openssl",
	.available = openssl_available,
	.new = openssl_new,
	.free = openssl_free,
	.key_init = openssl_key_init,
	.seal = openssl_seal,
	.open = openssl_open,
};
