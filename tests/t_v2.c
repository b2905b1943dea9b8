/*
 * The IKEv2 engine's parts: keys (expected values computed apart, with
 * Python's hmac), payload codecs, encryption (messages made apart, with
 * Python's cryptography), fragments, and the rule table as a whole. Whole
 * gateways are played in play/play_v2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ikev2/child.h"
#include "ikev2/frag.h"
#include "ikev2/internal.h"
#include "ikev2/key.h"
#include "ikev2/rules.h"
#include "ikev2/sapay.h"
#include "ikev2/sk.h"

#define SPI_I 0x0102030405060708ull
#define SPI_R 0x1112131415161718ull

static struct env env = { .random = env_random_openssl };

static struct suite
suite_of(enum alg_id encr, enum alg_id prf, enum alg_id integ, enum alg_id kex)
{
	struct suite suite = { 0 };

	suite.encr = alg_get(encr);
	suite.prf = alg_get(prf);
	suite.integ = alg_get(integ);
	suite.kex = alg_get(kex);
	return suite;
}

static struct suite
suite_cbc(void)
{
	return suite_of(
	    ALG_AES128_CBC, ALG_PRF_SHA256, ALG_SHA256_128, ALG_CURVE25519);
}

static struct suite
suite_gcm(void)
{
	return suite_of(
	    ALG_AES256_GCM16, ALG_PRF_SHA512, ALG_NONE, ALG_CURVE25519);
}

static void
sequence(uint8_t *octets, uint8_t from, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		octets[i] = (uint8_t)(from + i);
}

static size_t
unhex(const char *text, uint8_t *octets, size_t size)
{
	size_t len = strlen(text) / 2, i;
	unsigned value;

	assert_true(len <= size);
	for (i = 0; i < len; i++) {
		assert_int_equal(sscanf(text + 2 * i, "%2x", &value), 1);
		octets[i] = (uint8_t)value;
	}
	return len;
}

static void
assert_hex(struct view octets, const char *expected)
{
	char text[2048];

	buf_hex(text, sizeof(text), octets);
	assert_string_equal(text, expected);
}

/* Keys ------------------------------------------------------------------- */

static uint8_t nonce_i[32], nonce_r[20], shared[32];

static struct v2_key_input
key_input(void)
{
	struct v2_key_input input;

	sequence(nonce_i, 0x10, sizeof(nonce_i));
	sequence(nonce_r, 0x80, sizeof(nonce_r));
	sequence(shared, 0xc0, sizeof(shared));
	input.shared = view_of(shared, sizeof(shared));
	input.nonce_i = view_of(nonce_i, sizeof(nonce_i));
	input.nonce_r = view_of(nonce_r, sizeof(nonce_r));
	input.spi_i = SPI_I;
	input.spi_r = SPI_R;
	return input;
}

static void
keys_of_an_ike_sa(void **state)
{
	struct v2_key_input input = key_input();
	struct suite suite = suite_cbc();
	struct secret keys = { NULL, 0 };

	(void)state;
	assert_int_equal(v2_key_derive(&suite, &input, &keys), OK);
	assert_hex(secret_view(&keys),
	    "8bc92b5fe230fb70992c05002903201242afe1345eec38be1a0b331702aeb37c"
	    "0d550e7e5d71bc62f6f625cb53bf69e54d55bc7b7168c3e26c1f8d084810d723"
	    "2e40f70c41088a9dd207dcd9da90c3554078e9b928ad2ac56c25316c21ea0b60"
	    "e5059888646c63a689356a2bc58256babde65f7c031dd16e67bb6e791330e2bb"
	    "39a1909cb546586c7d3ad82f45f7f1f876e7c6d7da00ade202f104ab36c91248"
	    "b5fef701a1238088f56a875f03967d28f7621ab0dd488b8ac07f8dfe11072f9"
	    "3");
	assert_hex(v2_key(&suite, &keys, V2_SK_EI),
	    "e5059888646c63a689356a2bc58256ba");
	assert_int_equal(v2_key(&suite, &keys, V2_SK_PR).len, 32);
	suite = suite_gcm();
	assert_int_equal(v2_key_derive(&suite, &input, &keys), OK);
	assert_hex(secret_view(&keys),
	    "280502553802584569a2047013e17b64b728cb69cec768ff931d41d2acaec6cf"
	    "a05241a03ff55abc4ee1f176aa391e9a8ca66055ba1760bfcbdd7f56b60c02b1"
	    "f98f53b0f77791d7baa2194bac66e410d5aa142e87809b652eead5040bae6587"
	    "0ca5d1b2e5973660751b81705be54ea79ee485fb3f2065f8636c4aadfb14b12a"
	    "43c8eaaebef9e0ea565404683157731ffb3223ae42a69854467e42efe3e5ddd2"
	    "44bc095caf003859a2d36745a9cee13ed82c2b94e6f654ce619f5521aa2cb242"
	    "4e496a1ad94e29b03b60968babb73bbe40274a77ee14b20666422e29dbd4efcf"
	    "0ef23e45f30f4f67b7c891936f7530bfad07ee25366e66931e43f66c56df056e"
	    "270cc61f96766aa3");
	assert_int_equal(v2_key(&suite, &keys, V2_SK_AI).len, 0);
	assert_int_equal(v2_key(&suite, &keys, V2_SK_EI).len, 36);
	secret_free(&keys);
	assert_int_equal(v2_key(&suite, &keys, V2_SK_D).len, 0);
}

static void
keys_of_a_rekeyed_ike_sa(void **state)
{
	struct v2_key_input input = key_input();
	struct suite old = suite_cbc(), suite = suite_gcm();
	struct secret keys = { NULL, 0 }, heir = { NULL, 0 };

	(void)state;
	assert_int_equal(v2_key_derive(&old, &input, &keys), OK);
	assert_int_equal(v2_key_rederive(&suite, old.prf,
	                     v2_key(&old, &keys, V2_SK_D), &input, &heir),
	    OK);
	assert_hex(v2_key(&suite, &heir, V2_SK_D),
	    "9065851ae515dec89602b9c6cf5e830922b07ecc9723b1f164fb473705a282c6"
	    "9cd29bb54c13214f37a38299c7880e8ae3af2a8ba6b72e21e718559c443e54a"
	    "e");
	secret_free(&keys);
	secret_free(&heir);
}

