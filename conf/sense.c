#include "conf/sense.h"

#include <stdio.h>
#include <string.h>

#include "common/iana.h"

struct sense {
	struct conn *conn;
	struct diags *diags;
	struct place place;
};

#define SAY(sense, level, ...)                                                 \
	diags_add((sense)->diags, level, (sense)->place, __VA_ARGS__)

/* Which end is ours ------------------------------------------------------ */

static bool
host_is_own(const struct conn_host *host, const struct addr *own, size_t count)
{
	/* The address that leads to the peer can only be ours. */
	if (host->kind == HOST_DEFAULTROUTE)
		return true;
	for (size_t i = 0; host->kind == HOST_ADDR && i < count; i++)
		if (addr_equal(&host->addr, &own[i]))
			return true;
	return false;
}

static bool
end_is_own(const struct conn_end *end, const struct addr *own, size_t count)
{
	for (size_t i = 0; i < end->host_count; i++)
		if (host_is_own(&end->host[i], own, count))
			return true;
	return false;
}

static void
choose_local(struct conn *conn, const struct addr *own, size_t count)
{
	struct conn_end left = conn->local;

	if (end_is_own(&conn->local, own, count) ||
	    !end_is_own(&conn->remote, own, count))
		return;
	conn->local = conn->remote;
	conn->remote = left;
}

/* Checks ----------------------------------------------------------------- */

static bool
auth_makes_sense(const struct sense *sense)
{
	const struct conn *conn = sense->conn;

	if (conn->local.auth != 0 && conn->remote.auth != 0)
		return true;
	SAY(sense, DIAG_ERROR,
	    "conn %s: authby=psk is missing: where %s, public keys are "
	    "meant, and those are not done yet",
	    conn->name,
	    conn->local.auth == conn->remote.auth
	        ? "nothing is said about authentication"
	        : "leftauth or rightauth is missing");
	return false;
}

static const struct addr *
only_addr(const struct conn_end *end)
{
	return end->host_count == 1 && end->host[0].kind == HOST_ADDR
	           ? &end->host[0].addr
	           : NULL;
}

static bool
hosts_make_sense(const struct sense *sense)
{
	const struct conn *conn = sense->conn;
	const struct addr *local = only_addr(&conn->local);
	const struct addr *remote = only_addr(&conn->remote);

	if (local == NULL || remote == NULL)
		return true;
	if (addr_equal(local, remote)) {
		SAY(sense, DIAG_ERROR,
		    "conn %s: left and right are the same address", conn->name);
		return false;
	}
	if (local->family != remote->family) {
		SAY(sense, DIAG_ERROR,
		    "conn %s: one of left and right is an IPv4 address and "
		    "the other an IPv6 address",
		    conn->name);
		return false;
	}
	return true;
}

/* What the connection calls by itself needs somebody to call. */
static void
check_start(const struct sense *sense)
{
	struct conn *conn = sense->conn;

	if (conn->autostart != AUTO_START && conn->autostart != AUTO_ROUTE)
		return;
	for (size_t i = 0; i < conn->remote.host_count; i++)
		if (conn->remote.host[i].kind == HOST_ADDR ||
		    conn->remote.host[i].kind == HOST_NAME)
			return;
	SAY(sense, DIAG_WARNING,
	    "conn %s: auto=%s needs the address or name of the peer; the "
	    "connection waits for the peer, as with auto=add",
	    conn->name, conn->autostart == AUTO_START ? "start" : "route");
	conn->autostart = AUTO_ADD;
}

static void
check_lifetime(const struct sense *sense, const char *name, uint64_t lifetime)
{
	const struct conn *conn = sense->conn;
	uint64_t most =
	    conn->margin_ms + conn->margin_ms * conn->rekeyfuzz_percent / 100;

	if (!conn->rekey || most <= lifetime / 2)
		return;
	SAY(sense, DIAG_WARNING,
	    "conn %s: margintime with rekeyfuzz reaches up to %llu s back "
	    "from the end of %s (%llu s); SAs are replaced when half of it "
	    "has passed, not earlier",
	    conn->name, (unsigned long long)(most / 1000), name,
	    (unsigned long long)(lifetime / 1000));
}

