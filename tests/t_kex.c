#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/bn.h>
#include <pthread.h>

#include "common/kex.h"
#include "tests/vectors/hex.h"
#include "tests/vectors/kex.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void
expect_shared(const struct alg *alg, const char *private, const char *public,
    const char *peer, const char *want)
{
	struct octets x = unhex(private), y = unhex(public);
	struct octets other = unhex(peer), answer = unhex(want);
	struct secret shared = { 0 };
	struct kex *kex;

	assert_int_equal(
	    kex_from_pair(alg, octets_view(&x), octets_view(&y), &kex), OK);
	assert_true(view_equal(kex_public(kex), octets_view(&y)));
	assert_ptr_equal(kex_alg(kex), alg);
	assert_int_equal(kex_check(alg, octets_view(&other)), OK);
	assert_int_equal(kex_derive(kex, octets_view(&other), &shared), OK);
	assert_int_equal(shared.len, alg->secret_len);
	assert_int_equal(answer.len, alg->secret_len);
	assert_memory_equal(shared.octets, answer.at, answer.len);
	secret_free(&shared);
	kex_free(kex);
}

static void
test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(kex_vectors); i++) {
		const struct alg *alg = alg_get(kex_vectors[i].kex);

		print_message("%s\n", kex_vectors[i].source);
		expect_shared(alg, kex_vectors[i].own_private,
		    kex_vectors[i].own_public, kex_vectors[i].peer_public,
		    kex_vectors[i].shared);
		expect_shared(alg, kex_vectors[i].peer_private,
		    kex_vectors[i].peer_public, kex_vectors[i].own_public,
		    kex_vectors[i].shared);
	}
}

/* Both sides agree, and never on the same values twice. */
static void
test_agreement(void **state)
{
	(void)state;
	for (int id = ALG_MODP1024; id <= ALG_CURVE25519; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		struct secret ab = { 0 }, ba = { 0 };
		struct kex *a, *b;

		assert_int_equal(kex_new(alg, &a), OK);
		assert_int_equal(kex_new(alg, &b), OK);
		assert_int_equal(kex_public(a).len, alg->public_len);
		assert_false(view_equal(kex_public(a), kex_public(b)));
		assert_int_equal(kex_check(alg, kex_public(a)), OK);
		assert_int_equal(kex_derive(a, kex_public(b), &ab), OK);
		assert_int_equal(kex_derive(b, kex_public(a), &ba), OK);
		assert_int_equal(ab.len, alg->secret_len);
		assert_true(
		    mem_equal_secret(secret_view(&ab), secret_view(&ba)));
		secret_free(&ab);
		secret_free(&ba);
		kex_free(a);
		kex_free(b);
	}
	kex_free(NULL);
}

static BIGNUM *
prime_of(enum alg_id id)
{
	switch (id) {
	case ALG_MODP1024:
		return BN_get_rfc2409_prime_1024(NULL);
	case ALG_MODP1536:
		return BN_get_rfc3526_prime_1536(NULL);
	case ALG_MODP2048:
		return BN_get_rfc3526_prime_2048(NULL);
	case ALG_MODP3072:
		return BN_get_rfc3526_prime_3072(NULL);
	default:
		return BN_get_rfc3526_prime_4096(NULL);
	}
}

/* A fixed exponent, its public value computed here, and a secret whose first
 * octet is zero must come out at full length (RFC 2631 2.1.2). */
