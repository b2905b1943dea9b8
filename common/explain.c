#include "common/explain.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/engine.h"
#include "common/env.h"
#include "common/limit.h"
#include "common/log.h"

#define SHOWN 4   /* connections listed as configured */
#define PART  600 /* octets of one line's content */

struct block {
	char text[LOG_LINE];
	size_t used;
};

static void block_add(struct block *block, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void block_line(struct block *block, const char *label,
    const char *format, ...) __attribute__((format(printf, 3, 4)));

static void block_vadd(struct block *block, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void
block_vadd(struct block *block, const char *format, va_list args)
{
	size_t room = sizeof block->text - block->used;
	int len = vsnprintf(block->text + block->used, room, format, args);

	if (len > 0)
		block->used += (size_t)len < room ? (size_t)len : room - 1;
}

static void
block_add(struct block *block, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	block_vadd(block, format, args);
	va_end(args);
}

static void
block_line(struct block *block, const char *label, const char *format, ...)
{
	va_list args;

	block_add(block, "\n    %-11s ", label);
	va_start(args, format);
	block_vadd(block, format, args);
	va_end(args);
}

/* Strangers do not fill the log; what we began ourselves is always told. */
static bool
block_allowed(struct env *env, const struct ike_sa *sa)
{
	bool known =
	    sa != NULL && (sa->initiator || sa->state == IKE_ESTABLISHED ||
	                      sa->state == IKE_REKEYED);

	if (known || env->limit == NULL)
		return true;
	return limit_log(env->limit);
}

static void
block_begin(struct block *block, const struct ike_sa *sa,
    const struct addr *remote, const char *what)
{
	char peer[ADDR_TEXT];

	memset(block, 0, sizeof *block);
	addr_text(remote, peer);
	if (sa != NULL)
		block_add(block, "%s[%llu] ",
		    sa->conn == NULL ? "" : sa->conn->name,
		    (unsigned long long)sa->serial);
	block_add(block, "%s: %s", peer, what);
}

static void
block_end(struct block *block, struct env *env, const struct ike_sa *sa,
    const struct conn *conn, enum err err)
{
	struct event event = { .kind = EVENT_EXPLAIN,
		.err = err,
		.conn = conn,
		.sa = sa,
		.text = block->text };

	env_log(env, LOG_LEVEL_WARNING, "%s", block->text);
	if (env->event != NULL)
		env->event(env, &event);
}

/* The label stands beside the first connection only. */
static const char *
label_once(const char *label, size_t i)
{
	return i == 0 ? label : "";
}

static void
more_line(struct block *block, size_t count)
{
	if (count > SHOWN)
		block_line(block, "", "and %zu more", count - SHOWN);
}

/* All else fits: it is the mode that does not. */
static void
mode_lines(struct block *block, const struct conn *conn)
{
	bool transport = conn->mode == MODE_TRANSPORT;

	block_line(block, "nearest", "%s: differs in mode: allowed %s",
	    conn->name, transport ? "transport" : "tunnel");
	block_line(block, "remedy", "type=%s in \"%s\", or type=%s at the peer",
	    transport ? "tunnel" : "transport", conn->name,
	    transport ? "transport" : "tunnel");
}

/* Proposals -------------------------------------------------------------- */

static const struct proposals *
conn_proposals(const struct conn *conn, enum ipsec_protocol protocol)
{
	return protocol == PROTO_IKE ? &conn->ike : &conn->esp;
}

static bool
proposals_have(const struct proposals *ours, const struct alg *alg)
{
	for (size_t i = 0; i < ours->count; i++) {
		const struct proposal *proposal = &ours->item[i];

		for (size_t j = 0; j < proposal->count[alg->kind]; j++)
			if (proposal_alg(proposal, alg->kind, j) == alg)
				return true;
	}
	return false;
}

/* An algorithm of the kind that was offered: one that we allow, or else any.
 * *allowed tells which; NULL when there is none that we know. */
static const struct alg *
offered_alg(const struct proposals *ours, const struct offer *offers,
    size_t count, unsigned kind, bool *allowed)
{
	const struct alg *known = NULL;

	*allowed = false;
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < offers[i].count && j < OFFER_TRANSFORMS;
		     j++) {
			const struct transform *transform =
			    &offers[i].transform[j];

			if (transform->kind != kind || transform->alg == NULL)
				continue;
			*allowed = proposals_have(ours, transform->alg);
			if (*allowed)
				return transform->alg;
			if (known == NULL)
				known = transform->alg;
		}
	return known;
}

static bool
ours_use(const struct proposals *ours, unsigned kind)
{
	for (size_t i = 0; i < ours->count; i++)
		if (ours->item[i].count[kind] > 0)
			return true;
	return false;
}

/* How we would write the first offer, as it is; false if parts of it are
 * unknown to us. *tier is that of its weakest part. */
static bool
offer_as_suite(
    const struct offer *offer, enum alg_tier *tier, char text[static PART])
{
	*tier = TIER_MODERN;
	for (size_t i = 0; i < offer->count && i < OFFER_TRANSFORMS; i++) {
		const struct transform *transform = &offer->transform[i];

		if (transform->kind >= ALG_KINDS)
			continue;
		if (transform->alg == NULL)
			return false;
		if (transform->alg->tier > *tier)
			*tier = transform->alg->tier;
	}
	offer_text(offer, text, PART);
	return strstr(text, "...") == NULL;
}

/* The first suite that we would take. */
static void
own_suite(const struct proposals *ours, char text[static PART])
{
	static const uint8_t order[] = { ALG_ENCR, ALG_INTEG, ALG_PRF,
		ALG_KEX };
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < sizeof order && ours->count > 0; i++)
		if (ours->item[0].count[order[i]] > 0)
			used += (size_t)snprintf(text + used, PART - used,
			    "%s%s", used > 0 ? "-" : "",
			    proposal_alg(&ours->item[0], order[i], 0)->name);
}

