#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/prf.h"
#include "tests/vectors/hex.h"
#include "tests/vectors/hmac.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
test_hmac_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(hmac_vectors); i++) {
		const struct alg *alg = alg_get(hmac_vectors[i].prf);
		const struct alg *integ = alg_integ_of_prf(alg);
		struct octets key = unhex(hmac_vectors[i].key);
		struct octets text = unhex(hmac_vectors[i].text);
		struct octets want = unhex(hmac_vectors[i].out);
		struct view whole = octets_view(&text);
		struct view parts[3];
		uint8_t out[PRF_MAX];

		print_message("%s\n", hmac_vectors[i].source);
		assert_int_equal(want.len, alg->out);
		assert_int_equal(
		    prf(alg, octets_view(&key), &whole, 1, out), OK);
		assert_memory_equal(out, want.at, want.len);

		/* The same octets in parts, one of them empty. */
		parts[0] = view_of(text.at, 3);
		parts[1] = view_of(NULL, 0);
		parts[2] = view_of(text.at + 3, text.len - 3);
		memset(out, 0, sizeof(out));
		assert_int_equal(
		    prf(alg, octets_view(&key), parts, 3, out), OK);
		assert_memory_equal(out, want.at, want.len);

		/* Truncated, and not an octet more is written. */
		memset(out, 0x5a, sizeof(out));
		assert_int_equal(
		    prf_mac(integ, octets_view(&key), &whole, 1, out), OK);
		assert_memory_equal(out, want.at, integ->icv);
		assert_int_equal(out[integ->icv], 0x5a);
	}
}

static void
test_digests(void **state)
{
	static const struct {
		enum alg_id prf;
		const char *empty, *abc;
	} rows[] = {
		{ ALG_PRF_SHA1, "da39a3ee5e6b4b0d3255bfef95601890afd80709",
		    "a9993e364706816aba3e25717850c26c9cd0d89d" },
		{ ALG_PRF_SHA256,
		    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b"
		    "7852b855",
		    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61"
		    "f20015ad" },
		{ ALG_PRF_SHA384,
		    "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf"
		    "63f6e1da274edebfe76f65fbd51ad2f14898b95b",
		    "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a"
		    "43ff5bed8086072ba1e7cc2358baeca134c825a7" },
		{ ALG_PRF_SHA512,
		    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921"
		    "d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81"
		    "a538327af927da3e",
		    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee6"
		    "4b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e"
		    "2a9ac94fa54ca49f" },
	};
	struct view abc[] = { view_text("a"), view_text("bc") };
	uint8_t out[PRF_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct alg *alg = alg_get(rows[i].prf);
		struct octets empty = unhex(rows[i].empty);
		struct octets want = unhex(rows[i].abc);

		assert_int_equal(prf_hash(alg, NULL, 0, out), OK);
		assert_memory_equal(out, empty.at, alg->out);
		assert_int_equal(prf_hash(alg, abc, 2, out), OK);
		assert_memory_equal(out, want.at, alg->out);
		if (i == 0) {
			memset(out, 0, sizeof(out));
			assert_int_equal(prf_sha1(abc, 2, out), OK);
			assert_memory_equal(out, want.at, 20);
		}
	}
}

/* prf+ from its definition, by prf() alone (RFC 7296 2.13). */
static void
expect_prf_plus(const struct alg *alg, size_t len)
{
	struct view key = view_text("a key of SKEYSEED's kind");
	struct view seed[] = { view_text("nonce i"), view_text("nonce r") };
	uint8_t block[PRF_MAX], want[255 * PRF_MAX + PRF_MAX];
	struct secret got = { 0 };
	uint8_t round = 1;

	for (size_t done = 0; done < len; done += alg->out, round++) {
		struct view parts[] = {
			view_of(block, round > 1 ? alg->out : 0),
			seed[0],
			seed[1],
			view_of(&round, 1),
		};
		uint8_t next[PRF_MAX];

		assert_int_equal(prf(alg, key, parts, COUNT(parts), next), OK);
		memcpy(block, next, alg->out);
		memcpy(want + done, block, alg->out);
	}
	assert_int_equal(secret_new(&got, len), OK);
	assert_int_equal(prf_plus(alg, key, seed, COUNT(seed), &got), OK);
	assert_int_equal(got.len, len);
	assert_memory_equal(got.octets, want, len);
	secret_free(&got);
}

