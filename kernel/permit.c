#include "kernel/permit.h"

#include <stdlib.h>

#include "common/alg.h"
#include "common/proposal.h"

/* A connection that requests may belong to. */
struct known {
	struct map_node node; /* by reqid */
	struct conn *conn;
	uint64_t until_ms; /* 0: of the policy in force */
};

static bool
host_fits(const struct conn_end *end, const struct addr *addr)
{
	const struct conn_host *host;
	unsigned i;

	for (i = 0; i < end->host_count && i < HOSTS_MAX; i++) {
		host = &end->host[i];
		switch (host->kind) {
		case HOST_ADDR:
			if (addr_equal(&host->addr, addr))
				return true;
			break;
		case HOST_RANGE:
			if (addr->family == host->addr.family &&
			    addr_compare(&host->addr, addr) <= 0 &&
			    addr_compare(addr, &host->last) <= 0)
				return true;
			break;
		case HOST_ANY:
			if (host->addr.family == ADDR_NONE ||
			    host->addr.family == addr->family)
				return true;
			break;
		default: /* names and the default route: looked up by gate */
			return true;
		}
	}
	return false;
}

static const char *
check_ends(const struct conn *conn, const struct addr *local,
    const struct addr *remote)
{
	if (addr_is_any(local) || addr_is_any(remote) ||
	    local->family != remote->family)
		return "the outer addresses are not a pair";
	if (!host_fits(&conn->local, local))
		return "the local address is not the connection's";
	if (!host_fits(&conn->remote, remote))
		return "the remote address is not the connection's";
	return NULL;
}

/* Is ts within what the end's subnets allow? natoa: an address before NAT
 * that "dynamic" may stand for as well, or family 0: in transport mode, where
 * the outer address takes its place, it widens nothing. */
static bool
ts_allowed(const struct conn_end *end, const struct addr *addr,
    const struct addr *natoa, const struct ts *ts)
{
	const struct ts *item;
	struct ts resolved;
	unsigned i;

	for (i = 0; i < end->subnets.count && i < TS_MAX; i++) {
		item = &end->subnets.item[i];
		resolved = item->dynamic ? ts_resolve(item, addr) : *item;
		if (ts_within(ts, &resolved))
			return true;
		if (!item->dynamic || natoa->family == ADDR_NONE)
			continue;
		resolved = ts_resolve(item, natoa);
		if (ts_within(ts, &resolved))
			return true;
	}
	return false;
}

static bool
list_allowed(const struct conn_end *end, const struct addr *addr,
    const struct addr *natoa, const struct ts_list *list)
{
	unsigned i;

	for (i = 0; i < list->count; i++)
		if (!ts_allowed(end, addr, natoa, &list->item[i]))
			return false;
	return list->count > 0;
}

static bool
proposal_has(const struct proposal *proposal, enum alg_kind kind, uint8_t id)
{
	unsigned i;

	for (i = 0; i < proposal->count[kind] && i < PROPOSAL_ALTERNATIVES; i++)
		if (proposal->alg[kind][i] == id)
			return true;
	return false;
}

static const char *
check_algorithms(const struct conn *conn, const struct kmsg_sa *sa)
{
	const struct alg *encr = alg_get(sa->encr), *integ = alg_get(sa->integ);
	const struct proposal *proposal;
	unsigned i;

	if (encr == NULL || encr->kind != ALG_ENCR ||
	    (integ != NULL) == alg_is_aead(encr) ||
	    (integ != NULL && integ->kind != ALG_INTEG))
		return "the algorithms do not belong together";
	if (sa->encr_key_len != alg_keymat(encr) ||
	    sa->integ_key_len != (integ ? alg_keymat(integ) : 0))
		return "the keys do not have the algorithms' lengths";
	for (i = 0; i < conn->esp.count && i < PROPOSALS_MAX; i++) {
		proposal = &conn->esp.item[i];
		if (proposal_has(proposal, ALG_ENCR, sa->encr) &&
		    (integ == NULL ||
		        proposal_has(proposal, ALG_INTEG, sa->integ)) &&
		    (proposal->esn & (sa->esn ? ESN_YES : ESN_NO)))
			return NULL;
	}
	return "the connection does not allow these algorithms";
}

