/* SPDX-License-Identifier: Apache-2.0 */
/* The fast back end: libipsec-mb's direct GCM calls, which use VAES where the CPU has it. A text
 * that lies in one run of memory is one call; others are fed run by run. */
#include "aead_backend.h"

#ifdef CASEMATE_HAVE_IPSECMB

#include "keys.h"

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include <errno.h>

_Static_assert(sizeof(struct gcm_key_data) <= AEAD_KEY_STATE_BYTES,
	       "an expanded key of ipsec-mb fits the state of a key");
_Static_assert(_Alignof(struct gcm_key_data) <= 64, "and its alignment too");

struct aead_with_ipsecmb {
	struct aead aead;
	IMB_MGR *manager;
	/* Here and not on the stack: it ends a call holding key stream, and is wiped with us. */
	struct gcm_context_data context;
};

static struct aead_with_ipsecmb *self_of(struct aead *aead)
{
	return container_of(aead, struct aead_with_ipsecmb, aead);
}

/* Without these instructions the library emulates them, slower than OpenSSL does it. */
static bool ipsecmb_available(void)
{
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

static bool manager_is_sound(const IMB_MGR *manager)
{
	if (imb_get_errno((IMB_MGR *)manager))
		return false;
#ifdef IMB_FEATURE_SELF_TEST
	if ((manager->features & IMB_FEATURE_SELF_TEST) &&
	    !(manager->features & IMB_FEATURE_SELF_TEST_PASS))
		return false;
#endif
	return manager->gcm256_enc && manager->gcm256_dec && manager->gcm256_init;
}

static struct aead *ipsecmb_new(const struct memory *memory)
{
	struct aead_with_ipsecmb *self = memory_take(memory, MEMORY_KEYS, sizeof *self);
	if (!self)
		return NULL;
	self->manager = alloc_mb_mgr(0);
	if (!self->manager)
		goto free_self;
	init_mb_mgr_auto(self->manager, NULL);
	if (!manager_is_sound(self->manager))
		goto free_manager;
	return &self->aead;

free_manager:
	free_mb_mgr(self->manager);
free_self:
	memory_give(memory, MEMORY_KEYS, self, sizeof *self);
	errno = ENOTSUP;
	return NULL;
}

static void ipsecmb_free(struct aead *aead)
{
	struct aead_with_ipsecmb *self = self_of(aead);
	free_mb_mgr(self->manager);
	memory_give(aead->memory, MEMORY_KEYS, self, sizeof *self);
}

static void ipsecmb_key_init(struct aead *aead, struct aead_key *expanded,
			     const uint8_t key[KEY_BYTES])
{
	memset(expanded->state, 0, sizeof expanded->state);
	IMB_AES256_GCM_PRE(self_of(aead)->manager, key, (struct gcm_key_data *)expanded->state);
}

/* The next pieces from *index on that follow each other in memory on both sides, as one. */
static struct aead_piece run_take(const struct aead_text *text, unsigned *index)
{
	struct aead_piece run = {0};
	for (; *index < text->piece_count; ++*index) {
		const struct aead_piece *piece = &text->piece[*index];
		if (!piece->length)
			continue;
		if (!run.length)
			run = *piece;
		else if (piece->in == run.in + run.length && piece->out == run.out + run.length)
			run.length += piece->length;
		else
			break;
	}
	return run;
}

static void text_crypt(struct aead_with_ipsecmb *self, const struct aead_key *key,
		       const struct aead_text *text, bool seal, uint8_t tag[TAG_BYTES])
{
	const IMB_MGR *manager = self->manager;
	const struct gcm_key_data *expanded = (const struct gcm_key_data *)key->state;
	struct gcm_context_data *context = &self->context;
	unsigned index = 0;
	struct aead_piece run = run_take(text, &index);
	if (index == text->piece_count) {
		(seal ? manager->gcm256_enc : manager->gcm256_dec)(
			expanded, context, run.out, run.in, run.length, text->nonce, text->aad,
			text->aad_length, tag, TAG_BYTES);
		return;
	}
	manager->gcm256_init(expanded, context, text->nonce, text->aad, text->aad_length);
	for (; run.length; run = run_take(text, &index))
		(seal ? manager->gcm256_enc_update
		      : manager->gcm256_dec_update)(expanded, context, run.out, run.in, run.length);
	(seal ? manager->gcm256_enc_finalize : manager->gcm256_dec_finalize)(expanded, context, tag,
									     TAG_BYTES);
}

static void ipsecmb_seal(struct aead *aead, const struct aead_key *key,
			 const struct aead_text *text, uint8_t tag[TAG_BYTES])
{
	text_crypt(self_of(aead), key, text, true, tag);
}

static bool ipsecmb_open(struct aead *aead, const struct aead_key *key,
			 const struct aead_text *text, const uint8_t tag[TAG_BYTES])
{
	uint8_t computed[TAG_BYTES];
	text_crypt(self_of(aead), key, text, false, computed);
	bool right = CRYPTO_memcmp(computed, tag, TAG_BYTES) == 0;
	/* The right tag of a text that we refuse is a forgery for whoever finds it. */
	keys_wipe(computed, sizeof computed);
	return right;
}

const struct aead_methods aead_ipsecmb = {
	.name = "ipsecmb",
	.available = ipsecmb_available,
	.new = ipsecmb_new,
	.free = ipsecmb_free,
	.key_init = ipsecmb_key_init,
	.seal = ipsecmb_seal,
	.open = ipsecmb_open,
};

#else

static bool ipsecmb_available(void)
{
	return false;
}

const struct aead_methods aead_ipsecmb = {.name = "ipsecmb", .available = ipsecmb_available};

#endif
