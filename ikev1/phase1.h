/*
 * phase1: Main Mode with a pre-shared key (RFC 2409 5.4, RFC 3947 3 and 4).
 *
 * Diffie-Hellman begins with the third message, when the peer has shown that
 * it receives at its address: IKEv1 has no cookies that cost nothing (RFC 2408
 * 2.5.3). Our nonce is the vault's, which knows it by a handle.
 */
#ifndef IKEV1_PHASE1_H
#define IKEV1_PHASE1_H

#include "common/fsm.h"
#include "common/net.h"
#include "ikev1/state.h"

/* Begins Main Mode. replaces: the serial of the SA that the new one renews, or
 * 0. first_child: conn's Quick Modes follow. On OK *v1 is borrowed. */
enum err v1_main_begin(struct env *env, struct conn *conn,
    const struct endpoint *local, const struct endpoint *remote, bool natt,
    uint64_t replaces, bool first_child, struct v1_sa **v1);

/* The first message of a stranger: makes an SA, within the half-open budget
 * and only if a connection may fit, and hands the message to it. */
void v1_main_first(struct env *env, const struct packet *packet,
    const struct wire_header *header);
/* v1.c: hands a first message to its SA. */
void v1_deliver_first(struct v1_sa *v1, const struct packet *packet,
    const struct wire_header *header);

/* Steps, in the order of the rule table. */
fsm_step v1_main_offer, v1_main_take_answer, v1_main_generate, v1_main_send3,
    v1_main_take4, v1_main_send5;
fsm_step v1_main_choose, v1_main_take3, v1_main_send4;
fsm_step v1_main_finish; /* both roles: established; the responder sends MM6 */

/* The table's callbacks for Main Mode. */
void v1_main_moved(struct v1_sa *v1, struct v1_exchange *x);
void v1_main_failed(struct v1_sa *v1, struct v1_exchange *x);

#endif
