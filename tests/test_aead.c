/* SPDX-License-Identifier: Apache-2.0 */
/* AES-256-GCM: published vectors on each back end, equality of the back ends over random shapes,
 * and refusal of everything that was changed. */
#include "core/aead.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bytes.h"
#include "child.h"

enum { TEXT_MAX = 80 * 1024, AAD_MAX = 10 * 1024, PIECES_MAX = 12 };

/* Counts what libcrypto allocates, to show that the data path allocates nothing. */
static unsigned long allocations;

static void *counted_malloc(size_t bytes, const char *file, int line)
{
	allocations++;
	return malloc(bytes);
}
static void *counted_realloc(void *memory, size_t bytes, const char *file, int line)
{
	allocations++;
	return realloc(memory, bytes);
}
static void counted_free(void *memory, const char *file, int line)
{
	free(memory);
}

static struct aead *state[AEAD_BACKEND_COUNT]; /* NULL where the machine lacks it */

static int states_make(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		state[b] = aead_new(b, NULL);
		if (!state[b] != !aead_backend_available(b))
			return -1;
	}
	return state[AEAD_OPENSSL] ? 0 : -1;
}

static int states_free(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		aead_free(state[b]);
	return 0;
}

/* Rows 1-4: McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13-16; row 5:
 * NIST CAVP gcmEncryptExtIV256, associated data alone. */