static void
keys_of_a_child(void **state)
{
	struct v2_key_input input = key_input();
	struct suite suite = suite_cbc();
	struct suite child =
	    suite_of(ALG_AES256_CBC, ALG_NONE, ALG_SHA256_128, ALG_NONE);
	struct secret keys = { NULL, 0 }, in = { NULL, 0 }, out = { NULL, 0 };
	struct view sk_d;

	(void)state;
	assert_int_equal(v2_key_derive(&suite, &input, &keys), OK);
	sk_d = v2_key(&suite, &keys, V2_SK_D);
	assert_int_equal(
	    v2_key_child(suite.prf, sk_d, view_of(NULL, 0), input.nonce_i,
	        input.nonce_r, &child, true, &in, &out),
	    OK);
	assert_hex(secret_view(&out),
	    "822f46f7c8152f9bf8271a1aa5730473b0f3e5e37c061c127f6ac8b8ef37230a"
	    "6524bc15b60e2b15d6fe3e13dffb9b11fd17b8d0500654b9eec1814de14af1c"
	    "8");
	assert_hex(secret_view(&in),
	    "d42bd40092ae0c448bd3bc4878ab1a5c85d4481b2868361d9942081f5c644daa"
	    "7bfa01af6923116b60d63fa1c37e78cf230260074f4519a23f5861af0c70add"
	    "9");
	/* The responder has them the other way round; with PFS, others. */
	child = suite_of(ALG_AES128_GCM16, ALG_NONE, ALG_NONE, ALG_CURVE25519);
	assert_int_equal(
	    v2_key_child(suite.prf, sk_d, input.shared, input.nonce_i,
	        input.nonce_r, &child, false, &in, &out),
	    OK);
	assert_hex(
	    secret_view(&in), "302b0c9d36881a6116c24093f184a945f25abcf5");
	assert_hex(
	    secret_view(&out), "f78a44730250659513df2d2435c4bb145542d5dc");
	secret_free(&keys);
	secret_free(&in);
	secret_free(&out);
}

static void
nonces_compare(void **state)
{
	uint8_t a[] = { 1, 2, 3 }, b[] = { 1, 2, 3, 0 }, c[] = { 0xff };

	(void)state;
	/* RFC 7296 2.8.1: not as numbers, and the end of one is lower. */
	assert_int_equal(v2_nonce_compare(view_of(a, 3), view_of(a, 3)), 0);
	assert_true(v2_nonce_compare(view_of(a, 3), view_of(b, 4)) < 0);
	assert_true(v2_nonce_compare(view_of(b, 4), view_of(a, 3)) > 0);
	assert_true(v2_nonce_compare(view_of(b, 4), view_of(c, 1)) < 0);
}

/* SA payloads ------------------------------------------------------------ */

struct chain {
	struct buf buf;
	struct wire_out out;
	uint8_t octets[8192];
};

static void
chain_init(struct chain *chain)
{
	buf_init(&chain->buf, chain->octets, sizeof(chain->octets));
	wire_start_chain(&chain->out, &chain->buf);
}

/* The body of the first payload in the chain. */
static struct view
chain_body(const struct chain *chain)
{
	assert_false(chain->buf.full);
	return view_of(chain->octets + 4, chain->buf.len - 4);
}

static struct proposals
proposals_of(enum ipsec_protocol protocol, const char *text)
{
	struct proposals proposals;
	const char *problem;
	bool strict;
	size_t at;

	memset(&proposals, 0, sizeof(proposals));
	assert_int_equal(
	    proposals_parse(&proposals, protocol, text, &strict, &at, &problem),
	    OK);
	return proposals;
}

static void
proposals_cross_the_wire(void **state)
{
	struct proposals ours = proposals_of(
	    PROTO_IKE, "aes256-sha256-modp2048,aes128gcm16-prfsha256-ecp256");
	struct offer *offers;
	struct choice choice;
	struct suite suite;
	struct chain chain;
	uint8_t spi[8];
	size_t count;

	(void)state;
	sequence(spi, 1, sizeof(spi));
	chain_init(&chain);
	v2_sapay_put(&chain.out, &ours, view_of(spi, 8), false);
	assert_int_equal(v2_sapay_read(chain_body(&chain), PROTO_IKE, 8, false,
	                     &offers, &count),
	    OK);
	assert_int_equal(count, 2);
	assert_int_equal(offers[0].number, 1);
	assert_int_equal(offers[1].number, 2);
	assert_memory_equal(offers[1].spi, spi, 8);
	assert_int_equal(offers[0].count, 4);
	assert_int_equal(offers[1].count, 3);
	assert_int_equal(
	    proposals_choose(&ours, &offers[1], 1, false, false, &choice), OK);
	assert_int_equal(choice.suite.encr->id, ALG_AES128_GCM16);
	/* The answer. */
	chain_init(&chain);
	v2_sapay_put_chosen(&chain.out, offers[1].number, PROTO_IKE,
	    &choice.suite, view_of(spi, 8));
	free(offers);
	assert_int_equal(v2_sapay_read(chain_body(&chain), PROTO_IKE, 8, true,
	                     &offers, &count),
	    OK);
	assert_int_equal(count, 1);
	assert_int_equal(offers[0].number, 2);
	assert_int_equal(
	    proposals_accept(&ours, &offers[0], false, &suite), OK);
	assert_true(suite_equal(&suite, &choice.suite));
	free(offers);
	/* Another SPI size, or another protocol: nobody chooses it. */
	assert_int_equal(v2_sapay_read(chain_body(&chain), PROTO_IKE, 0, true,
	                     &offers, &count),
	    OK);
	assert_int_equal(offers[0].protocol, PROTO_NONE);
	free(offers);
}

