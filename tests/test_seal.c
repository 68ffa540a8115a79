/* SPDX-License-Identifier: Apache-2.0 */
/* The seal: its bytes as docs/store-format.md says them, each field of the associated data missed
 * when it changes, the answer of seal_matches, and the cache of subkeys. */
#include "core/keys.h"
#include "core/seal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "bytes.h"

static struct aead *state[AEAD_BACKEND_COUNT];
static uint8_t block[BLOCK_BYTES_MAX], sealed[BLOCK_BYTES_MAX], opened[BLOCK_BYTES_MAX];
static const uint8_t volume_key[KEY_BYTES] = {0x11, 0x22};

static int states_make(void **unused)
{
	uint64_t seed = 0x5eed0002;
	bytes_random(&seed, block, sizeof block);
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		state[b] = aead_new(b, NULL);
	return state[AEAD_OPENSSL] ? 0 : -1;
}

static int states_free(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		aead_free(state[b]);
	return 0;
}

static struct seal_context context_make(uint32_t block_bytes)
{
	struct seal_context context = {
		.identity = {.span = {{0xa0, 0xa1}}, .lsn = 0x0102030405060708, .generation = 3},
		.volume = {{0xb0, 0xb1}},
		.block = 0x1112131415161718,
		.block_bytes = block_bytes,
		.kind = RECORD_DATA,
	};
	return context;
}

static void subkey_make(struct aead *aead, const struct seal_context *context, struct aead_key *key)
{
	uint8_t raw[KEY_BYTES];
	keys_span_subkey(volume_key, &context->identity.span, raw);
	aead_key_init(aead, key, raw);
}

/* The same text by hand, byte for byte as the document says, opened by plain AES-256-GCM. */
static void test_layout_is_the_documented_one(void **unused)
{
	static const uint8_t nonce[] = {0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1};
	static const uint8_t associated[64] = {
		1,    0,    0,	  0,				/* format */
		0xb0, 0xb1, 0,	  0,	0,    0,    0,	  0,	/* volume */
		0,    0,    0,	  0,	0,    0,    0,	  0,	/* */
		0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* block */
		0xa0, 0xa1, 0,	  0,	0,    0,    0,	  0,	/* span */
		0,    0,    0,	  0,	0,    0,    0,	  0,	/* */
		8,    7,    6,	  5,	4,    3,    2,	  1,	/* lsn */
		3,    0,    0,	  0,				/* generation */
		1,    0,    0,	  0,				/* kind */
		0,    0x10, 0,	  0,				/* block_bytes */
	};
	struct seal_context context = context_make(4096);
	struct aead_key key;
	uint8_t tag[TAG_BYTES];
	subkey_make(state[0], &context, &key);
	struct aead_piece piece = {block, sealed, 4096};
	seal_block(state[0], &key, &context, &piece, 1, tag);
	piece = (struct aead_piece){sealed, opened, 4096};
	assert_int_equal(aead_open(state[0], &key, nonce, associated, 64, &piece, 1, tag), 0);
	assert_memory_equal(opened, block, 4096);
	aead_key_fini(&key);
}

/* Each row changes one thing that the seal binds; nothing of it may open. */
static const struct {
	const char *what;
	size_t at, length;
} fields[] = {
#define FIELD(member)                                                                              \
	{                                                                                          \
#member, offsetof(struct seal_context, member),                                    \
			sizeof(((struct seal_context *)0)->member)                                 \
	}
	/* 1 */ FIELD(identity.span),
	/* 2 */ FIELD(identity.lsn),
	/* 3 */ FIELD(identity.generation),
	/* 4 */ FIELD(volume),
	/* 5 */ FIELD(block),
/* 6: a kind without payload, see below; data cannot be given as one (asserted) */
/* 7: block_bytes, see below */
#undef FIELD
};

static void test_each_field_is_bound(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		for (unsigned i = 0; state[b] && i < ARRAY_COUNT(fields); i++)
			for (unsigned bit = 0; bit < 8 * fields[i].length; bit++) {
				struct seal_context context = context_make(4096);
				struct aead_key key;
				uint8_t tag[TAG_BYTES];
				subkey_make(state[b], &context, &key);
				struct aead_piece piece = {block, sealed, 4096};
				seal_block(state[b], &key, &context, &piece, 1, tag);
				((uint8_t *)&context)[fields[i].at + bit / 8] ^=
					(uint8_t)(1u << bit % 8);
				/* the same subkey, so that the associated data alone tells */
				piece = (struct aead_piece){sealed, opened, 4096};
				int result = seal_open(state[b], &key, &context, &piece, 1, tag);
				if (result != -EBADMSG)
					fail_msg("%s does not matter", fields[i].what);
				assert_true(bytes_are_zero(opened, 4096));
			}
}

