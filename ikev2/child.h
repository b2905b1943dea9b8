/*
 * child: makes child SAs, in IKE_AUTH and CREATE_CHILD_SA, as initiator and as
 * responder, and replaces them. RFC 7296 1.2, 1.3.1, 1.3.3, 2.8.1, 2.9, 2.17,
 * 2.23.1, 2.25.1.
 *
 * In IKE_AUTH a child that fails does not take the IKE SA along: there, these
 * steps never answer FAIL.
 */
#ifndef IKEV2_CHILD_H
#define IKEV2_CHILD_H

#include "ikev2/internal.h"

/* Initiator: a new child, its selectors (old's, or conn's with packet's
 * first), and its SPI asked for. */
enum err
v2_child_begin(struct v2_exchange *x, struct conn *conn, struct child_sa *old);
/* Appends [N(USE_TRANSPORT_MODE)] SA [Ni] [KEi] TSi TSr. */
enum err v2_child_offer(struct v2_exchange *x, struct wire_out *out);

/* Responder: looks at what installing said; appends the child's payloads, or
 * the notify that refuses it; and tells of the child once that is sent. */
void v2_child_settle(struct v2_exchange *x);
void v2_child_answer(struct v2_exchange *x, struct wire_out *out);
void v2_child_announce(struct v2_exchange *x);

/* Removes a child of which nobody shall hear. */
void v2_child_drop(struct child_sa *child);
/* The old SA of a rekey is gone, by anybody's Delete: its successor sends from
 * now on, and the last packets on their way in are still taken. */
void v2_child_retire(struct child_sa *child, bool by_peer);
/* Asks the kernel whether the peer has begun to use the child. */
void v2_child_poll(struct child_sa *child);
/* Our exchange ended without a child; x->x.error says why. */
void v2_child_gave_up(struct v2_exchange *x);

/* Steps. */
fsm_step v2_child_i_begin, v2_child_i_send, v2_child_i_accept,
    v2_child_i_install, v2_child_i_done, v2_child_i_group, v2_child_i_refused;
fsm_step v2_child_r_guard, v2_child_r_choose, v2_child_r_install,
    v2_child_r_answer;

#endif