/* How many kinds differ; *which is the first of them. Where both are AEADs, or
 * a child of IKE_AUTH has no group, nothing is amiss. */
static unsigned
differing_kinds(const struct proposals *ours, const struct offer *offers,
    size_t count, bool first_child, unsigned *which)
{
	unsigned differing = 0;

	for (unsigned kind = 0; kind < ALG_KINDS; kind++) {
		bool allowed;
		const struct alg *alg =
		    offered_alg(ours, offers, count, kind, &allowed);

		if (allowed || !ours_use(ours, kind) ||
		    (kind == ALG_KEX && first_child))
			continue;
		/* An AEAD of theirs needs no integrity of ours. */
		if (alg == NULL && kind == ALG_INTEG)
			continue;
		if (differing++ == 0)
			*which = kind;
	}
	return differing;
}

static const struct alg *
own_alg(const struct proposals *ours, unsigned kind)
{
	for (size_t i = 0; i < ours->count; i++)
		if (ours->item[i].count[kind] > 0)
			return proposal_alg(&ours->item[i], kind, 0);
	return NULL;
}

static void
remedy_proposal(struct block *block, const struct conn *conn,
    enum ipsec_protocol protocol, const struct offer *offers, size_t count,
    bool first_child)
{
	const struct proposals *ours = conn_proposals(conn, protocol);
	const char *option = protocol == PROTO_IKE ? "ike" : "esp";
	char suite[PART], own[PART];
	enum alg_tier tier;
	unsigned kind = 0, differing = differing_kinds(
	                       ours, offers, count, first_child, &kind);

	if (differing == 1) {
		const struct alg *mine = own_alg(ours, kind);
		bool allowed;
		const struct alg *alg =
		    offered_alg(ours, offers, count, kind, &allowed);

		/* An AEAD and a cipher do not stand in one suite. */
		if (alg != NULL && kind == ALG_ENCR &&
		    (alg->block == 1) != (mine->block == 1)) {
			differing = 2;
		} else if (alg != NULL) {
			block_line(block, "remedy",
			    "add %s (%s) to %s= of \"%s\", or enable %s at the "
			    "peer",
			    alg->name, alg_tier_text(alg->tier), option,
			    conn->name, mine->name);
		} else {
			block_line(block, "remedy", "enable %s at the peer",
			    mine->name);
		}
		if (differing == 1)
			return;
	}
	own_suite(ours, own);
	if (count > 0 && offer_as_suite(&offers[0], &tier, suite))
		block_line(block, "remedy",
		    "add the suite %s (%s) to %s= of \"%s\", or enable %s at "
		    "the peer",
		    suite, alg_tier_text(tier), option, conn->name, own);
	else
		block_line(block, "remedy", "enable %s at the peer", own);
}