static const struct {
	const char *key, *nonce, *aad, *text, *sealed, *tag;
} vectors[] = {
	/* 1: nothing at all */
	{"0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	/* 2: one block */
	{"0000000000000000000000000000000000000000000000000000000000000000",
	 "000000000000000000000000", "", "00000000000000000000000000000000",
	 "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
	/* 3: four blocks */
	{"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
	 "b094dac5d93471bdec1a502270e3cc6c"},
	/* 4: associated data, and a text that ends inside a block */
	{"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	 "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	 "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
	 "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
	 "76fc6ece0f4e1768cddf8853bb2d551b"},
	/* 5: associated data alone */
	{"78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223",
	 "d79cf22d504cc793c3fb6c8a", "b96baa8c1c75a671bfb2d08d06be5f36", "", "",
	 "3e5d486aa2e30b22e040b85723a06e76"},
};

static void vector_check(struct aead *aead, unsigned i)
{
	uint8_t key[KEY_BYTES], nonce[AEAD_NONCE_BYTES], aad[64], text[64], sealed[64];
	uint8_t expected_tag[TAG_BYTES], tag[TAG_BYTES], out[64];
	struct aead_key expanded;
	bytes_from_hex(vectors[i].key, key, sizeof key);
	bytes_from_hex(vectors[i].nonce, nonce, sizeof nonce);
	bytes_from_hex(vectors[i].tag, expected_tag, sizeof expected_tag);
	size_t aad_length = bytes_from_hex(vectors[i].aad, aad, sizeof aad);
	size_t length = bytes_from_hex(vectors[i].text, text, sizeof text);
	assert_int_equal(length, bytes_from_hex(vectors[i].sealed, sealed, sizeof sealed));

	aead_key_init(aead, &expanded, key);
	struct aead_piece piece = {text, out, length};
	aead_seal(aead, &expanded, nonce, aad, aad_length, &piece, 1, tag);
	assert_memory_equal(out, sealed, length);
	assert_memory_equal(tag, expected_tag, TAG_BYTES);
	piece = (struct aead_piece){sealed, out, length};
	assert_int_equal(aead_open(aead, &expanded, nonce, aad, aad_length, &piece, 1, tag), 0);
	assert_memory_equal(out, text, length);
	aead_key_fini(&expanded);
	assert_true(bytes_are_zero(&expanded, sizeof expanded));
}

/* A back end that is missing is skipped here, and said; the tests after these pass it over. */
static void vectors_check(enum aead_backend backend)
{
	if (!state[backend]) {
		print_message("skipped: back end %s: not built in, or not for this CPU\n",
			      aead_backend_name(backend));
		skip();
	}
	for (unsigned i = 0; i < ARRAY_COUNT(vectors); i++) {
		print_message("%s, row %u\n", aead_backend_name(backend), i + 1);
		vector_check(state[backend], i);
	}
}

static void test_vectors_of_openssl(void **unused)
{
	vectors_check(AEAD_OPENSSL);
}

static void test_vectors_of_ipsecmb(void **unused)
{
	vectors_check(AEAD_IPSECMB);
}

/* One random call: the same bytes are given to each back end in its own buffers. */
struct shape {
	uint8_t key[KEY_BYTES], nonce[AEAD_NONCE_BYTES];
	size_t aad_length, length;
	size_t cut[PIECES_MAX];
	unsigned piece_count;
	bool in_place, joined; /* joined: the outputs follow each other in memory */
};
static uint8_t aad[AAD_MAX], text[TEXT_MAX];
static uint8_t out[AEAD_BACKEND_COUNT][TEXT_MAX + PIECES_MAX * 64];

static size_t random_length(uint64_t *seed, size_t max)
{
	static const size_t interesting[] = {0, 1, 15, 16, 17, 32, 96, 255, 256, 257, 4096, 8192};
	uint64_t choice = bytes_next(seed);
	if (choice % 3 == 0)
		return interesting[(choice >> 8) % ARRAY_COUNT(interesting)];
	return (choice >> 8) % (choice % 3 == 1 ? 1024 : max + 1);
}

static void shape_draw(struct shape *shape, uint64_t *seed)
{
	bytes_random(seed, shape->key, sizeof shape->key);
	bytes_random(seed, shape->nonce, sizeof shape->nonce);
	shape->aad_length = random_length(seed, AAD_MAX);
	size_t left = shape->length = random_length(seed, TEXT_MAX);
	shape->piece_count = (unsigned)(bytes_next(seed) % (PIECES_MAX + 1));
	if (!shape->piece_count)
		shape->length = left = 0;
	for (unsigned i = 0; i < shape->piece_count; i++) {
		size_t cut = (size_t)(bytes_next(seed) % (left + 1)) / 16 * 16;
		shape->cut[i] = i + 1 == shape->piece_count ? left : cut;
		left -= shape->cut[i];
	}
	shape->in_place = bytes_next(seed) % 2;
	shape->joined = bytes_next(seed) % 2;
}

/* Lays the pieces over in -> out; with gaps of 64 bytes between the outputs unless joined. */
static void pieces_lay(const struct shape *shape, const uint8_t *in, uint8_t *to,
		       struct aead_piece piece[PIECES_MAX])
{
	size_t at = 0, gap = 0;
	for (unsigned i = 0; i < shape->piece_count; i++) {
		uint8_t *place = to + at + gap;
		if (shape->in_place)
			memcpy(place, in + at, shape->cut[i]);
		piece[i] = (struct aead_piece){shape->in_place ? place : in + at, place,
					       shape->cut[i]};
		at += shape->cut[i];
		gap += shape->joined ? 0 : 64;
	}
}

static void shape_check(const struct shape *shape)
{
	uint8_t tag[AEAD_BACKEND_COUNT][TAG_BYTES];
	struct aead_key key;
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		if (!state[b])
			continue;
		struct aead_piece piece[PIECES_MAX];
		memset(out[b], 0xee, sizeof out[b]);
		aead_key_init(state[b], &key, shape->key);
		pieces_lay(shape, text, out[b], piece);
		aead_seal(state[b], &key, shape->nonce, shape->aad_length ? aad : NULL,
			  shape->aad_length, piece, shape->piece_count, tag[b]);
		assert_memory_equal(tag[b], tag[AEAD_OPENSSL], TAG_BYTES);
		/* the gaps too: nothing is written beside the pieces */
		assert_memory_equal(out[b], out[AEAD_OPENSSL], sizeof out[b]);
	}
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		if (!state[b])
			continue;
		struct aead_piece piece[PIECES_MAX];
		aead_key_init(state[b], &key, shape->key);
		pieces_lay(shape, text, out[b], piece);
		aead_seal(state[b], &key, shape->nonce, aad, shape->aad_length, piece,
			  shape->piece_count, tag[b]);
		for (unsigned i = 0; i < shape->piece_count; i++)
			piece[i].in = piece[i].out;
		assert_int_equal(aead_open(state[b], &key, shape->nonce, aad, shape->aad_length,
					   piece, shape->piece_count, tag[b]),
				 0);
		size_t at = 0;
		for (unsigned i = 0; i < shape->piece_count; at += shape->cut[i++])
			assert_memory_equal(piece[i].out, text + at, shape->cut[i]);
	}
	aead_key_fini(&key);
}