static void
esp_has_esn_and_no_group_in_auth(void **state)
{
	struct proposals ours =
	    proposals_of(PROTO_ESP, "aes128-sha256-modp2048");
	struct offer *offers;
	struct chain chain;
	uint8_t spi[4] = { 1, 2, 3, 4 };
	unsigned i, kex = 0, esn = 0;
	size_t count;

	(void)state;
	chain_init(&chain);
	v2_sapay_put(&chain.out, &ours, view_of(spi, 4), true);
	assert_int_equal(v2_sapay_read(chain_body(&chain), PROTO_ESP, 4, false,
	                     &offers, &count),
	    OK);
	for (i = 0; i < offers[0].count; i++) {
		kex += offers[0].transform[i].kind == ALG_KEX;
		esn += offers[0].transform[i].kind == ALG_KINDS;
	}
	assert_int_equal(kex, 0);
	assert_true(esn >= 1);
	free(offers);
}

/* AEAD and other ciphers in one line of ike= part on the wire. */
static void
aead_stands_alone(void **state)
{
	struct proposals ours =
	    proposals_of(PROTO_IKE, "aes128-sha256-modp2048");
	struct offer *offers;
	struct chain chain;
	unsigned i;
	size_t count;

	(void)state;
	ours.item[0].alg[ALG_ENCR][ours.item[0].count[ALG_ENCR]++] =
	    ALG_AES128_GCM16;
	chain_init(&chain);
	v2_sapay_put(&chain.out, &ours, view_of(NULL, 0), false);
	assert_int_equal(v2_sapay_read(chain_body(&chain), PROTO_IKE, 0, false,
	                     &offers, &count),
	    OK);
	assert_int_equal(count, 2);
	for (i = 0; i < offers[1].count; i++)
		assert_int_not_equal(offers[1].transform[i].kind, ALG_INTEG);
	free(offers);
}

static enum err
read_hex(const char *text, bool answer, struct offer **offers, size_t *count)
{
	uint8_t octets[1024];
	size_t len = unhex(text, octets, sizeof(octets));

	return v2_sapay_read(
	    view_of(octets, len), PROTO_IKE, 0, answer, offers, count);
}

static void
hostile_proposals(void **state)
{
	/* aes256 with key length, one transform. */
	const char *good = "0000001401010001"
	                   "0000000c0100000c800e0100";
	static const char *const bad[] = {
		"",                 /* nothing */
		"0000000801010001", /* transform lost */
		"0000000701010001", /* length 7 */
		"0000ffff01010001", /* too long */
		"0100001401010001"
		"0000000c0100000c800e0100", /* "more" 1 */
		"0200001401010001"
		"0000000c0100000c800e0100", /* more, none */
		"0000001401010002"
		"0000000c0100000c800e0100", /* count 2 */
		"0000001401010000"
		"0000000c0100000c800e0100", /* count 0 */
		"0000001401010001"
		"0300000c0100000c800e0100", /* more, none */
		"0000001401010001"
		"0000000b0100000c800e0100", /* short attr */
		"0000001401010001"
		"000000070100000c800e0100", /* length 7 */
		"0000001401010001"
		"0000000d0100000c800e0100", /* beyond */
		"0000001402010001"
		"0000000c0100000c800e0100", /* number 2 */
		"0000001400010001"
		"0000000c0100000c800e0100", /* number 0 */
		"0000001401010901"
		"0000000c0100000c800e0100", /* SPI beyond */
		"0000001401010001"
		"0000000c0100000c000effff", /* TLV beyond */
	};
	struct offer *offers;
	size_t count, i;

	(void)state;
	assert_int_equal(read_hex(good, false, &offers, &count), OK);
	assert_ptr_equal(offers[0].transform[0].alg, alg_get(ALG_AES256_CBC));
	free(offers);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (read_hex(bad[i], false, &offers, &count) == OK)
			fail_msg("accepted %s", bad[i]);
	}
	/* An unknown attribute voids the transform, not the proposal. */
	assert_int_equal(read_hex("0000001801010001"
	                          "000000100100000c800e010080110001",
	                     false, &offers, &count),
	    OK);
	assert_true(offers[0].transform[0].broken);
	assert_null(offers[0].transform[0].alg);
	free(offers);
	/* An unknown transform type voids the proposal. */
	assert_int_equal(read_hex("0000001401010001"
	                          "0000000c0f00000c800e0100",
	                     false, &offers, &count),
	    OK);
	assert_int_equal(offers[0].protocol, PROTO_NONE);
	free(offers);
}

static void
proposals_have_bounds(void **state)
{
	struct buf buf;
	static uint8_t octets[8 * (OFFERS_MAX + 1)];
	struct offer *offers;
	unsigned n, i;
	size_t count;
	enum err err;

	(void)state;
	for (n = OFFERS_MAX - 1; n <= OFFERS_MAX + 1; n++) {
		buf_init(&buf, octets, sizeof(octets));
		for (i = 1; i <= n; i++) {
			buf_u8(&buf, i == n ? 0 : 2);
			buf_u8(&buf, 0);
			buf_u16(&buf, 8);
			buf_u8(&buf, (uint8_t)i);
			buf_u8(&buf, PROTO_IKE);
			buf_u16(&buf, 0);
		}
		err = v2_sapay_read(
		    buf_done(&buf), PROTO_IKE, 0, false, &offers, &count);
		if (n > OFFERS_MAX) {
			assert_int_equal(err, ERR_LONG);
			continue;
		}
		assert_int_equal(err, OK);
		assert_int_equal(count, n);
		free(offers);
	}
}

