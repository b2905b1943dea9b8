#include "common/terms.h"

#include "common/engine.h"

/* What is in force under the name of was; NULL: nothing, or nothing new. */
static const struct conn *
changed(const struct ike_sa *sa, const struct conn *was)
{
	const struct policy *policy = sa->env->policy;
	const struct conn *now =
	    policy == NULL ? NULL : policy_conn(policy, was->name);

	return now == was ? NULL : now;
}

static bool
same_terms(
    const struct ike_sa *sa, const struct conn *now, const struct conn *was)
{
	return conn_allows(now, sa->engine->version) &&
	       conn_same_peer(now, was);
}

bool
terms_sa(const struct ike_sa *sa)
{
	const struct conn *now = changed(sa, sa->conn);

	return now == NULL || same_terms(sa, now, sa->conn);
}

bool
terms_child(const struct child_sa *child, const struct ts_list *local,
    const struct ts_list *remote)
{
	const struct ike_sa *sa = child->sa;
	const struct conn *now = changed(sa, child->conn);
	struct ts_list ours, theirs;

	if (now == NULL)
		return true;
	if (!same_terms(sa, now, child->conn) || now->mode != child->mode)
		return false;
	conn_ts(&now->local, &sa->local.addr, &ours);
	conn_ts(&now->remote, &sa->remote.addr, &theirs);
	return ts_list_within(local, &ours) && ts_list_within(remote, &theirs);
}

void
terms_end_sa(struct ike_sa *sa, const char *why)
{
	if (sa->stale)
		return;
	sa->stale = true;
	sa_log(sa, LOG_LEVEL_INFO, "the IKE SA is not rekeyed: %s", why);
	sa_event(sa, NULL, EVENT_STALE, OK, false, why);
}

void
terms_end_child(struct child_sa *child)
{
	static const char why[] =
	    "its connection does not allow it any more as it is";
	struct ike_sa *sa = child->sa;

	if (child->stale)
		return;
	child->stale = true;
	sa_log(sa, LOG_LEVEL_INFO, "child %08x in, %08x out is not rekeyed: %s",
	    child->spi_in, child->spi_out, why);
	sa_event(sa, child, EVENT_STALE, OK, false, why);
}
