#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/alg.h"

static void
test_rows_are_complete(void **state)
{
	(void)state;
	assert_null(alg_get(ALG_NONE));
	assert_null(alg_get(ALG_COUNT));
	assert_null(alg_get((enum alg_id) - 1));
	for (int id = 1; id < ALG_COUNT; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);

		assert_non_null(alg);
		assert_int_equal(alg->id, id);
		assert_true(alg->kind < ALG_KINDS);
		assert_non_null(alg->aliases);
		assert_ptr_equal(alg_by_name(alg->kind, alg->name), alg);
		assert_ptr_equal(alg_by_ikev2(alg->kind, alg->ikev2,
		                     alg->key_attr ? alg->key_bits : 0),
		    alg);
		if (alg->kind == ALG_KEX) {
			assert_int_not_equal(alg->public_len, 0);
			assert_int_not_equal(alg->secret_len, 0);
		} else {
			assert_int_not_equal(alg_keymat(alg), 0);
			assert_non_null(alg->openssl);
		}
	}
}

static void
test_no_alias_twice(void **state)
{
	(void)state;
	for (int id = 1; id < ALG_COUNT; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);
		char list[256], *rest = list, *word;

		assert_true(strlen(alg->aliases) < sizeof(list));
		strcpy(list, alg->aliases);
		while ((word = strtok_r(rest, " ", &rest)) != NULL)
			assert_ptr_equal(alg_by_name(alg->kind, word), alg);
	}
}

static void
test_names(void **state)
{
	(void)state;
	assert_int_equal(alg_by_name(ALG_ENCR, "AES")->id, ALG_AES128_CBC);
	assert_int_equal(
	    alg_by_name(ALG_ENCR, "aes256gcm128")->id, ALG_AES256_GCM16);
	assert_int_equal(
	    alg_by_name(ALG_INTEG, "sha2_256")->id, ALG_SHA256_128);
	assert_int_equal(alg_by_name(ALG_PRF, "sha256")->id, ALG_PRF_SHA256);
	assert_int_equal(alg_by_name(ALG_KEX, "dh14")->id, ALG_MODP2048);
	assert_int_equal(alg_by_name(ALG_KEX, "X25519")->id, ALG_CURVE25519);
	assert_null(alg_by_name(ALG_INTEG, "prfsha256"));
	assert_null(alg_by_name(ALG_ENCR, ""));
	assert_null(alg_by_name(ALG_ENCR, "aes12"));
	assert_null(alg_by_name(ALG_ENCR, "aes1288"));
	assert_null(alg_by_name(ALG_ENCR, "aes aes128cbc"));
	assert_null(alg_by_name(ALG_ENCR, "des"));
	assert_null(alg_by_name(ALG_INTEG, "md5"));
	assert_null(alg_by_name(ALG_KEX, "modp768"));
}

static void
test_ikev2_key_length(void **state)
{
	(void)state;
	assert_int_equal(alg_by_ikev2(ALG_ENCR, 12, 256)->id, ALG_AES256_CBC);
	/* RFC 7296 3.3.5: AES needs the attribute, 3DES must not have it. */
	assert_null(alg_by_ikev2(ALG_ENCR, 12, 0));
	assert_null(alg_by_ikev2(ALG_ENCR, 12, 127));
	assert_null(alg_by_ikev2(ALG_ENCR, 12, 129));
	assert_null(alg_by_ikev2(ALG_ENCR, 3, 192));
	assert_null(alg_by_ikev2(ALG_ENCR, 28, 256));
	assert_null(alg_by_ikev2(ALG_INTEG, 12, 256));
	assert_null(alg_by_ikev2(ALG_ENCR, 0, 0));
	assert_null(alg_by_ikev2(ALG_ENCR, 65535, 0));
	assert_null(alg_by_ikev2(ALG_KEX, 1, 0));
}

