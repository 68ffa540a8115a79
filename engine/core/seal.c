/* SPDX-License-Identifier: Apache-2.0 */
/* Seals and opens block versions, and answers whether a block is still the one that was sealed.
 * The bytes that a seal binds stand here, in one place; docs/store-format.md "seal" says the same.
 */
#include "seal.h"

#include "keys.h"

#include <errno.h>

/* The associated data: 64 bytes, integers little endian, nothing optional, nothing unsaid. */
enum { SEAL_FORMAT_VERSION = 1 };
enum seal_layout {
	SEAL_FORMAT = 0,      /* u32, SEAL_FORMAT_VERSION */
	SEAL_VOLUME = 4,      /* uuid */
	SEAL_BLOCK = 20,      /* u64 */
	SEAL_SPAN = 28,	      /* uuid, of the identity */
	SEAL_LSN = 44,	      /* u64, of the identity */
	SEAL_GENERATION = 52, /* u32, of the identity */
	SEAL_KIND = 56,	      /* u8, enum record_kind; then 3 zero bytes */
	SEAL_LENGTH = 60,     /* u32, block_bytes */
	SEAL_BYTES = 64,
};
_Static_assert(SEAL_VOLUME == SEAL_FORMAT + 4 && SEAL_BLOCK == SEAL_VOLUME + UUID_BYTES &&
		       SEAL_SPAN == SEAL_BLOCK + 8 && SEAL_LSN == SEAL_SPAN + UUID_BYTES &&
		       SEAL_GENERATION == SEAL_LSN + 8 && SEAL_KIND == SEAL_GENERATION + 4 &&
		       SEAL_LENGTH == SEAL_KIND + 4 && SEAL_BYTES == SEAL_LENGTH + 4,
	       "the fields follow each other without a gap");

/* The nonce: 4 zero bytes, then the lsn of the identity, little endian. */
enum { SEAL_NONCE_LSN = 4 };
_Static_assert(SEAL_NONCE_LSN + sizeof(lsn_t) == AEAD_NONCE_BYTES, "the lsn ends the nonce");

struct seal_input {
	uint8_t nonce[AEAD_NONCE_BYTES];
	uint8_t associated[SEAL_BYTES];
};

static void seal_input_fill(struct seal_input *input, const struct seal_context *context)
{
	const struct seal_identity *identity = &context->identity;
	memset(input, 0, sizeof *input);
	put_u64(input->nonce + SEAL_NONCE_LSN, identity->lsn);
	uint8_t *p = input->associated;
	put_u32(p + SEAL_FORMAT, SEAL_FORMAT_VERSION);
	memcpy(p + SEAL_VOLUME, context->volume.bytes, UUID_BYTES);
	put_u64(p + SEAL_BLOCK, context->block);
	memcpy(p + SEAL_SPAN, identity->span.bytes, UUID_BYTES);
	put_u64(p + SEAL_LSN, identity->lsn);
	put_u32(p + SEAL_GENERATION, identity->generation);
	put_u8(p + SEAL_KIND, context->kind);
	put_u32(p + SEAL_LENGTH, context->block_bytes);
}

static size_t text_bytes(const struct seal_context *context)
{
	return record_kind_has_payload(context->kind) ? context->block_bytes : 0;
}

static bool pieces_fit(const struct seal_context *context, const struct aead_piece *piece,
		       unsigned piece_count)
{
	size_t total = 0;
	for (unsigned i = 0; i < piece_count; i++)
		total += piece[i].length;
	return total == text_bytes(context);
}

void seal_block(struct aead *aead, const struct aead_key *subkey,
		const struct seal_context *context, const struct aead_piece *piece,
		unsigned piece_count, uint8_t tag[TAG_BYTES])
{
	must(context->identity.lsn, "an lsn of 0 is never drawn");
	must(pieces_fit(context, piece, piece_count), "a seal covers a block, or an empty text");
	struct seal_input input;
	seal_input_fill(&input, context);
	aead_seal(aead, subkey, input.nonce, input.associated, SEAL_BYTES, piece, piece_count, tag);
}

int seal_open(struct aead *aead, const struct aead_key *subkey, const struct seal_context *context,
	      const struct aead_piece *piece, unsigned piece_count, const uint8_t tag[TAG_BYTES])
{
	must(pieces_fit(context, piece, piece_count), "a seal covers a block, or an empty text");
	struct seal_input input;
	seal_input_fill(&input, context);
	return aead_open(aead, subkey, input.nonce, input.associated, SEAL_BYTES, piece,
			 piece_count, tag);
}

/* The block may differ from the one that was sealed, so what is computed here is a second text
 * under a used nonce: neither it nor its tag may be seen by anyone. It goes tile by tile through
 * the first bytes of scratch, which keeps it in the nearest cache and little to wipe. */
enum { TILE_BYTES = 8 * 1024, TILES_MAX = BLOCK_BYTES_MAX / TILE_BYTES };

static unsigned tiles_cut(const uint8_t *plaintext, size_t length, uint8_t *scratch,
			  struct aead_piece tile[TILES_MAX])
{
	unsigned count = 0;
	for (size_t at = 0; at < length; at += TILE_BYTES)
		tile[count++] = (struct aead_piece){plaintext + at, scratch,
						    min_u64(TILE_BYTES, length - at)};
	return count;
}

bool seal_matches(struct aead *aead, const struct aead_key *subkey,
		  const struct seal_context *context, const uint8_t *plaintext,
		  const uint8_t tag[TAG_BYTES], uint8_t *scratch)
{
	size_t length = text_bytes(context);
	must(length <= BLOCK_BYTES_MAX, "a block is at most 256 KiB");
	struct aead_piece tile[TILES_MAX];
	uint8_t computed[TAG_BYTES];
	unsigned count = tiles_cut(plaintext, length, scratch, tile);
	seal_block(aead, subkey, context, tile, count, computed);
	bool matches = keys_equal(computed, tag, TAG_BYTES);
	keys_wipe(computed, sizeof computed);
	keys_wipe(scratch, min_u64(TILE_BYTES, length));
	return matches;
}

void seal_cache_init(struct seal_cache *cache, struct aead *aead)
{
	memset(cache, 0, sizeof *cache);
	cache->aead = aead;
}

void seal_cache_fini(struct seal_cache *cache)
{
	keys_wipe(cache, sizeof *cache);
}

static void cache_fill(struct seal_cache *cache, struct seal_cache_entry *entry,
		       const uint8_t volume_key[KEY_BYTES])
{
	uint8_t subkey[KEY_BYTES];
	keys_span_subkey(volume_key, &entry->span, subkey);
	aead_key_init(cache->aead, &entry->subkey, subkey);
	keys_wipe(subkey, sizeof subkey);
}

const struct aead_key *seal_cache_take(struct seal_cache *cache, uint8_t volume,
				       const uint8_t volume_key[KEY_BYTES], const struct uuid *span)
{
	struct seal_cache_entry *oldest = &cache->entry[0];
	cache->turn++;
	for (unsigned i = 0; i < SEAL_CACHE_COUNT; i++) {
		struct seal_cache_entry *entry = &cache->entry[i];
		if (entry->used && entry->volume == volume && uuid_equal(&entry->span, span)) {
			entry->used = cache->turn;
			return &entry->subkey;
		}
		if (entry->used < oldest->used)
			oldest = entry;
	}
	keys_wipe(oldest, sizeof *oldest);
	oldest->span = *span;
	oldest->volume = volume;
	oldest->used = cache->turn;
	cache_fill(cache, oldest, volume_key);
	return &oldest->subkey;
}
