/*
 * select: Quick Mode's identities as traffic selectors, and which connection
 * they mean. RFC 2407 4.6.2, RFC 3947 5.2.
 */
#ifndef IKEV1_SELECT_H
#define IKEV1_SELECT_H

#include "common/ts.h"
#include "common/wire.h"
#include "ikev1/state.h"

/* Writes the body of an ID payload. False for what IKEv1 cannot say: a range
 * of ports that is neither one nor all. */
bool v1_select_write(struct buf *buf, const struct ts *ts);
bool v1_select_sayable(const struct ts *ts);

/* Reads the body of an ID payload: address, subnet or range. ERR_SHORT,
 * ERR_SYNTAX, ERR_UNSUPPORTED (names). */
enum err v1_select_read(struct view body, struct ts *ts);

/* IDci and IDcr of a Quick Mode message, in this order, as the initiator's and
 * the responder's selector. ERR_NOT_FOUND where it has none: the outer
 * addresses are meant (RFC 2409 5.5). */
enum err
v1_select_of(const struct msg *msg, struct ts *initiator, struct ts *responder);

/* Connections that an established SA may serve, its own first; borrowed. */
size_t v1_select_conns(struct ike_sa *sa, struct conn *found[static V1_CONNS]);

/* In transport mode behind NAT, the outer addresses take the places of the
 * others (RFC 3947 5.2 leaves them unusable). */
void v1_select_here(
    const struct ike_sa *sa, uint8_t mode, struct ts *local, struct ts *remote);

/* Does the peer's proposal (remote, local as seen from us) lie within conn's
 * selectors? v1_select_here() is applied first, in place. */
bool v1_select_fits(struct ike_sa *sa, const struct conn *conn,
    struct ts *local, struct ts *remote);

#endif
