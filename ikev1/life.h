/*
 * life: how IKEv1's ISAKMP SAs come up, are renewed, replaced and end.
 *
 * An ISAKMP SA and the IPsec SAs made below it live and die apart (RFC 2408
 * 4.3: deleting the first does not delete the others). Children therefore move
 * to the ISAKMP SA that comes after theirs. Where there is none yet, the old
 * one stays as a husk: known to the maps, deaf but for late Deletes, soon
 * without keys, until the last of its children ends or a new ISAKMP SA of the
 * same peer adopts them.
 *
 * Phase 1 is renewed by a new Main Mode; who began it deletes the old SA some
 * seconds later. When both ends do so at once, the one of the two new SAs
 * with the lower initiator cookie is deleted by its initiator, in a while: a
 * peer that judges otherwise has deleted the other one by then.
 */
#ifndef IKEV1_LIFE_H
#define IKEV1_LIFE_H

#include "ikev1/state.h"

void v1_life_init(struct v1_sa *v1); /* its timers */

/* Main Mode is over, its last message is out: lifetime, adoption, events, DPD,
 * first Quick Mode. */
void v1_life_established(struct v1_sa *v1);
/* The peer has spoken in phase 2, so it has the last message of phase 1. */
void v1_life_received(struct v1_sa *v1);
/* An authenticated INITIAL-CONTACT: older SAs of the same identity go. */
void v1_life_contact(struct v1_sa *v1);

/* Engine's operations. */
enum err v1_life_renew(struct ike_sa *sa);
enum err v1_life_close(struct ike_sa *sa);

/* The smaller of our lifetime and the peer's (in seconds; 0: not stated, 28800:
 * RFC 2407 4.5), with a floor under the peer's. Milliseconds. */
uint64_t v1_life_agreed_ms(uint64_t own_ms, uint32_t seconds);
/* Who answered renews later than who began, so that they seldom meet: moves an
 * armed timer towards the end of the lifetime. */
void v1_life_renew_later(struct env *env, const struct conn *conn,
    struct timer *timer, uint64_t *at_ms, uint64_t lifetime_ms);
/* Ends a husk that has no children any more. */
void v1_life_reap(struct v1_sa *v1);

/* The peer deleted an ISAKMP SA under v1's protection: only one with v1's
 * remote identity is touched. */
void v1_life_sa_deleted(struct v1_sa *v1, uint64_t spi_i, uint64_t spi_r);

/* Something unprotected says that our first message was refused. Nothing
 * happens at once: a real answer may follow (v1_life_progress()). */
void v1_life_hint(struct v1_sa *v1, enum kind kind);
void v1_life_progress(struct v1_sa *v1);

/* Main Mode found no answer, not even after the last try. What it was to renew
 * and has no ISAKMP SA any more is given up with it. */
void v1_life_unanswered(struct v1_sa *v1);

/* A Delete of ours went out for the last time. */
void v1_life_deleted(struct v1_exchange *x);

#endif
