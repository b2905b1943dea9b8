/*
 * peer: which SAs are the same peer's, and where it is.
 *
 * An authenticated identity may stand for several hosts (a shared one) and a
 * host may have several ISAKMP SAs (while one is renewed). Endpoints follow
 * authenticated messages only (RFC 3947 4 and 6).
 */
#ifndef IKEV1_PEER_H
#define IKEV1_PEER_H

#include "ikev1/state.h"

/* The next of our SAs with v1's remote identity, husks included; previous NULL:
 * the first. */
struct v1_sa *v1_same_identity(const struct v1_sa *v1, struct v1_sa *previous);

/* A walk over v1 and its neighbours. An identity may be shared by thousands:
 * only the newest of them are looked at. v1 itself comes first, if it is
 * alive; what was given last may have gone when the walk goes on. */
struct v1_walk {
	struct v1_sa *v1;
	struct v1_sa *next;
	unsigned left;
	bool begun;
};
struct v1_walk v1_walk_from(struct v1_sa *v1);
struct v1_sa *v1_walk_on(struct v1_walk *walk); /* NULL: the end */

/* Two SAs with one peer: address and connection agree. Their identity has been
 * compared before. */
bool v1_same_peer(const struct v1_sa *a, const struct v1_sa *b);
/* May v1's peer delete what is other's? Their identity has been compared. With
 * uniqueids it stands for one peer, wherever that is. */
bool v1_speaks_for(const struct v1_sa *v1, const struct v1_sa *other);
/* Established, and neither a husk nor about to be deleted. */
bool v1_usable(const struct v1_sa *v1);
/* The newest usable SA of v1's peer, other than v1; NULL if there is none. */
struct v1_sa *v1_successor(struct v1_sa *v1);
/* sa itself if it is usable, else its successor: below it children of this
 * peer are negotiated. */
struct v1_sa *v1_current(struct ike_sa *sa);

/* Children whose outer endpoints differ from their SA's follow it. */
void v1_move_children(struct v1_sa *v1);
/* The engine's: ESP comes from a new address. */
void v1_peer_mapping(struct ike_sa *sa, const struct endpoint *remote);
/* The timer's: RFC 3948 4, only from behind NAT. */
void v1_keepalive(void *arg);

#endif
