#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/proposal.h"
#include "common/wire.h"
#include "ikev1/key.h"
#include "ikev1/sapay.h"
#include "ikev1/select.h"
#include "ikev1/sk.h"
#include "ikev1/state.h"

/* Known answers --------------------------------------------------------- */

/* Computed by another implementation of HMAC and of RFC 2409's formulas, from
 * the inputs that fill() makes. */
static const struct vector {
	const char *name;
	const char *skeyid, *d, *a, *key, *hash_i, *hash_r, *iv1, *iv2, *hash1,
	    *hash2, *hash3, *keymat, *keymat_pfs;
} vectors[] = {
	{
	    .name = "sha1_aes256",
	    .skeyid = "48be1e60a3704ad8c5a168910df89f207f5864df",
	    .d = "c626d4638d70cd1bc1d71300dea4d68732c34fe7",
	    .a = "74c0e4df2fc30b133720c1e7f5f648b0a802bb96",
	    .key =
	        "45067384abd5afe7512dcfc465c1a72795218817a3c0eeab068ce4e2113a"
	        "2125",
	    .hash_i = "3f6766ec8d26ad66816cf90325a4258695e9c6f8",
	    .hash_r = "bc092ef7abd82ad92495f1eb90df61ce97ca21b6",
	    .iv1 = "43bde052a52729828665fcf68b52cbff",
	    .iv2 = "e24241e1fd4dd4b8f67911c58cfddccd",
	    .hash1 = "f9e79ebb208f38d07de83cd031f93ce791f7e5a8",
	    .hash2 = "5f409e13bcdad4582a62f8047c1994a2d32061eb",
	    .hash3 = "faf1e7616e513fa8d587d8ce8d70d1febe63ed88",
	    .keymat =
	        "d0d5f6845e1bf12148623f73b478ba5cd107de236e914f9f04ad2c742178"
	        "6697f4247d2ea1b0d85fe727de58e5ea0899ab7f46c0277938781e184c17"
	        "f36f6549e614538e40ee77d3",
	    .keymat_pfs =
	        "cd94145549c24e11b7a69705a739f365e8940dcf879b03550e32903b5f8d"
	        "b6406f8d11c5fc44f073feacc5d293e60f3c3531177798a883ba66420bf6"
	        "ecc8599e3d21e10a2be644a5",
	},
	{
	    .name = "sha1_3des",
	    .skeyid = "48be1e60a3704ad8c5a168910df89f207f5864df",
	    .d = "c626d4638d70cd1bc1d71300dea4d68732c34fe7",
	    .a = "74c0e4df2fc30b133720c1e7f5f648b0a802bb96",
	    .key = "45067384abd5afe7512dcfc465c1a72795218817a3c0eeab",
	    .hash_i = "3f6766ec8d26ad66816cf90325a4258695e9c6f8",
	    .hash_r = "bc092ef7abd82ad92495f1eb90df61ce97ca21b6",
	    .iv1 = "43bde052a52729828665fcf68b52cbff",
	    .iv2 = "e9d5aa9a144894ea",
	    .hash1 = "f9e79ebb208f38d07de83cd031f93ce791f7e5a8",
	    .hash2 = "5f409e13bcdad4582a62f8047c1994a2d32061eb",
	    .hash3 = "faf1e7616e513fa8d587d8ce8d70d1febe63ed88",
	    .keymat =
	        "d0d5f6845e1bf12148623f73b478ba5cd107de236e914f9f04ad2c742178"
	        "6697f4247d2ea1b0d85fe727de58e5ea0899ab7f46c0277938781e184c17"
	        "f36f6549e614538e40ee77d3",
	    .keymat_pfs =
	        "cd94145549c24e11b7a69705a739f365e8940dcf879b03550e32903b5f8d"
	        "b6406f8d11c5fc44f073feacc5d293e60f3c3531177798a883ba66420bf6"
	        "ecc8599e3d21e10a2be644a5",
	},
	{
	    .name = "sha256_aes128",
	    .skeyid =
	        "c877e56d48d90de6adc879df2b7b5f2bb04530bd3ff3a47436ab8d3c8867"
	        "42d2",
	    .d = "dda6c3f4480f46648ffd4d1b9f1dc3fd22136fc3f89b600b882593b5790f"
	         "5dde",
	    .a = "9aad08fcd6bd1a7832cf0e4c91ae6b0cd7c0eb742e6950e3725231e856ff"
	         "f6cb",
	    .key = "8005fbf4b0e9e6a946f722804bfe2fdd",
	    .hash_i =
	        "26f6e5fb7783e8fe613b3a57e50a1a53c3d161ae59e845655985f4581dfe"
	        "82cf",
	    .hash_r =
	        "02f48e841d628330fb05def24cca8bb5bdefcf078252d22e2bb511867415"
	        "232b",
	    .iv1 = "5153f7d945c10e0141700c81ae8e6789",
	    .iv2 = "0badeae9e2ef27dcd35b5f60d4772230",
	    .hash1 =
	        "d2f8d64a91928efbccce2d8d5ab40d05e04016ba7e6b38c7c039770a3e67"
	        "d2b9",
	    .hash2 =
	        "f40697b867cea9c0cb8127396d6b261131bcadf78dee4f34f1301ca4c081"
	        "ab46",
	    .hash3 =
	        "2f89a8bcf6bec64bcbbaa132e7ac65cc5ffe7bd287a8802f3ad12627801a"
	        "bd2a",
	    .keymat =
	        "96f02c25a2a47ca4d8d370b88b2a07f11add207515c3cd9b818296ccfcaa"
	        "3adb5afc56b2e752a6e0d7df2995426aa55996e0f4cd2834d1f171881983"
	        "80c2ec43000c1b40977510dd",
	    .keymat_pfs =
	        "92378236541a3abd9d233bd5f502fbd6c822b957f079052f39b664807dc8"
	        "04015a894f2b44b911dffb259ece1c1726cb7fde36889d3eb5f4a43d84ac"
	        "936ea00d59e542789eb11c8c",
	},
	{
	    .name = "sha512_aes256",
	    .skeyid =
	        "2f5b4f8e92f1a9f89c1f02f9b133b235db5445a3ecf3c0c43ff6c21c8f82"
	        "9371b7930992f9f13cf775209a01de6dead4ce19294c11568ce39ace54fd"
	        "d37a2534",
	    .d = "62ce11be7bf24f9e22fa214f0b1a8d3882f61557252b3e68c66e24f023d7"
	         "08f7f54560b7e6da9174ee2313276403c0609fe559b707421ce60d3ba885"
	         "beb04155",
	    .a = "f05bdd004e04f485ba828e7309b6a866c8ba1f4a6977bda640c4d68efdcf"
	         "7dab008895c08804753f006984a0353a537c6a81ec79bb33a8b3ed4d380c"
	         "11f2a817",
	    .key =
	        "09074cb47177f8a8b78122ac9e5eafe5a5119adacfa1a44006ff76113e74"
	        "0863",
	    .hash_i =
	        "2b81de0878514d00e8e15067311aea30e07851a859974831fc398689f8e6"
	        "1c86d01ca73b279393dea2ba46972600cb9192b4359ac975f2bacc545aec"
	        "fecf113e",
	    .hash_r =
	        "7efe660c53e177179734ca6b14ab5748bfbf7fecd8ba7f6658d13093a18f"
	        "983a1251f9684ee0ac1eb4995ce537b10db0c4b3be6786b98f54c5b3f066"
	        "4b8b93e6",
	    .iv1 = "094aa4c7534bef5a25be5ff854b1e67c",
	    .iv2 = "ce3cde371da02f82080a6f37935aaa6a",
	    .hash1 =
	        "bcb78e1f1d5ef92ee3ecba3bda1dff9934389cc2315b7e674d59394af6a1"
	        "75a1fb88ebbb26993a70474825f0f2dead92551ed0319475bcae2c88f07b"
	        "606b22ba",
	    .hash2 =
	        "ae5526d7ad75ad587b79fb16a4535c13f1239c0dd2a38cac95a15aa3adbd"
	        "425b81413cee1808c35ec61446d289ac9da7b9ff5987e853246e475759b9"
	        "2dbd0bb2",
	    .hash3 =
	        "6640255ea6c1f8db6719fd29b00b755bc5c5c519e89b585dddb3edf8ac2b"
	        "2d1015c50daadc68d0047722626467e62719122e957a3bdcf7e8e083bfbb"
	        "4c26994b",
	    .keymat =
	        "8ce9a6f92fe62a35c3710122c0e5c1a02333f7821a5ece843cb8d74e66bc"
	        "bf55f9e2a88a4491ef71df5c7e67b2de58583115390fa364bf02ded902a6"
	        "a54bfc7ae6ec38bab790ef7a",
	    .keymat_pfs =
	        "089c04d9ddf30dd40ae7f4a2c77c53315031082e99eb08e8929c9b8caa5a"
	        "9fe3000a7ea705761354e6d26fd3c9dde053aff745b0be64c74aaba24c33"
	        "8cd64ba3ebb26c278396818b",
	},
};