static void
test_modp_padding(void **state)
{
	BN_CTX *ctx = BN_CTX_new();

	(void)state;
	for (int id = ALG_MODP1024; id <= ALG_MODP4096; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		BIGNUM *p = prime_of(alg->id);
		BIGNUM *x = BN_new(), *y = BN_new(), *peer = BN_new();
		uint8_t private[32], public[512], other[512], want[512];
		struct secret shared = { 0 };
		struct kex *kex;
		size_t len = alg->public_len;

		memset(private, 0x5b, sizeof(private));
		BN_bin2bn(private, sizeof(private), x);
		BN_set_word(y, 2);
		BN_mod_exp(y, y, x, p, ctx);
		BN_bn2binpad(y, public, (int)len);
		assert_int_equal(kex_from_pair(alg, view_of(private, 32),
		                     view_of(public, len), &kex),
		    OK);
		assert_memory_equal(kex_public(kex).at, public, len);

		/* Peers 2, 3, 4, ... until the secret begins with zero. */
		for (unsigned long value = 2;; value++) {
			BN_set_word(peer, value);
			BN_bn2binpad(peer, other, (int)len);
			BN_mod_exp(peer, peer, x, p, ctx);
			BN_bn2binpad(peer, want, (int)len);
			if (want[0] == 0 || value == 2) {
				assert_int_equal(
				    kex_derive(
				        kex, view_of(other, len), &shared),
				    OK);
				assert_int_equal(shared.len, len);
				assert_memory_equal(shared.octets, want, len);
			}
			if (want[0] == 0 || (value > 40 && len > 256))
				break;
		}
		secret_free(&shared);
		kex_free(kex);
		BN_free(p);
		BN_free(x);
		BN_free(y);
		BN_free(peer);
	}
	BN_CTX_free(ctx);
}

/* Both entrances must refuse it, and the next good value must still pass. */
static void
expect_refused(const struct kex *kex, const uint8_t *value, size_t len)
{
	struct secret shared = { 0 };
	struct view peer = view_of(value, len);

	assert_int_equal(kex_derive(kex, peer, &shared), ERR_KE);
	assert_null(shared.octets);
	if (kex_alg(kex)->id != ALG_CURVE25519)
		assert_int_equal(kex_check(kex_alg(kex), peer), ERR_KE);
	assert_int_equal(kex_derive(kex, kex_public(kex), &shared), OK);
	secret_free(&shared);
}

/* RFC 6989 2.1: 0, 1, p - 1, p, p + 1 and larger; 2 and p - 2 are fine. */
static void
test_modp_range(void **state)
{
	(void)state;
	for (int id = ALG_MODP1024; id <= ALG_MODP3072; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		size_t len = alg->public_len;
		BIGNUM *p = prime_of(alg->id);
		uint8_t value[512] = { 0 };
		struct kex *kex;

		assert_int_equal(kex_new(alg, &kex), OK);
		expect_refused(kex, value, len);
		value[len - 1] = 1;
		expect_refused(kex, value, len);
		value[len - 1] = 2;
		assert_int_equal(kex_check(alg, view_of(value, len)), OK);

		BN_sub_word(p, 2);
		BN_bn2binpad(p, value, (int)len);
		assert_int_equal(kex_check(alg, view_of(value, len)), OK);
		for (int above = -1; above <= 1; above++) {
			BN_add_word(p, 1);
			BN_bn2binpad(p, value, (int)len);
			expect_refused(kex, value, len);
		}
		memset(value, 0xff, len);
		expect_refused(kex, value, len);
		BN_free(p);
		kex_free(kex);
	}
}

static void
test_lengths(void **state)
{
	uint8_t value[520];

	(void)state;
	for (int id = ALG_MODP1024; id <= ALG_CURVE25519; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		size_t len = alg->public_len;
		struct secret shared = { 0 };
		struct kex *kex;
		const size_t wrong[] = { 0, 1, len - 1, len + 1 };

		if (id == ALG_MODP4096)
			continue; /* slow, and the others say it */
		assert_int_equal(kex_new(alg, &kex), OK);
		memset(value, 0, sizeof(value));
		memcpy(value + 1, kex_public(kex).at, len);
		for (size_t i = 0; i < COUNT(wrong); i++) {
			assert_int_equal(
			    kex_check(alg, view_of(value + 1, wrong[i])),
			    ERR_KE);
			assert_int_equal(
			    kex_derive(
			        kex, view_of(value + 1, wrong[i]), &shared),
			    ERR_KE);
		}
		/* A zero in front changes no number, but the length. */
		assert_int_equal(
		    kex_check(alg, view_of(value, len + 1)), ERR_KE);
		kex_free(kex);
	}
}

