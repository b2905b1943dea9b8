#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/natt.h"

static struct endpoint
endpoint(const char *text, uint16_t port)
{
	struct endpoint value = { .port = port };

	assert_true(addr_parse(&value.addr, text));
	return value;
}

static void
check(enum alg_id hash, const struct endpoint *of, const char *expected)
{
	uint8_t octets[NATT_HASH_MAX];
	char text[2 * NATT_HASH_MAX + 1];
	size_t len = 0;

	assert_int_equal(
	    natt_hash(hash == ALG_NONE ? NULL : alg_get(hash),
	        0x0102030405060708ULL, 0x1112131415161718ULL, of, octets, &len),
	    OK);
	buf_hex(text, sizeof(text), view_of(octets, len));
	assert_string_equal(text, expected);
}

/* Expected values: made with another implementation of the digests. */
static void
test_hashes(void **state)
{
	struct endpoint v4 = endpoint("192.0.2.1", 500);
	struct endpoint v6 = endpoint("2001:db8::1", 4500);

	(void)state;
	check(ALG_NONE, &v4, "d798d986143f878f70765e0e869c80bbc375f701");
	check(ALG_PRF_SHA1, &v4, "d798d986143f878f70765e0e869c80bbc375f701");
	check(ALG_NONE, &v6, "1ee24423bf8f59515e0265c6d0f08be3d038f7e5");
	check(ALG_PRF_SHA256, &v4,
	    "1f2143b5f4921e97f1d040b016b4443a97ba0383703aa02d511907f137b11a77");
	check(ALG_PRF_SHA512, &v6,
	    "1e8ee824f443872e070f4b0dec4742c2190ede5727ced840a766139ad72a1349"
	    "708d7026414b6b3f6246cc9611591db7785f773d767115e2fdc60b8931b13eff");
}

/* Each field counts. */
static void
test_fields(void **state)
{
	struct endpoint base = endpoint("192.0.2.1", 500), other;
	uint8_t a[NATT_HASH_MAX], b[NATT_HASH_MAX];
	size_t len;

	(void)state;
	assert_int_equal(natt_hash(NULL, 1, 2, &base, a, &len), OK);
	assert_int_equal(len, 20);
	assert_int_equal(natt_hash(NULL, 2, 1, &base, b, &len), OK);
	assert_memory_not_equal(a, b, 20);
	other = endpoint("192.0.2.1", 501);
	assert_int_equal(natt_hash(NULL, 1, 2, &other, b, &len), OK);
	assert_memory_not_equal(a, b, 20);
	other = endpoint("192.0.2.2", 500);
	assert_int_equal(natt_hash(NULL, 1, 2, &other, b, &len), OK);
	assert_memory_not_equal(a, b, 20);
	assert_int_equal(natt_hash(NULL, 1, 2, &base, b, &len), OK);
	assert_memory_equal(a, b, 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