static const enum alg_id vector_algs[][2] = {
	{ ALG_PRF_SHA1, ALG_AES256_CBC },
	{ ALG_PRF_SHA1, ALG_3DES_CBC },
	{ ALG_PRF_SHA256, ALG_AES128_CBC },
	{ ALG_PRF_SHA512, ALG_AES256_CBC },
};

#define SPI_I 0x0123456789abcdefull
#define SPI_R 0xfedcba9876543210ull
#define ID    0xcafef00du

static struct view
fill(uint8_t *octets, size_t len, unsigned start)
{
	for (size_t i = 0; i < len; i++)
		octets[i] = (uint8_t)(start + i * 7);
	return view_of(octets, len);
}

static void
expect_hex(const char *wanted, const uint8_t *octets, size_t len)
{
	char text[257];

	assert_int_equal(strlen(wanted), 2 * len);
	assert_string_equal(
	    buf_hex(text, sizeof(text), view_of(octets, len)), wanted);
}

static void
test_known_answers(void **state)
{
	uint8_t ni_octets[32], nr_octets[20], shared_octets[256], gi[256],
	    gr[256], sa_body[52], last[16], rest_octets[100], pfs_octets[32],
	    skeyid[PRF_MAX], out[PRF_MAX], iv[V1_BLOCK_MAX];
	static const uint8_t id_body[] = { 1, 0, 0, 0, 192, 0, 2, 1 };
	struct view nonces[2] = { fill(ni_octets, 32, 1),
		fill(nr_octets, 20, 99) };
	struct view shared = fill(shared_octets, 256, 3);
	struct view public_i = fill(gi, 256, 5), public_r = fill(gr, 256, 11);
	struct view rest = fill(rest_octets, 100, 50);
	struct view pfs = fill(pfs_octets, 32, 77);

	(void)state;
	fill(sa_body, sizeof(sa_body), 17);
	fill(last, sizeof(last), 40);
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const struct vector *v = &vectors[i];
		struct suite suite = { .prf = alg_get(vector_algs[i][0]),
			.encr = alg_get(vector_algs[i][1]) };
		size_t n = suite.prf->out;
		struct v1_keys keys = { NULL, NULL, { NULL, 0 } };
		struct secret keymat = { NULL, 0 };
		struct v1_hash_phase1 in;

		assert_int_equal(
		    prf(suite.prf, view_text("the secret"), nonces, 2, skeyid),
		    OK);
		expect_hex(v->skeyid, skeyid, n);
		assert_int_equal(v1_key_derive(&keys, &suite,
		                     view_of(skeyid, n), shared, SPI_I, SPI_R),
		    OK);
		expect_hex(v->d, v1_key_d(&keys).at, n);
		expect_hex(v->a, v1_key_a(&keys).at, n);
		expect_hex(
		    v->key, v1_key_encr(&keys).at, suite.encr->key_bits / 8u);
		in = (struct v1_hash_phase1){ suite.prf, view_of(skeyid, n),
			public_i, public_r, view_of(sa_body, 52),
			view_of(id_body, 8), SPI_I, SPI_R };
		assert_int_equal(v1_key_hash_phase1(&in, true, out), OK);
		expect_hex(v->hash_i, out, n);
		assert_int_equal(v1_key_hash_phase1(&in, false, out), OK);
		expect_hex(v->hash_r, out, n);
		assert_int_equal(
		    v1_key_iv_phase1(&suite, public_i, public_r, iv), OK);
		expect_hex(v->iv1, iv, 16);
		assert_int_equal(v1_key_iv_phase2(&keys, last, ID, iv), OK);
		expect_hex(v->iv2, iv, suite.encr->block);
		assert_int_equal(v1_key_hash1(&keys, ID, rest, out), OK);
		expect_hex(v->hash1, out, n);
		assert_int_equal(
		    v1_key_hash2(&keys, ID, nonces[0], rest, out), OK);
		expect_hex(v->hash2, out, n);
		assert_int_equal(
		    v1_key_hash3(&keys, ID, nonces[0], nonces[1], out), OK);
		expect_hex(v->hash3, out, n);
		assert_int_equal(secret_new(&keymat, 72), OK);
		assert_int_equal(v1_key_mat(&keys, view_of("", 0), 3,
		                     0xc0000001, nonces[0], nonces[1], &keymat),
		    OK);
		expect_hex(v->keymat, keymat.octets, 72);
		assert_int_equal(v1_key_mat(&keys, pfs, 3, 0xc0000001,
		                     nonces[0], nonces[1], &keymat),
		    OK);
		expect_hex(v->keymat_pfs, keymat.octets, 72);
		secret_free(&keymat);
		v1_key_free(&keys);
	}
}