/* Records without payload differ in nothing but the associated data. */
static void test_kind_and_length_are_bound(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		if (!state[b])
			continue;
		struct seal_context context = context_make(65536);
		struct aead_key key;
		uint8_t tag[TAG_BYTES];
		context.kind = RECORD_ZERO;
		subkey_make(state[b], &context, &key);
		seal_block(state[b], &key, &context, NULL, 0, tag);
		assert_int_equal(seal_open(state[b], &key, &context, NULL, 0, tag), 0);
		for (unsigned kind = 0; kind < 256; kind++) {
			context.kind = (uint8_t)kind;
			if (kind != RECORD_DATA && kind != RECORD_ZERO)
				assert_int_equal(seal_open(state[b], &key, &context, NULL, 0, tag),
						 -EBADMSG);
		}
		context.kind = RECORD_ZERO;
		for (unsigned bit = 0; bit < 32; bit++) {
			context.block_bytes = 65536 ^ (1u << bit);
			assert_int_equal(seal_open(state[b], &key, &context, NULL, 0, tag),
					 -EBADMSG);
		}
		/* an empty data text is not the same as a zero record */
		context.kind = RECORD_DATA;
		context.block_bytes = 0;
		assert_int_equal(seal_open(state[b], &key, &context, NULL, 0, tag), -EBADMSG);
		aead_key_fini(&key);
	}
}

/* Straight into k columns, wherever they lie: the same text as in one piece. */
static void test_columns_make_one_text(void **unused)
{
	enum { K = 8, SHARD = 8192, STRIDE = SHARD + 192 };
	static uint8_t column[K * STRIDE];
	uint8_t expected_tag[TAG_BYTES], tag[TAG_BYTES];
	struct seal_context context = context_make(K * SHARD);
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		if (!state[b])
			continue;
		struct aead_key key;
		struct aead_piece whole = {block, sealed, K * SHARD}, piece[K];
		subkey_make(state[b], &context, &key);
		seal_block(state[b], &key, &context, &whole, 1, expected_tag);
		for (unsigned i = 0; i < K; i++)
			piece[i] =
				(struct aead_piece){block + i * SHARD, column + i * STRIDE, SHARD};
		seal_block(state[b], &key, &context, piece, K, tag);
		assert_memory_equal(tag, expected_tag, TAG_BYTES);
		for (unsigned i = 0; i < K; i++) {
			assert_memory_equal(piece[i].out, sealed + i * SHARD, SHARD);
			piece[i] = (struct aead_piece){piece[i].out, opened + i * SHARD, SHARD};
		}
		assert_int_equal(seal_open(state[b], &key, &context, piece, K, tag), 0);
		assert_memory_equal(opened, block, K * SHARD);
		aead_key_fini(&key);
	}
}

static void matches_check(struct aead *aead, uint32_t block_bytes)
{
	static uint8_t copy[BLOCK_BYTES_MAX], scratch[BLOCK_BYTES_MAX];
	struct seal_context context = context_make(block_bytes);
	struct aead_key key;
	uint8_t tag[TAG_BYTES];
	subkey_make(aead, &context, &key);
	struct aead_piece piece = {block, sealed, block_bytes};
	seal_block(aead, &key, &context, &piece, 1, tag);
	memcpy(copy, block, block_bytes);
	memset(scratch, 0, sizeof scratch);

	assert_true(seal_matches(aead, &key, &context, copy, tag, scratch));
	assert_true(bytes_are_zero(scratch, sizeof scratch));
	copy[block_bytes - 1] ^= 1;
	assert_false(seal_matches(aead, &key, &context, copy, tag, scratch));
	assert_true(bytes_are_zero(scratch, sizeof scratch));
	copy[block_bytes - 1] ^= 1;
	tag[15] ^= 1;
	assert_false(seal_matches(aead, &key, &context, copy, tag, scratch));
	tag[15] ^= 1;
	context.identity.lsn++;
	assert_false(seal_matches(aead, &key, &context, copy, tag, scratch));
	assert_memory_equal(copy, block, block_bytes);
	aead_key_fini(&key);
}

