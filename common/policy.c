/*
 * policy: see the header. The index is a handful of sorted arrays of positions
 * in conns: they are built once, never change, and are the same for two
 * connections that are equal, so that policy_diff() may swap objects under it.
 */
#include "common/policy.h"

#include <stdlib.h>
#include <string.h>

#include "common/iana.h"

/* How a connection fits a remote address, best first. */
enum fit { FIT_ADDR, FIT_NAME, FIT_RANGE, FIT_ANY, FIT_COUNT, FIT_NOT };

/* Positions: those with a local address of their own come first, each part in
 * file order. */
struct list {
	uint32_t *at;
	size_t count, bound;
};

struct addr_spot {
	struct addr addr;
	uint32_t at;
};

struct id_spot {
	uint64_t hash;
	uint32_t at;
};

/* What is asked by the peer's address. */
struct reach {
	struct addr_spot *addrs;
	size_t addr_count;
	struct list by_fit[FIT_COUNT]; /* FIT_ADDR's stays empty */
};

struct policy_index {
	uint32_t *names; /* sorted by name */
	struct reach all, distinct;
	struct id_spot *ids;
	size_t id_count;
	struct list loose; /* not FIT_ADDR, and any remote identity will do */
	uint32_t last_reqid;
	bool wrapped; /* reqids have been through once */
};

/* Connections ------------------------------------------------------------ */

static void
end_init(struct conn_end *end)
{
	struct ts any = { .last_port = 65535, .dynamic = true };

	end->host_count = 1;
	end->host[0].kind = HOST_ANY;
	end->auth = AUTH_PSK;
	end->ike_port = IKE_PORT;
	end->subnets.count = 1;
	end->subnets.item[0] = any;
}

struct conn *
conn_new(const char *name)
{
	struct conn *conn = calloc(1, sizeof *conn);

	if (conn == NULL)
		return NULL;
	conn->refs = 1;
	conn->name = strdup(name);
	conn->source = strdup("");
	if (conn->name == NULL || conn->source == NULL) {
		conn_unref(conn);
		return NULL;
	}
	conn->keyexchange = KEYEX_IKE;
	conn->autostart = AUTO_IGNORE;
	conn->mode = MODE_TUNNEL;
	conn->dpd_action = DPD_NONE;
	conn->fragmentation = FRAG_YES;
	conn->rekey = true;
	end_init(&conn->local);
	end_init(&conn->remote);
	proposals_default(&conn->ike, PROTO_IKE);
	proposals_default(&conn->esp, PROTO_ESP);
	conn->ike_lifetime_ms = 3 * 3600 * 1000;
	conn->lifetime_ms = 3600 * 1000;
	conn->margin_ms = 9 * 60 * 1000;
	conn->rekeyfuzz_percent = 100;
	conn->keyingtries = 3;
	conn->dpd_delay_ms = 30 * 1000;
	conn->dpd_timeout_ms = 150 * 1000;
	conn->replay_window = 32;
	return conn;
}

struct conn *
conn_ref(const struct conn *conn)
{
	struct conn *counted = (struct conn *)(uintptr_t)conn;

	if (counted != NULL)
		counted->refs++;
	return counted;
}

static void
end_fini(struct conn_end *end)
{
	for (size_t i = 0; i < end->host_count; i++)
		free(end->host[i].name);
	ident_unref(end->id);
}

void
conn_unref(struct conn *conn)
{
	if (conn == NULL || --conn->refs > 0)
		return;
	end_fini(&conn->local);
	end_fini(&conn->remote);
	free(conn->name);
	free(conn->source);
	free(conn);
}

static bool
host_equal(const struct conn_host *a, const struct conn_host *b)
{
	if (a->kind != b->kind)
		return false;
	/* The answer of the last lookup is not configuration. */
	if (a->kind == HOST_NAME)
		return a->name != NULL && b->name != NULL &&
		       strcmp(a->name, b->name) == 0;
	return addr_equal(&a->addr, &b->addr) && addr_equal(&a->last, &b->last);
}

