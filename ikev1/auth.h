/*
 * auth: who the peer is: the fifth and sixth message of Main Mode.
 *
 * HASH_I and HASH_R (RFC 2409 5), identities (RFC 2407 4.6.2), the choice
 * among several pre-shared keys for an unknown address, and the rule that an
 * identity must be one that the matching key's own selectors permit.
 */
#ifndef IKEV1_AUTH_H
#define IKEV1_AUTH_H

#include "common/fsm.h"
#include "ikev1/state.h"

/* Keys of the n-th SKEYID candidate, and the IV of the first encrypted
 * message. */
enum err v1_auth_keys(struct v1_sa *v1, unsigned n, struct v1_keys *keys,
    uint8_t iv[static V1_BLOCK_MAX]);

/* Opens MM5 (responder: with every candidate until HASH_I fits) or MM6. On OK
 * msg is open and its HASH verified, the proof is in v1->main, and x's IV has
 * moved on. ERR_AUTH when no key fits; ERR_WRONG_STATE when none is
 * awaited. */
enum err v1_auth_open(struct v1_sa *v1, struct v1_exchange *x, struct msg *msg);

/* Appends our ID and HASH payloads, and INITIAL-CONTACT where it is due, to
 * MM5 or MM6. */
enum err v1_auth_write(struct v1_sa *v1, struct v1_out *out);

/* Reads the identity (IDii or IDir), chooses or checks the connection, and asks
 * the vault whether the PSK may authenticate it. */
fsm_step v1_auth_identify;
/* The vault said yes: the identity is proven. */
fsm_step v1_auth_proven;

#endif
