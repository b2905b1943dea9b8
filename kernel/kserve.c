#include "kernel/kserve.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/ipc.h"
#include "common/loop.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/proposal.h"

#define DIR_BIT(direction) ((uint8_t)(1u << (direction)))
#define FIRST_PENDING      64
#define WINDOW_MAX         4096 /* packets; what Linux can do */

/* An SA pair of ours, from the moment when its inbound SPI is allocated. */
struct owned {
	struct map_node by_in;  /* by spi_in */
	struct map_node by_out; /* by spi_out and remote, if has_out */
	uint32_t spi_in, spi_out, reqid;
	uint32_t id; /* tells it from a later one with the same SPI */
	uint8_t mode;
	bool has_in, has_out;
	struct addr local;  /* the inbound SA's destination */
	struct addr remote; /* the outbound SA's destination */
};

/* A claim of one connection on one pair of selectors. */
struct claim {
	struct map_node node; /* by the pair */
	uint64_t order;       /* the highest is in force */
	uint32_t reqid, id;
	uint8_t dirs; /* DIR_BIT of each direction that is claimed */
	uint8_t mode;
	bool trap;
	uint8_t pair_len, len;
	uint8_t octets[]; /* the pair, local and remote tunnel address */
};

/* A connection that requests may belong to. */
struct known {
	struct map_node node; /* by reqid */
	struct conn *conn;
	uint64_t until_ms; /* 0: of the policy in force */
};

/* What the back end has not answered yet. */
struct pending {
	uint64_t sequence; /* the asker's; 0: it wants none */
	uint64_t hash;     /* of the claim */
	uint32_t generation, id, spi, spi_in, reqid;
	uint8_t op, direction, mode;
	bool fresh;                /* a claim's direction that was not there */
	struct addr local, remote; /* of a new pair; or before a move */
};

struct kserve {
	struct timers *timers;
	struct log *log;
	struct kserve_backend *backend;
	struct kserve_client client;
	struct map known, by_in, by_out, claims;
	struct pending *pending; /* a ring, in the back end's order */
	size_t pending_size;
	uint64_t pending_first, pending_next;
	uint32_t generation; /* of askers */
	uint32_t id;
	uint64_t order;
	struct ipc *ipc;
	struct timer cut; /* ends a link that does not take its answers */
	struct kserve_stats stats;
};

static void execute(
    struct kserve *kserve, struct kmsg *request, const struct pending *pending);

/* Answers --------------------------------------------------------------- */

static void
answer_client(struct kserve *kserve, const struct kmsg_answer *answer)
{
	if (answer->sequence != 0 && kserve->client.answer)
		kserve->client.answer(kserve->client.arg, answer);
}

static void
say(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *text)
{
	struct kmsg_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.sequence = request->sequence;
	answer.op = request->op;
	answer.err = (uint8_t)err;
	if (request->op != KMSG_POLICY_ADD && request->op != KMSG_POLICY_REMOVE)
		answer.spi = request->sa.spi;
	snprintf(answer.text, sizeof(answer.text), "%s", text);
	answer_client(kserve, &answer);
}