static bool
ident_same(const struct ident *a, const struct ident *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return ident_equal(a, b);
}

static bool
hosts_equal(const struct conn_end *a, const struct conn_end *b)
{
	if (a->host_count != b->host_count)
		return false;
	for (size_t i = 0; i < a->host_count; i++)
		if (!host_equal(&a->host[i], &b->host[i]))
			return false;
	return true;
}

/* Everything that an IKE SA depends on. */
static bool
end_same_peer(const struct conn_end *a, const struct conn_end *b)
{
	return a->auth == b->auth && a->ike_port == b->ike_port &&
	       ident_same(a->id, b->id) && hosts_equal(a, b);
}

static bool
proposal_equal(const struct proposal *a, const struct proposal *b)
{
	if (a->protocol != b->protocol || a->esn != b->esn ||
	    memcmp(a->count, b->count, sizeof a->count) != 0)
		return false;
	for (size_t kind = 0; kind < ALG_KINDS; kind++)
		for (size_t i = 0; i < a->count[kind]; i++)
			if (a->alg[kind][i] != b->alg[kind][i])
				return false;
	return true;
}

static bool
proposals_equal(const struct proposals *a, const struct proposals *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!proposal_equal(&a->item[i], &b->item[i]))
			return false;
	return true;
}

static bool
same_ends(const struct conn *a, const struct conn *b)
{
	return end_same_peer(&a->local, &b->local) &&
	       end_same_peer(&a->remote, &b->remote);
}

static bool
same_ike(const struct conn *a, const struct conn *b)
{
	return a->keyexchange == b->keyexchange &&
	       a->forceencaps == b->forceencaps &&
	       a->ike_lifetime_ms == b->ike_lifetime_ms &&
	       proposals_equal(&a->ike, &b->ike);
}

bool
conn_same_peer(const struct conn *a, const struct conn *b)
{
	return a == b || (same_ends(a, b) &&
	                     (strcmp(a->name, b->name) == 0 || same_ike(a, b)));
}

struct conn *
conn_now(const struct policy *policy, struct conn *old, unsigned version)
{
	struct conn *now =
	    policy == NULL ? NULL : policy_conn(policy, old->name);

	return now != NULL && conn_allows(now, version) &&
	               conn_same_peer(now, old)
	           ? now
	           : old;
}

bool
conn_equal(const struct conn *a, const struct conn *b)
{
	return a == b ||
	       (strcmp(a->name, b->name) == 0 && same_ends(a, b) &&
	           same_ike(a, b) && a->autostart == b->autostart &&
	           a->mode == b->mode && a->dpd_action == b->dpd_action &&
	           a->fragmentation == b->fragmentation &&
	           a->rekey == b->rekey &&
	           ts_list_equal(&a->local.subnets, &b->local.subnets) &&
	           ts_list_equal(&a->remote.subnets, &b->remote.subnets) &&
	           proposals_equal(&a->esp, &b->esp) &&
	           a->lifetime_ms == b->lifetime_ms &&
	           a->margin_ms == b->margin_ms &&
	           a->rekeyfuzz_percent == b->rekeyfuzz_percent &&
	           a->keyingtries == b->keyingtries &&
	           a->dpd_delay_ms == b->dpd_delay_ms &&
	           a->dpd_timeout_ms == b->dpd_timeout_ms &&
	           a->replay_window == b->replay_window);
}

bool
conn_allows(const struct conn *conn, unsigned version)
{
	return (version == 1 && conn->keyexchange != KEYEX_IKEV2) ||
	       (version == 2 && conn->keyexchange != KEYEX_IKEV1);
}

/* The end's only address, where that is all it can be. */
static const struct addr *
end_only_addr(const struct conn_end *end)
{
	if (end->host_count != 1 || end->host[0].kind != HOST_ADDR)
		return NULL;
	return &end->host[0].addr;
}

