/*
 * life: how IKEv1's SAs come up, are renewed, replaced and end.
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
 * with the lower initiator cookie is deleted by its initiator. Quick Modes
 * that renew the same child at once: that of the lower initiator's SPI.
 */
#ifndef IKEV1_LIFE_H
#define IKEV1_LIFE_H

#include "ikev1/state.h"

void v1_life_init(struct v1_sa *v1); /* its timers */
void v1_life_child_init(struct child_sa *child);

/* Main Mode is over, its last message is out: lifetime, adoption, events, DPD,
 * first Quick Mode. */
void v1_life_established(struct v1_sa *v1);
/* The peer has spoken in phase 2, so it has the last message of phase 1. */
void v1_life_received(struct v1_sa *v1);
/* An authenticated INITIAL-CONTACT: older SAs of the same identity go. */
void v1_life_contact(struct v1_sa *v1);

/* The established SA below which a child of sa's peer is negotiated: sa
 * itself, or the one that came after it; NULL if there is none. */
struct v1_sa *v1_life_current(struct ike_sa *sa);

/* Engine's operations. */
enum err v1_life_renew(struct ike_sa *sa);
enum err v1_life_close(struct ike_sa *sa);
enum err v1_life_child_close(struct child_sa *child);
void v1_life_mapping(struct ike_sa *sa, const struct endpoint *remote);

/* Arms a child's timers: the smaller of both lifetimes, with a floor under
 * the peer's; seconds 0: not stated (28800). Returns true if ours is shorter
 * than the peer's. */
bool v1_life_child_lifetime(struct child_sa *child, uint32_t seconds);
/* The child carries traffic now; rekeys: the serial of the one that it was made
 * to replace, or 0 (a responder finds out by itself). */
void v1_life_child_up(struct child_sa *child, uint64_t rekeys);
/* A child up with the same connection and selectors, of the same peer; NULL. */
struct child_sa *
v1_life_child_like(const struct child_sa *child, struct child_sa *previous);
/* Ends a child without a word, and a husk with its last child. */
void v1_life_child_kill(
    struct child_sa *child, enum err why, bool by_peer, const char *text);

/* The peer deleted a child by its SPI, or an ISAKMP SA, under v1's
 * protection: only SAs with v1's remote identity are touched. */
void v1_life_child_deleted(struct v1_sa *v1, uint32_t spi);
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