static void
refuse(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

static void
refuse(struct kserve *kserve, const struct kmsg *request, enum err err,
    const char *format, ...)
{
	char text[120];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	kserve->stats.refused++;
	/* Removals may come late; everything else would be our asker's bug,
	 * or an attack from inside it. */
	if (err != ERR_NOT_FOUND)
		log_write(kserve->log, LOG_LEVEL_WARNING, "refused to %s: %s",
		    kmsg_op_text(request->op), text);
	say(kserve, request, err, text);
}

/* What is owned --------------------------------------------------------- */

static struct owned *
owned_find(const struct kserve *kserve, uint32_t spi_in)
{
	struct map_node *node;
	struct owned *owned;

	for (node =
	         map_find(&kserve->by_in, map_hash_u64(&kserve->by_in, spi_in));
	     node; node = map_next_same(node)) {
		owned = map_entry(node, struct owned, by_in);
		if (owned->spi_in == spi_in)
			return owned;
	}
	return NULL;
}

static uint64_t
hash_out(const struct kserve *kserve, uint32_t spi, const struct addr *remote)
{
	uint8_t octets[4 + 17];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_u32(&buf, spi);
	kmsg_put_addr(&buf, remote);
	return map_hash(&kserve->by_out, buf_done(&buf));
}

static struct owned *
owned_find_out(
    const struct kserve *kserve, uint32_t spi, const struct addr *remote)
{
	struct map_node *node;
	struct owned *owned;

	for (node = map_find(&kserve->by_out, hash_out(kserve, spi, remote));
	     node; node = map_next_same(node)) {
		owned = map_entry(node, struct owned, by_out);
		if (owned->spi_out == spi && addr_equal(&owned->remote, remote))
			return owned;
	}
	return NULL;
}

static void
owned_insert_out(struct kserve *kserve, struct owned *owned)
{
	map_insert(&kserve->by_out, &owned->by_out,
	    hash_out(kserve, owned->spi_out, &owned->remote));
	owned->has_out = true;
}

static void
owned_remove_out(struct kserve *kserve, struct owned *owned)
{
	if (owned->has_out)
		map_remove(&kserve->by_out, &owned->by_out);
	owned->has_out = false;
}

static void
owned_free(struct kserve *kserve, struct owned *owned)
{
	owned_remove_out(kserve, owned);
	map_remove(&kserve->by_in, &owned->by_in);
	kserve->stats.pairs--;
	free(owned);
}

/* Who may ask for what -------------------------------------------------- */

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
 * that "dynamic" may stand for as well, or family 0. */
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
		if (proposal->alg[kind][i]->id == id)
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
	const struct addr *oa_local =
	    in ? &sa->natoa_dst.addr : &sa->natoa_src.addr;
	const struct addr *oa_remote =
	    in ? &sa->natoa_src.addr : &sa->natoa_dst.addr;
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
	if (sa->replay_window > WINDOW_MAX)
		return "the replay window is larger than 4096";
	if (!list_allowed(&conn->local, &local->addr, oa_local,
	        in ? &sa->ts_dst : &sa->ts_src) ||
	    !list_allowed(&conn->remote, &remote->addr, oa_remote,
	        in ? &sa->ts_src : &sa->ts_dst))
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

/* Holds request against every connection of its reqid: the one in force, and
 * those that were in force a moment ago. NULL: it passes. */
static const char *
check(struct kserve *kserve, const struct kmsg *request, uint32_t reqid,
    const char *(*test)(const struct conn *, const struct kmsg *))
{
	const char *why = "no connection has this reqid", *reason;
	struct map_node *node;
	struct known *known;

	for (node =
	         map_find(&kserve->known, map_hash_u64(&kserve->known, reqid));
	     node; node = map_next_same(node)) {
		known = map_entry(node, struct known, node);
		if (known->conn->reqid != reqid)
			continue;
		if (known->until_ms != 0 &&
		    known->until_ms <= kserve->timers->now_ms)
			continue;
		reason = test(known->conn, request);
		if (reason == NULL)
			return NULL;
		why = reason;
	}
	return why;
}

/* Requests about SAs ---------------------------------------------------- */

static void
request_spi(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	struct pending pending = { .op = KMSG_SPI, .direction = KMSG_IN };
	const char *why;

	if (sa->direction != KMSG_IN) {
		refuse(kserve, request, ERR_SYNTAX, "SPIs are inbound");
		return;
	}
	why = check(kserve, request, sa->reqid, check_sa);
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (kserve->stats.pairs >= KSERVE_PAIRS_MAX) {
		refuse(kserve, request, ERR_LIMIT, "too many SAs");
		return;
	}
	pending.reqid = sa->reqid;
	pending.mode = sa->mode;
	pending.local = sa->dst.addr;
	pending.remote = sa->src.addr;
	execute(kserve, request, &pending);
}

/* What of the pair that request speaks of is not as it must be. */
static const char *
check_add(const struct kserve *kserve, const struct owned *owned,
    const struct kmsg_sa *sa)
{
	if (owned == NULL || owned->reqid != sa->reqid)
		return "its inbound SPI is not ours";
	if (sa->mode != owned->mode)
		return "its inbound SPI was made for another mode";
	if (sa->direction == KMSG_IN) {
		if (owned->has_in)
			return "there is one with this SPI already";
		if (!addr_equal(&owned->local, &sa->dst.addr))
			return "its SPI was made for another address";
		return NULL;
	}
	if (sa->spi < 256)
		return "its SPI is reserved"; /* RFC 4303 2.1 */
	if (owned->has_out ||
	    owned_find_out(kserve, sa->spi, &sa->dst.addr) != NULL)
		return "there is one with this SPI already";
	return NULL;
}

static void
request_add(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	bool in = sa->direction == KMSG_IN;
	struct owned *owned = owned_find(kserve, in ? sa->spi : sa->spi_in);
	struct pending pending = { .op = KMSG_SA_ADD };
	const char *why = check(kserve, request, sa->reqid, check_sa);

	if (why == NULL)
		why = check_add(kserve, owned, sa);
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (in) {
		owned->has_in = true;
	} else {
		owned->spi_out = sa->spi;
		owned->remote = sa->dst.addr;
		owned_insert_out(kserve, owned);
	}
	pending.direction = sa->direction;
	pending.spi_in = owned->spi_in;
	pending.id = owned->id;
	execute(kserve, request, &pending);
}

/* The pair whose SA of request's direction is there; what the back end must
 * know of it is filled in from what we know, not from what the asker says. */
static struct owned *
owned_of(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa;
	struct owned *owned;

	if (sa->direction == KMSG_IN)
		return owned_find(kserve, sa->spi);
	owned = owned_find(kserve, sa->spi_in);
	if (owned && (!owned->has_out || owned->spi_out != sa->spi))
		owned = NULL;
	return owned;
}

static void
fill_sa(const struct owned *owned, struct kmsg_sa *sa)
{
	bool in = sa->direction == KMSG_IN;

	sa->spi = in ? owned->spi_in : owned->spi_out;
	sa->spi_in = owned->spi_in;
	sa->reqid = owned->reqid;
	sa->mode = owned->mode;
	sa->src.addr = in ? owned->remote : owned->local;
	sa->dst.addr = in ? owned->local : owned->remote;
}

static void
request_remove(struct kserve *kserve, struct kmsg *request)
{
	struct owned *owned = owned_of(kserve, request);
	struct kmsg_sa *sa = &request->sa;
	struct pending pending = { .op = request->op };

	if (owned == NULL) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	if (request->op == KMSG_SPI_DROP &&
	    (sa->direction != KMSG_IN || owned->has_in)) {
		refuse(kserve, request, ERR_WRONG_STATE, "the SPI is in use");
		return;
	}
	fill_sa(owned, sa);
	pending.direction = sa->direction;
	/* The inbound SPI goes with the inbound SA; an outbound SA may outlive
	 * it for as long as it takes to say so. */
	if (sa->direction == KMSG_OUT) {
		owned_remove_out(kserve, owned);
		execute(kserve, request, &pending);
		return;
	}
	if (owned->has_out) {
		struct kmsg out = { .op = KMSG_SA_REMOVE };

		out.sa.direction = KMSG_OUT;
		fill_sa(owned, &out.sa);
		execute(kserve, &out, &(struct pending){ .op = out.op });
	}
	owned_free(kserve, owned);
	execute(kserve, request, &pending);
}

static void
request_move(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_sa *sa = &request->sa, old = { .direction = sa->direction };
	struct owned *owned = owned_of(kserve, request);
	bool in = sa->direction == KMSG_IN;
	struct pending pending = { .op = KMSG_SA_MOVE };
	const char *why;

	if (owned == NULL || (in && !owned->has_in)) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	sa->mode = owned->mode;
	why = check(kserve, request, owned->reqid, check_sa);
	if (why == NULL && !in && !addr_equal(&owned->remote, &sa->dst.addr) &&
	    owned_find_out(kserve, sa->spi, &sa->dst.addr) != NULL)
		why = "there is one with this SPI already";
	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	fill_sa(owned, &old);
	sa->reqid = owned->reqid;
	sa->spi_in = owned->spi_in;
	sa->old_src = old.src;
	sa->old_dst = old.dst;
	pending.direction = sa->direction;
	pending.spi_in = owned->spi_in;
	pending.id = owned->id;
	pending.local = owned->local;
	pending.remote = owned->remote;
	if (in) {
		owned->local = sa->dst.addr;
	} else {
		owned_remove_out(kserve, owned);
		owned->remote = sa->dst.addr;
		owned_insert_out(kserve, owned);
	}
	execute(kserve, request, &pending);
}

static void
request_query(struct kserve *kserve, struct kmsg *request)
{
	struct owned *owned = owned_of(kserve, request);
	struct pending pending = { .op = KMSG_SA_QUERY };

	if (owned == NULL ||
	    (request->sa.direction == KMSG_IN && !owned->has_in)) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	fill_sa(owned, &request->sa);
	execute(kserve, request, &pending);
}

/* Requests about policies ----------------------------------------------- */

/* The key of a policy: its pair of selectors, ours first. */
static struct view
pair_key(const struct kmsg_policy *policy, struct buf *buf)
{
	if (policy->direction == KMSG_OUT)
		kmsg_put_pair(buf, &policy->src, &policy->dst);
	else
		kmsg_put_pair(buf, &policy->dst, &policy->src);
	return buf_done(buf);
}

static bool
claim_is(const struct claim *claim, struct view key)
{
	return view_equal(view_of(claim->octets, claim->pair_len), key);
}

static struct claim *
claim_find(const struct kserve *kserve, struct view key, uint64_t hash,
    uint32_t reqid, bool trap)
{
	struct map_node *node;
	struct claim *claim;

	for (node = map_find(&kserve->claims, hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if (claim->reqid == reqid && claim->trap == trap &&
		    claim_is(claim, key))
			return claim;
	}
	return NULL;
}

/* The claim that is in force for this pair and direction, or NULL. */
static struct claim *
claim_in_force(const struct kserve *kserve, struct view key, uint64_t hash,
    uint8_t direction)
{
	struct map_node *node;
	struct claim *claim, *best = NULL;

	for (node = map_find(&kserve->claims, hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if ((claim->dirs & DIR_BIT(direction)) &&
		    claim_is(claim, key) &&
		    (best == NULL || claim->order > best->order))
			best = claim;
	}
	return best;
}

static void
claim_free(struct kserve *kserve, struct claim *claim)
{
	map_remove(&kserve->claims, &claim->node);
	kserve->stats.policies--;
	free(claim);
}

/* Makes claim, or one in its place with other tunnel addresses. */
static struct claim *
claim_make(struct kserve *kserve, struct claim *old, struct view key,
    uint64_t hash, const struct kmsg_policy *policy)
{
	bool out = policy->direction == KMSG_OUT;
	uint8_t octets[KMSG_PAIR_OCTETS + 2 * 17];
	struct claim *claim;
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	buf_view(&buf, key);
	kmsg_put_addr(&buf, out ? &policy->tunnel_src : &policy->tunnel_dst);
	kmsg_put_addr(&buf, out ? &policy->tunnel_dst : &policy->tunnel_src);
	if (old && old->mode == policy->mode &&
	    view_equal(view_of(old->octets, old->len), buf_done(&buf))) {
		old->order = ++kserve->order;
		return old;
	}
	claim = calloc(1, sizeof(*claim) + buf.len);
	if (claim == NULL)
		return NULL;
	claim->reqid = policy->reqid;
	claim->id = old ? old->id : ++kserve->id;
	claim->dirs = old ? old->dirs : 0;
	claim->mode = policy->mode;
	claim->trap = policy->trap;
	claim->order = ++kserve->order;
	claim->pair_len = (uint8_t)key.len;
	claim->len = (uint8_t)buf.len;
	memcpy(claim->octets, octets, buf.len);
	map_insert(&kserve->claims, &claim->node, hash);
	kserve->stats.policies++;
	if (old)
		claim_free(kserve, old);
	return claim;
}

/* The policy that a claim stands for. */
static void
claim_policy(
    const struct claim *claim, uint8_t direction, struct kmsg_policy *policy)
{
	struct view octets = view_of(claim->octets, claim->len);
	bool out = direction == KMSG_OUT;

	memset(policy, 0, sizeof(*policy));
	policy->direction = direction;
	policy->mode = claim->mode;
	policy->trap = claim->trap;
	policy->reqid = claim->reqid;
	(void)kmsg_get_pair(&octets, out ? &policy->src : &policy->dst,
	    out ? &policy->dst : &policy->src);
	(void)kmsg_get_addr(
	    &octets, out ? &policy->tunnel_src : &policy->tunnel_dst);
	(void)kmsg_get_addr(
	    &octets, out ? &policy->tunnel_dst : &policy->tunnel_src);
}

static void
request_policy_add(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_policy *policy = &request->policy;
	uint8_t octets[KMSG_PAIR_OCTETS];
	struct pending pending = { .op = KMSG_POLICY_ADD };
	struct claim *claim;
	struct view key;
	struct buf buf;
	uint64_t hash;
	const char *why = check(kserve, request, policy->reqid, check_policy);

	if (why) {
		refuse(kserve, request, ERR_REFUSED, "%s", why);
		return;
	}
	if (kserve->stats.policies >= KSERVE_POLICIES_MAX) {
		refuse(kserve, request, ERR_LIMIT, "too many policies");
		return;
	}
	buf_init(&buf, octets, sizeof(octets));
	key = pair_key(policy, &buf);
	hash = map_hash(&kserve->claims, key);
	policy->replace =
	    claim_in_force(kserve, key, hash, policy->direction) != NULL;
	claim = claim_find(kserve, key, hash, policy->reqid, policy->trap);
	claim = claim_make(kserve, claim, key, hash, policy);
	if (claim == NULL) {
		refuse(kserve, request, ERR_NOMEM, "no memory");
		return;
	}
	pending.direction = policy->direction;
	pending.fresh = !(claim->dirs & DIR_BIT(policy->direction));
	pending.hash = hash;
	pending.id = claim->id;
	claim->dirs |= DIR_BIT(policy->direction);
	execute(kserve, request, &pending);
}

static void
request_policy_remove(struct kserve *kserve, struct kmsg *request)
{
	struct kmsg_policy *policy = &request->policy;
	uint8_t octets[KMSG_PAIR_OCTETS], direction = policy->direction;
	struct pending pending = { .op = KMSG_POLICY_REMOVE };
	struct claim *claim, *next;
	struct view key;
	struct buf buf;
	uint64_t hash;
	bool in_force;

	buf_init(&buf, octets, sizeof(octets));
	key = pair_key(policy, &buf);
	hash = map_hash(&kserve->claims, key);
	claim = claim_find(kserve, key, hash, policy->reqid, policy->trap);
	if (claim == NULL || !(claim->dirs & DIR_BIT(direction))) {
		refuse(kserve, request, ERR_NOT_FOUND, "there is none");
		return;
	}
	in_force = claim_in_force(kserve, key, hash, direction) == claim;
	claim_policy(claim, direction, policy);
	pending.direction = direction;
	pending.hash = hash;
	pending.id = claim->id;
	claim->dirs &= (uint8_t)~DIR_BIT(direction);
	if (claim->dirs == 0)
		claim_free(kserve, claim);
	if (!in_force) {
		say(kserve, request, OK, "");
		return;
	}
	/* The claim before this one is put back, if there is one. */
	next = claim_in_force(kserve, key, hash, direction);
	if (next) {
		request->op = KMSG_POLICY_ADD;
		claim_policy(next, direction, policy);
		policy->replace = true;
	}
	execute(kserve, request, &pending);
}

/* The back end ---------------------------------------------------------- */

static struct pending *
pending_slot(const struct kserve *kserve, uint64_t at)
{
	return &kserve->pending[at & (kserve->pending_size - 1)];
}

static bool
pending_grow(struct kserve *kserve)
{
	size_t size =
	    kserve->pending_size ? 2 * kserve->pending_size : FIRST_PENDING;
	struct pending *ring = calloc(size, sizeof(*ring));
	uint64_t at;

	if (ring == NULL)
		return false;
	for (at = kserve->pending_first; at < kserve->pending_next; at++)
		ring[at & (size - 1)] = *pending_slot(kserve, at);
	free(kserve->pending);
	kserve->pending = ring;
	kserve->pending_size = size;
	return true;
}

static void settle(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer);

static void
execute(
    struct kserve *kserve, struct kmsg *request, const struct pending *pending)
{
	struct pending *slot;

	if (kserve->pending_next - kserve->pending_first ==
	        kserve->pending_size &&
	    !pending_grow(kserve)) {
		/* Never reaches the back end: as if that had refused. */
		struct kmsg_answer answer = { .sequence = request->sequence,
			.op = pending->op,
			.err = ERR_NOMEM };
		settle(kserve, pending, &answer);
		return;
	}
	slot = pending_slot(kserve, kserve->pending_next);
	*slot = *pending;
	slot->sequence = request->sequence;
	slot->generation = kserve->generation;
	if (request->op != KMSG_POLICY_ADD && request->op != KMSG_POLICY_REMOVE)
		slot->spi = request->sa.spi;
	request->sequence = ++kserve->pending_next;
	kserve->stats.executed++;
	kserve->backend->ops->execute(kserve->backend, request);
}

/* Is there a later request about the same direction of the same claim? */
static bool
is_superseded(const struct kserve *kserve, const struct pending *of)
{
	const struct pending *later;
	uint64_t at;

	for (at = kserve->pending_first; at < kserve->pending_next; at++) {
		later = pending_slot(kserve, at);
		if ((later->op == KMSG_POLICY_ADD ||
		        later->op == KMSG_POLICY_REMOVE) &&
		    later->id == of->id && later->direction == of->direction)
			return true;
	}
	return false;
}

static void
unclaim(struct kserve *kserve, const struct pending *pending)
{
	struct map_node *node;
	struct claim *claim;

	if (!pending->fresh || is_superseded(kserve, pending))
		return;
	for (node = map_find(&kserve->claims, pending->hash); node;
	     node = map_next_same(node)) {
		claim = map_entry(node, struct claim, node);
		if (claim->id != pending->id)
			continue;
		claim->dirs &= (uint8_t)~DIR_BIT(pending->direction);
		if (claim->dirs == 0)
			claim_free(kserve, claim);
		return;
	}
}

/* The back end said no: what was noted in advance is taken back. */
static void
undo(struct kserve *kserve, const struct pending *pending)
{
	struct owned *owned;

	if (pending->op == KMSG_POLICY_ADD) {
		unclaim(kserve, pending);
		return;
	}
	if (pending->op != KMSG_SA_ADD && pending->op != KMSG_SA_MOVE)
		return;
	owned = owned_find(kserve, pending->spi_in);
	if (owned == NULL || owned->id != pending->id)
		return;
	if (pending->op == KMSG_SA_ADD) {
		if (pending->direction == KMSG_IN)
			owned->has_in = false;
		else
			owned_remove_out(kserve, owned);
	} else if (pending->direction == KMSG_IN) {
		owned->local = pending->local;
	} else if (owned->has_out) {
		owned_remove_out(kserve, owned);
		owned->remote = pending->remote;
		owned_insert_out(kserve, owned);
	}
}

/* An SPI was drawn: from now on it is owned, or given back at once. */
static void
adopt_spi(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer)
{
	struct kmsg drop = { .op = KMSG_SPI_DROP };
	struct owned *owned = NULL;

	if (pending->generation == kserve->generation &&
	    owned_find(kserve, answer->spi) == NULL)
		owned = calloc(1, sizeof(*owned));
	if (owned) {
		owned->spi_in = answer->spi;
		owned->reqid = pending->reqid;
		owned->id = ++kserve->id;
		owned->mode = pending->mode;
		owned->local = pending->local;
		owned->remote = pending->remote;
		map_insert(&kserve->by_in, &owned->by_in,
		    map_hash_u64(&kserve->by_in, owned->spi_in));
		kserve->stats.pairs++;
		return;
	}
	drop.sa.direction = KMSG_IN;
	drop.sa.spi = drop.sa.spi_in = answer->spi;
	drop.sa.reqid = pending->reqid;
	drop.sa.mode = pending->mode;
	drop.sa.src.addr = pending->remote;
	drop.sa.dst.addr = pending->local;
	answer->err = ERR_NOMEM;
	answer->spi = 0;
	execute(kserve, &drop, &(struct pending){ .op = KMSG_SPI_DROP });
}

static void
settle(struct kserve *kserve, const struct pending *pending,
    struct kmsg_answer *answer)
{
	answer->op = pending->op;
	if (pending->op != KMSG_SPI)
		answer->spi = pending->spi;
	if (answer->err != OK) {
		undo(kserve, pending);
		log_write(kserve->log, LOG_LEVEL_WARNING,
		    "the data plane refused to %s: %s",
		    kmsg_op_text(pending->op),
		    answer->text[0] ? answer->text : err_text(answer->err));
	} else if (pending->op == KMSG_SPI) {
		adopt_spi(kserve, pending, answer);
	}
	if (pending->generation == kserve->generation)
		answer_client(kserve, answer);
}

static void
backend_answer(void *arg, const struct kmsg_answer *from)
{
	struct kserve *kserve = arg;
	struct kmsg_answer answer = *from;
	struct pending pending;

	if (kserve->pending_first == kserve->pending_next)
		return;
	pending = *pending_slot(kserve, kserve->pending_first++);
	answer.sequence = pending.sequence;
	settle(kserve, &pending, &answer);
}

static void
forget_claim(struct map_node *node, void *arg)
{
	claim_free(arg, map_entry(node, struct claim, node));
}

static void
forget_owned(struct map_node *node, void *arg)
{
	owned_free(arg, map_entry(node, struct owned, by_in));
}

static void
backend_event(void *arg, const struct kmsg_event *from)
{
	struct kserve *kserve = arg;
	struct kmsg_event event = *from;
	struct owned *owned = owned_find(kserve, event.spi);

	switch (event.kind) {
	case KEVENT_EXPIRE:
		if (owned == NULL ||
		    !addr_equal(&owned->local, &event.remote.addr))
			owned = owned_find_out(
			    kserve, event.spi, &event.remote.addr);
		if (owned == NULL)
			return;
		event.spi = owned->spi_in;
		break;
	case KEVENT_MAPPING:
		if (owned == NULL || !owned->has_in)
			return;
		break;
	case KEVENT_LOST:
		map_each(&kserve->claims, forget_claim, kserve);
		map_each(&kserve->by_in, forget_owned, kserve);
		break;
	default:
		break;
	}
	if (kserve->client.event)
		kserve->client.event(kserve->client.arg, &event);
}

/* Asking ---------------------------------------------------------------- */

void
kserve_request(struct kserve *kserve, struct kmsg *request)
{
	switch (request->op) {
	case KMSG_SPI:
		request_spi(kserve, request);
		break;
	case KMSG_SPI_DROP:
	case KMSG_SA_REMOVE:
		request_remove(kserve, request);
		break;
	case KMSG_SA_ADD:
		request_add(kserve, request);
		mem_wipe(request->sa.key, sizeof(request->sa.key));
		break;
	case KMSG_SA_MOVE:
		request_move(kserve, request);
		break;
	case KMSG_SA_QUERY:
		request_query(kserve, request);
		break;
	case KMSG_POLICY_ADD:
		request_policy_add(kserve, request);
		break;
	case KMSG_POLICY_REMOVE:
		request_policy_remove(kserve, request);
		break;
	default:
		refuse(kserve, request, ERR_SYNTAX, "there is no such request");
		break;
	}
}

static void
clear_claim(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct claim *claim = map_entry(node, struct claim, node);
	struct view key = view_of(claim->octets, claim->pair_len);
	struct kmsg request;
	uint8_t direction;

	for (direction = KMSG_IN; direction <= KMSG_FWD; direction++) {
		if (claim_in_force(kserve, key, node->hash, direction) != claim)
			continue;
		request.op = KMSG_POLICY_REMOVE;
		request.sequence = 0;
		claim_policy(claim, direction, &request.policy);
		execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
}

static void
clear_owned(struct map_node *node, void *arg)
{
	struct kserve *kserve = arg;
	struct owned *owned = map_entry(node, struct owned, by_in);
	struct kmsg request = { .op = KMSG_SA_REMOVE };

	if (owned->has_out) {
		request.sa.direction = KMSG_OUT;
		fill_sa(owned, &request.sa);
		execute(
		    kserve, &request, &(struct pending){ .op = request.op });
	}
	request.op = owned->has_in ? KMSG_SA_REMOVE : KMSG_SPI_DROP;
	request.sequence = 0;
	request.sa.direction = KMSG_IN;
	fill_sa(owned, &request.sa);
	execute(kserve, &request, &(struct pending){ .op = request.op });
}

void
kserve_clear(struct kserve *kserve)
{
	/* From here on nobody waits for what is under way. */
	kserve->generation++;
	map_each(&kserve->claims, clear_claim, kserve);
	map_each(&kserve->claims, forget_claim, kserve);
	map_each(&kserve->by_in, clear_owned, kserve);
	map_each(&kserve->by_in, forget_owned, kserve);
}

void
kserve_client(struct kserve *kserve, const struct kserve_client *client)
{
	if (client)
		kserve->client = *client;
	else
		memset(&kserve->client, 0, sizeof(kserve->client));
}

/* The policy ------------------------------------------------------------ */

struct known_walk {
	struct kserve *kserve;
	uint64_t now_ms;
	bool all;
};

static void
known_free(struct kserve *kserve, struct known *known)
{
	map_remove(&kserve->known, &known->node);
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
		known_free(walk->kserve, known);
	else if (known->until_ms == 0)
		known->until_ms = walk->now_ms + KSERVE_GRACE_MS;
}

enum err
kserve_policy(struct kserve *kserve, const struct policy *policy)
{
	struct known_walk walk = { kserve, kserve->timers->now_ms, false };
	struct known **fresh;
	size_t i, count = 0;

	fresh = calloc(policy->count + 1, sizeof(*fresh));
	if (fresh == NULL)
		return ERR_NOMEM;
	for (i = 0; i < policy->count; i++) {
		if (policy->conns[i]->reqid < REQID_FIRST ||
		    policy->conns[i]->reqid > REQID_LAST)
			continue; /* it would not be told from strangers */
		fresh[count] = calloc(1, sizeof(**fresh));
		if (fresh[count] == NULL) {
			while (count > 0)
				free(fresh[--count]);
			free(fresh);
			return ERR_NOMEM;
		}
		fresh[count++]->conn = policy->conns[i];
	}
	map_each(&kserve->known, known_age, &walk);
	for (i = 0; i < count; i++) {
		fresh[i]->conn = conn_ref(fresh[i]->conn);
		map_insert(&kserve->known, &fresh[i]->node,
		    map_hash_u64(&kserve->known, fresh[i]->conn->reqid));
	}
	free(fresh);
	return OK;
}

/* The link -------------------------------------------------------------- */

static void
link_end(struct kserve *kserve)
{
	timer_stop(kserve->timers, &kserve->cut);
	kserve_client(kserve, NULL);
	ipc_free(kserve->ipc);
	kserve->ipc = NULL;
	kserve_clear(kserve);
}

static void
link_cut(void *arg)
{
	struct kserve *kserve = arg;

	log_write(kserve->log, LOG_LEVEL_ERROR,
	    "gate does not take the data plane's answers: link closed");
	link_end(kserve);
}

static void
link_send(struct kserve *kserve, uint16_t type, uint64_t serial,
    const struct buf *buf)
{
	/* Not from here: the caller may be in the middle of a request. */
	if (ipc_send(kserve->ipc, type, serial, buf->at, buf->len) != OK)
		timer_set(kserve->timers, &kserve->cut, 0);
}

static void
link_answer(void *arg, const struct kmsg_answer *answer)
{
	uint8_t octets[KMSG_ANSWER_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_answer_put(&buf, answer);
	link_send(arg, KFRAME_ANSWER, answer->sequence, &buf);
}

static void
link_event(void *arg, const struct kmsg_event *event)
{
	uint8_t octets[KMSG_EVENT_OCTETS];
	struct buf buf;

	buf_init(&buf, octets, sizeof(octets));
	kmsg_event_put(&buf, event);
	link_send(arg, KFRAME_EVENT, 0, &buf);
}

static enum err
link_request(void *arg, const struct ipc_frame *frame)
{
	struct kmsg request;
	enum err err = kmsg_get(frame->body, &request);

	if (err == OK) {
		request.sequence = frame->serial;
		kserve_request(arg, &request);
	}
	mem_wipe(&request, sizeof(request));
	return err;
}

static void
link_closed(void *arg, enum err err, const char *why)
{
	struct kserve *kserve = arg;

	if (err == ERR_REFUSED)
		log_write(kserve->log, LOG_LEVEL_ERROR,
		    "gate broke the rules of the data plane's link: %s", why);
	link_end(kserve);
}

static const struct ipc_permit link_rows[] = {
	{ KFRAME_REQUEST, IPC_IN, 1, KMSG_OCTETS, 0, link_request },
	{ KFRAME_ANSWER, IPC_OUT, 1, KMSG_ANSWER_OCTETS, 0, NULL },
	{ KFRAME_EVENT, IPC_OUT, 1, KMSG_EVENT_OCTETS, 0, NULL },
};

enum err
kserve_serve(struct kserve *kserve, struct loop *loop, int fd)
{
	const struct kserve_client client = { link_answer, link_event, kserve };
	struct ipc *ipc = ipc_new(loop, fd, link_rows,
	    sizeof(link_rows) / sizeof(link_rows[0]), link_closed, kserve);

	if (ipc == NULL)
		return ERR_NOMEM;
	if (kserve->ipc)
		link_end(kserve);
	kserve->ipc = ipc;
	kserve_client(kserve, &client);
	return OK;
}

/* Beginning and end ----------------------------------------------------- */

struct kserve *
kserve_new(
    struct timers *timers, struct log *log, struct kserve_backend *backend)
{
	struct kserve *kserve = calloc(1, sizeof(*kserve));
	uint64_t seed[2] = { 0, 0 };

	if (kserve == NULL) {
		backend->ops->free(backend);
		return NULL;
	}
	/* Peers choose outbound SPIs. Without chance: slower, not wrong. */
	(void)!env_random_openssl(NULL, seed, sizeof(seed));
	kserve->timers = timers;
	kserve->log = log;
	kserve->backend = backend;
	backend->answer = backend_answer;
	backend->event = backend_event;
	backend->arg = kserve;
	map_init(&kserve->known, seed);
	map_init(&kserve->by_in, seed);
	map_init(&kserve->by_out, seed);
	map_init(&kserve->claims, seed);
	timer_init(&kserve->cut, link_cut, kserve);
	return kserve;
}

void
kserve_free(struct kserve *kserve)
{
	struct known_walk walk = { kserve, 0, true };

	if (kserve == NULL)
		return;
	if (kserve->ipc) {
		link_end(kserve);
	} else {
		kserve_client(kserve, NULL);
		kserve_clear(kserve);
	}
	kserve->backend->ops->free(kserve->backend);
	map_each(&kserve->known, known_age, &walk);
	map_fini(&kserve->known);
	map_fini(&kserve->by_in);
	map_fini(&kserve->by_out);
	map_fini(&kserve->claims);
	free(kserve->pending);
	free(kserve);
}

struct kserve_stats
kserve_stats(const struct kserve *kserve)
{
	return kserve->stats;
}
