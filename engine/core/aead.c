/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the back end and checks what both rely on, once, before any byte is touched. It also
 * keeps the promise that nothing of a text with a wrong tag stays behind. */
#include "aead.h"

#include "aead_backend.h"
#include "keys.h"

#include <errno.h>

enum { AEAD_KEY_MARK = 0x59454b00 }; /* + back end */

static const struct aead_methods *const backends[AEAD_BACKEND_COUNT] = {
	[AEAD_OPENSSL] = &aead_openssl,
	[AEAD_IPSECMB] = &aead_ipsecmb,
};

static bool backend_known(enum aead_backend backend)
{
	return (unsigned)backend < AEAD_BACKEND_COUNT;
}

bool aead_backend_available(enum aead_backend backend)
{
	return backend_known(backend) && backends[backend]->available();
}

const char *aead_backend_name(enum aead_backend backend)
{
	must(backend_known(backend), "a back end is one of the enum");
	return backends[backend]->name;
}

enum aead_backend aead_backend_best(void)
{
	return aead_backend_available(AEAD_IPSECMB) ? AEAD_IPSECMB : AEAD_OPENSSL;
}

struct aead *aead_new(enum aead_backend backend, const struct memory *memory)
{
	if (!aead_backend_available(backend)) {
		errno = ENOTSUP;
		return NULL;
	}
	struct aead *aead = backends[backend]->new (memory);
	if (aead) {
		aead->methods = backends[backend];
		aead->backend = backend;
		aead->memory = memory;
	}
	return aead;
}

void aead_free(struct aead *aead)
{
	if (aead)
		aead->methods->free(aead);
}

enum aead_backend aead_backend_of(const struct aead *aead)
{
	return aead->backend;
}

void aead_key_init(struct aead *aead, struct aead_key *expanded, const uint8_t key[KEY_BYTES])
{
	aead->methods->key_init(aead, expanded, key);
	expanded->mark = AEAD_KEY_MARK + aead->backend;
}

void aead_key_fini(struct aead_key *expanded)
{
	keys_wipe(expanded, sizeof *expanded);
}

static void call_check(const struct aead *aead, const struct aead_key *key,
		       const struct aead_text *text)
{
	must(key->mark == AEAD_KEY_MARK + aead->backend, "the key is live and of this back end");
	must(text->aad || !text->aad_length, "associated data with a length has a place");
	must(text->aad_length <= AEAD_BYTES_MAX, "associated data fits one call");
	size_t total = 0;
	for (unsigned i = 0; i < text->piece_count; i++) {
		const struct aead_piece *piece = &text->piece[i];
		must(!piece->length || (piece->in && piece->out), "a piece has both places");
		must(i + 1 == text->piece_count || piece->length % 16 == 0,
		     "only the last piece may end inside a cipher block");
		must(piece->length <= AEAD_BYTES_MAX - total, "the text fits one call");
		total += piece->length;
	}
}

void aead_seal(struct aead *aead, const struct aead_key *key, const uint8_t nonce[AEAD_NONCE_BYTES],
	       const void *aad, size_t aad_length, const struct aead_piece *piece,
	       unsigned piece_count, uint8_t tag[TAG_BYTES])
{
	struct aead_text text = {nonce, aad, aad_length, piece, piece_count};
	call_check(aead, key, &text);
	aead->methods->seal(aead, key, &text, tag);
}

int aead_open(struct aead *aead, const struct aead_key *key, const uint8_t nonce[AEAD_NONCE_BYTES],
	      const void *aad, size_t aad_length, const struct aead_piece *piece,
	      unsigned piece_count, const uint8_t tag[TAG_BYTES])
{
	struct aead_text text = {nonce, aad, aad_length, piece, piece_count};
	call_check(aead, key, &text);
	if (aead->methods->open(aead, key, &text, tag))
		return 0;
	for (unsigned i = 0; i < piece_count; i++)
		keys_wipe(piece[i].out, piece[i].length);
	return -EBADMSG;
}
