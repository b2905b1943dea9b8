#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cipher.h"
#include "tests/vectors/cipher.h"
#include "tests/vectors/hex.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
check_cbc(const struct alg *alg, struct view key, const uint8_t *iv,
    const struct octets *text, const struct octets *want)
{
	uint8_t out[1024];

	assert_int_equal(
	    cipher_cbc_encrypt(alg, key, iv, octets_view(text), out), OK);
	assert_memory_equal(out, want->at, want->len);
	/* Back, in place. */
	assert_int_equal(
	    cipher_cbc_decrypt(alg, key, iv, view_of(out, want->len), out), OK);
	assert_memory_equal(out, text->at, text->len);
	/* And there, in place. */
	assert_int_equal(
	    cipher_cbc_encrypt(alg, key, iv, view_of(out, want->len), out), OK);
	assert_memory_equal(out, want->at, want->len);
}

static void
check_aead(const struct alg *alg, struct view key, const uint8_t *iv,
    const struct octets *aad, const struct octets *text,
    const struct octets *want, const struct octets *tag)
{
	uint8_t out[1024], got[16];

	assert_int_equal(tag->len, alg->icv);
	assert_int_equal(cipher_aead_seal(alg, key, iv, octets_view(aad),
	                     octets_view(text), out, got),
	    OK);
	assert_memory_equal(out, want->at, want->len);
	assert_memory_equal(got, tag->at, tag->len);
	assert_int_equal(cipher_aead_open(alg, key, iv, octets_view(aad),
	                     view_of(out, want->len), got, out),
	    OK);
	assert_memory_equal(out, text->at, text->len);
	assert_int_equal(cipher_aead_seal(alg, key, iv, octets_view(aad),
	                     view_of(out, text->len), out, got),
	    OK);
	assert_memory_equal(out, want->at, want->len);
	assert_memory_equal(got, tag->at, tag->len);
}

/* Twice over, so that each context has been keyed for both directions. */
static void
test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * COUNT(cipher_vectors); i++) {
		size_t n = i % COUNT(cipher_vectors);
		const struct alg *alg = alg_get(cipher_vectors[n].encr);
		struct octets key = unhex(cipher_vectors[n].key);
		struct octets iv = unhex(cipher_vectors[n].iv);
		struct octets aad = unhex(cipher_vectors[n].aad);
		struct octets text = unhex(cipher_vectors[n].text);
		struct octets out = unhex(cipher_vectors[n].out);
		struct octets tag = unhex(cipher_vectors[n].tag);

		print_message("%s\n", cipher_vectors[n].source);
		assert_int_equal(iv.len, alg->iv);
		assert_int_equal(key.len, alg_keymat(alg));
		assert_int_equal(text.len, out.len);
		if (alg_is_aead(alg))
			check_aead(alg, octets_view(&key), iv.at, &aad, &text,
			    &out, &tag);
		else
			check_cbc(alg, octets_view(&key), iv.at, &text, &out);
	}
}

static const enum alg_id aeads[] = { ALG_AES128_GCM16, ALG_AES192_GCM16,
	ALG_AES256_GCM16, ALG_CHACHA20_POLY1305 };

static bool
is_zero(const uint8_t *octets, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (octets[i] != 0)
			return false;
	}
	return true;
}

/* Any flipped bit is noticed, and no plaintext is left behind. */
static void
test_aead_forgery(void **state)
{
	static const uint8_t key[36] = { 7 }, iv[8] = { 1 }, aad[28] = { 2 };

	(void)state;
	for (size_t i = 0; i < COUNT(aeads); i++) {
		const struct alg *alg = alg_get(aeads[i]);
		struct view keyed = view_of(key, alg_keymat(alg));
		uint8_t text[40], sealed[40], tag[16], out[40];
		uint8_t broken_aad[28];

		memset(text, 0x61, sizeof(text));
		assert_int_equal(
		    cipher_aead_seal(alg, keyed, iv, view_of(aad, 28),
		        view_of(text, 40), sealed, tag),
		    OK);
		for (size_t bit = 0; bit < 16 * 8; bit += 7) {
			tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
			memset(out, 0x55, sizeof(out));
			assert_int_equal(
			    cipher_aead_open(alg, keyed, iv, view_of(aad, 28),
			        view_of(sealed, 40), tag, out),
			    ERR_AUTH);
			assert_true(is_zero(out, sizeof(out)));
			tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		memcpy(broken_aad, aad, 28);
		broken_aad[27] ^= 1;
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(broken_aad, 28),
		        view_of(sealed, 40), tag, out),
		    ERR_AUTH);
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(aad, 28),
		        view_of(sealed, 39), tag, out),
		    ERR_AUTH);
		/* In place, the ciphertext goes too. */
		sealed[39] ^= 0x80;
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(aad, 28),
		        view_of(sealed, 40), tag, sealed),
		    ERR_AUTH);
		assert_true(is_zero(sealed, sizeof(sealed)));
	}
}

