#include <string.h>
#include <strings.h>

#include "common/alg.h"

/*
 * One row per algorithm and key length. Aliases are the spellings of both
 * dialects of ipsec.conf. MODP-1024 has no name at OpenSSL: kex brings its
 * prime along (RFC 2409 6.2). ChaCha20-Poly1305 has no number in IKEv1's
 * registries. Curve25519's number is beyond what IKEv1's registry lists, but
 * IKEv1 implementations that know the group use it.
 */
static const struct alg table[ALG_COUNT] = {
	/* RFC 3602 */
	[ALG_AES128_CBC] = { .id = ALG_AES128_CBC,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes128",
	    .aliases = "aes aes128cbc aes_cbc aes_cbc128 aes_cbc_128 aes_128",
	    .ikev2 = 12,
	    .phase1 = 7,
	    .phase2 = 12,
	    .key_bits = 128,
	    .key_attr = true,
	    .block = 16,
	    .iv = 16,
	    .xfrm = "cbc(aes)",
	    .openssl = "AES-128-CBC" },
	[ALG_AES192_CBC] = { .id = ALG_AES192_CBC,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes192",
	    .aliases = "aes192cbc aes_cbc192 aes_cbc_192 aes_192",
	    .ikev2 = 12,
	    .phase1 = 7,
	    .phase2 = 12,
	    .key_bits = 192,
	    .key_attr = true,
	    .block = 16,
	    .iv = 16,
	    .xfrm = "cbc(aes)",
	    .openssl = "AES-192-CBC" },
	[ALG_AES256_CBC] = { .id = ALG_AES256_CBC,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes256",
	    .aliases = "aes256cbc aes_cbc256 aes_cbc_256 aes_256",
	    .ikev2 = 12,
	    .phase1 = 7,
	    .phase2 = 12,
	    .key_bits = 256,
	    .key_attr = true,
	    .block = 16,
	    .iv = 16,
	    .xfrm = "cbc(aes)",
	    .openssl = "AES-256-CBC" },

	/* RFC 4106, RFC 5282 */
	[ALG_AES128_GCM16] = { .id = ALG_AES128_GCM16,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes128gcm16",
	    .aliases = "aes128gcm128 aes128gcm aesgcm aesgcm16 aes_gcm "
	               "aes_gcm128 aes_gcm_128 aes_gcm_16 aes_gcm_16_128 "
	               "aes_gcm_c aes_gcm_c_128",
	    .ikev2 = 20,
	    .phase2 = 20,
	    .key_bits = 128,
	    .key_attr = true,
	    .block = 1,
	    .iv = 8,
	    .salt = 4,
	    .icv = 16,
	    .xfrm = "rfc4106(gcm(aes))",
	    .openssl = "AES-128-GCM" },
	[ALG_AES192_GCM16] = { .id = ALG_AES192_GCM16,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes192gcm16",
	    .aliases = "aes192gcm128 aes192gcm aes_gcm192 aes_gcm_192 "
	               "aes_gcm_16_192 aes_gcm_c_192",
	    .ikev2 = 20,
	    .phase2 = 20,
	    .key_bits = 192,
	    .key_attr = true,
	    .block = 1,
	    .iv = 8,
	    .salt = 4,
	    .icv = 16,
	    .xfrm = "rfc4106(gcm(aes))",
	    .openssl = "AES-192-GCM" },
	[ALG_AES256_GCM16] = { .id = ALG_AES256_GCM16,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "aes256gcm16",
	    .aliases = "aes256gcm128 aes256gcm aes_gcm256 aes_gcm_256 "
	               "aes_gcm_16_256 aes_gcm_c_256",
	    .ikev2 = 20,
	    .phase2 = 20,
	    .key_bits = 256,
	    .key_attr = true,
	    .block = 1,
	    .iv = 8,
	    .salt = 4,
	    .icv = 16,
	    .xfrm = "rfc4106(gcm(aes))",
	    .openssl = "AES-256-GCM" },

	/* RFC 7634 2: no key length attribute. */
	[ALG_CHACHA20_POLY1305] = { .id = ALG_CHACHA20_POLY1305,
	    .kind = ALG_ENCR,
	    .tier = TIER_MODERN,
	    .name = "chacha20poly1305",
	    .aliases = "chacha20_poly1305",
	    .ikev2 = 28,
	    .key_bits = 256,
	    .block = 1,
	    .iv = 8,
	    .salt = 4,
	    .icv = 16,
	    .xfrm = "rfc7539esp(chacha20,poly1305)",
	    .openssl = "ChaCha20-Poly1305" },

	/* RFC 2451; legacy: blocks of 64 bits (RFC 8221 5). */
	[ALG_3DES_CBC] = { .id = ALG_3DES_CBC,
	    .kind = ALG_ENCR,
	    .tier = TIER_LEGACY,
	    .name = "3des",
	    .aliases = "3des_cbc 3descbc",
	    .ikev2 = 3,
	    .phase1 = 5,
	    .phase2 = 3,
	    .key_bits = 192,
	    .block = 8,
	    .iv = 8,
	    .xfrm = "cbc(des3_ede)",
	    .openssl = "DES-EDE3-CBC" },

	/* RFC 2409 appendix A (hashes), RFC 4868 */
	[ALG_PRF_SHA1] = { .id = ALG_PRF_SHA1,
	    .kind = ALG_PRF,
	    .tier = TIER_COMPAT,
	    .name = "prfsha1",
	    .aliases = "sha1 sha hmac_sha1",
	    .ikev2 = 2,
	    .phase1 = 2,
	    .key_bits = 160,
	    .out = 20,
	    .openssl = "SHA1" },
	[ALG_PRF_SHA256] = { .id = ALG_PRF_SHA256,
	    .kind = ALG_PRF,
	    .tier = TIER_MODERN,
	    .name = "prfsha256",
	    .aliases = "prfsha2_256 sha256 sha2_256 sha2 hmac_sha2_256",
	    .ikev2 = 5,
	    .phase1 = 4,
	    .key_bits = 256,
	    .out = 32,
	    .openssl = "SHA256" },
	[ALG_PRF_SHA384] = { .id = ALG_PRF_SHA384,
	    .kind = ALG_PRF,
	    .tier = TIER_MODERN,
	    .name = "prfsha384",
	    .aliases = "prfsha2_384 sha384 sha2_384 hmac_sha2_384",
	    .ikev2 = 6,
	    .phase1 = 5,
	    .key_bits = 384,
	    .out = 48,
	    .openssl = "SHA384" },
	[ALG_PRF_SHA512] = { .id = ALG_PRF_SHA512,
	    .kind = ALG_PRF,
	    .tier = TIER_MODERN,
	    .name = "prfsha512",
	    .aliases = "prfsha2_512 sha512 sha2_512 hmac_sha2_512",
	    .ikev2 = 7,
	    .phase1 = 6,
	    .key_bits = 512,
	    .out = 64,
	    .openssl = "SHA512" },

	/* RFC 2404, RFC 4868 2.3 and 2.6 */
	[ALG_SHA1_96] = { .id = ALG_SHA1_96,
	    .kind = ALG_INTEG,
	    .tier = TIER_COMPAT,
	    .name = "sha1",
	    .aliases = "sha sha1_96 hmac_sha1 hmac_sha1_96",
	    .ikev2 = 2,
	    .phase2 = 2,
	    .key_bits = 160,
	    .icv = 12,
	    .out = 20,
	    .xfrm = "hmac(sha1)",
	    .openssl = "SHA1" },
	[ALG_SHA256_128] = { .id = ALG_SHA256_128,
	    .kind = ALG_INTEG,
	    .tier = TIER_MODERN,
	    .name = "sha256",
	    .aliases = "sha2_256 sha2 sha256_128 hmac_sha2_256 "
	               "hmac_sha2_256_128",
	    .ikev2 = 12,
	    .phase2 = 5,
	    .key_bits = 256,
	    .icv = 16,
	    .out = 32,
	    .xfrm = "hmac(sha256)",
	    .openssl = "SHA256" },
	[ALG_SHA384_192] = { .id = ALG_SHA384_192,
	    .kind = ALG_INTEG,
	    .tier = TIER_MODERN,
	    .name = "sha384",
	    .aliases = "sha2_384 sha384_192 hmac_sha2_384 hmac_sha2_384_192",
	    .ikev2 = 13,
	    .phase2 = 6,
	    .key_bits = 384,
	    .icv = 24,
	    .out = 48,
	    .xfrm = "hmac(sha384)",
	    .openssl = "SHA384" },
	[ALG_SHA512_256] = { .id = ALG_SHA512_256,
	    .kind = ALG_INTEG,
	    .tier = TIER_MODERN,
	    .name = "sha512",
	    .aliases = "sha2_512 sha512_256 hmac_sha2_512 hmac_sha2_512_256",
	    .ikev2 = 14,
	    .phase2 = 7,
	    .key_bits = 512,
	    .icv = 32,
	    .out = 64,
	    .xfrm = "hmac(sha512)",
	    .openssl = "SHA512" },

	/* RFC 2409 6.2, RFC 3526 */
	[ALG_MODP1024] = { .id = ALG_MODP1024,
	    .kind = ALG_KEX,
	    .tier = TIER_LEGACY,
	    .name = "modp1024",
	    .aliases = "dh2",
	    .ikev2 = 2,
	    .phase1 = 2,
	    .phase2 = 2,
	    .public_len = 128,
	    .secret_len = 128,
	    .openssl = NULL },
	[ALG_MODP1536] = { .id = ALG_MODP1536,
	    .kind = ALG_KEX,
	    .tier = TIER_LEGACY,
	    .name = "modp1536",
	    .aliases = "dh5",
	    .ikev2 = 5,
	    .phase1 = 5,
	    .phase2 = 5,
	    .public_len = 192,
	    .secret_len = 192,
	    .openssl = "modp_1536" },
	[ALG_MODP2048] = { .id = ALG_MODP2048,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "modp2048",
	    .aliases = "dh14",
	    .ikev2 = 14,
	    .phase1 = 14,
	    .phase2 = 14,
	    .public_len = 256,
	    .secret_len = 256,
	    .openssl = "modp_2048" },
	[ALG_MODP3072] = { .id = ALG_MODP3072,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "modp3072",
	    .aliases = "dh15",
	    .ikev2 = 15,
	    .phase1 = 15,
	    .phase2 = 15,
	    .public_len = 384,
	    .secret_len = 384,
	    .openssl = "modp_3072" },
	[ALG_MODP4096] = { .id = ALG_MODP4096,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "modp4096",
	    .aliases = "dh16",
	    .ikev2 = 16,
	    .phase1 = 16,
	    .phase2 = 16,
	    .public_len = 512,
	    .secret_len = 512,
	    .openssl = "modp_4096" },

	/* RFC 5903: x | y on the wire, x is the secret. */
	[ALG_ECP256] = { .id = ALG_ECP256,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "ecp256",
	    .aliases = "dh19 ecp_256",
	    .ikev2 = 19,
	    .phase1 = 19,
	    .phase2 = 19,
	    .public_len = 64,
	    .secret_len = 32,
	    .openssl = "P-256" },
	[ALG_ECP384] = { .id = ALG_ECP384,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "ecp384",
	    .aliases = "dh20 ecp_384",
	    .ikev2 = 20,
	    .phase1 = 20,
	    .phase2 = 20,
	    .public_len = 96,
	    .secret_len = 48,
	    .openssl = "P-384" },
	[ALG_ECP521] = { .id = ALG_ECP521,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "ecp521",
	    .aliases = "dh21 ecp_521",
	    .ikev2 = 21,
	    .phase1 = 21,
	    .phase2 = 21,
	    .public_len = 132,
	    .secret_len = 66,
	    .openssl = "P-521" },

	/* RFC 8031 */
	[ALG_CURVE25519] = { .id = ALG_CURVE25519,
	    .kind = ALG_KEX,
	    .tier = TIER_MODERN,
	    .name = "curve25519",
	    .aliases = "x25519 dh31",
	    .ikev2 = 31,
	    .phase1 = 31,
	    .phase2 = 31,
	    .public_len = 32,
	    .secret_len = 32,
	    .openssl = "X25519" },
};