static void
test_ikev1(void **state)
{
	(void)state;
	assert_int_equal(alg_by_phase1(ALG_ENCR, 7, 192)->id, ALG_AES192_CBC);
	assert_int_equal(alg_by_phase1(ALG_ENCR, 7, 0)->id, ALG_AES128_CBC);
	assert_int_equal(alg_by_phase1(ALG_ENCR, 5, 0)->id, ALG_3DES_CBC);
	assert_null(alg_by_phase1(ALG_ENCR, 1, 0));
	assert_null(alg_by_phase1(ALG_ENCR, 20, 128));
	assert_int_equal(alg_by_phase1(ALG_PRF, 4, 0)->id, ALG_PRF_SHA256);
	assert_null(alg_by_phase1(ALG_PRF, 1, 0));
	assert_int_equal(alg_by_phase2(ALG_ENCR, 12, 0)->id, ALG_AES128_CBC);
	assert_int_equal(
	    alg_by_phase2(ALG_ENCR, 20, 256)->id, ALG_AES256_GCM16);
	assert_null(alg_by_phase2(ALG_ENCR, 20, 0));
	assert_int_equal(alg_by_phase2(ALG_INTEG, 7, 0)->id, ALG_SHA512_256);
	assert_null(alg_by_phase2(ALG_INTEG, 1, 0));
	assert_null(alg_by_phase2(ALG_INTEG, 0, 0));
	assert_null(alg_by_phase2(ALG_PRF, 0, 0));
}

static void
test_derived(void **state)
{
	(void)state;
	assert_true(alg_is_aead(alg_get(ALG_AES128_GCM16)));
	assert_false(alg_is_aead(alg_get(ALG_AES128_CBC)));
	assert_false(alg_is_aead(alg_get(ALG_SHA1_96)));
	assert_int_equal(alg_keymat(alg_get(ALG_CHACHA20_POLY1305)), 36);
	assert_int_equal(alg_keymat(alg_get(ALG_AES192_GCM16)), 28);
	assert_int_equal(alg_keymat(alg_get(ALG_3DES_CBC)), 24);
	for (int id = ALG_SHA1_96; id <= ALG_SHA512_256; id++) {
		const struct alg *integ = alg_get((enum alg_id)id);
		const struct alg *prf = alg_prf_of_integ(integ);

		assert_int_equal(prf->kind, ALG_PRF);
		assert_string_equal(prf->openssl, integ->openssl);
		assert_int_equal(prf->out, integ->out);
		assert_ptr_equal(alg_integ_of_prf(prf), integ);
	}
	assert_null(alg_prf_of_integ(alg_get(ALG_AES128_CBC)));
	assert_null(alg_integ_of_prf(NULL));
}

static void
test_tiers_and_set(void **state)
{
	struct alg_set set = { 0 };

	(void)state;
	assert_int_equal(alg_get(ALG_3DES_CBC)->tier, TIER_LEGACY);
	assert_int_equal(alg_get(ALG_MODP1024)->tier, TIER_LEGACY);
	assert_int_equal(alg_get(ALG_MODP1536)->tier, TIER_LEGACY);
	assert_int_equal(alg_get(ALG_SHA1_96)->tier, TIER_COMPAT);
	assert_int_equal(alg_get(ALG_PRF_SHA1)->tier, TIER_COMPAT);
	assert_int_equal(alg_get(ALG_MODP2048)->tier, TIER_MODERN);
	assert_string_equal(alg_tier_text(TIER_COMPAT), "compat");
	assert_false(alg_set_has(&set, alg_get(ALG_3DES_CBC)));
	set.bits = (uint64_t)1 << ALG_3DES_CBC;
	assert_true(alg_set_has(&set, alg_get(ALG_3DES_CBC)));
	assert_false(alg_set_has(&set, alg_get(ALG_CHACHA20_POLY1305)));
	assert_false(alg_set_has(&set, NULL));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_are_complete),
		cmocka_unit_test(test_no_alias_twice),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_ikev2_key_length),
		cmocka_unit_test(test_ikev1),
		cmocka_unit_test(test_derived),
		cmocka_unit_test(test_tiers_and_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
