/*
 * init: IKE_SA_INIT, both sides. RFC 7296 1.2, 2.6, 2.7, 2.10, 2.14, 2.23.
 *
 * As responder, everything that needs no state is decided before there is any:
 * cookie, connection, proposal, group. The key pair is drawn and the secret
 * derived in one job: only peers that return cookies come so far once load
 * demands them. The SK_* keys wait for the first IKE_AUTH, and are then kept.
 */
#ifndef IKEV2_INIT_H
#define IKEV2_INIT_H

#include "ikev2/internal.h"

/* A request from a stranger. */
void v2_init_request(struct env *env, const struct packet *packet,
    const struct wire_header *header);

/* engine->initiate. */
enum err v2_init_initiate(struct env *env, struct conn *conn,
    const struct endpoint *local, const struct endpoint *remote,
    struct ike_sa **sa);

/* Makes the SK_* keys from what IKE_SA_INIT left, unless they are there. False
 * if that cannot be. */
bool v2_init_keys(struct v2_sa *v2);

/* Connections that fit the addresses; all of them, however many. With the
 * peer's identity those that fit it too, best first (policy_by_identity; own
 * may be NULL); without (NULL) one of each sort (policy_distinct). */
struct v2_conns {
	struct conn **conn;
	size_t count;
	struct conn *few[32];
};
enum err v2_conns_find(struct v2_conns *conns, const struct env *env,
    const struct addr *local, const struct addr *remote,
    const struct ident *own, const struct ident *peer);
void v2_conns_free(struct v2_conns *conns);

/* Steps. */
fsm_step v2_init_r_begin, v2_init_r_answer;
fsm_step v2_init_i_begin, v2_init_i_send, v2_init_i_cookie, v2_init_i_group,
    v2_init_i_accept, v2_init_i_keys, v2_init_i_error;

#endif
