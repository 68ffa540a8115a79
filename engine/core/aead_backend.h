/* SPDX-License-Identifier: Apache-2.0 */
/* What the dispatch in aead.c and its back ends know of each other. Only they include it. */
#ifndef CASEMATE_CORE_AEAD_BACKEND_H
#define CASEMATE_CORE_AEAD_BACKEND_H

#include "aead.h"

/* The longest text and associated data of one call; far above any block, below INT_MAX. */
enum { AEAD_BYTES_MAX = 1 << 28 };

/* One call's input, checked by the dispatch: lengths within AEAD_BYTES_MAX, no missing pointer
 * where there is a length, pieces but the last whole in 16 bytes. */
struct aead_text {
	const uint8_t *nonce;
	const void *aad;
	size_t aad_length;
	const struct aead_piece *piece;
	unsigned piece_count;
};

struct aead_methods {
	const char *name;
	bool (*available)(void);
	/* gives: a state that begins with a struct aead, in key memory, or NULL with errno */
	struct aead *(*new)(const struct memory *);
	void (*free)(struct aead *);
	void (*key_init)(struct aead *, struct aead_key *, const uint8_t key[KEY_BYTES]);
	void (*seal)(struct aead *, const struct aead_key *, const struct aead_text *,
		     uint8_t tag[TAG_BYTES]);
	/* Whether the tag is right, told in constant time. Outputs are written either way. */
	bool (*open)(struct aead *, const struct aead_key *, const struct aead_text *,
		     const uint8_t tag[TAG_BYTES]);
};

struct aead {
	const struct aead_methods *methods;
	enum aead_backend backend;
	const struct memory *memory;
};

extern const struct aead_methods aead_openssl;
extern const struct aead_methods aead_ipsecmb;

#endif
