/*
 * alg: the registry of algorithms. One row carries everything that any part of
 * Orthrus needs to know about one algorithm with one key length: names in
 * ipsec.conf, numbers in both versions of IKE, names for XFRM and OpenSSL,
 * sizes and tier.
 *
 * Numbers: IANA "IKEv2 Parameters" and "IPsec Registry"; RFC 2409 appendix A,
 * RFC 2407 4.4.4 and 4.5, RFC 3602, RFC 4106, RFC 4868, RFC 7634, RFC 5903,
 * RFC 8031. Tiers: RFC 8221, 8247. What is not in the table does not exist for
 * Orthrus: DES, MD5, MODP-768 and the RFC 5114 groups.
 */
#ifndef COMMON_ALG_H
#define COMMON_ALG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum alg_kind { ALG_ENCR, ALG_PRF, ALG_INTEG, ALG_KEX, ALG_KINDS };

enum alg_tier { TIER_MODERN, TIER_COMPAT, TIER_LEGACY };

/* Indices of our own; never on the wire. */
enum alg_id {
	ALG_NONE,
	ALG_AES128_CBC,
	ALG_AES192_CBC,
	ALG_AES256_CBC,
	ALG_AES128_GCM16,
	ALG_AES192_GCM16,
	ALG_AES256_GCM16,
	ALG_CHACHA20_POLY1305,
	ALG_3DES_CBC,
	ALG_PRF_SHA1,
	ALG_PRF_SHA256,
	ALG_PRF_SHA384,
	ALG_PRF_SHA512,
	ALG_SHA1_96,
	ALG_SHA256_128,
	ALG_SHA384_192,
	ALG_SHA512_256,
	ALG_MODP1024,
	ALG_MODP1536,
	ALG_MODP2048,
	ALG_MODP3072,
	ALG_MODP4096,
	ALG_ECP256,
	ALG_ECP384,
	ALG_ECP521,
	ALG_CURVE25519,
	ALG_COUNT /* at most 64: see struct alg_set */
};

struct alg {
	uint8_t id;       /* enum alg_id */
	uint8_t kind;     /* enum alg_kind */
	uint8_t tier;     /* enum alg_tier */
	const char *name; /* as we print it, and in ipsec.conf: "aes256" */
	const char
	    *aliases; /* other spellings, separated by one space, or "" */

	uint16_t ikev2;  /* transform ID; 0: not in IKEv2 */
	uint16_t phase1; /* RFC 2409 attribute value; 0: not in phase 1. For a
	                  * PRF row: the hash */
	uint16_t phase2; /* ESP transform ID (ENCR) or authentication algorithm
	                  * attribute (INTEG), group (KEX); 0: not there */
	uint16_t key_bits; /* of the key proper, without salt */
	bool key_attr;     /* a key length attribute must stand beside it */

	uint8_t block; /* cipher block, octets (1 for stream and AEAD) */
	uint8_t iv;    /* octets of IV in the packet */
	uint8_t salt;  /* octets of salt after the key in KEYMAT; else 0 */
	uint8_t icv;   /* octets of ICV (AEAD, INTEG) */
	uint8_t out;   /* PRF: octets of output; INTEG: of untruncated output */
	uint16_t public_len; /* KEX: octets of a public value on the wire */
	uint16_t secret_len; /* KEX: octets of the shared secret */

	const char *xfrm;    /* kernel's name: "rfc4106(gcm(aes))"; NULL none */
	const char *openssl; /* cipher, digest or group name for EVP */
};

/* Which algorithms passed their self-test at start; bit 1 << enum alg_id. */
struct alg_set {
	uint64_t bits;
};

bool alg_set_has(const struct alg_set *set, const struct alg *alg);

/* NULL for ALG_NONE and out of range. */
const struct alg *alg_get(enum alg_id id);

/* By a name of ipsec.conf, any alias, case ignored. A name such as "sha256"
 * names an INTEG and a PRF row: the caller asks for the kind. NULL if none. */
const struct alg *alg_by_name(enum alg_kind kind, const char *name);

/* By the number on the wire. key_bits 0: no key length attribute was there. A
 * wrong or missing key length gives NULL (RFC 7296 3.3.5). */
const struct alg *
alg_by_ikev2(enum alg_kind kind, uint16_t number, uint16_t key_bits);
const struct alg *
alg_by_phase1(enum alg_kind kind, uint16_t number, uint16_t key_bits);
const struct alg *
alg_by_phase2(enum alg_kind kind, uint16_t number, uint16_t key_bits);

bool alg_is_aead(const struct alg *alg);
/* Octets of key plus salt that KEYMAT gives for this row. */
size_t alg_keymat(const struct alg *alg);
/* The PRF row that belongs to an INTEG row ("sha256" in ike=), and back. */
const struct alg *alg_prf_of_integ(const struct alg *integ);
const struct alg *alg_integ_of_prf(const struct alg *prf);

const char *alg_tier_text(enum alg_tier tier); /* "modern", ... */

#endif
