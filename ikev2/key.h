/*
 * key: IKEv2's keying material: SKEYSEED and the seven SK_* keys of an IKE SA,
 * and KEYMAT of a child. RFC 7296 2.13, 2.14, 2.17, 2.18.
 *
 * The seven keys of an SA lie in one struct secret, in the order of 2.14; how
 * long each is follows from the suite.
 */
#ifndef IKEV2_KEY_H
#define IKEV2_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/alg.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/proposal.h"

/* RFC 7296 2.14: in the order in which prf+ gives them. */
enum v2_key {
	V2_SK_D,
	V2_SK_AI,
	V2_SK_AR,
	V2_SK_EI,
	V2_SK_ER,
	V2_SK_PI,
	V2_SK_PR,
	V2_KEYS
};

/* Octets of one key of an IKE SA with this suite. */
size_t v2_key_len(const struct suite *suite, enum v2_key which);

/* Borrowed from keys; empty while there are none. */
struct view
v2_key(const struct suite *suite, const struct secret *keys, enum v2_key which);

/* What SKEYSEED and the keys are made of. SPIs are big-endian numbers. */
struct v2_key_input {
	struct view shared; /* g^ir */
	struct view nonce_i, nonce_r;
	uint64_t spi_i, spi_r;
};

/* RFC 7296 2.14: SKEYSEED = prf(Ni | Nr, g^ir). Replaces keys. */
enum err v2_key_derive(const struct suite *suite,
    const struct v2_key_input *input, struct secret *keys);

/* RFC 7296 2.18: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), with the
 * old SA's PRF; the keys come from the new SA's. */
enum err v2_key_rederive(const struct suite *suite, const struct alg *old_prf,
    struct view old_sk_d, const struct v2_key_input *input,
    struct secret *keys);

/* RFC 7296 2.17: KEYMAT = prf+(SK_d, [g^ir |] Ni | Nr), cut into the keys of
 * the direction from the exchange's initiator first. shared is empty without
 * PFS. initiator: we began the exchange, so that this direction is ours out. */
enum err
v2_key_child(const struct alg *prf, struct view sk_d, struct view shared,
    struct view nonce_i, struct view nonce_r, const struct suite *child,
    bool initiator, struct secret *keys_in, struct secret *keys_out);

/* RFC 7296 2.8.1: octet by octet; the shorter of two of which one begins the
 * other is the lower. Less than, equal to or greater than 0. */
int v2_nonce_compare(struct view a, struct view b);

#endif