static void test_backends_agree(void **unused)
{
	uint64_t seed = 0x5eed0001;
	bytes_random(&seed, aad, sizeof aad);
	bytes_random(&seed, text, sizeof text);
	for (unsigned round = 0; round < 1500; round++) {
		struct shape shape;
		shape_draw(&shape, &seed);
		shape_check(&shape);
	}
}

/* What an attacker, a bad disk or a bug may do to a sealed text. */
enum change {
	CHANGE_NOTHING,
	CHANGE_TAG,
	CHANGE_NONCE,
	CHANGE_AAD,
	CHANGE_AAD_SHORTER,
	CHANGE_TEXT,
	CHANGE_TEXT_SHORTER,
	CHANGE_KEY,
	CHANGE_AAD_INTO_TEXT,
	CHANGE_COUNT
};

static void change_check(struct aead *aead, enum change change, unsigned bit)
{
	enum { AAD = 48, TEXT = 80 };
	uint8_t key[KEY_BYTES] = {1}, nonce[AEAD_NONCE_BYTES] = {2}, tag[TAG_BYTES];
	uint8_t bytes[AAD + TEXT], opened[2][64];
	size_t aad_length = AAD, length = TEXT;
	struct aead_key expanded;
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)i;
	aead_key_init(aead, &expanded, key);
	struct aead_piece whole = {bytes + AAD, bytes + AAD, TEXT};
	aead_seal(aead, &expanded, nonce, bytes, AAD, &whole, 1, tag);

	uint8_t flip = (uint8_t)(1u << bit % 8);
	tag[bit / 8 % TAG_BYTES] ^= change == CHANGE_TAG ? flip : 0;
	nonce[bit / 8 % AEAD_NONCE_BYTES] ^= change == CHANGE_NONCE ? flip : 0;
	bytes[bit / 8 % AAD] ^= change == CHANGE_AAD ? flip : 0;
	bytes[AAD + bit / 8 % TEXT] ^= change == CHANGE_TEXT ? flip : 0;
	key[bit / 8 % KEY_BYTES] ^= change == CHANGE_KEY ? flip : 0;
	aad_length -= change == CHANGE_AAD_SHORTER ? 1 + bit % AAD : 0;
	length -= change == CHANGE_TEXT_SHORTER ? 1 + bit % 16 : 0;
	size_t moved = change == CHANGE_AAD_INTO_TEXT ? 16 : 0;
	aead_key_init(aead, &expanded, key);

	memset(opened, 0xee, sizeof opened);
	struct aead_piece piece[] = {{bytes + AAD - moved, opened[0], 64},
				     {bytes + AAD - moved + 64, opened[1], length - 64 + moved}};
	int result = aead_open(aead, &expanded, nonce, bytes, aad_length - moved, piece, 2, tag);
	assert_int_equal(result, change == CHANGE_NOTHING ? 0 : -EBADMSG);
	assert_int_equal(bytes_are_zero(opened[0], piece[0].length), change != CHANGE_NOTHING);
	assert_int_equal(bytes_are_zero(opened[1], piece[1].length), change != CHANGE_NOTHING);
	assert_int_equal(opened[1][piece[1].length], 0xee);
	/* A stream of forgeries must not fill libcrypto's error queue. */
	assert_int_equal(ERR_peek_error(), 0);
	aead_key_fini(&expanded);
}

static void test_changes_are_refused(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++)
		for (enum change c = 0; state[b] && c < CHANGE_COUNT; c++)
			for (unsigned bit = 0; bit < 80 * 8; bit++)
				change_check(state[b], c, bit);
}

