/*
 * child: how IKEv1's IPsec SAs come up, are replaced and end.
 *
 * Who began the renewal of a child deletes the old one some seconds later. Two
 * renewals at once: that of the lower initiator's SPI is deleted by its
 * initiator. Where messages were lost, the two ends may judge differently; a
 * replaced child whose Delete does not come is deleted after a while, and one
 * whose replacement is deleted is in use again.
 */
#ifndef IKEV1_CHILD_H
#define IKEV1_CHILD_H

#include "ikev1/state.h"

void v1_child_init(struct child_sa *child); /* its timers */

/* Arms a child's timers: the smaller of both lifetimes, with a floor under
 * the peer's; seconds 0: not stated (28800). Returns true if ours is shorter
 * than the peer's. */
bool v1_child_lifetime(struct child_sa *child, uint32_t seconds);
/* The child carries traffic now; rekeys: the serial of the one that it was made
 * to replace, or 0 (a responder finds out by itself). */
void v1_child_up(struct child_sa *child, uint64_t rekeys);
/* Ends a child without a word, and a husk with its last child. */
void v1_child_kill(
    struct child_sa *child, enum err why, bool by_peer, const char *text);
/* The engine's: with a Delete. */
enum err v1_child_close(struct child_sa *child);
/* The peer deleted a child by its SPI under v1's protection: only those with
 * v1's remote identity are touched. */
void v1_child_deleted(struct v1_sa *v1, uint32_t spi);

#endif