/* A tunnel between the outer addresses is no wider than transport mode. */
static bool
mode_allowed(const struct conn *conn, uint8_t mode)
{
	return mode == conn->mode || mode == MODE_TUNNEL;
}

static const char *
check_sa(const struct conn *conn, const struct kmsg *request)
{
	const struct kmsg_sa *sa = &request->sa;
	bool in = sa->direction == KMSG_IN, full = request->op == KMSG_SA_ADD;
	const struct endpoint *local = in ? &sa->dst : &sa->src;
	const struct endpoint *remote = in ? &sa->src : &sa->dst;
	bool behind = sa->mode == MODE_TRANSPORT && sa->encap;
	const struct addr none = { .family = ADDR_NONE };
	const struct addr *natoa_src = behind ? &sa->natoa_src.addr : &none;
	const struct addr *natoa_dst = behind ? &sa->natoa_dst.addr : &none;
	const char *why;

	if (!mode_allowed(conn, sa->mode))
		return "the connection has another mode";
	why = check_ends(conn, &local->addr, &remote->addr);
	if (why)
		return why;
	if (sa->encap && (local->port == 0 || remote->port == 0))
		return "encapsulation without ports";
	if (!full)
		return NULL;
	if (sa->replay_window > REPLAY_WINDOW_MAX)
		return "the replay window is too large";
	if (!list_allowed(&conn->local, &local->addr,
	        in ? natoa_dst : natoa_src, in ? &sa->ts_dst : &sa->ts_src) ||
	    !list_allowed(&conn->remote, &remote->addr,
	        in ? natoa_src : natoa_dst, in ? &sa->ts_src : &sa->ts_dst))
		return "the selectors are wider than the connection's subnets";
	return check_algorithms(conn, sa);
}

static const char *
check_policy(const struct conn *conn, const struct kmsg *request)
{
	const struct kmsg_policy *policy = &request->policy;
	bool out = policy->direction == KMSG_OUT;
	const struct addr none = { .family = ADDR_NONE };
	const struct addr *local =
	    out ? &policy->tunnel_src : &policy->tunnel_dst;
	const struct addr *remote =
	    out ? &policy->tunnel_dst : &policy->tunnel_src;
	const char *why;

	if (!mode_allowed(conn, policy->mode))
		return "the connection has another mode";
	if (policy->src.first.family != policy->dst.first.family)
		return "selectors of two families";
	if (policy->trap && !out)
		return "a trap that is not for outbound traffic";
	why = check_ends(conn, local, remote);
	if (why)
		return why;
	if (!ts_allowed(&conn->local, local, &none,
	        out ? &policy->src : &policy->dst) ||
	    !ts_allowed(&conn->remote, remote, &none,
	        out ? &policy->dst : &policy->src))
		return "the selectors are wider than the connection's subnets";
	return NULL;
}

/* Holds request against every connection of its number: the one in force, and
 * those that were in force a moment ago. NULL: it passes. */
static const char *
check(const struct permit *permit, const struct kmsg *request, uint32_t conn,
    uint64_t now_ms,
    const char *(*test)(const struct conn *, const struct kmsg *))
{
	const char *why = "no connection has this number", *reason;
	struct map_node *node;
	struct known *known;

	for (node =
	         map_find(&permit->conns, map_hash_u64(&permit->conns, conn));
	     node; node = map_next_same(node)) {
		known = map_entry(node, struct known, node);
		if (known->conn->reqid != conn ||
		    (known->until_ms != 0 && known->until_ms <= now_ms))
			continue;
		reason = test(known->conn, request);
		if (reason == NULL)
			return NULL;
		why = reason;
	}
	return why;
}

const char *
permit_sa(
    const struct permit *permit, const struct kmsg *request, uint64_t now_ms)
{
	return check(permit, request, request->sa.conn, now_ms, check_sa);
}

