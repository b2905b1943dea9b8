/*
 * rekey: replaces an IKE SA by a new one, its heir, to which the children
 * move. RFC 7296 1.3.2, 2.8, 2.8.2, 2.18, 2.25.2.
 */
#ifndef IKEV2_REKEY_H
#define IKEV2_REKEY_H

#include "ikev2/internal.h"

/* Our rekey ended without an heir; x->x.error says why. */
void v2_rekey_gave_up(struct v2_exchange *x);
/* The peer deletes the old SA: if it made an heir while we tried to, that one
 * takes over (RFC 7296 2.8.2). False if the old SA must live a moment longer,
 * because our own rekey has been answered and is being settled. */
bool v2_rekey_deleted(struct v2_sa *v2);

/* Steps. */
fsm_step v2_rekey_i_begin, v2_rekey_i_send, v2_rekey_i_accept, v2_rekey_i_done,
    v2_rekey_i_group, v2_rekey_i_refused;
fsm_step v2_rekey_r_choose, v2_rekey_r_answer;

#endif