/* RFC 6989 2.3: points off the curve, coordinates not below the prime, and
 * every form in which infinity might come. */
static void
test_ecp_points(void **state)
{
	static const char *const primes[] = {
		"ffffffff00000001000000000000000000000000ffffffffffffffff"
		"ffffffff",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"fffffffeffffffff0000000000000000ffffffff",
		"01ffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"ffffffffffffffffffff",
	};

	(void)state;
	for (int id = ALG_ECP256; id <= ALG_ECP521; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		struct octets prime = unhex(primes[id - ALG_ECP256]);
		size_t len = alg->public_len, half = len / 2;
		BIGNUM *p = BN_bin2bn(prime.at, (int)prime.len, NULL);
		BIGNUM *sum = BN_new();
		uint8_t value[132];
		struct kex *kex;
		bool fits;

		assert_int_equal(prime.len, half);
		assert_int_equal(kex_new(alg, &kex), OK);
		memset(value, 0, len);
		expect_refused(kex, value, len);
		value[len - 1] = 1;
		expect_refused(kex, value, len);
		memset(value, 0xff, len);
		expect_refused(kex, value, len);
		memcpy(value, prime.at, half);
		memcpy(value + half, prime.at, half);
		expect_refused(kex, value, len);
		/* One bit off, in x, then in y. */
		memcpy(value, kex_public(kex).at, len);
		value[half - 1] ^= 1;
		expect_refused(kex, value, len);
		memcpy(value, kex_public(kex).at, len);
		value[len - 1] ^= 1;
		expect_refused(kex, value, len);
		/* Swapped halves. */
		memcpy(value, kex_public(kex).at + half, half);
		memcpy(value + half, kex_public(kex).at, half);
		expect_refused(kex, value, len);
		/* x + p is congruent and must be refused, where it fits. */
		memcpy(value, kex_public(kex).at, len);
		BN_bin2bn(value, (int)half, sum);
		BN_add(sum, sum, p);
		fits = BN_bn2binpad(sum, value, (int)half) > 0;
		if (fits)
			expect_refused(kex, value, len);
		/* The negative point is a good one. */
		memcpy(value, kex_public(kex).at, len);
		BN_bin2bn(value + half, (int)half, sum);
		BN_sub(sum, p, sum);
		BN_bn2binpad(sum, value + half, (int)half);
		assert_int_equal(kex_check(alg, view_of(value, len)), OK);
		/* A single zero is infinity to OpenSSL. */
		assert_int_equal(kex_check(alg, view_of("", 1)), ERR_KE);
		BN_free(p);
		BN_free(sum);
		kex_free(kex);
	}
}

/* RFC 7748 6.1, RFC 8031 5: every point of small order gives zero. */
static void
test_x25519_small_order(void **state)
{
	static const char *const points[] = {
		"00000000000000000000000000000000000000000000000000000000"
		"00000000",
		"01000000000000000000000000000000000000000000000000000000"
		"00000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd86620516"
		"5f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224edd"
		"d09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"ffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"ffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffff"
		"ffffff7f",
	};
	struct kex *kex;

	(void)state;
	assert_int_equal(kex_new(alg_get(ALG_CURVE25519), &kex), OK);
	for (size_t i = 0; i < COUNT(points); i++) {
		struct octets point = unhex(points[i]);

		expect_refused(kex, point.at, point.len);
		/* The highest bit is ignored (RFC 7748 5). */
		point.at[31] |= 0x80;
		expect_refused(kex, point.at, point.len);
	}
	kex_free(kex);
}

static void *
on_a_thread(void *arg)
{
	struct kex **kex = arg;
	struct secret shared = { 0 };
	struct kex *mine;

	if (kex_new(alg_get(ALG_ECP256), &mine) == OK &&
	    kex_derive(*kex, kex_public(mine), &shared) == OK)
		kex_free(mine);
	secret_free(&shared);
	kex_free(*kex);
	return NULL;
}