/* The back end keeps one key loaded: calls that take turns must not meet the wrong one. */
static void test_keys_take_turns(void **unused)
{
	for (unsigned b = 0; b < AEAD_BACKEND_COUNT; b++) {
		if (!state[b])
			continue;
		struct aead *second = aead_new(b, NULL);
		struct aead_key key[2], copy;
		uint8_t nonce[AEAD_NONCE_BYTES] = {0}, tag[2][TAG_BYTES], again[TAG_BYTES];
		for (uint8_t i = 0; i < 2; i++) {
			uint8_t raw[KEY_BYTES] = {i};
			aead_key_init(state[b], &key[i], raw);
			aead_seal(state[b], &key[i], nonce, "aad", 3, NULL, 0, tag[i]);
		}
		assert_memory_not_equal(tag[0], tag[1], TAG_BYTES);
		for (unsigned i = 0; i < 6; i++) {
			copy = key[i % 2];
			aead_seal(i % 3 ? state[b] : second, &copy, nonce, "aad", 3, NULL, 0,
				  again);
			assert_memory_equal(again, tag[i % 2], TAG_BYTES);
			assert_int_equal(
				aead_open(state[b], &copy, nonce, "aad", 3, NULL, 0, tag[!(i % 2)]),
				-EBADMSG);
		}
		aead_free(second);
	}
}

static void test_data_path_allocates_nothing(void **unused)
{
	assert_true(allocations > 0); /* the counter counts */
	struct aead_key key[2];
	uint8_t nonce[AEAD_NONCE_BYTES] = {0}, tag[TAG_BYTES];
	struct aead_piece piece = {text, out[0], 4096};
	unsigned long before = allocations;
	for (unsigned i = 0; i < 100; i++) {
		uint8_t raw[KEY_BYTES] = {(uint8_t)i};
		aead_key_init(state[AEAD_OPENSSL], &key[i % 2], raw);
		aead_seal(state[AEAD_OPENSSL], &key[i % 2], nonce, aad, 64, &piece, 1, tag);
		tag[0] ^= i % 2;
		struct aead_piece back = {out[0], out[1], 4096};
		int result =
			aead_open(state[AEAD_OPENSSL], &key[i % 2], nonce, aad, 64, &back, 1, tag);
		assert_int_equal(result, i % 2 ? -EBADMSG : 0);
	}
	assert_int_equal(allocations, before);
}

static void seal_with_key(bool wiped, size_t first_length)
{
	struct aead_key key;
	uint8_t raw[KEY_BYTES] = {0}, nonce[AEAD_NONCE_BYTES] = {0}, tag[TAG_BYTES];
	struct aead_piece piece[] = {{text, out[0], first_length}, {text + 32, out[0] + 32, 16}};
	aead_key_init(state[AEAD_OPENSSL], &key, raw);
	if (wiped)
		aead_key_fini(&key);
	aead_seal(state[AEAD_OPENSSL], &key, nonce, NULL, 0, piece, 2, tag);
}
static void seal_rightly(void)
{
	seal_with_key(false, 32);
}
static void seal_with_wiped_key(void)
{
	seal_with_key(true, 32);
}
static void seal_ragged_pieces(void)
{
	seal_with_key(false, 31);
}

static void test_our_own_mistakes_stop_us(void **unused)
{
	assert_false(child_stops(seal_rightly));
	assert_true(child_stops(seal_with_wiped_key));
	assert_true(child_stops(seal_ragged_pieces));
}

static void test_names_and_choice(void **unused)
{
	assert_true(aead_backend_available(AEAD_OPENSSL));
	assert_false(aead_backend_available(AEAD_BACKEND_COUNT));
	assert_null(aead_new(AEAD_BACKEND_COUNT, NULL));
	assert_true(aead_backend_available(aead_backend_best()));
	assert_string_equal(aead_backend_name(AEAD_OPENSSL), "openssl");
	assert_string_equal(aead_backend_name(AEAD_IPSECMB), "ipsecmb");
	assert_int_equal(aead_backend_of(state[AEAD_OPENSSL]), AEAD_OPENSSL);
}

int main(void)
{
	if (!CRYPTO_set_mem_functions(counted_malloc, counted_realloc, counted_free))
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_choice),
		cmocka_unit_test(test_vectors_of_openssl),
		cmocka_unit_test(test_vectors_of_ipsecmb),
		cmocka_unit_test(test_backends_agree),
		cmocka_unit_test(test_changes_are_refused),
		cmocka_unit_test(test_keys_take_turns),
		cmocka_unit_test(test_data_path_allocates_nothing),
		cmocka_unit_test(test_our_own_mistakes_stop_us),
	};
	return cmocka_run_group_tests(tests, states_make, states_free);
}