struct ident *
conn_local_id(const struct conn *conn, const struct addr *addr)
{
	if (conn->local.id != NULL && conn->local.id->type != ID_ANY)
		return ident_ref(conn->local.id);
	return ident_from_addr(addr);
}

struct ident *
conn_remote_id(const struct conn *conn, const struct addr *addr)
{
	if (conn->remote.id != NULL)
		return conn->remote.id->type == ID_ANY
		           ? NULL
		           : ident_ref(conn->remote.id);
	if (end_only_addr(&conn->remote) == NULL)
		return NULL;
	return ident_from_addr(addr);
}

void
conn_ts(
    const struct conn_end *end, const struct addr *addr, struct ts_list *list)
{
	list->count = 0;
	for (size_t i = 0; i < end->subnets.count; i++) {
		const struct ts *ts = &end->subnets.item[i];

		list->item[list->count++] =
		    ts->dynamic ? ts_resolve(ts, addr) : *ts;
	}
}

/* value * random / 2^32, without overflow. */
static uint64_t
share(uint64_t value, uint32_t random)
{
	return (value >> 32) * random + (((value & UINT32_MAX) * random) >> 32);
}

uint64_t
conn_rekey_ms(const struct conn *conn, uint64_t lifetime_ms, uint32_t random)
{
	uint64_t margin = conn->margin_ms, half = lifetime_ms / 2, spread;

	spread = margin > half ? half : margin;
	spread = spread * conn->rekeyfuzz_percent / 100;
	/* A margin beyond half of the lifetime stands for a share of it. Some
	 * of the spread must stay, or both ends would always collide. */
	if (margin >= half) {
		margin = conn->rekeyfuzz_percent > 0 ? half - half / 4 : half;
		spread = half - margin;
	} else if (spread > half - margin) {
		spread = half - margin;
	}
	return lifetime_ms - margin - share(spread, random);
}

/* Fit -------------------------------------------------------------------- */

static bool
addr_between(
    const struct addr *addr, const struct addr *first, const struct addr *last)
{
	return addr->family == first->family &&
	       addr_compare(addr, first) >= 0 && addr_compare(addr, last) <= 0;
}

static enum fit
host_fit(const struct conn_host *host, const struct addr *addr)
{
	switch (host->kind) {
	case HOST_ADDR:
		return addr_equal(&host->addr, addr) ? FIT_ADDR : FIT_NOT;
	case HOST_NAME:
		return host->addr.family != ADDR_NONE &&
		               addr_equal(&host->addr, addr)
		           ? FIT_NAME
		           : FIT_NOT;
	case HOST_RANGE:
		return addr_between(addr, &host->addr, &host->last) ? FIT_RANGE
		                                                    : FIT_NOT;
	case HOST_ANY:
	case HOST_DEFAULTROUTE:
		return host->addr.family == ADDR_NONE ||
		               host->addr.family == addr->family
		           ? FIT_ANY
		           : FIT_NOT;
	default:
		return FIT_NOT;
	}
}

static enum fit
end_fit(const struct conn_end *end, const struct addr *addr)
{
	enum fit best = FIT_NOT;

	for (size_t i = 0; i < end->host_count; i++) {
		enum fit fit = host_fit(&end->host[i], addr);

		if (fit < best)
			best = fit;
	}
	return best;
}

bool
conn_end_fits(const struct conn_end *end, const struct addr *addr)
{
	return end_fit(end, addr) != FIT_NOT;
}

bool
conn_end_names(const struct conn_end *end, const struct addr *addr)
{
	enum fit fit = end_fit(end, addr);

	return fit == FIT_ADDR || fit == FIT_NAME;
}

/* Our own end: a name that has not been looked up yet, or %defaultroute, may
 * be any of our addresses. */
static bool
local_fit(const struct conn_end *end, const struct addr *addr, bool *exact)
{
	enum fit fit = end_fit(end, addr);

	*exact = fit == FIT_ADDR || fit == FIT_NAME;
	if (fit != FIT_NOT)
		return true;
	for (size_t i = 0; i < end->host_count; i++)
		if (end->host[i].kind == HOST_NAME &&
		    end->host[i].addr.family == ADDR_NONE)
			return true;
	return false;
}