/* SA payloads ----------------------------------------------------------- */

static const struct alg_set all_usable = { UINT64_MAX };

static struct proposals
parse(enum ipsec_protocol protocol, const char *text)
{
	struct proposals proposals;
	const char *problem = NULL;
	bool strict;
	size_t at = 0;

	if (proposals_parse(
	        &proposals, protocol, text, &strict, &at, &problem) != OK)
		fail_msg("%s at %zu: %s", text, at, problem);
	return proposals;
}

static void
test_offer_ike(void **state)
{
	struct proposals ours = parse(PROTO_IKE,
	    "aes256-aes128-sha256-sha1-modp2048-ecp256,3des-sha1-modp1024");
	struct offer offers[V1_TRANSFORMS];
	struct v1_sapay read, answer;
	const struct v1_transform *chosen;
	struct choice choice;
	struct suite suite;
	uint8_t octets[3072], answered[256];
	struct buf buf, reply;

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	assert_int_equal(
	    v1_sapay_offer_ike(&buf, &ours, &all_usable, 86400), 9);
	assert_int_equal(v1_sapay_read(&read, buf_done(&buf), PROTO_IKE), OK);
	assert_int_equal(read.count, 9);
	for (size_t i = 0; i < read.count; i++) {
		assert_true(read.item[i].usable);
		assert_int_equal(read.item[i].number, i + 1);
		assert_int_equal(read.item[i].auth, V1_AUTH_PSK);
		assert_int_equal(read.item[i].seconds, 86400);
	}
	assert_int_equal(
	    v1_sapay_offers(&read, PROTO_IKE, offers, NULL, NULL), 9);
	ours = parse(PROTO_IKE, "aes128-sha1-ecp256");
	assert_int_equal(
	    proposals_choose(&ours, offers, 9, false, false, &choice), OK);
	chosen = &read.item[offers[choice.chosen].tag];
	assert_int_equal(chosen->key_bits, 128);
	/* The answer echoes it: same numbers, same octets. */
	buf_init(&reply, answered, sizeof(answered));
	v1_sapay_answer(&reply, chosen, 0);
	assert_int_equal(
	    v1_sapay_read(&answer, buf_done(&reply), PROTO_IKE), OK);
	assert_int_equal(answer.count, 1);
	assert_int_equal(answer.item[0].number, chosen->number);
	assert_true(view_equal(answer.item[0].attributes, chosen->attributes));
	assert_int_equal(v1_sapay_accept(&read, &answer, &chosen), OK);
	assert_int_equal(v1_sapay_suite(chosen, PROTO_IKE, &suite), OK);
	assert_int_equal(suite.encr->id, ALG_AES128_CBC);
	assert_int_equal(suite.prf->id, ALG_PRF_SHA1);
	assert_int_equal(suite.integ->id, ALG_SHA1_96);
	assert_int_equal(suite.kex->id, ALG_ECP256);
}

