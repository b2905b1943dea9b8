#include <openssl/err.h>
#include <string.h>

#include "common/cipher.h"
#include "common/kex.h"
#include "common/prf.h"
#include "common/selftest.h"

#define OCTETS_MAX 160

/* HMAC of "what do ya want for nothing?" with the key "Jefe": RFC 2202 3 (2)
 * and RFC 4231 4.3. An INTEG row gives the beginning of it. */
static const char *const hmac_answers[] = {
	[ALG_PRF_SHA1 - ALG_PRF_SHA1] =
	    "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
	[ALG_PRF_SHA256 - ALG_PRF_SHA1] =
	    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec"
	    "3843",
	[ALG_PRF_SHA384 - ALG_PRF_SHA1] =
	    "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322"
	    "445e8e2240ca5e69e2c78b3239ecfab21649",
	[ALG_PRF_SHA512 - ALG_PRF_SHA1] =
	    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea25"
	    "05549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a"
	    "38bce737",
};

/* RFC 3602 4 (1), SP 800-38A F.2.3 and F.2.5 (first blocks), the GCM
 * specification's cases 4, 10 and 16, RFC 7634 appendix B, SP 800-67 B.1
 * (first block). AEAD keys are followed by the salt. */
static const struct cipher_answer {
	const char *key, *iv, *aad, *text, *out, *tag;
} cipher_answers[] = {
	[ALG_AES128_CBC -
	    ALG_AES128_CBC] = { "06a9214036b8a15b512e03d534120006",
	    "3dafba429d9eb430b422da802c9fac41", "",
	    "53696e676c6520626c6f636b206d7367",
	    "e353779c1079aeb82708942dbe77181a", "" },
	[ALG_AES192_CBC - ALG_AES128_CBC] = { "8e73b0f7da0e6452c810f32b809079e5"
	                                      "62f8ead2522c6b7b",
	    "000102030405060708090a0b0c0d0e0f", "",
	    "6bc1bee22e409f96e93d7e117393172a",
	    "4f021db243bc633d7178183a9fa071e8", "" },
	[ALG_AES256_CBC - ALG_AES128_CBC] = { "603deb1015ca71be2b73aef0857d7781"
	                                      "1f352c073b6108d72d9810a30914"
	                                      "dff4",
	    "000102030405060708090a0b0c0d0e0f", "",
	    "6bc1bee22e409f96e93d7e117393172a",
	    "f58c4c04d6e5f1ba779eabfb5f7bfbd6", "" },
	[ALG_3DES_CBC - ALG_AES128_CBC] = { "0123456789abcdef23456789abcdef0145"
	                                    "6789abcdef0123",
	    "0000000000000000", "", "5468652071756663", "a826fd8ce53b855f",
	    "" },
	[ALG_AES128_GCM16 -
	    ALG_AES128_CBC] = { "feffe9928665731c6d6a8f9467308308cafebabe",
	    "facedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a31"
	    "8a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	    "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329ac"
	    "a12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
	    "5bc94fbc3221a5db94fae95ae7121a47" },
	[ALG_AES192_GCM16 - ALG_AES128_CBC] = { "feffe9928665731c6d6a8f94673083"
	                                        "08feffe9928665731ccafebabe",
	    "facedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a31"
	    "8a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	    "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1"
	    "e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
	    "2519498e80f1478f37ba55bd6d27618c" },
	[ALG_AES256_GCM16 - ALG_AES128_CBC] = { "feffe9928665731c6d6a8f94673083"
	                                        "08feffe9928665731c6d6a8f946730"
	                                        "8308cafebabe",
	    "facedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a31"
	    "8a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555"
	    "d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
	    "76fc6ece0f4e1768cddf8853bb2d551b" },
	[ALG_CHACHA20_POLY1305 -
	    ALG_AES128_CBC] = { "808182838485868788898a8b8c8d8e8f90919293949596"
	                        "9798999a9b9c9d"
	                        "9e9fa0a1a2a3",
	    "1011121314151617",
	    "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000452900"
	    "0029",
	    "0000000c000040010000000a00", "610394701f8d017f7c12924889",
	    "6b71bfe25236efd7cdc67066906315b2" },
};

/* The responder's part of RFC 5903 8.1 to 8.3 and RFC 7748 6.1: our pair, the
 * peer's public value, the secret. */
