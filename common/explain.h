/*
 * explain: one readable block about a failed negotiation: what was offered,
 * what is configured, the nearest connection, the attribute that failed.
 */
#ifndef COMMON_EXPLAIN_H
#define COMMON_EXPLAIN_H

#include "common/policy.h"
#include "common/proposal.h"
#include "common/sa.h"
#include "common/wire.h"

/* Each logs the block at warning and tells EVENT_EXPLAIN. sa may be NULL where
 * no SA exists; remote is the peer's endpoint. candidates: the connections
 * that were tried, best first (count may be 0). */
void explain_proposal(struct env *env, const struct ike_sa *sa,
    const struct endpoint *remote, struct conn *const *candidates, size_t count,
    enum ipsec_protocol protocol, const struct offer *offers,
    size_t offer_count);
void explain_no_conn(struct env *env, const struct endpoint *local,
    const struct endpoint *remote, unsigned version);
void explain_identity(struct env *env, const struct ike_sa *sa,
    struct conn *const *candidates, size_t count, const struct ident *local,
    const struct ident *remote);
void explain_ts(struct env *env, const struct ike_sa *sa,
    struct conn *const *candidates, size_t count, const struct ts_list *local,
    const struct ts_list *remote);
/* The pre-shared key that we have for the peer (claimed, or NULL where that is
 * not known) is not the peer's; missing: we have none. sa->conn is set. */
void explain_key(struct env *env, const struct ike_sa *sa,
    const struct ident *claimed, bool missing);
/* The peer refused what conn made us ask: the IKE SA, or in_child a child. It
 * alone knows what it wanted. */
void explain_refused(struct env *env, const struct ike_sa *sa,
    const struct conn *conn, bool in_child, enum kind answer);

#endif