/* 0 not at all, 1 by %any or because the identity is unknown, 2 exactly. */
static unsigned
id_fit(const struct ident *wanted, const struct addr *wanted_addr,
    const struct ident *ident)
{
	struct view octets;

	if (ident == NULL)
		return 1;
	if (wanted != NULL)
		return ident_fits(wanted, ident);
	if (wanted_addr == NULL || wanted_addr->family == ADDR_NONE)
		return 1;
	octets = ident_view(ident);
	if (ident->type != ID_IPV4_ADDR && ident->type != ID_IPV6_ADDR)
		return 0;
	return view_equal(octets, addr_view(wanted_addr)) ? 2 : 0;
}

static unsigned
remote_id_fit(const struct conn *conn, const struct ident *remote)
{
	return id_fit(conn->remote.id, end_only_addr(&conn->remote), remote);
}

/* The index -------------------------------------------------------------- */

/* FNV-1a. The keys are the administrator's, not a peer's, and runs of equal
 * hashes are compared in full: it need not resist anybody. */
static uint64_t
id_hash(const struct ident *ident)
{
	uint8_t key[IDENT_MAX + 1];
	size_t len = ident_key(ident, key);
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ key[i]) * 0x100000001b3u;
	return hash;
}

static bool
id_is_any(const struct ident *ident)
{
	return ident == NULL || ident->type == ID_ANY;
}

static bool
end_has(const struct conn_end *end, enum fit fit)
{
	static const uint8_t fit_of[] = { [HOST_ANY] = FIT_ANY,
		[HOST_ADDR] = FIT_ADDR,
		[HOST_RANGE] = FIT_RANGE,
		[HOST_NAME] = FIT_NAME,
		[HOST_DEFAULTROUTE] = FIT_ANY };

	for (size_t i = 0; i < end->host_count; i++)
		if (end->host[i].kind < sizeof fit_of &&
		    fit_of[end->host[i].kind] == fit)
			return true;
	return false;
}

static bool
conn_is_bound(const struct conn *conn)
{
	return end_has(&conn->local, FIT_ADDR) ||
	       end_has(&conn->local, FIT_NAME);
}

static bool
conn_in_list(const struct conn *conn, enum fit fit)
{
	return conn->autostart != AUTO_IGNORE && end_has(&conn->remote, fit);
}

static bool
conn_is_loose(const struct conn *conn)
{
	return id_is_any(conn->remote.id) &&
	       (conn_in_list(conn, FIT_NAME) || conn_in_list(conn, FIT_RANGE) ||
	           conn_in_list(conn, FIT_ANY));
}

/* Two passes over conns for each list: bound ones first. skip: NULL, or marks
 * of those to be left out. */
static bool
list_build(struct list *list, const struct policy *policy, enum fit fit,
    const bool *skip)
{
	list->at = calloc(policy->count + 1, sizeof *list->at);
	if (list->at == NULL)
		return false;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < policy->count; i++) {
			const struct conn *conn = policy->conns[i];

			if (conn_is_bound(conn) != (pass == 0) ||
			    (skip != NULL && skip[i]))
				continue;
			if (fit == FIT_COUNT ? conn_is_loose(conn)
			                     : conn_in_list(conn, fit))
				list->at[list->count++] = (uint32_t)i;
		}
		if (pass == 0)
			list->bound = list->count;
	}
	return true;
}

static int
order_at(uint32_t a, uint32_t b)
{
	return a < b ? -1 : a > b;
}

static int
addr_spot_order(const void *a, const void *b)
{
	const struct addr_spot *left = a, *right = b;
	int order = addr_compare(&left->addr, &right->addr);

	return order != 0 ? order : order_at(left->at, right->at);
}

