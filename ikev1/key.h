/*
 * key: the keys, hashes and IVs of IKEv1, as pure functions.
 *
 * RFC 2409 5 (SKEYID family, HASH_I, HASH_R), 5.5 (Quick Mode's hashes,
 * KEYMAT), 5.7 (Informational) and appendix B (IVs, stretching of keys).
 * Cookies are big-endian numbers, as in struct wire_header.
 */
#ifndef IKEV1_KEY_H
#define IKEV1_KEY_H

#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/prf.h"
#include "common/proposal.h"

#define V1_BLOCK_MAX 16 /* octets of the largest cipher block, and IV */

/* What an ISAKMP SA keeps of phase 1: SKEYID_d | SKEYID_a | the encryption
 * key, in one allocation. Empty (zeroed) before phase 1 and when it is of no
 * more use. */
struct v1_keys {
	const struct alg *prf, *encr;
	struct secret octets;
};

/* RFC 2409 5 and appendix B. skeyid is prf->out octets. ERR_NOMEM,
 * ERR_CRYPTO; keys is unchanged then. */
enum err v1_key_derive(struct v1_keys *keys, const struct suite *suite,
    struct view skeyid, struct view shared, uint64_t spi_i, uint64_t spi_r);
void v1_key_free(struct v1_keys *keys); /* wipes; keys is empty afterwards */
struct view v1_key_d(const struct v1_keys *keys);
struct view v1_key_a(const struct v1_keys *keys);
struct view v1_key_encr(const struct v1_keys *keys);

/* HASH_I when initiator, else HASH_R: prf->out octets into out. public_i and
 * public_r are the bodies of both KE payloads, sa_body the initiator's whole
 * SA body, id_body the body of the ID of the end whose hash it is. */
struct v1_hash_phase1 {
	const struct alg *prf;
	struct view skeyid, public_i, public_r, sa_body, id_body;
	uint64_t spi_i, spi_r;
};
enum err v1_key_hash_phase1(const struct v1_hash_phase1 *in, bool initiator,
    uint8_t out[static PRF_MAX]);

/* Appendix B: the first IV of phase 1, hash(g^xi | g^xr), and of an exchange
 * of phase 2, hash(last block of phase 1 | M-ID); encr->block octets. */
enum err v1_key_iv_phase1(const struct suite *suite, struct view public_i,
    struct view public_r, uint8_t iv[static V1_BLOCK_MAX]);
enum err v1_key_iv_phase2(const struct v1_keys *keys,
    const uint8_t last[static V1_BLOCK_MAX], uint32_t id,
    uint8_t iv[static V1_BLOCK_MAX]);

/* Quick Mode's and Informational's hashes. rest: all that follows the HASH
 * payload, up to the end of the last payload.
 * HASH(1) = prf(SKEYID_a, M-ID | rest)
 * HASH(2) = prf(SKEYID_a, M-ID | Ni_b | rest)
 * HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b) */
enum err v1_key_hash1(const struct v1_keys *keys, uint32_t id, struct view rest,
    uint8_t out[static PRF_MAX]);
enum err v1_key_hash2(const struct v1_keys *keys, uint32_t id,
    struct view nonce_i, struct view rest, uint8_t out[static PRF_MAX]);
enum err v1_key_hash3(const struct v1_keys *keys, uint32_t id,
    struct view nonce_i, struct view nonce_r, uint8_t out[static PRF_MAX]);

/* KEYMAT of one direction, filling keymat to its length (secret_new), at most
 * 255 rounds: prf(SKEYID_d, [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b). spi
 * is that of the receiver; shared is empty without PFS. */
enum err v1_key_mat(const struct v1_keys *keys, struct view shared,
    uint8_t protocol, uint32_t spi, struct view nonce_i, struct view nonce_r,
    struct secret *keymat);

#endif
