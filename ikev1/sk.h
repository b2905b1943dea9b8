/*
 * sk: encryption of IKEv1 messages.
 *
 * The body of a message is CBC-encrypted as a whole; the last ciphertext block
 * is the IV of the next message of the exchange (RFC 2409 appendix B). Nothing
 * here authenticates: until the HASH inside has been verified, both the octets
 * and the IV are tentative, so functions take the IV by value and give the new
 * one beside it.
 */
#ifndef IKEV1_SK_H
#define IKEV1_SK_H

#include "common/buf.h"
#include "common/err.h"
#include "common/wire.h"
#include "ikev1/key.h"

/* Pads what follows the header in message (a whole one, wire_finish() still to
 * come) with zeroes to the block size, encrypts it in place and sets the
 * encryption flag. iv is replaced by the last block. ERR_LONG if there is no
 * room for the padding. RFC 2408 5.1: the length in the header counts the
 * padding. */
enum err v1_sk_seal(const struct v1_keys *keys, struct buf *message,
    uint8_t iv[static V1_BLOCK_MAX]);

/* Decrypts msg->whole's body into msg->opened and reads its payloads. next
 * receives the IV that follows. Errors: ERR_SYNTAX when the body is empty or no
 * multiple of the block, or what came out is no chain of payloads (a wrong
 * key, as likely as not); ERR_NOMEM. May be called again with other keys. */
enum err v1_sk_open(const struct v1_keys *keys, struct msg *msg,
    const uint8_t iv[static V1_BLOCK_MAX], uint8_t next[static V1_BLOCK_MAX]);

/* All that follows the first payload (HASH), to the end of the last one; what
 * comes after that is padding. Empty if there is one payload. */
struct view v1_sk_rest(const struct msg *msg);

#endif
