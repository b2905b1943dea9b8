/*
 * auth: IKE_AUTH with pre-shared keys, both sides, and with it the first
 * child. RFC 7296 1.2, 2.4, 2.15, 2.21.2, 3.8.
 */
#ifndef IKEV2_AUTH_H
#define IKEV2_AUTH_H

#include "ikev2/internal.h"

/* IKE_SA_INIT is done: begins IKE_AUTH as initiator. */
void v2_auth_begin(struct v2_sa *v2);

/* Of the connections for these addresses, those that an established SA may
 * serve: its addresses, suite and identities, the same way of proving them;
 * best first. */
struct v2_conns;
enum err v2_auth_conns(struct ike_sa *sa, struct v2_conns *conns);

/* Steps. */
fsm_step v2_auth_i_begin, v2_auth_i_send, v2_auth_i_refused, v2_auth_i_check,
    v2_auth_i_establish, v2_auth_i_finish;
fsm_step v2_auth_r_identify, v2_auth_r_verify, v2_auth_r_answer,
    v2_auth_r_without;

#endif