/* What IKEv1 cannot say is left out; too much is cut. */
static void
test_offer_bounds(void **state)
{
	struct proposals ours = parse(PROTO_IKE,
	    "aes256gcm16-prfsha256-ecp256,aes128-sha1-prfsha256-modp2048");
	uint8_t octets[3072];
	struct v1_sapay read;
	struct buf buf;
	struct alg_set few = { UINT64_MAX };

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	assert_int_equal(v1_sapay_offer_ike(&buf, &ours, &all_usable, 3600), 0);
	ours = parse(PROTO_IKE,
	    "aes128-aes192-aes256-3des-sha1-sha256-sha384-sha512-modp1024-"
	    "modp1536-modp2048-modp3072-modp4096-ecp256");
	buf_init(&buf, octets, sizeof(octets));
	assert_int_equal(
	    v1_sapay_offer_ike(&buf, &ours, &all_usable, 3600), V1_OFFERED);
	assert_false(buf.full);
	assert_int_equal(v1_sapay_read(&read, buf_done(&buf), PROTO_IKE), OK);
	assert_int_equal(read.count, V1_OFFERED);
	/* Nothing that failed its self-test. */
	few.bits = ~((uint64_t)1 << ALG_ECP256);
	ours = parse(PROTO_IKE, "aes128-sha256-ecp256-modp2048");
	buf_init(&buf, octets, sizeof(octets));
	assert_int_equal(v1_sapay_offer_ike(&buf, &ours, &few, 3600), 1);
	/* No room: no half payload. */
	buf_init(&buf, octets, 40);
	v1_sapay_offer_ike(&buf, &ours, &all_usable, 3600);
	assert_true(buf.full);
}

static void
test_offer_esp(void **state)
{
	static const struct {
		const char *text;
		size_t count;
		bool esn, pfs;
	} rows[] = {
		{ "aes128-sha256", 1, false, false },
		{ "aes256gcm16-aes128-sha256-sha512", 3, false, false },
		{ "aes128-sha256-esn", 1, true, false },
		{ "aes128-sha256-esn-noesn", 1, false, false },
		{ "aes128-sha1-modp2048-ecp256,3des-sha1-modp2048", 2, false,
		    true },
		{ "aes128-sha1-modp2048,aes128-sha256", 1, false, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct proposals ours = parse(PROTO_ESP, rows[i].text);
		struct v1_esp_offer offer = { .ours = &ours,
			.usable = &all_usable,
			.group = v1_sapay_pfs(&ours),
			.spi = 0xc0ffee01,
			.mode = V1_MODE_UDP_TUNNEL,
			.seconds = 3600 };
		struct offer offers[V1_TRANSFORMS];
		struct choice choice;
		struct v1_sapay read;
		uint8_t octets[3072];
		struct buf buf;

		buf_init(&buf, octets, sizeof(octets));
		assert_int_equal(
		    v1_sapay_offer_esp(&buf, &offer), rows[i].count);
		assert_int_equal(
		    v1_sapay_read(&read, buf_done(&buf), PROTO_ESP), OK);
		assert_int_equal(read.count, rows[i].count);
		for (size_t n = 0; n < read.count; n++) {
			assert_true(read.item[n].usable);
			assert_int_equal(read.item[n].spi, 0xc0ffee01);
			assert_int_equal(read.item[n].mode, V1_MODE_UDP_TUNNEL);
			assert_int_equal(read.item[n].esn, rows[i].esn);
			assert_int_equal(read.item[n].group != 0, rows[i].pfs);
		}
		assert_int_equal(
		    v1_sapay_offers(&read, PROTO_ESP, offers, NULL, NULL),
		    rows[i].count);
		assert_int_equal(proposals_choose(&ours, offers, read.count,
		                     true, false, &choice),
		    OK);
		assert_int_equal(choice.suite.esn, rows[i].esn);
	}
}

/* A phase 1 SA body from transforms in hexadecimal (attributes only). */
static struct view
body_of(uint8_t octets[static 1024], uint8_t protocol, const char *const *hex,
    size_t count)
{
	struct buf buf;
	size_t proposal_at;

	buf_init(&buf, octets, 1024);
	buf_u32(&buf, 1);
	buf_u32(&buf, 1);
	proposal_at = buf.len;
	buf_u32(&buf, 0);
	buf_u8(&buf, 0); /* proposal #0, as vpnc has it */
	buf_u8(&buf, protocol);
	buf_u8(&buf, 0);
	buf_u8(&buf, (uint8_t)count);
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(hex[i]) / 2;

		buf_u8(&buf, i + 1 < count ? 3 : 0);
		buf_u8(&buf, 0);
		buf_u16(&buf, (uint16_t)(8 + len));
		buf_u8(&buf, (uint8_t)i);
		buf_u8(&buf, 1);
		buf_u16(&buf, 0);
		for (size_t n = 0; n < len; n++) {
			unsigned value;

			assert_int_equal(
			    sscanf(hex[i] + 2 * n, "%2x", &value), 1);
			buf_u8(&buf, (uint8_t)value);
		}
	}
	buf_patch_u16(&buf, proposal_at + 2, (uint16_t)(buf.len - proposal_at));
	return buf_done(&buf);
}

