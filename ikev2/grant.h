/*
 * grant: child SAs that the peer asks for, in IKE_AUTH and CREATE_CHILD_SA.
 * RFC 7296 1.2, 1.3.1, 1.3.3, 2.9, 2.25.1.
 *
 * In IKE_AUTH a child that is refused does not take the IKE SA along: there,
 * these steps never answer FAIL.
 */
#ifndef IKEV2_GRANT_H
#define IKEV2_GRANT_H

#include "ikev2/internal.h"

/* Looks at what installing said. */
void v2_grant_settle(struct v2_exchange *x);
/* Appends the child's payloads, or the notify that refuses it. */
void v2_grant_write(struct v2_exchange *x, struct wire_out *out);
/* The answer is sent: tells of the child. */
void v2_grant_announce(struct v2_exchange *x);

/* Steps. */
fsm_step v2_grant_guard, v2_grant_choose, v2_grant_install, v2_grant_respond;

#endif