static void
check_times(const struct sense *sense)
{
	struct conn *conn = sense->conn;

	check_lifetime(sense, "ikelifetime", conn->ike_lifetime_ms);
	check_lifetime(sense, "lifetime", conn->lifetime_ms);
	/* dpdaction=none: nobody is asked. */
	if (conn->dpd_action == DPD_NONE)
		conn->dpd_delay_ms = 0;
	else if (conn->dpd_delay_ms == 0)
		SAY(sense, DIAG_WARNING,
		    "conn %s: dpddelay=0 never asks whether the peer is "
		    "alive, so that dpdaction comes into play only when a "
		    "request is not answered",
		    conn->name);
	else if (conn->dpd_timeout_ms < conn->dpd_delay_ms &&
	         conn_allows(conn, 1))
		SAY(sense, DIAG_WARNING,
		    "conn %s: dpdtimeout is shorter than dpddelay: an IKEv1 "
		    "peer counts as dead after its first unanswered question",
		    conn->name);
}

/* Of each kind, one alternative at least has a number in IKEv1. Phase 1 has no
 * integrity algorithms of its own: the hash is the PRF's row. */
static bool
proposal_is_v1(const struct proposal *proposal)
{
	bool ike = proposal->protocol == PROTO_IKE;

	for (enum alg_kind kind = 0; kind < ALG_KINDS; kind++) {
		bool any = proposal->count[kind] == 0;

		if (ike && kind == ALG_INTEG)
			continue;
		for (size_t i = 0; i < proposal->count[kind]; i++) {
			const struct alg *alg = proposal_alg(proposal, kind, i);

			any = any || (ike ? alg->phase1 : alg->phase2) != 0;
		}
		if (!any)
			return false;
	}
	return true;
}

static bool
suites_make_sense(const struct sense *sense, const char *name,
    const struct proposals *proposals)
{
	if (sense->conn->keyexchange != KEYEX_IKEV1)
		return true;
	for (size_t i = 0; i < proposals->count; i++)
		if (proposal_is_v1(&proposals->item[i]))
			return true;
	SAY(sense, DIAG_ERROR,
	    "conn %s: nothing in %s= exists in IKEv1, which is the only "
	    "version that keyexchange=ikev1 allows",
	    sense->conn->name, name);
	return false;
}

static void
check_ends(const struct sense *sense)
{
	const struct conn *conn = sense->conn;
	const struct conn_end *ends[] = { &conn->local, &conn->remote };

	if (conn->local.ike_port != IKE_PORT)
		SAY(sense, DIAG_WARNING,
		    "conn %s: our own IKE ports are 500 and 4500; ikeport of "
		    "this end is left out of account",
		    conn->name);
	for (size_t i = 0; conn->mode == MODE_TRANSPORT && i < 2; i++)
		for (size_t j = 0; j < ends[i]->subnets.count; j++) {
			const struct ts *ts = &ends[i]->subnets.item[j];

			if (ts->dynamic || addr_equal(&ts->first, &ts->last))
				continue;
			SAY(sense, DIAG_WARNING,
			    "conn %s: type=transport protects the traffic of "
			    "the two hosts only, not that of a subnet",
			    conn->name);
			return;
		}
}

/* Where a name says which host it is, it is its identity, too. */
static bool
name_ident(struct conn_end *end)
{
	if (end->id != NULL || end->host_count == 0 ||
	    end->host[0].kind != HOST_NAME)
		return true;
	end->id = ident_new(ID_FQDN, view_text(end->host[0].name));
	return end->id != NULL;
}

bool
conn_make_sense(struct conn *conn, const struct addr *own, size_t own_count,
    struct diags *diags, struct place place)
{
	struct sense sense = { conn, diags, place };
	bool usable;

	choose_local(conn, own, own_count);
	usable = auth_makes_sense(&sense);
	usable = hosts_make_sense(&sense) && usable;
	usable = suites_make_sense(&sense, "ike", &conn->ike) && usable;
	usable = suites_make_sense(&sense, "esp", &conn->esp) && usable;
	if (!name_ident(&conn->local) || !name_ident(&conn->remote)) {
		SAY(&sense, DIAG_ERROR, "memory is short");
		return false;
	}
	check_start(&sense);
	check_times(&sense);
	check_ends(&sense);
	return usable;
}
