/*
 * kex: Diffie-Hellman key exchange, over OpenSSL.
 *
 * An ephemeral key serves one exchange and is never used again (RFC 6989
 * 2.2). Every public value is checked in one place, kex_check(): RFC 6989 2.1,
 * 2.3 and RFC 8031. Expensive calls belong on a worker: see common/dh.h.
 */
#ifndef COMMON_KEX_H
#define COMMON_KEX_H

#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

struct kex; /* an ephemeral key pair */

/* Draws a key pair for a KEX row. The caller owns *kex. */
enum err kex_new(const struct alg *alg, struct kex **kex);

/* A given pair, for known-answer tests only: private as a number in network
 * order (Curve25519: as RFC 7748 writes it), public as on the wire. */
enum err kex_from_pair(const struct alg *alg, struct view private,
    struct view public, struct kex **kex);

void kex_free(struct kex *kex); /* wipes; accepts NULL */

/* Wipes the private half, which has served: kex_public() still answers,
 * kex_derive() does not (ERR_WRONG_STATE). Best on the thread that drew it,
 * whose allocator takes the pieces back for the next. */
void kex_spend(struct kex *kex);

const struct alg *kex_alg(const struct kex *kex);

/* Our public value in the form of the wire: MODP padded to the prime's length
 * (RFC 2631 2.1.2), ECP as x | y (RFC 5903), Curve25519 as u. Borrowed. */
struct view kex_public(const struct kex *kex);

/* Exact length; MODP 1 < y < p - 1; ECP on the curve, not infinity;
 * Curve25519: not refused here, but an all-zero result is (RFC 8031 5).
 * ERR_KE if it breaks the rule. Costs microseconds. */
enum err kex_check(const struct alg *alg, struct view peer_public);

/* The shared secret: MODP g^xy padded to the prime's length, ECP the x
 * coordinate (RFC 5903 7), Curve25519 the 32 octets. Checks first. */
enum err kex_derive(
    const struct kex *kex, struct view peer_public, struct secret *shared);

#endif