static bool
offers_have_group(const struct offer *offers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < offers[i].count && j < OFFER_TRANSFORMS;
		     j++)
			if (offers[i].transform[j].kind == ALG_KEX)
				return true;
	return false;
}

static void
offered_line(struct block *block, const struct offer *offers, size_t count)
{
	char all[PART], one[PART];
	size_t used = 0;

	all[0] = '\0';
	for (size_t i = 0; i < count && used < sizeof all - 100; i++) {
		offer_text(&offers[i], one, sizeof one);
		used += (size_t)snprintf(all + used, sizeof all - used, "%s%s",
		    i > 0 ? ", " : "", one);
	}
	if (used >= sizeof all - 100)
		snprintf(all + sizeof all - 100, 5, "...");
	block_line(block, "offered", "%s", count == 0 ? "nothing" : all);
}

void
explain_proposal(struct env *env, const struct ike_sa *sa,
    const struct endpoint *remote, struct conn *const *candidates, size_t count,
    enum ipsec_protocol protocol, const struct offer *offers,
    size_t offer_count)
{
	/* RFC 7296 1.2: the child of IKE_AUTH is negotiated without groups. */
	bool first =
	    protocol != PROTO_IKE && !offers_have_group(offers, offer_count);
	const struct conn *nearest = NULL;
	char text[PART], differs[PART];
	unsigned least = 0;
	struct block block;

	if (!block_allowed(env, sa))
		return;
	block_begin(&block, sa, &remote->addr,
	    protocol == PROTO_IKE ? "no acceptable IKE proposal"
	                          : "no acceptable ESP proposal");
	offered_line(&block, offers, offer_count);
	if (count == 0)
		block_line(&block, "configured", "no connection");
	for (size_t i = 0; i < count; i++) {
		const struct proposals *ours =
		    conn_proposals(candidates[i], protocol);
		unsigned away = proposals_explain(
		    ours, offers, offer_count, first, text, sizeof text);

		if (nearest == NULL || away < least) {
			nearest = candidates[i];
			least = away;
			memcpy(differs, text, sizeof differs);
		}
		proposals_text(ours, text, sizeof text);
		if (i < SHOWN)
			block_line(&block, label_once("configured", i),
			    "%s: %s", candidates[i]->name, text);
	}
	more_line(&block, count);
	if (nearest != NULL && differs[0] == '\0') {
		mode_lines(&block, nearest);
	} else if (nearest != NULL) {
		block_line(&block, "nearest", "%s: differs in %s",
		    nearest->name, differs);
		remedy_proposal(
		    &block, nearest, protocol, offers, offer_count, first);
	}
	block_end(&block, env, sa, nearest, ERR_NO_PROPOSAL);
}

/* No connection ---------------------------------------------------------- */

/* How far a connection for this peer is from being used: 3 auto=ignore, 2 the
 * version, 1 our own address. 0: it is for somebody else. */
static unsigned
conn_nearness(const struct conn *conn, const struct addr *local,
    const struct addr *remote, unsigned version)
{
	if (!conn_end_fits(&conn->remote, remote))
		return 0;
	if (!conn_end_fits(&conn->local, local))
		return 1;
	return conn_allows(conn, version) ? 3 : 2;
}