static int
id_spot_order(const void *a, const void *b)
{
	const struct id_spot *left = a, *right = b;

	if (left->hash != right->hash)
		return left->hash < right->hash ? -1 : 1;
	return order_at(left->at, right->at);
}

static int
name_order(const void *a, const void *b, void *arg)
{
	const struct policy *policy = arg;
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	int order =
	    strcmp(policy->conns[left]->name, policy->conns[right]->name);

	return order != 0 ? order : order_at(left, right);
}

static bool
addrs_build(struct reach *reach, const struct policy *policy, const bool *skip)
{
	reach->addrs =
	    calloc(policy->count * HOSTS_MAX + 1, sizeof *reach->addrs);
	if (reach->addrs == NULL)
		return false;
	for (size_t i = 0; i < policy->count; i++) {
		const struct conn *conn = policy->conns[i];
		const struct conn_end *end = &conn->remote;

		if (conn->autostart == AUTO_IGNORE || (skip && skip[i]))
			continue;
		for (size_t j = 0; j < end->host_count; j++) {
			struct addr_spot *spot =
			    &reach->addrs[reach->addr_count];

			if (end->host[j].kind != HOST_ADDR)
				continue;
			spot->addr = end->host[j].addr;
			spot->at = (uint32_t)i;
			reach->addr_count++;
		}
	}
	qsort(reach->addrs, reach->addr_count, sizeof *reach->addrs,
	    addr_spot_order);
	return true;
}

static bool
reach_build(struct reach *reach, const struct policy *policy, const bool *skip)
{
	for (enum fit fit = FIT_NAME; fit <= FIT_ANY; fit++)
		if (!list_build(&reach->by_fit[fit], policy, fit, skip))
			return false;
	return addrs_build(reach, policy, skip);
}

static void
reach_fini(struct reach *reach)
{
	free(reach->addrs);
	for (size_t i = 0; i < FIT_COUNT; i++)
		free(reach->by_fit[i].at);
}

static bool
spots_build(struct policy_index *index, const struct policy *policy)
{
	index->names = calloc(policy->count + 1, sizeof *index->names);
	index->ids = calloc(policy->count + 1, sizeof *index->ids);
	if (index->names == NULL || index->ids == NULL)
		return false;
	for (size_t i = 0; i < policy->count; i++) {
		const struct conn *conn = policy->conns[i];

		index->names[i] = (uint32_t)i;
		if (conn->autostart == AUTO_IGNORE ||
		    id_is_any(conn->remote.id))
			continue;
		index->ids[index->id_count].hash = id_hash(conn->remote.id);
		index->ids[index->id_count++].at = (uint32_t)i;
	}
	qsort_r(index->names, policy->count, sizeof *index->names, name_order,
	    (void *)(uintptr_t)policy);
	qsort(index->ids, index->id_count, sizeof *index->ids, id_spot_order);
	return true;
}

/* The same to a peer that has not said who it is. */
static bool
conns_alike(const struct conn *a, const struct conn *b)
{
	return a->keyexchange == b->keyexchange &&
	       (a->autostart == AUTO_IGNORE) == (b->autostart == AUTO_IGNORE) &&
	       a->remote.auth == b->remote.auth &&
	       a->local.auth == b->local.auth &&
	       hosts_equal(&a->local, &b->local) &&
	       hosts_equal(&a->remote, &b->remote) &&
	       proposals_equal(&a->ike, &b->ike);
}

/* Equal for those that are alike. */
static uint64_t
alike_hash(const struct conn *conn)
{
	const struct conn_end *ends[] = { &conn->local, &conn->remote };
	uint64_t hash = 0xcbf29ce484222325u + conn->keyexchange;

	for (size_t i = 0; i < 2; i++) {
		for (size_t j = 0; j < ends[i]->host_count; j++) {
			const struct conn_host *host = &ends[i]->host[j];
			struct view octets = addr_view(&host->addr);
			const char *name =
			    host->kind == HOST_NAME ? host->name : NULL;

			/* The answer of the last lookup does not count. */
			if (host->kind == HOST_NAME)
				octets = view_of(
				    name, name == NULL ? 0 : strlen(name));
			hash = (hash ^ host->kind) * 0x100000001b3u;
			for (size_t k = 0; k < octets.len; k++)
				hash = (hash ^ octets.at[k]) * 0x100000001b3u;
		}
	}
	return (hash ^ conn->ike.count) * 0x100000001b3u;
}