static const struct curve_answer {
	const char *private, *public, *peer, *shared;
} curve_answers[] = {
	[ALG_ECP256 - ALG_ECP256] = { "c6ef9c5d78ae012a011164acb397ce2088685d8f"
	                              "06bf9be0b283ab46476b"
	                              "ee53",
	    "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494"
	    "bf6356fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33"
	    "039872ab",
	    "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c377258"
	    "11805271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577"
	    "b8990bb3",
	    "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b94"
	    "42de" },
	[ALG_ECP384 - ALG_ECP256] = { "41cb0779b4bdb85d47846725fbec3c9430fab46c"
	                              "c8dc5060855cc9bda0aa"
	                              "2942e0308312916b8ed2960e4bd55a7448fc",
	    "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc"
	    "509d0d1ac43a0336def96fda41d0774a3571dcfbec7aacf3196472169e83"
	    "8430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaa"
	    "d96db9e6386c",
	    "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c5"
	    "5ee6de3ac808acb4bdb4c88732aee95f41aa9482ed1fc0eeb9cafc498462"
	    "5ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b"
	    "4c634573a81c",
	    "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156"
	    "c5c4d603135569b9e9d09cf5d4a270f59746" },
	[ALG_ECP521 - ALG_ECP256] = { "0145ba99a847af43793fdd0e872e7cdfa16be30f"
	                              "dc780f97bccc3f078380"
	                              "201e9c677d600b343757a3bdbf2a3163e4c2f869"
	                              "cca7458aa4a4effc311f"
	                              "5cb151685eb9",
	    "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e573973"
	    "5a219b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171"
	    "640012d9460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c"
	    "2c724d9852077b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f47"
	    "32296579ab44fcd17f0fc56a",
	    "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9"
	    "ecbee1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4"
	    "195d176ced3e017cae20b6641d2eeb695786d8c946146239d099e18e1d5a"
	    "514c739d7cb4a10ad8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f15"
	    "07438bf01beb6ca3926f9582",
	    "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d7"
	    "9b04d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417"
	    "996d19f3ddea" },
	[ALG_CURVE25519 - ALG_ECP256] = { "5dab087e624a8a4b79e17f8b83800ee66f3b"
	                                  "b1292618b6fd1c2f8b27ff88"
	                                  "e0eb",
	    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f88"
	    "2b4f",
	    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b"
	    "4e6a",
	    "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e16"
	    "1742" },
};

/* SHA-256 of 2^x mod p at full length, where x is the number whose 32 octets
 * are 01 02 ... 20; computed apart from OpenSSL, with the primes from the
 * formulas of RFC 2409 6.2 and RFC 3526. */
static const char *const modp_answers[] = {
	[ALG_MODP1024 - ALG_MODP1024] =
	    "3e5e53f04e5eeec9a4732ead2dc7f2ffad5d7f6aab19395b4a8130e8ec66"
	    "0251",
	[ALG_MODP1536 - ALG_MODP1024] =
	    "9a5ea5c17387a96223486d00a3d3437a4622bc0c790f48f01a1cebca6ce6"
	    "7221",
	[ALG_MODP2048 - ALG_MODP1024] =
	    "0b9cb9036d2a594a7e3b43169bdf47ee9c7b64a2292203f1bb137b0b648d"
	    "7e3c",
	[ALG_MODP3072 - ALG_MODP1024] =
	    "b74e630be90eb9d4b19affaa173864f62b7b5408127da1bbe6614ff3b3d9"
	    "6c4d",
	[ALG_MODP4096 - ALG_MODP1024] =
	    "0587822953fd21e5d74b2e8d6b068da2bf44c4793b7955aaa0d8ea4a5d3f"
	    "ceee",
};

struct octets {
	uint8_t at[OCTETS_MAX];
	size_t len;
};