_Static_assert(ALG_COUNT <= 64, "struct alg_set has 64 bits");

bool
alg_set_has(const struct alg_set *set, const struct alg *alg)
{
	return alg != NULL && (set->bits >> alg->id & 1) != 0;
}

const struct alg *
alg_get(enum alg_id id)
{
	if (id <= ALG_NONE || id >= ALG_COUNT)
		return NULL;
	return &table[id];
}

/* Whether name is one of the words of list, case ignored. */
static bool
has_word(const char *list, const char *name, size_t len)
{
	while (*list != '\0') {
		size_t word = strcspn(list, " ");

		if (word == len && strncasecmp(list, name, len) == 0)
			return true;
		list += word;
		list += strspn(list, " ");
	}
	return false;
}

const struct alg *
alg_by_name(enum alg_kind kind, const char *name)
{
	size_t len = strlen(name);

	for (int id = ALG_NONE + 1; id < ALG_COUNT; id++) {
		const struct alg *alg = &table[id];

		if (alg->kind != kind)
			continue;
		if (strcasecmp(alg->name, name) == 0 ||
		    has_word(alg->aliases, name, len))
			return alg;
	}
	return NULL;
}

/* Whether key_bits (0: no attribute) is what must stand beside alg. */
static bool
key_fits(const struct alg *alg, uint16_t key_bits)
{
	return key_bits == (alg->key_attr ? alg->key_bits : 0);
}

