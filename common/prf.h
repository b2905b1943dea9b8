/*
 * prf: pseudo-random functions, integrity MACs and digests, over OpenSSL.
 *
 * Contexts are kept per thread and keyed anew for each call; nothing is
 * fetched or allocated per call. RFC 2104, 2404, 4868, RFC 7296 2.13.
 */
#ifndef COMMON_PRF_H
#define COMMON_PRF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

#define PRF_MAX 64 /* octets of the largest output */

/* prf(key, part[0] | part[1] | ...) into out, alg->out octets. alg is a PRF
 * row. A key of any length (HMAC). */
enum err prf(const struct alg *alg, struct view key, const struct view *parts,
    size_t count, uint8_t *out);

/* prf+ (RFC 7296 2.13): fills out to out->len octets, which the caller set by
 * secret_new(). At most 255 rounds: ERR_LONG beyond. */
enum err prf_plus(const struct alg *alg, struct view key,
    const struct view *parts, size_t count, struct secret *out);

/* Truncated MAC of an INTEG row: alg->icv octets into out. */
enum err prf_mac(const struct alg *alg, struct view key,
    const struct view *parts, size_t count, uint8_t *out);

/* The digest of a PRF row (IKEv1's hash; RFC 2409 5, appendix B). */
enum err prf_hash(const struct alg *alg, const struct view *parts, size_t count,
    uint8_t *out);

/* SHA-1 as RFC 7296 2.23 and RFC 3947 3.2 want it for NAT detection, whatever
 * the negotiated algorithms. 20 octets. */
enum err prf_sha1(const struct view *parts, size_t count, uint8_t out[20]);

#endif
