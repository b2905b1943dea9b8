/*
 * cipher: encryption of IKE messages and ESP packets, over OpenSSL.
 *
 * Contexts are kept per thread. Keys are borrowed. RFC 3602, 2451, 4106, 5282,
 * 7634.
 */
#ifndef COMMON_CIPHER_H
#define COMMON_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"

/* CBC without padding, in place allowed. text.len must be a multiple of
 * alg->block; iv has alg->block octets; out has room for text.len. */
enum err cipher_cbc_encrypt(const struct alg *alg, struct view key,
    const uint8_t *iv, struct view text, uint8_t *out);
enum err cipher_cbc_decrypt(const struct alg *alg, struct view key,
    const uint8_t *iv, struct view text, uint8_t *out);

/* AEAD. key holds the key followed by alg->salt octets of salt, as KEYMAT
 * gives it; iv the alg->iv octets of the packet. out has room for text.len;
 * tag for alg->icv. In place allowed. Opening verifies first: ERR_AUTH leaves
 * nothing of the plaintext in out. */
enum err
cipher_aead_seal(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view aad, struct view text, uint8_t *out, uint8_t *tag);
enum err
cipher_aead_open(const struct alg *alg, struct view key, const uint8_t *iv,
    struct view aad, struct view text, const uint8_t *tag, uint8_t *out);

#endif
