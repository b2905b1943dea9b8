/*
 * What an engine does not renew, because the configuration in force does not
 * allow it any more: it gets a successor, made before it is closed, where we
 * keep the connection up and know where the peer is; else it is closed, and
 * the peer may begin anew.
 */
#include <stdlib.h>

#include "common/engine.h"
#include "common/sa.h"
#include "daemon/attempt.h"
#include "daemon/keep.h"

enum fate {
	STAYS,    /* until its successor is up, or its lifetime ends */
	REPLACED, /* the successor is up */
	ENDS      /* nobody here wants one */
};

static enum fate
fate_of(struct keeper *keeper, const struct child_sa *child)
{
	struct keep *keep = keep_find(keeper, child->conn->name);

	if (keep == NULL)
		return ENDS;
	if (attempt_child(keep) != NULL)
		return REPLACED;
	if (keep->state == KEEP_GIVEN_UP)
		return STAYS;
	if (keep->state == KEEP_UP && attempt_reachable(keep)) {
		keep->anew = keep->again = true;
		keep->tries = 0;
		keep_act(keep);
	}
	return keep->wanted || keep->anew ? STAYS : ENDS;
}

/* An IKE SA closes when none of its children waits for a successor. */
static void
look_at_sa(struct keeper *keeper, struct ike_sa *sa)
{
	const struct child_sa *child;
	bool ends = sa->child_count == 0, stays = false;

	for (child = sa->children; child != NULL; child = child->next) {
		enum fate fate = fate_of(keeper, child);

		stays = stays || fate == STAYS;
		ends = ends || fate == ENDS;
	}
	if (stays) {
		keeper->stale = true;
		return;
	}
	sa_log(sa, ends ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "%s",
	    ends ? "closed, for it is not rekeyed, and nobody here begins it "
	           "anew: the peer may"
	         : "replaced by a new IKE SA");
	sa->engine->close(sa);
}

/* The stale child with the lowest serial after this one. */
static struct child_sa *
next_stale(const struct ike_sa *sa, uint64_t after)
{
	struct child_sa *child, *found = NULL;

	for (child = sa->children; child != NULL; child = child->next)
		if (child->stale && child->serial > after &&
		    (child->state == CHILD_UP ||
		        child->state == CHILD_INBOUND) &&
		    (found == NULL || child->serial < found->serial))
			found = child;
	return found;
}

static void
look_at_children(struct keeper *keeper, struct ike_sa *sa)
{
	struct child_sa *child;
	uint64_t after = 0;

	while ((child = next_stale(sa, after)) != NULL) {
		enum fate fate = fate_of(keeper, child);

		after = child->serial;
		if (fate == STAYS) {
			keeper->stale = true;
			continue;
		}
		sa_log(sa, fate == ENDS ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
		    "child %08x in, %08x out: %s", child->spi_in,
		    child->spi_out,
		    fate == ENDS
		        ? "deleted, for it is not rekeyed, and nobody here "
		          "begins it anew: the peer may"
		        : "replaced by a new one");
		sa->engine->child_close(child);
	}
}

void
keeper_stale(void *arg)
{
	struct keeper *keeper = arg;
	struct sadb *db = keeper->env->sadb;
	uint64_t *serials;
	size_t count;

	keeper->stale = false;
	serials = keep_serials(db, &count);
	for (size_t i = 0; i < count; i++) {
		struct ike_sa *sa = sa_by_serial(db, serials[i]);

		if (sa == NULL)
			continue;
		sa_hold(sa);
		if (sa->stale && sa->state == IKE_ESTABLISHED)
			look_at_sa(keeper, sa);
		else if (!sa->stale)
			look_at_children(keeper, sa);
		sa_release(sa);
	}
	free(serials);
}