/* Nothing to encrypt: the tag still covers the additional data. */
static void
test_aead_empty(void **state)
{
	static const uint8_t key[36] = { 7 }, iv[8] = { 1 }, aad[8] = { 2 };

	(void)state;
	for (size_t i = 0; i < COUNT(aeads); i++) {
		const struct alg *alg = alg_get(aeads[i]);
		struct view keyed = view_of(key, alg_keymat(alg));
		uint8_t tag[16], none[1];

		assert_int_equal(
		    cipher_aead_seal(alg, keyed, iv, view_of(aad, 8),
		        view_of(NULL, 0), none, tag),
		    OK);
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(aad, 8),
		        view_of(NULL, 0), tag, none),
		    OK);
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(NULL, 0),
		        view_of(NULL, 0), tag, none),
		    ERR_AUTH);
	}
}

static void
test_sizes(void **state)
{
	static const uint8_t key[64] = { 9 }, iv[16] = { 3 };
	uint8_t text[48] = { 0 }, tag[16] = { 0 };
	static const enum alg_id cbcs[] = { ALG_AES128_CBC, ALG_AES192_CBC,
		ALG_AES256_CBC, ALG_3DES_CBC };

	(void)state;
	for (size_t i = 0; i < COUNT(cbcs); i++) {
		const struct alg *alg = alg_get(cbcs[i]);
		struct view keyed = view_of(key, alg_keymat(alg));

		for (size_t len = 0; len <= 33; len++) {
			enum err want = len % alg->block == 0 ? OK : ERR_BUG;

			assert_int_equal(cipher_cbc_encrypt(alg, keyed, iv,
			                     view_of(text, len), text),
			    want);
			assert_int_equal(cipher_cbc_decrypt(alg, keyed, iv,
			                     view_of(text, len), text),
			    want);
		}
		assert_true(is_zero(text, sizeof(text)));
		keyed.len--;
		assert_int_equal(
		    cipher_cbc_encrypt(alg, keyed, iv, view_of(text, 16), text),
		    ERR_BUG);
		keyed.len += 2;
		assert_int_equal(
		    cipher_cbc_encrypt(alg, keyed, iv, view_of(text, 16), text),
		    ERR_BUG);
		assert_int_equal(
		    cipher_aead_seal(alg, view_of(key, alg_keymat(alg)), iv,
		        view_of(NULL, 0), view_of(text, 16), text, tag),
		    ERR_BUG);
	}
	for (size_t i = 0; i < COUNT(aeads); i++) {
		const struct alg *alg = alg_get(aeads[i]);
		struct view keyed = view_of(key, alg_keymat(alg) - 1);

		assert_int_equal(
		    cipher_aead_seal(alg, keyed, iv, view_of(NULL, 0),
		        view_of(text, 16), text, tag),
		    ERR_BUG);
		assert_int_equal(
		    cipher_aead_open(alg, keyed, iv, view_of(NULL, 0),
		        view_of(text, 16), tag, text),
		    ERR_BUG);
		keyed.len++;
		assert_int_equal(
		    cipher_cbc_encrypt(alg, keyed, iv, view_of(text, 16), text),
		    ERR_BUG);
	}
	assert_int_equal(cipher_cbc_encrypt(NULL, view_of(key, 16), iv,
	                     view_of(text, 16), text),
	    ERR_BUG);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_aead_forgery),
		cmocka_unit_test(test_aead_empty),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