static void
test_prf_plus(void **state)
{
	(void)state;
	for (int id = ALG_PRF_SHA1; id <= ALG_PRF_SHA512; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		size_t out = alg->out;
		const size_t sizes[] = { 1, out - 1, out, out + 1, 2 * out, 233,
			255 * out - 1, 255 * out };
		struct secret secret = { 0 };

		for (size_t i = 0; i < COUNT(sizes); i++)
			expect_prf_plus(alg, sizes[i]);
		assert_int_equal(secret_new(&secret, 255 * out + 1), OK);
		assert_int_equal(
		    prf_plus(alg, view_text("k"), NULL, 0, &secret), ERR_LONG);
		assert_int_equal(secret_new(&secret, 0), OK);
		assert_int_equal(
		    prf_plus(alg, view_text("k"), NULL, 0, &secret), OK);
		secret_free(&secret);
	}
}

/* Computed apart from this tree, by the definition, with another HMAC:
 * K = 00..1f, S = "Ni|Nr|SPIi|SPIr", 100 octets of SHA-256. */
static void
test_prf_plus_known(void **state)
{
	struct octets want =
	    unhex("53c84cde72fd7c6ad66d83e8c2b5f60526edf011e9c91a3c09711fa47dae"
	          "deecd4b99f0c696da3810e3d5d475efa27a7ebd4fa20cf32ec6b02bf5365"
	          "c1f1606e81b9ec83219d0f89d66daaa2ca14c0ae452c9365892c29323d38"
	          "5f77ae9160aa2252eca7");
	struct octets key = unhex("000102030405060708090a0b0c0d0e0f"
	                          "101112131415161718191a1b1c1d1e1f");
	struct view seed = view_text("Ni|Nr|SPIi|SPIr");
	struct secret out = { 0 };

	(void)state;
	assert_int_equal(secret_new(&out, want.len), OK);
	assert_int_equal(prf_plus(alg_get(ALG_PRF_SHA256), octets_view(&key),
	                     &seed, 1, &out),
	    OK);
	assert_memory_equal(out.octets, want.at, want.len);
	secret_free(&out);
}

/* The key's length around the block, where RFC 2104 hashes it first. */
static void
test_key_around_block(void **state)
{
	uint8_t key[129], hashed[PRF_MAX], a[PRF_MAX], b[PRF_MAX];
	struct view text = view_text("text");

	(void)state;
	memset(key, 0x42, sizeof(key));
	for (int id = ALG_PRF_SHA1; id <= ALG_PRF_SHA512; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		size_t block = alg->out > 32 ? 128 : 64;
		struct view over = view_of(key, block + 1);

		assert_int_equal(prf_hash(alg, &over, 1, hashed), OK);
		assert_int_equal(prf(alg, over, &text, 1, a), OK);
		assert_int_equal(
		    prf(alg, view_of(hashed, alg->out), &text, 1, b), OK);
		assert_memory_equal(a, b, alg->out);

		over.len = block;
		assert_int_equal(prf_hash(alg, &over, 1, hashed), OK);
		assert_int_equal(prf(alg, over, &text, 1, a), OK);
		assert_int_equal(
		    prf(alg, view_of(hashed, alg->out), &text, 1, b), OK);
		assert_memory_not_equal(a, b, alg->out);
	}
}

static void
test_out_may_be_key(void **state)
{
	const struct alg *alg = alg_get(ALG_PRF_SHA256);
	uint8_t key[32] = { 1 }, want[32];
	struct view text = view_of(key, sizeof(key));

	(void)state;
	assert_int_equal(prf(alg, text, &text, 1, want), OK);
	assert_int_equal(prf(alg, text, &text, 1, key), OK);
	assert_memory_equal(key, want, sizeof(want));
}

static void
test_wrong_rows(void **state)
{
	struct view key = view_text("key");
	struct secret secret = { 0 };
	uint8_t out[PRF_MAX];

	(void)state;
	assert_int_equal(prf(NULL, key, NULL, 0, out), ERR_BUG);
	assert_int_equal(prf(alg_get(ALG_SHA1_96), key, NULL, 0, out), ERR_BUG);
	assert_int_equal(
	    prf_mac(alg_get(ALG_PRF_SHA1), key, NULL, 0, out), ERR_BUG);
	assert_int_equal(
	    prf_hash(alg_get(ALG_AES128_CBC), NULL, 0, out), ERR_BUG);
	assert_int_equal(
	    prf_plus(alg_get(ALG_MODP2048), key, NULL, 0, &secret), ERR_BUG);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hmac_vectors),
		cmocka_unit_test(test_digests),
		cmocka_unit_test(test_prf_plus),
		cmocka_unit_test(test_prf_plus_known),
		cmocka_unit_test(test_key_around_block),
		cmocka_unit_test(test_out_may_be_key),
		cmocka_unit_test(test_wrong_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