/* Marks all but the first of those that are alike. The caller frees. */
static bool *
twins_find(const struct policy *policy)
{
	struct id_spot *spots = calloc(policy->count + 1, sizeof *spots);
	bool *twin = calloc(policy->count + 1, sizeof *twin);

	if (spots == NULL || twin == NULL) {
		free(spots);
		free(twin);
		return NULL;
	}
	for (size_t i = 0; i < policy->count; i++) {
		spots[i].hash = alike_hash(policy->conns[i]);
		spots[i].at = (uint32_t)i;
	}
	qsort(spots, policy->count, sizeof *spots, id_spot_order);
	for (size_t i = 1; i < policy->count; i++) {
		const struct conn *conn = policy->conns[spots[i].at];
		size_t j = i;

		/* Against the firsts before it under the same hash, and the
		 * nearest one is nearly always like it. */
		while (j-- > 0 && spots[j].hash == spots[i].hash) {
			if (conns_alike(policy->conns[spots[j].at], conn)) {
				twin[spots[i].at] = true;
				break;
			}
		}
	}
	free(spots);
	return twin;
}

static void
index_free(struct policy_index *index)
{
	if (index == NULL)
		return;
	free(index->names);
	free(index->ids);
	reach_fini(&index->all);
	reach_fini(&index->distinct);
	free(index->loose.at);
	free(index);
}

static struct policy_index *
index_new(const struct policy *policy)
{
	struct policy_index *index = calloc(1, sizeof *index);
	bool *twin = twins_find(policy);
	bool good;

	if (index == NULL || twin == NULL) {
		free(index);
		free(twin);
		return NULL;
	}
	index->last_reqid = REQID_FIRST - 1;
	good = spots_build(index, policy) &&
	       reach_build(&index->all, policy, NULL) &&
	       reach_build(&index->distinct, policy, twin) &&
	       list_build(&index->loose, policy, FIT_COUNT, NULL);
	free(twin);
	if (!good) {
		index_free(index);
		return NULL;
	}
	return index;
}

struct policy *
policy_new(struct conn **conns, size_t count)
{
	struct policy *policy = calloc(1, sizeof *policy);

	if (policy == NULL)
		return NULL;
	policy->refs = 1;
	policy->uniqueids = true;
	policy->conns = calloc(count + 1, sizeof *policy->conns);
	if (policy->conns == NULL) {
		free(policy);
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		policy->conns[i] = conns[i];
		conns[i]->order = i;
	}
	policy->count = count;
	policy->index = index_new(policy);
	if (policy->index == NULL) {
		free(policy->conns);
		free(policy);
		return NULL;
	}
	return policy;
}

struct policy *
policy_ref(const struct policy *policy)
{
	struct policy *counted = (struct policy *)(uintptr_t)policy;

	if (counted != NULL)
		counted->refs++;
	return counted;
}

void
policy_unref(struct policy *policy)
{
	if (policy == NULL || --policy->refs > 0)
		return;
	for (size_t i = 0; i < policy->count; i++)
		conn_unref(policy->conns[i]);
	index_free(policy->index);
	free(policy->conns);
	free(policy);
}

