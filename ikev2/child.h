/*
 * child: makes child SAs, in IKE_AUTH and CREATE_CHILD_SA, and replaces them:
 * the initiator's side, and what both sides share. RFC 7296 1.2, 1.3.1, 1.3.3,
 * 2.8.1, 2.9, 2.17, 2.23.1, 2.25.1. The responder's is grant.
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

/* The child that x makes, and the one that it replaces; NULL if gone. */
struct child_sa *v2_child_of(const struct v2_exchange *x);
struct child_sa *v2_child_old(const struct v2_exchange *x);
/* Is this the child of IKE_AUTH? */
bool v2_child_in_auth(const struct v2_exchange *x);
/* A child with its timers, as x->child. NULL: out of memory. */
struct child_sa *
v2_child_make(struct v2_exchange *x, struct conn *conn, bool initiator);
/* The connection that a child of conn, or the successor of one, gets: what is
 * in force under its name. Borrowed. */
struct conn *v2_child_conn(const struct ike_sa *sa, struct conn *conn);
/* Our exchange that has asked for a child and is not answered; or NULL. */
struct v2_exchange *v2_child_awaited(struct v2_sa *v2);
/* What is in force does not allow child any more (common/terms). */
void v2_child_end_terms(struct child_sa *child);
/* RFC 7296 2.23.1: transport mode's selectors as our policy knows them. ERR_TS
 * where they name more than one address. */
enum err v2_child_undo_nat(const struct ike_sa *sa, struct ts_list *local,
    struct ts_list *remote, struct endpoint *natoa_local,
    struct endpoint *natoa_remote);
/* RFC 7296 2.17: fills child's keys. */
enum err v2_child_keys(struct v2_exchange *x, struct child_sa *child);
/* An ESP proposal's SPI, in host order. */
uint32_t v2_child_spi(const struct offer *offer);
/* May this child still be rekeyed? Not when it was, or is being deleted. */
bool
v2_child_rekeyable(const struct v2_exchange *x, const struct child_sa *old);
/* old has a successor with serial by, and waits for its Delete. */
void v2_child_replace(struct v2_exchange *x, struct child_sa *old, uint64_t by);
void v2_child_log(const struct child_sa *child, const char *verb);

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

#endif