const char *
permit_selectors(
    const struct permit *permit, const struct kmsg *request, uint64_t now_ms)
{
	return check(
	    permit, request, request->policy.conn, now_ms, check_policy);
}

bool
permit_knows(const struct permit *permit, uint32_t conn, uint64_t now_ms)
{
	struct map_node *node;
	const struct known *known;

	for (node =
	         map_find(&permit->conns, map_hash_u64(&permit->conns, conn));
	     node; node = map_next_same(node)) {
		known = map_entry(node, struct known, node);
		if (known->conn->reqid == conn &&
		    (known->until_ms == 0 || known->until_ms > now_ms))
			return true;
	}
	return false;
}

/* The policy ------------------------------------------------------------ */

struct known_walk {
	struct permit *permit;
	uint64_t now_ms;
	bool all;
};

static void
known_free(struct permit *permit, struct known *known)
{
	map_remove(&permit->conns, &known->node);
	conn_unref(known->conn);
	free(known);
}

/* Connections of the policy that was in force get their time of grace; those
 * that had it go. */
static void
known_age(struct map_node *node, void *arg)
{
	struct known_walk *walk = arg;
	struct known *known = map_entry(node, struct known, node);

	if (walk->all ||
	    (known->until_ms != 0 && known->until_ms <= walk->now_ms))
		known_free(walk->permit, known);
	else if (known->until_ms == 0)
		known->until_ms = walk->now_ms + PERMIT_GRACE_MS;
}

static struct known *
known_find(const struct permit *permit, const struct conn *conn)
{
	struct map_node *node;
	struct known *known;

	for (node = map_find(
	         &permit->conns, map_hash_u64(&permit->conns, conn->reqid));
	     node; node = map_next_same(node)) {
		known = map_entry(node, struct known, node);
		if (known->conn == conn)
			return known;
	}
	return NULL;
}

/* Those of policy that are known already are in force. */
static void
known_keep(struct permit *permit, const struct policy *policy)
{
	struct known *known;
	size_t i;

	for (i = 0; i < policy->count; i++) {
		known = known_find(permit, policy->conns[i]);
		if (known)
			known->until_ms = 0;
	}
}

enum err
permit_policy(
    struct permit *permit, const struct policy *policy, uint64_t now_ms)
{
	struct known_walk walk = { permit, now_ms, false };
	struct known **fresh;
	size_t i, count = 0;

	fresh = calloc(policy->count + 1, sizeof(*fresh));
	if (fresh == NULL)
		return ERR_NOMEM;
	for (i = 0; i < policy->count; i++) {
		if (policy->conns[i]->reqid < REQID_FIRST ||
		    policy->conns[i]->reqid > REQID_CONN_LAST)
			continue; /* it would not be told from strangers */
		/* A reload that gate asks for again and again must not make
		 * this grow: what did not change is there once. */
		if (known_find(permit, policy->conns[i]))
			continue;
		fresh[count] = calloc(1, sizeof(**fresh));
		if (fresh[count] == NULL) {
			while (count > 0)
				free(fresh[--count]);
			free(fresh);
			return ERR_NOMEM;
		}
		fresh[count++]->conn = policy->conns[i];
	}
	known_keep(permit, policy); /* also what would go now */
	map_each(&permit->conns, known_age, &walk);
	known_keep(permit, policy);
	for (i = 0; i < count; i++) {
		fresh[i]->conn = conn_ref(fresh[i]->conn);
		map_insert(&permit->conns, &fresh[i]->node,
		    map_hash_u64(&permit->conns, fresh[i]->conn->reqid));
	}
	free(fresh);
	return OK;
}

void
permit_init(struct permit *permit, const uint64_t seed[static 2])
{
	map_init(&permit->conns, seed);
}

void
permit_fini(struct permit *permit)
{
	struct known_walk walk = { permit, 0, true };

	map_each(&permit->conns, known_age, &walk);
	map_fini(&permit->conns);
}