void
explain_no_conn(struct env *env, const struct endpoint *local,
    const struct endpoint *remote, unsigned version)
{
	const struct policy *policy = env->policy;
	const struct conn *nearest = NULL;
	char us[ADDR_TEXT], peer[ADDR_TEXT];
	unsigned best = 0;
	struct block block;

	if (!block_allowed(env, NULL))
		return;
	addr_text(&local->addr, us);
	addr_text(&remote->addr, peer);
	block_begin(&block, NULL, &remote->addr,
	    "no connection is configured for this peer");
	block_line(&block, "asked", "IKEv%u, from %s to %s", version, peer, us);
	block_line(&block, "configured", "%zu connection%s",
	    policy == NULL ? 0 : policy->count,
	    policy != NULL && policy->count == 1 ? "" : "s");
	for (size_t i = 0; policy != NULL && i < policy->count; i++) {
		unsigned near = conn_nearness(
		    policy->conns[i], &local->addr, &remote->addr, version);

		if (near > best) {
			best = near;
			nearest = policy->conns[i];
		}
	}
	if (best == 3) {
		block_line(&block, "nearest", "%s: auto=ignore leaves it alone",
		    nearest->name);
		block_line(
		    &block, "remedy", "auto=add in \"%s\"", nearest->name);
	} else if (best == 2) {
		block_line(&block, "nearest",
		    "%s: keyexchange allows IKEv%u only", nearest->name,
		    3 - version);
		block_line(&block, "remedy", "keyexchange=ike in \"%s\"",
		    nearest->name);
	} else if (best == 1) {
		block_line(&block, "nearest",
		    "%s: its local address is another one", nearest->name);
		block_line(&block, "remedy",
		    "%s or %%any as the local address of \"%s\"", us,
		    nearest->name);
	} else {
		block_line(&block, "remedy",
		    "a conn with right=%s or "
		    "right=%%any",
		    peer);
	}
	block_end(&block, env, NULL, nearest, ERR_NO_CONN);
}

/* Identities ------------------------------------------------------------- */

static void
identity_line(struct block *block, size_t i, const struct conn *conn,
    const struct ike_sa *sa)
{
	struct ident *ours = conn_local_id(conn, &sa->local.addr);
	struct ident *theirs = conn_remote_id(conn, &sa->remote.addr);
	char us[IDENT_TEXT], them[IDENT_TEXT];

	block_line(block, label_once("configured", i),
	    "%s: we are %s, the "
	    "peer is %s",
	    conn->name, ident_text(ours, us), ident_text(theirs, them));
	ident_unref(ours);
	ident_unref(theirs);
}

/* Whose identity keeps the connection from being used? */
static bool
remote_differs(const struct conn *conn, const struct ike_sa *sa,
    const struct ident *remote)
{
	struct ident *theirs = conn_remote_id(conn, &sa->remote.addr);
	bool differs =
	    theirs != NULL && remote != NULL && !ident_equal(theirs, remote);

	ident_unref(theirs);
	return differs;
}

void
explain_identity(struct env *env, const struct ike_sa *sa,
    struct conn *const *candidates, size_t count, const struct ident *local,
    const struct ident *remote)
{
	const struct conn *nearest = count == 0 ? NULL : candidates[0];
	char us[IDENT_TEXT], them[IDENT_TEXT];
	struct block block;

	if (!block_allowed(env, sa))
		return;
	block_begin(&block, sa, &sa->remote.addr,
	    "no connection is for these identities");
	block_line(&block, "offered", "the peer is %s%s%s",
	    ident_text(remote, them), local == NULL ? "" : " and asks for ",
	    local == NULL ? "" : ident_text(local, us));
	if (count == 0)
		block_line(&block, "configured", "no connection");
	for (size_t i = 0; i < count; i++) {
		if (i < SHOWN)
			identity_line(&block, i, candidates[i], sa);
		if (remote_differs(nearest, sa, remote) &&
		    !remote_differs(candidates[i], sa, remote))
			nearest = candidates[i];
	}
	more_line(&block, count);
	if (nearest != NULL && remote_differs(nearest, sa, remote)) {
		block_line(&block, "nearest", "%s: the peer's identity differs",
		    nearest->name);
		block_line(&block, "remedy",
		    "%s as the peer's id (rightid, or leftid where the peer "
		    "is left) of \"%s\", or that of \"%s\" at the peer",
		    them, nearest->name, nearest->name);
	} else if (nearest != NULL && local != NULL) {
		block_line(&block, "nearest", "%s: our own identity differs",
		    nearest->name);
		block_line(&block, "remedy",
		    "%s as our own id (leftid, or rightid where we are right) "
		    "of \"%s\"",
		    ident_text(local, us), nearest->name);
	}
	block_end(&block, env, sa, nearest, ERR_NO_CONN);
}