/* A pair made on one thread serves and dies on another. */
static void
test_threads(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct kex *kex;
		pthread_t thread;

		assert_int_equal(kex_new(alg_get(ALG_ECP256), &kex), OK);
		assert_int_equal(
		    pthread_create(&thread, NULL, on_a_thread, &kex), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
}

static void
test_wrong_rows(void **state)
{
	uint8_t octets[64] = { 0 };
	struct kex *kex;

	(void)state;
	assert_int_not_equal(kex_new(NULL, &kex), OK);
	assert_null(kex);
	assert_int_not_equal(kex_new(alg_get(ALG_AES128_CBC), &kex), OK);
	assert_int_not_equal(
	    kex_check(alg_get(ALG_PRF_SHA1), view_of(octets, 64)), OK);
	assert_int_equal(kex_from_pair(alg_get(ALG_ECP256), view_of(octets, 0),
	                     view_of(octets, 64), &kex),
	    ERR_BUG);
	/* A public value that is no point. */
	assert_int_equal(kex_from_pair(alg_get(ALG_ECP256), view_of("x", 1),
	                     view_of(octets, 64), &kex),
	    ERR_CRYPTO);
	assert_null(kex);
}

/* The public half outlives the private one. */
static void
test_spent(void **state)
{
	const struct alg *alg = alg_get(ALG_CURVE25519);
	struct secret first = { 0 }, second = { 0 };
	struct kex *own, *peer;
	uint8_t public[32];

	(void)state;
	assert_int_equal(kex_new(alg, &own), OK);
	assert_int_equal(kex_new(alg, &peer), OK);
	memcpy(public, kex_public(own).at, sizeof(public));
	assert_int_equal(kex_derive(own, kex_public(peer), &first), OK);
	kex_spend(own);
	kex_spend(own);
	assert_memory_equal(kex_public(own).at, public, sizeof(public));
	assert_int_equal(
	    kex_derive(own, kex_public(peer), &second), ERR_WRONG_STATE);
	assert_int_equal(kex_derive(peer, kex_public(own), &second), OK);
	assert_memory_equal(first.octets, second.octets, first.len);
	secret_free(&first);
	secret_free(&second);
	kex_free(own);
	kex_free(peer);
}

/* A value is decoded once, yet never mistaken for another one. */
static void
test_held_value(void **state)
{
	const enum alg_id ids[] = { ALG_ECP256, ALG_MODP2048 };

	(void)state;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		const struct alg *alg = alg_get(ids[i]);
		struct secret a = { 0 }, b = { 0 }, c = { 0 };
		struct kex *own, *one, *two;
		uint8_t bad[512] = { 0 };
		struct view wrong = view_of(bad, alg->public_len);

		assert_int_equal(kex_new(alg, &own), OK);
		assert_int_equal(kex_new(alg, &one), OK);
		assert_int_equal(kex_new(alg, &two), OK);
		assert_int_equal(kex_check(alg, kex_public(one)), OK);
		assert_int_equal(kex_check(alg, kex_public(one)), OK);
		assert_int_equal(kex_derive(own, kex_public(one), &a), OK);
		assert_int_equal(kex_check(alg, wrong), ERR_KE);
		assert_int_equal(kex_check(alg, wrong), ERR_KE);
		assert_int_equal(kex_derive(own, wrong, &b), ERR_KE);
		assert_int_equal(kex_derive(own, kex_public(two), &b), OK);
		assert_int_equal(kex_derive(own, kex_public(one), &c), OK);
		assert_memory_not_equal(a.octets, b.octets, a.len);
		assert_memory_equal(a.octets, c.octets, a.len);
		secret_free(&a);
		secret_free(&b);
		secret_free(&c);
		kex_free(own);
		kex_free(one);
		kex_free(two);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_agreement),
		cmocka_unit_test(test_modp_padding),
		cmocka_unit_test(test_modp_range),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_ecp_points),
		cmocka_unit_test(test_x25519_small_order),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_wrong_rows),
		cmocka_unit_test(test_spent),
		cmocka_unit_test(test_held_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