static void test_matches(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		for (uint32_t bytes = BLOCK_BYTES_MIN; state[b] && bytes <= BLOCK_BYTES_MAX;
		     bytes *= 2)
			matches_check(state[b], bytes);
}

static void test_matches_without_payload(void **unused)
{
	struct seal_context context = context_make(4096);
	struct aead_key key;
	uint8_t tag[TAG_BYTES];
	context.kind = RECORD_DISCARD;
	subkey_make(state[0], &context, &key);
	seal_block(state[0], &key, &context, NULL, 0, tag);
	assert_true(seal_matches(state[0], &key, &context, NULL, tag, NULL));
	context.kind = RECORD_ZERO;
	assert_false(seal_matches(state[0], &key, &context, NULL, tag, NULL));
	aead_key_fini(&key);
}

static struct uuid span_numbered(unsigned i)
{
	struct uuid span = {{(uint8_t)i, (uint8_t)(i >> 8), 0x5a}};
	return span;
}

/* Whether the raw subkey of this span lies anywhere in the cache: both back ends keep it in clear
 * at the start of what they expand. */
static bool cache_holds(const struct seal_cache *cache, unsigned i)
{
	uint8_t raw[KEY_BYTES];
	struct uuid span = span_numbered(i);
	keys_span_subkey(volume_key, &span, raw);
	return memmem(cache, sizeof *cache, raw, sizeof raw) != NULL;
}

static void cache_check(struct aead *aead)
{
	static struct seal_cache cache;
	seal_cache_init(&cache, aead);
	for (unsigned i = 0; i < SEAL_CACHE_COUNT; i++) {
		struct uuid span = span_numbered(i);
		seal_cache_take(&cache, 0, volume_key, &span);
	}
	struct uuid first = span_numbered(0), more = span_numbered(100);
	const struct aead_key *kept = seal_cache_take(&cache, 0, volume_key, &first);
	assert_true(cache_holds(&cache, 1));
	/* 1 is now the least recently used: it makes room for 100, and leaves nothing behind */
	const struct aead_key *fresh = seal_cache_take(&cache, 0, volume_key, &more);
	assert_false(cache_holds(&cache, 1));
	for (unsigned i = 0; i < SEAL_CACHE_COUNT; i++)
		assert_int_equal(cache_holds(&cache, i), i != 1);
	assert_ptr_equal(kept, seal_cache_take(&cache, 0, volume_key, &first));
	assert_ptr_equal(fresh, seal_cache_take(&cache, 0, volume_key, &more));
	/* another volume of the group has another key for the same span */
	uint8_t other_key[KEY_BYTES] = {9};
	assert_ptr_not_equal(fresh, seal_cache_take(&cache, 1, other_key, &more));
	seal_cache_fini(&cache);
	assert_true(bytes_are_zero(&cache, sizeof cache));
}

static void test_cache(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		if (state[b])
			cache_check(state[b]);
}

static void test_cache_gives_the_subkey(void **unused)
{
	static struct seal_cache cache;
	struct seal_context context = context_make(4096);
	struct aead_key key;
	uint8_t tag[TAG_BYTES];
	seal_cache_init(&cache, state[0]);
	subkey_make(state[0], &context, &key);
	context.kind = RECORD_MARK;
	seal_block(state[0], &key, &context, NULL, 0, tag);
	for (unsigned turn = 0; turn < 3 * SEAL_CACHE_COUNT; turn++) {
		struct uuid other = span_numbered(turn);
		const struct aead_key *wrong = seal_cache_take(&cache, 0, volume_key, &other);
		assert_int_equal(seal_open(state[0], wrong, &context, NULL, 0, tag), -EBADMSG);
		const struct aead_key *right =
			seal_cache_take(&cache, 0, volume_key, &context.identity.span);
		assert_int_equal(seal_open(state[0], right, &context, NULL, 0, tag), 0);
	}
	seal_cache_fini(&cache);
	aead_key_fini(&key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_is_the_documented_one),
		cmocka_unit_test(test_each_field_is_bound),
		cmocka_unit_test(test_kind_and_length_are_bound),
		cmocka_unit_test(test_columns_make_one_text),
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_matches_without_payload),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_cache_gives_the_subkey),
	};
	return cmocka_run_group_tests(tests, states_make, states_free);
}