/* Attributes in any order, TV and TLV, unknown ones in other transforms. */
static void
test_attributes(void **state)
{
	static const char *const hex[] = {
		/* key length first, lifetime of four octets (vpnc) */
		("800e0100800100078002000280030001800400028"
		 "00b0001000c000400 20c49b"),
		"800100078002000180030001800400028 00e0080",
		"80010007800e0080800d0001", /* a PRF: not understood */
		"00010002000700020002000180030001800400 02800e0080",
		"800b0001800c0005800b0002800c0009",   /* two lifetimes */
		"800b0001000c0009010203040506070809", /* saturates */
		"80010007800100078003 0001",          /* stated twice */
		"",
	};
	char packed[8][160];
	const char *rows[8];
	uint8_t octets[1024];
	struct v1_sapay read;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		size_t n = 0;

		for (const char *at = hex[i]; *at != '\0'; at++)
			if (*at != ' ')
				packed[i][n++] = *at;
		packed[i][n] = '\0';
		rows[i] = packed[i];
	}
	assert_int_equal(v1_sapay_read(&read,
	                     body_of(octets, PROTO_IKE, rows, 8), PROTO_IKE),
	    OK);
	assert_int_equal(read.count, 8);
	assert_true(read.item[0].usable);
	assert_int_equal(read.item[0].seconds, 2147483);
	assert_int_equal(read.item[0].key_bits, 256);
	assert_true(read.item[1].usable);
	assert_int_equal(read.item[1].seconds, 0);
	assert_int_equal(read.item[1].number, 1);
	assert_false(read.item[2].usable);
	assert_true(read.item[3].usable);
	assert_int_equal(read.item[3].encr, 7);
	assert_int_equal(read.item[4].seconds, 5);
	assert_int_equal(read.item[4].kilobytes, 9);
	assert_int_equal(read.item[5].seconds, UINT32_MAX);
	assert_false(read.item[6].usable);
	assert_true(read.item[7].usable); /* offers nothing */
}

