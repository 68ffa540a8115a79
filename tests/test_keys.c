/* SPDX-License-Identifier: Apache-2.0 */
/* The key tree: published vectors for HKDF and key wrap, and that keys differ where they must. */
#include "core/keys.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "bytes.h"

/* RFC 5869, appendices A.1 to A.3. */
static const struct {
	const char *ikm, *salt, *info, *okm;
} derivations[] = {
	/* 1 */ {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
		 "f0f1f2f3f4f5f6f7f8f9",
		 "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
		 "34007208d5b887185865"},
	/* 2: inputs longer than a hash block */
	{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
	 "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
	 "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687"
	 "88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
	 "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
	 "d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	 "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
	 "71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
	 "1d87"},
	/* 3: no salt, no info */
	{"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
	 "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
};

static void test_derive_vectors(void **unused)
{
	for (unsigned i = 0; i < ARRAY_COUNT(derivations); i++) {
		uint8_t ikm[128], salt[128], info[128], expected[128], okm[128];
		size_t ikm_length = bytes_from_hex(derivations[i].ikm, ikm, sizeof ikm);
		size_t salt_length = bytes_from_hex(derivations[i].salt, salt, sizeof salt);
		size_t info_length = bytes_from_hex(derivations[i].info, info, sizeof info);
		size_t length = bytes_from_hex(derivations[i].okm, expected, sizeof expected);
		print_message("row %u\n", i + 1);
		memset(okm, 0xee, sizeof okm);
		keys_derive(salt_length ? salt : NULL, salt_length, ikm, ikm_length,
			    info_length ? info : NULL, info_length, okm, length);
		assert_memory_equal(okm, expected, length);
		assert_int_equal(okm[length], 0xee);
	}
}

static void test_derive_edges(void **unused)
{
	static uint8_t long_okm[255 * 32], info[KEYS_INFO_BYTES_MAX];
	uint8_t one[1] = {0xee};
	keys_derive(NULL, 0, NULL, 0, NULL, 0, one, 0);
	assert_int_equal(one[0], 0xee);
	keys_derive(info, sizeof info, "ikm", 3, info, sizeof info, long_okm, sizeof long_okm);
	keys_derive(info, sizeof info, "ikm", 3, info, sizeof info, one, 1);
	assert_int_equal(one[0], long_okm[0]);
	assert_memory_not_equal(long_okm, long_okm + 254 * 32, 32);
}

/* RFC 3394 section 4.6: 256 bits of key data with a 256-bit key-encryption key. */
static const char wrap_kek[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static const char wrap_key[] = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f";
static const char wrap_out[] = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326"
			       "cbc7f0e71a99f43bfb988b9b7a02dd21";

static void test_wrap_vector(void **unused)
{
	uint8_t kek[KEY_BYTES], key[KEY_BYTES], expected[WRAPPED_KEY_BYTES];
	uint8_t wrapped[WRAPPED_KEY_BYTES], back[KEY_BYTES];
	bytes_from_hex(wrap_kek, kek, sizeof kek);
	bytes_from_hex(wrap_key, key, sizeof key);
	bytes_from_hex(wrap_out, expected, sizeof expected);
	keys_wrap(kek, key, wrapped);
	assert_memory_equal(wrapped, expected, sizeof expected);
	assert_int_equal(keys_unwrap(kek, wrapped, back), 0);
	assert_memory_equal(back, key, sizeof key);
}

static void test_unwrap_refuses(void **unused)
{
	uint8_t kek[KEY_BYTES] = {7}, key[KEY_BYTES] = {9}, wrapped[WRAPPED_KEY_BYTES];
	keys_wrap(kek, key, wrapped);
	for (unsigned bit = 0; bit < 8 * (KEY_BYTES + WRAPPED_KEY_BYTES); bit++) {
		uint8_t both[KEY_BYTES + WRAPPED_KEY_BYTES], back[KEY_BYTES];
		memcpy(both, kek, KEY_BYTES);
		memcpy(both + KEY_BYTES, wrapped, WRAPPED_KEY_BYTES);
		both[bit / 8] ^= (uint8_t)(1u << bit % 8);
		memset(back, 0xee, sizeof back);
		assert_int_equal(keys_unwrap(both, both + KEY_BYTES, back), -EKEYREJECTED);
		assert_true(bytes_are_zero(back, sizeof back));
	}
}

static void test_check_value_tells_keys_apart(void **unused)
{
	uint8_t key[KEY_BYTES] = {1}, check[KEY_CHECK_BYTES], other[KEY_CHECK_BYTES];
	keys_check_value(key, check);
	keys_check_value(key, other);
	assert_true(keys_equal(check, other, KEY_CHECK_BYTES));
	key[31] ^= 0x80;
	keys_check_value(key, other);
	assert_false(keys_equal(check, other, KEY_CHECK_BYTES));
}

/* Every key that hangs on one root, pairwise different. */
static void test_tree_has_no_two_equal_keys(void **unused)
{
	enum { COUNT = 8 };
	uint8_t root[KEY_BYTES] = {5}, other_root[KEY_BYTES] = {6}, key[COUNT][KEY_BYTES] = {{0}};
	struct uuid span = {{1}}, other_span = {{1, 2}};
	keys_check_value(root, key[0]);
	keys_span_subkey(root, &span, key[1]);
	keys_span_subkey(root, &other_span, key[2]);
	keys_span_subkey(other_root, &span, key[3]);
	keys_packet_key(root, 0, key[4]);
	keys_packet_key(root, 1, key[5]);
	keys_packet_key(root, 256, key[6]);
	memcpy(key[7], root, KEY_BYTES);
	keys_ratchet(key[7]);
	for (unsigned i = 0; i < COUNT; i++)
		for (unsigned j = 0; j < i; j++)
			assert_memory_not_equal(key[i], key[j], KEY_CHECK_BYTES);
	assert_memory_not_equal(key[7], root, KEY_BYTES);
}

/* Both ends ratchet the same way; these bytes are fixed for ever by the format. */
static void test_labels_are_fixed(void **unused)
{
	static const char seal[] = "casemate seal v1", packet[] = "casemate packet v1\x02\x01";
	uint8_t root[KEY_BYTES] = {5}, key[KEY_BYTES], expected[KEY_BYTES];
	struct uuid span = {{1}};
	keys_span_subkey(root, &span, key);
	keys_derive(span.bytes, UUID_BYTES, root, KEY_BYTES, seal, sizeof seal - 1, expected,
		    KEY_BYTES);
	assert_memory_equal(key, expected, KEY_BYTES);
	keys_packet_key(root, 0x0102, key);
	keys_derive(NULL, 0, root, KEY_BYTES, packet, sizeof packet - 1, expected, KEY_BYTES);
	assert_memory_equal(key, expected, KEY_BYTES);
	keys_derive(NULL, 0, root, KEY_BYTES, "casemate ratchet v1", 19, expected, KEY_BYTES);
	keys_ratchet(root);
	assert_memory_equal(root, expected, KEY_BYTES);
}

static void test_equal_and_wipe(void **unused)
{
	uint8_t a[KEY_BYTES] = {1, 2, 3}, b[KEY_BYTES] = {1, 2, 3};
	assert_true(keys_equal(a, b, sizeof a));
	b[31] = 1;
	assert_false(keys_equal(a, b, sizeof a));
	keys_wipe(a, 2);
	assert_true(bytes_are_zero(a, 2));
	assert_int_equal(a[2], 3);
	keys_wipe(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_derive_vectors),
		cmocka_unit_test(test_derive_edges),
		cmocka_unit_test(test_wrap_vector),
		cmocka_unit_test(test_unwrap_refuses),
		cmocka_unit_test(test_check_value_tells_keys_apart),
		cmocka_unit_test(test_tree_has_no_two_equal_keys),
		cmocka_unit_test(test_labels_are_fixed),
		cmocka_unit_test(test_equal_and_wipe),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