/* Transforms beyond the bound are read past, and nothing overflows. */
static void
transforms_have_bounds(void **state)
{
	struct buf buf;
	static uint8_t octets[8 + 8 * (OFFER_TRANSFORMS + 1)];
	struct offer *offers;
	unsigned n, i;
	size_t count;

	(void)state;
	for (n = OFFER_TRANSFORMS - 1; n <= OFFER_TRANSFORMS + 1; n++) {
		buf_init(&buf, octets, sizeof(octets));
		buf_u16(&buf, 0);
		buf_u16(&buf, (uint16_t)(8 + 8 * n));
		buf_u8(&buf, 1);
		buf_u8(&buf, PROTO_IKE);
		buf_u8(&buf, 0);
		buf_u8(&buf, (uint8_t)n);
		for (i = 1; i <= n; i++) {
			buf_u16(&buf, i == n ? 0 : 0x0300);
			buf_u16(&buf, 8);
			buf_u16(&buf, 0x0400);
			buf_u16(&buf, (uint16_t)i);
		}
		assert_int_equal(v2_sapay_read(buf_done(&buf), PROTO_IKE, 0,
		                     false, &offers, &count),
		    OK);
		assert_int_equal(offers[0].count,
		    n < OFFER_TRANSFORMS ? n : OFFER_TRANSFORMS);
		free(offers);
	}
}

/* Every prefix and every flipped bit of a good payload: an error or an offer,
 * and no octet read beyond (the sanitizers watch). */
