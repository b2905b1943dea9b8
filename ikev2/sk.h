/*
 * sk: the Encrypted payload and its fragments: sealing what we send, verifying
 * and opening what arrives. RFC 7296 3.14 (CBC and a MAC), RFC 5282 (AES-GCM),
 * RFC 7634 (ChaCha20-Poly1305), RFC 7383 2.5 (SKF).
 */
#ifndef IKEV2_SK_H
#define IKEV2_SK_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/env.h"
#include "common/err.h"
#include "common/proposal.h"
#include "common/rexmit.h"
#include "common/wire.h"

#define V2_SK_CHAIN 8192 /* octets of payloads in one message of ours */

/* The keys of one direction, borrowed. */
struct v2_sk_keys {
	const struct suite *suite;
	struct view encr, integ;
};

/* Seals chain, whose first payload has type first, below header, and appends
 * the packets to flight: one with SK, or, where that is longer than limit
 * octets (0: no limit), several with SKF. *iv counts the packets that an AEAD
 * key has sealed: an IV is never used twice (RFC 5282 4). ERR_LONG for more
 * than V2_SK_CHAIN octets; ERR_CRYPTO, ERR_NOMEM. */
enum err v2_sk_seal(struct env *env, const struct v2_sk_keys *keys,
    uint64_t *iv, const struct wire_header *header, uint8_t first,
    struct view chain, size_t limit, struct flight *flight);

/* What an opened message, or fragment, is. */
struct v2_sk_part {
	uint8_t first; /* type of the first payload; 0 in later fragments */
	uint16_t number, total; /* of fragments; 0 for a whole message */
};

/* msg holds the outer chain. Verifies first; the plaintext is then
 * msg->opened. ERR_NOT_FOUND: there is no SK or SKF at its end. ERR_AUTH: not
 * the peer's. ERR_SYNTAX: the peer's, but malformed (padding, numbers). */
enum err v2_sk_open(
    const struct v2_sk_keys *keys, struct msg *msg, struct v2_sk_part *part);

/* The fragment number that stands in the message, before anything is verified:
 * 0 if it is none. */
uint16_t v2_sk_fragment(const struct msg *msg);

#endif
