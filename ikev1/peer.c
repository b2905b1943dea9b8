#include "ikev1/peer.h"

#include "common/natt.h"
#include "ikev1/v1.h"
#include "kernel/install.h"

#define NEIGHBOURS 64 /* SAs of one identity looked at */

#define ALIVE (IKE_STATE_BIT(IKE_ESTABLISHED) | IKE_STATE_BIT(IKE_REKEYED))

/* SAs of the same peer -------------------------------------------------- */

/* The next of ours with this remote identity, husks included. */
struct v1_sa *
v1_same_identity(const struct v1_sa *v1, struct v1_sa *previous)
{
	struct ike_sa *sa = previous != NULL ? &previous->ike : NULL;

	while ((sa = sa_by_remote_in(
	            v1->ike.env->sadb, v1->ike.id_remote, ALIVE, sa)) != NULL)
		if (sa->engine == &v1_engine)
			return v1_sa(sa);
	return NULL;
}

struct v1_walk
v1_walk_from(struct v1_sa *v1)
{
	struct v1_walk walk = { v1, NULL, NEIGHBOURS, false };

	return walk;
}

/* v1 itself first, if it is alive, then the others. The one that it gave last
 * may have gone since. */
struct v1_sa *
v1_walk_on(struct v1_walk *walk)
{
	struct v1_sa *found;

	if (walk->v1->ike.id_remote == NULL)
		return NULL;
	if (!walk->begun) {
		walk->begun = true;
		walk->next = v1_same_identity(walk->v1, NULL);
		if (IKE_STATE_BIT(walk->v1->ike.state) & ALIVE)
			return walk->v1;
	}
	do {
		found = walk->next;
		if (found == NULL || walk->left-- == 0)
			return NULL;
		walk->next = v1_same_identity(walk->v1, found);
	} while (found == walk->v1);
	return found;
}

/* A shared identity may stand for several hosts, so the address counts too,
 * and behind one NAT the port. */
static bool
same_place(const struct ike_sa *a, const struct ike_sa *b)
{
	if (!addr_equal(&a->remote.addr, &b->remote.addr))
		return false;
	return a->remote.port == b->remote.port || !a->nat_remote ||
	       !b->nat_remote || a->env->policy->uniqueids;
}

bool
v1_same_peer(const struct v1_sa *a, const struct v1_sa *b)
{
	return a != b && same_place(&a->ike, &b->ike) &&
	       (a->ike.conn == b->ike.conn ||
	           conn_same_peer(a->ike.conn, b->ike.conn));
}

bool
v1_speaks_for(const struct v1_sa *v1, const struct v1_sa *other)
{
	return other == v1 || v1_same_peer(v1, other) ||
	       v1->ike.env->policy->uniqueids;
}

bool
v1_usable(const struct v1_sa *v1)
{
	return v1->ike.state == IKE_ESTABLISHED && !v1->husk && !v1->deleting;
}

/* The newest established SA of v1's peer, other than v1. */
struct v1_sa *
v1_successor(struct v1_sa *v1)
{
	struct v1_walk walk = v1_walk_from(v1);
	struct v1_sa *found = NULL, *other;

	while ((other = v1_walk_on(&walk)) != NULL)
		if (v1_usable(other) && v1_same_peer(v1, other) &&
		    (found == NULL || other->ike.serial > found->ike.serial))
			found = other;
	return found;
}

struct v1_sa *
v1_current(struct ike_sa *sa)
{
	return v1_usable(v1_sa(sa)) ? v1_sa(sa) : v1_successor(v1_sa(sa));
}

/* Endpoints ------------------------------------------------------------- */

void
v1_move_children(struct v1_sa *v1)
{
	struct ike_sa *sa = &v1->ike;

	for (struct child_sa *child = sa->children; child != NULL;
	     child = child->next) {
		if (endpoint_equal(&child->local, &sa->local) &&
		    endpoint_equal(&child->remote, &sa->remote))
			continue;
		child->local = sa->local;
		child->remote = sa->remote;
		/* What is on its way into the kernel has the old address. */
		if (child->installed != 0)
			install_move(sa->env, child);
	}
}

static void
go_to(struct v1_sa *v1, const struct endpoint *local,
    const struct endpoint *remote, bool natt)
{
	struct ike_sa *sa = &v1->ike;
	char text[ENDPOINT_TEXT];

	sa->local = *local;
	sa->remote = *remote;
	sa->natt = natt;
	sa_log(sa, LOG_LEVEL_INFO, "the peer is at %s now",
	    endpoint_text(remote, text));
	for (struct exchange *x = sa->exchanges; x != NULL; x = x->next)
		if (x->rexmit.env != NULL)
			rexmit_move(&x->rexmit, local, remote, natt);
	v1_move_children(v1);
}

void
v1_follow(struct v1_sa *v1, const struct endpoint *local,
    const struct endpoint *remote, bool natt, bool floated)
{
	struct ike_sa *sa = &v1->ike;

	if (endpoint_equal(&sa->remote, remote) &&
	    endpoint_equal(&sa->local, local) && sa->natt == natt)
		return;
	/* RFC 3947 4: the responder goes where the fifth message came from: to
	 * another port, and only with a NAT between to another address; else
	 * whoever passes that message on first would be the peer. Later only a
	 * peer behind NAT moves, and who is behind NAT himself believes his own
	 * box only as the responder. */
	if (floated ? sa->initiator ||
	                  (!sa->nat_remote &&
	                      !addr_equal(&sa->remote.addr, &remote->addr))
	            : !sa->nat_remote || (sa->nat_local && sa->initiator))
		return;
	go_to(v1, local, remote, natt);
}

void
v1_peer_mapping(struct ike_sa *sa, const struct endpoint *remote)
{
	struct v1_sa *v1 = v1_sa(sa);

	if (sa->established_ms != 0 && sa->natt && sa->nat_remote &&
	    !endpoint_equal(&sa->remote, remote))
		go_to(v1, &sa->local, remote, true);
}

/* RFC 3948 4: only from behind NAT. */
void
v1_keepalive(void *arg)
{
	struct v1_sa *v1 = arg;
	struct ike_sa *sa = &v1->ike;

	if (v1->husk || !sa->natt || !sa->nat_local)
		return;
	sa->env->net->ops->keepalive(sa->env->net, &sa->local, &sa->remote);
	timer_set(sa->env->timers, &sa->keepalive_timer, NATT_KEEPALIVE_MS);
}