static uint8_t
digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The tables above are lower-case hexadecimal that fits. */
static struct octets
unhex(const char *text)
{
	struct octets octets = { { 0 }, 0 };

	while (octets.len < OCTETS_MAX && text[0] != '\0' && text[1] != '\0') {
		octets.at[octets.len++] =
		    (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
		text += 2;
	}
	return octets;
}

static struct view
view(const struct octets *octets)
{
	return view_of(octets->at, octets->len);
}

static bool
same(const struct octets *want, const uint8_t *got)
{
	return memcmp(want->at, got, want->len) == 0;
}

static bool
try_hmac(const struct alg *alg)
{
	bool mac = alg->kind == ALG_INTEG;
	const struct alg *row = mac ? alg_prf_of_integ(alg) : alg;
	struct octets want = unhex(hmac_answers[row->id - ALG_PRF_SHA1]);
	struct view key = view_text("Jefe");
	struct view text = view_text("what do ya want for nothing?");
	uint8_t out[PRF_MAX];

	if (!mac)
		return want.len == alg->out &&
		       prf(alg, key, &text, 1, out) == OK && same(&want, out);
	want.len = alg->icv;
	return prf_mac(alg, key, &text, 1, out) == OK && same(&want, out);
}

static bool
try_cbc(const struct alg *alg, const struct cipher_answer *answer)
{
	struct octets key = unhex(answer->key), iv = unhex(answer->iv);
	struct octets text = unhex(answer->text), want = unhex(answer->out);
	uint8_t out[OCTETS_MAX];

	return cipher_cbc_encrypt(alg, view(&key), iv.at, view(&text), out) ==
	           OK &&
	       same(&want, out) &&
	       cipher_cbc_decrypt(alg, view(&key), iv.at, view(&want), out) ==
	           OK &&
	       same(&text, out);
}

static bool
try_aead(const struct alg *alg, const struct cipher_answer *answer)
{
	struct octets key = unhex(answer->key), iv = unhex(answer->iv);
	struct octets aad = unhex(answer->aad);
	struct octets text = unhex(answer->text), want = unhex(answer->out);
	struct octets tag = unhex(answer->tag);
	uint8_t out[OCTETS_MAX], got[OCTETS_MAX];

	if (cipher_aead_seal(alg, view(&key), iv.at, view(&aad), view(&text),
	        out, got) != OK ||
	    !same(&want, out) || !same(&tag, got))
		return false;
	if (cipher_aead_open(alg, view(&key), iv.at, view(&aad), view(&want),
	        got, out) != OK ||
	    !same(&text, out))
		return false;
	/* What does not notice a forgery is no protection. */
	got[0] ^= 1;
	return cipher_aead_open(alg, view(&key), iv.at, view(&aad), view(&want),
	           got, out) == ERR_AUTH;
}

static bool
try_cipher(const struct alg *alg)
{
	const struct cipher_answer *answer =
	    &cipher_answers[alg->id - ALG_AES128_CBC];

	return alg_is_aead(alg) ? try_aead(alg, answer) : try_cbc(alg, answer);
}

/* Derives from a fixed pair. */
static bool
derive(const struct alg *alg, struct view private, struct view public,
    struct view peer, struct secret *shared)
{
	struct kex *kex;
	bool good;

	if (kex_from_pair(alg, private, public, &kex) != OK)
		return false;
	good = kex_derive(kex, peer, shared) == OK;
	kex_free(kex);
	return good;
}

static bool
try_curve(const struct alg *alg)
{
	const struct curve_answer *answer =
	    &curve_answers[alg->id - ALG_ECP256];
	struct octets private = unhex(answer->private);
	struct octets public = unhex(answer->public);
	struct octets peer = unhex(answer->peer);
	struct octets want = unhex(answer->shared);
	struct secret shared = { 0 };
	bool good;

	good =
	    derive(alg, view(&private), view(&public), view(&peer), &shared) &&
	    shared.len == want.len && same(&want, shared.octets);
	secret_free(&shared);
	return good;
}

/* With the generator for the peer's value, the secret is g^x. Our own public
 * value plays no part in a derivation: the generator will do there too. */
static bool
try_modp(const struct alg *alg)
{
	struct octets want = unhex(modp_answers[alg->id - ALG_MODP1024]);
	uint8_t generator[512] = { 0 }, private[32], digest[PRF_MAX];
	struct view two = view_of(generator, alg->public_len);
	struct secret shared = { 0 };
	struct view made;
	bool good;

	generator[alg->public_len - 1] = 2;
	for (uint8_t i = 0; i < sizeof(private); i++)
	private[i] = (uint8_t)(i + 1);
	good =
	    derive(alg, view_of(private, sizeof(private)), two, two, &shared);
	made = secret_view(&shared);
	good = good && made.len == alg->secret_len &&
	       prf_hash(alg_get(ALG_PRF_SHA256), &made, 1, digest) == OK &&
	       same(&want, digest);
	secret_free(&shared);
	return good;
}

/* That a pair can be drawn, and that its public value is a good one. */
static bool
try_generation(const struct alg *alg)
{
	struct kex *kex;
	bool good;

	if (kex_new(alg, &kex) != OK)
		return false;
	good = kex_check(alg, kex_public(kex)) == OK;
	kex_free(kex);
	return good;
}

static bool
try_kex(const struct alg *alg)
{
	bool modp = alg->id <= ALG_MODP4096;

	return (modp ? try_modp(alg) : try_curve(alg)) && try_generation(alg);
}

void
selftest_run(struct alg_set *usable,
    void (*failed)(const struct alg *alg, void *arg), void *arg)
{
	static bool (*const tries[ALG_KINDS])(const struct alg *) = {
		[ALG_ENCR] = try_cipher,
		[ALG_PRF] = try_hmac,
		[ALG_INTEG] = try_hmac,
		[ALG_KEX] = try_kex,
	};

	usable->bits = 0;
	for (int id = ALG_NONE + 1; id < ALG_COUNT; id++) {
		const struct alg *alg = alg_get((enum alg_id)id);

		if (tries[alg->kind](alg))
			usable->bits |= (uint64_t)1 << id;
		else if (failed != NULL)
			failed(alg, arg);
	}
	ERR_clear_error();
}