/* Traffic selectors ------------------------------------------------------ */

static void
conn_selectors(const struct conn *conn, const struct ike_sa *sa,
    struct ts_list *local, struct ts_list *remote)
{
	conn_ts(&conn->local, &sa->local.addr, local);
	conn_ts(&conn->remote, &sa->remote.addr, remote);
}

void
explain_ts(struct env *env, const struct ike_sa *sa,
    struct conn *const *candidates, size_t count, const struct ts_list *local,
    const struct ts_list *remote)
{
	char us[PART], them[PART];
	const struct conn *nearest = NULL;
	struct ts_list ours, theirs, narrowed;
	bool local_fits = false, remote_fits = false;
	struct block block;

	if (!block_allowed(env, sa))
		return;
	block_begin(
	    &block, sa, &sa->remote.addr, "no acceptable traffic selectors");
	ts_list_text(local, us, sizeof us);
	ts_list_text(remote, them, sizeof them);
	block_line(&block, "offered", "%s here, %s there", us, them);
	if (count == 0)
		block_line(&block, "configured", "no connection");
	for (size_t i = 0; i < count; i++) {
		bool here, there;

		conn_selectors(candidates[i], sa, &ours, &theirs);
		here = ts_narrow(local, &ours, &narrowed) == OK;
		there = ts_narrow(remote, &theirs, &narrowed) == OK;
		if (nearest == NULL ||
		    here + there > local_fits + remote_fits) {
			nearest = candidates[i];
			local_fits = here;
			remote_fits = there;
		}
		ts_list_text(&ours, us, sizeof us);
		ts_list_text(&theirs, them, sizeof them);
		if (i < SHOWN)
			block_line(&block, label_once("configured", i),
			    "%s: %s here, %s there", candidates[i]->name, us,
			    them);
	}
	more_line(&block, count);
	if (nearest != NULL && !(local_fits && remote_fits)) {
		const char *side = local_fits    ? "the peer's"
		                   : remote_fits ? "our"
		                                 : "either";

		block_line(&block, "nearest",
		    "%s: %s side has nothing in common", nearest->name, side);
		block_line(&block, "remedy",
		    "the same networks at both ends: leftsubnet and "
		    "rightsubnet of \"%s\", or the peer's",
		    nearest->name);
	} else if (nearest != NULL) {
		mode_lines(&block, nearest);
	}
	block_end(&block, env, sa, nearest, ERR_TS);
}

/* Keys ------------------------------------------------------------------- */

void
explain_key(struct env *env, const struct ike_sa *sa,
    const struct ident *claimed, bool missing)
{
	struct ident *local = sa->id_local != NULL
	                          ? ident_ref(sa->id_local)
	                          : conn_local_id(sa->conn, &sa->local.addr);
	struct ident *remote = conn_remote_id(sa->conn, &sa->remote.addr);
	const struct ident *peer = claimed != NULL ? claimed : remote;
	char us[IDENT_TEXT], them[IDENT_TEXT], wanted[IDENT_TEXT];
	struct block block;

	if (!block_allowed(env, sa))
		goto out;
	ident_text(local, us);
	ident_text(peer, them);
	block_begin(&block, sa, &sa->remote.addr,
	    missing ? "we have no pre-shared key for this peer"
	            : "the peer does not have our pre-shared key");
	if (claimed != NULL)
		block_line(&block, "offered", "the peer is %s", them);
	block_line(&block, "configured", "%s: we are %s, the peer is %s",
	    sa->conn->name, us, ident_text(remote, wanted));
	block_line(&block, "nearest", "%s: %s", sa->conn->name,
	    missing ? "nothing in ipsec.secrets is for these two"
	            : "the pre-shared keys differ");
	if (missing)
		block_line(&block, "remedy",
		    "%s %s : PSK \"...\" in ipsec.secrets, with the peer's "
		    "key; then orthrus reload",
		    us, them);
	else
		block_line(&block, "remedy",
		    "the same key for %s and %s in ipsec.secrets here and at "
		    "the peer",
		    us, them);
	block_end(
	    &block, env, sa, sa->conn, missing ? ERR_NO_SECRET : ERR_AUTH);
out:
	ident_unref(local);
	ident_unref(remote);
}