/* RFC 2407 4.6.3.1: pairs in any form and order. */
static void
test_responder_lifetime(void **state)
{
	static const struct {
		uint8_t octets[32];
		size_t len;
		uint32_t seconds;
	} rows[] = {
		{ { 0 }, 0, 0 },
		{ { 0x80, 1, 0, 1, 0x80, 2, 14, 16 }, 8, 3600 },
		{ { 0x80, 1, 0, 1, 0, 2, 0, 4, 0, 1, 81, 128 }, 12, 86400 },
		{ { 0, 1, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0, 0, 0, 0, 1, 81, 128 },
		    18, 86400 },
		/* kilobytes alone, and before */
		{ { 0x80, 1, 0, 2, 0x80, 2, 14, 16 }, 8, 0 },
		{ { 0x80, 1, 0, 2, 0, 2, 0, 8, 0, 0, 0, 0, 0, 70, 0, 0, 0x80, 1,
		      0, 1, 0x80, 2, 14, 16 },
		    24, 3600 },
		/* of no known kind, cut, stated twice */
		{ { 0x80, 1, 0, 9, 0x80, 2, 14, 16 }, 8, 0 },
		{ { 0x80, 1, 0, 1, 0, 2, 0, 9, 0, 1 }, 10, 0 },
		{ { 0x80, 1, 0, 1, 0x80, 2, 0, 70, 0x80, 2, 0, 80 }, 12, 70 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(
		    v1_sapay_lifetime(view_of(rows[i].octets, rows[i].len)),
		    rows[i].seconds);
}

/* Altered attributes in the answer are rejected. */
static void
test_altered_answer(void **state)
{
	struct proposals ours = parse(PROTO_IKE, "aes256-sha256-modp2048");
	uint8_t octets[3072], copy[3072];
	struct v1_sapay read, answer;
	const struct v1_transform *chosen;
	struct buf buf;
	unsigned accepted = 0;

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	v1_sapay_offer_ike(&buf, &ours, &all_usable, 3600);
	assert_int_equal(v1_sapay_read(&read, buf_done(&buf), PROTO_IKE), OK);
	for (size_t bit = 0; bit < 8 * buf.len; bit++) {
		/* RFC 2408 4.2: numbers SHOULD be kept, no more. */
		if (bit / 8 == 12 || bit / 8 == 20)
			continue;
		memcpy(copy, octets, buf.len);
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (v1_sapay_read(&answer, view_of(copy, buf.len), PROTO_IKE) ==
		        OK &&
		    v1_sapay_accept(&read, &answer, &chosen) == OK)
			accepted++;
	}
	assert_int_equal(accepted, 0);
	/* Nor two transforms, nor none. */
	ours = parse(PROTO_IKE, "aes256-aes128-sha256-modp2048");
	buf_init(&buf, octets, sizeof(octets));
	v1_sapay_offer_ike(&buf, &ours, &all_usable, 3600);
	assert_int_equal(v1_sapay_read(&read, buf_done(&buf), PROTO_IKE), OK);
	assert_int_equal(
	    v1_sapay_accept(&read, &read, &chosen), ERR_NO_PROPOSAL);
	answer.count = 0;
	assert_int_equal(
	    v1_sapay_accept(&read, &answer, &chosen), ERR_NO_PROPOSAL);
}

/* AH beside ESP, another protocol, an SPI of the wrong size. */
static void
test_and_proposals(void **state)
{
	static const uint8_t esp[] = { 0, 0, 0, 32, 1, 3, 4, 1, 0xc0, 0, 0, 1,
		0, 0, 0, 20, 1, 12, 0, 0, 0x80, 4, 0, 1, 0x80, 5, 0, 2, 0x80, 6,
		0, 128 };
	uint8_t octets[128];
	struct v1_sapay read;
	struct buf buf;

	(void)state;
	for (unsigned second = 1; second <= 2; second++) {
		buf_init(&buf, octets, sizeof(octets));
		buf_u32(&buf, 1);
		buf_u32(&buf, 1);
		buf_put(&buf, esp, sizeof(esp));
		octets[8] = 2; /* another proposal follows */
		buf_put(&buf, esp, sizeof(esp));
		octets[8 + sizeof(esp) + 4] = (uint8_t)second;
		octets[8 + sizeof(esp) + 5] = second == 1 ? 2 : 3; /* AH */
		assert_int_equal(
		    v1_sapay_read(&read, buf_done(&buf), PROTO_ESP), OK);
		assert_int_equal(read.count, 2);
		assert_int_equal(read.item[0].usable, second == 2);
		assert_int_equal(read.item[1].usable, second == 2);
	}
	/* ESP 1, ESP 2, and then the AH that ESP 1 wants beside it. */
	buf_put(&buf, esp, sizeof(esp));
	octets[8] = octets[8 + sizeof(esp)] = 2;
	octets[8 + 2 * sizeof(esp) + 5] = 2;
	assert_int_equal(v1_sapay_read(&read, buf_done(&buf), PROTO_ESP), OK);
	assert_int_equal(read.count, 3);
	assert_false(read.item[0].usable);
	assert_true(read.item[1].usable);
	assert_false(read.item[2].usable);
	buf.len -= sizeof(esp);
	octets[8 + sizeof(esp)] = 0;
	/* RFC 2409 5: one proposal in phase 1. */
	octets[8 + 5] = octets[8 + sizeof(esp) + 5] = PROTO_IKE;
	assert_int_equal(
	    v1_sapay_read(&read, buf_done(&buf), PROTO_IKE), ERR_SYNTAX);
}

/* N - 1, N, N + 1 transforms; the surplus is not looked at. */
static void
test_many_transforms(void **state)
{
	const char *rows[V1_TRANSFORMS + 1];
	uint8_t octets[1024];
	struct v1_sapay *read = malloc(sizeof(*read));

	(void)state;
	assert_non_null(read);
	for (size_t i = 0; i <= V1_TRANSFORMS; i++)
		rows[i] = "";
	for (size_t n = V1_TRANSFORMS - 1; n <= V1_TRANSFORMS + 1; n++) {
		assert_int_equal(
		    v1_sapay_read(
		        read, body_of(octets, PROTO_IKE, rows, n), PROTO_IKE),
		    OK);
		assert_int_equal(
		    read->count, n < V1_TRANSFORMS ? n : V1_TRANSFORMS);
	}
	free(read);
}

static uint64_t
random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

/* Every truncation, and noise: an error or a list within bounds. Exact
 * allocations let the sanitizer see one octet too many. */
static void
test_hostile_sa(void **state)
{
	struct proposals ours =
	    parse(PROTO_IKE, "aes256-aes128-sha256-sha1-modp2048-ecp256");
	uint8_t octets[3072];
	struct offer offers[V1_TRANSFORMS];
	struct v1_sapay read;
	struct buf buf;
	uint64_t seed = 1;

	(void)state;
	buf_init(&buf, octets, sizeof(octets));
	v1_sapay_offer_ike(&buf, &ours, &all_usable, 86400);
	for (size_t len = 0; len < buf.len; len++) {
		uint8_t *copy = malloc(len + 1);

		assert_non_null(copy);
		memcpy(copy, octets, len);
		assert_int_not_equal(
		    v1_sapay_read(&read, view_of(copy, len), PROTO_IKE), OK);
		free(copy);
	}
	for (unsigned round = 0; round < 20000; round++) {
		size_t len = random_next(&seed) % (buf.len + 1);
		uint8_t *copy = malloc(len + 1);
		enum ipsec_protocol protocol =
		    round % 2 ? PROTO_IKE : PROTO_ESP;

		assert_non_null(copy);
		memcpy(copy, octets, len);
		for (unsigned n = random_next(&seed) % 8; n > 0 && len > 0; n--)
			copy[random_next(&seed) % len] =
			    (uint8_t)random_next(&seed);
		if (v1_sapay_read(&read, view_of(copy, len), protocol) == OK) {
			assert_true(read.count <= V1_TRANSFORMS);
			assert_true(v1_sapay_offers(&read, protocol, offers,
			                NULL, NULL) <= read.count);
		}
		free(copy);
	}
}

/* Sealing --------------------------------------------------------------- */

static void
make_keys(struct v1_keys *keys, enum alg_id encr)
{
	struct suite suite = { .prf = alg_get(ALG_PRF_SHA256),
		.encr = alg_get(encr) };
	uint8_t octets[64];
	struct view view = fill(octets, sizeof(octets), 9);

	memset(keys, 0, sizeof(*keys));
	assert_int_equal(v1_key_derive(keys, &suite, view_of(octets, 32), view,
	                     SPI_I, SPI_R),
	    OK);
}

static struct view
sealed(const struct v1_keys *keys, uint8_t octets[static 1024], size_t nonce,
    uint8_t iv[static V1_BLOCK_MAX])
{
	static const uint8_t some[300];
	struct wire_header header = { .spi_i = SPI_I,
		.spi_r = SPI_R,
		.major = 1,
		.exchange = EXCH_QUICK,
		.id = ID };
	struct wire_out out;
	struct buf buf;

	buf_init(&buf, octets, 1024);
	wire_start(&out, &buf, &header);
	wire_payload(&out, P1_HASH, view_of(some, 32));
	wire_payload(&out, P1_NONCE, view_of(some, nonce));
	assert_int_equal(v1_sk_seal(keys, &buf, iv), OK);
	wire_finish(&out);
	return buf_done(&buf);
}

static void
test_seal(void **state)
{
	static const enum alg_id ciphers[] = { ALG_AES128_CBC, ALG_3DES_CBC,
		ALG_AES256_CBC };

	(void)state;
	for (size_t i = 0; i < 3; i++)
		for (size_t nonce = 8; nonce < 8 + 34; nonce++) {
			uint8_t octets[1024], iv[V1_BLOCK_MAX] = { 1 },
			                      start[V1_BLOCK_MAX] = { 1 },
			                      next[V1_BLOCK_MAX];
			struct v1_keys keys, wrong;
			struct view message;
			struct msg *msg;

			make_keys(&keys, ciphers[i]);
			message = sealed(&keys, octets, nonce, iv);
			assert_int_equal(
			    (message.len - WIRE_HEADER) % keys.encr->block, 0);
			assert_int_equal(msg_new(&msg, message), OK);
			assert_int_equal(msg->header.flags, FLAG_V1_ENCRYPTION);
			assert_int_equal(msg->header.length, message.len);
			assert_int_equal(
			    v1_sk_open(&keys, msg, start, next), OK);
			assert_memory_equal(next, iv, keys.encr->block);
			assert_int_equal(msg->count, 2);
			/* Padding is no part of what HASH covers. */
			assert_int_equal(v1_sk_rest(msg).len, 4 + nonce);
			assert_ptr_equal(
			    v1_sk_rest(msg).at, msg->payload[1].whole.at);
			/* Another key: noise, and no crash. */
			make_keys(&wrong, ciphers[(i + 1) % 3]);
			v1_sk_open(&wrong, msg, start, next);
			msg_free(msg);
			v1_key_free(&keys);
			v1_key_free(&wrong);
		}
}

static void
test_seal_hostile(void **state)
{
	uint8_t octets[1024], iv[V1_BLOCK_MAX] = { 1 }, next[V1_BLOCK_MAX];
	struct v1_keys keys;
	struct view message;
	struct msg *msg;
	uint64_t seed = 3;

	(void)state;
	make_keys(&keys, ALG_AES128_CBC);
	message = sealed(&keys, octets, 40, iv);
	/* Lengths that are no multiple of the block, and an empty body. */
	for (size_t len = WIRE_HEADER; len < message.len; len++) {
		octets[24] = octets[25] = 0;
		octets[26] = (uint8_t)(len >> 8);
		octets[27] = (uint8_t)len;
		assert_int_equal(msg_new(&msg, view_of(octets, len)), OK);
		memset(iv, 0, sizeof(iv));
		if ((len - WIRE_HEADER) % 16 != 0 || len == WIRE_HEADER)
			assert_int_equal(
			    v1_sk_open(&keys, msg, iv, next), ERR_SYNTAX);
		else
			v1_sk_open(&keys, msg, iv, next);
		msg_free(msg);
	}
	for (unsigned round = 0; round < 5000; round++) {
		message = sealed(&keys, octets, 40, iv);
		octets[random_next(&seed) % message.len] ^=
		    (uint8_t)(1 + random_next(&seed) % 255);
		if (msg_new(&msg, message) != OK)
			continue;
		v1_sk_open(&keys, msg, iv, next);
		v1_sk_rest(msg);
		msg_free(msg);
	}
	v1_key_free(&keys);
}

/* Selectors ------------------------------------------------------------- */

static void
test_selectors(void **state)
{
	static const struct {
		const char *text;
		uint8_t type;
		size_t len;
	} rows[] = {
		{ "10.1.2.3", ID_IPV4_ADDR, 8 },
		{ "10.0.0.0/8", ID_IPV4_ADDR_SUBNET, 12 },
		{ "0.0.0.0/0", ID_IPV4_ADDR_SUBNET, 12 },
		{ "10.1.2.0/25[tcp/80]", ID_IPV4_ADDR_SUBNET, 12 },
		{ "10.1.1.1-10.1.1.9", ID_IPV4_ADDR_RANGE, 12 },
		{ "2001:db8::1[udp]", ID_IPV6_ADDR, 20 },
		{ "2001:db8::/33", ID_IPV6_ADDR_SUBNET, 36 },
		{ "2001:db8::1-2001:db8::5", ID_IPV6_ADDR_RANGE, 36 },
	};
	const char *problem;
	struct ts ts, read;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t octets[64];
		struct buf buf;

		assert_int_equal(ts_parse(&ts, rows[i].text, &problem), OK);
		buf_init(&buf, octets, sizeof(octets));
		assert_true(v1_select_write(&buf, &ts));
		assert_int_equal(buf.len, rows[i].len);
		assert_int_equal(octets[0], rows[i].type);
		assert_int_equal(v1_select_read(buf_done(&buf), &read), OK);
		assert_true(ts_equal(&ts, &read));
		/* One octet less, one more. */
		assert_int_not_equal(
		    v1_select_read(view_of(octets, buf.len - 1), &read), OK);
		assert_int_not_equal(
		    v1_select_read(view_of(octets, buf.len + 1), &read), OK);
	}
	/* What an ID cannot say. */
	assert_int_equal(ts_parse(&ts, "10.0.0.0/8[tcp]", &problem), OK);
	ts.first_port = 80;
	ts.last_port = 90;
	assert_false(v1_select_sayable(&ts));
}

static void
test_selectors_hostile(void **state)
{
	static const struct {
		uint8_t octets[16];
		size_t len;
	} rows[] = {
		{ { 1, 0, 0 }, 3 },
		/* a mask with a hole */
		{ { 4, 0, 0, 0, 10, 0, 0, 0, 255, 0, 255, 0 }, 12 },
		/* a range backwards */
		{ { 7, 0, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1 }, 12 },
		/* a port of no protocol */
		{ { 1, 0, 0, 80, 10, 0, 0, 1 }, 8 },
		/* a name (KB818043), a DN, nothing known */
		{ { 2, 0, 0, 0, 'a', '.', 'b' }, 7 },
		{ { 9, 0, 0, 0, 0x30, 0 }, 6 },
		{ { 200, 0, 0, 0, 1, 2, 3, 4 }, 8 },
		{ { 0, 0, 0, 0, 1, 2, 3, 4 }, 8 },
	};
	struct ts ts;
	uint64_t seed = 5;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_not_equal(
		    v1_select_read(view_of(rows[i].octets, rows[i].len), &ts),
		    OK);
	for (unsigned round = 0; round < 20000; round++) {
		uint8_t octets[40];
		size_t len = random_next(&seed) % sizeof(octets);

		for (size_t i = 0; i < len; i++)
			octets[i] = (uint8_t)random_next(&seed);
		octets[0] = (uint8_t)(octets[0] % 12);
		if (v1_select_read(view_of(octets, len), &ts) == OK)
			assert_true(ts_valid(&ts));
	}
}

/* The table ------------------------------------------------------------- */

/* Every exchange, role, state, cover and state of the SA with every single kind
 * of payload: at most one row takes it, none has a step too many, and nothing
 * in the clear reaches what must be sealed. */
static void
test_rules(void **state)
{
	static const uint8_t exchanges[] = { EXCH_IDENTITY_PROTECTION,
		EXCH_QUICK, EXCH_INFORMATIONAL_V1, EXCH_AGGRESSIVE,
		EXCH_TRANSACTION, EXCH_NEW_GROUP };
	struct ike_sa sa;
	struct exchange x;
	unsigned taken = 0;

	(void)state;
	memset(&sa, 0, sizeof(sa));
	memset(&x, 0, sizeof(x));
	for (size_t i = 0; i < v1_fsm.count; i++) {
		const struct rule *rule = &v1_fsm.rules[i];

		assert_non_null(rule->shows);
		assert_non_null(rule->cites);
		assert_non_null(rule->steps[0]);
		assert_null(rule->steps[FSM_STEPS - 1]);
		assert_int_equal(rule->next_count, 1);
		/* Phase 2 is sealed; a first payload is a needed one. */
		if (rule->exchange == EXCH_QUICK && rule->guard != 0)
			assert_int_equal(rule->cover, COVER_SEALED);
		if (rule->first != KIND_NONE)
			assert_true((rule->must & kind_bit(rule->first)) != 0);
	}
	for (size_t e = 0; e < sizeof(exchanges); e++)
		for (unsigned role = 0; role < 2; role++)
			for (unsigned at = 0; at < V1_STATE_COUNT; at++)
				for (unsigned sealed = 0; sealed < 2; sealed++)
					for (unsigned ike = 0; ike <= IKE_DEAD;
					     ike++) {
						struct msg msg;
						enum err err;
						char text[160];

						memset(&msg, 0, sizeof(msg));
						msg.sealed = sealed;
						x.type = exchanges[e];
						x.role = (uint8_t)role;
						x.state = (uint8_t)at;
						sa.state = (uint8_t)ike;
						if (fsm_match(&v1_fsm, &sa, &x,
						        &msg, &err, text,
						        sizeof(text)) == NULL)
							continue;
						/* Only the hint in the clear
						 * needs no payload. */
						assert_int_equal(x.type,
						    EXCH_INFORMATIONAL_V1);
						assert_false(msg.sealed);
						taken++;
					}
	assert_true(taken > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),
		cmocka_unit_test(test_offer_ike),
		cmocka_unit_test(test_offer_bounds),
		cmocka_unit_test(test_offer_esp),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_responder_lifetime),
		cmocka_unit_test(test_altered_answer),
		cmocka_unit_test(test_and_proposals),
		cmocka_unit_test(test_many_transforms),
		cmocka_unit_test(test_hostile_sa),
		cmocka_unit_test(test_seal),
		cmocka_unit_test(test_seal_hostile),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_selectors_hostile),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