/* Position of the connection of this name, or -1. */
static ptrdiff_t
policy_find(const struct policy *policy, const char *name)
{
	size_t low = 0, high = policy->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		uint32_t at = policy->index->names[middle];
		int order = strcmp(policy->conns[at]->name, name);

		if (order == 0)
			return (ptrdiff_t)at;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

struct conn *
policy_conn(const struct policy *policy, const char *name)
{
	ptrdiff_t at = policy_find(policy, name);

	return at < 0 ? NULL : policy->conns[at];
}

/* Candidates ------------------------------------------------------------- */

struct want {
	const struct policy *policy;
	const struct addr *local, *remote;
	unsigned version;
	struct conn **found;
	size_t count, max;
};

/* Adds the connection at this position if this is how it fits. */
static void
want_add(struct want *want, uint32_t at, enum fit fit, bool exact)
{
	struct conn *conn = want->policy->conns[at];
	bool is_exact;

	if (want->count == want->max || !conn_allows(conn, want->version))
		return;
	if (end_fit(&conn->remote, want->remote) != fit ||
	    !local_fit(&conn->local, want->local, &is_exact) ||
	    is_exact != exact)
		return;
	if (want->count > 0 && want->found[want->count - 1] == conn)
		return; /* the same address twice in right= */
	want->found[want->count++] = conn;
}

static void
want_list(struct want *want, const struct list *list, enum fit fit)
{
	for (size_t i = 0; i < list->bound && want->count < want->max; i++)
		want_add(want, list->at[i], fit, true);
	for (size_t i = 0; i < list->count && want->count < want->max; i++)
		want_add(want, list->at[i], fit, false);
}

static void
want_addr(struct want *want, const struct reach *reach)
{
	size_t low = 0, high = reach->addr_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (addr_compare(&reach->addrs[middle].addr, want->remote) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (int exact = 1; exact >= 0; exact--)
		for (size_t i = low;
		     i < reach->addr_count && want->count < want->max &&
		     addr_equal(&reach->addrs[i].addr, want->remote);
		     i++)
			want_add(want, reach->addrs[i].at, FIT_ADDR, exact);
}

static size_t
want_reach(struct want *want, const struct reach *reach)
{
	want_addr(want, reach);
	for (enum fit fit = FIT_NAME; fit <= FIT_ANY; fit++)
		want_list(want, &reach->by_fit[fit], fit);
	return want->count;
}

size_t
policy_candidates(const struct policy *policy, const struct addr *local,
    const struct addr *remote, unsigned version, struct conn **found,
    size_t max)
{
	struct want want = { policy, local, remote, version, found, 0, max };

	return want_reach(&want, &policy->index->all);
}

size_t
policy_distinct(const struct policy *policy, const struct addr *local,
    const struct addr *remote, unsigned version, struct conn **found,
    size_t max)
{
	struct want want = { policy, local, remote, version, found, 0, max };

	return want_reach(&want, &policy->index->distinct);
}

size_t
policy_identify(struct conn **found, size_t count, const struct ident *local,
    const struct addr *local_addr, const struct ident *remote,
    const struct addr *remote_addr)
{
	size_t end[4] = { 0 }; /* behind those of each score, best first */
	size_t left = 0;

	(void)remote_addr; /* an end of one address is compared by itself */
	for (size_t i = 0; i < count; i++) {
		struct conn *conn = found[i];
		unsigned theirs = remote_id_fit(conn, remote);
		unsigned ours =
		    id_fit(id_is_any(conn->local.id) ? NULL : conn->local.id,
		        local_addr, local);
		size_t group, at;

		if (theirs == 0 || ours == 0)
			continue;
		group = (theirs == 2 ? 0u : 2u) + (ours == 2 ? 0u : 1u);
		at = end[group];
		memmove(&found[at + 1], &found[at],
		    (left - at) * sizeof(struct conn *));
		found[at] = conn;
		left++;
		for (; group < 4; group++)
			end[group]++;
	}
	return left;
}

/* Those that name this identity, in order of fit. */
static void
want_id(struct want *want, const struct ident *remote)
{
	const struct policy_index *index = want->policy->index;
	uint64_t hash = id_hash(remote);
	size_t low = 0, high = index->id_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (index->ids[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	for (enum fit fit = FIT_ADDR; fit <= FIT_ANY; fit++)
		for (int exact = 1; exact >= 0; exact--)
			for (size_t i = low;
			     i < index->id_count && index->ids[i].hash == hash;
			     i++) {
				uint32_t at = index->ids[i].at;

				if (ident_equal(
				        want->policy->conns[at]->remote.id,
				        remote))
					want_add(want, at, fit, exact);
			}
}

size_t
policy_by_identity(const struct policy *policy, const struct addr *local_addr,
    const struct addr *remote_addr, unsigned version, const struct ident *local,
    const struct ident *remote, struct conn **found, size_t max)
{
	struct want want = { policy, local_addr, remote_addr, version, found, 0,
		max };
	size_t named, left;

	want_id(&want, remote);
	named = policy_identify(
	    found, want.count, local, local_addr, remote, remote_addr);
	want.count = named;
	/* Then those that any identity fits, or the address as identity. */
	want_addr(&want, &policy->index->all);
	for (enum fit fit = FIT_NAME; fit <= FIT_ANY; fit++)
		want_list(&want, &policy->index->loose, fit);
	left = named;
	for (size_t i = named; i < want.count; i++)
		if (id_is_any(found[i]->remote.id))
			found[left++] = found[i];
	return policy_identify(
	    found, left, local, local_addr, remote, remote_addr);
}

/* Difference ------------------------------------------------------------- */

static bool
reqid_taken(const struct policy *policy, uint32_t reqid)
{
	for (size_t i = 0; i < policy->count; i++)
		if (policy->conns[i]->reqid == reqid)
			return true;
	return false;
}

static uint32_t
reqid_next(const struct policy *old, const struct policy *next)
{
	struct policy_index *index = next->index;

	/* Eight million names later numbers come again, and only then can
	 * one be in use. There are fewer connections than numbers: it ends. */
	do {
		if (index->last_reqid >= REQID_CONN_LAST) {
			index->last_reqid = REQID_FIRST - 1;
			index->wrapped = true;
		}
		index->last_reqid++;
	} while (index->wrapped &&
	         (reqid_taken(next, index->last_reqid) ||
	             (old != NULL && reqid_taken(old, index->last_reqid))));
	return index->last_reqid;
}

static enum policy_change
diff_one(struct policy *old, struct policy *next, size_t at)
{
	struct conn *conn = next->conns[at];
	ptrdiff_t before = old == NULL ? -1 : policy_find(old, conn->name);
	struct conn *was = before < 0 ? NULL : old->conns[before];

	if (was == NULL) {
		if (conn->reqid == 0)
			conn->reqid = reqid_next(old, next);
		return CHANGE_NEW;
	}
	if (was->reqid == 0)
		was->reqid = reqid_next(old, next);
	if (!conn_equal(was, conn)) {
		conn->reqid = was->reqid;
		return CHANGE_CHANGED;
	}
	if (was != conn) {
		next->conns[at] = conn_ref(was);
		next->conns[at]->order = at;
		conn_unref(conn);
	}
	return CHANGE_SAME;
}

void
policy_diff(struct policy *old, struct policy *next,
    void (*visit)(enum policy_change change, struct conn *old_conn,
        struct conn *new_conn, void *arg),
    void *arg)
{
	if (old != NULL && next != NULL) {
		next->index->last_reqid = old->index->last_reqid;
		next->index->wrapped = old->index->wrapped;
	}
	for (size_t i = 0; old != NULL && i < old->count; i++) {
		const char *name = old->conns[i]->name;

		if (next != NULL && policy_find(next, name) >= 0)
			continue;
		if (visit != NULL)
			visit(CHANGE_GONE, old->conns[i], NULL, arg);
	}
	for (size_t i = 0; next != NULL && i < next->count; i++) {
		enum policy_change change = diff_one(old, next, i);

		if (visit != NULL)
			visit(change,
			    change == CHANGE_NEW
			        ? NULL
			        : policy_conn(old, next->conns[i]->name),
			    next->conns[i], arg);
	}
}