static void
mutilated_proposals(void **state)
{
	struct proposals ours;
	struct offer *offers;
	struct chain chain;
	struct view body;
	uint8_t *copy;
	size_t count, len, bit;

	(void)state;
	proposals_default(&ours, PROTO_IKE);
	chain_init(&chain);
	v2_sapay_put(&chain.out, &ours, view_of(NULL, 0), false);
	body = chain_body(&chain);
	for (len = 0; len < body.len; len++) {
		copy = mem_dup(body.at, len);
		assert_non_null(copy);
		assert_int_not_equal(v2_sapay_read(view_of(copy, len),
		                         PROTO_IKE, 0, false, &offers, &count),
		    OK);
		free(copy);
	}
	copy = mem_dup(body.at, body.len);
	assert_non_null(copy);
	for (bit = 0; bit < body.len * 8; bit++) {
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (v2_sapay_read(view_of(copy, body.len), PROTO_IKE, 0, false,
		        &offers, &count) == OK)
			free(offers);
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	free(copy);
}

/* The other bodies ------------------------------------------------------- */

static struct ts
ts_of(const char *text)
{
	const char *problem;
	struct ts ts;

	assert_int_equal(ts_parse(&ts, text, &problem), OK);
	return ts;
}

static void
selectors_cross_the_wire(void **state)
{
	struct ts_list list = { 0 }, read;
	struct chain chain;
	struct ts ts;

	(void)state;
	ts = ts_of("10.1.0.0/16");
	assert_int_equal(ts_list_add(&list, &ts), OK);
	ts = ts_of("10.2.0.1-10.2.0.9");
	assert_int_equal(ts_list_add(&list, &ts), OK);
	ts = ts_of("2001:db8::/32[udp/53]");
	assert_int_equal(ts_list_add(&list, &ts), OK);
	chain_init(&chain);
	v2_ts_put(&chain.out, P2_TSI, &list);
	assert_int_equal(v2_ts_read(chain_body(&chain), NULL, &read), OK);
	assert_true(ts_list_equal(&list, &read));
}

static enum err
read_ts(const char *text, struct ts_list *list)
{
	uint8_t octets[512];
	size_t len = unhex(text, octets, sizeof(octets));

	return v2_ts_read(view_of(octets, len), NULL, list);
}

#define TS4 "070000100000ffff0a0000000a0000ff"

static void
hostile_selectors(void **state)
{
	static const char *const bad[] = {
		"", "010000", "00000000", /* none */
		"02000000" TS4,           /* one is missing */
		"01000000" TS4 "00",      /* a tail */
		"01000000"
		"070000100000ffff0a0000ff0a000000", /* end < start */
		"01000000"
		"070000100001000000000000ffffffff", /* ports */
		"01000000"
		"070000070000ffff0a0000000a0000ff", /* length 7 */
		"01000000"
		"080000100000ffff0a0000000a0000ff", /* v6, v4's size */
		"01000000"
		"070000ff0000ffff0a0000000a0000ff", /* beyond */
	};
	struct ts_list list;
	char many[8 + (TS_MAX + 1) * 32 + 1];
	size_t i;
	int n;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (read_ts(bad[i], &list) == OK)
			fail_msg("accepted %s", bad[i]);
	assert_int_equal(read_ts("01000000" TS4, &list), OK);
	assert_int_equal(list.count, 1);
	/* Another type is left out. */
	assert_int_equal(read_ts("02000000"
	                         "0900000c0000ffff00000000" TS4,
	                     &list),
	    OK);
	assert_int_equal(list.count, 1);
	for (n = TS_MAX - 1; n <= TS_MAX + 1; n++) {
		snprintf(many, sizeof(many), "%02x000000", (unsigned)n);
		for (i = 0; i < (size_t)n; i++)
			strcat(many, TS4);
		assert_int_equal(read_ts(many, &list), OK);
		assert_int_equal(list.count, n < TS_MAX ? n : TS_MAX);
	}
}

/* RFC 7296 2.23.1: outer addresses take the place of single addresses of the
 * same family, and of nothing else: the originals correct checksums. */
static void
nat_is_undone_in_one_family(void **state)
{
	static const struct {
		const char *local, *remote;
		enum err err;
	} row[] = {
		{ "10.0.0.5/32", "10.0.0.6/32", OK },
		{ "2001:db8::5/128", "10.0.0.6/32", ERR_TS },
		{ "10.0.0.5/32", "2001:db8::6/128", ERR_TS },
		{ "10.0.0.4/31", "10.0.0.6/32", ERR_TS },
	};
	struct ike_sa sa = { .nat_remote = true };
	size_t i;

	(void)state;
	assert_true(addr_parse(&sa.local.addr, "192.0.2.1"));
	assert_true(addr_parse(&sa.remote.addr, "192.0.2.2"));
	for (i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct ts_list local = { .count = 1,
			.item = { ts_of(row[i].local) } };
		struct ts_list remote = { .count = 1,
			.item = { ts_of(row[i].remote) } };
		struct endpoint own, peer;

		assert_int_equal(
		    v2_child_undo_nat(&sa, &local, &remote, &own, &peer),
		    row[i].err);
		if (row[i].err != OK)
			continue;
		assert_true(addr_equal(&local.item[0].last, &sa.local.addr));
		assert_true(addr_equal(&remote.item[0].first, &sa.remote.addr));
	}
}

static void
small_bodies(void **state)
{
	static const uint8_t fqdn[] = { 2, 9, 9, 9, 'a', '.', 'b' };
	static const uint8_t subnet[] = { 4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8 };
	static const uint8_t address[] = { 1, 0, 0, 0, 1, 2, 3, 4, 5 };
	static const uint8_t esp[] = { 3, 4, 0, 1, 1, 2, 3, 4 };
	static const uint8_t ike[] = { 1, 0, 0, 0 };
	uint32_t spis[2] = { 0x01020304, 5 };
	struct chain chain;
	struct ident *ident = NULL;
	struct view rest;
	uint16_t number;
	uint8_t protocol;

	(void)state;
	/* Reserved octets are ignored here (AUTH covers them as they are). */
	assert_int_equal(v2_id_read(view_of(fqdn, sizeof(fqdn)), &ident), OK);
	assert_int_equal(ident->type, ID_FQDN);
	ident_unref(ident);
	assert_int_not_equal(v2_id_read(view_of(fqdn, 3), &ident), OK);
	assert_int_not_equal(
	    v2_id_read(view_of(subnet, sizeof(subnet)), &ident), OK);
	assert_int_not_equal(
	    v2_id_read(view_of(address, sizeof(address)), &ident), OK);
	chain_init(&chain);
	v2_delete_put(&chain.out, spis, 2);
	assert_int_equal(
	    v2_delete_read(chain_body(&chain), &protocol, &number, &rest), OK);
	assert_int_equal(protocol, PROTO_ESP);
	assert_int_equal(number, 2);
	assert_int_equal(rest.len, 8);
	chain_init(&chain);
	v2_delete_put(&chain.out, NULL, 0);
	assert_int_equal(
	    v2_delete_read(chain_body(&chain), &protocol, &number, &rest), OK);
	assert_int_equal(protocol, PROTO_IKE);
	assert_int_equal(
	    v2_delete_read(view_of(ike, 4), &protocol, &number, &rest), OK);
	assert_int_equal(
	    v2_delete_read(view_of(esp, 8), &protocol, &number, &rest), OK);
	assert_int_not_equal(
	    v2_delete_read(view_of(esp, 7), &protocol, &number, &rest), OK);
	assert_int_not_equal(v2_ke_read(view_of(ike, 3), &number, &rest), OK);
	assert_int_equal(v2_ke_read(view_of(ike, 4), &number, &rest), OK);
	assert_int_equal(rest.len, 0);
}

/* Encryption ------------------------------------------------------------- */

/* Both directions of one suite, with keys derived as in the first test. */
struct pair {
	struct suite suite;
	struct secret keys;
	struct v2_sk_keys i;
};

static void
pair_init(struct pair *pair, struct suite suite)
{
	struct v2_key_input input = key_input();

	memset(pair, 0, sizeof(*pair));
	pair->suite = suite;
	assert_int_equal(v2_key_derive(&pair->suite, &input, &pair->keys), OK);
	pair->i.suite = &pair->suite;
	pair->i.encr = v2_key(&pair->suite, &pair->keys, V2_SK_EI);
	pair->i.integ = v2_key(&pair->suite, &pair->keys, V2_SK_AI);
}

static struct msg *
msg_of(struct view octets)
{
	struct msg *msg = NULL;
	struct wire_header header;
	struct view rest;

	assert_int_equal(wire_header_read(octets, &header), OK);
	assert_int_equal(msg_new(&msg, octets), OK);
	rest = msg->whole;
	assert_true(view_skip(&rest, WIRE_HEADER));
	assert_int_equal(
	    wire_payloads_read(msg, 2, header.next, rest, false), OK);
	return msg;
}

static void
open_known(struct suite suite, const char *text)
{
	struct pair pair;
	struct v2_sk_part part;
	struct msg *msg;
	uint8_t octets[256];
	size_t len = unhex(text, octets, sizeof(octets)), bit;

	pair_init(&pair, suite);
	msg = msg_of(view_of(octets, len));
	assert_int_equal(v2_sk_open(&pair.i, msg, &part), OK);
	assert_int_equal(part.first, P2_N);
	assert_int_equal(part.total, 0);
	assert_hex(
	    view_of(msg->opened, msg->opened_len), "0000000c0304400912345678");
	msg_free(msg);
	/* Whatever bit is flipped: never opened. The length and what leads the
	 * chain make other messages, which are not ours to test here. */
	for (bit = 0; bit < len * 8; bit++) {
		if ((bit / 8 >= 24 && bit / 8 < 28) || bit / 8 == 16 ||
		    (bit / 8 >= 30 && bit / 8 < 32))
			continue;
		octets[bit / 8] ^= (uint8_t)(1 << bit % 8);
		msg = msg_of(view_of(octets, len));
		assert_int_equal(v2_sk_open(&pair.i, msg, &part), ERR_AUTH);
		assert_null(msg->opened);
		msg_free(msg);
		octets[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	secret_free(&pair.keys);
}

static void
known_messages_open(void **state)
{
	(void)state;
	open_known(suite_cbc(),
	    "010203040506070811121314151617182e202508000000050000005029000034"
	    "303132333435363738393a3b3c3d3e3fb982b61776f45610b6702fcd349dfdea"
	    "8487fd5952634d9d4932bfe87230e953");
	open_known(suite_gcm(),
	    "010203040506070811121314151617182e202508000000050000004529000029"
	    "0102030405060708f86106d9d4976d5f75da399323e54bf269a02cd2d47f75c6"
	    "ce77e897cd");
	open_known(suite_of(ALG_CHACHA20_POLY1305, ALG_PRF_SHA512, ALG_NONE,
	               ALG_CURVE25519),
	    "010203040506070811121314151617182e202508000000050000004529000029"
	    "0102030405060708776d5d7021d7f51995f0c326902a92a8e1bef5237c5766a7"
	    "ec1dfbb861");
}

static const struct wire_header plain_header = {
	.spi_i = SPI_I,
	.spi_r = SPI_R,
	.major = 2,
	.exchange = EXCH_INFORMATIONAL,
	.flags = FLAG_INITIATOR,
	.id = 7,
};

static void
every_suite_and_length(void **state)
{
	static const enum alg_id encr[] = { ALG_AES128_CBC, ALG_AES192_CBC,
		ALG_AES256_CBC, ALG_3DES_CBC, ALG_AES128_GCM16,
		ALG_AES192_GCM16, ALG_AES256_GCM16, ALG_CHACHA20_POLY1305 };
	static const enum alg_id integ[] = { ALG_SHA1_96, ALG_SHA256_128,
		ALG_SHA384_192, ALG_SHA512_256 };
	struct flight flight = { NULL, 0, 0 };
	struct v2_sk_part part;
	struct pair pair;
	struct msg *msg;
	uint8_t text[70];
	uint64_t iv = 0;
	size_t i, j, len;

	(void)state;
	sequence(text, 0, sizeof(text));
	for (i = 0; i < sizeof(encr) / sizeof(encr[0]); i++) {
		for (j = 0; j < sizeof(integ) / sizeof(integ[0]); j++) {
			pair_init(
			    &pair, suite_of(encr[i], ALG_PRF_SHA384,
			               alg_is_aead(alg_get(encr[i])) ? ALG_NONE
			                                             : integ[j],
			               ALG_ECP384));
			for (len = 0; len <= sizeof(text); len++) {
				assert_int_equal(
				    v2_sk_seal(&env, &pair.i, &iv,
				        &plain_header, len == 0 ? 0 : P2_N,
				        view_of(text, len), 0, &flight),
				    OK);
				msg = msg_of(flight_first(&flight));
				assert_int_equal(
				    v2_sk_open(&pair.i, msg, &part), OK);
				assert_int_equal(msg->opened_len, len);
				assert_memory_equal(msg->opened, text, len);
				msg_free(msg);
				flight_clear(&flight);
			}
			secret_free(&pair.keys);
		}
	}
	assert_true(iv > 0);
}

static void
hostile_padding_and_tails(void **state)
{
	struct flight flight = { NULL, 0, 0 };
	struct pair pair;
	struct v2_sk_part part;
	struct msg *msg;
	uint64_t iv = 0;
	uint8_t octets[512];
	struct view packet;
	size_t len;

	(void)state;
	pair_init(&pair, suite_gcm());
	assert_int_equal(v2_sk_seal(&env, &pair.i, &iv, &plain_header, 0,
	                     view_of(NULL, 0), 0, &flight),
	    OK);
	packet = flight_first(&flight);
	memcpy(octets, packet.at, packet.len);
	/* Too short for IV and ICV, octet by octet. */
	for (len = WIRE_HEADER + 6; len < packet.len; len++) {
		octets[27] = (uint8_t)len;
		octets[31] = (uint8_t)(len - WIRE_HEADER);
		msg = msg_of(view_of(octets, len));
		assert_int_equal(v2_sk_open(&pair.i, msg, &part), ERR_AUTH);
		msg_free(msg);
	}
	flight_clear(&flight);
	/* A message without SK. */
	octets[16] = 0;
	octets[27] = WIRE_HEADER;
	msg = msg_of(view_of(octets, WIRE_HEADER));
	assert_int_equal(v2_sk_open(&pair.i, msg, &part), ERR_NOT_FOUND);
	assert_int_equal(v2_sk_fragment(msg), 0);
	msg_free(msg);
	/* More than we ever write. */
	assert_int_equal(v2_sk_seal(&env, &pair.i, &iv, &plain_header, P2_N,
	                     view_of(octets, V2_SK_CHAIN + 1), 0, &flight),
	    ERR_LONG);
	secret_free(&pair.keys);
}

/* Fragments -------------------------------------------------------------- */

struct pieces {
	struct msg *msg[80];
	size_t count;
};

static void
split(struct pieces *pieces, const struct pair *pair, struct view text,
    size_t limit)
{
	struct flight flight = { NULL, 0, 0 };
	struct view rest, packet;
	uint64_t iv = 0;
	uint16_t len;

	pieces->count = 0;
	assert_int_equal(v2_sk_seal(&env, &pair->i, &iv, &plain_header, P2_CERT,
	                     text, limit, &flight),
	    OK);
	rest = view_of(flight.octets, flight.len);
	while (view_u16(&rest, &len) && view_take(&rest, len, &packet)) {
		assert_true(limit == 0 || packet.len <= limit);
		assert_true(pieces->count < 80);
		pieces->msg[pieces->count++] = msg_of(packet);
	}
	flight_clear(&flight);
}

static void
pieces_free(struct pieces *pieces)
{
	size_t i;

	for (i = 0; i < pieces->count; i++)
		msg_free(pieces->msg[i]);
	pieces->count = 0;
}

static enum err
add(struct v2_frag **frag, const struct pair *pair, struct msg *msg,
    bool *whole, struct v2_sk_part *part)
{
	assert_int_equal(v2_sk_open(&pair->i, msg, part), OK);
	return v2_frag_add(frag, msg, part, whole);
}

static void
fragments_join_in_any_order(void **state)
{
	static uint8_t text[5000];
	struct suite suites[] = { suite_cbc(), suite_gcm() };
	struct pieces pieces;
	struct v2_frag *frag = NULL;
	struct v2_sk_part part;
	struct pair pair;
	bool whole = false;
	size_t i, n, turn;

	(void)state;
	sequence(text, 3, sizeof(text));
	for (turn = 0; turn < 2; turn++) {
		pair_init(&pair, suites[turn]);
		split(&pieces, &pair, view_of(text, sizeof(text)), 600);
		assert_true(pieces.count >= 9);
		assert_int_equal(v2_sk_fragment(pieces.msg[0]), 1);
		/* Backwards, each twice. */
		for (i = pieces.count; i-- > 0;) {
			for (n = 0; n < 2 && !whole; n++)
				assert_int_equal(
				    add(&frag, &pair, pieces.msg[i], &whole,
				        &part),
				    OK);
			assert_int_equal(whole, i == 0);
		}
		assert_null(frag);
		assert_int_equal(part.first, P2_CERT);
		assert_int_equal(pieces.msg[0]->opened_len, sizeof(text));
		assert_memory_equal(pieces.msg[0]->opened, text, sizeof(text));
		whole = false;
		pieces_free(&pieces);
		secret_free(&pair.keys);
	}
}

static void
fragment_limits(void **state)
{
	static uint8_t text[2000];
	struct pair pair;
	struct pieces pieces;
	size_t len, limit = 400, most = 0;

	(void)state;
	pair_init(&pair, suite_cbc());
	/* The largest message that needs no fragments, and one octet more. */
	for (len = 1; len < sizeof(text); len++) {
		split(&pieces, &pair, view_of(text, len), limit);
		if (pieces.count == 1) {
			assert_int_equal(v2_sk_fragment(pieces.msg[0]), 0);
			most = len;
		} else {
			assert_int_equal(v2_sk_fragment(pieces.msg[0]), 1);
			assert_int_equal(v2_sk_fragment(pieces.msg[1]), 2);
		}
		pieces_free(&pieces);
		if (len > most + 1)
			break;
	}
	/* 28 + 4 + 16 IV + 16 ICV: 336 octets, pad length one of them. */
	assert_int_equal(most, 335);
	secret_free(&pair.keys);
}

static void
larger_total_begins_anew(void **state)
{
	static uint8_t text[1500];
	struct pair pair;
	struct pieces few, many;
	struct v2_frag *frag = NULL;
	struct v2_sk_part part;
	bool whole = false;
	size_t i;

	(void)state;
	pair_init(&pair, suite_gcm());
	split(&few, &pair, view_of(text, sizeof(text)), 900);
	split(&many, &pair, view_of(text, sizeof(text)), 500);
	assert_int_equal(few.count, 2);
	assert_true(many.count > 2);
	assert_int_equal(add(&frag, &pair, few.msg[0], &whole, &part), OK);
	assert_int_equal(add(&frag, &pair, many.msg[0], &whole, &part), OK);
	/* The first lot is out of the game. */
	assert_int_equal(add(&frag, &pair, few.msg[1], &whole, &part), OK);
	assert_false(whole);
	for (i = 1; i < many.count; i++)
		assert_int_equal(
		    add(&frag, &pair, many.msg[i], &whole, &part), OK);
	assert_true(whole);
	assert_null(frag);
	pieces_free(&few);
	pieces_free(&many);
	secret_free(&pair.keys);
}

static void
fragments_have_bounds(void **state)
{
	static uint8_t text[V2_SK_CHAIN];
	struct pair pair;
	struct pieces pieces;
	struct v2_frag *frag = NULL;
	struct v2_sk_part part;
	bool whole = false;
	size_t n, i;
	enum err err;

	(void)state;
	pair_init(&pair, suite_gcm());
	/* 28 + 8 + 8 + 16 + 1: 39 octets of text in a packet of 100. */
	for (n = V2_FRAGMENTS - 1; n <= V2_FRAGMENTS + 1; n++) {
		split(&pieces, &pair, view_of(text, 39 * n), 100);
		assert_int_equal(pieces.count, n);
		for (i = 0, err = OK; i < n && err == OK; i++)
			err = add(&frag, &pair, pieces.msg[i], &whole, &part);
		assert_int_equal(err, n > V2_FRAGMENTS ? ERR_LONG : OK);
		assert_int_equal(whole, n <= V2_FRAGMENTS);
		v2_frag_free(frag);
		frag = NULL;
		whole = false;
		pieces_free(&pieces);
	}
	v2_frag_free(NULL);
	secret_free(&pair.keys);
}

/* The table -------------------------------------------------------------- */

static const struct rule *
match(uint8_t ike, uint8_t exchange, uint8_t role, uint8_t state, bool sealed,
    kind_set seen)
{
	struct ike_sa sa = { .state = ike };
	struct exchange x = { .type = exchange, .role = role, .state = state };
	struct msg *msg = calloc(1, sizeof(*msg));
	const struct rule *rule;
	char text[200];
	enum err err;

	assert_non_null(msg);
	msg->sealed = sealed;
	msg->seen = seen;
	rule = fsm_match(&v2_fsm, &sa, &x, msg, &err, text, sizeof(text));
	free(msg);
	return rule;
}

#define SA3  (KIND_BIT(SA) | KIND_BIT(KE) | KIND_BIT(NONCE))
#define TS2  (KIND_BIT(TSI) | KIND_BIT(TSR))
#define AUTH (KIND_BIT(IDI) | KIND_BIT(AUTH) | KIND_BIT(SA) | TS2)

/* Every message in every state of either role, in every state of the IKE SA,
 * in clear and sealed: what finds a row is what the protocol allows. */
static void
every_message_in_every_state(void **state)
{
	static const kind_set messages[] = { 0, SA3, SA3 | KIND_BIT(N_COOKIE),
		KIND_BIT(N_COOKIE), KIND_BIT(N_INVALID_KE), KIND_BIT(N_ERROR),
		AUTH, AUTH | KIND_BIT(IDR), KIND_BIT(IDR) | KIND_BIT(AUTH),
		KIND_BIT(IDI) | KIND_BIT(SA) | TS2, SA3 | TS2,
		KIND_BIT(SA) | KIND_BIT(NONCE) | TS2,
		KIND_BIT(N_REKEY_SA) | KIND_BIT(SA) | KIND_BIT(NONCE) | TS2,
		KIND_BIT(N_REKEY_SA) | SA3, KIND_BIT(DELETE),
		KIND_BIT(N_TEMPORARY_FAILURE), KIND_BIT(N_CHILD_NOT_FOUND),
		KIND_BIT(N_AUTH_FAILED), KIND_BIT(SA), KIND_BIT(UNKNOWN) };
	const struct rule *rule;
	unsigned ike, exchange, role, x, sealed;
	size_t i, found = 0;

	(void)state;
	for (ike = IKE_NEW; ike <= IKE_DEAD; ike++)
		for (exchange = 30; exchange < 50; exchange++)
			for (role = 0; role < 2; role++)
				for (x = V2_IDLE; x <= V2_DONE + 1; x++)
					for (sealed = 0; sealed < 2; sealed++)
						for (i = 0;
						     i <
						     sizeof(messages) /
						         sizeof(messages[0]);
						     i++) {
							if (x == V2_START)
								continue; /* nothing is delivered there */
							rule = match(
							    (uint8_t)ike,
							    (uint8_t)exchange,
							    (uint8_t)role,
							    (uint8_t)x, sealed,
							    messages[i]);
							if (rule == NULL)
								continue;
							found++;
							/* IKE_SA_INIT alone is in clear, and before an identity is
		 * proven only IKE_AUTH is looked at. */
							assert_int_equal(sealed,
							    exchange !=
							        EXCH_IKE_SA_INIT);
							assert_true(
							    ike != IKE_DEAD);
							if (ike <=
							    IKE_HALF_OPEN)
								assert_true(
								    exchange ==
								        EXCH_IKE_SA_INIT ||
								    exchange ==
								        EXCH_IKE_AUTH);
							else
								assert_true(
								    exchange ==
								        EXCH_CREATE_CHILD_SA ||
								    exchange ==
								        EXCH_INFORMATIONAL);
							/* Requests find the responder idle, responses an initiator
		 * that waits for them. */
							if (role ==
							    ROLE_RESPONDER)
								assert_int_equal(
								    x, V2_IDLE);
							else
								assert_true(
								    x >=
								        V2_AWAIT_INIT &&
								    x <=
								        V2_AWAIT_INFO);
							assert_true(
							    (messages[i] &
							        rule->must) ==
							    rule->must);
						}
	assert_true(found > 50);
}

static void
rows_say_what_they_are(void **state)
{
	const struct rule *rule;
	size_t i;

	(void)state;
	for (i = 0; i < v2_fsm.count; i++) {
		rule = &v2_fsm.rules[i];
		assert_non_null(rule->shows);
		assert_non_null(strstr(rule->cites, "RFC 7296"));
		assert_non_null(rule->steps[0]);
		assert_int_equal(rule->next_count, 1);
		assert_true((rule->must & rule->not ) == 0);
		if (rule->state == V2_START)
			assert_true(rule->must == 0);
	}
	assert_ptr_equal(v2_rules_begin(WANT_PROBE)->steps[0],
	    v2_rules_begin(WANT_DELETE)->steps[0]);
}

static void
create_child_is_told_apart(void **state)
{
	const kind_set child = KIND_BIT(SA) | KIND_BIT(NONCE) | TS2;
	const struct rule *rekey, *fresh, *ike;

	(void)state;
	rekey = match(IKE_ESTABLISHED, EXCH_CREATE_CHILD_SA, ROLE_RESPONDER,
	    V2_IDLE, true, child | KIND_BIT(N_REKEY_SA));
	fresh = match(IKE_ESTABLISHED, EXCH_CREATE_CHILD_SA, ROLE_RESPONDER,
	    V2_IDLE, true, child);
	ike = match(IKE_ESTABLISHED, EXCH_CREATE_CHILD_SA, ROLE_RESPONDER,
	    V2_IDLE, true, SA3);
	assert_non_null(rekey);
	assert_non_null(fresh);
	assert_non_null(ike);
	assert_true(rekey != fresh && fresh != ike && rekey != ike);
	/* An IKE rekey without KE is none (RFC 7296 1.3.2). */
	assert_null(match(IKE_ESTABLISHED, EXCH_CREATE_CHILD_SA, ROLE_RESPONDER,
	    V2_IDLE, true, KIND_BIT(SA) | KIND_BIT(NONCE)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_of_an_ike_sa),
		cmocka_unit_test(keys_of_a_rekeyed_ike_sa),
		cmocka_unit_test(keys_of_a_child),
		cmocka_unit_test(nonces_compare),
		cmocka_unit_test(proposals_cross_the_wire),
		cmocka_unit_test(esp_has_esn_and_no_group_in_auth),
		cmocka_unit_test(aead_stands_alone),
		cmocka_unit_test(hostile_proposals),
		cmocka_unit_test(proposals_have_bounds),
		cmocka_unit_test(transforms_have_bounds),
		cmocka_unit_test(mutilated_proposals),
		cmocka_unit_test(selectors_cross_the_wire),
		cmocka_unit_test(hostile_selectors),
		cmocka_unit_test(nat_is_undone_in_one_family),
		cmocka_unit_test(small_bodies),
		cmocka_unit_test(known_messages_open),
		cmocka_unit_test(every_suite_and_length),
		cmocka_unit_test(hostile_padding_and_tails),
		cmocka_unit_test(fragments_join_in_any_order),
		cmocka_unit_test(fragment_limits),
		cmocka_unit_test(larger_total_begins_anew),
		cmocka_unit_test(fragments_have_bounds),
		cmocka_unit_test(every_message_in_every_state),
		cmocka_unit_test(rows_say_what_they_are),
		cmocka_unit_test(create_child_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