const struct alg *
alg_by_ikev2(enum alg_kind kind, uint16_t number, uint16_t key_bits)
{
	if (number == 0)
		return NULL;
	for (int id = ALG_NONE + 1; id < ALG_COUNT; id++) {
		const struct alg *alg = &table[id];

		if (alg->kind == kind && alg->ikev2 == number &&
		    key_fits(alg, key_bits))
			return alg;
	}
	return NULL;
}

/* Interop: RFC 3602 5.2 and 5.3 demand a key length for AES-CBC; peers that
 * leave it out mean 128 bits. */
static uint16_t
v1_key_bits(const struct alg *alg, uint16_t key_bits)
{
	return key_bits == 0 && alg->id == ALG_AES128_CBC ? 128 : key_bits;
}

const struct alg *
alg_by_phase1(enum alg_kind kind, uint16_t number, uint16_t key_bits)
{
	if (number == 0)
		return NULL;
	for (int id = ALG_NONE + 1; id < ALG_COUNT; id++) {
		const struct alg *alg = &table[id];

		if (alg->kind == kind && alg->phase1 == number &&
		    key_fits(alg, v1_key_bits(alg, key_bits)))
			return alg;
	}
	return NULL;
}

const struct alg *
alg_by_phase2(enum alg_kind kind, uint16_t number, uint16_t key_bits)
{
	if (number == 0)
		return NULL;
	for (int id = ALG_NONE + 1; id < ALG_COUNT; id++) {
		const struct alg *alg = &table[id];

		if (alg->kind == kind && alg->phase2 == number &&
		    key_fits(alg, v1_key_bits(alg, key_bits)))
			return alg;
	}
	return NULL;
}

bool
alg_is_aead(const struct alg *alg)
{
	return alg->kind == ALG_ENCR && alg->icv != 0;
}

size_t
alg_keymat(const struct alg *alg)
{
	return (size_t)alg->key_bits / 8 + alg->salt;
}

/* Rows of both kinds stand in the same order. */
_Static_assert(ALG_SHA512_256 - ALG_SHA1_96 == ALG_PRF_SHA512 - ALG_PRF_SHA1,
    "one PRF row for each INTEG row");

const struct alg *
alg_prf_of_integ(const struct alg *integ)
{
	if (integ == NULL || integ->kind != ALG_INTEG)
		return NULL;
	return &table[ALG_PRF_SHA1 + (integ->id - ALG_SHA1_96)];
}

const struct alg *
alg_integ_of_prf(const struct alg *prf)
{
	if (prf == NULL || prf->kind != ALG_PRF)
		return NULL;
	return &table[ALG_SHA1_96 + (prf->id - ALG_PRF_SHA1)];
}

const char *
alg_tier_text(enum alg_tier tier)
{
	switch (tier) {
	case TIER_MODERN:
		return "modern";
	case TIER_COMPAT:
		return "compat";
	case TIER_LEGACY:
		return "legacy";
	}
	return "unknown";
}