/* The peer's word -------------------------------------------------------- */

static void
refused_proposal(struct block *block, const struct ike_sa *sa,
    const struct conn *conn, bool in_child)
{
	char text[PART];

	/* RFC 2407 4.5: in IKEv1 the mode is part of each proposal. */
	if (in_child && sa->engine->version == 1) {
		proposals_text(&conn->esp, text, sizeof text);
		block_line(block, "offered", "%s, %s", text,
		    conn->mode == MODE_TRANSPORT ? "transport" : "tunnel");
		block_line(block, "remedy",
		    "algorithms in esp= of \"%s\" that the peer allows, and "
		    "the same type= at both ends",
		    conn->name);
		return;
	}
	proposals_text(in_child ? &conn->esp : &conn->ike, text, sizeof text);
	block_line(block, "offered", "%s", text);
	block_line(block, "remedy",
	    "algorithms in %s= of \"%s\" that the peer allows%s",
	    in_child ? "esp" : "ike", conn->name,
	    in_child ? "" : ", or at the peer a connection for our address");
}

static void
refused_identity(
    struct block *block, const struct ike_sa *sa, const struct conn *conn)
{
	struct ident *ours = conn_local_id(conn, &sa->local.addr);
	struct ident *theirs = conn_remote_id(conn, &sa->remote.addr);
	char us[IDENT_TEXT], them[IDENT_TEXT];

	block_line(block, "offered", "we are %s, the peer is %s",
	    ident_text(ours, us), ident_text(theirs, them));
	block_line(block, "remedy",
	    "the same pre-shared key at both ends, and at the peer a "
	    "connection for these identities");
	ident_unref(ours);
	ident_unref(theirs);
}

static void
refused_selectors(
    struct block *block, const struct ike_sa *sa, const struct conn *conn)
{
	char us[PART], them[PART];
	struct ts_list ours, theirs;

	conn_selectors(conn, sa, &ours, &theirs);
	ts_list_text(&ours, us, sizeof us);
	ts_list_text(&theirs, them, sizeof them);
	block_line(block, "offered", "%s, %s here, %s there",
	    conn->mode == MODE_TRANSPORT ? "transport" : "tunnel", us, them);
	block_line(block, "remedy",
	    "the same networks and the same type= at both ends: leftsubnet "
	    "and rightsubnet of \"%s\", or the peer's",
	    conn->name);
}

void
explain_refused(struct env *env, const struct ike_sa *sa,
    const struct conn *conn, bool in_child, enum kind answer)
{
	struct block block;
	char what[80];

	if (conn == NULL || !block_allowed(env, sa))
		return;
	snprintf(what, sizeof what, "the peer refuses the %s SA: %s",
	    in_child ? "child" : "IKE", kind_text(answer));
	block_begin(&block, sa, &sa->remote.addr, what);
	switch (answer) {
	case KIND_N_NO_PROPOSAL:
		refused_proposal(&block, sa, conn, in_child);
		break;
	case KIND_N_AUTH_FAILED:
		refused_identity(&block, sa, conn);
		break;
	case KIND_N_TS_UNACCEPTABLE:
	case KIND_N_INVALID_ID:
		refused_selectors(&block, sa, conn);
		break;
	default:
		break;
	}
	block_line(&block, "", "the peer's log may say more");
	block_end(&block, env, sa, conn, ERR_PEER);
}
